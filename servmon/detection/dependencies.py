"""Which endpoints stand between another one and us. Pure: parents in, causes and dependants out.

``depends_on`` is a list of groups; an endpoint is cut off where every member of one group is out. A parent that is
not watched, or stands in a cycle, counts as up: in doubt people are told.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum, auto

from servmon.detection.state import EndpointState
from servmon.model import DependencyRule, Endpoint, State, Status

Groups = tuple[tuple[str, ...], ...]

# A child waits for the verdict on its parent, but not for ever.
LONGEST_SUSPICION = timedelta(seconds=90)
# After a parent came back, its children have so many of their intervals to follow.
GRACE_INTERVALS = 2
# A circle of thousands need not be written out to be understood.
_SHOWN_OF_CYCLE = 12


class Standing(Enum):
    """What a parent is to its children just now."""

    UP = auto()
    OUT = auto()
    UNDECIDED = auto()


def groups_of(endpoint: Endpoint, rules: Sequence[DependencyRule]) -> Groups:
    """The groups of parents of which ``endpoint`` needs one each: its own, and those that rules give it."""
    if not rules:
        return endpoint.depends_on
    given = (group for rule in rules if rule.selects(endpoint) for group in rule.parents)
    return tuple(dict.fromkeys((*endpoint.depends_on, *given)))


@dataclass(frozen=True, slots=True)
class Impact:
    """What an endpoint's failure means for those that depend on it, nearest first: cut off, or one way fewer."""

    takes_down: tuple[str, ...]
    loses_redundancy: tuple[str, ...]


def standing(state: EndpointState, at: datetime, *, asked_at: datetime | None, muted: bool) -> Standing:
    """How a parent that is watched and not paused stands; ``muted`` where a window is over it.

    It is out only when verified DOWN, or where it still fails after 90 s of suspicion. What it said before
    ``asked_at`` counts only against it: until it was asked again it is undecided, for 90 s at most.
    """
    last = state.last
    failed = last is not None and last.status is Status.DOWN
    if state.state is State.DOWN:
        return Standing.OUT
    if state.state is State.SUSPECTED and at - (state.since or at) <= LONGEST_SUSPICION:
        return Standing.UNDECIDED
    if state.state is State.UNKNOWN and not failed:
        return Standing.UP
    stale = asked_at is not None and (last is None or last.timestamp < asked_at)
    if stale and asked_at is not None and at - asked_at <= LONGEST_SUSPICION:
        return Standing.UNDECIDED
    return Standing.OUT if failed and (muted or state.state is State.SUSPECTED) else Standing.UP


class Graph:
    """Who depends on whom, of all endpoints at once; frozen, so made anew when anything of it changes."""

    def __init__(self, groups: Mapping[str, Groups]) -> None:
        named = {child: tuple(parent for group in some for parent in group) for child, some in groups.items()}
        in_circles = {one for cycle in cycles(named) for one in cycle}
        self._groups: dict[str, Groups] = {}
        # For each parent the groups it is in, as (child, number of the group).
        self._memberships: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
        for child, some in groups.items():
            kept = tuple(group for group in some if group and in_circles.isdisjoint(group))
            if kept:
                self._groups[child] = kept
            for number, group in enumerate(kept):
                for parent in dict.fromkeys(group):
                    self._memberships[parent].append((child, number))

    def __bool__(self) -> bool:
        return bool(self._groups)

    def groups(self, endpoint_id: str) -> Groups:
        """The groups of parents that an endpoint needs, without those that a cycle makes meaningless."""
        return self._groups.get(endpoint_id, ())

    def children(self) -> Iterator[tuple[str, Groups]]:
        """Everything that depends on something, with its groups."""
        return iter(self._groups.items())

    def parents(self, endpoint_id: str) -> Iterator[str]:
        """Whom an endpoint depends on directly, each once."""
        return iter(dict.fromkeys(parent for group in self.groups(endpoint_id) for parent in group))

    def root_cause(self, endpoint_id: str, is_out: Callable[[str], bool]) -> str | None:
        """The endpoint whose failure cuts ``endpoint_id`` off, the farthest one up; ``None`` where nothing does."""
        cause = None
        current = endpoint_id
        while (parent := self._dead_parent(current, is_out)) is not None:
            cause = current = parent
        return cause

    def undecided(self, endpoint_id: str, standing_of: Callable[[str], Standing]) -> bool:
        """Whether it is open if ``endpoint_id`` is cut off: some group has no member that is known to be up."""
        return any(
            all(standing_of(parent) is not Standing.UP for parent in group)
            and any(standing_of(parent) is Standing.UNDECIDED for parent in group)
            for group in self.groups(endpoint_id)
        )

    def dependants(self, endpoint_id: str) -> list[str]:
        """Everything below ``endpoint_id``, nearest first, each once; in time linear to the graph."""
        found: dict[str, None] = {}
        waiting = deque([endpoint_id])
        while waiting:
            for child, _ in self._memberships.get(waiting.popleft(), ()):
                if child != endpoint_id and child not in found:
                    found[child] = None
                    waiting.append(child)
        return list(found)

    def impact(self, endpoint_id: str, is_out: Callable[[str], bool] = lambda _parent: False) -> Impact:
        """What follows where ``endpoint_id`` is out, beside those that are out already; linear as ``dependants``."""
        below = self.dependants(endpoint_id)
        mine = {endpoint_id, *below}
        left: dict[tuple[str, int], int] = {}
        cut_off: dict[str, None] = {}
        waiting = deque([endpoint_id])
        while waiting:
            for place in self._memberships.get(waiting.popleft(), ()):
                child, number = place
                if place not in left:
                    members = dict.fromkeys(self._groups[child][number])
                    left[place] = sum(member in mine or not is_out(member) for member in members)
                left[place] -= 1
                if left[place] == 0 and child not in cut_off and child != endpoint_id:
                    cut_off[child] = None
                    waiting.append(child)
        return Impact(tuple(cut_off), tuple(child for child in below if child not in cut_off))

    def _dead_parent(self, endpoint_id: str, is_out: Callable[[str], bool]) -> str | None:
        for group in self.groups(endpoint_id):
            if all(is_out(parent) for parent in group):
                return group[0]
        return None


def cycles(parents: Mapping[str, Iterable[str]]) -> Iterator[list[str]]:
    """The paths on which an endpoint depends on itself, first and last the same; every cycle holds one of them.

    Depth first without recursion, every endpoint and dependency once: a chain may be thousands long.
    """
    done: set[str] = set()
    for start in parents:
        path = {start: iter(parents[start])} if start not in done else {}
        while path:
            child = next(reversed(path))
            parent = next(path[child], None)
            if parent is None:
                done.add(child)
                del path[child]
            elif parent in path:
                way = list(path)
                yield [*way[way.index(parent) :], parent]
            elif parent not in done:
                path[parent] = iter(parents.get(parent, ()))


def cycle_in_words(cycle: list[str]) -> str:
    """A path that ``cycles`` found, as a sentence without an end."""
    shown = cycle if len(cycle) <= _SHOWN_OF_CYCLE else [*cycle[:6], "…", *cycle[-5:]]
    return f"goes round in a circle: {' → '.join(shown)}; no endpoint can depend on itself"
