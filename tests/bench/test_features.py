import torch
from torch import nn

from vcr_zoo.bench.features import loop


class Counting(nn.Module):
    """Counts the pictures that it is shown."""

    seen = 0

    def forward_features(self, x):
        self.seen += len(x)
        return x

    def forward_head(self, x, pre_logits):
        return x


def test_the_bare_loop_sees_every_picture_once():
    for pictures in (5, 16, 20):
        network = Counting()
        loop(network, torch.zeros(8, 3, 4, 4), pictures)
        assert network.seen == pictures
