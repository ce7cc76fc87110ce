"""What a search found: which setting is best, and a picture of them all."""

import shlex
from collections.abc import Mapping, Sequence
from math import inf, nan
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from vcr_zoo.diagnostics.style import DPI, plt

from .spaces import Choice, Range, words

SLACK = 0.005  # by which the source's accuracy may fall short of the recipe's own


class Trial(NamedTuple):
    """Settings with their validation accuracies, means over seeds."""

    number: int  # 0 is the recipe as it stands
    settings: dict
    source: float  # of its own classifier; of neighbors, where it saw no labels
    others: float  # of probes, mean over the data sets that are not the source


def shared(found: Sequence[Sequence[Trial]]) -> list[Trial]:
    """The same settings tried on several recipes: mean gains over each recipe as it stands on the
    other sets, the smallest on the source. Of recipes without trial 0 there is nothing."""
    gains: dict[int, list[Trial]] = {}
    for trials in found:
        start = start_of(trials)
        for t in trials if start else ():
            gain = t._replace(source=t.source - start.source, others=t.others - start.others)
            gains.setdefault(t.number, []).append(gain)
    return [
        Trial(n, each[0].settings, min(t.source for t in each), fmean(t.others for t in each))
        for n, each in sorted(gains.items())
        if len(each) == len(found)
    ]


def start_of(found: Sequence[Trial]) -> Trial | None:
    """The recipe as it stands."""
    return next((t for t in found if t.number == 0), None)


def floor_of(found: Sequence[Trial]) -> float:
    """What is good enough on the source: anything, where it is not known what the recipe does."""
    start = start_of(found)
    return start.source - SLACK if start else -inf


def best_of(found: Sequence[Trial]) -> Trial:
    """The trial with the best mean on other data sets that is good enough on the source."""
    floor = floor_of(found)
    return max((t for t in found if t.source >= floor), key=lambda t: t.others)


def best_setting(found: Sequence[Trial]) -> Trial | None:
    """The best of the trials that change something; one that is good enough on the source, if any
    is. None where nothing was tried."""
    changed, floor = [t for t in found if t.number], floor_of(found)
    enough = [t for t in changed if t.source >= floor]
    return max(enough or changed, key=lambda t: t.others, default=None)


def standings(found: Sequence[Trial], shown: int = 8) -> str:
    """The best trials, and the recipe as it stands, a line for each."""
    best, start = best_of(found), start_of(found)
    ranked = sorted(found, key=lambda t: -t.others)[:shown]
    shown_too = [best] if best not in ranked else []
    shown_too += [start] if start and start not in (*ranked, best) else []
    lines = ["trial  others  source  settings"]
    for one in (*ranked, *shown_too):
        what = " ".join(words(one.settings)) or "as it stands"
        row = f"{one.number:5}  {100 * one.others:6.2f}  {100 * one.source:6.2f}  {what}"
        lines.append(f"{row} <- best" if one is best else row)
    return "\n".join(lines)


def marginals(found: Sequence[Trial], space: Mapping) -> str:
    """What each value of each choice did on other sets: the mean of its trials less that of all
    trials, in points, with its standard error."""
    trials = [t for t in found if t.number]
    lines = []
    for name, kind in space.items():
        if not (isinstance(kind, Choice) and kind.values[1:]) or not trials:
            continue
        middle = fmean(t.others for t in trials)
        for value in kind.values:
            own = [100 * (t.others - middle) for t in trials if t.settings[name] == value]
            if own:
                error = stdev(own) / len(own) ** 0.5 if own[1:] else nan
                lines.append(f"{name} {value}: {fmean(own):+.2f} ± {error:.2f} ({len(own)} trials)")
    return "\n".join(lines)


def report(found: Sequence[Trial], space: Mapping, recipe: str, options: Sequence[str] = ()) -> str:
    """Standings of one recipe, what each choice did, and what to type for the best."""
    best = best_of(found)
    again = shlex.join(["vcr-zoo", "train", "--recipe", recipe, *options, *words(best.settings)])
    shown = [standings(found), marginals(found, space)]
    how = f"by chance too: confirm it with --trials 0 {best.number} and other --seeds."
    how = how if best.number else "the recipe as it stands."
    shown.append(f"best of {len(found)} trials by validation, {how}\n{again}")
    return "\n\n".join(filter(None, shown))


def draw(found: Sequence[Trial], space: Mapping, path: Path, title: str) -> None:
    """The response surface: the first two numbers of a space as axes, a panel for each value of its
    first choice, the gain over the recipe as it stands as colour. Crosses lost too much on the
    source; the best is ringed. A space of one number has the gain as its second axis, of three the
    last as the size of its dots."""
    numbers = [name for name, kind in space.items() if isinstance(kind, Range)]
    numbers, third = numbers[:2], next(iter(numbers[2:]), None)
    choices = (n for n, kind in space.items() if isinstance(kind, Choice) and kind.values[1:])
    split = next(choices, None)
    panels = space[split].values if split else (None,)
    start = start_of(found)
    zero = start.others if start else fmean(t.others for t in found)
    trials = [t for t in found if t.number]
    floor, best = floor_of(found), best_of(found)
    enough = [t for t in trials if t.source >= floor]  # what broke a network sets no colours
    most = max((abs(t.others - zero) for t in enough or trials), default=0) * 100 or 1

    def place(t: Trial) -> tuple[float, float]:
        at = tuple(t.settings[name] for name in numbers)
        return at if at[1:] else (*at, 100 * (t.others - zero))

    def size(t: Trial) -> float:
        return 20 + 100 * space[third].share(t.settings[third]) if third else 60

    figure, axes = plt.subplots(
        1,
        len(panels),
        figsize=(1.5 + 3.4 * len(panels), 3.6),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    look = {"cmap": "PuOr_r", "vmin": -most, "vmax": most, "edgecolors": "black", "linewidths": 0.5}
    for panel, one in zip(axes[0], panels, strict=True):
        here = [t for t in trials if split is None or t.settings[split] == one]
        for marker, fits in (("o", True), ("X", False)):
            shown = [t for t in here if (t.source >= floor) == fits]
            x, y = zip(*map(place, shown), strict=True) if shown else ((), ())
            colour = [100 * (t.others - zero) for t in shown]
            drawn = panel.scatter(x, y, c=colour, marker=marker, s=[*map(size, shown)], **look)
        if best in here:
            panel.scatter(*place(best), s=220, facecolors="none", edgecolors="black")
        for axis, name in zip("xy", numbers, strict=False):
            kind = space[name]
            panel.set(**{f"{axis}lim": (kind.low, kind.high)})  # some panels are empty
            if kind.log:
                panel.set(**{f"{axis}scale": "log"})
        panel.set(xlabel=numbers[0], title=str(one) if split else "")
        panel.grid(alpha=0.3)
    axes[0, 0].set_ylabel(numbers[1] if numbers[1:] else "points above the recipe, other sets")
    if numbers[1:]:
        figure.colorbar(drawn, ax=axes[0].tolist(), label="points above the recipe, other sets")
    figure.suptitle(f"{title}\nthe larger a dot, the larger its {third}" if third else title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
