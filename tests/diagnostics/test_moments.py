import numpy as np
import pytest
import torch

from vcr_zoo.diagnostics.moments import Parts, moments_of

from .made import labelled


def gathered(x, y, batch=32, parts=10):
    found = Parts(int(y.max()) + 1, parts)
    for rows, labels in zip(x.split(batch), y.split(batch), strict=True):
        found.add(rows, labels)
    return found


def test_moments_in_batches_are_numpys_of_the_whole():
    x, y = labelled(403)
    m = gathered(x, y).whole()
    a, labels = x.numpy(), y.numpy()

    assert m.n == 403
    np.testing.assert_allclose(m.mean, a.mean(0), rtol=1e-12)
    np.testing.assert_allclose(m.covariance, np.cov(a, rowvar=False), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(m.second, a.T @ a / 403, rtol=1e-12)
    for k in range(4):
        own = a[labels == k]
        np.testing.assert_allclose(m.class_means[k], own.mean(0), rtol=1e-12)
        spread = ((own - own.mean(0)) ** 2).sum(1).mean()
        assert m.class_variances[k].item() == pytest.approx(spread, rel=1e-9)


def test_leaving_out_a_part_leaves_out_every_tenth_picture():
    x, y = labelled(95)
    part = torch.arange(95) % 10
    without = gathered(x, y).without()

    assert len(without) == 10
    for k, m in enumerate(without):
        expected = moments_of(x[part != k], y[part != k])
        torch.testing.assert_close(m.covariance, expected.covariance)
        torch.testing.assert_close(m.class_means, expected.class_means)


def test_batches_of_any_size_give_the_same_parts():
    """Loaders differ; intervals must not."""
    x, y = labelled(77)
    one, other = (gathered(x, y, batch=size) for size in (77, 5))

    for a, b in zip(one.without(), other.without(), strict=True):
        torch.testing.assert_close(a.covariance, b.covariance)


def test_float32_features_with_a_large_mean_keep_their_covariance():
    """Raw second moments would cancel: the mean is ten thousand deviations away."""
    x = torch.randn(500, 4, generator=torch.Generator().manual_seed(0)) + 1e4
    expected = np.cov(x.double().numpy(), rowvar=False)

    np.testing.assert_allclose(moments_of(x).covariance, expected, rtol=1e-9)


def test_a_constant_feature_has_no_variance_at_all():
    """Not rounding's 1e-33, of which ranks and correlations would be made."""
    x = torch.cat([torch.randn(50, 2), torch.full((50, 1), 0.1)], dim=1)
    cov = gathered(x, torch.zeros(50, dtype=torch.int64)).whole().covariance

    assert cov[2].abs().max() == cov[:, 2].abs().max() == 0
    assert (cov.diagonal()[:2] > 0.5).all()


def test_a_class_without_pictures_is_absent():
    x, y = labelled(40)
    m = moments_of(x, torch.where(y == 2, 3, y), classes=6)

    assert m.present.tolist() == [0, 1, 3]
    assert m.class_means.shape == (3, 6) and m.class_variances.shape == (3,)


def test_numbers_follow_what_is_added():
    """Cached eigenvalues are not those of fewer pictures."""
    x, y = labelled(60)
    m = moments_of(x[:30], y[:30])
    before = m.eigenvalues.clone()
    m.add(x[30:], y[30:])

    torch.testing.assert_close(m.eigenvalues, moments_of(x, y).eigenvalues)
    assert not torch.equal(before, m.eigenvalues)


def test_features_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        moments_of(torch.tensor([[1.0, float("nan")], [0.0, 1.0]]))
    with pytest.raises(ValueError, match="two pictures"):
        _ = moments_of(torch.ones(1, 3)).covariance
