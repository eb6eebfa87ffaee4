"""How the configuration stands: applied, or refused and why. Said once, and shown until it is right again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import structlog

from servmon.clock import now
from servmon.detection.state import new_id
from servmon.log import masked
from servmon.model import Event, EventKind, Severity

_log = structlog.get_logger(__name__)

TROUBLE = "configuration"


class Standing:
    """Keeps what is wrong in ``troubles``; ``tell`` takes the events of it.

    People are told of the first mistake and of its end, over any restart, which a file in ``data_dir`` remembers; the
    mistakes of a series of attempts in between are logged.
    """

    def __init__(self, troubles: dict[str, str], tell: Callable[[Event], None], data_dir: Path) -> None:
        self._troubles = troubles
        self._tell = tell
        self._note = data_dir / "configuration-refused"
        self._told = self._note.exists()
        self.applied_at: datetime | None = None

    @property
    def refused(self) -> bool:
        """Whether the file is not what runs."""
        return TROUBLE in self._troubles

    def refuse(self, what: str, problems: Sequence[str], *, remedy: str = "") -> None:
        """``what`` is so because of ``problems``: of the file, so that somebody has to mend it."""
        self.delay(what, problems, remedy=remedy)
        if self._told:
            return
        self._told = True
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        message = masked(f"{what}: {problems[0]}{more}")
        details = {"problems": [masked(problem) for problem in problems]}
        self._tell(Event(new_id(), EventKind.CONFIGURATION_REFUSED, Severity.MAJOR, message, now(), details))
        with suppress(OSError):  # a full disk: then it is told once more after a restart
            self._note.write_text(f"{message}\n", encoding="utf-8")

    def delay(self, what: str, problems: Sequence[str], *, remedy: str = "") -> None:
        """As ``refuse``, of what passes without anybody's doing."""
        trouble = f"{what.removeprefix(f'{TROUBLE} ')}: {'; '.join(problems)}{remedy}"
        if self._troubles.get(TROUBLE) != trouble:
            for problem in problems:
                _log.error(what, problem=problem)
        self._troubles[TROUBLE] = trouble

    def accept(self) -> None:
        """What the file says runs from now on."""
        self._troubles.pop(TROUBLE, None)
        self.applied_at = now()
        if self._told:
            self._told = False
            message = "the configuration is right again, and applied"
            self._tell(Event(new_id(), EventKind.CONFIGURATION_APPLIED, Severity.MINOR, message, now()))
            with suppress(OSError):
                self._note.unlink()
