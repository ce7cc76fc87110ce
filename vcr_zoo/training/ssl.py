"""Self-supervised tasks: SimCLR, VICReg, Barlow Twins and SimSiam, on any timm backbone.

A batch holds two views of each picture, all first views before all second ones. Both pass through
backbone and projector together, so batch norm and VCR see the 2 b pictures as one batch; then the
loss compares the halves. Losses and projectors are lightly's; with several processes they compare
with the pictures of all.
"""

import importlib
import math
from collections.abc import Mapping

import torch
import torch.distributed as dist
from timm.models import group_parameters
from timm.task import TrainingTask
from timm.utils import unwrap_model
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from vcr_zoo.geometry import effective_rank, neighbor_votes
from vcr_zoo.results import closest

from .options import SELF_SUPERVISED as METHODS

LEAST_RANK, LEAST_STD = 2.0, 1e-3  # what a layer has at least unless it collapsed
WIDEST = 8192  # layers of projectors in the papers, four times as wide as ResNet-50's features
CAUSES = {
    "simclr": "lower --lr or the loss's temperature, or raise --batch-size",
    "vicreg": "lower --lr, or raise mu_param of --ssl-kwargs, which keeps embeddings varied",
    "barlow": "lower --lr, or raise --batch-size",
    "simsiam": "lower --lr, or raise --weight-decay: its predictor has to learn faster",
}
SETTINGS = {  # arguments of lightly's losses that --ssl-kwargs may set
    "simclr": ("temperature",),
    "vicreg": ("lambda_param", "mu_param", "nu_param"),
    "barlow": ("lambda_param",),
    "simsiam": (),
}
FEW = 8  # views whose rank says nothing


class Joined(nn.Module):
    """A backbone, the projector of its pooled features and, for SimSiam, a predictor."""

    def __init__(self, backbone: nn.Module, projector: nn.Module, predictor: nn.Module | None):
        super().__init__()
        self.backbone, self.projector, self.predictor = backbone, projector, predictor

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Pooled features (2 b, d), embeddings (2 b, e) and predictions (2 b, e) or None."""
        h = self.backbone(x)
        z = self.projector(h)
        return h, z, None if self.predictor is None else self.predictor(z)

    def no_weight_decay(self) -> set[str]:
        names = getattr(self.backbone, "no_weight_decay", set)()
        return {f"backbone.{name}" for name in names}

    def group_matcher(self, coarse: bool = False):
        """Layers for layer decay: the backbone's own, then one for what comes after it."""
        layers = group_parameters(self.backbone, self.backbone.group_matcher(coarse), reverse=True)
        last = max(layers.values(), default=0) + 1
        return lambda name: layers.get(name.removeprefix("backbone."), last)


