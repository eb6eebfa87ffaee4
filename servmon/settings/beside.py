"""Loads a configuration in a process of its own: a long file takes seconds, and no check has to wait for it.

The child writes what it found to its standard output and ends; where the daemon is gone by then, the pipe is too, and
the child ends all the same.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import sys
from pathlib import Path

from servmon.settings import Loaded, SettingsError, load

# Whoever checks comes first where both want the same core. With the least priority there is, 19, a machine that others
# keep busy would not come to it for minutes.
NICENESS = 5


async def load_beside(path: Path | None) -> Loaded:
    """``load`` and ``pack`` in a child process. Raises ``SettingsError`` as ``load`` does."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", __spec__.name, *([str(path)] if path else [])),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode != 0:
        raise SettingsError([f"{path}: could not be loaded: the process that reads it ended with {process.returncode}"])
    # In a thread, since millions of characters take a moment.
    outcome: Loaded | SettingsError = await asyncio.to_thread(pickle.loads, said)
    if isinstance(outcome, SettingsError):
        raise outcome
    return outcome


def main() -> None:
    """Load the file named by the only argument, or the environment alone, for the process that started this one."""
    os.nice(NICENESS)
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    outcome: Loaded | SettingsError
    try:
        outcome = load(path).pack()
    except SettingsError as error:
        outcome = error
    sys.stdout.buffer.write(pickle.dumps(outcome))


if __name__ == "__main__":
    main()
