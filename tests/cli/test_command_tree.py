"""The command tree itself: quick to begin with, complete for the shell, told in the README."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import typer.main

from servmon.alerts.rule_settings import RuleKind
from servmon.cli import app
from servmon.cli.rules import SEVERITIES, Kinds
from servmon.cli.tokens import Roles
from servmon.model import Role, Severity

README = (Path(__file__).parent.parent.parent / "README.md").read_text(encoding="utf-8")


def test_reading_a_command_line_loads_nothing_that_only_a_command_needs():
    heavy = "('aiohttp', 'asyncpg', 'pydantic', 'structlog', 'urllib.request')"
    code = f"import sys, servmon.cli; print([name for name in {heavy} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_the_roles_kinds_and_severities_are_the_models():
    assert set(get_args(Roles)) == {str(role) for role in Role}
    assert list(get_args(Kinds)) == [str(kind) for kind in RuleKind]
    assert list(SEVERITIES) == [str(severity) for severity in Severity]


def test_every_command_for_everybody_is_in_the_readme():
    root = typer.main.get_command(app)
    names = [name for name, command in root.commands.items() if not command.hidden]
    assert {"services", "outages", "maintenance", "silences", "tokens", "rules", "status", "watch", "report"} <= set(
        names
    )
    assert [name for name in names if f"servmon {name}" not in README] == []


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("servmon outages ack", "acknowledge"),
        ("servmon services list --statu", "--status"),
        ("servmon rules add x --kind act", "active_outages"),
    ],
)
def test_the_shell_completes_commands_and_options(typed, offered):
    ran = subprocess.run(
        [sys.executable, "-c", "from servmon.cli import app; app(prog_name='servmon')"],
        env={"_SERVMON_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.stdout.split() == [offered], ran.stderr
