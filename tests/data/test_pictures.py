"""Pictures of any kind become arrays of one size, and readers refuse what they do not know."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from vcr_zoo.data import idx
from vcr_zoo.data.pictures import BLACK, Item, pack, square, with_parents
from vcr_zoo.data.silhouettes import Arrays

from .sets import noise, write_idx


def png(picture: Image.Image) -> bytes:
    data = io.BytesIO()
    picture.save(data, "png")
    return data.getvalue()


def test_squares_are_padded_on_the_ground():
    """A wide picture keeps its shape; what is transparent shows the ground."""
    wide = Image.new("RGBA", (40, 20), (10, 20, 30, 255))
    wide.paste((0, 0, 0, 0), (0, 0, 10, 20))
    x = square(wide, 40, 3, (255, 0, 255))
    assert (x[:10] == (255, 0, 255)).all() and (x[30:] == (255, 0, 255)).all()
    assert (x[12:28, 12:] == (10, 20, 30)).all() and (x[12:28, :8] == (255, 0, 255)).all()
    assert square(wide.convert("L"), 8, 1, BLACK).shape == (8, 8, 1)


def test_equal_pictures_are_kept_once_and_rare_classes_go():
    """Equal as they are kept, empty ones of all sizes too; a class counts by its groups."""
    items = [Item(f"{i}", lambda i=i: noise(i), "many", f"g{i}") for i in range(5)]
    items += [Item("again", lambda: noise(0), "many", "g9")]
    items += [Item(f"few {i}", lambda i=i: noise(50 + i), "few", "one") for i in range(5)]
    empty = [Image.new("RGBA", (side, side), (side, 0, 0, 0)) for side in (9, 30)]
    items += [Item("empty", lambda x=x: x, "many", f"empty {x.width}") for x in empty]
    found = pack(items, 8, at_least=2)
    assert found.classes == ("many",) and found.x.shape == (6, 8, 8, 3)
    assert found.groups.tolist() == ["g0", "g1", "g2", "g3", "g4", "empty 9"]
    with pytest.raises(ValueError, match="no class has the 9 groups"):
        pack(items, 8, at_least=9)


@pytest.mark.parametrize("data", [b"", b"no picture", png(noise(0))[:150]])
def test_what_does_not_decode_is_named(data):
    """Empty, foreign and truncated."""
    with pytest.raises(ValueError, match=r"picture bad one does not decode"):
        pack([Item("bad one", lambda: data, "a", "g")], 8)


def test_super_classes_follow_from_classes():
    """Numbered in the order of their names."""
    items = [Item(n, lambda n=n: noise(ord(n)), f"{n}/x", n) for n in "cab"]
    found = with_parents(pack(items, 4), lambda label: {"a": "z"}.get(label[0], "y"))
    assert found.coarse == ("y", "z") and found.parents == (1, 0, 0)


def test_a_pickle_of_arrays_is_read_and_nothing_else(tmp_path):
    """The source's format may run code when it is loaded; ours does not."""
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert (Arrays(io.BytesIO(pickle.dumps(array, protocol=4))).load() == array).all()

    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "evil"), "w"))

    with pytest.raises(pickle.UnpicklingError, match="refused"):
        Arrays(io.BytesIO(pickle.dumps(Evil()))).load()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "is not an idx file"),
        (b"\0\0\x0d\1\0\0\0\1" + bytes(4), "is not an idx file"),
        (b"\0\0\x08\3\0\0", "ends within its header"),
        (b"\0\0\x08\1\0\0\0\5ab", "2 bytes where"),
        (b"\0\0\x08\2\xff\xff\xff\xff\xff\xff\xff\xff", "0 bytes where"),
    ],
)
def test_idx_files_that_lie_are_refused(tmp_path, data, message):
    """By name, whatever sizes they announce."""
    (tmp_path / "x-idx").write_bytes(data)
    with pytest.raises(ValueError, match=rf"x-idx {message}|x-idx has {message}"):
        idx.array(tmp_path / "x-idx")


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_idx_files_are_read(tmp_path, ending):
    """Packed or not."""
    array = np.random.default_rng(0).integers(0, 256, (4, 3, 2), dtype=np.uint8)
    write_idx(tmp_path / f"x{ending}", array)
    assert (idx.array(tmp_path / f"x{ending}") == array).all()
