"""Recurring windows over the API: next occurrences, extension, early ends, and how uptime takes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from servmon.model import Status

NOW = datetime.now(UTC)  # noqa: TID251 - the API's clock is the real one
HOUR = timedelta(hours=1)


def window(start: float = -1, hours: float = 2, **fields) -> dict:
    begins = (NOW + start * HOUR).replace(microsecond=0)
    times = {"start_time": begins.isoformat(), "end_time": (begins + hours * HOUR).isoformat()}
    return {**times, "description": "new firmware", **fields}


@pytest.fixture(autouse=True)
async def watched(api):
    more = {"tags": ["core"], "site": "pop-north"}
    for name, fields in (("edge", more), ("web", {})):
        await api.post("/services/", {"id": name, "url": "tcp://192.0.2.1:1", **fields})


async def in_maintenance(api) -> set[str]:
    return {name for name in ("edge", "web") if (await api.get(f"/services/{name}/status")).json["in_maintenance"]}


async def test_a_window_may_cover_a_tag_or_a_site(api):
    for fields in ({"tags": ["core"]}, {"sites": ["pop-north"]}):
        made = await api.post("/maintenance/", window(**fields))
        assert (made.status, made.json["endpoint_ids"]) == (201, [])
        assert await in_maintenance(api) == {"edge"}
        assert (await api.get("/services/status/summary")).json["in_maintenance"] == 1
        await api.send("DELETE", made.headers["Location"])
        assert await in_maintenance(api) == set()


async def test_a_tag_or_site_that_no_endpoint_has_is_named(api):
    reply = await api.post("/maintenance/", window(tags=["core", "cor"], sites=["pop-nort"]))
    assert (reply.status, reply.wrong_fields) == (422, ["tags.1", "sites.0"])
    assert "no service endpoint has the site 'pop-nort'" in reply.json["errors"][1]["message"]


async def test_a_recurring_window_tells_its_next_occurrences(api):
    yesterday = window(-25, rrule="FREQ=DAILY;COUNT=4", endpoint_ids=["web"], timezone="Asia/Kolkata")
    made = (await api.post("/maintenance/", yesterday)).json
    first = datetime.fromisoformat(yesterday["start_time"])
    assert [one["start_time"] for one in made["next_occurrences"]] == [
        (first + timedelta(days=n)).strftime("%Y-%m-%dT%H:%M:%S.000000Z") for n in (1, 2, 3)
    ]
    assert await in_maintenance(api) == {"web"}
    assert [one["id"] for one in (await api.get("/maintenance/active")).json["items"]] == [made["id"]]
    assert (await api.get(f"/maintenance/{made['id']}")).json == made


async def test_what_runs_is_extended_and_ended_without_touching_the_rest(api):
    made = await api.post("/maintenance/", window(-25, rrule="FREQ=DAILY", endpoint_ids=["web"]))
    place = made.headers["Location"]
    longer = await api.post(f"{place}/extend", {"minutes": 30})
    assert longer.status == 200
    first, second = (longer.json["next_occurrences"][n]["end_time"] for n in (0, 1))
    was = [one["end_time"] for one in made.json["next_occurrences"]]
    assert datetime.fromisoformat(first) == datetime.fromisoformat(was[0]) + HOUR / 2
    assert second == was[1]
    assert (await api.post(f"{place}/end")).status == 200
    assert await in_maintenance(api) == set()
    assert (await api.post(f"{place}/end")).status == 409
    assert (await api.post(f"{place}/extend", {"minutes": 30})).status == 409
    assert (await api.post(f"{place}/extend", {"minutes": -1})).status == 409
    assert len((await api.get(place)).json["next_occurrences"]) == 5


async def test_put_with_what_was_read_changes_nothing(api):
    fields = {"rrule": "FREQ=WEEKLY", "timezone": "Asia/Kolkata", "sites": ["pop-north"]}
    made = await api.post("/maintenance/", window(-1, **fields))
    again = await api.send("PUT", made.headers["Location"], made.json)
    assert again.status == 200
    assert again.json | {"updated_at": 0} == made.json | {"updated_at": 0}


async def test_uptime_takes_out_the_nights_of_a_recurring_window_also_after_it_was_deleted(api, history):
    (first, *_) = await history.check("edge", *[Status.UP] * 60)
    outage = await history.outage("edge", minutes=50, resolved=True)
    fields = {"tags": ["core"], "rrule": "FREQ=DAILY"}
    begins = outage.start_time + timedelta(minutes=2) - timedelta(days=3)
    times = {"start_time": begins.isoformat(), "end_time": (begins + timedelta(minutes=1)).isoformat()}
    made = await api.post("/maintenance/", {**times, **fields})
    assert made.status == 201, made.json
    period = {"since": first.timestamp.isoformat(), "until": (first.timestamp + timedelta(minutes=50)).isoformat()}
    for _ in range(2):
        found = (await api.get("/services/edge/uptime", params=period)).json
        assert (found["outage_seconds"], found["maintenance_seconds"], found["up_seconds"]) == (240, 60, 2700)
        await api.send("DELETE", made.headers["Location"])


async def test_of_two_who_change_one_window_the_second_is_412_and_nothing_is_lost(api):
    await api.post("/services/", {"id": "a", "url": "tcp://192.0.2.1:1"})
    made = await api.post("/maintenance/", window(endpoint_ids=["a"]))
    place, tag = made.headers["Location"], {"If-Match": made.headers["ETag"]}
    first = await api.send("PATCH", place, {"description": "two cards"}, headers=tag)
    assert (first.status, first.json["description"]) == (200, "two cards")
    assert first.headers["ETag"] == (await api.get(place)).headers["ETag"] != made.headers["ETag"]
    late = [
        await api.send("PATCH", place, {"description": "three"}, headers=tag),
        await api.send("PUT", place, window(endpoint_ids=["a"]), headers=tag),
        await api.post(f"{place}/extend", {"minutes": 5}, headers=tag),
        await api.post(f"{place}/end", headers=tag),
        await api.send("DELETE", place, headers=tag),
    ]
    assert [reply.status for reply in late] == [412] * 5
    assert (await api.get(place)).json == first.json
    assert (await api.send("DELETE", place, headers={"If-Match": first.headers["ETag"]})).status == 204


async def test_a_patch_leaves_what_it_does_not_name_and_names_what_is_wrong(api):
    await api.post("/services/", {"id": "a", "url": "tcp://192.0.2.1:1"})
    made = (await api.post("/maintenance/", window(endpoint_ids=["a"], mode="pause"))).json
    changed = await api.send("PATCH", f"/maintenance/{made['id']}", {"description": "x"})
    assert {**changed.json, "updated_at": None} == {**made, "description": "x", "updated_at": None}
    wrong = await api.send("PATCH", f"/maintenance/{made['id']}", {"endpoint_ids": ["nobody"], "mode": "sleep"})
    assert (wrong.status, wrong.wrong_fields) == (422, ["mode"])
