"""Cards say what was measured, completely, and what is committed is what is generated."""

import re
import shutil
from dataclasses import replace
from statistics import fmean

import huggingface_hub
import pytest
import timm
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from vcr_zoo import card, zoo
from vcr_zoo.card.evidence import CARDS, DEPTHS, REPRODUCE, lacking
from vcr_zoo.card.files import BEGIN, END, with_tables
from vcr_zoo.card.finetuned import finetuned_table
from vcr_zoo.card.gains import OTHERS, START
from vcr_zoo.card.markdown import table
from vcr_zoo.card.metadata import eval_results
from vcr_zoo.card.pictures import DRAWN, cost_numbers, overview, spread, stamp_of
from vcr_zoo.card.stats import added, stats
from vcr_zoo.card.words import code, text
from vcr_zoo.cli import main
from vcr_zoo.placement import attach
from vcr_zoo.results import Result, append, paired, read
from vcr_zoo.suite import targets

from .test_finetuned import measured

VCR, CONTROL = "test_resnet.vcr_fmnist4", "test_resnet.base_fmnist4"


@pytest.fixture(scope="module")
def found():
    """Without depths, which some tests add."""
    known = card.evidence(VCR)
    return replace(known, results=tuple(r for r in known.results if r.protocol != DEPTHS))


def head_of(made: str) -> dict:
    return yaml.safe_load(made.split("---\n")[1])


def test_what_is_committed_is_what_is_generated():
    """Nothing in model_cards or README's table is typed; `vcr-zoo card --all` writes it."""
    assert card.check() == []


def test_no_card_is_left_of_weights_that_are_gone():
    assert {p.name for p in CARDS.iterdir() if p.is_dir()} == set(zoo.manifest())


def test_a_gain_is_the_mean_difference_of_runs_with_the_same_seed(found):
    gain = next(
        g for g in found.compared.gains() if (g.protocol, g.data) == ("probe", "silhouettes")
    )
    by_seed = {name: by_seed_of(name, "silhouettes") for name in (VCR, CONTROL)}
    differences = [by_seed[VCR][seed] - by_seed[CONTROL][seed] for seed in range(5)]

    assert gain.seeds == (0, 1, 2, 3, 4)
    assert gain.difference.mean == pytest.approx(fmean(differences))
    assert gain.difference == pytest.approx(paired(differences))
    assert f"+{100 * fmean(differences):.2f} [" in card.card(found)


def by_seed_of(name: str, data: str) -> dict[int, float]:
    """Probes of a pair's runs, from the file itself."""
    rows = (r for r in read(CARDS / "results.jsonl") if r.command.startswith("vcr-zoo pair"))
    wanted = (name, "probe", data, "top1")
    return {r.seed: r.value for r in rows if (r.model, r.protocol, r.data, r.metric) == wanted}


def test_the_headline_of_other_sets_is_the_mean_of_their_means(found):
    """By hand: of every seed the mean over the four, and then the paired difference."""
    others = ("mnist", "silhouettes", "glyphs", "digits8")
    mean = {
        name: [fmean(by_seed_of(name, data)[seed] for data in others) for seed in range(5)]
        for name in (VCR, CONTROL)
    }
    gain = found.compared.headline("probe", "top1", on_source=False)

    assert gain.difference == pytest.approx(
        paired(v - c for v, c in zip(mean[VCR], mean[CONTROL], strict=True))
    )
    assert gain.vcr == pytest.approx(fmean(mean[VCR])) and gain.data == "mean of 4 other sets"


def test_a_mean_is_of_the_same_data_and_settings_on_both_sides(found):
    """As every single set is; or else a comparison of one with another would stand at the top."""
    changed = [
        replace(r, fingerprint="another") if (r.model, r.data) == (CONTROL, "glyphs") else r
        for r in found.results
    ]
    gains = replace(found, results=tuple(changed)).compared.gains()

    assert not [g for g in gains if g.data in ("glyphs", "mean of 4 other sets")]


def test_a_set_that_one_seed_lacks_makes_no_mean_of_it(found):
    """Otherwise seeds would be compared on different data. Four are no headline."""
    fewer = [r for r in found.results if not (r.seed == 2 and r.data == "glyphs")]
    pair, mean = replace(found, results=tuple(fewer)).compared, ("probe", "top1", OTHERS.format(4))
    (gain,) = (g for g in pair.gains() if (g.protocol, g.metric, g.data) == mean)

    assert gain.seeds == (0, 1, 3, 4)
    assert pair.headline("probe", "top1", on_source=False) is None


