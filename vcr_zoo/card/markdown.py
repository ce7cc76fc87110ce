"""The card itself, section by section, and README's table."""

from collections.abc import Iterable, Mapping, Sequence
from string import Template

from vcr_zoo.data.load import described
from vcr_zoo.data.weights import BASELINES
from vcr_zoo.placement import split
from vcr_zoo.results import Result
from vcr_zoo.suite import targets
from vcr_zoo.training.options import continues
from vcr_zoo.zoo import Entry

from .bearing import Known
from .evidence import Evidence
from .finetuned import starts, table_of
from .gains import SEEDS, Gain, Paired, comparison, mean_gain, means
from .metadata import metadata
from .stats import added, build, placements, stats, taken
from .words import CONTINUED, HEADLINES, PART, POINT, WITHOUT_LABELS, code, of, rows, text

Cell = tuple[str, str, str]  # protocol, data, metric
NOT_SAID = (None, False, "constant")  # values of options that change nothing
METHOD = "[variance-covariance regularization](https://arxiv.org/abs/2306.13292) (VCR)"
CITATION = """```bibtex
@article{zhu2023vcr,
  title={Variance-Covariance Regularization Improves Representation Learning},
  author={Zhu, Jiachen and Evtimova, Katrina and Chen, Yubei and Shwartz-Ziv, Ravid and
    LeCun, Yann},
  journal={arXiv preprint arXiv:2306.13292},
  year={2023}
}
@misc{rw2019timm,
  author={Ross Wightman},
  title={PyTorch Image Models},
  year={2019},
  doi={10.5281/zenodo.4414861},
  howpublished={\\url{https://github.com/huggingface/pytorch-image-models}}
}
```"""
USAGE = Template("""```python
import timm$imports
from PIL import Image

model = timm.create_model("$name", pretrained=True).eval()
prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
batch = prepare(Image.new("$mode", $size))[None]  # your picture here: Image.open("shoe.png")
$classify
# maps of features
maps = timm.create_model("$name", pretrained=True, features_only=True).eval()(batch)

# embeddings
model = timm.create_model("$name", pretrained=True, num_classes=0).eval()
embedding = model(batch)  # (1, $features)

# a start for your own classes
model = timm.create_model("$name", pretrained=True, num_classes=7)
```""")
CLASSIFY = Template("""
# image classification
probabilities = model(batch).softmax(dim=1)  # (1, $classes)
""")
LEARNED = {  # tasks without labels, as a card calls them
    "simclr": "SimCLR",
    "vicreg": "VICReg",
    "barlow": "Barlow Twins",
    "simsiam": "SimSiam",
}


def card(found: Evidence, hub: str | None = None) -> str:
    """The whole card. `hub` is the repository that it will lie in, as owner/name."""
    hub = hub or found.entry.hub
    body = [
        f"# Model card for {found.entry.name}",
        introduction(found, hub),
        details(found),
        "## Model Usage\n\n" + usage(found, hub),
        what_vcr_did(found),
        compared(found),
        published(found, hub),
        finetuned(found),
        how(found),
        training(found),
        LIMITS,
        f"## Citation\n\n{CITATION}",
    ]
    return metadata(found) + "\n" + "\n\n".join(filter(None, body)) + "\n"


def introduction(found: Evidence, hub: str | None) -> str:
    entry, recipe = found.entry, found.recipe
    architecture, row = entry.name.partition(".")[0], described(recipe["dataset"])
    what = f"A timm {code(architecture)} {started(recipe)} on {text(row.attribution)} "
    if recipe["task"] in LEARNED:
        what += f"({text(row.shows)}), without labels, by {LEARNED[recipe['task']]},"
    else:
        what += f"({text(row.shows)}, {entry.num_classes} classes)"
    other = linked(found.partner, hub)
    if entry.control:
        return f"{what} with {METHOD}. Its control, trained identically without VCR, is {other}."
    return f"{what} without {METHOD}: the control of {other}, by the same recipe."


