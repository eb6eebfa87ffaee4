"""The daemon with a cluster that is away at first, comes, and hangs: checks go on, and it stops when it is told."""

from __future__ import annotations

import asyncio

import pytest

from servmon.clock import SYSTEM_CLOCK
from tests.fix_daemon import FAST

# How long a stop takes is compared with the machine's clock.
pytestmark = pytest.mark.alone

CONFIGURATION = """
[outage]
detection_threshold = 1
verification_enabled = false

[elasticsearch]
hosts = ["{url}"]
sync_interval = 1

[[endpoints]]
id = "web"
name = "The Web"
url = "tcp://127.0.0.1:{port}"
check_interval = 1
"""


async def hangs(_request, _body):
    await asyncio.sleep(3600)


def elasticsearch_is_degraded(found) -> bool:
    return any(trouble.startswith("elasticsearch: ") for trouble in found["degraded"])


async def test_a_cluster_may_be_away_come_and_hang_while_servmon_does_its_work(servmon_daemon, proxy, closed_port):
    await proxy.stop()
    running = servmon_daemon(FAST + CONFIGURATION.format(url=proxy.url, port=closed_port))
    await running.start()
    found = await running.get_until("/outages/active", lambda found: found["items"])
    outage = found["items"][0]["id"]
    assert (await running.get_until("/readyz", elasticsearch_is_degraded))["ready"]
    await proxy.start()
    await running.get_until(f"/outages/{outage}", lambda found: found["elasticsearch_synced"])
    await running.get_until(
        "/services/web/history?resolution=raw&limit=1000", lambda found: found["items"][-1]["elasticsearch_synced"]
    )
    index = next(name for name in await proxy.cluster.indices() if name.startswith("isp-service-outage"))
    assert (await proxy.cluster.documents(index))[outage]["endpoint_name"] == "The Web"
    assert "servmon_elasticsearch_up 1" in await running.text("/metrics")
    assert "Traceback" not in running.log()
    proxy.fault = hangs
    asked = len(proxy.requests)
    await running.until(lambda: _more(proxy, asked), "a request that hangs")
    started = SYSTEM_CLOCK.monotonic()
    assert await running.stop() == 0
    assert SYSTEM_CLOCK.monotonic() - started < 10  # what the operator is promised


async def _more(proxy, than: int) -> bool:
    return len(proxy.requests) > than
