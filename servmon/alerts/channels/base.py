"""What every way out is: a class that sends one message, and says which failures are worth another try."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from servmon.alerts.alert import Notification
from servmon.alerts.settings import ChannelSection

# A receiver that takes longer has failed; the message is tried again.
DEADLINE_SECONDS = 30.0
TEXT_LIMIT = 100_000


class ChannelError(Exception):
    """A message did not get through. ``permanent``: no later try can succeed; ``retry_after`` is in seconds.

    ``served`` names those of several ``receivers`` who have it; the others are then tried on their own.
    """

    def __init__(
        self,
        message: str,
        *,
        permanent: bool = False,
        retry_after: float | None = None,
        served: Sequence[str] = (),
    ) -> None:
        self.permanent = permanent
        self.retry_after = retry_after
        self.served = tuple(served)
        super().__init__(message)


class Channel(ABC):
    """One configured way out. Kinds are told apart by the class of their settings."""

    kind: ClassVar[str]
    settings_class: ClassVar[type[ChannelSection]]

    @property
    def text_limit(self) -> int:
        """So many characters of text get through whole; settings may say otherwise."""
        return TEXT_LIMIT

    @property
    def receivers(self) -> tuple[str, ...]:
        """The names of those it brings a message to, where it tells them apart; the one who needs no name otherwise."""
        return ("",)

    @abstractmethod
    async def send(self, notification: Notification) -> None:
        """Bring one message to its receivers but for those who are ``served``; they may have it already.

        Raises ``ChannelError``.
        """
