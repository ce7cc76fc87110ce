"""torchvision's sets, read from small files in each set's own format."""

import json
import pickle

import numpy as np
import pytest
import torchvision.datasets

from vcr_zoo.data import load, load_test
from vcr_zoo.data.cifar100 import COARSE, PARENT
from vcr_zoo.data.standard import DONE, ROWS, without_half_unpacked

from .sets import write_bytes, write_picture, write_tree

TRAIN, TEST = 40, 10


def cifar(root, classes: int, folder: str, train: list[str], test: str, meta: str, key: str):
    """Pickled batches of rows of 3,072 bytes, channels first."""
    rng = np.random.default_rng(0)

    def batch(n):
        labels = [i % classes for i in range(n)]
        x = rng.integers(0, 256, (n, 3072), dtype=np.uint8)
        return {"data": x, "labels" if classes == 10 else "fine_labels": labels}

    names = sorted(PARENT) if classes == 100 else [f"thing {i}" for i in range(10)]
    files = {name: batch(TRAIN // len(train)) for name in train} | {test: batch(TEST)}
    for name, content in (files | {meta: {key: names}}).items():
        write_bytes(root / folder / name, pickle.dumps(content))


def cifar10(root):
    train = [f"data_batch_{i}" for i in range(1, 6)]
    cifar(root, 10, "cifar-10-batches-py", train, "test_batch", "batches.meta", "label_names")


def cifar100(root):
    cifar(root, 100, "cifar-100-python", ["train"], "test", "meta", "fine_label_names")


def flowers102(root):
    from scipy.io import savemat

    base, n = root / "flowers-102", TRAIN + TEST
    for i in range(1, n + 1):
        write_picture(base / "jpg" / f"image_{i:05d}.jpg", i)
    savemat(base / "imagelabels.mat", {"labels": np.arange(n) % 102 + 1})
    ids = np.arange(1, n + 1)
    split = {"trnid": ids[: TRAIN // 2], "valid": ids[TRAIN // 2 : TRAIN], "tstid": ids[TRAIN:]}
    savemat(base / "setid.mat", split)


def pets(root):
    base = root / "oxford-iiit-pet"
    for part, first, n in (("trainval", 0, TRAIN), ("test", TRAIN, TEST)):
        lines = []
        for i in range(first, first + n):
            name = f"{'Abyssinian' if i % 2 else 'beagle'}_{i}"
            write_picture(base / "images" / f"{name}.jpg", i)
            lines.append(f"{name} {1 + (i + 1) % 2} {1 + (i + 1) % 2} 1\n")
        write_bytes(base / "annotations" / f"{part}.txt", "".join(lines).encode())


def dtd(root):
    base, names, i = root / "dtd" / "dtd", ("banded", "woven"), 0
    for part, n in (("train", TRAIN // 2), ("val", TRAIN // 2), ("test", TEST)):
        lines = []
        for _ in range(n):
            lines.append(f"{names[i % 2]}/{names[i % 2]}_{i}.jpg\n")
            write_picture(base / "images" / lines[-1].strip(), i)
            i += 1
        write_bytes(base / "labels" / f"{part}1.txt", "".join(lines).encode())


def food101(root):
    base, i = root / "food-101", 0
    for part, n in (("train", TRAIN), ("test", TEST)):
        listed = {"pizza": [], "ramen": []}
        for _ in range(n):
            name = ("pizza", "ramen")[i % 2]
            listed[name].append(f"{name}/{i}")
            write_picture(base / "images" / f"{name}/{i}.jpg", i)
            i += 1
        write_bytes(base / "meta" / f"{part}.json", json.dumps(listed).encode())


def aircraft(root):
    base, i = root / "fgvc-aircraft-2013b" / "data", 0
    write_bytes(base / "variants.txt", b"707-320\nA300B4\n")
    for part, n in (("trainval", TRAIN), ("test", TEST)):
        lines = []
        for _ in range(n):
            lines.append(f"{i:07d} {('707-320', 'A300B4')[i % 2]}\n")
            write_picture(base / "images" / f"{i:07d}.jpg", i)
            i += 1
        write_bytes(base / f"images_variant_{part}.txt", "".join(lines).encode())


def cars(root):
    from scipy.io import savemat

    base, i = root / "stanford_cars", 0
    kind = np.dtype([("fname", object), ("class", int)])
    (base / "devkit").mkdir(parents=True)
    savemat(base / "devkit" / "cars_meta.mat", {"class_names": np.array(["Audi", "Fiat"], object)})
    places = ("devkit/cars_train_annos", "cars_test_annos_withlabels")
    for part, place, n in (("train", places[0], TRAIN), ("test", places[1], TEST)):
        rows = []
        for _ in range(n):
            write_picture(base / f"cars_{part}" / f"{i:05d}.jpg", i)
            rows.append((f"{i:05d}.jpg", 1 + i % 2))
            i += 1
        savemat(base / f"{place}.mat", {"annotations": np.array(rows, kind)})


def svhn(root):
    from scipy.io import savemat

    rng = np.random.default_rng(0)
    for part, n in (("train", TRAIN), ("test", TEST)):
        x = rng.integers(0, 256, (32, 32, 3, n), dtype=np.uint8)
        savemat(root / f"{part}_32x32.mat", {"X": x, "y": (np.arange(n) % 10 + 1)[:, None]})


def eurosat(root):
    write_tree(root / "eurosat" / "2750", ("Forest", "River"), (TRAIN + TEST) // 2)


def stl10(root):
    base, rng = root / "stl10_binary", np.random.default_rng(0)
    for part, n in (("train", TRAIN), ("test", TEST)):
        write_bytes(base / f"{part}_X.bin", rng.integers(0, 256, n * 27648, dtype="u1").tobytes())
        write_bytes(base / f"{part}_y.bin", (np.arange(n) % 10 + 1).astype("u1").tobytes())
    write_bytes(base / "class_names.txt", "\n".join(map(str, range(10))).encode())


WRITERS = (cifar10, cifar100, flowers102, pets, dtd, food101, aircraft, cars, svhn, eurosat, stl10)


@pytest.fixture
def unchecked(monkeypatch):
    """torchvision's MD5 sums are of the real files; ours are made."""
    for module in ("cifar", "flowers102", "svhn", "stl10"):
        place = getattr(torchvision.datasets, module)
        monkeypatch.setattr(place, "check_integrity", lambda *_: True)


def test_every_set_has_a_writer():
    """A newcomer to the table is exercised here."""
    assert {row.name for row in ROWS} == {writer.__name__ for writer in WRITERS}


@pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)
def test_standard_sets_are_read_from_their_own_format(writer, tmp_path, unchecked):
    """Parts, sizes and labels, from torchvision's layout in a folder of the user's."""
    root = tmp_path / "root"
    root.mkdir()
    writer(root)
    name = writer.__name__
    row = next(row for row in ROWS if row.name == name)
    train, validation = load(name, folder=root), load(name, "validation")
    test = load_test(name)
    assert len(train) + len(validation) + len(test) == TRAIN + TEST
    assert len(test) == TEST or name == "eurosat"
    for images in (train, validation, test):
        assert images.x.shape[1:] == row.shape and images.x.dtype == np.uint8
        assert set(images.y) <= set(range(len(images.classes)))
    assert not set(train.groups) & (set(validation.groups) | set(test.groups))
    assert train[0][0].mode == "RGB" and len(set(train.y)) > 1


def test_the_right_picture_has_the_right_label(tmp_path, unchecked):
    """Channels, rows and columns of SVHN and STL-10 arrive as torchvision shows them."""
    for writer, reader in ((svhn, torchvision.datasets.SVHN), (stl10, torchvision.datasets.STL10)):
        root = tmp_path / writer.__name__
        root.mkdir()
        writer(root)
        ours = load_test(writer.__name__, folder=root)
        theirs = reader(str(root), split="test")
        for index in (0, 7):
            picture, label = theirs[index]
            assert (np.asarray(picture) == ours.x[index]).all() and label == ours.y[index]


def test_cifar100_s_super_classes_are_the_published_ones(tmp_path, unchecked):
    """Against the list of coarse labels that goes with the alphabetical fine ones."""
    published = """4 1 14 8 0 6 7 7 18 3 3 14 9 18 7 11 3 9 7 11 6 11 5 10 7 6 13 15 3 15 0 11 1 10
        12 14 16 9 11 5 5 19 8 8 15 13 14 17 18 10 16 4 17 4 2 0 17 4 18 17 10 3 2 12 12 16 12 1 9
        19 2 10 0 1 16 12 9 13 15 13 16 19 2 4 6 19 5 5 8 19 18 1 2 15 6 0 17 8 14 13"""
    places = [list(COARSE).index(PARENT[fine]) for fine in sorted(PARENT)]
    assert places == [int(place) for place in published.split()]
    cifar100(tmp_path)
    coarse, fine = load("cifar100", level="coarse", folder=tmp_path), load("cifar100")
    assert len(coarse.classes) == 20
    assert all(
        PARENT[fine.classes[a]] == coarse.classes[b] for a, b in zip(fine.y, coarse.y, strict=True)
    )


def test_train_pictures_that_the_test_part_has_are_left_out(tmp_path, unchecked):
    """CIFAR repeats some; the official test part stays whole."""
    cifar10(tmp_path)
    base = tmp_path / "cifar-10-batches-py"
    train, test = (
        pickle.loads((base / name).read_bytes()) for name in ("data_batch_1", "test_batch")
    )
    train["data"][:3] = test["data"][:3]
    (base / "data_batch_1").write_bytes(pickle.dumps(train))
    sizes = [len(load("cifar10", part, folder=tmp_path)) for part in ("train", "validation")]
    assert sum(sizes) == TRAIN - 3 and len(load_test("cifar10")) == TEST


def test_a_folder_without_the_set_is_refused(tmp_path):
    """Saying which layout is expected, and what to type."""
    with pytest.raises(
        FileNotFoundError, match=r"FGVCAircraft.*vcr-zoo data get aircraft --folder"
    ):
        load("aircraft", folder=tmp_path)


def test_a_truncated_photograph_is_named(tmp_path):
    """The picture is named, and no set is left behind."""
    dtd(tmp_path)
    victim = tmp_path / "dtd/dtd/images/woven/woven_5.jpg"
    victim.write_bytes(victim.read_bytes()[:200])
    with pytest.raises(ValueError, match="5 of dtd's train part does not decode"):
        load("dtd", folder=tmp_path)
    with pytest.raises(FileNotFoundError):
        load("dtd", folder=tmp_path / "absent")


def test_a_killed_download_keeps_archives_only(tmp_path):
    """torchvision would take the half-unpacked folder for the whole."""
    write_bytes(tmp_path / "dtd" / "dtd.tar.gz", b"packed")
    write_bytes(tmp_path / "dtd" / "dtd" / "images" / "a.jpg", b"half")
    without_half_unpacked(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["dtd.tar.gz"]
    assert not (tmp_path / "dtd" / "dtd").exists() and not (tmp_path / DONE).exists()
