"""Fine-tunes by DR-Tune in two forked processes of a gloo group: used by test_dr_tune.py.

A program of its own, because a process that forks must not have trained before.
"""

import os
import sys

import torch
import torch.distributed as dist

from vcr_zoo.transfer.dr_tune import DRTune

from .tuning import run_of, small


def rank(number: int, out: str) -> None:
    torch.set_num_threads(1)
    where = f"file://{out}/group"
    dist.init_process_group("gloo", init_method=where, rank=number, world_size=2)
    run = run_of(DRTune(bank=20), settings=small(head_epochs=1, epochs=3, vcr_alpha=0.1))
    labels = run.train.batches.order()
    found = run.run()
    torch.save(
        {
            "weights": torch.cat([p.flatten() for p in found.model.parameters()]),
            "bank": run.method._bank.pretrained,
            "order": torch.from_numpy(labels.copy()),
        },
        f"{out}/{number}.pt",
    )
    dist.destroy_process_group()


def main(out: str) -> int:
    pids = []
    for number in range(2):
        pid = os.fork()
        if not pid:
            rank(number, out)
            os._exit(0)
        pids.append(pid)
    return max(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
