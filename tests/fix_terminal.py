"""A terminal that a command writes to: what stands on its screen, and that nobody moves its cursor but ourselves."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
from codecs import getincrementaldecoder
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from unicodedata import east_asian_width

# All that the command line ever sends beside text: home, the rest of a line, of the screen, and another screen.
_OURS = re.compile(r"\x1b\[(H|K|J|2J|\?1049h|\?1049l)")
_BEGUN = re.compile(r"\x1b(\[[?\d]*)?\Z")


class Screen:
    """So many columns and rows; whatever stands at their ends wraps and scrolls, as it does for a person."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns, self.rows = columns, rows
        self.is_other = False
        self._clear()

    def write(self, text: str) -> None:
        """Take what the command wrote; fails at anything that is neither text nor ours."""
        while text:
            if sequence := _OURS.match(text):
                self._obey(sequence[1])
                text = text[sequence.end() :]
            else:
                self._put(text[0])
                text = text[1:]

    @property
    def lines(self) -> list[str]:
        """What a person reads."""
        return ["".join(line).rstrip() for line in self._lines]

    def _clear(self) -> None:
        self._lines = [[" "] * self.columns for _ in range(self.rows)]
        self._x = self._y = 0

    def _obey(self, what: str) -> None:
        if what == "H":
            self._x = self._y = 0
        elif what in "KJ":
            self._lines[self._y][self._x :] = [" "] * (self.columns - self._x)
            for line in self._lines[self._y + 1 :] if what == "J" else ():
                line[:] = [" "] * self.columns
        else:
            self.is_other = what != "?1049l"
            self._clear()

    def _put(self, char: str) -> None:
        if char == "\r":
            self._x = 0
        elif char == "\n":
            self._down()
        else:
            assert char.isprintable(), f"{char!r} reached the terminal"
            wide = 2 if east_asian_width(char) in "WF" else 1
            if self._x + wide > self.columns:
                self._x = 0
                self._down()
            self._lines[self._y][self._x : self._x + wide] = [char, ""][:wide]
            self._x += wide

    def _down(self) -> None:
        if self._y == self.rows - 1:
            self._lines.pop(0)
            self._lines.append([" "] * self.columns)
        else:
            self._y += 1


class Terminal:
    """A command on a terminal, with a person before it."""

    def __init__(self, ours: int, process: asyncio.subprocess.Process) -> None:
        self._ours = ours
        self._process = process
        self._decoder = getincrementaldecoder("utf-8")()
        # The beginning of a sequence whose end has not come yet: what is written arrives cut anywhere.
        self._begun = ""
        self.screen = Screen(0, 0)

    def resize(self, columns: int, rows: int) -> None:
        """Pull the window to another size."""
        _set_size(self._ours, columns, rows)
        self.screen = Screen(columns, rows)

    async def until(self, holds: Callable[[list[str]], bool]) -> list[str]:
        """The screen, once it is so."""
        while not holds(self.screen.lines):
            await asyncio.to_thread(self._read)
        return self.screen.lines

    async def interrupt(self) -> int:
        """Press Ctrl-C: the exit status, and on the screen what was left there."""
        os.write(self._ours, b"\x03")
        # It cannot end before somebody has read what it says.
        while await asyncio.to_thread(self._says_more) or self._process.returncode is None:
            pass
        return self._process.returncode

    def _says_more(self) -> bool:
        """Whether something came within a moment; it is on the screen then."""
        came = bool(select.select([self._ours], [], [], 0.05)[0])
        if came:
            self._read()
        return came

    def _read(self) -> None:
        text = self._begun + self._decoder.decode(os.read(self._ours, 65_536))
        whole = _BEGUN.sub("", text)
        self._begun = text[len(whole) :]
        self.screen.write(whole)


@asynccontextmanager
async def terminal_of(*arguments: str, columns: int = 80, rows: int = 24) -> AsyncIterator[Terminal]:
    """A servmon command on a terminal of its own."""
    ours, theirs = pty.openpty()
    _set_size(ours, columns, rows)
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}  # noqa: TID251 - a child's
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", 'exec "$@" < "$0" > "$0" 2>&1', os.ttyname(theirs), sys.executable, "-m", "servmon", *arguments),
        env=environment, start_new_session=True,  # so that opening the terminal makes it theirs, and Ctrl-C a signal
    )  # fmt: skip
    terminal = Terminal(ours, process)
    terminal.screen = Screen(columns, rows)
    try:
        yield terminal
    finally:
        os.close(theirs)
        os.close(ours)  # whoever is left hears the line go dead
        await process.wait()


def _set_size(terminal: int, columns: int, rows: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
