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
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import chain
from typing import Any

import structlog

from servmon import log
from servmon.alerts.alerting import Alerting
from servmon.alerts.channels import open_channels
from servmon.alerts.dispatcher import Dispatcher
from servmon.alerts.heartbeat import beat
from servmon.alerts.ledger import Ledger
from servmon.alerts.links import Links
from servmon.alerts.planning import Planning
from servmon.alerts.rule_book import RuleBook, with_rules
from servmon.alerts.settings import AlertSection
from servmon.api.app import Entrance, Services, build_app
from servmon.api.auth import ADMIN
from servmon.api.configuration import Configuration
from servmon.api.health import Vitals
from servmon.api.server import serve
from servmon.api.token_file import keep_secret, load_or_create_token
from servmon.beginning import Beginning
from servmon.causes import Causes
from servmon.certificates import Certificates
from servmon.checks.doubts import Doubts
from servmon.checks.lanes import Lanes, socket_cap
from servmon.checks.pulse import Pulse
from servmon.checks.runner import Runner
from servmon.checks.scheduler import Scheduler
from servmon.checks.verification import Verifier
from servmon.checks.witnesses import Asker, Witnesses, system_witnesses
from servmon.clock import SYSTEM_CLOCK
from servmon.condition import Condition
from servmon.database import database
from servmon.detection.settings import AUTO
from servmon.detection.state import new_id
from servmon.elastic.follower import ElasticFollower
from servmon.errors import StoreUnavailableError
from servmon.metrics import Counters, Histogram
from servmon.model import EventKind
from servmon.monitor import Monitor, Rules
from servmon.probes.network import Network
from servmon.probes.specification import EndpointDefaults
from servmon.provisioning import Provisioning
from servmon.reload import Reload
from servmon.services.alert_rules import AlertRuleService
from servmon.services.alerts import AlertService
from servmon.services.availability import AvailabilityService
from servmon.services.connection import DEFAULT_OBSERVER, Connection
from servmon.services.outages import OutageManagementService
from servmon.services.sessions import Sessions
from servmon.services.stream import Stream
from servmon.services.tokens import AccessToken, TokenBook, TokenService
from servmon.settings import Loaded, Settings, service_manager
from servmon.settings.effective import RESTART_SECTIONS, effective
from servmon.settings.watch import ConfigWatch
from servmon.sight import Sight
from servmon.slowness import Slowness
from servmon.standby import Standby
from servmon.standing import Standing
from servmon.store import rollup_worker
from servmon.store.embedded import EmbeddedPostgres
from servmon.store.events import details_of
from servmon.store.feed import ChangeFeed
from servmon.store.known import Known
from servmon.store.local import LocalFile
from servmon.store.notebook import Notebook
from servmon.store.pool import Pool, open_pool
from servmon.store.pooler import tell_of_pooler
from servmon.store.retention import keep_records
from servmon.store.spool import Spool
from servmon.store.writer import Writer
from servmon.surroundings import Surroundings
from servmon.tasks import cancel, spawn, supervise
from servmon.watchlist import Watchlist
from servmon.web import PAGES
from servmon.web.acknowledge import LINKS

_log = structlog.get_logger(__name__)

Work = Coroutine[Any, Any, None]
LINK_KEY_FILE = "link.key"

# A collection walks so many new objects and all they hold, and no check starts meanwhile.
GC_THRESHOLDS = (5_000, 500, 50)
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
        await daemon.recall_rules()
        await daemon.beginning.begin()
        daemon.causes.restore()
        address = await ladder.enter_async_context(daemon.serve(daemon.watchlist))
        async with asyncio.TaskGroup() as group:
            work = [*daemon.fatal(), *daemon.followers(postgres, edits)]
            side_by_side = [group.create_task(started, name=name) for name, started in work]
            daemon.say_ready(address)
            _settle_interpreter()
            await signals.stop.wait()
            daemon.say_stopping()
            for task in side_by_side:
                task.cancel()
        if daemon.standby.deposed is not None:
            raise daemon.standby.deposed
    _log.info("stopped")


