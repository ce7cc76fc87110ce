"""Cards say what was measured, completely, and what is committed is what is generated."""

import re
from dataclasses import replace
from statistics import fmean

import huggingface_hub
import pytest
import timm
import yaml

from vcr_zoo import card, zoo
from vcr_zoo.card.evidence import CARDS, lacking
from vcr_zoo.card.files import BEGIN, END, with_table
from vcr_zoo.card.metadata import eval_results
from vcr_zoo.card.pictures import DRAWN, stamp_of
from vcr_zoo.card.stats import stats
from vcr_zoo.card.words import code, text
from vcr_zoo.cli import main
from vcr_zoo.results import paired, read

VCR, CONTROL = "test_resnet.vcr_fmnist4", "test_resnet.base_fmnist4"


@pytest.fixture(scope="module")
def found():
    return card.evidence(VCR)


def head_of(made: str) -> dict:
    return yaml.safe_load(made.split("---\n")[1])


def test_what_is_committed_is_what_is_generated():
    """Nothing in model_cards or README's table is typed; `vcr-zoo card --all` writes it."""
    assert card.check() == []


def test_no_card_is_left_of_weights_that_are_gone():
    assert {p.name for p in CARDS.iterdir() if p.is_dir()} == set(zoo.manifest())


def test_a_gain_is_the_mean_difference_of_runs_with_the_same_seed(found):
    gain = next(g for g in found.gains() if g.metric == "silhouettes")
    rows = read(CARDS / "results.jsonl")
    by_seed = {
        name: {r.seed: r.value for r in rows if (r.model, r.metric) == (name, "silhouettes")}
        for name in (VCR, CONTROL)
    }
    differences = [by_seed[VCR][seed] - by_seed[CONTROL][seed] for seed in range(5)]

    assert gain.seeds == (0, 1, 2, 3, 4)
    assert gain.difference.mean == pytest.approx(fmean(differences))
    assert gain.difference == pytest.approx(paired(differences))
    assert f"+{100 * fmean(differences):.2f} [" in card.card(found)


def test_runs_with_the_same_weights_count_once(found):
    """A number written down twice must not narrow the interval."""
    copied = [replace(r, seed=r.seed + 50) for r in found.runs(VCR) + found.runs(CONTROL)]
    twice = replace(found, results=(*found.results, *copied))

    assert [g.difference for g in twice.gains()] == [g.difference for g in found.gains()]


@pytest.mark.parametrize(
    "change, words",
    [
        ({"license": ""}, "license"),
        ({"license": "mit\nevil: yes"}, "license"),
        ({"sha256": "123"}, "sha256"),
        ({"sha256": "0" * 64}, "results of other weights"),
        ({"control": None}, "no control"),
    ],
)
def test_weights_that_lack_something_have_no_card(change, words):
    entries = zoo.manifest()
    entries[VCR] = replace(entries[VCR], **change)

    with pytest.raises(ValueError, match=words):
        card.evidence(VCR, entries)


def test_weights_without_results_recipe_or_entry_have_no_card(found):
    with pytest.raises(
        ValueError, match=r"no results of it and its control.*no results of its own"
    ):
        card.evidence(VCR, results=[])
    with pytest.raises(LookupError, match=r"Closest: test_resnet\.vcr_fmnist4"):
        card.evidence("test_resnet.vcr_fmnist5")
    entries = zoo.manifest()
    entries["test_resnet.vcr_new"] = replace(entries[VCR], name="test_resnet.vcr_new")
    with pytest.raises(LookupError, match=r"no recipe 'test_resnet\.vcr_new'"):
        card.evidence("test_resnet.vcr_new", entries)
    taught = {**found.recipe, "dataset": "silhouettes"}
    assert "must not be published" in " ".join(lacking(replace(found, recipe=taught)))
    taught = {**found.recipe, "epochs": 40}
    assert "recipe and test_resnet.base_fmnist4's differ in epochs" in " ".join(
        lacking(replace(found, recipe=taught))
    )


def test_the_hub_reads_the_metadata(found):
    """The real client's own parser takes the head and gives every accuracy back."""
    data = huggingface_hub.ModelCard(card.card(found)).data

    assert (data.license, data.library_name) == ("mit", "timm")
    assert data.model_name == VCR
    stated = {r.value for r in found.published(VCR).values() if r.metric == "top1"}
    values = {result.metric_value for result in data.eval_results}
    assert values >= {
        round(v, 6) for v in stated - {found.published(VCR)["train", "fmnist", "top1"].value}
    }


def test_eval_results_are_in_the_hubs_current_format(found):
    (content,) = eval_results(found).values()
    entries = huggingface_hub._eval_results.parse_eval_result_entries(yaml.safe_load(content))

    assert len(entries) == 4 and {e.dataset_id for e in entries} == {
        "zalando-datasets/fashion_mnist"
    }


