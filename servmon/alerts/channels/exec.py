"""``kind = "exec"``: a program of the operator's; from the configuration file only."""

from __future__ import annotations

import asyncio
import json
from typing import Literal

from pydantic import Field

from servmon.alerts.alert import Notification
from servmon.alerts.channels.base import DEADLINE_SECONDS, Channel, ChannelError
from servmon.alerts.channels.webhook import payload_of
from servmon.alerts.settings import ChannelSection
from servmon.probes.base import safe_text
from servmon.probes.program import run_program

# sysexits.h: wrong usage, wrong data, no such user, no such host. Any other failure may pass.
_PERMANENT = frozenset({64, 65, 67, 68})
_SHOWN = 300


class ExecSection(ChannelSection):
    """A program and its arguments, as a list. It reads the message as JSON from its standard input."""

    kind: Literal["exec"] = "exec"
    command: tuple[str, ...] = Field(min_length=1)


class Exec(Channel):
    """Runs the program once a message; exit status 0 means that it got through."""

    kind = "exec"
    settings_class = ExecSection

    def __init__(self, settings: ExecSection) -> None:
        self._command = settings.command

    async def send(self, notification: Notification) -> None:
        """Run the program with the message on its standard input. Raises ``ChannelError``."""
        program = self._command[0]
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                ended = await run_program(self._command, json.dumps(payload_of(notification)).encode())
        except TimeoutError:
            raise ChannelError(f"{program} did not end within {DEADLINE_SECONDS:.0f} s") from None
        except (OSError, ValueError) as error:
            raise ChannelError(f"{program} cannot be started: {error}") from None
        if ended.code:
            said = safe_text(ended.stderr.strip(), limit=_SHOWN)
            message = f"{program} {ended.how}" + (f": {said}" if said else "")
            raise ChannelError(message, permanent=ended.code in _PERMANENT)
