"""The whole path in a few minutes: a control and a VCR network on Fashion-MNIST, compared.

Both are trained on four super-classes (tops, trousers, footwear, bags) by the same recipe and
seeds. What they keep beyond those four is then measured: the ten real classes, silhouettes of
animals, and the spectrum of their features.
"""

import hashlib
import json
from argparse import Namespace
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from vcr_zoo import data
from vcr_zoo.data import Images
from vcr_zoo.diagnostics.spectrum import correlation, effective_rank, spectrum
from vcr_zoo.diagnostics.style import STYLES, plt
from vcr_zoo.features import Features, features
from vcr_zoo.results import Interval, Result, append, paired, read, versions
from vcr_zoo.training import Run, parse, train
from vcr_zoo.training.options import as_yaml
from vcr_zoo.transfer.fewshot import fewshot
from vcr_zoo.transfer.probe import probe

CONTROL, VCR = "test_resnet.base_fmnist4", "test_resnet.vcr_fmnist4"
SHORT = ("--epochs", "4", "--val-interval", "4")  # a fifth of their recipes'
STRENGTHS = (1e-3, 1e-2, 1e-1, 1.0)  # values of C that the probe chooses from
PICTURES = 5_000  # that a probe is fitted on
SHOTS, DRAWS = 5, 10
TRAINING = 0.6  # share of a network's time that goes into training it, for the bar
MEASURED = "measured.safetensors"  # in a run's folder: what came out, and of what
BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"
ROWS = {  # metric: what the table calls it, digits, factor
    "source": ("source accuracy, 4 super-classes (%)", ".2f", 100),
    "subclasses": ("probe of the 10 classes (%)", ".2f", 100),
    "fewshot": (f"{SHOTS} pictures of each of the 10 classes (%)", ".2f", 100),
    "silhouettes": ("probe of silhouettes, 10 animals (%)", ".2f", 100),
    "effective_rank": ("effective rank of the features", ".1f", 1),
    "correlation": ("mean off-diagonal correlation", ".3f", 1),
}


@dataclass
class Demo:
    """What was measured: metric -> name -> one value for each seed; and spectra likewise."""

    folder: Path
    values: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    spectra: dict[str, list[Tensor]] = field(default_factory=dict)

    @property
    def seeds(self) -> int:
        """Pairs that were measured."""
        return len(self.spectra[VCR])

    def difference(self, metric: str) -> Interval:
        """VCR less control, paired by seed."""
        both = self.values[metric]
        return paired(v - c for v, c in zip(both[VCR], both[CONTROL], strict=True))

    def table(self) -> str:
        """Means over seeds and paired differences, as Markdown."""
        interval = " [95 %]" if self.seeds > 1 else ""
        lines = [f"| | control | VCR | VCR - control{interval} |", "| --- | ---: | ---: | ---: |"]
        for metric, both in self.values.items():
            label, digits, factor = ROWS[metric]
            means = [f"{factor * fmean(both[name]):{digits}}" for name in (CONTROL, VCR)]
            gain = self.difference(metric).scaled(factor)
            lines.append(f"| {label} | {means[0]} | {means[1]} | {gain:{digits}} |")
        return "\n".join(lines)


