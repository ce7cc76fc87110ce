"""DR-Tune (Zhou, Chen and Huang, 2023): the head must also classify pretrained features.

The encoder is free; its head is trained on the batch and on a bank of the pretrained network's
features of recent training pictures, which are first aligned to the features of today: one global
rotation, then one translation for each class.

What differs from the authors' released code: an explicit weight of the bank (`strength`;
`implicit=True` gives theirs), a rotation that is kept between its updates instead of being left out
there, a bank of any size whose empty rows do not take part, and class means by sums over segments,
which also serve classes with one row.
"""

import copy
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .method import Batch, Method

if TYPE_CHECKING:
    from .finetune import Finetuner


class Bank:
    """The latest rows of several tensors, the oldest of which are written over.

    With several processes each has its own, of its own pictures.
    """

    def __init__(self, size: int, width: int, device: torch.device | str = "cpu"):
        self.tuned = torch.zeros(size, width, device=device)  # features of the network that learns
        self.pretrained = torch.zeros(size, width, device=device)  # of the same pictures
        self.y = torch.zeros(size, dtype=torch.int64, device=device)
        self.place = self.filled = 0  # next row to write, rows that hold something

    def add(self, tuned: Tensor, pretrained: Tensor, y: Tensor) -> None:
        """Take in rows (b, d), (b, d), (b,); of more than the size only the last."""
        size = len(self.y)
        tuned, pretrained, y = tuned[-size:], pretrained[-size:], y[-size:]
        index = (self.place + torch.arange(len(y), device=y.device)) % size
        self.tuned[index] = tuned.detach().to(self.tuned)
        self.pretrained[index] = pretrained.detach().to(self.pretrained)
        self.y[index] = y
        self.place = (self.place + len(y)) % size
        self.filled = min(size, self.filled + len(y))

    def rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """Pretrained and tuned features (k, d), and labels (k,), of the rows that are filled."""
        return self.pretrained[: self.filled], self.tuned[: self.filled], self.y[: self.filled]


def rotation(p: Tensor, q: Tensor) -> Tensor:
    """The proper rotation R, det R = 1, that brings centered p R closest to q: (k, d) -> (d, d).

    Kabsch (1976): with pᵀq = U Σ Vᵀ, R = U diag(1, ..., 1, det(U Vᵀ)) Vᵀ. Directions that fewer
    rows than dimensions leave open are left as they are, by a millionth of the identity, because
    later rows have them. In float32; where the decomposition fails, in float64 on the CPU.

    Raises:
        RuntimeError: if that fails too.
    """
    with torch.autocast(p.device.type, enabled=False):
        s = p.float().T @ q.float() if p.dtype != torch.float64 else p.T @ q
        if len(p) <= len(s):
            s = s + 1e-6 * s.norm() * torch.eye(len(s), dtype=s.dtype, device=s.device)
        try:
            u, _, vt = torch.linalg.svd(s)
        except RuntimeError:
            u, _, vt = (part.to(s) for part in torch.linalg.svd(s.double().cpu()))
        sign = torch.sign(torch.linalg.det(u @ vt))
        u[:, -1] *= sign
        return u @ vt


def class_shift(
    p: Tensor, q: Tensor, y: Tensor, weight: Tensor, temperature: float = 1.0
) -> Tensor:
    """p moved so that each class's mean is the confident mean of q: (k, d), (k, d), (k,) -> (k, d).

    The latter weighs the class's rows by a softmax, over them, of their cosine with the class's
    row of the head, weight (classes, d), over the temperature.
    """
    classes, rows = len(weight), p.new_zeros(len(weight), p.shape[1])
    cosine = (F.normalize(q) * F.normalize(weight.to(q))[y]).sum(dim=1) / temperature  # (k,)
    largest = cosine.new_full((classes,), -torch.inf).scatter_reduce_(0, y, cosine, "amax")
    share = (cosine - largest[y]).exp()
    share = share / cosine.new_zeros(classes).index_add_(0, y, share)[y]
    target = rows.index_add(0, y, share[:, None] * q)  # (classes, d)
    count = torch.bincount(y, minlength=classes).clamp(min=1)
    mean = rows.index_add(0, y, p) / count[:, None]
    return p + (target - mean)[y]


