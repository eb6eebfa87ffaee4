"""The data folder of one servmon alone, and a folder for its Postgres' socket whose path is not too long."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servmon.errors import StartError
from servmon.store.postgres_binaries import Account

LONGEST_SOCKET_PATH = 107
SOCKET_NAME = ".s.PGSQL.5432"
# Where every account can make and reach a folder whose path is short.
SHORT_FOLDER = "/tmp"  # noqa: S108 - what we make there has an unguessable name and mode 0700
SHORT_PREFIX = "servmon-socket-"


@contextmanager
def in_a_sentence(what: str) -> Iterator[None]:
    """Whatever the system refuses ends in a ``StartError`` that begins with ``what``."""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename and str(error.filename) not in what else ""
        raise StartError(f"{what}: {error.strerror or error}{where}") from error


@contextmanager
def taken(data_dir: Path) -> Iterator[None]:
    """``data_dir``, made where there is none, for this process alone. Raises ``StartError`` as ``take`` does."""
    with in_a_sentence(f"cannot use the data folder {data_dir}"):
        data_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        lock = take(data_dir)
    try:
        _remove_old_socket_folder(lock)
        os.ftruncate(lock, os.pwrite(lock, f"{os.getpid()}\n".encode(), 0))
        yield
    finally:
        os.close(lock)


def take(data_dir: Path) -> int:
    """Take ``data_dir`` for this process alone; gives the open lock file. Raises ``StartError`` naming who has it."""
    lock = os.open(data_dir / "postgres.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(lock, 100, 0).split(b"\n")[0].decode()
        os.close(lock)
        if error.errno not in (errno.EACCES, errno.EAGAIN):
            raise
        raise StartError(
            f"another servmon{f' (process {holder})' if holder else ''} uses the data folder {data_dir}; stop it, or"
            " set [servmon] data_dir to another folder"
        ) from None
    return lock


def socket_folder(folder: Path, lock: int, account: Account | None) -> Path:
    """``folder`` itself where a socket's path in it is short and plain enough, else a short one; noted in ``lock``."""
    _remove_old_socket_folder(lock)
    path = str(folder)
    # In a DSN and in Postgres' settings a comma, a quote or a blank in the path would mean something else.
    plain = re.fullmatch(r"[\w./+@~-]+", path, re.ASCII)
    if not plain or len(os.fsencode(f"{path}/{SOCKET_NAME}")) > LONGEST_SOCKET_PATH:
        folder = Path(tempfile.mkdtemp(prefix=SHORT_PREFIX, dir=SHORT_FOLDER))
        if account:
            os.chown(folder, account.uid, account.gid)
    # In this order it needs no room on a full disk.
    os.ftruncate(lock, os.pwrite(lock, f"{os.getpid()}\n{folder}\n".encode(), 0))
    return folder


def _remove_old_socket_folder(lock: int) -> None:
    """A servmon that was killed could not remove its short folder."""
    folder = "".join(os.pread(lock, 4096, 0).decode().split("\n")[1:2])
    if folder.startswith(f"{SHORT_FOLDER}/{SHORT_PREFIX}"):
        shutil.rmtree(folder, ignore_errors=True)
