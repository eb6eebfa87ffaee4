"""The process of a PostgreSQL server: ends when we do, is asked to end, and is found again by the folder it serves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from signal import SIGINT, SIGKILL, SIGQUIT, Signals

import structlog

from servmon.store.postgres_binaries import ENVIRONMENT, Account, run_as

_log = structlog.get_logger(__name__)

POLL_SECONDS = 0.02
STOP_SECONDS = 30.0
QUIT_SECONDS = 5.0
_STOPS = ((SIGINT, STOP_SECONDS), (SIGQUIT, QUIT_SECONDS), (SIGKILL, QUIT_SECONDS))
# A signal is lost that comes in the moment in which the launcher becomes the server.
ASK_AGAIN_SECONDS = 1.0

# Becomes the server. Takes the account's rights first, since changing them takes back the wish of the next step: to
# be told to stop when the parent ends, however it ends. The parent may have ended before that wish was made.
_LAUNCHER = """
import os, sys
if sys.platform == "linux":
    import ctypes  # while we may still read Python's own folder
    prctl = ctypes.CDLL(None).prctl
uid, gid, parent = map(int, sys.argv[1:4])
if uid:
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
if sys.platform == "linux":
    prctl(1, 2)  # PR_SET_PDEATHSIG, SIGINT
if os.getppid() != parent:
    sys.exit("servmon ended while it started PostgreSQL")
os.execv(sys.argv[4], sys.argv[4:])
"""


class Postmaster:
    """A server that runs ``command`` as ``account`` (as ourselves without one), in ``folder``, and writes to ``log``.

    Start it in the main thread: the kernel takes the end of the starting thread for the end of the process.
    """

    def __init__(self, command: Sequence[str], account: Account | None, folder: Path, log: int) -> None:
        runs_as = account or Account("", 0, 0)
        launcher = [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(runs_as.uid), str(runs_as.gid), str(os.getpid())]
        # Every process of the server holds the other end; the kernel closes it when the last of them has ended.
        self._life, held = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own words and paths
                [*launcher, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                env=ENVIRONMENT,
                pass_fds=(held,),
                umask=0o077,
                start_new_session=True,  # Ctrl-C on the terminal is for servmon, which ends the server in order
            )
        except BaseException:
            os.close(self._life)
            raise
        finally:
            os.close(held)

    @property
    def pid(self) -> int:
        """The number of its first process."""
        return self._process.pid

    @property
    def has_died(self) -> bool:
        """Whether its first process has ended."""
        return self._process.poll() is not None

    async def died(self) -> int:
        """Return the exit status (negative: the signal) once it and all its processes have ended."""
        await _closed(self._life)
        return self._process.wait()

    async def end(self) -> None:
        """End it with all its processes: in order, then at once, then by force."""
        for number, patience in _STOPS:
            try:
                async with asyncio.timeout(patience):
                    await self._ask(number)
                break
            except TimeoutError:
                _log.warning("PostgreSQL does not stop", asked_by=number.name, seconds=patience)
        self._process.wait()
        os.close(self._life)

    async def _ask(self, number: Signals) -> None:
        while True:
            self._process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ASK_AGAIN_SECONDS):
                    await _closed(self._life)
                    return


async def end_leftover(folder: Path) -> None:
    """End a server that outlived its servmon. The caller holds the lock, so no other servmon owns it."""
    pid = pid_of(folder)
    if pid is None:
        return
    for number, patience in _STOPS:
        if not serves(pid, folder):
            break
        _log.warning("a PostgreSQL was left behind, ending it", pid=pid, by=number.name)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        for _ in range(int(patience / POLL_SECONDS)):
            if not serves(pid, folder):
                break
            await asyncio.sleep(POLL_SECONDS)
    # Its number may be another process' by now, which Postgres would take for itself. Against a server that does run
    # there is still its check of the shared memory.
    (folder / "postmaster.pid").unlink(missing_ok=True)


def pid_of(folder: Path) -> int | None:
    """The number of the process that says it serves ``folder``."""
    try:
        return int((folder / "postmaster.pid").read_text().split("\n")[0])
    except (FileNotFoundError, ValueError):
        return None


def serves(pid: int, folder: Path) -> bool:
    """Whether the process ``pid`` is a PostgreSQL that serves ``folder``."""
    try:
        if sys.platform == "linux":
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
        else:
            asked = run_as(None, "/bin/ps", "-ww", "-o", "command=", "-p", str(pid))
            words = asked.stdout.decode(errors="replace").split()
    except OSError:
        return False
    return Path(words[0] if words else "").name == "postgres" and str(folder) in words


async def _closed(descriptor: int) -> None:
    """Return once nobody holds the other end of this pipe any more."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    own = os.dup(descriptor)
    loop.add_reader(own, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(own)
        os.close(own)
