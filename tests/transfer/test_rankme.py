import pytest
import torch

from vcr_zoo.features import Features
from vcr_zoo.transfer.rankme import participation, rankme


def given(x):
    return Features(x, torch.zeros(len(x), dtype=torch.long), ("a",))


@pytest.mark.parametrize("score", [rankme, participation])
def test_score_counts_equal_directions(score):
    """r orthogonal directions of equal size count r, whatever the rotation and scale."""
    torch.manual_seed(0)
    x = torch.randn(60, 5, dtype=torch.float64)
    x = torch.linalg.qr(x - x.mean(dim=0)).Q  # orthonormal columns of mean zero
    wide = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64)).Q[:5]

    assert score(given(7 * x @ wide)) == pytest.approx(5, rel=1e-4)


def test_rankme_is_the_papers_formula(digits):
    """exp of the entropy of the singular values' shares, from the eigenvalues of XᵀX."""
    x = digits[0].x.double()
    s = torch.linalg.eigvalsh(x.T @ x).clamp(min=0).sqrt()
    p = s / s.sum() + 1e-7

    assert rankme(digits[0]) == pytest.approx((p ** (-p)).prod().item(), rel=1e-4)


def test_participation_of_two_unequal_directions():
    """Variances a and b give (a + b)² / (a² + b²)."""
    x = torch.tensor([[3.0, 1.0], [3.0, -1.0], [-3.0, 1.0], [-3.0, -1.0]])

    assert participation(given(x)) == pytest.approx((9 + 1) ** 2 / (81 + 1))


def test_collapsed_features_are_refused():
    with pytest.raises(ValueError, match="collapsed"):
        rankme(given(torch.zeros(4, 3)))
    with pytest.raises(ValueError, match="collapsed"):
        participation(given(torch.ones(4, 3)))
