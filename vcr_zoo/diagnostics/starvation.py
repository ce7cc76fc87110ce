"""Gradient starvation (Pezeshki et al., 2021): one feature is learned so fast that others are not.

Two toys in which either of two features tells the class. In `moons`, height separates two moons by
a straight line, and only both coordinates give the boundary that follows them (arXiv 2306.13292
shows it with VCR). In `pairs`, pictures are two photographs side by side: on the left trousers or
bags, easy; on the right pullovers or coats, hard. How well a network ranks the classes by one
feature is asked twice: with the other drawn anew, so that it tells nothing and can only disturb,
and with the other held at its mean.
"""

import itertools
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from vcr_zoo.data import Images, load
from vcr_zoo.penalty import tap
from vcr_zoo.results import Result, paired, versions

from .style import STYLES, plt, save

ARMS = ("control", "vcr")
BOTH = "both features"
RESULTS = "starvation.jsonl"
WAYS = {"drawn anew": "the other drawn anew", "held": "the other held"}  # to ask by one feature
EASY, HARD = ("trouser", "bag"), ("pullover", "coat")
WIDTH = 128  # of both hidden layers
STEPS = 600  # of training on moons, half as many on pairs


@dataclass
class Toy:
    """Points with two features, either of which tells the class of 0 and 1."""

    x: Tensor  # (n, 2, p): two features of p numbers
    y: Tensor  # float (n,)
    names: tuple[str, str]  # of the features
    late: int  # which of them is learned late

    def without(self, feature: int, seed: int) -> Tensor:
        """The points with one feature taken from other points, of any class: (n, 2, p)."""
        order = torch.randperm(len(self.x), generator=torch.Generator().manual_seed(seed))
        x = self.x.clone()
        x[:, feature] = x[order, feature]
        return x

    def held(self, feature: int) -> Tensor:
        """The points with one feature at its mean: (n, 2, p)."""
        x = self.x.clone()
        x[:, feature] = x[:, feature].mean(dim=0)
        return x

    def axes(self) -> tuple[Tensor, Tensor]:
        """Middle and half difference of the class means of both features: (2, p) each."""
        zero, one = self.x[self.y < 0.5].mean(dim=0), self.x[self.y > 0.5].mean(dim=0)
        return (zero + one) / 2, (one - zero) / 2


def moons(n: int = 400, gap: float = 0.2, noise: float = 0.04, seed: int = 0) -> Toy:
    """Two interleaving half circles, so far apart in height that a level line parts them."""
    generator = torch.Generator().manual_seed(seed)
    angle = torch.pi * torch.rand(n, generator=generator)
    y = (torch.arange(n) % 2).float()
    upper = torch.stack([angle.cos(), angle.sin()], dim=1)
    lower = torch.stack([1 - angle.cos(), -angle.sin() - gap], dim=1)
    x = torch.where(y[:, None] == 0, upper, lower)
    x = x + noise * torch.randn(n, 2, generator=generator)
    x = (x - x.mean(dim=0)) / x.std()
    return Toy(x[:, :, None], y, ("horizontal place", "height"), late=0)


def pairs(images: Images, n: int = 2000, seed: int = 0) -> Toy:
    """Photographs of two easy classes beside those of two hard ones, drawn at random.

    Raises:
        ValueError: for a data set that lacks the classes.
    """
    missing = [name for name in (*EASY, *HARD) if name not in images.classes]
    if missing:
        raise ValueError(f"{images.name} has no class {missing[0]!r}: the toy is made of fmnist")
    generator = torch.Generator().manual_seed(seed)
    labels = torch.from_numpy(images.y.astype("int64"))
    y = torch.arange(n) % 2
    halves = []
    for names in (EASY, HARD):
        rows = torch.zeros(n, dtype=torch.int64)
        for label, name in enumerate(names):
            members = (labels == images.classes.index(name)).nonzero().flatten()
            drawn = torch.randint(len(members), (n,), generator=generator)
            rows = torch.where(y == label, members[drawn], rows)
        pixels = torch.from_numpy(images.x[rows.numpy()]).float().mean(dim=-1) / 255
        halves.append((pixels - 0.3) / 0.35)
    x = torch.stack(halves, dim=1).flatten(2)  # (n, 2, h * w)
    return Toy(x, y.float(), (" or ".join(EASY), " or ".join(HARD)), late=1)


