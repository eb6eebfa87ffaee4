"""The part that checks: what is watched, when it is asked, what the answers mean, and whether they can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from servmon.causes import Causes
from servmon.certificates import Certificates
from servmon.checks.doubts import Doubts
from servmon.checks.lanes import Lanes, socket_cap
from servmon.checks.pulse import Pulse
from servmon.checks.runner import Runner
from servmon.checks.scheduler import Due, Scheduler
from servmon.checks.verification import Verifier
from servmon.checks.witnesses import Asker, Witnesses, system_witnesses
from servmon.detection.connectivity import Reach
from servmon.detection.settings import AUTO
from servmon.metrics import Histogram
from servmon.model import EventKind, Transition
from servmon.monitor import Monitor, Rules
from servmon.parts.ground import Followers, Ground
from servmon.probes.network import Network
from servmon.settings import Loaded
from servmon.sight import Sight
from servmon.store.events import details_of
from servmon.watchlist import Watchlist

# What answers within this at a stop is stored; a target that hangs is asked again after the start.
GRACE_SECONDS = 1.0


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


class CheckingPart:
    """``publish`` hears of every transition; ``is_away`` says that Postgres is.

    Three circles are closed here: a check that is due goes to the runner, which tells the scheduler of its end; and
    both pulse and witnesses make the monitor doubt, and tell ``sight``, which looks at what the monitor holds.
    """

    def __init__(
        self,
        ground: Ground,
        network: Network,
        *,
        publish: Callable[[Sequence[Transition]], None],
        is_away: Callable[[], bool],
    ) -> None:
        self._ground = ground
        counters = ground.counters
        self.pulse = Pulse(counters=counters, set_back=self._clock_set_back)
        self.witnesses = Witnesses(self._find_witnesses, Asker(network), changed=self._connection_changed)
        self.monitor = Monitor(
            rules=rules_of(ground.provisioning.loaded),
            writer=ground.writer,
            look_again=Verifier(counters=counters, fresh_network=network.fresh, dependents=self._dependents).look_again,
            doubts=Doubts(self.pulse, self.witnesses),
            counters=counters,
        )
        self.scheduler = Scheduler(self._start, counters=counters, lateness=Histogram(), paused=self.monitor.is_paused)
        self.monitor.ask_soon = self.scheduler.ask_soon
        self.monitor.publish = publish
        self.causes = Causes(self.monitor, ask_now=self.scheduler.ask_now)
        self.monitor.verdicts.ancestry = self.causes
        self.sight = Sight(
            self.monitor,
            self.witnesses,
            tell=ground.writer.put_event,
            ask_soon=self.scheduler.ask_soon,
            counters=counters,
        )
        self.runner = Runner(
            network,
            self.monitor,
            done=self.scheduler.done,
            lanes=Lanes(socket_cap(ground.settings.service.max_sockets)),
            counters=counters,
        )
        self.watchlist = Watchlist(
            ground.pool,
            monitor=self.monitor,
            scheduler=self.scheduler,
            runner=self.runner,
            notebook=ground.notebook,
            is_away=is_away,
        )
        self.certificates = Certificates(
            self.monitor,
            lambda: ground.settings.alert.certificate_days,
            tell=ground.writer.put_event,
            read_told=lambda since: details_of(ground.pool, EventKind.CERTIFICATE_EXPIRES, since),
        )

    def followers(self) -> Followers:
        """What runs beside the schedule."""
        return {
            "own pulse": self.pulse.run,
            "witnesses": self.witnesses.run,
            "blind endpoints": self.sight.follow_blindness,
            "causes": self.causes.follow,
            "certificates": self.certificates.follow,
            "window ends": self.watchlist.follow_window_ends,
        }

    async def settle(self) -> None:
        """Let the checks end that do within a moment; their schedule has ended before."""
        await self.runner.settle(GRACE_SECONDS)

    async def stop(self) -> None:
        """Abandon the checks, second looks and rounds under way."""
        await self.runner.stop()
        await self.monitor.stop()
        await self.witnesses.stop()

    def _start(self, due: Due) -> None:
        self.runner.start(due)

    def _clock_set_back(self) -> None:
        self.sight.clock_set_back()

    def _connection_changed(self, changed: Mapping[int, Reach]) -> None:
        self.sight.connection_changed(changed)

    def _dependents(self, endpoint_id: str) -> int:
        return len(self.monitor.graph.dependants(endpoint_id))

    def _find_witnesses(self) -> Iterator[str]:
        for witness in self._ground.settings.outage.witnesses:
            yield from system_witnesses() if witness == AUTO else (witness,)
