"""Where the penalty sits, over every architecture family that timm has."""

import copy
import functools
import re

import pytest
import timm
import torch
from torch import nn

from vcr_zoo import placement
from vcr_zoo.penalty import penalty, strided
from vcr_zoo.placement import default_input_size, find
from vcr_zoo.variants import VARIANTS

attach = functools.partial(placement.attach, alpha=1.0, beta=1.0)  # sums are easy to check
FAMILIES = """
beit_base_patch16_224 cait_xxs24_224 coat_tiny convit_tiny convmixer_768_32 cpubone_nano
crossvit_tiny_240 cs3darknet_focus_s csatv2 cspnext_tiny davit_tiny deepseek_vit_412m
deit_tiny_patch16_224 densenet121 dla46x_c dpn48b edgenext_xx_small efficientformer_l1
efficientformerv2_s0 efficientvim_m1 efficientvit_b0 efficientvit_m0 ese_vovnet19b_slim_dw
fasternet_t0 fastvit_t8 focalnet_tiny_srf gcvit_xxtiny gemma4_vit_167m ghostnet_050
gmlp_ti16_224 halonet_h1 hardcorenas_b hgnetv2_b0 hiera_tiny_224 hrnet_w18_small iformer_t
inception_next_atto inception_resnet_v2 inception_v3 inception_v4 lcnetv2_small
legacy_seresnet18 legacy_xception levit_128s lowformer_b0 mobilenetv3_small_050 mobilenetv5_base
mobilevit_xxs mvitv2_tiny naflexvit_base_patch16_parfac_gap nasnetalarge nest_tiny nextvit_small
pit_ti_224 pnasnet5large poolformerv2_s12 pvt_v2_b0 qwen3_vit_88m rdnet_tiny regnetx_002
repghostnet_050 repvit_m1 res2next50 resnest14d resnetv2_18 rexnet_100 sam2_hiera_tiny
samvit_base_patch16_224 selecsls42 sequencer2d_s shvit_s1 skresnet18 starnet_s050 swiftformer_xs
swin_tiny_patch4_window7_224 swinv2_cr_tiny_224 swinv2_tiny_window8_256 test_byobnet
test_coatnet test_convnext test_efficientnet test_mambaout test_nfnet test_resnet test_vit
test_vit_relpos tiny_vit_5m_224 tnt_s_legacy_patch16_224 tresnet_m twins_svt_small vgg11
visformer_tiny vit_tiny_patch16_dinov3_qkvb vit_tiny_r_s16_p8_224 vitamin_small_224 volo_d1_224
xception41p xcit_nano_12_p8_224
""".split()

GOLDEN = {
    "resnet50": [f"layer{s}.{b}" for s, n in enumerate((3, 4, 6, 3), 1) for b in range(n)],
    "convnext_atto": [
        f"stages.{s}.blocks.{b}" for s, n in enumerate((2, 2, 6, 2)) for b in range(n)
    ],
    "vit_tiny_patch16_224": [f"blocks.{b}" for b in range(12)],
    "swin_tiny_patch4_window7_224": [
        f"layers.{s}.blocks.{b}" for s, n in enumerate((2, 2, 6, 2)) for b in range(n)
    ],
    "efficientnet_b0": [
        f"blocks.{s}.{b}" for s, n in enumerate((0, 2, 2, 3, 3, 4, 1)) for b in range(n)
    ],
    "regnetx_002": [f"s{s}.b{b + 1}" for s, n in enumerate((1, 1, 4, 7), 1) for b in range(n)],
    "mixer_s32_224": [f"blocks.{b}" for b in range(8)],
}
STAGES = {
    "resnet50": ["layer1.2", "layer2.3", "layer3.5", "layer4.2"],
    "convnext_atto": [f"stages.{s}.blocks.{b}" for s, b in enumerate((1, 1, 5, 1))],
    "vit_tiny_patch16_224": [f"blocks.{b}" for b in range(12)],
}
LARGE = {  # as many positions along a side as features: ambiguous at this size alone
    "resnet18": ((3, 192, 256), {}, {1}),
    "convnext_tiny": ((3, 192, 384), {}, {1}),
    "swin_tiny_patch4_window7_224": ((3, 384, 384), dict(img_size=384), {3}),
}
AXES = {  # axis of the features, by what each architecture's author wrote
    "resnet50": {1},
    "convnext_atto": {1},
    "vit_tiny_patch16_224": {2},
    "swin_tiny_patch4_window7_224": {3},
    "swinv2_cr_tiny_224": {3},
    "nest_tiny": {3},
    "test_mambaout": {3},
    "pvt_v2_b0": {2},
    "efficientformer_l1": {1, 2},
}


