import inspect
import json
import shlex
import subprocess
import sys
import time
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from vcr_zoo.data import DATASETS
from vcr_zoo.features import features as read_features
from vcr_zoo.results import read
from vcr_zoo.transfer import matrix
from vcr_zoo.transfer.fewshot import RIDGES, fewshot_right
from vcr_zoo.transfer.knn import knn_votes
from vcr_zoo.transfer.matrix import PROTOCOLS, Cell, cells, measure, right, run
from vcr_zoo.transfer.probe import STRENGTHS, choose

from .made import network, pictures


@pytest.fixture
def known(monkeypatch, tmp_path):
    """The set "made", and the order in which features of its parts were read."""
    order = []

    def features(model, images, **options):
        order.append(images.split)
        return read_features(model, images, **options)

    row = replace(DATASETS["fmnist"], name="made", levels={"fine": 3, "coarse": 2})
    monkeypatch.setitem(DATASETS, "made", row)
    monkeypatch.setattr(matrix, "load", lambda name, split, level="fine": pictures(split, level))
    monkeypatch.setattr(matrix, "load_test", lambda name, level: pictures("test", level))
    monkeypatch.setattr(matrix, "features", features)
    return order


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_gives_results_and_then_nothing_to_do(protocol, known, tmp_path):
    """The main metric first; a second run reads what the first has written, and no test split."""
    cell = Cell(network(tmp_path / "net"), "made", protocol)
    out = tmp_path / "out.jsonl"

    first = measure(cell, out)
    read_before = known.count("test")
    again = measure(cell, out)

    assert again == first
    assert next(iter(again)) == next(iter(first)) in matrix.MAIN[protocol]
    assert len(read(out)) == len(first)
    assert known.count("test") == read_before == (0 if protocol == "scores" else 1)
    answers = right(out, next(iter(first.values())))
    if protocol == "scores":
        assert answers is None
    else:
        assert answers.mean() == pytest.approx(next(iter(first.values())).value, abs=1e-3)


