"""vcr-zoo data: what is listed, fetched and shown."""

import numpy as np
import pytest
from PIL import Image

from vcr_zoo.cli import main
from vcr_zoo.data import DATASETS, Images, load
from vcr_zoo.data.sheet import CELL, NAME, TALL, sheet


def test_list_names_every_set_with_licence_and_source(capsys):
    """Each row with all that one must know before using it."""
    assert main(["data", "list"]) == 0
    shown = capsys.readouterr().out
    for row in DATASETS.values():
        assert f"{row.name}: " in shown and row.licence in shown and row.attribution in shown
    assert "debian package dataset-fashion-mnist" in shown and "sha256" in shown


def test_get_goes_on_after_a_failure(files, capsys):
    """Each set is fetched for itself; the exit status says that one failed."""
    assert main(["data", "get", "nonsense", "fmnist", "--folder", str(files)]) == 2
    shown = capsys.readouterr()
    assert "no data set 'nonsense'" in shown.err and "fmnist: 180 train" in shown.out


def test_a_folder_without_its_word_is_told_of(tmp_path, monkeypatch, capsys):
    """By Python; the command takes its path."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shapes").mkdir()

    with pytest.raises(LookupError, match="give folder/shapes"):
        load("shapes")
    assert main(["data", "show", "shapes"]) == 2
    assert "shapes holds no pictures in folders" in capsys.readouterr().err


def test_show_writes_a_contact_sheet(files, tmp_path, capsys):
    """A row for each class, at either level."""
    main(["data", "get", "fmnist", "--folder", str(files)])
    for level, classes in (("fine", 10), ("coarse", 4)):
        path = tmp_path / f"{level}.png"
        assert main(["data", "show", "fmnist", "--level", level, "--output", str(path)]) == 0
        with Image.open(path) as picture:
            assert picture.size == (NAME + 10 * CELL, classes * CELL)
    assert main(["data", "show", "fmnist", "--split", "test"]) == 2
    assert main(["data", "show", "fmnist", "--output", str(tmp_path / "new" / "a.png")]) == 0
    assert (tmp_path / "new" / "a.png").exists()
    assert main(["data", "show", "fmnist", "--each", "0"]) == 2


def test_a_sheet_shows_each_picture_beside_its_class():
    """Pictures of one grey level each, found again in their cells, also in a second column."""
    n = TALL + 3
    x = np.repeat(np.arange(n, dtype=np.uint8), 64).reshape(n, 8, 8, 1)
    names = [f"class {i}" for i in range(n)]
    images = Images(x, np.arange(n), names, np.arange(n).astype(str), name="made", split="train",
                    fingerprint="")  # fmt: skip
    canvas = np.asarray(sheet(images, each=2))
    for label in range(n):
        left, top = label // TALL * (NAME + 2 * CELL) + NAME, label % TALL * CELL
        assert (canvas[top : top + CELL - 2, left : left + CELL - 2] == label).all()
        assert (canvas[top : top + CELL, left + CELL : left + 2 * CELL] == 255).all()
