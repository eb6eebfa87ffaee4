"""``[channels.NAME]``: each table is checked by the class of its ``kind``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from pydantic import ValidationError

from servmon.alerts.channels import SETTINGS
from servmon.alerts.channels.reach import refused_servers
from servmon.alerts.channels.wording import wording_problems
from servmon.alerts.settings import AlertSection, ChannelSection, RuleKind
from servmon.errors import InvalidInputError
from servmon.model import Endpoint
from servmon.probes.target import parse_target
from servmon.settings.findings import Findings
from servmon.settings.sentences import sentence
from servmon.settings.toml_positions import Keys
from servmon.settings.written_values import adapt_section


def read_channels(
    tables: Mapping[str, Any], environ: Mapping[str, str], findings: Findings
) -> tuple[dict[str, ChannelSection], bool]:
    """The ways out by name, and whether every table is sound; what is wrong goes to ``findings``."""
    found = {name: _read(name, table, environ, findings) for name, table in tables.items()}
    sound = {name: section for name, section in found.items() if section is not None}
    return sound, len(sound) == len(found)


def _read(name: str, table: Any, environ: Mapping[str, str], findings: Findings) -> ChannelSection | None:
    place: Keys = ("channels", name)
    if not isinstance(table, dict):
        findings.problem(place, "must be a table")
        return None
    kind = table.get("kind")
    model = SETTINGS.get(kind) if isinstance(kind, str) else None
    if model is None:
        findings.problem((*place, "kind"), f"must be one of {', '.join(SETTINGS)}" + (f", not {kind}" if kind else ""))
        return None
    values = dict(table)
    if not adapt_section(place, model, values, environ, findings):
        return None
    try:
        section = model(**values)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            findings.problem((*place, *detail["loc"]), sentence(detail, model, detail["loc"]))
        return None
    problems = list(wording_problems(section))
    for key, problem in problems:
        findings.problem((*place, _written(key, table)), problem)
    for doubt in refused_servers(section):
        findings.warn((*place, _written("url" if hasattr(section, "url") else "urls", table)), doubt)
    return None if problems else section


def _written(key: str, table: Mapping[str, Any]) -> str:
    """The key under which a table has a setting, which may stand elsewhere."""
    return next((name for name in (f"{key}_file", f"{key}_env") if name in table), key)


def check_channels(
    alert: AlertSection, channels: Mapping[str, ChannelSection], findings: Findings, *, written: bool
) -> None:
    """Report names of channels that do not exist; ``written`` says that the default ones were named by a person."""
    for place, name in _named(alert, channels):
        if name in channels:
            continue
        if place == ("alert", "notification_channels") and not written:
            sentence = f'NOBODY WILL BE TOLD of outages: the default channel "{name}" has no [channels.{name}]'
            findings.warn(place, f"{sentence}; add it, or set notification_channels = [] if that is meant")
        else:
            findings.problem(
                place, f'there is no channel "{name}": add a table [channels.{name}] or leave the name out'
            )


def warn_of_rules_all_off(alert: AlertSection, findings: Findings) -> None:
    """Warn where rules choose whose outages are told, and none of them counts."""
    of_outages = [number for number, rule in enumerate(alert.rules) if rule.kind is RuleKind.SERVICE_DOWN]
    if of_outages and not any(alert.rules[number].enabled for number in of_outages):
        findings.warn(
            ("alert", "rules", of_outages[0], "enabled"),
            "NOBODY WILL BE TOLD of outages: as long as there are rules of the kind service_down they choose what is "
            "told, and all of them are off; take them out if the default is meant",
        )


def warn_of_watched_servers(
    alert: AlertSection, channels: Mapping[str, ChannelSection], endpoints: Iterable[Endpoint], findings: Findings
) -> None:
    """Warn of channels whose server is itself watched: with no other way out, its own outage is told to nobody."""
    alone = {
        name: {server.lower() for server in channel.servers}
        for name, channel in channels.items()
        if channel.fallback is None and alert.fallback_channel in (None, name)
    }
    if not any(alone.values()):
        return
    watched: dict[str, str] = {}
    for endpoint in endpoints:
        with suppress(InvalidInputError):
            watched.setdefault(parse_target(endpoint.url, endpoint.protocol)[1].host.lower(), endpoint.id)
    for name, servers in alone.items():
        if found := sorted(watched[server] for server in servers & watched.keys()):
            findings.warn(
                ("channels", name),
                f"its server is watched here as {found[0]!r}, and it has no fallback: while that is down nobody hears "
                "of it this way; set fallback, or [alert] fallback_channel",
            )


def _named(alert: AlertSection, channels: Mapping[str, ChannelSection]) -> Iterator[tuple[Keys, str]]:
    yield from ((("alert", "notification_channels"), name) for name in alert.notification_channels)
    if alert.fallback_channel is not None:
        yield ("alert", "fallback_channel"), alert.fallback_channel
    for place, step in enumerate(alert.escalation):
        yield from ((("alert", "escalation", place, "channels"), name) for name in step.channels)
    for number, rule in enumerate(alert.rules):
        named = [*(rule.channels or ()), *(name for step in rule.escalation or () for name in step.channels)]
        yield from ((("alert", "rules", number, "channels"), name) for name in named)
    for name, channel in channels.items():
        if channel.fallback is not None:
            yield ("channels", name, "fallback"), channel.fallback
