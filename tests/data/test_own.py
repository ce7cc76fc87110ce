"""Folders, shards and the Hub's format: one's own pictures behind the same rules."""

import io
import os
import shutil
import tarfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vcr_zoo.data import load, load_test, own
from vcr_zoo.data.pictures import Labelled, gathered

from .sets import noise, write_picture, write_tree


def test_a_folder_of_classes_is_cut_by_hash(tmp_path):
    """Every picture once, in one part; names of classes from the folders."""
    write_tree(tmp_path / "own", ("ape", "bee", "cow"), 20)
    name = f"folder/{tmp_path / 'own'}@16"
    parts = [load(name), load(name, "validation"), load_test(name)]
    assert sum(map(len, parts)) == 60 and all(len(part) for part in parts)
    assert parts[0].classes == ("ape", "bee", "cow") and parts[0].x.shape[1:] == (16, 16, 3)
    groups = [set(part.groups) for part in parts]
    assert not groups[0] & groups[1] and not (groups[0] | groups[1]) & groups[2]


def test_every_class_of_a_small_folder_is_in_every_part(tmp_path):
    """By hash alone, a class of four pictures could be missing from the test part."""
    classes = tuple(f"class {i}" for i in range(12))
    write_tree(tmp_path / "own", classes, 4)
    name = f"folder/{tmp_path / 'own'}@16"
    counts = [np.bincount(part.y) for part in (load(name), load(name, "validation"))]
    assert [count.tolist() for count in counts] == [[2] * 12, [1] * 12]
    assert np.bincount(load_test(name).y).tolist() == [1] * 12


def test_a_class_folder_without_pictures_is_refused_by_name(tmp_path):
    """Left out in silence, every later number would be of fewer classes than one believes."""
    write_tree(tmp_path / "own", ("ape", "bee"), 8)
    write_tree(tmp_path / "own", (".thumbnails",), 2, seed=90)
    assert load(f"folder/{tmp_path / 'own'}@16").classes == ("ape", "bee")
    (tmp_path / "own" / "cow").mkdir()
    (tmp_path / "own" / "cow" / "one.heic").write_bytes(b"")
    with pytest.raises(ValueError, match=r"own/cow: a class without pictures .*\.png"):
        load(f"folder/{tmp_path / 'own'}@16")


@pytest.mark.parametrize("held_out", ["test", "validation", "val"])
def test_parts_that_come_as_folders_stay(tmp_path, held_out):
    """ImageNet's layout: its validation part is the test part, ours is cut from train."""
    write_tree(tmp_path / "train", ("ape", "bee"), 20)
    write_tree(tmp_path / held_out, ("ape", "bee"), 5, seed=100)
    name = f"folder/{tmp_path}@16"
    assert len(load_test(name)) == 10
    assert len(load(name)) + len(load(name, "validation")) == 40


def test_all_three_parts_stay(tmp_path):
    """Nothing is cut where everything is given, but repeated pictures leave train."""
    write_tree(tmp_path / "train", ("ape", "bee"), 20)
    write_tree(tmp_path / "val", ("ape", "bee"), 4, seed=200)
    write_tree(tmp_path / "test", ("ape", "bee"), 3, seed=300)
    write_picture(tmp_path / "train" / "ape" / "leak.png", 300)
    name = f"folder/{tmp_path}@16"
    assert [len(load(name)), len(load(name, "validation")), len(load_test(name))] == [40, 8, 6]


def test_a_folder_that_changes_is_read_again(tmp_path):
    """The cache belongs to the files that were there."""
    write_tree(tmp_path / "own", ("ape", "bee"), 8)
    name = f"folder/{tmp_path / 'own'}@16"
    before = load(name, "train+validation")
    write_tree(tmp_path / "own", ("cow",), 8, seed=50)
    after = load(name, "train+validation")
    assert after.classes == ("ape", "bee", "cow") and len(after) > len(before)
    assert before.fingerprint != after.fingerprint


