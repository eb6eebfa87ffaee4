"""``servmon simulate``: which outages other settings would have declared, from the results that are stored."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from servmon.cli.base import ConfigOption, fail, load

if TYPE_CHECKING:
    from servmon.cli.local import LocalApi
    from servmon.detection.state import Policy
    from servmon.model import CheckResult, Endpoint, Outage
    from servmon.services.simulation import Declared, Simulation
    from servmon.settings import Loaded

DEFAULT_DAYS = 30


def simulate(
    endpoint: Annotated[str, typer.Argument(help="The id of a service endpoint.")],
    since: Annotated[str | None, typer.Option(help="From when on: a time or a day; by default 30 days back.")] = None,
    until: Annotated[str | None, typer.Option(help="Until when; by default now.")] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="NAME=VALUE to try, such as detection_threshold=5.")
    ] = None,
    config: ConfigOption = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Say which outages other settings would have declared, when, and how late or false against the real ones."""
    from servmon.cli.local import LocalApi
    from servmon.errors import InvalidInputError
    from servmon.services.simulation import read_options, tried
    from servmon.services.simulation import simulate as run

    try:
        options = read_options(option or [])
    except InvalidInputError as error:
        fail("\n".join(map(str, error.problems)), 2)
    loaded = load(config)
    api = LocalApi.of(loaded.settings)
    since = since or _days_ago(DEFAULT_DAYS)
    watched = _endpoint(api.get(f"/services/{endpoint}"))
    uptime = api.get(f"/services/{endpoint}/uptime", since=since, until=until)
    policy = _policy(watched, loaded)
    found = run(
        list(_results(api, watched, uptime)),
        tried(policy, options),
        list(_outages(api, uptime)),
        _muted(uptime),
    )
    typer.echo(json.dumps(_shape(found, options), indent=2) if as_json else "\n".join(_lines(found, options, policy)))


def _days_ago(days: int) -> str:
    from servmon.clock import now, rfc3339

    return rfc3339(now() - timedelta(days=days))


def _policy(endpoint: Endpoint, loaded: Loaded) -> Policy:
    from servmon.parts.checks import rules_of

    return rules_of(loaded).policy(endpoint)


def _endpoint(found: Mapping[str, Any]) -> Endpoint:
    """As much of an endpoint as its judgement needs, from what the API says of it."""
    from servmon.model import Endpoint, Severity

    known = {field.name for field in fields(Endpoint)} - {"depends_on", "tags", "severity"}
    given = {name: value for name, value in found.items() if name in known}
    others = {name: value for name, value in found.items() if name not in known}
    return Endpoint(**{**given, "severity": Severity(found["severity"]), "options": others})


def _results(api: LocalApi, endpoint: Endpoint, uptime: Mapping[str, Any]) -> Iterator[CheckResult]:
    """Every stored result of the period, oldest first."""
    from servmon.model import CheckResult, CheckSource, FailureKind, Status

    rows = list(
        api.pages(f"/services/{endpoint.id}/history", since=uptime["since"], until=uptime["until"], resolution="raw")
    )
    for row in reversed(rows):
        kind = row["failure_kind"]
        yield CheckResult(
            endpoint_id=endpoint.id,
            endpoint_key=0,
            status=Status(row["status"]),
            timestamp=datetime.fromisoformat(row["timestamp"]),
            response_time=row["response_time"],
            attempts=row["attempts"],
            failure_kind=FailureKind(kind) if kind else None,
            error_message=row["error_message"],
            source=CheckSource(row["source"]),
            details=row["details"],
        )


def _outages(api: LocalApi, uptime: Mapping[str, Any]) -> Iterator[Outage]:
    """The real outages of the period, oldest first."""
    from servmon.model import Outage, Severity

    ids = dict.fromkeys(span["outage_id"] for span in uptime["spans"] if span["outage_id"])
    for outage_id in ids:
        found = api.get(f"/outages/{outage_id}")
        ended = found["resolved_at"]
        yield Outage(
            id=outage_id,
            endpoint_id=found["endpoint_id"],
            severity=Severity(found["severity"]),
            description=found["description"],
            start_time=datetime.fromisoformat(found["start_time"]),
            declared_at=datetime.fromisoformat(found["declared_at"]),
            resolved=found["resolved"],
            resolved_at=datetime.fromisoformat(ended) if ended else None,
        )


def _muted(uptime: Mapping[str, Any]) -> Callable[[datetime], bool]:
    """Whether a maintenance window was over the endpoint."""
    spans = [
        (datetime.fromisoformat(span["start"]), datetime.fromisoformat(span["end"]))
        for span in uptime["spans"]
        if span["kind"] == "maintenance"
    ]
    return lambda at: any(start <= at < end for start, end in spans)


def _verdict(one: Declared) -> str:
    later = one.later_seconds
    if later is None:
        return "false: none was declared"
    if abs(later) < 1:
        return "as it was"
    return f"{_span(abs(later))} {'later' if later > 0 else 'earlier'}"


def _lines(found: Simulation, options: Mapping[str, Any], policy: Policy) -> Iterator[str]:
    if found.first is None or found.last is None:
        yield "there are no stored results in this period"
        return
    asked = ", ".join(f"{name} = {value} (now {_now(policy, name)})" for name, value in options.items())
    yield f"{found.checks} checks from {_time(found.first)} to {_time(found.last)} UTC; {asked or 'as it is now'}"
    rows = [
        (
            _time(one.outage.start_time),
            _time(one.outage.declared_at),
            _time(one.outage.resolved_at) if one.outage.resolved_at else "lasts",
            _verdict(one),
        )
        for one in found.declared
    ]
    rows += [
        (_time(one.start_time), "not declared", _time(one.resolved_at) if one.resolved_at else "lasts", "missed")
        for one in found.missed
    ]
    if rows:
        yield ""
        yield from _table([("began", "declared", "ended", "against the real ones"), *sorted(rows)])
        yield ""
    outages = "1 outage" if len(found.declared) == 1 else f"{len(found.declared)} outages"
    false, missed = len(found.false), len(found.missed)
    yield f"{outages} would have been declared, {false} of them false, and {missed} real ones missed"
    if found.looks_not_on_record:
        yield (
            f"{found.looks_not_on_record} of {found.second_looks} second looks are not on record;"
            " they are taken to have found what the next check found"
        )


def _now(policy: Policy, name: str) -> Any:
    return getattr(policy, "verify" if name == "verification_enabled" else name)


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _time(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S}"


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _shape(found: Simulation, options: Mapping[str, Any]) -> dict[str, Any]:
    from servmon.clock import rfc3339

    def moment(at: datetime | None) -> str | None:
        return rfc3339(at) if at else None

    return {
        "options": dict(options),
        "checks": found.checks,
        "since": moment(found.first),
        "until": moment(found.last),
        "declared": [
            {
                "start_time": moment(one.outage.start_time),
                "declared_at": moment(one.outage.declared_at),
                "resolved_at": moment(one.outage.resolved_at),
                "outage_id": one.real.id if one.real else None,
                "later_seconds": one.later_seconds,
            }
            for one in found.declared
        ],
        "missed": [
            {"outage_id": one.id, "start_time": moment(one.start_time), "resolved_at": moment(one.resolved_at)}
            for one in found.missed
        ],
        "second_looks": found.second_looks,
        "looks_not_on_record": found.looks_not_on_record,
    }
