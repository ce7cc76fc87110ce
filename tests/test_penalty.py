"""The tap against autograd on the written-out loss, in every layout and precision."""

import math

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from vcr_zoo import penalty as penalties
from vcr_zoo.penalty import covariance, covariance_penalty, penalty, strided, tap, variance_penalty

LAYOUTS = {
    "(n, d)": ((12, 5), -1, lambda x: x),
    "(b, n, d)": ((3, 4, 5), -1, lambda x: x),
    "(b, h, w, c)": ((3, 2, 4, 5), -1, lambda x: x),
    "(b, c, h, w)": ((3, 5, 2, 4), 1, lambda x: x),
    "(b, c, h, w), fewer channels than positions": ((2, 3, 4, 4), 1, lambda x: x),
    "(b, c, h, w), channels last in memory": (
        (3, 5, 2, 4),
        1,
        lambda x: x.contiguous(memory_format=torch.channels_last),
    ),
    "(b, c, t, h, w)": ((2, 3, 2, 2, 2), 1, lambda x: x),
    "(b, t, c, h, w)": ((2, 2, 3, 2, 3), 2, lambda x: x),
    "transposed": ((5, 12), 0, lambda x: x.T.contiguous().T),
    "every other picture": ((6, 4, 5), -1, lambda x: x[::2]),
    "expanded": ((4, 5), -1, lambda x: x[:, None].expand(4, 3, 5)),
}
WEIGHTS = [(1.0, 0.0), (0.0, 1.0), (0.64, 0.08)]


def written_out(x, alpha, beta, *, delta, eps=1e-4, dim=-1, index=None):
    """The loss of arXiv 2306.13292, term by term, for autograd."""
    h = x.movedim(dim, -1).reshape(-1, x.shape[dim])
    h = h if index is None else h[index]
    n, d = h.shape
    h = h - h.mean(dim=0)
    c = h.T @ h / (n - 1)
    v = sum((1 - (c[j, j] + eps).sqrt()).clamp(min=0) for j in range(d)) / d
    off = c[~torch.eye(d, dtype=torch.bool)]
    squares = off.square()
    if delta is not None:
        squares = torch.where(off.abs() <= delta, squares, 2 * delta * off.abs() - delta**2)
    return alpha * v + beta * squares.sum() / (d * (d - 1))


