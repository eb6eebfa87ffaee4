"""What depends on what, and what an endpoint's failure would mean: from a daemon's memory, or from what is stored."""

from __future__ import annotations

from dataclasses import dataclass

from servmon.detection.dependencies import Graph, Groups, cycle_in_words, cycles, groups_of
from servmon.errors import InvalidInputError
from servmon.model import Endpoint, State
from servmon.services.connection import Connection
from servmon.services.live import LiveView
from servmon.store import endpoints, outages


@dataclass(frozen=True, slots=True)
class EndpointImpact:
    """What follows where an endpoint is out, as things stand; lists are nearest first.

    ``depends_on`` are the groups that it needs itself, with those of rules; ``caused_by`` is what cuts it off now.
    """

    endpoint_id: str
    depends_on: Groups
    caused_by: str | None
    takes_down: tuple[str, ...]
    loses_redundancy: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Dependency:
    """One endpoint that depends on others, with the groups of which it needs one each."""

    endpoint_id: str
    depends_on: Groups


async def impact(connection: Connection, live: LiveView | None, endpoint_id: str) -> EndpointImpact:
    """What the failure of an endpoint, which has to exist, means for others."""
    if live is not None:
        graph, out = live.graph, {one.endpoint_id for one in live.statuses() if one.state is State.DOWN}
    else:
        graph = Graph(await _stored(connection))
        out = {outage.endpoint_id for outage in await outages.open_outages(connection.pool)}
    found = graph.impact(endpoint_id, out.__contains__)
    return EndpointImpact(
        endpoint_id,
        graph.groups(endpoint_id),
        graph.root_cause(endpoint_id, out.__contains__),
        found.takes_down,
        found.loses_redundancy,
    )


async def page(connection: Connection, live: LiveView | None, *, limit: int, after: str | None) -> list[Dependency]:
    """At most ``limit`` endpoints that depend on others, by id, from the first one after the id ``after``."""
    graph = live.graph if live is not None else Graph(await _stored(connection))
    found = sorted(child for child, _ in graph.children() if after is None or child > after)
    return [Dependency(child, graph.groups(child)) for child in found[:limit]]


async def refuse_cycle(connection: Connection, endpoint: Endpoint) -> None:
    """Raise ``InvalidInputError`` with the path where ``endpoint``, as it is to be stored, depends on itself.

    Only what stands above it is read: a circle through it lies there.
    """
    above: dict[str, list[str]] = {endpoint.id: _parents(connection, endpoint)}
    wanted = set(above[endpoint.id]) - {endpoint.id}
    while wanted:
        found = await endpoints.get_some(connection.pool, sorted(wanted))
        above |= {parent: [] for parent in wanted}
        above |= {one.id: _parents(connection, one) for one in found}
        wanted = {parent for one in found for parent in above[one.id]} - above.keys()
    for cycle in cycles(above):
        if endpoint.id in cycle:
            raise InvalidInputError.of("depends_on", cycle_in_words(cycle))


def _parents(connection: Connection, endpoint: Endpoint) -> list[str]:
    return [parent for group in groups_of(endpoint, connection.dependencies) for parent in group]


async def _stored(connection: Connection) -> dict[str, Groups]:
    """The groups of every active endpoint that has any."""
    found = ((one.id, groups_of(one, connection.dependencies)) for one in await endpoints.active(connection.pool))
    return {child: groups for child, groups in found if groups}
