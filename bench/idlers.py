"""Clients that hold connections and ask for nothing, in a process of their own on the targets' core."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle, islice

import uvloop

from servmon.tasks import cancel, spawn

# Whoever was cut off comes back so much later.
RETURN_SECONDS = 5.0
# What each of them sends before it rests: nothing, half a request, or a whole one, after which it keeps the connection.
OPENINGS = {
    "silent": b"",
    "half a request": b"GET /services/ HTTP/1.1\r\nHost: bench\r\nAuthoriz",
    "kept alive": b"GET /healthz HTTP/1.1\r\nHost: bench\r\n\r\n",
}


@contextmanager
def idling(port: int, number: int, core: int) -> Iterator[None]:
    """``number`` of them at ``port``, until the end; then a line says how many connections they had to make."""
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.idlers", str(port), str(number)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield
    finally:
        process.stdin.close()
        print(process.stdout.read().decode().strip())
        process.wait(timeout=10)
        process.stdout.close()


class _Crowd:
    """Counts the connections they made, by kind; ``complete`` once each has one."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.made: Counter[str] = Counter()
        self.complete = asyncio.Event()

    def note(self, kind: str) -> None:
        self.made[kind] += 1
        if self.made.total() >= self.number:
            self.complete.set()


async def _idle(port: int, kind: str, crowd: _Crowd) -> None:
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        crowd.note(kind)
        try:
            writer.write(OPENINGS[kind])
            while await reader.read(4096):
                pass
        except ConnectionError:
            pass
        finally:
            writer.transport.abort()
        await asyncio.sleep(RETURN_SECONDS)


async def _rest(port: int, number: int) -> None:
    crowd = _Crowd(number)
    idle = [spawn(_idle(port, kind, crowd), name=kind) for kind in islice(cycle(OPENINGS), number)]
    await crowd.complete.wait()
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await cancel(*idle)
    said = ", ".join(f"{count} {kind}" for kind, count in crowd.made.items())
    print(f"{number} idle clients made {crowd.made.total()} connections: {said}")


if __name__ == "__main__":
    uvloop.run(_rest(int(sys.argv[1]), int(sys.argv[2])))
