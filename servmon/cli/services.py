"""``servmon services``: what is watched, and how it is."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from servmon.cli.base import EXIT_CONFIGURATION, EXIT_USAGE_OF_CHECK, PluginCommand, fail, shown
from servmon.cli.desk import Desk, address, over_api
from servmon.cli.tables import Column, Row
from servmon.cli.when import begun, readable

app = typer.Typer(help="What is watched, and how it is.", no_args_is_help=True)

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="The id of a service endpoint.")]
FieldOption = Annotated[
    list[str] | None, typer.Option("--option", "-o", help="NAME=VALUE: any field or option of an endpoint.")
]
SiteOption = Annotated[str | None, typer.Option(help="Where it stands, such as pop-north.")]
SinceOption = Annotated[str | None, typer.Option("--since", help="A span such as 8h, a time or a day.")]
STATUS_EXITS = {"UP": 0, "DEGRADED": 1, "DOWN": 2}
NO_STATUS_EXIT = 3
STATES = ("up", "degraded", "suspected", "down", "unknown", "maintenance")

LISTED = (
    Column("ID", "id", least=20),
    Column("STATE", lambda row: row["now"]["state"] if row["now"] else "inactive"),
    Column("SINCE", lambda row: readable(_now(row, "since"))),
    Column("WINDOW", lambda row: "now" if _now(row, "in_maintenance") else None),
    Column("PROTOCOL", "protocol", rank=4),
    Column("SITE", "site", least=8, rank=2),
    Column("EVERY", lambda row: f"{row['check_interval']} s", rank=5),
    Column("TAGS", "tags", least=8, rank=6),
    Column("URL", "url", least=20, rank=3),
    Column("WHY", lambda row: _now(row, "error_message"), least=20, rank=1),
)
_CHECKS = (
    Column("TIME", lambda row: readable(row.get("timestamp") or row.get("start"))),
    Column("STATUS", lambda row: row.get("status") or _counted(row["checks"])),
    Column("MS", lambda row: _milliseconds(row["response_time"])),
    Column("MESSAGE", "error_message", least=20),
)


@app.command("list")
@over_api
def list_endpoints(
    desk: Desk,
    *,
    state: Annotated[
        str | None, typer.Option(help="up, degraded, suspected, down, unknown, or maintenance: all in a window.")
    ] = None,
    status: Annotated[str | None, typer.Option(help="The last check's: UP, DEGRADED, DOWN or UNKNOWN.")] = None,
    site: SiteOption = None,
    tag: Annotated[str | None, typer.Option(help="Only those with this tag.")] = None,
    protocol: Annotated[str | None, typer.Option(help="HTTP, HTTPS, TCP, UDP, DNS, ICMP or another.")] = None,
    q: Annotated[str | None, typer.Option("--text", help="Text in id, name, url or site.")] = None,
) -> None:
    """List what is watched, by id, with the state each is in and since when."""
    wanted = {
        **_in_state(state),
        "status": status and status.upper(),
        "site": site,
        "tag": tag,
        "protocol": protocol,
        "q": q,
        "now": "true",
    }
    desk.show_list(LISTED, list(desk.api.pages("/services/", **wanted)), "nothing is watched that fits")


@app.command()
@over_api
def show(desk: Desk, endpoint_id: IdArgument) -> None:
    """Show one endpoint, and how it is."""
    endpoint = desk.api.get(address("services", endpoint_id))
    now = desk.api.get(address("services", endpoint_id, "status"))
    desk.show({**endpoint, **{f"now_{name}": value for name, value in now.items() if name != "endpoint_id"}})


@app.command()
@over_api
def add(
    desk: Desk,
    endpoint_id: IdArgument,
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="A URL, host:port, tcp://, dns:// or icmp:// target.")
    ],
    option: FieldOption = None,
    site: SiteOption = None,
    tag: Annotated[list[str] | None, typer.Option(help="May be given several times.")] = None,
) -> None:
    """Watch one more endpoint; the id of a removed one brings its history back."""
    made = desk.api.post("/services/", {"id": endpoint_id, "url": target, **_fields(option, site, tag)})
    desk.done(f"{made['id']} is checked every {made['check_interval']} s", made)


@app.command()
@over_api
def update(
    desk: Desk,
    endpoint_id: IdArgument,
    option: FieldOption = None,
    site: SiteOption = None,
    tag: Annotated[list[str] | None, typer.Option(help="May be given several times; replaces all tags.")] = None,
) -> None:
    """Change fields of an endpoint; all others stay."""
    fields = _fields(option, site, tag)
    if not fields:
        fail("nothing to change: say --option NAME=VALUE, --site or --tag", EXIT_CONFIGURATION)
    made = desk.api.patch(address("services", endpoint_id), fields)
    desk.done(f"{made['id']} has new {', '.join(fields)}", made)


@app.command()
@over_api
def remove(
    desk: Desk,
    endpoint_id: IdArgument,
    *,
    purge: Annotated[bool, typer.Option("--purge", help="Remove its history too, for ever.")] = False,
) -> None:
    """Watch an endpoint no longer; its history stays, unless --purge removes that too, of a removed one as well."""
    desk.api.delete(address("services", endpoint_id) + ("?purge=true" if purge else ""))
    became = "and all that was found out about it are gone" if purge else "is watched no longer; its history stays"
    desk.done(f"{endpoint_id} {became}", {"id": endpoint_id})


@app.command(cls=PluginCommand)
@over_api
def check(desk: Desk, endpoint_id: IdArgument) -> None:
    """Let servmon check an endpoint now; exits 0 UP, 1 DEGRADED, 2 DOWN, 3 UNKNOWN or where it cannot be asked."""
    desk.api.complain = partial(fail, code=EXIT_USAGE_OF_CHECK)
    result = desk.api.post(address("services", endpoint_id, "check"), {})
    if desk.as_json:
        desk.json(result)
    else:
        took = _milliseconds(result["response_time"])
        found = result["error_message"] or (f"answered in {took} ms" if took else "answered")
        typer.echo(shown(f"{result['status']}  {endpoint_id}: {found}"))
    raise typer.Exit(STATUS_EXITS.get(result["status"], NO_STATUS_EXIT))


@app.command()
@over_api
def history(
    desk: Desk,
    endpoint_id: IdArgument,
    since_: SinceOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 100,
) -> None:
    """List an endpoint's checks, newest first; over a longer period its hours or days."""
    begin = begun(since_)
    found = desk.api.first(limit, address("services", endpoint_id, "history"), since=begin)
    desk.show_list(_CHECKS, list(found), "it was not checked yet")


