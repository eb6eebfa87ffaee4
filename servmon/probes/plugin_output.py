"""What a Nagios-style plug-in prints, read as its authors meant it (Monitoring Plugins' development guidelines).

``text | perfdata``; further lines are long text, and may hold a ``|`` with more perfdata after it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from servmon.probes.base import safe_text

_MEASURES_KEPT = 50
_NAME_LIMIT = 80
# 'label'=value[unit];warn;crit;min;max - a quote in a quoted label is written twice. Each begins behind a space and no
# part of it is long: else what a stranger has a plug-in print would be searched for minutes.
_MEASURE = re.compile(
    r"(?<!\S)(?:'((?:[^']|''){1,200})'|([^\s'=]{1,200}))="
    r"([-+]?[0-9]{0,40}\.?[0-9]{1,40}(?:[eE][-+]?[0-9]{1,5})?)([%A-Za-z]{0,8})(?=[;\s]|$)"
)


class PluginOutput(NamedTuple):
    """The first line's text, and what was measured: by label a number and its unit."""

    message: str
    measures: Mapping[str, tuple[float, str]]


def read_output(text: str) -> PluginOutput:
    """Read all that a plug-in printed; what is no perfdata where perfdata should stand is passed over."""
    first, _, rest = text.lstrip().partition("\n")
    message, _, perfdata = first.partition("|")
    _, _, more = rest.partition("|")
    return PluginOutput(safe_text(message.strip()), _measures(f"{perfdata} {more}"))


def _measures(perfdata: str) -> dict[str, tuple[float, str]]:
    found: dict[str, tuple[float, str]] = {}
    for measure in _MEASURE.finditer(perfdata):
        quoted, plain, number, unit = measure.groups(default="")
        value = float(number)
        if len(found) == _MEASURES_KEPT:
            break
        if math.isfinite(value):
            found[safe_text(quoted.replace("''", "'") or plain, _NAME_LIMIT)] = value, unit
    return found
