import pytest
import torch

from vcr_zoo.diagnostics.cka import cka, hsic, kernel, kernel_hsic, pairwise
from vcr_zoo.diagnostics.inspect import alike, cka_map


def made(n=50, d=7, seed=0):
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_hsic_is_the_unbiased_estimator():
    """Song et al.'s formula with the (n, n) kernels written out."""
    a, b = made(), made(d=3, seed=1) + made()[:, :3]
    n = len(a)
    k, m = a @ a.T, b @ b.T
    k.fill_diagonal_(0)
    m.fill_diagonal_(0)
    expected = (k * m).sum() + k.sum() * m.sum() / ((n - 1) * (n - 2))
    expected = (expected - 2 / (n - 2) * (k @ m).sum()) / (n * (n - 3))

    assert hsic(a, b) == pytest.approx(expected.item(), rel=1e-10)


def test_rotation_scale_and_shift_do_not_matter():
    """What a linear layer on top could undo with a rotation is not a difference."""
    a = made()
    rotation = torch.linalg.qr(made(7, 7, seed=3)).Q

    assert cka(a, a) == pytest.approx(1)
    assert cka(a, 3 * a @ rotation + 5) == pytest.approx(1)


def test_unrelated_wide_features_score_zero():
    """Where the plain estimator says 0.9: few pictures, many features."""
    scores = [cka(made(40, 400, seed), made(40, 400, seed + 100)) for seed in range(20)]

    assert abs(sum(scores) / len(scores)) < 0.01


def test_wide_and_narrow_networks_compare():
    """Widths may differ, and half of a network's features are neither it nor something else."""
    a = made(200, 20)

    assert 0.2 < cka(a, a[:, :10]) < 0.95


def test_what_rounding_leaves_of_a_constant_is_not_a_likeness():
    """The mean of many 0.1 is not quite 0.1."""
    with pytest.raises(ValueError, match="hardly vary"):
        cka(torch.full((50, 3), 0.1), made())


def test_table_is_symmetric_with_ones():
    table = pairwise([made(), made(seed=1), made() + made(seed=2)])

    assert torch.equal(table, table.T)
    assert table.diagonal().tolist() == [1, 1, 1]
    assert table[0, 2] > table[0, 1]


@pytest.mark.parametrize(
    "a, b, message",
    [(made(3), made(3), "four"), (made(9), made(8), "same"), (made() * 0, made(), "hardly vary")],
)
def test_too_little_is_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        cka(a, b)


@pytest.mark.parametrize("n", [32, 4096])
def test_independent_features_are_zero_within_their_interval(n):
    """At few pictures as at many: of 20 pairs about one interval in twenty may miss 0."""
    found = [alike(made(n, 16, seed), made(n, 16, seed + 100)) for seed in range(20)]

    assert sum(one.low <= 0 <= one.high for one in found) >= 17
    assert all(one.high - one.low < 4 / n**0.5 for one in found)


def test_a_rotation_is_one_without_an_interval():
    """Whatever is left out: that the values coincide is no measure of what is uncertain."""
    a = made(64)
    found = alike(a, a @ torch.linalg.qr(made(7, 7, seed=3)).Q)

    assert found.value == pytest.approx(1)
    assert found.low is None and found.high is None


def test_a_map_from_kernels_is_that_of_the_features():
    """The kernels are made once; a constant network has no likeness, and says so."""
    left = {"first": made(), "last": made() + made(seed=1)}
    right = {"first": made(d=3, seed=2) + made()[:, :3], "dead": 0 * made()}
    found = cka_map(left, right)

    assert kernel_hsic(kernel(left["last"]), kernel(right["first"])) == pytest.approx(
        hsic(*(x - x.mean(dim=0) for x in (left["last"], right["first"])))
    )
    for name, x in left.items():
        assert found[name]["first"].value == pytest.approx(cka(x, right["first"]))
        assert "hardly vary" in found[name]["dead"].because
    few = cka_map({"a": made(3)}, {"a": made(3)})["a"]["a"]
    assert few.because == "undefined because 3 pictures: CKA needs four or more"
