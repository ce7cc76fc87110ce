"""A pair trained and measured on a small Fashion-MNIST of made pictures, in its own file format."""

import itertools
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from vcr_zoo import suite
from vcr_zoo.card.gains import START
from vcr_zoo.cli import main
from vcr_zoo.results import Result, append, paired, read
from vcr_zoo.study.pair import RESULTS, check_pair, command, pair, table
from vcr_zoo.study.runs import Task, carried_out
from vcr_zoo.training import parse, train
from vcr_zoo.training.options import recipes
from vcr_zoo.transfer.matrix import workers

VCR, CONTROL = "test_resnet.vcr_fmnist4", "test_resnet.base_fmnist4"
QUICK = ("--train-num-samples", "256", "--epochs", "1", "--batch-size", "64")


@pytest.fixture(scope="module")
def made(small_sets):
    """Two seeds of a pair, and what was told."""
    told = []
    settings = {"folder": small_sets / "out", "options": QUICK, "tell": told.append}
    assert pair(VCR, CONTROL, seeds=[0, 1], **settings) == 0, told
    return settings, told


def values(folder, name, protocol, data, metric):
    return {
        r.seed: r.value
        for r in read(folder / RESULTS)
        if (r.model, r.protocol, r.data, r.metric) == (name, protocol, data, metric)
    }


def test_every_network_is_measured_with_the_whole_suite(made):
    settings, _ = made
    rows = read(settings["folder"] / RESULTS)
    jobs = suite.suite(parse(["--recipe", VCR]))

    for name in (VCR, CONTROL):
        for seed in (0, 1):
            mine = [r for r in rows if (r.model, r.seed) == (name, seed)]
            assert {(r.protocol, r.data) for r in mine} == {job[:2] for job in jobs}
            assert len({r.weights for r in mine}) == 1 and all(r.fingerprint for r in mine)
            assert all(f"--seeds {seed} --train-num-samples" in r.command for r in mine)
    assert len({r.weights for r in rows}) == 4
    assert len({r.cell() for r in rows}) == len(rows)


def test_a_quick_pair_leaves_large_probes_out_until_they_are_asked_for(
    made, small_sets, monkeypatch
):
    settings = made[0] | {"folder": small_sets / "quick", "tell": lambda line: None}
    path = settings["folder"] / RESULTS
    monkeypatch.setattr(suite, "LARGE", 100)

    assert pair(VCR, CONTROL, seeds=[0], quick=True, **settings) == 0
    quick = read(path)
    assert {r.data for r in quick if r.protocol == "fewshot"} == {"mnist", "fmnist"}
    assert not [r for r in quick if r.protocol == "probe"]

    assert pair(VCR, CONTROL, seeds=[0], **settings) == 0
    assert read(path)[: len(quick)] == quick
    assert {r.data for r in read(path)[len(quick) :]} == {"mnist", "fmnist"}


def test_the_table_pairs_seeds_and_averages_over_targets(made):
    settings, told = made
    ours, theirs = (values(settings["folder"], n, "probe", "mnist", "top1") for n in (VCR, CONTROL))
    gain = paired(100 * (ours[seed] - theirs[seed]) for seed in (0, 1))
    (line,) = (line for line in told[-1].splitlines() if "mean of 1 other sets" in line[:60]
               and "probe" in line)  # fmt: skip

    assert f"| {gain:.2f} | 2 |" in line


def test_the_table_is_of_the_latest_training_with_the_options_asked_for(tmp_path):
    """What a folder still has of runs that are gone is not averaged in."""
    for weights, options, value in (("new", (), 0.5), ("old", ("--epochs", "4"), 0.9)):
        for seed, name in itertools.product((0, 1), (VCR, CONTROL)):
            words = command(VCR, CONTROL, seed, options)
            one = Result(
                name, "mnist", "probe", "top1", value, seed, weights="older", command=words
            )
            again = replace(one, weights=f"{weights}{name}{seed}", value=value - 0.1)
            append(tmp_path / RESULTS, one, again)
    assert "| 40.00 % | 40.00 % |" in table(tmp_path, VCR, CONTROL, [0, 1])
    assert "| 80.00 % | 80.00 % |" in table(tmp_path, VCR, CONTROL, [0, 1], ("--epochs", "4"))


def test_a_pair_that_continues_is_measured_against_what_it_began_with(made, small_sets):
    """Its weights are those of a network measured above, so its probes must be the same."""
    settings, _ = made
    weights = str(settings["folder"] / f"{CONTROL}-seed1" / "model.safetensors")
    options = (*QUICK, "--pretrained", "--pretrained-path", weights)
    folder, told = small_sets / "continued", []
    assert pair(VCR, CONTROL, seeds=[0, 1], folder=folder, options=options, tell=told.append) == 0

    start = CONTROL + START
    measured = [r for r in read(folder / RESULTS) if r.model == start]
    assert {r.protocol for r in measured} == {"spectrum", "probe"}
    assert {(r.seed, r.command.split()[6]) for r in measured} == {(0, "0")}
    for data in ("mnist", "fmnist"):
        (began,) = values(folder, start, "probe", data, "top1").values()
        assert began == values(settings["folder"], CONTROL, "probe", data, "top1")[1]
    ours = values(folder, VCR, "probe", "mnist", "top1")
    gain = paired(100 * (ours[seed] - values(folder, start, "probe", "mnist", "top1")[0])
                  for seed in (0, 1))  # fmt: skip
    (line,) = (line for line in told[-1].partition(start)[2].splitlines()
               if "mean of 1 other sets" in line[:60] and "probe" in line)  # fmt: skip
    assert f"| {gain:.2f} | 2 |" in line

    more = pair(VCR, CONTROL, seeds=[2, 1], folder=folder, options=options, tell=told.append)
    assert more == 0 and start in told[-1]  # nor is it measured again
    assert [r for r in read(folder / RESULTS) if r.model == start] == measured


