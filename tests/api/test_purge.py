"""DELETE with purge: an endpoint goes with all that was found out about it; what was told of it stays."""

from __future__ import annotations

import pytest

from servmon.model import Status
from tests.fix_api import window

URL = "tcp://192.0.2.1:1"
TABLES = {
    "service_status_row": "endpoint_key = $1",
    "service_status_hourly": "endpoint_key = $1",
    "service_status_daily": "endpoint_key = $1",
    "state_change": "endpoint_id = 'old'",
    "service_outage": "endpoint_id = 'old'",
    "outage_remark": "true",
    "maintenance_window_endpoint": "endpoint_id = 'old'",
    "service_endpoint": "id = 'old'",
}


@pytest.fixture
async def key(api, history, db) -> int:
    """The key of the endpoint ``old``, which has a past of every kind, beside ``other`` with the like."""
    await db.execute("select ensure_hourly_partition(current_date)")
    for name in ("old", "other"):
        made = (await api.post("/services/", {"id": name, "url": URL})).json
        await history.check(name, Status.UP, Status.DOWN)
        outage = await history.outage(name, resolved=True)
        await api.post(f"/outages/{outage.id}/notes", {"text": "rain in the duct"})
        for period in ("hourly", "daily"):
            await db.execute(
                f"insert into service_status_{period} (endpoint_key, start, up, degraded, down, unknown)"
                " select $1, date_trunc('day', now()), 1, 0, 0, 0 on conflict do nothing",
                made["key"],
            )
        if name == "old":
            key = made["key"]
    await api.post("/maintenance/", window("old", "other"))
    await db.execute("update state_change set processed_at = now()")
    return key


async def left(db, key: int) -> dict[str, int]:
    found = {}
    for table, of_it in TABLES.items():
        arguments = [key] if "$1" in of_it else []
        found[table] = await db.fetchval(f"select count(*) from {table} where {of_it}", *arguments)
    return found


async def test_a_purge_leaves_nothing_of_it_and_all_of_the_others(api, db, key):
    before = await left(db, key)
    assert all(before.values()), before
    assert (await api.send("DELETE", "/services/old?purge=true")).status == 204
    assert await left(db, key) == {**dict.fromkeys(TABLES, 0), "outage_remark": 1}
    assert (await api.get("/services/old/history")).status == 404
    assert [len((await api.get(f"/{path}")).json["items"]) for path in ("services/other/history", "outages/")] == [2, 1]
    assert (await api.get("/maintenance/")).json["items"][0]["endpoint_ids"] == ["other"]
    (change, *_) = (await api.get("/audit?action=delete_endpoint")).json["items"]
    assert (change["target"], change["before"]["url"], change["after"]) == ("/services/old", URL, None)
    again = await api.post("/services/", {"id": "old", "url": URL})
    assert (again.status, "revived" in again.json) == (201, False)
    assert (await api.get("/services/old/history")).json["items"] == []


async def test_a_deleted_endpoint_can_be_purged_and_one_that_never_was_cannot(api, db, key):
    assert (await api.send("DELETE", "/services/old")).status == 204
    assert (await left(db, key))["service_status_row"] == 2
    assert (await api.send("DELETE", "/services/old?purge=true")).status == 204
    assert (await left(db, key))["service_status_row"] == 0
    for missing in ("old", "never", "a%20b"):
        assert (await api.send("DELETE", f"/services/{missing}?purge=true")).status == 404


async def test_what_stands_in_the_file_is_not_purged_and_what_was_taken_out_of_it_is(api, db, key):
    await db.execute("update service_endpoint set source = 'config:main' where id = 'old'")
    refused = await api.send("DELETE", "/services/old?purge=true")
    assert (refused.status, "configuration file" in refused.json["detail"]) == (409, True)
    assert all((await left(db, key)).values())
    await db.execute("update service_endpoint set is_active = false where id = 'old'")
    await db.execute("update state_change set processed_at = now()")
    assert (await api.send("DELETE", "/services/old?purge=true")).status == 204


async def test_the_end_of_an_open_outage_is_told_before_it_is_purged(api, db, history, key):
    outage = await history.outage("old", minutes=5)
    await db.execute("update state_change set processed_at = now()")
    refused = await api.send("DELETE", "/services/old?purge=true")
    assert (refused.status, "still to be told" in refused.json["detail"]) == (409, True)
    closed = (await api.get(f"/outages/{outage.id}")).json
    assert (closed["resolved"], closed["resolution_notes"]) == (True, "Closed because the endpoint was deleted")
    await db.execute("update state_change set processed_at = now()")
    assert (await api.send("DELETE", "/services/old?purge=true")).status == 204
    assert (await api.get(f"/outages/{outage.id}")).status == 404
