"""What measurements are called and in which unit they are shown; text that no field can break."""

import html
import re
from typing import NamedTuple


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


# (protocol, metric) -> how it is shown; "{data}" is the data set's name.
MEASURES = {
    ("demo", "source"): Measure("source accuracy"),
    ("demo", "subclasses"): Measure("probe of 10 classes"),
    ("demo", "fewshot"): Measure("5 pictures a class"),
    ("demo", "silhouettes"): Measure("silhouettes"),
    ("demo", "effective_rank"): plainly("effective rank of the features"),
    ("demo", "correlation"): plainly("mean correlation between features", ".3f"),
    ("eval", "top1"): Measure("accuracy of its own classifier, {data}"),
    ("probe", "top1"): Measure("linear probe, {data}"),
    ("knn", "top1"): Measure("nearest neighbors, {data}"),
    ("fewshot", "25-shot"): Measure("25 pictures a class, {data}"),
    ("spectrum", "effective_rank"): plainly("effective rank of the features, {data}"),
    ("train", "seconds"): Measure("training time", ".0f", factor=1, unit=" s"),
    ("train", "top1"): Measure("accuracy on validation pictures, {data}"),
}
HEADLINES = [("demo", m) for m in ("source", "subclasses", "fewshot", "silhouettes")]  # README's


def measure(protocol: str, metric: str, data: str) -> Measure:
    """How a number is shown; one without an entry, as it is under its own name."""
    known = MEASURES.get((protocol, metric)) or plainly(f"{protocol} {metric}, {{data}}", ".4g")
    return known._replace(label=known.label.format(data=data))


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
        f"| {' | '.join(line)} |".replace("|  |", "| |") for line in [head, marks, *body]
    )
