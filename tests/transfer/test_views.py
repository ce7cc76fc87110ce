import torch

from vcr_zoo.transfer.views import Views

from .made import pictures


def test_fixed_views_are_the_same_for_all_seeds_and_return_in_turn():
    """Their order is not: seeds must differ in something."""
    options = dict(training=True, augment=True, views=2)
    a, b = (Views(pictures("train"), 60, seed=seed, **options) for seed in (0, 1))

    def shown(views, epoch):
        x, y = next(iter(views.epoch(epoch)))
        order = x.flatten(1).sum(dim=1).argsort()
        return x[order], y

    assert torch.equal(shown(a, 0)[0], shown(b, 2)[0])
    assert not torch.equal(shown(a, 0)[0], shown(a, 1)[0])
    assert not torch.equal(shown(a, 0)[1], shown(b, 0)[1])


def test_two_readers_do_not_disturb_each_other():
    """One of another epoch, between the batches of the first."""
    views = Views(pictures("train", n=40), 10, training=True, augment=True, seed=1)
    alone = [x for x, _ in views.epoch(3)]
    between = []
    for x, _ in views.epoch(3):
        between.append(x)
        next(iter(views.epoch(0)))

    assert all(torch.equal(a, b) for a, b in zip(alone, between, strict=True))


def test_kept_rows_are_what_the_function_makes_of_each_view():
    options = dict(training=True, augment=True, views=2, seed=3)
    plain, kept = (Views(pictures("train"), 25, **options) for _ in range(2))
    assert kept.keep(lambda x: x.flatten(1) * 2)

    for epoch in range(3):
        for (x, y), (rows, labels) in zip(plain.epoch(epoch), kept.epoch(epoch), strict=True):
            assert torch.equal(rows, x.flatten(1) * 2) and torch.equal(y, labels)


def test_nothing_is_kept_beyond_the_limit_or_of_endless_views():
    fixed = Views(pictures("train"), 25, training=True, augment=True, views=1)
    endless = Views(pictures("train"), 25, training=True, augment=True, views=0)

    assert not fixed.keep(torch.clone, limit=60 * 16 * 16 * 4 - 1)
    assert not endless.keep(torch.clone)
    assert not fixed.kept and not endless.kept