def rules_of(loaded: Loaded) -> Rules:
    """The rules that every endpoint is judged by."""
    settings = loaded.settings
    return Rules(
        retry_interval=settings.service.retry_interval,
        detection_threshold=settings.outage.detection_threshold,
        recovery_threshold=settings.outage.recovery_threshold,
        verification_enabled=settings.outage.verification_enabled,
        dependencies=loaded.dependencies,
    )


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
    """The parts of one running servmon, put together; the flow is in ``run``."""

    def __init__(self, loaded: Loaded, signals: Signals, *, dsn: str, pool: Pool, network: Network) -> None:
        self._signals = signals
        self._manager = service_manager()
        self._dsn = dsn
        listen_url = loaded.settings.database.listen_url
        self._direct_dsn = listen_url.get_secret_value() if listen_url else dsn
        self._pool = pool
        settings = loaded.settings
        self.counters = Counters()
        self.troubles: dict[str, str] = {}
        token = settings.api.token
        self.token = load_or_create_token(settings.servmon.data_dir, token.get_secret_value() if token else None)
        log.hide("token", [self.token.token])
        self._links = _links(settings)
        self._connection = Connection(
            pool, defaults=defaults_of(settings), observer=DEFAULT_OBSERVER, dependencies=loaded.dependencies
        )
        self.stream = Stream()
        self.book = TokenBook([AccessToken.of(ADMIN, self.token.token)])
        self._local_file = LocalFile(settings.servmon.data_dir)
        spool = Spool(self._local_file, settings.database.spool_max_mb * 1024 * 1024)
        notebook = Notebook(self._local_file)
        self.tokens = TokenService(self._connection, self.book, notebook)
        self.sessions = Sessions(self.book, notebook, settings.api.session_hours)
        self.writer = Writer(dsn, self.counters, observer=DEFAULT_OBSERVER, spool=spool)
        self.standing = Standing(self.troubles, self.writer.put_event, settings.servmon.data_dir)
        self.provisioning = Provisioning(loaded, pool, self.standing)
        self.pulse = Pulse(counters=self.counters, set_back=lambda: self.sight.clock_set_back())  # noqa: PLW0108
        self.witnesses = Witnesses(
            self._find_witnesses,
            Asker(network),
            changed=lambda changed: self.sight.connection_changed(changed),  # noqa: PLW0108 - the monitor comes next
        )
        verifier = Verifier(
            counters=self.counters,
            fresh_network=network.fresh,
            dependents=lambda endpoint_id: len(self.monitor.graph.dependants(endpoint_id)),
        )
        self.monitor = Monitor(
            rules=rules_of(loaded),
            writer=self.writer,
            look_again=verifier.look_again,
            doubts=Doubts(self.pulse, self.witnesses),
            counters=self.counters,
        )
        self.scheduler = Scheduler(
            lambda due: self.runner.start(due),  # noqa: PLW0108 - the runner comes next, and needs the scheduler
            counters=self.counters,
            lateness=Histogram(),
            paused=self.monitor.is_paused,
        )
        self.monitor.ask_soon = self.scheduler.ask_soon
        self.monitor.publish = self.stream.publish_transitions
        self.causes = Causes(self.monitor, ask_now=self.scheduler.ask_now)
        self.monitor.verdicts.ancestry = self.causes
        self.sight = Sight(
            self.monitor,
            self.witnesses,
            tell=self.writer.put_event,
            ask_soon=self.scheduler.ask_soon,
            counters=self.counters,
        )
        self.runner = Runner(
            network,
            self.monitor,
            done=self.scheduler.done,
            lanes=Lanes(socket_cap(settings.service.max_sockets)),
            counters=self.counters,
        )
        self.surroundings = Surroundings(self.monitor, self.causes)
        dispatcher = Dispatcher(settings.alert, tuple(settings.channels), self.surroundings, new_id)
        self.alerting = Alerting(
            dsn,
            dispatcher,
            waiting=self.writer,
            endpoint=self.surroundings.endpoint,
            troubles=self.troubles,
            ledger=Ledger(notebook),
        )
        self.rules = RuleBook(pool, notebook)
        self.slowness = Slowness(self.monitor, dispatcher.response_times, lambda: dispatcher.settings)
        self.planning = Planning(pool, self.alerting, dispatcher, self.surroundings)
        self._configure_alerts()
        self.reload = Reload(loaded.path, signals.reload, self.apply, self.standing)
        self.watchlist = Watchlist(
            pool,
            monitor=self.monitor,
            scheduler=self.scheduler,
            runner=self.runner,
            notebook=notebook,
            is_away=self._is_away,
        )
        self.standby = Standby(self._direct_dsn, settings.servmon.instance, notebook, self._hand_over, self.troubles)
        self.beginning = Beginning(
            dsn,
            pool,
            provisioning=self.provisioning,
            writer=self.writer,
            watchlist=self.watchlist,
            known=Known(notebook, spool),
            observed_as=self._observed_as,
        )
        self.certificates = Certificates(
            self.monitor,
            lambda: self.provisioning.settings.alert.certificate_days,
            tell=self.writer.put_event,
            read_told=lambda since: details_of(pool, EventKind.CERTIFICATE_EXPIRES, since),
        )
        self.elastic = ElasticFollower(
            dsn, lambda: self.provisioning.settings.elasticsearch, counters=self.counters, troubles=self.troubles
        )
        self.condition = Condition(
            self.provisioning,
            watchlist=self.watchlist,
            scheduler=self.scheduler,
            writer=self.writer,
            witnesses=self.witnesses,
            alerting=self.alerting,
            troubles=self.troubles,
        )

    async def leads(self) -> bool:
        """Wait until this daemon is the one of its instance that checks; ``False`` where it is asked to stop before."""
        leader = await self.standby.leader()
        if leader is None:
            return True
        tokens = spawn(supervise("tokens", self.tokens.follow, self.troubles), name="tokens")
        try:
            async with self.serve(live=None):
                self._manager.tell(READY="1", STATUS=f"stands by, {leader.name} leads")
                return await self.standby.wait(leader, self._signals.stop)
        finally:
            await cancel(tokens)

    async def _hand_over(self) -> None:
        await self.beginning.hand_over()
        await self.alerting.hand_over()

    def _is_away(self) -> bool:
        return self.beginning.waits or self.writer.is_away

    def _observed_as(self, number: int) -> None:
        self.writer.observer = self._connection.observer = number

    def fatal(self) -> Iterator[tuple[str, Work]]:
        """What servmon is nothing without: where one of these fails, the process ends."""
        yield "writer", self.writer.run()
        yield "scheduler", self.scheduler.run()
        yield "leadership", self.standby.hold(self._signals.stop)

    def followers(self, postgres: EmbeddedPostgres | None, edits: ConfigWatch | None) -> Iterator[tuple[str, Work]]:
        """What may fail without stopping checks: it is started again, and what is wrong is shown meanwhile."""
        feed = ChangeFeed(self._direct_dsn)
        follow: dict[str, Callable[[], Awaitable[None]]] = {
            "changes": lambda: self._follow_changes(feed),
            "Postgres": self.beginning.follow,
            "pooler": lambda: tell_of_pooler(self._direct_dsn, self.troubles),
            "own pulse": self.pulse.run,
            "witnesses": self.witnesses.run,
            "blind endpoints": self.sight.follow_blindness,
            "causes": self.causes.follow,
            "certificates": self.certificates.follow,
            "alerts": self.alerting.run,
            "response times": self.slowness.follow,
            "planned work": self.planning.follow,
            "heartbeat": lambda: beat(lambda: self.provisioning.settings.alert, self.condition.unwell),
            "window ends": self.watchlist.follow_window_ends,
            "service manager": lambda: self._manager.follow(self.condition.is_well, self.condition.in_a_line),
            "repeats in the log": log.count_repeats,
            "retention": lambda: keep_records(self._pool, lambda: self.provisioning.settings.cleanup),
            "rollups": lambda: rollup_worker.follow(self._pool),
            "elasticsearch sync": self.elastic.run,
            "reload": self.reload.follow,
        }
        if edits is not None:
            follow["edits of the configuration"] = lambda: self.reload.follow_edits(edits)
        if postgres is not None:
            follow["embedded Postgres"] = postgres.run
        for name, work in follow.items():
            yield name, supervise(name, work, self.troubles)

    async def _follow_changes(self, feed: ChangeFeed) -> None:
        """Whatever somebody changed in Postgres counts here within a second."""
        while True:
            await feed.wait()
            await self.watchlist.refresh()
            await self.tokens.refresh()
            if await self.rules.refresh():
                self.alerting.go_by(self._alert_settings())

    @asynccontextmanager
    async def serve(self, live: Watchlist | None) -> AsyncIterator[str]:
        """The admin API, listening; gives its address. Without ``live`` it answers from what is stored."""
        api = self.provisioning.settings.api
        await self.tokens.recall()
        await self.sessions.recall()
        services = Services(
            self._connection,
            AvailabilityService(self._connection, live),
            OutageManagementService(self._connection, live, lambda: tuple(self.provisioning.settings.channels)),
            AlertService(self._connection),
            self.tokens,
            AlertRuleService(
                self._connection,
                lambda: self.provisioning.settings.alert,
                lambda: tuple(self.provisioning.settings.channels),
            ),
        )
        app = build_app(
            services,
            book=self.book,
            live=live,
            stream=self.stream,
            running=Configuration(self._reload_now, lambda: effective(self.provisioning.loaded)),
            entrance=Entrance(api, self.sessions, self.provisioning.settings.servmon.public_url, PAGES),
            vitals=Vitals(
                counters=self.counters,
                lateness=self.scheduler.lateness,
                degraded=self.condition.degraded,
                is_away=self._is_away,
                gauges=lambda: chain(self.condition.gauges(), self.elastic.gauges()),
            ),
        )
        app[LINKS] = self._links
        server = await serve(app, api.host if api.wants_port else None, api.port, api.place)
        try:
            yield f"http://{_in_url(api.host)}:{server.port}" if api.wants_port else f"unix:{api.socket}"
        finally:
            await server.stop()

    def say_ready(self, address: str) -> None:
        """Say what is watched and where to look."""
        self._manager.tell(READY="1", STATUS=self.condition.in_a_line())
        self.condition.say_ready(address, self.token)

    def say_stopping(self) -> None:
        """Say that the end has begun."""
        _log.info("stopping")
        self._manager.tell(STOPPING="1", STATUS="stopping")

    def _find_witnesses(self) -> Iterator[str]:
        for witness in self.provisioning.settings.outage.witnesses:
            yield from system_witnesses() if witness == AUTO else (witness,)

    async def finish(self) -> None:
        """Abandon what is under way, and store every result there is."""
        await self.runner.stop()
        await self.monitor.stop()
        await self.witnesses.stop()
        await self.writer.drain()
        await self.standby.end()
        with contextlib.suppress(StoreUnavailableError):
            await self._local_file.close()

    async def apply(self, loaded: Loaded, force: bool) -> None:
        """Make a configuration that can be used the one that runs: first what can fail, then the swap."""
        self._manager.tell(RELOADING="1", MONOTONIC_USEC=str(int(SYSTEM_CLOCK.monotonic() * 1e6)))
        try:
            await self._apply(loaded, force)
        finally:
            self._manager.tell(READY="1", STATUS=self.condition.in_a_line())

    async def _apply(self, loaded: Loaded, force: bool) -> None:
        before, settings = self.provisioning.settings, loaded.settings
        log.check(settings.log.file)
        open_channels(settings.channels, settings.alert.fallback_channel)
        await self.provisioning.change(loaded, force=force)
        log.configure(settings.log.level, settings.log.format, settings.log.file)
        self._connection.defaults = defaults_of(settings)
        self._connection.dependencies = loaded.dependencies
        await self.monitor.change_rules(rules_of(loaded))
        self._configure_alerts()
        await self.watchlist.refresh()
        await self.provisioning.keep()
        _log.info("configuration applied", endpoints=loaded.number)
        self.condition.say_warnings()
        for section in RESTART_SECTIONS:
            if getattr(before, section) != getattr(settings, section):
                _log.warning("this change needs a restart", section=section)

    async def recall_rules(self) -> None:
        """Go by the alert rules that were stored when they were last read; Postgres may be away."""
        await self.rules.recall()
        self.alerting.go_by(self._alert_settings())

    def _alert_settings(self) -> AlertSection:
        return with_rules(self.provisioning.settings.alert, self.rules.stored)

    def _configure_alerts(self) -> None:
        settings = self.provisioning.settings
        channels = open_channels(settings.channels, settings.alert.fallback_channel, self._links)
        self.alerting.configure(self._alert_settings(), channels)

    async def _reload_now(self, force: bool) -> int:
        await self.reload.now(force=force)
        return self.provisioning.loaded.number


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


def _links(settings: Settings) -> Links | None:
    """The maker of links in messages, where it is known how this servmon is reached."""
    section = settings.servmon
    if section.public_url is None:
        return None
    key = section.link_key
    secret = key.get_secret_value() if key else keep_secret(section.data_dir / LINK_KEY_FILE, "the key of links")
    log.hide("link key", [secret])
    return Links(section.public_url, secret)


def defaults_of(settings: Settings) -> EndpointDefaults:
    """What stands in for fields that a new endpoint leaves out."""
    service = settings.service
    return EndpointDefaults(service.check_interval, service.check_timeout, service.check_retries)


def _in_url(host: str) -> str:
    """``host`` as a browser on this machine can use it."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