def test_pictures_are_cropped_in_the_middle(tmp_path):
    """Resized by the shorter side, transparent ground white."""
    write_tree(tmp_path / "own", ("ape", "bee"), 8)
    wide = np.zeros((10, 30, 4), np.uint8)
    wide[:, 10:20] = (9, 9, 9, 255)
    for index in range(6):
        wide[0, 0, 0] = index
        Image.fromarray(wide).save(tmp_path / "own" / "bee" / f"wide{index}.png")
    images = load(f"folder/{tmp_path / 'own'}@10", "train+validation")
    assert any((x == 9).all() for x in images.x)


def shard(path, samples) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in samples:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


def png(seed: int) -> bytes:
    data = io.BytesIO()
    noise(seed).save(data, "png")
    return data.getvalue()


def sample(seed: int) -> list:
    return [(f"{seed:04d}.png", png(seed)), (f"{seed:04d}.cls", str(seed % 3).encode())]


def test_shards_are_read_where_they_lie(tmp_path):
    """webdataset's layout: pictures and class numbers by key, parts by the shards' names."""
    for index in range(3):
        pairs = [pair for seed in range(10 * index, 10 * index + 10) for pair in sample(seed)]
        shard(tmp_path / f"train-{index:03d}.tar", pairs)
    shard(tmp_path / "val-000.tar", [pair for seed in range(90, 96) for pair in sample(seed)])
    name = f"wds/{tmp_path}@12"
    train, test = load(name, "train+validation"), load_test(name)
    assert len(train) == 30 and len(test) == 6 and train.classes == ("0", "1", "2")
    assert np.bincount(train.y).tolist() == [10, 10, 10]


def test_a_shard_that_changes_is_read_again(tmp_path):
    """Also where the name is that of one file."""
    name = f"wds/{tmp_path / 'one.tar'}@12"
    for n in (10, 30):
        shard(tmp_path / "one.tar", [pair for seed in range(n) for pair in sample(seed)])
        parts = [load(name, "train+validation"), load_test(name)]
        assert sum(map(len, parts)) == n


@pytest.mark.parametrize("prefix", ["./", "a.b/", "deep/er/"])
def test_keys_of_shards_end_at_the_file_s_first_dot(tmp_path, prefix):
    """`tar c .` writes ./0001.png; folders may have dots; hidden files are passed over."""
    pairs = [(prefix + name, data) for seed in range(20) for name, data in sample(seed)]
    shard(tmp_path / "s.tar", [*pairs, (f"{prefix}._0001.png", b"not ours")])
    name = f"wds/{tmp_path}@12"
    assert len(load(name, "train+validation")) + len(load_test(name)) == 20


@pytest.mark.parametrize("shards", ["imagenet-{}-00", "{}_00", "x.{}", "{}/00"])
def test_the_part_is_any_word_of_a_shard_s_name(tmp_path, shards):
    """Validation pictures must not end up in train because of what the name begins with."""
    for part, seeds in (("train", range(20)), ("validation", range(20, 26))):
        pairs = [pair for seed in seeds for pair in sample(seed)]
        shard(tmp_path / "all" / f"{shards.format(part)}.tar", pairs)
    name = f"wds/{tmp_path / 'all'}@12"
    assert len(load_test(name)) == 6 and len(load(name, "train+validation")) == 20


def test_only_a_validation_part_is_refused(tmp_path):
    """There is nothing to train on, and no statistics of it."""
    shard(tmp_path / "val-0.tar", [pair for seed in range(9) for pair in sample(seed)])
    with pytest.raises(ValueError, match="none of its 9 pictures is for training"):
        load(f"wds/{tmp_path}@12")


def test_an_at_sign_may_be_the_folder_s_own(tmp_path):
    """me@host/pictures has no size; me@host/pictures@16 has one."""
    write_tree(tmp_path / "me@host", ("ape", "bee"), 8)
    name = f"folder/{tmp_path / 'me@host'}"
    assert load(name).x.shape[1:] == (224, 224, 3)
    assert load(f"{name}@16").x.shape[1:] == (16, 16, 3)


def test_equal_pictures_have_one_fingerprint_wherever_they_lie(tmp_path):
    """Results of two machines are comparable; other pictures differ."""
    for place, seed in (("here", 0), ("there", 0), ("other", 50)):
        write_tree(tmp_path / place, ("ape", "bee"), 8, seed)
    here, there, other = (
        load(f"folder/{tmp_path / place}@8").fingerprint for place in ("here", "there", "other")
    )
    assert here == there != other


