"""PgBouncer before the database of a test, in a pool mode of the test's choice."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.fix_servers import free_port, settled


@pytest.fixture
def pgbouncer_folder():
    made = Path(tempfile.mkdtemp(prefix="pgb-"))
    made.chmod(0o777)  # PgBouncer refuses to run as root
    yield made
    shutil.rmtree(made)


@pytest.fixture
async def pgbouncer(pg_proxy, pgbouncer_folder):
    """Starts PgBouncer before the database in a pool mode; gives the URL that leads through it."""
    program = shutil.which("pgbouncer")
    if program is None:
        pytest.skip("Debian's pgbouncer is not installed")
    folder = pgbouncer_folder
    started: list[asyncio.subprocess.Process] = []

    async def start(mode: str) -> str:
        port, name = free_port(), urlsplit(pg_proxy.dsn).path[1:]
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n{name} = host=127.0.0.1 port={pg_proxy.port} user=servmon\n[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\npool_mode = {mode}\n"
            f"unix_socket_dir =\nlogfile = {folder}/log\ndefault_pool_size = 4\n",
            encoding="utf-8",
        )
        account = ("-u", "nobody") if os.getuid() == 0 else ()
        command = [program, "-q", *account, str(folder / "pgbouncer.ini")]
        started.append(await asyncio.create_subprocess_exec(*command, stderr=subprocess.DEVNULL))
        await settled(lambda: _listens(port))
        return f"postgresql://servmon@127.0.0.1:{port}/{name}"

    yield start
    for process in started:
        process.terminate()
        await process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0
