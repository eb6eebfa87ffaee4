"""A kill, or a failure, at every single step from a result to the message sent: nothing owed is lost or told twice.

Every step that leaves the process (disk, Postgres, channel) is counted. At the N-th, before or after it is done, the
process ends or the step fails, for N = 1, 2, 3 … until a run gets through without.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest

from servmon.alerts.alert import Notification
from servmon.alerts.channels.base import ChannelError
from servmon.clock import now
from servmon.errors import StoreUnavailableError
from servmon.model import Status
from servmon.store import endpoints
from servmon.store.known import Known
from servmon.store.notebook import Notebook
from servmon.store.pool import Pool
from servmon.store.recollection import from_postgres
from servmon.store.spool import Spool
from tests.alerts.test_ledger import MIB, Life, Receiver
from tests.store.seeds import declared, endpoint, outage, resolved, result

pytestmark = pytest.mark.timeout(120)

# A run takes some sixty steps; the sample is spread over all of them.
SAMPLE = range(1, 70, 9)
KILLS = range(2, 26, 3)


class KilledError(BaseException):
    """The process ends here."""


def end() -> None:
    raise KilledError


class Steps:
    """Counts what leaves the process; at the chosen step, before or after it is done, there is a kill or a failure."""

    def __init__(self, at: int, *, after: bool, kill: Callable[[], None] | None = None) -> None:
        self.at = at
        self.after = after
        self.kill = kill
        self.count = 0

    def over(self, owner, name: str, failure: type[Exception]) -> None:
        real = getattr(owner, name)

        async def step(*arguments, **named):
            self.count += 1
            hit = self.count == self.at
            if hit and not self.after:
                self._strike(failure)
            found = await real(*arguments, **named)
            if hit and self.after:
                self._strike(failure)
            return found

        setattr(owner, name, step)

    def _strike(self, failure: type[Exception]) -> None:
        if self.kill is None:
            raise failure("it fails")
        self.kill()

    def over_all(self, life: Life) -> None:
        self.over(life.file, "_in_thread", StoreUnavailableError)
        for delivery in (life.writer._delivery, life.writer._bridge._delivery):
            self.over(delivery, "take", ConnectionResetError)
        self.over(life.alerting._postgres, "ask", ConnectionResetError)
        self.over(life.receiver, "send", ChannelError)


class Inbox(Receiver):
    """Keeps what came in a file, which no end of the process touches: a line with the id and the kind of each."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    async def send(self, notification: Notification) -> None:
        with self.file.open("a", encoding="utf-8") as kept:
            kept.write(f"{notification.id} {notification.kind.value}\n")


class Story:
    """A service that goes down and comes back, whatever becomes of who watches it.

    What is outside of that stands in ``folder``: whether it is back, and which messages came.
    """

    def __init__(self, folder: Path, dsn: str, db: Pool, watched) -> None:
        self.folder = folder
        self.dsn = dsn
        self.db = db
        self.watched = watched
        folder.mkdir(exist_ok=True)

    @property
    def is_down(self) -> bool:
        return not (self.folder / "back").exists()

    def come_back(self) -> None:
        (self.folder / "back").touch()

    async def live(self, steps: Steps | None, *, away: bool, until_told: bool) -> None:
        """One life of the process, from its start to the end of the story or of itself."""
        life = Life(self.folder, self.dsn, Inbox(self.folder / "messages"))
        try:
            if steps is not None:
                steps.over_all(life)
            with suppress(StoreUnavailableError):
                await life.writer.open()
            known = await self._known(life, away=away)
            opened = known.open_outages.get("a")
            if self.is_down:
                if opened is None:
                    opened = outage("a", start_time=now() - timedelta(seconds=60))
                    life.writer.put(result(self.watched, Status.DOWN), [declared(opened)])
                await self._let_through(life, until_told=until_told)
                self.come_back()
            if opened is not None and not self.is_down:
                life.writer.put(result(self.watched, Status.UP), [resolved(opened, timedelta(seconds=70))])
            await self._let_through(life, until_told=until_told)
        finally:
            with suppress(BaseException):
                life.file._in_thread = type(life.file)._in_thread.__get__(life.file)
            await life.kill()

    async def _known(self, life: Life, *, away: bool):
        if not away:
            with suppress(ConnectionResetError):
                await life.writer.replay()
                return await from_postgres(self.db, now() - timedelta(hours=1), now())
        return await Known(Notebook(life.file), Spool(life.file, MIB)).recollect()

    async def _let_through(self, life: Life, *, until_told: bool) -> None:
        for _ in range(4 if until_told else 1):
            await life.pass_on()
            await life.tell()

    async def ends_well(self) -> None:
        messages = (self.folder / "messages").read_text(encoding="utf-8").splitlines()
        kinds = Counter(one.partition(" ")[2] for one in set(messages))
        assert kinds in ({"down": 1, "recovered": 1}, {"was down": 1}), messages
        found = await self.db.fetchrow(
            "select (select count(*) from service_outage) as outages,"
            " (select count(*) from service_outage where not resolved) as open,"
            " (select count(*) from state_change where processed_at is null)"
            " + (select count(*) from notification where sent_at is null) as owed,"
            " (select count(*) from state_change) as changes, (select count(*) from service_status_row) as rows,"
            " (select count(*) from rejected) as rejected"
        )
        assert tuple(found) == (1, 0, 0, 2, 2, 0)