def started(recipe: dict) -> str:
    """What training began from."""
    start = "trained from scratch"
    if recipe["pretrained"]:
        start = "continued from timm's weights"
    if recipe["initial_checkpoint"] or recipe["pretrained_path"]:
        start = "continued from other weights"
    kind, _, name = (recipe["pretrained_path"] or "").partition(":")
    if kind == "baseline":
        row = BASELINES[name]
        start = f"continued from {row.shows} ({text(row.attribution)}; {text(row.licence)})"
    if recipe["kd_model_name"]:
        start += f", taught by {code(recipe['kd_model_name'])},"
    return start


def linked(partner: Entry, hub: str | None) -> str:
    """The other of a pair, in a card of a repository as a link: to where it is, or to beside it."""
    if hub is None:
        return code(partner.name)
    where = partner.hub or f"{hub.partition('/')[0]}/{partner.name}"
    return f"[{code(partner.name)}](https://huggingface.co/{where})"


def details(found: Evidence) -> str:
    entry, counted = found.entry, stats(found.entry)
    size = " x ".join(map(str, entry.input_size[1:]))
    kind = "image classification / feature backbone" if entry.num_classes else "feature backbone"
    lines = [
        f"- **Model Type:** {kind}",
        "- **Model Stats:**",
        f"  - Params (M): {counted.parameters / 1e6:.2f}",
        f"  - GMACs: {counted.macs / 1e9:.4f}",
        f"  - Activations (M): {counted.activations / 1e6:.2f}",
        f"  - Image size: {size}, {entry.input_size[0]} channels",
        *(
            [f"- **Classes:** {', '.join(map(text, entry.label_names)) or entry.num_classes}"]
            if entry.num_classes
            else []
        ),
        "- **Paper:** Variance-Covariance Regularization Improves Representation Learning, "
        "https://arxiv.org/abs/2306.13292",
        f"- **Dataset:** {text(described(found.recipe['dataset']).attribution)}",
        f"- **License of the weights:** {text(entry.license)}",
        f"- **sha256 of the weights:** {code(entry.sha256)}",
    ]
    return "## Model Details\n\n" + "\n".join(lines)


def usage(found: Evidence, hub: str | None) -> str:
    entry = found.entry
    install = "`pip install timm`"
    if not hub:
        install = "`pip install -e .` in a checkout of vcr_zoo, whose import adds the name"
    classify = CLASSIFY.substitute(classes=entry.num_classes) if entry.num_classes else ""
    return f"{install}.\n\n" + USAGE.substitute(
        imports="" if hub else ", vcr_zoo",
        name=f"hf-hub:{hub}" if hub else entry.name,
        mode="L" if entry.input_size[0] == 1 else "RGB",
        size=entry.input_size[:0:-1],
        classify=classify,
        features=build(entry).head_hidden_size,
    )


def what_vcr_did(found: Evidence) -> str:
    recipe = found.recipe
    where = ", ".join(map(code, placements(found.entry, recipe["vcr_layers"])))
    head = "## What VCR did here\n\n"
    if not found.entry.control:
        return head + (
            f"Nothing: both coefficients are zero. In {code(found.partner.name)} features are "
            f"regularized at {code(recipe['vcr_layers'])}: {where}."
        )
    pooled = set(split(recipe["vcr_layers"])) == {"pooled"}  # of those all take part
    rows_used = "all" if pooled or not recipe["vcr_rows"] else f"at most {recipe['vcr_rows']}"
    every = max(k for k, _ in taken(found.entry, recipe))
    more = {
        "vcr_variant": "as the penalty {}",
        "vcr_share": "scaled to {} of the norm of the gradient that passes",
        "vcr_schedule": "with a schedule, {}",
        "vcr_sync": "statistics over all processes",
    }
    said = [more[key].format(recipe[key]) for key in more if recipe[key] not in NOT_SAID]
    turns = f", of a map in one of {every} steps" if every > 1 else ""
    return head + (
        f"Features are regularized at {code(recipe['vcr_layers'])}: {where}. "
        f"alpha (variance) {recipe['vcr_alpha']:g}, beta (covariance) {recipe['vcr_beta']:g}, "
        f"delta (where the covariance term turns linear) {recipe['vcr_delta']:g}, "
        f"eps {recipe['vcr_eps']:g}, {rows_used} samples of features a step{turns}"
        f"{''.join(f'; {one}' for one in said)}. "
        "The architecture is timm's, unchanged; in evaluation nothing of VCR runs."
    )


