"""Records survive the file, and intervals are Student's."""

import json
import math
import subprocess
import sys
from dataclasses import replace

import pytest
from scipy import stats

from vcr_zoo.results import Result, append, closest, paired, read, student_quantile

RESULT = Result(
    model="resnet18.vcr_fmnist",
    data="mnist",
    protocol="probe",
    metric="top1",
    value=0.875,
    seed=3,
    settings={"values of C": 45},
    weights="ab" * 32,
    network="ef" * 32,
    fingerprint="cd" * 32,
    versions={"torch": "2.6"},
    command="vcr-zoo transfer resnet18.vcr_fmnist --data mnist",
)


def test_a_result_comes_back_as_it_was(tmp_path):
    path = tmp_path / "deep" / "results.jsonl"
    append(path, RESULT)
    append(path, RESULT)

    assert read(path) == [RESULT, RESULT]


def test_an_absent_file_holds_no_results(tmp_path):
    assert read(tmp_path / "none.jsonl") == []


def test_processes_may_append_to_one_file(tmp_path):
    """Cells of a table are measured in parallel."""
    path = tmp_path / "results.jsonl"
    code = (
        "import sys; from vcr_zoo.results import Result, append\n"
        "for s in range(200): append(sys.argv[1], Result('m' * 500, 'd', 'p', 'x', 1.0, seed=s))"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code, str(path)]) for _ in range(3)]

    assert [run.wait() for run in runs] == [0, 0, 0]
    assert sorted(r.seed for r in read(path)) == sorted([*range(200)] * 3)


@pytest.mark.parametrize("line", ['{"model": 1', '{"model": "m"}', '{"modle": "m"}', "3"])
def test_a_damaged_line_is_named(tmp_path, line):
    path = tmp_path / "results.jsonl"
    append(path, RESULT)
    path.write_text(path.read_text() + line + "\n")

    with pytest.raises(ValueError, match=r"line 2 is not a result.*remove the line"):
        read(path)


@pytest.mark.parametrize(
    "field, value",
    [
        ("settings", [1]),
        ("command", 3),
        ("value", "high"),
        ("value", float("nan")),
        ("seed", True),
        ("metric", "top1\x1b[2J"),
    ],
)
def test_what_is_no_result_is_named_with_its_line(tmp_path, field, value):
    """A file may come from a stranger's repository, and what it says goes to a terminal."""
    good = {"model": "a.b", "data": "d", "protocol": "probe", "metric": "top1", "value": 0.5}
    lines = [json.dumps(good), json.dumps({**good, field: value})]
    (tmp_path / "results.jsonl").write_text("\n".join(lines))

    with pytest.raises(ValueError, match=rf"line 2 is not a result: its {field}"):
        read(tmp_path / "results.jsonl")


def test_cells_differ_by_what_was_measured_not_by_what_came_out():
    """Finished cells are skipped by this key."""
    again = Result(**{**vars(RESULT), "value": 0.5, "versions": {}, "command": ""})

    assert again.cell() == RESULT.cell()
    others = [{"seed": 4}, {"settings": {}}]
    for change in (*others, {"weights": ""}, {"network": ""}, {"fingerprint": ""}):
        assert Result(**{**vars(RESULT), **change}).cell() != RESULT.cell()


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 30, 101])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
def test_quantiles_are_students(freedom, confidence):
    expected = stats.t.ppf((1 + confidence) / 2, freedom)

    assert student_quantile(freedom, confidence) == pytest.approx(expected, rel=1e-6)


def test_the_interval_of_paired_differences_is_that_of_the_t_test():
    differences = [0.9, 1.4, -0.7, 0.2, 2.5]
    low, high = stats.ttest_1samp(differences, 0).confidence_interval(0.95)

    assert paired(differences) == pytest.approx((0.86, low, high, 5))


def test_a_single_pair_has_no_interval():
    mean, low, high, n = paired([0.5])

    assert (mean, n) == (0.5, 1) and math.isnan(low) and math.isnan(high)


def test_no_pairs_are_refused():
    with pytest.raises(ValueError, match="at least one pair"):
        paired([])


def test_close_names_are_suggested_and_far_ones_are_not():
    assert closest("layr4", ["layer4", "layer3", "fc"]) == " Closest: layer4, layer3."
    assert closest("zzz", ["layer4"]) == ""


def test_what_read_would_refuse_is_not_written(tmp_path):
    """Or one number that is none would take all others of its file along."""
    path = tmp_path / "results.jsonl"
    with pytest.raises(ValueError, match="its value is nan"):
        append(path, RESULT, replace(RESULT, value=math.nan))
    assert not path.exists()


def test_a_full_disk_leaves_whole_lines(tmp_path):
    path = tmp_path / "results.jsonl"
    code = (
        "import resource, signal, sys; from vcr_zoo.results import Result, append\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "one = Result('m' * 500, 'd', 'p', 'x', 1.0)\n"
        "append(sys.argv[1], one)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))\n"
        "append(sys.argv[1], one, one)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True)

    assert "no space left for more results" in done.stderr
    assert len(read(path)) == 1