def demo(
    folder: Path,
    *,
    seeds: int = 3,
    data_folder: Path | None = None,
    options: Sequence[str] = (),
    tell: Callable[[str], None] = print,
) -> Demo:
    """Train a control and a VCR network for each seed and compare what their features know.

    Networks that an earlier demo trained and measured in the same way are not trained again.

    Args:
        folder: receives a run folder for each network, without checkpoints, results.jsonl and
            spectra.png.
        seeds: pairs to train.
        data_folder: where Fashion-MNIST lies, if it is not to be fetched.
        options: of training, over those of the recipes, of whose epochs a fifth are trained.
        tell: receives lines worth reading; a bar on standard error shows progress.

    Raises:
        OSError: if Fashion-MNIST is not here and no route leads to it, or the folder holds results
            of something else.
        ValueError: for no pairs at all.
    """
    if seeds < 1:
        raise ValueError(f"seeds={seeds}: at least one pair must be trained")
    if any(result.protocol != "demo" for result in read(folder / "results.jsonl")):
        raise FileExistsError(f"{folder} holds results of no demo: choose another --output")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot write to {folder} ({error}): choose another --output") from None
    sets = parts(data_folder, tell)
    (folder / "results.jsonl").unlink(missing_ok=True)
    options = [*options, *(("--data-dir", str(data_folder)) if data_folder else ())]
    pairs = [(name, seed) for seed in range(seeds) for name in (CONTROL, VCR)]
    wanted = {pair: arguments(*pair, folder, options) for pair in pairs}
    known = {pair: earlier(args, sets) for pair, args in wanted.items()}
    if count := sum(found is not None for found in known.values()):
        tell(
            f"{count} of {len(pairs)} networks are kept from before; remove {folder} to begin anew"
        )
    found = Demo(folder)
    with tqdm(total=len(pairs), unit="network", bar_format=BAR) as bar:
        for done, (name, seed) in enumerate(pairs):
            args = wanted[name, seed]
            measured, eigenvalues = known[name, seed] or train_and_measure(args, sets, bar)
            bar.n = done + 1
            found.spectra.setdefault(name, []).append(eigenvalues)
            for metric, value in measured.items():
                found.values.setdefault(metric, {}).setdefault(name, []).append(value)
                result = record(run_folder(args), name, seed, metric, value, sets)
                append(folder / "results.jsonl", result)
        bar.set_description_str("done")
    draw(found.spectra, folder / "spectra.png")
    return found


def parts(data_folder: Path | None, tell: Callable[[str], None]) -> dict[str, tuple[Images, ...]]:
    """Train, validation and test pictures of every data set that can be had, and the 4 classes."""
    coarse = data.load_test("fmnist", level="coarse", folder=data_folder)
    sets = {"source": (coarse,), "subclasses": three("fmnist", data_folder)}
    try:
        sets["silhouettes"] = three("silhouettes", None)
    except OSError as error:
        reason = " ".join(line.strip() for line in str(error).splitlines())
        tell(f"silhouettes are left out: {reason}")
    return sets


def three(name: str, folder: Path | None) -> tuple[Images, Images, Images]:
    """A part to fit on, of PICTURES at most, one to choose C with, and the test part."""
    train = data.load(name, "train", folder=folder)
    shuffled = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))
    train = train.subset(shuffled[:PICTURES])
    return train, data.load(name, "validation", folder=folder), data.load_test(name, folder=folder)


def arguments(name: str, seed: int, folder: Path, options: Sequence[str]) -> Namespace:
    """What a network is trained with: its recipe, shortened, its seed and a folder of its own."""
    own = ["--recipe", name, *SHORT, "--seed", str(seed), "--experiment", f"{name}-seed{seed}"]
    return parse([*own, "--output", str(folder), "--overwrite", *options])


def run_folder(args: Namespace) -> Path:
    return Path(args.output) / args.experiment


def key(args: Namespace, sets: dict[str, tuple[Images, ...]]) -> str:
    """What decides the values of one network; others that say the same are the same."""
    weights = hashlib.sha256((run_folder(args) / "model.safetensors").read_bytes()).hexdigest()
    prints = [part.fingerprint for name in sorted(sets) for part in sets[name]]
    settings = [STRENGTHS, PICTURES, SHOTS, DRAWS, versions()]
    return json.dumps([weights, as_yaml(args), prints, settings])


def earlier(args: Namespace, sets) -> tuple[dict[str, float], Tensor] | None:
    """What an earlier demo measured of a network, if it was trained and measured in this way."""
    try:
        with safe_open(run_folder(args) / MEASURED, framework="pt") as file:
            if file.metadata()["key"] == key(args, sets):
                return json.loads(file.metadata()["values"]), file.get_tensor("spectrum")
    except (OSError, SafetensorError):
        pass  # not there, or of a demo that was killed: trained anew
    return None


