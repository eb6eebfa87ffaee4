"""THE MAIN FLOW: build → start → wait → reload → stop.

One ladder of what must be closed in order, and one TaskGroup of what runs side by side. A task that dies of
something unexpected ends the process with exit code 1: systemd starts it again, and what is stored is still there.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import structlog

from servmon import __version__, log
from servmon.api.app import build_app, serve
from servmon.api.auth import ADMIN, AccessToken, load_or_create_token
from servmon.api.health import Vitals
from servmon.checks.lanes import Lanes, socket_cap
from servmon.checks.runner import Runner
from servmon.checks.scheduler import Scheduler
from servmon.checks.verification import Verifier
from servmon.errors import StartError
from servmon.metrics import Counters, Histogram
from servmon.model import Endpoint
from servmon.monitor import Monitor, Rules
from servmon.probes.network import Network
from servmon.probes.specification import EndpointDefaults
from servmon.services.availability import AvailabilityService
from servmon.services.connection import DEFAULT_OBSERVER, Connection
from servmon.services.outages import OutageManagementService
from servmon.settings import ConfigWatch, Loaded, Settings, SettingsError, load_beside
from servmon.store import endpoints
from servmon.store.embedded import EmbeddedPostgres
from servmon.store.feed import ChangeFeed
from servmon.store.migrate import migrate
from servmon.store.pool import AWAY, Pool, open_pool
from servmon.store.retention import keep_partitions
from servmon.store.writer import Writer
from servmon.tasks import supervise
from servmon.watchlist import Watchlist

_log = structlog.get_logger(__name__)

Work = Coroutine[Any, Any, None]

# Read once at start: a change of these needs a restart, and a reload says so.
RESTART_SECTIONS = ("servmon", "database", "api")
RELOAD_AGAIN_SECONDS = 5.0
GC_THRESHOLD = 20_000


async def run(loaded: Loaded, edits: ConfigWatch | None = None) -> None:
    """Run servmon until SIGTERM or SIGINT; reload on SIGHUP and whenever ``edits`` notices one of the file."""
    signals = Signals()
    async with AsyncExitStack() as ladder:
        dsn, postgres = await ladder.enter_async_context(database(loaded.settings))
        await migrate(dsn)
        pool = await ladder.enter_async_context(await open_pool(dsn))
        network = await ladder.enter_async_context(Network())
        daemon = Daemon(loaded, signals, dsn=dsn, pool=pool, network=network)
        ladder.push_async_callback(daemon.finish)
        await daemon.provision(loaded.endpoints)
        await daemon.watchlist.load(daemon.writer)
        address = await ladder.enter_async_context(daemon.serve())
        async with asyncio.TaskGroup() as group:
            work = [*daemon.fatal(), *daemon.followers(postgres, edits)]
            side_by_side = [group.create_task(started, name=name) for name, started in work]
            daemon.say_ready(address)
            _settle_memory()
            await signals.stop.wait()
            _log.info("stopping")
            for task in side_by_side:
                task.cancel()
    _log.info("stopped")


@asynccontextmanager
async def database(settings: Settings) -> AsyncIterator[tuple[str, EmbeddedPostgres | None]]:
    """The DSN of the configured Postgres, or of servmon's own beside it, which runs as long as the context."""
    if settings.database.url is not None:
        yield settings.database.url.get_secret_value(), None
        return
    postgres = EmbeddedPostgres(settings.servmon.data_dir)
    async with postgres as dsn:
        yield dsn, postgres


