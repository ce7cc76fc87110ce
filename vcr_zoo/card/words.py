"""What measurements are called and in which unit they are shown; text that no field can break."""

import html
import re
from typing import NamedTuple

from vcr_zoo.data import DATASETS
from vcr_zoo.results import Result


class Measure(NamedTuple):
    """How a number is shown: in words, and with how many digits after which factor."""

    label: str
    digits: str = ".2f"
    factor: float = 100  # accuracies become percentages
    unit: str = " %"

    def show(self, value: float) -> str:
        return f"{self.factor * value:{self.digits}}{self.unit}"


def plainly(label: str, digits: str = ".1f") -> Measure:
    return Measure(label, digits, factor=1, unit="")


# (protocol, metric) -> how it is shown on cards; "{data}" is the data set's name.
MEASURES = {
    ("eval", "top1"): Measure("accuracy of its own classifier, {data}"),
    ("noise", "top1"): Measure("accuracy of its own classifier under Gaussian noise, {data}"),
    ("noise", "lost"): Measure("accuracy that the noise takes, {data}"),
    ("probe", "top1"): Measure("linear probe, {data}"),
    ("knn", "top1"): Measure("nearest neighbors, {data}"),
    ("fewshot", "5-shot"): Measure("5 pictures a class, {data}"),
    ("fewshot", "10-shot"): Measure("10 pictures a class, {data}"),
    ("fewshot", "25-shot"): Measure("25 pictures a class, {data}"),
    ("spectrum", "effective_rank"): plainly("effective rank of the features, {data}"),
    ("spectrum", "correlation"): plainly("mean correlation between features, {data}", ".3f"),
    ("spectrum", "deviation"): plainly("mean deviation of the features, {data}", ".3f"),
    ("collapse", "cdnv"): plainly("class-distance normalized variance, {data}", ".3f"),
    ("collapse", "ncc"): Measure("nearest class mean, {data}"),
    ("information", "nats"): plainly("told of the labels, in nats at least, {data}", ".3f"),
    ("train", "seconds"): Measure("training time", ".0f", factor=1, unit=" s"),
    ("train", "top1"): Measure("accuracy on validation pictures, {data}"),
}
POINT = 0.005  # by which accuracies may differ on another machine: half a point
PART = 0.02  # of its value, by which any other number may
HEADLINES = {  # README's columns: (protocol, metric, on the source or on other data sets)
    "source accuracy": ("eval", "top1", True),
    "linear probe, source": ("probe", "top1", True),
    "linear probe, other sets": ("probe", "top1", False),
    "5 pictures a class, other sets": ("fewshot", "5-shot", False),
}
CONTINUED = {  # columns of the table of pairs that continue from weights
    title: headline for title, headline in HEADLINES.items() if headline[0] == "probe"
} | {"effective rank": ("spectrum", "effective_rank", True)}
WITHOUT_LABELS = {  # columns of the table of self-supervised pairs
    **{title: headline for title, headline in HEADLINES.items() if headline[0] != "eval"},
    "effective rank": ("spectrum", "effective_rank", True),
    "mean correlation": ("spectrum", "correlation", True),
    "mean deviation": ("spectrum", "deviation", True),
}


def measure(protocol: str, metric: str, data: str, level: str | None = None) -> Measure:
    """How a number is shown; one without an entry, as it is under its own name.

    Args:
        level: of the labels, of which the classes are stated where a data set has several.
    """
    known = MEASURES.get((protocol, metric)) or plainly(f"{protocol} {metric}, {{data}}", ".4g")
    levels = DATASETS[data].levels if data in DATASETS else {}
    if level in levels and len(levels) > 1:
        data = f"{data} ({levels[level]} classes)"
    return known._replace(label=known.label.format(data=data))


def of(result: Result) -> Measure:
    """How a result is shown."""
    return measure(result.protocol, result.metric, result.data, result.settings.get("level"))


def text(value: object) -> str:
    """A field as one line of Markdown that shows it letter by letter: no markup, HTML or link."""
    line = html.escape(" ".join(str(value).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~#!])", r"\\\1", line)


def code(value: object) -> str:
    """A field as code; what would end the code or a table's cell is left out."""
    return f"`{re.sub(r'[`|<>]', '', ' '.join(str(value).split()))}`"


def rows(head: list[str], body: list[list[str]], right: int = 1) -> str:
    """A Markdown table; columns from `right` on are numbers."""
    marks = ["---"] * right + ["---:"] * (len(head) - right)
    return "\n".join(
        re.sub(r"\|  (?=\|)", "| ", f"| {' | '.join(line)} |") for line in [head, marks, *body]
    )