def empty(name, **kwargs):
    """A model without data: shapes only."""
    with torch.device("meta"):
        return timm.create_model(name, **kwargs)


def small(**kwargs):
    return timm.create_model("test_resnet", num_classes=5, **kwargs).train()


def images(n=4, size=32):
    return torch.randn(n, 3, size, size, generator=torch.Generator().manual_seed(0))


SIZE = (3, 32, 32)


@pytest.mark.parametrize("name", GOLDEN)
def test_blocks_are_those_of_the_paper(name):
    """Every output after a residual addition, and nothing else."""
    assert [place.name for place in find(empty(name), "blocks")] == GOLDEN[name]


@pytest.mark.parametrize("name", STAGES)
def test_stages_are_the_last_blocks_of_timms_stages(name):
    assert [place.name for place in find(empty(name), "stages")] == STAGES[name]


@pytest.mark.parametrize("name", AXES)
def test_the_axis_of_features_is_found(name):
    """timm's output_fmt does not say what lies inside: some networks keep channels last."""
    assert {place.dim for place in find(empty(name), "blocks")} == AXES[name]


@pytest.mark.parametrize("name", LARGE)
def test_the_axis_is_found_where_sides_are_as_long_as_features_are_many(name):
    """Otherwise columns of pixels would be decorrelated, and nobody would notice."""
    size, kwargs, axes = LARGE[name]
    model = empty(name, **kwargs)

    assert {place.dim for place in find(model, "blocks", size)} == axes


def test_families_cover_timm():
    assert len({timm.models.model_entrypoint(name).__module__ for name in FAMILIES}) >= 95


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_trains_regularized(name):
    """In-place activations after a tapped output, tuples, channels last inside: all go through
    a training step, and afterwards the model is as it was."""
    model = empty(name).train()
    size = default_input_size(model)
    keys = list(model.state_dict())
    flags = {n: m.inplace for n, m in model.named_modules() if hasattr(m, "inplace")}

    penalties = attach(model, "blocks,pooled", input_size=size)
    with penalties.collect() as collected:
        output = model(torch.empty(3, *size, device="meta"))
    output = output[0] if isinstance(output, (tuple, list)) else output
    (output.sum() + collected.total).backward()

    assert len(penalties.placements) >= 4
    assert len(collected.variance) == len(penalties.placements)
    assert list(model.state_dict()) == keys
    penalties.detach()
    assert flags == {n: m.inplace for n, m in model.named_modules() if hasattr(m, "inplace")}
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class InPlace(nn.Module):
    """A block, then something that writes into what the block returned."""

    def __init__(self, consumer):
        super().__init__()
        self.block = nn.Conv2d(3, 8, 3)
        self.relu = nn.ReLU(inplace=True)
        self.consumer = consumer

    def forward(self, x):
        x = self.block(x)
        return (x.relu_() if self.consumer == "relu_" else self.relu(x)).mean((2, 3))


@pytest.mark.parametrize("consumer", ["module", "relu_"])
def test_a_consumer_that_works_in_place_is_kept_from_the_tapped_tensor(consumer):
    """Autograd refuses to write into a Function's view; the gradient must be the true one."""
    torch.manual_seed(0)
    model = InPlace(consumer)
    penalties = attach(model, "block", rows=None, input_size=(3, 8, 8))
    with penalties.collect() as collected:
        output = model(images(size=8))
    (output.sum() + collected.total).backward()
    found = model.block.weight.grad.clone()
    penalties.detach()
    assert model.relu.inplace

    model.zero_grad()
    x = model.block(images(size=8))
    expected = x.relu().mean((2, 3)).sum() + penalty(x.movedim(1, -1).reshape(-1, 8), 1.0, 1.0)
    expected.backward()
    torch.testing.assert_close(found, model.block.weight.grad)


def test_detaching_leaves_no_trace():
    """Afterwards the network is plain timm, to the bit."""
    model = small()
    plain = copy.deepcopy(model)
    attach(model, "blocks", input_size=SIZE).detach()

    for m in (model, plain):
        m(images()).sum().backward()
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


