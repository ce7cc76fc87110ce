"""What cannot be done is refused before training starts, saying what to do instead."""

import logging
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch

from vcr_zoo.training import checkpoint, main, parse, train

from .conftest import draw_pictures


def refused(argv: list[str], kind: type, complaint: str) -> None:
    with pytest.raises(kind, match=complaint):
        train(parse(argv), progress=False)


@pytest.mark.parametrize(
    "more, kind, complaint",
    [
        (("--model", "resnet81"), LookupError, "no model 'resnet81'.*resnet18"),
        (("--vcr-alpha", "-1"), ValueError, "--vcr-alpha must not be negative"),
        (("--vcr-beta", "-0.5"), ValueError, "--vcr-beta must not be negative"),
        (("--vcr-alpha", "1", "--vcr-layers", "layr4"), LookupError, "layr4.*layer4"),
        (("--vcr-layers", "pooled", "--vcr-share", "0.3"), ValueError, "vcr-share without weights"),
        (("--vcr-alpha", "nan"), ValueError, "--vcr-alpha must not be negative, but is nan"),
        (("--vcr-rows", "1"), ValueError, "two samples or more"),
        (("--epochs", "0"), ValueError, "--epochs must be positive, but is 0"),
        (("--batch-size", "0"), ValueError, "--batch-size must be positive"),
        (("--label-level", "coarse"), ValueError, "--label-level has no effect on a folder"),
        (("--dataset", "fmnist", "--class-map", "a.txt"), ValueError, "no effect on fmnist"),
        (("--keep-last", "--aug-splits", "2"), ValueError, "--keep-last counts pictures once"),
        (("--epoch-repeats", "3"), ValueError, "--epoch-repeats has no effect on a folder"),
        (("--train-batch-sizes", "4"), ValueError, "those of --train-img-sizes: give both"),
        (("--save-epochs", "1", "--val-interval", "2"), ValueError, "--save-epochs 1: checkpoints"),
        (("--opt", "adamv"), ValueError, "'adamv' does not exist.*adam"),
        (("--sched", "cosinus"), ValueError, "'cosinus' does not exist.*cosine"),
        (("--dataset", "fminst"), ValueError, "no data set 'fminst'.*fmnist"),
        (("--dataset", "fmnist4"), ValueError, "'fmnist4'.*--dataset fmnist --label-level coarse"),
        (("--eval-metric", "top2"), ValueError, "'top2' does not exist.*Choose from"),
        (("--torchscript",), ValueError, "--torchscript.*--torchcompile"),
        (("--sync-bn", "--split-bn"), ValueError, "--split-bn needs"),
        (("--batch-size", "9", "--mixup", "1"), ValueError, "pairs.*odd"),
        (("--batch-size", "64"), ValueError, "42 pictures do not fill one batch of 64"),
        (("--num-classes", "2"), ValueError, "3 classes, but --num-classes is 2"),
        (("--loader", "tensor"), ValueError, "--loader tensor cannot do"),
        (("--device", "cuda:7"), ValueError, "no CUDA device; use --device cpu"),
        (("--aug-repeats", "3"), ValueError, "torchrun"),
        (("--jsd-loss",), ValueError, "--aug-splits 2"),
        (("--loss", "zlpr"), ValueError, "requires multi-label"),
        (("--loss", "asl", "--bce-loss"), ValueError, "contradicts"),
        (("--amp", "--model-dtype", "bfloat16"), ValueError, "--amp works on float32"),
        (("--opt-kwargs", "speed=1"), ValueError, "--opt sgd does not take"),
        (("--drop-block", "0.1", "--model", "test_vit"), ValueError, "does not take"),
        (("--train-num-samples", "99"), ValueError, "99 pictures were asked for, of 42"),
        (("--resume", "nowhere.pth.tar"), ValueError, "no checkpoint at nowhere"),
        (("--class-map", "absent.txt"), (ValueError, ImportError), "absent.txt"),
        (("--in-chans", "1"), ValueError, "Conflicting input channel counts"),
        (("--input-img-mode", "L"), ValueError, "1 channels.*takes 3: pass --in-chans 1"),
        (("--input-img-mode", "XX"), ValueError, "XX does not exist"),
        (("--input-size", "4", "32", "32"), ValueError, "4 channels need --input-img-mode"),
        (("--model", "vit_tiny_patch16_224"), ValueError, "model requires"),
        (("--opt", "adahessian", "--vcr-beta", "1"), ValueError, "adahessian.*closed form"),
        (("--pretrained-path", "a.pth"), ValueError, "with --pretrained only"),
        (("--eval-metric", "top5"), ValueError, "top5 is always 100 with 3 classes"),
        (("--lr", "nan"), ValueError, "--lr must not be negative, but is nan"),
        (("--start-epoch", "3"), ValueError, "--start-epoch 3: the run has 3 epochs"),
        (("--hflip", "3"), ValueError, "--hflip is a share from 0 to 1"),
        (("--scale", "1"), ValueError, "--scale takes two numbers"),
        (("--ratio", "2", "1"), ValueError, "--ratio takes two.*smaller first"),
        (("--cutmix-minmax", "0.5"), ValueError, "--cutmix-minmax takes two"),
        (("--std", "0"), ValueError, "--std must be positive"),
        (("--clip-grad", "-1"), ValueError, "--clip-grad must be positive"),
        (("--remode", "foo"), ValueError, "'foo' does not exist. Choose from const"),
        (("--interpolation", "bilinaer"), ValueError, "Closest: bilinear"),
        (("--aa", "foo"), ValueError, "Unknown AA policy foo"),
        (("--gp", "foo"), ValueError, "Invalid pool type: foo"),
        (("--torchcompile", "inductro"), ValueError, "Closest: inductor"),
        (("--kd-model-name", "resnet81"), LookupError, "no model 'resnet81'"),
        (("--device", "foo"), ValueError, "--device foo: Expected one of cpu"),
        (("--tta", "2"), ValueError, "--tta 2 would average"),
        (("--target-key", "x"), ValueError, "--target-key has no effect on a folder"),
        (("--naflex-loader",), ValueError, "which test_resnet does not take"),
        (("--val-split", "nope"), ValueError, "has no folder 'nope'"),
        (("--val-split", "", "--train-split", "trian"), ValueError, "no folder 'trian'.*train"),
        (("--wandb-resume-id", "abc"), ValueError, "goes with --resume"),
        (("--naflex-loader", "--vcr-alpha", "1"), ValueError, "padding"),
        (("--task", "multilabel", "--kd-model-name", "x"), ValueError, "multilabel|several"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) and isinstance(value[0], str) else "",
)
def test_an_option_that_cannot_be_honoured(small, tmp_path, more, kind, complaint):
    if "cuda:7" in more and torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    refused(small(*more), kind, complaint)
    assert not (tmp_path / "run").exists()


def test_torchvisions_sets(small, tmp_path):
    """Not there, not known, or of other channels than the network: nothing converts those."""
    kind = small("--dataset", "torch/mnist")[1:]
    refused([str(tmp_path), *kind], ValueError, "Dataset not found.*--dataset-download")
    refused([str(tmp_path), *small("--dataset", "torch/mnits")[1:]], ValueError, "Unknown torch")
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        header = struct.pack(">IIII", 2051, 8, 28, 28)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(header + bytes(8 * 28 * 28))
        labels = struct.pack(">II", 2049, 8) + bytes(range(8))
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(labels)
    refused([str(tmp_path), *kind], ValueError, r"1 channel\(s\).*takes 3: pass --in-chans 1")
    args = [*kind[: kind.index("--input-size")], *kind[kind.index("--input-size") + 4 :]]
    ten = ["--num-classes", "10", "--epochs", "1", "--input-size", "1", "28", "28"]
    assert train(parse([str(tmp_path), *args, *ten]), progress=False).metrics["epoch"] == 0


def test_folders(small, tmp_path):
    """Empty, absent, of one class, or of other classes in validation."""
    empty = tmp_path / "empty"
    empty.mkdir()
    refused([str(empty), *small()[1:]], ValueError, "Found 0 images")
    refused([str(tmp_path / "absent"), *small()[1:]], ValueError, "absent does not exist")
    refused(small()[1:], ValueError, "no data: give --data-dir FOLDER")
    half = draw_pictures(tmp_path / "half", classes=2, each=8)
    (half / "validation").rename(half / "test")
    complaint = "half has no folder 'validation', only one of the two splits"
    refused([str(half), *small()[1:]], ValueError, complaint)
    one = draw_pictures(tmp_path / "one", classes=1, each=8)
    refused([str(one), *small()[1:]], ValueError, "only one class, 'class0'")
    other = draw_pictures(tmp_path / "other", classes=2, each=8)
    (other / "validation" / "class1").rename(other / "validation" / "klass1")
    refused([str(other), *small()[1:]], ValueError, r"only in training \['class1'\].*klass1")


def test_a_picture_that_is_none_is_named(small, pictures, tmp_path):
    """Before training if its header is broken, once met if its pixels are; or it is skipped."""
    folder = tmp_path / "spoilt"
    shutil.copytree(pictures, folder)
    bad = folder / "train" / "class1" / "3.png"
    argv = [str(folder), *small()[1:]]

    whole = bad.read_bytes()
    bad.write_bytes(b"no picture")
    refused(argv, OSError, r"3\.png cannot be read.*--on-bad-image skip")
    bad.write_bytes(whole[: len(whole) // 2])
    refused([*argv, "--overwrite"], OSError, r"3\.png cannot be read")
    run = train(parse([*argv, "--overwrite", "--on-bad-image", "skip"]), progress=False)
    assert run.metrics["epoch"] == 2


def test_a_broken_picture_met_by_a_worker_is_said_in_a_line(small, pictures, tmp_path, caplog):
    """Not below the worker's traceback, and not as skipped, which it is not."""
    folder = tmp_path / "spoilt"
    shutil.copytree(pictures, folder)
    bad = folder / "train" / "class1" / "3.png"
    bad.write_bytes(bad.read_bytes()[:2000])
    with pytest.raises(OSError, match=r"3\.png cannot be read") as caught:
        train(parse([str(folder), *small("--workers", "1")[1:]]), progress=False)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(folder))
    assert "Skipped" not in caplog.text


def test_a_class_folder_without_pictures_is_said(small, pictures, tmp_path, caplog):
    folder = tmp_path / "hollow"
    shutil.copytree(pictures, folder)
    (folder / "train" / "empty").mkdir()
    argv = [str(folder), *small("--stop-epoch", "1", "--epochs", "1")[1:]]
    train(parse(argv), progress=False)
    assert "train/empty holds no pictures: it is no class" in caplog.text
    assert "class0" not in caplog.text


@pytest.mark.parametrize("dataset, extra", [("wds/a.tar", "wds"), ("hfds/a", "hfds")])
def test_a_reader_that_is_not_installed_names_our_extra(small, monkeypatch, dataset, extra):
    for module in ("webdataset", "datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    refused(small("--dataset", dataset), ImportError, rf"pip install 'vcr_zoo\[{extra}\]'")


def test_a_logger_that_is_not_installed_is_missed_before_anything_is_done(
    small, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "wandb", None)
    refused(small("--log-wandb"), ImportError, r"wandb is not installed.*vcr_zoo\[log\]")
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_model(small, tmp_path):
    train(parse(small("--epochs", "1", experiment="first")), progress=False)
    last = str(tmp_path / "first" / "last.pth.tar")
    refused(small("--model", "test_vit", "--resume", last), ValueError, "of test_resnet")
    refused(small("--opt", "adamw", "--resume", last), ValueError, "of --opt sgd.*--no-resume-opt")
    wider = ("--model-kwargs", "stem_width=24", "--resume", last)
    refused(small(*wider), ValueError, "does not fit test_resnet")


def test_a_folder_that_holds_a_run_is_not_written_over(small, tmp_path):
    """Unless that is asked for; nothing already trained is lost by running twice."""
    train(parse(small("--epochs", "1")), progress=False)
    before = (tmp_path / "run" / "last.pth.tar").stat().st_mtime_ns
    refused(small("--epochs", "1"), FileExistsError, "--resume auto.*--overwrite.*--experiment")
    assert (tmp_path / "run" / "last.pth.tar").stat().st_mtime_ns == before
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "run" / "model.safetensors", tmp_path / "other")
    begin = ": --overwrite begins again"
    refused(small("--epochs", "1", experiment="other"), FileExistsError, f"holds a run{begin}")
    again = small("--epochs", "1", "--resume", "auto", experiment="other")
    refused(again, FileExistsError, "holds a finished run")
    refused(small("--overwrite", "--opt", "adamv"), ValueError, "does not exist")
    assert (tmp_path / "run" / "last.pth.tar").stat().st_mtime_ns == before
    train(parse(small("--epochs", "1", "--overwrite")), progress=False)
    assert (tmp_path / "run" / "last.pth.tar").stat().st_mtime_ns > before

    (tmp_path / "pairs" / "some-run").mkdir(parents=True)
    refused(small("--overwrite", experiment="pairs"), FileExistsError, "no run, but some-run")
    assert (tmp_path / "pairs" / "some-run").exists()
    train(parse(small("--overwrite", "--dry-run", experiment="pairs")), progress=False)

    (tmp_path / "run").rename(tmp_path / "disk")
    (tmp_path / "run").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "recovery-30-1.pth.tar").write_bytes(b"of the old run, and later")
    train(parse(small("--epochs", "1", "--overwrite")), progress=False)
    assert not (tmp_path / "disk" / "recovery-30-1.pth.tar").exists()


def test_the_program_says_it_in_a_line(small, capsys):
    """A wrong request ends with 2 and one line on stderr, no traceback."""
    assert main(small("--vcr-alpha", "-1")) == 2
    assert capsys.readouterr().err.startswith("train.py: --vcr-alpha must not be negative")
    assert main(["--epohcs", "3"]) == 2


def test_torch_and_torchvision_at_odds_are_said_in_a_line(tmp_path):
    """Without a traceback, although nothing of the program can be imported."""
    (tmp_path / "torchvision").mkdir()
    broken = 'raise RuntimeError("operator torchvision::nms does not exist")'
    (tmp_path / "torchvision" / "__init__.py").write_text(broken)
    program = Path(__file__).parents[2] / "train.py"
    done = subprocess.run(
        [sys.executable, str(program), "--help"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "pip install --force-reinstall torch torchvision" in done.stderr


def test_training_on_fewer_pictures_than_a_batch_is_possible_when_asked(small):
    run = train(parse(small("--batch-size", "64", "--keep-last")), progress=False)
    assert len(run.history) == 3


@pytest.mark.parametrize("flags", [["--initial-checkpoint"], ["--pretrained", "--pretrained-path"]])
def test_weights_of_another_architecture_are_refused_in_a_line(small, tmp_path, flags):
    """Not in a page of sizes that do not match."""
    file = tmp_path / "other.pth"
    torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), file)
    argv = small("--model", "test_convnext", *flags)

    refused([*argv, str(file)], ValueError, "another architecture than test_convnext")
    refused([*argv, "/nowhere.pth"], ValueError, "/nowhere.pth: there is no such file")
    file.write_text("no weights")
    refused([*argv, str(file)], ValueError, "no weights that can be read safely")


def test_weights_of_which_nothing_fits_are_refused(small, tmp_path, caplog):
    """timm insists on no key, so that a run would begin at random weights without a word."""
    caplog.set_level(logging.WARNING, "vcr_zoo")
    for name in ("test_vit", "test_resnet"):
        state = timm.create_model(name, num_classes=7).state_dict()
        torch.save(state, tmp_path / f"{name}.pth")
    flags = ("--epochs", "1", "--pretrained", "--pretrained-path")

    other = small(*flags, str(tmp_path / "test_vit.pth"))
    refused(other, ValueError, "another architecture than test_resnet: it holds 0 %")
    state = torch.load(tmp_path / "test_resnet.pth")
    state["conv9.weight"] = state.pop("layer1.0.bn1.weight")
    torch.save(state, tmp_path / "nearly.pth")
    train(parse(small(*flags, str(tmp_path / "nearly.pth"))), progress=False)
    assert "lacks layer1.0.bn1.weight" in caplog.text
    assert "does not have: conv9.weight" in caplog.text


def test_a_head_that_differs_points_to_the_option_that_adapts_it(small, tmp_path):
    file = tmp_path / "head.pth"
    torch.save(timm.create_model("test_resnet", num_classes=4).state_dict(), file)

    refused(small("--initial-checkpoint", str(file)), ValueError, "pass it as --pretrained")


def test_outputs_and_parts_that_do_not_match_are_said(small, pictures, caplog):
    """Allowed, as in timm's script, but hardly ever meant."""
    argv = [str(pictures / "train"), *small("--epochs", "1")[1:]]
    at = argv.index("--num-classes")
    del argv[at : at + 2]
    train(parse(argv), progress=False)

    assert "3 classes, but test_resnet has 1000 outputs: pass --num-classes 3" in caplog.text
    assert "validating on the training pictures" in caplog.text


def test_a_checkpoint_of_elsewhere_does_not_free_the_folder(small, tmp_path):
    """It is another run that would be written over."""
    for name in ("run", "other"):
        train(parse(small("--epochs", "1", experiment=name)), progress=False)
    before = (tmp_path / "run" / "last.pth.tar").read_bytes()
    elsewhere = str(tmp_path / "other" / "last.pth.tar")
    refused(small("--epochs", "2", "--resume", elsewhere), FileExistsError, "--experiment NAME")
    assert (tmp_path / "run" / "last.pth.tar").read_bytes() == before
    more = train(parse(small("--resume", elsewhere, experiment="third")), progress=False)
    assert [row["epoch"] for row in more.history] == [0, 1, 2]
    over = small("--epochs", "2", "--resume", elsewhere, "--overwrite", "--stop-epoch", "1")
    train(parse([*over, "--experiment", "third"]), progress=False)  # which had three epochs
    assert not list((tmp_path / "third").glob("checkpoint-*"))
    assert checkpoint.latest(tmp_path / "third") is None
