"""Whatever a cluster does wrong: nothing is lost, nothing is there twice, and all is well again by itself."""

from __future__ import annotations

import asyncio
import json
import ssl
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
import trustme
from aiohttp import web

from servmon.clock import now
from servmon.elastic.cluster import AwayError, Cluster
from servmon.elastic.mapping import outage_index
from servmon.elastic.settings import ElasticsearchSection
from servmon.store import elastic_due
from tests.elastic.rig import Mirror
from tests.fix_elastic import FaultProxy

DAY = 86_400


def is_bulk(request) -> bool:
    return request.path == "/_bulk"


def answers(status: int, body: dict | str = "", *, to=is_bulk):
    """A whole request is answered so."""

    async def fault(request, _body):
        if not to(request):
            return None
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(status=status, text=text, content_type="application/json")

    return fault


def hangs(*, to=is_bulk):
    async def fault(request, _body):
        if to(request):
            await asyncio.sleep(3600)

    return fault


def cuts(*, after_it_was_done: bool):
    """The connection ends in the middle of the answer, whether or not the cluster did what it was asked."""

    def make(proxy: FaultProxy):
        async def fault(request, body):
            if not is_bulk(request):
                return None
            if after_it_was_done:
                await proxy.forward(request, body)
            cut = web.StreamResponse(headers={"Content-Length": "1000", "Content-Type": "application/json"})
            await cut.prepare(request)
            await cut.write(b'{"errors":fal')
            request.transport.abort()
            return cut

        return fault

    return make


def every_third_item(status: int, kind: str, proxy: FaultProxy):
    """Of each batch every third document is not taken; the others arrive."""

    async def fault(request, body):
        if not is_bulk(request):
            return None
        lines = body.rstrip(b"\n").split(b"\n")
        pairs = [lines[at : at + 2] for at in range(0, len(lines), 2)]
        passed = [pair for number, pair in enumerate(pairs) if number % 3]
        items = []
        if passed:
            kept = b"".join(line + b"\n" for pair in passed for line in pair)
            answer = json.loads((await proxy.forward(request, kept, plain=True)).body)
            items = answer.get("items") or [{"create": {"status": 201}}] * len(passed)
        refused = {"status": status, "error": {"type": kind, "reason": "rejected execution"}}
        taken = iter(items)
        told = [next(taken) if number % 3 else {"create": refused} for number in range(len(pairs))]
        return web.json_response({"errors": True, "items": told})

    return fault


OVERLOAD = {"error": {"type": "es_rejected_execution_exception", "reason": "queue is full"}, "status": 429}
FAULTS = {
    "429": lambda _: answers(429, OVERLOAD),
    "500": lambda _: answers(500, "{"),
    "502": lambda _: answers(502, "<html>bad gateway"),
    "503": lambda _: answers(503, {"error": {"type": "master_not_discovered_exception", "reason": "null"}}),
    "an answer that is no JSON": lambda _: answers(200, "welcome"),
    "an answer that is another's": lambda _: answers(200, {"hello": "world"}),
    "too few items": lambda _: answers(200, {"errors": True, "items": []}),
    "wrong password": lambda _: answers(401, {"error": {"type": "security_exception", "reason": "missing"}}),
    "a right is missing": lambda _: answers(403, {"error": {"type": "security_exception", "reason": "no"}}),
    "templates refused": lambda _: answers(403, {}, to=lambda r: "_template" in r.path and r.method == "PUT"),
    "cut before": cuts(after_it_was_done=False),
    "cut after": cuts(after_it_was_done=True),
    "429 of items": lambda proxy: every_third_item(429, "es_rejected_execution_exception", proxy),
    "503 of items": lambda proxy: every_third_item(503, "unavailable_shards_exception", proxy),
    "no more shards": lambda proxy: every_third_item(400, "validation_exception", proxy),
}