class Network(nn.Module):
    """Three layers, the outputs of the first two regularized."""

    def __init__(self, inputs: int, alpha: float = 0.0, beta: float = 0.0):
        super().__init__()
        sizes = (inputs, WIDTH, WIDTH)
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in itertools.pairwise(sizes))
        self.last = nn.Linear(WIDTH, 1)
        self.alpha, self.beta = alpha, beta

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and penalty: (n, 2, p) -> (n,), ()."""
        x, total = x.flatten(1), x.new_zeros(())
        for layer in self.hidden:
            x = layer(x).relu()
            if self.training and (self.alpha or self.beta):
                x, penalty = tap(x, self.alpha, self.beta)
                total = total + penalty
        return self.last(x)[:, 0], total


def trained(
    toy: Toy, alpha: float, beta: float, seed: int, steps: int, batch: int = 128
) -> Network:
    """A network trained on a toy by Adam, with weights and batches from a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(toy.x[0].numel(), alpha, beta).train()
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(steps):
        index = torch.randint(len(toy.x), (batch,), generator=generator)
        logits, penalty = network(toy.x[index])
        loss = F.binary_cross_entropy_with_logits(logits, toy.y[index]) + penalty
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


@torch.no_grad()
def ranking(network: Network, x: Tensor, y: Tensor) -> float:
    """Area under the ROC curve: how often a point of class 1 scores above one of class 0."""
    scores = network(x)[0]
    one, zero = scores[y > 0.5], scores[y < 0.5]
    above = (one[:, None] > zero).double() + 0.5 * (one[:, None] == zero).double()
    return above.mean().item()


def learned(network: Network, toy: Toy, seed: int) -> dict[str, float]:
    """`ranking` by both features and by each alone."""
    values = {BOTH: ranking(network, toy.x, toy.y)}
    for feature, name in enumerate(toy.names):
        anew, held = toy.without(1 - feature, seed), toy.held(1 - feature)
        for way, x in (("drawn anew", anew), ("held", held)):
            values[f"{name}, {WAYS[way]}"] = ranking(network, x, toy.y)
    return values


@dataclass
class Experiment:
    """Networks of both arms, trained on one toy under the same seeds."""

    toy: Toy
    networks: dict[str, list[Network]]
    values: dict[str, dict[str, list[float]]]  # arm -> what -> one for each run

    def results(self, name: str, settings: dict, **how) -> Iterator[Result]:
        """How well each network ranks the classes by the feature that is learned late."""
        late = self.toy.names[self.toy.late]
        for arm, (way, what) in itertools.product(self.values, WAYS.items()):
            about = settings | {"arm": arm, "other": way}
            on = (f"Network({WIDTH})", f"{name}: {late}", "starvation", "auc")
            for seed, value in enumerate(self.values[arm][f"{late}, {what}"]):
                yield Result(*on, value, seed, about, **how)

    def table(self) -> list[str]:
        """Markdown: means in percent, and what VCR adds, paired by seed."""
        lines = ["| area under ROC (%) by | control | VCR | VCR - control [95 %] |"]
        lines.append("| --- | ---: | ---: | ---: |")
        for what in self.values["vcr"]:
            control, vcr = (self.values[arm][what] for arm in ARMS)
            gain = paired(v - c for v, c in zip(vcr, control, strict=True)).scaled(100)
            means = " | ".join(f"{100 * fmean(values):.1f}" for values in (control, vcr))
            lines.append(f"| {what} | {means} | {gain:.1f} |")
        return lines


def experiment(toy: Toy, test: Toy, alpha: float, beta: float, runs: int, steps: int) -> Experiment:
    """Both arms on one toy, `runs` networks each, tested on points of their own.

    Raises:
        ValueError: for no runs.
    """
    if runs < 1:
        raise ValueError(f"runs={runs}: train one network of each arm at least")
    networks, values = {}, {}
    for arm in ARMS:
        weights = (alpha, beta) if arm == "vcr" else (0.0, 0.0)
        networks[arm] = [trained(toy, *weights, seed, steps) for seed in range(runs)]
        found = [learned(network, test, seed) for seed, network in enumerate(networks[arm])]
        values[arm] = {what: [row[what] for row in found] for what in found[0]}
    return Experiment(toy, networks, values)


