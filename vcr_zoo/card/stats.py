"""How large a network is and how much it computes, counted without running it."""

from collections.abc import Mapping
from typing import NamedTuple

import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from vcr_zoo.placement import Placement, find, flops, steps_of, turns
from vcr_zoo.training.options import SELF_SUPERVISED
from vcr_zoo.zoo import Entry


class Stats(NamedTuple):
    parameters: int
    macs: int  # multiply-accumulates of one picture
    activations: int  # numbers that convolutions and linear layers put out for one picture


def stats(entry: Entry) -> Stats:
    """Parameters, multiply-accumulates and activations of an entry's architecture."""
    model = build(entry)
    outputs = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda _, __, output: outputs.append(output.numel()))
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model(torch.empty(1, *entry.input_size, device="meta"))
    parameters = sum(p.numel() for p in model.parameters())
    return Stats(parameters, counter.get_total_flops() // 2, sum(outputs))


def placements(entry: Entry, layers: str) -> list[Placement]:
    """Where the penalty sat."""
    return find(build(entry), layers, entry.input_size)


def taken(entry: Entry, recipe: Mapping) -> list[tuple[int, int]]:
    """Which steps every placement took part in: see `placement.turns`."""
    every = steps_of(recipe["vcr_every"], recipe["vcr_rows"])
    return turns(placements(entry, recipe["vcr_layers"]), every)


def added(entry: Entry, recipe: Mapping) -> float:
    """FLOPs of VCR as a share of all others in training, a backward pass taken as two forward."""
    pictures = recipe["batch_size"] * (2 if recipe["task"] in SELF_SUPERVISED else 1)
    places = placements(entry, recipe["vcr_layers"])
    extra = flops(places, taken(entry, recipe), pictures, recipe["vcr_rows"])
    return extra / (3 * 2 * stats(entry).macs)


def build(entry: Entry) -> nn.Module:
    """The network without weights, on the meta device."""
    with torch.device("meta"):
        architecture = entry.name.partition(".")[0]
        channels = entry.input_size[0]
        return timm.create_model(
            architecture, num_classes=entry.num_classes, in_chans=channels, **entry.model_args
        ).eval()