class SelfSupervisedTask(TrainingTask):
    """Two views of a picture should be told from others, or look alike without collapsing.

    `simclr` (Chen et al., 2020): the two are each other's class among all others. `vicreg` (Bardes
    et al., 2022): alike, with variance and without covariance. `barlow` (Zbontar et al., 2021):
    their cross-correlation is the identity. `simsiam` (Chen and He, 2021): each predicts the other.

    Args:
        model: any network whose output is one vector a picture, as timm's with num_classes=0.
        method: simclr, vicreg, barlow or simsiam.
        hidden, width: of the projector; None: d and 128 for SimCLR, d and d for SimSiam, else 4 d
            and 4 d, at least 256 and at most 8192, with d pooled features.
        loss: arguments of lightly's loss: temperature of SimCLR; lambda_param, mu_param, nu_param
            of VICReg; lambda_param of Barlow Twins.
        gather: whether to compare with the pictures of all processes.

    Raises:
        ValueError: for another method, a loss's argument that does not exist, or a model without
            pooled features.
        ImportError: without lightly.
    """

    def __init__(
        self,
        model: nn.Module,
        method: str,
        *,
        hidden: int | None = None,
        width: int | None = None,
        loss: dict | None = None,
        gather: bool = False,
        input_size: tuple[int, int, int] = (3, 224, 224),
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        verbose: bool = True,
    ):
        super().__init__(device=device, dtype=dtype, verbose=verbose)
        if method not in METHODS:
            raise ValueError(f"no method {method!r}: choose from {', '.join(METHODS)}")
        self.method = method
        d = pooled_width(model, input_size)
        heads = build_heads(method, d, hidden, width)
        self.criterion = build_loss(method, loss or {}, gather)
        self.trainable_module = Joined(model, *heads).to(device=self.device, dtype=dtype)
        self._checked = False
        self._last: dict[str, Tensor] = {}  # features of the latest batch, to look for collapse

    def forward(self, input: Tensor, target: Tensor | None = None) -> dict[str, Tensor]:
        """Loss of (2 b, c, h, w): the first views of b pictures, then their second ones.

        Raises:
            ValueError: at the first batch, for two views that are the same.
        """
        if self.training and not self._checked:
            check_views(input)
            self._checked = True
        h, z, p = self.trainable_module(input)
        if self.training:
            self._last = {"pooled features": h.detach(), "embeddings": z.detach()}
        first, second = z.float().chunk(2)
        if p is not None:
            guess, other = p.float().chunk(2)
            loss = self.criterion(guess, second.detach()) / 2
            loss = loss + self.criterion(other, first.detach()) / 2
        else:
            loss = self.criterion(first, second)
        return {"loss": loss, "output": h}

    def collapsed(self, validated: Mapping[str, float] | None = None) -> list[str]:
        """What the latest batch, and validation, say against features, naming the layer; mostly
        nothing.

        Args:
            validated: metrics of `NeighborEvaluator`.
        """
        found = {
            layer: (batch_rank(x.float()), x.float().std(dim=0).mean().item())
            for layer, x in self._last.items()
            if len(x) >= FEW
        }
        if validated:
            seen = (validated["effective_rank"], validated["deviation"])
            found["pooled features of validation pictures"] = seen
        return [
            f"the {layer} collapse: effective rank {rank:.2f}, mean standard deviation {std:.2g}, "
            f"so to the network pictures differ "
            f"{'little' if std < LEAST_STD else 'in hardly any direction'}; {CAUSES[self.method]}"
            for layer, (rank, std) in found.items()
            if rank < LEAST_RANK or std < LEAST_STD
        ]

    def create_evaluator(self, **kwargs) -> "NeighborEvaluator":
        return NeighborEvaluator(**kwargs)

    # timm's interface of a task whose network is a part of what is trained

    def prepare_distributed(self, device_ids: list | None = None, **ddp_kwargs):
        self.trainable_module = DistributedDataParallel(
            self.trainable_module, device_ids=device_ids, **ddp_kwargs
        )
        return self

    def compile(self, backend: str = "inductor", mode: str | None = None, **compile_kwargs):
        settings = dict(backend=backend, mode=mode, **compile_kwargs)
        self.eval_model = torch.compile(self.get_eval_model(), **settings)
        self.trainable_module = torch.compile(self.trainable_module, **settings)
        return self.eval_model

    def get_eval_model(self, module: nn.Module | None = None, ema: bool = False):
        """The backbone alone: what is validated and saved."""
        found = super().get_eval_model(module=module, ema=ema)
        inner = unwrap_model(found) if found is not None else None
        return inner.backbone if isinstance(inner, Joined) else found

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict:
        joined = self._joined(module, ema)
        return {} if joined is None else {n: h.state_dict() for n, h in heads_of(joined).items()}

    def load_task_state(self, state, strict=True, module=None, ema=False) -> None:
        joined = self._joined(module, ema)
        if joined is not None and state:
            for name, head in heads_of(joined).items():
                head.load_state_dict(state[name], strict=strict)

    def get_clip_parameters(self, exclude_head: bool = False):
        joined = self._joined()
        return (joined.backbone if exclude_head else joined).parameters()

    def _joined(self, module: nn.Module | None = None, ema: bool = False) -> Joined | None:
        module = self.get_trainable_module(ema=ema) if module is None else module
        return None if module is None else unwrap_model(module)


def heads_of(joined: Joined) -> dict[str, nn.Module]:
    heads = {"projector": joined.projector, "predictor": joined.predictor}
    return {name: head for name, head in heads.items() if head is not None}


def pooled_width(model: nn.Module, input_size: tuple[int, int, int]) -> int:
    """Length of the vector that a network makes of a picture.

    Raises:
        ValueError: if it makes something else.
    """
    weight, was_training = next(model.parameters()), model.training
    with torch.no_grad():
        y = model.eval()(torch.zeros(1, *input_size, device=weight.device, dtype=weight.dtype))
    model.train(was_training)
    if not isinstance(y, Tensor) or y.ndim != 2:
        shape = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(
            f"{type(model).__name__} has no pooled features, but gives {shape} for one picture: "
            "leave --gp out, or take another network"
        )
    return y.shape[1]


