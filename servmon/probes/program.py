"""Runs a program of the operator's own: no shell, nothing of servmon's environment, nothing left behind.

Secrets stand in that environment. What a program writes is read up to a limit, and it ends with all its children when
whoever waits for it gives up.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple, cast

from servmon.clock import SYSTEM_CLOCK
from servmon.tasks import spawn

# What is read of each of its two outputs; the rest is thrown away as it comes.
OUTPUT_LIMIT = 65_536
# It may leave a child behind that keeps its output open; what came so long after its end still counts.
_LAST_WORDS_SECONDS = 0.1
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
_STDIN, _STDOUT, _STDERR = range(3)


class Ended(NamedTuple):
    """How a program ended; ``code`` is negative where a signal killed it."""

    code: int
    stdout: str
    stderr: str
    elapsed_ms: float

    @property
    def how(self) -> str:
        """Its end in words: ``was killed by signal 9``."""
        return f"was killed by signal {-self.code}" if self.code < 0 else f"ended with exit code {self.code}"


async def run_program(command: Sequence[str], stdin: bytes | None = None) -> Ended:
    """Run ``command`` to its end; it reads ``stdin``, or nothing. Raises ``OSError`` where it cannot be started."""
    started = SYSTEM_CLOCK.monotonic()
    starting = spawn(_start(command, stdin), name=f"start {command[0]}")
    try:
        outcome = await asyncio.shield(starting)
    except asyncio.CancelledError:
        # Cut off in there, asyncio would wait for whoever holds the outputs open; a start takes milliseconds.
        await asyncio.wait([starting])
        if not isinstance(outcome := starting.result(), OSError):
            await _end(*outcome)
        raise
    if isinstance(outcome, OSError):
        raise outcome
    transport, listener = outcome
    try:
        await listener.ended
        elapsed_ms = (SYSTEM_CLOCK.monotonic() - started) * 1000
        code = transport.get_returncode()
        stdout, stderr = (listener.heard[pipe].decode(errors="replace") for pipe in (_STDOUT, _STDERR))
        return Ended(-signal.SIGKILL if code is None else code, stdout, stderr, elapsed_ms)
    finally:
        await _end(transport, listener)


async def _start(
    command: Sequence[str], stdin: bytes | None
) -> tuple[asyncio.SubprocessTransport, _Listener] | OSError:
    try:
        transport, listener = await asyncio.get_running_loop().subprocess_exec(
            _Listener,
            *command,
            stdin=asyncio.subprocess.DEVNULL if stdin is None else asyncio.subprocess.PIPE,
            env=_ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        return error
    if stdin is not None:
        pipe = cast("asyncio.WriteTransport", transport.get_pipe_transport(_STDIN))
        if not pipe.is_closing():  # it may have ended without reading
            pipe.write(stdin)
            pipe.close()  # once all is written
    return transport, listener


async def _end(transport: asyncio.SubprocessTransport, listener: _Listener) -> None:
    """Kill what is left, and see its end, so that no zombie stays behind."""
    # A session of its own is a process group of its own: children and grandchildren go with it.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(transport.get_pid(), signal.SIGKILL)
    transport.close()
    await asyncio.wait([listener.gone], timeout=_LAST_WORDS_SECONDS)


class _Listener(asyncio.SubprocessProtocol):
    def __init__(self) -> None:
        self.heard = {_STDOUT: bytearray(), _STDERR: bytearray()}
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self.gone: asyncio.Future[None] = self._loop.create_future()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        kept = self.heard[fd]
        kept += data[: OUTPUT_LIMIT - len(kept)]

    def process_exited(self) -> None:
        self._loop.call_later(_LAST_WORDS_SECONDS, self._end)

    def connection_lost(self, _error: Exception | None) -> None:
        self._end()
        self.gone.set_result(None)

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
