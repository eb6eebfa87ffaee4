"""What every command over the API has: the servmon it asks, and the way its answer is shown."""

from __future__ import annotations

import errno
import inspect
import json
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import update_wrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from servmon.cli.base import JsonOption, fail, shown
from servmon.cli.tables import Column, Row, lines, table

if TYPE_CHECKING:
    from servmon.cli.local import LocalApi

# Beside those of other commands: which file is read where none is named.
AskedOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The TOML file of the servmon here; else /etc/servmon/servmon.toml."),
]
UrlOption = Annotated[
    str | None, typer.Option("--url", help="Another servmon than the one here, such as http://monitor:8350.")
]
TokenOption = Annotated[Path | None, typer.Option("--token-file", help="A file that holds the token to use.")]


class Desk:
    """Where a command asks and answers: ``api`` is the servmon that is meant, ``as_json`` what the user wants."""

    def __init__(self, api: LocalApi, *, as_json: bool) -> None:
        self.api = api
        self.as_json = as_json
        self.on_terminal = sys.stdout.isatty()

    def show_list(self, columns: Sequence[Column], rows: Sequence[Row], none: str) -> None:
        """A list as JSON, as a table, or as lines; ``none`` is what a person reads where it is empty."""
        if self.as_json:
            self.json({"items": rows})
        elif not rows and self.on_terminal:
            typer.echo(none)
        else:
            for line in table(columns, rows, width()) if self.on_terminal else lines(columns, rows):
                typer.echo(line)

    def show(self, record: Row) -> None:
        """One thing: each field that holds something on a line of its own."""
        if self.as_json:
            self.json(record)
            return
        fields = [{"field": name, "value": value} for name, value in record.items() if value not in (None, "", [], {})]
        columns = (Column("field", "field"), Column("value", "value"))
        # No heading, and nothing cut: who asks for one thing wants all of it.
        for line in list(table(columns, fields, sys.maxsize))[1:] if self.on_terminal else lines(columns, fields):
            typer.echo(line)

    def done(self, sentence: str, record: Mapping[str, Any]) -> None:
        """A change was made: ``record`` as JSON, or the sentence."""
        if self.as_json:
            self.json(record)
        else:
            typer.echo(shown(sentence))

    @staticmethod
    def json(value: Any) -> None:
        """Print ``value`` in ASCII, so that nothing in it means anything to a terminal."""
        typer.echo(json.dumps(value, indent=2))


def width() -> int:
    """How wide the terminal is."""
    return shutil.get_terminal_size().columns


def address(*parts: str) -> str:
    """The path of these parts, whatever stands in them."""
    return "".join(f"/{quote(part, safe='', errors='surrogateescape')}" for part in parts)


def over_api(work: Callable[..., None]) -> Callable[..., None]:
    """``work`` as a command that is given a ``Desk`` first, with --json and the options that say which servmon."""

    def command(
        *,
        config: AskedOption = None,
        url: UrlOption = None,
        token_file: TokenOption = None,
        as_json: JsonOption = False,
        **own: Any,
    ) -> None:
        from servmon.cli.local import reach

        try:
            work(Desk(reach(config, url, token_file), as_json=as_json), **own)
        except OSError as error:
            if error.errno == errno.EPIPE:  # whoever read it has seen enough
                raise
            fail(f"what was found cannot be written out: {error.strerror or error}", 1)

    own = list(inspect.signature(work, eval_str=True).parameters.values())[1:]
    added = list(inspect.signature(command, eval_str=True).parameters.values())[:-1]
    parameters = [*own, *added]
    update_wrapper(command, work)
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command