def test_every_number_has_its_command_data_and_versions(found):
    how = card.card(found).split("## How each number was measured")[1].split("##")[0]

    for result in found.results:
        if result.model == VCR:
            assert result.fingerprint[:16] in how
    assert "vcr-zoo demo --seeds 5" in how and f"vcr-zoo reproduce {VCR}" in how
    assert f"torch {found.results[0].versions['torch']}" in how and "hardware" in how


@pytest.mark.parametrize("name", [VCR, CONTROL])
def test_the_usage_that_a_card_shows_runs(name):
    found = card.evidence(name)
    found = replace(found, entry=replace(found.entry, hub=None, revision=None))  # without network
    snippet = re.search(r"```python\n(.*?)```", card.card(found), re.DOTALL)[1]
    space = {}
    exec(snippet, space)

    assert space["probabilities"].shape == (1, 4)
    assert space["embedding"].shape == (1, 96) and len(space["maps"]) == 5


def test_fields_can_break_neither_yaml_nor_html(found):
    """Labels and settings come from data; a card is read by browsers."""
    evil = "<script>alert(1)</script>\n---\nlicense: evil\n| [x](javascript:y) `z`"
    entry = replace(found.entry, label_names=(evil, "b", "c", "d"))
    results = tuple(
        replace(r, settings={evil: evil}, command=f"{r.command}{evil}") for r in found.results
    )
    made = card.card(replace(found, entry=entry, results=results))

    assert "<script" not in made
    assert not re.search(r"(?<!\\)\]\(javascript", re.sub(r"`[^`\n]*`", "", made))
    assert made.count("\n---\n") == 1 and head_of(made)["license"] == "mit"
    assert all(line.count("|") == 6 for line in made.splitlines() if line.startswith("| source"))


def test_text_and_code_are_one_line_and_shown_letter_by_letter():
    assert text("a\nb <i> *c* [d](e)") == "a b &lt;i&gt; \\*c\\* \\[d\\](e)"
    assert code("a`b|c\n<d>") == "`abc d`"


def test_counts_are_those_that_are_known_of_resnet18():
    """timm publishes 11.7 M parameters, 1.8 GMACs and 2.5 M activations for it."""
    entry = replace(
        zoo.manifest()[VCR], name="resnet18.x", num_classes=1000, input_size=(3, 224, 224)
    )
    found = stats(entry)

    assert found.parameters == sum(p.numel() for p in timm.create_model("resnet18").parameters())
    assert (round(found.macs / 1e9, 1), round(found.activations / 1e6, 1)) == (1.8, 2.5)


def test_a_picture_is_drawn_again_only_if_its_numbers_change(found, tmp_path):
    files = card.card_files(found)
    for name in ("spectrum.png", "transfer.png"):
        (tmp_path / name).write_bytes(files[name])
        assert len(stamp_of(tmp_path / name)) == 64 and DRAWN.encode() in files[name]
    (tmp_path / "spectrum.png").write_bytes(files["spectrum.png"] + b"kept")
    changed = [
        replace(r, value=r.value + 0.01) if r.metric == "source" else r for r in found.results
    ]
    again = card.card_files(replace(found, results=tuple(changed)), folder=tmp_path)

    assert again["spectrum.png"].endswith(b"kept")
    assert again["transfer.png"] == files["transfer.png"]  # both moved alike: same differences
    one = [replace(r, value=0.5) if r.metric == "source" and r.model == VCR else r for r in changed]
    moved = card.card_files(replace(found, results=tuple(one)), folder=tmp_path)
    assert moved["transfer.png"] != files["transfer.png"]


def test_a_changed_result_makes_cards_and_readme_stale(tmp_path):
    folder, readme = tmp_path / "model_cards", tmp_path / "README.md"
    folder.mkdir()
    readme.write_text(f"a\n{BEGIN}\nold\n{END}\nb\n")
    lines = (CARDS / "results.jsonl").read_text()
    (folder / "results.jsonl").write_text(lines)
    card.regenerate(folder)

    assert card.check(folder) == [] and readme.read_text().startswith("a\n")
    source = '"metric": "source", "model": "test_resnet.vcr_fmnist4"'
    changed = re.sub(rf"({source}.*?\"value\": )[0-9.]+", r"\g<1>0.5", lines)
    (folder / "results.jsonl").write_text(changed)
    stale = {path.relative_to(tmp_path).parts[-2:] for path in card.check(folder)}
    assert {("README.md",), (VCR, "README.md"), (CONTROL, "README.md")} <= stale


def test_a_readme_without_marks_is_refused():
    with pytest.raises(ValueError, match="no place for the table"):
        with_table("no marks", "| a |")


def test_the_command_prints_a_card_and_checks_all(capsys):
    assert main(["card", VCR]) == 0
    assert capsys.readouterr().out == card.card(card.evidence(VCR))
    assert main(["card", "--check"]) == 0
    assert main(["card"]) == 2 and "--all" in capsys.readouterr().err
