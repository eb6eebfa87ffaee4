"""Tells the service manager how servmon is doing: sd_notify(3), a few lines of text over a datagram socket."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

# Fed several times within the patience of the watchdog, so that one late turn of the loop is no restart.
FEEDS_PER_PATIENCE = 4
STATUS_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ServiceManager:
    """systemd, or whoever listens at ``address``; where nobody does, telling costs nothing.

    ``patience`` is the watchdog's in seconds: a service that is silent for so long is killed and started again.
    """

    address: str | None = None
    patience: float | None = None

    @classmethod
    def of(cls, environ: Mapping[str, str], pid: int) -> Self:
        """As the service manager tells its child ``pid`` in ``NOTIFY_SOCKET``, ``WATCHDOG_USEC``, ``WATCHDOG_PID``."""
        micros = environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
        return cls(environ.get("NOTIFY_SOCKET") or None, int(micros) / 1e6 if micros.isdecimal() and ours else None)

    def tell(self, **words: str) -> None:
        """Send ``READY="1"``, ``STATUS="3 endpoints"`` and the like."""
        if self.address is None:
            return
        # A leading "@" stands for the NUL of Linux' abstract sockets.
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        text = "\n".join(f"{word}={value}" for word, value in words.items())
        # A manager that is gone or does not read must not stop the monitoring.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.sendto(text.encode(), address)

    async def follow(self, is_well: Callable[[], bool], status: Callable[[], str]) -> None:
        """Feed the watchdog as long as ``is_well``, and show ``status`` to ``systemctl status``; for ever."""
        seconds = STATUS_SECONDS if self.patience is None else min(STATUS_SECONDS, self.patience / FEEDS_PER_PATIENCE)
        while True:
            words = {"STATUS": status()}
            if is_well():
                words["WATCHDOG"] = "1"
            self.tell(**words)
            await asyncio.sleep(seconds)
