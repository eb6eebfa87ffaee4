"""The cap and its two lanes."""

from __future__ import annotations

import resource

from servmon.checks.lanes import RESERVED_DESCRIPTORS, Lanes, socket_cap


def test_ailing_endpoints_take_at_most_half_of_the_cap():
    lanes = Lanes(10)
    taken = [lanes.enter(lanes.ailing, lambda: True) for _ in range(7)]
    assert taken == [True] * 5 + [False] * 2
    assert lanes.enter(lanes.healthy, lambda: True)
    assert lanes.waiting == 2


def test_a_free_place_goes_to_who_waited_longest_and_to_the_healthy_first():
    lanes = Lanes(2)
    order: list[str] = []

    def wake(name: str):
        return lambda: order.append(name) or True

    assert lanes.enter(lanes.healthy, wake("never"))
    assert lanes.enter(lanes.ailing, wake("never"))
    for name in ("ailing 1", "ailing 2"):
        assert not lanes.enter(lanes.ailing, wake(name))
    assert not lanes.enter(lanes.healthy, wake("healthy 1"))
    lanes.leave(lanes.ailing)
    lanes.leave(lanes.healthy)
    assert order == ["healthy 1", "ailing 1"]
    assert lanes.taken == 2


def test_a_check_that_gave_up_waiting_leaves_its_place_to_the_next():
    lanes = Lanes(2)
    order: list[str] = []
    assert lanes.enter(lanes.ailing, lambda: True)
    assert not lanes.enter(lanes.ailing, lambda: False)
    assert not lanes.enter(lanes.ailing, lambda: order.append("second") or True)
    lanes.leave(lanes.ailing)
    assert order == ["second"]
    assert lanes.ailing.taken == 1


def test_nobody_overtakes_within_a_lane():
    lanes = Lanes(4)
    for _ in range(2):
        lanes.enter(lanes.ailing, lambda: True)
    assert not lanes.enter(lanes.ailing, lambda: True)
    assert not lanes.enter(lanes.ailing, lambda: True)
    assert lanes.waiting == 2


def test_the_soft_descriptor_limit_is_raised_to_the_hard_one():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
        assert socket_cap(100) == 100
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == hard
        assert socket_cap(10**9) == hard - RESERVED_DESCRIPTORS
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
