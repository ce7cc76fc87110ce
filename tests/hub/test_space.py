"""The demo folder stands on its own: plain timm, its own weights and pictures."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from vcr_zoo import zoo
from vcr_zoo.data import DATASETS
from vcr_zoo.hub.space import space
from vcr_zoo.hub.space_app import Demo

from ..data.sets import small_fmnist, write_mnist_like

NAME = "test_resnet.vcr_fmnist4"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("space")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VCR_ZOO_CACHE", str(root / "cache"))
        files = write_mnist_like(root / "files", train=1200)
        patch.setitem(DATASETS, "fmnist", small_fmnist(files))
        from vcr_zoo.data import get

        get("fmnist", files)
        return space(root / "out")


def test_a_picture_of_the_gallery_is_its_own_nearest(folder):
    demo = Demo(folder)
    for name in (NAME, demo.pairs[NAME]):
        (first, cosine), *others = demo.network(name).nearest(Image.fromarray(demo.pictures[7]))
        assert first == 7 and cosine == pytest.approx(1, abs=1e-5)
        assert all(value <= cosine + 1e-6 for _, value in others)


def test_an_answer_has_neighbors_under_both_and_the_spectra(folder):
    demo = Demo(folder)
    vcr, control, spectra = demo.answer(NAME, Image.new("RGB", (50, 70), "red"))

    assert len(vcr) == len(control) == 8 and spectra.endswith("spectrum.png")
    assert vcr != control
    assert demo.answer(NAME, None)[:2] == ([], [])


def test_the_folder_runs_without_this_package(folder):
    """As on a Space: app.py, timm, and nothing of ours."""
    code = (
        "import sys; sys.path.insert(0, '.'); import app; from PIL import Image\n"
        "demo = app.Demo()\n"
        f"print(len(demo.answer({NAME!r}, Image.new('L', (28, 28)))[0]))\n"
        "assert not [m for m in sys.modules if m.startswith('vcr_zoo')]"
    )
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "8", done.stderr


def test_the_folder_says_whose_pictures_and_holds_the_published_weights(folder):
    assert "Zalando" in (folder / "README.md").read_text()
    stored = (folder / NAME / "model.safetensors").read_bytes()
    assert stored == zoo.manifest()[NAME].file.read_bytes()
    assert np.load(folder / "gallery.npz", allow_pickle=False)["pictures"].dtype == np.uint8


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("")
    for place in (tmp_path, tmp_path / "mine"):
        with pytest.raises(FileExistsError, match="choose another --out"):
            space(place)
