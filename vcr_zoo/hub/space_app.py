"""Nearest neighbors of a picture under a VCR network and under its control.

    pip install gradio timm && python app.py

`vcr-zoo space` copies this file, with weights and pictures beside it; it needs no vcr_zoo.
"""

import json
from pathlib import Path

import numpy as np
import timm
import torch
import torch.nn.functional as F
from PIL import Image

HERE = Path(__file__).resolve().parent
NEIGHBORS = 8


class Network:
    """A network without its classifier, and the features of every picture of the gallery."""

    def __init__(self, folder: Path, pictures: np.ndarray):
        self.model = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0)
        self.model.eval()
        config = timm.data.resolve_model_data_config(self.model)
        self.mode = "L" if config["input_size"][0] == 1 else "RGB"
        self.prepare = timm.data.create_transform(**config)
        self.bank = self.embed([Image.fromarray(pixels) for pixels in pictures])

    @torch.inference_mode()
    def embed(self, pictures: list[Image.Image]) -> torch.Tensor:
        """Features of length one: (n, d)."""
        batch = torch.stack([self.prepare(picture.convert(self.mode)) for picture in pictures])
        return F.normalize(self.model(batch), dim=1)

    def nearest(self, picture: Image.Image, k: int = NEIGHBORS) -> list[tuple[int, float]]:
        """(index, cosine) of the nearest pictures of the gallery."""
        similarity = (self.embed([picture]) @ self.bank.T)[0]
        found = similarity.topk(min(k, len(self.bank)))
        return list(zip(found.indices.tolist(), found.values.tolist(), strict=True))


class Demo:
    """Pairs of networks by the name of the VCR one, loaded when they are first asked for."""

    def __init__(self, folder: Path = HERE):
        self.folder = folder
        self.pairs = json.loads((folder / "pairs.json").read_text())  # VCR's name -> control's
        gallery = np.load(folder / "gallery.npz", allow_pickle=False)
        self.pictures, self.labels = gallery["pictures"], gallery["labels"].tolist()
        self.networks: dict[str, Network] = {}

    def network(self, name: str) -> Network:
        if name not in self.networks:
            self.networks[name] = Network(self.folder / name, self.pictures)
        return self.networks[name]

    def answer(self, name: str, picture: Image.Image | None):
        """Neighbors under the VCR network, under its control, and both spectra."""
        spectra = str(self.folder / name / "spectrum.png")
        if picture is None:
            return [], [], spectra
        rows = []
        for one in (name, self.pairs[name]):
            rows.append(
                [
                    (self.shown(index), f"{self.labels[index]} {cosine:.2f}")
                    for index, cosine in self.network(one).nearest(picture)
                ]
            )
        return *rows, spectra

    def shown(self, index: int) -> Image.Image:
        """A picture of the gallery, large enough to be looked at."""
        picture = Image.fromarray(self.pictures[index])
        return picture.resize((112, 112), Image.Resampling.NEAREST)


def page(demo: Demo):
    """The page: a network and a picture in, neighbors and spectra out."""
    import gradio as gr

    names = list(demo.pairs)
    examples = [[demo.shown(index)] for index in range(0, len(demo.pictures), 97)][:5]
    with gr.Blocks(title="VCR and its control") as blocks:
        gr.Markdown(
            "# What two networks take for alike\n\nTrained identically, with and without VCR."
        )
        with gr.Row():
            with gr.Column(scale=1):
                name = gr.Dropdown(names, value=names[0], label="network (its control beside it)")
                picture = gr.Image(type="pil", label="a picture of yours")
                gr.Examples(examples, [picture])
            with gr.Column(scale=2):
                vcr = gr.Gallery(label="nearest, with VCR", columns=4, height=430)
                control = gr.Gallery(label="nearest, without", columns=4, height=430)
                spectra = gr.Image(label="spectra of both", type="filepath")
        for event in (picture.change, name.change, blocks.load):
            event(demo.answer, [name, picture], [vcr, control, spectra])
    return blocks


if __name__ == "__main__":
    page(Demo()).launch(allowed_paths=[str(HERE)])