def report(
    out: str | Path,
    *,
    runs: int = 10,
    alpha: float = 0.0,
    beta: float = 10.0,
    data: str = "fmnist",
) -> str:
    """Both toys, both arms: a picture, JSON, results and Markdown in a folder, and the Markdown.

    Raises:
        ValueError: for no runs, or a data set without the classes.
    """
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    toys = {
        "moons": (moons(), moons(seed=1)),
        "pairs": (pairs(load(data, "train")), pairs(load(data, "validation"), 1000, seed=1)),
    }
    steps = {"moons": STEPS, "pairs": STEPS // 2}
    found = {name: experiment(*both, alpha, beta, runs, steps[name]) for name, both in toys.items()}
    save(draw(found), folder / "starvation.png")
    settings = {"runs": runs, "alpha": alpha, "beta": beta, "data": data, "steps": steps}
    command = f"vcr-zoo starvation --out {out} --runs {runs} --alpha {alpha:g} --beta {beta:g}"
    command += f" --data {data}"
    record = {"command": command, "settings": settings, "versions": versions()}
    record |= {name: one.values for name, one in found.items()}
    (folder / "starvation.json").write_text(json.dumps(record, indent=1) + "\n")
    how = {"command": command, "versions": record["versions"]}
    rows = [
        row
        for name in toys
        for row in found[name].results(name, {"alpha": alpha, "beta": beta, "data": data}, **how)
    ]
    (folder / RESULTS).write_text("".join(json.dumps(asdict(row)) + "\n" for row in rows))
    lines = ["# Gradient starvation", "", f"{runs} networks of each arm, `{command}`", ""]
    for name, one in found.items():
        lines += [f"## {name}", "", *one.table(), ""]
    lines += ["![decision boundaries](starvation.png)", ""]
    text = "\n".join(lines)
    (folder / "starvation.md").write_text(text)
    return text


def draw(found: dict[str, Experiment]) -> Figure:
    """Decision boundaries in the plane of both features: toys by rows, arms by columns."""
    figure, panels = plt.subplots(
        len(found), 2, figsize=(9.5, 4.3 * len(found) + 0.6), layout="constrained", squeeze=False
    )
    shades = None
    for row, (name, one) in zip(panels, found.items(), strict=True):
        for axes, arm in zip(row, ARMS, strict=True):
            shades = boundaries(axes, one, arm)
            axes.set_title(f"{name}, {'VCR' if arm == 'vcr' else arm}", fontsize=11)
    figure.colorbar(shades, ax=panels, shrink=0.6, label="probability of class 1, mean over runs")
    entries = [handle for axes in panels[0] for handle in axes.get_legend_handles_labels()[0]]
    named = {handle.get_label(): handle for handle in entries}
    figure.legend(named.values(), named, loc="outside upper center", ncols=3, fontsize=9)
    return figure


def boundaries(axes, one: Experiment, arm: str):
    """One panel: mean probability in gray, each run's boundary thin and the mean's thick."""
    x, y = coordinates(one.toy), one.toy.y
    low, high = x.amin(dim=0) - 0.3, x.amax(dim=0) + 0.3
    across, up = (torch.linspace(low[i], high[i], 121) for i in (0, 1))
    maps = torch.stack([plane(network, one.toy, across, up) for network in one.networks[arm]])
    mean = maps.mean(dim=0)
    shades = axes.pcolormesh(
        across.numpy(),
        up.numpy(),
        mean.numpy(),
        cmap="Greys",
        vmin=0,
        vmax=1,
        alpha=0.45,
        rasterized=True,
    )
    for label, marker in ((0, "o"), (1, "x")):
        own = x[y == label][:200]
        face = {"facecolors": "white", "edgecolors": "black"} if label == 0 else {"c": "black"}
        axes.scatter(
            *own.T.numpy(), s=14, marker=marker, linewidths=0.8, label=f"class {label}", **face
        )
    color = STYLES[arm]["color"]
    for probability in maps:
        axes.contour(
            across.numpy(),
            up.numpy(),
            probability.numpy(),
            levels=[0.5],
            colors=color,
            linewidths=0.7,
        )
    axes.contour(
        across.numpy(), up.numpy(), mean.numpy(), levels=[0.5], colors=color, linewidths=2.5
    )
    name = "VCR" if arm == "vcr" else arm
    axes.plot([], [], color=color, linewidth=2.5, label=f"{name}: boundary of the mean")
    axes.plot([], [], color=color, linewidth=0.7, label=f"{name}: of each run")
    unit = "" if one.toy.x.shape[2] == 1 else " (class means at -1 and 1)"
    axes.set(xlabel=one.toy.names[0] + unit, ylabel=one.toy.names[1] + unit)
    return shades


def coordinates(toy: Toy) -> Tensor:
    """Each point in the plane of both features: (n, 2)."""
    if toy.x.shape[2] == 1:
        return toy.x[:, :, 0]
    middle, half = toy.axes()
    return ((toy.x - middle) * half).sum(dim=2) / half.square().sum(dim=1)


@torch.no_grad()
def plane(network: Network, toy: Toy, across: Tensor, up: Tensor) -> Tensor:
    """Probability of class 1 over the plane of both features: (up, across).

    For pictures the plane runs through the class means of both halves.
    """
    grid = torch.cartesian_prod(up, across).flip(1)[:, :, None]  # (m, 2, 1)
    if toy.x.shape[2] > 1:
        middle, half = toy.axes()
        grid = middle + grid * half
    return network(grid)[0].sigmoid().view(len(up), len(across))
