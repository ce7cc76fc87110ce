import copy
import subprocess
import sys

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from vcr_zoo.transfer import dr_tune
from vcr_zoo.transfer.dr_tune import Bank, DRTune, class_shift, rotation

from .tuning import resnet, run_of, small, tuned, vit


def turned(d, seed=0):
    """A random proper rotation."""
    q = torch.linalg.qr(torch.randn(d, d, dtype=torch.double)).Q
    q[:, 0] *= torch.sign(torch.linalg.det(q))
    return q


def bank_of(method, p, q, y, dtype=torch.double):
    """A method whose bank holds these rows."""
    method._bank = Bank(len(y), p.shape[1])
    method._bank.tuned = method._bank.tuned.to(dtype)
    method._bank.pretrained = method._bank.pretrained.to(dtype)
    method._bank.add(q, p, y)
    return method


@pytest.mark.parametrize("d", [2, 5, 16])
def test_the_rotation_is_recovered(d):
    """From pictures turned by it, and it is proper."""
    torch.manual_seed(d)
    p, true = torch.randn(40, d, dtype=torch.double), turned(d)
    p -= p.mean(dim=0)

    found = rotation(p, p @ true)
    assert torch.allclose(found, true, atol=1e-9)
    assert torch.linalg.det(found).item() == pytest.approx(1)


def test_a_reflection_is_answered_by_a_rotation():
    torch.manual_seed(0)
    p = torch.randn(40, 3, dtype=torch.double)
    mirror = torch.diag(torch.tensor([1.0, 1.0, -1.0], dtype=torch.double))

    assert torch.linalg.det(rotation(p, p @ mirror)).item() == pytest.approx(1)


def test_a_decomposition_that_fails_is_tried_in_double_and_then_left(monkeypatch):
    """First the fallback, then the rotation that was there before."""
    p, svd = torch.randn(20, 4), torch.linalg.svd
    expected = rotation(p, p)

    def only_double(s):
        if s.dtype != torch.double:
            raise torch.linalg.LinAlgError("did not converge")
        return svd(s)

    monkeypatch.setattr(dr_tune.torch.linalg, "svd", only_double)
    assert torch.allclose(rotation(p, p), expected, atol=1e-5)

    def never(s):
        raise torch.linalg.LinAlgError("did not converge")

    monkeypatch.setattr(dr_tune.torch.linalg, "svd", never)
    method = DRTune()
    method.turn(p, p)
    assert torch.equal(method._rotation, torch.eye(4))


def test_class_means_become_the_confident_means_of_today():
    """Computed here by a loop over classes; one class has one row, one has none."""
    torch.manual_seed(1)
    y = torch.tensor([0, 0, 0, 1, 1, 2, 4])
    p, q = torch.randn(2, 7, 5, dtype=torch.double)
    weight = torch.randn(5, 5, dtype=torch.double)

    moved = class_shift(p, q, y, weight, temperature=0.3)
    for c in (0, 1, 2, 4):
        cosine = F.cosine_similarity(q[y == c], weight[c].expand_as(q[y == c]))
        target = (cosine / 0.3).softmax(0) @ q[y == c]
        assert torch.allclose(moved[y == c].mean(0), target, atol=1e-12)
        gaps = moved[y == c] - p[y == c]
        assert torch.allclose(gaps, gaps[:1].expand_as(gaps), atol=1e-12)  # one translation


def test_calibrated_rows_are_as_long_as_the_batch_s_on_average():
    torch.manual_seed(2)
    p, q = torch.randn(2, 30, 6, dtype=torch.double)
    method = bank_of(DRTune(), p, q, torch.arange(30) % 3)
    pooled, head = 7 * torch.randn(8, 6, dtype=torch.double), nn.Linear(6, 3).double()

    v, _ = method.calibrated(pooled, head)
    assert torch.allclose(v.norm(dim=1), pooled.norm(dim=1).mean().expand(30))