def test_test_split_is_read_after_the_choice(known, tmp_path, monkeypatch):
    """C is chosen before the test pictures are loaded."""
    choose = matrix.choose

    def chosen(*args):
        known.append("choice")
        return choose(*args)

    monkeypatch.setattr(matrix, "choose", chosen)
    measure(Cell(network(tmp_path / "net"), "made", "probe"), tmp_path / "out.jsonl")

    assert known == ["train", "validation", "choice", "test"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_half_written_cell_is_measured_again(protocol, known, tmp_path):
    """Without its main metric, which is written last, a cell is not finished."""
    if protocol == "prototype":
        pytest.skip("has one metric")
    cell, out = Cell(network(tmp_path / "net"), "made", protocol), tmp_path / "out.jsonl"
    first = measure(cell, out)
    lines = out.read_text().splitlines(keepends=True)
    out.write_text("".join(lines[:-1]))

    again = measure(cell, out)

    assert {k: r.value for k, r in again.items()} == {k: r.value for k, r in first.items()}
    assert len(out.read_text().splitlines()) == 2 * len(lines) - 1


def test_other_weights_are_another_cell(known, tmp_path):
    """A folder that was trained again is measured again, under the same name."""
    out = tmp_path / "out.jsonl"
    one = measure(Cell(network(tmp_path / "net", 0), "made", "prototype"), out)
    other = measure(Cell(network(tmp_path / "net", 1), "made", "prototype"), out)

    assert one["top1"].weights != other["top1"].weights
    assert len(read(out)) == 2


@pytest.mark.parametrize("key, value", [("input_size", [1, 8, 8]), ("mean", [0.7])])
def test_other_preparation_is_another_cell(key, value, known, tmp_path):
    """The same weights see other pictures: the old number is not theirs."""
    cell, out = Cell(network(tmp_path / "net"), "made", "prototype"), tmp_path / "out.jsonl"
    one = measure(cell, out)
    path = tmp_path / "net" / "config.json"
    config = json.loads(path.read_text())
    config["pretrained_cfg"][key] = value
    path.write_text(json.dumps(config))

    other = measure(cell, out)

    assert one["top1"].weights == other["top1"].weights
    assert one["top1"].network != other["top1"].network
    assert len(read(out)) == 2 and measure(cell, out) == other


def test_other_test_pictures_are_another_cell(known, tmp_path, monkeypatch):
    """Also with the same pictures to learn from: the number is one of the test pictures."""
    cell, out = Cell(network(tmp_path / "net"), "made", "prototype"), tmp_path / "out.jsonl"
    one = measure(cell, out)
    monkeypatch.setattr(matrix, "load_test", lambda name, level: pictures("other test", level))

    other = measure(cell, out)

    assert one["top1"].fingerprint != other["top1"].fingerprint
    assert len(read(out)) == 2


def test_coarse_to_fine_tells_siblings_apart(known, tmp_path):
    """Two of the three classes are of one coarse class: only theirs are counted."""
    cell, out = Cell(network(tmp_path / "net"), "made", "coarse-to-fine"), tmp_path / "out.jsonl"

    found = measure(cell, out)

    assert list(found)[:3] == ["within_top1", "top1", "coarse_top1"]
    assert found["within_top1"].value >= found["top1"].value
    assert len(right(out, found["within_top1"])) == 40


def test_command_survives_a_shell():
    """A name with a space is one word."""
    cell = Cell("my nets/a-{seed}", "folder/my pictures", "knn", seed=3)

    words = shlex.split(cell.command)

    assert words[2:5] == ["my nets/a-3", "--data", "folder/my pictures"]


def test_seed_stands_for_a_run(known, tmp_path):
    """{seed} in a model's name is a run of that seed, and the command measures it alone."""
    for seed in (0, 1):
        network(tmp_path / f"net-{seed}", seed)
    wanted = cells([f"{tmp_path}/net-{{seed}}"], ["made"], ["prototype"], [0, 1])

    found = dict(run(wanted, tmp_path / "out.jsonl"))

    names = [results["top1"].model for results in found.values()]
    assert names == [f"{tmp_path}/net-0", f"{tmp_path}/net-1"]
    assert "net-1 --data made --protocol prototype --seeds 1" in found[wanted[1]]["top1"].command


def test_one_bad_cell_does_not_stop_the_others(known, tmp_path):
    """Its error comes back in its place."""
    net = network(tmp_path / "net")
    wanted = [Cell(model, "made", "prototype") for model in ("no_such_net", net)]

    bad, good = (results for _, results in run(wanted, tmp_path / "out.jsonl"))

    assert isinstance(bad, LookupError)
    assert good["top1"].value > 0.4


def test_processes_answer_for_every_cell(tmp_path):
    """Each with its own error here: the folders are empty."""
    wanted = []
    for name in "abc":
        (tmp_path / name).mkdir()
        wanted.append(Cell(str(tmp_path / name), "fmnist", "probe"))

    found = dict(run(wanted, tmp_path / "out.jsonl", jobs=2))

    assert set(found) == set(wanted)
    for cell, error in found.items():
        assert f"{cell.model} holds no config.json" in str(error)


def test_launcher_without_submitit_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ImportError, match=r"vcr_zoo\[slurm\]"):
        list(run([Cell("net", "made", "probe")], tmp_path / "out.jsonl", launcher="slurm"))


def test_launcher_submits_one_task_for_each_cell(tmp_path, monkeypatch):
    """In one batch, as an array; a stand-in of submitit runs the tasks when asked."""
    submitted = []

    class Executor:
        def __init__(self, folder, cluster):
            submitted.append((folder.name, cluster))

        def update_parameters(self, **parameters):
            submitted.append(parameters["slurm_array_parallelism"])

        def batch(self):
            return torch.no_grad()

        def submit(self, function, *args):
            submitted.append(args[0].model)
            return types.SimpleNamespace(result=lambda: function(*args))

    monkeypatch.setitem(sys.modules, "submitit", types.SimpleNamespace(AutoExecutor=Executor))
    wanted = [Cell("no_net_a", "fmnist", "probe"), Cell("no_net_b", "fmnist", "probe")]

    found = list(run(wanted, tmp_path / "out.jsonl", launcher="slurm", jobs=7))

    assert submitted == [("out.jobs", "slurm"), 7, "no_net_a", "no_net_b"]
    assert [type(error) for _, error in found] == [LookupError, LookupError]

    def fail():
        raise RuntimeError("the node went down")

    Executor.submit = lambda self, function, cell, *rest: types.SimpleNamespace(
        result=fail if cell is wanted[0] else lambda: function(cell, *rest)
    )
    (_, first), (_, second) = run(wanted, tmp_path / "out.jsonl", launcher="slurm")
    assert "the node went down; its log is in" in str(first) and "no_net_b" in str(second)

    def refuse(folder, cluster):
        raise OSError("no sbatch")

    monkeypatch.setitem(sys.modules, "submitit", types.SimpleNamespace(AutoExecutor=refuse))
    with pytest.raises(RuntimeError, match=r"submitted to 'slurm': no sbatch.*--jobs"):
        list(run(wanted, tmp_path / "out.jsonl", launcher="slurm"))


