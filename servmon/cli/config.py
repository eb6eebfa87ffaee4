"""`servmon config …`: what the configuration says, what a reload would do, and making it so."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Annotated

import typer

from servmon.cli.base import EXIT_CONFIGURATION, ConfigOption, fail, load

app = typer.Typer(help="The configuration file.", no_args_is_help=True)
FileArgument = Annotated[Path, typer.Option("--config", "-c", help="The TOML file.")]


@app.command()
def check(config: ConfigOption = None) -> None:
    """Say everything that is wrong in the configuration, or that nothing is."""
    loaded = load(config)
    for warning in loaded.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(f"{config or 'environment'}: valid, {len(loaded.endpoints)} endpoints")


@app.command()
def show(config: ConfigOption = None) -> None:
    """Show every setting as it holds, and where it comes from; secrets stay hidden."""
    from servmon.settings.effective import effective

    for setting in effective(load(config)):
        typer.echo(f"{setting.name} = {setting.value}  # {setting.origin}")


@app.command()
def diff(config: FileArgument) -> None:
    """Say what a reload would change, against the configuration that was applied last."""
    from servmon.settings import load_newest
    from servmon.settings.effective import compare

    wanted = load(config)
    applied = load_newest(wanted.settings.servmon.data_dir)
    if applied is None:
        fail("no configuration was applied yet, so everything would be new", 1)
    lines = list(compare(applied, wanted))
    typer.echo("\n".join(lines) or "nothing would change")


@app.command()
def apply(
    config: FileArgument,
    *,
    force: Annotated[bool, typer.Option("--force", help="Even where it removes many endpoints.")] = False,
) -> None:
    """Let the running servmon read its file again, and say what came of it."""
    from servmon.cli.local import LocalApi

    loaded = load(config)
    answer = LocalApi(loaded.settings).post("/config/reload", {"force": force})
    typer.echo(f"applied: {answer['endpoints']} endpoints")


@app.command()
def edit(config: FileArgument) -> None:
    """Open the file in $EDITOR, check it, and replace it only when it is right."""
    from servmon.settings import SettingsError, editor
    from servmon.settings import load as settings_of

    draft = config.with_name(f".{config.name}.draft")
    shutil.copy2(config, draft)
    try:
        while True:
            subprocess.run([*shlex.split(editor()), str(draft)], check=True)  # noqa: S603 - the user's own editor
            try:
                settings_of(draft)
                break
            except SettingsError as error:
                typer.echo("\n".join(error.lines), err=True)
            if not typer.confirm("Edit again? Otherwise the file stays as it was"):
                raise typer.Exit(EXIT_CONFIGURATION)
        draft.replace(config)
    except (OSError, subprocess.CalledProcessError) as error:
        fail(f"{config} stays as it was: {error}", 1)
    finally:
        draft.unlink(missing_ok=True)
    typer.echo(f"{config}: replaced; a running servmon takes it up within seconds")


@app.command()
def schema() -> None:
    """Print a JSON Schema of the file; editors complete and check with it."""
    from servmon.settings.schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))
