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
from servmon.services.pace import Pace
from servmon.store.pool import Pool, open_pool

# The number of the one who asks, in the rows; every daemon is 1 as long as there is but one.
DEFAULT_OBSERVER = 1
MANUAL_CHECK_SPACING_SECONDS = 1.0
MOST_MANUAL_CHECKS = 120
MANUAL_CHECKS_SECONDS = 60.0
POOL_SIZE = 8


class ManualChecks:
    """Lets one manual check a second through for each endpoint, and so many a minute for each who asks over the API."""

    def __init__(self, clock: Clock) -> None:
        self._of_endpoint = Pace(1, MANUAL_CHECK_SPACING_SECONDS, clock)
        self._of_person = Pace(MOST_MANUAL_CHECKS, MANUAL_CHECKS_SECONDS, clock)

    def admit(self, endpoint_id: str, by: str | None = None) -> None:
        """Note that a check of ``endpoint_id`` starts now. Raises ``TooSoonError`` within a second of the last.

        Where it is asked for ``by`` somebody it also raises that where these are too many in a minute.
        """
        if wait := self._of_endpoint.wait(endpoint_id):
            raise TooSoonError(f"{endpoint_id} was checked by hand less than a second ago", retry_after=wait)
        if by is not None and (wait := self._of_person.wait(by)):
            said = f"{by} asked for {MOST_MANUAL_CHECKS} checks within a minute; the schedule goes on by itself"
            raise TooSoonError(said, retry_after=wait)


@dataclass(slots=True)
class Connection:
    """What the services work on. ``defaults`` stand in for fields that a new endpoint leaves out.

    ``dependencies`` are the rules of the configuration file, where there is one, ``detection_threshold`` is what it
    says for endpoints that say nothing of their own.

    As a context manager it closes its pool at the end. Every service on the same connection shares the limit on
    manual checks.
    """

    pool: Pool
    defaults: EndpointDefaults = field(default_factory=EndpointDefaults)
    clock: Clock = SYSTEM_CLOCK
    observer: int = DEFAULT_OBSERVER
    dependencies: tuple[DependencyRule, ...] = ()
    detection_threshold: int = 3
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