@pytest.fixture
async def filled(mirror: Mirror) -> Mirror:
    """A mirror of which nothing was sent yet."""
    site, dns = await mirror.watch("web", "dns")
    await mirror.check(site, 40)
    await mirror.check(dns, 700)
    await mirror.open_outage(site)
    await mirror.open_outage(dns, resolved=True, resolved_at=now())
    await mirror.plan("web", "dns")
    return mirror


@pytest.mark.parametrize("fault", FAULTS)
async def test_after_a_fault_documents_are_rows(filled, fault):
    filled.proxy.fault = FAULTS[fault](filled.proxy)
    await filled.pass_time(200)
    assert filled.troubles["elasticsearch"]
    assert filled.counters.elasticsearch_failures >= 4
    assert await filled.db.fetchval("select count(*) from elasticsearch_dead_letter") == 0
    filled.proxy.fault = None
    await filled.pass_time(61)
    assert not filled.troubles
    await filled.is_whole()
    assert await filled.synced() == (740, 2)


async def test_a_fault_before_the_first_document_is_no_other(filled):
    await filled.proxy.stop()
    await filled.pass_time(3600)
    assert "elasticsearch" in filled.troubles
    assert filled.steps < 200  # a minute apart in the end
    await filled.proxy.start()
    await filled.pass_time(61)
    await filled.is_whole()


async def test_a_day_away_costs_nothing_but_the_day(filled):
    """A try a minute, no growth, and in the end everything in its day's index."""
    await filled.pass_time(1)
    await filled.proxy.stop()
    dns = await filled.watch("late")
    for _ in range(24):
        await filled.check(dns, 60)
        await filled.pass_time(DAY / 24)
    opened = await filled.open_outage(dns)
    assert filled.counters.elasticsearch_failures < DAY / 30
    assert filled.lanes[0].trouble or filled.lanes[1].trouble
    await filled.proxy.start()
    await filled.pass_time(61)
    await filled.is_whole()
    assert await filled.synced() == (740 + 24 * 60, 3)
    assert (await filled.held())[outage_index(opened.start_time)][opened.id]["endpoint_id"] == "late"


async def test_a_hanging_cluster_is_given_up_after_the_time_of_a_request(filled):
    filled.cluster._client = filled.cluster._client.options(request_timeout=0.1)
    filled.proxy.fault = hangs()
    await filled.pass_time(5)
    assert "no answer in time" in filled.troubles["elasticsearch"]
    filled.cluster._client = filled.cluster._client.options(request_timeout=10)
    filled.proxy.fault = None
    await filled.pass_time(61)
    await filled.is_whole()


async def test_a_batch_that_is_too_large_is_halved_until_it_passes(filled):
    async def small_ones_only(request, body):
        return web.Response(status=413) if is_bulk(request) and len(body) > 20_000 else None

    filled.proxy.fault = small_ones_only
    await filled.pass_time(1)
    await filled.is_whole()
    assert not filled.troubles


async def test_a_single_document_that_is_too_large_is_a_dead_letter(filled):
    long = await filled.watch("long")
    await filled.db.execute("update service_endpoint set tags = array[repeat('x', 40000)] where id = 'long'")
    await filled.check(long, 1)

    async def small_ones_only(request, body):
        return web.Response(status=413) if is_bulk(request) and len(body) > 20_000 else None

    filled.proxy.fault = small_ones_only
    await filled.pass_time(1)
    (letter,) = await elastic_due.dead_letters(filled.db, None, None, 10)
    assert letter.reason.startswith("413")
    assert await filled.synced() == (740, 2)
    filled.proxy.fault = None
    await filled.pass_time(3601)
    await filled.is_whole()


async def test_an_index_that_takes_no_writes_holds_up_only_its_own(filled):
    index = "isp-service-status-2026.11.20"
    there = filled.proxy.cluster
    await filled.pass_time(1)
    assert (await there.ask("PUT", f"/{index}/_settings", {"index.blocks.write": True}))[0] == 200
    late = await filled.watch("late")
    await filled.check(late, 10, since=datetime(2026, 11, 20, tzinfo=UTC))
    await filled.pass_time(300)
    opened = await filled.open_outage(late)
    await filled.pass_time(10)
    assert (await filled.held())[outage_index(opened.start_time)][opened.id]
    assert "blocked" in filled.troubles["elasticsearch"]
    assert await filled.db.fetchval("select count(*) from elasticsearch_dead_letter") == 0
    assert (await there.ask("PUT", f"/{index}/_settings", {"index.blocks.write": False}))[0] == 200
    await filled.pass_time(61)
    assert not filled.troubles
    await filled.is_whole()


