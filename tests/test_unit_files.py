"""The systemd units: valid, hardened, and put in place by one command."""

from __future__ import annotations

import asyncio
import re
import shutil
from pathlib import Path

import pytest

from servmon.errors import StartError
from servmon.settings import load
from servmon.unit_files import UNITS, install
from tests.test_cli import servmon

SOURCE = Path(__file__).parent.parent / "systemd"


async def analyse(*arguments: str) -> tuple[int, str]:
    return await tool("systemd-analyze", "systemd", *arguments)


async def tool(name: str, package: str, *arguments: str) -> tuple[int, str]:
    """What a program of the system says."""
    command = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if command is None:
        pytest.skip(f"{name}, of Debian's package {package}, is not installed")
    process = await asyncio.create_subprocess_exec(
        command, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


@pytest.fixture
def installed(tmp_path) -> Path:
    """A root with the units, whose command exists."""
    command = tmp_path / "opt/servmon/bin/servmon"
    command.parent.mkdir(parents=True)
    command.write_text("#!/bin/sh\n", encoding="utf-8")
    command.chmod(0o755)
    list(install(tmp_path, command))
    return tmp_path


async def test_systemd_finds_nothing_to_say_about_the_unit(installed):
    code, said = await analyse("verify", str(installed / "etc/systemd/system/servmon.service"))
    assert (code, said) == (0, "")


@pytest.mark.parametrize("name", UNITS)
async def test_the_exposure_level_is_at_most_one_and_a_half(name):
    _, said = await analyse("security", "--offline=true", "--threshold=15", str(SOURCE / name))
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert level is not None, said
    assert float(level[1]) <= 1.5


async def test_systemd_and_logrotate_understand_what_is_put_beside_the_units(installed, tmp_path):
    root = f"--root={installed}"
    said = await tool("systemd-sysusers", "systemd", root, str(installed / "etc/sysusers.d/servmon.conf"))
    assert said[0] == 0, said
    assert re.search(r"^servmon:", (installed / "etc/passwd").read_text(encoding="utf-8"), re.MULTILINE)
    said = await tool("systemd-tmpfiles", "systemd", root, "--create", str(installed / "etc/tmpfiles.d/servmon.conf"))
    assert said[0] == 0, said
    assert (installed / "etc/servmon/conf.d").is_dir()
    rotation = str(installed / "etc/logrotate.d/servmon")
    code, told = await tool("logrotate", "logrotate", "--debug", "--state", str(tmp_path / "state"), rotation)
    assert (code, "error" in told) == (0, False), told


def test_install_says_what_it_did_and_leaves_a_configuration_alone(tmp_path):
    done = list(install(tmp_path, Path("/opt/x/servmon")))
    unit = (tmp_path / "etc/systemd/system/servmon.service").read_text(encoding="utf-8")
    assert "ExecStart=/opt/x/servmon run --config /etc/servmon/servmon.toml" in unit
    configuration = tmp_path / "etc/servmon/servmon.toml"
    assert f"wrote {configuration}" in done
    assert load(configuration, {}).warnings == ()
    configuration.write_text("# mine\n", encoding="utf-8")
    assert f"left {configuration} as it is" in list(install(tmp_path, Path("/opt/x/servmon")))
    assert configuration.read_text(encoding="utf-8") == "# mine\n"


def test_where_it_may_not_write_it_says_so(tmp_path):
    (tmp_path / "etc").write_text("", encoding="utf-8")
    with pytest.raises(StartError, match="only root may install a service"):
        list(install(tmp_path, Path("/x")))


async def test_the_command_line_installs_itself(tmp_path):
    code, out, err = await servmon("service", "install", "--root", str(tmp_path))
    assert (code, err) == (0, "")
    assert (
        out.splitlines()[-1]
        == "next: systemd-tmpfiles --create servmon.conf; systemctl daemon-reload; systemctl enable --now servmon"
    )


def test_both_units_say_the_same_but_for_the_instance():
    plain, instance = ((SOURCE / name).read_text(encoding="utf-8").splitlines() for name in UNITS)
    assert [line for line in instance if line not in plain and "%i" not in line and not line.startswith("#")] == []
