"""What pydantic found, in words for the person who wrote the file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from pydantic import BaseModel, SecretStr
from pydantic_core import ErrorDetails

from servmon.settings.toml_positions import Keys
from servmon.settings.written_values import holds, is_secret, may_be_a_file

# A user and a password in a URL.
_IDENTITY = re.compile(r"//[^/\s]*@")
_SENTENCES: Mapping[str, str] = {
    "missing": "missing, and required",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a whole number of ordinary size",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "string_type": "must be text in quotes",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "must be letters, digits and . _ - (at most 64, a letter or digit first)",
    "path_type": "must be a path in quotes",
    "tuple_type": "must be a list",
    "model_type": "must be a table",
    "dict_type": "must be tables",
    "literal_error": "must be one of {expected}",
    "enum": "must be one of {expected}",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "value_error": "{error}",
}


def sentence(detail: ErrorDetails, model: type[BaseModel] | None, keys: Keys) -> str:
    """A finding in one sentence; shows a value only where it is a plain one, and no secret.

    ``keys`` lead to it from ``model``, the class that the table was checked by.
    """
    if detail["type"] == "extra_forbidden":
        return unknown_key(str(keys[-1]), known_keys(model) if model and len(keys) == 1 else ())
    context = detail.get("ctx", {})
    text = _SENTENCES.get(detail["type"], detail["msg"]).format(**context)
    if ":" in context.get("pattern", ""):
        text = 'must be a time such as "22:00"'
    field = model.model_fields.get(str(keys[0])) if model is not None and keys else None
    if field is None or holds(field, SecretStr) or not isinstance(detail["input"], (str, int, float)):
        return text
    if text.endswith(f"not {detail['input']!r}"):
        return text
    shown = json.dumps(detail["input"], ensure_ascii=False)
    return f"{text}, not {_IDENTITY.sub('//***@', shown)[:60]}"


def known_keys(model: type[BaseModel]) -> list[str]:
    """What may stand in the table of ``model``, with the ways to keep a secret elsewhere."""
    fields = model.model_fields
    secrets = (key + end for key in fields if is_secret(fields[key]) for end in ("_file", "_env"))
    return [*fields, *secrets, *(f"{key}_file" for key in fields if may_be_a_file(fields[key]))]


def unknown_key(key: str, known: Iterable[str]) -> str:
    """What to say of a key that is none."""
    known = sorted(known)
    if close := get_close_matches(key, known, n=1):
        return f"unknown key; was {close[0]} meant?"
    return f"unknown key; known here are {', '.join(known)}" if known else "unknown key"
