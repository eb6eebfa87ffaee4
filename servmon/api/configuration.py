"""``/config``: the configuration of the running daemon."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from typing_extensions import TypedDict

from servmon.api.routing import Route
from servmon.api.shapes import Page
from servmon.api.typed import Body
from servmon.errors import ConflictError, Problem, RefusedError, StartError
from servmon.model import Role

# Reads the files again and applies them, ``force`` even where many endpoints go; returns how many there are.
Reload = Callable[[bool], Awaitable[int]]
# Each setting's name, its value as JSON with secrets hidden, and where it comes from.
Effective = Callable[[], Iterable[tuple[str, str, str]]]


@dataclass(frozen=True, slots=True)
class Configuration:
    """What a daemon runs with, and how to have it read again."""

    reload: Reload
    effective: Effective


CONFIGURATION: web.AppKey[Configuration | None] = web.AppKey("configuration")


class SettingShape(TypedDict):
    """One setting; ``source`` is default, file or environment with the variable's name. A secret reads ``***``."""

    name: str
    value: Any
    source: str


class ReloadWish(Body):
    """How to read the configuration again."""

    force: bool = False


class Applied(TypedDict):
    """What came of it: how many endpoints the files name."""

    applied: bool
    endpoints: int


async def get_configuration(request: web.Request) -> Page[SettingShape]:
    """Get the settings that are in force, and where each of them comes from; endpoints are no settings."""
    items: list[SettingShape] = [
        {"name": name, "value": json.loads(value), "source": source} for name, value, source in _of(request).effective()
    ]
    return {"items": items, "next_cursor": None}


async def reload_configuration(request: web.Request, body: ReloadWish = ReloadWish()) -> Applied:  # noqa: B008 - frozen
    """Read the configuration file again and apply it; a mistake in it changes nothing and is told."""
    try:
        return {"applied": True, "endpoints": await _of(request).reload(body.force)}
    except StartError as error:
        problems = [Problem("", line) for line in str(error).splitlines()]
        raise RefusedError("the configuration was not applied", problems) from None


def _of(request: web.Request) -> Configuration:
    configuration = request.app[CONFIGURATION]
    if configuration is None:
        raise ConflictError("this API runs without a daemon, so there is no configuration")
    return configuration


ROUTES = (
    Route("GET", "/config", get_configuration, Role.ADMIN),
    Route("POST", "/config/reload", reload_configuration, Role.ADMIN),
)