def test_groups_of_the_test_pictures_are_kept_beside_the_answers(known, tmp_path):
    """So that intervals can resample groups whole."""
    cell, out = Cell(network(tmp_path / "net"), "made", "prototype"), tmp_path / "out.jsonl"

    found = measure(cell, out)

    names = torch.as_tensor(pictures("test").groups.astype(int))
    numbers = matrix.groups_of(out, found["top1"]).long()
    assert len(numbers) == len(right(out, found["top1"])) and numbers.unique().tolist() == [0, 1, 2]
    assert ((numbers[:, None] == numbers) == (names[:, None] == names)).all()


@pytest.mark.parametrize(
    "protocol, function", [("probe", choose), ("knn", knn_votes), ("fewshot", fewshot_right)]
)
def test_settings_that_are_written_down_are_those_used(protocol, function):
    """The defaults of the functions, which the matrix does not change."""
    defaults = {n: p.default for n, p in inspect.signature(function).parameters.items()}

    settings = matrix.SETTINGS[protocol]
    written = {name: value for name, value in settings.items() if name not in ("C", "ridge")}
    assert written == {name: defaults[name] for name in written}
    for name, values in (("C", STRENGTHS), ("ridge", RIDGES)):
        said = f"{len(values)} values, {min(values):g} to {max(values):g}"
        assert settings.get(name, said).replace("1e5", "100000").replace("1e-6", "1e-06") == said


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(protocols=["prob"]), "Closest: probe"),
        (dict(data=["fmnst"]), "Closest: fmnist"),
        (dict(level="middling"), "no label level 'middling'"),
        (dict(level="coarse", protocols=["coarse-to-fine"]), "leave out --level coarse"),
        (dict(models=["resnet18", "test_resnet.base_fmnist5"]), "test_resnet.base_fmnist4"),
        (dict(models=["runs/net-{seed}"], seeds=[3]), "no file is called 'runs/net-3'"),
        (
            dict(data=["digits8"], protocols=["coarse-to-fine"]),
            "digits8 has no label level 'coarse'",
        ),
    ],
)
def test_mistakes_are_answered_before_anything_runs(change, message):
    good = dict(models=["resnet18"], data=["fmnist"], protocols=["probe"], seeds=[0])
    assert len(cells(**good)) == 1
    with pytest.raises((LookupError, ValueError), match=message):
        cells(**{**good, **change})


def test_what_is_named_twice_is_measured_once():
    """Else two processes would write the same cell."""
    twice = cells(["resnet18"] * 2, ["fmnist", "mnist", "fmnist"], ["knn"] * 2, [0, 1, 0])

    assert len(twice) == len(set(twice)) == 4


PARENT = """
import os, time
from vcr_zoo.transfer.matrix import workers
if __name__ == "__main__":
    with workers(1, 1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 600).result()
"""


@pytest.mark.skipif(not Path("/proc").exists(), reason="asks /proc which processes there are")
def test_workers_end_with_their_parent(tmp_path):
    """Else what was killed would go on computing, unseen."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    worker = int(parent.stdout.readline())
    assert alive(worker)
    parent.kill()
    parent.communicate()

    deadline = time.monotonic() + 60
    while alive(worker) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(worker)


def alive(pid):
    """Whether there is such a process that is not merely waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
