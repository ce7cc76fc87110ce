"""What a network is shown as it is fine-tuned: pictures, or what its frozen part made of them."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

from vcr_zoo.data import Batches, Images

LIMIT = 2 << 30  # bytes of activations to keep


class Views:
    """Batches of a set's pictures and labels, epoch by epoch.

    Args:
        training: in an order of its own in each epoch, without the short last batch.
        augment: crop and mirror at random.
        views: so many augmentations of each picture, taken in turn, the same ones for every seed;
            0 makes new ones in each epoch.
        crop: smallest share of the picture that a crop keeps.
        seed: of the order and, unless views are fixed, of the augmentations.
        more: arguments of `Batches`: input_size, mean, std, hflip, device, ...
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        *,
        training: bool = False,
        augment: bool = False,
        views: int = 0,
        crop: float = 1.0,
        seed: int = 0,
        **more,
    ):
        self.batches = Batches(
            images,
            batch_size,
            is_training=training,
            no_aug=not (training and augment),
            scale=(crop, 1.0),
            drop_last=training,
            **more,
        )
        self.seeds = (seed, 0 if views else seed)  # of the order, of the augmentations
        self.count = views if training and augment else 1
        self.kept: dict[int, Tensor] = {}  # by view: (n, ...)

    def __len__(self) -> int:
        return len(self.batches)

    def view(self, epoch: int) -> int:
        """Which augmentation an epoch shows."""
        return epoch % self.count if self.count else epoch

    def epoch(self, epoch: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows (b, ...) that the network takes, and labels (b,)."""
        batches, view = self.batches, self.view(epoch)
        batches.seed, batches.epoch = self.seeds[0], epoch
        order = batches.order()
        for first in range(0, len(order), batches.batch_size):
            index = order[first : first + batches.batch_size]
            place = torch.from_numpy(index).to(batches.device)
            kept = self.kept.get(view)
            batches.seed, batches.epoch = self.seeds[1], view  # others may be reading, too
            yield (batches.pictures(index) if kept is None else kept[place]), batches.y[place]

    def example(self) -> Tensor:
        """A few pictures: (b, c, h, w)."""
        return self.batches.pictures(np.arange(min(4, len(self.batches.images))))

    def keep(self, function: Callable[[Tensor], Tensor], limit: int = LIMIT) -> bool:
        """Show from now on `function` of the pictures, computed once; False if that is too much.

        Only for a fixed number of views.
        """
        n = len(self.batches.images)
        one = function(self.example())[:1]
        if not self.count or n * self.count * one.numel() * one.element_size() > limit:
            return False
        for view in range(self.count):
            self.batches.seed, self.batches.epoch = self.seeds[1], view
            rows = one.new_empty(n, *one.shape[1:])
            for index in np.array_split(np.arange(n), -(-n // 256)):
                rows[index[0] : index[-1] + 1] = function(self.batches.pictures(index))
            self.kept[view] = rows
        return True
