"""Cheap measurements while a network is trained, on pictures that validation shows it anyway."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from vcr_zoo.placement import Placement, find

from .deviations import mean_deviation
from .gather import hooked, rows
from .measured import measured
from .moments import Moments
from .spectrum import effective_rank, mean_correlation

FIRST = 2048  # pictures; those after them are not looked at

WATCHED = {
    "deviation": mean_deviation,
    "correlation": lambda m: mean_correlation(m.covariance),
    "effective_rank": lambda m: effective_rank(m.eigenvalues),
}


class During:
    """Measures features at every placement of what passes through a network, now and then.

        during = During("blocks")
        with during(model) as found:
            validate(model)

    Then `found` holds "deviation.layer1.0" and so on: of one position of each picture, as the
    penalty sees them, of the first pictures. What is undefined is left out.

    Args:
        layers: as for training, of any network that is measured.
        input_size: (channels, height, width) of the images; the network's own if None.
        first: pictures that are looked at.
    """

    def __init__(self, layers: str, input_size: tuple | None = None, first: int = FIRST):
        self.layers, self.input_size, self.first = layers, input_size, first
        self.placements: list[Placement] = []

    @contextlib.contextmanager
    def __call__(self, model: nn.Module) -> Iterator[dict[str, float]]:
        """Watch the network in this block; the dictionary is filled when it ends.

        Raises:
            LookupError: for a layer that the network has not.
        """
        if not self.placements:
            self.placements = find(model, self.layers, self.input_size)
        found: dict[str, float] = {}
        seen = [Seen(place, self.first) for place in self.placements]
        with contextlib.ExitStack() as hooks:
            for one in seen:
                hooks.callback(hooked(model, one.place, one.see))
            yield found
        for one in seen:
            for what, statistic in WATCHED.items():
                value = measured(statistic, one.moments).value if one.moments else None
                if value is not None:
                    found[f"{what}.{one.place}"] = value


class Seen:
    """Moments of the first rows that pass at a placement."""

    def __init__(self, place: Placement, first: int):
        self.place, self.left = place, first
        self.moments: Moments | None = None

    def see(self, value: Tensor) -> None:
        if not self.left:
            return
        x = rows(value[: self.left], self.place.dim, "one")
        if x.device.type == "mps":  # which has no float64
            x = x.cpu()
        x = x.double()
        if self.moments is None:
            self.moments = Moments.empty(x.mean(dim=0), classes=1)
        try:
            self.moments.add(x, torch.zeros(len(x), dtype=torch.int64, device=x.device))
            self.left -= len(x)
        except ValueError:  # not finite: no reason to stop a training
            self.moments, self.left = None, 0