def test_runs_with_the_same_weights_count_once(found):
    """A number written down twice must not narrow the interval."""
    copied = [
        replace(r, seed=r.seed + 50)
        for r in found.compared.runs(VCR) + found.compared.runs(CONTROL)
    ]
    twice = replace(found, results=(*found.results, *copied))
    once, again = (
        {(g.protocol, g.data, g.metric): g for g in f.compared.gains()} for f in (found, twice)
    )

    assert {key: g.difference for key, g in again.items()} == {
        key: g.difference for key, g in once.items()
    }


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
    with pytest.raises(LookupError, match=r"Closest: .*test_resnet\.vcr_fmnist4\b"):
        card.evidence("test_resnet.vcr_fmnist5")
    with pytest.raises(LookupError, match="a recipe without weights"):
        card.evidence("test_resnet.vcr_simclr_fmnist", {})
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
    stated = [r for r in found.published(VCR).values() if r.metric == "top1"]
    wanted = {round(r.value, 6) for r in stated if r.protocol not in ("train", "noise")}
    assert len(wanted) > 3 and {result.metric_value for result in data.eval_results} >= wanted


def test_eval_results_are_in_the_hubs_current_format(found):
    (content,) = eval_results(found).values()
    entries = huggingface_hub._eval_results.parse_eval_result_entries(yaml.safe_load(content))

    stated = [r for r in found.published(VCR).values() if r.data == "fmnist"]
    stated = [r for r in stated if r.protocol in ("probe", "fewshot")]  # of its ten classes
    assert len(entries) == len(stated) == 3 and {e.dataset_id for e in entries} == {
        "zalando-datasets/fashion_mnist"
    }


def test_every_number_has_its_command_data_and_versions(found):
    how = card.card(found).split("## How each number was measured")[1].split("##")[0]

    shown = [*filter(found.shows, found.results)]
    assert {r.model for r in shown} == {VCR} and len(shown) > 100
    assert all(r.fingerprint[:16] in how for r in shown)
    assert f"vcr-zoo pair {VCR}" in how and f"vcr-zoo reproduce {VCR}" in how
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


def test_a_control_that_lies_elsewhere_is_linked_where_it_is(found):
    partner = replace(found.partner, hub=f"alice/{CONTROL}")
    made = card.card(replace(found, partner=partner), hub="org/" + VCR)

    assert f"[`{CONTROL}`](https://huggingface.co/alice/{CONTROL})" in made


def test_a_recipe_is_told_as_a_run_settles_it(found):
    assert found.recipe["vcr_every"] == 4
    open_rate = {"lr": None, "lr_base": 0.1, "lr_base_size": 256, "lr_base_scale": "sqrt"}
    made = card.card(replace(found, recipe={**found.recipe, **open_rate}))

    assert "learning rate 0.1 for 256 pictures, scaled (sqrt)" in made


def test_only_what_measurements_share_is_said_of_all_of_them(found):
    """Depths of one seed have a command and a rate each."""
    like = next(filter(found.shows, found.results))
    points = [
        replace(like, protocol=DEPTHS, metric="top1", data="silhouettes", seed=3, fingerprint="f3",
                settings={"depth": depth, "lr": 0.1 * depth, "size": 50},
                command=f"vcr-zoo finetune {VCR} --seeds 3 --set depth={depth}",
                versions=like.versions | {"hardware": "abacus"} if depth == 2 else like.versions)
        for depth in range(3)
    ]  # fmt: skip
    made = card.card(replace(found, results=(*found.results, *points)))
    first, alone = [line for line in made.splitlines() if line.startswith(f"- **{DEPTHS}**")]

    assert "depth=0` and 1 other commands like it; size 50; data `f3`" in first
    assert "depth=2`; depth 2; lr 0.2; size 50; data `f3`; hardware abacus" in alone


