"""One run: what it computes, what it leaves, and how it goes on."""

import csv
import os
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.data import create_dataset, create_transform
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2

from vcr_zoo.training import checkpoint, loop, main, parse, report, run, train
from vcr_zoo.training.evaluate import evaluate, open_pictures
from vcr_zoo.training.randomness import Order, seed_everything
from vcr_zoo.training.workers import PATIENCE


def weights(folder):
    return load_file(folder / "model.safetensors")


def same(one, other) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(a[name].equal(b[name]) for name in a)


def test_zero_coefficients_change_no_bit(small, tmp_path):
    """With --vcr-alpha 0 --vcr-beta 0 three epochs end in the weights of a run without VCR."""
    train(parse(small(experiment="plain")), progress=False)
    zero = ("--vcr-alpha", "0", "--vcr-beta", "0", "--vcr-layers", "stages", "--vcr-rows", "9")
    train(parse(small(*zero, experiment="zero")), progress=False)
    some = ("--vcr-alpha", "0.1", "--vcr-beta", "0")
    train(parse(small(*some, experiment="some")), progress=False)

    assert same(tmp_path / "plain", tmp_path / "zero")
    assert not same(tmp_path / "plain", tmp_path / "some")


def test_losses_are_those_of_a_loop_from_timms_parts(small, pictures):
    """Augmentation off, the loop adds nothing of its own to what timm's parts compute."""
    argv = small("--no-aug", "--smoothing", "0", "--grad-accum-steps", "2", "--vcr-alpha", "0")
    ours = [row["train_loss"] for row in train(parse(argv), progress=False).history]

    seed_everything(42, 0)
    model = timm.create_model("test_resnet", num_classes=3)
    images = create_dataset("", root=str(pictures), split="train")
    normal = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "interpolation": "bilinear"}
    images.transform = create_transform((3, 32, 32), is_training=True, no_aug=True, **normal)
    optimizer = create_optimizer_v2(model, "sgd", lr=0.05, momentum=0.9, weight_decay=2e-5)
    schedule, epochs = create_scheduler_v2(optimizer, "cosine", 3, warmup_lr=1e-5)
    order, theirs = Order(42, seed=42), []
    for epoch in range(epochs):
        order.set_epoch(epoch)
        numbers, total = list(order), 0.0
        model.train()
        for group in ((0, 1), (2, 3), (4,)):
            for step in group:
                batch = [images[i] for i in numbers[8 * step : 8 * step + 8]]
                x, y = torch.stack([x for x, _ in batch]), torch.tensor([y for _, y in batch])
                loss = torch.nn.functional.cross_entropy(model(x), y)
                (loss / len(group)).backward()
                total += loss.item() / 5
            optimizer.step()
            optimizer.zero_grad()
        schedule.step(epoch + 1)
        theirs.append(total)

    assert ours == pytest.approx(theirs, rel=1e-4)


def test_a_run_leaves_weights_that_timm_loads(small, tmp_path):
    """config.json and model.safetensors say everything that timm needs."""
    run = train(parse(small("--model-ema", "--model-ema-decay", "0.5")), progress=False)

    loaded = timm.create_model(f"local-dir:{tmp_path / 'run'}", pretrained=True).eval()
    x = torch.rand(2, 3, 32, 32)
    assert loaded(x).equal(run.model(x)) and not run.model.training
    assert loaded.pretrained_cfg["input_size"] == (3, 32, 32)
    assert loaded.pretrained_cfg["label_names"] == ["class0", "class1", "class2"]
    last = checkpoint.read(tmp_path / "run" / "last.pth.tar")
    assert run.model.fc.weight.equal(last["state_dict_ema"]["fc.weight"])
    assert not run.model.fc.weight.equal(last["state_dict"]["fc.weight"])


