"""EXEC: a program of the operator's own asks, as Nagios and Icinga run their plug-ins.

No shell is involved and nothing of servmon's environment is passed on, since secrets stand there. It is accepted only
from the configuration file: who may only use the API must not be able to run programs.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, NoReturn

from pydantic import AfterValidator, BeforeValidator, Field

from servmon.clock import SYSTEM_CLOCK
from servmon.model import FailureKind, Phases
from servmon.probes.base import Answer, Options, ProbeFailed, Target, failure_from
from servmon.probes.network import ProbeContext
from servmon.probes.pattern import search
from servmon.probes.plugin_output import PluginOutput, read_output
from servmon.tasks import spawn

# What is read of each of its two outputs; the rest is thrown away as it comes.
OUTPUT_LIMIT = 65_536
# A plug-in may leave a child behind that keeps its output open; what came so long after its end still counts.
_LAST_WORDS_SECONDS = 0.1
_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
_STDOUT, _STDERR = 1, 2
_UP, _DEGRADED, _DOWN, _UNKNOWN = range(4)
# Under this name the running plug-ins share the places of one address, so that they cannot flood this machine.
_PLACE = "plug-ins of this machine"


def _checked_command(command: tuple[str, ...]) -> tuple[str, ...]:
    if not command:
        raise ValueError(
            'is empty; the program and its arguments would be right, as ["/usr/lib/plugins/check_x", "-H"]'
        )
    if not Path(command[0]).is_absolute():
        raise ValueError(
            f"must begin with the program's whole path, as /usr/lib/plugins/check_x; {command[0]!r} is none"
        )
    return command


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


class ExecOptions(Options):
    """The program with its arguments, each a text of its own; ``{host}`` in one stands for the url's host."""

    command: Annotated[
        tuple[Annotated[str, Field(max_length=8192)], ...], BeforeValidator(_as_tuple), AfterValidator(_checked_command)
    ]


class _Ended(NamedTuple):
    code: int
    stdout: str
    stderr: str
    elapsed_ms: float


class ExecProbe:
    """Run a plug-in: exit code 0 is UP, 1 DEGRADED, 2 DOWN, 3 UNKNOWN; its first line is the message."""

    protocol: ClassVar[str] = "EXEC"
    default_port: ClassVar[int | None] = None
    options: ClassVar[type[Options]] = ExecOptions
    takes_socket: ClassVar[bool] = True
    from_file_only: ClassVar[bool] = True

    async def check(self, target: Target, options: ExecOptions, context: ProbeContext) -> Answer:
        """Run it once. Raises ``ProbeFailed``: STATUS where it says DOWN, PROBE_ERROR where it does not know."""
        command = [part.replace("{host}", target.host) for part in options.command]
        async with context.slot(_PLACE):
            context.doing = f"{command[0]} was running"
            ended = await _run(command)
        output = read_output(ended.stdout if ended.stdout.strip() else ended.stderr)
        details = _details(output)
        if ended.code not in {_UP, _DEGRADED}:
            _fail(command[0], ended, output, details)
        if target.pattern is not None and not await search(target.pattern, ended.stdout, context):
            message = f"its output {output.message!r} does not match {target.pattern.pattern!r}"
            raise ProbeFailed(FailureKind.PATTERN, message, response_ms=ended.elapsed_ms, details=details)
        degraded = (output.message or f"{command[0]} says WARNING") if ended.code == _DEGRADED else None
        return Answer(ended.elapsed_ms, Phases(dns_ms=context.dns_ms), details, degraded)


def _details(output: PluginOutput) -> dict[str, Any]:
    details: dict[str, Any] = {"message": output.message} if output.message else {}
    if output.measures:
        details["perfdata"] = {
            name: {"value": value, "unit": unit} if unit else {"value": value}
            for name, (value, unit) in output.measures.items()
        }
    return details


def _fail(program: str, ended: _Ended, output: PluginOutput, details: dict[str, Any]) -> NoReturn:
    if ended.code == _DOWN:
        message = output.message or f"{program} says CRITICAL, and nothing more"
        raise ProbeFailed(FailureKind.STATUS, message, response_ms=ended.elapsed_ms, details=details)
    if ended.code == _UNKNOWN:
        message = output.message or f"{program} says UNKNOWN, and nothing more"
        raise ProbeFailed(FailureKind.PROBE_ERROR, message, details=details)
    how = f"was killed by signal {-ended.code}" if ended.code < 0 else f"ended with exit code {ended.code}"
    message = f"{program} {how}, where a plug-in ends with 0 to 3"
    said = f": {output.message}" if output.message else ""
    raise ProbeFailed(FailureKind.PROBE_ERROR, message + said, details=details)


async def _run(command: Sequence[str]) -> _Ended:
    """Run a program to its end, or kill it with all its children when whoever waits gives up."""
    started = SYSTEM_CLOCK.monotonic()
    starting = spawn(_start(command), name=f"start {command[0]}")
    try:
        outcome = await asyncio.shield(starting)
    except asyncio.CancelledError:
        # Cut off in there, asyncio would wait for whoever holds the outputs open; a start takes milliseconds.
        await asyncio.wait([starting])
        if not isinstance(outcome := starting.result(), ProbeFailed):
            await _end(*outcome)
        raise
    if isinstance(outcome, ProbeFailed):
        raise outcome
    transport, listener = outcome
    try:
        await listener.ended
        elapsed_ms = (SYSTEM_CLOCK.monotonic() - started) * 1000
        code = transport.get_returncode()
        stdout, stderr = (listener.heard[pipe].decode(errors="replace") for pipe in (_STDOUT, _STDERR))
        return _Ended(-signal.SIGKILL if code is None else code, stdout, stderr, elapsed_ms)
    finally:
        await _end(transport, listener)


async def _start(command: Sequence[str]) -> tuple[asyncio.SubprocessTransport, _Listener] | ProbeFailed:
    try:
        return await asyncio.get_running_loop().subprocess_exec(
            _Listener, *command, stdin=asyncio.subprocess.DEVNULL, env=_ENVIRONMENT, cwd="/", start_new_session=True
        )
    except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
        message = f"{command[0]} cannot be run: {(error.strerror or str(error)).lower()}"
        return ProbeFailed(FailureKind.LOCAL, message)
    except OSError as error:  # no descriptor, no memory: this machine's fault, as at every probe
        return failure_from(error, f"starting {command[0]}")


async def _end(transport: asyncio.SubprocessTransport, listener: _Listener) -> None:
    """Kill what is left, and see its end, so that no check leaves a zombie behind."""
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
