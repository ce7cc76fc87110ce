"""What a frozen network says about pictures: Features, computed once and kept on disk."""

import argparse
import contextlib
import copy
import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from timm.data import create_loader, resolve_input_data_config, resolve_model_data_config
from timm.models import load_checkpoint
from torch import Tensor, nn

from vcr_zoo.data import Batches, Images, baseline
from vcr_zoo.data.cache import lock
from vcr_zoo.data.weights import BASELINES
from vcr_zoo.placement import find
from vcr_zoo.results import closest, closest_path, versions


@dataclass(frozen=True)
class Features:
    """One row per picture: x (n, d) float32, y (n,) int64, an index into `classes`."""

    x: Tensor
    y: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.y)

    def subset(self, indices: Tensor) -> "Features":
        """The rows at `indices`, with all classes kept."""
        return Features(self.x[indices], self.y[indices], self.classes)

    def to(self, device: str | torch.device) -> "Features":
        return Features(self.x.to(device), self.y.to(device), self.classes)


def features(
    model: nn.Module,
    images: torch.utils.data.Dataset,
    *,
    placement: str = "pooled",
    batch_size: int = 256,
    device: str | torch.device | None = None,
    cache: str | Path | None = None,
) -> Features:
    """Features of a frozen network for every picture, in order.

    Args:
        model: any timm network; it keeps its mode, and moves to `device` if one is given.
        images: `vcr_zoo.data.Images`, or any data set that timm's loader takes (of PIL images and
            labels, with a `transform` attribute), prepared as the model's own configuration says:
            size, mean, std, interpolation and crop (see `batches`).
        placement: "pooled", the vector that enters the classifier; or "blocks", "stages" or module
            names as for training, each averaged over positions, side by side.
        cache: a folder in which to keep them, memory-mapped when they are read again. Only for
            `Images`, whose fingerprint is part of the key.

    Raises:
        ValueError: for no pictures, or features that are not finite.
    """
    if len(images) == 0:
        split = getattr(images, "split", None)
        which = f": the {split} split of {images.name} is empty; add pictures" if split else ""
        raise ValueError(f"no pictures to compute features of{which}")
    asked = (model, images, placement, batch_size, device)
    if cache is None or not hasattr(images, "fingerprint"):
        return compute(*asked)
    key = cache_key(model, images, placement, device)
    folder = Path(cache).expanduser()
    path = folder / f"{key}.safetensors"
    with contextlib.ExitStack() as held:
        ours = True
        try:
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(lock(folder / f".{key[:2]}.lock"))  # who asks for the same waits
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            ours = False  # others' cache, to be read and no more
        if path.exists():
            with contextlib.suppress(SafetensorError):  # damaged: computed again
                return read(path)
        found = compute(*asked)
        if not ours:
            return found
        write(path, found)
    return read(path)


def compute(
    model: nn.Module,
    images: torch.utils.data.Dataset,
    placement: str,
    batch_size: int,
    device: str | torch.device | None,
) -> Features:
    """`features` without the cache."""
    device = device_of(model, device)
    rows, labels = [], []
    with evaluating(model.to(device)), embedding(model, placement) as embed, autocast(device):
        for x, y in batches(model, images, batch_size, device):
            rows.append(embed(x.to(device)).float().cpu())
            labels.append(y.cpu())
    x, y = torch.cat(rows), torch.cat(labels).long()
    if not x.isfinite().all():
        bad = int((~x.isfinite()).any(dim=1).sum())
        raise ValueError(
            f"{bad} of {len(x)} pictures have features that are not finite: the weights may be "
            "damaged, or the pictures normalized for another network"
        )
    names = getattr(images, "classes", None) or [str(i) for i in range(int(y.max()) + 1)]
    return Features(x, y, tuple(names))


def device_of(model: nn.Module, device: str | torch.device | None) -> torch.device:
    """The one asked for, or else where the network is."""
    return torch.device(device or next(model.parameters()).device)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients, and then the mode that was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def autocast(device: torch.device) -> contextlib.AbstractContextManager:
    """bfloat16 products on a GPU; float32 elsewhere."""
    if device.type == "cpu":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


@contextlib.contextmanager
def embedding(model: nn.Module, placement: str):
    """A function from a batch of images to features (b, d)."""
    if placement == "pooled" and hasattr(model, "forward_head"):
        yield lambda x: model.forward_head(model.forward_features(x), pre_logits=True)
        return
    caught = {}
    places = find(model, placement)
    with contextlib.ExitStack() as hooks:
        for place in places:
            hooks.callback(watch(model.get_submodule(place.name), place, caught).remove)

        def embed(x: Tensor) -> Tensor:
            model(x)
            return torch.cat([caught[place] for place in places], dim=1)

        yield embed


