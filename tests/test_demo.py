"""The demo end to end on a small Fashion-MNIST of made pictures, in its own file format."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import timm
import torch

from vcr_zoo import results
from vcr_zoo.data import DATASETS
from vcr_zoo.demo import CONTROL, ROWS, VCR, Demo, demo, measure
from vcr_zoo.features import Features
from vcr_zoo.results import Result
from vcr_zoo.training import Run, parse, train

from .data.sets import small_fmnist, write_mnist_like

ONE_LEFT = "3 of 4 networks are kept"
QUICK = ("--train-num-samples", "256", "--epochs", "1", "--batch-size", "64")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """One short demo on stand-in files: what it returned and what it told."""
    folder, told = tmp_path_factory.mktemp("demo"), []
    files = write_mnist_like(folder / "files", train=1200, test=200)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VCR_ZOO_CACHE", str(folder / "cache"))
        patch.setitem(DATASETS, "fmnist", small_fmnist(files))
        patch.setitem(DATASETS, "silhouettes", replace(DATASETS["silhouettes"], packages=()))
        found = demo(folder / "out", seeds=2, data_folder=files, options=QUICK, tell=told.append)
        yield found, told


def test_both_recipes_differ_in_the_coefficients_alone():
    """Otherwise the difference between the two networks would say nothing of VCR."""
    control, vcr = (vars(parse(["--recipe", name])) for name in (CONTROL, VCR))
    different = {key for key in vcr if vcr[key] != control[key]}

    assert {"vcr_alpha", "vcr_beta"} <= different <= {"vcr_alpha", "vcr_beta", "recipe"}
    assert control["vcr_alpha"] == control["vcr_beta"] == 0


def test_results_of_something_else_are_left_alone(tmp_path):
    """`vcr-zoo pair` calls its runs by the same names."""
    pair = Result("a.b", "d", "probe", "top1", 1.0, command="vcr-zoo pair a.b --against a.c")
    results.append(tmp_path / "results.jsonl", pair)
    with pytest.raises(FileExistsError, match="holds results of no demo: choose another --output"):
        demo(tmp_path)
    assert results.read(tmp_path / "results.jsonl") == [pair]


def test_every_metric_has_a_value_for_each_network_and_seed(done):
    found, _ = done

    assert set(found.values) <= set(ROWS)
    assert {"source", "subclasses", "fewshot", "effective_rank", "correlation"} <= set(found.values)
    assert all(len(both[name]) == 2 for both in found.values.values() for name in (CONTROL, VCR))


def test_the_table_states_means_and_paired_differences(done):
    found, _ = done
    both = found.values["effective_rank"]
    gain = results.paired(v - c for v, c in zip(both[VCR], both[CONTROL], strict=True))
    (row,) = (line for line in found.table().splitlines() if "effective rank" in line)
    cells = [cell.strip() for cell in row.split("|")[2:5]]

    assert cells == [f"{sum(both[n]) / 2:.1f}" for n in (CONTROL, VCR)] + [f"{gain:.1f}"]


def test_every_number_is_recorded_with_its_origin(done):
    found, _ = done
    records = results.read(found.folder / "results.jsonl")

    assert len(records) == sum(2 * 2 for _ in found.values)
    for record in records:
        assert record.value == found.values[record.metric][record.model][record.seed]
        assert len(record.weights) == len(record.fingerprint) == 64 and record.versions["timm"]
        assert record.command.startswith("vcr-zoo demo")


def test_spectra_are_drawn(done):
    found, _ = done
    header = (found.folder / "spectra.png").read_bytes()[:8]

    assert header == b"\x89PNG\r\n\x1a\n"


def test_the_run_folder_loads_with_timm_alone(done):
    """As the demo's last line says, in a process that never imports vcr_zoo."""
    found, _ = done
    code = (
        "import sys, timm, torch\n"
        f"m = timm.create_model('local-dir:{found.folder / (VCR + '-seed1')}', pretrained=True)\n"
        "assert not [name for name in sys.modules if name.startswith('vcr_zoo')]\n"
        "torch.manual_seed(0)\n"
        "print(m.eval()(torch.rand(1, 3, 32, 32)).double().sum().item())"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert output.returncode == 0, output.stderr

    model = timm.create_model(f"local-dir:{found.folder / (VCR + '-seed1')}", pretrained=True)
    torch.manual_seed(0)
    expected = model.eval()(torch.rand(1, 3, 32, 32)).double().sum().item()
    assert json.loads(output.stdout) == pytest.approx(expected, rel=1e-6)


def test_a_set_without_a_route_is_left_out_with_a_line(done):
    """pip may have no route; the rest of the demo does not depend on it."""
    found, told = done

    assert "silhouettes" not in found.values
    assert any("silhouettes are left out" in line for line in told)


def test_only_what_is_needed_is_kept_of_a_run(done):
    """Checkpoints of short runs that will not be resumed took a hundred megabytes."""
    found, _ = done
    kept = {path.name for path in (found.folder / f"{VCR}-seed0").iterdir()}

    assert kept == {"args.yaml", "config.json", "measured.safetensors", "model.safetensors"} | {
        "summary.csv"
    }


def test_a_demo_begun_again_trains_only_what_is_not_finished(done, monkeypatch):
    """A demo that was stopped goes on; one that was finished says the same at once."""
    found, _ = done
    (found.folder / f"{VCR}-seed1" / "measured.safetensors").write_bytes(b"cut off")
    trained, told = [], []

    def counted(args, progress):
        trained.append(args.experiment)
        return train(args, progress)

    monkeypatch.setattr("vcr_zoo.demo.train", counted)
    files = found.folder.parent / "files"
    settings = {"data_folder": files, "options": QUICK, "tell": told.append}
    again = demo(found.folder, seeds=2, **settings)

    assert trained == [f"{VCR}-seed1"] and any(ONE_LEFT in line for line in told)
    assert again.values == found.values and again.table() == found.table()
    records = results.read(found.folder / "results.jsonl")
    assert len(records) == sum(2 * 2 for _ in found.values)

    demo(found.folder, seeds=1, data_folder=files, options=(*QUICK, "--lr", "0.01"))
    assert len(trained) == 3  # other training: both networks of the pair


def test_the_bar_moves_while_networks_are_trained_and_measured():
    """Measuring is a good part of the time; a bar that stands still looks like a hang."""
    given = Features(torch.randn(30, 4), torch.arange(30) % 3, ("a", "b", "c"))
    told = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vcr_zoo.demo.features", lambda model, part: given)
        patch.setattr("vcr_zoo.demo.source_accuracy", lambda run, test: 1.0)
        run = Run(None, None, {})
        measure(run, {"source": (1,), "subclasses": (1, 2, 3)}, lambda *at: told.append(at))

    assert told == [(done, 6) for done in range(7)]


def test_one_pair_has_no_interval_in_its_table():
    values = {"source": {CONTROL: [0.9], VCR: [0.95]}}
    one = Demo(None, values, {VCR: [torch.ones(3)]})

    assert "95" not in one.table().splitlines()[0]
    assert "| +5.00 |" in one.table()


def test_no_pairs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="seeds=0"):
        demo(tmp_path, seeds=0)


def test_a_folder_without_the_data_is_refused(tmp_path):
    """Told before anything is trained, with what was looked for."""
    with pytest.raises(OSError, match=re.escape(str(tmp_path))):
        demo(tmp_path / "out", data_folder=tmp_path)
    assert not list((tmp_path / "out").iterdir())


def test_an_output_that_cannot_be_written_is_refused_first(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="choose another --output"):
        demo(tmp_path / "file")