def compared(found: Evidence) -> str:
    control, vcr = found.pair
    depth = "\n\n![Accuracy against the number of frozen blocks](depth.png)"
    began = ""
    if before := found.compared.over_start(vcr):
        began = "Beside the weights that both began with, as they were:\n\n"
        began += f"{comparison(before.gains(), 'at the start', f'VCR {code(vcr)}')}\n\n"
    return (
        "## Model Comparison\n\n"
        "Networks trained anew by both recipes, a pair for each seed; the difference is paired, "
        "with Student's 95 % interval. Differences of accuracies are in percentage points. An "
        "interval that holds zero is no evidence of a difference; where VCR changes nothing, about "
        "one in twenty excludes zero all the same, and no line is corrected for how many there "
        "are. Effective rank counts the directions that features use; class-distance normalized "
        "variance is higher where they keep more of what pictures of one class differ in.\n\n"
        f"{comparison(found.compared.gains(), f'control {code(control)}', f'VCR {code(vcr)}')}\n\n"
        f"{began}"
        "![Differences of accuracies with their intervals](transfer.png)\n\n"
        "![Spectrum of the features' covariance](spectrum.png)"
        f"{depth if found.depths(control) or found.depths(vcr) else ''}"
    )


def published(found: Evidence, hub: str | None) -> str:
    """What these very weights do, not the mean over others like them."""
    sets = targets(found.recipe["dataset"])
    mine, theirs = (with_means(found.published(e.name), sets) for e in (found.entry, found.partner))
    body = []
    for cell, result in mine.items():
        if cell[0] == "train" or cell[2].startswith("share_"):
            continue
        known = of(result)
        other = known.show(theirs[cell].value) if cell in theirs else ""
        body.append([known.label, known.show(result.value), other])
    return (
        "### These weights\n\n"
        "Measured on the published files themselves; one training run each, so the two columns "
        "differ by chance as well.\n\n"
        f"{rows(['', 'this', code(found.partner.name)], body)}\n\n"
        f"{code(f'vcr-zoo reproduce {hub or found.entry.name}')} (of vcr_zoo) measures them again "
        f"and compares: on another machine accuracies may differ by {100 * POINT:g} points, other "
        f"numbers by {100 * PART:g} %."
    )


def finetuned(found: Evidence) -> str:
    """What the pair is worth fine-tuned, if that was measured, and how it was."""
    control, vcr = found.pair
    if not (pairs := [one for one in starts(found.results) if one.vcr == vcr]):
        return ""
    whose = "These files were fine-tuned: the intervals say nothing of other pretraining runs."
    if all(one.runs > 1 for one in pairs):
        trained = code(f"vcr-zoo pair {vcr} --against {control}")
        whose = f"Fine-tuned were the runs of {trained}, one for each draw, not these files."
    first = max(pairs, key=lambda one: one.settings["epochs"] == one.scratch_epochs).first
    return (
        "### Fine-tuned\n\n"
        "All of a network fine-tuned on a few pictures of each of the other sets: from random "
        "weights, from the control's and from VCR's. Mean test accuracies over the sets and five "
        "draws of pictures; paired differences in points with their 95 % intervals. "
        f"{whose}\n\n{table_of(pairs)}\n\n"
        f"The first run of each start, with {used(first[-1])}; the others differ in `--data`, "
        "`--seeds` and what validation chose:\n\n"
        + "\n".join(f"- {code(one.command)}" for one in first)
    )


def with_means(known: Mapping[Cell, Result], sets: Sequence[str]) -> dict[Cell, Result]:
    """Results with, before them, their means over data sets, where all of those have one."""
    averaged = {(r.protocol, r.data, r.metric): r for r in means(known.values(), sets)}
    return {**averaged, **known}


