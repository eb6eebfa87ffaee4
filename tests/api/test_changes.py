"""Changing endpoints: by parts, against a version, many at once; finding them again."""

from __future__ import annotations

import asyncio

import pytest

from servmon.clock import rfc3339
from servmon.model import Status
from servmon.store import endpoints as store
from tests.fix_api import window

URL = "tcp://192.0.2.1:1"


@pytest.fixture
async def fleet(api) -> list[str]:
    """Four endpoints that differ in what can be asked for."""
    wanted = [
        {"id": "a", "url": URL, "tags": ["core"], "site": "pop-north"},
        {"id": "b", "url": "icmp://192.0.2.2", "tags": ["core", "dns"], "site": "pop-south", "name": "Router B"},
        {"id": "c", "url": "dns://192.0.2.3/example.com", "is_active": False},
        {"id": "d", "url": "http://shop.example/"},
    ]
    for one in wanted:
        assert (await api.post("/services/", one)).status == 201
    return [one["id"] for one in wanted]


async def ids(api, query: str) -> str:
    reply = await api.get(f"/services/?{query}")
    assert reply.status == 200, reply.json
    return "".join(one["id"] for one in reply.json["items"])


async def test_patch_changes_what_is_given_and_put_replaces_all(api):
    await api.post("/services/", {"id": "a", "url": URL, "check_interval": 30, "tags": ["core"]})
    patched = (await api.send("PATCH", "/services/a", {"retries": 1})).json
    assert (patched["check_interval"], patched["tags"], patched["retries"]) == (30, ["core"], 1)
    replaced = (await api.send("PUT", "/services/a", {"url": URL})).json
    assert (replaced["check_interval"], replaced["tags"], replaced["retries"]) == (60, [], 3)
    wrong = await api.send("PATCH", "/services/a", {"retries": -1, "intervall": 5})
    assert (wrong.status, set(wrong.wrong_fields)) == (422, {"retries", "intervall"})


async def test_of_two_who_edit_one_endpoint_the_second_is_412_and_nothing_is_lost(api):
    await api.post("/services/", {"id": "a", "url": URL})
    read = [await api.get("/services/a") for _ in range(2)]
    first = await api.send("PATCH", "/services/a", {"retries": 1}, headers={"If-Match": read[0].headers["ETag"]})
    second = await api.send("PATCH", "/services/a", {"retries": 2}, headers={"If-Match": read[1].headers["ETag"]})
    assert (first.status, second.status) == (200, 412)
    assert (await api.get("/services/a")).json["retries"] == 1
    assert (await api.send("DELETE", "/services/a", headers={"If-Match": read[1].headers["ETag"]})).status == 412
    again = await api.send("PATCH", "/services/a", {"retries": 2}, headers={"If-Match": first.headers["ETag"]})
    assert again.status == 200
    assert (await api.send("DELETE", "/services/a", headers={"If-Match": "*"})).status == 204


async def test_at_the_same_moment_only_one_edit_of_a_version_succeeds(api):
    tag = (await api.post("/services/", {"id": "a", "url": URL})).headers["ETag"]
    edits = [
        api.send("PUT", "/services/a", {"url": URL, "retries": number}, headers={"If-Match": tag})
        for number in range(8)
    ]
    statuses = sorted([reply.status for reply in await asyncio.gather(*edits)])
    assert statuses == [200] + [412] * 7


async def test_endpoints_are_found_by_what_they_are(api, fleet, history):
    await history.check("a", Status.UP)
    await history.check("b", Status.DOWN)
    await history.outage("b")
    await api.post("/maintenance/", window("a", "c"))
    expected = {
        "": "abcd",
        "state=down": "b",
        "state=unknown": "ad",
        "in_maintenance=true": "a",
        "in_maintenance=false&now=true": "bd",
        "in_maintenance=true&status=DOWN": "",
        "sort=-id": "dcba",
        "protocol=icmp": "b",
        "tag=core": "ab",
        "tag=core&site=pop-south": "b",
        "is_active=false": "c",
        "q=router": "b",
        "q=SHOP.": "d",
        "q=%25": "",
        "status=UP": "a",
        "status=DOWN&tag=dns": "b",
        "status=UNKNOWN": "d",
        "site=nowhere": "",
    }
    assert {query: await ids(api, query) for query in expected} == expected


async def test_a_list_tells_how_each_is_now_where_that_is_asked_for(api, fleet, history):
    assert "now" not in (await api.get("/services/")).json["items"][0]
    outage = await history.outage("b")
    for query, expected in (("", "abcd"), ("&sort=-id&limit=3", "dcb")):
        items = (await api.get(f"/services/?now=true{query}")).json["items"]
        assert "".join(one["id"] for one in items) == expected
        told = {one["id"]: one["now"] for one in items}
        assert told["c"] is None
        assert told["b"] == (await api.get("/services/b/status")).json
        assert (told["b"]["state"], told["b"]["since"]) == ("down", rfc3339(outage.declared_at))
        assert (told["d"]["state"], told["d"]["since"]) == ("unknown", None)
    # What a list told can be sent back.
    fields = next(one for one in items if one["id"] == "b")
    assert (await api.send("PUT", "/services/b", fields)).status == 200


async def test_backwards_too_the_pages_have_no_gap(api, fleet):
    first = (await api.get("/services/?sort=-id&limit=3")).json
    rest = (await api.get(f"/services/?sort=-id&limit=3&cursor={first['next_cursor']}")).json
    assert [one["id"] for one in first["items"] + rest["items"]] == ["d", "c", "b", "a"]