def test_what_is_there_is_neither_trained_nor_measured_again(made, monkeypatch):
    settings, _ = made
    path = settings["folder"] / RESULTS
    before, trained = path.read_bytes(), []

    def counted(args, progress):
        trained.append(args.experiment)
        return train(args, progress)

    monkeypatch.setattr("vcr_zoo.study.runs.train", counted)
    monkeypatch.setattr("vcr_zoo.study.pair.measured", None)  # nor is anything measured again
    assert pair(VCR, CONTROL, seeds=[1, 0], **settings) == 0
    assert not trained and path.read_bytes() == before

    (settings["folder"] / f"{VCR}-seed1" / "model.safetensors").unlink()
    assert pair(VCR, CONTROL, seeds=[1, 0], **settings) == 0
    assert trained == [f"{VCR}-seed1"] and path.read_bytes() == before


def test_another_training_in_the_same_folder_is_refused_and_nothing_lost(made):
    settings, _ = made
    told = []
    other = {**settings, "options": (*QUICK, "--lr", "0.5"), "tell": told.append}
    before = (settings["folder"] / RESULTS).read_bytes()

    assert pair(VCR, CONTROL, seeds=[0], **other) == 2
    assert "lr is 0.003, not 0.5" in told[0]
    assert (settings["folder"] / RESULTS).read_bytes() == before


def test_checkpoints_go_and_weights_stay(made):
    settings, _ = made
    kept = {path.name for path in (settings["folder"] / f"{VCR}-seed0").iterdir()}

    assert kept == {"args.yaml", "config.json", "model.safetensors", "summary.csv"}


def test_recipes_that_differ_in_more_than_vcr_are_no_pair():
    with pytest.raises(ValueError, match="is no control"):
        check_pair(CONTROL, VCR)
    with pytest.raises(LookupError, match=r"Closest: .*test_resnet\.vcr_fmnist4"):
        check_pair("test_resnet.vcr_fmnist5", CONTROL)
    with pytest.raises(ValueError, match="has no VCR"):
        check_pair(CONTROL, CONTROL)
    check_pair(VCR, CONTROL)


def test_networks_at_a_time_fail_alone_and_the_status_says_so(tmp_path, capsys):
    """In other processes; what is wrong with the options comes back in words."""
    words = ["pair", VCR, "--against", CONTROL, "--seeds", "0", "--jobs", "2"]
    words += ["--output", str(tmp_path), "--opt", "nosuch"]

    assert main(words) == 2
    assert capsys.readouterr().out.count("--opt 'nosuch' does not exist") == 2


def test_self_supervised_recipes_regularize_alike():
    """Their table is one: placements, turns and the rest are the same for all."""
    names = [name for name in recipes() if "_simclr_" in name or "_vicreg_" in name]
    options = [vars(parse(["--recipe", name])) for name in names]
    wanted = [key for key in options[0] if key.startswith("vcr_")]

    assert len(names) >= 8
    for key in set(wanted) - {"vcr_alpha", "vcr_beta"}:
        assert len({one[key] for one in options}) == 1, key


def test_a_run_knows_its_recipe_whatever_training_settles(made, tmp_path):
    """Options that training rewrites, as the optimizer's name, are no other recipe."""
    settings, _ = made
    options = (*QUICK, "--opt", "AdamW")
    told = []
    once = {**settings, "folder": tmp_path, "options": options, "tell": told.append}

    assert pair(VCR, CONTROL, seeds=[0], **once) == 0, told
    assert pair(VCR, CONTROL, seeds=[0], **once) == 0, told


def test_options_that_a_study_sets_itself_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--seed is set here"):
        pair(VCR, CONTROL, folder=tmp_path, options=["--seed", "3"])


def test_what_waits_does_not_begin_once_the_others_are_left(tmp_path):
    """As when Ctrl-C comes: a study of hours must end with the networks that it is at."""
    with workers(1, 1) as pool:
        futures = [pool.submit(slowly, tmp_path / str(n)) for n in range(20)]
        futures[0].result()

    assert len(list(tmp_path.iterdir())) < 10 and futures[-1].cancelled()


def test_a_killed_process_is_a_failure_and_no_end(tmp_path):
    task = Task(VCR, 0, tmp_path / "run", "")
    (tmp_path / "run").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "run" / name).write_bytes(b"")
    ((_, outcome),) = carried_out([task], killed, jobs=2)

    assert isinstance(outcome, RuntimeError) and "ended without a result" in str(outcome)


def slowly(path):
    time.sleep(0.2)
    path.touch()


def killed(task):
    os._exit(1)


def test_no_seeds_and_no_jobs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="--seeds"):
        pair(VCR, CONTROL, seeds=[], folder=tmp_path)
    with pytest.raises(ValueError, match="--jobs"):
        pair(VCR, CONTROL, jobs=0, folder=tmp_path)


def test_a_suite_has_no_classifier_to_ask_where_labels_were_not_seen():
    args = parse(["--dataset", "openart", "--task", "simclr"])
    jobs = suite.suite(args)

    assert not [job for job in jobs if job.protocol == "eval"]
    assert suite.Job("probe", "stamps") in jobs and suite.Job("probe", "openart") in jobs


def test_a_task_is_trained_by_its_recipe_seed_and_options(tmp_path):
    task = Task(VCR, 3, tmp_path / "run", "", ("--epochs", "1"))
    args = task.arguments

    assert (args.seed, args.epochs, args.experiment) == (3, 1, "run")
    assert args.vcr_alpha == parse(["--recipe", VCR]).vcr_alpha > 0
    assert Path(args.output) == tmp_path
