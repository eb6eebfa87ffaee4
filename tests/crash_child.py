"""One life of test_crash_matrix's story in a process of its own, which the kernel ends at the N-th step."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

from servmon.store import endpoints
from servmon.store.pool import open_pool
from tests.test_crash_matrix import Steps, Story


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


async def main(folder: str, dsn: str, number: str, after: str) -> None:
    async with await open_pool(dsn) as db:
        story = Story(Path(folder), dsn, db, await endpoints.get(db, "a"))
        await story.live(Steps(int(number), after=bool(int(after)), kill=kill), away=False, until_told=False)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