def test_rotation_alone_brings_a_turned_bank_back():
    """Its mean too, which the released code does not do."""
    torch.manual_seed(3)
    q = F.normalize(torch.randn(200, 4, dtype=torch.double) + 0.3)
    method = bank_of(DRTune(translate=False), q @ turned(4), q, torch.zeros(200, dtype=torch.long))

    v, _ = method.calibrated(q, nn.Linear(4, 3).double())
    assert torch.allclose(v, q, atol=1e-6)


def test_a_rotation_from_few_rows_leaves_other_directions_alone():
    """Fewer rows than dimensions say nothing of most directions, in which later rows lie too."""
    torch.manual_seed(3)
    p, later = torch.randn(20, 64), torch.randn(30, 64)
    p = p - p.mean(dim=0)

    assert F.cosine_similarity(later @ rotation(p, p), later).min() > 0.999


def test_a_head_that_learns_alone_still_sees_pictures():
    """The pretrained network needs them, so nothing is kept apart."""
    run = tuned(DRTune(), settings=small(epochs=2, head_epochs=2, augment=False))

    assert not run.cached and len(run.history) == 2


def test_the_rotation_is_kept_between_its_updates(monkeypatch):
    calls = []
    monkeypatch.setattr(
        dr_tune, "rotation", lambda p, q: calls.append(1) or torch.eye(4, dtype=torch.double)
    )
    p = torch.randn(10, 4, dtype=torch.double)
    method = bank_of(DRTune(period=3), p, p, torch.arange(10) % 2)
    for _ in range(7):
        method.calibrated(p, nn.Linear(4, 2).double())

    assert len(calls) == 3


def test_gradients_reach_features_through_the_batch_and_the_head_through_both():
    torch.manual_seed(4)
    p, q = torch.randn(2, 12, 5, dtype=torch.double)
    method = bank_of(
        DRTune(strength=2.0), p.requires_grad_(), q.requires_grad_(), torch.arange(12) % 3
    )
    head, y = nn.Linear(5, 3).double(), torch.tensor([0, 1, 2, 0])
    z = torch.randn(4, 5, dtype=torch.double, requires_grad=True)

    method.both(z, head(z), y, head).backward()
    ours, both = z.grad.clone(), head.weight.grad.clone()
    z.grad = head.weight.grad = None
    F.cross_entropy(head(z), y).backward()

    assert p.grad is None and q.grad is None
    assert torch.allclose(ours, z.grad) and not torch.allclose(both, head.weight.grad)
    assert not method._bank.tuned.requires_grad and not method._bank.pretrained.requires_grad