def test_fields_can_break_neither_yaml_nor_html(found):
    """Labels and settings come from data; a card is read by browsers."""
    evil = "<script>alert(1)</script>\n---\nlicense: evil\n| [x](javascript:y) `z`"
    entry = replace(found.entry, label_names=(evil, "b", "c", "d"))
    results = tuple(
        replace(r, settings=r.settings | {evil: evil}, command=f"{r.command}{evil}")
        for r in found.results
    )
    made = card.card(replace(found, entry=entry, results=results))

    assert "<script" not in made
    assert not re.search(r"(?<!\\)\]\(javascript", re.sub(r"`[^`\n]*`", "", made))
    assert made.count("\n---\n") == 1 and head_of(made)["license"] == "mit"
    lines = [line for line in made.splitlines() if line.startswith("| linear probe")]
    assert lines and all(line.count("|") in (4, 6) for line in lines)


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


@pytest.mark.parametrize("layers", ["pooled", "blocks"])
def test_flops_added_are_those_that_torch_counts(found, layers):
    """Ours is what it costs at most: half of a symmetric product is enough, or samples times
    samples where there are few."""
    recipe = {**found.recipe, "vcr_layers": layers}
    model = timm.create_model("test_resnet", num_classes=4).train()
    plain = counted(model)
    penalties = attach(model, layers, alpha=1, beta=1, input_size=(3, 32, 32))
    counts = [counted(model, penalties) for _ in range(4)]  # maps take turns over four

    share = (fmean(counts) - plain) / plain
    assert 0.4 * added(found.entry, recipe) < share < 1.1 * added(found.entry, recipe)


def counted(model, penalties=None) -> int:
    """FLOPs of a training step of 128 pictures."""
    x = torch.rand(128, 3, 32, 32)
    with FlopCounterMode(display=False) as counter:
        if penalties is None:
            model(x).sum().backward()
        else:
            with penalties.collect() as collected:
                y = model(x)
            (y.sum() + collected.total).backward()
    return counter.get_total_flops()


def test_a_picture_is_drawn_again_only_if_its_numbers_change(found, tmp_path):
    files = card.card_files(found)
    for name in ("spectrum.png", "transfer.png"):
        (tmp_path / name).write_bytes(files[name])
        assert len(stamp_of(tmp_path / name)) == 64 and DRAWN.encode() in files[name]
    (tmp_path / "spectrum.png").write_bytes(files["spectrum.png"] + b"kept")
    changed = [replace(r, value=r.value + 0.01) if is_run(r, "eval") else r for r in found.results]
    again = card.card_files(replace(found, results=tuple(changed)), folder=tmp_path)
    (tmp_path / "spectrum.png").write_bytes(files["spectrum.png"][:5000])  # writing was cut short
    mended = card.card_files(found, folder=tmp_path)

    assert mended["spectrum.png"] == files["spectrum.png"]
    assert again["spectrum.png"].endswith(b"kept")
    assert again["transfer.png"] == files["transfer.png"]  # both moved alike: same differences
    one = [replace(r, value=0.5) if is_run(r, "eval") and r.model == VCR else r for r in changed]
    moved = card.card_files(replace(found, results=tuple(one)), folder=tmp_path)
    assert moved["transfer.png"] != files["transfer.png"]


def test_the_cost_picture_shows_the_headline_and_its_interval(found):
    ((sets, name, macs, control, vcr, low, high),) = cost_numbers([found])
    gain = found.compared.headline("probe", "top1", False)

    assert (sets, name) == ("mnist, silhouettes, glyphs, digits8", VCR)
    assert macs == pytest.approx(stats(found.entry).macs / 1e6)
    assert vcr - control == pytest.approx(100 * gain.difference.mean)
    bounds = [100 * gain.difference.low, 100 * gain.difference.high]
    assert [low - control, high - control] == pytest.approx(bounds)
    partner = replace(found, entry=found.partner, partner=found.entry)
    assert cost_numbers([partner]) == []  # a control has a point, no line of its own
    assert overview([])["accuracy_vs_cost.png"][:4] == b"\x89PNG"


def test_names_in_the_cost_picture_do_not_lie_over_each_other():
    """They keep their order and, as far as there is room, their height."""
    assert spread([], 0.1) == [] and spread([0.2, 0.7], 0.1) == [0.2, 0.7]
    assert spread([0.5, 0.5, 0.9], 0.1) == pytest.approx([0.5, 0.6, 0.9])
    assert spread([0.3, 0.95, 0.96, 0.97], 0.1) == pytest.approx([0.3, 0.8, 0.9, 1.0])


