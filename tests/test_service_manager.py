"""The conversation with systemd, over a real socket, in bad times too; and what an unprivileged service can do."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fix_daemon import SEEING, RunningServmon
from tests.fix_netns import Namespace
from tests.fix_servers import patience

NOBODY = 65534
ONE = SEEING + '[[endpoints]]\nid = "a"\nurl = "icmp://127.0.0.1"\ncheck_interval = 1\n'


class Manager:
    """Listens as systemd does, and remembers each message in its order."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)
        # The daemon speaks ten times a second.
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "400000"}

    async def hear(self) -> str:
        return (await asyncio.get_running_loop().sock_recv(self.socket, 4096)).decode()

    async def hear_until(self, fed: bool, times: int = 5) -> None:
        """Wait until so many messages in a row feed the watchdog, or do not."""
        lately: deque[bool] = deque(maxlen=times)
        async with patience():
            while list(lately) != [fed] * times:
                lately.append("WATCHDOG=1" in (await self.hear()).splitlines())


@pytest.fixture
async def manager(tmp_path) -> AsyncIterator[Manager]:
    listening = Manager(tmp_path / "notify")
    yield listening
    listening.socket.close()


@contextmanager
def full_disk(pid: int) -> Iterator[None]:
    """The process can make no file longer than it is."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


async def test_the_watchdog_is_fed_while_postgres_is_away_and_starves_where_the_disk_takes_nothing_either(
    servmon_daemon, manager
):
    daemon = servmon_daemon(ONE)
    daemon.environment = manager.environment
    await daemon.start()
    assert daemon.process is not None
    await manager.hear_until(fed=True)
    with daemon.hanging_postgres():
        await daemon.logged("results wait for Postgres")
        await manager.hear_until(fed=True)
        with full_disk(daemon.process.pid):
            await manager.hear_until(fed=False)
        await manager.hear_until(fed=True)
    await daemon.stop()


# Puts before each folder that is named one that lets everybody in, with the same in it; then runs what follows "--".
OPENING = """
set -e
while [ "$1" != -- ]; do
    behind=$(mktemp -d)
    mount --bind "$1" "$behind"
    mount -t tmpfs -o mode=755 none "$1"
    for there in "$behind"/* "$behind"/.[!.]*; do
        here="$1/${there##*/}"
        if [ -L "$there" ]; then cp -P "$there" "$here"
        elif [ -d "$there" ]; then mkdir "$here"; mount --bind "$there" "$here"
        elif [ -f "$there" ]; then touch "$here"; mount --bind "$there" "$here"
        fi
    done
    umount --lazy "$behind"
    rmdir "$behind"
    shift
done
shift
exec "$@"
"""


def closed_folders() -> list[str]:
    """Where another account cannot pass on its way to Python and to servmon, the outermost first."""
    needed = [Path(path).resolve() for path in (*sys.path, sys.prefix, sys.base_prefix) if path]
    passed = {folder for path in needed if path.exists() for folder in (path, *path.parents) if folder.is_dir()}
    return sorted(str(folder) for folder in passed if not folder.stat().st_mode & stat.S_IXOTH)


def as_nobody(netns: Namespace) -> tuple[str, ...]:
    """What starts Python in the namespace, as an account that may send raw packets and nothing else.

    Wherever servmon lies: folders that are closed to that account are open in a view of its own.
    """
    if any(shutil.which(tool) is None for tool in ("setpriv", "nsenter", "unshare")):
        pytest.skip("setpriv, nsenter and unshare, of Debian's package util-linux, are not installed")
    only = ("-all,+net_raw",)
    rights = [f"--{kind}={one}" for kind in ("inh-caps", "ambient-caps", "bounding-set") for one in only]
    start = (
        *("nsenter", f"--net=/proc/{os.getpid()}/task/{netns.tid}/ns/net", "--"),
        *("unshare", "--mount", "sh", "-c", OPENING, "sh", *closed_folders(), "--"),
        *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *rights, "--"),
        *("env", f"PYTHONPATH={os.pathsep.join(path for path in sys.path if path)}"),
    )
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for python in (sys.executable, f"/usr/local/bin/{version}", f"/usr/bin/{version}"):
        # It has to start itself again, as it does for its Postgres.
        trial = "import subprocess, sys, servmon; subprocess.run([sys.executable, '-c', ''], check=True)"
        if subprocess.run([*start, python, "-c", trial], check=False, capture_output=True).returncode == 0:
            return (*start, python)
    pytest.skip(f"no {version} that another account can run")


def assert_unprivileged(status: str) -> None:
    assert "CapEff:\t0000000000002000\n" in status
    assert f"Uid:\t{NOBODY}\t" in status


def test_with_cap_net_raw_alone_an_unprivileged_account_does_everything(make_netns):
    netns = make_netns()
    netns.sysctl("net.ipv4.ping_group_range", "1 0")  # no ping without the capability
    prefix = as_nobody(netns)
    folder = Path(tempfile.mkdtemp(prefix="servmon-test-"))
    os.chown(folder, NOBODY, NOBODY)

    async def story() -> None:
        daemon = RunningServmon(folder, ONE + '[[endpoints]]\nid = "six"\nurl = "icmp://[::1]"\ncheck_interval = 1\n')
        daemon.prefix = prefix
        await daemon.start()
        try:
            await daemon.get_until("/services/status/summary", lambda found: found["up"] == 2)
            assert daemon.process is not None
            assert_unprivileged(Path(f"/proc/{daemon.process.pid}/status").read_text(encoding="ascii"))  # noqa: ASYNC240
            daemon.configure(ONE)
            daemon.signal(signal.SIGHUP)
            await daemon.logged("configuration applied")
        finally:
            assert await daemon.stop() == 0

    try:
        netns.run_async(story)
    finally:
        shutil.rmtree(folder)
