"""Values in a JSON answer by their paths: ``status.db``, ``nodes[0].name``, ``$['odd name'].up``."""

from __future__ import annotations

import json
import re
from typing import Any

Steps = tuple[str | int, ...]

_STEP = re.compile(r"""\.?([^.\[\]'"$\s][^.\[\]]*)|\[(\d{1,6})\]|\['([^']+)'\]|\["([^"]+)"\]""")


class NotThereError(Exception):
    """The text is no JSON, or holds nothing at the path; the message says which."""


def parse_path(path: str) -> Steps:
    """The steps of a path. Raises ``ValueError`` with a sentence."""
    rest, steps = path.strip().removeprefix("$"), list[str | int]()
    at = 0
    while at < len(rest):
        found = _STEP.match(rest, at)
        if found is None:
            break
        name, index, *quoted = found.groups()
        steps.append(int(index) if index is not None else name or quoted[0] or quoted[1])
        at = found.end()
    if at < len(rest) or not steps:
        raise ValueError(f"{path[:60]!r} is not a path; status.db, nodes[0].name or $['odd name'] would be one")
    return tuple(steps)


def parse_json(text: str) -> Any:
    """The document. Raises ``NotThereError``."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise NotThereError(f"is not JSON: {error}") from None
    except RecursionError:
        raise NotThereError("is not JSON that could be read: nested too deep") from None
    except ValueError:  # Python's own bound
        raise NotThereError("is not JSON that could be read: a number has thousands of digits") from None


def value_at(document: Any, steps: Steps, path: str) -> Any:
    """What stands there. Raises ``NotThereError``."""
    for step in steps:
        if isinstance(document, dict) and str(step) in document:
            document = document[str(step)]
        elif isinstance(document, list) and str(step).isdecimal() and int(step) < len(document):
            document = document[int(step)]  # nodes[0].name, or nodes.0.name
        else:
            raise NotThereError(f"has no {path}")
    return document


def is_same(found: Any, expected: Any) -> bool:
    """Whether two values are the same to JSON, which knows true from 1, but not 1 from 1.0."""
    if isinstance(found, bool) or isinstance(expected, bool):
        return found is expected
    if isinstance(found, list) and isinstance(expected, list):
        return len(found) == len(expected) and all(map(is_same, found, expected))
    if isinstance(found, dict) and isinstance(expected, dict):
        return found.keys() == expected.keys() and all(is_same(found[key], expected[key]) for key in found)
    return bool(found == expected)
