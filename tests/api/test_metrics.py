"""`/metrics` as Prometheus reads it."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from functools import partial

import pytest

from servmon.api.health import Vitals
from servmon.clock import now
from servmon.metrics import Exposition, labels
from servmon.model import CheckResult, Endpoint, Phases, Status
from tests.fix_api import serving


class Live:
    """A daemon's memory with two endpoints that were checked, one of them DOWN."""

    def statuses(self):
        return ()

    def last_results(self):
        fine = Endpoint("a", 'A "quoted" one', 'http://a.example/?q="x"\\', "HTTP", site="pop-north")
        phases = Phases(dns_ms=1.0, connect_ms=2.0, first_byte_ms=3.0, transfer_ms=0.5)
        yield fine, CheckResult("a", 1, Status.UP, now(), 6.5, phases=phases, details={"status_code": 200})
        yield Endpoint("b", "B", "tcp://b.example:1", "TCP"), CheckResult("b", 2, Status.DOWN, now())
        yield Endpoint("c", "C", "icmp://c.example", "ICMP"), CheckResult("c", 3, Status.UNKNOWN, now())


async def scrape(accept: str = "*/*") -> tuple[str, str]:
    async with serving(None, None, live=Live(), vitals=Vitals(degraded=lambda: ["x: y"])) as api:
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
        "servmon_troubles 1",
    ):
        assert line in text.splitlines()


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
