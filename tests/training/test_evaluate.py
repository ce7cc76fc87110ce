"""Evaluation and prediction read a run's folder and say what training said."""

import re
import shutil

import pytest
import torch

from vcr_zoo.cli import main as cli
from vcr_zoo.features import load_model
from vcr_zoo.training import parse, train
from vcr_zoo.training.evaluate import draw_confusion, evaluate, open_pictures, predict
from vcr_zoo.training.loading import tensor_obstacle

from .test_loading import noise_images


@pytest.fixture(scope="module")
def run(pictures, tmp_path_factory):
    argv = [str(pictures), "--model", "test_resnet", "--input-size", "3", "32", "32"]
    argv += ["--num-classes", "3", "--epochs", "3", "-b", "8", "--lr", "0.05", "--workers", "0"]
    argv += ["--output", str(tmp_path_factory.mktemp("runs")), "--warmup-epochs", "0"]
    return train(parse(argv), progress=False)


def test_evaluation_agrees_with_the_training_log(run, pictures, tmp_path):
    """The same pictures, transforms and weights give the same accuracy; counts add up."""
    result = evaluate(load_model(run.folder), open_pictures(str(pictures)))
    assert 100 * result.top1 == pytest.approx(run.metrics["eval_top1"])
    assert result.pictures == result.confusion.sum() == 9
    assert result.top1 == pytest.approx(sum(result.recall) / 3)  # 3 pictures of each class
    draw_confusion(result, tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").stat().st_size > 1000


def test_prediction_names_the_likeliest_classes(run, pictures):
    """Probabilities fall and, over all classes, sum to one; names are those of the folders."""
    file = pictures / "train" / "class2" / "0.png"
    model = load_model(run.folder)
    ((path, likely),) = predict(model, [file])
    assert path == str(file)
    assert len(likely) == 3
    assert {name for name, _ in likely} == {"class0", "class1", "class2"}
    shares = [share for _, share in likely]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1)


def test_what_cannot_be_evaluated_is_refused(run, pictures, tmp_path):
    model = load_model(run.folder)
    absent, there = pictures / "train" / "class2" / "0.pgn", pictures / "train" / "class2" / "0.png"
    code, gone = __file__.replace("test_evaluate", "killing"), tmp_path / "gone" / "0.png"
    wrong = {
        code: "killing.py cannot be read as a picture",
        tmp_path: f"{tmp_path} is a folder: name its pictures",
        absent: f"there is no picture {absent}. Closest: {there}",
        gone: f"there is no picture {gone}.",
    }
    for (path, error), said in zip(predict(model, wrong), wrong.values(), strict=True):
        assert isinstance(error, OSError) and said in str(error), path
    model.num_classes = 2
    with pytest.raises(ValueError, match="3 classes, the model tells 2"):
        evaluate(model, open_pictures(str(pictures)))
    with pytest.raises(ValueError, match="does not exist"):
        open_pictures(str(tmp_path / "absent"))
    with pytest.raises(ValueError, match=r"train has no folder 'test': .*--split test takes those"):
        open_pictures(str(pictures / "train"), "test")
    with pytest.raises(ValueError, match="k=0"):
        list(predict(model, [], k=0))
    with pytest.raises(ValueError, match="--level coarse has no effect on"):
        open_pictures(str(pictures), level="coarse")


def test_the_commands_print_it(run, pictures, capsys):
    assert cli(["eval", str(run.folder), "--data", str(pictures)]) == 0
    first, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("top-1") and first.endswith(f"of 9 pictures: {pictures}")
    file = str(pictures / "train" / "class1" / "0.png")
    assert cli(["predict", str(run.folder), file, "--k", "1"]) == 0
    assert capsys.readouterr().out.startswith(f"{file}: class")
    assert cli(["predict", str(run.folder), __file__, file]) == 2  # and the other picture is told
    told = capsys.readouterr()
    assert told.out.startswith(f"{file}: class") and "cannot be read as a picture" in told.err


