"""Several processes: starting, stopping together, and naming the one that was lost."""

import argparse
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from timm.utils import init_distributed_device

log = logging.getLogger(__name__)

BEAT = 1.0  # seconds between signs of life
GRACE = 4.0  # seconds without one after which a rank is lost


def start(args: argparse.Namespace) -> torch.device:
    """This process's device, after joining the others if torchrun or SLURM started several.

    Raises:
        ValueError: for a device that this machine does not have.
    """
    if args.device == "cuda" and "device" not in args.given and not torch.cuda.is_available():
        log.info("No CUDA here: training on the CPU (--device)")
        args.device = "cpu"
    try:
        torch.device(args.device)
    except RuntimeError as error:
        raise ValueError(f"--device {args.device}: {error}") from None
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"--device {args.device}: torch sees no CUDA device; use --device cpu")
    return init_distributed_device(args)


class Together:
    """What the ranks of a run agree on, over sockets beside the gradients' own channel."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.group = dist.new_group(backend="gloo") if args.distributed else None
        self.pulse = Pulse(args, self.group) if args.distributed else None
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

    def agree(self, where) -> None:
        """Refuse to begin at different epochs and batches, which checkpoints on each machine's own
        disk would lead to.

        Raises:
            ValueError: on every rank, if one begins elsewhere.
        """
        if self.group is None:
            return
        everyone = [None] * self.args.world_size
        dist.all_gather_object(everyone, where, group=self.group)
        if len(set(everyone)) > 1:
            found = "; ".join(
                f"rank {rank}: {f'epoch {each[0]}, batch {each[1] or 0}' if each else 'none'}"
                for rank, each in enumerate(everyone)
            )
            raise ValueError(
                f"the ranks found different checkpoints to go on from ({found}): --output, or the "
                "file of --resume, must be one that all machines share"
            )

    @contextmanager
    def losing_nobody(self) -> Iterator[None]:
        """Turn a broken connection into an error that says which rank went away."""
        try:
            yield
        except RuntimeError as error:
            if self.group is None or not _broken(error):
                raise
            raise ConnectionError(
                f"rank {self.args.rank} stops: {self.pulse.missing()} stopped answering. "
                "Go on from the last checkpoint with --resume auto."
            ) from error

    def close(self) -> None:
        """Leave the process group, if everybody is still there to leave it with."""
        if self.group is not None and dist.is_initialized():
            if self._work is not None:
                self._work.wait()
            self.pulse.end()
            dist.destroy_process_group()


class Pulse(threading.Thread):
    """Signs of life of every rank, in the store at MASTER_PORT: a lost rank's stop.

    A thread, because a rank that waits for gradients cannot answer otherwise, with a connection of
    its own, because the group's may be held by whoever waits.
    """

    def __init__(self, args: argparse.Namespace, group: dist.ProcessGroup):
        super().__init__(daemon=True)
        self.rank, self.ranks = args.rank, range(args.world_size)
        self.ended, self.lost = threading.Event(), ""
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        name = [time.time_ns()]  # torchrun's store outlives a restart
        dist.broadcast_object_list(name, src=0, group=group)
        store = dist.TCPStore(host, port, None, False, timedelta(seconds=30))
        self.store = dist.PrefixStore(f"vcr_zoo/{name[0]}", store)
        self.store.set(f"pulse/{self.rank}", "0")
        dist.barrier(group=group)
        self.start()

    def run(self) -> None:
        beat = 0
        while not self.ended.wait(BEAT):
            beat += 1
            try:
                self.store.set(f"pulse/{self.rank}", str(beat))
                if self.store.check(["lost"]):
                    self.lost = self.store.get("lost").decode()
            except RuntimeError:  # rank 0, which keeps the store, is gone
                return

    def missing(self) -> str:
        """The ranks without a sign of life, as text for a message; takes some seconds."""
        try:
            before = [self.store.get(f"pulse/{rank}") for rank in self.ranks]
            time.sleep(GRACE)
            after = [self.store.get(f"pulse/{rank}") for rank in self.ranks]
            silent = [rank for rank in self.ranks if before[rank] == after[rank]]
            if silent and not self.lost:
                self.lost = f"rank {' and '.join(map(str, silent))}"
                self.store.set("lost", self.lost)
                time.sleep(2 * BEAT)  # until the others have read it
        except RuntimeError:
            return self.lost or "rank 0"
        return self.lost or "another rank"

    def end(self) -> None:
        self.ended.set()
        self.join()


def _broken(error: RuntimeError) -> bool:
    words = ("onnection", "peer", "gloo", "NCCL", "imed out", "Socket")
    return isinstance(error, dist.DistError) or any(word in str(error) for word in words)
