"""Secrets of endpoints: written in the option itself, in a file, or in a variable of the environment."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from pydantic import SecretStr


def secret_of(plain: SecretStr | None, file: str | None, variable: str | None) -> str | None:
    """The secret that one of the three gives, ``None`` where none is set.

    A file stands in ``$CREDENTIALS_DIRECTORY`` (systemd) where its path is not absolute; one that was changed is read
    again. Raises ``OSError``, and ``ValueError`` with a sentence where the secret is not there.
    """
    if plain is not None:
        return plain.get_secret_value()
    if file is not None:
        path = Path(_environment("CREDENTIALS_DIRECTORY") or ".", file)
        return _content(path, path.stat().st_mtime_ns)
    if variable is None:
        return None
    secret = _environment(variable)
    if secret is None:
        raise ValueError(f"the environment has no variable {variable}")
    return secret


@lru_cache(maxsize=1024)
def _content(path: Path, _changed_at: int) -> str:
    return path.read_text(encoding="utf-8").rstrip("\r\n")


def _environment(name: str) -> str | None:
    # Not a setting: the name comes from the configuration file, and what stands there must not be stored anywhere.
    return os.environ.get(name)  # noqa: TID251
