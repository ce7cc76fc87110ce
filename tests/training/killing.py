"""Trains in forked processes, kills them at random moments and resumes: used by test_resume.py.

A program of its own, because a process that forks must not have trained before. It takes one JSON
object (folder, argv, ranks, kills, broken, seed, updates), kills until it did so often, within an
epoch and in more than one, and prints how often it did and where the runs are that came to an end.
"""

import faulthandler
import json
import os
import random
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from ports import free_ports

from vcr_zoo.training import checkpoint, parse, report, train

PORTS = free_ports()
STUCK = 240  # seconds after which a run says where it is, and ends


def child(argv: list[str], rank: int, ranks: int, port: int, pipe: int, broken: bool) -> None:
    """Train in this process, writing a byte at each sign of progress."""
    os.setpgrp()  # with its loader's workers
    faulthandler.dump_traceback_later(STUCK, exit=True)
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
    port = next(PORTS)
    pids = []
    for rank in range(ranks):
        pid = os.fork()
        if pid == 0:
            os.close(listening)
            child(argv, rank, ranks, port, pipe, broken)
        pids.append(pid)
    os.close(pipe)
    return pids, listening


def ended(pid: int) -> int | None:
    """Exit code of a process that is still to be waited for, negative for a signal; None before."""
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if found is None:
        return None
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def progresses(pids: list[int], listening: int) -> bool:
    """Wait for a sign of progress; False if the run comes to its end instead.

    The end of the pipe would not tell: workers that outlive their rank hold it open.
    """
    while not select.select([listening], [], [], 0.02)[0]:
        codes = [ended(pid) for pid in pids]
        if any(codes):
            raise RuntimeError(f"a run that nobody killed ends with {finished(pids)}")
        if None not in codes:
            return False
    return bool(os.read(listening, 1))


def finished(pids: list[int]) -> list[int]:
    """Wait for a run to end; exit codes, negative for signals. A rank that fails ends the others,
    which could wait for it for longer than we do.

    A worker that was just starting as its rank was killed does not notice: torch's watchdog takes
    whom it finds as its parent. It would hold our output open for ever.
    """
    while None in (codes := [ended(pid) for pid in pids]) and not any(codes):
        time.sleep(0.02)
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    for pid in pids:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    return codes


def main() -> None:
    order = json.loads(sys.argv[1])
    random.seed(order["seed"])
    folder, argv = Path(order["folder"]), [*order["argv"], "--resume", "auto"]
    kills = parts = within = 0
    epochs, ends = set(), []
    wanted = order["kills"]
    while kills < wanted or (kills < 10 * wanted and not (within and len(epochs) > 1)):
        pids, listening = launch(argv, order["ranks"], order["broken"])
        for _ in range(1 + random.randrange(order["updates"] + 1)):  # training begins, each update
            if not progresses(pids, listening):
                break
        time.sleep(random.uniform(0, 0.04))
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        codes = finished(pids)
        os.close(listening)
        if set(codes) == {0}:  # it had come to its end before: again from the start
            ends.append(folder.with_name(f"{folder.name}-{len(ends)}"))
            folder.rename(ends[-1])
            continue
        assert -signal.SIGKILL in codes, codes
        kills += 1
        parts += any(folder.glob(".*.part"))
        if newest := checkpoint.latest(folder):
            content = checkpoint.read(newest)
            epochs.add(content["epoch"])
            within += content["vcr_zoo"]["batches"] > 0
    pids, listening = launch(argv, order["ranks"], order["broken"])
    codes = finished(pids)
    assert set(codes) == {0}, codes
    report = {"kills": kills, "epochs": sorted(epochs), "within_an_epoch": within}
    report |= {"within_a_save": parts, "ends": [*map(str, ends), str(folder)]}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