def gradients(x, passed, loss_of, arrange=lambda x: x):
    """Gradient of sum(passed * y) + loss, with y and the loss as `loss_of` makes them from x, in
    whatever layout `arrange` gives it."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y, loss = loss_of(arrange(x))
    ((passed * y).sum() + loss).backward()
    return loss.detach(), x.grad


def sampled(x, rows, offset, dim):
    """The samples that `tap` takes, as indices of rows."""
    n, pictures = x.numel() // x.shape[dim], x.shape[0] if dim else x.shape[1]
    return strided(n, rows, offset, x.device, positions=n // pictures)


def relative(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()


@pytest.mark.parametrize("rows", [None, 7])
@pytest.mark.parametrize("alpha, beta", WEIGHTS)
@pytest.mark.parametrize("delta", [1.0, 0.1, None])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("turned", [False, True])
def test_gradient_is_that_of_the_written_out_loss(turned, layout, delta, alpha, beta, rows):
    """Whatever the layouts of features and incoming gradient, terms and rows: the penalty's own
    gradient, and the one passing by."""
    shape, dim, arrange = LAYOUTS[layout]
    torch.manual_seed(0)
    base = 0.8 * torch.randn(shape, dtype=torch.float64)
    x = arrange(base)
    passed = torch.randn_like(x)
    if turned:  # axes in another order in memory
        passed = passed.permute(*reversed(range(x.ndim))).contiguous()
        passed = passed.permute(*reversed(range(x.ndim)))
    index = None if rows is None else sampled(x, rows, 3, dim)
    settings = dict(delta=delta, dim=dim)

    found = gradients(
        base, passed, lambda x: tap(x, alpha, beta, rows=rows, offset=3, **settings), arrange
    )
    expected = gradients(
        base, passed, lambda x: (x, written_out(x, alpha, beta, index=index, **settings)), arrange
    )
    through = gradients(base, passed, lambda x: (x, 0 * x.sum()), arrange)[1]

    torch.testing.assert_close(found[0], expected[0], rtol=1e-12, atol=1e-12)
    assert relative(found[1] - through, expected[1] - through) < 1e-6


@pytest.mark.parametrize("rows", [None, 9])
@pytest.mark.parametrize("alpha, beta", WEIGHTS)
@pytest.mark.parametrize("delta", [1.0, 0.1, None])
def test_gradient_agrees_with_finite_differences(delta, alpha, beta, rows):
    """The closed form against no formula at all."""
    torch.manual_seed(1)
    x = (0.8 * torch.randn(3, 4, 2, 2, dtype=torch.float64)).requires_grad_()

    def both(x):
        return tap(x, alpha, beta, delta=delta, dim=1, rows=rows, offset=1)

    assert torch.autograd.gradcheck(both, (x,))


@pytest.mark.parametrize("alpha, beta", WEIGHTS)
@pytest.mark.parametrize("delta", [None, 1e3, 1e-3])
@pytest.mark.parametrize("dim, shape", [(1, (2, 12, 2, 2)), (-1, (2, 4, 12)), (-1, (8, 12))])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("rows", [7, None])
def test_fewer_rows_than_features_give_the_same_gradient(
    rows, channels_last, dim, shape, delta, alpha, beta
):
    """Through products of samples where nothing is clipped, of features where something is."""
    torch.manual_seed(0)
    x = 0.8 * torch.randn(shape, dtype=torch.float64)
    if channels_last and dim == 1:
        x = x.contiguous(memory_format=torch.channels_last)
    passed = torch.randn_like(x)
    index = None if rows is None else sampled(x, 7, 3, dim)

    found = gradients(
        x, passed, lambda x: tap(x, alpha, beta, delta=delta, dim=dim, rows=rows, offset=3)
    )
    expected = gradients(
        x, passed, lambda x: (x, written_out(x, alpha, beta, delta=delta, dim=dim, index=index))
    )

    torch.testing.assert_close(found[0], expected[0], rtol=1e-12, atol=1e-12)
    assert relative(found[1] - passed, expected[1] - passed) < 1e-6


@pytest.mark.parametrize("rows, n", [(None, 5), (5, 12)])
@pytest.mark.parametrize("alpha, beta", WEIGHTS)
def test_fewer_rows_than_features_agree_with_finite_differences(alpha, beta, rows, n):
    torch.manual_seed(0)
    x = (0.5 * torch.randn(n, 8, dtype=torch.float64)).requires_grad_()
    mixing = torch.randn_like(x)

    def both(x):
        y, loss = tap(x, alpha, beta, rows=rows, offset=2)
        return (y * mixing).sum(), loss

    assert torch.autograd.gradcheck(both, (x,))


@pytest.mark.parametrize("ratio", [1, 30, 1000])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("alpha", [0.0, 1.0])
@pytest.mark.parametrize("rows", [64, None])
def test_fewer_rows_than_features_are_close_to_float64_in_half_precision(rows, alpha, dtype, ratio):
    """Also where one feature dominates and its own variance must be taken out again, and where no
    variance term covers up what is left of it."""
    torch.manual_seed(0)
    deviation = torch.linspace(0.3, 0.6, 96) if ratio == 1 else torch.full((96,), 0.6 / ratio)
    deviation[0] = 0.6  # no variance above delta, else the features' own matrix would be taken
    x = (30 * (ratio == 1) + torch.randn(400 if rows else 64, 96) * deviation).to(dtype)
    found = gradients(
        x, torch.zeros_like(x), lambda x: scaled(tap(x, alpha, 1, rows=rows, offset=5), 65_536.0)
    )
    index = sampled(x, 64, 5, -1) if rows else slice(None)
    exact = gradients(
        x.double(),
        torch.zeros(x.shape, dtype=torch.float64),
        lambda x: (x, 65_536.0 * penalty(x[index], alpha, 1)),
    )

    assert abs(found[0] / exact[0] - 1) < 1e-2
    assert relative(found[1], exact[1]) < 1e-2


def test_few_rows_cost_no_matrix_of_the_features_size():
    """At 2048 features a (d, d) matrix weighs more than the activation it would correct."""
    kept = []

    def pack(tensor):
        kept.append(tensor)
        return tensor

    x = 0.5 * torch.randn(8, 256, 3, 3).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        tap(x, 1.0, 1.0, dim=1, rows=16)

    assert max(tensor.numel() for tensor in kept) == 16 * 256


@pytest.mark.parametrize("deviation, side", [((0.5, 0.5), 16), ((0.5, 1e-3), 40), ((3, 0.5), 40)])
@pytest.mark.parametrize("sampled", [False, True])
def test_few_samples_keep_their_own_matrix_where_it_tells_enough(sampled, deviation, side):
    """16 samples of 40 features: theirs, unless one variance is nearly all, or above delta."""
    kept = []
    x = deviation[1] * torch.randn(64 if sampled else 16, 40)
    x[:, 0] *= deviation[0] / deviation[1]
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t.shape), lambda t: t):
        tap(x.requires_grad_(), 1.0, 1.0, rows=16 if sampled else None)

    assert {s[0] for s in kept if len(s) == 2 and s[0] == s[1]} == {side}


def test_without_torchs_counters_gradients_are_copied(monkeypatch):
    """They are private, and may be gone one day."""
    monkeypatch.setattr(penalties, "COUNTED", False)
    after, before = [], []
    x = torch.randn(4, 25, 6, requires_grad=True)
    y, loss = tap(Handed.apply(x, before), 1.0, 1.0, rows=8, offset=1)
    (Handed.apply(y, after).square().sum() + loss).backward()

    assert before[0] != after[1]


def test_three_functions_are_the_written_out_loss():
    """The readable definition, which the naive benchmark also uses, is the same loss."""
    x = 0.8 * torch.randn(30, 6, dtype=torch.float64)

    for delta in (None, 0.05):
        torch.testing.assert_close(
            penalty(x, 0.6, 0.3, delta=delta), written_out(x, 0.6, 0.3, delta=delta)
        )


def test_features_of_unit_variance_without_covariance_cost_nothing():
    """The state that the penalty asks for: V and K are zero there, and V is 1 at collapse."""
    assert variance_penalty(torch.ones(8)) == 0
    assert covariance_penalty(torch.eye(8)) == 0
    assert variance_penalty(torch.zeros(8), eps=0) == 1


def test_two_perfectly_correlated_features_cost_their_squared_covariance():
    x = torch.tensor([[1.0, 2.0], [-1.0, -2.0]])  # variances 2 and 8, covariance 4

    torch.testing.assert_close(covariance(x), torch.tensor([[2.0, 4.0], [4.0, 8.0]]))
    assert covariance_penalty(covariance(x), delta=None) == 16
    assert covariance_penalty(covariance(x), delta=1.0) == 2 * 4 - 1


@pytest.mark.parametrize("channels_last", [False, True])
def test_features_pass_unchanged_and_share_memory(channels_last):
    """A tap must not change what the network computes, nor copy it."""
    x = torch.randn(2, 3, 4, 4)
    x = x.contiguous(memory_format=torch.channels_last) if channels_last else x

    y, _ = tap(x, 1.0, 1.0, dim=1)

    assert torch.equal(y, x) and y.stride() == x.stride() and y.data_ptr() == x.data_ptr()


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("rows", [None, 16])
def test_gradient_keeps_the_layout_of_the_activation(channels_last, rows):
    """Otherwise the layers before would convert every gradient."""
    form = torch.channels_last if channels_last else torch.contiguous_format
    for size in (2, 8):  # fewer and more positions than channels
        x = torch.randn(4, 12, size, size).contiguous(memory_format=form).requires_grad_()
        seen = []
        y, loss = tap(x * 1.0, 1.0, 1.0, dim=1, rows=rows)
        z = y * torch.randn(4, 12, size, size).contiguous(memory_format=form)
        y.grad_fn.register_hook(lambda inputs, _, seen=seen: seen.append(inputs[0]))
        (z.sum() + loss).backward(inputs=[x])

        assert seen[0].is_contiguous(memory_format=form)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("mean", [0.0, 30.0])
@pytest.mark.parametrize("n, loss_scale", [(2_000, 1.0), (2_000, 65_536.0), (400_000, 65_536.0)])
def test_half_precision_is_close_to_float64(dtype, mean, n, loss_scale):
    """Means far above the deviation, and a gradient of 1e-11, survive 10 bits."""
    torch.manual_seed(0)
    d = 32
    x = torch.randn(n, d) * torch.linspace(0.3, 1.6, d) + 0.4 * torch.randn(n, 1) + mean
    x = x.to(dtype)
    found = gradients(x, torch.zeros_like(x), lambda x: scaled(tap(x, 1.0, 1.0), loss_scale))
    exact = gradients(
        x.double(),
        torch.zeros(n, d, dtype=torch.float64),
        lambda x: (x, loss_scale * penalty(x, 1.0, 1.0)),
    )

    assert found[0].dtype == torch.float32 and found[1].dtype == dtype
    assert abs(found[0] / exact[0] - 1) < 1e-2
    assert relative(found[1], exact[1]) < 1e-2


def scaled(tapped, factor):
    return tapped[0], factor * tapped[1]


@pytest.mark.parametrize(
    "dim, shape", [(1, (3, 12, 12, 12)), (1, (5, 12, 2, 2)), (1, (2, 12, 2, 2)), (-1, (40, 12))]
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_float32_bears_means_far_from_zero(channels_last, dim, shape):
    """A hundred deviations away, where a mean that is left in a product would show."""
    torch.manual_seed(0)
    after = len(shape) - 1 - dim % len(shape)
    x = 0.5 * torch.randn(shape) + 50 * torch.rand(12).view([-1, *[1] * after])
    assert x.shape == shape
    if channels_last and dim == 1:
        x = x.contiguous(memory_format=torch.channels_last)
    found = gradients(x, torch.zeros_like(x), lambda x: tap(x, 1.0, 1.0, dim=dim))
    nothing = torch.zeros(shape, dtype=torch.float64)
    exact = gradients(x.double(), nothing, lambda x: tap(x, 1.0, 1.0, dim=dim))

    assert abs(found[0] / exact[0] - 1) < 1e-4
    assert relative(found[1], exact[1]) < 1e-3


def test_loss_scale_and_accumulation_act_as_on_any_other_loss():
    """Four micro-batches, each with its share, under a scaler of 65,536."""
    torch.manual_seed(0)
    batches = 0.8 * torch.randn(4, 10, 6, dtype=torch.float64)
    weight = torch.randn(6, 6, dtype=torch.float64)

    def gradient(tapped):
        w = weight.clone().requires_grad_()
        for x in batches:
            _, loss = tapped(x @ w)
            (65_536 * loss / 4).backward()
        return w.grad / 65_536

    found = gradient(lambda x: tap(x, 0.64, 0.08))
    expected = gradient(lambda x: (x, written_out(x, 0.64, 0.08, delta=1.0)))

    assert relative(found, expected) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dim, shape", [(1, (8, 6, 5, 5)), (-1, (8, 25, 6))])
def test_autocast_leaves_the_penalty_alone(dtype, dim, shape):
    """Products rounded to bfloat16 would lose the covariances, also when backward is inside."""
    x = torch.randn(shape).to(dtype)
    plain = gradients(x, torch.zeros_like(x), lambda x: tap(x, 1.0, 1.0, dim=dim))
    with torch.autocast("cpu", torch.bfloat16):
        inside = gradients(x, torch.zeros_like(x), lambda x: tap(x, 1.0, 1.0, dim=dim))

    assert torch.equal(plain[0], inside[0]) and torch.equal(plain[1], inside[1])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_non_finite_feature_gives_a_non_finite_penalty(value):
    """So that a loss scaler skips the step, rather than taking it without the penalty."""
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        x = torch.randn(8, 4).to(dtype)
        x[3, 2] = value
        x.requires_grad_()
        _, loss = tap(x, 1.0, 1.0)
        loss.backward()

        assert not loss.isfinite() and not x.grad.isfinite().all()


@pytest.mark.parametrize(
    "n, rows, positions", [(64, 7, 1), (4096, 64, 64), (100, 99, 25), (6, 5, 2), (784, 128, 49)]
)
def test_sampled_rows_are_distinct_and_equally_likely(n, rows, positions):
    """The mean over offsets is the plain mean over samples, so sampling favors none."""
    counts = torch.zeros(n)
    for offset in range(n):
        index = strided(n, rows, offset, torch.device("cpu"), positions)
        assert len(index.unique()) == rows
        counts[index] += 1

    assert (counts == rows).all()


@pytest.mark.parametrize("side", [7, 14, 28, 56])
@pytest.mark.parametrize("pictures", [16, 64, 128, 256])
def test_few_sampled_rows_are_spread_over_the_picture_and_over_pictures(side, pictures):
    """Lines of a picture differ: one line of each says little of the whole."""
    positions = side * side
    index = strided(pictures * positions, 64, 5, torch.device("cpu"), positions)
    lines = (index % positions // side).unique()

    assert len(lines) >= min(side, 16)
    assert len((index // positions).unique()) >= 0.7 * min(pictures, 64)


def test_sampled_terms_are_those_of_the_whole_on_average():
    """A map whose mean drifts from top to bottom, as activations do."""
    torch.manual_seed(0)
    x = 0.6 * torch.randn(64, 16, 28, 28) + torch.linspace(-1, 1, 28)[:, None]
    whole = tap(x, 0.0, 1.0, dim=1)[1]
    some = [tap(x, 0.0, 1.0, dim=1, rows=256, offset=offset)[1] for offset in range(0, 50_000, 997)]

    assert abs(torch.stack(some).mean() / whole - 1) < 0.1


def test_the_tap_keeps_matrices_not_activations():
    """Between forward and backward it holds the input, which the next layer holds anyway, or
    the sampled rows; and a (d, d) matrix."""
    kept = []

    def pack(tensor):
        kept.append(tensor)
        return tensor

    x = torch.randn(64, 16, 8, 8).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        tap(x, 1.0, 1.0, dim=1)
        tap(x, 1.0, 1.0, dim=1, rows=32)

    new = [t for t in kept if t.data_ptr() != x.data_ptr()]
    assert max(t.numel() for t in new) <= 32 * 16
    assert len(kept) - len(new) == 1


def one_of_two(rank, folder, shares, dim, rows):
    """One process of a group: its gradient and the penalty, saved."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    x = samples(dim).split(shares)[rank].clone().requires_grad_()
    settings = dict(delta=None, dim=dim, rows=rows, offset=3)
    _, loss = tap(x, 0.64, 0.08, group=dist.group.WORLD, **settings)
    loss.backward()
    torch.save((loss.detach(), x.grad), f"{folder}/{rank}")
    dist.barrier()
    dist.destroy_process_group()


