"""The whole inspection, its report and its command, on made pictures."""

import json
import re
from html.parser import HTMLParser

import pytest
import torch

from vcr_zoo.cli import main
from vcr_zoo.diagnostics import inspect as module
from vcr_zoo.diagnostics.inspect import compare, inspect, passes
from vcr_zoo.diagnostics.measures import MEASURES
from vcr_zoo.diagnostics.pictures import ordered
from vcr_zoo.diagnostics.report import OTHERS, write
from vcr_zoo.diagnostics.style import roles

from .made import network, pictures

SMALL = dict(sample=30, corrupted=8, levels=(1, 5))
ABOUT = {"data": "made", "split": "train", "command": "vcr-zoo inspect a & b"}


@pytest.fixture(scope="module")
def pair():
    images = pictures(60)
    return [
        inspect(network(seed=seed), images, name=name, **SMALL)
        for seed, name in enumerate(("test_resnet.vcr_made", "test_resnet.base_made"))
    ]


@pytest.fixture(scope="module")
def written(pair, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write(folder, pair, compare(*pair), ABOUT)
    return folder


def test_every_measure_is_there_at_every_placement(pair):
    for found in pair:
        assert list(found.numbers)[-1] == "pooled" and len(found.numbers) == 5
        for numbers in found.numbers.values():
            assert {*MEASURES, "nearest_class", "information"} <= set(numbers)
        assert {"self_duality", "disagreement"} <= set(found.numbers["pooled"])


def test_a_classifier_of_these_classes_has_nc3_and_nc4(pair):
    numbers = pair[0].numbers["pooled"]

    assert 0 < numbers["self_duality"].value <= 2
    assert 0 <= numbers["disagreement"].value <= 1


def test_a_classifier_of_other_classes_has_none():
    model = network(num_classes=7)
    numbers = inspect(model, pictures(20), sample=10, corrupted=0).numbers["pooled"]

    assert "tells 7 classes apart, not 3" in numbers["self_duality"].because
    assert (
        inspect(network(num_classes=0), pictures(20), corrupted=0)
        .numbers["pooled"]["disagreement"]
        .because.endswith("no linear classifier of these features")
    )


def test_progress_is_told_of_every_picture_that_is_shown():
    """What the bar counts is what the bar was promised."""
    told = []
    options = dict(sample=20, corrupted=6)
    inspect(network(), pictures(30), watch=told.append, **options)

    assert sum(told) == passes(30, **options) == 30 + 6 * 36


def test_a_network_is_equal_to_itself_in_another_basis(pair):
    """The diagonal of its own map is 1, and the table is symmetric."""
    table = compare(pair[0], pair[0]).cka

    for p in table:
        assert table[p][p].value == pytest.approx(1)
        for q in table:
            assert table[p][q].value == pytest.approx(table[q][p].value)


def test_networks_on_other_pictures_are_not_compared(pair):
    other = inspect(network(), pictures(40), sample=30, corrupted=0)
    with pytest.raises(ValueError, match="same pictures"):
        compare(pair[0], other)


def test_the_report_is_complete(written):
    names = {path.name for path in written.iterdir()}
    pictures = set(re.findall(r"\((\w+\.png)\)", (written / "report.md").read_text()))

    assert {"report.md", "report.html", "inspection.json"} <= names
    assert pictures == {name for name in names if name.endswith(".png")}
    assert {"spectra.png", "depth.png", "correlation.png", "cka.png", "noise.png"} <= pictures


def test_json_is_strict_and_says_everything(written, pair):
    """No NaN, which most readers refuse; the numbers are those that were measured."""

    def refuse(constant):
        raise AssertionError(constant)

    record = json.loads((written / "inspection.json").read_text(), parse_constant=refuse)
    rank = record["networks"][1]["placements"]["layer3.0"]["measures"]["effective_rank"]

    assert rank["value"] == pair[1].numbers["layer3.0"]["effective_rank"].value
    assert {"command", "versions", "cka", "compared"} <= set(record)
    assert record["networks"][0]["weights"] != record["networks"][1]["weights"]


def test_the_page_is_whole_and_needs_nothing_else(written):
    """Every tag closed, every picture inside, nothing fetched, what is quoted escaped."""
    page = (written / "report.html").read_text()

    class Reader(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open, self.links, self.images = [], [], []

        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "img"):
                self.open.append(tag)
            attrs = dict(attrs)
            self.links += [attrs[key] for key in ("href", "src") if key in attrs]
            self.images += [attrs] if tag == "img" else []

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert all(link.startswith("data:image/png;base64,") for link in reader.links)
    assert len(reader.images) == len(list(written.glob("*.png")))
    assert all(image["alt"] for image in reader.images)
    assert "vcr-zoo inspect a &amp; b" in page and "http" not in page


def test_every_label_of_a_measure_is_explained():
    assert all(label and meaning for label, meaning in OTHERS.values())
    assert all(row.label and row.meaning for row in MEASURES.values())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", ["one class", "a zero network", "three pictures"])
def test_degenerate_networks_are_reported_too(case, tmp_path):
    """Reasons in the table, pictures that say so, no warning and no NaN."""
    model = network()
    images = pictures(
        3 if case == "three pictures" else 24, classes=1 if case == "one class" else 3
    )
    if case == "a zero network":
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
    found = inspect(model, images, corrupted=4, levels=(5,), sample=20)
    write(tmp_path, [found], compare(found, found), ABOUT)

    assert "undefined because" in (tmp_path / "report.md").read_text()
    assert "NaN" not in (tmp_path / "inspection.json").read_text()


def test_vcr_and_control_keep_their_styles():
    """Whichever is named first."""
    assert roles(["a.vcr_x", "a.base_x"]) == ["vcr", "control"]
    assert roles(["a.base_x", "a.vcr_x"]) == ["control", "vcr"]
    assert roles(["a.base_x"]) == ["control"]
    assert roles(["a", "b"]) == ["vcr", "control"]
    assert roles(["a.vcr_x", "b.vcr_x"]) == ["vcr", "control"]


def test_alike_features_are_put_side_by_side():
    """Three groups, shuffled: in the order found, each is in one piece."""
    group = torch.arange(30)[torch.randperm(30, generator=torch.Generator().manual_seed(0))] % 3
    likeness = torch.where(group[:, None] == group, 0.9, 0.1).fill_diagonal_(1)
    order = ordered(likeness)

    assert sorted(order.tolist()) == list(range(30))
    assert (group[order].diff() != 0).sum() == 2


@pytest.fixture
def known(monkeypatch):
    monkeypatch.setitem(module.DATASETS, "made", None)
    monkeypatch.setattr(module, "load", lambda name, split, level: pictures(40, classes=3))


def test_the_command_leaves_a_report(known, tmp_path, capsys):
    """And the report holds a command that gives it again."""
    command = ["inspect", "random:test_resnet", "--against", "random:test_vit", "--data", "made"]
    command += ["--out", str(tmp_path), "--pictures", "12", "--corrupted", "0", "--sample", "10"]

    assert main([*command, "--layers", "stages,pooled"]) == 0

    assert str(tmp_path / "report.md") in capsys.readouterr().out
    record = json.loads((tmp_path / "inspection.json").read_text())
    assert "--against random:test_vit" in record["command"]
    assert main(record["command"].split()[1:]) == 0
    assert json.loads((tmp_path / "inspection.json").read_text()) == record


@pytest.mark.parametrize(
    "words, said",
    [
        (["no_such_net", "--data", "made"], "no_such_net"),
        (["random:resnt18", "--data", "made"], "Closest: resnet18"),
        (["random:test_resnet", "--data", "fmnst"], "Closest: fmnist"),
        (["random:test_resnet", "--data", "made", "--pictures", "0"], "one or more"),
        (["random:test_resnet", "--data", "made", "--layers", "layr1"], "no layer 'layr1'"),
    ],
)
def test_a_wrong_request_is_answered_in_a_line(known, tmp_path, capsys, words, said):
    assert main(["inspect", *words, "--out", str(tmp_path / "out")]) == 2

    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("vcr-zoo inspect: ") and said in error
    assert not (tmp_path / "out").exists()


def test_a_folder_with_a_broken_picture_is_named(tmp_path, capsys):
    (tmp_path / "in" / "a").mkdir(parents=True)
    (tmp_path / "in" / "a" / "broken.png").write_bytes(b"no picture")
    command = ["inspect", "random:test_resnet", "--data", str(tmp_path / "in")]

    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    assert "broken.png is not a readable picture" in capsys.readouterr().err


def test_a_folder_is_inspected_as_it_lies(tmp_path):
    """Its part where it has parts, at most so many pictures, gray ones for a gray network too."""
    images = pictures(12)
    for i in range(12):
        place = tmp_path / "validation" / images.classes[images.y[i]]
        place.mkdir(parents=True, exist_ok=True)
        images.picture(i).save(place / f"{i:02}.png")
    (tmp_path / "train" / "other").mkdir(parents=True)
    command = ["inspect", "random:test_resnet", "--data", str(tmp_path), "--pictures", "7"]
    command += ["--out", str(tmp_path / "out"), "--corrupted", "2", "--layers", "pooled"]

    assert main(command) == 0

    record = json.loads((tmp_path / "out" / "inspection.json").read_text())["networks"][0]
    assert record["pictures"] == 7 and record["classes"] == list(images.classes)
    assert len(record["noise"]["JPEG"]["likeness"]) == 6
    gray = network(in_chans=1, pretrained_cfg_overlay=dict(input_size=(1, 32, 32)))
    assert len(module.pictures(str(tmp_path), "validation", "fine", gray, None)) == 12
