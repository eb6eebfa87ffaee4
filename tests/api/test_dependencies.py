"""What depends on what, what a failure would mean, and every transition, over the API."""

from __future__ import annotations

import pytest

from servmon.errors import InvalidInputError
from servmon.model import DependencyRule, Status
from servmon.services.availability import AvailabilityService


async def create(api, endpoint_id: str, **fields):
    return await api.post("/services/", {"id": endpoint_id, "url": f"tcp://{endpoint_id}.example:1", **fields})


async def tree(api) -> None:
    """A power feed, two routers on it, a customer behind both and one behind the first alone."""
    await create(api, "power")
    await create(api, "r1", depends_on=["power"])
    await create(api, "r2", depends_on=["power"])
    await create(api, "both", depends_on=[["r1", "r2"]])
    await create(api, "single", depends_on=["r1"])


async def test_impact_names_what_goes_down_and_what_loses_a_way(api, history):
    await tree(api)
    assert (await api.get("/services/r1/impact")).json == {
        "endpoint_id": "r1",
        "depends_on": [["power"]],
        "caused_by": None,
        "takes_down": ["single"],
        "loses_redundancy": ["both"],
    }
    await history.outage("r1")
    second = (await api.get("/services/r2/impact")).json
    assert second["takes_down"] == ["both"]
    assert (await api.get("/services/single/impact")).json["caused_by"] == "r1"
    assert (await api.get("/services/nobody/impact")).status == 404


async def test_dependencies_are_listed_by_id_in_pages(api):
    await tree(api)
    first = (await api.get("/services/dependencies?limit=3")).json
    assert [one["endpoint_id"] for one in first["items"]] == ["both", "r1", "r2"]
    rest = (await api.get(f"/services/dependencies?cursor={first['next_cursor']}")).json
    assert rest == {"items": [{"endpoint_id": "single", "depends_on": [["r1"]]}], "next_cursor": None}
    assert (await api.get("/services/dependencies?cursor=x")).status == 422


async def test_a_circle_is_refused_with_its_path_however_it_is_made(api):
    await tree(api)
    reply = await api.send("PUT", "/services/power", {"url": "tcp://power.example:1", "depends_on": [["both"]]})
    assert (reply.status, reply.wrong_fields) == (422, ["depends_on"])
    assert reply.json["errors"][0]["message"].startswith("goes round in a circle: power → both → r1 → power;")
    itself = await create(api, "x", depends_on=["x"])
    assert "x → x" in itself.json["errors"][0]["message"]
    assert (await api.get("/services/x")).status == 404


async def test_rules_of_the_file_count_and_a_circle_through_one_is_refused_from_python_too(connection):
    rule = DependencyRule((("router",),), sites=frozenset({"pop"}))
    connection.dependencies = (rule,)
    service = AvailabilityService(connection)
    await service.create_endpoint({"id": "router", "url": "tcp://router.example:1", "site": "pop"})
    await service.create_endpoint({"id": "web", "url": "tcp://web.example:1", "site": "pop"})
    (listed,) = await service.list_dependencies()
    assert (listed.endpoint_id, listed.depends_on) == ("web", (("router",),))
    with pytest.raises(InvalidInputError, match="router → web → router"):
        await service.update_endpoint("router", {"depends_on": [["web"]]})


async def test_in_a_daemon_the_answer_is_of_this_moment(daemon):
    for endpoint_id, parents in (("r1", []), ("r2", []), ("both", [["r1", "r2"]])):
        fields = {"id": endpoint_id, "url": f"tcp://{endpoint_id}.example:1", "depends_on": parents}
        await daemon.availability.create_endpoint(fields)
    assert (await daemon.availability.get_impact("r2")).takes_down == ()
    await daemon.finds("r1", Status.DOWN)
    assert (await daemon.availability.get_impact("r2")).takes_down == ("both",)


async def test_state_changes_come_newest_first_in_pages_with_reason_and_evidence(api, history):
    await create(api, "web")
    outages = [await history.outage("web", minutes=minutes, resolved=True) for minutes in (50, 40, 30)]
    first = (await api.get("/services/web/state-changes?limit=4")).json
    assert [one["outage_id"] for one in first["items"]] == [
        outages[2].id,
        outages[2].id,
        outages[1].id,
        outages[1].id,
    ]
    assert [(one["old"], one["new"]) for one in first["items"][:2]] == [("down", "up"), ("suspected", "down")]
    assert first["items"][0].keys() == {"id", "endpoint_id", "old", "new", "reason", "at", "outage_id", "evidence"}
    rest = (await api.get(f"/services/web/state-changes?cursor={first['next_cursor']}")).json
    assert [one["outage_id"] for one in rest["items"]] == [outages[0].id, outages[0].id]
    await api.send("DELETE", "/services/web")
    assert len((await api.get("/services/web/state-changes")).json["items"]) == 6
    assert (await api.get("/services/nobody/state-changes")).status == 404


async def test_what_is_deleted_is_no_part_of_it(api):
    await tree(api)
    await api.send("DELETE", "/services/both")
    assert (await api.get("/services/r2/impact")).json["takes_down"] == []
