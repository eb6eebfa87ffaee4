"""A certificate is stored when it is news: at first, when it is another one, and once a day as it grows old."""

from __future__ import annotations

from servmon.probes.base import Answer
from tests.virtual import World, endpoint, run_virtual


def test_a_certificate_is_stored_when_it_changes_and_known_all_the_time():
    certificates = ["old"] * 3 + ["new"] * 3

    async def script(_endpoint_id: str, _now: float) -> Answer:
        name = certificates.pop(0) if certificates else "new"
        return Answer(1.0, details={"status_code": 200, "certificate": {"subject": f"CN={name}", "days_left": 9}})

    async def main():
        world = World(script)
        world.watch([endpoint("shop", check_interval=10)])
        await world.run(65)
        return world

    world = run_virtual(main)
    told = [result.details.get("certificate", {}).get("subject") for result in world.recorder.results]
    assert told[:6] == ["CN=old", None, None, "CN=new", None, None]
    assert all(result.details["status_code"] == 200 for result in world.recorder.results)
    assert world.monitor.watched["shop"].state.last.details["certificate"]["subject"] == "CN=new"
