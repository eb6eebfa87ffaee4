"""Templates and retention: what is ours is kept up to date and goes in time, what is others' is left alone."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from servmon.clock import now
from servmon.elastic import mapping
from servmon.elastic.cluster import Cluster
from servmon.elastic.retention import drop_old
from servmon.elastic.settings import ElasticsearchSection
from servmon.elastic.setup import owned, prepare

TODAY = date(2026, 11, 25)
OLD = "isp-service-status-2026.10.01"
OURS = {"mappings": {"_meta": mapping.META}}


@pytest.fixture
async def client(cluster):
    async with Cluster(ElasticsearchSection(hosts=(cluster.url,)), node_class=cluster.node_class) as found:
        yield found


def templates(answer: dict) -> dict:
    return {one["name"]: one for one in next(iter(answer.values()))}


async def test_templates_are_put_once(client, cluster, proxy):
    async with Cluster(ElasticsearchSection(hosts=(proxy.url,)), node_class=cluster.node_class) as seen:
        await prepare(seen)
        assert [method for method, _ in proxy.requests].count("PUT") == 4
        await prepare(seen)
        assert [method for method, _ in proxy.requests].count("PUT") == 4
    there = templates(await client.ask("GET", "/_index_template/servmon-*"))
    assert set(there) == set(mapping.INDEX_TEMPLATES.values())
    assert {one["index_template"]["priority"] for one in there.values()} == {200}


async def test_older_templates_are_replaced_and_newer_ones_stay(client):
    await prepare(client)
    name = mapping.INDEX_TEMPLATES[mapping.Kind.STATUS]
    for version, stays in ((0, False), (mapping.VERSION + 1, True)):
        other = mapping.index_templates()[name] | {"_meta": {"owner": "servmon", "version": version}, "priority": 210}
        await client.ask("PUT", f"/_index_template/{name}", other)
        await prepare(client)
        there = templates(await client.ask("GET", f"/_index_template/{name}"))[name]["index_template"]
        assert (there["priority"] == 210) is stays


async def test_indices_that_are_there_learn_of_new_fields(client, cluster):
    old = {"mappings": {"dynamic": False, "_meta": {"owner": "servmon", "version": 0}, "properties": {}}}
    await client.ask("PUT", f"/{mapping.MAINTENANCE_INDEX}", old)
    await client.ask("PUT", "/isp-service-status-foreign", {"mappings": {"properties": {}}})
    await prepare(client)
    found = await client.ask("GET", "/isp-*/_mapping")
    assert set(mapping.FIELDS[mapping.Kind.MAINTENANCE]) <= set(
        found[mapping.MAINTENANCE_INDEX]["mappings"]["properties"]
    )
    assert not found["isp-service-status-foreign"]["mappings"].get("properties")
    assert await owned(client) == {mapping.MAINTENANCE_INDEX: mapping.VERSION}


async def test_only_old_indices_of_our_own_are_deleted(client, cluster):
    kept = {
        "isp-billing-2026.01.01": OURS,
        "isp-service-status-2026.10.02": {},
        "isp-service-status-2026.10.03": {"mappings": {"_meta": {"owner": "somebody"}}},
        "isp-service-status-2026.10.04-reindexed": OURS,
        "isp-service-status-archive": OURS,
        "isp-service-status-2026.11.18": OURS,
        "isp-service-status-2026.11.25": OURS,
        "isp-maintenance-window": OURS,
        "isp-customers": {},
    }
    old = {OLD: OURS, "isp-service-outage-2026.10.01": OURS, "isp-service-status-2026.11.17": OURS}
    for name, body in (kept | old).items():
        await client.ask("PUT", f"/{name}", body)
    assert await drop_old(client, 0, TODAY) == []
    assert await drop_old(client, 7, TODAY) == sorted(old)
    assert await cluster.indices() == sorted(kept)


@pytest.mark.parametrize(("resolved", "stays"), [(True, False), (False, True)])
async def test_an_index_with_an_open_outage_stays(client, cluster, resolved, stays):
    await prepare(client)
    name = "isp-service-outage-2026.10.01"
    for number, done in enumerate([True, resolved]):
        await client.ask("PUT", f"/{name}/_doc/{number}", {"resolved": done})
    assert await drop_old(client, 7, TODAY) == ([] if stays else [name])
    assert (name in await cluster.indices()) is stays


async def test_the_follower_keeps_to_the_retention_that_is_set(mirror):
    site = await mirror.watch("web")
    old = now() - timedelta(days=20)
    await mirror.check(site, 3, since=old)
    gone = await mirror.open_outage(site, start_time=old, resolved=True, resolved_at=old + timedelta(hours=1))
    opened = await mirror.open_outage(site, start_time=old - timedelta(days=3))
    mirror.settings = mirror.settings.model_copy(update={"retention_days": 7})
    mirror.lanes = mirror.follower.lanes(mirror.settings, mirror.cluster, mirror.reader)
    await mirror.pass_time(3700)
    assert set(await mirror.held()) == {mapping.outage_index(opened.start_time)}
    assert mapping.outage_index(gone.start_time) not in await mirror.held()


async def test_a_cluster_without_anything_of_ours_has_nothing_to_delete(client):
    assert await owned(client) == {}
    assert await drop_old(client, 1, datetime(2026, 11, 25, tzinfo=UTC).date()) == []
