"""Whether what the file says runs: told at the first mistake and at the end of it, over restarts too."""

from __future__ import annotations

import pytest

from servmon.model import Event, EventKind
from servmon.standing import TROUBLE, Standing

REFUSED, APPLIED = EventKind.CONFIGURATION_REFUSED, EventKind.CONFIGURATION_APPLIED


class Servmon:
    """One run of servmon after the other on the same data folder."""

    def __init__(self, data_dir) -> None:
        self.data_dir = data_dir
        self.told: list[Event] = []
        self.restart()

    def restart(self) -> None:
        self.troubles: dict[str, str] = {}
        self.standing = Standing(self.troubles, self.told.append, self.data_dir)

    @property
    def kinds(self) -> list[EventKind]:
        return [event.kind for event in self.told]


@pytest.fixture
def run(tmp_path) -> Servmon:
    return Servmon(tmp_path)


def test_a_right_configuration_is_nothing_to_tell(run):
    run.standing.accept()
    assert (run.kinds, run.troubles, run.standing.refused) == ([], {}, False)
    assert run.standing.applied_at is not None


def test_a_series_of_mistakes_is_told_once_and_shown_as_it_is_now(run):
    run.standing.refuse("configuration not applied", ["a.toml:1: x: no", "a.toml:2: y: no"])
    run.standing.refuse("configuration not applied", ["a.toml:3: z: no"])
    (event,) = run.told
    assert event.message == "configuration not applied: a.toml:1: x: no (and 1 more)"
    assert event.details == {"problems": ["a.toml:1: x: no", "a.toml:2: y: no"]}
    assert run.troubles == {TROUBLE: "not applied: a.toml:3: z: no"}
    run.standing.accept()
    run.standing.accept()
    assert (run.kinds, run.troubles) == ([REFUSED, APPLIED], {})


def test_a_restart_in_between_neither_repeats_nor_forgets(run):
    run.standing.refuse("configuration not applied", ["a.toml:1: x: no"])
    run.restart()
    run.standing.refuse("configuration broken, the last good one runs", ["a.toml:1: x: no"])
    run.restart()
    run.standing.accept()
    run.restart()
    run.standing.accept()
    assert run.kinds == [REFUSED, APPLIED]


def test_what_passes_by_itself_is_shown_and_told_to_nobody(run):
    run.standing.delay("configuration not applied", ["Postgres is away"])
    assert run.standing.refused
    run.standing.accept()
    assert (run.kinds, run.standing.refused) == ([], False)


def test_a_disk_that_takes_nothing_changes_nothing_but_for_a_restart(run, tmp_path):
    run.data_dir = tmp_path / "gone"
    run.restart()
    run.standing.refuse("configuration not applied", ["a.toml:1: x: no"])
    run.standing.refuse("configuration not applied", ["a.toml:2: x: no"])
    run.standing.accept()
    assert run.kinds == [REFUSED, APPLIED]
