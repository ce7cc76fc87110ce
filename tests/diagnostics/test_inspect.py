"""The whole inspection, its report and its command, on made pictures."""

import json
import re
from html.parser import HTMLParser

import pytest
import torch

from vcr_zoo.cli import main
from vcr_zoo.diagnostics import command
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


def test_a_report_of_few_pictures_says_what_its_intervals_do_not_hold(written):
    """60 pictures of 256 features."""
    text = (written / "report.md").read_text()

    assert "at equal numbers of pictures only" in text
    assert "With 60 pictures of" in text


def test_every_label_of_a_measure_is_explained():
    assert all(label and meaning for label, meaning in OTHERS.values())
    assert all(row.label and row.meaning for row in MEASURES.values())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", ["one class", "a zero network", "three pictures", "two pictures"])
def test_degenerate_networks_are_reported_too(case, tmp_path):
    """Reasons in the table, pictures that say so, no warning and no NaN."""
    model = network()
    n = {"three pictures": 3, "two pictures": 2}.get(case, 24)
    images = pictures(n, classes=1 if case == "one class" else 3)
    if case == "a zero network":
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
    found = inspect(model, images, corrupted=4, levels=(5,), sample=20)
    write(tmp_path, [found], compare(found, found), ABOUT)

    if case == "three pictures":
        assert "every class has one picture" in (tmp_path / "report.md").read_text()
    assert "undefined because" in (tmp_path / "report.md").read_text()
    assert "NaN" not in (tmp_path / "inspection.json").read_text()


def test_vcr_and_control_keep_their_styles():
    """Whichever is named first."""
    assert roles(["a.vcr_x", "a.base_x"]) == ["vcr", "control"]
    assert roles(["a.base_x", "a.vcr_x"]) == ["control", "vcr"]
    assert roles(["a.base_x"]) == ["control"]
    assert roles(["a", "b"]) == ["vcr", "control"]
    assert roles(["a.vcr_x", "b.vcr_x"]) == ["vcr", "other"]


@pytest.mark.parametrize(
    "names, expected",
    [
        (["resnet18.a1_in1k", "test_resnet.vcr_fmnist4"], ["control", "vcr"]),
        (["resnet18.a1_in1k", "test_resnet.base_fmnist4"], ["other", "control"]),
        (["runs/control", "runs/vcr"], ["control", "vcr"]),
        (["vcr_zoo/runs/vcr-seed3/last.pth.tar", "a"], ["vcr", "control"]),
        (["hf-hub:vcr-zoo/resnet50.base_in1k", "runs/mine"], ["control", "other"]),
        (["random:vit"], ["control"]),
        (["vit_base_patch16_224.augreg_in1k"], ["other"]),
    ],
)
def test_what_a_name_says_counts_more_than_its_place(names, expected):
    """Blue is VCR: a network that is not is never drawn so."""
    assert roles(names) == expected


def test_alike_features_are_put_side_by_side():
    """Three groups, shuffled: in the order found, each is in one piece."""
    group = torch.arange(30)[torch.randperm(30, generator=torch.Generator().manual_seed(0))] % 3
    likeness = torch.where(group[:, None] == group, 0.9, 0.1).fill_diagonal_(1)
    order = ordered(likeness)

    assert sorted(order.tolist()) == list(range(30))
    assert (group[order].diff() != 0).sum() == 2


@pytest.fixture
def known(monkeypatch):
    """`made` is a data set; all other names are as they are."""
    monkeypatch.setitem(module.DATASETS, "made", module.DATASETS["mnist"])
    real = module.load

    def load(name: str, *where: str):
        return pictures(40, classes=3) if name == "made" else real(name, *where)

    monkeypatch.setattr(module, "load", load)


