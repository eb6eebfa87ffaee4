"""A real servmon with its own Postgres under a steady load: what its process tree uses for each stored check."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

WARM_UP_SECONDS = 6.0
PATIENCE_SECONDS = 60.0
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")

URLS = {
    "HTTP": "http://{host}:{port}/",
    "HTTPS": "https://{host}:{port}/",
    "TCP": "tcp://{host}:{port}",
    "UDP": "udp://{host}:{port}",
    "DNS": "dns://{host}:{port}/bench.example?type=A",
    "ICMP": "icmp://{host}",
}
OPTIONS = {"HTTPS": "tls_verify = false\n", "UDP": 'send = "ping"\n', "ICMP": "packets = 1\n"}
HEAD = """
[servmon]
data_dir = {data_dir}
[api]
port = {port}
token = "bench"
[alert]
notification_channels = []
[log]
level = "warning"
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """What was used during the measurement: CPU microseconds a check, MiB, shares of a second."""

    checks_a_second: float
    daemon_us: float
    postgres_us: float
    skipped: int
    late_share: float
    daemon_mib: float


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for one run, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="servmon-bench-") as name:
        folder = Path(name)
        folder.chmod(0o711)  # started by root, PostgreSQL runs under another account and has to get in
        yield folder


def configuration(folder: Path, port: int, protocol: str, target_port: int, endpoints: int, interval: int) -> Path:
    """Write the file of a servmon that checks ``endpoints`` targets every ``interval`` seconds."""
    lines = [HEAD.format(data_dir=json.dumps(str(folder / "data")), port=port)]
    for number in range(endpoints):
        url = URLS[protocol].format(host=f"127.0.0.{number % 250 + 1}", port=target_port)
        lines.append(
            f'[[endpoints]]\nid = "e{number}"\nurl = "{url}"\ncheck_interval = {interval}\ntimeout = 0.8\nretries = 0\n'
            f"{OPTIONS.get(protocol, '')}"
        )
    file = folder / "servmon.toml"
    file.write_text("".join(lines), encoding="utf-8")
    return file


@contextmanager
def running(file: Path, port: int, core: int) -> Iterator[int]:
    """A servmon on one core; gives its pid."""
    log = (file.parent / "servmon.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "servmon", "run", "--config", str(file)],
        stdout=log,
        stderr=log,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    try:
        _wait_until_it_answers(process, port, file.parent)
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=PATIENCE_SECONDS)
        log.close()


def measure(pid: int, port: int, seconds: float) -> Cost:
    """What the daemon ``pid`` and its children use during ``seconds``, after a warm-up."""
    time.sleep(WARM_UP_SECONDS)
    before = metrics(port)
    daemon, tree = _cpu(pid), _tree_cpu(pid)
    began = time.monotonic()
    time.sleep(seconds)
    daemon_after, tree_after, elapsed = _cpu(pid), _tree_cpu(pid), time.monotonic() - began
    after = metrics(port)  # to ask is work of its own, and is not counted
    stored = after["servmon_rows_stored_total"] - before["servmon_rows_stored_total"]
    used = daemon_after - daemon
    seen = after["servmon_check_lateness_seconds_count"] - before["servmon_check_lateness_seconds_count"]
    on_time = after["on_time"] - before["on_time"]
    return Cost(
        checks_a_second=stored / elapsed,
        daemon_us=used / stored * 1e6,
        postgres_us=(tree_after - tree - used) / stored * 1e6,
        skipped=int(after["servmon_checks_skipped_total"] - before["servmon_checks_skipped_total"]),
        late_share=1 - on_time / seen,
        daemon_mib=_resident_mib(pid),
    )


def free_port() -> int:
    """A port that nobody uses just now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5).close()
        except (urllib.error.URLError, ConnectionError):
            if process.poll() is not None or time.monotonic() > give_up_at:
                raise SystemExit((folder / "servmon.log").read_text(encoding="utf-8")[-2000:]) from None
            time.sleep(0.1)
        else:
            return


def metrics(port: int) -> dict[str, float]:
    """What the daemon tells of itself; ``on_time`` are checks that started within 100 ms."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Authorization": "Bearer bench"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        text = answer.read().decode()
    found = {name: float(value) for name, value in re.findall(r"^(servmon_\w+) ([\d.e+-]+)$", text, re.MULTILINE)}
    found["on_time"] = float(re.findall(r'lateness_seconds_bucket\{le="0.1"\} (\d+)', text)[0])
    return found


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()


def _cpu(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS_A_SECOND


def _tree_cpu(pid: int) -> float:
    """CPU seconds of a process, its living descendants, and those that ended already."""
    fields = _stat(pid)
    ended = (int(fields[13]) + int(fields[14])) / TICKS_A_SECOND
    return _cpu(pid) + ended + sum(_tree_cpu(child) for child in _children(pid))


def _children(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").iterdir()
    return [int(child) for thread in threads for child in (thread / "children").read_text(encoding="ascii").split()]


def _resident_mib(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
