"""The seed's 20 routes: what each answers when all is well, and when it is not."""

from __future__ import annotations

import pytest

from servmon.clock import rfc3339
from servmon.model import Status
from servmon.services.connection import ManualChecks
from tests.fix_api import UNKNOWN_UUID, window
from tests.services.test_connection import HandClock

ENDPOINT = {"id": "api-gateway", "name": "API Gateway", "protocol": "TCP", "check_interval": 60}
SEED_ENDPOINT_FIELDS = {
    "id",
    "name",
    "url",
    "protocol",
    "check_interval",
    "timeout",
    "retries",
    "expected_status_code",
    "expected_response_pattern",
    "is_active",
    "created_at",
    "updated_at",
}
SEED_STATUS_FIELDS = {
    "id",
    "endpoint_id",
    "status",
    "response_time",
    "timestamp",
    "error_message",
    "elasticsearch_synced",
}
SEED_OUTAGE_FIELDS = {
    "id",
    "endpoint_id",
    "severity",
    "description",
    "start_time",
    "resolved",
    "resolved_at",
    "resolution_notes",
    "notification_channels",
    "elasticsearch_synced",
}
SEED_WINDOW_FIELDS = {
    "id",
    "description",
    "start_time",
    "end_time",
    "created_by",
    "created_at",
    "updated_at",
    "endpoint_ids",
}


@pytest.fixture
async def gateway(api, open_port) -> dict:
    reply = await api.post("/services/", {**ENDPOINT, "url": f"127.0.0.1:{open_port}"})
    assert reply.status == 201, reply.json
    return reply.json


async def test_an_endpoint_lives_through_create_read_replace_and_delete(api, open_port):
    created = await api.post("/services/", {**ENDPOINT, "url": f"127.0.0.1:{open_port}"})
    assert (created.status, created.headers["Location"]) == (201, "/services/api-gateway")
    assert created.json.keys() >= SEED_ENDPOINT_FIELDS
    assert (await api.get("/services/api-gateway")).json == created.json
    assert (await api.get("/services/")).json == {"items": [created.json], "next_cursor": None}

    replaced = await api.send("PUT", "/services/api-gateway", {**created.json, "name": "Gate", "retries": 0})
    assert (replaced.status, replaced.json["name"], replaced.json["retries"]) == (200, "Gate", 0)
    bare = await api.send("PUT", "/services/api-gateway", {"url": f"127.0.0.1:{open_port}", "protocol": "TCP"})
    assert (bare.json["name"], bare.json["retries"]) == ("api-gateway", 3)
    assert bare.json["created_at"] == created.json["created_at"]

    deleted = await api.send("DELETE", "/services/api-gateway")
    assert (deleted.status, deleted.body) == (204, b"")
    assert (await api.get("/services/api-gateway")).status == 404
    assert (await api.get("/services/")).json["items"] == []
    assert (await api.post("/services/", {**ENDPOINT, "url": "127.0.0.1:1"})).status == 201


async def test_an_endpoint_without_an_id_gets_one(api):
    created = await api.post("/services", {"url": "icmp://192.0.2.1"})
    assert created.status == 201
    assert (await api.get(created.headers["Location"])).json["id"] == created.json["id"]


async def test_a_manual_check_is_stored_and_is_the_current_status_and_the_history(api, gateway):
    assert (await api.get("/services/api-gateway/status")).json == {
        "endpoint_id": "api-gateway",
        "status": "UNKNOWN",
        "state": "unknown",
        "since": None,
        "timestamp": None,
        "response_time": None,
        "error_message": None,
        "failure_kind": None,
        "consecutive_failures": 0,
        "in_maintenance": False,
        "outage_id": None,
    }
    checked = await api.post("/services/api-gateway/check")
    assert (checked.status, checked.json["status"], checked.json["source"]) == (200, "UP", "manual")
    assert checked.json.keys() >= SEED_STATUS_FIELDS | {"attempts", "failure_kind", "phases"}
    assert checked.json["response_time"] > 0
    current = (await api.get("/services/api-gateway/status")).json
    assert (current["status"], current["timestamp"]) == ("UP", checked.json["timestamp"])
    (stored,) = (await api.get("/services/api-gateway/history")).json["items"]
    assert stored == checked.json


async def test_a_failed_manual_check_says_why(api, closed_port):
    await api.post("/services/", {"id": "dead", "url": f"tcp://127.0.0.1:{closed_port}", "retries": 0})
    checked = (await api.post("/services/dead/check")).json
    assert (checked["status"], checked["failure_kind"], checked["attempts"]) == ("DOWN", "refused", 1)
    assert "refused" in checked["error_message"]


async def test_a_second_manual_check_within_a_second_is_too_soon(api, gateway, connection):
    connection.manual_checks = ManualChecks(HandClock())
    assert (await api.post("/services/api-gateway/check")).status == 200
    again = await api.post("/services/api-gateway/check")
    assert (again.status, again.headers["Retry-After"]) == (429, "1")


