"""The real daemon as a process of its own, with its own Postgres, in a folder of the test."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from servmon.store.embedded import EmbeddedPostgres
from servmon.store.entries import decode, results_in
from servmon.store.migrate import migrate
from servmon.store.status_rows import status_id
from tests.fix_servers import free_port, patience

POLL_SECONDS = 0.05
FAST = """
[service]
retry_interval = 1
check_timeout = 0.5
check_retries = 0
"""
# The witnesses of the machine that runs the tests may be slow to answer, or silent.
SEEING = f"""{FAST}
[outage]
witnesses = ["127.0.0.1"]
"""
# Where no test is about how an outage is found: the first failed check opens one, the first good one ends it.
QUICK = f"""{SEEING}
detection_threshold = 1
recovery_threshold = 1
"""
# Each check is in the log with the id that the API tells of it.
SHOWING_CHECKS = """
[log]
level = "debug"
"""


class RunningServmon:
    """One servmon in ``folder``; ``configuration`` is what its file says beside the folder and the port."""

    def __init__(self, folder: Path, configuration: str, cluster: Path | None = None) -> None:
        self.folder = folder
        self.cluster = cluster
        self.file = folder / "servmon.toml"
        self.data_dir = folder / "data"
        self.log_file = folder / "servmon.log"
        self.port = free_port()
        self.environment: dict[str, str] = {}
        # Python, or what starts it as another account or in another network.
        self.prefix: tuple[str, ...] = (sys.executable,)
        self.process: asyncio.subprocess.Process | None = None
        self._session: aiohttp.ClientSession | None = None
        self.configure(configuration)

    def configure(self, configuration: str) -> None:
        """Write the configuration file anew, at one stroke."""
        quiet = "" if "[alert]" in configuration else "[alert]\nnotification_channels = []\n"
        text = (
            f"[servmon]\ndata_dir = {json.dumps(str(self.data_dir))}\n[api]\nport = {self.port}\n{quiet}{configuration}"
        )
        written = self.file.with_suffix(".new")
        written.write_text(text, encoding="utf-8")
        written.rename(self.file)

    async def start(self) -> None:
        """Return once the API answers."""
        self._take_cluster()
        with self.log_file.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(*self.prefix, "-m", "servmon", "run", "--config", str(self.file)),
                stdout=log,
                stderr=log,
                env=os.environ | self.environment,  # noqa: TID251 - a child's is made of ours
            )
        await self.until(self._answers, "the API")
        token = (self.data_dir / "admin.token").read_text(encoding="utf-8").strip()
        self._session = aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"})

    def _take_cluster(self) -> None:
        """Begin with a copy of a private Postgres that is made already: making one takes longer than many a test."""
        own_database = "[database]" not in self.file.read_text(encoding="utf-8") if self.file.is_file() else False
        if self.cluster is None or not own_database or self.data_dir.exists() or self.prefix != (sys.executable,):
            return
        self.data_dir.mkdir(mode=0o755)
        subprocess.run(["cp", "-a", str(self.cluster), str(self.data_dir / "postgres")], check=True)

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Signal it and wait for its end; returns the exit status."""
        assert self.process is not None
        if self._session is not None:
            await self._session.close()
            self._session = None
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        async with patience():
            return await self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    async def get(self, path: str) -> Any:
        assert self._session is not None
        async with self._session.get(f"http://127.0.0.1:{self.port}{path}") as answer:
            assert answer.status == 200, (path, answer.status, await answer.text())
            return await answer.json()

    async def send(self, method: str, path: str, body: Any) -> Any:
        assert self._session is not None
        async with self._session.request(method, f"http://127.0.0.1:{self.port}{path}", json=body) as answer:
            assert answer.ok, (path, answer.status, await answer.text())
            return await answer.json()

    async def text(self, path: str) -> str:
        assert self._session is not None
        async with self._session.get(f"http://127.0.0.1:{self.port}{path}") as answer:
            assert answer.status == 200
            return await answer.text()

    async def answer(self, method: str, path: str, body: Any = None) -> str:
        """What comes back, headers too, whatever its status."""
        assert self._session is not None
        more = {} if body is None else {"json": body}
        async with self._session.request(method, f"http://127.0.0.1:{self.port}{path}", **more) as answer:
            return f"{answer.status} {dict(answer.headers)} {await answer.text()}"

    @contextlib.asynccontextmanager
    async def events(self, token: str) -> AsyncIterator[aiohttp.StreamReader]:
        """An open stream of events, as the holder of ``token`` hears it."""
        headers = {"Authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession(headers=headers) as session,
            session.get(f"http://127.0.0.1:{self.port}/events") as answer,
        ):
            await answer.content.readuntil(b"\n\n")
            yield answer.content

    async def get_until(self, path: str, holds: Callable[[Any], bool]) -> Any:
        """The answer of ``path`` as soon as it ``holds``; one that says "ask again soon" is asked again."""
        found: list[Any] = []

        async def ask() -> bool:
            assert self._session is not None
            async with self._session.get(f"http://127.0.0.1:{self.port}{path}") as answer:
                assert answer.status in (200, 503), (path, answer.status, await answer.text())
                found[:] = [await answer.json()]
                return answer.status == 200 and holds(found[0])

        await self.until(ask, path, found)
        return found[0]

    async def until(self, holds: Callable[[], Any], what: str, found: Any = None) -> None:
        try:
            async with patience():
                while not await holds():  # noqa: ASYNC110 - another process rings no bell here
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise AssertionError(f"waited in vain for {what}; last: {found}; log:\n{self.log()[-4000:]}") from None

    async def logged(self, sentence: str) -> None:
        """Wait until the log holds ``sentence``."""

        async def holds() -> bool:
            return sentence in self.log()

        await self.until(holds, f"{sentence!r} in the log")

    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def postgres_pid(self) -> int:
        return int((self.data_dir / "postgres" / "postmaster.pid").read_text(encoding="utf-8").split()[0])

    @contextlib.contextmanager
    def hanging_postgres(self) -> Iterator[None]:
        """Postgres, with every process that serves a connection, neither answers nor ends."""
        postmaster = self.postgres_pid()
        os.kill(postmaster, signal.SIGSTOP)  # first, so that no child is missed
        stopped = [postmaster]
        try:
            for child in Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text(encoding="ascii").split():
                stopped.append(int(child))
                os.kill(int(child), signal.SIGSTOP)
            yield
        finally:
            for pid in reversed(stopped):
                os.kill(pid, signal.SIGCONT)

    def checked(self) -> set[str]:
        """The ids of all checks that it made, where its log is ``SHOWING_CHECKS``."""
        whole = self.log().split("\n")[:-1]
        lines = (json.loads(line) for line in whole if '"event": "checked"' in line)
        return {line["check"] for line in lines}

    def results_on_disk(self) -> set[str]:
        """The ids of the results that wait on disk; what waits there beside them is something else."""
        file = self.data_dir / "spool.sqlite"
        if not file.exists():
            return set()
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as spool:
            try:
                waiting = spool.execute("select body from bundle where stored_at is null").fetchall()
            except sqlite3.OperationalError:  # it is just being made
                return set()
        found = [one for (body,) in waiting for one in results_in(decode(body))]
        return {status_id(one.endpoint_key, 1, one.timestamp) for one in found}

    async def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.returncode is None, self.log()
        try:
            async with (
                aiohttp.ClientSession() as session,
                session.get(f"http://127.0.0.1:{self.port}/healthz") as answer,
            ):
                return answer.ok
        except aiohttp.ClientConnectionError:
            return False


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="session")
def prepared_cluster() -> Iterator[Path]:
    """The folder of a private Postgres at rest, with servmon's schema and nothing in it."""
    folder = Path(tempfile.mkdtemp(prefix="svm-", dir="/tmp"))
    folder.chmod(0o711)
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        server = EmbeddedPostgres(folder)
        try:
            runner.run(migrate(runner.run(server.start())))
        finally:
            runner.run(server.stop())
    yield folder / "postgres"
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
async def servmon_daemon(prepared_cluster: Path) -> AsyncIterator[Callable[[str], RunningServmon]]:
    """Makes daemons that are not started yet; at the end none is left."""
    made: list[RunningServmon] = []

    def make(configuration: str) -> RunningServmon:
        # Not below pytest's own folder: started by root, PostgreSQL runs under another account and has to get in.
        folder = Path(tempfile.mkdtemp(prefix="servmon-test-"))
        folder.chmod(0o711)
        made.append(RunningServmon(folder, configuration, prepared_cluster))
        return made[-1]

    yield make
    for one in made:
        if one.process is not None and one.process.returncode is None:
            await one.stop()
        shutil.rmtree(one.folder)
