from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from aiohttp import ClientSession, web

from servmon.clock import rfc3339
from servmon.elastic import mapping
from servmon.model import (
    CheckSource,
    Endpoint,
    FailureKind,
    MaintenanceWindow,
    Outage,
    Phases,
    ServiceStatus,
    Severity,
    Status,
)
from servmon.store.rows import plain

AT = datetime(2026, 11, 23, 23, 59, 59, 123456, UTC)
ENDPOINT = Endpoint("web", "The Web", "https://web.example/", "HTTPS", tags=("a", "b"), site="pop-north", key=7)
STATUS = ServiceStatus(
    id="7-1-1", endpoint_id="web", status=Status.DOWN, timestamp=AT, response_time=1.5, attempts=4,
    failure_kind=FailureKind.TIMEOUT, error_message="no answer\nwithin 5 s", source=CheckSource.SCHEDULE,
    observer="main", phases=Phases(dns_ms=1.0), details={"any": {"thing": [1]}},
)  # fmt: skip
OUTAGE = Outage(
    id="5d1c3d4e-0000-4000-8000-000000000001", endpoint_id="web", severity=Severity.MAJOR, description="no answer",
    start_time=AT, declared_at=AT + timedelta(seconds=40), notification_channels=("noc",),
    evidence={"verification": {"failure_kind": "timeout"}}, revision=3,
)  # fmt: skip
WINDOW = MaintenanceWindow("w1", "power", AT, AT + timedelta(hours=2), ("web", "dns"), created_by="admin")


def body(document):
    return json.loads(json.dumps(document.source, default=plain))


def every_document(*, ecs: bool = False):
    return [
        mapping.status_document(STATUS, ENDPOINT, seq=9, ecs=ecs),
        mapping.outage_document(OUTAGE, ENDPOINT, seen_at=AT + timedelta(minutes=1), ecs=ecs),
        mapping.maintenance_document(WINDOW, ["The Web", "DNS"], version=1),
    ]


async def put_templates(cluster):
    assert (await cluster.ask("PUT", "/_component_template/servmon-endpoint", mapping.component_template()))[0] == 200
    for name, template in mapping.index_templates().items():
        assert (await cluster.ask("PUT", f"/_index_template/{name}", template))[0] == 200


def test_the_index_is_that_of_the_utc_day_of_the_documents_own_time():
    east = AT.astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert east.day == 24
    assert mapping.status_index(east) == "isp-service-status-2026.11.23"
    assert mapping.outage_index(east) == "isp-service-outage-2026.11.23"
    later = mapping.outage_document(OUTAGE, ENDPOINT, seen_at=AT + timedelta(days=3))
    assert later.index == "isp-service-outage-2026.11.23"


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("isp-service-status-2026.11.23", date(2026, 11, 23)),
        ("isp-service-outage-2024.02.29", date(2024, 2, 29)),
        ("isp-service-outage-2026.02.29", None),
        ("isp-service-status-2026.1.2", None),
        ("isp-service-status-2026.11.23-reindexed", None),
        ("isp-service-status-", None),
        ("isp-billing-2026.01.01", None),
        ("my-isp-service-status-2026.11.23", None),
        ("isp-maintenance-window", None),
    ],
)
def test_only_the_exact_names_of_daily_indices_have_a_day(name, day):
    assert mapping.day_of(name) == day


def test_an_open_outage_was_last_seen_now_and_a_resolved_one_at_its_end():
    seen = AT + timedelta(hours=1)
    source = mapping.outage_document(OUTAGE, ENDPOINT, seen_at=seen).source
    assert (source["last_seen_at"], source["duration_seconds"]) == (rfc3339(seen), 3600.0)
    assert "resolved_at" not in source
    over = replace(OUTAGE, resolved=True, resolved_at=AT + timedelta(minutes=2))
    source = mapping.outage_document(over, ENDPOINT, seen_at=seen).source
    assert (source["last_seen_at"], source["duration_seconds"]) == (rfc3339(over.resolved_at), 120.0)


async def test_every_field_of_a_document_is_typed_by_its_template(cluster):
    await put_templates(cluster)
    for document in every_document(ecs=True):
        status, answer = await cluster.ask("PUT", f"/{document.index}/_create/{document.id}", body(document))
        assert status == 201, answer
        _, found = await cluster.ask("GET", f"/{document.index}")
        properties = found[document.index]["mappings"]["properties"]
        assert set(body(document)) <= set(properties)
        assert found[document.index]["mappings"]["_meta"] == mapping.META
        assert (await cluster.documents(document.index))[document.id] == body(document)


async def test_statuses_can_be_searched_and_counted_by_their_fields(cluster):
    await put_templates(cluster)
    document = mapping.status_document(STATUS, ENDPOINT)
    await cluster.ask("PUT", f"/{document.index}/_create/{document.id}", body(document))
    await cluster.ask("POST", f"/{document.index}/_refresh")
    wanted = {
        "query": {
            "bool": {
                "filter": [
                    {"term": {"tags": "b"}},
                    {"match": {"error_message": "within"}},
                    {"range": {"timestamp": {"gte": "2026-11-23T23:59:59.000Z", "lt": "2026-11-24"}}},
                ]
            }
        },
        "aggs": {"by": {"terms": {"field": "status"}}, "slow": {"avg": {"field": "response_time"}}},
    }
    _, found = await cluster.ask("POST", f"/{document.index}/_search", wanted)
    assert [bucket["key"] for bucket in found["aggregations"]["by"]["buckets"]] == ["DOWN"]
    assert found["aggregations"]["slow"]["value"] == 1.5


async def test_the_proxy_passes_on_and_fails_as_it_is_told(cluster, proxy):
    async def too_many(request, _body):
        return web.json_response({"error": "too many"}, status=429) if request.path == "/_bulk" else None

    proxy.fault = too_many
    async with ClientSession() as session:
        async with session.post(f"{proxy.url}/_bulk", data=b"{}\n") as answer:
            assert answer.status == 429
        async with session.get(f"{proxy.url}/") as answer:
            assert (await answer.json())["version"]
    assert proxy.requests == [("POST", "/_bulk"), ("GET", "/")]
