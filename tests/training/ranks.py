"""Runs one function in several forked processes of a gloo group: used by test_distributed.py.

A program of its own, because a process that forks must not have trained before.
"""

import json
import os
import signal
import sys
import time

import torch
from ports import free_ports
from timm.utils import unwrap_model

from vcr_zoo.training import parse, train
from vcr_zoo.training.distributed import start
from vcr_zoo.training.loop import Meter, Watch, updates
from vcr_zoo.training.wiring import finish, wire

PORTS = free_ports()


def gradients(argv: list[str], out: str) -> None:
    """Save the gradient of every update of one epoch, trained in double precision."""
    args = parse(argv)
    parts = wire(args, start(args))
    parts.task.double()
    parts.train.dtype = torch.float64
    finish(parts)
    model, kept = unwrap_model(parts.task.get_trainable_module()), []
    step = parts.optimizer.step

    def recording(*_, **__):
        kept.append(torch.cat([w.grad.flatten() for w in model.parameters()]).clone())
        step()

    parts.optimizer.step = recording
    for _ in updates(parts, 0, 0, Meter(parts), Watch(parts)):
        pass
    if args.rank == 0:
        torch.save(kept, out)


def training(argv: list[str], out: str) -> None:
    rank = os.environ.get("RANK", "0")
    train(parse([word.replace("{rank}", rank) for word in argv]), progress=False)


def main() -> None:
    print(json.dumps([run(order) for order in json.loads(sys.argv[1])]))


def run(order: dict) -> dict:
    """Exit codes of the ranks of one task, and how long they took after a rank was lost."""
    ranks, port = order["ranks"], next(PORTS)
    pids = []
    for rank in range(ranks):
        pid = os.fork()
        if pid:
            pids.append(pid)
            continue
        if ranks > 1:
            os.environ.update(
                **{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)},
                **{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
            )
        try:
            globals()[order["task"]](order["argv"], order["out"])
        except BaseException as error:
            print(f"rank {rank}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    if order.get("lose") is not None:
        time.sleep(order["after"])
        os.kill(pids[order["lose"]], signal.SIGKILL)
    began = time.monotonic()
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    return {"codes": codes, "seconds": time.monotonic() - began}


if __name__ == "__main__":
    main()
