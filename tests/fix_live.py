"""The memory of a daemon over a real Postgres, without the daemon's flow around it."""

from __future__ import annotations

from typing import Any

import pytest

from servmon.checks.doubts import Doubts
from servmon.checks.lanes import Lanes
from servmon.checks.pulse import Pulse
from servmon.checks.runner import Runner
from servmon.checks.scheduler import Scheduler
from servmon.checks.witnesses import Witnesses
from servmon.clock import now
from servmon.metrics import Counters, Histogram
from servmon.model import CheckResult, Status
from servmon.monitor import Monitor, Rules
from servmon.probes.network import Network
from servmon.services.availability import AvailabilityService
from servmon.services.outages import OutageManagementService
from servmon.store.writer import Writer
from servmon.watchlist import Watchlist


class Daemon:
    """The parts of a daemon that services meet; its schedule stands still."""

    def __init__(self, dsn: str, connection, network: Network) -> None:
        counters = Counters()
        self.writer = Writer(dsn, counters, observer=1)
        self.monitor = Monitor(
            rules=Rules(detection_threshold=1, verification_enabled=False),
            writer=self.writer,
            look_again=self.never,
            doubts=Doubts(Pulse(counters=counters), Witnesses(list, self.never)),
            counters=counters,
        )
        self.runner = Runner(network, self.monitor, done=lambda _slot, _pace: None, lanes=Lanes(50), counters=counters)
        self.scheduler = Scheduler(
            self.runner.start, counters=counters, lateness=Histogram(), paused=self.monitor.is_paused
        )
        self.away = False
        self.view = Watchlist(
            connection.pool,
            monitor=self.monitor,
            scheduler=self.scheduler,
            runner=self.runner,
            is_away=lambda: self.away,
        )
        self.availability = AvailabilityService(connection, self.view)
        self.outages = OutageManagementService(connection, self.view)

    async def never(self, _plan):
        raise AssertionError("nothing is verified here")

    async def finds(self, endpoint_id: str, status: Status, **fields: Any) -> None:
        """A scheduled check found ``status``, and it is stored."""
        endpoint = self.monitor.watched[endpoint_id].plan.endpoint
        self.monitor.receive(CheckResult(endpoint.id, endpoint.key, status, now(), 12.5, **fields))
        await self.writer.drain()


@pytest.fixture
async def daemon(database, connection):
    async with Network() as network:
        daemon = Daemon(database, connection, network)
        daemon.view.load(await daemon.view.recollect(), daemon.writer)
        yield daemon
        await daemon.monitor.stop()