async def test_the_status_summary_counts_active_endpoints_by_their_last_check(api, gateway, history):
    for endpoint_id, status in (("b", Status.DOWN), ("c", Status.DEGRADED), ("d", Status.UP)):
        await api.post("/services/", {"id": endpoint_id, "url": "tcp://192.0.2.1:1", "is_active": endpoint_id != "d"})
        await history.check(endpoint_id, status)
    await history.outage("b")
    await api.post("/maintenance/", window("b", "d"))
    assert (await api.get("/services/status/summary")).json == {
        "total": 3,
        "up": 0,
        "down": 1,
        "degraded": 1,
        "unknown": 1,
        "in_maintenance": 1,
        "active_outages": 1,
    }


async def test_an_outage_is_listed_read_and_resolved(api, gateway, history):
    await history.check("api-gateway", Status.UP, Status.DOWN)
    closed = await history.outage("api-gateway", minutes=50, resolved=True)
    opened = await history.outage("api-gateway", minutes=10)
    listed = (await api.get("/outages/")).json
    assert [outage["id"] for outage in listed["items"]] == [opened.id, closed.id]
    active = (await api.get("/outages/active")).json["items"]
    assert [outage["id"] for outage in active] == [opened.id]
    assert active[0].keys() >= SEED_OUTAGE_FIELDS
    assert (await api.get(f"/outages/{opened.id}")).json == active[0]
    assert (active[0]["severity"], active[0]["start_time"]) == ("MAJOR", rfc3339(opened.start_time))

    resolved = await api.post(f"/outages/{opened.id}/resolve", {"resolution_notes": "Fixed network connectivity"})
    assert (resolved.status, resolved.json["resolved"], resolved.json["still_down"]) == (200, True, True)
    assert resolved.json["resolution_notes"] == "Fixed network connectivity"
    assert (await api.get("/outages/active")).json["items"] == []
    again = await api.post(f"/outages/{opened.id}/resolve")
    assert (again.status, again.json["resolved_at"]) == (200, resolved.json["resolved_at"])
    assert again.json["resolution_notes"] == "Fixed network connectivity"


async def test_the_outage_summary_counts_them_all(api, gateway, history):
    assert (await api.get("/outages/summary")).json["mean_time_to_resolve_seconds"] is None
    await history.outage("api-gateway", minutes=50, resolved=True)
    await history.outage("api-gateway", minutes=10)
    summary = (await api.get("/outages/summary")).json
    assert (summary["total"], summary["active"], summary["resolved"]) == (2, 1, 1)
    assert summary["by_severity"]["MAJOR"] == 2
    assert summary["by_service"] == {"api-gateway": 2}
    assert summary["mean_time_to_resolve_seconds"] == 300


async def test_deleting_an_endpoint_resolves_its_outage_with_a_note(api, gateway, history):
    opened = await history.outage("api-gateway")
    await api.send("DELETE", "/services/api-gateway")
    outage = (await api.get(f"/outages/{opened.id}")).json
    assert (outage["resolved"], outage["resolution_notes"]) == (True, "Closed because the endpoint was deleted")


async def test_a_window_lives_through_create_read_replace_and_delete(api, gateway):
    created = await api.post("/maintenance/", window("api-gateway", created_by="lea"))
    assert created.status == 201
    assert created.headers["Location"] == f"/maintenance/{created.json['id']}"
    assert created.json.keys() >= SEED_WINDOW_FIELDS
    assert (created.json["endpoint_ids"], created.json["mode"], created.json["created_by"]) == (
        ["api-gateway"],
        "mute",
        "lea",
    )
    later = (await api.post("/maintenance", window("api-gateway", start=24, end=25, mode="pause"))).json
    assert later["created_by"] == "admin"
    assert (await api.get(created.headers["Location"])).json == created.json
    listed = (await api.get("/maintenance/")).json
    assert listed == {"items": [later, created.json], "next_cursor": None}
    assert (await api.get("/maintenance/active")).json == {"items": [created.json], "next_cursor": None}
    assert (await api.get("/services/api-gateway/status")).json["in_maintenance"] is True

    replaced = await api.send("PUT", created.headers["Location"], window("api-gateway", start=-5, end=-4))
    assert (replaced.status, replaced.json["created_by"]) == (200, "lea")
    assert (await api.get("/maintenance/active")).json["items"] == []
    assert (await api.send("DELETE", created.headers["Location"])).status == 204
    assert (await api.get(created.headers["Location"])).status == 404
    assert [one["id"] for one in (await api.get("/maintenance/")).json["items"]] == [later["id"]]