def watch(module: nn.Module, place, caught: dict):
    """A hook that keeps what passes at a placement, averaged over positions: (b, width)."""

    def keep(_, inputs, output=None) -> None:
        value = inputs if place.side == "input" else output
        if isinstance(value, (tuple, list)):
            value = value[place.item or 0]
        caught[place] = value.movedim(place.dim, 1).flatten(2).mean(2) if value.ndim > 2 else value

    if place.side == "input":
        return module.register_forward_pre_hook(keep)
    return module.register_forward_hook(keep)


def batches(
    model: nn.Module, images: torch.utils.data.Dataset, batch_size: int, device: torch.device
):
    """Images prepared as the model's configuration says, with their labels, in order.

    What is bilinear and crops nothing goes whole batches at a time; anything else as timm does it.
    """
    config = data_config(model)
    if isinstance(images, Images):
        if config["interpolation"] == "bilinear" and config["crop_pct"] == 1:
            wanted = {key: config[key] for key in ("input_size", "mean", "std")}
            return Batches(images, batch_size, **wanted, device=device)
        images = copy.copy(images)  # the loader sets its transform
        images.mode = "L" if config["input_size"][0] == 1 else "RGB"
    config = {key: config[key] for key in LOADER_KEYS}
    return create_loader(
        images, batch_size=batch_size, num_workers=0, use_prefetcher=False, device=device, **config
    )


LOADER_KEYS = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")


def data_config(model: nn.Module) -> dict:
    """timm's data configuration of a model, with as many channels as the model really takes."""
    config = resolve_model_data_config(model)
    channels = getattr(model, "in_chans", None) or config["input_size"][0]
    config["input_size"] = (channels, *config["input_size"][1:])
    for key in ("mean", "std"):
        values = tuple(config[key])
        mean = sum(values) / len(values)
        config[key] = values if len(values) == channels else (mean,) * channels
    return config


def resized(model: nn.Module, input_size: Sequence[int] | None) -> nn.Module:
    """The same network, for pictures of another size (channels, height, width); None: as it is."""
    if input_size is None:
        return model
    view = copy.copy(model)
    view.pretrained_cfg = {**model.pretrained_cfg, "input_size": tuple(input_size)}
    return view


def weights_sha256(model: nn.Module) -> str:
    """sha256 over the names, types and values of everything in the state dict."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def network_sha256(model: nn.Module) -> str:
    """sha256 of what features depend on beside the weights: architecture and preparation."""
    return json_sha256({"architecture": str(model), "config": data_config(model)})


def json_sha256(parts: dict) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def cache_key(model: nn.Module, images, placement: str, device: str | torch.device | None) -> str:
    """What the features depend on: weights, architecture, preparation, pictures, precision (see
    `autocast`), versions."""
    parts = {
        "weights": weights_sha256(model),
        "network": network_sha256(model),
        "images": images.fingerprint,
        "placement": placement,
        "device": device_of(model, device).type,
        "versions": versions(),
    }
    return json_sha256(parts)


def write(path: Path, found: Features) -> None:
    """Features as safetensors, complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    save_file({"x": found.x, "y": found.y}, partial, {"classes": json.dumps(found.classes)})
    partial.replace(path)


def read(path: Path) -> Features:
    """Features from `write`; the file is mapped, not read, until they are used."""
    with safe_open(path, framework="pt") as file:
        classes = tuple(json.loads(file.metadata()["classes"]))
        return Features(file.get_tensor("x"), file.get_tensor("y"), classes)


def load_model(name_or_path: str | Path, device: str | torch.device = "cpu") -> nn.Module:
    """A network with its weights, in evaluation mode.

    Takes a registered name, hf-hub:owner/name, local-dir:folder, a run's folder (or any with
    config.json and weights), a checkpoint file which says, itself or by args.yaml or config.json
    beside it, of which architecture it is, a baseline of `vcr_zoo.data.weights`, whose weights
    come as a package, or random:ARCHITECTURE, any of timm's with random weights, always the same.
    Of a training checkpoint the EMA weights.

    Raises:
        LookupError: for a name that is not registered, or that has no weights.
        ValueError: for a checkpoint whose architecture is not known, or is another, or a file
            that is damaged.
    """
    find_model(name_or_path)
    name, path = str(name_or_path), Path(name_or_path).expanduser()
    try:
        if path.is_file():
            model = from_checkpoint(path)
        elif name.startswith(RANDOM):
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(0)
                model = timm.create_model(name.removeprefix(RANDOM))
        elif name in BASELINES:
            model = timm.create_model(name)
            model.load_state_dict(baseline(name))
        else:
            name = f"local-dir:{path}" if path.is_dir() else name
            model = timm.create_model(name, pretrained=True)
    except SafetensorError as error:
        raise ValueError(f"the weights of {name} are damaged: {error}") from error
    return model.eval().to(device)