def test_the_command_leaves_a_report(known, tmp_path, capsys):
    """And the report holds a command that gives it again."""
    words = ["inspect", "random:test_resnet", "--against", "random:test_vit", "--data", "made"]
    words += ["--out", str(tmp_path), "--pictures", "12", "--corrupted", "0", "--sample", "10"]

    assert main([*words, "--layers", "stages,pooled"]) == 0

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
        (["random:test_resnet", "--data", "made", "--pictures", "1"], "two or more"),
        (["random:test_resnet", "--data", "made", "--sample", "0"], "sample=0"),
        (["random:test_resnet", "--data", "made", "--corrupted", "-3"], "corrupted=-3"),
        (["random:test_resnet", "--data", "made", "--layers", "layr1"], "no layer 'layr1'"),
        (["random:test_resnet", "--data", ".", "--level", "coarse"], "no effect on .: leave it"),
    ],
)
def test_a_wrong_request_is_answered_in_a_line(known, tmp_path, capsys, words, said):
    assert main(["inspect", *words, "--out", str(tmp_path / "out")]) == 2

    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("vcr-zoo inspect: ") and said in error
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_to_is_said_before_anything_is_measured(
    known, tmp_path, capsys, monkeypatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(command, "inspect", None)  # is not reached
    words = ["inspect", "random:test_resnet", "--data", "made", "--out"]

    for out in ("file", "file/below"):
        assert main([*words, str(tmp_path / out)]) == 2
        assert f"{tmp_path / out} cannot be written to" in capsys.readouterr().err


def test_parts_of_a_folder_are_not_taken_for_classes(tmp_path):
    for part in ("train", "val"):
        (tmp_path / part / "a").mkdir(parents=True)

    with pytest.raises(LookupError, match="no validation, but train, val: give --split val"):
        module.pictures(str(tmp_path), "validation", "fine", network(), None)


def test_without_pooled_features_the_classifier_is_not_asked():
    """A stage may be as wide as the classifier and still be something else."""
    found = inspect(network(), pictures(20), layers="stages", corrupted=0)
    numbers = found.numbers[found.last]

    for name in ("self_duality", "disagreement"):
        assert "not what the classifier sees" in numbers[name].because


def test_a_folder_with_a_broken_picture_is_named(tmp_path, capsys):
    (tmp_path / "in" / "a").mkdir(parents=True)
    for name in ("broken.png", "other.png"):
        (tmp_path / "in" / "a" / name).write_bytes(b"no picture")
    words = ["inspect", "random:test_resnet", "--data", str(tmp_path / "in")]

    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    assert "broken.png is not a readable picture" in capsys.readouterr().err


def test_a_folder_is_inspected_as_it_lies(tmp_path):
    """Its part where it has parts, at most so many pictures, gray ones for a gray network too."""
    images = pictures(12)
    for i in range(12):
        place = tmp_path / "validation" / images.classes[images.y[i]]
        place.mkdir(parents=True, exist_ok=True)
        images.picture(i).save(place / f"{i:02}.png")
    (tmp_path / "train" / "other").mkdir(parents=True)
    words = ["inspect", "random:test_resnet", "--data", str(tmp_path), "--pictures", "7"]
    words += ["--out", str(tmp_path / "out"), "--corrupted", "2", "--layers", "pooled"]

    assert main(words) == 0

    about = json.loads((tmp_path / "out" / "inspection.json").read_text())
    assert about["split"] == "validation" and len(about["fingerprint"]) == 64
    record = about["networks"][0]
    assert record["pictures"] == 7 and record["classes"] == list(images.classes)
    assert len(record["noise"]["JPEG"]["likeness"]) == 6
    gray = network(in_chans=1, pretrained_cfg_overlay=dict(input_size=(1, 32, 32)))
    assert len(module.pictures(str(tmp_path), "validation", "fine", gray, None)) == 12


def test_a_folder_may_be_named_as_for_fine_tuning(tmp_path, monkeypatch):
    monkeypatch.setenv("VCR_ZOO_CACHE", str(tmp_path / "cache"))
    images = pictures(40)
    for i in range(40):
        place = tmp_path / "own" / images.classes[images.y[i]]
        place.mkdir(parents=True, exist_ok=True)
        images.picture(i).save(place / f"{i:02}.png")
    found, same = (
        module.pictures(name, "train", "fine", network(), None)
        for name in (f"{tmp_path}/own@32", f"folder/{tmp_path}/own@32")
    )
    assert found.fingerprint == same.fingerprint and 0 < len(found) < 40