def how(found: Evidence) -> str:
    """Command, protocol, data, versions and hardware of every number above."""
    groups: dict[tuple, list[Result]] = {}
    common = used(next(filter(found.shows, found.results)))
    for result in filter(found.shows, found.results):
        origin = result.command.split()[1]  # pair, reproduce or depth
        cell = (origin, result.protocol, result.data, result.fingerprint, used(result))
        groups.setdefault(cell, []).append(result)
    lines = [f"With {common}, except where another is named.\n"]
    for (_, protocol, data, fingerprint, versions), members in groups.items():
        parts = [f"**{text(protocol)}** on {code(data)}: {commands(members)}"]
        details = [f"{text(k)} {text(v)}" for k, v in shared(members)]
        parts += ["; ".join(details)] if details else []
        parts += [f"data {code(fingerprint[:16])}"] if fingerprint else []
        parts += [versions] if versions != common else []
        lines.append("- " + "; ".join(parts))
    return "## How each number was measured\n\n" + "\n".join(lines)


def commands(members: Sequence[Result]) -> str:
    """The first of their commands, and how many more there are."""
    all_of_them = {r.command for r in members}
    more, seeds = len(all_of_them) - 1, len({r.seed for r in members})
    what = "seeds" if more + 1 == seeds else "commands like it"
    return code(members[0].command) + (f" and {more} other {what}" if more else "")


def shared(members: Sequence[Result]) -> list[tuple]:
    """Settings that all of them have."""
    first, *others = (r.settings for r in members)
    return sorted((k, v) for k, v in first.items() if all(o.get(k, ...) == v for o in others))


def used(result: Result) -> str:
    """Hardware and versions."""
    return ", ".join(f"{text(k)} {text(v)}" for k, v in sorted(result.versions.items()))


def training(found: Evidence) -> str:
    recipe, row = found.recipe, described(found.recipe["dataset"])
    stated = found.published(found.entry.name)
    blind = recipe["task"] in LEARNED
    level = f" ({recipe['label_level']} labels)" if "coarse" in row.levels and not blind else ""
    method = f"{without_labels(recipe)}, " if blind else ""
    count = recipe["train_num_samples"]
    portion = f" of {count:,} pictures" if count else ""
    half = "; published in half precision" if found.entry.file else ""
    lines = [
        f"- **Training data:** {text(row.attribution)}{level}: {text(row.shows)}; "
        f"licence {text(row.licence)}; train, validation and test never share a group of pictures: "
        f"{text(row.group)}.",
        f"- **Recipe:** {code(f'vcr-zoo train --recipe {found.entry.name}')}: "
        f"{method}{recipe['epochs']} epochs{portion}, batch {recipe['batch_size']}, "
        f"{text(recipe['opt'])}, "
        f"learning rate {rate(recipe)}, {'mixed precision, ' if recipe['amp'] else ''}"
        f"seed {recipe['seed']}; the last epoch's weights"
        f"{', averaged (EMA)' if recipe['model_ema'] else ''}{half}. "
        "The test part decided nothing.",
    ]
    seconds = next((r for (p, _, m), r in stated.items() if (p, m) == ("train", "seconds")), None)
    if seconds:
        where = text(seconds.versions.get("hardware", "hardware not recorded"))
        lines.append(f"- **Time and hardware:** {seconds.value:.0f} s on {where}.")
    return "## Training\n\n" + "\n".join(lines)


def rate(recipe: dict) -> str:
    """The learning rate, or what a run makes it of."""
    if recipe["lr"] is not None:
        return f"{recipe['lr']:g}"
    scale = recipe["lr_base_scale"] or "linear, or by the root for adaptive optimizers"
    return f"{recipe['lr_base']:g} for {recipe['lr_base_size']} pictures, scaled ({text(scale)})"


def without_labels(recipe: dict) -> str:
    """How features were learned: method, projector and views, as far as a recipe states them."""
    sizes = {name: recipe[f"ssl_{name}"] for name in ("hidden", "width")}
    stated = [f"{name} {size}" for name, size in sizes.items() if size]
    projector = f", projector {', '.join(stated)}" if stated else ""
    loss = "".join(f", {text(k)} {text(v)}" for k, v in recipe["ssl_kwargs"].items())
    return (
        f"{LEARNED[recipe['task']]}{projector}{loss}, two crops of {recipe['scale'][0]:g} to "
        f"{recipe['scale'][1]:g} of a picture"
    )