def test_the_weights_keep_the_batch_norm_that_they_were_trained_with(small, tmp_path):
    """--bn-eps changes what the network computes, so timm must find it in config.json."""
    argv = small("--model", "test_efficientnet", "--bn-eps", "0.01", "--epochs", "1")
    train(parse(argv), progress=False)
    loaded = timm.create_model(f"local-dir:{tmp_path / 'run'}", pretrained=True)
    assert {m.eps for m in loaded.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {0.01}


def test_summary_has_a_row_an_epoch_and_a_column_a_term(small, tmp_path):
    train(parse(small("--vcr-alpha", "1", "--vcr-layers", "pooled,layer2")), progress=False)
    rows = list(csv.DictReader((tmp_path / "run" / "summary.csv").open()))
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    terms = [f"train_{v}.{p}" for v in ("variance", "covariance") for p in ("layer2", "fc.input")]
    assert [name for name in rows[0] if "." in name] == terms
    assert {"train_loss", "train_base_loss", "eval_top1", "lr"} <= rows[0].keys()


def test_a_stopped_run_saves_and_goes_on_to_the_same_end(small, tmp_path, monkeypatch):
    """SIGTERM ends a run with a code of its own; resumed it ends as if nothing had been."""
    random = ("--reprob", "0.5", "--mixup", "0.2", "--drop", "0.1", "--model-ema")
    train(parse(small(*random, experiment="whole")), progress=False)
    argv, told = small(*random, experiment="stopped"), []
    monkeypatch.setattr(report, "EVERY", 0.0)

    def terminate(text, done, total):
        if done > 6 and not told:
            told.append(done)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt, match="saved"):
        train(parse(argv), progress=terminate)
    assert list((tmp_path / "stopped").glob("recovery-*"))
    assert main([*argv, "--resume", "auto"]) == 0

    assert same(tmp_path / "whole", tmp_path / "stopped")