def rules_of(settings: Settings) -> Rules:
    """The rules that every endpoint is judged by."""
    return Rules(
        retry_interval=settings.service.retry_interval,
        detection_threshold=settings.outage.detection_threshold,
        recovery_threshold=settings.outage.recovery_threshold,
        verification_enabled=settings.outage.verification_enabled,
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


class Daemon:
    """The parts of one running servmon, put together; the flow is in ``run``."""

    def __init__(self, loaded: Loaded, signals: Signals, *, dsn: str, pool: Pool, network: Network) -> None:
        self._loaded = loaded
        self._signals = signals
        self._dsn = dsn
        self._pool = pool
        settings = loaded.settings
        self.counters = Counters()
        self.troubles: dict[str, str] = {}
        token = settings.api.token
        self.token = load_or_create_token(settings.servmon.data_dir, token.get_secret_value() if token else None)
        self._connection = Connection(pool, defaults=defaults_of(settings), observer=DEFAULT_OBSERVER)
        self.writer = Writer(dsn, self.counters, observer=DEFAULT_OBSERVER)
        verifier = Verifier(counters=self.counters, fresh_network=network.fresh)
        self.monitor = Monitor(
            rules=rules_of(settings), writer=self.writer, look_again=verifier.look_again, counters=self.counters
        )
        self.scheduler = Scheduler(
            lambda due: self.runner.start(due),  # noqa: PLW0108 - the runner comes next, and needs the scheduler
            counters=self.counters,
            lateness=Histogram(),
            paused=self.monitor.is_paused,
        )
        self.runner = Runner(
            network,
            self.monitor,
            done=self.scheduler.done,
            lanes=Lanes(socket_cap(settings.service.max_sockets)),
            counters=self.counters,
        )
        self.watchlist = Watchlist(pool, monitor=self.monitor, scheduler=self.scheduler, runner=self.runner)

    def fatal(self) -> Iterator[tuple[str, Work]]:
        """What servmon is nothing without: where one of these fails, the process ends."""
        yield "writer", self.writer.run()
        yield "scheduler", self.scheduler.run()

    def followers(self, postgres: EmbeddedPostgres | None, edits: ConfigWatch | None) -> Iterator[tuple[str, Work]]:
        """What may fail without stopping checks: it is started again, and what is wrong is shown meanwhile."""
        feed = ChangeFeed(self._dsn)
        follow: dict[str, Callable[[], Awaitable[None]]] = {
            "changes": lambda: self.watchlist.follow(feed),
            "window ends": self.watchlist.follow_window_ends,
            "retention": lambda: keep_partitions(self._pool, lambda: self._loaded.settings.cleanup.retention_days),
            "reload": self._follow_reloads,
        }
        if edits is not None:
            follow["edits of the configuration"] = lambda: self._follow_edits(edits)
        if postgres is not None:
            follow["embedded Postgres"] = postgres.run
        for name, work in follow.items():
            yield name, supervise(name, work, self.troubles)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """The admin API, listening; gives its address."""
        api = self._loaded.settings.api
        app = build_app(
            AvailabilityService(self._connection, self.watchlist),
            OutageManagementService(self._connection, self.watchlist),
            tokens=[AccessToken.of(ADMIN, self.token.token)],
            live=self.watchlist,
            vitals=Vitals(
                counters=self.counters,
                lateness=self.scheduler.lateness,
                loop_lag=lambda: self.scheduler.loop_lag,
                writer_queue=lambda: self.writer.queued,
                degraded=self._degraded,
            ),
        )
        server = await serve(app, api.host, api.port)
        try:
            yield f"http://{_in_url(api.host)}:{server.port}"
        finally:
            await server.stop()

    def say_ready(self, address: str) -> None:
        """Say what is watched and where to look."""
        self._say_warnings()
        _log.info("servmon runs", version=__version__, endpoints=len(self.scheduler), api=address)
        if sys.stderr.isatty():
            sys.stderr.write(
                f"\nTry this in a second terminal:\n\n"
                f'    curl -H "Authorization: Bearer {self.token.token}" {address}/services/\n\n'
            )
        elif self.token.path:
            _log.info("the API's token is in this file", path=str(self.token.path))

    def _degraded(self) -> list[str]:
        troubles = [f"{name}: {trouble}" for name, trouble in self.troubles.items()]
        if self.writer.is_away:
            troubles.append(f"Postgres: takes no results just now, {self.writer.queued} wait")
        return [*troubles, *self._loaded.warnings]

    def _say_warnings(self) -> None:
        for warning in self._loaded.warnings:
            _log.warning(warning)

    async def provision(self, wanted: Sequence[Endpoint]) -> None:
        """Bring the endpoints of the configuration file into Postgres; the file's values win."""
        source = f"config:{self._loaded.settings.servmon.instance}"
        done = await endpoints.provision(self._pool, source, wanted)
        for endpoint_id in done.conflicts:
            _log.error("endpoint left alone: its id belongs to another source", endpoint=endpoint_id, source=source)
        if done.added or done.changed or done.removed:
            _log.info(
                "endpoints provisioned", added=len(done.added), changed=len(done.changed), removed=len(done.removed)
            )

    async def finish(self) -> None:
        """Abandon what is under way, and store every result there is."""
        await self.runner.stop()
        await self.monitor.stop()
        await self.writer.drain()

    async def _follow_edits(self, edits: ConfigWatch) -> None:
        while True:
            await edits.changed()
            self._signals.reload.set()

    async def _follow_reloads(self) -> None:
        """Read the configuration again whenever that is wished; a mistake in it leaves all as it is, and is said."""
        while True:
            await self._signals.reload.wait()
            self._signals.reload.clear()
            try:
                await self._reload()
            except StartError as error:
                self._refuse(error)
            except AWAY as error:
                self._refuse(error)
                await asyncio.sleep(RELOAD_AGAIN_SECONDS)
                self._signals.reload.set()

    def _refuse(self, error: Exception) -> None:
        problems = error.lines if isinstance(error, SettingsError) else (str(error) or type(error).__name__,)
        self.troubles["configuration"] = f"not applied: {'; '.join(problems)}"
        for problem in problems:
            _log.error("configuration not applied", problem=problem)

    async def _reload(self) -> None:
        """First what can fail, then the swap."""
        loaded = await load_beside(self._loaded.path)
        settings = loaded.settings
        log.configure(settings.log.level, settings.log.format, settings.log.file)
        await self.provision(loaded.endpoints)
        before, self._loaded = self._loaded.settings, loaded
        self._connection.defaults = defaults_of(settings)
        self.monitor.change_rules(rules_of(settings))
        await self.watchlist.refresh()
        self.troubles.pop("configuration", None)
        _log.info("configuration applied", endpoints=len(loaded.endpoints))
        self._say_warnings()
        for section in RESTART_SECTIONS:
            if getattr(before, section) != getattr(settings, section):
                _log.warning("this change needs a restart", section=section)


def _settle_memory() -> None:
    """What was built at start stays, so the collector need not walk it; checks leave few cycles behind.

    At the usual threshold it ran many times a second over all endpoints, for a tenth of the process's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 50)


def defaults_of(settings: Settings) -> EndpointDefaults:
    """What stands in for fields that a new endpoint leaves out."""
    service = settings.service
    return EndpointDefaults(service.check_interval, service.check_timeout, service.check_retries)


def _in_url(host: str) -> str:
    """``host`` as a browser on this machine can use it."""
    if host in ("0.0.0.0", "::", ""):  # noqa: S104 - compared, not bound
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host
