"""EXEC: other people's plug-ins, whatever they do."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from servmon.clock import SYSTEM_CLOCK
from servmon.errors import InvalidInputError
from servmon.model import FailureKind
from servmon.probes.base import ProbeFailed
from servmon.probes.exec import _PLACE
from servmon.probes.network import Network, ProbeContext
from servmon.probes.plugin_output import read_output
from servmon.probes.specification import EndpointDefaults, parse_endpoint, prepare
from servmon.tasks import cancel, spawn
from tests.fix_servers import PATIENCE_SECONDS, open_files, settled

LOOPS = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])


async def run(*command: str, seconds: float = PATIENCE_SECONDS, network: Network | None = None, **fields):
    given = {"id": "x", "url": "exec://db-1.test", "command": list(command), **fields}
    prepared = prepare(parse_endpoint(given, EndpointDefaults(), source="config:main"))
    async with network or Network() as opened:
        context = ProbeContext(opened, SYSTEM_CLOCK.monotonic() + seconds)
        async with asyncio.timeout(seconds) as context.attempt:
            return await prepared.probe.check(prepared.target, prepared.options, context)


async def failure(*command: str, **more) -> ProbeFailed:
    with pytest.raises(ProbeFailed) as failed:
        await run(*command, **more)
    return failed.value


def shell(script: str) -> tuple[str, str, str]:
    return "/bin/sh", "-c", script


async def cut_off(script: str, wanted: Callable[[], bool]) -> None:
    """Run ``script`` with a deadline that comes as soon as ``wanted`` holds."""
    async with asyncio.timeout(None) as deadline:

        async def come() -> None:
            await settled(wanted)
            deadline.reschedule(asyncio.get_running_loop().time())

        coming = spawn(come(), name="deadline")
        try:
            await run(*shell(script), seconds=PATIENCE_SECONDS)
        finally:
            await cancel(coming)


async def test_exit_code_0_is_up_with_message_and_measures():
    answer = await run(*shell("echo 'DB OK - 3 replicas | lag=0.5s;1;2 conns=12'; echo more"))
    assert answer.degraded is None
    assert answer.response_ms > 0
    assert answer.details == {
        "message": "DB OK - 3 replicas",
        "perfdata": {"lag": {"value": 0.5, "unit": "s"}, "conns": {"value": 12.0}},
    }


async def test_exit_code_1_is_degraded():
    assert (await run(*shell("echo 'DB WARNING - lag 3 s'; exit 1"))).degraded == "DB WARNING - lag 3 s"
    assert (await run(*shell("exit 1"))).degraded == "/bin/sh says WARNING"


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        ("echo 'DB CRITICAL - gone | lag=9s'; exit 2", FailureKind.STATUS, "DB CRITICAL - gone"),
        ("exit 2", FailureKind.STATUS, "/bin/sh says CRITICAL, and nothing more"),
        ("echo 'no such option'; exit 3", FailureKind.PROBE_ERROR, "no such option"),
        (
            "echo oh >&2; exit 4",
            FailureKind.PROBE_ERROR,
            "/bin/sh ended with exit code 4, where a plug-in ends with 0 to 3: oh",
        ),
        ("kill -9 $$", FailureKind.PROBE_ERROR, "/bin/sh was killed by signal 9, where a plug-in ends with 0 to 3"),
        ("printf 'a\\033[31mred'; exit 2", FailureKind.STATUS, "a\\x1b[31mred"),
    ],
)
async def test_every_other_end_is_said_in_words(script, kind, message):
    failed = await failure(*shell(script))
    assert (failed.kind, failed.message) == (kind, message)


async def test_a_program_that_is_not_there_or_not_allowed_is_our_own_failure(tmp_path):
    failed = await failure("/nowhere/check_x")
    assert (failed.kind, failed.message) == (
        FailureKind.LOCAL,
        "/nowhere/check_x cannot be run: no such file or directory",
    )
    (tmp_path / "check_x").write_text("#!/bin/sh\n")
    failed = await failure(str(tmp_path / "check_x"))
    assert (failed.kind, failed.message) == (FailureKind.LOCAL, f"{tmp_path}/check_x cannot be run: permission denied")


async def test_arguments_reach_the_program_as_they_are_and_no_shell_reads_them():
    answer = await run("/bin/echo", "{host}", "a b;$(id)", "--x={host}")
    assert answer.details["message"] == "db-1.test a b;$(id) --x=db-1.test"


async def test_nothing_of_our_environment_is_passed_on(monkeypatch):
    monkeypatch.setenv("DATABASE_URL", "postgresql://secret")
    await run("/usr/bin/env", expected_response_pattern="^PATH=")
    assert (await failure("/usr/bin/env", expected_response_pattern="DATABASE")).kind is FailureKind.PATTERN


async def test_endless_output_is_thrown_away():
    spout = "import os\nfor _ in range(400): os.write(1, b'x' * 65536)"
    answer = await run(sys.executable, "-c", spout)
    assert len(answer.details["message"]) == 500


@LOOPS
def test_at_the_deadline_it_is_killed_with_all_its_children_and_leaves_nothing(new_loop, tmp_path):
    pids = tmp_path / "pids"
    script = f"sleep 60 & echo $! >> {pids}; (sleep 60 & echo $! >> {pids}; wait) & echo $$ >> {pids}; wait"

    async def main():
        files = open_files()
        for number in (3, 6, 9):
            with pytest.raises(TimeoutError):
                await cut_off(script, lambda number=number: pids.exists() and len(pids.read_text().split()) == number)
        alive = [int(pid) for pid in pids.read_text().split()]
        await settled(lambda: not any(is_running(pid) for pid in alive))
        await settled(lambda: open_files() <= files + 1)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


def is_running(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@LOOPS
def test_a_child_left_behind_with_our_pipe_in_its_hand_does_not_hold_us_up(new_loop, tmp_path):
    script = f"echo fine; sleep 60 & echo $! > {tmp_path}/pid"

    async def main():
        answer = await run(*shell(script), seconds=PATIENCE_SECONDS)
        assert answer.details["message"] == "fine"
        pid = int((tmp_path / "pid").read_text())
        await settled(lambda: not is_running(pid))

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


async def test_no_more_than_sixteen_run_at_once(tmp_path):
    script = f"echo >> {tmp_path}/running; sleep 60"
    before = open_files()
    async with Network() as network:
        checks = [
            asyncio.get_running_loop().create_task(run(*shell(script), seconds=60, network=network)) for _ in range(20)
        ]
        await settled(lambda: (tmp_path / "running").exists() and (tmp_path / "running").stat().st_size == 16)
        assert network.slots.busy(_PLACE) == 16
        for task in checks:
            task.cancel()
        await asyncio.gather(*checks, return_exceptions=True)
    await settled(lambda: open_files() <= before)


@pytest.mark.parametrize("source", ["api", ""])
def test_it_is_accepted_only_from_the_configuration_file(source):
    given = {"id": "x", "url": "exec://db-1.test", "command": ["/bin/true"]}
    with pytest.raises(InvalidInputError, match="EXEC is accepted only from the configuration file"):
        parse_endpoint(given, EndpointDefaults(), source=source)
    endpoint = parse_endpoint(given, EndpointDefaults(), source="config:main")
    object.__setattr__(endpoint, "source", source)
    with pytest.raises(InvalidInputError, match="EXEC is accepted only from the configuration file"):
        prepare(endpoint)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ([], "command: is empty"),
        (["check_x"], "command: must begin with the program's whole path"),
        ("/bin/true", "command: must be a list"),
        (["/bin/true", 5], "command.1: must be text"),
    ],
)
def test_a_command_that_cannot_be_run_is_refused(command, sentence):
    with pytest.raises(InvalidInputError) as refused:
        parse_endpoint({"url": "exec://a", "command": command}, EndpointDefaults(), source="config:main")
    assert sentence in str(refused.value)


def test_it_cannot_be_turned_round():
    with pytest.raises(InvalidInputError, match="inverted: means nothing to EXEC, as a plug-in always answers"):
        parse_endpoint(
            {"url": "exec://a", "command": ["/bin/true"], "inverted": True}, EndpointDefaults(), source="config:main"
        )


@pytest.mark.parametrize(
    ("text", "message", "measures"),
    [
        ("OK", "OK", {}),
        ("\n\nOK | a=1", "OK", {"a": (1, "")}),
        ("OK | 'a b'=1%;2;3;0;100 'it''s'=-2.5e3ms", "OK", {"a b": (1, "%"), "it's": (-2500, "ms")}),
        ("OK\nlong text | ignored=1\nmore=2", "OK", {"ignored": (1, ""), "more": (2, "")}),
        ("OK | rubbish = 5 a= =3 b=1e999 c=U", "OK", {}),
        ("OK | a=.5s;; b=5. c=+1E2B;1 d==1 e=1x=2", "OK", {"a": (0.5, "s"), "c": (100, "B")}),
        ("", "", {}),
    ],
)
def test_output_is_read_as_the_guidelines_say(text, message, measures):
    assert read_output(text) == (message, measures)


@pytest.mark.parametrize("text", ["'", "''a", "a", "1", "a=1", " ''''", " '", "1e", "a=1 ", " a='", "|\n"])
def test_no_output_however_odd_is_read_for_long(text):
    """64 KiB of some of these took a minute; what takes as long ends the test."""
    for _ in range(20):
        read_output("OK | " + text * (65_536 // len(text)))
    assert len(read_output("OK | " + " ".join(f"m{number}=1" for number in range(9000))).measures) == 50
