"""How many real outages are found, and how many false ones declared, in bad weather."""

from __future__ import annotations

import pytest

from tests.month import make_month, play


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr("servmon.monitor._log", _Silent())


class _Silent:
    """Thousands of suspicions a day would be printed otherwise."""

    def info(self, *_words, **_fields):
        pass

    warning = info


def test_an_hour_of_bad_weather_finds_every_long_outage_and_declares_no_false_one():
    score = play(make_month(1 / 24, seed=7, real=10), threshold=3)
    assert score.missed_though_long == 0
    assert score.false == 0


@pytest.mark.deep
@pytest.mark.timeout(1800)
def test_a_bad_day_at_the_defaults_finds_every_long_outage_and_declares_at_most_one_false_one():
    score = play(make_month(1, seed=1), threshold=3)
    assert score.missed_though_long == 0
    assert score.false <= 1
