"""Ports that nobody uses, for groups of processes; used by killing.py and ranks.py."""

import os
import socket
from collections.abc import Iterator
from contextlib import suppress


def free_ports() -> Iterator[int]:
    """Below those that Linux gives by itself to whoever asks for any, so that none is taken between
    here and the process that is told of it; two tests at a time begin at places far apart."""
    first = os.getpid() * 1_009
    return filter(is_free, (20_000 + number % 12_000 for number in range(first, first + 12_000)))


def is_free(port: int) -> bool:
    with socket.socket() as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", port))
        return True
    return False
