"""``/config``: the configuration of the running daemon."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from servmon.api.problems import problem_response
from servmon.api.requests import read_optional_object
from servmon.api.routing import Route
from servmon.api.shapes import json_answer
from servmon.errors import InvalidInputError, Problem, StartError

# Reads the files again and applies them, ``force`` even where many endpoints go; returns how many there are.
Reload = Callable[[bool], Awaitable[int]]
RELOAD: web.AppKey[Reload | None] = web.AppKey("reload")


async def reload(request: web.Request) -> web.StreamResponse:
    """Read the configuration file again and apply it; a mistake in it changes nothing and is told."""
    fields = await read_optional_object(request)
    if unknown := [name for name in fields if name != "force"]:
        raise InvalidInputError([Problem(name, "unknown field; known here: force") for name in unknown])
    force = fields.get("force", False)
    if not isinstance(force, bool):
        raise InvalidInputError.of("force", "must be true or false")
    apply = request.app[RELOAD]
    if apply is None:
        return problem_response(409, "this API runs without a daemon, so there is nothing to reload")
    try:
        return json_answer({"applied": True, "endpoints": await apply(force)})
    except StartError as error:
        lines = str(error).splitlines()
        return problem_response(409, "the configuration was not applied", errors=[Problem("", line) for line in lines])


ROUTES = (Route("POST", "/config/reload", reload),)
