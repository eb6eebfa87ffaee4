"""``servmon silences``: what is not told for a while."""

from __future__ import annotations

from typing import Annotated

import typer

from servmon.cli.desk import Desk, address, over_api
from servmon.cli.maintenance import EndpointOption, ForOption, SiteOption, TagOption, covered
from servmon.cli.tables import Column
from servmon.cli.when import later, readable

app = typer.Typer(help="What is not told for a while.", no_args_is_help=True)

COLUMNS = (
    Column("ENDS", lambda row: readable(row["ends_at"])),
    Column("FOR", covered, least=12, rank=1),
    Column("BY", "created_by", least=8, rank=2),
    Column("ID", "id"),
    Column("WHY", "reason", least=12),
)


@app.command("list")
@over_api
def list_silences(desk: Desk) -> None:
    """List the silences that are not over, the one that ends first before the others."""
    desk.show_list(COLUMNS, desk.api.get("/silences/")["items"], "nothing is silenced")


@app.command()
@over_api
def add(
    desk: Desk,
    reason: Annotated[str, typer.Argument(help="Why.")],
    length: ForOption,
    endpoint: EndpointOption = None,
    tag: TagOption = None,
    site: SiteOption = None,
) -> None:
    """Tell nothing of some endpoints for a while; checks and outages go on."""
    whom = {"ids": endpoint or [], "tags": tag or [], "sites": site or []}
    made = desk.api.post("/silences/", {**whom, "reason": reason, "ends_at": later(None, length)})
    desk.done(f"{made['id']}: nothing is told of {covered(made)} until {readable(made['ends_at'])}", made)


@app.command()
@over_api
def end(desk: Desk, silence: Annotated[str, typer.Argument(help="The id of a silence.")]) -> None:
    """End a silence now; what is still down is told then."""
    desk.api.delete(address("silences", silence))
    desk.done(f"{silence} has ended; what is still down is told", {"id": silence})
