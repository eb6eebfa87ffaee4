"""The command tree. Results go to stdout, messages to stderr; each command imports only what it needs."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from servmon import __version__
from servmon.cli import alerts as alert_commands
from servmon.cli import config as config_commands
from servmon.cli import db as db_commands
from servmon.cli import elastic as elastic_commands
from servmon.cli import kibana as kibana_commands
from servmon.cli import maintenance as maintenance_commands
from servmon.cli import outages as outage_commands
from servmon.cli import prometheus as prometheus_commands
from servmon.cli import report as report_command
from servmon.cli import rules as rule_commands
from servmon.cli import services as service_commands
from servmon.cli import silences as silence_commands
from servmon.cli import simulate as simulate_command
from servmon.cli import status as status_command
from servmon.cli import tokens as token_commands
from servmon.cli import watch as watch_command
from servmon.cli.base import EXIT_CONFIGURATION, EXIT_USAGE_OF_CHECK, ConfigOption, PluginCommand, fail, load
from servmon.errors import InvalidInputError, ServmonError, StartError

app = typer.Typer(name="servmon", help="Service availability monitor.", no_args_is_help=True, add_completion=True)
service_app = typer.Typer(help="The systemd service.", no_args_is_help=True)
app.add_typer(service_commands.app, name="services")
app.add_typer(outage_commands.app, name="outages")
app.add_typer(maintenance_commands.app, name="maintenance")
app.add_typer(silence_commands.app, name="silences")
app.add_typer(token_commands.app, name="tokens")
app.add_typer(token_commands.app, name="token", hidden=True)
app.add_typer(rule_commands.app, name="rules")
app.add_typer(alert_commands.alerts_app, name="alerts")
app.add_typer(alert_commands.channels_app, name="channels")
app.add_typer(config_commands.app, name="config")
app.add_typer(db_commands.app, name="db")
app.add_typer(kibana_commands.app, name="kibana")
app.add_typer(prometheus_commands.app, name="prometheus")
app.add_typer(elastic_commands.app, name="elastic")
app.add_typer(service_app, name="service")
app.command("report")(report_command.report)
app.command("status")(status_command.status)
app.command("watch")(watch_command.watch)
app.command("simulate")(simulate_command.simulate)


@app.callback(invoke_without_command=True)
def _root(*, version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def run(config: ConfigOption = None) -> None:
    """Run the monitor until Ctrl-C or SIGTERM."""
    from servmon import daemon, log
    from servmon.settings.watch import ConfigWatch

    for number in (signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)  # sent before the daemon listens, they would end it
    edits = ConfigWatch(config) if config else None  # before the file is read, so that no edit falls in between
    loaded = load(config, or_last_good=True)
    settings = loaded.settings
    try:
        log.configure(settings.log.level, settings.log.format, settings.log.file)
        _run_in_loop(daemon.run(loaded.pack(), edits))
    except StartError as error:
        fail(str(error), EXIT_CONFIGURATION)
    except ServmonError as error:
        fail(str(error), 1)


@app.command(cls=PluginCommand)
def check(
    target: Annotated[str, typer.Argument(help="A URL, host, host:port, tcp://, udp://, dns:// or icmp:// target.")],
    protocol: Annotated[
        str | None, typer.Option(help="HTTP, HTTPS, TCP, UDP, DNS or ICMP, unless the URL says.")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", help="NAME=VALUE: any field or option of an endpoint.")
    ] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Check a target once, without a daemon or a database; exits 0 UP, 1 DEGRADED, 2 DOWN, 3 UNKNOWN."""
    from servmon import checking

    try:
        endpoint = checking.endpoint_of(target, protocol, option or [])
    except InvalidInputError as error:
        for problem in error.problems:
            typer.echo(f"servmon check: {problem}", err=True)
        raise typer.Exit(EXIT_USAGE_OF_CHECK) from None
    result = asyncio.run(checking.check_once(endpoint))
    typer.echo(checking.render(endpoint, result, as_json=as_json, on_terminal=sys.stdout.isatty()))
    raise typer.Exit(checking.EXIT_CODES[result.status])


@service_app.command("install")
def service_install(
    root: Annotated[Path, typer.Option(help="Install below this folder, for packagers.")] = Path("/"),
) -> None:
    """Put the systemd units in place, started by this very servmon, and say what was done."""
    from servmon.unit_files import install

    try:
        for done in install(root, Path(sys.argv[0]).absolute()):
            typer.echo(done)
    except StartError as error:
        fail(str(error), 1)


@app.command()
def doctor(config: ConfigOption = None) -> None:
    """Say what on this machine stands in the way of good monitoring, and what to do; exits 1 where something does."""
    from servmon import doctor as doctor_
    from servmon.settings import environment_now

    loaded = load(config)

    async def work() -> bool:
        well = True
        async for finding in doctor_.examine(loaded, environment_now()):
            typer.echo(str(finding))
            well &= finding.level is not doctor_.Level.ERROR
        return well

    raise typer.Exit(0 if asyncio.run(work()) else 1)


@app.command()
def selftest() -> None:
    """Start a private instance against local servers, walk an outage through its life, say what was seen."""
    from servmon import selftest as story

    raise typer.Exit(0 if asyncio.run(story.run(typer.echo)) else 1)


def _run_in_loop(main: Coroutine[Any, Any, None]) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(main)
    else:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main)


def exit_code(arguments: Sequence[str]) -> int:
    """What the command in ``arguments`` exits with where it cannot even begin."""
    return EXIT_USAGE_OF_CHECK if arguments[:1] == ["check"] else EXIT_CONFIGURATION
