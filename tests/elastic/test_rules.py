"""The alert rules: what Kibana takes, and windows that can fire at any sync interval."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servmon.elastic.kibana.rules import EVERY, Pace, rules
from servmon.elastic.settings import ElasticsearchSection
from servmon.model import AlertThresholds
from tests.fix_kibana import wrong_params

SEED = {
    "Service Down Alert",
    "Service Response Time Alert",
    "Multiple Services Down Alert",
    "Active Outages Alert",
    "Long Duration Outage Alert",
}
RULES = list(rules(AlertThresholds(), Pace(300, 300, 60)))


def test_the_seeds_five_are_there_and_at_first_on_as_servmons_own_are():
    assert {rule.name for rule in RULES} == SEED
    assert {rule.key for rule in RULES if not rule.enabled} == {"response-time", "active-outages"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.key)
def test_kibana_takes_its_parameters(rule):
    assert wrong_params(dict(rule.params)) is None
    # Otherwise what is still down would recover at the next run.
    assert rule.params["excludeHitsFromPreviousRun"] is False


def test_an_id_is_the_same_at_every_installation_and_another_in_every_space():
    ids = {rule.id(space) for rule in RULES for space in ("default", "noc")}
    assert len(ids) == 10
    assert {UUID(id_).version for id_ in ids} == {5}
    assert RULES[0].id("default") == "2c73a1e3-8cbc-5aac-b311-020226f2cf9c"


minutes = st.integers(1, 24 * 60).map(lambda number: number * 60)
seconds = st.integers(1, 86_400)


@given(sync=seconds, failed=st.booleans(), lag=st.integers(0, 50), run=seconds)
def test_an_open_outage_is_in_the_window_of_every_run(sync, failed, lag, run):
    """It is seen at 0 and then at every refresh, of which one may fail; what is seen arrives ``lag`` later."""
    refresh = ElasticsearchSection(sync_interval=sync).refresh_interval
    seen = [0] + [at for at in range(refresh, run + 1, refresh) if not (failed and at == run // refresh * refresh)]
    arrived = max((at for at in seen if at + lag <= run), default=None)
    if arrived is not None:
        assert run - arrived <= Pace(refresh, sync, 60).open_outages()


@given(sync=seconds, interval=st.integers(1, 3600), phase=st.integers(0, 3600), failed=st.booleans(), run=seconds)
def test_a_check_of_every_endpoint_is_in_the_window_of_every_run(sync, interval, phase, failed, run):
    """A check is there from the sync after it on, or from the one after that where a sync failed."""
    last_sync = run // sync * sync - (sync if failed else 0)
    newest = phase % interval + (last_sync - phase % interval) // interval * interval
    if newest >= 0:
        assert run - newest <= Pace(sync, sync, interval).checks()


def test_the_window_is_longer_than_a_run_of_the_rule_is_apart():
    assert timedelta(minutes=int(EVERY.removesuffix("m"))).total_seconds() <= Pace(1, 1, 1).open_outages()