def test_a_folder_may_be_named_as_for_fine_tuning(run, pictures, capsys, monkeypatch, tmp_path):
    """One with parts has others than the run learned from and was chosen by, and is refused."""
    monkeypatch.setenv("VCR_ZOO_CACHE", str(tmp_path))
    told = []
    for name in (f"{pictures}/train@32", f"folder/{pictures}/train@32"):
        assert cli(["eval", str(run.folder), "--data", name]) == 0
        told.append(capsys.readouterr().out.splitlines()[:-1])
    assert told[0][1:] == told[1][1:]
    assert 0 < int(told[0][0].split(" of ")[1].split()[0]) < 42 // 2

    monkeypatch.setenv("HOME", str(pictures.parent))  # what a shell leaves in quotes is expanded
    assert cli(["eval", str(run.folder), "--data", f"~/{pictures.name}"]) == 0
    assert f"of 9 pictures: ~/{pictures.name}" in capsys.readouterr().out
    assert cli(["eval", str(run.folder), "--data", f"{pictures}@32"]) == 2
    said = f"--data {pictures} takes them as they are, --data folder/{pictures}@32 as fine-tuning"
    assert said in capsys.readouterr().err


def test_a_dry_run_says_what_would_be_and_writes_nothing(small, tmp_path, capsys):
    """Model, placements with axis and width, sizes, steps, memory and extra FLOPs; one step."""
    assert train(parse(small("--dry-run", "--vcr-alpha", "1")), progress=False) is None
    said = capsys.readouterr().out
    for part in ("layer3.0: axis 1, width 192, 4 rows an image", "5 updates an epoch", "MiB"):
        assert part in said
    assert not (tmp_path / "run").exists()


def test_micro_batches_keep_no_more_than_one_of_them(small, capsys):
    """What is kept for the backward pass is freed before the next is computed."""
    kept = []
    for steps in ("1", "2", "4"):
        train(parse(small("--dry-run", "--grad-accum-steps", steps)), progress=False)
        kept.append(re.search(r"and optimizer, (.*) kept", capsys.readouterr().out)[1])
    assert kept[0] != "0" and len(set(kept)) == 1


def test_flops_of_vcr_are_two_products_of_rows_with_square_matrices(small):
    """4 n d² a step: HᵀH in forward, HM in backward."""
    from vcr_zoo.training import wiring
    from vcr_zoo.training.distributed import start
    from vcr_zoo.training.dry_run import flops

    args = parse(small("--vcr-beta", "1", "--vcr-layers", "layer4,layer3", "--vcr-rows", "16"))
    parts = wiring.wire(args, start(args))
    plain, extra = flops(parts)
    assert extra == 4 * (16 * 192**2 + 8 * 96**2) / 8
    assert plain > 0 and torch.is_grad_enabled()


def test_validation_does_not_depend_on_how_training_augments():
    """So `vcr-zoo eval`, which knows no training options, measures what training measured."""
    args = parse(["--aa", "rand", "--aug-splits", "2", "--train-img-sizes", "24"])
    config = {"crop_pct": 1.0, "interpolation": "bilinear"}
    images = noise_images()
    assert tensor_obstacle(args, images, config)
    assert tensor_obstacle(args, images, config, training=False) == ""
    assert tensor_obstacle(args, images, config | {"crop_pct": 0.9}, training=False)


def test_folders_of_other_classes_are_refused(run, pictures, tmp_path):
    """Without class1, class2's pictures would be numbered as if they were class1's."""
    shutil.copytree(pictures, tmp_path / "fewer")
    shutil.rmtree(tmp_path / "fewer" / "validation" / "class1")
    with pytest.raises(ValueError, match=r"not the model's: \['class1'\]"):
        evaluate(load_model(run.folder), open_pictures(str(tmp_path / "fewer")))
