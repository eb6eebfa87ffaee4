"""Who changed what: every change over the API is noted, with before and after, never with a secret."""

from __future__ import annotations

from tests.fix_api import OPERATE_TOKEN


async def test_a_change_is_noted_with_before_and_after_and_who_made_it(api):
    await api.post("/services/", {"id": "a", "url": "tcp://192.0.2.1:1", "check_interval": 60})
    await api.send(
        "PUT", "/services/a/", {"url": "tcp://192.0.2.1:1", "check_interval": 30}, headers={"X-Request-Id": "mine-1"}
    )
    await api.send("DELETE", "/api/v1/services/a")
    deleted, replaced, created = (await api.get("/audit")).json["items"]
    assert [one["action"] for one in (created, replaced, deleted)] == [
        "create_endpoint",
        "replace_endpoint",
        "delete_endpoint",
    ]
    assert {one["target"] for one in (created, replaced, deleted)} == {"/services/a"}
    assert (created["before"], created["after"]["check_interval"]) == (None, 60)
    assert (replaced["before"]["check_interval"], replaced["after"]["check_interval"]) == (60, 30)
    assert (deleted["before"]["check_interval"], deleted["after"]) == (30, None)
    assert (replaced["who"], replaced["prefix"], replaced["address"]) == ("admin", "00000000", "127.0.0.1")
    assert replaced["request_id"] == "mine-1"


async def test_what_was_refused_or_only_read_is_not_noted(api):
    await api.post("/services/", {"id": "a"})
    await api.send("DELETE", "/services/nobody")
    await api.get("/services/")
    assert (await api.get("/audit")).json["items"] == []


async def test_the_audit_is_read_by_person_target_time_and_page(api, history):
    for name in "abc":
        await api.post("/services/", {"id": name, "url": "tcp://192.0.2.1:1"})
    outage = await history.outage("a")
    headers = {"Authorization": f"Bearer {OPERATE_TOKEN}"}
    assert (await api.post(f"/outages/{outage.id}/resolve", headers=headers)).status == 200
    assert [one["action"] for one in (await api.get("/audit?who=operator")).json["items"]] == ["resolve_outage"]
    (on_b,) = (await api.get("/audit?target=/services/b")).json["items"]
    assert on_b["after"]["id"] == "b"
    since = on_b["at"]
    assert len((await api.get(f"/audit?since={since}")).json["items"]) == 3
    assert len((await api.get(f"/audit?until={since}")).json["items"]) == 1
    first = (await api.get("/audit?limit=3")).json
    rest = (await api.get(f"/audit?limit=3&cursor={first['next_cursor']}")).json
    assert (len(first["items"]), len(rest["items"]), rest["next_cursor"]) == (3, 1, None)
    assert (await api.get("/audit?since=yesterday&whom=x")).wrong_fields == ["since", "whom"]
