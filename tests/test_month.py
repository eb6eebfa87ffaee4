"""How many real outages are found, and how many false ones declared, in bad weather: see `month` for the model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.month import Loss, Score, formula, make_month, play, score, seconds_of
from tests.skim import ORIGIN, skim

README = Path(__file__).parent.parent / "README.md"


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr("servmon.monitor._log", _Silent())


class _Silent:
    """Thousands of suspicions a day would be printed otherwise."""

    def info(self, *_words, **_fields):
        pass

    warning = info


def moments(outages) -> list[tuple[str, float, float]]:
    """Whose outages, since when, declared when."""
    return sorted(
        (one.endpoint_id, seconds_of(one.start_time, ORIGIN), seconds_of(one.declared_at, ORIGIN)) for one in outages
    )


@pytest.mark.parametrize(("loss", "threshold"), [(Loss.ALL, 2), (Loss.HALF, 3)])
def test_skimming_declares_the_same_outages_as_the_real_scheduler_and_monitor(loss, threshold):
    month = make_month(1 / 24, seed=7, real=10, loss=loss, endpoints=250)
    skimmed = moments(skim(month, threshold))
    played = moments(play(month, threshold))
    assert len(skimmed) >= 5
    assert [one for one, *_ in skimmed] == [one for one, *_ in played]
    for (_, *found), (_, *expected) in zip(skimmed, played, strict=True):
        assert found == pytest.approx(expected, abs=0.1)  # some ticks


def scored(days: float, seed: int, threshold: int, loss: Loss = Loss.HALF) -> Score:
    month = make_month(days, seed, loss=loss)
    return score(month, skim(month, threshold), threshold, ORIGIN)


def test_a_bad_day_finds_every_long_outage_within_the_formula_and_declares_no_false_one():
    for threshold in (2, 3, 5):
        day = scored(1, seed=1, threshold=threshold)
        assert (day.missed_though_long, day.false, day.silences) == (0, 0, 0)
        assert day.found >= 50
        assert day.slowest <= formula(threshold)


def test_where_bursts_lose_everything_only_silences_of_a_minute_are_declared():
    day = scored(1, seed=1, threshold=3, loss=Loss.ALL)
    assert day.missed_though_long == 0
    assert day.silences > 50
    # Two silences, 46 and 31 s long, with a second between them in which no check was due.
    assert day.false == 1


@pytest.mark.deep
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("loss", Loss)
def test_the_table_of_a_bad_month_in_the_readme_is_what_comes_out(loss):
    documented = README.read_text(encoding="utf-8")
    for threshold in (2, 3, 4, 5):
        month = scored(30, seed=1, threshold=threshold, loss=loss)
        assert row(month, loss) in documented
        assert month.missed_though_long == 0
        assert month.slowest <= formula(threshold)
        if loss is Loss.HALF and threshold >= 3:
            assert month.false + month.silences <= 1


def row(month: Score, loss: Loss) -> str:
    """A line of the README's table."""
    return (
        f"| {loss.value:.0%} | {month.threshold} | {month.found} | {month.missed} | {month.slowest:.0f} s "
        f"(formula {formula(month.threshold):.1f}) | {month.false} | {month.in_burst} | {month.silences} |"
    )
