"""Of a message with several receivers: who has it already, so that a second try is for the others alone.

In memory: after a restart in between somebody may get a message twice, with the same id.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

# More messages than a channel has under way.
REMEMBERED = 100


class Delivered:
    """The receivers that need not be tried again, by the id of the message."""

    def __init__(self) -> None:
        self._by_message: OrderedDict[str, set[Hashable]] = OrderedDict()

    def of(self, message_id: str) -> set[Hashable]:
        """Those of one message; to be added to."""
        found = self._by_message.setdefault(message_id, set())
        while len(self._by_message) > REMEMBERED:
            self._by_message.popitem(last=False)
        return found

    def forget(self, message_id: str) -> None:
        """All have it, or nobody will."""
        self._by_message.pop(message_id, None)
