"""What ``servmon report`` says of a shift's outages, planned work and silences."""

from __future__ import annotations

import json
from datetime import timedelta

from servmon.cli.handover import lines, shift_since
from servmon.clock import now
from tests.fix_api import window
from tests.test_cli import servmon


async def test_a_shift_hands_over_what_is_open_what_is_over_and_what_comes(
    api, db, cli, history, monkeypatch, database
):
    for endpoint_id in ("shop", "edge", "old"):
        await api.post("/services/", {"id": endpoint_id, "url": "icmp://127.0.0.1", "site": "pop-north"})
    still = await history.outage("shop", minutes=600, description="\x1b[2Jgone")
    over = await history.outage("edge", minutes=50, resolved=True)
    await history.outage("old", minutes=600, resolved=True)
    for start, end in ((1, 2), (-1, 1), (-12, -10), (48, 49)):
        await api.post("/maintenance/", window("edge", start=start, end=end, description=f"from {start}"))
    await cli("silences", "add", "--site", "pop-north", "--for", "1h", "known")
    told = list(lines(await shift_since(db, now() - timedelta(hours=8), now())))
    assert told[0] == "outages: 1 began, 1 ended, 1 open"
    assert told[1].startswith("  open  MAJOR  shop since ")
    assert told[1].endswith(": \\x1b[2Jgone")
    assert told[2].startswith("  over  MAJOR  edge since ")
    assert [line.partition(":")[0] + line.rpartition(":")[2] for line in told[3:5]] == [
        "  planned work, now from -1",
        "  planned work, coming from 1",
    ]
    assert told[5].startswith("  silent until ")
    assert told[5].endswith(": sites pop-north: known (admin)")
    assert len(told) == 6
    monkeypatch.setenv("DATABASE_URL", database)
    code, out, err = await servmon("report", "--json")
    found = json.loads(out)
    assert (code, err) == (0, "")
    assert [one["id"] for one in found["outages"]] == [still.id, over.id]
    assert [one["description"] for one in found["maintenance"]] == ["from -1", "from 1"]
    assert found["silences"][0]["sites"] == ["pop-north"]
    code, out, err = await servmon("report")
    assert (code, err, out.splitlines()[0]) == (0, "", told[0])


async def test_a_quiet_shift_is_one_line(db):
    assert list(lines(await shift_since(db, now() - timedelta(hours=8), now()))) == [
        "outages: 0 began, 0 ended, 0 open"
    ]
