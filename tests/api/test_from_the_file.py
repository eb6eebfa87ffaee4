"""What stands in the configuration file is read-only over the API, and an operator's token still works on it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import aiohttp

from tests.fix_daemon import FAST
from tests.fix_servers import free_port


async def test_an_operator_works_on_an_endpoint_of_the_file_without_the_file_being_touched(servmon_daemon):
    port = free_port()
    daemon = servmon_daemon(
        f'{FAST}\n[outage]\ndetection_threshold = 1\nverification_enabled = false\n[[endpoints]]\nid = "shop"\n'
        f'url = "tcp://127.0.0.1:{port}"\ncheck_interval = 1\ntimeout = 0.5\n'
    )
    await daemon.start()
    before = daemon.file.read_bytes(), daemon.file.stat().st_mtime_ns, sorted(daemon.folder.iterdir())
    (outage,) = (await daemon.get_until("/outages/active", lambda page: page["items"]))["items"]
    down, up = [(await daemon.get(f"/services/?status={status}&limit=1"))["items"] for status in ("DOWN", "UP")]
    assert ([one["id"] for one in down], up) == (["shop"], [])
    made = await daemon.send("POST", "/tokens/", {"name": "night shift", "role": "operate"})
    headers = {"Authorization": f"Bearer {made['token']}"}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{daemon.port}", headers=headers) as session:

        async def said(method: str, path: str, body: object = None) -> tuple[int, dict]:
            async with session.request(method, path, json=body) as answer:
                return answer.status, await answer.json() if answer.status != 204 else {}

        assert (await said("POST", "/services/shop/check"))[0] == 200
        at = f"/outages/{outage['id']}"
        assert (await said("POST", f"{at}/acknowledge", {"note": "on my way"}))[0] in (200, 201)
        assert (await said("POST", f"{at}/notes", {"text": "the card is dead"}))[0] == 201
        assert (await said("POST", f"{at}/unacknowledge"))[0] == 204
        now = datetime.now(UTC)  # noqa: TID251 - the daemon's time is real
        window = {"endpoint_ids": ["shop"], "mode": "pause", "description": "card swap"}
        times = {"start_time": now.isoformat(), "end_time": (now + timedelta(hours=1)).isoformat()}
        status, planned = await said("POST", "/maintenance/", {**window, **times})
        assert (status, planned["created_by"]) == (201, "night shift")
        status, extended = await said("POST", f"/maintenance/{planned['id']}/extend", {"minutes": 30})
        assert (status, extended["end_time"] > planned["end_time"]) == (200, True)
        assert (await said("GET", "/services/shop/status"))[1]["in_maintenance"] is True
        for method in ("PUT", "PATCH", "DELETE"):
            assert (await said(method, "/services/shop", {"url": "tcp://192.0.2.1:1"}))[0] == 403
    refused = await daemon.answer("PATCH", "/services/shop", {"retries": 2})
    assert refused.startswith("409 ")
    assert "comes from the configuration file (instance main); change it there. It can be checked" in refused
    assert (await daemon.answer("DELETE", "/services/shop?purge=true")).startswith("409 ")
    assert (daemon.file.read_bytes(), daemon.file.stat().st_mtime_ns, sorted(daemon.folder.iterdir())) == before