@app.command()
@over_api
def uptime(
    desk: Desk,
    endpoint_id: IdArgument,
    since_: SinceOption = None,
) -> None:
    """Say how available an endpoint was, by default over 30 days."""
    begin = begun(since_)
    desk.show(desk.api.get(address("services", endpoint_id, "uptime"), since=begin))


def chosen(options: list[str] | None, example: str) -> dict[str, Any]:
    """What ``--option NAME=VALUE`` says; ``example`` is one that could be."""
    from servmon.checking import value_of

    fields: dict[str, Any] = {}
    for option in options or ():
        name, equals, text = option.partition("=")
        if not equals or not name:
            fail(f"--option: {option!r} is not NAME=VALUE, as in {example}", EXIT_CONFIGURATION)
        fields[name] = value_of(text)
    return fields


def _in_state(state: str | None) -> dict[str, str | None]:
    """What asks for those in a state; that a window is over something is beside its state, but asked for alike."""
    wanted = state and state.lower()
    if wanted not in (None, *STATES):
        raise typer.BadParameter(f"--state: {state!r} is none of {', '.join(STATES)}")
    return {"in_maintenance": "true"} if wanted == STATES[-1] else {"state": wanted}


def _now(row: Row, name: str) -> Any:
    """What is known of an endpoint now; of one that is not active, nothing."""
    return row["now"] and row["now"][name]


def _fields(options: list[str] | None, site: str | None, tags: list[str] | None) -> dict[str, Any]:
    """What the options say of an endpoint."""
    placed = ({"site": site} if site is not None else {}) | ({"tags": tags} if tags else {})
    return chosen(options, "timeout=2") | placed


def _milliseconds(measured: Any) -> str:
    """A response time, or the mean of an hour's or a day's."""
    value = measured["avg"] if isinstance(measured, dict) else measured
    return "" if value is None else f"{value:.1f}"


def _counted(checks: dict[str, int]) -> str:
    return ", ".join(f"{number} {name}" for name, number in checks.items() if number)
