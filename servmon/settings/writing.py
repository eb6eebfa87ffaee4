"""Where servmon itself writes the configuration file: comments and order stay, and a mistake never gets into it."""

from __future__ import annotations

import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomlkit
from tomlkit.exceptions import ConvertError, TOMLKitError

from servmon.settings import Loaded, SettingsError, load

READABLE_BY_ALL = 0o644
ONLY_OWNER = 0o600


def read_document(path: Path) -> tomlkit.TOMLDocument:
    """The file as it is written, or an empty one where there is none. Raises ``SettingsError``."""
    if not path.absolute().parent.is_dir():
        raise SettingsError([f"{path}: there is no folder {path.absolute().parent}"])
    if not path.exists():
        return tomlkit.document()
    try:
        return tomlkit.parse(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, TOMLKitError):
        load(path)  # says it better
        raise SettingsError([f"{path}: cannot be read as TOML"]) from None


def put(document: tomlkit.TOMLDocument, section: str, key: str, value: Any) -> None:
    """Set ``[section] key``; both are made where they are not there, and a comment behind the value stays.

    Raises ``SettingsError`` where there is no such place.
    """
    table: Any = document
    for name in section.split("."):
        if name not in table:
            table[name] = tomlkit.table(is_super_table=name == "channels")
        table = table[name]
        if not isinstance(table, MutableMapping):
            raise SettingsError([f"{section}.{key}: {name} is a value in this file, and no table"])
    try:
        table[key] = value
    except ConvertError:
        raise SettingsError([f"{section}.{key}: TOML has no way to write {value!r}"]) from None


def replace_file(path: Path, text: str) -> Loaded:
    """Write ``text`` to the file at ``path``, at one stroke, and only if it is a configuration that can be used.

    Mode and owner stay, and a symbolic link goes on leading to the file. Raises ``SettingsError`` or ``OSError``.
    """
    with draft_of(path) as draft:
        draft.write_text(text, encoding="utf-8")
        return adopt(draft, path)


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """A file beside ``path`` that only its owner can read, gone in the end: what it names lies where it will."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        draft.touch(mode=ONLY_OWNER)
        if path.exists():
            draft.write_bytes(path.read_bytes())
        yield draft
    finally:
        draft.unlink(missing_ok=True)


def adopt(draft: Path, path: Path) -> Loaded:
    """Put ``draft`` in the place of ``path`` if it can be used. Raises ``SettingsError``, which names ``path``."""
    try:
        loaded = load(draft)
    except SettingsError as error:
        raise SettingsError([line.replace(str(draft), str(path)) for line in error.lines]) from None
    target = path.resolve()
    new = target.with_name(f".{target.name}.new")
    try:
        new.touch(mode=ONLY_OWNER)
        new.write_bytes(draft.read_bytes())
        _take_over(target, new)
        new.replace(target)
    finally:
        new.unlink(missing_ok=True)
    return loaded


def _take_over(old: Path, new: Path) -> None:
    """Give ``new`` the mode and owner of ``old``, where there is one."""
    if not old.exists():
        new.chmod(READABLE_BY_ALL)
        return
    was = old.stat()
    if (was.st_uid, was.st_gid) != (new.stat().st_uid, new.stat().st_gid):
        os.chown(new, was.st_uid, was.st_gid)
    new.chmod(was.st_mode & 0o7777)


def write_secret(path: Path, secret: str) -> None:
    """Keep ``secret`` in a file that only its owner can read. Raises ``OSError``."""
    path.touch(mode=ONLY_OWNER)
    path.chmod(ONLY_OWNER)
    path.write_text(f"{secret}\n", encoding="utf-8")
