"""Reads the configuration file and the folder beside it into one set of tables."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from servmon.settings.findings import Findings, SettingsError

FOLDER = "conf.d"
# What there may be many of; settings have one place, the main file.
LISTS = ("endpoints", "templates", "dependencies")


def folder_files(path: Path) -> list[Path]:
    """The files of the folder ``conf.d`` beside the configuration file, in the order of their names.

    Raises ``OSError`` where there is such a folder and it cannot be read: what it holds must not look removed.
    """
    folder = path.parent / FOLDER
    try:
        # Not by glob, which takes a folder that it may not read for an empty one.
        return sorted(one for one in folder.iterdir() if one.suffix == ".toml")
    except (FileNotFoundError, NotADirectoryError):
        return []


def read_files(path: Path | None, folder: Path | None = None) -> tuple[dict[str, Any], Findings]:
    """The tables of the file and its folder together, and the findings that know which line each came from.

    What the file names by a relative path lies in ``folder``, by default the file's own. Raises ``SettingsError``
    naming every file that cannot be read or parsed.
    """
    if path is None:
        return {}, Findings()
    broken: list[str] = []
    try:
        others_there = folder_files(path)
    except OSError as error:
        raise SettingsError([f"{path.parent / FOLDER}: cannot be read: {error.strerror or error}"]) from None
    parsed = [(one, *_read(one, broken)) for one in (path, *others_there)]
    if broken:
        raise SettingsError(broken)
    (_, text, tables), *others = parsed
    findings = Findings(path, text, folder)
    lists = {name: tables.get(name, []) for name in LISTS}
    for one, other_text, other in others:
        findings.add_file(one, other_text, {name: len(tables) for name, tables in lists.items()})
        _add(other, lists, findings)
    return tables | {name: found for name, found in lists.items() if found or name in tables}, findings


def _add(tables: dict[str, Any], lists: dict[str, Any], findings: Findings) -> None:
    for name, value in tables.items():
        if name not in LISTS:
            held = " and ".join(f"[[{one}]]" for one in LISTS)
            findings.problem_of_last_file((name,), f"belongs into the main file; a file of {FOLDER} holds {held}")
        elif isinstance(value, list) and isinstance(lists[name], list):
            lists[name] = [*lists[name], *value]
        else:
            findings.problem_of_last_file((name,), f"must be tables: write [[{name}]], in double brackets, above each")


def _read(path: Path, broken: list[str]) -> tuple[str, dict[str, Any]]:
    text = ""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return text, tomllib.loads(text)
    except OSError as error:
        broken.append(f"{path}: cannot be read: {error.strerror or error}")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        broken.append(f"{path}:{line}: is not UTF-8 text, as TOML has to be")
    except tomllib.TOMLDecodeError as error:
        broken.append(_misspelt(path, text, error))
    except RecursionError:
        broken.append(f"{path}: not valid TOML: values are nested too deep")
    except ValueError:  # what Python itself refuses to read
        broken.append(f"{path}: not valid TOML: a number has thousands of digits")
    return "", {}


def _misspelt(path: Path, text: str, error: tomllib.TOMLDecodeError) -> str:
    place = re.search(r" \(at line (\d+), column (\d+)\)$", str(error))
    line = place[1] if place else text.count("\n") + 1
    what = str(error)[: place.start()] if place else str(error)
    column = f" (column {place[2]})" if place else ""
    return f"{path}:{line}: not valid TOML: {what}{column}"
