"""Several networks as one: pooled features side by side (Zhang and Bottou, 2023; Yang, Zhang and
Bottou, 2025).

`concat(models)` is a `Concat`, a module like any of timm's. timm builds networks by the name of
their architecture, and no architecture of its own holds several: so `import vcr_zoo` registers the
name `vcr_concat`, and a saved `Concat` is a folder that `timm.create_model("local-dir:FOLDER",
pretrained=True)` takes after that import (and only then).
"""

from collections.abc import Sequence

import timm
import torch
import torch.nn.functional as F
from timm.data import resolve_model_data_config
from timm.models import (
    build_model_with_cfg,
    generate_default_cfgs,
    get_model_args,
    register_model,
)
from torch import Tensor, nn

default_cfgs = generate_default_cfgs(
    {"vcr_concat": {"input_size": (3, 224, 224), "num_classes": 1000, "classifier": "head"}}
)


class Concat(nn.Module):
    """Pooled features of several networks side by side, each brought to one scale, and a head.

    Pictures come prepared for the first network; each other one gets them as it was trained to
    (other mean and deviation, other size). Its features h then become (h - shift) / scale.

    Args:
        parts: [architecture, arguments of timm.create_model] of every network.
        preparation: how (mean, std, height, width) of every network; None: as the first one's.
    """

    def __init__(
        self,
        parts: Sequence[tuple[str, dict]] = (("resnet18", {}), ("resnet18", {})),
        preparation: Sequence[Sequence] | None = None,
        num_classes: int = 1000,
        in_chans: int = 3,
        **unused,
    ) -> None:
        super().__init__()
        kept = {"num_classes": 0, "in_chans": in_chans}
        networks = [timm.create_model(name, **{**args, **kept}) for name, args in parts]
        self.parts = nn.ModuleList(networks)
        self.preparation = preparation
        self.in_chans = in_chans
        self.widths = [network.head_hidden_size for network in networks]
        self.num_features = self.head_hidden_size = sum(self.widths)
        self.register_buffer("shift", torch.zeros(self.num_features))
        self.register_buffer("scale", torch.ones(self.num_features))
        self.reset_classifier(num_classes)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new head; every network pools as it always has."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()

    def get_classifier(self) -> nn.Module:
        return self.head

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        for part in self.parts:
            part.set_grad_checkpointing(enable)

    def forward_features(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, d), normalized."""
        rows = [part(self.prepared(x, i)) for i, part in enumerate(self.parts)]
        return (torch.cat(rows, dim=1) - self.shift) / self.scale

    def prepared(self, x: Tensor, i: int) -> Tensor:
        """Pictures as network i wants them."""
        if self.preparation is None or self.preparation[i] == self.preparation[0]:
            return x
        (mean, std, *_), (own_mean, own_std, *size) = self.preparation[0], self.preparation[i]
        mean, std, own_mean, own_std = (
            x.new_tensor(values).view(-1, 1, 1) for values in (mean, std, own_mean, own_std)
        )
        x = (x * std + mean - own_mean) / own_std
        if tuple(x.shape[-2:]) == tuple(size):
            return x
        return F.interpolate(x, size, mode="bilinear", antialias=True)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        return x if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


@register_model
def vcr_concat(pretrained: bool = False, **kwargs) -> Concat:
    """Several networks as one; `concat` makes it, this name lets timm build it again."""
    return build_model_with_cfg(Concat, "vcr_concat", pretrained, **kwargs)


def concat(models: Sequence[nn.Module], input_size: Sequence[int] | None = None) -> Concat:
    """Networks that timm built, with their weights, as one without a head.

    Features are not yet brought to one scale: `normalize` does so.

    Args:
        input_size: of the pictures that every network gets (channels, height, width); None: each
            those of its own size.

    Raises:
        ValueError: for fewer than two networks, or different numbers of input channels.
        TypeError: for a module that timm did not build, whose architecture has no name.
    """
    if len(models) < 2:
        raise ValueError(f"concatenation is of two networks or more, not {len(models)}")
    parts, preparation = [], []
    for model in models:
        architecture = getattr(model, "pretrained_cfg", {}).get("architecture")
        if architecture is None:
            raise TypeError(f"{type(model).__name__} was not built by timm.create_model")
        parts.append([architecture, get_model_args(model)])
        config = resolve_model_data_config(model)
        size = (input_size or config["input_size"])[1:]
        preparation.append([*(list(config[k]) for k in ("mean", "std")), *size])
    channels = {getattr(m, "in_chans", 3) for m in models}
    if len(channels) > 1:
        raise ValueError(f"networks take {sorted(channels)} channels: build them with one number")
    config = resolve_model_data_config(models[0])
    overlay = {k: config[k] for k in ("mean", "std", "input_size", "interpolation", "crop_pct")}
    joined = timm.create_model(
        "vcr_concat",
        parts=parts,
        preparation=preparation,
        num_classes=0,
        in_chans=channels.pop(),
        pretrained_cfg_overlay=overlay,
    )
    for part, model in zip(joined.parts, models, strict=True):
        state, wanted = model.state_dict(), part.state_dict()
        part.load_state_dict({name: state[name] for name in wanted})
    return joined.eval()


@torch.no_grad()
def normalize(joined: Concat, x: Tensor, per: str = "network") -> Tensor:
    """Bring features of every network to one scale, as seen on pictures to learn from.

    Sets the module's `shift` and `scale` from its present features x (n, d) of those pictures, and
    gives the features that it makes of them from now on.

    Args:
        per: "network" divides each network's centered features by one number, so that their mean
            square is one and their shape stays; "feature" standardizes each feature, as the batch
            normalization before the papers' probe does.

    Raises:
        ValueError: for features that are not this module's, or another `per`.
    """
    if x.shape[1] != joined.num_features or per not in ("network", "feature"):
        raise ValueError(
            f"features of width {x.shape[1]} for {joined.num_features}, per {per!r}: give the "
            "module's own features, and per='network' or 'feature'"
        )
    mean, std = scaling(x, joined.widths, per)
    joined.shift.add_(mean.to(joined.shift) * joined.scale)
    joined.scale.mul_(std.to(joined.scale))
    return ((x.double() - mean) / std).float()


def scaling(x: Tensor, widths: Sequence[int], per: str) -> tuple[Tensor, Tensor]:
    """What `normalize` subtracts from features and divides them by: (n, d) -> float64 (d,), (d,).

    Args:
        widths: features of each network, in order.
        per: "network" or "feature".
    """
    mean, power = x.double().mean(dim=0), x.double().var(dim=0, correction=0)
    if per == "network":
        power = torch.cat([p.mean().expand(len(p)) for p in power.split(list(widths))])
    return mean, torch.where(power > 0, power.sqrt(), 1.0)  # a constant feature stays as it is