def test_pictures_of_16_bits_are_refused_by_name(tmp_path):
    """Pillow would clip them to white in silence."""
    write_tree(tmp_path / "own", ("ape", "bee"), 4)
    deep = np.arange(400, dtype=np.uint16).reshape(20, 20) * 100
    Image.fromarray(deep).save(tmp_path / "own" / "ape" / "deep.png")
    with pytest.raises(ValueError, match=r"deep\.png does not decode: mode I.*use 8 bits"):
        load(f"folder/{tmp_path / 'own'}@8")


def test_labels_that_are_no_class_are_refused(tmp_path):
    """As the Hub's hidden test labels, -1, which would count as the last class."""
    items = [Labelled(f"number {label}", lambda: noise(1), label) for label in (0, 1, -1)]
    with pytest.raises(ValueError, match="number -1 has the label -1"):
        gathered(items, ("ape", "bee"), 8, tmp_path)


@pytest.mark.parametrize(
    "samples, message",
    [
        ([("a.png", b"")], "a has no picture or no .cls"),
        ([("a.png", b"x"), ("a.cls", b"cat")], "no class number"),
        (
            [*sample(1), ("a.png", b"no picture"), ("a.cls", b"0")],
            "a of .* does not decode: no picture of",
        ),
        ([], "two classes are needed"),
    ],
)
def test_bad_shards_are_named(tmp_path, samples, message):
    """The shard and the key, before anything is built."""
    shard(tmp_path / "s.tar", samples)
    with pytest.raises(ValueError, match=message):
        load(f"wds/{tmp_path}@12")


def test_a_truncated_shard_is_named(tmp_path):
    """As after an interrupted copy."""
    shard(tmp_path / "s.tar", [pair for seed in range(4) for pair in sample(seed)])
    data = (tmp_path / "s.tar").read_bytes()
    (tmp_path / "s.tar").write_bytes(data[:700])
    with pytest.raises(ValueError, match=r"s\.tar is truncated|does not decode"):
        load(f"wds/{tmp_path}@12")


def test_the_hub_s_format_is_read(tmp_path, monkeypatch):
    """A folder as the `datasets` library reads it, with splits of its own."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "arrow")
    write_tree(tmp_path / "hub" / "train", ("ape", "bee"), 10)
    write_tree(tmp_path / "hub" / "test", ("ape", "bee"), 3, seed=100)
    name = f"hfds/{tmp_path / 'hub'}@12"
    train = load(name, "train+validation")
    assert len(train) == 20 and len(load_test(name)) == 6 and train.classes == ("ape", "bee")


def test_the_hub_s_library_is_an_extra(tmp_path, monkeypatch):
    """The error names it."""
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'vcr_zoo\[hfds\]'"):
        load("hfds/anyone/anything")


@pytest.mark.parametrize(
    "name", ["folder/{}/absent", "folder/{}@0", "folder/{}@x", "wds/{}/no", "folder/{}/file"]
)
def test_wrong_sources_are_refused(name, tmp_path):
    """Before anything is read."""
    (tmp_path / "file").touch()
    with pytest.raises((OSError, ValueError), match=r"there is no folder|number of pixels"):
        load(name.format(tmp_path))


def test_one_class_or_none_is_refused(tmp_path):
    """There is nothing to learn, or the layout is another."""
    write_tree(tmp_path / "one", ("ape",), 4)
    (tmp_path / "none").mkdir()
    for name, message in (("one", "two classes are needed"), ("none", "expected .*CLASS/NAME")):
        with pytest.raises(ValueError, match=message):
            load(f"folder/{tmp_path / name}@8")


def test_pictures_that_do_not_decode_are_named(tmp_path, own_cache):
    """Some of them, if they are many; and nothing half-built remains."""
    write_tree(tmp_path / "own", ("ape", "bee"), 9)
    for name in ("ape/1.png", "bee/2.png"):
        (tmp_path / "own" / name).write_bytes(b"no picture")
    named = r"own/ape/1\.png does not decode: .*own/bee/2\.png does not decode: [^;]*: mend them"
    with pytest.raises(ValueError, match=named):
        load(f"folder/{tmp_path / 'own'}@8")
    for index in range(9):
        (tmp_path / "own" / "bee" / f"{index}.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"bee/3\.png does not decode: [^;]*; and 5 more: mend"):
        load(f"folder/{tmp_path / 'own'}@8")
    assert [path.name for path in own_cache.iterdir()] == [".lock"]


def test_a_decompression_bomb_is_refused_by_name(tmp_path, monkeypatch):
    """Pillow's limit stays on, its warning included."""
    write_tree(tmp_path / "own", ("ape", "bee"), 4)
    write_picture(tmp_path / "own" / "ape" / "bomb.png", 9, size=(60, 60))
    for limit in (3000, 1000):  # above the limit it warns, above twice the limit it raises
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(ValueError, match=r"bomb\.png is refused"):
            load(f"folder/{tmp_path / 'own'}@8")