def build_heads(method: str, d: int, hidden: int | None, width: int | None):
    """lightly's projector on d features and, for SimSiam, its predictor."""
    heads = lightly("models.modules.heads")
    wide = min(max(4 * d, 256), WIDEST)
    if method == "simclr":
        return heads.SimCLRProjectionHead(d, hidden or d, width or 128), None
    if method == "vicreg":
        return heads.VICRegProjectionHead(d, hidden or wide, width or wide), None
    if method == "barlow":
        return heads.BarlowTwinsProjectionHead(d, hidden or wide, width or wide), None
    width = width or d
    predictor = heads.SimSiamPredictionHead(width, max(width // 4, 1), width)
    return heads.SimSiamProjectionHead(d, hidden or d, width), predictor


def build_loss(method: str, settings: dict, gather: bool) -> nn.Module:
    losses = lightly("loss")
    kind = {
        "simclr": losses.NTXentLoss,
        "vicreg": losses.VICRegLoss,
        "barlow": losses.BarlowTwinsLoss,
        "simsiam": losses.NegativeCosineSimilarity,
    }[method]
    if unknown := sorted(set(settings) - set(SETTINGS[method])):
        near = closest(unknown[0], SETTINGS[method])
        takes = ", ".join(SETTINGS[method]) or "nothing"
        raise ValueError(
            f"--ssl-kwargs: {method}'s loss does not take {unknown[0]}.{near} It takes {takes}"
        )
    for name, value in settings.items():
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise ValueError(f"--ssl-kwargs: {name} must be a positive number, not {value!r}")
    if method != "simsiam":
        settings = {"gather_distributed": gather, **settings}
    return kind(**settings)


def lightly(part: str):
    """A module of lightly.

    Raises:
        ImportError: without it, naming the extra.
    """
    try:
        return importlib.import_module(f"lightly.{part}")
    except ImportError as error:
        raise ImportError(
            "self-supervised tasks need lightly: pip install 'vcr_zoo[ssl]'"
        ) from error


def check_views(x: Tensor) -> None:
    """Refuse a batch whose two views do not differ, or that leaves nothing to compare.

    Raises:
        ValueError: for either.
    """
    if len(x) < 4 or len(x) % 2:
        raise ValueError(f"{len(x)} pictures are not two views of at least two: raise --batch-size")
    first, second = x.chunk(2)
    if torch.equal(first, second):
        raise ValueError(
            "the two views of every picture are identical, so there is nothing to learn: leave "
            "--no-aug out, or give --scale, --hflip or --color-jitter"
        )


@torch.no_grad()
def batch_rank(x: Tensor) -> float:
    """Effective rank of a batch's covariance, 1 for constant features, NaN for those that are not
    finite: (n, d) -> [1, d]."""
    if not x.isfinite().all():
        return math.nan
    values = torch.linalg.svdvals(x - x.mean(dim=0)).square()
    return effective_rank(values) if values.sum() > 0 else 1.0


class NeighborEvaluator:
    """Accuracy of the 20 nearest training pictures' vote, in percent, and what features look like.

    First `remember` the training pictures, then `update` with validation's, in timm's manner.
    """

    def __init__(self, max_samples: int | None = None, bank_samples: int | None = None, **_):
        self.limits = {"bank": bank_samples, "query": max_samples}
        self.rows: dict[str, list] = {"bank": [], "query": []}

    def remember(self, output: Tensor, target: Tensor) -> None:
        self.rows["bank"].append((output.float().cpu(), target.cpu()))

    def update(self, output: Tensor, target: Tensor) -> None:
        self.rows["query"].append((output.float().cpu(), target.cpu()))

    def compute(self, distributed: bool = False) -> dict[str, float]:
        """effective_rank, deviation and, where training pictures were remembered, top1, of the
        pictures of all processes."""
        x, y = self._gathered("query", distributed)
        found = {}
        if self.rows["bank"]:
            bank, labels = self._gathered("bank", distributed)
            votes = neighbor_votes(bank, labels, int(max(labels.max(), y.max())) + 1, x)
            found["top1"] = 100 * (votes.argmax(dim=1) == y).double().mean().item()
        return found | {
            "effective_rank": batch_rank(x.double()),
            "deviation": x.std(dim=0).mean().item(),
        }

    def _gathered(self, which: str, distributed: bool) -> tuple[Tensor, Tensor]:
        limit = self.limits[which]
        x, y = (torch.cat(column)[:limit] for column in zip(*self.rows[which], strict=True))
        if not distributed:
            return x, y
        everyone = [None] * dist.get_world_size()
        dist.all_gather_object(everyone, (x, y))
        return tuple(torch.cat(column) for column in zip(*everyone, strict=True))
