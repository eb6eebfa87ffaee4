"""Who is told by default, and the ways out."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import ConfigDict, Field

from servmon.model import Section


class AlertSection(Section):
    """``[alert]``: the channels used where nothing else says so, by their names in ``[channels.NAME]``."""

    notification_channels: tuple[str, ...] = ("email",)


class ChannelSection(Section):
    """``[channels.NAME]``: one way out. ``kind`` says which; the other keys are that kind's own."""

    model_config = ConfigDict(extra="allow", frozen=True)

    kind: str = Field(min_length=1)

    def __repr_args__(self) -> Iterator[tuple[str, object]]:
        # The other keys may be passwords, and only the kind knows which.
        yield "kind", self.kind
