"""Archives from anyone: what is hostile or damaged is refused by name, and touches nothing."""

import errno
import io
import os
import shutil
import subprocess
import tarfile
import zipfile

import pytest

from vcr_zoo.data import archives
from vcr_zoo.data.archives import unpack


def everything(path: str) -> str:
    return path


def tgz(path, members) -> None:
    """members: (name, bytes), or (name, type, target of a link)."""
    with tarfile.open(path, "w:gz") as tar:
        for name, *rest in members:
            member = tarfile.TarInfo(name)
            if len(rest) == 2:
                member.type, member.linkname = rest
                tar.addfile(member)
            else:
                member.size = len(rest[0])
                tar.addfile(member, io.BytesIO(rest[0]))


def wheel(path, members) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members:
            archive.writestr(name, data)


def files(folder) -> dict:
    return {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()
    }


HOSTILE = ["/etc/evil", "../evil", "a/../../evil", "a\\..\\evil"]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("write, ending", [(tgz, ".tgz"), (wheel, ".whl")])
def test_members_that_point_out_are_refused(tmp_path, name, write, ending):
    """Archive and member are named; nothing is written anywhere, wanted or not."""
    write(tmp_path / f"x{ending}", [(name, b"evil")])
    for wants in (everything, lambda path: None):
        with pytest.raises(ValueError, match=rf"x{ending} is refused: its member .*evil"):
            unpack(tmp_path / f"x{ending}", tmp_path / "into", wants)
    assert list(files(tmp_path)) == [f"x{ending}"]


@pytest.mark.parametrize(
    "kind, target", [(tarfile.SYMTYPE, "../../etc/passwd"), (tarfile.SYMTYPE, "/etc/passwd"),
                     (tarfile.LNKTYPE, "../etc/passwd"), (tarfile.LNKTYPE, "/etc/passwd")]
)  # fmt: skip
def test_links_that_lead_out_are_refused(tmp_path, kind, target):
    """Symbolic and hard ones, before anything could be written through them."""
    tgz(tmp_path / "x.tgz", [("a/link", kind, target), ("a/link", b"through")])
    with pytest.raises(ValueError, match=r"x\.tgz is refused: its link 'a/link'"):
        unpack(tmp_path / "x.tgz", tmp_path / "into", everything)
    assert not (tmp_path / "into").exists()


def test_links_within_are_passed_over_and_never_made(tmp_path):
    """Packages use them for second names of a picture."""
    links = [("a/c", "b"), ("d", "a/../a/b")]
    members = [(name, tarfile.SYMTYPE, target) for name, target in links]
    tgz(tmp_path / "x.tgz", [("a/b", b"1"), *members, ("e", tarfile.LNKTYPE, "a/b")])
    unpack(tmp_path / "x.tgz", tmp_path / "into", everything)
    assert files(tmp_path / "into") == {"a/b": b"1"}


def test_links_in_wheels_are_refused(tmp_path):
    """A wheel has no use for one."""
    with zipfile.ZipFile(tmp_path / "x.whl", "w") as archive:
        link = zipfile.ZipInfo("a/link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(ValueError, match="'a/link' is a link"):
        unpack(tmp_path / "x.whl", tmp_path / "into", everything)


@pytest.mark.parametrize("write, ending", [(tgz, ".tgz"), (wheel, ".whl")])
def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch, write, ending):
    """Before the byte that would be too many."""
    monkeypatch.setattr(archives, "BYTES", 1000)
    write(tmp_path / f"x{ending}", [("a", bytes(600)), ("b", bytes(600))])
    with pytest.raises(ValueError, match="unpacks to more than"):
        unpack(tmp_path / f"x{ending}", tmp_path / "into", everything)
    assert list(files(tmp_path / "into")) == ["a"]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
@pytest.mark.parametrize("write, ending", [(tgz, ".tgz"), (wheel, ".whl")])
def test_truncated_archives_are_named(tmp_path, write, ending, share):
    """Whichever layer notices it."""
    path = tmp_path / f"x{ending}"
    write(path, [("a", os.urandom(5000)), ("b", os.urandom(5000))])
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match=rf"x{ending} is truncated or damaged"):
        unpack(path, tmp_path / "into", everything)


@pytest.mark.parametrize("offset, value", [(0, 1), (2, 99)])  # encrypted; an unknown compression
def test_wheels_that_cannot_be_unpacked_are_named(tmp_path, offset, value):
    """By a bit in the flags or the number of a compression, in both of its headers."""
    path = tmp_path / "x.whl"
    wheel(path, [("a", b"1" * 100)])
    data = bytearray(path.read_bytes())
    for header in (6, data.index(b"PK\1\2") + 8):
        data[header + offset] = value
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"x\.whl is truncated or damaged"):
        unpack(path, tmp_path / "into", everything)


def test_other_endings_are_refused(tmp_path):
    """Saying which are known."""
    (tmp_path / "x.rar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"\.deb"):
        unpack(tmp_path / "x.rar", tmp_path / "into", everything)


@pytest.fixture
def debian(tmp_path):
    """A Debian package of one file, built by dpkg-deb."""
    if not shutil.which("dpkg-deb"):
        pytest.skip("needs dpkg-deb")
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    control = "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n"
    (tree / "DEBIAN" / "control").write_text(control)
    (tree / "usr" / "share" / "x").mkdir(parents=True)
    (tree / "usr" / "share" / "x" / "a").write_bytes(os.urandom(50_000))
    (tree / "usr" / "share" / "x" / "link").symlink_to("a")
    command = ["dpkg-deb", "--build", "--root-owner-group", str(tree), str(tmp_path / "x.deb")]
    subprocess.run(command, check=True, capture_output=True)
    return tmp_path / "x.deb"


def test_debian_packages_are_unpacked_without_being_installed(debian, tmp_path):
    """Only what is wanted, below the folder."""
    unpack(
        debian, tmp_path / "into", lambda p: p.removeprefix("usr/share/") if "/x/" in p else None
    )
    assert list(files(tmp_path / "into")) == ["x/a"]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95])
def test_truncated_debian_packages_are_named(debian, tmp_path, share):
    """As after a download that broke off."""
    debian.write_bytes(debian.read_bytes()[: int(share * debian.stat().st_size)])
    with pytest.raises(ValueError, match=r"x\.deb is truncated or damaged"):
        unpack(debian, tmp_path / "into", everything)


def test_a_full_disk_is_not_the_archive_s_fault(tmp_path, monkeypatch):
    """It is called what it is; who takes an archive for damaged fetches it again."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    tgz(tmp_path / "x.tgz", [("a", b"1")])
    monkeypatch.setattr(archives.shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left on device"):
        unpack(tmp_path / "x.tgz", tmp_path / "into", everything)


def test_a_debian_package_without_its_program_is_not_damaged(tmp_path, monkeypatch):
    (tmp_path / "x.deb").write_bytes(b"")
    monkeypatch.setattr(archives.shutil, "which", lambda _: None)
    with pytest.raises(FileNotFoundError, match="install dpkg"):
        unpack(tmp_path / "x.deb", tmp_path / "into", everything)
