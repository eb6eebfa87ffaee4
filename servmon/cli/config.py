"""`servmon config …`: what the configuration says, what a reload would do, and making it so."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from servmon.cli.base import EXIT_CONFIGURATION, ConfigOption, fail, load

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

REPLACED = "replaced; a running servmon takes it up within seconds"

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
    answer = LocalApi.of(loaded.settings).post("/config/reload", {"force": force})
    typer.echo(f"applied: {answer['endpoints']} endpoints")


@app.command()
def edit(config: FileArgument) -> None:
    """Open the file in $EDITOR, check it, and replace it only when it is right."""
    from servmon.settings import SettingsError, editor
    from servmon.settings.writing import adopt, draft_of

    try:
        with draft_of(config) as draft:
            while True:
                command = [*shlex.split(editor()), str(draft)]
                if status := subprocess.run(command, check=False).returncode:  # noqa: S603 - the user's own editor
                    fail(f"{config} stays as it was: {command[0]} ended with status {status}", 1)
                try:
                    adopt(draft, config)
                    break
                except SettingsError as error:
                    typer.echo("\n".join(error.lines), err=True)
                if not typer.confirm("Edit again? Otherwise the file stays as it was"):
                    raise typer.Exit(EXIT_CONFIGURATION)
    except OSError as error:
        fail(f"{config} stays as it was: {error.strerror or error}", 1)
    typer.echo(f"{config}: {REPLACED}")


@app.command("set")
def set_(
    name: Annotated[str, typer.Argument(help="SECTION.KEY, such as service.check_interval.")],
    value: Annotated[str, typer.Argument(help="The value: text, or a number, true, false or a list as JSON.")],
    config: FileArgument,
) -> None:
    """Set one setting in the file; its comments stay, and a value that is wrong leaves it as it was."""
    from servmon.checking import value_of
    from servmon.settings.writing import put, read_document

    section, _, key = name.rpartition(".")
    if not section:
        fail(f"{name}: a setting is SECTION.KEY, such as service.check_interval", EXIT_CONFIGURATION)
    with _nothing_changed(config):
        document = read_document(config)
        put(document, section, key, value_of(value))
        _replace(config, document)
    typer.echo(f"{config}: {REPLACED}")


@app.command()
def init(config: FileArgument = Path("servmon.toml")) -> None:
    """Ask a few questions and write the file; in one that is there only what is answered changes."""
    from servmon.cli import questions
    from servmon.settings.writing import read_document, write_secret

    if os.access(config, os.F_OK):
        typer.echo(f"{config} is there: what you answer is put into it, the rest stays", err=True)
    with _nothing_changed(config):
        draft = questions.Draft(read_document(config))
        questions.ask(draft)
        for name, secret in draft.secrets.items():
            write_secret(config.parent / name, secret)
        _replace(config, draft.document)
    typer.echo("\n".join([f"wrote {config}", *questions.hints(config, draft.secrets)]))


def _replace(config: Path, document: TOMLDocument) -> None:
    from servmon.settings.writing import replace_file

    for warning in replace_file(config, document.as_string()).warnings:
        typer.echo(f"warning: {warning}", err=True)


@contextmanager
def _nothing_changed(config: Path) -> Iterator[None]:
    """Where the file cannot be written, or would be wrong, say so: it stays as it was."""
    from servmon.settings import SettingsError

    try:
        yield
    except SettingsError as error:
        fail("\n".join([*error.lines, f"{config} stays as it was"]), EXIT_CONFIGURATION)
    except OSError as error:
        fail(f"{config} stays as it was: {error.strerror or error}", 1)


@app.command()
def schema() -> None:
    """Print a JSON Schema of the file; editors complete and check with it."""
    from servmon.settings.schema import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))
