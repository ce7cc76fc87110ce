"""Self-supervised tasks against lightly's parts in a loop of their own, and what they refuse."""

import logging
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from PIL import Image
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from vcr_zoo.training import parse, train, wiring
from vcr_zoo.training.distributed import start
from vcr_zoo.training.dry_run import flops
from vcr_zoo.training.loop import Meter, Watch, updates, validate
from vcr_zoo.training.ssl import CAUSES, NeighborEvaluator, SelfSupervisedTask, batch_rank
from vcr_zoo.training.wiring import create_task, finish, wire

from .test_loading import noise_images
from .test_resume import differing, killed

pytest.importorskip("lightly", reason="needs vcr_zoo[ssl]")

from lightly import loss as losses
from lightly.models.modules import heads

TASKS = ("simclr", "vicreg", "barlow", "simsiam")


@pytest.fixture
def blind(small):
    """As `small`, without the number of classes."""

    def arguments(*more: str, experiment: str = "run") -> list[str]:
        argv = small(*more, experiment=experiment)
        at = argv.index("--num-classes")
        return argv[:at] + argv[at + 2 :]

    return arguments


def wired(argv):
    args = parse([str(word) for word in argv])
    parts = wire(args, start(args))
    finish(parts)
    return parts


def reference(method: str, d: int):
    """Projector, predictor and loss as lightly's own examples put them together."""
    if method == "simclr":
        return heads.SimCLRProjectionHead(d, d, 128), None, losses.NTXentLoss()
    if method == "vicreg":
        return heads.VICRegProjectionHead(d, 384, 384), None, losses.VICRegLoss()
    if method == "barlow":
        return heads.BarlowTwinsProjectionHead(d, 384, 384), None, losses.BarlowTwinsLoss()
    predictor = heads.SimSiamPredictionHead(d, d // 4, d)
    return heads.SimSiamProjectionHead(d, d, d), predictor, losses.NegativeCosineSimilarity()


@pytest.mark.parametrize("method", TASKS)
def test_ten_steps_are_those_of_a_loop_of_lightly_parts(method, blind):
    """Losses of ten steps and the weights after them, without VCR."""
    argv = blind("--task", method, "--opt", "momentum", "--momentum", "0.9", "--lr", "0.05")
    parts = wired([*argv, "--weight-decay", "0", "--sched", "none"])
    backbone = timm.create_model(parts.args.model, num_classes=0)
    backbone.load_state_dict(parts.task.get_eval_model().state_dict())
    projector, predictor, criterion = reference(method, backbone.num_features)
    joined = parts.task.get_trainable_module()
    projector.load_state_dict(joined.projector.state_dict())
    theirs = nn.ModuleList([backbone, projector, *([predictor] if predictor else [])])
    if predictor:
        predictor.load_state_dict(joined.predictor.state_dict())
    optimizer = torch.optim.SGD(theirs.train().parameters(), lr=0.05, momentum=0.9)

    expected, found, epoch = [], [], 0
    while len(expected) < 10:
        for x, _ in parts.train.epoch(epoch):
            z = projector(backbone(x))
            a, b = z.chunk(2)
            if predictor:
                p, q = predictor(z).chunk(2)
                loss = 0.5 * (criterion(p, b.detach()) + criterion(q, a.detach()))
            else:
                loss = criterion(a, b)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            expected.append(loss.item())
        epoch += 1
    for done in range(epoch):
        before, meter = 0.0, Meter(parts)
        for _ in updates(parts, done, 0, meter, Watch(parts)):
            after = float(meter.sums[meter.names.index("loss")])
            found.append((after - before) / (meter.count / (len(found) % len(parts.train) + 1)))
            before = after

    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)
    mine = parts.task.get_eval_model().state_dict()
    for name, tensor in backbone.state_dict().items():
        torch.testing.assert_close(mine[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("loader", ["tensor", "timm", "timm, no prefetcher", "timm, a portion"])
def test_a_batch_is_two_views_of_each_picture(loader, blind, tmp_path, monkeypatch):
    """Halves show the same pictures in the same order, cropped each in its own way."""
    plain = ("--task", "simclr", "--color-jitter", "0", "--grayscale-prob", "0", "-b", "8")
    if loader == "tensor":
        images = noise_images()
        images.x[:] = (8 * np.arange(30, dtype=np.uint8))[:, None, None, None]
        images.x[:, ::2] += 4
        monkeypatch.setattr(wiring, "open_split", lambda *_, **__: images)
        argv = ["--dataset", "fmnist", "--model", "test_resnet", "--input-size", "1", "32", "32"]
        argv += ["--crop-pct", "1", "--interpolation", "bilinear", "--device", "cpu"]
        argv += ["--train-interpolation", "bilinear", "--loader", "tensor", *plain]
    else:
        folder = tmp_path / "striped"
        for i in range(24):
            picture = np.full((40, 40, 3), 8 * i + 4, dtype=np.uint8)
            picture[::2] += 4
            for part in ("train", "validation"):
                (folder / part / f"c{i % 3}").mkdir(parents=True, exist_ok=True)
                Image.fromarray(picture).save(folder / part / f"c{i % 3}" / f"{i}.png")
        argv = [str(folder), "--model", "test_resnet", "--input-size", "3", "32", "32"]
        argv += ["--workers", "0", "--device", "cpu", *plain]
        argv += ["--no-prefetcher"] if "no" in loader else []
        argv += ["--train-num-samples", "16"] if "portion" in loader else []
    parts = wired(argv)

    for x, _ in parts.train.epoch(1):
        assert len(x) == 16
        first, second = x.chunk(2)
        close = (first.mean(dim=(1, 2, 3))[:, None] - second.mean(dim=(1, 2, 3))).abs()
        assert close.argmin(dim=1).tolist() == list(range(8))
        assert not torch.equal(first, second)


def test_neighbors_are_training_pictures_as_validation_sees_them(blind):
    """Of validation's own pictures each would be its own neighbor."""
    parts = wired(blind("--task", "simclr", "--train-num-samples", "20"))
    bank, asked = ([y for _, y in loader.epoch()] for loader in (parts.bank, parts.validation))
    assert len(torch.cat(bank)) == 20 != len(torch.cat(asked))
    for one, other in zip(parts.bank.epoch(), parts.bank.epoch(), strict=True):
        assert torch.equal(one[0], other[0])  # nothing drawn


@pytest.mark.parametrize("ranks", [1, 2])
def test_kills_change_no_bit(ranks, blind, tmp_path):
    """The projector, its batch norm and the views go on where they were, too."""
    options = ("--task", "simclr", "--vcr-alpha", "1", "--vcr-beta", "1", "--vcr-rows", "32")
    options += ("--model-ema", "--model-ema-decay", "0.9", "--recovery-interval", "1")
    options += ("--batch-size", str(8 // ranks))

    killed(tmp_path / "whole", blind(*options, experiment="whole"), ranks=ranks, kills=0)
    argv = blind(*options, experiment="killed")
    report = killed(tmp_path / "killed", argv, ranks=ranks, kills=3, updates=6)

    assert report["kills"] >= 3 and report["within_an_epoch"] and len(report["epochs"]) > 1
    whole = heads_saved(tmp_path / "whole")
    assert "1.running_var" in " ".join(whole)
    for end in map(Path, report["ends"]):
        heads = heads_saved(end)
        assert differing(end, tmp_path / "whole") == []
        assert heads.keys() == whole.keys()
        assert all(torch.equal(heads[name], whole[name]) for name in heads)


def heads_saved(folder):
    """The projector's tensors in the latest checkpoint of a run somewhere below a folder."""
    (path,) = folder.rglob("last.pth.tar")
    state = torch.load(path, weights_only=False)["task_state"]["projector"]
    return dict(state)


def share(rank, world, method, folder):
    """The gradient of a linear backbone on a share of the pictures."""
    torch.set_num_threads(1)
    where = f"file://{folder}/store-{method}"
    dist.init_process_group("gloo", init_method=where, rank=rank, world_size=world)
    task = linear_task(method, gather=True)
    task.trainable_module = DistributedDataParallel(task.trainable_module)
    views = eight_views().view(2, world, -1, 3, 4, 4)[:, rank]
    task(views.flatten(0, 1))["loss"].backward()
    evaluator = task.create_evaluator()
    evaluator.remember(views[0].flatten(1), torch.arange(len(views[0])) + rank)
    evaluator.update(views[1].flatten(1), torch.arange(len(views[1])) + rank)
    metrics = evaluator.compute(distributed=True)
    torch.save((task.get_eval_model()[1].weight.grad, metrics), f"{folder}/{method}-{rank}")
    dist.destroy_process_group()


def linear_task(method, gather=False):
    torch.manual_seed(0)
    task = SelfSupervisedTask(
        nn.Sequential(nn.Flatten(), nn.Linear(48, 6)), method, gather=gather, input_size=(3, 4, 4)
    ).double()
    joined = task.get_trainable_module()
    joined.projector = nn.Identity()  # without batch norm, which knows its own process only
    if joined.predictor is not None:
        joined.predictor = nn.Linear(6, 6).double()
    return task.train()


def eight_views():
    return torch.randn(16, 3, 4, 4, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("method", ["simclr", "vicreg", "simsiam"])
def test_two_processes_compare_with_the_pictures_of_both(method, tmp_path):
    """Their mean gradient is that of one process with all eight pictures (Barlow Twins' is not:
    lightly normalizes each process's own); so is what neighbors vote."""
    task = linear_task(method)
    task(eight_views())["loss"].backward()
    mp.spawn(share, args=(2, method, str(tmp_path)), nprocs=2)

    (first, metrics), (second, same) = (torch.load(tmp_path / f"{method}-{r}") for r in (0, 1))
    torch.testing.assert_close(first, task.get_eval_model()[1].weight.grad, rtol=1e-5, atol=1e-7)
    assert torch.equal(first, second) and metrics == same
    views, labels = eight_views().view(2, 8, -1), torch.tensor([0, 1, 2, 3, 1, 2, 3, 4])
    alone = task.create_evaluator()
    alone.remember(views[0], labels)
    alone.update(views[1], labels)
    assert metrics == pytest.approx(alone.compute())


def test_neighbors_vote_as_those_of_transfer_do():
    """One definition of accuracy by neighbors in training and after it."""
    from vcr_zoo.features import Features
    from vcr_zoo.transfer.knn import knn

    torch.manual_seed(0)
    x, y = torch.randn(90, 5), torch.arange(90) % 3
    x[:, 0] += y
    evaluator = NeighborEvaluator(max_samples=29)
    for part in range(0, 60, 20):
        evaluator.remember(x[part : part + 20], y[part : part + 20])
    evaluator.update(x[60:], y[60:])
    known, asked = (Features(x[p], y[p], ("a", "b", "c")) for p in (slice(60), slice(60, 89)))

    found = evaluator.compute()
    assert found["top1"] == pytest.approx(100 * knn(known, asked))
    values = torch.linalg.eigvalsh(torch.cov(asked.x.double().T))
    share = values / values.sum()
    assert found["effective_rank"] == pytest.approx((-(share * share.log()).sum()).exp().item())


@pytest.mark.parametrize("method", TASKS)
def test_collapse_is_named_with_its_layer(method):
    """Constant features, and features that vary in one direction only; healthy ones pass."""
    task = linear_task(method)
    task(eight_views())
    assert task.collapsed() == []
    linear = task.get_eval_model()[1]
    with torch.no_grad():
        linear.weight[1:] = linear.weight[:1]
    task(eight_views())
    assert "pooled features collapse: effective rank 1.00" in task.collapsed()[0]
    assert CAUSES[method] in task.collapsed()[0]
    with torch.no_grad():
        linear.weight.copy_(1e-5 * torch.randn(6, 48))
    task(eight_views())
    assert "effective rank 1.00" not in task.collapsed()[0]  # many directions, all of them short
    with torch.no_grad():
        linear.weight.zero_()
    task(eight_views())
    assert "standard deviation 0" in task.collapsed()[0]
    assert batch_rank(torch.ones(4, 3)) == 1.0
    assert math.isnan(batch_rank(torch.full((4, 3), float("nan"))))
    task(eight_views()[:4])
    assert task.collapsed() == []  # of so few pictures nothing can be said


def test_a_run_warns_of_collapse_and_leaves_a_plain_backbone(blind, tmp_path, caplog):
    """Embeddings of width one have one direction; what is saved needs no class of this package."""
    argv = blind("--task", "vicreg", "--ssl-width", "1", "--epochs", "1", experiment="ssl")
    args = parse([*argv, "--lr", "0.0001"])
    with caplog.at_level(logging.WARNING):
        run = train(args, progress=False)
    assert "epoch 0: the embeddings collapse: effective rank 1.00" in caplog.text
    assert {"eval_top1", "eval_effective_rank", "eval_deviation"} <= set(run.history[0])

    plain = timm.create_model(f"local-dir:{run.folder}", pretrained=True).eval()
    x = torch.randn(2, *plain.pretrained_cfg["input_size"])
    assert plain.num_classes == 0 and plain(x).shape == (2, plain.num_features)
    torch.testing.assert_close(plain(x), run.model(x))


def test_vcr_attaches_as_in_supervised_training(blind):
    """Blocks and the pooled vector, whose classifier is gone."""
    argv = blind("--task", "vicreg", "--vcr-alpha", "1", "--vcr-beta", "1")
    parts = wired([*argv, "--vcr-layers", "blocks,pooled"])
    supervised = wired([*blind("--vcr-alpha", "1"), "--vcr-layers", "blocks,pooled"])
    assert list(map(str, parts.placements)) == list(map(str, supervised.placements))
    meter = Meter(parts)
    next(iter(updates(parts, 0, 0, meter, Watch(parts))))
    assert meter.means()["vcr_loss"] > 0


def test_shared_batch_norm_leaves_a_networks_activations_where_they_are(blind):
    """`prepare` has converted the network: again would take them away, in silence."""
    parts = wired(blind("--task", "simclr"))
    parts.args.distributed = parts.args.sync_bn = True
    model = convert_sync_batchnorm(timm.create_model("test_efficientnet", num_classes=0)).eval()
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        before = model(x)
        joined = create_task(parts.args, model, parts.data_config, parts.device, None)
        joined = joined.trainable_module.eval()
        assert torch.equal(joined.backbone(x), before)
    assert any(isinstance(m, torch.nn.SyncBatchNorm) for m in joined.projector.modules())


def test_what_a_run_writes_is_what_a_run_reads(blind, tmp_path):
    """Though it states options that do not go with the task, as they are unless told."""
    argv = blind("--task", "simclr", "--epochs", "1", "--val-split", "")
    first = train(parse(argv), progress=False)
    (tmp_path / "run").rename(tmp_path / "first")
    again = train(parse(["-c", str(tmp_path / "first" / "args.yaml")]), progress=False)
    for name, value in first.model.state_dict().items():
        assert value.equal(again.model.state_dict()[name]), name


REFUSED = {
    "one picture": (["-b", "1"], "batch-size 1 leaves one alone"),
    "no augmentation": (["--no-aug"], "--no-aug makes identical"),
    "mixing": (["--mixup", "0.2"], "--mixup and --cutmix does not go with"),
    "labels": (["--num-classes", "3"], "--num-classes does not go with"),
    "a loss": (["--loss", "bce"], "--loss does not go with"),
    "an unknown setting": (["--ssl-kwargs", "temprature=1"], "Closest: temperature"),
    "maps": (["--gp", ""], "has no pooled features, but gives"),
    "another process's pictures": (["--ssl-kwargs", "gather_distributed=False"], "It takes temp"),
    "a memory": (["--ssl-kwargs", "memory_bank_size=16"], "does not take memory_bank_size"),
    "a word": (["--ssl-kwargs", "temperature=warm"], "temperature must be a positive number"),
    "a width": (["--ssl-width", "0"], "--ssl-width must be positive"),
    "smoothing": (["--smoothing", "0.2"], "--smoothing does not go with"),
    "a head": (["--head-init-scale", "0.5"], "--head-init-scale does not go with"),
    "sizes": (["--train-img-sizes", "32", "48"], "--train-img-sizes does not go with"),
    "top-5": (["--eval-metric", "top5"], "Choose from loss, top1"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_has_no_meaning_is_refused(what, blind):
    more, words = REFUSED[what]
    with pytest.raises(ValueError, match=words):
        wired([*blind("--task", "simclr"), *more])


def test_its_options_need_its_task(blind):
    with pytest.raises(ValueError, match=r"--ssl-\.\.\. options go with --task simclr"):
        wired([*blind(), "--ssl-width", "8"])


def test_identical_views_are_refused_before_anything_is_learned(blind):
    still = ["--scale", "1", "1", "--ratio", "1", "1", "--hflip", "0", "--color-jitter", "0"]
    parts = wired([*blind("--task", "simclr"), *still, "--grayscale-prob", "0"])
    with pytest.raises(ValueError, match="two views of every picture are identical"):
        next(iter(updates(parts, 0, 0, Meter(parts), Watch(parts))))


def test_without_lightly_the_error_names_the_extra(blind, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightly.models.modules.heads", None)
    with pytest.raises(ImportError, match=r"pip install 'vcr_zoo\[ssl\]'"):
        wired(blind("--task", "barlow"))


def test_pictures_without_labels_are_learned_from(tmp_path):
    """Nothing votes; rank and deviation are logged, and the least loss is the best."""
    for part, count in (("train", 24), ("validation", 12)):
        (tmp_path / part).mkdir()
        for i in range(count):
            pixels = np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / part / f"{i}.png")
    argv = [str(tmp_path), "--model", "test_resnet", "--input-size", "3", "32", "32", "-b", "8"]
    argv += ["--task", "simclr", "--epochs", "2", "--workers", "0", "--device", "cpu"]
    run = train(parse([*argv, "--output", str(tmp_path / "runs")]), progress=False)

    assert "eval_top1" not in run.history[0]
    assert {"eval_effective_rank", "eval_deviation"} <= set(run.history[0])


def test_a_picture_has_no_vote_for_itself(tmp_path, caplog):
    """Where validation shows the training pictures, for want of a folder, nothing votes."""
    for i in range(24):
        (tmp_path / "train" / f"c{i % 3}").mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "train" / f"c{i % 3}" / f"{i}.png")
    argv = [str(tmp_path / "train"), "--model", "test_resnet", "--input-size", "3", "32", "32"]
    argv += ["--task", "simclr", "-b", "8", "--workers", "0", "--device", "cpu"]
    parts = wired(argv)

    assert parts.bank is None and parts.metric == "loss"
    assert "validating on the training pictures" in caplog.text
    assert set(validate(parts, parts.eval_model)) == {"effective_rank", "deviation"}
    with pytest.raises(ValueError, match="Choose from loss"):
        wired([*argv, "--eval-metric", "top1"])


def test_collapsed_validation_features_are_warned_of(blind):
    """Also where the latest training batch looks healthy."""
    task = linear_task("simclr")
    task(eight_views())
    good, flat = ({"effective_rank": r, "deviation": d} for r, d in ((5.0, 0.3), (1.1, 0.3)))
    assert task.collapsed(good) == []
    (warning,) = task.collapsed(flat)
    assert "validation pictures collapse: effective rank 1.10" in warning
    assert "differ in hardly any direction" in warning
    (warning,) = task.collapsed({"effective_rank": 5.0, "deviation": 1e-5})
    assert "pictures differ little" in warning


def test_another_task_does_not_go_on(blind):
    """The projectors of two tasks may fit each other."""
    argv = blind("--task", "vicreg", "--epochs", "1", experiment="first")
    train(parse(argv), progress=False)
    other = blind("--task", "barlow", "--epochs", "2", "--resume", "auto", experiment="first")
    with pytest.raises(ValueError, match="is of --task vicreg, now barlow"):
        train(parse(other), progress=False)


def test_the_best_epoch_without_votes_is_that_of_least_loss_without_vcr(tmp_path):
    (tmp_path / "train").mkdir()
    for i in range(24):
        pixels = np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "train" / f"{i}.png")
    argv = [str(tmp_path), "--model", "test_resnet", "--input-size", "3", "32", "32", "-b", "8"]
    argv += ["--task", "simclr", "--epochs", "2", "--workers", "0", "--device", "cpu"]
    argv += ["--val-split", "", "--vcr-alpha", "1", "--output", str(tmp_path / "runs")]
    run = train(parse(argv), progress=False)
    losses = [row["train_base_loss"] for row in run.history]

    assert run.metrics["best_loss"] == min(losses) and len(losses) == 2


@pytest.mark.parametrize("name", ["efficientvit_m0", "shvit_s1"])
def test_backbones_whose_head_is_a_class_of_its_own_learn_too(name):
    """timm cannot tell their classifier once it is gone."""
    args = parse(["--model", name, "--num-classes", "0"])
    assert wiring.create_model(args, 3).num_classes == 0


def test_what_is_watched_are_validation_pictures(blind):
    """Not those whose neighbors vote, which pass before."""
    parts, seen = wired(blind("--task", "simclr")), []

    class Watching:
        def __enter__(self):
            self.hook = parts.eval_model.register_forward_hook(lambda *_: seen.append(_[2]))
            return {"rank": 1.0}

        def __exit__(self, *_):
            self.hook.remove()

    metrics = validate(parts, parts.eval_model, Watching())
    assert sum(map(len, seen)) == sum(len(y) for _, y in parts.validation.epoch())
    assert metrics["rank"] == 1.0 and "top1" in metrics


def test_a_dry_run_counts_both_views_and_the_projector(blind, capsys):
    found = []
    for more in (["--task", "vicreg", "--ssl-width", "32", "--ssl-hidden", "32"], []):
        argv = blind(*more) if more else [*blind(), "--num-classes", "3"]
        found.append(flops(wired(argv))[0])
    joined = flops(wired(blind("--task", "vicreg", "--ssl-width", "64", "--ssl-hidden", "32")))[0]

    assert found[0] > 2 * found[1] and joined - found[0] == 3 * 2 * 2 * 32 * 32
    train(parse(blind("--task", "simclr", "--ssl-kwargs", "temperature=0.2", "--dry-run")), False)
    told = capsys.readouterr().out
    assert "method      simclr {'temperature': 0.2}, two views" in told
    assert "projector (and predictor): 21," in told
