"""What the commands share: options, exit codes, loading the configuration, failing with a sentence."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from typer.core import TyperCommand
from typer.exceptions import TyperException

from servmon.errors import ServmonError

if TYPE_CHECKING:
    from servmon.settings import Loaded

T = TypeVar("T")

EXIT_CONFIGURATION = 2
# Nagios plug-in API: 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN. Usage errors are 3, never 2, which means DOWN.
EXIT_USAGE_OF_CHECK = 3

# Where the systemd unit reads its configuration.
SERVICE_FILE = Path("/etc/servmon/servmon.toml")

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", help="The TOML file; without it only the environment is read.")
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def load(config: Path | None, *, or_last_good: bool = False) -> Loaded:
    """The configuration, or the end of the process with every problem on stderr."""
    from servmon import settings

    if config is None and os.access(SERVICE_FILE, os.R_OK):
        typer.echo(f"only the environment is read: {SERVICE_FILE} would be with --config {SERVICE_FILE}", err=True)
    try:
        return settings.load_or_last_good(config) if or_last_good else settings.load(config)
    except settings.SettingsError as error:
        fail("\n".join(error.lines), EXIT_CONFIGURATION)


def shown(text: str) -> str:
    """``text`` on one line for a terminal: names, banners and error texts may be a stranger's."""
    from servmon.log import escaped

    return escaped(text)


class PluginCommand(TyperCommand):
    """A command whose usage errors exit 3, since 2 would tell Nagios that the target is down."""

    def make_context(self, *args: Any, **more: Any) -> Any:
        """Read the command line."""
        try:
            return super().make_context(*args, **more)
        except TyperException as error:
            error.exit_code = EXIT_USAGE_OF_CHECK
            raise


def fail(message: str, code: int) -> NoReturn:
    """End the process with ``message`` on stderr; what may be a stranger's words in it moves no cursor."""
    typer.echo("\n".join(shown(line) for line in message.split("\n")), err=True)
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