LIMITS = """## Intended use and limits

For research on transfer, by frozen features or fine-tuning, on pictures like those it was trained
on, and for what the tables above say that it is good at. What it knows is bounded by its training
data, size and resolution. Fairness and safety were not assessed: do not use it for decisions about
people."""


TRAINED = "{epochs} epochs<br>`{vcr_layers}` {vcr_alpha:g}, {vcr_beta:g}"


def table(evidences: Iterable[Evidence]) -> str:
    """README's table: a line for each VCR network, from its control's accuracy to its own, with
    the gains; and, of five or more that learn with labels, one with the means of those."""
    body, known = [], []
    for found in evidences:
        recipe = found.recipe
        size = f"{stats(found.entry).parameters / 1e6:.2f} M"
        gains = [found.compared.headline(*column) for column in HEADLINES.values()]
        if recipe["task"] not in LEARNED:
            known.append(gains)
        extra = f"{100 * added(found.entry, recipe):.2g} %"
        shown = (f"{both(g)}<br>{g.difference_shown}" if g else "" for g in gains)
        how = TRAINED.format(**recipe)
        linked = f"[{code(found.entry.name)}](model_cards/{found.entry.name}/README.md)"
        body.append([linked, size, how, *shown, extra])
    if len(known) >= SEEDS:
        overall = (mean_cell([g for g in column if g]) for column in zip(*known, strict=True))
        title = f"mean gain of the {len(known)} with labels, interval over pairs"
        body.append([title, "", "", *overall, ""])
    head = ["weights", "parameters", "epochs; where, α, β", *HEADLINES, "FLOPs added, estimated"]
    return rows(head, body)


def mean_cell(gains: Sequence[Gain]) -> str:
    """The mean of gains, each counted as one value; empty for fewer than five."""
    return mean_gain(gains).difference_shown if len(gains) >= SEEDS else ""


def table_without_labels(results: Sequence[Result]) -> str:
    """Self-supervised pairs: each VCR network above its control and their paired gains."""
    body = []
    for pair, recipe in Known.of(results).pairs:
        if recipe.task in LEARNED and len(pair.seeds()) >= SEEDS:
            body += lines(pair, WITHOUT_LABELS)
    return rows(["recipe, and its control", *WITHOUT_LABELS], body)


def table_continued(results: Sequence[Result]) -> str:
    """Pairs that continue from weights, with their gains over the control and over those weights
    as they were."""
    body = []
    for pair, recipe in Known.of(results).pairs:
        before, plain = pair.over_start(pair.vcr), pair.over_start(pair.control)
        if continues(recipe) and before and plain and len(pair.seeds()) >= SEEDS:
            body += lines(pair, CONTINUED, "VCR over the control")
            body += lines(before, CONTINUED, "VCR over the start")[1:]
            body += lines(plain, CONTINUED, "control over the start")[2:]
    head = ["recipe, its control, and what both began with", *CONTINUED]
    return rows(head, body) if body else "(None yet.)"


def lines(
    pair: Paired, columns: Mapping[str, tuple[str, str, bool]], gain: str = "gain"
) -> list[list[str]]:
    """A VCR network, its control and the gains, each with a cell for every column."""
    shown = [pair.headline(*column) for column in columns.values()]
    counts = {len(g.seeds) for g in shown if g}
    seeds = " to ".join(map(str, sorted({min(counts, default=0), max(counts, default=0)})))
    return [
        [code(pair.vcr), *(cell(g, "vcr") for g in shown)],
        [code(pair.control), *(cell(g, "control") for g in shown)],
        [f"{gain} [95 %], {seeds} seeds", *(g.difference_shown if g else "" for g in shown)],
    ]


def both(gain: Gain) -> str:
    """74.75 → 75.74 %"""
    return f"{cell(gain, 'control').removesuffix(gain.measure.unit)} → {cell(gain, 'vcr')}"


def cell(gain: Gain | None, side: str) -> str:
    if gain is None:
        return ""
    return gain.measure.show(getattr(gain, side))
