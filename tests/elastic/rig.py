"""A mirror to be disturbed: rows in a real Postgres, a real cluster behind the fault proxy, time that is told."""

from __future__ import annotations

import json
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from uuid import uuid4

from servmon.clock import SYSTEM_CLOCK
from servmon.elastic import mapping
from servmon.elastic.cluster import Cluster
from servmon.elastic.follower import ElasticFollower
from servmon.elastic.lanes import Lane
from servmon.elastic.settings import ElasticsearchSection
from servmon.metrics import Counters
from servmon.model import FailureKind, MaintenanceWindow, Outage, Phases, Status
from servmon.store import endpoints, maintenance
from servmon.store.elastic_cursor import open_reader
from servmon.store.rows import plain
from tests.fix_elastic import FaultProxy
from tests.store.seeds import endpoint, insert_outage, result, store

REQUEST_SECONDS = 10.0


class ToldClock:
    """Starts now, and goes on only when it is told."""

    def __init__(self) -> None:
        self.at = SYSTEM_CLOCK.wall()

    def wall(self) -> float:
        return self.at

    monotonic = wall


class Mirror:
    """The follower on told time, between a database and a cluster behind ``proxy``."""

    def __init__(self, database: str, db, proxy: FaultProxy, **settings) -> None:
        self.database = database
        self.db = db
        self.proxy = proxy
        self.clock = ToldClock()
        self.counters = Counters()
        self.troubles: dict[str, str] = {}
        self.settings = ElasticsearchSection(**{"hosts": (proxy.url,)} | settings)
        self.follower = ElasticFollower(
            database, lambda: self.settings, counters=self.counters, troubles=self.troubles, clock=self.clock
        )
        self.lanes: list[Lane] = []
        self.steps = 0
        self._ladder = AsyncExitStack()
        self._numbers = iter(range(10**9))

    async def open(self) -> None:
        self.cluster = await self._ladder.enter_async_context(
            Cluster(self.settings, node_class=self.proxy.cluster.node_class, request_seconds=REQUEST_SECONDS)
        )
        self.reader = await self.fresh_reader()
        self.lanes = self.follower.lanes(self.settings, self.cluster, self.reader)

    async def fresh_reader(self):
        """A connection as the follower uses it."""
        reader = await open_reader(self.database)
        self._ladder.push_async_callback(reader.close)
        return reader

    async def close(self) -> None:
        await self._ladder.aclose()

    async def pass_time(self, seconds: float) -> None:
        """Let the follower do what it does in so many seconds."""
        until = self.clock.at + seconds
        while True:
            wait = await self.follower.step(self.lanes)
            self.steps += 1
            if self.clock.at + wait > until:
                self.clock.at = until
                return
            self.clock.at += wait

    async def watch(self, *names: str):
        """Endpoints that are watched, in the database."""
        found = [
            await endpoints.insert(self.db, endpoint(name, name=f"The {name}", tags=("core", "x"), site="pop-north"))
            for name in names
        ]
        return found if len(found) > 1 else found[0]

    async def check(self, of, number: int, *, since: datetime | None = None) -> None:
        """Store so many results of an endpoint, a minute apart, failures among them."""
        begin = since or datetime.fromisoformat("2026-11-20T23:30:00+00:00")
        made = []
        for _ in range(number):
            at = begin + timedelta(seconds=60 * next(self._numbers))
            if at.minute % 7:
                made.append(result(of, timestamp=at, response_time=12.5, phases=Phases(dns_ms=1.0, connect_ms=2.5)))
            else:
                made.append(
                    result(
                        of,
                        Status.DOWN,
                        timestamp=at,
                        attempts=4,
                        failure_kind=FailureKind.TIMEOUT,
                        error_message='no "answer"\nwithin 5 s \N{SNOWMAN}',
                    )
                )
        await store(self.database, *made)

    async def open_outage(self, of, **fields) -> Outage:
        return await insert_outage(self.db, of, **fields)

    async def plan(self, *ids: str) -> MaintenanceWindow:
        at = datetime.fromisoformat("2026-11-25T02:00:00+00:00")
        return await maintenance.insert(
            self.db, MaintenanceWindow(str(uuid4()), "power", at, at + timedelta(hours=2), ids, created_by="admin")
        )

    async def held(self) -> dict[str, dict[str, dict]]:
        """Everything that the cluster holds, by index and id."""
        there = self.proxy.cluster
        return {index: await there.documents(index) for index in await there.indices() if index.startswith("isp-")}

    async def rows(self) -> dict[str, set[str]]:
        """What it should hold: the ids by index."""
        wanted: dict[str, set[str]] = {}
        for row in await self.db.fetch("select id, timestamp from service_status"):
            wanted.setdefault(mapping.status_index(row["timestamp"]), set()).add(row["id"])
        for row in await self.db.fetch("select id::text, start_time from service_outage"):
            wanted.setdefault(mapping.outage_index(row["start_time"]), set()).add(row["id"])
        for row in await self.db.fetch("select id::text from maintenance_window where deleted_at is null"):
            wanted.setdefault(mapping.MAINTENANCE_INDEX, set()).add(row["id"])
        return wanted

    async def is_whole(self) -> None:
        """Each row has its one document, in the right day's index, and there is nothing else."""
        held = {index: set(documents) for index, documents in (await self.held()).items() if documents}
        wanted = await self.rows()
        assert {index: len(ids) for index, ids in held.items()} == {index: len(ids) for index, ids in wanted.items()}
        assert held == wanted

    async def synced(self) -> tuple[int, int]:
        """How many results and outages are told to be synced."""
        return (
            await self.db.fetchval("select count(*) from service_status where elasticsearch_synced"),
            await self.db.fetchval("select count(*) from service_outage where elasticsearch_synced"),
        )


def as_stored(document: mapping.Document) -> dict:
    return json.loads(json.dumps(document.source, default=plain))
