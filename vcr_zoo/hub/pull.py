"""Weights from the Hub, believed only after a look: nothing is executed, nothing overwritten."""

import json
import shutil
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError, safe_open

from vcr_zoo import zoo
from vcr_zoo.remote import REPOSITORY, download
from vcr_zoo.results import closest

from .release import CONFIG, WEIGHTS, as_json, config_of

OF_CREATION = {  # arguments of timm.create_model itself, which no architecture needs
    *("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict"),
    *("checkpoint_path", "cache_dir", "scriptable", "exportable", "no_jit", "model_name"),
}


def pull(name: str, to: Path | None = None, endpoint: str | None = None) -> Path:
    """The weights of this zoo by name, or of any repository as owner/name or owner/name@revision.

    Args:
        to: a folder to copy config.json and model.safetensors into, which timm then loads as
            local-dir:; files that are there already and differ are left alone.

    Returns:
        The file of weights, or `to`.

    Raises:
        LookupError: for a name without weights, or an architecture that timm has not.
        ValueError: for files that are not what they should be.
        OSError: if they cannot be had, or `to` holds other files.
    """
    if to is not None and to.is_file():
        raise FileExistsError(f"{to} is a file: name a folder to copy into")
    if "/" not in name:
        entries = zoo.manifest()
        if name not in entries:
            raise LookupError(f"no weights are called {name!r}.{closest(name, entries)}")
        weights = entries[name].verify()
        config = as_json(config_of(entries[name]))
    else:
        repo, _, revision = name.removeprefix("hf-hub:").partition("@")
        if not REPOSITORY.fullmatch(repo) or ".." in repo or ".." in revision:
            raise ValueError(f"{name!r} is no repository: owner/name, or owner/name@revision")
        config_file = download(repo, CONFIG, revision or "main", endpoint)
        pinned = revision or commit_of(config_file)
        weights = download(repo, WEIGHTS, pinned, endpoint)
        config = config_file.read_bytes()
    check(config, weights)
    if to is None:
        return weights
    put(to, {CONFIG: config, WEIGHTS: weights.read_bytes()})
    return to


def commit_of(cached: Path) -> str:
    """The commit that a file of the cache belongs to: .../snapshots/COMMIT/file."""
    return cached.parent.name


def check(config: bytes, weights: Path) -> None:
    """Refuse what timm should not be given: see `pull`."""
    try:
        known = json.loads(config)
        architecture, cfg = known["architecture"], known["pretrained_cfg"]
        own = dict(known.get("model_args") or {})
        kwargs = {"num_classes": known.get("num_classes"), **own}
        elsewhere = (*zoo.SOURCES, "hf_hub_filename", "source", "custom_load")
        foreign = [key for key in elsewhere if cfg.get(key) or known.get(key)]
        foreign += [f"model_args {key}" for key in own if key in OF_CREATION]
        size = tuple(cfg.get("input_size", (3, 1, 1)))
        sound = len(size) == 3 and all(type(n) is int and n > 0 for n in size)
        numbers = [value for key in ("mean", "std") for value in cfg.get(key, ())]
        if not sound or any(type(value) not in (int, float) for value in numbers):
            raise ValueError("input_size, mean and std are not numbers of channels and pixels")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{CONFIG} is not a timm configuration: {error!r}") from None
    if not isinstance(architecture, str) or not timm.is_model(architecture):
        near = closest(str(architecture), timm.list_models())
        raise LookupError(f"{CONFIG} names {str(architecture)[:80]!r}, which timm has not.{near}")
    if foreign:
        raise ValueError(f"{CONFIG} would load other files, by {', '.join(foreign)}")
    shapes = shapes_of(weights)
    largest = max(1024, len(shapes), *(n for shape in shapes.values() for n in shape))
    if huge := [f"{key}={value}" for key, value in kwargs.items() if exceeds(value, largest)]:
        raise ValueError(f"{CONFIG} asks for more than {WEIGHTS} holds: {', '.join(huge)[:200]}")
    with torch.device("meta"):
        try:
            model = timm.create_model(architecture, pretrained=False, **kwargs)
        except Exception as error:  # whatever an architecture makes of strange arguments
            raise ValueError(
                f"{CONFIG}'s arguments do not fit {architecture}: {type(error).__name__}: {error}"
            ) from None
    wanted = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    if wrong := sorted(key for key in {*wanted, *shapes} if wanted.get(key) != shapes.get(key)):
        raise ValueError(f"{WEIGHTS} does not fit {architecture}: {', '.join(wrong[:5])}")


def exceeds(value, largest: int) -> bool:
    """Whether there is a number beyond a limit anywhere in a value of JSON."""
    if isinstance(value, dict | list):
        parts = value.values() if isinstance(value, dict) else value
        return any(exceeds(part, largest) for part in parts)
    return isinstance(value, int | float) and not abs(value) <= largest


def shapes_of(weights: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor; the header and its offsets are checked, no tensor is read.

    Raises:
        ValueError: if it is not safetensors: a pickle, a header that lies, tensors that overlap.
    """
    try:
        with safe_open(weights, framework="pt") as file:
            return {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{weights.name} is not a whole safetensors file: {error}") from None


def put(folder: Path, files: dict[str, bytes]) -> None:
    """Write files into a folder, all or none; equal ones may be there.

    Raises:
        FileExistsError: if another file of that name is there.
    """
    for name, content in files.items():
        path = folder / name
        if path.exists() and path.read_bytes() != content:
            raise FileExistsError(f"{path} is there and differs: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder).free < sum(map(len, files.values())):
        raise OSError(f"{folder} has no room for {sum(map(len, files.values())):,} bytes")
    for name, content in files.items():
        zoo.replaced(folder / name, content)
