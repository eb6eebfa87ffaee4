"""How servmon itself is: what it says at start, to the service manager, and to whoever watches it from outside."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator

import structlog

from servmon import __version__
from servmon.alerts.alerting import Alerting
from servmon.api.gate import TROUBLE as API_TROUBLE
from servmon.api.token_file import AdminToken
from servmon.checks.scheduler import Scheduler
from servmon.checks.witnesses import Witnesses
from servmon.log import masked
from servmon.metrics import Gauge
from servmon.provisioning import Provisioning
from servmon.services.live import live_summary
from servmon.store.writer import Writer
from servmon.watchlist import Watchlist

_log = structlog.get_logger(__name__)

# No turn of a healthy loop takes so long; the watchdog is not fed from then on.
STUCK_SECONDS = 30.0
NO_WITNESSES = "[outage] witnesses is empty: while this machine itself is cut off, everything looks like an outage"


class Condition:
    """Asks the parts of a running servmon how they are. ``troubles`` holds what each of its followers suffers from."""

    def __init__(
        self,
        provisioning: Provisioning,
        *,
        watchlist: Watchlist,
        scheduler: Scheduler,
        writer: Writer,
        witnesses: Witnesses,
        alerting: Alerting,
        troubles: dict[str, str],
    ) -> None:
        self._provisioning = provisioning
        self._watchlist = watchlist
        self._scheduler = scheduler
        self._writer = writer
        self._witnesses = witnesses
        self._alerting = alerting
        self._troubles = troubles

    def is_well(self) -> bool:
        """Whether checks start when they are due and their results are taken; else a new start may help."""
        return self._scheduler.overdue_seconds < STUCK_SECONDS and self._writer.accepts

    def unwell(self) -> str | None:
        """What keeps servmon from its work just now, for whoever watches it from outside."""
        if not self.is_well():
            return "checks do not start when they are due, or their results are not taken"
        if "alerts" in self._troubles:
            return masked(f"alerts: {self._troubles['alerts']}")
        return "isolated: all witnesses are silent" if self._witnesses.any_isolated else None

    def in_a_line(self) -> str:
        """The status line of the service manager."""
        counted = live_summary(self._watchlist)
        line = "{total} endpoints: {up} up, {degraded} degraded, {down} down, {unknown} unknown".format_map(counted)
        troubles = len(self.degraded())
        return f"{line}; {counted['active_outages']} open outages" + (f"; {troubles} troubles" if troubles else "")

    def degraded(self) -> list[str]:
        """What is away or set up weakly, a sentence each; checks go on all the same."""
        troubles = [f"{name}: {trouble}" for name, trouble in self._troubles.items()]
        if self._witnesses.any_isolated:
            troubles.append("isolated: all witnesses are silent, so nothing is declared down")
        if not self._provisioning.settings.outage.witnesses:
            troubles.append(NO_WITNESSES)
        if self._writer.is_away:
            troubles.append(f"Postgres: takes no results just now, {self._writer.queued} wait")
        return [masked(trouble) for trouble in (*troubles, *self._provisioning.loaded.warnings)]

    def gauges(self) -> Iterator[Gauge]:
        """What the parts measure about themselves: a new figure is one line here, and one in the README."""
        standing, writer = self._provisioning.standing, self._writer
        yield Gauge("servmon_loop_lag_seconds", "How late the event loop turned last.", self._scheduler.loop_lag)
        yield Gauge(
            "servmon_overdue_seconds", "For how long the most urgent check waits.", self._scheduler.overdue_seconds
        )
        yield Gauge("servmon_writer_queue", "Results that wait for Postgres, in memory and on disk.", writer.queued)
        yield Gauge("servmon_spool_results", "Results that wait for Postgres on disk.", writer.spooled)
        yield Gauge("servmon_postgres_up", "Whether Postgres took the last batch.", not writer.is_away)
        yield Gauge("servmon_results_accepted", "Whether Postgres or the disk takes results.", writer.accepts)
        yield Gauge("servmon_isolated", "Whether all witnesses are silent.", self._witnesses.any_isolated)
        closed = any(name.startswith(API_TROUBLE) for name in self._troubles)
        yield Gauge("servmon_api_open", "Whether the API lets clients in wherever it listens.", not closed)
        yield Gauge("servmon_notifications_owed", "Messages that wait to be sent.", self._alerting.owed)
        yield Gauge("servmon_config_last_reload_successful", "Whether what the file says runs.", not standing.refused)
        if standing.applied_at is not None:
            applied_at = standing.applied_at.timestamp()
            yield Gauge("servmon_config_last_reload_success_timestamp_seconds", "When it was last applied.", applied_at)
        yield Gauge("servmon_tasks", "Tasks of the event loop.", len(asyncio.all_tasks()))
        yield Gauge("servmon_troubles", "Parts that are away, as /readyz names them.", len(self.degraded()))

    def say_ready(self, address: str, token: AdminToken) -> None:
        """Say what is watched and where to look."""
        self.say_warnings()
        self._provisioning.say_broken()
        _log.info("servmon runs", version=__version__, endpoints=len(self._scheduler), api=address)
        if sys.stderr.isatty():
            path = address.removeprefix("unix:")
            where = address if path == address else f"--unix-socket {path} http://localhost"
            browser = f"Or sign in with the token in a browser: {address}/ui/\n\n" if path == address else ""
            sys.stderr.write(
                f"\nTry this in a second terminal:\n\n"
                f'    curl -H "Authorization: Bearer {token.token}" {where}/services/\n\n{browser}'
            )
        elif token.path:
            _log.info("the API's token is in this file", path=str(token.path))

    def say_warnings(self) -> None:
        """Say once more what is set up weakly."""
        for warning in self._provisioning.loaded.warnings:
            _log.warning(warning)
        if not self._provisioning.settings.outage.witnesses:
            _log.warning(NO_WITNESSES)