def test_the_implicit_weight_is_an_explicit_one_at_another_rate():
    """Mean over B + K rows = strength K / B with lr B / (B + K) and decay (B + K) / B, under SGD
    with momentum, to 1e-6 of every weight."""
    torch.manual_seed(5)
    b, k = 4, 28
    start = nn.ModuleDict({"body": nn.Linear(7, 6), "head": nn.Linear(6, 3)}).double()
    x, y = torch.randn(10, b, 7, dtype=torch.double), torch.randint(3, (10, b))
    p, q = torch.randn(2, k, 6, dtype=torch.double)

    def trained(method, lr, decay):
        model = copy.deepcopy(start)
        bank_of(method, p, q, torch.arange(k) % 3)
        optimizer = torch.optim.SGD(model.parameters(), lr, 0.9, weight_decay=decay, nesterov=True)
        for xs, ys in zip(x, y, strict=True):
            z = model["body"](xs)
            loss = method.both(z, model["head"](z), ys, model["head"], smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            method._bank.add(z, start["body"](xs), ys)
        return torch.cat([w.flatten() for w in model.parameters()])

    share = b / (b + k)
    implicit = trained(DRTune(implicit=True), 0.3, 1e-3)
    explicit = trained(DRTune(strength=k / b), 0.3 * share, 1e-3 / share)
    other = trained(DRTune(strength=k / b), 0.3, 1e-3)

    assert torch.allclose(implicit, explicit, rtol=1e-6, atol=1e-9)
    assert not torch.allclose(implicit, other, rtol=1e-3)


@pytest.mark.parametrize("size, batches", [(7, [3, 3, 3]), (4, [9]), (6, [6, 1]), (5, [2])])
def test_the_bank_holds_the_latest_rows_whatever_the_batches(size, batches):
    """Of both features and of labels, aligned; rows that were never filled take no part."""
    bank, seen = Bank(size, 1), []
    for i, n in enumerate(batches):
        rows = torch.arange(n).float()[:, None] + 10 * i
        bank.add(rows, rows + 0.5, rows[:, 0].long())
        seen += rows[:, 0].tolist()
    p, q, y = bank.rows()

    assert sorted(q[:, 0].tolist()) == sorted(seen[-size:])
    assert torch.equal(p, q + 0.5) and torch.equal(y, q[:, 0].long())


def test_both_halves_of_the_bank_start_alike_so_the_rotation_is_none():
    run = run_of(DRTune(bank=40), settings=small(augment=False))
    bank = run.method._bank

    assert bank.filled == 40 and torch.equal(bank.tuned, bank.pretrained)
    p = F.normalize(bank.pretrained)
    p = p - p.mean(dim=0)
    assert torch.allclose(p @ rotation(p, p), p, atol=1e-5)


@pytest.mark.parametrize("make", [resnet, vit])
def test_it_trains_networks_of_both_kinds_and_leaves_the_copy_alone(make):
    model = make()
    run = run_of(DRTune(), model, small(amp="bfloat16", vcr_alpha=0.1))
    copied = run.method._pretrained
    before = copy.deepcopy(copied.state_dict())
    found = run.run()

    assert all(torch.equal(v, before[k]) for k, v in copied.state_dict().items())
    assert all(p.grad is None for p in copied.parameters())
    assert len(found.history) == 2 and not hasattr(found.model, "_pretrained")


def test_without_the_bank_it_is_plain_fine_tuning_of_its_head():
    """Strength zero: the same loss, from a head that starts small."""
    settings = small(augment=False)
    run = run_of(DRTune(strength=0.0), settings=settings)
    z, y = torch.randn(4, run.classifier.in_features), torch.tensor([0, 1, 2, 0])
    loss = run.method.both(z, run.classifier(z), y, run.classifier)

    assert loss.item() == pytest.approx(F.cross_entropy(run.classifier(z), y).item())


def test_a_bank_larger_than_the_set_is_refused():
    with pytest.raises(ValueError, match="61 rows is larger than the 60"):
        run_of(DRTune(bank=61))


def test_a_class_with_one_picture_is_taught():
    import numpy as np

    from vcr_zoo.transfer.finetune import Finetuner

    from .made import pictures

    images = pictures("train")
    one = np.flatnonzero(images.y == 2)[:1]
    train = images.subset(np.sort(np.concatenate([np.flatnonzero(images.y != 2), one])))
    run = Finetuner(resnet(), train, pictures("validation"), DRTune(), small(epochs=1))

    assert run.run().history[0]["train_loss"] < float("inf")


def test_a_head_that_is_not_linear_is_refused():
    model = timm.create_model("test_resnet", in_chans=1)
    model.get_classifier = lambda: nn.Identity()
    with pytest.raises(ValueError, match="linear classifier"):
        DRTune().head(model, 3)


@pytest.mark.parametrize(
    "wrong", [{"strength": -1}, {"temperature": 0}, {"period": 0}, {"bank": 0}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DRTune(**wrong)


def test_the_trained_network_predicts_as_after_plain_fine_tuning():
    """Nothing of the method is left in it."""
    found = tuned(DRTune())
    plain = tuned()

    assert found.model.state_dict().keys() == plain.model.state_dict().keys()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in found.model.modules())


def test_processes_share_weights_and_have_banks_of_their_own(tmp_path):
    """Each of two takes half of the pictures; gradients, through the bank too, are averaged."""
    command = [sys.executable, "-m", "tests.transfer.ranks", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]

    a, b = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    assert torch.equal(a["weights"], b["weights"]) and a["weights"].isfinite().all()
    assert not set(a["order"].tolist()) & set(b["order"].tolist())
    assert not torch.equal(a["bank"], b["bank"])