def is_run(result, protocol: str) -> bool:
    return result.protocol == protocol and result.command.startswith("vcr-zoo pair")


def test_a_card_without_labels_shows_features_and_no_classifier(found):
    """As of a SimCLR pair: nothing on it speaks of classes, and what it shows runs."""
    entry = replace(found.entry, num_classes=0, label_names=(), hub=None, revision=None)
    recipe = {**found.recipe, "task": "simclr"}
    results = tuple(r for r in found.results if r.protocol != "eval")
    made = card.card(replace(found, entry=entry, recipe=recipe, results=results))

    assert head_of(made)["pipeline_tag"] == "image-feature-extraction"
    assert "without labels, by SimCLR" in made and "**Classes:**" not in made
    assert "SimCLR, two crops of" in made and "labels):" not in made
    snippet = re.search(r"```python\n(.*?)```", made, re.DOTALL)[1]
    space = {}
    exec(snippet, space)
    assert space["embedding"].shape == (1, 96) and "probabilities" not in space


def test_a_card_counts_the_network_that_its_arguments_make(found):
    """Blocks that the architecture's name does not say."""
    deeper = replace(found.entry, model_args={"layers": [2, 2, 2, 2]})
    network = timm.create_model("test_resnet", num_classes=4, layers=[2, 2, 2, 2])
    made = card.card(replace(found, entry=deeper, recipe={**found.recipe, "vcr_layers": "blocks"}))

    assert stats(deeper).parameters == sum(p.numel() for p in network.parameters())
    assert "`layer4.1`" in made and "of a map in one of 4 steps" in made


def test_a_card_says_of_which_classes_an_accuracy_is(found):
    """Four super-classes are easier than ten classes."""
    made = card.card(found)

    assert "accuracy of its own classifier, fmnist (4 classes)" in made
    assert "linear probe, fmnist (10 classes)" in made
    assert "98.88" not in "".join(eval_results(found).values())


def test_a_card_needs_the_published_controls_numbers(found):
    """The column beside its own is of the weights that are published."""
    theirs = [r for r in found.results if r.model == CONTROL and r.command.startswith(REPRODUCE)]
    without = tuple(r for r in found.results if r not in theirs)
    assert f"no results of those of {CONTROL}" in " ".join(lacking(replace(found, results=without)))
    other = tuple(replace(r, weights="0" * 64) if r in theirs else r for r in found.results)
    assert f"other weights than those of {CONTROL}" in " ".join(
        lacking(replace(found, results=other))
    )


def test_a_card_on_the_hub_links_to_its_control_and_needs_timm_alone(found):
    made = card.card(found, hub="org/" + VCR)

    assert f"[`{CONTROL}`](https://huggingface.co/org/{CONTROL})" in made
    assert "`pip install timm`" in made and "import timm, vcr_zoo" not in made
    assert "`pip install -e .` in a checkout" in card.card(
        replace(found, entry=replace(found.entry, hub=None))
    )


@pytest.mark.parametrize(
    "change, words",
    [
        ({}, "trained from scratch"),
        ({"pretrained": True}, "continued from timm's weights"),
        ({"pretrained": True, "pretrained_path": "a.pth"}, "continued from other weights"),
        ({"initial_checkpoint": "a.pth"}, "continued from other weights"),
        ({"kd_model_name": "resnet50"}, "taught by `resnet50`"),
    ],
)
def test_a_card_says_what_training_began_from(found, change, words):
    made = card.card(replace(found, recipe={**found.recipe, **change}))

    assert words in made
    timms = words == "continued from timm's weights"
    assert ("base_model" in head_of(made)) == timms