async def a_story(tmp_path, database, db, number: int) -> Story:
    await db.execute(
        "truncate service_outage, state_change, service_status_row, notification, alert, alert_decision cascade"
    )
    try:
        watched = await endpoints.get(db, "a")
    except LookupError:
        watched = await endpoints.insert(db, endpoint("a"))
    return Story(tmp_path / str(number), database, db, watched)


async def kill_at(story: Story, pg_proxy, number: int, *, after: bool, away: bool) -> bool:
    """Kill at the N-th step, live on; whether it came that far."""
    killed = False
    try:
        await story.live(Steps(number, after=after, kill=end), away=False, until_told=False)
    except KilledError:
        killed = True
    await live_on(story, pg_proxy, away=away)
    return killed


async def live_on(story: Story, pg_proxy, *, away: bool) -> None:
    """Start again, once with Postgres away if so wished, until the story is at its end."""
    if away:
        pg_proxy.set("cut")
        await story.live(None, away=True, until_told=True)
        pg_proxy.set("open")
    await story.live(None, away=False, until_told=True)
    await story.live(None, away=False, until_told=True)
    await story.ends_well()


@pytest.mark.parametrize("away", [False, True])
@pytest.mark.parametrize("after", [False, True])
async def test_a_kill_at_any_step_loses_and_repeats_nothing(after, away, tmp_path, db, pg_proxy):
    await endpoints.insert(db, endpoint("a"))
    for number in SAMPLE:
        story = await a_story(tmp_path, pg_proxy.dsn, db, number)
        await kill_at(story, pg_proxy, number, after=after, away=away)


@pytest.mark.deep
@pytest.mark.timeout(900)
@pytest.mark.parametrize("away", [False, True])
@pytest.mark.parametrize("after", [False, True])
async def test_a_kill_at_every_step_loses_and_repeats_nothing(after, away, tmp_path, db, pg_proxy):
    await endpoints.insert(db, endpoint("a"))
    number = 1
    while await kill_at(await a_story(tmp_path, pg_proxy.dsn, db, number), pg_proxy, number, after=after, away=away):
        number += 1
    assert number > 20


@pytest.mark.deep
@pytest.mark.timeout(900)
@pytest.mark.parametrize("away", [False, True])
@pytest.mark.parametrize("after", [False, True])
async def test_a_process_that_is_killed_loses_and_repeats_nothing(after, away, tmp_path, db, pg_proxy):
    """By the kernel, in the midst of threads and sockets."""
    await endpoints.insert(db, endpoint("a"))
    for number in KILLS:
        story = await a_story(tmp_path, pg_proxy.dsn, db, number)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.crash_child", str(story.folder), story.dsn, str(number), str(int(after))),
            cwd=Path(__file__).parent.parent,
        )
        assert await process.wait() == -signal.SIGKILL
        await live_on(story, pg_proxy, away=away)


@pytest.mark.deep
@pytest.mark.timeout(900)
@pytest.mark.parametrize("after", [False, True])
async def test_any_step_may_fail(after, tmp_path, db, pg_proxy):
    await endpoints.insert(db, endpoint("a"))
    number = 1
    while True:
        story = await a_story(tmp_path, pg_proxy.dsn, db, number)
        steps = Steps(number, after=after)
        await story.live(steps, away=False, until_told=True)
        await story.live(None, away=False, until_told=True)
        await story.ends_well()
        if steps.count < number:
            break
        number += 1
        await asyncio.sleep(0)
    assert number > 20
