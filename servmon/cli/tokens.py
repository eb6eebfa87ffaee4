"""``servmon tokens``: who may use the API."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

import typer

from servmon.cli.base import shown
from servmon.cli.desk import Desk, address, over_api
from servmon.cli.tables import Column, Row
from servmon.cli.when import later, readable, span

app = typer.Typer(help="Who may use the API.", no_args_is_help=True)

# The model's own, which is not loaded only to read a command line.
Roles = Literal["read", "operate", "admin"]


def _fate(row: Row) -> str:
    if row["revoked_at"]:
        return f"revoked {readable(row['revoked_at'])}"
    return f"until {readable(row['expires_at'])}" if row["expires_at"] else "valid"


COLUMNS = (
    Column("NAME", "name", least=12),
    Column("ROLE", "role"),
    Column("PREFIX", "prefix", rank=1),
    Column("MADE", lambda row: readable(row["created_at"]), rank=3),
    Column("BY", "created_by", least=8, rank=2),
    Column("STATE", _fate),
    Column("ID", "id"),
)


@app.command("list")
@over_api
def list_tokens(
    desk: Desk, *, everything: Annotated[bool, typer.Option("--all", help="Revoked ones, too.")] = False
) -> None:
    """List the tokens that were made here; none of them is shown itself."""
    found = [row for row in desk.api.get("/tokens/")["items"] if everything or not row["revoked_at"]]
    desk.show_list(COLUMNS, found, "there is only the administrator's own token")


@app.command()
@over_api
def create(
    desk: Desk,
    name: Annotated[str, typer.Argument(help="Written down wherever the token changes something.")],
    role: Annotated[Roles, typer.Option(help="What it allows.")] = "read",
    length: Annotated[
        timedelta | None, typer.Option("--for", parser=span, metavar="SPAN", help="How long it counts; else always.")
    ] = None,
) -> None:
    """Make a token and print it, this once: all of stdout, so that > FILE makes a token file."""
    expiry = later(None, length) if length else None
    made = desk.api.post("/tokens/", {"name": name, "role": role, "expires_at": expiry})
    if desk.as_json:
        desk.json(made)
        return
    typer.echo(made["token"])
    typer.echo(shown(f"it may {made['role']}, as {made['name']}; it is shown this once"), err=True)


@app.command()
@over_api
def revoke(desk: Desk, token: Annotated[str, typer.Argument(help="The name, prefix or id of a token.")]) -> None:
    """Let a token count no longer, at once."""
    known = [row for row in desk.api.get("/tokens/")["items"] if not row["revoked_at"]]
    meant = [row for row in known if token in (row["id"], row["prefix"], row["name"])]
    if len(meant) != 1:
        found = "several tokens are" if meant else "no token that counts is"
        desk.api.complain(f"{found} called {token!r}; see: servmon tokens list")
    desk.api.delete(address("tokens", meant[0]["id"]))
    desk.done(f"{meant[0]['name']} is revoked", {"id": meant[0]["id"], "name": meant[0]["name"]})
