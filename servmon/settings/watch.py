"""Notices that somebody edited the configuration."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

from servmon.settings.files import folder_files

WATCH_SECONDS = 2.0
_Seen: TypeAlias = tuple[tuple[object, ...], ...]


class ConfigWatch:
    """Notices that the configuration file, or one of its folder, has been changed and has stayed so for one interval.

    Create it before the file is loaded. It looks at the files themselves (modification time, inode, size), so it sees
    edits in place, atomic renames, switched symbolic links and bind mounts; a removed main file is no change until it
    is back. ``sleep`` waits the given seconds.
    """

    def __init__(
        self,
        path: Path,
        *,
        interval: float = WATCH_SECONDS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._path = path
        self._interval = interval
        self._sleep = sleep
        self._known = self._look()
        self._settling: _Seen | None = None

    async def changed(self) -> None:
        """Return once the file has changed and settled."""
        while not self.poll():
            await self._sleep(self._interval)

    def poll(self) -> bool:
        """Look once; true where a change is now the same as at the last look, and only once for each change."""
        seen = self._look()
        settled = seen is not None and seen == self._settling
        self._settling = seen if seen != self._known else None
        if settled:
            self._known, self._settling = seen, None
        return settled

    def _look(self) -> _Seen | None:
        if (main := _seen(self._path)) is None:
            return None
        try:
            others = folder_files(self._path)
        except OSError as error:  # so that the loading says it, and again once it is over
            return (main, (str(error),))
        return (main, *((str(path), *(_seen(path) or ())) for path in others))


def _seen(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_dev, found.st_ino, found.st_size
