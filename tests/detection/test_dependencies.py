"""What stands between an endpoint and us."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from servmon.detection.dependencies import Graph, Standing, cycles, standing
from servmon.detection.state import EndpointState
from servmon.model import CheckResult, State, Status

# A power feed, two redundant routers on it, and customers behind them.
PARENTS = {"r1": (("power",),), "r2": (("power",),), "c": (("r1", "r2"),), "d": (("r1",), ("r2",))}
GRAPH = Graph(PARENTS)
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


def cause(endpoint_id: str, *out: str) -> str | None:
    return GRAPH.root_cause(endpoint_id, set(out).__contains__)


def test_nothing_out_is_no_cause():
    assert cause("c") is None
    assert cause("lone", "power") is None


def test_one_member_of_a_group_that_is_up_is_enough():
    assert cause("c", "r1") is None
    assert cause("c", "r1", "r2") == "r1"


def test_every_group_is_needed():
    assert cause("d", "r2") == "r2"


def test_the_cause_is_the_farthest_one_up():
    assert cause("c", "r1", "r2", "power") == "power"


def test_a_parent_between_that_is_up_ends_the_chain():
    assert cause("c", "power") is None


def test_a_parent_in_a_cycle_counts_as_up():
    ring = Graph({"a": (("b",),), "b": (("a",),), "child": (("a",),), "other": (("a",), ("r",))})
    assert ring.root_cause("child", lambda _name: True) is None
    assert ring.root_cause("a", lambda _name: True) is None
    assert ring.root_cause("other", lambda _name: True) == "r"
    assert ring.impact("a").takes_down == ()


def test_every_cycle_is_found_with_its_path():
    found = list(cycles({"a": ["b"], "b": ["c", "x"], "c": ["a"], "self": ["self"], "fine": ["a"]}))
    assert found == [["a", "b", "c", "a"], ["self", "self"]]


def test_who_depends_on_whom_nearest_first_each_once():
    assert GRAPH.dependants("power") == ["r1", "r2", "c", "d"]
    assert GRAPH.dependants("c") == []


def test_what_a_failure_takes_down_and_what_has_one_way_fewer():
    assert GRAPH.impact("r1").takes_down == ("d",)
    assert GRAPH.impact("r1").loses_redundancy == ("c",)
    assert set(GRAPH.impact("power").takes_down) == {"r1", "r2", "c", "d"}


def test_the_second_of_two_redundant_parents_takes_down_what_both_carried():
    assert GRAPH.impact("r2", {"r1"}.__contains__).takes_down == ("c", "d")


def test_what_is_down_because_of_it_counts_once_and_not_as_out_by_itself():
    everything = GRAPH.impact("power", {"r1", "r2", "c", "d"}.__contains__)
    assert set(everything.takes_down) == {"r1", "r2", "c", "d"}


class Looked(dict):
    """A mapping that counts how often it is read."""

    reads = 0

    def get(self, key, default=None):
        self.reads += 1
        return super().get(key, default)


def diamond(layers: int, width: int) -> Graph:
    """Every node of a layer needs one of all nodes of the layer above."""
    return Graph(
        {
            f"{layer}-{n}": (tuple(f"{layer - 1}-{m}" for m in range(width)),)
            for layer in range(1, layers)
            for n in range(width)
        }
    )


def test_a_diamond_of_a_thousand_nodes_is_walked_in_linear_time():
    graph = diamond(layers=10, width=100)
    graph._memberships = reads = Looked(graph._memberships)
    assert len(graph.dependants("0-0")) == 900
    assert reads.reads == 901
    asked = 0

    def is_out(name: str) -> bool:
        nonlocal asked
        asked += 1
        return name.startswith("0-")

    # Everything else of the first layer is out, so the last one takes all others down. An edge is asked about once.
    assert len(graph.impact("0-99", is_out).takes_down) == 900
    assert asked <= 9 * 100 * 100
    asked = 0
    assert graph.root_cause("9-0", lambda _name: is_out("0-") or True) == "0-0"
    assert asked <= 9 * 100


def state(kind: State, status: Status, *, seconds_ago: float = 10, since: float = 10) -> EndpointState:
    last = CheckResult("r", 1, status, NOW - timedelta(seconds=seconds_ago))
    return EndpointState(state=kind, since=NOW - timedelta(seconds=since), last=last)


@pytest.mark.parametrize(
    ("parent", "muted", "expected"),
    [
        (state(State.DOWN, Status.DOWN), False, Standing.OUT),
        (state(State.DOWN, Status.UP), False, Standing.OUT),  # not recovered yet
        (state(State.SUSPECTED, Status.DOWN, since=89), False, Standing.UNDECIDED),
        (state(State.SUSPECTED, Status.DOWN, since=91), False, Standing.OUT),
        (state(State.SUSPECTED, Status.UNKNOWN, since=91), False, Standing.UP),
        (state(State.UP, Status.UP), False, Standing.UP),
        (state(State.DEGRADED, Status.DEGRADED), False, Standing.UP),
        (state(State.UNKNOWN, Status.UNKNOWN), False, Standing.UP),
        (EndpointState(), False, Standing.UP),
        (state(State.UP, Status.DOWN), True, Standing.OUT),
        (state(State.UP, Status.UP), True, Standing.UP),
    ],
)
def test_how_a_parent_stands(parent, muted, expected):
    assert standing(parent, NOW, asked_at=None, muted=muted) is expected


def test_a_parent_that_was_up_is_undecided_until_it_was_asked_again_but_not_for_ever():
    stale = state(State.UP, Status.UP, seconds_ago=50)
    assert standing(stale, NOW, asked_at=NOW - timedelta(seconds=20), muted=False) is Standing.UNDECIDED
    assert standing(stale, NOW, asked_at=NOW - timedelta(seconds=60), muted=False) is Standing.UP
    unheard = state(State.UP, Status.UP, seconds_ago=200)
    assert standing(unheard, NOW, asked_at=NOW - timedelta(seconds=91), muted=False) is Standing.UP
