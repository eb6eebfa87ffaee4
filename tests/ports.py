"""Ports that stay free from the moment they are given until somebody listens there, however many tests run at once.

A port that the kernel picks and that is let go again may be picked for anybody else: another test's server, or the
near end of a connection. These lie below what the kernel picks from, and each process has some of its own.
"""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator

FIRST, BLOCK, BLOCKS = 20_000, 100, 100


def _claim() -> tuple[socket.socket, Iterator[int]]:
    """Take a block of ports for as long as this process lives, by its first one; the others, round and round."""
    for number in range(BLOCKS):
        first = FIRST + (os.getpid() + number) % BLOCKS * BLOCK
        sock = socket.socket()
        try:
            sock.bind(("127.0.0.1", first))
        except OSError:
            sock.close()
        else:
            return sock, itertools.cycle(range(first + 1, first + BLOCK))
    raise AssertionError(f"all ports from {FIRST} on are taken by other tests")


# At once, since tests count how many files are open before and after.
_held, _ports = _claim()


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    """A port of this machine where nobody listens, and that nobody else is given."""
    return next(port for port in itertools.islice(_ports, BLOCK) if _is_free(port, kind))


def _is_free(port: int, kind: socket.SocketKind) -> bool:
    with socket.socket(socket.AF_INET, kind) as tried:
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
