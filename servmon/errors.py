"""What can be wrong, as sentences. Every message here is written for the person who has to act on it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


class ServmonError(Exception):
    """Base of every error that is a message to a person rather than a defect."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One wrong value: where it stands (``"timeout"``, ``"endpoint_ids.2"``) and what would be right."""

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class InvalidInputError(ServmonError):
    """Values from a person that cannot be accepted; names every wrong one."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in self.problems))

    @classmethod
    def of(cls, field: str, message: str) -> InvalidInputError:
        """The common case of a single wrong value."""
        return cls([Problem(field, message)])


class NotFoundError(ServmonError):
    """No such endpoint, outage or window (or it was deleted)."""


class ConflictError(ServmonError):
    """The request contradicts what is stored, such as an id that is already taken."""


class LostUpdateError(ServmonError):
    """Somebody else changed it since it was read."""


class RefusedError(ConflictError):
    """A conflict of which more can be said than one sentence."""

    def __init__(self, message: str, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(message)


class TooSoonError(ServmonError):
    """The same thing was asked for a moment ago; ``retry_after`` is in seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class StoreUnavailableError(ServmonError):
    """Postgres cannot be reached or refuses writes just now."""


class StartError(ServmonError):
    """The daemon cannot start as configured; the process exits 2 and systemd does not try again."""


class DeposedError(ServmonError):
    """Another daemon of the instance leads by now; this one starts anew and stands by."""
