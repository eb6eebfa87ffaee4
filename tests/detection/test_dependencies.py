"""What stands between an endpoint and us."""

from __future__ import annotations

from servmon.detection.dependencies import children_by_parent, dependants, root_cause

# A power feed, two redundant routers on it, and customers behind them.
PARENTS = {"r1": (("power",),), "r2": (("power",),), "c": (("r1", "r2"),), "d": (("r1",), ("r2",)), "lone": ()}


def cause(endpoint_id: str, *out: str) -> str | None:
    return root_cause(endpoint_id, lambda name: PARENTS.get(name, ()), set(out).__contains__)


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


def test_a_cycle_ends_where_it_closes():
    ring = {"a": (("b",),), "b": (("a",),)}
    assert root_cause("a", ring.__getitem__, lambda _name: True) == "b"


def test_who_depends_on_whom_nearest_first_each_once():
    children = children_by_parent(PARENTS.items())
    assert dependants("power", children) == ["r1", "r2", "c", "d"]
    assert dependants("c", children) == []


def test_a_diamond_of_a_thousand_nodes_is_walked_once():
    looked = []

    class Counting(dict):
        def get(self, key, default=None):
            looked.append(key)
            return super().get(key, default)

    layers = 10
    groups = [
        (f"{layer}-{n}", (tuple(f"{layer - 1}-{m}" for m in range(100)),))
        for layer in range(1, layers)
        for n in range(100)
    ]
    children = Counting(children_by_parent(groups))
    assert len(dependants("0-0", children)) == 900
    assert len(looked) == 901
