"""Which role may do what: every route × method × role, and nobody at all."""

from __future__ import annotations

from inspect import isawaitable
from types import SimpleNamespace

import pytest

from servmon.api import problems
from servmon.api.app import ROUTES
from servmon.api.events import follow_events
from servmon.api.sessions import end_session
from servmon.model import Role
from servmon.web import PAGES
from servmon.web.entrance import leave
from tests.fix_api import OPERATE_TOKEN, READ_TOKEN, TOKEN

TOKENS = {Role.READ: READ_TOKEN, Role.OPERATE: OPERATE_TOKEN, Role.ADMIN: TOKEN}
# What a night shift may do without being an administrator, written by hand.
OPERATORS = {
    "POST /services/{endpoint_id}/check",
    "POST /outages/{outage_id}/resolve",
    "POST /outages/{outage_id}/acknowledge",
    "POST /outages/{outage_id}/unacknowledge",
    "POST /outages/{outage_id}/notes",
    "POST /outages/{outage_id}/exclude",
    "POST /outages/{outage_id}/include",
    "POST /silences/",
    "DELETE /silences/{silence_id}",
    "POST /maintenance/",
    "PUT /maintenance/{window_id}",
    "PATCH /maintenance/{window_id}",
    "DELETE /maintenance/{window_id}",
    "POST /maintenance/{window_id}/extend",
    "POST /maintenance/{window_id}/end",
    "POST /ui/outages/{outage_id}/acknowledge",
}
ADMINISTRATORS = {
    "POST /alerts/rules",
    "PUT /alerts/rules/{rule_name}",
    "PATCH /alerts/rules/{rule_name}",
    "DELETE /alerts/rules/{rule_name}",
    "POST /services/",
    "PUT /services/{endpoint_id}",
    "PATCH /services/{endpoint_id}",
    "POST /services/bulk",
    "DELETE /services/{endpoint_id}",
    "GET /config",
    "POST /config/reload",
    "GET /tokens/",
    "POST /tokens/",
    "DELETE /tokens/{token_id}",
    "GET /audit",
}


def needed(route) -> Role:
    name = f"{route.method} {route.path}"
    return Role.ADMIN if name in ADMINISTRATORS else Role.OPERATE if name in OPERATORS else Role.READ


def by_token(_api, role: Role) -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKENS[role]}"}


async def by_cookie(api, role: Role) -> dict[str, str]:
    reply = await api.send("POST", "/session", {"token": TOKENS[role]}, skip_token=True)
    cookie = reply.headers["Set-Cookie"].partition(";")[0]
    return {"Cookie": cookie, "Origin": f"http://127.0.0.1:{api.port}"}


@pytest.fixture
def without_tracebacks(monkeypatch):
    """Behind the door is nothing, and to draw what that comes to takes longer than the walk itself."""
    monkeypatch.setattr(problems, "_log", SimpleNamespace(exception=lambda *_, **__: None))


@pytest.mark.usefixtures("without_tracebacks")
@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("way", [by_token, by_cookie])
async def test_a_role_opens_exactly_its_routes(door, role, way):
    given = way(door, role)
    headers = await given if isawaitable(given) else given
    refused = set()
    for route in (*ROUTES, *PAGES.routes):
        if route.handler in (follow_events, end_session, leave):
            continue  # one never ends, the others end the walk; their own tests ask them
        # Every address of a route leads to one handler, by which it is decided; strangers try them all in test_auth.py.
        path = route.path.replace("{", "").replace("}", "")
        for method in route.methods():
            reply = await door.send(method, path, headers=headers, skip_token=True)
            assert route.open_to_all or reply.status != 401, (method, path)
            if reply.status == 403:
                refused.add(f"{route.method} {route.path}")
    assert refused == {
        f"{route.method} {route.path}"
        for route in (*ROUTES, *PAGES.routes)
        if not route.open_to_all and not role.covers(needed(route))
    }


def test_reading_changes_nothing_and_only_administrators_change_what_servmon_is():
    assert [route for route in ROUTES if route.changes and needed(route) is Role.READ] == []
