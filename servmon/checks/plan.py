"""What is asked in every check of an endpoint: all that can be worked out beforehand is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import structlog

from servmon.errors import InvalidInputError
from servmon.model import Endpoint, FailureKind
from servmon.probes.base import Answer, Begin, Options, ProbeFailed, Target
from servmon.probes.network import ProbeContext
from servmon.probes.route import ANY_ROUTE, ConnectingOptions, Route
from servmon.probes.specification import Prepared, prepare

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """An endpoint and its probe, ready to be asked; made once when the endpoint is loaded.

    ``address`` stands in for a look-up of its host. ``begin`` is the probe's way to ask without a task, if it has one.
    """

    endpoint: Endpoint
    prepared: Prepared
    address: str | None = None
    route: Route = field(init=False)
    every_address: bool = field(init=False)
    begin: Begin | None = field(init=False)

    def __post_init__(self) -> None:
        options = self.prepared.options
        connecting = options if isinstance(options, ConnectingOptions) else None
        every_address = connecting is not None and connecting.addresses == "all" and self.address is None
        begin = None if every_address else getattr(self.prepared.probe, "begin", None)
        object.__setattr__(self, "route", ANY_ROUTE if connecting is None else connecting.route)
        object.__setattr__(self, "every_address", every_address)
        object.__setattr__(self, "begin", begin)

    @classmethod
    def of(cls, endpoint: Endpoint) -> Plan:
        """The plan of ``endpoint``; one that can't be asked (its plug-in is gone, say) is UNKNOWN at every check."""
        try:
            return cls(endpoint, prepare(endpoint))
        except InvalidInputError as error:
            _log.error("endpoint cannot be checked", endpoint=endpoint.id, problem=str(error))
            return cls(endpoint, Prepared(_Unaskable(str(error)), Target(endpoint.url, ""), Options()))


class _Unaskable:
    """Stands in for the probe of an endpoint whose stored definition is not valid any more."""

    protocol: ClassVar[str] = ""
    default_port: ClassVar[int | None] = None
    options: ClassVar[type[Options]] = Options
    takes_socket: ClassVar[bool] = False

    def __init__(self, problem: str) -> None:
        self._problem = problem

    async def check(self, _target: Target, _options: Options, _context: ProbeContext) -> Answer:
        raise ProbeFailed(FailureKind.PROBE_ERROR, self._problem)
