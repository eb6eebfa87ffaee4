"""Network namespaces of our own: silent hosts, routers and permissions that the machine itself need not have."""

from __future__ import annotations

import asyncio
import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

CLONE_NEWNET = 0x40000000
CAP_NET_RAW = 13
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A thread that lives in a network namespace of its own, loopback up. What it runs sees only that network."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="netns")
        self.tid = self.run(self._enter)

    @staticmethod
    def _enter() -> int:
        if _libc.unshare(CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return threading.get_native_id()

    def run(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return self._thread.submit(call, *arguments).result()

    def run_async(self, call: Callable[[], Any], loop_factory: Callable[[], Any] | None = None) -> Any:
        def run() -> Any:
            with asyncio.Runner(loop_factory=loop_factory) as runner:
                return runner.run(call())

        return self.run(run)

    def ip(self, *commands: str) -> None:
        def run() -> None:
            text = "\n".join(commands)
            done = subprocess.run(["ip", "-batch", "-"], input=text, text=True, check=False, capture_output=True)
            assert done.returncode == 0, done.stderr

        self.run(run)

    def sysctl(self, name: str, value: str) -> None:
        def write() -> None:
            with open(f"/proc/sys/{name.replace('.', '/')}", "w") as file:  # noqa: PTH123 - a namespace's own file
                file.write(value)

        self.run(write)

    def drop_net_raw(self) -> None:
        """Take CAP_NET_RAW from this thread alone."""

        def drop() -> None:
            header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
            data = (ctypes.c_uint32 * 6)()
            assert _libc.capget(header, data) == 0
            data[0] &= ~(1 << CAP_NET_RAW)
            assert _libc.capset(header, data) == 0

        self.run(drop)

    def close(self) -> None:
        self._thread.shutdown()


@pytest.fixture
def make_netns() -> Iterator[Callable[[], Namespace]]:
    """Makes network namespaces; each with loopback up and unprivileged ping allowed."""
    made: list[Namespace] = []

    def make() -> Namespace:
        try:
            namespace = Namespace()
        except OSError as error:
            pytest.skip(f"a network namespace needs root (CAP_SYS_ADMIN): {error}")
        made.append(namespace)
        namespace.ip("link set lo up")
        namespace.sysctl("net.ipv4.ping_group_range", "0 2147483647")
        return namespace

    yield make
    for namespace in made:
        namespace.close()


@pytest.fixture
def netns(make_netns) -> Namespace:
    """A namespace where 127.0.0.0/8 and ::1 answer; 10.7.0.0/16 and fd07::/64 are there and silent."""
    namespace = make_netns()
    namespace.ip(
        "link add out type veth peer name wire",
        # Without ARP nobody asks for the neighbour: packets leave and are lost.
        "link set out arp off up",
        "link set wire up",
        "addr add 10.7.0.1/16 dev out",
        "addr add fd07::1/64 dev out nodad",
    )
    return namespace