def test_attaching_leaves_randomness_and_statistics_alone():
    """A tap must not shift the seeds or the running means of the run it joins."""
    model = small()
    state, before = torch.random.get_rng_state(), copy.deepcopy(model.state_dict())
    attach(model, "blocks", input_size=SIZE)

    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.training


def test_weights_of_zero_attach_nothing():
    model = small()
    penalties = attach(model, "blocks", alpha=0.0, beta=0.0)

    assert not penalties.placements
    assert not any(m._forward_hooks for m in model.modules())


def test_each_layer_may_have_its_own_weights():
    """The total is the sum over placements of their own alpha V + beta K."""
    model = small()
    penalties = attach(model, "blocks,pooled", alpha=[0.5, 2.0], beta=[0.0, 3.0], input_size=SIZE)
    with penalties.collect() as collected:
        model(images())

    v, k = collected.variance, collected.covariance
    expected = 0.5 * v[:-1].sum() + 2.0 * v[-1] + 3.0 * k[-1]
    torch.testing.assert_close(collected.total.detach(), expected)
    assert [str(place) for place in penalties.placements][-1] == "fc.input"


def test_evaluation_runs_untapped(monkeypatch):
    """In eval mode, and without gradients, nothing runs."""
    calls = []
    monkeypatch.setattr(placement, "begin", lambda *args: calls.append(args))
    model = small()
    attach(model, "blocks", input_size=SIZE)
    model.eval()(images())
    with torch.no_grad():
        model.train()(images())

    assert not calls
    with pytest.raises(TypeError):  # the stand-in returns nothing
        model(images())
    assert len(calls) == 1


def test_a_copy_of_the_model_does_not_collect():
    """An EMA copy carries the hooks; whatever its mode, it must not add to the original's loss."""
    model = small()
    penalties = attach(model, "blocks", input_size=SIZE)
    twin = copy.deepcopy(model)
    with penalties.collect() as collected:
        model(images())
    alone = collected.total.item()
    penalties.step = 0
    with penalties.collect() as collected:
        twin(images())
        model(images())

    assert collected.total.item() == alone
    with pytest.raises(RuntimeError, match="did not regularize"), penalties.collect():
        twin(images())


def test_the_later_of_two_words_sets_the_weights():
    model = small()
    penalties = attach(model, "blocks,layer4.0", alpha=[1, 5], beta=[1, 7], input_size=SIZE)

    assert penalties.weights == [(1, 1), (1, 1), (1, 1), (5, 7)]


def test_activation_checkpointing_gives_the_same_gradient():
    """The recomputed forward pass taps again, and adds nothing a second time."""

    def gradient(checkpointing):
        torch.manual_seed(0)
        model = small(drop_path_rate=0.3)
        model.set_grad_checkpointing(checkpointing)
        penalties = attach(model, "blocks", rows=50, input_size=SIZE)
        with penalties.collect() as collected:
            output = model(images())
        (output.sum() + collected.total).backward()
        return [p.grad for p in model.parameters()]

    for plain, again in zip(gradient(False), gradient(True), strict=True):
        torch.testing.assert_close(plain, again)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("rows", [8, None])
def test_a_tapped_network_on_a_gpu_waits_for_nothing(rows, channels_last):
    """From the draw of rows to the last gradient, under autocast; gradients are the CPU's."""
    form = torch.channels_last if channels_last else torch.contiguous_format
    found = {}
    for device in ("cpu", "cuda"):
        torch.manual_seed(0)
        model = small().to(device, memory_format=form)
        penalties = attach(model, "blocks", rows=rows, every=1, input_size=SIZE)
        x = images(8).to(device, memory_format=form)
        for repeat in range(2):  # the first one sets the device up
            model.zero_grad()
            penalties.step = 0
            torch.cuda.set_sync_debug_mode("error" if repeat else "default")
            try:
                with torch.autocast(device, torch.bfloat16), penalties.collect() as collected:
                    model(x)
                collected.total.backward()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found[device] = torch.cat(grads).double().cpu()

    assert nn.functional.cosine_similarity(*found.values(), dim=0) > 0.99


