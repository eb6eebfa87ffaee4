"""Every configuration that was applied stays in the data folder: a start with a broken file runs the last of them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

FOLDER = "configurations"
KEPT = 20
_MAIN = "servmon.toml"
_ORIGIN = "origin.json"


@dataclass(frozen=True, slots=True)
class Kept:
    """A configuration that was applied once: the copy of its main file, and where that file itself lies."""

    file: Path
    origin: Path


def keep(texts: Sequence[tuple[Path, str]], data_dir: Path, at: datetime) -> None:
    """Keep the files of an applied configuration, unless it is the newest one already; the oldest make room.

    They may hold secrets, so only their owner may read them. Raises ``OSError``.
    """
    if not texts:
        return
    main = texts[0][0].absolute()
    wanted = {_name(path.absolute(), main): text for path, text in texts}
    folder = data_dir / FOLDER
    kept = _all(folder)
    if kept and (_origin(kept[-1]), _content(kept[-1])) == (main, wanted):
        return
    folder.mkdir(mode=0o700, exist_ok=True)
    unfinished = folder / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    for name, text in {**wanted, _ORIGIN: json.dumps({"file": str(main)})}.items():
        _write(unfinished / name, text)
    unfinished.rename(folder / at.strftime("%Y%m%dT%H%M%S%fZ"))
    for old in kept[: max(0, len(kept) + 1 - KEPT)]:
        shutil.rmtree(old, ignore_errors=True)


def newest(data_dir: Path, origin: Path | None = None) -> Kept | None:
    """The configuration that was applied last, if any was; with ``origin``, the last one that was read from there.

    A mistyped path must not start what another file once said.
    """
    for folder in reversed(_all(data_dir / FOLDER)):
        file = _origin(folder)
        if file is not None and origin in (None, file):
            return Kept(folder / _MAIN, file)
    return None


def _all(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.name[0].isdigit())
    except OSError:
        return []


def _origin(folder: Path) -> Path | None:
    try:
        return Path(json.loads((folder / _ORIGIN).read_text(encoding="utf-8"))["file"])
    except (OSError, ValueError, KeyError):
        return None


def _name(path: Path, main: Path) -> str:
    return _MAIN if path == main else str(path.relative_to(main.parent))


def _content(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*.toml"))
    return {str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in files}


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
