"""Commands over the API: against a real one on a socket, and on a terminal."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import struct
import sys
import termios
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import pytest
from typer.testing import CliRunner

from servmon.cli import app
from tests.fix_api import TOKEN, Client

Command: TypeAlias = Callable[..., Awaitable[tuple[int, str, str]]]


def where(folder: Path, url: str, token: str = TOKEN) -> tuple[str, ...]:
    """The options that lead a command to ``url``; the token stands in a file of ``folder``."""
    file = folder / "token"
    file.write_text(f"{token}\n", encoding="ascii")
    return "--url", url, "--token-file", str(file)


async def command(*arguments: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command, run in a thread of this process: a new one takes a second."""
    ran = await asyncio.to_thread(CliRunner().invoke, app, arguments, catch_exceptions=False)
    return ran.exit_code, ran.stdout, ran.stderr


@pytest.fixture
def cli(api: Client, tmp_path: Path) -> Command:
    """Calls a command against the API, by default as its administrator."""

    async def call(*arguments: str, token: str = TOKEN) -> tuple[int, str, str]:
        return await command(*arguments, *where(tmp_path, f"http://127.0.0.1:{api.port}", token))

    return call


async def on_terminal(*arguments: str, columns: int = 100) -> str:
    """What a command writes to a terminal of so many columns; it has to end well."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}  # noqa: TID251 - a child's
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "servmon", *arguments), stdout=theirs, env=environment
    )
    os.close(theirs)
    written = await asyncio.to_thread(rest_of, ours)
    assert await process.wait() == 0
    return written


def rest_of(terminal: int) -> str:
    """What is written to a terminal until nobody holds its other side; closes it."""
    parts = []
    # Linux tells the end by an error, others by nothing.
    with suppress(OSError):
        while part := os.read(terminal, 65_536):
            parts.append(part)
    os.close(terminal)
    return b"".join(parts).decode(errors="replace")  # a reader before this one may have had half of a letter
