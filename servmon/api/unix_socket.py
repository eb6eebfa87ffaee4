"""A unix socket to listen on: only who may open the file gets as far as showing a token."""

from __future__ import annotations

import grp
import os
import socket
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from servmon.errors import StartError


@dataclass(frozen=True, slots=True)
class UnixPlace:
    """Where the socket stands, its permissions, and the group that it belongs to (``None``: servmon's own)."""

    path: Path
    mode: int
    group: str | None = None

    def bind(self) -> socket.socket:
        """The socket, in its place, not listening yet. Raises ``StartError`` with a sentence."""
        try:
            self._clear()
            return self._bound()
        except OSError as error:
            raise StartError(f"api.socket: cannot listen on {self.path}: {error.strerror or error}") from None

    def remove(self) -> None:
        """Take the file away; one that cannot be is taken for a crash's by the next start."""
        with suppress(OSError):
            self.path.unlink()

    def _clear(self) -> None:
        """Take away what a crash left; refuse to take anything else."""
        with suppress(FileNotFoundError):
            if not stat.S_ISSOCK(self.path.lstat().st_mode):
                raise StartError(
                    f"api.socket: {self.path} is there and is no socket; move it away or name another path"
                )
            if _somebody_answers(self.path):
                raise StartError(f"api.socket: another program listens on {self.path}")
            self.path.unlink()

    def _bound(self) -> socket.socket:
        group = self._group()
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # Nobody gets in before the permissions are those that are wanted.
            before = os.umask(0o177)
            try:
                made.bind(str(self.path))
            finally:
                os.umask(before)
            if group is not None:
                os.chown(self.path, -1, group)
            self.path.chmod(self.mode)
        except OSError:
            made.close()
            raise
        made.setblocking(False)
        return made

    def _group(self) -> int | None:
        if self.group is None:
            return None
        try:
            return grp.getgrnam(self.group).gr_gid
        except KeyError:
            raise StartError(f"api.socket_group: this machine knows no group {self.group}") from None


def _somebody_answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        try:
            asking.connect(str(path))
        except OSError:
            return False
        return True
