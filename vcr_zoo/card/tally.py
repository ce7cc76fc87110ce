"""What README's table comes to: which pairs gain on other sets, and which lose."""

from collections.abc import Iterable, Mapping
from statistics import fmean

from vcr_zoo.results import Interval
from vcr_zoo.suite import targets
from vcr_zoo.training.options import UNTUNED

from .evidence import Evidence
from .words import HEADLINES, code, rows

COUNTED = [title for title, (*_, on_source) in HEADLINES.items() if not on_source]


def tally(founds: Iterable[Evidence]) -> str:
    """For each accuracy on other sets, the pairs whose whole interval is above zero and below it;
    the same with intervals wide enough to hold all together; those among them that were trained
    with what `--vcr` stands for; and of how many pairs the file that loads, which is the first
    seed's, is above or below its control's."""
    founds, body = list(founds), []
    for title in COUNTED:
        protocol, metric, _ = HEADLINES[title]
        gains = {f.entry.name: f.compared.headline(protocol, metric, False) for f in founds}
        found = {name: gain.difference for name, gain in gains.items() if gain}
        together = {name: one.among(len(found)) for name, one in found.items()}
        files = [lead(one, protocol, metric) for one in founds if gains[one.entry.name]]
        above = sum(difference > 0 for difference in files)
        plain = {f.entry.name for f in founds if as_offered(f.recipe)} & found.keys()
        untuned = {name: one for name, one in found.items() if name in plain}
        body += [
            [f"{title}: whole intervals, {len(found)} pairs", *sides(found)],
            [f"{title}: the same, corrected for their number (Bonferroni)", *sides(together)],
            [f"{title}: whole intervals, {len(plain)} of them at `--vcr`", *sides(untuned)],
            [f"{title}: files, without an interval", str(above), str(len(files) - above)],
        ]
    return rows(["VCR less control", "above zero", "below"], body, right=3)


def as_offered(recipe: Mapping) -> bool:
    """Whether a recipe has the weights and the placement that `--vcr` stands for."""
    offered = zip(UNTUNED[::2], UNTUNED[1::2], strict=True)
    return all(str(recipe[option[2:].replace("-", "_")]) == value for option, value in offered)


def sides(found: Mapping[str, Interval]) -> list[str]:
    """Names of intervals above zero and of those below it, each with their number."""
    above = [name for name, one in found.items() if one.low > 0]
    below = [name for name, one in found.items() if one.high < 0]
    return [
        f"{len(names)}: {', '.join(map(code, names))}" if names else "0" for names in (above, below)
    ]


def lead(found: Evidence, protocol: str, metric: str) -> float:
    """Accuracy of a VCR file less that of its control's, mean of the other sets."""
    control, vcr = (found.published(name) for name in found.pair)
    cells = [(protocol, data, metric) for data in targets(found.recipe["dataset"])]
    return fmean(vcr[cell].value - control[cell].value for cell in cells)
