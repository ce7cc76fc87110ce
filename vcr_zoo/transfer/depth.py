"""Transfer depth (Gerace et al., 2023): how many of the first blocks are worth keeping as they are.

Freeze the first t blocks, train the rest and a new head, for every t: accuracy against depth.
"""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import timm
import torch
from timm.models import get_model_args
from torch import nn

from vcr_zoo.data import Images
from vcr_zoo.diagnostics.cka import cka
from vcr_zoo.diagnostics.imbalance import imbalance
from vcr_zoo.features import features

from .method import Method

if TYPE_CHECKING:
    from .finetune import Finetuner


ALIKE = {  # how `draw` calls what `likeness` gives
    "CKA": "CKA, debiased",
    "source to target": "imbalance, source to target",
    "target to source": "imbalance, target to source",
}


class Depth(Method):
    """Blocks up to `depth` stay as they were pretrained, with batch norm's running statistics.

    Args:
        depth: 0 freezes nothing, as many as there are blocks leaves what comes after them, and one
            more leaves the head alone.
        afresh: what is not frozen starts from random weights instead of pretrained ones.
    """

    name = "depth"
    tuned = {"lr": 3.0}  # noqa: RUF012

    def __init__(self, depth: int = 0, afresh: bool = False):
        if depth < 0:
            raise LookupError(f"depth {depth} is negative: 0 freezes nothing")
        self._depth, self.afresh = depth, afresh

    def settings(self) -> dict:
        return {"depth": self._depth, **super().settings()}

    def prepare(self, run: "Finetuner") -> None:
        part = run.blocks.frozen(self._depth)
        if self.afresh:
            fresh = untrained(run.model, run.settings.seed).state_dict()
            own = run.model.state_dict()
            for name, value in fresh.items():
                module = name.rpartition(".")[0]
                if name not in part.parameters and module not in part.modules:
                    own[name].copy_(value)

    def depth(self, run: "Finetuner", epoch: int) -> int:
        """The head has no warm-up on blocks that start afresh."""
        return self._depth if self.afresh else max(self._depth, super().depth(run, epoch))


class Scratch(Depth):
    """Every weight learns, from random ones: what pretraining is worth is seen beside this. It
    takes many more epochs."""

    name = "scratch"
    tuned = Method.tuned

    def __init__(self):
        super().__init__(depth=0, afresh=True)

    def settings(self) -> dict:
        return {}


def untrained(model: nn.Module, seed: int) -> nn.Module:
    """A network of the same architecture with random weights.

    Raises:
        TypeError: for a module that timm did not build, whose architecture has no name.
    """
    architecture = getattr(model, "pretrained_cfg", {}).get("architecture")
    if architecture is None:
        raise TypeError(f"{type(model).__name__} was not built by timm.create_model")
    torch.manual_seed(seed)
    return timm.create_model(architecture, pretrained=False, **get_model_args(model))


def likeness(
    source: nn.Module, target: nn.Module, images: Images, blocks: Sequence[str]
) -> dict[str, list[float]]:
    """How alike two networks of one architecture are after each block, on the same pictures.

    Returns:
        "CKA" (debiased; 1: equal up to rotation and scale), and the information imbalance "source
        to target" and back (0: its neighborhoods tell the other's; 1: nothing), a value for each
        block of features averaged over positions; NaN where a network's features do not vary.
    """
    rows = {"CKA": [], "source to target": [], "target to source": []}
    for block in blocks:
        a, b = (features(model, images, placement=block).x for model in (source, target))
        try:
            rows["CKA"].append(cka(a, b))
        except ValueError:
            rows["CKA"].append(float("nan"))
        rows["source to target"].append(imbalance(a, b).mean().item())
        rows["target to source"].append(imbalance(b, a).mean().item())
    return rows


def bar(values: Sequence[float]) -> float:
    """Standard error of a mean over seeds; NaN for one."""
    n = len(values)
    return statistics.stdev(values) / n**0.5 if n > 1 else float("nan")


def draw(
    curves: Mapping[str, Mapping[int, Sequence[float]]],
    chosen: Mapping[str, int],
    blocks: Sequence[str],
    path: str | Path,
    alike: Mapping[str, Sequence[float]] | None = None,
    title: str = "",
) -> None:
    """Accuracy against depth for each training-set size, and likeness under the same axis.

    Args:
        curves: name -> depth -> accuracies over seeds, shares.
        chosen: name -> the depth that validation chose, marked.
        alike: of `likeness`, for the blocks in order.
    """
    from vcr_zoo.diagnostics.style import DPI, SEQUENCE, plt

    height = 6 if alike else 3.8
    figure, axes = plt.subplots(
        2 if alike else 1, 1, figsize=(9, height), sharex=True, layout="constrained", squeeze=False
    )
    top, colours = axes[0, 0], plt.get_cmap(SEQUENCE)
    for i, (name, curve) in enumerate(curves.items()):
        colour = colours(0.85 * i / max(len(curves) - 1, 1))
        depths = sorted(curve)
        means = [100 * statistics.fmean(curve[t]) for t in depths]
        bars = [100 * bar(curve[t]) for t in depths]
        look = {"color": colour, "marker": "osD^v"[i % 5], "capsize": 3, "label": name}
        top.errorbar(depths, means, yerr=bars if bars[0] == bars[0] else None, **look)
        if name in chosen:
            t = chosen[name]
            place = (t, 100 * statistics.fmean(curve[t]))
            top.plot(*place, "o", markersize=14, markerfacecolor="none", color=colour)
    top.set(ylabel="accuracy in %", title=title)
    aside = {"loc": "center left", "bbox_to_anchor": (1, 0.5), "frameon": False}
    top.legend(**aside, title="test, ± standard error;\nringed: chosen on validation")
    bottom = axes[-1, 0]
    if alike:
        for i, (name, values) in enumerate(alike.items()):
            look = {"linestyle": ("-", "--", ":")[i % 3], "marker": "osD"[i % 3]}
            bottom.plot(
                range(1, len(values) + 1),
                values,
                label=ALIKE.get(name, name),
                color=colours(0.4 * i),
                **look,
            )
        bottom.set(ylabel="CKA, information imbalance", ylim=(-0.05, 1.05))
        bottom.legend(**aside, title="network trained on source,\nand one on target alone")
    names = ["none", *blocks]
    step = -(-len(names) // 20)
    bottom.set_xticks(range(0, len(names), step), names[::step], rotation=45, ha="right")
    bottom.set_xlabel("frozen up to the end of block")
    for one in axes[:, 0]:
        one.grid(alpha=0.3)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    plt.close(figure)
