"""All that is known of one set of weights, and what a card still lacks."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vcr_zoo.data.load import described
from vcr_zoo.results import Result, closest, key_of, read
from vcr_zoo.training.options import recipes
from vcr_zoo.training.settle import settled
from vcr_zoo.transfer.depth import Depth
from vcr_zoo.zoo import Entry, manifest

from .gains import PAIR, START, Paired, recipe_of

CARDS = Path(__file__).parents[2] / "model_cards"  # in a checkout of the repository
NAME = re.compile(r"[A-Za-z0-9_]+\.[A-Za-z0-9_]+")
LICENSE = re.compile(r"[a-z0-9][a-z0-9.-]*")
SHA256 = re.compile(r"[0-9a-f]{64}")
# Protocols of fine-tuning: of all of a network, from random weights, and of `vcr-zoo depth`
FULL, SCRATCH, DEPTHS = "finetune full", "finetune scratch", "finetune depth"
REPRODUCE = "vcr-zoo reproduce "  # the command of every number measured on the published weights


@dataclass(frozen=True)
class Evidence:
    """One set of weights with its partner: the control of a VCR network, or the VCR network that
    a control stands beside."""

    entry: Entry
    partner: Entry | None
    recipe: dict  # every option of the training run, but for what it learned from the data
    results: tuple[Result, ...]  # of both, and of runs by their recipes that were fine-tuned

    @property
    def pair(self) -> tuple[str, str]:
        """Names of the control and of the VCR network."""
        names = (self.entry.name, self.partner.name)
        return names[::-1] if self.entry.control else names

    def published(self, name: str) -> dict[tuple[str, str, str], Result]:
        """What was measured on a published file itself: (protocol, data, metric) -> result."""
        found = (r for r in self.results if r.model == name and r.command.startswith(REPRODUCE))
        return {(r.protocol, r.data, r.metric): r for r in found}

    @property
    def compared(self) -> Paired:
        """Training runs by both recipes, seed by seed."""
        control, vcr = self.pair
        return Paired(control, vcr, self.recipe["dataset"], self.results)

    def shows(self, result: Result) -> bool:
        """Whether a number is one that the card shows: of its own network, not of a study."""
        shown = result.command.startswith((PAIR, REPRODUCE)) or result.protocol == DEPTHS
        return shown and result.model == self.entry.name

    def depths(self, name: str) -> dict[str, dict[int, list[float]]]:
        """Accuracies over seeds by pictures and depth, where `vcr-zoo depth` measured them: of
        studies with other settings, those that most seeds were measured with."""
        studies: dict[tuple, dict[int, dict[int, float]]] = {}
        for r in self.results:
            if (r.model, r.protocol, r.metric) == (name, DEPTHS, "top1"):
                pictures = f"{r.settings['size'] or 'all'} pictures of {r.data}"
                curve = studies.setdefault((pictures, curve_of(r)), {})
                curve.setdefault(r.settings["depth"], {})[r.seed] = r.value
        most = sorted(studies.items(), key=lambda study: min(map(len, study[1].values())))
        return {
            pictures: {depth: [*seeds.values()] for depth, seeds in curve.items()}
            for (pictures, _), curve in most
        }


def budget(result: Result) -> int:
    """With how many runs settings of fine-tuning were chosen; 0 if they were given."""
    words = shlex.split(result.command)
    return int(words[words.index("--budget") + 1]) if "--budget" in words else 0


def curve_of(result: Result) -> str:
    """What all points of an accuracy's curve over depths have in common: the learning rate too,
    unless each depth has one that was chosen for it."""
    chosen = Depth.tuned if budget(result) else ()
    return f"{budget(result)} {key_of(result.settings, 'size', 'depth', *chosen)}"


def evidence(
    name: str,
    entries: Mapping[str, Entry] | None = None,
    results: Sequence[Result] | None = None,
) -> Evidence:
    """What is known of a set of weights.

    Args:
        entries: of a manifest; the packaged one if None.
        results: of every network; those of `model_cards/results.jsonl` if None.

    Raises:
        LookupError: for a name without an entry or a recipe, with the closest that have one.
        ValueError: if something that a card must state is lacking, naming all of it.
    """
    entries = manifest() if entries is None else entries
    entry = entry_called(name, entries)
    beside = entry.control or next((e.name for e in entries.values() if e.control == name), None)
    partner = entries[beside] if beside else None
    results = read(CARDS / "results.jsonl") if results is None else results
    both = {name, beside, f"{entry.control or name}{START}"}
    found = Evidence(
        entry=entry,
        partner=partner,
        recipe=vars(settled(name)),
        results=tuple(r for r in results if r.model in both or run_of(r) in both),
    )
    if missing := lacking(found):
        raise ValueError(f"no card can be made of {name}: " + "; ".join(missing))
    return found


def run_of(result: Result) -> str:
    """The recipe of a network that was fine-tuned in full or from scratch, alone; else nothing."""
    whole = result.protocol in (FULL, SCRATCH) and "+" not in result.model
    return recipe_of(result.model) if whole else ""


def entry_called(name: str, entries: Mapping[str, Entry]) -> Entry:
    """The entry of a name; a LookupError that says what there is instead."""
    if name not in entries and name in recipes():
        raise LookupError(
            f"{name} is a recipe without weights: train it, then `vcr-zoo package RUN {name}`"
        )
    if name not in entries:
        near = closest(name, entries) or f" There are: {', '.join(entries)}."
        raise LookupError(f"no weights are called {name!r}.{near}")
    return entries[name]


def misspelled(name: str, license: str) -> list[str]:
    """What is wrong with a name and a licence that a card must state, in words."""
    wrong = []
    if not NAME.fullmatch(name):
        wrong.append(f"{name!r} is no name of letters, digits, '_' and one '.'")
    if not LICENSE.fullmatch(str(license)):
        wrong.append(f"its license {license!r} is no licence's identifier, as mit is")
    return wrong


def lacking(found: Evidence) -> list[str]:
    """What a card must state and cannot, in words."""
    entry, missing = found.entry, misspelled(found.entry.name, found.entry.license)
    if not SHA256.fullmatch(str(entry.sha256)):
        missing.append("its sha256 is not one of 64 digits")
    if not described(found.recipe["dataset"]).publishable:
        missing.append(f"weights trained on {found.recipe['dataset']} must not be published")
    if Path(found.recipe["dataset"].partition("/")[2]).is_absolute():
        missing.append(
            f"its recipe's {found.recipe['dataset']} is an absolute path, which would be "
            "published: name the pictures relative to the checkout"
        )
    if found.partner is None:
        return [*missing, "it has no control, and is none of a VCR network"]
    theirs = vars(settled(found.partner.name))
    other = {key for key in theirs if theirs[key] != found.recipe[key]} - {"given", "recipe"}
    if other - {"vcr_alpha", "vcr_beta"}:
        missing.append(
            f"its recipe and {found.partner.name}'s differ in {', '.join(sorted(other))}"
        )
    if not found.compared.gains():
        missing.append("no results of it and its control under the same seed")
    for one, whose in ((entry, "its own"), (found.partner, f"those of {found.partner.name}")):
        stated = found.published(one.name).values()
        again = f"`{REPRODUCE}{one.name} --record` measures them"
        if any(result.weights != one.sha256 for result in stated):
            missing.append(f"results of other weights than {whose}: {again}")
        elif not stated:
            missing.append(f"no results of {whose}: {again}")
    return missing