@pytest.mark.parametrize("train, held_out", [("Train", "Test"), ("training", "testing")])
def test_parts_are_known_however_they_are_written(tmp_path, train, held_out):
    """Or they would be taken for the classes."""
    write_tree(tmp_path / "own" / train, ("ape", "bee"), 20)
    write_tree(tmp_path / "own" / held_out, ("ape", "bee"), 5, seed=100)
    name = f"folder/{tmp_path / 'own'}@16"
    assert load(name).classes == ("ape", "bee") and len(load_test(name)) == 10


def test_a_class_may_be_called_train(tmp_path):
    """Beside others it is no part; written as timm does it is one."""
    write_tree(tmp_path / "own", ("Bus", "Car", "Train"), 8)
    assert load(f"folder/{tmp_path / 'own'}@16").classes == ("Bus", "Car", "Train")


def test_a_class_called_train_is_one_beside_others_or_is_said(tmp_path, capsys):
    """With pictures in it it is a class; with classes in it a part, and what is beside is left
    out, which is said."""
    write_tree(tmp_path / "own", ("bus", "car", "train"), 8)
    assert load(f"folder/{tmp_path / 'own'}@16").classes == ("bus", "car", "train")
    write_tree(tmp_path / "parts" / "train", ("diesel", "steam"), 8)
    write_tree(tmp_path / "parts", ("bus", "car"), 8)
    assert load(f"folder/{tmp_path / 'parts'}@16").classes == ("diesel", "steam")
    assert "bus, car left out, beside the folders of parts" in capsys.readouterr().err
    write_picture(tmp_path / "parts" / "train" / "overview.png", 77)  # of all, say
    write_picture(tmp_path / "parts" / "test" / "unlabelled.png", 78)
    assert load(f"folder/{tmp_path / 'parts'}@16").classes == ("diesel", "steam")


def test_parts_without_one_to_train_on_are_refused(tmp_path):
    write_tree(tmp_path / "own" / "val", ("ape", "bee"), 20)
    write_tree(tmp_path / "own" / "Test", ("ape", "bee"), 5, seed=100)
    with pytest.raises(ValueError, match="has Test, val and no train folder: name one train"):
        load(f"folder/{tmp_path / 'own'}@16")


def test_a_picture_is_in_the_same_part_at_every_size(tmp_path):
    """Else a network that learned at one would be tested at another on what it learned from; also
    where files that differ show the same."""
    write_tree(tmp_path / "own", ("ape", "bee"), 40)
    for index in range(8):
        first = tmp_path / "own" / "ape" / f"{index}.png"
        Image.open(sorted(first.parent.iterdir())[index]).save(first.with_suffix(".bmp"))
    names = [f"folder/{tmp_path / 'own'}@{size}" for size in (16, 24)]
    for read in (load, partial(load, split="validation"), load_test):
        small, large = (read(name) for name in names)
        assert small.groups.tolist() == large.groups.tolist()
    groups = [*load(names[0]).groups, *load(names[0], "validation").groups]
    both = {*groups} & {*load_test(names[0]).groups}
    assert len({*groups}) < len(groups) and not both