async def test_what_is_not_there_is_404_whatever_its_id_looks_like(api):
    strange = ["nobody", "status", "..", "a%00b", "%ED%A0%80", "x" * 300, "%2e%2e%2f", "' or 1=1", UNKNOWN_UUID]
    routes = [
        ("GET", "/services/{}", None),
        ("PUT", "/services/{}", {"url": "tcp://192.0.2.1:1"}),
        ("DELETE", "/services/{}", None),
        ("POST", "/services/{}/check", None),
        ("GET", "/services/{}/status", None),
        ("GET", "/services/{}/history", None),
        ("GET", "/outages/{}", None),
        ("POST", "/outages/{}/resolve", None),
        ("GET", "/maintenance/{}", None),
        ("PUT", "/maintenance/{}", window("a")),
        ("DELETE", "/maintenance/{}", None),
    ]
    got = {
        (method, path, one): (await api.send(method, path.format(one), body)).status
        for method, path, body in routes
        for one in strange
        if one != ".."  # the client itself would shorten the path
    }
    assert {case: status for case, status in got.items() if status != 404} == {}


async def test_another_method_is_405_and_told_which_ones_there_are(api):
    cases = {
        ("DELETE", "/services/"): "GET,HEAD,POST",
        ("PATCH", "/outages/"): "GET,HEAD",
        ("POST", "/outages/active"): "GET,HEAD",
        ("POST", "/services/status/summary"): "GET,HEAD",
        ("GET", "/services/a/check"): "POST",
        ("PUT", "/maintenance/"): "GET,HEAD,POST",
    }
    replies = {case: await api.send(*case) for case in cases}
    assert {case: (reply.status, reply.headers["Allow"]) for case, reply in replies.items()} == {
        case: (405, allow) for case, allow in cases.items()
    }


async def test_a_taken_id_is_409(api, gateway):
    reply = await api.post("/services/", {"id": "api-gateway", "url": "tcp://192.0.2.1:1"})
    assert reply.status == 409
    assert "api-gateway" in reply.json["detail"]


WRONG_VALUES = [
    ("/services/", {}, {"url"}),
    ("/services/", {"url": "tcp://192.0.2.1:1", "timeout": "x", "retries": -1}, {"timeout", "retries"}),
    ("/services/", {"url": "tcp://192.0.2.1:1", "id": "summary"}, {"id"}),
    ("/services/", {"url": "tcp://192.0.2.1:1", "id": "no/slash"}, {"id"}),
    ("/services/", {"url": "tcp://192.0.2.1:1", "protocol": "GOPHER"}, {"protocol"}),
    ("/services/", {"url": "tcp://192.0.2.1:1", "interval": 5}, {"interval"}),
    ("/maintenance/", {}, {"endpoint_ids", "start_time", "end_time"}),
    ("/maintenance/", window(), {"endpoint_ids"}),
    ("/maintenance/", window("nobody"), {"endpoint_ids.0"}),
    ("/maintenance/", window("a", start=1, end=-1) | {"endpoint_ids": ["x\n"]}, {"end_time", "endpoint_ids.0"}),
    ("/maintenance/", window("a") | {"start_time": "2026-11-23T02:00:00"}, {"start_time"}),
    (f"/outages/{UNKNOWN_UUID}/resolve", {"resolution_notes": 7}, {"resolution_notes"}),
    (f"/outages/{UNKNOWN_UUID}/resolve", {"notes": "x"}, {"notes"}),
]


async def test_wrong_values_are_422_and_all_named(api):
    for path, body, fields in WRONG_VALUES:
        reply = await api.post(path, body)
        assert reply.status == 422, body
        assert set(reply.wrong_fields) == fields, reply.json
        assert all(error["message"] for error in reply.json["errors"])


async def test_every_error_is_a_problem_document(api):
    replies = [
        await api.get("/services/nobody"),
        await api.get("/nowhere"),
        await api.send("PATCH", "/services/"),
        await api.post("/services/", {}),
        await api.get("/services/", headers={"Authorization": ""}),
    ]
    for reply in replies:
        assert reply.headers["Content-Type"].startswith("application/problem+json")
        assert reply.json.keys() >= {"type", "title", "status", "detail"}
        assert reply.json["status"] == reply.status


async def test_lists_are_read_page_by_page_without_gap_or_repetition(api, gateway, history):
    for number in range(4):
        await api.post("/services/", {"id": f"s{number}", "url": "tcp://192.0.2.1:1"})
        await history.outage("api-gateway", minutes=50 - number, resolved=True)
        await api.post("/maintenance/", window("api-gateway", start=number, end=5))
    await history.check("api-gateway", *[Status.UP] * 5)
    expected = {"/services/": 5, "/services/api-gateway/history": 5, "/outages/": 4, "/maintenance/": 4}
    for path, count in expected.items():
        whole = (await api.get(path)).json["items"]
        assert len(whole) == count
        assert await pages(api, path) == whole


async def pages(api, path: str) -> list[dict]:
    found, cursor = [], None
    while True:
        query = "?limit=2" + (f"&cursor={cursor}" if cursor else "")
        page = (await api.get(path + query)).json
        assert 1 <= len(page["items"]) <= 2
        found += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


async def test_every_route_answers_with_and_without_a_slash_and_below_the_prefix(api, gateway):
    for path in ("/services", "/services/api-gateway", "/services/status/summary", "/outages/active", "/maintenance"):
        bodies = {(await api.get(prefix + path + end)).body for prefix in ("", "/api/v1") for end in ("", "/")}
        assert len(bodies) == 1, path
