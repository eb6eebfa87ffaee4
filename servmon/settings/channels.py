"""``[channels.NAME]``: each table is checked by the class of its ``kind``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from servmon.alerts.channels import SETTINGS
from servmon.alerts.channels.wording import wording_problems
from servmon.alerts.settings import AlertSection, ChannelSection
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
        findings.problem((*place, f"{key}_file" if f"{key}_file" in table else key), problem)
    return None if problems else section


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