def train_and_measure(args: Namespace, sets, bar: tqdm) -> tuple[dict[str, float], Tensor]:
    """`measure` a network trained for it, moving the bar by one; checkpoints are removed."""
    before = bar.n

    def training(description: str, done: int, total: int) -> None:
        bar.n = before + TRAINING * done / total
        bar.set_description_str(f"training {description}")

    def measuring(done: int, total: int) -> None:
        bar.n = before + TRAINING + (1 - TRAINING) * done / total
        bar.set_description_str(f"measuring {args.experiment}")

    run = train(copy(args), training)  # it fills in what was left open
    for checkpoint in run.folder.glob("*.pth.tar"):  # three times the weights each, many times
        checkpoint.unlink()
    values, eigenvalues = measure(run, sets, measuring)
    kept = {"key": key(args, sets), "values": json.dumps(values)}
    save_file({"spectrum": eigenvalues.contiguous()}, run.folder / MEASURED, kept)
    return values, eigenvalues


def measure(
    run: Run,
    sets: dict[str, tuple[Images, ...]],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[str, float], Tensor]:
    """Every metric of ROWS for one network, and its features' spectrum on the test pictures."""
    total, done = sum(map(len, sets.values())) + 2 + ("silhouettes" in sets), 0
    progress(0, total)

    def step(value):
        nonlocal done
        progress(done := done + 1, total)
        return value

    known = {name: [step(features(run.model, part)) for part in sets[name]] for name in sets}
    fit, validation, test = known["subclasses"]
    eigenvalues = spectrum(test.x)
    values = {
        "source": source_accuracy(run, known["source"][0]),
        "subclasses": step(probe(fit, validation, test, strengths=STRENGTHS)["top1"]),
        "fewshot": step(
            fewshot(fit, validation, test, shots=(SHOTS,), draws=DRAWS)[f"{SHOTS}-shot"]
        ),
    }
    if "silhouettes" in known:
        values["silhouettes"] = step(probe(*known["silhouettes"], strengths=STRENGTHS)["top1"])
    values |= {"effective_rank": effective_rank(eigenvalues), "correlation": correlation(test.x)}
    return values, eigenvalues


@torch.inference_mode()
def source_accuracy(run: Run, test: Features) -> float:
    """Share of test pictures that the trained classifier itself gets right."""
    scores = run.model.get_classifier()(test.x)
    return (scores.argmax(dim=1) == test.y).double().mean().item()


def record(folder: Path, name: str, seed: int, metric: str, value: float, sets) -> Result:
    """One number of the table with how to get it again; `folder` is the network's."""
    kind = metric if metric in sets else "subclasses"
    images = sets[kind][-1]
    return Result(
        model=name,
        data=images.name,
        protocol="demo",
        metric=metric,
        value=value,
        seed=seed,
        settings={"pictures": PICTURES, "strengths": STRENGTHS, "shots": SHOTS, "draws": DRAWS},
        weights=hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        fingerprint=images.fingerprint,
        versions=versions(),
        command=f"vcr-zoo demo --seeds {seed + 1}",
    )


def draw(spectra: dict[str, list[Tensor]], path: Path) -> None:
    """Both covariance spectra on one axis: a line for each name, a band over its seeds."""
    figure, axes = plt.subplots(figsize=(6.4, 4), layout="constrained")
    for name, style in ((CONTROL, STYLES["control"]), (VCR, STYLES["vcr"])):
        shares = torch.stack([e / e.sum() for e in spectra[name]])
        seeds = "seed" if len(shares) == 1 else "seeds"
        index = range(1, shares.shape[1] + 1)
        axes.plot(index, shares.mean(dim=0), label=f"{name} ({len(shares)} {seeds})", **style)
        low, high = shares.amin(dim=0), shares.amax(dim=0)
        axes.fill_between(index, low, high, color=style["color"], alpha=0.25, linewidth=0)
    axes.set(
        yscale="log",
        xlabel="direction, by falling variance",
        ylabel="share of the features' variance",
        title="Covariance spectrum on Fashion-MNIST's test pictures",
    )
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)
