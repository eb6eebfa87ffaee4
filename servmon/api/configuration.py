"""``/config``: the configuration of the running daemon."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from typing_extensions import TypedDict

from servmon.api.routing import Route
from servmon.api.typed import Body
from servmon.errors import ConflictError, Problem, RefusedError, StartError
from servmon.model import Role

# Reads the files again and applies them, ``force`` even where many endpoints go; returns how many there are.
Reload = Callable[[bool], Awaitable[int]]
RELOAD: web.AppKey[Reload | None] = web.AppKey("reload")


class ReloadWish(Body):
    """How to read the configuration again."""

    force: bool = False


class Applied(TypedDict):
    """What came of it: how many endpoints the files name."""

    applied: bool
    endpoints: int


async def reload_configuration(request: web.Request, body: ReloadWish = ReloadWish()) -> Applied:  # noqa: B008 - frozen
    """Read the configuration file again and apply it; a mistake in it changes nothing and is told."""
    apply = request.app[RELOAD]
    if apply is None:
        raise ConflictError("this API runs without a daemon, so there is nothing to reload")
    try:
        return {"applied": True, "endpoints": await apply(body.force)}
    except StartError as error:
        problems = [Problem("", line) for line in str(error).splitlines()]
        raise RefusedError("the configuration was not applied", problems) from None


ROUTES = (Route("POST", "/config/reload", reload_configuration, Role.ADMIN),)
