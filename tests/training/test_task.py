"""timm's tasks, with VCR in their loss and nothing else changed."""

import pytest
import timm
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from timm.task import (
    ClassificationTask,
    FeatureDistillationTask,
    LogitDistillationTask,
    MultiLabelClassificationTask,
)
from torch import nn

from vcr_zoo.training.task import regularized

SIZE = (3, 32, 32)
VCR = dict(layers="blocks,pooled", alpha=0.7, beta=0.3, input_size=SIZE)


def network(seed=0, **kwargs):
    torch.manual_seed(seed)
    return timm.create_model("test_resnet", num_classes=5, **kwargs)


def batch(n=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n, *SIZE, generator=generator)
    return images, torch.randint(5, (n,), generator=generator)


def tasks(model):
    """Every kind of task, plain and regularized, on one model."""
    teacher = network(1)
    return {
        "classification": (ClassificationTask, (model, nn.CrossEntropyLoss()), {}),
        "multi-label": (MultiLabelClassificationTask, (model,), {}),
        "logit distillation": (
            LogitDistillationTask,
            (model, teacher, nn.CrossEntropyLoss()),
            dict(distill_loss_weight=0.5),
        ),
        "feature distillation": (
            FeatureDistillationTask,
            (model, teacher, nn.CrossEntropyLoss()),
            dict(distill_loss_weight=0.5),
        ),
    }


KINDS = list(tasks(network()))


def build(kind, vcr, model):
    task, arguments, options = tasks(model)[kind]
    if vcr is None:
        return task(*arguments, verbose=False, **options)
    return regularized(task)(*arguments, verbose=False, vcr=vcr, **options)


def step(task, kind):
    images, target = batch()
    if kind == "multi-label":
        target = nn.functional.one_hot(target, 5).float()
    torch.manual_seed(0)
    result = task.train()(images, target)
    result["loss"].backward()
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_timms_own_and_the_penalties(kind):
    model = network()
    task = build(kind, VCR, model)
    result = step(task, kind)
    plain = step(build(kind, None, network()), kind)

    torch.testing.assert_close(result["base_loss"], plain["loss"])
    torch.testing.assert_close(result["loss"], result["base_loss"] + result["vcr_loss"])
    v, k = result["vcr_variance"], result["vcr_covariance"]
    assert len(v) == len(k) == len(task.penalties.placements) == 5
    torch.testing.assert_close(result["vcr_loss"].detach(), 0.7 * v.sum() + 0.3 * k.sum())
    assert result.keys() >= plain.keys()


@pytest.mark.parametrize("schedule, factors", [("rise", (0, 1, 2)), ("fall", (2, 1, 0))])
def test_a_schedule_weighs_the_penalties_and_is_one_on_average(schedule, factors):
    torch.manual_seed(0)
    steady = build("classification", VCR, network())
    other = build("classification", VCR | {"schedule": schedule}, network())
    for progress, factor in zip((0.0, 0.5, 1.0), factors, strict=True):
        for task in (steady, other):
            task.penalties.step, task.progress = 0, progress
        plain, weighed = (task.train()(*batch()) for task in (steady, other))
        torch.testing.assert_close(weighed["vcr_loss"], factor * plain["vcr_loss"])
        torch.testing.assert_close(weighed["loss"], weighed["base_loss"] + weighed["vcr_loss"])


@pytest.mark.parametrize("kind", KINDS)
def test_with_weights_of_zero_the_step_is_timms_to_the_bit(kind):
    ours, theirs = network(), network()
    result = step(build(kind, VCR | dict(alpha=0, beta=0), ours), kind)
    plain = step(build(kind, None, theirs), kind)

    assert result.keys() == plain.keys() and torch.equal(result["loss"], plain["loss"])
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize("kind", KINDS)
def test_checkpoints_hold_the_plain_model(kind):
    """A VCR checkpoint loads into ordinary timm with no key renamed."""
    task = build(kind, VCR, network())
    task.setup_ema(decay=0.9)
    state = task.get_checkpoint_state() | task.get_checkpoint_state(ema=True)

    assert state["state_dict"].keys() == state["state_dict_ema"].keys()
    assert state["state_dict"].keys() == network().state_dict().keys()


@pytest.mark.parametrize("kind", KINDS)
def test_outside_training_the_loss_is_the_tasks_own(kind):
    """A validation loss has no penalty, in eval mode as without gradients."""
    task = build(kind, VCR, network())
    images, target = batch()
    target = nn.functional.one_hot(target, 5).float() if kind == "multi-label" else target
    plain = build(kind, None, network())

    expected = plain.eval()(images, target)
    found = task.eval()(images, target)
    assert found.keys() == expected.keys() and torch.equal(found["loss"], expected["loss"])
    with torch.no_grad():
        assert "vcr_loss" not in task.train()(images, target)


def test_an_ema_copy_averages_the_weights():
    model = network()
    task = build("classification", VCR, model)
    task.setup_ema(decay=0.5)
    before = [p.detach().clone() for p in model.parameters()]
    step(task, "classification")
    with torch.no_grad():
        for p in model.parameters():
            p -= 0.1 * p.grad
    task.update_ema()
    ema = task.get_trainable_module(ema=True).module

    for a, b, mean in zip(before, model.parameters(), ema.parameters(), strict=True):
        torch.testing.assert_close(mean, (a + b) / 2)


def two_ranks(rank, folder):
    """One rank of a step with local statistics; rank 0 saves the averaged gradient."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    model = network()
    task = build("classification", VCR, model)
    task.prepare_distributed(device_ids=None)
    task.train()(*batch(seed=rank))["loss"].backward()
    if rank == 0:
        torch.save([p.grad for p in model.parameters()], f"{folder}/gradients")
    dist.barrier()
    dist.destroy_process_group()


def test_two_ranks_with_local_statistics_average_their_gradients(tmp_path):
    """DDP carries the penalty as it carries any loss."""
    mp.spawn(two_ranks, args=(str(tmp_path),), nprocs=2)
    found = torch.load(tmp_path / "gradients")

    expected = []
    for rank in (0, 1):
        model = network()
        build("classification", VCR, model).train()(*batch(seed=rank))["loss"].backward()
        expected.append([p.grad for p in model.parameters()])
    for ours, a, b in zip(found, *expected, strict=True):
        mean = (a + b) / 2
        assert (ours - mean).norm() <= 1e-5 * mean.norm()
