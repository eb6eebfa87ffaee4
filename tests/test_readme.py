"""The README's first hour, with curl and on the command line, as it stands there, against a real daemon."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from servmon.settings import load
from tests.fix_daemon import FAST, QUICK

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def commands(word: str) -> str:
    """The commands of the one console block that has ``word``, as a shell reads them: with no prompts."""
    blocks = re.findall(r"^```console\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    (block,) = (block for block in blocks if word in block)
    return re.sub(r"^\$ ", "", block, flags=re.MULTILINE)


async def run(script: str, folder: Path, **environment: str) -> str:
    """What the commands print; the first that fails ends it, and the test."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-euo", "pipefail", "-c", script),
        cwd=folder,
        env=os.environ | environment,  # noqa: TID251 - a child's is made of ours
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, f"{out.decode()}\n{err.decode()}"
    return out.decode()


def test_the_table_of_contents_leads_to_every_section_and_nowhere_else():
    def place(heading: str) -> str:
        return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")

    headings = {place(found) for found in re.findall(r"^##+ (.+)$", README, re.MULTILINE)}
    sections = {place(found) for found in re.findall(r"^## (.+)$", README, re.MULTILINE)}
    linked = set(re.findall(r"\]\(#([^)]+)\)", README))
    assert linked <= headings
    assert sections - linked == {"two-commands", "where-to-find-what", "licence"}


def test_the_first_endpoints_are_taken_as_they_stand_there(tmp_path):
    section = README.partition("## Configuration")[2]
    file = tmp_path / "servmon.toml"
    file.write_text(section.partition("```toml\n")[2].partition("```")[0], encoding="utf-8")
    assert [one.id for one in load(file, {}).endpoints] == ["shop", "edge-1"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl on this machine")
async def test_the_first_hour_with_curl(servmon_daemon, site, tmp_path):
    daemon = servmon_daemon(FAST)
    await daemon.start()
    block = commands("api-gateway")
    for written, here in (
        ("~/.local/state/servmon/admin.token", str(daemon.data_dir / "admin.token")),
        ("http://127.0.0.1:8350", f"http://127.0.0.1:{daemon.port}"),
        ('"https://api.example.com/health", "protocol": "HTTPS"', f'"http://127.0.0.1:{site.port}/"'),
        (r', "expected_response_pattern": "\"status\":\"UP\""', ""),
    ):
        assert written in block
        block = block.replace(written, here)
    # Each answer on a line of its own, and none of them an error.
    out = await run('curl() { command curl -sS --fail-with-body "$@"; echo; }\n' + block, tmp_path)
    empty, made, checked, summary, outages = map(json.loads, out.splitlines())
    assert empty["items"] == outages["items"] == []
    assert (made["id"], checked["status"], summary["total"]) == ("api-gateway", "UP", 1)


async def test_the_first_hour_on_the_command_line_which_finds_the_daemon_by_itself(
    servmon_daemon, site, closed_port, tmp_path
):
    daemon = servmon_daemon(
        f'{QUICK}[[endpoints]]\nid = "dead"\nurl = "tcp://127.0.0.1:{closed_port}"\ncheck_interval = 1\n'
    )
    await daemon.start()
    (outage,) = (await daemon.get_until("/outages/active", lambda found: found["items"]))["items"]
    block = commands("services add shop")
    for written, here in (
        ("https://shop.example.com/health", f"http://127.0.0.1:{site.port}/"),
        ("OUTAGE", outage["id"]),
    ):
        assert written in block
        block = block.replace(written, here)
    out = await run(
        f'servmon() {{ {sys.executable} -m servmon "$@"; }}\n' + block,
        tmp_path,
        SERVMON_DATA_DIR=str(daemon.data_dir),
        API_PORT=str(daemon.port),
    )
    assert "shop is checked every 30 s\n" in out
    assert "UP  shop: answered in " in out
    assert f"outage\tdead\t{outage['severity']}" in out
    assert "acknowledged by admin" in out
    assert "planned work, coming" in out
    token = (tmp_path / "wallboard.token").read_text(encoding="ascii")
    assert re.fullmatch(r"svm_[0-9a-f]{8}_\S+\n", token)
