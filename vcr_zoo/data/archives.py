"""Unpacking archives that nobody vouches for: only wanted, regular files, only into one folder."""

import errno
import lzma
import shutil
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO

BYTES = 4 << 30  # more than any set here unpacks to; an archive that holds more is refused
DAMAGE = (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, lzma.LZMAError, OSError)
DAMAGE += (RuntimeError,)  # zip members that are encrypted or packed in unknown ways
OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EMFILE}


def unpack(archive: Path, into: Path, wants: Callable[[str], str | None]) -> None:
    """Write an archive's wanted files below `into`. .deb, .tgz and .whl or .zip.

    Args:
        wants: member's path -> path below `into`, or None to pass it over.

    Raises:
        ValueError: for a truncated archive, one that unpacks to more than 4 GiB, or one with any
            member that points out of its folder; archive and member are named.
        OSError: if files cannot be written, or a .deb cannot be read for want of dpkg-deb.
    """
    kinds = {".deb": _deb, ".tgz": _tar, ".gz": _tar, ".tar": _tar, ".whl": _zip, ".zip": _zip}
    if archive.suffix not in kinds:
        raise ValueError(f"{archive.name}: expected an archive ending in {', '.join(kinds)}")
    if archive.suffix == ".deb" and not shutil.which("dpkg-deb"):
        raise FileNotFoundError(f"{archive.name} needs dpkg-deb to be unpacked; install dpkg")
    try:
        kinds[archive.suffix](archive, into, wants)
    except DAMAGE as error:
        if getattr(error, "errno", None) in OF_THE_DISK:
            raise
        raise ValueError(f"{archive.name} is truncated or damaged: {error}") from None


def inside(archive: Path, name: str) -> str:
    """A member's path, made plain ("./a" -> "a").

    Raises:
        ValueError: if it is absolute, climbs out with "..", or is no path at all.
    """
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
        raise ValueError(f"{archive.name} is refused: its member {name!r} points out of the folder")
    return path.as_posix()


def _tar(archive: Path, into: Path, wants) -> None:
    with tarfile.open(archive) as tar:
        _members(archive, tar, into, wants)


def _deb(archive: Path, into: Path, wants) -> None:
    """dpkg-deb knows every compression that Debian used; its files come as one tar stream."""
    command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as dpkg:
        try:
            with tarfile.open(fileobj=dpkg.stdout, mode="r|") as tar:
                _members(archive, tar, into, wants)
            dpkg.stdout.read()  # the padding after the last member, or dpkg-deb dies of a pipe
        finally:
            dpkg.stdout.close()
            said = dpkg.stderr.read().decode(errors="replace").strip()
        if dpkg.wait():
            raise tarfile.ReadError(said)


def _members(archive: Path, tar: tarfile.TarFile, into: Path, wants) -> None:
    budget = BYTES
    for member in tar:
        path = inside(archive, member.name)
        if member.issym():
            _link(archive, member.name, PurePosixPath(path).parent / member.linkname)
        elif member.islnk():
            _link(archive, member.name, PurePosixPath(member.linkname))
        elif member.isfile() and (target := wants(path)):
            budget -= member.size
            _write(archive, tar.extractfile(member), into / inside(archive, target), budget)


def _link(archive: Path, name: str, target: PurePosixPath) -> None:
    """Links are never made; one that leads out of the archive gives the whole of it away."""
    depth = 0
    for part in target.parts:
        depth += {"..": -1, ".": 0}.get(part, 1)
        if depth < 0:
            break
    if depth < 0 or (target.is_absolute() and not name.startswith(("./usr/", "usr/"))):
        raise ValueError(f"{archive.name} is refused: its link {name!r} leads to {str(target)!r}")


def _zip(archive: Path, into: Path, wants) -> None:
    budget = BYTES
    with zipfile.ZipFile(archive) as wheel:
        for member in wheel.infolist():
            path = inside(archive, member.filename)
            if member.external_attr >> 28 == 0xA:  # a symbolic link in Unix's file mode
                raise ValueError(f"{archive.name} is refused: its member {path!r} is a link")
            if not member.is_dir() and (target := wants(path)):
                budget -= member.file_size
                with wheel.open(member) as source:
                    _write(archive, source, into / inside(archive, target), budget)


def _write(archive: Path, source: IO[bytes], path: Path, budget: int) -> None:
    if budget < 0:
        raise ValueError(f"{archive.name} is refused: it unpacks to more than {BYTES >> 30} GiB")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as target:
        shutil.copyfileobj(source, target)
