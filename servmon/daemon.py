"""THE MAIN FLOW: build → start → wait → reload → stop.

One ladder of what must be closed in order, and one TaskGroup of what runs side by side. A task that dies of
something unexpected ends the process with exit code 1: systemd starts it again, and what is stored is still there.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import chain
from typing import Any

import structlog

from servmon import log
from servmon.alerts.channels import open_channels
from servmon.alerts.heartbeat import beat
from servmon.api.configuration import Configuration
from servmon.api.health import Vitals
from servmon.beginning import Beginning
from servmon.clock import SYSTEM_CLOCK
from servmon.condition import Condition
from servmon.database import database
from servmon.elastic.follower import ElasticFollower
from servmon.errors import StoreUnavailableError
from servmon.parts.alerts import AlertingPart
from servmon.parts.api import ApiPart
from servmon.parts.checks import CheckingPart, rules_of
from servmon.parts.ground import Follow, Ground
from servmon.probes.network import Network
from servmon.reload import Reload
from servmon.settings import Loaded, service_manager
from servmon.settings.effective import RESTART_SECTIONS, effective
from servmon.settings.watch import ConfigWatch
from servmon.standby import Standby
from servmon.store import rollup_worker
from servmon.store.embedded import EmbeddedPostgres
from servmon.store.feed import ChangeFeed
from servmon.store.known import Known
from servmon.store.pool import Pool, open_pool
from servmon.store.pooler import tell_of_pooler
from servmon.store.retention import keep_records
from servmon.tasks import cancel, spawn, supervise
from servmon.watchlist import Watchlist

_log = structlog.get_logger(__name__)

Work = Coroutine[Any, Any, None]

# A collection walks so many new objects and all they hold, and no check starts meanwhile. Every 50th walks what those
# before it left too, 250,000 objects at most (some 20 ms): cycles that outlived one are gone within minutes.
GC_THRESHOLDS = (5_000, 50, 500)
# Seconds for which one thread may keep the interpreter from the others; the checks have it in the main thread.
SWITCH_SECONDS = 0.001


async def run(loaded: Loaded, edits: ConfigWatch | None = None) -> None:
    """Run servmon until SIGTERM or SIGINT; reload on SIGHUP and whenever ``edits`` notices one of the file.

    SIGUSR1 opens the log file anew.
    """
    signals = Signals()
    async with AsyncExitStack() as ladder:
        dsn, postgres = await ladder.enter_async_context(database(loaded.settings, has_to_run=False))
        pool = await ladder.enter_async_context(await open_pool(dsn, min_size=0))
        network = await ladder.enter_async_context(Network(canary_names=loaded.settings.service.canary_names))
        daemon = Daemon(loaded, signals, dsn=dsn, pool=pool, network=network)
        ladder.push_async_callback(daemon.finish)
        if not await daemon.leads():
            return
        await daemon.alerts.recall_rules()
        await daemon.beginning.begin()
        daemon.checks.causes.restore()
        address = await ladder.enter_async_context(daemon.serve(daemon.checks.watchlist))
        async with asyncio.TaskGroup() as group:
            work = [*daemon.fatal(), *daemon.followers(postgres, edits)]
            side_by_side = {name: group.create_task(started, name=name) for name, started in work}
            daemon.say_ready(address)
            _settle_interpreter()
            await signals.stop.wait()
            daemon.say_stopping()
            side_by_side["scheduler"].cancel()
            if daemon.standby.deposed is None:  # else another one checks already
                await daemon.checks.settle()
            for task in side_by_side.values():
                task.cancel()
        if daemon.standby.deposed is not None:
            raise daemon.standby.deposed
    _log.info("stopped")


class Signals:
    """What the operator wants of the process."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.reload = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)
        loop.add_signal_handler(signal.SIGHUP, self.reload.set)
        loop.add_signal_handler(signal.SIGUSR1, log.reopen)