async def test_a_filter_that_is_none_is_named(api):
    reply = await api.get("/services/?status=FINE&state=DOWN&is_active=yes&sort=name&color=red")
    assert (reply.status, set(reply.wrong_fields)) == (422, {"status", "state", "is_active", "sort", "color"})


async def test_tags_and_sites_are_counted(api, fleet):
    assert (await api.get("/tags")).json == {"core": 2, "dns": 1}
    assert (await api.get("/sites")).json == {"pop-north": 1, "pop-south": 1}


OPERATIONS = [
    {"action": "create", "id": "new", "fields": {"url": URL}},
    {"action": "update", "id": "a", "fields": {"retries": 1}},
    {"action": "delete", "id": "b"},
]
REFUSED = [
    {"action": "create", "id": "a", "fields": {"url": URL}},
    {"action": "update", "id": "nobody", "fields": {"retries": 1}},
    {"action": "update", "id": "a", "fields": {"retries": -1}},
]


async def test_many_changes_are_made_at_once(api, fleet):
    reply = await api.post("/services/bulk", {"operations": OPERATIONS})
    assert (reply.status, [one["ok"] for one in reply.json["results"]]) == (200, [True] * 3)
    assert await ids(api, "") == "acdnew"
    assert (await api.get("/services/a")).json["retries"] == 1


async def test_of_all_or_nothing_one_refusal_undoes_everything_and_every_one_is_named(api, fleet, caplog):
    reply = await api.post("/services/bulk", {"operations": OPERATIONS + REFUSED})
    assert (reply.status, reply.wrong_fields) == (
        422,
        ["operations.3.id", "operations.4.id", "operations.5.retries"],
    )
    assert await ids(api, "") == "abcd"
    assert (await api.get("/services/a")).json["retries"] == 3
    assert not caplog.records  # the driver would say that it had to clean up behind us


async def test_each_for_itself_a_refusal_stops_no_other(api, fleet):
    reply = await api.post("/services/bulk", {"mode": "per_item", "operations": REFUSED + OPERATIONS})
    assert [one["ok"] for one in reply.json["results"]] == [False] * 3 + [True] * 3
    assert reply.json["results"][2]["errors"][0]["field"] == "retries"
    assert await ids(api, "") == "acdnew"


async def test_each_for_itself_one_that_somebody_else_changed_meanwhile_stops_no_other(api, fleet, monkeypatch):
    update = store.update

    async def late(db, endpoint, revision):
        if endpoint.id == "a":
            await db.execute("update service_endpoint set name = 'theirs' where id = 'a'")
        return await update(db, endpoint, revision)

    monkeypatch.setattr(store, "update", late)
    edits = [{"action": "update", "id": one, "fields": {"name": "ours"}} for one in "ab"]
    reply = await api.post("/services/bulk", {"mode": "per_item", "operations": edits})
    assert [one["ok"] for one in reply.json["results"]] == [False, True]
    assert "changed by somebody else" in reply.json["results"][0]["errors"][0]["message"]
    assert [(await api.get(f"/services/{one}")).json["name"] for one in "ab"] == ["theirs", "ours"]


async def test_a_bulk_that_is_none_is_422(api):
    for body, fields in [
        ({}, {"operations"}),
        ({"operations": []}, {"operations"}),
        ({"operations": OPERATIONS, "mode": "maybe"}, {"mode"}),
        ({"operations": [*OPERATIONS, {"action": "destroy"}]}, {"operations.3.action"}),
        ({"operations": [{"action": "delete"}]}, {"operations.0.id"}),
    ]:
        reply = await api.post("/services/bulk", body)
        assert (reply.status, set(reply.wrong_fields)) == (422, fields), body


async def test_of_a_deleted_endpoint_that_was_never_checked_nothing_is_found_but_not_nobody(api):
    await api.post("/services/", {"id": "a", "url": URL})
    await api.send("DELETE", "/services/a")
    for path in ("history", "history?since=2026-01-01", "state-changes"):
        reply = await api.get(f"/services/a/{path}")
        assert (reply.status, reply.json["items"]) == (200, []), path
        assert (await api.get(f"/services/b/{path}")).status == 404, path


async def test_the_id_of_a_deleted_endpoint_brings_its_history_back_and_the_answer_says_so(api, history):
    first = await api.post("/services/", {"id": "a", "url": URL})
    assert "revived" not in first.json
    await history.check("a", Status.UP)
    await api.send("DELETE", "/services/a")
    again = await api.post("/services/", {"id": "a", "url": "tcp://192.0.2.2:2"})
    assert (again.status, again.json["revived"], again.json["url"]) == (201, True, "tcp://192.0.2.2:2")
    assert len((await api.get("/services/a/history")).json["items"]) == 1
    assert "revived" not in (await api.get("/services/a")).json
    assert (await api.send("PUT", "/services/a", again.json)).status == 200


@pytest.mark.parametrize("wrong", ["status", "bulk", "summary", "events", "a/b", "x" * 300, "", "-a", "a b", "é"])
async def test_an_id_that_no_address_could_name_is_refused_with_the_grammar(api, wrong):
    reply = await api.post("/services/", {"id": wrong, "url": URL})
    assert (reply.status, reply.wrong_fields) == (422, ["id"])
    (error,) = reply.json["errors"]
    assert "1 to 128" in error["message"] or "is a word of the API's routes" in error["message"], error
