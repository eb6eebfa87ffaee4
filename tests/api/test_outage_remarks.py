"""What people say of outages: found by filters, noted, excluded from availability, told in their order."""

from __future__ import annotations

import pytest

from servmon.model import Status
from tests.fix_api import OPERATE_TOKEN, UNKNOWN_UUID

OPERATOR = {"headers": {"Authorization": f"Bearer {OPERATE_TOKEN}"}}


@pytest.fixture
async def outage(api, history):
    await api.post("/services/", {"id": "shop", "url": "tcp://192.0.2.1:1", "site": "pop-north", "tags": ["web"]})
    await history.check("shop", Status.UP, Status.DOWN)
    return await history.outage("shop", minutes=59, resolved=True)  # while its checks still speak


async def found(api, query: str) -> int:
    reply = await api.get(f"/outages/?{query}")
    assert reply.status == 200, reply.json
    return len(reply.json["items"])


async def test_outages_are_found_by_what_they_are(api, outage, history):
    opened = await history.outage("shop", minutes=10)
    start = opened.start_time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    expected = {
        "": 2,
        "resolved=true": 1,
        "resolved=false": 1,
        "severity=MAJOR": 2,
        "severity=CRITICAL": 0,
        "endpoint_id=shop": 2,
        "endpoint_id=nobody": 0,
        "site=pop-north&tag=web": 2,
        "site=pop-south": 0,
        "tag=mail": 0,
        f"since={start}": 1,
        f"until={start}": 1,
    }
    assert {query: await found(api, query) for query in expected} == expected
    assert len((await api.get(f"/outages/active?until={start}")).json["items"]) == 0
    wrong = await api.get("/outages/?severity=BAD&resolved=1&since=now&colour=red")
    assert (wrong.status, set(wrong.wrong_fields)) == (422, {"severity", "resolved", "since", "colour"})


async def test_an_excluded_outage_counts_no_longer_until_it_is_included_again(api, outage):
    async def seconds() -> float:
        return (await api.get("/services/shop/uptime")).json["outage_seconds"]

    counted = await seconds()
    excluded = await api.post(f"/outages/{outage.id}/exclude", {"reason": "our own test"}, **OPERATOR)
    assert (excluded.status, excluded.json["excluded_reason"], excluded.json["false_alarm"]) == (
        200,
        "our own test",
        False,
    )
    assert (counted > 0, await seconds()) == (True, 0)
    false = await api.post(f"/outages/{outage.id}/exclude", {"reason": "a mistake", "false_alarm": True})
    assert false.json["false_alarm"] is True
    included = (await api.post(f"/outages/{outage.id}/include")).json
    assert (included["excluded_reason"], included["false_alarm"], await seconds()) == (None, False, counted)


async def test_what_happened_and_what_was_said_is_told_in_its_order(api, outage):
    note = await api.post(f"/outages/{outage.id}/notes", {"text": "line card swapped"}, **OPERATOR)
    assert (note.status, note.json["said_by"]) == (201, "operator")
    await api.post(f"/outages/{outage.id}/exclude", {"reason": "planned"})
    told = (await api.get(note.headers["Location"])).json["items"]
    assert [(one["kind"], one["by"]) for one in told] == [
        ("state_change", None),
        ("state_change", None),
        ("note", "operator"),
        ("excluded", "admin"),
    ]
    assert [one["at"] for one in told] == sorted(one["at"] for one in told)


async def test_wrong_remarks_are_refused(api, outage):
    for path, body, status in [
        (f"/outages/{outage.id}/notes", {"text": " "}, 422),
        (f"/outages/{outage.id}/notes", {"text": "x" * 10_001}, 422),
        (f"/outages/{outage.id}/exclude", {}, 422),
        (f"/outages/{outage.id}/exclude", {"reason": "x", "false_alarm": "yes"}, 422),
        (f"/outages/{UNKNOWN_UUID}/notes", {"text": "x"}, 404),
        (f"/outages/{UNKNOWN_UUID}/exclude", {"reason": "x"}, 404),
        ("/outages/nothing/notes", {"text": "x"}, 404),
    ]:
        assert (await api.post(path, body)).status == status, path
    assert (await api.get(f"/outages/{UNKNOWN_UUID}/timeline")).status == 404
