"""Every pair of (status × maintenance × acknowledged): what leaves on the way from one to the other.

The expected messages are the table in the README, under "From one state to the other".
"""

from __future__ import annotations

from pathlib import Path

import pytest

from servmon.alerts.alert import MessageKind
from tests.alerts.test_dispatcher import Desk, down, outage, up
from tests.alerts.test_window_ends import over

README = Path(__file__).parents[2] / "README.md"
WORDS = {
    MessageKind.DOWN: "down",
    MessageKind.RECOVERED: "up",
    MessageKind.BRIEF: "was down",
    MessageKind.WINDOW_OVER: "window over, still down",
}
NOTHING = "-"
TOLD_AT_ONCE = "down"
LEARNED_IN_WINDOW = "down, began in a window"


class Story:
    """One endpoint that is brought from state to state; ``at`` counts the seconds."""

    def __init__(self) -> None:
        self.desk = Desk()
        self.at = 0.0
        self.is_down = False
        self.said: list[str] = []

    def become(self, state: str) -> None:
        """A window and news first, then what a person does about them; then a quarter of an hour goes by."""
        self._plan(in_window="window" in state)
        news = []
        if state.startswith("down") is not self.is_down:
            self.is_down = not self.is_down
            news = [down("web", self.at)] if self.is_down else [up("web", self.at)]
            self.desk.present.outages = {"web": outage("web", self.at)} if self.is_down else {}
        self._round(*news)
        self.desk.dispatcher.acknowledged = frozenset({"outage-web"} if "acknowledged" in state else ())
        for _ in range(30):
            self._round()

    def _plan(self, *, in_window: bool) -> None:
        present = self.desk.present
        if in_window and not present.windows:
            present.windows, present.near = {"web"}, [over("web", end=1_000_000)]
        elif present.windows and not in_window:
            present.windows, present.near = set(), [over("web", end=self.at)]

    def _round(self, *news) -> None:
        self.said += [WORDS[kind] for kind, _ in self.desk.at(self.at, *news)]
        self.at += 30


def table() -> list[tuple[str, str, str]]:
    """(from, to, expected) of every cell in the README."""
    text = README.read_text(encoding="utf-8").partition("### From one state to the other")[2]
    lines = [line for line in text.partition("\n#")[0].splitlines() if line.startswith("|")]
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [(row[0], to, cell) for row in rows for to, cell in zip(head[1:], row[1:], strict=True)]


def test_the_table_is_complete():
    states = ["up", "up, window", "down", "down, acknowledged", "down, window", "down, acknowledged, window"]
    pairs = [(before, after) for before, after, _ in table()]
    assert pairs == [(before, after) for before in [*states, LEARNED_IN_WINDOW] for after in states]


@pytest.mark.parametrize(("before", "after", "expected"), table())
def test_what_leaves_between_two_states(before, after, expected):
    story = Story()
    if before == LEARNED_IN_WINDOW:
        story.become("up, window")
        story.become("down, window")
    else:
        if before.startswith("down"):
            story.become(TOLD_AT_ONCE)
        story.become(before)
    story.said.clear()
    story.become(after)
    assert (", ".join(story.said) or NOTHING) == expected
