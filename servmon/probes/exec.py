"""EXEC: a program of the operator's own asks, as Nagios and Icinga run their plug-ins.

It is accepted only from the configuration file: who may only use the API must not be able to run programs. How one is
run stands in ``program``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, NoReturn

from pydantic import AfterValidator, BeforeValidator, Field

from servmon.errors import InvalidInputError
from servmon.model import FailureKind, Phases
from servmon.probes.base import Answer, Options, ProbeFailed, Target, failure_from
from servmon.probes.network import ProbeContext
from servmon.probes.pattern import search
from servmon.probes.plugin_output import PluginOutput, read_output
from servmon.probes.program import Ended, run_program

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


class ExecProbe:
    """Run a plug-in: exit code 0 is UP, 1 DEGRADED, 2 DOWN, 3 UNKNOWN; its first line is the message."""

    protocol: ClassVar[str] = "EXEC"
    default_port: ClassVar[int | None] = None
    options: ClassVar[type[Options]] = ExecOptions
    takes_socket: ClassVar[bool] = True
    from_file_only: ClassVar[bool] = True

    def validate(self, _target: Target, options: ExecOptions) -> None:
        """Refuse what means nothing to a plug-in. Raises ``InvalidInputError``."""
        if options.inverted:
            sentence = "means nothing to EXEC, as a plug-in always answers; negate (Monitoring Plugins) turns one round"
            raise InvalidInputError.of("inverted", sentence)

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


def _fail(program: str, ended: Ended, output: PluginOutput, details: dict[str, Any]) -> NoReturn:
    if ended.code == _DOWN:
        message = output.message or f"{program} says CRITICAL, and nothing more"
        raise ProbeFailed(FailureKind.STATUS, message, response_ms=ended.elapsed_ms, details=details)
    if ended.code == _UNKNOWN:
        message = output.message or f"{program} says UNKNOWN, and nothing more"
        raise ProbeFailed(FailureKind.PROBE_ERROR, message, details=details)
    message = f"{program} {ended.how}, where a plug-in ends with 0 to 3"
    said = f": {output.message}" if output.message else ""
    raise ProbeFailed(FailureKind.PROBE_ERROR, message + said, details=details)


async def _run(command: Sequence[str]) -> Ended:
    try:
        return await run_program(command)
    except (FileNotFoundError, PermissionError, NotADirectoryError) as error:
        message = f"{command[0]} cannot be run: {(error.strerror or str(error)).lower()}"
        raise ProbeFailed(FailureKind.LOCAL, message) from None
    except OSError as error:  # no descriptor, no memory: this machine's fault, as at every probe
        raise failure_from(error, f"starting {command[0]}") from None
