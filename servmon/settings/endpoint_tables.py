"""The ``[[endpoints]]`` of a configuration file, each by itself and then all together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from servmon.checks.settings import DEADLINE_SHARE, RETRY_PAUSE_SECONDS, ServiceSection, attempts_that_fit
from servmon.errors import InvalidInputError
from servmon.model import Endpoint
from servmon.probes.specification import EndpointDefaults, parse_endpoint
from servmon.settings.findings import Findings
from servmon.settings.templates import Templates
from servmon.settings.toml_positions import Keys

_TIMING = ("check_interval", "timeout", "retries")


class Placed(NamedTuple):
    """The endpoints that can be used, each with the number of its table, and the ids of all tables."""

    endpoints: list[tuple[int, Endpoint]]
    ids: set[str]


def read_endpoints(
    tables: Any, templates: Templates, service: ServiceSection, source: str, findings: Findings
) -> Placed:
    """Every endpoint of the file; what is wrong with one, or between them, goes to ``findings``."""
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        findings.problem(("endpoints",), "must be tables: write [[endpoints]], in double brackets, above each endpoint")
        return Placed([], set())
    defaults = EndpointDefaults(service.check_interval, service.check_timeout, service.check_retries)
    _warn_of_defaults(service, findings)
    filled = [templates.fill(number, table, _name(number, table), findings) for number, table in enumerate(tables)]
    placed: list[tuple[int, Endpoint]] = []
    for number, table in enumerate(tables):
        _find_missing_id(number, table, findings)
        try:
            placed.append((number, parse_endpoint(filled[number], defaults, source=source)))
        except InvalidInputError as error:
            _report(error, number, table, templates, findings)
    for number, endpoint in placed:
        if endpoint.is_active and any(key in filled[number] for key in _TIMING):
            _warn_of_timing(number, endpoint, findings)
    _find_duplicates(tables, findings)
    known = {table["id"] for table in tables if isinstance(table.get("id"), str)}
    _find_unknown_parents(placed, known, findings)
    return Placed(placed, known)


def _name(number: int, table: Mapping[str, Any]) -> str:
    return f"endpoints[{table['id'] if isinstance(table.get('id'), str) else f'#{number + 1}'}]"


def _find_missing_id(number: int, table: Mapping[str, Any], findings: Findings) -> None:
    if "id" not in table:
        findings.problem(
            ("endpoints", number, "id"),
            'missing: an endpoint in the file needs an id that stays, such as id = "web-1"',
            label=f"{_name(number, table)}.id",
        )


def _report(
    error: InvalidInputError, number: int, table: Mapping[str, Any], templates: Templates, findings: Findings
) -> None:
    for problem in error.problems:
        path = _path(problem.field)
        template = templates.place(table, str(path[0])) if path else None
        if template is not None:
            # Once, however many endpoints use it.
            findings.problem_once(
                ("templates", template, *path), problem.message, label=f"templates[{table['use']}].{problem.field}"
            )
            continue
        findings.problem(
            ("endpoints", number, *path), problem.message, label=f"{_name(number, table)}.{problem.field}".rstrip(".")
        )


def _path(field: str) -> Keys:
    return tuple(int(part) if part.isdecimal() else part for part in field.split(".") if part)


def _misfit(interval: float, timeout: float, retries: int) -> str | None:
    wanted, fitting = 1 + retries, attempts_that_fit(interval, timeout)
    if fitting >= wanted:
        return None
    needed = wanted * timeout + retries * RETRY_PAUSE_SECONDS
    room = f"a check of {interval:g} s interval has {DEADLINE_SHARE * interval:g} s"
    counted = f"{fitting} of {wanted} attempts fit" if fitting else f"not even 1 of {wanted} attempts fits"
    return f"{counted}: they need {needed:g} s, {room}; lower the timeout or the retries, or raise the interval"


def _warn_of_defaults(service: ServiceSection, findings: Findings) -> None:
    if sentence := _misfit(service.check_interval, service.check_timeout, service.check_retries):
        findings.warn(("service",), sentence)


def _warn_of_timing(number: int, endpoint: Endpoint, findings: Findings) -> None:
    if sentence := _misfit(endpoint.check_interval, endpoint.timeout, endpoint.retries):
        findings.warn(("endpoints", number), sentence, label=f"endpoints[{endpoint.id}]")


def _find_duplicates(tables: Sequence[Mapping[str, Any]], findings: Findings) -> None:
    first: dict[str, int] = {}
    for number, table in enumerate(tables):
        if not isinstance(name := table.get("id"), str):
            continue
        if name in first:
            where = findings.where(("endpoints", first[name], "id"))
            sentence = f"is already the id of the endpoint in {where}; every endpoint needs its own"
            findings.problem(("endpoints", number, "id"), sentence, label=f"{_name(number, table)}.id")
        else:
            first[name] = number


def _find_unknown_parents(placed: Sequence[tuple[int, Endpoint]], known: set[str], findings: Findings) -> None:
    for number, endpoint in placed:
        for parent in dict.fromkeys(_parents(endpoint)):
            if parent not in known:
                sentence = f'"{parent}" is the id of no endpoint in this file'
                findings.problem(
                    ("endpoints", number, "depends_on"), sentence, label=f"endpoints[{endpoint.id}].depends_on"
                )


def _parents(endpoint: Endpoint) -> Iterator[str]:
    return (parent for group in endpoint.depends_on for parent in group)
