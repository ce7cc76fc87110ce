"""`vcr-zoo inspect`: names of networks and of pictures to a folder with a report."""

import hashlib
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryFile

from torchvision.datasets import ImageFolder
from tqdm import tqdm

from vcr_zoo.features import load_model

from .inspect import compare, inspect, passes, pictures
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
        OSError: for a folder that cannot be written to, before anything is measured.
        ValueError: for fewer than two pictures, or features that are not finite.
    """
    writable(out)
    networks = [load_model(name) for name in names]
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
    whole = getattr(images, "root", None) == str(Path(data).expanduser())  # a folder without parts
    about = {"data": data, "split": "all of it" if whole else split, "level": level, "seed": seed}
    about |= {"settings": options, "command": shlex.join(command)}
    about["fingerprint"] = getattr(images, "fingerprint", "") or fingerprint(images)
    return write(out, found, compare(found[0], found[-1]), about)


def fingerprint(images: ImageFolder) -> str:
    """sha256 of a folder's pictures, in order, with their classes."""
    digest = hashlib.sha256()
    for path, label in images.samples:
        content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        digest.update(f"{images.classes[label]} {content}\n".encode())
    return digest.hexdigest()


def writable(folder: str | Path) -> None:
    """Make a folder and a file in it, and take away what was not there before.

    Raises:
        OSError: which names the folder, if that is not possible.
    """
    folder = Path(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
    except OSError as error:
        why = error.strerror or error
        raise OSError(
            f"--out {folder} cannot be written to ({why}): name another folder"
        ) from error
    finally:
        for path in made:
            if path.is_dir():
                path.rmdir()
