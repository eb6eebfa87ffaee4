"""``servmon status`` and ``servmon watch`` against a real API, a stream that breaks, and a real daemon."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
from contextlib import asynccontextmanager
from datetime import datetime

import pytest

from servmon.cli.when import readable
from servmon.clock import now
from servmon.services.stream import Stream
from tests.fix_api import services_on, serving, window
from tests.fix_cli import command, on_terminal, rest_of, where
from tests.test_cli import servmon

# A reader that is given up in the middle of the stream may be collected in any later test.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@asynccontextmanager
async def started(*arguments, stdout=asyncio.subprocess.PIPE):
    """A command that runs until it is told to end, or ends itself."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "servmon", *arguments), stdout=stdout, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
async def troubled(cli, api, history):
    """One endpoint in an outage whose words want to move the cursor, and planned work on another."""
    await cli("services", "add", "shop", "tcp://127.0.0.1:1")
    await cli("services", "add", "edge", "icmp://127.0.0.1")
    await history.outage("shop", description="\x1b[2Jgone")
    await api.post("/maintenance/", window("edge"))
    return api


async def test_the_status_is_lines_that_tell_their_kind(cli, troubled):
    code, out, err = await cli("status")
    assert (code, err) == (0, "")
    lines = [line.split("\t") for line in out.splitlines()]
    assert ["services", "unknown", "2"] in lines
    assert [line[1] for line in lines if line[0] == "outage"] == ["shop"]
    assert [line[3] for line in lines if line[0] == "maintenance"] == ["edge"]
    code, out, _ = await cli("status", "--json")
    assert set(json.loads(out)) == {"services", "degraded", "outages", "suspects", "maintenance"}
    assert (await cli("status", "--watch"))[0] == 2


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
async def test_a_terminal_sees_it_live_until_it_is_ended_and_is_as_it_was_then(troubled, tmp_path, number, status):
    options = where(tmp_path, f"http://127.0.0.1:{troubled.port}")
    written = await on_terminal("status", *options, columns=160)
    assert "1 open outage\r\n" in written
    assert "\\x1b[2Jgone" in written
    ours, theirs = pty.openpty()
    async with started("status", "--watch", "--every", "0.2", *options, stdout=theirs) as process:
        os.close(theirs)
        seen = ""
        while seen.count("no outage") + seen.count("open outage") < 2:
            seen += (await asyncio.to_thread(os.read, ours, 65_536)).decode(
                errors="replace"
            )  # it may end amid a letter
        process.send_signal(number)
        seen += await asyncio.to_thread(rest_of, ours)
        assert await process.wait() == status
    assert seen.startswith("\x1b[?1049h")
    assert seen.endswith("\x1b[?1049l")
    assert "\x1b[2Jgone" not in seen


async def test_events_are_lines_as_they_come(connection, tmp_path):
    stream = Stream()
    async with (
        serving(services_on(connection), stream=stream) as client,
        started("watch", *where(tmp_path, f"http://127.0.0.1:{client.port}")) as process,
    ):
        while not stream._listeners:  # noqa: ASYNC110 - another process rings no bell here
            await asyncio.sleep(0.05)
        await client.post("/services/", {"id": "shop", "url": "tcp://127.0.0.1:1"})
        at, _, rest = (await process.stdout.readline()).decode().partition("\t")
        made = json.loads((await client.get("/audit")).body)["items"][0]["at"]
        assert (at, rest) == (readable(made), "change\t/services/shop\tcreate_endpoint by admin\n")
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0


async def test_a_broken_stream_is_gone_on_with_where_it_broke(tmp_path):
    resumed: list[str] = []
    answers = [
        (
            'retry: 10\n\nid: a-1\nevent: change\ndata: {"action": "x", "target": "/\\u001b[2J", "who": "me", '
            '"at": "2026-11-23T15:43:49.123456Z"}\n\n'
            "id: a-2\nevent: change\ndata: {"
        ),
        ": nothing new\n\nevent: missed\ndata: {}\n\n",
    ]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        resumed.append(head.partition("last-event-id: ")[2].partition("\r\n")[0])
        if answers:
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + answers.pop(0).encode())
        else:
            problem = b'{"detail": "this token is not known here"}'
            writer.write(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\n\r\n" % len(problem) + problem)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        code, out, err = await servmon("watch", *where(tmp_path, f"http://127.0.0.1:{port}"))
    assert resumed == ["", "a-1", "a-1"]
    change, missed = out.splitlines()
    assert change == "2026-11-23 15:43:49Z\tchange\t/\\x1b[2J\tx by me"
    # An older servmon does not say when: the line has the time it came.
    at, _, rest = missed.partition("\t")
    assert datetime.fromisoformat(at) <= now()
    assert rest == "missed\t\tsome of what happened meanwhile is not remembered any more"
    assert (code, err.splitlines()[-1]) == (1, "this token is not known here")


async def test_nobody_to_watch_is_a_sentence(tmp_path, closed_port):
    code, out, err = await servmon("watch", *where(tmp_path, f"http://127.0.0.1:{closed_port}"))
    assert (code, out) == (1, "")
    assert err == f"no servmon answers at http://127.0.0.1:{closed_port}: Connection refused\n"


async def test_a_servmon_that_never_ran_here_has_no_token_and_that_is_said(tmp_path):
    file = tmp_path / "servmon.toml"
    file.write_text(f'[servmon]\ndata_dir = "{tmp_path}"\n', encoding="ascii")
    code, out, err = await command("status", "--config", str(file))
    assert (code, out) == (1, "")
    assert err.endswith(
        "No such file or directory; servmon makes it at its first start. Does the one here have another --config?\n"
    )


async def test_the_daemon_here_is_found_by_its_configuration(servmon_daemon):
    daemon = servmon_daemon('[[endpoints]]\nid = "self"\nurl = "icmp://127.0.0.1"\n')
    await daemon.start()
    code, out, err = await servmon("services", "list", "--config", str(daemon.file))
    assert (code, err, out.split("\t")[0]) == (0, "", "self")
    code, out, _ = await servmon("status", "-c", str(daemon.file))
    assert (code, out.startswith("services\t")) == (0, True)
    # What is wrong in the file keeps nobody from seeing what is down.
    daemon.file.write_text(f"{daemon.file.read_text()}\n[service]\ncheck_interval = 'often'\n", encoding="utf-8")
    code, out, err = await servmon("status", "-c", str(daemon.file))
    assert (code, out.startswith("services\t")) == (0, True)
    assert err.endswith("has a mistake; the configuration that was applied last is gone by\n")