def test_compiled_whole_and_eager_agree():
    """One graph, no break in it, the same penalty and gradient."""

    def run(compiled):
        torch.manual_seed(0)
        model = small()
        penalties = attach(model, "blocks,pooled", rows=50, input_size=SIZE)
        forward = torch.compile(model, backend="aot_eager", fullgraph=True) if compiled else model
        for n in (4, 4, 6):  # batches of another size too
            with penalties.collect() as collected:
                output = forward(images(n))
            model.zero_grad()
            (output.sum() + collected.total).backward()
        return collected.total, [p.grad for p in model.parameters()]

    plain, again = run(False), run(True)
    torch.testing.assert_close(plain, again)


def test_sampled_rows_are_a_function_of_seed_and_step():
    """So that a resumed run draws what the uninterrupted one would have drawn."""

    def total(seed, step):
        torch.manual_seed(0)
        model = small()
        penalties = attach(model, "blocks", rows=20, seed=seed, input_size=SIZE)
        penalties.step = step
        torch.manual_seed(step)  # the global generator has no say
        with penalties.collect() as collected:
            model(images())
        return collected.total.item()

    assert total(0, 7) == total(0, 7)
    assert len({total(0, 7), total(0, 8), total(1, 7)}) == 3


@pytest.mark.parametrize("scale", [0.2, 4.0])  # no covariance above delta; some
@pytest.mark.parametrize("rows", [6, 80])  # fewer than features; more
def test_placements_of_one_shape_are_each_regularized_for_itself(rows, scale):
    """They are worked on together; each has the rows that are its own, and no other's mean."""
    torch.manual_seed(0)
    model = timm.create_model("test_vit", img_size=32, num_classes=5).double().train()
    x = scale * images(32).double()
    penalties = attach(model, "blocks", alpha=0.7, beta=0.4, rows=rows, every=1, input_size=SIZE)
    with penalties.collect() as collected:
        model(x)
    parameters = list(model.blocks.parameters())
    found = torch.autograd.grad(collected.total, parameters, materialize_grads=True)
    penalties.detach()

    expected, kept = 0.0, {}
    for place in penalties.placements:
        module = model.get_submodule(place.name)
        module.register_forward_hook(lambda m, _, out: kept.update({m: out.flatten(0, 1)}))
    model(x)
    for place, offset in zip(penalties.placements, penalties.offsets, strict=True):
        every = kept[model.get_submodule(place.name)]
        index = strided(len(every), rows, offset, x.device, place.rows_per_image)
        expected = expected + penalty(every[index], 0.7, 0.4)
    written_out = torch.autograd.grad(expected, parameters, materialize_grads=True)

    assert len(penalties.placements) > 1
    torch.testing.assert_close([collected.total, *found], [expected, *written_out])


def test_pooled_vectors_are_never_sampled():
    """They are as few as the batch, fewer than the features already."""

    def total(rows):
        torch.manual_seed(0)
        model = small()
        penalties = attach(model, "pooled", rows=rows, input_size=SIZE)
        with penalties.collect() as collected:
            model(images(16))
        return collected.total.item()

    assert total(4) == total(None)


def test_a_module_called_twice_counts_twice():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.block = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)

        def forward(self, x):
            return self.block(self.block(self.first(x)))

    model = Shared()
    penalties = attach(model, "first,block", input_size=(3, 8, 8))
    calls = []
    model.block.register_forward_hook(lambda _, __, y: calls.append(y))
    with penalties.collect() as collected:
        model(images(size=8))

    assert len(calls) == 2
    assert collected.variance.shape == (2,)
    torch.testing.assert_close(
        collected.total.detach(), collected.variance.sum() + collected.covariance.sum()
    )


def test_a_placement_that_is_not_reached_is_reported():
    """Reentrant checkpointing would hide it, and the run would train without VCR."""
    model = small()
    penalties = attach(model, "blocks", every=1, input_size=SIZE)
    model.layer3.eval()

    with pytest.raises(RuntimeError, match=r"did not regularize layer3\.0"), penalties.collect():
        model(images())


