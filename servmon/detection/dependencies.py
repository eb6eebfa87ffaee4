"""Which endpoints stand between another one and us. Pure: parents in, causes and dependants out.

``depends_on`` is a list of groups; an endpoint is cut off where every member of one group is out. Who is not known
counts as well, and a cycle ends where it closes: in doubt people are told.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping

Groups = tuple[tuple[str, ...], ...]


def root_cause(endpoint_id: str, groups_of: Callable[[str], Groups], is_out: Callable[[str], bool]) -> str | None:
    """The endpoint whose failure cuts ``endpoint_id`` off, the farthest one up; ``None`` where nothing does."""
    cause = None
    seen = {endpoint_id}
    current = endpoint_id
    while (parent := _dead_parent(current, groups_of, is_out)) is not None and parent not in seen:
        seen.add(parent)
        cause = current = parent
    return cause


def _dead_parent(endpoint_id: str, groups_of: Callable[[str], Groups], is_out: Callable[[str], bool]) -> str | None:
    for group in groups_of(endpoint_id):
        if group and all(is_out(parent) for parent in group):
            return group[0]
    return None


def children_by_parent(groups: Iterable[tuple[str, Groups]]) -> Mapping[str, list[str]]:
    """Who names whom as a parent, from every endpoint's id and groups."""
    children: defaultdict[str, list[str]] = defaultdict(list)
    for endpoint_id, parents in groups:
        for parent in dict.fromkeys(parent for group in parents for parent in group):
            children[parent].append(endpoint_id)
    return children


def dependants(endpoint_id: str, children: Mapping[str, list[str]]) -> list[str]:
    """Everything below ``endpoint_id``, nearest first, each once; in time linear to the graph."""
    found: dict[str, None] = {}
    waiting = deque([endpoint_id])
    while waiting:
        for child in children.get(waiting.popleft(), ()):
            if child != endpoint_id and child not in found:
                found[child] = None
                waiting.append(child)
    return list(found)
