"""What pip installs from a wheel is the whole program: no file is left in the repository."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Python of a new environment with the wheel in it, and the dependencies of this one."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    run([*build, str(ROOT)], cwd=folder)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    run([python, "-m", "pip", "install", "--no-deps", "--no-index", str(wheel)], cwd=folder)
    (site,) = (folder / "env").glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return python


def run(command, cwd):
    result = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_the_installed_wheel_trains_and_loads_its_weights(installed, tmp_path):
    """Two steps of training through the console script; then packaged weights by timm's name."""
    rng = np.random.default_rng(0)
    for part in ("train", "validation"):
        for label in ("a", "b"):
            folder = tmp_path / "data" / part / label
            folder.mkdir(parents=True)
            for i in range(8):
                pixels = rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")

    program = installed.with_name("vcr-zoo")
    options = "--model test_resnet --img-size 32 --batch-size 8 --epochs 1 --warmup-epochs 0"
    options += " --workers 0 --lr 0.01 --vcr-alpha 1 --vcr-beta 1 --experiment two-steps"
    run([program, "train", tmp_path / "data", *options.split()], cwd=tmp_path)

    code = (
        "import timm, vcr_zoo, sys\n"
        "assert vcr_zoo.__file__.startswith(sys.prefix), vcr_zoo.__file__\n"
        "for name in timm.list_models('*.vcr_*', pretrained=True):\n"
        "    timm.create_model(name, pretrained=True); print(name)\n"
        "timm.create_model('local-dir:runs/two-steps', pretrained=True)"
    )
    names = run([installed, "-c", code], cwd=tmp_path).split()
    assert "test_resnet.vcr_fmnist4" in names


def test_every_recipe_and_weight_is_in_the_wheel(installed):
    """Data files are easily forgotten by a build."""
    inside = {path.relative_to(ROOT) for path in (ROOT / "vcr_zoo").rglob("*.yaml")}
    inside |= {path.relative_to(ROOT) for path in (ROOT / "vcr_zoo").rglob("*.safetensors")}
    (site,) = installed.parents[1].glob("lib/python*/site-packages")

    assert len(inside) >= 4
    assert not [path for path in inside if not (site / path).exists()]