SCHEMES = ("hf-hub:", "hf_hub:", "local-dir:")
RANDOM = "random:"


def find_model(name_or_path: str | Path) -> None:
    """Refuse at once, without weights, what `load_model` would not find.

    Raises:
        LookupError: for a name that is not registered, or that has no weights.
    """
    name, path = str(name_or_path), Path(name_or_path).expanduser()
    if name.startswith(SCHEMES) or path.is_file() or name in BASELINES:
        return
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise LookupError(f"{path} holds no config.json: name a run's folder or a checkpoint")
        return
    if name.startswith(RANDOM):
        architecture = name.removeprefix(RANDOM)
        if not timm.is_model(architecture):
            near = closest(architecture, timm.list_models())
            raise LookupError(f"timm has no architecture {architecture!r}.{near}")
        return
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        known = {*timm.list_models(), *timm.list_pretrained()}
        near = closest_path(path, Path.is_dir) if "/" in name else closest(name, known)
        raise LookupError(f"no model and no file is called {name!r}.{near}")
    tagged = timm.list_pretrained(f"{architecture}.*")
    if name not in (architecture, *tagged) or not tagged:
        there = f" There are: {', '.join(tagged)}." if tagged else " Name a checkpoint instead."
        raise LookupError(f"no weights are called {name!r}.{closest(name, tagged)}{there}")


def from_checkpoint(path: Path) -> nn.Module:
    """A network from a file of weights."""
    if (path.parent / "config.json").is_file():
        model = timm.create_model(f"local-dir:{path.parent}", pretrained=False)
    else:
        args = arguments_of(path)
        kwargs = architecture_of(args)
        if not timm.is_model(kwargs["model_name"]):
            raise ValueError(
                f"{path} says that it is a {kwargs['model_name']!r}, which timm does not know."
                f"{closest(kwargs['model_name'], timm.list_models())}"
            )
        model = timm.create_model(**kwargs)
        model.pretrained_cfg = {**model.pretrained_cfg, **prepared(model, args, path)}
    try:
        load_checkpoint(model, str(path))
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit {type(model).__name__}: {error}") from error
    return model


def arguments_of(path: Path) -> dict:
    """What a training checkpoint was made with, from args.yaml beside it or from itself."""
    args = {}
    if (path.parent / "args.yaml").is_file():
        args = yaml.safe_load((path.parent / "args.yaml").read_text())
    if path.suffix != ".safetensors":
        stored = unpickled(path)
        kept = stored.get("args") or {"model": stored.get("arch")}
        args = args or (vars(kept) if isinstance(kept, argparse.Namespace) else dict(kept))
    if not args.get("model"):
        raise ValueError(
            f"{path} does not say of which architecture it is: put it into a folder with the "
            "config.json that timm.models.save_for_hf writes, or name that folder"
        )
    if isinstance(args.get("input_size"), int):  # other scripts' word for img_size
        args = {**args, "input_size": None, "img_size": args["input_size"]}
    return args


def unpickled(path: Path) -> dict:
    """Content of a file of torch's; a ValueError for one that is none, or that holds code."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever its zip reader or unpickler met
        raise ValueError(f"{path} is not a whole checkpoint: {type(error).__name__}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, no training checkpoint")
    return content


def prepared(model: nn.Module, args: Mapping, path: Path) -> dict:
    """How a run's own pictures were prepared, as far as its arguments say."""
    try:
        return resolve_input_data_config(model, args)
    except (AssertionError, ValueError) as error:
        raise ValueError(f"{path} was made with options that do not fit: {error}") from None


def architecture_of(args: Mapping) -> dict:
    """Arguments of `timm.create_model` for a training run's."""
    wanted = {"model_name": args["model"], "num_classes": args.get("num_classes")}
    wanted["in_chans"] = args.get("in_chans") or (args.get("input_size") or [None])[0]
    wanted |= {"global_pool": args.get("gp"), "bn_eps": args.get("bn_eps")}
    return wanted | (args.get("model_kwargs") or {})
