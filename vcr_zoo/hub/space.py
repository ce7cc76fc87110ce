"""A folder that is a demo: weights, a gallery of pictures and a page, for a Space or at home."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import torch

from vcr_zoo import zoo
from vcr_zoo.card import card_files, evidence
from vcr_zoo.card.evidence import CARDS
from vcr_zoo.data import load
from vcr_zoo.data.load import row_of

from . import space_app
from .release import config_of, weight_files

README = """---
title: VCR and its control
sdk: gradio
app_file: app.py
license: apache-2.0
---

Nearest neighbors of a picture under a network trained with variance-covariance regularization and
under its control. The pictures are from {attribution} ({licence}).

Locally: `pip install -r requirements.txt && python app.py`
"""
PICTURES = 500  # in the gallery


def space(out: Path) -> Path:
    """Write the folder; every pair of the manifest that is trained on the first one's data.

    Raises:
        FileExistsError: if the folder holds something.
        OSError: if the pictures cannot be had.
    """
    if out.is_file():
        raise FileExistsError(f"{out} is a file: choose another --out")
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty: choose another --out")
    entries = zoo.manifest()
    found = [evidence(name, entries) for name, entry in entries.items() if entry.control]
    dataset = found[0].recipe["dataset"]
    found = [one for one in found if one.recipe["dataset"] == dataset]
    gallery = gallery_of(dataset)
    out.mkdir(parents=True, exist_ok=True)
    for one in found:
        spectrum = card_files(one, folder=CARDS / one.entry.name)["spectrum.png"]
        for entry in (one.entry, one.partner):
            files = weight_files(zoo.tensors(entry.verify()), config_of(entry))
            for name, content in {**files, "spectrum.png": spectrum}.items():
                (out / entry.name).mkdir(exist_ok=True)
                (out / entry.name / name).write_bytes(content)
    row = row_of(dataset)
    pairs = {one.entry.name: one.entry.control for one in found}
    (out / "pairs.json").write_text(json.dumps(pairs, indent=2) + "\n")
    (out / "gallery.npz").write_bytes(gallery)
    text = README.format(attribution=row.attribution, licence=row.licence)
    (out / "README.md").write_text(text)
    (out / "requirements.txt").write_text("timm>=1.0.31,<1.1\ngradio\n")
    shutil.copyfile(space_app.__file__, out / "app.py")
    return out


def gallery_of(dataset: str) -> bytes:
    """Pictures of a data set's train part and the names of their classes, as an npz."""
    images = load(dataset)
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:PICTURES]
    pictures = np.stack([np.asarray(images.picture(int(index))) for index in chosen])
    labels = np.array([images.classes[int(images.y[index])] for index in chosen])
    content = io.BytesIO()
    np.savez_compressed(content, pictures=pictures, labels=labels)
    return content.getvalue()
