"""What the commands share: options, exit codes, loading the configuration, failing with a sentence."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from servmon.settings import Loaded

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
