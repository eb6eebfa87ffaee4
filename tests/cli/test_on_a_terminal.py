"""On a terminal: tables that fit, words that move no cursor, and a daemon that goes away and comes back."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AsyncExitStack

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from servmon.cli.tables import GAP, Column, cut, table
from tests.fix_api import services_on, serving
from tests.fix_cli import where
from tests.fix_terminal import terminal_of
from tests.ports import free_port

COLUMNS = (
    Column("NAME", "name", least=8),
    Column("SINCE", "since", rank=2),
    Column("SITE", "site", least=4, rank=1),
    Column("ID", "id"),
    Column("WHAT", "what", least=6),
)
ROW = {"name": "edge-router-1", "since": "2026-11-26", "site": "", "id": "0123456789", "what": "it does not answer"}


def shown(width: int, *rows) -> list[str]:
    return list(table(COLUMNS, rows or [ROW], width))


def test_a_table_leaves_out_and_cuts_what_matters_least_until_it_fits():
    assert shown(80)[0].split() == ["NAME", "SINCE", "ID", "WHAT"]  # nothing stands at SITE
    assert shown(59)[1] == "edge-router-1  2026-11-26  0123456789  it does not answer"
    assert shown(50)[1] == "edge-router…  2026-11-26  0123456789  it does not…"
    assert shown(38) == ["NAME          ID          WHAT", "edge-router…  0123456789  it does not…"]
    assert shown(28)[1] == "edge-ro…  0123456789  it do…"
    assert shown(20)[1] == "edge-ro…  012345678…"


def test_a_table_of_nothing_has_no_lines_but_its_heading():
    assert list(table(COLUMNS, [], 80)) == [GAP.join(column.title for column in COLUMNS)]


@given(st.text(), st.integers(1, 12))
def test_what_is_cut_fits_and_says_so(text, width):
    found = cut(text, width)
    assert cell_len(found) <= width
    assert found == text or (found.endswith("…") and text.startswith(found[:-1]))


COUNTS = ("8 endpoints: 8 unknown", "")


async def test_the_status_lives_through_a_night_on_a_terminal(connection, history, tmp_path):
    """Outages whose words want to move the cursor, windows of several sizes, and a servmon that is away for a while."""
    services = services_on(connection)
    async with AsyncExitStack() as stop:
        port = free_port()
        api = await stop.enter_async_context(serving(services, port=port))
        for number in range(8):
            endpoint_id = f"{'edge-router-of-a-site-' * 2}{number}"
            await api.post("/services/", {"id": endpoint_id, "url": "tcp://192.0.2.1:1"})
            await history.outage(endpoint_id, description="\x1b[2J\x07\u202e東京 " * 9)
        options = where(tmp_path, f"http://127.0.0.1:{port}")
        async with terminal_of("status", "--watch", "--every", "0.2", *options, columns=80, rows=10) as terminal:
            seen = await terminal.until(lambda lines: any("lines more" in line for line in lines))
            assert terminal.screen.is_other
            assert seen[1:4] == [*COUNTS, "8 open outages"]
            assert seen[4].split() == ["ENDPOINT", "SEVERITY", "LASTED", "WHAT"]
            assert seen[5].startswith("edge-router-of-a-site")
            assert seen[5].endswith("…")
            assert "\\x1b[2J\\x07\\u202e東京" in seen[5]
            terminal.resize(40, 8)
            seen = await terminal.until(lambda lines: lines[1:4] == [*COUNTS, "8 open outages"] and lines[6] != "")
            assert seen[6] == "… and 7 lines more"
            terminal.resize(150, 40)
            seen = await terminal.until(lambda lines: lines[12].startswith("edge-router"))
            assert seen[4].split() == ["ENDPOINT", "SEVERITY", "SINCE", "LASTED", "STATE", "ID", "WHAT"]
            await stop.aclose()
            seen = await terminal.until(lambda lines: lines[1].startswith("no servmon answers") and lines[12] != "")
            assert seen[3].startswith("as of 20")
            assert seen[4:7] == [*COUNTS, "8 open outages"]
            async with serving(services, port=port):
                await terminal.until(lambda lines: lines[1:4] == [*COUNTS, "8 open outages"])
            assert await terminal.interrupt() == 0
            assert not terminal.screen.is_other


async def test_where_what_was_found_cannot_be_written_one_sentence_says_so(api, tmp_path):
    options = where(tmp_path, f"http://127.0.0.1:{api.port}")
    await api.post("/services/", {"id": "shop", "url": "tcp://192.0.2.1:1", "site": "データ"})
    full = 'exec "$0" -m servmon "$@" > /dev/full'
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", full, sys.executable, "services", "list", *options), stderr=asyncio.subprocess.PIPE
    )
    _, err = await process.communicate()
    assert (process.returncode, err) == (1, b"what was found cannot be written out: No space left on device\n")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "servmon", "services", "list", *options),
        stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONIOENCODING": "latin-1"},  # noqa: TID251 - a child's
    )  # fmt: skip
    out, _ = await process.communicate()
    assert (process.returncode, b"\\u30c7\\u30fc\\u30bf" in out) == (0, True)