def test_placements_that_take_turns_add_up_to_all_at_once():
    """Over as many steps as there are turns: gradients, penalties, and what is logged of them."""

    def steps(every):
        torch.manual_seed(0)
        model = small()
        settings = {"rows": None, "every": every, "input_size": SIZE}
        penalties = attach(model, "blocks,pooled", alpha=[1, 2], beta=[3, 1], **settings)
        found = []
        for _ in range(3):
            with penalties.collect() as collected:
                model(images())
            collected.total.backward()
            found.append((collected.total.detach(), collected.variance, collected.covariance))
        sums = [torch.stack(values).sum(dim=0) for values in zip(*found, strict=True)]
        return sums, [p.grad for p in model.parameters() if p.grad is not None], found

    at_once, in_turns = steps(1), steps(3)
    torch.testing.assert_close(in_turns[:2], at_once[:2], rtol=1e-4, atol=1e-6)
    taking_part = [[v.item() > 0 for v in variance] for _, variance, _ in in_turns[2]]
    vectors = [True, True]  # the last block's map is one pixel
    assert taking_part == [[i == step for i in range(3)] + vectors for step in range(3)]


@pytest.mark.parametrize(
    "layers, settings, expected",
    [
        ("layer1,layer2,layer3,conv1,bn1", {}, 4),
        ("layer1,layer2,layer3,conv1,bn1", {"rows": None}, 1),
        ("layer1,layer2,layer3", {"every": 2}, 2),
        ("layer1,layer2", {}, 2),  # no step goes without
        ("pooled", {}, 1),
        ("pooled", {"every": 3}, 1),
    ],
)
def test_how_many_take_turns(layers, settings, expected):
    penalties = attach(small(), layers, input_size=SIZE, **settings)

    assert {k for k, _ in penalties.turns} == {expected}
    assert {turn for _, turn in penalties.turns} == set(range(expected))


def test_whose_turn_it_is_depends_on_the_step_alone():
    """So a resumed run goes on with the placement that comes next."""

    def takes_part(step):
        model = small()
        penalties = attach(model, "blocks", input_size=SIZE)
        penalties.step = step
        with penalties.collect():
            model(images())
        return penalties.takes_part.index(True)

    assert [takes_part(step) for step in (0, 1, 2, 3, 7)] == [0, 1, 2, 0, 1]  # of three maps


@pytest.mark.parametrize(
    "arguments, error, words",
    [
        (dict(layers="layr4"), LookupError, r"no layer 'layr4'\. Closest: layer4"),
        (dict(layers=""), LookupError, "no layers named"),
        (
            dict(layers="blocks", alpha=-1.0),
            ValueError,
            "alpha must be zero or more, and finite, not -1",
        ),
        (dict(layers="blocks", beta=float("inf")), ValueError, "beta must be zero or more"),
        (dict(layers="blocks", every=0), ValueError, "every=0: 1 takes all placements"),
        (dict(layers="blocks", beta=float("nan")), ValueError, "beta must be zero or more"),
        (
            dict(layers="blocks,pooled", alpha=[1.0, 2.0, 3.0]),
            ValueError,
            "3 values of alpha for 2",
        ),
    ],
)
def test_wrong_requests_are_refused_in_words(arguments, error, words):
    with pytest.raises(error, match=words):
        attach(small(), input_size=SIZE, **arguments)


def test_a_layer_that_is_not_called_is_told_from_one_that_is_not_there():
    model = small()
    model.spare = nn.Linear(2, 2)

    with pytest.raises(LookupError, match="does not call layer 'spare'"):
        attach(model, "spare", input_size=SIZE)


def test_an_input_size_that_the_model_refuses_is_named():
    with pytest.raises(ValueError, match=re.escape("does not take images of (3, 50, 50)")):
        find(empty("vit_tiny_patch16_224"), input_size=(3, 50, 50))


@pytest.mark.parametrize("amp", [False, True])
@pytest.mark.parametrize("rows", [None, 8])
@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_a_variant_is_taken_of_the_features_that_pass(name, rows, amp, monkeypatch):
    """Of all of them where all take part; of some of them else; not rounded under autocast."""
    settings = {"variant": name, "alpha": 0.7, "beta": 0.5, "every": 1, "rows": rows}
    model, images = small(), torch.rand(4, 3, 32, 32)
    names, seen = [p.name for p in find(model, "stages")], []
    for one in names:
        hook = lambda _, __, out: seen.append(out.detach().movedim(1, -1).flatten(0, -2))  # noqa: E731
        model.get_submodule(one).register_forward_hook(hook)
    penalties = attach(model, "stages", **settings)
    taken, sampled = [], placement.sampled

    def watched(*args):
        y, few = sampled(*args)
        taken.append(few.detach().float())
        return y, few

    monkeypatch.setattr(placement, "sampled", watched)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp), penalties.collect() as collected:
        model(images)

    assert len(seen) == len(collected.variance) == len(names)
    for few, every in zip(taken, seen, strict=True):
        assert len(few) == min(rows or len(every), len(every))
        rows_of = [{tuple(row) for row in x.float().tolist()} for x in (few, every)]
        assert rows_of[0] <= rows_of[1]
    expected = sum(
        VARIANTS[name](few, 0.7, 0.5, 1.0, 1e-4, len(every))
        for few, every in zip(taken, seen, strict=True)
    )
    torch.testing.assert_close(collected.total, expected)
    collected.total.backward()
    assert all(p.grad is not None for p in model.layer1.parameters())


