"""The administrator's first token: the configured one, else one that a start makes in the data folder."""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from servmon.errors import StartError
from servmon.services.tokens import new_token

_log = structlog.get_logger(__name__)

TOKEN_FILE = "admin.token"  # noqa: S105 - the file's name, not a token
# RFC 6750 section 2.1: what can stand behind "Bearer" in a header.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")


@dataclass(frozen=True, slots=True)
class AdminToken:
    """The administrator's token in clear, and the file that holds it (``None``: it was configured)."""

    token: str = field(repr=False)
    path: Path | None = None


def load_or_create_token(data_dir: Path, configured: str | None) -> AdminToken:
    """The administrator's token: the ``configured`` one, else that in ``data_dir``, made there if there is none.

    The file is readable by its owner alone. Raises ``StartError`` where it cannot be read or written.
    """
    if configured is not None:
        return AdminToken(configured)
    path = data_dir / TOKEN_FILE
    return AdminToken(keep_secret(path, "the API's token"), path)


def keep_secret(path: Path, what: str) -> str:
    """The secret in a file that its owner alone can read, made there if there is none. Raises ``StartError``."""
    try:
        token = _read(path)
        return token if token is not None else _create(path)
    except OSError as error:
        raise StartError(f"{path}: {what} cannot be kept there: {error.strerror or error}") from None


def _read(path: Path) -> str | None:
    try:
        token = path.read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    if not token:  # a crash, or a full disk, came between making the file and writing it
        path.unlink()
        return None
    if not _TOKEN.fullmatch(token):
        raise StartError(f"{path}: holds no token; delete the file and the next start makes a new one")
    if path.stat().st_mode & 0o077:
        _log.warning("the token's file could be read by others; now only by its owner", path=str(path))
        path.chmod(0o600)
    return token


def _create(path: Path) -> str:
    token = new_token()
    whole = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(whole, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{token}\n")
        # A link appears whole or not at all, and never in the place of another start's token.
        path.hardlink_to(whole)
    except FileExistsError:
        return _read(path) or token
    finally:
        whole.unlink()
    return token