def test_a_full_disk_leaves_the_previous_checkpoint(small, tmp_path):
    """A save that fails in the middle takes nothing with it."""
    train(parse(small("--stop-epoch", "1")), progress=False)
    last = tmp_path / "run" / "last.pth.tar"
    before, limits = last.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="could not save"):
            train(parse(small("--resume", "auto")), progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert last.read_bytes() == before
    assert not list(last.parent.glob(".*.part"))
    assert train(parse(small("--resume", "auto")), progress=False).metrics["epoch"] == 2


def test_a_truncated_checkpoint_is_passed_over(small, tmp_path):
    """--resume auto takes the newest checkpoint that is whole."""
    train(parse(small("--stop-epoch", "1", "--recovery-interval", "2")), progress=False)
    folder = tmp_path / "run"
    whole = (folder / "last.pth.tar").read_bytes()
    (folder / "recovery-1-3.pth.tar").write_bytes(whole[: len(whole) // 2])
    assert checkpoint.latest(folder) == folder / "last.pth.tar"
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        train(parse(small("--resume", str(folder / "recovery-1-3.pth.tar"))), progress=False)


def test_older_checkpoints_serve_when_the_last_is_spoilt(small, tmp_path):
    """Nothing is begun anew over a run as long as one checkpoint is whole, or without a word."""
    train(parse(small("--stop-epoch", "2")), progress=False)
    folder = tmp_path / "run"
    for name in ("last", "checkpoint-1"):
        file = folder / f"{name}.pth.tar"
        content = file.read_bytes()[:1000]
        file.unlink()  # not its other names
        file.write_bytes(content)
    assert checkpoint.latest(folder) == folder / "checkpoint-0.pth.tar"
    (folder / "checkpoint-0.pth.tar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no checkpoint in .* is whole; --overwrite"):
        train(parse(small("--resume", "auto")), progress=False)


def test_what_killed_saves_left_is_swept(small, tmp_path):
    """Half-written files would fill a disk, kill by kill."""
    (tmp_path / "run").mkdir()
    for name in (".recovery-0-3.pth.tar.part", "checkpoint-0.pth.tar.part"):
        (tmp_path / "run" / name).write_bytes(b"half")
    train(parse(small("--epochs", "1")), progress=False)
    assert not list((tmp_path / "run").glob("*.part"))


def test_a_full_disk_at_the_export_is_an_error_in_a_line(small, tmp_path, monkeypatch, capsys):
    """safetensors raises an exception of its own kind."""
    original = checkpoint.export

    def export_on_a_full_disk(*args):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        try:
            return original(*args)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    monkeypatch.setattr(checkpoint, "export", export_on_a_full_disk)
    assert main(small("--epochs", "1")) == 2
    assert "could not save" in capsys.readouterr().err
    assert not list((tmp_path / "run").glob(".*.part"))


def test_a_stop_epoch_keeps_the_schedule_of_all_epochs(small):
    whole = train(parse(small(experiment="a")), progress=False)
    early = train(parse(small("--stop-epoch", "2", experiment="b")), progress=False)
    assert [row["lr"] for row in early.history] == [row["lr"] for row in whole.history[:2]]


def test_a_run_that_stops_before_its_first_epoch_saves_what_it_starts_from(small):
    whole = train(parse(small("--epochs", "1", experiment="before")), progress=False)
    start = ["--initial-checkpoint", str(whole.folder / "model.safetensors"), "--stop-epoch", "0"]
    run = train(parse(small(*start, experiment="start")), progress=False)

    assert run.history == [] and run.metrics == {}
    assert same(whole.folder, run.folder)


def test_more_epochs_may_be_added_to_a_run(small):
    """The schedule of a resumed run is that of its options: --epochs 5 has the rates of 5."""
    train(parse(small("--epochs", "2", experiment="more")), progress=False)
    more = train(parse(small("--epochs", "5", "--resume", "auto", experiment="more")), False)
    five = train(parse(small("--epochs", "5", experiment="five")), progress=False)
    rates = [[row["lr"] for row in run.history[2:]] for run in (more, five)]
    assert rates[0] == rates[1]


def test_epochs_may_be_trained_again(small, tmp_path):
    """--start-epoch keeps the rows before it, and nothing of the epochs that it does again."""
    whole = train(parse(small(experiment="a")), progress=False)
    train(parse(small()), progress=False)
    again = train(parse(small("--resume", "auto", "--start-epoch", "1")), progress=False)

    assert [row["epoch"] for row in again.history] == [0, 1, 2]
    assert again.history[0] == whole.history[0]
    assert [row["lr"] for row in again.history] == [row["lr"] for row in whole.history]
    saved = checkpoint.read(tmp_path / "run" / "last.pth.tar")["saver"]["checkpoint_files"]
    assert sorted(name for name, _ in saved) == ["checkpoint-0.pth.tar", "checkpoint-1.pth.tar"]


@pytest.mark.parametrize(
    "more, complaint",
    [
        (("--batch-size", "6"), "--batch-size was 8, now 6"),
        (("--seed", "1"), "--seed was 42, now 1"),
        (("--grad-accum-steps", "2"), "--grad-accum-steps was 1, now 2"),
        (("--train-num-samples", "40"), "--train-num-samples was None, now 40"),
    ],
)
def test_an_epoch_goes_on_with_the_batches_it_began_with(stopped_within, more, complaint):
    """Else pictures would be seen twice, others never; the same options go on."""
    with pytest.raises(ValueError, match=f"middle of epoch 1.*{complaint}.*--start-epoch 1"):
        train(parse([*stopped_within, *more]), progress=False)
    run = train(parse([*stopped_within, *more, "--start-epoch", "1"]), progress=False)
    assert [row["epoch"] for row in run.history] == [0, 1, 2]


@pytest.fixture
def stopped_within(small, tmp_path, monkeypatch) -> list[str]:
    """Arguments that go on with a run which was told to stop in the middle of its second epoch."""

    def terminate(parts, count):
        after_update(parts, count)
        if count == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    after_update = loop.after_update
    with monkeypatch.context() as patch:
        patch.setattr(loop, "after_update", terminate)
        with pytest.raises(KeyboardInterrupt):
            train(parse(small()), progress=False)
    return small("--resume", "auto")


def test_an_error_stands_on_a_line_of_its_own(small, monkeypatch, capsys):
    """Below the progress line, not behind it."""

    def full(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(checkpoint.Saver, "save_checkpoint", full)
    assert main(small()) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "train.py: the disk is full"


def test_gray_networks_take_pictures_in_colour(small, pictures, tmp_path):
    """--in-chans 1 converts them, and the weights that are left load with their one channel."""
    argv = small("--in-chans", "1", "--img-size", "32", "--epochs", "1")
    at = argv.index("--input-size")
    del argv[at : at + 4]
    train(parse(argv), progress=False)
    loaded = timm.create_model(f"local-dir:{tmp_path / 'run'}", pretrained=True)
    assert loaded.pretrained_cfg["input_size"] == (1, 32, 32)
    assert evaluate(loaded, open_pictures(str(pictures), channels=1)).pictures == 9


def test_milestones_stay(small, tmp_path):
    train(parse(small("--save-epochs", "1", "2", "--checkpoint-hist", "1")), progress=False)
    names = sorted(path.name for path in (tmp_path / "run").glob("milestone-*"))
    assert names == ["milestone-1.pth.tar", "milestone-2.pth.tar"]
    assert len(list((tmp_path / "run").glob("checkpoint-*"))) == 1


def test_a_non_finite_loss_stops_with_step_term_and_placement(small, tmp_path, monkeypatch):
    """The message names what went first; the epoch saved before stays whole."""
    original = loop.after_update

    def poison(parts, count):
        original(parts, count)
        if count == 7:
            next(parts.task.trainable_module.layer3.parameters()).data.fill_(float("nan"))

    monkeypatch.setattr(loop, "after_update", poison)
    with pytest.raises(FloatingPointError, match=r"epoch 1, step 2: .*variance.*layer3\.0 is nan"):
        train(parse(small(*"--vcr-alpha 1 --vcr-beta 1 --vcr-every 1".split())), progress=False)
    assert checkpoint.read(tmp_path / "run" / "last.pth.tar")["epoch"] == 0


@pytest.mark.parametrize(
    "more",
    [
        ("--aa", "rand-m9-mstd0.5", "--color-jitter", "0.2", "--hflip", "0.3"),
        ("--aug-splits", "2", "--jsd-loss", "--resplit", "--reprob", "0.2", "--split-bn"),
        ("--bce-loss", "--bce-target-thresh", "0.2", "--mixup", "0.5", "--mixup-off-epoch", "1"),
        ("--no-prefetcher", "--cutmix", "1.0", "--pin-mem"),
        ("--train-img-sizes", "24", "32", "--train-batch-sizes", "8", "6"),
        ("--train-batches-per-epoch", "7", "--train-size-probs", "1"),
        ("--amp", "--channels-last", "--model-ema-warmup", "--model-ema"),
        ("--amp", "--amp-dtype", "float16", "--clip-grad", "1.0", "--clip-mode", "agc"),
        ("--model-dtype", "bfloat16", "--model-ema"),
        ("--opt", "lamb", "--layer-decay", "0.8", "--sched", "step", "--sched-on-updates"),
        ("--opt", "lookahead_adamw", "--lr-noise", "0.4", "0.9", "--warmup-epochs", "1"),
        ("--grad-checkpointing", "--vcr-beta", "1", "--save-images", "--log-interval", "2"),
        ("--no-ddp-bb", "--synchronize-step", "--use-multi-epochs-loader", "--val-interval", "2"),
        ("--head-init-scale", "0.1", "--head-init-bias", "-1", "--gp", "max", "--val-split", ""),
        ("--train-num-samples", "24", "--val-num-samples", "6", "--loss", "poly", "--tta", "0"),
    ],
    ids=lambda more: more[0],
)
def test_options_work_together_and_resume_exactly(small, tmp_path, more):
    """Stopped after an epoch and resumed, each of these ends as when it is not stopped."""
    train(parse(small(*more, "--epochs", "2", experiment="whole")), progress=False)
    argv = small(*more, "--epochs", "2", experiment="cut")
    train(parse([*argv, "--stop-epoch", "1"]), progress=False)
    train(parse([*argv, "--resume", "auto"]), progress=False)
    assert same(tmp_path / "whole", tmp_path / "cut")


def test_a_stopped_program_ends_with_a_code_of_its_own(small, monkeypatch, capsys):
    """75, which is none of 0 (done), 2 (wrong request) and 3 (diverged)."""
    told = []

    def terminate_once(parts, count):
        after_update(parts, count)
        if not told:
            told.append(os.kill(os.getpid(), signal.SIGTERM))

    after_update = loop.after_update
    monkeypatch.setattr(loop, "after_update", terminate_once)
    assert main(small()) == 75
    assert "saved; --resume auto goes on" in capsys.readouterr().err
    assert main(small("--resume", "auto", "--stop-epoch", "1")) == 0


def test_a_signal_to_all_of_its_processes_is_saved_too(small, tmp_path):
    """As torchrun, Slurm and `timeout` send it: the loader's workers get it as well."""
    argv = [*small("--workers", "2"), "--epochs", "1000", "--val-interval", "1000"]
    argv += ["--recovery-interval", "1"]
    code = "import sys; from vcr_zoo.training import main; sys.exit(main())"
    run = subprocess.Popen([sys.executable, "-c", code, *argv], start_new_session=True)
    while not checkpoint.latest(tmp_path / "run") and run.poll() is None:  # it has workers then
        time.sleep(0.1)
    os.killpg(run.pid, signal.SIGTERM)

    assert run.wait(timeout=120) == 75


def test_a_run_that_fails_does_not_wait_for_its_workers(pictures, tmp_path):
    """They wait for a save when they are told to stop, but not when the run is over."""
    shutil.copytree(pictures, tmp_path / "own")
    cut = tmp_path / "own" / "train" / "class0" / "0.png"
    cut.write_bytes(cut.read_bytes()[:100])
    argv = [str(tmp_path / "own"), "--model", "test_resnet", "--num-classes", "3", "-b", "8"]
    argv += ["--input-size", "3", "32", "32", "--workers", "2", "--output", str(tmp_path)]
    code = "import sys; from vcr_zoo.training import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code, *argv], timeout=PATIENCE - 5)
    assert done.returncode == 2


def test_averaged_weights_kept_elsewhere_are_those_that_are_judged(small):
    """On their way to the export; without it the network's own would be."""
    ema = ("--model-ema", "--model-ema-decay", "0.9", "--epochs", "2")
    kept, there = (
        train(parse(small(*ema, *more, experiment=f"run{len(more)}")), progress=False)
        for more in (("--model-ema-force-cpu",), ())
    )
    assert kept.metrics == there.metrics


def test_a_rate_of_zero_is_a_rate(small, tmp_path):
    run = train(parse(small("--lr", "0", "--weight-decay", "0", "--epochs", "1")), progress=False)
    assert run.history[0]["lr"] == 0


def test_an_older_checkpoint_stays_what_it_is(small, tmp_path, monkeypatch):
    """Going on from it, the epochs after it are new, and so is what --resume auto goes on with."""
    argv = small("--checkpoint-hist", "5")
    scores = {"top1": 0.0, "loss": 0.0}

    def better(*_):
        scores["top1"] += 1
        return dict(scores)

    with monkeypatch.context() as patch:
        patch.setattr(run, "validate", better)
        train(parse(argv), progress=False)
    folder = tmp_path / "run"
    assert checkpoint.read(folder / "model_best.pth.tar")["epoch"] == 2
    (folder / "last.pth.tar").write_bytes(b"damaged")  # another name of the second epoch's file
    first = folder / "checkpoint-0.pth.tar"
    before = checkpoint.read(first)
    again = train(parse([*argv, "--resume", str(first), "--stop-epoch", "1"]), progress=False)

    assert [row["epoch"] for row in again.history] == [0]
    after = checkpoint.read(first)
    assert after["epoch"] == before["epoch"] == 0
    assert all(v.equal(after["state_dict"][k]) for k, v in before["state_dict"].items())
    assert checkpoint.read(checkpoint.latest(folder))["epoch"] == 0
    assert checkpoint.read(folder / "model_best.pth.tar")["epoch"] == 0


@pytest.mark.parametrize("way", ["an older checkpoint", "--start-epoch"])
def test_a_run_that_goes_back_and_is_stopped_goes_on_from_there(small, tmp_path, monkeypatch, way):
    """Not from the branch that was left, which came further."""
    argv = small("--checkpoint-hist", "5")
    train(parse(argv), progress=False)
    folder = tmp_path / "run"
    back = ["--resume", "auto", "--start-epoch", "1"]
    if way != "--start-epoch":
        back = ["--resume", str(folder / "checkpoint-0.pth.tar")]
    after_update = loop.after_update

    def terminate(parts, count):
        after_update(parts, count)
        if count % 6 == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "after_update", terminate)
        with pytest.raises(KeyboardInterrupt, match="stopped at epoch 1"):
            train(parse([*argv, *back]), progress=False)
    found = checkpoint.read(checkpoint.latest(folder))
    assert found["epoch"] == 1 and found["vcr_zoo"]["batches"] > 0
    rows = train(parse([*argv, "--resume", "auto"]), progress=False).history
    assert [row["epoch"] for row in rows] == [0, 1, 2]


def test_a_resumed_run_has_the_rates_and_the_decay_of_its_options(small, tmp_path):
    train(parse(small("--stop-epoch", "1", "--layer-decay", "0.8")), progress=False)
    changed = ("--lr", "0.01", "--weight-decay", "0.3", "--momentum", "0.5", "--layer-decay", "0.6")
    more = train(parse(small(*changed, "--resume", "auto")), progress=False)
    whole = train(parse(small(*changed, experiment="whole")), progress=False)

    assert [row["lr"] for row in more.history[1:]] == [row["lr"] for row in whole.history[1:]]
    groups = checkpoint.read(tmp_path / "run" / "last.pth.tar")["optimizer"]["param_groups"]
    assert {group["momentum"] for group in groups} == {0.5}
    assert {group["weight_decay"] for group in groups} == {0.0, 0.3}
