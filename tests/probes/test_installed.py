"""Protocols from other packages: the README's whole one, and each way to be broken."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path

import pytest

README = Path(__file__).parent.parent.parent / "README.md"
GOOD = """
from servmon.probes.base import Answer, Options
class Probe:
    protocol, default_port, options, takes_socket = "WHOIS", 43, Options, True
    async def check(self, target, options, context):
        return Answer(1.0)
"""


def example() -> str:
    section = README.read_text(encoding="utf-8").partition("## A protocol of your own")[2]
    return re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]


def install(folder: Path, source: str, value: str = "its_probe:Probe", group: str = "servmon.probes") -> None:
    """As pip would: a module, and the metadata with its entry point."""
    (folder / f"{value.partition(':')[0]}.py").write_text(source)
    metadata = folder / "its_probe-1.2.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: its-probe\nVersion: 1.2\n")
    (metadata / "entry_points.txt").write_text(f"[{group}]\nits = {value}\n")


async def servmon(folder: Path, *arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "servmon", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(folder)},  # noqa: TID251 - the child's, with one more folder
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


def test_the_readmes_example_is_short():
    lines = [line for line in example().splitlines() if line.strip()]
    assert len(lines) - sum(line.startswith(("import ", "from ")) for line in lines) <= 20


async def test_the_readmes_example_works_as_it_stands_there(tmp_path, tcp_server):
    asked = []

    async def answers(reader, writer):
        asked.append(await reader.readline())
        writer.write(b"Login: root")

    async def says_nothing(reader, _writer):
        await reader.readline()

    finger, silent = await tcp_server(answers), await tcp_server(says_nothing)
    install(tmp_path, example(), "servmon_finger:FingerProbe")
    code, out, err = await servmon(tmp_path, "check", f"finger://127.0.0.1:{finger.port}", "-o", "user=root", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["protocol"] == "FINGER"
    assert asked == [b"root\r\n"]
    code, out, err = await servmon(tmp_path, "check", f"finger://127.0.0.1:{silent.port}", "-o", "retries=0")
    assert (code, err, out.partition(" | ")[0].strip()) == (2, "", "FINGER CRITICAL - 127.0.0.1 says nothing")


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (
            "import nothing_of_the_kind",
            "it cannot be loaded: ModuleNotFoundError: No module named 'nothing_of_the_kind'",
        ),
        ("raise SystemExit('no licence')", "it cannot be loaded: SystemExit: no licence"),
        ("Other = 1", "it cannot be loaded: AttributeError"),
        (GOOD.replace('"WHOIS"', '"TCP"'), "its protocol TCP is that of servmon itself"),
        (GOOD.replace('"WHOIS"', '"who is"'), 'its "protocol" must be a word in capitals'),
        (GOOD.replace("43", "99999"), 'its "default_port" must be a port'),
        (GOOD.replace("Options, True", "dict, True"), 'its "options" must be a class derived from'),
        (GOOD.replace("Options, True", "Options, 1"), 'its "takes_socket" must be True or False'),
        (GOOD.replace("async def", "def"), 'its "check" must be an async method'),
        (
            GOOD.replace("class Probe", "class Mine(Options):\n    timeout: int = 1\nclass Probe").replace(
                "Options, True", "Mine, True"
            ),
            "its option 'timeout' bears the name of an endpoint's field",
        ),
    ],
)
async def test_a_broken_one_is_one_clear_sentence_at_the_start(tmp_path, source, problem):
    install(tmp_path, source)
    code, out, err = await servmon(tmp_path, "check", "tcp://127.0.0.1:1")
    assert (code, out) == (3, "")
    sentence = "the probe 'its' (its_probe:Probe) of the package its-probe 1.2 cannot be used: "
    assert err.startswith(sentence + problem)
    assert err.count("\n") == 1


async def test_a_broken_one_is_no_configuration_to_run_with(tmp_path):
    install(tmp_path, "import nothing_of_the_kind")
    code, out, err = await servmon(tmp_path, "config", "check")
    assert (code, out) == (2, "")
    assert "Traceback" not in err
