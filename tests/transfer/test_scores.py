import pytest
import torch
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.metrics import log_loss as sklearn_log_loss

from vcr_zoo.transfer.scores import calibration_error, log_loss, per_class, softmax, top1


def made(n=500, k=6):
    torch.manual_seed(1)
    return torch.randn(n, k, dtype=torch.float64).mul(2).softmax(1), torch.randint(k, (n,))


def test_accuracies_and_log_loss_are_scikit_learns():
    """By an independent implementation, on probabilities made from a seed."""
    p, y = made()

    assert top1(p, y) == pytest.approx(accuracy_score(y, p.argmax(1)))
    assert per_class(p, y) == pytest.approx(balanced_accuracy_score(y, p.argmax(1)))
    assert log_loss(p, y) == pytest.approx(sklearn_log_loss(y, p.numpy()))


def test_calibration_error_is_the_gap_in_every_bin():
    """Written out bin by bin, right-closed."""
    p, y = made()
    confidence, chosen = p.max(1)
    gaps = 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            right = (chosen[inside] == y[inside]).double().mean()
            gaps += inside.double().mean() * (right - confidence[inside].mean()).abs()

    assert calibration_error(p, y) == pytest.approx(float(gaps))


def test_certain_and_right_is_calibrated():
    """No gap where confidence one is always right; gap one where it is always wrong."""
    p = torch.eye(4)

    assert calibration_error(p, torch.arange(4)) == 0
    assert calibration_error(p, (torch.arange(4) + 1) % 4) == 1


def test_logits_far_apart_lose_as_much_as_they_are_apart():
    """In float32 the lesser probability would be zero, and cost 708 nats."""
    logits = torch.tensor([[0.0, 200.0], [0.0, -200.0]])
    assert log_loss(softmax(logits), torch.tensor([0, 0])) == pytest.approx(100)


def test_probability_zero_gives_a_finite_log_loss():
    """float32 underflow is a bad prediction, not infinity."""
    assert 0 < log_loss(torch.eye(2), torch.tensor([1, 0])) < 1000
