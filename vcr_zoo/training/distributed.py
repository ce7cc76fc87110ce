"""Several processes: starting, stopping together, and naming the one that was lost."""

import argparse
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from timm.utils import init_distributed_device

log = logging.getLogger(__name__)

GRACE = timedelta(seconds=20)  # for the other ranks to say that they are alive


def start(args: argparse.Namespace) -> torch.device:
    """This process's device, after joining the others if torchrun or SLURM started several.

    Raises:
        ValueError: for a device that this machine does not have.
    """
    if args.device == "cuda" and "device" not in args.given and not torch.cuda.is_available():
        log.info("No CUDA here: training on the CPU (--device)")
        args.device = "cpu"
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {args.device}: torch sees no CUDA device; use --device cpu")
    return init_distributed_device(args)


class Together:
    """What the ranks of a run agree on, over sockets beside the gradients' own channel."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.group = dist.new_group(backend="gloo") if args.distributed else None
        self.asked = False  # this rank was told to stop
        self._flag, self._work = torch.zeros(1), None

    @contextmanager
    def signals(self) -> Iterator[None]:
        """While open, SIGTERM and Ctrl-C ask for a stop; a second one ends the process at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}

        def ask(number, frame):
            self.asked = True
            for one, handler in before.items():
                signal.signal(one, handler)

        for one in before:
            signal.signal(one, ask)
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def stop(self) -> bool:
        """Whether to stop now: the same answer on all ranks, an update after any was asked."""
        if self.group is None:
            return self.asked
        stop = False
        if self._work is not None:
            self._work.wait()
            stop = self._flag.item() > 0
        self._flag = torch.tensor([float(self.asked)])
        self._work = None if stop else dist.all_reduce(self._flag, group=self.group, async_op=True)
        return stop

    def gather(self, mine) -> list | None:
        """Every rank's object, on rank 0; None elsewhere."""
        if self.group is None:
            return [mine]
        everyone = [None] * self.args.world_size if self.args.rank == 0 else None
        dist.gather_object(mine, everyone, dst=0, group=self.group)
        return everyone

    @contextmanager
    def losing_nobody(self) -> Iterator[None]:
        """Turn a broken connection into an error that says which rank went away."""
        try:
            yield
        except RuntimeError as error:
            if self.group is None or not _broken(error):
                raise
            raise ConnectionError(
                f"rank {self.args.rank} stops: {self._missing()} stopped answering. "
                "Go on from the last checkpoint with --resume auto."
            ) from error

    def _missing(self) -> str:
        try:
            dist.monitored_barrier(group=self.group, timeout=GRACE, wait_all_ranks=True)
        except RuntimeError as error:
            return str(error).split("\n")[0]
        return "another rank"

    def close(self) -> None:
        """Leave the process group, if everybody is still there to leave it with."""
        if self.group is not None and dist.is_initialized():
            if self._work is not None:
                self._work.wait()
            dist.destroy_process_group()


def _broken(error: RuntimeError) -> bool:
    words = ("onnection", "peer", "gloo", "NCCL", "imed out", "Socket")
    return isinstance(error, dist.DistError) or any(word in str(error) for word in words)