def test_too_little_space_is_said_before_anything_is_read(tmp_path, monkeypatch):
    """A map into a file that the disk has no blocks for ends the process."""
    write_tree(tmp_path / "own", ("ape", "bee"), 4)
    usage = shutil.disk_usage(tmp_path)._replace(free=2 * 8 * 16 * 16 * 3 - 1)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: usage)
    monkeypatch.setattr("vcr_zoo.data.pictures.opened", None)
    with pytest.raises(OSError, match=r"GB free, and the pictures take.*VCR_ZOO_CACHE"):
        load(f"folder/{tmp_path / 'own'}@16")


def test_what_is_no_picture_is_counted_and_what_is_hidden_passed_over(tmp_path, capsys):
    """Phones write other formats, Macs a shadow beside every file."""
    write_tree(tmp_path / "own", ("ape", "bee"), 8)
    for name in ("._1.png", ".DS_Store", "a.heic", "b.heic", "notes"):
        (tmp_path / "own" / "ape" / name).write_bytes(b"no picture")
    name = f"folder/{tmp_path / 'own'}@16"
    before = own.listing(tmp_path / "own")
    assert len(load(name, "train+validation")) + len(load_test(name)) == 16
    assert "2 .heic, 1 without ending left out" in capsys.readouterr().err
    (tmp_path / "own" / "bee" / ".DS_Store").write_bytes(b"")
    assert own.listing(tmp_path / "own") == before


def test_a_name_that_is_no_text_is_a_name(tmp_path):
    """Linux takes any bytes, as of archives from another system."""
    write_tree(tmp_path / "own", ("ape", "bee"), 8)
    odd = os.fsdecode(os.fsencode(tmp_path / "own" / "ape") + b"/caf\xe9.png")
    write_picture(Path(odd), 77)
    name = f"folder/{tmp_path / 'own'}@16"
    assert len(load(name, "train+validation")) + len(load_test(name)) == 17


def test_links_without_an_end_or_a_picture_are_refused_by_name(tmp_path):
    write_tree(tmp_path / "own", ("ape", "bee"), 8)
    (tmp_path / "own" / "ape" / "9.png").symlink_to(tmp_path / "unmounted" / "9.png")
    with pytest.raises(ValueError, match=r"ape/9\.png does not decode: .*No such file"):
        load(f"folder/{tmp_path / 'own'}@16")
    (tmp_path / "own" / "ape" / "9.png").unlink()
    (tmp_path / "own" / "ape" / "up").symlink_to(tmp_path / "own")
    with pytest.raises(ValueError, match="ape/up is a link to a folder that it lies in"):
        load(f"folder/{tmp_path / 'own'}@16")
    (tmp_path / "own" / "ape" / "up").unlink()
    for one, other in (("ape", "bee"), ("bee", "ape")):
        (tmp_path / "own" / one / other).symlink_to(tmp_path / "own" / other)
    with pytest.raises(ValueError, match="is a link to a folder that it lies in"):
        load(f"folder/{tmp_path / 'own'}@16")


def test_pictures_behind_links_are_looked_at_too(tmp_path):
    """At any depth, for programs that walk folders do not follow them by themselves."""
    write_tree(tmp_path / "elsewhere", ("ape", "bee"), 20)
    (tmp_path / "own" / "bee").mkdir(parents=True)
    (tmp_path / "own" / "ape").symlink_to(tmp_path / "elsewhere" / "ape")
    (tmp_path / "own" / "bee" / "more").symlink_to(tmp_path / "elsewhere" / "bee")
    name = f"folder/{tmp_path / 'own'}@16"
    before = sum(len(load(name, part)) for part in ("train", "validation")) + len(load_test(name))
    write_picture(tmp_path / "elsewhere" / "ape" / "new.png", 991)
    after = sum(len(load(name, part)) for part in ("train", "validation")) + len(load_test(name))
    assert (before, after) == (40, 41)


def test_folders_of_the_hub_s_format_are_apart_and_read_again(tmp_path, monkeypatch):
    """By where they lie, not by what they are called from there."""
    rows = []
    for place in ("one", "two"):
        (tmp_path / place / "data").mkdir(parents=True)
        monkeypatch.chdir(tmp_path / place)
        rows.append(own.row("hfds/data"))
    (tmp_path / "two" / "data" / "more.parquet").write_bytes(b"1")
    rows.append(own.row("hfds/data"))
    assert rows[0].name != rows[1].name == rows[2].name
    assert rows[1].sha256 != rows[2].sha256
