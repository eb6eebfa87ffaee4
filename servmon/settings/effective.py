"""What settings hold in the end, where each comes from, and what two configurations differ in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, SecretStr

from servmon.model import Endpoint
from servmon.settings import Loaded, Settings

HIDDEN = '"***"'
# Read once at start: a change of these needs a restart.
RESTART_SECTIONS = ("servmon", "database", "api")


class Setting(NamedTuple):
    """One setting by its name (``service.check_interval``), its value as TOML writes it, and its origin."""

    name: str
    value: str
    origin: str


def effective(loaded: Loaded) -> Iterator[Setting]:
    """Every setting with its value and origin; secrets are hidden."""
    for name, value in _values(loaded.settings):
        section, _, key = name.partition(".")
        given = key.split(".")[0] in _given(loaded.settings, section)
        variable = loaded.variables.get((section, key))
        yield Setting(name, _shown(value), f"environment: {variable}" if variable else "file" if given else "default")


def secrets_in(part: Any) -> Iterator[str]:
    """Every secret in settings, and the passwords within those that are URLs; they must get out nowhere."""
    if isinstance(part, SecretStr):
        secret = part.get_secret_value()
        yield secret
        if (password := _password(secret)) is not None:
            yield from (password, unquote(password))
    elif isinstance(part, BaseModel):
        for name in type(part).model_fields:
            yield from secrets_in(getattr(part, name))
    elif isinstance(part, Mapping):
        for value in part.values():
            yield from secrets_in(value)
    elif isinstance(part, tuple):
        for value in part:
            yield from secrets_in(value)


def _password(url: str) -> str | None:
    """The password in a URL, but for one that is also its user's name or database: those words stand everywhere."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return None if parts.password in (parts.username, parts.path.lstrip("/")) else parts.password


def compare(applied: Loaded, wanted: Loaded) -> Iterator[str]:
    """What a reload of ``wanted`` would change where ``applied`` runs, a line each."""
    before, after = dict(_values(applied.settings)), dict(_values(wanted.settings))
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) == after.get(name):
            continue
        old, new = (_shown(values[name]) if name in values else "nothing" for values in (before, after))
        restart = "  (needs a restart)" if name.partition(".")[0] in RESTART_SECTIONS else ""
        yield f"~ {name}: {old} -> {'another one' if old == new else new}{restart}"
    if applied.dependencies != wanted.dependencies:
        yield f"~ dependencies: {len(applied.dependencies)} rules -> {len(wanted.dependencies)}"
    yield from _compare_endpoints(_by_id(applied), _by_id(wanted))


def _compare_endpoints(before: Mapping[str, Endpoint], after: Mapping[str, Endpoint]) -> Iterator[str]:
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            yield f"- endpoint {name}: becomes inactive, its history stays"
        elif name not in before:
            yield f"+ endpoint {name}: {after[name].url}"
        elif before[name] != after[name]:
            yield f"~ endpoint {name}: {', '.join(_changed(before[name], after[name]))}"


def _changed(old: Endpoint, new: Endpoint) -> Iterator[str]:
    return (field.name for field in fields(old) if getattr(old, field.name) != getattr(new, field.name))


def _by_id(loaded: Loaded) -> dict[str, Endpoint]:
    return {endpoint.id: endpoint for endpoint in loaded.endpoints}


def _given(settings: Settings, section: str) -> set[str]:
    part = getattr(settings, section)
    return part.model_fields_set if isinstance(part, BaseModel) else set(part)


def _values(part: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    entries = {name: getattr(part, name) for name in type(part).model_fields} if isinstance(part, BaseModel) else part
    for name, value in entries.items():
        if isinstance(value, (BaseModel, dict)):
            yield from _values(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _shown(value: Any) -> str:
    if isinstance(value, SecretStr):
        return HIDDEN
    if isinstance(value, tuple) and any(isinstance(one, SecretStr) for one in value):
        return f"[{', '.join(HIDDEN for _ in value)}]"
    if isinstance(value, Path):
        return json.dumps(str(value))
    return json.dumps(value, ensure_ascii=False, default=str)
