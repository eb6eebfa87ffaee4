"""Channels from other packages: the README's whole one, and each way to be broken."""

from __future__ import annotations

import re
import sys

import pytest

from servmon.alerts.channels.installed import installed_channels
from servmon.alerts.channels.smtp import Smtp
from servmon.errors import StartError
from tests.fix_servers import free_port, settled
from tests.probes.test_installed import README, install, servmon

GOOD = """
from servmon.alerts.channels.base import Channel
from servmon.alerts.settings import ChannelSection
class Section(ChannelSection):
    host: str
class Mine(Channel):
    kind, settings_class = "mine", Section
    def __init__(self, settings): pass
    async def send(self, notification): pass
"""
GROUP = "servmon.channels"


def example() -> str:
    section = README.read_text(encoding="utf-8").partition("## A channel of your own")[2]
    return re.search(r"```python\n(.*?)```", section, re.DOTALL)[1]


def configured(tmp_path, channel: str):
    file = tmp_path / "c.toml"
    file.write_text(f"[alert]\nnotification_channels = []\n[channels.noc]\n{channel}\n", encoding="utf-8")
    return str(file)


def test_the_readmes_example_is_short():
    lines = [line for line in example().splitlines() if line.strip()]
    assert len(lines) - sum(line.startswith(("import ", "from ")) for line in lines) <= 20


async def test_the_readmes_example_works_as_it_stands_there(tmp_path, tcp_server):
    printed = []

    async def printer(reader, _writer):
        printed.append(await reader.read())

    server, nobody = await tcp_server(printer), free_port()
    install(tmp_path, example(), "servmon_printer:Printer", GROUP)
    words = 'subject = "Paper: {{ kind }}"'
    file = configured(tmp_path, f'kind = "printer"\nhost = "127.0.0.1"\nport = {server.port}\n{words}')
    code, out, err = await servmon(tmp_path, "channels", "test", "noc", "--config", file)
    assert (code, err, out) == (0, "", "noc: sent; look whether it arrived\n")
    await settled(lambda: bool(printed))
    assert printed[0].startswith(b"Paper: test\n\nThis is a test of the channel noc.")
    file = configured(tmp_path, f'kind = "printer"\nhost = "127.0.0.1"\nport = {nobody}')
    code, _, err = await servmon(tmp_path, "channels", "test", "noc", "--config", file)
    assert code == 1
    assert err.startswith("noc: 127.0.0.1: ")
    file = configured(tmp_path, 'kind = "printer"\nhsot = "127.0.0.1"')
    code, _, err = await servmon(tmp_path, "config", "check", "--config", file)
    assert code == 2
    assert "channels.noc.hsot: unknown key; was host meant?" in err


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("import nothing_of_the_kind", "it cannot be loaded: ModuleNotFoundError: No module named"),
        ("Mine = 1", "it must be a class derived from servmon.alerts.channels.base.Channel"),
        (GOOD.replace('"mine"', '"smtp"'), "its kind smtp is that of servmon itself"),
        (GOOD.replace('"mine"', '"My Own"'), 'its "kind" must be a word in small letters'),
        (GOOD.replace("Section\n    def", "dict\n    def"), 'its "settings_class" must be a class derived from'),
        (GOOD.replace("async def", "def"), 'its "send" must be an async method'),
        (GOOD.replace("async def send", "async def sent"), 'its "send" must be an async method'),
    ],
)
def test_a_broken_one_is_one_clear_sentence(tmp_path, monkeypatch, source, problem):
    install(tmp_path, source, "its_probe:Mine", GROUP)
    monkeypatch.syspath_prepend(tmp_path)
    try:
        with pytest.raises(StartError) as caught:
            installed_channels([Smtp])
    finally:
        sys.modules.pop("its_probe", None)
    said = "the channel 'its' (its_probe:Mine) of the package its-probe 1.2 cannot be used: "
    assert str(caught.value).startswith(said + problem)
    assert "\n" not in str(caught.value)


async def test_a_broken_one_ends_the_start(tmp_path):
    install(tmp_path, "import nothing_of_the_kind", "its_probe:Mine", GROUP)
    code, out, err = await servmon(tmp_path, "config", "check")
    assert (code, out) == (2, "")
    assert err.startswith("the channel 'its' (its_probe:Mine) of the package its-probe 1.2 cannot be used: it cannot")
    assert err.count("\n") == 1
