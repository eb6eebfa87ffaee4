"""``kind = "exec"``: a program of the operator's; no shell, from the configuration file only."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from contextlib import suppress
from typing import Literal

from pydantic import Field

from servmon.alerts.alert import Notification
from servmon.alerts.channels.base import DEADLINE_SECONDS, Channel, ChannelError
from servmon.alerts.channels.webhook import payload_of
from servmon.alerts.settings import ChannelSection

# sysexits.h: what such a program cannot do now and may be able to later is no failure for good; all else is passing
# as well, but these say clearly that nothing will change.
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
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise ChannelError(f"{self._command[0]} cannot be started: {error}") from None
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                _, err = await process.communicate(json.dumps(payload_of(notification)).encode())
        except TimeoutError:
            raise ChannelError(f"{self._command[0]} did not end within {DEADLINE_SECONDS:.0f} s") from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if process.returncode:
            said = err.decode("utf-8", "replace").strip()[:_SHOWN]
            raise ChannelError(
                f"{self._command[0]} ended with {process.returncode}" + (f": {said}" if said else ""),
                permanent=process.returncode in _PERMANENT,
            )
