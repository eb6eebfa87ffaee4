"""``servmon simulate`` against a real daemon's API."""

from __future__ import annotations

import json
from datetime import datetime, timedelta

from tests.fix_daemon import FAST
from tests.test_cli import servmon


async def test_simulate_tells_what_other_settings_would_have_declared(servmon_daemon, site):
    daemon = servmon_daemon(
        f'{FAST}[outage]\nwitnesses = ["127.0.0.1"]\n[alert]\nnotification_channels = []\n[[endpoints]]\nid = "web"\n'
        f'url = "http://127.0.0.1:{site.port}/"\ncheck_interval = 1\n'
    )
    await daemon.start()
    await daemon.get_until("/services/web/status", lambda status: status["status"] == "UP")
    await site.stop()
    (outage,) = (await daemon.get_until("/outages/active", lambda page: page["items"]))["items"]
    await daemon.get_until(
        "/services/web/history?limit=1", lambda page: _later(page["items"][0]["timestamp"], outage["declared_at"], 4)
    )
    ask = ("simulate", "web", "--config", str(daemon.file))
    code, out, err = await servmon(*ask, "--option", "detection_threshold=5", "--json")
    assert code == 0, err
    found = json.loads(out)
    (declared,) = found["declared"]
    assert declared["outage_id"] == outage["id"]
    assert declared["start_time"] == outage["start_time"]
    assert declared["later_seconds"] > 0
    assert found["missed"] == []
    code, out, _ = await servmon(*ask)
    assert code == 0
    assert "1 outage would have been declared, 0 of them false, and 0 real ones missed" in out
    code, _, err = await servmon(*ask, "--option", "timeout=1")
    assert code == 2
    assert err.startswith("timeout: cannot be tried on stored results; detection_threshold,")
    code, _, err = await servmon("simulate", "nobody", "--config", str(daemon.file))
    assert code == 1
    await daemon.stop()


def _later(one: str, other: str, seconds: float) -> bool:
    return datetime.fromisoformat(one) - datetime.fromisoformat(other) > timedelta(seconds=seconds)
