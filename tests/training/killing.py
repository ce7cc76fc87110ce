"""Trains in forked processes, kills them at random moments and resumes: used by test_resume.py.

A program of its own, because a process that forks must not have trained before. It takes one JSON
object (argv, ranks, kills, broken, seed) and prints how the killed runs came to their end.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from ports import free_port

from vcr_zoo.training import checkpoint, parse, report, train


def child(argv: list[str], rank: int, ranks: int, port: int, pipe: int, broken: bool) -> None:
    """Train in this process, writing a byte at each sign of progress."""
    os.setpgrp()  # with its loader's workers
    if ranks > 1:
        os.environ.update(
            RANK=str(rank),
            LOCAL_RANK=str(rank),
            WORLD_SIZE=str(ranks),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
    if broken:  # weights and optimizer come back, the place in the epoch and the generators do not
        checkpoint.load_position = lambda parts, content: (content["epoch"], 0, {}, [])
    report.EVERY = 0.0
    try:
        train(parse(argv), progress=lambda *_: os.write(pipe, b"."))
    except BaseException as error:
        print(f"rank {rank}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def launch(argv: list[str], ranks: int, broken: bool) -> tuple[list[int], int]:
    """Process numbers of a run, and the end of a pipe on which it shows progress."""
    listening, pipe = os.pipe()
    port = free_port()
    pids = []
    for rank in range(ranks):
        pid = os.fork()
        if pid == 0:
            os.close(listening)
            child(argv, rank, ranks, port, pipe, broken)
        pids.append(pid)
    os.close(pipe)
    return pids, listening


def finished(pids: list[int]) -> list[int]:
    """Wait for a run to end; exit codes, negative for signals.

    A worker that was just starting as its rank was killed does not notice: torch's watchdog takes
    whom it finds as its parent. It would hold our output open for ever.
    """
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    return codes


def main() -> None:
    order = json.loads(sys.argv[1])
    random.seed(order["seed"])
    folder, argv = Path(order["folder"]), [*order["argv"], "--resume", "auto"]
    kills = parts = 0
    epochs = set()
    while kills < order["kills"]:
        pids, listening = launch(argv, order["ranks"], order["broken"])
        for _ in range(1 + random.randrange(order["updates"] + 1)):
            os.read(listening, 1)  # training begins, then a byte for each update; none at the end
        time.sleep(random.uniform(0, 0.04))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        codes = finished(pids)
        os.close(listening)
        if set(codes) == {0}:  # it had come to its end before: again from the start
            shutil.rmtree(folder)
            continue
        assert -signal.SIGKILL in codes, codes
        kills += 1
        parts += any(folder.glob(".*.part"))
        newest = checkpoint.latest(folder)
        epochs.add(checkpoint.read(newest)["epoch"] if newest else 0)
    pids, listening = launch(argv, order["ranks"], order["broken"])
    codes = finished(pids)
    assert set(codes) == {0}, codes
    print(json.dumps({"kills": kills, "epochs": sorted(epochs), "within_a_save": parts}))


if __name__ == "__main__":
    main()
