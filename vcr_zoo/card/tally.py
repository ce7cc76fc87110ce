"""What README's table comes to: which pairs gain on other sets, and which lose."""

from collections.abc import Iterable, Mapping
from statistics import fmean

from vcr_zoo.results import Interval
from vcr_zoo.suite import targets
from vcr_zoo.training.options import UNTUNED

from .bearing import sides
from .evidence import REPRODUCE, Evidence
from .words import HEADLINES, code, rows

COUNTED = [title for title, (*_, on_source) in HEADLINES.items() if not on_source]


def tally(founds: Iterable[Evidence]) -> str:
    """For each accuracy on other sets, the pairs whose whole interval is above zero and below it;
    the same with intervals wide enough to hold all together; those among them that were trained
    with what `--vcr` stands for; and of how many pairs the file that loads, which is the first
    seed's, is above or below its control's. Pairs of fewer seeds than five do not count."""
    founds, body = list(founds), []
    for title in COUNTED:
        headline = HEADLINES[title]
        gains = {f.entry.name: f.compared.headline(*headline) for f in founds}
        found = {n: g.difference for n, g in gains.items() if g}
        known = [one for one in founds if one.entry.name in found]
        together = {name: one.among(len(found)) for name, one in found.items()}
        plain = {f.entry.name: found[f.entry.name] for f in known if as_offered(f.recipe)}
        files = [lead(one, *headline[:2]) for one in known]
        signs = [str(sum(sign * lead > 0 for lead in files)) for sign in (1, -1)]
        body += [
            [f"{title}: whole intervals, {len(found)} pairs", *counted(found)],
            [f"{title}: whole intervals after Bonferroni's correction", *counted(together)],
            [f"{title}: whole intervals, the {len(plain)} trained with `--vcr`", *counted(plain)],
            [f"{title}: the files that load, without an interval", *signs],
        ]
    return rows(["VCR less control", "above zero", "below"], body, right=3)


def as_offered(recipe: Mapping) -> bool:
    """Whether a recipe has the weights and the placement that `--vcr` stands for."""
    offered = zip(UNTUNED[::2], UNTUNED[1::2], strict=True)
    return all(str(recipe[option[2:].replace("-", "_")]) == value for option, value in offered)


def counted(found: Mapping[str, Interval]) -> list[str]:
    """Names of intervals above zero and of those below it, each with their number."""
    beyond = {name: sides(one, 1) for name, one in found.items()}
    both = ([name for name, side in beyond.items() if side[i]] for i in (0, 1))
    return [f"{len(names)}: {', '.join(map(code, names))}" if names else "0" for names in both]


def lead(found: Evidence, protocol: str, metric: str) -> float:
    """Accuracy of a VCR file less that of its control's, mean of the other sets.

    Raises:
        ValueError: if it was not measured on all of them, as the pair's runs were.
    """
    control, vcr = (found.published(name) for name in found.pair)
    cells = [(protocol, data, metric) for data in targets(found.recipe["dataset"])]
    for name, known in zip(found.pair, (control, vcr), strict=True):
        if lacking := [data for _, data, _ in cells if (protocol, data, metric) not in known]:
            raise ValueError(
                f"{name} has no {protocol} of {', '.join(lacking)}: "
                f"`{REPRODUCE}{name} --record` measures it"
            )
    return fmean(vcr[cell].value - control[cell].value for cell in cells)
