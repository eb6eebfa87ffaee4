"""Keeps Elasticsearch up to date for as long as servmon runs; slow, full or gone it delays no check."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import structlog

from servmon.clock import SYSTEM_CLOCK, Clock, now, rfc3339
from servmon.elastic.cluster import AwayError, Cluster, ElasticError
from servmon.elastic.lanes import Lane, Pause
from servmon.elastic.retention import drop_old
from servmon.elastic.settings import ElasticsearchSection
from servmon.elastic.setup import prepare
from servmon.elastic.sync import Sync
from servmon.metrics import Counters, Gauge
from servmon.store import elastic_due
from servmon.store.elastic_cursor import UnsettledError, open_reader
from servmon.store.pool import AWAY, Connection

_log = structlog.get_logger(__name__)

TROUBLE = "elasticsearch"
# Outages are there within ten seconds of a change.
LOOK_SECONDS = 5.0
MINUTE, HOUR = 60.0, 3600.0


class ElasticFollower:
    """Sends what is due, each kind in its own time. ``settings`` gives those that hold now.

    ``troubles["elasticsearch"]`` says what is wrong while something is. ``node_class`` is for the tests' servers.
    """

    def __init__(
        self,
        dsn: str,
        settings: Callable[[], ElasticsearchSection],
        *,
        counters: Counters,
        troubles: dict[str, str],
        clock: Clock = SYSTEM_CLOCK,
        node_class: Any = None,
    ) -> None:
        self._dsn = dsn
        self._settings = settings
        self._counters = counters
        self._troubles = troubles
        self._clock = clock
        self._node_class = node_class
        self._backlog = 0
        self._dead_letters = 0
        self._synced_at = 0.0
        self._since: str | None = None

    async def run(self) -> None:
        """Follow for ever; nothing at all is done while no hosts are configured."""
        pause = Pause()
        while True:
            settings = self._settings()
            if not settings.hosts:
                self._say(None)
                await asyncio.sleep(LOOK_SECONDS)
                continue
            try:
                await self._follow(settings)
                pause.reset()
            except AwayError as error:  # the client cannot even be made
                self._say(str(error))
                await asyncio.sleep(pause.next())
            except AWAY as error:
                _log.info("Elasticsearch waits for Postgres", problem=str(error))
                await asyncio.sleep(pause.next())

    async def _follow(self, settings: ElasticsearchSection) -> None:
        async with AsyncExitStack() as ladder:
            cluster = await ladder.enter_async_context(Cluster(settings, node_class=self._node_class))
            db = await open_reader(self._dsn)
            # Not its close(), which waits for a server that may be hanging.
            ladder.callback(db.terminate)
            lanes = self.lanes(settings, cluster, db)
            while self._settings() == settings:
                wait = await self.step(lanes)
                await asyncio.sleep(min(wait, LOOK_SECONDS))

    def lanes(self, settings: ElasticsearchSection, cluster: Cluster, db: Connection) -> list[Lane]:
        """All there is to do, what matters most first."""
        sync = Sync(db, cluster, counters=self._counters, ecs=settings.ecs_fields, clock=self._clock)

        def every(seconds: float) -> Callable[[], float]:
            return lambda: seconds

        async def statuses() -> bool:
            self._backlog = await sync.statuses()
            if not self._backlog:
                self._synced_at = self._clock.wall()
            return self._backlog > 0

        async def dead_letters() -> None:
            await sync.offer_dead_letters()
            self._dead_letters, _ = await elastic_due.count_letters(db)

        async def drop() -> None:
            await drop_old(cluster, settings.retention_days, now(self._clock).date())

        return [
            # A cluster that was lost makes indices of its own fancy before long.
            Lane("templates", _once(lambda: prepare(cluster)), every(MINUTE)),
            Lane("outages", sync.outages, every(LOOK_SECONDS)),
            Lane("windows", _once(sync.windows), every(LOOK_SECONDS)),
            Lane("open outages", _once(sync.refresh_open), every(settings.refresh_interval)),
            Lane("results", statuses, every(settings.sync_interval)),
            Lane("dead letters", _once(dead_letters), every(HOUR)),
            Lane("retention", _once(drop), every(HOUR)),
        ]

    async def step(self, lanes: list[Lane]) -> float:
        """Do what is due, once each; returns the seconds until something is due again. Raises the store's errors."""
        at = self._clock.monotonic()
        for lane in lanes:
            if lane.due_at > at:
                continue
            started_at = self._clock.monotonic()
            try:
                lane.went_well(started_at, more=await lane.work())
            except (ElasticError, UnsettledError) as error:
                self._counters.elasticsearch_failures += 1
                lane.failed(self._clock.monotonic(), str(error))
                if isinstance(error, AwayError) or lane is lanes[0]:
                    # What comes after needs the templates, and a cluster that is away is so for every lane.
                    for other in lanes:
                        other.due_at = max(other.due_at, lane.due_at)
                    break
        self._say("; ".join(dict.fromkeys(lane.trouble for lane in lanes if lane.trouble)) or None)
        return max(min(lane.due_at for lane in lanes) - self._clock.monotonic(), 0.0)

    def gauges(self) -> Iterator[Gauge]:
        """What is to be seen of it from outside; nothing where it is not configured."""
        if not self._settings().hosts:
            return
        yield Gauge("servmon_elasticsearch_backlog", "Results that Elasticsearch has not got yet.", self._backlog)
        yield Gauge("servmon_elasticsearch_dead_letters", "Documents that it refuses.", self._dead_letters)
        yield Gauge("servmon_elasticsearch_up", "Whether all went well the last time.", float(self._since is None))
        yield Gauge(
            "servmon_elasticsearch_last_sync_timestamp_seconds", "When it last had every result.", self._synced_at
        )

    def _say(self, trouble: str | None) -> None:
        if trouble is None:
            if self._since is not None:
                _log.info("Elasticsearch takes everything again", trouble_since=self._since)
            self._since = None
            self._troubles.pop(TROUBLE, None)
            return
        if self._since is None:
            self._since = rfc3339(now(self._clock))
            _log.warning("Elasticsearch does not do its part; checks and alerts do not depend on it", problem=trouble)
        self._troubles[TROUBLE] = f"{trouble} (since {self._since})"


def _once(work: Callable[[], Any]) -> Callable[[], Any]:
    """Work that is done in one go, as a lane takes it."""

    async def done() -> bool:
        await work()
        return False

    return done
