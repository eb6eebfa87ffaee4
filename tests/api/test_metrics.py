"""`/metrics` as Prometheus reads it."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from itertools import chain
from types import SimpleNamespace
from typing import Any

import pytest

from servmon.api.health import Vitals
from servmon.clock import now
from servmon.condition import Condition
from servmon.elastic.follower import ElasticFollower
from servmon.elastic.settings import ElasticsearchSection
from servmon.metrics import Counters, Exposition, Gauge, labels
from servmon.model import CheckResult, CurrentStatus, Endpoint, Phases, State, Status
from servmon.settings import Settings
from tests.fix_api import NOTHING, serving


class Live:
    """A daemon's memory with endpoints that were checked, one of them DOWN, in an outage and in a window."""

    def statuses(self):
        yield CurrentStatus("a", Status.UP, State.UP, since=None)
        yield CurrentStatus(
            "b",
            Status.DOWN,
            State.DOWN,
            since=None,
            in_maintenance=True,
            outage_id="00000000-0000-4000-8000-000000000000",
        )

    def last_statuses(self):
        return [state.status for state in self.statuses()]

    def in_maintenance(self):
        return sum(state.in_maintenance for state in self.statuses())

    def open_outages(self):
        return [state for state in self.statuses() if state.outage_id]

    def current(self, endpoint_id):
        return {state.endpoint_id: state for state in self.statuses()}.get(endpoint_id)

    def last_results(self):
        fine = Endpoint("a", 'A "quoted" one', 'http://a.example/?q="x"\\', "HTTP", site="pop-north")
        phases = Phases(dns_ms=1.0, connect_ms=2.0, first_byte_ms=3.0, transfer_ms=0.5)
        details = {
            "status_code": 200,
            "address": "2001:db8::1",
            "certificate": {"not_after": "2026-12-24T00:00:00.000000Z"},
        }
        yield fine, CheckResult("a", 1, Status.UP, now(), 6.5, phases=phases, details=details)
        yield Endpoint("b", "B", "tcp://b.example:1", "TCP"), CheckResult("b", 2, Status.DOWN, now())
        yield Endpoint("c", "C", "icmp://c.example", "ICMP"), CheckResult("c", 3, Status.UNKNOWN, now())
        lossy = CheckResult("d", 4, Status.DEGRADED, now(), 20.0, details={"loss_percent": 40.0})
        yield Endpoint("d", "D", "icmp://192.0.2.1", "ICMP"), lossy


def condition(trouble: str = "x") -> Condition:
    """How a servmon is that has one trouble."""
    nothing: Any = SimpleNamespace
    settings = Settings()
    standing = nothing(refused=False, applied_at=now())
    return Condition(
        nothing(loaded=nothing(warnings=()), settings=settings, standing=standing),
        watchlist=nothing(),
        scheduler=nothing(loop_lag=0.0, overdue_seconds=0.0),
        writer=nothing(queued=0, spooled=0, is_away=False, accepts=True),
        witnesses=nothing(any_isolated=False),
        alerting=nothing(owed=0),
        troubles={trouble: "y"},
    )


def every_gauge() -> Iterator[Gauge]:
    """As the daemon puts them together."""
    section = ElasticsearchSection(hosts=("http://192.0.2.1:9200",))
    elastic = ElasticFollower("", lambda: section, counters=Counters(), troubles={})
    return chain(condition().gauges(), elastic.gauges())


async def scrape(accept: str = "*/*") -> tuple[str, str]:
    async with serving(NOTHING, live=Live(), vitals=Vitals(gauges=every_gauge)) as api:
        reply = await api.get("/metrics", headers={"Accept": accept})
    return reply.headers["Content-Type"], reply.body.decode()


async def test_the_last_checks_bear_the_names_of_blackbox_exporter():
    _, text = await scrape()
    named = 'endpoint="a",target="http://a.example/?q=\\"x\\"\\\\",protocol="HTTP",site="pop-north"'
    for line in (
        f"probe_success{{{named}}} 1",
        'probe_success{endpoint="b",target="tcp://b.example:1",protocol="TCP"} 0',
        f"probe_duration_seconds{{{named}}} 0.0065",
        f"probe_dns_lookup_time_seconds{{{named}}} 0.001",
        f"probe_http_status_code{{{named}}} 200",
        f'probe_http_duration_seconds{{{named},phase="processing"}} 0.003',
        f"probe_ip_protocol{{{named}}} 6",
        f"probe_http_ssl{{{named}}} 0",
        f"probe_http_redirects{{{named}}} 0",
        f"probe_failed_due_to_regex{{{named}}} 0",
        f"probe_ssl_earliest_cert_expiry{{{named}}} 1798070400",
        'servmon_outage_open{endpoint="b",target="tcp://b.example:1",protocol="TCP"} 1',
        'servmon_in_maintenance{endpoint="b",target="tcp://b.example:1",protocol="TCP"} 1',
        'servmon_packet_loss_ratio{endpoint="d",target="icmp://192.0.2.1",protocol="ICMP"} 0.4',
        'probe_icmp_duration_seconds{endpoint="d",target="icmp://192.0.2.1",protocol="ICMP",phase="rtt"} 0.02',
        "servmon_troubles 1",
    ):
        assert line in text.splitlines()


@pytest.mark.parametrize(("trouble", "is_open"), [("x", True), ("API at 127.0.0.1 port 8350", False)])
async def test_whether_the_api_is_open_wherever_it_listens(trouble, is_open):
    measured = {gauge.name: gauge.value for gauge in condition(trouble).gauges()}
    assert bool(measured["servmon_api_open"]) is is_open


async def test_what_could_not_be_asked_is_neither_up_nor_down():
    _, text = await scrape()
    assert 'probe_success{endpoint="c"' not in text


async def test_openmetrics_on_request_ends_with_its_mark_and_names_families_without_total():
    kind, text = await scrape("application/openmetrics-text;version=1.0.0,text/plain;q=0.5")
    assert kind == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert text.endswith("\n# EOF\n")
    assert "# TYPE servmon_checks counter\nservmon_checks_total 0\n" in text


@pytest.mark.parametrize("accept", ["*/*", "application/openmetrics-text"])
async def test_every_sample_stands_under_its_family_and_no_family_comes_twice(accept):
    _, text = await scrape(accept)
    families = re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE)
    assert len(families) == len(set(families))
    for block in text.split("# HELP ")[1:]:
        family = block.split(" ", 1)[0]
        samples = [line for line in block.splitlines()[2:] if not line.startswith("#")]
        assert samples, family
        assert all(line.startswith(family) for line in samples)


async def test_promtool_finds_nothing_to_say():
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool, of Debian's package prometheus, is not installed")
    _, text = await scrape()
    ask = partial(subprocess.run, input=text, capture_output=True, text=True, check=False)
    done = await asyncio.to_thread(ask, [promtool, "check", "metrics"])
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_family_without_samples_is_left_out_and_a_missing_label_too():
    exposition = Exposition()
    exposition.gauges("nothing", "Nothing.", [])
    exposition.gauges("one", "One.", [(labels({"a": "x", "b": None}), 1)])
    assert exposition.text() == '# HELP one One.\n# TYPE one gauge\none{a="x"} 1\n'
