"""The one loop that fine-tunes a network on pictures; methods plug into it (see method.py)."""

import contextlib
import copy
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
import torch.distributed as dist
from timm.optim import (
    create_optimizer_v2,
    list_optimizers,
    param_groups_layer_decay,
    param_groups_weight_decay,
)
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3, NativeScaler, dispatch_clip_grad, distribute_bn
from torch import Tensor, nn
from tqdm import tqdm

from vcr_zoo.data import Images
from vcr_zoo.features import data_config, network_sha256, weights_sha256
from vcr_zoo.placement import LAYERS, attach, split
from vcr_zoo.results import closest
from vcr_zoo.training import checkpoint
from vcr_zoo.training.randomness import MODEL, seed_everything

from .frozen import Blocks, activation, tail
from .method import Batch, Method
from .scores import log_loss, softmax, top1
from .views import LIMIT, Views


@dataclass(frozen=True)
class Settings:
    """What a run is done with, whatever the method; all of it is written beside the results."""

    epochs: int = 20
    batch_size: int = 32
    opt: str = "adamw"  # a name of timm's
    lr: float = 1e-3
    weight_decay: float = 0.05
    layer_decay: float | None = None  # each block's rate over that of the next
    head_lr: float = 1.0  # the classifier's rate over that of the others
    warmup_epochs: int = 1  # in which rates rise; then they fall along a cosine
    head_epochs: int | None = None  # at first the head learns alone (Kumar et al., 2022): 2, of few
    # epochs a quarter
    patience: int = 0  # epochs without a better validation accuracy, then stop; 0: never
    smoothing: float = 0.1  # of labels
    ema: float = 0.0  # decay of averaged weights, which are then those that count; 0: none
    clip_grad: float | None = None  # norm
    augment: bool = True  # random crops, mirrored
    views: int = 0  # fixed augmentations of each picture, taken in turn; 0: new in each epoch
    crop: float = 0.6  # smallest share of the picture in a crop
    hflip: float = 0.5  # share that is mirrored
    input_size: tuple[int, int, int] | None = None  # of the pictures; None: the network's own
    vcr_layers: str = "blocks"
    vcr_alpha: float = 0.0
    vcr_beta: float = 0.0
    amp: str = ""  # "bfloat16" or "float16"
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self):
        if self.head_epochs is None:
            object.__setattr__(self, "head_epochs", min(2, self.epochs // 4))
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("lr", "head_lr"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        for name in ("weight_decay", "warmup_epochs", "head_epochs", "patience", "views"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, but is {getattr(self, name)}")
        for name in ("vcr_alpha", "vcr_beta"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative, but is {getattr(self, name)}")
        for name in ("clip_grad", "layer_decay", "crop"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")
        for name in ("smoothing", "ema", "hflip", "crop"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, not {getattr(self, name)}")
        if self.opt not in (known := list_optimizers()):
            raise ValueError(f"no optimizer {self.opt!r}.{closest(self.opt, known)}")
        if self.amp not in ("", "bfloat16", "float16"):
            raise ValueError(f"amp is '', 'bfloat16' or 'float16', not {self.amp!r}")


@dataclass
class Tuned:
    """A fine-tuned network, in evaluation mode, and how it got there."""

    model: nn.Module
    validation_top1: float  # of the epoch that was kept
    epoch: int  # that epoch; the first is 0
    history: list[dict]  # a row for each epoch
    cached: bool  # whether the frozen part ran once
    folder: Path | None = None


class Pooled:
    """Keeps what enters the classifier, with its gradient: (b, d)."""

    def __init__(self, classifier: nn.Module):
        self.value: Tensor | None = None
        self.handle = classifier.register_forward_pre_hook(self.note)

    def note(self, module, inputs) -> None:
        self.value = inputs[0]

    def __deepcopy__(self, memo) -> "Pooled":
        return self


class Finetuner:
    """One run. `Finetuner(model, train, validation, method, settings).run()` gives a `Tuned`.

    The epoch with the highest validation accuracy is kept, of equals the one with the lowest log
    loss. Every draw is a function of seed, epoch, step and picture, so that a resumed run ends as
    one that was never stopped. In a frozen part batch norm uses its running statistics, nothing
    decays, and with fixed views (or without augmentation) its activations are computed once.

    Where torch.distributed was initialized, each process takes its share of every epoch, batches
    of `batch_size` pictures each, and gradients are averaged.

    Args:
        model: of timm.create_model, with its weights; it is copied.
        train, validation: parts of one data set. Choices rest on validation alone.
        folder: where to keep checkpoints and, at the end, what timm.create_model loads.
        overwrite: begin again in a folder that holds another run.
        progress: show a line on standard error.
        limit: bytes of activations of the frozen part to keep.

    Raises:
        ValueError: for pictures that cannot teach, settings or a model that cannot be used.
        LookupError: for a depth or a layer that the model has not.
        FileExistsError: for a folder that holds another run.
    """

    def __init__(
        self,
        model: nn.Module,
        train: Images,
        validation: Images,
        method: Method | None = None,
        settings: Settings | None = None,
        *,
        folder: str | Path | None = None,
        overwrite: bool = False,
        progress: bool = False,
        limit: int = LIMIT,
    ):
        check(train, validation)
        self.method, self.settings = method or Method(), settings or Settings()
        self.classes = train.classes
        self.device = torch.device(self.settings.device)
        self.world_size = dist.get_world_size() if dist.is_initialized() else 1
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self.folder = Path(folder) if folder is not None and self.rank == 0 else None
        self.progress, self.limit = progress and self.rank == 0, limit
        self.identity = self.identify(model, train, validation)
        found = None if folder is None else self.earlier(Path(folder), overwrite)

        self.config = data_config(model)
        if self.settings.input_size:
            self.config["input_size"] = tuple(self.settings.input_size)
        whole = {"crop_pct": 1.0, "crop_mode": "center", "interpolation": "bilinear"}
        self.config |= whole  # as `Views` prepares
        self.model = copy.deepcopy(model)
        if not hasattr(model, "reset_classifier"):
            raise ValueError(
                f"{type(model).__name__} has no classifier to replace (no reset_classifier): "
                "fine-tuning needs a model of timm.create_model"
            )
        if isinstance(model.get_classifier(), tuple | list | nn.ModuleList):
            raise ValueError(
                f"{type(model).__name__} has several classifiers, and fine-tuning gives it one: "
                "take a network with one (without _distilled, say)"
            )
        seed_everything(self.settings.seed)
        self.method.head(self.model, len(self.classes))
        self.model.to(self.device)
        self.blocks = Blocks(self.model, self.config["input_size"])
        self.classifier = self.model.get_submodule(self.blocks.classifier)
        self.train, self.validation = self.views(train, True), self.views(validation, False)
        self.method.prepare(self)
        self.wire()
        self.start(found)

    # What it is made of

    def identify(self, model: nn.Module, train: Images, validation: Images) -> dict:
        """What makes two runs the same run."""
        return {
            "method": self.method.name,
            **json.loads(json.dumps({**self.method.settings(), **asdict(self.settings)})),
            "classes": list(train.classes),
            "weights": weights_sha256(model),
            "network": network_sha256(model),
            "data": [train.fingerprint, validation.fingerprint],
            "processes": self.world_size,
        }

    def earlier(self, folder: Path, overwrite: bool) -> dict | None:
        """The checkpoint of this very run in its folder, if there is one.

        Raises:
            FileExistsError: if the folder holds another run, or a file that this one would replace.
        """
        path = folder / checkpoint.LAST
        written = (path, folder / "config.json", folder / "model.safetensors")
        held = [place for place in written if place.exists()]
        if overwrite or not held:
            return None
        found = checkpoint.read(path) if path.exists() else {}
        if "identity" not in found:
            raise FileExistsError(
                f"{held[0]} is of no run of this command: take another folder, or --overwrite to "
                "write in its place"
            )
        theirs = json.loads(found["identity"])
        if differing := [k for k in self.identity if theirs.get(k) != self.identity[k]]:
            raise FileExistsError(
                f"{folder} holds a run with other {', '.join(differing[:5])}: take another folder, "
                "or --overwrite to begin again"
            )
        return found

    def views(self, images: Images, training: bool) -> Views:
        s = self.settings
        size = min(s.batch_size, len(images) // self.world_size) if training else 256
        return Views(
            images,
            max(size, 1),
            training=training,
            augment=s.augment,
            views=s.views,
            crop=s.crop,
            hflip=s.hflip,
            seed=s.seed,
            device=self.device,
            rank=self.rank if training else 0,
            world_size=self.world_size if training else 1,
            **{key: self.config[key] for key in ("input_size", "mean", "std")},
        )

    def wire(self) -> None:
        """Frozen part, averaged weights, optimizer, schedule; distributed at the end."""
        s = self.settings
        depths = [self.method.depth(self, epoch) for epoch in range(s.epochs)]
        self.always = self.blocks.check(min(depths))  # frozen in every epoch
        self.penalties = attach(self.model, alpha=0.0, beta=0.0)
        self.cut = self.kept_apart()
        self.network = self.cut or self.model
        self.ema = ModelEmaV3(self.model, decay=s.ema, use_warmup=True) if s.ema else None
        self.freeze(self.always)
        self.optimizer = create_optimizer_v2(self.groups(), opt=s.opt, lr=s.lr, weight_decay=0.0)
        self.schedule, _ = create_scheduler_v2(
            self.optimizer,
            "cosine",
            num_epochs=s.epochs,
            warmup_epochs=min(s.warmup_epochs, s.epochs - 1),
            warmup_lr=s.lr * 0.01,
            step_on_epochs=False,
            updates_per_epoch=len(self.train),
        )
        self.scaler = NativeScaler(self.device.type) if s.amp == "float16" else None
        inside = self.cut.network if self.cut else self.model
        self.pooled = Pooled(inside.get_submodule(self.blocks.classifier))
        if self.world_size > 1:  # before anything is frozen for a while only
            ids = [self.device.index] if self.device.type == "cuda" else None
            self.network = nn.parallel.DistributedDataParallel(
                self.network, device_ids=ids, find_unused_parameters=True
            )
        self.freeze(depths[0])

    def kept_apart(self) -> nn.Module | None:
        """The network from the frozen part on, if the latter's activations can be kept."""
        fixed = self.train.count > 0 and self.world_size == 1 and not self.method.pictures
        if not fixed or self.always == 0:
            return None
        found = tail(self.model, self.blocks, self.always, self.train.example())
        if found is None:
            return None
        for views in (self.train, self.validation):
            if not views.keep(self.activation, self.limit):
                self.train.kept.clear()
                return None
        return found

    @torch.no_grad()
    def activation(self, x: Tensor) -> Tensor:
        """What the frozen part makes of pictures."""
        self.model.eval()
        with self.autocast():
            return activation(self.model, self.blocks, self.always, x)

    def groups(self) -> list[dict]:
        """Parameter groups of timm, the classifier's apart where it has a rate of its own."""
        s, model = self.settings, self.model
        apart = getattr(model, "no_weight_decay", set)()
        if s.layer_decay is None:
            groups = param_groups_weight_decay(model, s.weight_decay, apart)
        else:
            groups = param_groups_layer_decay(
                model, s.weight_decay, apart, layer_decay=s.layer_decay
            )
        head, found = {id(p) for p in self.classifier.parameters()}, []
        for group in groups:
            group.pop("param_names", None)
            scale = group.pop("lr_scale", 1.0)
            for inside, factor in ((False, 1.0), (True, s.head_lr)):
                chosen = [p for p in group["params"] if (id(p) in head) == inside]
                if chosen:
                    found.append({**group, "params": chosen, "lr_scale": scale * factor})
        return found

    def freeze(self, t: int) -> None:
        """Freeze the first t blocks and regularize what is left."""
        self.frozen = t
        part = self.blocks.frozen(t)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name not in part.parameters and self.method.learns(name))
        self.penalties.detach()
        s = self.settings
        layers = self.layers(t) if s.vcr_alpha or s.vcr_beta else []
        if layers:
            self.penalties = attach(
                self.cut.network if self.cut else self.model,
                layers,
                alpha=s.vcr_alpha,
                beta=s.vcr_beta,
                every=1,
                input_size=self.config["input_size"],
                seed=s.seed,
            )
        else:
            self.penalties = attach(self.model, alpha=0.0, beta=0.0)

    def layers(self, t: int) -> list[str]:
        """Layers of the settings that depth t leaves to be regularized."""
        trace = self.blocks.trace  # of the network before a method put anything into it
        frozen, found = self.blocks.frozen(t).modules, []
        for word in split(self.settings.vcr_layers):
            if word == "pooled":
                found += [word] if t < self.blocks.head else []
            elif word in LAYERS:
                found += [name for name, _ in trace.named(word) if name not in frozen]
            else:
                trace.named(word)  # or an error that names the closest
                found += [word] if word not in frozen else []
        return found

    def start(self, found: dict | None) -> None:
        """Begin, or go on from a checkpoint."""
        self.epoch, self.history = 0, []
        self.best: dict[str, Tensor] = {}
        self.kept = {"epoch": -1, "top1": -1.0, "log_loss": 0.0}
        if found:
            self.model.load_state_dict(found["model"])
            self.optimizer.load_state_dict(found["optimizer"])
            self.best = found["best"]
            self.method.load(found["method"][self.rank])
            if self.ema is not None:
                self.ema.module.load_state_dict(found["ema"])
            if self.scaler is not None:
                self.scaler.load_state_dict(found["scaler"])
            position = json.loads(found["position"])
            self.epoch, self.kept = position["epoch"], position["kept"]
            self.history = position["history"]
        self.method.begin(self)

    # The loop

    def run(self) -> Tuned:
        """Train to the end."""
        s, steps = self.settings, len(self.train)
        bar = tqdm(
            total=s.epochs * steps,
            initial=self.epoch * steps,
            desc=self.method.name,
            unit="batch",
            disable=not self.progress,
        )
        while self.epoch < s.epochs and not self.stale():
            depth = self.method.depth(self, self.epoch)
            if depth != self.frozen:
                self.freeze(depth)
            loss = self.pass_over(bar)
            self.validate(loss)
            bar.set_postfix_str(f"validation {100 * self.history[-1]['top1']:.2f} %")
            self.epoch += 1
            self.save()
        bar.close()
        self.model.load_state_dict(self.best)
        self.penalties.detach()
        self.pooled.handle.remove()
        self.method.finish(self)
        self.model.eval().requires_grad_(True)
        if self.folder is not None:
            self.export()
        return Tuned(
            self.model,
            self.kept["top1"],
            self.kept["epoch"],
            self.history,
            self.cut is not None,
            self.folder,
        )

    def stale(self) -> bool:
        """Whether validation has not improved for as long as we are patient."""
        return 0 < self.settings.patience <= self.epoch - 1 - self.kept["epoch"]

    def pass_over(self, bar: tqdm) -> float:
        """One epoch of training; the mean loss."""
        self.training_mode()
        total = 0.0
        for index, (x, y) in enumerate(self.train.epoch(self.epoch)):
            total += self.step(x, y, index)
            bar.update()
        return total / len(self.train)

    def training_mode(self) -> None:
        """Training mode, but evaluation mode in what is frozen."""
        frozen = self.blocks.frozen(self.frozen).modules
        for root in (self.model, self.cut.network if self.cut else None):
            if root is not None:
                root.train()
                for name in frozen:
                    root.get_submodule(name).eval()
                for module in root.modules():  # of methods that leave some weights as they are
                    if isinstance(module, nn.modules.batchnorm._BatchNorm):
                        own = list(module.parameters(recurse=False))
                        module.train(module.training and any(p.requires_grad for p in own))

    def step(self, x: Tensor, y: Tensor, index: int) -> float:
        """One optimizer step; its loss.

        Raises:
            FloatingPointError: for a loss that is not a number.
        """
        s = self.settings
        seed_everything(s.seed, self.epoch, MODEL, index, self.rank)
        done = self.epoch * len(self.train) + index
        self.penalties.step = done
        with self.autocast():
            with self.penalties.collect() as collected:
                logits = self.network(x)
            batch = Batch(x, y, self.pooled.value, logits)
            loss = self.method.loss(self, batch) + collected.total
        value = loss.item()
        if not value < float("inf") and self.scaler is None:
            raise FloatingPointError(
                f"epoch {self.epoch}, step {index}: the loss is {value}; lower lr or clip_grad"
            )
        learning = [p for p in self.model.parameters() if p.requires_grad]
        if self.scaler is not None:
            self.scaler(loss, self.optimizer, clip_grad=s.clip_grad, parameters=learning)
        else:
            loss.backward()
            if s.clip_grad is not None:
                dispatch_clip_grad(learning, value=s.clip_grad)
            self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.update(self.model, step=done + 1)
        self.schedule.step_update(done + 1)
        self.method.after_step(self, batch)
        return value

    def autocast(self) -> contextlib.AbstractContextManager:
        if not self.settings.amp:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, getattr(torch, self.settings.amp))

    @torch.no_grad()
    def validate(self, loss: float) -> None:
        """Accuracy on validation; keeps the weights if they are the best so far.

        Every process judges all pictures, by batch norm's statistics averaged over processes, and
        so comes to the same choice.

        Raises:
            FloatingPointError: for scores that are no numbers.
        """
        if self.world_size > 1:
            for one in (self.model, *([self.ema.module] if self.ema else [])):
                distribute_bn(one, self.world_size, reduce=True)
        model = self.model if self.ema is None else self.ema.module
        network = model
        if self.cut is not None:
            network = self.cut
            if self.ema is not None:
                network = tail(model, self.blocks, self.always, self.train.example())
        network.eval()
        outputs = [(self.logits(network, x).cpu(), y.cpu()) for x, y in self.validation.epoch()]
        logits, y = (torch.cat(parts) for parts in zip(*outputs, strict=True))
        if not logits.isfinite().all():
            raise FloatingPointError(
                f"epoch {self.epoch}: scores of validation pictures are not finite; lower lr or "
                "clip_grad"
            )
        p = softmax(logits)
        row = {"epoch": self.epoch, "train_loss": loss, "top1": top1(p, y)}
        row |= {"log_loss": log_loss(p, y), "frozen": self.frozen}
        self.history.append(row)
        if (row["top1"], -row["log_loss"]) > (self.kept["top1"], -self.kept["log_loss"]):
            self.kept = {key: row[key] for key in ("epoch", "top1", "log_loss")}
            self.best = {name: v.detach().clone() for name, v in model.state_dict().items()}

    def logits(self, network: nn.Module, x: Tensor) -> Tensor:
        with self.autocast():
            return network(x).float()

    # What it leaves

    def save(self) -> None:
        """A checkpoint from which `start` goes on, with the method's state of every process."""
        states = [self.method.state()]
        if self.world_size > 1:
            states = [None] * self.world_size
            dist.all_gather_object(states, self.method.state())
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        position = {"epoch": self.epoch, "kept": self.kept, "history": self.history}
        state = {
            "identity": json.dumps(self.identity),
            "position": json.dumps(position),
            "model": self.model.state_dict(),
            "ema": self.ema.module.state_dict() if self.ema is not None else {},
            "scaler": self.scaler.state_dict() if self.scaler is not None else {},
            "optimizer": self.optimizer.state_dict(),
            "method": states,
            "best": self.best,
        }
        checkpoint.write(self.folder / checkpoint.LAST, lambda part: torch.save(state, part))

    def export(self) -> None:
        """The network with its classes' names, for timm.create_model("local-dir:FOLDER")."""
        config = {"label_names": list(self.classes)}
        checkpoint.save_network(self.model, self.folder, config, self.config)


def check(train: Images, validation: Images) -> None:
    """Refuse parts with which nothing can be taught or chosen.

    Raises:
        ValueError: for no validation pictures, fewer than two classes, or a class without pictures.
    """
    if len(validation) == 0:
        raise ValueError(
            "there are no validation pictures, and every choice rests on them: move some of the "
            "train part, or take a data set that has them"
        )
    if train.classes != validation.classes:
        raise ValueError(
            f"train has {len(train.classes)} classes and validation {len(validation.classes)}: "
            "they are not of one data set"
        )
    if len(train.classes) < 2:
        raise ValueError(f"there is only one class, {train.classes[0]!r}: nothing to tell apart")
    present = set(train.y.tolist())
    if missing := [name for i, name in enumerate(train.classes) if i not in present]:
        raise ValueError(
            f"no train picture of {', '.join(map(repr, missing[:5]))}"
            f"{f' and {len(missing) - 5} more classes' if missing[5:] else ''}: drop those classes "
            "or take more pictures"
        )


@torch.no_grad()
def predict(model: nn.Module, images: Images, settings: Settings) -> tuple[Tensor, Tensor]:
    """Probabilities (n, classes) and labels (n,) of pictures, prepared as in training."""
    config = data_config(model)
    if settings.input_size:
        config["input_size"] = tuple(settings.input_size)
    wanted = {key: config[key] for key in ("input_size", "mean", "std")}
    views = Views(images, 256, device=settings.device, **wanted)
    model.eval().to(settings.device)
    cast = torch.autocast(
        torch.device(settings.device).type,
        getattr(torch, settings.amp or "bfloat16"),
        enabled=bool(settings.amp),
    )
    with cast:
        outputs = [(softmax(model(x).cpu()), y.cpu()) for x, y in views.epoch()]
    return tuple(torch.cat(parts) for parts in zip(*outputs, strict=True))


def settings_from(values: dict) -> Settings:
    """Settings from names and values.

    Raises:
        LookupError: for a name that is none, with the closest.
    """
    known = {f.name for f in fields(Settings)}
    for name in values:
        if name not in known:
            raise LookupError(f"no setting {name!r}.{closest(name, known)}")
    return Settings(**values)