async def test_what_is_refused_is_kept_with_its_reason_and_blocks_nothing(filled):
    """Somebody made the day's index before us, with another type."""
    there = filled.proxy.cluster
    wrong = {"mappings": {"properties": {"error_message": {"type": "date"}}}}
    assert (await there.ask("PUT", "/isp-service-status-2026.11.20", wrong))[0] == 200
    await filled.pass_time(1)
    refused = await filled.db.fetchval(
        "select count(*) from service_status where error_message is not null and timestamp < '2026-11-21'"
    )
    letters = await elastic_due.dead_letters(filled.db, "status", None, 1000)
    assert len(letters) == refused > 0
    assert "failed to parse field [error_message]" in letters[0].reason
    assert await filled.synced() == (740 - refused, 2)
    assert not filled.troubles
    await there.ask("DELETE", "/isp-service-status-2026.11.20")
    await filled.db.execute("update elasticsearch_cursor set seq = 0")  # as a rebuild of that day would
    await filled.pass_time(3601)
    await filled.is_whole()
    assert await filled.synced() == (740, 2)
    assert await filled.db.fetchval("select count(*) from elasticsearch_dead_letter") == 0


async def test_where_everything_is_refused_rows_are_not_buried_for_ever(filled, monkeypatch):
    monkeypatch.setattr("servmon.elastic.sync.MOST_DEAD_LETTERS", 20)
    there = filled.proxy.cluster
    wrong = {"mappings": {"properties": {"attempts": {"type": "boolean"}}}}
    for day in (20, 21):
        await there.ask("PUT", f"/isp-service-status-2026.11.{day}", wrong)
    await filled.pass_time(1)
    assert "so no more are sent" in filled.troubles["elasticsearch"]
    assert await filled.db.fetchval("select seq from elasticsearch_cursor") == 0
    for day in (20, 21):
        await there.ask("DELETE", f"/isp-service-status-2026.11.{day}")
    await filled.pass_time(61)
    await filled.is_whole()
    assert not filled.troubles


async def test_a_refused_outage_is_due_again_when_it_changes(filled):
    async def refuse_outages(request, body):
        if is_bulk(request) and b"isp-service-outage" in body:
            count = len(body.rstrip(b"\n").split(b"\n")) // 2
            error = {"type": "document_parsing_exception", "reason": "no"}
            items = [{"index": {"status": 400, "error": error}}] * count
            return web.json_response({"errors": True, "items": items}, headers={"X-Elastic-Product": "Elasticsearch"})
        return None

    filled.proxy.fault = refuse_outages
    await filled.pass_time(60)
    assert filled.counters.elasticsearch_refused <= 5  # not again and again
    assert await filled.synced() == (740, 0)
    filled.proxy.fault = None
    await filled.db.execute("update service_outage set revision = revision + 1")
    await filled.pass_time(10)
    await filled.is_whole()
    assert await filled.synced() == (740, 2)
    assert await filled.db.fetchval("select count(*) from elasticsearch_dead_letter") == 0


