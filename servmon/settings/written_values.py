"""What a person may write for a setting, turned into what its section holds: lists, paths, secrets kept elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from servmon.model import OrFile, Section
from servmon.settings.findings import Findings
from servmon.settings.toml_positions import Keys

_SECRETS = tuple[SecretStr, ...]


def adapt_section(
    section: Keys, model: type[Section], values: dict[str, Any], environ: Mapping[str, str], findings: Findings
) -> bool:
    """Turn what a person may write into what the table at ``section`` holds: secrets elsewhere, lists as text, paths.

    What cannot be is reported and left out, so that pydantic does not report it a second time.
    """
    sound = True
    for key, field in model.model_fields.items():
        place = (*section, key)
        from_variable = place in findings.variables
        folder = None if from_variable else findings.folder
        try:
            if is_secret(field):
                _fetch_secret(key, values, folder or Path(), environ, from_variable=from_variable)
            if may_be_a_file(field):
                _fetch_text(key, values, folder or Path())
            if key in values:
                values[key] = _adapt(field, values[key], folder)
        except ValueError as error:
            findings.problem(place, str(error))
            values.pop(key, None)
            sound = False
    return sound


def holds(field: FieldInfo, kind: type) -> bool:
    """Whether a setting is of this type, be it optional or not."""
    return field.annotation == kind or field.annotation == kind | None


def is_secret(field: FieldInfo) -> bool:
    """Whether a setting is a secret, or a list of them: it may stand in a file or a variable of its own."""
    return holds(field, SecretStr) or field.annotation == _SECRETS


def may_be_a_file(field: FieldInfo) -> bool:
    """Whether the text of a setting may stand in a file of its own."""
    return any(isinstance(mark, OrFile) for mark in field.metadata)


def _adapt(field: FieldInfo, value: Any, folder: Path | None) -> Any:
    if isinstance(value, bool) and field.annotation is not bool:
        raise ValueError(f"must not be {json.dumps(value)}: only a switch is true or false")
    if isinstance(value, str) and get_origin(field.annotation) is tuple:
        return _listed_secrets(value) if field.annotation == _SECRETS else _listed(value)
    if isinstance(value, str) and not value.strip() and (holds(field, Path) or holds(field, SecretStr)):
        raise ValueError("must not be empty; leave the key out for the default")
    if isinstance(value, str) and holds(field, Path):
        return _path(value, folder)
    return value


def _path(value: str, folder: Path | None) -> Path:
    try:
        # A file means the same from wherever servmon is started; a variable means what its shell means.
        return (folder or Path()).absolute() / Path(value).expanduser()
    except RuntimeError:
        raise ValueError(f"no home folder is known for {json.dumps(value)}") from None


def _listed(value: str) -> list[Any]:
    if not value.lstrip().startswith("["):
        return [part.strip() for part in value.split(",") if part.strip()]
    try:
        return list(json.loads(value))
    except ValueError:
        raise ValueError('must be a list: "a,b" or JSON such as ["a", "b"]') from None


def _listed_secrets(value: str) -> list[Any]:
    """One a line, as in a file of them; commas may be part of one. A line that begins with # is none."""
    if value.lstrip().startswith("["):
        return _listed(value)
    lines = (line.strip() for line in value.splitlines())
    return [part for line in lines if not line.startswith("#") for part in line.split()]


def _fetch_secret(
    key: str, values: dict[str, Any], folder: Path, environ: Mapping[str, str], *, from_variable: bool
) -> None:
    """Put the secret that ``KEY_file`` or ``KEY_env`` points to under ``key``; a variable of the key's own wins."""
    pointers = {name: values.pop(name) for name in (f"{key}_file", f"{key}_env") if name in values}
    if from_variable or not pointers:
        return
    if len(pointers) + (key in values) > 1:
        raise ValueError(f"give one of {key}, {key}_file and {key}_env, not several")
    name, pointer = pointers.popitem()
    if not isinstance(pointer, str) or not pointer:
        raise ValueError(f"{name} must be text: the name of a {'file' if name.endswith('_file') else 'variable'}")
    if name.endswith("_env"):
        secret = environ.get(pointer, "").strip()
        where = f"the environment variable {pointer}, which {name} names,"
    else:
        secret = _file_content(name, Path(environ.get("CREDENTIALS_DIRECTORY") or folder) / pointer)
        where = f"the file that {name} names"
    if not secret:
        raise ValueError(f"{where} is empty or not set")
    values[key] = secret


def _fetch_text(key: str, values: dict[str, Any], folder: Path) -> None:
    """Put the text of the file that ``KEY_file`` names, by the configuration's folder, under ``key``."""
    name = f"{key}_file"
    if (pointer := values.pop(name, None)) is None:
        return
    if key in values:
        raise ValueError(f"give {key} or {name}, not both")
    if not isinstance(pointer, str) or not pointer:
        raise ValueError(f"{name} must be text: the name of a file")
    values[key] = _file_content(name, _path(pointer, folder))


def _file_content(name: str, path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ValueError(f"{name}: {path} cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{name}: {path} is not UTF-8 text") from None
