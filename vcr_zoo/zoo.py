"""The weights of this zoo as timm tags: `test_resnet.vcr_fmnist4` beside timm's own.

`weights/manifest.yaml` holds one entry for each set of weights and no code. VCR changes training,
not the architecture, so an entry is one more tag on timm's own architecture.
"""

import functools
import hashlib
import json
import sys
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import timm.models
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from timm.models import (
    DefaultCfg,
    PretrainedCfg,
    get_model_args,
    model_entrypoint,
    register_model,
)
from timm.models import split_model_name_tag as split_name
from torch import Tensor

from vcr_zoo.remote import COMMIT, REPOSITORY, download
from vcr_zoo.results import closest

WEIGHTS = Path(__file__).parent / "weights"
MANIFEST = WEIGHTS / "manifest.yaml"
SOURCES = ("url", "file", "state_dict", "hf_hub_id")  # where timm may be told to load from

IN_TRAINING = (  # arguments that change nothing in evaluation, or that the manifest has apart
    *("num_classes", "in_chans", "drop_rate", "drop_path_rate", "drop_block_rate", "bn_momentum"),
)


@dataclass(frozen=True)
class Entry:
    """One set of weights: where they are, what they are for, and the control beside them."""

    name: str  # architecture.tag
    sha256: str
    license: str
    num_classes: int
    input_size: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    control: str | None = None  # trained identically without VCR; None for a control itself
    label_names: tuple[str, ...] = ()
    interpolation: str = "bilinear"
    crop_pct: float = 1.0
    model_args: Mapping = field(default_factory=dict)  # what the network is built with, if anything
    file: Path | None = None  # in the package; None for weights that are on the Hub only
    hub: str | None = None  # owner/name of the repository
    revision: str | None = None  # its commit that holds these weights

    def verify(self) -> Path:
        """The file of weights, fetched from the Hub if need be, once its sha256 is compared.

        Raises:
            OSError: if the file is not there, or cannot be fetched.
            ValueError: if its contents are not those that were published.
        """
        file = self.file or download(self.hub, "model.safetensors", self.revision)
        again = "reinstall vcr_zoo" if self.file else "remove it and load it again"
        if not file.exists():
            raise FileNotFoundError(f"the weights of {self.name} are not at {file}; {again}")
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if found != self.sha256:
            raise ValueError(
                f"{file} is not what was published as {self.name}: its sha256 is {found}, "
                f"the manifest says {self.sha256}; {again}"
            )
        return file


def manifest(path: Path = MANIFEST) -> dict[str, Entry]:
    """Every entry of a manifest by name; weight files lie beside the manifest.

    Raises:
        ValueError: for an entry with fields missing or unknown, naming it.
    """
    entries = {}
    for name, fields in (yaml.safe_load(path.read_text()) or {}).items():
        try:
            entry = entry_of(name, fields)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {name} is not a complete entry: {error}") from None
        entries[name] = replace(entry, file=path.parent / entry.file) if entry.file else entry
    for entry in entries.values():
        if entry.control and entry.control not in entries:
            raise ValueError(
                f"{path}: the control {entry.control} of {entry.name} has no entry of its own."
            )
    return entries


def entry_of(name: str, fields: Mapping) -> Entry:
    """An entry as the manifest has it.

    Raises:
        TypeError: for fields missing or unknown.
        ValueError: for weights that are nowhere, or outside of the manifest's folder.
    """
    tuples = {key: tuple(value) for key, value in fields.items() if isinstance(value, list)}
    entry = Entry(name, **{**fields, **tuples})
    if entry.file and Path(entry.file).name != entry.file:
        raise ValueError(f"its file {entry.file} is not beside the manifest")
    if entry.hub and (not REPOSITORY.fullmatch(entry.hub) or ".." in entry.hub):
        raise ValueError(f"its hub {entry.hub!r} is not owner/name")
    if entry.revision and not COMMIT.fullmatch(entry.revision):
        raise ValueError(f"its revision {entry.revision!r} is not a commit")
    if not entry.file and not entry.hub:
        raise ValueError("it has no file, and no hub")
    if not entry.file and not entry.revision:
        raise ValueError(f"it has no file, and no revision of {entry.hub}")
    return entry


