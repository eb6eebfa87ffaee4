"""A small Kibana over real HTTP: as strict as the real one about what servmon asks of it, and able to fail.

What it refuses, and with which words, follows Kibana's schemas (saved objects import, alerting and es-query parameters)
of version 8.9 and newer.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

from tests.elastic.saved_object_faults import VERSIONS, faults

KEY = "a2V5OnBsYW50ZWQtc2VjcmV0"
CREATED = {"name", "rule_type_id", "consumer", "schedule", "params", "tags", "enabled", "actions"}
CHANGED = {"name", "schedule", "params", "tags", "actions", "alert_delay", "flapping", "throttle", "notify_when"}
ACTION = {"id", "group", "params", "frequency", "uuid", "alerts_filter", "use_alert_data_for_template"}
PARAMS = {
    *("size", "timeWindowSize", "timeWindowUnit", "excludeHitsFromPreviousRun", "threshold", "thresholdComparator"),
    *("aggType", "aggField", "groupBy", "termField", "termSize", "searchType", "timeField", "esQuery", "index"),
}


@dataclass
class FakeKibana:
    """What is in it, by space, and what it says in the place of its own answer, by method and path."""

    version: str = "8.15.3"
    base_path: str = "/kb"
    port: int = 0
    health: dict[str, bool] = field(
        default_factory=lambda: {"is_sufficiently_secure": True, "has_permanent_encryption_key": True}
    )
    may_create_rules: bool = True
    spaces: set[str] = field(default_factory=lambda: {"default", "noc"})
    objects: dict[tuple[str, str, str], dict[str, Any]] = field(default_factory=dict)
    rules: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    connectors: dict[str, str] = field(default_factory=lambda: {"log": ".server-log", "mail": ".email"})
    instead: dict[tuple[str, str], tuple[int, Any]] = field(default_factory=dict)
    changes: list[tuple[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.base_path}"

    async def answer(self, request: web.Request) -> web.StreamResponse:
        inside = re.fullmatch(rf"{self.base_path}(?:/s/([a-z0-9_-]+))?(/api/.*)", request.path)
        if inside is None:
            return _refuse(404, "Not Found")
        space, path = inside[1] or "default", inside[2]
        if request.headers.get("Authorization") != f"ApiKey {KEY}":
            return _refuse(401, "[security_exception]: missing authentication credentials")
        if request.method != "GET":
            if "kbn-xsrf" not in request.headers:
                return _refuse(400, "Request must contain a kbn-xsrf header.")
            self.changes.append((request.method, path))
        for (method, part), (status, body) in self.instead.items():
            if method == request.method and part in path:
                if isinstance(body, str):
                    return web.Response(status=status, text=body, headers={"Location": "/login"})
                return web.json_response(body, status=status)
        return await self._serve(request, space, path)

    async def _serve(self, request: web.Request, space: str, path: str) -> web.StreamResponse:
        match request.method, path.strip("/").split("/")[1:]:
            case "POST", ["saved_objects", "_import"]:
                return await self._import(request, space)
            case method, ["alerting", "rule", id_]:
                return await self._rule(request, method, space, id_)
            case "GET", parts:
                found = self._found(parts)
                return web.json_response(found) if found is not None else _refuse(404, f"{parts[-1]} not found")
        return _refuse(404, "Not Found")

    def _found(self, parts: list[str]) -> Any:
        granted = {"stackAlerts": {"read": True, "all": self.may_create_rules}}
        there = {
            "status": {"version": {"number": self.version}, "status": {}},
            "alerting/_health": self.health,
            "alerting/rule_types": [{"id": ".es-query", "authorized_consumers": granted}],
            "actions/connectors": [{"id": one, "name": one.title()} for one in self.connectors],
            **{f"spaces/space/{one}": {"id": one} for one in self.spaces},
            **{f"actions/connector/{one}": {"connector_type_id": kind} for one, kind in self.connectors.items()},
        }
        return there.get("/".join(parts))

    async def _import(self, request: web.Request, space: str) -> web.Response:
        part = await (await request.multipart()).next()
        if part is None or part.name != "file":
            return _refuse(400, "[request body.file]: expected value of type [Stream] but got [undefined]")
        if not (part.filename or "").endswith(".ndjson"):
            return _refuse(415, "Invalid file extension")
        found = [json.loads(line) for line in (await part.text()).splitlines() if line]
        if any("typeMigrationVersion" not in one for one in found):
            return _refuse(500, "An internal server error occurred. Check Kibana server logs for details.")
        if wrong := faults(found, versions=VERSIONS):
            return _refuse(400, "; ".join(wrong))
        taken = [one for one in found if (space, one["type"], one["id"]) in self.objects]
        if taken and request.query.get("overwrite") != "true":
            errors = [{"id": one["id"], "type": one["type"], "error": {"type": "conflict"}} for one in taken]
            return web.json_response({"success": False, "successCount": 0, "errors": errors})
        self.objects |= {(space, one["type"], one["id"]): one for one in found}
        results = [{"id": one["id"], "type": one["type"]} for one in found]
        return web.json_response({"success": True, "successCount": len(found), "successResults": results})

    async def _rule(self, request: web.Request, method: str, space: str, id_: str) -> web.Response:
        present = self.rules.get((space, id_))
        if method in ("GET", "PUT") and present is None:
            return _refuse(404, f"Saved object [alert/{id_}] not found")
        if method == "GET":
            shown = [{**one, "connector_type_id": ".server-log"} for one in present["actions"]]
            return web.json_response({**present, "actions": shown, "id": id_, "execution_status": {"status": "ok"}})
        if method == "POST" and any(id_ == other for _, other in self.rules):
            return _refuse(409, f"Saved object [alert/{id_}] conflict")
        body = await request.json()
        if wrong := _wrong_rule(body, CREATED if method == "POST" else CHANGED, id_):
            return _refuse(400, wrong)
        self.rules[space, id_] = {**(present or {}), **body}
        return web.json_response({"id": id_, **body})


def _wrong_rule(body: dict[str, Any], allowed: set[str], id_: str) -> str | None:
    if UUID(id_).version not in (1, 2, 3, 4, 5):
        return "[request params.id]: no UUID of version 1 to 5"
    if unknown := body.keys() - allowed:
        return f"[request body.{min(unknown)}]: definition for this key is missing"
    for action in body["actions"]:
        if unknown := action.keys() - ACTION:
            return f"[request body.actions.0.{min(unknown)}]: definition for this key is missing"
    if not re.fullmatch("[1-9][0-9]*[smhd]", body["schedule"]["interval"]):
        return "[request body.schedule.interval]: string is not a valid duration"
    if wrong := wrong_params(body["params"]):
        return f"params invalid: {wrong}"
    return None


def wrong_params(params: dict[str, Any]) -> str | None:
    """What Kibana says of the parameters of an Elasticsearch query rule that are not right."""
    if unknown := params.keys() - PARAMS:
        return f"[{min(unknown)}]: definition for this key is missing"
    rules = {
        "[index], [timeField]: must have a value": params["index"] and params.get("timeField"),
        "[esQuery]: must be valid JSON": isinstance(params["esQuery"], str),
        '[esQuery]: must contain "query"': "query" in json.loads(params["esQuery"]),
        "[timeWindowSize]: too small": params["timeWindowSize"] >= 1 and params["timeWindowUnit"] in "smhd",
        "[size]: must be equal to or lower than 10000": 0 <= params["size"] <= 10_000,
        "[thresholdComparator]: unknown": params["thresholdComparator"] in (">", "<", ">=", "<="),
        "[threshold]: must have one element": len(params["threshold"]) == 1,
        "[aggField]: must have a value": params["aggType"] == "count" or params.get("aggField"),
        "[termField]: required when [groupBy] is top": params["groupBy"] == "all" or params.get("termField"),
        "[termSize]: must be at most 1000": params["groupBy"] == "all" or 1 <= params.get("termSize", 0) <= 1000,
    }
    return next((wrong for wrong, right in rules.items() if not right), None)


def _refuse(status: int, message: str) -> web.Response:
    return web.json_response({"statusCode": status, "error": "Refused", "message": message}, status=status)


@pytest.fixture
async def kibana() -> AsyncIterator[FakeKibana]:
    """A Kibana behind a base path."""
    fake = FakeKibana()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    fake.port = runner.addresses[0][1]
    yield fake
    await runner.cleanup()