def test_a_depth_curve_is_drawn_where_depths_were_measured(found):
    assert "depth.png" not in card.card_files(found)
    like = next(r for r in found.results if r.model == VCR)
    swept = [
        replace(like, protocol="finetune depth", metric="top1", data="silhouettes", seed=seed,
                value=0.8 + 0.01 * t + 0.001 * seed, settings={"depth": t, "size": 200})
        for t in range(4) for seed in (0, 1)
    ]  # fmt: skip
    files = card.card_files(replace(found, results=(*found.results, *swept)))

    assert files["depth.png"].startswith(b"\x89PNG") and b"(depth.png)" in files["README.md"]
    moved = [replace(r, value=r.value + 0.1) for r in swept]
    again = card.card_files(replace(found, results=(*found.results, *moved)))
    assert again["depth.png"] != files["depth.png"]
    assert (
        found.compared.gains() == replace(found, results=(*found.results, *swept)).compared.gains()
    )


def test_depths_of_studies_with_other_settings_make_no_mean(found):
    """The curve is of the study with more seeds."""
    like = next(r for r in found.results if r.model == VCR)
    swept = [
        replace(like, protocol="finetune depth", metric="top1", data="silhouettes", seed=seed,
                value=epochs / 100, settings={"depth": 0, "size": 200, "epochs": epochs})
        for epochs, seeds in ((9, (0,)), (8, (0, 1)), (7, (0,))) for seed in seeds
    ]  # fmt: skip
    curves = replace(found, results=(*found.results, *swept)).depths(VCR)

    assert curves == {"200 pictures of silhouettes": {0: [0.08, 0.08]}}


def test_a_card_explains_only_the_numbers_that_it_shows(found):
    like = next(r for r in found.results if r.model == VCR)
    study = replace(like, protocol="finetune full", command=f"vcr-zoo finetune {VCR}")
    more = replace(found, results=(study, *found.results))

    assert card.card(more) == card.card(replace(found, results=found.results))
    assert "finetune full" not in card.card(more)


def test_the_table_ends_with_the_mean_over_pairs(found):
    """Each counts once, however many seeds it has; below five pairs there is none, and those that
    learn without labels are another matter."""
    (alone,) = table([found]).splitlines()[2:]
    assert alone.startswith(f"| [`{VCR}`]")

    gains = []
    for i in range(5):
        moved = [
            replace(r, value=r.value + 0.01 * i) if is_run(r, "eval") and r.model == VCR else r
            for r in found.results
        ]
        gains.append(replace(found, results=tuple(moved)))
    *lines, last = table(gains).splitlines()[2:]
    first = found.compared.headline("eval", "top1", True).difference.mean
    assert len(lines) == 5 and last.startswith("| mean gain of the 5 with labels, interval")
    assert str(paired(first + 0.01 * i for i in range(5)).scaled(100)) in last
    assert last.count("[") == 4
    blind = replace(gains[4], recipe=gains[4].recipe | {"task": "simclr"})
    assert "mean gain" not in table([*gains[:4], blind])
    assert table([*gains, blind]).splitlines()[-1] == last


@pytest.mark.parametrize("name", [VCR, CONTROL])
def test_a_card_says_what_its_pair_is_worth_fine_tuned(name):
    """If that was measured, of the files or of runs; networks joined are none of its."""
    known = [r for r in read(CARDS / "results.jsonl") if not r.protocol.startswith("finetune")]
    assert "### Fine-tuned" not in card.card(card.evidence(name, results=known))

    tuned = [replace(r, command=f"vcr-zoo finetune {r.model}") for r in measured()]
    joined = [replace(r, model=f"{r.model}+{r.model}") for r in tuned]
    of_runs = [replace(r, model=f"runs/{r.model}-seed{{seed}}") for r in tuned[:-20]]
    found = card.evidence(name, results=[*known, *tuned, *of_runs, *joined])
    assert all(one in found.results for one in (*tuned, *of_runs))
    assert not any("+" in r.model for r in found.results)
    shown = card.card(found).partition("### Fine-tuned")[2].partition("\n## ")[0]
    assert finetuned_table([*known, *tuned]).splitlines()[-1] in shown
    assert all(f"- `vcr-zoo finetune {one}`" in shown for one in (VCR, CONTROL))
    assert "These files were fine-tuned" in shown


def test_a_pair_whose_recipe_is_gone_is_left_out_of_the_table_without_labels():
    pair = "vcr-zoo pair test_resnet.vcr_gone --against test_resnet.base_gone --seeds 0"
    results = [
        Result(name, "openart", "probe", "top1", 0.5, seed, command=pair)
        for name in ("test_resnet.vcr_gone", "test_resnet.base_gone")
        for seed in range(5)
    ]
    assert "gone" not in card.markdown.table_without_labels(results)


