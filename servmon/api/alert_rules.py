"""``/alerts/rules``: what is told of which endpoints to whom."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from aiohttp import web

from servmon.api.auth import TOKEN_NAME
from servmon.api.routing import BEFORE, RULES, Route
from servmon.api.shapes import Page
from servmon.api.typed import Created, JsonObject
from servmon.model import Role

Rule = dict[str, Any]
RuleBody = Annotated[dict[str, Any], JsonObject("AlertRuleFields")]
RuleChanges = Annotated[dict[str, Any], JsonObject("AlertRuleChanges")]


async def list_rules(request: web.Request) -> Page[Rule]:
    """List all alert rules, in the order in which they are asked."""
    return {"items": await request.app[RULES].list_rules(), "next_cursor": None}


async def create_rule(request: web.Request, body: RuleBody) -> Created[Rule]:
    """Create an alert rule; a running servmon goes by it within a second."""
    rule = await request.app[RULES].create_rule(body, request[TOKEN_NAME])
    return Created(rule, headers={"Location": f"/alerts/rules/{quote(rule['name'], safe='')}"})


async def get_rule(request: web.Request) -> Rule:
    """Get an alert rule."""
    return await request.app[RULES].get_rule(_name(request))


async def replace_rule(request: web.Request, body: RuleBody) -> Rule:
    """Update an alert rule: the body replaces it whole."""
    await _remember(request)
    return await request.app[RULES].replace_rule(_name(request), body)


async def update_rule(request: web.Request, body: RuleChanges) -> Rule:
    """Change the given fields of an alert rule."""
    await _remember(request)
    return await request.app[RULES].update_rule(_name(request), body)


async def delete_rule(request: web.Request) -> None:
    """Delete an alert rule; what it began ends with it."""
    await _remember(request)
    await request.app[RULES].delete_rule(_name(request))


async def _remember(request: web.Request) -> None:
    request[BEFORE] = await request.app[RULES].get_rule(_name(request))


def _name(request: web.Request) -> str:
    return request.match_info["rule_name"]


ROUTES = (
    Route("GET", "/alerts/rules", list_rules, Role.READ),
    Route("POST", "/alerts/rules", create_rule, Role.ADMIN),
    Route("GET", "/alerts/rules/{rule_name}", get_rule, Role.READ),
    Route("PUT", "/alerts/rules/{rule_name}", replace_rule, Role.ADMIN),
    Route("PATCH", "/alerts/rules/{rule_name}", update_rule, Role.ADMIN),
    Route("DELETE", "/alerts/rules/{rule_name}", delete_rule, Role.ADMIN),
)
