"""What pydantic finds wrong, in the words of whoever has to put it right."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from servmon.errors import Problem
from servmon.probes.base import safe_text

_SENTENCES: Mapping[str, str] = {
    "missing": "is missing",
    "string_type": "must be text",
    "string_too_long": "must be at most {max_length} characters",
    "string_too_short": "must be at least {min_length} characters",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is far too large a number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a table of names and values",
    "enum": "must be {expected}",
    "literal_error": "must be {expected}",
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "extra_forbidden": "is not known here",
    "model_type": "must be a table of names and values",
    "model_attributes_type": "must be a table of names and values",
    "too_short": "must have at least {min_length} entry",
    "too_long": "must have at most {max_length} entries",
}


def sentences_of(error: ValidationError, secrets: Container[str] = ()) -> Iterator[Problem]:
    """A problem for each wrong value, by its place (``"tags.2"``). The values of ``secrets`` are not repeated."""
    for found in error.errors(include_url=False):
        context = {
            key: f"{value:g}" if isinstance(value, float) else value for key, value in found.get("ctx", {}).items()
        }
        if found["type"] == "value_error":
            sentence = str(context["error"])
        else:
            ours = _SENTENCES.get(found["type"])
            sentence = ours.format(**context) if ours else found["msg"]
            if found["type"] not in {"missing", "extra_forbidden"} and found["loc"][0] not in secrets:
                sentence += _shown(found.get("input"))
        yield Problem(".".join(str(part) for part in found["loc"]), safe_text(sentence))


def not_of_type(right: float, value: Any) -> str:
    """The sentence for a ``value`` that had to be of the type of ``right``."""
    wanted = "bool_type" if isinstance(right, bool) else "int_type" if isinstance(right, int) else "float_type"
    return _SENTENCES[wanted] + _shown(value)


def _shown(value: Any) -> str:
    if value is None or isinstance(value, list | tuple | dict):
        return ""
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, bool) else repr(value)
    return f", not {text if len(text) <= 60 else text[:57] + '…'}"
