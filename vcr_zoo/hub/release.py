"""What is published of one set of weights: every file of its repository, checked before it goes."""

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import timm
import torch
from safetensors.torch import load
from timm.models._hub import save_config_for_hf
from torch import Tensor

from vcr_zoo import zoo
from vcr_zoo.card import card_files, evidence
from vcr_zoo.card.evidence import CARDS
from vcr_zoo.remote import REPOSITORY, get_token
from vcr_zoo.results import Result, read
from vcr_zoo.training.options import recipe_file
from vcr_zoo.training.settle import check_recipe
from vcr_zoo.zoo import Entry

WEIGHTS, CONFIG = "model.safetensors", "config.json"


@dataclass(frozen=True)
class Release:
    """The files of a repository, and the manifest's fields of its weights."""

    name: str
    repo: str  # owner/name
    files: Mapping[str, bytes]
    fields: Mapping

    @property
    def sha256(self) -> str:
        """Of the weights."""
        return hashlib.sha256(self.files[WEIGHTS]).hexdigest()

    def listing(self) -> str:
        """Path, size in bytes and sha256 of every file, a line each."""
        return "\n".join(
            f"{len(content):12,}  {hashlib.sha256(content).hexdigest()}  {path}"
            for path, content in sorted(self.files.items())
        )


def release(
    name: str,
    org: str,
    *,
    runs: Mapping[str, Path] | None = None,
    license: str = "",
    control: str | None = None,
    entries: Mapping[str, Entry] | None = None,
    results: Sequence[Result] | None = None,
    folder: Path = CARDS,
    path: Path = zoo.MANIFEST,
) -> Release:
    """Weights of the package, or of a finished run, with their card.

    Args:
        org: who the repository belongs to.
        runs: folders of runs by name, for weights that are not in the package: of the control, of
            the VCR network, or of both; in full precision, the EMA's if a run had one.
        license, control: of the runs, as for `zoo.package`.
        entries, results: of a manifest and of every network; the repository's own if None.
        folder: of cards, whose pictures are kept if they show the same numbers.
        path: the manifest.

    Raises:
        LookupError, ValueError, OSError: if something that must be published is lacking or wrong.
    """
    repo = repository(org, name)
    entries = dict(zoo.manifest(path) if entries is None else entries)
    results = read(folder / "results.jsonl") if results is None else results
    described = {}
    for one, run in (runs or {}).items():
        described[one] = of_run(run, one, license, control, {*entries, *runs})
        entries[one] = zoo.Entry(one, **as_tuples(described[one]), hub=repository(org, one))
    if name not in described:
        file = evidence(name, entries, results).entry.verify()  # refused first if it lacks a card
        weights, config = zoo.tensors(file), config_of(entries[name])
        fields = zoo.fields_by_name(path).get(name, {})
    else:
        fields, weights = described[name], zoo.tensors(runs[name] / WEIGHTS)
        config = config_of(entries[name])
    found = evidence(name, entries, results)
    files = {
        **weight_files(weights, config),
        **card_files(found, repo, folder / name),
        "recipe.yaml": recipe_file(name).read_bytes(),
        "results.jsonl": "".join(
            json.dumps(asdict(r), sort_keys=True) + "\n" for r in found.results
        ).encode(),
    }
    made = checked(Release(name, repo, files, fields))
    if made.sha256 != found.entry.sha256:
        raise ValueError(f"{name}'s weights are not in canonical form: package them again")
    return made


def of_run(run: Path, name: str, license: str, control: str | None, known) -> dict:
    """The manifest's fields of a run's weights, but for where they will be."""
    control = None if name == control else control
    fields = zoo.described(run, name, license=license, control=control, known=known)
    check_recipe(run, name)
    content = zoo.canonical(zoo.tensors(run / WEIGHTS))
    return {**fields, "sha256": hashlib.sha256(content).hexdigest()}


def as_tuples(fields: Mapping) -> dict:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}


def repository(org: str, name: str) -> str:
    """owner/name, where both are what the Hub takes."""
    repo = f"{org}/{name}"
    if not REPOSITORY.fullmatch(repo) or ".." in repo or "--" in repo:
        raise ValueError(f"{repo!r} is no repository's name: an organization, '/' and a name")
    return repo


def weight_files(weights: Mapping[str, Tensor], config: Mapping) -> dict[str, bytes]:
    """The two files that timm loads, read again and compared with what went in.

    Raises:
        ValueError: for values that are not finite, or a file that does not give them back.
    """
    for key, value in weights.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(
                f"{key} has values that are not finite: such weights are not published"
            )
    content = zoo.canonical(weights)
    again = load(content)
    if again.keys() != weights.keys() or not all(
        torch.equal(again[key], value.cpu()) for key, value in weights.items()
    ):
        raise ValueError("the weights do not come back as they went into safetensors")
    return {WEIGHTS: content, CONFIG: as_json(config)}


def as_json(config: Mapping) -> bytes:
    return (json.dumps(config, indent=2) + "\n").encode()


def config_of(entry: Entry) -> dict:
    """config.json of an entry's weights, as timm reads it behind hf-hub:."""
    architecture, _, tag = entry.name.partition(".")
    cfg = zoo.pretrained_cfg(entry, zoo.default_cfg(architecture).default)
    model = timm.create_model(architecture, pretrained_cfg=cfg, **entry.model_args)
    extra = {"pretrained_cfg": {"tag": tag, "license": entry.license}}
    if entry.label_names:
        extra["label_names"] = list(entry.label_names)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / CONFIG
        save_config_for_hf(model, str(path), extra)
        return json.loads(path.read_text())


def checked(made: Release) -> Release:
    """The release, if no path leaves the repository and nothing looks like a token."""
    token = get_token()
    for path, content in made.files.items():
        if path.startswith("/") or ".." in path.split("/"):
            raise ValueError(f"{path!r} would lie outside of the repository")
        if path != WEIGHTS and (
            re.search(rb"hf_[A-Za-z0-9]{20,}", content) or (token and token.encode() in content)
        ):
            raise ValueError(f"{path} holds what looks like a token: it is not published")
    return made