def test_a_pair_that_continues_stands_beside_what_it_began_with():
    names = (f"tf_efficientnet_lite0.{kind}_openart_ft_in1k" for kind in ("vcr", "base"))
    vcr, control = names
    line = f"vcr-zoo pair {vcr} --against {control} --seeds 0"
    accuracies = {vcr: [0.50, 0.52, 0.54, 0.56, 0.58], control: [0.5] * 5, control + START: [0.4]}
    results = [
        Result(name, data, "probe", "top1", value, seed, weights=f"{name}{seed}", command=line)
        for name, values in accuracies.items()
        for seed, value in enumerate(values)
        for data in ("openart", *targets("openart"))
    ]
    made = card.markdown.table_continued(results)
    rows = {
        cells[1].strip(): cells[2:] for cells in map(lambda row: row.split("|"), made.splitlines())
    }
    half = 2.776 * 0.0316227766 / 5**0.5 * 100  # Student's, of four degrees of freedom

    gains = {"VCR over the control": 4.0, "VCR over the start": 14.0}
    for name, gain in gains.items():
        stated = rows[f"{name} [95 %], 5 seeds"][0].strip()
        assert stated == f"+{gain:.2f} [+{gain - half:.2f}, +{gain + half:.2f}]"
    assert rows["control over the start [95 %], 5 seeds"][1].strip() == "+10.00 [+10.00, +10.00]"
    assert rows[f"`{control}{START}`"][1].strip() == "40.00 %"
    alone = [r for r in results if r.model != control + START]
    assert card.markdown.table_continued(alone) == "(None yet.)"


def test_a_document_may_have_several_tables(tmp_path):
    (path := tmp_path / "a.md").write_text(f"a\n{BEGIN}\n{END}\nb\n{BEGIN}\nold\n{END}\nc\n")

    assert with_tables(path, "one", "two").decode() == (
        f"a\n{BEGIN}\none\n{END}\nb\n{BEGIN}\ntwo\n{END}\nc\n"
    )
    for wrong in (["one"], ["one", "two", "three"]):
        with pytest.raises(ValueError, match=f"2 places for {len(wrong)} generated tables"):
            with_tables(path, *wrong)


def test_a_changed_result_makes_cards_and_readme_stale(tmp_path):
    folder, readme = tmp_path / "model_cards", tmp_path / "README.md"
    folder.mkdir()
    readme.write_text("a\n" + 3 * f"{BEGIN}\nold\n{END}\n")
    lines = (CARDS / "results.jsonl").read_text()
    (folder / "results.jsonl").write_text(lines)
    card.regenerate(folder)

    assert card.check(folder) == [] and readme.read_text().startswith("a\n")
    rows = read(folder / "results.jsonl")
    (folder / "results.jsonl").unlink()
    for r in rows:
        one = replace(r, value=0.5) if is_run(r, "eval") and r.model == VCR else r
        append(folder / "results.jsonl", one)
    stale = {path.relative_to(tmp_path).parts[-2:] for path in card.check(folder)}
    assert {("README.md",), (VCR, "README.md"), (CONTROL, "README.md")} <= stale


def test_a_folder_of_weights_that_are_gone_is_told_of(tmp_path, capsys, monkeypatch):
    folder = shutil.copytree(CARDS, tmp_path / "model_cards")
    (folder / "test_resnet.gone").mkdir()
    shutil.copy(CARDS.parent / "README.md", tmp_path)

    assert card.check(folder) == [folder / "test_resnet.gone"]
    monkeypatch.setattr(card, "check", lambda: [folder / "test_resnet.gone"])
    assert main(["card", "--check"]) == 1 and "remove it" in capsys.readouterr().err


def test_a_readme_without_marks_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("no marks")
    with pytest.raises(ValueError, match=r"README\.md has 0 places for 1 generated tables"):
        with_tables(tmp_path / "README.md", "| a |")


def test_the_command_prints_a_card_and_checks_all(capsys):
    assert main(["card", VCR]) == 0
    assert capsys.readouterr().out == card.card(card.evidence(VCR))
    assert main(["card", "--check"]) == 0
    assert main(["card"]) == 2 and "--all" in capsys.readouterr().err
