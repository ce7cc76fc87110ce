"""timm's model as the options describe it, on its device."""

import argparse
import logging
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import timm
import torch
from safetensors import SafetensorError
from timm.layers import convert_splitbn_model, convert_sync_batchnorm
from torch import nn

from vcr_zoo.data import baseline
from vcr_zoo.zoo import check_name

COVERED = 0.8  # of a network by a file of weights; parts may be new, a head say, but not most

log = logging.getLogger(__name__)


def create_model(args: argparse.Namespace, channels: int) -> nn.Module:
    """timm's model, as the options describe it.

    Raises:
        LookupError: for a name or weights that timm does not have, with the closest that it has.
    """
    check_name(args.model)
    overlay = {}
    if args.pretrained_path:  # instead of the registered weights, with the head adapted
        overlay["pretrained_cfg_overlay"] = {**source(args.pretrained_path), "num_classes": -1}
    try:
        with noted_loads() as loads:
            model = timm.create_model(
                args.model,
                pretrained=args.pretrained,
                in_chans=channels,
                num_classes=args.num_classes,
                drop_rate=args.drop,
                drop_path_rate=args.drop_path if args.drop_path is not None else args.drop_connect,
                drop_block_rate=args.drop_block,
                global_pool=args.gp,
                bn_momentum=args.bn_momentum,
                bn_eps=args.bn_eps,
                checkpoint_path=args.initial_checkpoint,
                **overlay,
                **args.model_kwargs,
            )
    except AssertionError as error:
        raise ValueError(f"{args.model} does not take an option that was given: {error}") from None
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise ValueError(f"{args.model} does not take an option that was given: {error}") from None
    except (RuntimeError, LookupError, OSError, pickle.UnpicklingError, SafetensorError) as error:
        file = args.pretrained_path or args.initial_checkpoint
        if not file:
            raise
        raise ValueError(_misfit(args, file, error)) from error
    if args.pretrained_path and loads:
        _check_coverage(args, model, *loads[-1])
    with torch.no_grad():
        if args.head_init_scale is not None:
            model.get_classifier().weight.mul_(args.head_init_scale)
            model.get_classifier().bias.mul_(args.head_init_scale)
        if args.head_init_bias is not None:
            model.get_classifier().bias.fill_(args.head_init_bias)
    return model


def source(path: str) -> dict:
    """Where timm takes weights from: a file, or `baseline:NAME`, see `vcr_zoo.data.weights`."""
    kind, _, name = path.partition(":")
    return {"state_dict": baseline(name)} if kind == "baseline" else {"file": path}


@contextmanager
def noted_loads() -> Iterator[list[tuple[list, list]]]:
    """For each load_state_dict of a module inside, the keys missing and those left over.

    timm loads --pretrained-path without insisting on any key, and says so at most in its log.
    """
    loads, load = [], nn.Module.load_state_dict

    def noting(module: nn.Module, *args, **kwargs):
        result = load(module, *args, **kwargs)
        loads.append(tuple(result))
        return result

    nn.Module.load_state_dict = noting
    try:
        yield loads
    finally:
        nn.Module.load_state_dict = load


def _check_coverage(args, model: nn.Module, missing: list, left: list) -> None:
    """Refuse a file that holds hardly anything of the network, and say what else did not fit."""
    classifiers = model.pretrained_cfg.get("classifier") or ()
    heads = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    sizes = {
        name: weight.numel()
        for name, weight in model.named_parameters()
        if not name.startswith(tuple(f"{head}." for head in heads))
    }
    absent = [name for name in missing if name in sizes]
    covered = 1 - sum(sizes[name] for name in absent) / max(sum(sizes.values()), 1)
    if covered < COVERED:
        raise ValueError(
            f"{args.pretrained_path} is of another architecture than {args.model}: it holds "
            f"{100 * covered:.0f} % of its weights, without {absent[0]} for example"
        )
    for names, what in ((absent, "lacks"), (left, "holds what the network does not have:")):
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
            log.warning(f"{args.pretrained_path} {what} {shown}")


def _misfit(args: argparse.Namespace, file: str, error: Exception) -> str:
    """Why a file of weights did not go into the model, in one line."""
    if not Path(file).is_file() and not file.startswith("baseline:"):
        return f"{file}: there is no such file of weights"
    differing = re.findall(r"size mismatch for (\S+?):|Missing key", str(error))
    if not differing and not isinstance(error, KeyError):  # timm's converters look for names
        return f"{file} holds no weights that can be read safely"
    head = (
        args.initial_checkpoint
        and differing
        and all("fc" in n or "head" in n for n in differing if n)
    )
    hint = " If only the head differs, pass it as --pretrained --pretrained-path." if head else ""
    return f"{file} is a checkpoint of another architecture than {args.model}.{hint}"


def prepare(args: argparse.Namespace, model: nn.Module, device, dtype) -> nn.Module:
    """The model on its device, with the layout and the batch norm that were asked for."""
    if args.grad_checkpointing:
        model.set_grad_checkpointing(enable=True)
    if args.split_bn:
        if args.aug_splits < 2 and not args.resplit:
            raise ValueError("--split-bn needs --aug-splits or --resplit")
        model = convert_splitbn_model(model, max(args.aug_splits, 2))
    model.to(device=device, dtype=dtype)
    if args.channels_last:
        model.to(memory_format=torch.channels_last)
    if args.distributed and args.sync_bn:
        if args.split_bn:
            raise ValueError("--sync-bn and --split-bn exclude each other")
        if device.type == "cpu":
            raise ValueError("--sync-bn needs CUDA: torch has no synchronized batch norm on CPUs")
        args.dist_bn = ""
        model = convert_sync_batchnorm(model)
    return model