def test_a_share_is_one_of_the_gradient_that_passes():
    """Whatever the coefficients, as long as their ratio is the same."""
    x = torch.randn(16, 6, dtype=torch.float64)
    linear = nn.Linear(6, 1).double()

    def gradient(**settings):
        model = nn.Sequential(nn.Identity(), linear).train()
        penalties = attach(model, "0", input_size=(6,), **settings)
        inputs = x.clone().requires_grad_()
        with penalties.collect() as collected:
            loss = model(inputs).square().sum()
        (loss + collected.total).backward()
        return inputs.grad

    plain = gradient(alpha=0.0, beta=0.0)
    added = [gradient(alpha=a, beta=3 * a, share=0.25) - plain for a in (0.1, 7.0)]
    assert added[0].norm().item() == pytest.approx(0.25 * plain.norm().item())
    torch.testing.assert_close(added[0], added[1])
    direction = gradient(alpha=0.1, beta=0.3) - plain
    torch.testing.assert_close(added[0] / added[0].norm(), direction / direction.norm())


@pytest.mark.parametrize(
    "settings, told",
    [
        ({"variant": "corelation"}, "Closest: correlation"),
        ({"share": 0.0}, "share=0.0 must be positive"),
        ({"variant": "wld", "sync": True}, "synchronized"),
        ({"share": 0.1, "sync": True}, "synchronized"),
        ({"variant": "wld", "beta": 0.0}, "beta weighs it"),
    ],
)
def test_variants_and_shares_that_make_no_sense_are_refused(settings, told):
    with pytest.raises((LookupError, ValueError), match=told):
        attach(small(), "pooled", **settings)


@pytest.mark.parametrize("variant", [None, "relative"])
@pytest.mark.parametrize("rows", [None, 5])
def test_a_share_of_samples_is_one_of_the_whole_gradient(rows, variant):
    """What is added to some positions of a map, against what passes at all of them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Identity(), nn.Conv2d(6, 1, 1)).train()
    x = torch.randn(4, 6, 3, 3)
    settings = {"input_size": (6, 3, 3), "rows": rows, "share": 0.5, "variant": variant}
    found = []
    for weight in (0.0, 2.0):
        penalties = attach(model, "0", alpha=weight, beta=weight, every=1, **settings)
        inputs = x.clone().requires_grad_()
        with penalties.collect() as collected:
            loss = model(inputs).square().sum()
        (loss + collected.total).backward()
        found.append(inputs.grad)
        penalties.detach()
    plain, added = found[0], found[1] - found[0]

    assert added.norm().item() == pytest.approx(0.5 * plain.norm().item(), rel=1e-5)
    assert (added.norm(dim=1) > 1e-6).sum().item() == (rows or 36)


def test_a_share_of_no_gradient_is_none():
    """Where every deviation is above one, V has no gradient that could be scaled."""
    model = nn.Sequential(nn.Identity(), nn.Linear(6, 1)).train()
    penalties = attach(model, "0", input_size=(6,), alpha=1.0, beta=0.0, share=0.5)
    inputs = (100 * torch.randn(16, 6)).requires_grad_()
    with penalties.collect() as collected:
        loss = model(inputs).square().sum()
    (loss + collected.total).backward()
    shared = inputs.grad.clone()
    inputs.grad = None
    penalties.detach()
    model(inputs).square().sum().backward()

    assert torch.equal(shared, inputs.grad) and shared.isfinite().all()


def test_a_variant_needs_two_samples():
    model = nn.Sequential(nn.Identity(), nn.Linear(6, 1)).train()
    penalties = attach(model, "0", input_size=(6,), variant="relative")
    with pytest.raises(ValueError, match="at least two samples"), penalties.collect():
        model(torch.rand(1, 6, requires_grad=True))
