"""A way to one servmon database, for the services: pool, defaults, clock."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from servmon.clock import SYSTEM_CLOCK, Clock
from servmon.errors import TooSoonError
from servmon.model import DependencyRule
from servmon.probes.specification import EndpointDefaults
from servmon.store.pool import Pool, open_pool

# The number of the one who asks, in the rows; every daemon is 1 as long as there is but one.
DEFAULT_OBSERVER = 1
MANUAL_CHECK_SPACING_SECONDS = 1.0
POOL_SIZE = 8


class ManualChecks:
    """Lets one manual check a second through for each endpoint."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started: dict[str, float] = {}

    def admit(self, endpoint_id: str) -> None:
        """Note that a check of ``endpoint_id`` starts now. Raises ``TooSoonError`` within a second of the last."""
        now = self._clock.monotonic()
        # What is older than a second decides nothing any more, so the notes never pile up.
        self._started = {known: at for known, at in self._started.items() if now - at < MANUAL_CHECK_SPACING_SECONDS}
        if endpoint_id in self._started:
            wait = self._started[endpoint_id] + MANUAL_CHECK_SPACING_SECONDS - now
            raise TooSoonError(f"{endpoint_id} was checked by hand less than a second ago", retry_after=wait)
        self._started[endpoint_id] = now


@dataclass(slots=True)
class Connection:
    """What the services work on. ``defaults`` stand in for fields that a new endpoint leaves out.

    ``dependencies`` are the rules of the configuration file, where there is one.

    As a context manager it closes its pool at the end. Every service on the same connection shares the limit on
    manual checks.
    """

    pool: Pool
    defaults: EndpointDefaults = field(default_factory=EndpointDefaults)
    clock: Clock = SYSTEM_CLOCK
    observer: int = DEFAULT_OBSERVER
    dependencies: tuple[DependencyRule, ...] = ()
    manual_checks: ManualChecks = field(init=False)

    def __post_init__(self) -> None:
        self.manual_checks = ManualChecks(self.clock)

    async def close(self) -> None:
        """Close the pool, once what is under way has ended."""
        await self.pool.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        await self.close()


class connect:  # noqa: N801 - callers use it as a function
    """Opens a connection: ``db = await connect(dsn)``, or ``async with connect(dsn) as db:``.

    ``dsn`` is a Postgres URL such as ``postgresql://servmon@db.example/servmon``. Raises ``StoreUnavailableError``
    where nothing answers there.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._connection: Connection | None = None

    def __await__(self) -> Generator[Any, Any, Connection]:
        return self._open().__await__()

    async def __aenter__(self) -> Connection:
        self._connection = await self._open()
        return self._connection

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def _open(self) -> Connection:
        return Connection(await open_pool(self._dsn, max_size=POOL_SIZE))
