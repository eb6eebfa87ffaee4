"""Hundreds of random edits of the file under load: nothing dies, nothing untouched is missed, each slip is named."""

from __future__ import annotations

import random
import re
import signal
from datetime import datetime
from itertools import pairwise

import pytest

from servmon.clock import now
from tests.fix_daemon import FAST, RunningServmon

STEADY = 500  # endpoints that every valid edit leaves alone, checked once a second
EDITED = 40
SLIPS = (
    ("check_interval = 0\n", r"servmon\.toml:\d+: .*check_interval: must be at least 1, not 0"),
    ("colour = 3\n", r"servmon\.toml:\d+: .*colour"),
    ("[[endpoints]]\nid = 'x'\n", r"servmon\.toml:\d+: endpoints\[x\]"),
    ("[[endpoints\n", r"servmon\.toml:\d+: not valid TOML"),
    ("\x00", r"servmon\.toml:\d+: not valid TOML"),
)


def steady() -> str:
    return "".join(
        f'[[endpoints]]\nid = "s{n}"\nurl = "icmp://127.0.0.{n % 250 + 1}"\ncheck_interval = 1\ntimeout = 0.5\n'
        for n in range(STEADY)
    )


def edited(ids: list[int], interval: int) -> str:
    return "".join(f'[[endpoints]]\nid = "e{n}"\nurl = "icmp://127.0.0.1"\ncheck_interval = {interval}\n' for n in ids)


class Editor:
    """Makes one random edit after the other, and knows what has to come of it."""

    def __init__(self, daemon: RunningServmon, chance: random.Random) -> None:
        self.daemon = daemon
        self.chance = chance
        self.ids = list(range(EDITED))
        self.interval = 60

    async def edit(self) -> None:
        kinds = (self.valid, self.valid, self.slip, self.half_written, self.cut_off, self.removed)
        await self.chance.choice(kinds)()

    async def valid(self) -> None:
        keep = self.chance.randint(EDITED - 5, EDITED)
        self.ids = sorted(self.chance.sample(range(EDITED), keep))
        self.interval = self.chance.randint(30, 90)
        await self.write(FAST + steady() + edited(self.ids, self.interval), "configuration applied")

    async def slip(self) -> None:
        text, sentence = self.chance.choice(SLIPS)
        await self.write(FAST + text + steady() if text[0] != "[" else FAST + steady() + text, sentence)

    async def half_written(self) -> None:
        """An editor that writes in place is read in the middle of a word, and then again."""
        self.interval = self.chance.randint(30, 90)
        whole = FAST + steady() + edited(self.ids, self.interval)
        middle = whole.index("127.0.0", self.chance.randrange(len(whole) // 2))
        self.daemon.configure(whole[:middle])
        await self.reload(r"servmon\.toml:\d+: not valid TOML")
        with self.daemon.file.open("a", encoding="utf-8") as file:
            file.write(whole[middle:])
        await self.reload("configuration applied")

    async def cut_off(self) -> None:
        """The file ends at a table's border: valid TOML, and nearly everything is gone."""
        await self.write(FAST + "".join(steady().partition('[[endpoints]]\nid = "s20"')[0]), "would remove")

    async def removed(self) -> None:
        self.daemon.file.unlink(missing_ok=True)
        await self.reload("cannot be read")

    async def write(self, text: str, outcome: str) -> None:
        self.daemon.configure(text)
        await self.reload(outcome)

    async def reload(self, outcome: str) -> None:
        self.daemon.signal(signal.SIGHUP)
        pattern = re.compile(outcome)

        async def done() -> bool:
            return bool(pattern.search(self.daemon.log()[before:]) or pattern.search(await self.troubles()))

        before = len(self.daemon.log())
        await self.daemon.until(done, outcome)

    async def troubles(self) -> str:
        return " ".join((await self.daemon.get("/readyz"))["degraded"])

    async def all_is_as_it_should_be(self) -> None:
        services = (await self.daemon.get("/services/?limit=1000"))["items"]
        found = {one["id"]: one["check_interval"] for one in services if one["is_active"]}
        assert found == {f"s{n}": 1 for n in range(STEADY)} | {f"e{n}": self.interval for n in self.ids}


async def skipped(daemon: RunningServmon) -> float:
    text = await daemon.text("/metrics")
    found = re.search(r"^servmon_checks_skipped_total (\S+)$", text, re.MULTILINE)
    assert found is not None
    return float(found[1])


async def story(daemon: RunningServmon, edits: int) -> None:
    editor = Editor(daemon, random.Random(2026))
    # As systemd tells it: of a file that is gone nobody could learn where the last good one lies.
    daemon.environment = {"SERVMON_DATA_DIR": str(daemon.data_dir)}
    daemon.configure(FAST + steady() + edited(editor.ids, editor.interval))
    await daemon.start()
    started = now()
    for number in range(1, edits + 1):
        await editor.edit()
        await editor.all_is_as_it_should_be()
        if number % 10 == 0:
            assert await skipped(daemon) == 0
            await no_gap(daemon, started)
            await daemon.stop(signal.SIGKILL)
            await daemon.start()
            started = now()
            await editor.all_is_as_it_should_be()
    assert await skipped(daemon) == 0
    await daemon.stop()


async def no_gap(daemon: RunningServmon, since: datetime) -> None:
    """An endpoint that no edit touched was checked every second."""
    history = (await daemon.get("/services/s7/history?limit=1000"))["items"]
    times = [at for one in history if (at := datetime.fromisoformat(one["timestamp"])) > since]
    assert times
    # A skipped slot of the second's interval would be a gap of two; a busy machine may start one late.
    assert all((later - earlier).total_seconds() < 1.95 for later, earlier in pairwise(times))


@pytest.mark.alone
@pytest.mark.timeout(120)
async def test_random_edits_neither_stop_nor_delay_nor_remove_anything(servmon_daemon):
    await story(servmon_daemon(FAST), edits=12)


async def test_a_configuration_mounted_as_kubernetes_does_is_followed_and_one_that_cannot_be_read_is_said(
    servmon_daemon,
):
    daemon = servmon_daemon(FAST + edited([1], 60))
    text = daemon.file.read_text(encoding="utf-8")
    for number, version in enumerate(("v1", "v2"), 1):
        (daemon.folder / version).mkdir(mode=0o755)
        (daemon.folder / version / "servmon.toml").write_text(text.replace('"e1"', f'"e{number}"'), encoding="utf-8")
    (daemon.folder / "..data").symlink_to("v1")
    daemon.file.unlink()
    daemon.file.symlink_to("..data/servmon.toml")
    await daemon.start()

    async def watched(*wanted: str) -> None:
        await daemon.get_until(
            "/services/", lambda found: [one["id"] for one in found["items"] if one["is_active"]] == [*wanted]
        )

    await watched("e1")
    (daemon.folder / "..new").symlink_to("v2")
    (daemon.folder / "..new").rename(daemon.folder / "..data")
    await watched("e2")
    (daemon.folder / "conf.d").mkdir(mode=0o755)
    (daemon.folder / "conf.d" / "more.toml").write_text(edited([3], 60), encoding="utf-8")
    await watched("e2", "e3")
    daemon.file.unlink()
    daemon.file.mkdir()
    daemon.signal(signal.SIGHUP)
    await daemon.logged(f"{daemon.file}: cannot be read: Is a directory")
    await watched("e2", "e3")
    await daemon.stop()


@pytest.mark.deep
@pytest.mark.timeout(1800)
async def test_three_hundred_random_edits(servmon_daemon):
    await story(servmon_daemon(FAST), edits=300)
