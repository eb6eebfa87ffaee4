"""What the doctor says."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, and what to do about it (``""`` where nothing has to be done)."""

    level: Level
    subject: str
    sentence: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{self.level:8}{self.subject}: {self.sentence}"
        return f"{line}\n{'':8}-> {self.remedy}" if self.remedy else line
