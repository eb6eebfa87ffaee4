"""What the commands share: options, exit codes, loading the configuration, failing with a sentence."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from servmon.errors import ServmonError

if TYPE_CHECKING:
    from servmon.settings import Loaded

T = TypeVar("T")

EXIT_CONFIGURATION = 2

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="The TOML file; without it only the environment is read.")
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def load(config: Path | None, *, or_last_good: bool = False) -> Loaded:
    """The configuration, or the end of the process with every problem on stderr."""
    from servmon import settings

    try:
        return settings.load_or_last_good(config) if or_last_good else settings.load(config)
    except settings.SettingsError as error:
        fail("\n".join(error.lines), EXIT_CONFIGURATION)


def fail(message: str, code: int) -> NoReturn:
    """End the process with ``message`` on stderr."""
    typer.echo(message, err=True)
    raise typer.Exit(code)


def run_to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` gives; where it fails the end of the process, with a sentence. Logs only what should worry."""
    from servmon import log

    log.configure("warning", "console", None)
    try:
        return asyncio.run(work)
    except ServmonError as error:
        fail(str(error), 1)
    except OSError as error:
        fail(f"{error.filename or 'the file'}: {error.strerror or error}", 1)
