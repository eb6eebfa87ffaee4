"""`servmon check`: one target, asked once; usable as a Nagios or Icinga plug-in."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from servmon.checks.attempts import ask_by_hand
from servmon.clock import rfc3339
from servmon.errors import InvalidInputError, Problem
from servmon.model import CheckResult, Endpoint, Status
from servmon.probes.network import Network
from servmon.probes.specification import EndpointDefaults, parse_endpoint

EXIT_CODES: Mapping[Status, int] = {Status.UP: 0, Status.DEGRADED: 1, Status.DOWN: 2, Status.UNKNOWN: 3}
_PLUGIN_WORDS: Mapping[Status, str] = {
    Status.UP: "OK",
    Status.DEGRADED: "WARNING",
    Status.DOWN: "CRITICAL",
    Status.UNKNOWN: "UNKNOWN",
}
# Below this a time is shown to the microsecond: a ping on the next rack would read 0 otherwise.
COARSE_SECONDS = 0.01


def endpoint_of(target: str, protocol: str | None, options: Sequence[str]) -> Endpoint:
    """The endpoint that ``target`` and ``NAME=VALUE`` options describe; raises ``InvalidInputError``."""
    fields = {"id": "target", "name": target, "url": target}
    if protocol is not None:
        fields["protocol"] = protocol
    written: dict[str, str] = {}
    problems = []
    for option in options:
        name, equals, text = option.partition("=")
        if not equals or not name:
            problems.append(Problem("--option", f"{option!r} is not NAME=VALUE, as in timeout=2"))
        elif name in ("id", "url"):
            problems.append(Problem("--option", f"{name} is given by the target itself"))
        else:
            written[name] = text
    if problems:
        raise InvalidInputError(problems)
    values = {name: value_of(text) for name, text in written.items()}
    # body=5 is a number to JSON; where a number will not do, the text itself may.
    for name in _wrong(fields | values) & written.keys():
        if name not in _wrong(fields | values | {name: written[name]}):
            values[name] = written[name]
    return parse_endpoint(fields | values, EndpointDefaults())


def _wrong(fields: Mapping[str, Any]) -> set[str]:
    try:
        parse_endpoint(fields, EndpointDefaults())
    except InvalidInputError as error:
        return {problem.field for problem in error.problems}
    return set()


def value_of(text: str) -> Any:
    """Numbers, true, false, lists and tables as JSON writes them; anything else is text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


async def check_once(endpoint: Endpoint) -> CheckResult:
    """Ask ``endpoint`` now, with its retries."""
    async with Network() as network:
        return await ask_by_hand(endpoint, network)


def render(endpoint: Endpoint, result: CheckResult, *, as_json: bool, on_terminal: bool) -> str:
    """One JSON object, one readable line, or one plug-in line with performance data."""
    if as_json:
        return json.dumps(_object(endpoint, result), ensure_ascii=False)
    found = result.error_message or _praise(result)
    if on_terminal:
        attempts = "" if result.attempts == 1 else f" ({result.attempts} attempts)"
        return f"{result.status}  {endpoint.protocol} {endpoint.url}: {found}{attempts}"
    # In plug-in output "|" starts the performance data.
    text = found.replace("|", "/")
    line = f"{endpoint.protocol} {_PLUGIN_WORDS[result.status]} - {text}"
    if result.response_time is None:
        return line
    seconds = result.response_time / 1000
    return f"{line} | time={seconds:.{3 if seconds >= COARSE_SECONDS else 6}f}s;;;0;{endpoint.timeout:g}"


def _praise(result: CheckResult) -> str:
    if silence := (result.details or {}).get("silence"):
        return f"silent, as it must be: {silence}"
    milliseconds = result.response_time
    coarse = milliseconds is not None and milliseconds >= COARSE_SECONDS * 1000
    took = "" if milliseconds is None else f"in {milliseconds:.{0 if coarse else 2}f} ms"
    code = (result.details or {}).get("status_code")
    return f"{code} {took}" if code else f"answered {took}"


def _object(endpoint: Endpoint, result: CheckResult) -> dict[str, Any]:
    phases = {name: getattr(result.phases, name) for name in result.phases.__slots__}
    return {
        "target": endpoint.url,
        "protocol": endpoint.protocol,
        "status": result.status,
        "response_time": result.response_time,
        "error_message": result.error_message,
        "failure_kind": result.failure_kind,
        "attempts": result.attempts,
        "timestamp": rfc3339(result.timestamp),
        "phases": {name: value for name, value in phases.items() if value is not None},
        "details": result.details or {},
    }