class Daemon:
    """The parts of one running servmon, joined; the flow is in ``run``."""

    def __init__(self, loaded: Loaded, signals: Signals, *, dsn: str, pool: Pool, network: Network) -> None:
        self._signals = signals
        self._manager = service_manager()
        self.ground = ground = Ground(loaded, dsn=dsn, pool=pool)
        self.api = ApiPart(ground)
        self.checks = CheckingPart(ground, network, publish=self.api.stream.publish_transitions, is_away=self._is_away)
        self.alerts = AlertingPart(ground, self.checks)
        self.elastic = ElasticFollower(
            dsn, lambda: ground.settings.elasticsearch, counters=ground.counters, troubles=ground.troubles
        )
        self.beginning = Beginning(
            dsn,
            pool,
            provisioning=ground.provisioning,
            writer=ground.writer,
            watchlist=self.checks.watchlist,
            known=Known(ground.notebook, ground.spool),
            observed_as=self._observed_as,
        )
        self.standby = Standby(
            ground.direct_dsn, loaded.settings.servmon.instance, ground.notebook, self._hand_over, ground.troubles
        )
        self.condition = Condition(
            ground.provisioning,
            watchlist=self.checks.watchlist,
            scheduler=self.checks.scheduler,
            writer=ground.writer,
            witnesses=self.checks.witnesses,
            alerting=self.alerts.alerting,
            troubles=ground.troubles,
        )
        self.reload = Reload(loaded.path, signals.reload, self.apply, ground.standing)

    # The start, and what runs from then on.

    async def leads(self) -> bool:
        """Wait until this daemon is the one of its instance that checks; ``False`` where it is asked to stop before."""
        leader = await self.standby.leader()
        if leader is None:
            return True
        tokens = spawn(supervise("tokens", self.api.tokens.follow, self.ground.troubles), name="tokens")
        try:
            async with self.serve(live=None):
                self._manager.tell(READY="1", STATUS=f"stands by, {leader.name} leads")
                return await self.standby.wait(leader, self._signals.stop)
        finally:
            await cancel(tokens)

    @asynccontextmanager
    async def serve(self, live: Watchlist | None) -> AsyncIterator[str]:
        """The admin API, listening; gives its address. Without ``live`` it answers from what is stored."""
        running = Configuration(self._reload_now, lambda: effective(self.ground.provisioning.loaded))
        vitals = Vitals(
            counters=self.ground.counters,
            lateness=self.checks.scheduler.lateness,
            degraded=self.condition.degraded,
            is_away=self._is_away,
            gauges=lambda: chain(self.condition.gauges(), self.elastic.gauges()),
        )
        async with self.api.serve(live, running=running, vitals=vitals) as address:
            yield address

    def fatal(self) -> Iterator[tuple[str, Work]]:
        """What servmon is nothing without: where one of these fails, the process ends."""
        yield "writer", self.ground.writer.run()
        yield "scheduler", self.checks.scheduler.run()
        yield "leadership", self.standby.hold(self._signals.stop)

    def followers(self, postgres: EmbeddedPostgres | None, edits: ConfigWatch | None) -> Iterator[tuple[str, Work]]:
        """What may fail without stopping checks: it is started again, and what is wrong is shown meanwhile."""
        ground = self.ground
        feed = ChangeFeed(ground.direct_dsn)
        follow: dict[str, Follow] = {
            "changes": lambda: self._follow_changes(feed),
            "Postgres": self.beginning.follow,
            "pooler": lambda: tell_of_pooler(ground.direct_dsn, ground.troubles),
            **self.checks.followers(),
            **self.alerts.followers(),
            "heartbeat": lambda: beat(lambda: ground.settings.alert, self.condition.unwell),
            "service manager": lambda: self._manager.follow(self.condition.is_well, self.condition.in_a_line),
            "repeats in the log": log.count_repeats,
            "retention": lambda: keep_records(ground.pool, lambda: ground.settings.cleanup),
            "rollups": lambda: rollup_worker.follow(ground.pool),
            "elasticsearch sync": self.elastic.run,
            "reload": self.reload.follow,
        }
        if edits is not None:
            follow["edits of the configuration"] = lambda: self.reload.follow_edits(edits)
        if postgres is not None:
            follow["embedded Postgres"] = postgres.run
        for name, work in follow.items():
            yield name, supervise(name, work, ground.troubles)

    async def _follow_changes(self, feed: ChangeFeed) -> None:
        """Whatever somebody changed in Postgres counts here within a second.

        Who has to go does not wait until thousands of endpoints are read.
        """
        await feed.follow(self.api.tokens.refresh, self.checks.watchlist.refresh, self.alerts.refresh_rules)

    def say_ready(self, address: str) -> None:
        """Say what is watched and where to look."""
        self._manager.tell(READY="1", STATUS=self.condition.in_a_line())
        self.condition.say_ready(address, self.api.token)

    # The reload.

    async def apply(self, loaded: Loaded, force: bool) -> None:
        """Make a configuration that can be used the one that runs: first what can fail, then the swap."""
        self._manager.tell(RELOADING="1", MONOTONIC_USEC=str(int(SYSTEM_CLOCK.monotonic() * 1e6)))
        try:
            await self._apply(loaded, force)
        finally:
            self._manager.tell(READY="1", STATUS=self.condition.in_a_line())

    async def _apply(self, loaded: Loaded, force: bool) -> None:
        provisioning = self.ground.provisioning
        before, settings = provisioning.settings, loaded.settings
        log.check(settings.log.file)
        open_channels(settings.channels, settings.alert.fallback_channel)
        await provisioning.change(loaded, force=force)
        log.configure(settings.log.level, settings.log.format, settings.log.file)
        self.api.configure(loaded)
        await self.checks.monitor.change_rules(rules_of(loaded))
        self.alerts.configure()
        await self.checks.watchlist.refresh()
        await provisioning.keep()
        _log.info("configuration applied", endpoints=loaded.number)
        self.condition.say_warnings()
        for section in RESTART_SECTIONS:
            if getattr(before, section) != getattr(settings, section):
                _log.warning("this change needs a restart", section=section)

    async def _reload_now(self, force: bool) -> int:
        await self.reload.now(force=force)
        return self.ground.provisioning.loaded.number

    # The stop.

    def say_stopping(self) -> None:
        """Say that the end has begun."""
        _log.info("stopping")
        self._manager.tell(STOPPING="1", STATUS="stopping")

    async def finish(self) -> None:
        """Abandon what is under way, and store every result there is."""
        await self.checks.stop()
        await self.ground.writer.drain()
        await self.standby.end()
        with contextlib.suppress(StoreUnavailableError):
            await self.ground.local_file.close()

    # What several parts ask of each other.

    async def _hand_over(self) -> None:
        await self.beginning.hand_over()
        await self.alerts.alerting.hand_over()

    def _is_away(self) -> bool:
        return self.beginning.waits or self.ground.writer.is_away

    def _observed_as(self, number: int) -> None:
        for who in (self.ground.writer, self.checks.monitor, self.api.connection):
            who.observer = number


def _settle_interpreter() -> None:
    """Let nothing of the interpreter's own keep a check waiting for long.

    What was built at start stays, so the collector need not walk it; checks leave few cycles behind. At the usual
    thresholds it ran many times a second over all endpoints, for a tenth of the process's time. What a reload builds
    anew is walked in small parts, and once more only after dozens of reloads.
    """
    gc.collect()
    gc.freeze()
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.set_threshold(*GC_THRESHOLDS)
