"""Recipes for machines that are not here, tried in small."""

import os
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from vcr_zoo.training import model as models
from vcr_zoo.training import parse
from vcr_zoo.training.options import as_yaml, recipes
from vcr_zoo.training.settle import check_recipe, settle

LITE = "tf_efficientnet_lite0"
LARGE = [name for name in recipes() if name.endswith((".vcr_in1k", ".vcr_cifar100"))]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of 4 classes, of the shape that ImageNet's has."""
    folder, noise = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for part, each in (("train", 4), ("validation", 1)):
        for label in range(4):
            (folder / part / f"n{label:08}").mkdir(parents=True)
            for number in range(each):
                pixels = noise.integers(0, 256, (64, 80, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / part / f"n{label:08}" / f"{number}.jpg")
    return folder


@pytest.mark.parametrize("name", LARGE)
def test_large_recipes_train_a_step_on_two_processes(name, pictures):
    """As they stand but for the batch and the pictures; what they would take is estimated."""
    words = ["--recipe", name, "-b", "2", "--workers", "0", "--dry-run"]
    words += ["--dataset", "", "--num-classes", str(parse(["--recipe", name]).num_classes or 100)]
    start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    run = subprocess.run(
        [sys.executable, *start, "train.py", str(pictures), *words],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
    assert run.returncode == 0, run.stderr[-2000:]
    assert "2 on each of 2 processes" in run.stdout and "epochs" in run.stdout
    assert "estimated" in run.stdout and "FLOP in all" in run.stdout
    assert "one step    loss" in run.stdout


def test_training_begins_from_a_baseline(monkeypatch):
    """All of it but the classifier, which is made for other classes."""
    torch.manual_seed(1)
    theirs = timm.create_model(LITE).state_dict()
    monkeypatch.setattr(models, "baseline", {LITE: theirs}.__getitem__)
    words = ["--pretrained", "--pretrained-path", f"baseline:{LITE}", "--num-classes", "7"]
    made = models.create_model(parse(["--model", LITE, *words]), 3)

    assert made.get_classifier().out_features == 7
    for name, value in made.state_dict().items():
        if not name.startswith("classifier"):
            assert torch.equal(value, theirs[name]), name


def test_a_run_on_a_gpu_is_its_recipes_where_that_leaves_the_precision_open(tmp_path):
    options = ("--model", "test_vit", "--amp")
    run = parse(list(options))
    settle(run, torch.device("cuda"))
    (tmp_path / "args.yaml").write_text(as_yaml(run))

    assert run.amp_dtype == "float16"
    check_recipe(tmp_path, "", *options)
    with pytest.raises(ValueError, match="amp_dtype is float16, not bfloat16"):
        check_recipe(tmp_path, "", *options, "--amp-dtype", "bfloat16")
