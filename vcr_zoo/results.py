"""One number and how to get it again, and the interval around several of them."""

import difflib
import json
import math
import os
import platform
import re
import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, fields
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import torch


@dataclass(frozen=True)
class Result:
    """One measured number, with enough beside it to measure it again.

    `value` is in the metric's own unit; accuracies are shares between 0 and 1.
    """

    model: str  # a name that timm.create_model takes, or a text that names several
    data: str
    protocol: str
    metric: str
    value: float
    seed: int = 0
    settings: dict = field(default_factory=dict)  # of the protocol
    weights: str = ""  # sha256 of the model's weights
    network: str = ""  # sha256 of its architecture and of how it wants pictures prepared
    fingerprint: str = ""  # sha256 of the data
    versions: dict = field(default_factory=dict)  # package: version
    command: str = ""  # gives the value again

    def cell(self) -> str:
        """What was measured, without what came out: two results of one cell are the same number."""
        record = asdict(self)
        for outcome in ("value", "versions", "command"):
            del record[outcome]
        return json.dumps(record, sort_keys=True)


def key_of(settings: dict, *without: str) -> str:
    """Settings as one string, but for some of them: equal where they are."""
    return json.dumps({k: v for k, v in settings.items() if k not in without}, sort_keys=True)


def append(path: str | Path, *results: Result) -> None:
    """Add a line for each to a jsonl file, in a single write: processes can share the file, and
    what is interrupted leaves all of them or none.

    Raises:
        OSError: if there is no space for all.
        ValueError: for a result that `read` would refuse, as one that is not a number.
    """
    lines = "".join(json.dumps(asdict(checked(r)), sort_keys=True) + "\n" for r in results).encode()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        written = os.write(handle, lines)
        if written < len(lines):
            os.ftruncate(handle, os.fstat(handle).st_size - written)
            raise OSError(f"{path}: there is no space left for more results")
    finally:
        os.close(handle)


def read(path: str | Path) -> list[Result]:
    """Every result in a jsonl file, oldest first; an absent file holds none.

    Raises:
        ValueError: for a line that is not a result, naming the file and the line.
    """
    if not Path(path).exists():
        return []
    known = {f.name for f in fields(Result)}
    results = []
    for number, line in enumerate(Path(path).read_text().splitlines(), start=1):
        try:
            record = json.loads(line)
            if unknown := set(record) - known:
                raise ValueError(f"unknown fields {sorted(unknown)}")
            results.append(checked(Result(**record)))
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"{path}, line {number} is not a result: {error}. If writing was cut short there, "
                "remove the line; what it held is measured again"
            ) from None
    return results


def checked(result: Result) -> Result:
    """A result whose fields are what they should be, which no terminal takes for commands.

    Raises:
        ValueError: for one that is not.
    """
    for one in fields(Result):
        value, kind = getattr(result, one.name), TYPES[one.type]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"its {one.name} is {value!r}")
        if isinstance(value, str) and not value.isprintable():
            raise ValueError(f"its {one.name} has characters that cannot be printed")
    if not math.isfinite(result.value):
        raise ValueError(f"its value is {result.value}")
    return result


TYPES = {str: str, float: (float, int), int: int, dict: dict}


class Interval(NamedTuple):
    """A mean and its 95 % confidence interval; the bounds are NaN for a single value."""

    mean: float
    low: float
    high: float
    n: int

    def scaled(self, factor: float) -> "Interval":
        """The interval of the same differences in another unit."""
        return Interval(self.mean * factor, self.low * factor, self.high * factor, self.n)

    def among(self, number: int) -> "Interval":
        """The interval as wide as it has to be for `number` of its kind to hold together with 95 %
        confidence (Bonferroni)."""
        if self.n == 1:
            return self
        wider = student_quantile(self.n - 1, 1 - 0.05 / number) / student_quantile(self.n - 1)
        low, high = (self.mean + wider * (bound - self.mean) for bound in (self.low, self.high))
        return Interval(self.mean, low, high, self.n)

    def __format__(self, spec: str) -> str:
        """Mean and bounds with their signs, each in `spec` (default .2f)."""
        mean, low, high = (format(value, f"+{spec or '.2f'}") for value in self[:3])
        return f"{mean} [{low}, {high}]" if self.n > 1 else mean

    def __str__(self) -> str:
        return format(self)


def paired(differences: Iterable[float]) -> Interval:
    """Mean of paired differences with Student's 95 % interval.

    Raises:
        ValueError: for no differences at all.
    """
    values = [float(value) for value in differences]
    if not values:
        raise ValueError("no paired differences: give at least one pair of results")
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Interval(mean, math.nan, math.nan, 1)
    half = student_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half, len(values))


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of packages, those that decide a number if none is named."""
    names = packages or ("vcr_zoo", "torch", "torchvision", "timm")
    return {name: metadata.version(name) for name in names}


def hardware(device: str = "") -> str:
    """What a number was measured on, as its card states it: a GPU if there is one, unless the
    device is known to be another."""
    if torch.cuda.is_available() and device in ("", "cuda"):
        return torch.cuda.get_device_name()
    name, info = platform.machine(), Path("/proc/cpuinfo")
    if info.exists():
        models = re.findall(r"^model name\s*: (.+)$", info.read_text(), re.MULTILINE)
        name = models[0] if models else name
    return f"{name}, {torch.get_num_threads()} of {os.cpu_count()} cores"


def student_quantile(freedom: int, confidence: float = 0.95) -> float:
    """The t with P(|T| <= t) = confidence for Student's T with `freedom` degrees of freedom."""
    low, high = 0.0, 1e4
    while high - low > 1e-9 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _student_mass(middle, freedom) < confidence else (low, middle)
    return high


def _student_mass(t: float, freedom: int) -> float:
    """P(|T| <= t), the finite series of Abramowitz and Stegun 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    cosine, sine = math.cos(angle), math.sin(angle)
    odd = freedom % 2
    term = total = cosine if odd else 1.0
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    if not odd:
        return sine * total
    return 2 / math.pi * (angle + (sine * total if freedom > 1 else 0.0))


def closest(name: str, options: Iterable[str]) -> str:
    """' Closest: a, b, c.' for an error message, or nothing where no option comes near."""
    matches = difflib.get_close_matches(name, list(options), n=3, cutoff=0.5)
    return f" Closest: {', '.join(matches)}." if matches else ""


def closest_path(path: str | Path, kind: Callable[[Path], bool]) -> str:
    """The same for a path, out of what lies beside it and is of the kind: Path.is_dir, for one."""
    place = Path(path).expanduser()
    beside = place.parent.iterdir() if place.parent.is_dir() else []
    return closest(str(place), [str(other) for other in beside if kind(other)])