@asynccontextmanager
async def speaking_tls(cluster, *, callers: trustme.CA | None = None):
    """A proxy that speaks TLS, with whom ``callers`` vouches for only, and the authority that vouches for it."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    if callers:
        context.verify_mode = ssl.CERT_REQUIRED
        callers.configure_trust(context)
    made = FaultProxy(cluster, tls=context)
    await made.start()
    yield made, authority
    await made.stop()


@pytest.fixture
async def tls_proxy(cluster):
    async with speaking_tls(cluster) as made:
        yield made


async def test_only_a_certificate_of_the_named_authority_is_trusted(tls_proxy, tmp_path):
    proxy, authority = tls_proxy
    right, wrong = tmp_path / "right.pem", tmp_path / "wrong.pem"
    authority.cert_pem.write_to_path(right)
    trustme.CA().cert_pem.write_to_path(wrong)
    for ca_file in (None, wrong):
        settings = ElasticsearchSection(hosts=(proxy.url,), ca_file=ca_file)
        async with Cluster(settings, node_class=proxy.cluster.node_class) as cluster:
            with pytest.raises(AwayError, match="certificate is not to be trusted"):
                await cluster.ask("GET", "/")
    settings = ElasticsearchSection(hosts=(proxy.url,), ca_file=right)
    async with Cluster(settings, node_class=proxy.cluster.node_class) as cluster:
        assert (await cluster.ask("GET", "/"))["version"]


async def test_a_certificate_of_our_own_lets_us_in(cluster, tmp_path):
    authority, ours = trustme.CA(), tmp_path / "ours.pem"
    authority.issue_cert("servmon.example").private_key_and_cert_chain_pem.write_to_path(ours)
    async with speaking_tls(cluster, callers=authority) as (proxy, its_authority):
        ca_file = tmp_path / "ca.pem"
        its_authority.cert_pem.write_to_path(ca_file)
        for client_cert in (None, ours):
            settings = ElasticsearchSection(hosts=(proxy.url,), ca_file=ca_file, client_cert=client_cert)
            async with Cluster(settings, node_class=cluster.node_class) as client:
                if client_cert is None:
                    with pytest.raises(AwayError):
                        await client.ask("GET", "/")
                else:
                    assert (await client.ask("GET", "/"))["version"]


async def test_a_certificate_file_that_is_none_is_a_sentence(tmp_path):
    none = tmp_path / "none.pem"
    none.write_text("not a certificate")
    for path in (none, tmp_path / "missing.pem"):
        with pytest.raises(AwayError, match="TLS files"):
            async with Cluster(ElasticsearchSection(hosts=("https://127.0.0.1:9",), ca_file=path)):
                pass


async def test_key_and_password_reach_the_cluster(cluster, proxy):
    seen = []

    async def look(request, _body):
        seen.append(request.headers.get("Authorization"))

    proxy.fault = look
    for secrets in ({"api_key": "a2V5"}, {"username": "servmon", "password": "x"}, {}):
        settings = ElasticsearchSection(hosts=(proxy.url,), **secrets)
        async with Cluster(settings, node_class=cluster.node_class) as client:
            await client.ask("GET", "/")
    assert seen == ["ApiKey a2V5", "Basic c2Vydm1vbjp4", None]


async def test_of_several_hosts_one_is_enough(cluster, proxy, closed_port):
    settings = ElasticsearchSection(hosts=(f"http://127.0.0.1:{closed_port}", proxy.url))
    async with Cluster(settings, node_class=cluster.node_class) as client:
        for _ in range(5):
            assert (await client.ask("GET", "/"))["version"]
        await proxy.stop()
        with pytest.raises(AwayError):
            await client.ask("GET", "/")


async def test_a_right_that_retention_lacks_holds_up_nothing_else(filled):
    filled.clock.at = max(filled.clock.at, datetime(2026, 11, 25, tzinfo=UTC).timestamp())  # its indices are old then
    filled.settings = filled.settings.model_copy(update={"retention_days": 1})
    filled.lanes = filled.follower.lanes(filled.settings, filled.cluster, filled.reader)

    def is_deletion(request) -> bool:
        return request.method == "DELETE"

    filled.proxy.fault = answers(403, {"error": {"type": "security_exception", "reason": "no"}}, to=is_deletion)
    await filled.pass_time(300)
    assert "we lack a right for DELETE /isp-service-" in filled.troubles["elasticsearch"]
    site = await filled.watch("late")
    opened = await filled.open_outage(site)
    await filled.pass_time(5)
    assert opened.id in (await filled.held())[outage_index(opened.start_time)]