def samples(dim):
    generator = torch.Generator().manual_seed(0)
    shape = (16, 8) if dim == -1 else (16, 8, 2, 2)
    return 0.8 * torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("rows", [None, 5])
@pytest.mark.parametrize("dim", [-1, 1])
def test_a_group_of_processes_counts_as_one_batch(tmp_path, dim, rows):
    """Exactly, also where one has fewer samples than features and the other more. The mean over
    processes is the gradient, so each has twice its part."""
    shares = [3, 13]
    mp.spawn(one_of_two, args=(str(tmp_path), shares, dim, rows), nprocs=2)
    found = [torch.load(tmp_path / str(rank)) for rank in (0, 1)]
    x = samples(dim)
    each = x[0].numel() // 8  # samples in a picture
    taken = [sampled(part, rows, 3, dim) for part in x.split(shares)] if rows and each > 1 else None
    if rows and each == 1:
        taken = [torch.arange(3), sampled(x[3:], rows, 3, dim)]
    index = None if taken is None else torch.cat([taken[0], taken[1] + 3 * each])
    settings = dict(delta=None, dim=dim, index=index)
    loss, gradient = gradients(
        x, torch.zeros_like(x), lambda x: (x, written_out(x, 0.64, 0.08, **settings))
    )

    for part, (own_loss, own) in zip(gradient.split(shares), found, strict=True):
        torch.testing.assert_close(own_loss, loss)
        assert relative(own / 2, part) < 1e-9


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("rows", [None, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_gpu_finds_the_same_gradient_and_waits_for_nothing(channels_last, dtype, rows):
    """As the CPU does in float64, and no answer travels back to the host."""
    form = torch.channels_last if channels_last else torch.contiguous_format
    x = (0.7 * torch.randn(16, 48, 14, 14)).to(dtype).contiguous(memory_format=form)
    passed = torch.randn(x.shape)
    settings = dict(dim=1, rows=rows, offset=3)
    exact = gradients(x.double(), 0 * passed, lambda x: tap(x, 1.0, 1.0, **settings))

    there = x.cuda().requires_grad_()
    zeros = torch.zeros_like(there)
    torch.cuda.set_sync_debug_mode("error")
    try:
        y, loss = tap(there, 1.0, 1.0, **settings)
        ((zeros * y).sum() + loss).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")

    tolerance = 1e-4 if dtype == torch.float32 else 1e-2
    assert abs(loss.cpu() / exact[0] - 1) < tolerance
    assert relative(there.grad.cpu(), exact[1]) < tolerance


class Handed(torch.autograd.Function):
    """Notes where in memory the gradient lies that it hands back, and the one that it gets."""

    @staticmethod
    def forward(ctx, x, seen):
        ctx.seen = seen
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        ctx.seen.append(grad.data_ptr())
        ctx.seen.append((grad := grad.clone()).data_ptr())
        return grad, None


class Untraced(torch.autograd.Function):
    """A sum whose gradient is one number in every place, as compiled graphs hand it on: nothing
    tells that there is one place only but the strides."""

    @staticmethod
    def forward(ctx, x):
        ctx.shape = x.shape
        return x.sum()

    @staticmethod
    def backward(ctx, grad):
        place = grad.clone().untyped_storage()
        return grad.new_empty(0).set_(place, 0, ctx.shape, (0,) * len(ctx.shape))


HOLDERS = {
    "nobody": lambda y, other, held: y * other,
    "the other side of a sum": lambda y, other, held: (y + other) * 3.0,
    "a hook": lambda y, other, held: (y.register_hook(held.append), y * other)[1],
    "the source of a view": lambda y, other, held: y.reshape(-1) * other.reshape(-1),
    "an expanded number": lambda y, other, held: y,
    "a number in every place": lambda y, other, held: Untraced.apply(y),
}


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dim, shape", [(1, (4, 6, 5, 5)), (-1, (4, 25, 6))])
@pytest.mark.parametrize("holder", HOLDERS)
def test_a_few_rows_disturb_no_gradient_that_others_hold(holder, dim, shape, channels_last):
    """An addition hands the same gradient tensor to both sides; adding rows in place on one side
    must not show on the other."""
    torch.manual_seed(0)
    x, other, held = torch.randn(shape), torch.randn(shape), []
    if channels_last and dim == 1:
        x = x.contiguous(memory_format=torch.channels_last)
    left, right = x.clone().requires_grad_(), other.clone().requires_grad_()
    y, loss = tap(left * 1.0, 1.0, 1.0, dim=dim, rows=8, offset=1)
    HOLDERS[holder](y, right * 1.0, held).sum().add(loss).backward()

    left2, right2 = x.clone().requires_grad_(), other.clone().requires_grad_()
    HOLDERS[holder](left2 * 1.0, right2 * 1.0, kept := []).sum().backward()
    through = left2.grad.clone()
    index = sampled(x, 8, 1, dim)
    written_out(left2, 1, 1, delta=1.0, dim=dim, index=index).backward()

    torch.testing.assert_close(left.grad, left2.grad)
    assert not torch.equal(left.grad, through)
    for mine, plain in [(right.grad, right2.grad), *zip(held, kept, strict=True)]:
        assert plain is None or torch.equal(mine, plain)


@pytest.mark.parametrize("dim, shape", [(1, (4, 6, 5, 5)), (-1, (4, 25, 6))])
def test_a_few_rows_copy_no_gradient_that_nobody_holds(dim, shape):
    """They join it where it lies; a copy of every map would cost more than the penalty."""
    after, before = [], []
    x = torch.randn(shape, requires_grad=True)
    y, loss = tap(Handed.apply(x, before), 1.0, 1.0, dim=dim, rows=8, offset=1)
    (Handed.apply(y, after).square().sum() + loss).backward()

    assert before[0] == after[1]


def half_of_a_group(rank, folder):
    """One process picks some of its samples, the other has too few to pick from."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    x = samples(1).to(torch.bfloat16).split([13, 3])[rank].clone().requires_grad_()
    _, loss = tap(x, 1.0, 1.0, dim=1, rows=20, offset=3, group=dist.group.WORLD)
    loss.backward()
    torch.save(loss.detach(), f"{folder}/{rank}")
    dist.barrier()
    dist.destroy_process_group()


def test_processes_with_more_and_fewer_samples_than_rows_agree_in_half_precision(tmp_path):
    """Whatever its samples' dtype, each reduces the same."""
    mp.spawn(half_of_a_group, args=(str(tmp_path),), nprocs=2)

    assert torch.equal(torch.load(tmp_path / "0"), torch.load(tmp_path / "1"))


@pytest.mark.parametrize("rows", [None, 8])
def test_the_penalty_alone_has_a_dense_gradient(rows):
    """Of features that nothing else uses."""
    x = torch.randn(4, 6, 5, 5, requires_grad=True)
    _, loss = tap(x, 1.0, 1.0, dim=1, rows=rows, offset=1)
    (found,) = torch.autograd.grad(loss, x)
    index = None if rows is None else sampled(x, rows, 1, 1)
    (expected,) = torch.autograd.grad(written_out(x, 1, 1, delta=1.0, dim=1, index=index), x)

    assert not found.is_sparse
    torch.testing.assert_close(found, expected)


def test_a_frozen_feature_is_tapped_without_a_gradient():
    """Below a frozen layer there is nothing to regularize, and nothing to break."""
    y, loss = tap(torch.randn(8, 4), 1.0, 1.0)

    assert not y.requires_grad and not loss.requires_grad


def test_one_feature_has_no_covariance():
    _, loss = tap(torch.randn(8, 1), 0.0, 1.0)

    assert loss == 0


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: tap(torch.randn(1, 4), 1, 1), ValueError, "two samples.*larger batch"),
        (lambda: tap(torch.randn(1, 4, 1, 1), 1, 1, dim=1), ValueError, "two samples"),
        (lambda: tap(torch.randn(4, 4), -1, 1), ValueError, "alpha=-1"),
        (lambda: tap(torch.randn(4, 4), 1, -0.5), ValueError, "beta=-0.5"),
        (lambda: tap(torch.randn(4, 4), 1, 1, rows=1), ValueError, "rows=1"),
        (lambda: tap(torch.randn(4, 4), math.nan, 1), ValueError, "alpha=nan"),
        (lambda: tap(torch.randn(4, 4), 1, 1, delta=-1.0), ValueError, "delta=-1.0"),
        (lambda: tap(torch.randn(4, 4), 1, 1, eps=0.0), ValueError, "eps=0.0"),
        (lambda: tap(torch.randn(4), 1, 1), ValueError, "axis of samples"),
        (lambda: tap(torch.ones(4, 4, dtype=torch.int64), 1, 1), TypeError, "floating"),
    ],
)
def test_wrong_input_is_refused_in_words(call, error, words):
    with pytest.raises(error, match=words):
        call()