def register(entries: Mapping[str, Entry]) -> None:
    """Make every entry a name that `timm.create_model(..., pretrained=True)` takes, or none.

    timm's own names and configurations stay as they are. Registering an entry again is allowed;
    the weights' sha256 is verified before `create_model` loads them.

    Raises:
        LookupError: for an architecture that timm has not.
        ValueError: for a name without a tag, or a tag that timm already has.
    """
    for name in entries:
        check_free(name)
    for entry in entries.values():
        architecture, tag = split_name(entry.name)
        entrypoint = model_entrypoint(architecture)
        ours = getattr(entrypoint, "vcr_entries", {})
        known = default_cfg(architecture)
        if tag not in known.cfgs:
            known.tags.append(tag)
        known.cfgs[tag] = pretrained_cfg(entry, known.default)
        plain = getattr(entrypoint, "__wrapped__", entrypoint) if ours else entrypoint
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Overwriting")
            register_model(verified(plain, {**ours, tag: entry}))


def check_free(name: str) -> None:
    """Refuse a name that cannot be one of ours: see `register`."""
    architecture, tag = split_name(name)
    if not timm.is_model(architecture):
        raise LookupError(
            f"timm has no architecture {architecture!r} for {name}."
            f"{closest(architecture, timm.list_models())}"
        )
    if not tag:
        raise ValueError(f"{name} needs a tag, as in {architecture}.vcr_mydata")
    ours = getattr(model_entrypoint(architecture), "vcr_entries", {})
    if tag in default_cfg(architecture).cfgs and tag not in ours:
        raise ValueError(f"timm already has weights named {name}; choose another tag")


def default_cfg(architecture: str) -> DefaultCfg:
    """timm's configurations of an architecture, the object that registration reads."""
    return sys.modules[model_entrypoint(architecture).__module__].default_cfgs[architecture]


def pretrained_cfg(entry: Entry, like: PretrainedCfg) -> PretrainedCfg:
    """What timm must know to load an entry; what belongs to the architecture comes from `like`."""
    there = {"file": str(entry.file)} if entry.file else {"hf_hub_id": pinned(entry)}
    return PretrainedCfg(
        **there,
        num_classes=entry.num_classes,
        input_size=entry.input_size,
        mean=entry.mean,
        std=entry.std,
        interpolation=entry.interpolation,
        crop_pct=entry.crop_pct,
        label_names=entry.label_names or None,
        license=entry.license,
        first_conv=like.first_conv,
        classifier=like.classifier,
        fixed_input_size=like.fixed_input_size,
        min_input_size=like.min_input_size,
    )


def pinned(entry: Entry) -> str:
    """The repository at its commit, as timm names it behind hf-hub:."""
    return f"{entry.hub}@{entry.revision}"


def verified(entrypoint: Callable, entries: dict[str, Entry]) -> Callable:
    """timm's entrypoint, which checks our weights before it loads them."""

    @functools.wraps(entrypoint)
    def create(pretrained=False, pretrained_cfg=None, pretrained_cfg_overlay=None, **kwargs):
        cfg = pretrained_cfg
        tag = cfg.get("tag") if isinstance(cfg, dict) else getattr(cfg, "tag", cfg)
        others = isinstance(cfg, dict) and cfg.get("source")  # a folder's or a repository's own
        entry = entries.get(tag) if isinstance(tag, str) and not others else None
        if entry:
            kwargs = {**entry.model_args, **kwargs}
        elsewhere = set(SOURCES) & set(pretrained_cfg_overlay or ())
        if pretrained and entry and not elsewhere:
            file = entry.verify()
            if entry.file is None:
                pretrained_cfg_overlay = {**(pretrained_cfg_overlay or {}), "file": str(file)}
        model = entrypoint(
            pretrained=pretrained,
            pretrained_cfg=pretrained_cfg,
            pretrained_cfg_overlay=pretrained_cfg_overlay,
            **kwargs,
        )
        if entry:  # timm notes what it was given, for whoever builds or saves the network again
            model._model_args = {**entry.model_args, **getattr(model, "_model_args", {})}
        return model

    create.vcr_entries = entries
    return create


def package(
    run: Path, name: str, *, license: str, control: str | None = None, path: Path = MANIFEST
) -> Entry:
    """Put a run's weights, in half precision, and their entry into a manifest.

    Args:
        run: the folder of a finished run, with config.json and model.safetensors.
        name: architecture.tag under which timm will know them; replaces an entry of that name.
        license: of the weights, as their training data allows.
        control: the name of the network trained identically without VCR.

    Raises:
        FileNotFoundError: if the folder holds no finished run.
        LookupError, ValueError: for a name that `register` refuses, a control without an entry, a
            run of another architecture, or weights that exceed half precision. Nothing is written.
    """
    known = fields_by_name(path)
    fields = described(run, name, license=license, control=control, known=known)
    weights = {key: half(key, value) for key, value in tensors(run / "model.safetensors").items()}
    content = canonical(weights)
    file = path.parent / f"{name}.safetensors"
    fields |= {"file": file.name, "sha256": hashlib.sha256(content).hexdigest()}
    replaced(file, content)
    return record(name, fields, path)


