"""`vcr-zoo inspect`: names of networks and of pictures to a folder with a report."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from .inspect import compare, inspect, network, passes, pictures
from .report import write


def inspected(
    names: Sequence[str],
    data: str,
    split: str,
    level: str,
    limit: int,
    out: str | Path,
    *,
    seed: int = 0,
    **options,
) -> list[Path]:
    """Inspect one network, or one against its control, and write what was found into a folder.

    Args:
        options: of `inspect`.

    Raises:
        LookupError: for a network, a layer or a data set that does not exist.
        ValueError: for no pictures, or features that are not finite.
    """
    networks = [network(name) for name in names]
    found = []
    for name, model in zip(names, networks, strict=True):
        images = pictures(data, split, level, model, limit, seed)
        total = passes(len(images), **options)
        with tqdm(total=total, desc=name, unit="picture", file=sys.stderr) as bar:
            found.append(inspect(model, images, name=name, seed=seed, watch=bar.update, **options))
    command = ["vcr-zoo", "inspect", names[0], *(["--against", names[1]] if names[1:] else [])]
    command += ["--data", data, "--split", split, "--level", level, "--out", str(out)]
    command += ["--pictures", str(limit), "--seed", str(seed)]
    for key, value in options.items():
        command += [f"--{key.replace('_', '-')}", str(value)]
    about = {"data": data, "split": split, "level": level, "seed": seed}
    about |= {"settings": options, "command": shlex.join(command)}
    about["fingerprint"] = getattr(images, "fingerprint", "")
    return write(out, found, compare(found[0], found[-1]), about)
