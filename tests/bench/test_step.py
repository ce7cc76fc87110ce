"""The benchmark of a step counts what it says it counts; timings themselves are not asserted."""

import argparse
import json
import subprocess
import sys
from collections import Counter

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from vcr_zoo.bench import step as module
from vcr_zoo.bench.step import bench, figures, make, saved_bytes
from vcr_zoo.cli import main
from vcr_zoo.cli.bench import add_bench_step
from vcr_zoo.penalty import tap
from vcr_zoo.results import read

SMALL = dict(model="test_resnet", size=32, batch=8, repeats=2)


@pytest.fixture(scope="module")
def found():
    return bench(**SMALL)


def test_every_way_to_take_a_step_is_there(found):
    assert set(found) == {"plain", "naive", "exact", "sampled", "batchnorm"}
    assert found["plain"]["ratio"] == found["plain"]["flops"] == found["plain"]["memory"] == 1


def test_flops_of_the_exact_tap_are_the_two_products(found):
    """2 n d² multiply-adds a placement forward and as many backward, where n is at least d, and
    the mean's product with M."""
    x = torch.randn(50, 20, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        y, penalty = tap(x, 1.0, 1.0)
        (y.sum() + penalty).backward()

    assert counter.get_total_flops() == 2 * (2 * 50 * 20**2) + 2 * 20**2


def test_sampling_costs_less_than_the_exact_form_and_that_less_than_the_naive(found):
    flops = [found[name]["flops"] for name in ("plain", "sampled", "exact", "naive")]

    assert flops == sorted(flops) and len(set(flops)) == 4


def test_taps_save_no_activation_of_their_own(found):
    """Beside square matrices, which are counted apart, only each channel's mean is kept, and the
    centered samples where they are fewer than the channels."""
    assert max(found[name]["memory"] for name in ("exact", "sampled")) <= 1.02
    assert found["sampled"]["matrices"] > 0
    assert found["naive"]["memory"] > found["exact"]["memory"] + 0.02


def test_saved_bytes_are_those_of_the_activations():
    """A linear layer keeps its input; ReLU its output."""
    step = make("plain", "test_resnet", 32, "blocks", None, False, "cpu", False)
    images, target = torch.randn(8, 3, 32, 32), torch.arange(8)
    once, _ = saved_bytes(step, images, target, False)
    twice, _ = saved_bytes(step, images.repeat(2, 1, 1, 1), target.repeat(2), False)

    assert 1.9 < twice / once <= 2


def test_ratios_are_medians_of_neighbors():
    """A slow moment of the machine hits both sides of one ratio."""
    plain, other, naive = (
        make("plain", "test_resnet", 32, "blocks", None, False, "cpu", False) for _ in range(3)
    )
    plain.seconds, other.seconds = [1.0, 10.0, 1.0, 1.0], [1.2, 12.0, 1.3, 1.2]
    naive.seconds, plain.memory, plain.flops = [2.0, 20.0, 2.0, 2.0], 1, 1

    made = figures(other, plain, naive)
    assert made["ratio"] == pytest.approx(1.2) and made["naive_over_added"] == pytest.approx(5)


def test_sampled_gradients_point_where_the_exact_ones_do(found):
    """More so over several steps."""
    assert 0 < found["sampled"]["cosine"] < found["sampled"]["cosine_of_mean"] <= 1


@pytest.mark.parametrize("layers", ["pooled", "blocks,pooled"])
def test_any_placement_can_be_measured(layers):
    assert bench(**SMALL, layers=layers)["exact"]["flops"] > 1


def test_another_penalty_can_be_measured_and_is_named(tmp_path):
    """Of which the exact step's gradient tells nothing."""
    path = tmp_path / "steps.jsonl"
    found = bench(**SMALL, variant="relative", share=0.25, results=path)

    assert "cosine" not in found["sampled"] and found["sampled"]["flops"] > 1
    row, *_ = [r for r in read(path) if r.settings["arm"] == "sampled"]
    assert row.data.endswith(", variant relative, share 0.25")
    assert "--variant relative --share 0.25" in row.command and "None" not in row.command


def test_every_way_takes_as_many_steps_at_a_time_as_the_others(monkeypatch):
    """After another network's step the first one finds no memory warm."""
    at_once = Counter()
    plain = module.timed

    def counted(*arguments):
        at_once[arguments[-1]] += 1
        return plain(*arguments)

    monkeypatch.setattr(module, "timed", counted)
    bench(**SMALL, every=3)
    assert at_once == {3: 5 * SMALL["repeats"]}


def test_compiled_steps_are_what_they_are_uncompiled():
    """Five networks of one architecture: none runs another's graph."""
    torch.compiler.reset()
    whole = dict(rows=64, every=1)
    plain = bench(**SMALL, **whole)
    compiled = bench(**SMALL, **whole, compile="aot_eager")

    for name in ("naive", "batchnorm"):  # each keeps what it keeps beyond the plain step
        assert plain[name]["memory"] > 1.05
        assert compiled[name]["memory"] == pytest.approx(plain[name]["memory"], rel=1e-2)
    assert compiled["sampled"]["cosine"] == pytest.approx(plain["sampled"]["cosine"], abs=1e-4)


def test_the_command_prints_one_json_object_and_writes_it_as_results(tmp_path):
    command = [sys.executable, "-m", "vcr_zoo.cli", "bench", "step", "--json"]
    options = ["--model", "test_resnet", "--size", "32", "--batch", "4", "--repeats", "3"]
    file = ["--seed", "3", "--amp", "--results", str(tmp_path / "steps.jsonl")]
    output = subprocess.run([*command, *options, *file], capture_output=True, text=True, check=True)

    found, rows = json.loads(output.stdout), read(tmp_path / "steps.jsonl")
    assert set(found) == {"plain", "naive", "exact", "sampled", "batchnorm"}
    assert found.pop("plain")["ratio"] == 1
    for metric in ("ratio", "memory"):
        stated = {arm: figures[metric] for arm, figures in found.items()}
        assert {r.settings["arm"]: r.value for r in rows if r.metric == metric} == stated
    assert sum(r.metric.startswith("cosine") for r in rows) == 2
    assert {(r.seed, r.data) for r in rows} == {(3, "test_resnet, 32 px, batch 4, bfloat16")}
    (line,) = {r.command for r in rows}
    args = parser_of("step").parse_args(line.split()[3:])
    assert (args.model, args.repeats, args.seed, args.amp) == ("test_resnet", 3, 3, True)
    assert args.compile is None and not args.channels_last


def test_a_misspelt_network_is_named_with_what_comes_near(capsys):
    assert main(["bench", "step", "--model", "test_resnt"]) == 2
    assert "no model 'test_resnt'. Closest: test_resnet" in capsys.readouterr().err


def parser_of(name):
    parser = argparse.ArgumentParser()
    add_bench_step(parser.add_subparsers())
    return parser._subparsers._group_actions[0].choices[name]