class DRTune(Method):
    """Full fine-tuning whose head must also classify aligned pretrained features.

    Loss: mean cross-entropy of the batch + `strength` · mean cross-entropy of the bank. With
    `implicit` it is the mean over the b + k rows of both, as in the released code: the batch then
    carries b / (b + k) of it, so that the encoder learns at that fraction of its rate while weight
    decay keeps its strength. Under SGD that equals strength = k / b with lr · b / (b + k) and
    weight decay · (b + k) / b.

    Args:
        bank: rows to keep, of each process; None: 2048, or the whole set if that is smaller.
        period: steps between two updates of the rotation.
        temperature: of the class means; 1 makes them nearly plain, for cosines differ by 2 at most.
        rotate, translate: whether to take these steps; without both, raw pretrained features.
    """

    name = "dr-tune"
    pictures = True
    tuned = {"lr": 3.0, "strength": 4.0}  # noqa: RUF012

    def __init__(
        self,
        strength: float = 1.0,
        bank: int | None = None,
        period: int = 10,
        temperature: float = 1.0,
        rotate: bool = True,
        translate: bool = True,
        implicit: bool = False,
    ):
        if not strength >= 0 or not temperature > 0:
            raise ValueError(
                f"strength {strength} must not be negative, temperature {temperature} be positive"
            )
        if period < 1 or (bank is not None and bank < 1):
            raise ValueError(f"period {period} and bank {bank} must be at least 1")
        self.strength, self.bank, self.period = strength, bank, period
        self.temperature, self.rotate, self.translate = temperature, rotate, translate
        self.implicit = implicit
        self._steps = 0
        self._rotation: Tensor | None = None

    def head(self, model: nn.Module, classes: int) -> None:
        """Small rows, of standard deviation 0.01, as the authors have it; other methods begin with
        timm's, so that `strength=0` is full fine-tuning but for that."""
        super().head(model, classes)
        classifier = model.get_classifier()
        if not isinstance(classifier, nn.Linear):
            raise ValueError(
                f"DR-Tune compares features with the rows of a linear classifier; this network has "
                f"{type(classifier).__name__}"
            )
        nn.init.normal_(classifier.weight, std=0.01)
        if classifier.bias is not None:
            nn.init.zeros_(classifier.bias)

    def prepare(self, run: "Finetuner") -> None:
        n = len(run.train.batches.images) // run.world_size
        size = min(2048, n) if self.bank is None else self.bank
        if size > n:
            raise ValueError(
                f"a bank of {size} rows is larger than the {n} train pictures"
                f"{' of each process' if run.world_size > 1 else ''}: --set bank={n} at most"
            )
        self._pretrained = copy.deepcopy(run.model).eval().requires_grad_(False)
        classifier = self._pretrained.get_submodule(run.blocks.classifier)
        self._seen: list[Tensor] = []
        classifier.register_forward_pre_hook(lambda module, inputs: self._seen.append(inputs[0]))
        self._bank = Bank(size, run.classifier.in_features, run.device)

    def begin(self, run: "Finetuner") -> None:
        """Fill the bank, unless it comes from a checkpoint: both halves with the same features."""
        if self._bank.filled:
            return
        for x, y in run.train.epoch(0):
            features = self.features(run, x)
            self._bank.add(features, features, y)
            if self._bank.filled == len(self._bank.y):
                break

    @torch.no_grad()
    def features(self, run: "Finetuner", x: Tensor) -> Tensor:
        """The pretrained network's features of pictures: (b, c, h, w) -> (b, d)."""
        with run.autocast():
            self._pretrained(x)
        return self._seen.pop().float()

    def loss(self, run: "Finetuner", batch: Batch) -> Tensor:
        smoothing = run.settings.smoothing
        return self.both(batch.pooled, batch.logits, batch.y, run.classifier, smoothing)

    def both(
        self, pooled: Tensor, logits: Tensor, y: Tensor, head: nn.Linear, smoothing: float = 0.0
    ) -> Tensor:
        """The loss of a batch and the bank; gradients reach features through the batch only."""
        v, labels = self.calibrated(pooled, head)
        bank_logits = F.linear(v.to(head.weight), head.weight, head.bias)
        soft = {"label_smoothing": smoothing}
        ours = F.cross_entropy(
            logits if logits.dtype == torch.double else logits.float(), y, **soft
        )
        theirs = F.cross_entropy(bank_logits.to(ours.dtype), labels, **soft)
        if self.implicit:
            return (len(y) * ours + len(labels) * theirs) / (len(y) + len(labels))
        return ours + self.strength * theirs

    @torch.no_grad()
    def calibrated(self, pooled: Tensor, head: nn.Linear) -> tuple[Tensor, Tensor]:
        """Pretrained features as today's head should see them: (k, d), and labels (k,).

        Each row has the mean length of the batch's features, pooled (b, d).
        """
        raw_p, raw_q, y = self._bank.rows()
        length = pooled.to(raw_p.dtype).norm(dim=1).mean()
        with torch.autocast(raw_p.device.type, enabled=False):
            p, q = F.normalize(raw_p), F.normalize(raw_q)
            if self.rotate:
                center = q.mean(dim=0)
                p = p - p.mean(dim=0)
                if self._rotation is None or self._steps % self.period == 0:
                    self.turn(p, q - center)
                p = p @ self._rotation.to(p) + center
            if self.translate:
                p = class_shift(p, q, y, head.weight, self.temperature)
        self._steps += 1
        return length * F.normalize(p), y

    def turn(self, p: Tensor, q: Tensor) -> None:
        """A new rotation, or the former where it cannot be computed."""
        try:
            self._rotation = rotation(p, q)
        except RuntimeError:
            if self._rotation is None:
                self._rotation = torch.eye(p.shape[1], device=p.device)

    def after_step(self, run: "Finetuner", batch: Batch) -> None:
        """The batch joins the bank after it was used."""
        self._bank.add(batch.pooled.float(), self.features(run, batch.x), batch.y)

    def finish(self, run: "Finetuner") -> None:
        self._pretrained = None

    def state(self) -> dict[str, Tensor]:
        bank = self._bank
        place = torch.tensor([bank.place, bank.filled, self._steps])
        found = {"tuned": bank.tuned, "pretrained": bank.pretrained, "y": bank.y, "place": place}
        return found if self._rotation is None else found | {"rotation": self._rotation}

    def load(self, state: dict[str, Tensor]) -> None:
        bank = self._bank
        for name in ("tuned", "pretrained", "y"):
            getattr(bank, name).copy_(state[name])
        bank.place, bank.filled, self._steps = state["place"].tolist()
        self._rotation = state.get("rotation")