def described(
    run: Path, name: str, *, license: str, control: str | None, known: Collection[str]
) -> dict:
    """What the manifest says of a run's weights, but for where they are; see `package`.

    Args:
        known: names that may be a control.
    """
    check_free(name)
    if control and control not in known:
        raise ValueError(f"the control {control} has no entry yet: package it first")
    if not (run / "config.json").exists():
        raise FileNotFoundError(f"{run} is no finished run: it has no config.json")
    config = json.loads((run / "config.json").read_text())
    if config["architecture"] != split_name(name)[0]:
        raise ValueError(f"{run} trained {config['architecture']}, not the {name} it is to be")
    cfg, wanted = config["pretrained_cfg"], ("input_size", "mean", "std", "interpolation")
    if missing := [key for key in wanted if key not in cfg]:
        raise ValueError(f"{run}/config.json says nothing of {', '.join(missing)}")
    return {
        **({"control": control} if control else {}),
        "license": license,
        "num_classes": config["num_classes"],
        **{key: cfg[key] for key in wanted},
        "crop_pct": cfg.get("crop_pct", 1.0),
        "label_names": list(config.get("label_names", ())),
        **({"model_args": own} if (own := own_arguments(config)) else {}),
    }


def own_arguments(config: Mapping) -> dict:
    """What a run's network was built with and its architecture's name does not say: arguments other
    than the architecture's own, without those that act in training only."""
    with torch.device("meta"):
        usual = get_model_args(timm.create_model(config["architecture"]))
    usual = json.loads(json.dumps(usual, default=str))
    return {
        key: value
        for key, value in (config.get("model_args") or {}).items()
        if key not in IN_TRAINING and value is not None and usual.get(key) != value
    }


def fields_by_name(path: Path) -> dict[str, dict]:
    """A manifest as it is written; an absent one is empty."""
    return (yaml.safe_load(path.read_text()) or {}) if path.exists() else {}


def record(name: str, fields: Mapping, path: Path = MANIFEST) -> Entry:
    """Write an entry into a manifest, in place of the one of that name."""
    entries = {**fields_by_name(path), name: dict(fields)}
    text = yaml.safe_dump(entries, sort_keys=False, default_flow_style=None)
    replaced(path, text.encode())
    return manifest(path)[name]


def tensors(file: Path) -> dict[str, Tensor]:
    """What a safetensors file holds.

    Raises:
        ValueError: for a damaged one.
    """
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ValueError(f"{file} is not a whole safetensors file: {error}") from None


def canonical(weights: Mapping[str, Tensor]) -> bytes:
    """Weights as safetensors: contiguous, none sharing memory, so that equal weights are equal
    files whatever layout they were trained in."""
    whole = {key: value.detach().cpu().contiguous().clone() for key, value in weights.items()}
    return save(whole, metadata={"format": "pt"})


def replaced(path: Path, content: bytes) -> None:
    """A file's new content, complete or not at all."""
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    part.replace(path)


def half(key: str, tensor: Tensor) -> Tensor:
    """A tensor in half precision, counts as they are."""
    rounded = tensor.half() if tensor.is_floating_point() else tensor
    if not rounded.isfinite().all():
        raise ValueError(f"{key} has values that half precision cannot hold")
    return rounded


def check_name(name: str) -> None:
    """Refuse a model name that timm cannot build, before anything expensive starts.

    Raises:
        LookupError: for an unknown architecture or tag, with the closest that exist.
    """
    if ":" in name:  # hf-hub: or local-dir:
        return
    architecture, tag = split_name(name)
    if not timm.is_model(architecture):
        raise LookupError(
            f"timm has no model {architecture!r}.{closest(architecture, timm.list_models())}"
            " See timm.list_models()."
        )
    tags = [split_name(known)[1] for known in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise LookupError(
            f"{architecture} has no weights {tag!r}.{closest(tag, tags)} "
            f"There are: {', '.join(tags) or 'none'}."
        )
