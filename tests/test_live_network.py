"""A real daemon in a network of its own: the link is pulled, a host dies, a port closes."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from servmon.clock import now
from tests.fix_daemon import FAST, RunningServmon

pytestmark = [pytest.mark.timeout(90), pytest.mark.alone]

GATEWAY, OURS = "10.9.0.1", "10.9.0.2"
HOSTS = [f"10.9.1.{number}" for number in range(1, 21)]
PORT = 8000
# With the settings of FAST: interval, one attempt, two more checks at retry pace, verification.
FORMULA = timedelta(seconds=1 + 0.5 + 2 * (1 + 0.5) + 0.5 + 5)
# On a machine that runs other tests beside this one; alone it was 9.0 s for the silent host, 4.6 s for the closed port.
BUSY = timedelta(seconds=20)
CONFIGURATION = FAST + "".join(
    f'[[endpoints]]\nid = "host-{number}"\nurl = "tcp://{host}:{PORT}"\ncheck_interval = 1\n'
    for number, host in enumerate(HOSTS, 1)
)


class Network:
    """A monitor's namespace and the world's, with a link between them. The world answers at HOSTS."""

    def __init__(self, make_netns) -> None:
        self.monitor, self.world = make_netns(), make_netns()
        self.monitor.ip(f"link add ours type veth peer name theirs netns {self.world.tid}")
        self.world.ip(
            "link set theirs up",
            f"addr add {GATEWAY}/24 dev theirs",
            *(f"addr add {host}/32 dev lo" for host in HOSTS),
        )
        self.monitor.ip("link set ours up", f"addr add {OURS}/24 dev ours", f"route add default via {GATEWAY}")
        self.listening = {host: self.world.run(_listen, host) for host in HOSTS}
        self.servers: dict[str, asyncio.Server] = {}

    def pull(self) -> None:
        self.world.ip("link set theirs down")

    def plug_in(self) -> None:
        self.world.ip("link set theirs up")

    def kill(self, host: str) -> None:
        """Nothing answers there any more, not even with a refusal."""
        self.world.ip(f"addr del {host}/32 dev lo", f"route add blackhole {host}")


def _listen(host: str) -> socket.socket:
    listening = socket.create_server((host, PORT), backlog=128)
    listening.setblocking(False)
    return listening


@pytest.fixture
def live(make_netns) -> Callable[[Callable[[RunningServmon, Network], Awaitable[None]]], None]:
    """Runs a test's body beside a daemon that sees nothing but that network."""

    def run(body: Callable[[RunningServmon, Network], Awaitable[None]]) -> None:
        network = Network(make_netns)
        folder = Path(tempfile.mkdtemp(prefix="servmon-test-"))
        folder.chmod(0o711)

        async def main() -> None:
            network.servers = {
                host: await asyncio.start_server(lambda _reader, writer: writer.close(), sock=listening)
                for host, listening in network.listening.items()
            }
            daemon = RunningServmon(folder, CONFIGURATION)
            try:
                await daemon.start()
                await daemon.get_until("/services/status/summary", lambda found: found["up"] == len(HOSTS))
                await body(daemon, network)
            finally:
                await daemon.stop()
                for server in network.servers.values():
                    server.close()

        try:
            network.monitor.run_async(main)
        finally:
            shutil.rmtree(folder)

    return run


async def history_until(daemon: RunningServmon, number: int, holds: Callable[[list[dict]], bool]) -> list[dict]:
    found = await daemon.get_until(f"/services/host-{number}/history", lambda found: holds(found["items"]))
    return found["items"]


def test_a_pulled_link_declares_nothing_and_a_dead_host_and_a_closed_port_within_the_formula(
    live, record_testsuite_property
):
    async def body(daemon: RunningServmon, network: Network) -> None:
        # The link is pulled for longer than any threshold.
        network.pull()
        for number in range(1, len(HOSTS) + 1):
            await history_until(
                daemon, number, lambda rows: sum(row["failure_kind"] == "isolated" for row in rows) >= 5
            )
        assert any("isolated" in one for one in (await daemon.get("/readyz"))["degraded"])
        network.plug_in()
        await daemon.get_until("/services/status/summary", lambda found: found["up"] == len(HOSTS))
        assert (await daemon.get("/outages/"))["items"] == []
        states = [(await daemon.get(f"/services/host-{number}/status"))["state"] for number in range(1, 21)]
        assert set(states) == {"up"}

        # A host dies, and a port closes.
        died = now()
        network.kill(HOSTS[6])
        network.servers[HOSTS[7]].close()
        active = await daemon.get_until("/outages/active", lambda found: len(found["items"]) == 2)
        by_endpoint = {one["endpoint_id"]: one for one in active["items"]}
        silent, refusing = by_endpoint["host-7"], by_endpoint["host-8"]
        assert "host does not answer ping, no answer within 0.5 s while connecting" in silent["description"]
        assert "host answers ping (" in refusing["description"]
        assert f"port {PORT} refuses" in refusing["description"]
        assert "last good " in silent["description"]
        for outage in by_endpoint.values():
            delay = datetime.fromisoformat(outage["declared_at"]) - died
            record_testsuite_property(f"{outage['endpoint_id']} declared after", f"{delay.total_seconds():.1f} s")
            assert delay <= FORMULA + BUSY
        assert (await daemon.get("/outages/summary"))["total"] == 2

    live(body)
