"""The words of a channel's own: Jinja2 in its sandbox, over the documented ``VARIABLES`` and nothing else.

What is written is a person's, what is put in a stranger's: values are on one line, and escaped in HTML. A template has
loops and conditions, but neither macros nor other files; it ends after ``TURNS`` turns of its loops, ``SECONDS``
seconds or ``LARGEST`` characters, and with it these words for the message, not the message.
"""

from __future__ import annotations

import operator
import traceback
from collections.abc import Mapping
from datetime import datetime
from difflib import get_close_matches
from functools import cache
from typing import Any

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from servmon.alerts.template_values import VARIABLES
from servmon.clock import SYSTEM_CLOCK
from servmon.probes.base import safe_text

TURNS = 50_000
SECONDS = 2.0
LARGEST = 256 * 1024
LONGEST_SOURCE = 64 * 1024
_LARGEST_NUMBER = 1_000_000
_TURN = "_turn"
_WORD_LIMIT = 500
# What could grow without a loop, or call itself.
_FORBIDDEN = (
    *(nodes.Macro, nodes.CallBlock, nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends, nodes.Block),
    nodes.ScopedEvalContextModifier,
)
_GROWING = frozenset({"*", "**"})
# What is put in is a stranger's, and stays escaped; the others are of no use in a message.
_NO_FILTERS = ("safe", "attr", "pprint", "xmlattr", "tojson", "urlize")


class BadTemplateError(Exception):
    """A template that cannot be used, or not for this message: one sentence with the line."""

    def __init__(self, line: int | None, problem: str) -> None:
        self.line = line
        said = safe_text(" ".join(problem.split()), limit=_WORD_LIMIT)
        super().__init__(f"line {line} of the template: {said}" if line else said)


class _Sandbox(ImmutableSandboxedEnvironment):
    """No attribute that begins with an underscore, no change of what is put in, no number beyond all measure."""

    intercepted_binops = _GROWING

    def call_binop(self, context: Any, operator_name: str, left: Any, right: Any) -> Any:
        """Multiply numbers only, and only to a size that fits a message."""
        del context
        if not (isinstance(left, int | float) and isinstance(right, int | float)):
            raise TemplateError(f"{operator_name} is for numbers")
        if operator_name == "**" and abs(right) > 10:
            raise TemplateError("the exponent is too large")
        found = operator.pow(left, right) if operator_name == "**" else operator.mul(left, right)
        if abs(found) > _LARGEST_NUMBER:
            raise TemplateError("the number is too large")
        return found


def _finalize(value: Any) -> Any:
    """A value as it is shown: nothing for ``None``, times as in our own messages."""
    if value is None:
        return ""
    return f"{value:%Y-%m-%d %H:%M:%S} UTC" if isinstance(value, datetime) else value


@cache
def _environment(*, html: bool) -> _Sandbox:
    made = _Sandbox(autoescape=html, undefined=StrictUndefined, finalize=_finalize, keep_trailing_newline=True)
    made.trim_blocks = made.lstrip_blocks = True
    made.globals = {}
    for name in _NO_FILTERS:
        made.filters.pop(name, None)
    return made


class Template:
    """One compiled template. Raises ``BadTemplateError`` where it is none."""

    def __init__(self, source: str, *, html: bool = False) -> None:
        environment = _environment(html=html)
        if len(source) > LONGEST_SOURCE:
            raise BadTemplateError(None, f"it is longer than {LONGEST_SOURCE} characters")
        try:
            tree = environment.parse(source)
            _refuse(tree)
            _count_turns(tree)
            code = environment.compile(tree)
        except TemplateSyntaxError as error:
            raise BadTemplateError(error.lineno, error.message or "it cannot be read") from None
        except RecursionError:
            raise BadTemplateError(None, "it is nested too deeply") from None
        self._template = environment.template_class.from_code(environment, code, {}, None)

    def render(self, values: Mapping[str, Any]) -> str:
        """The text for these values, within ``SECONDS``. Raises ``BadTemplateError`` where there is none."""
        parts: list[str] = []
        size = 0
        try:
            for part in self._template.generate({**values, _TURN: _Turns().turn}):
                parts.append(part)
                if (size := size + len(part)) > LARGEST:
                    raise BadTemplateError(None, f"it makes more than {LARGEST} characters")  # noqa: TRY301
        except BadTemplateError:
            raise
        except Exception as error:  # noqa: BLE001 - one of the five places that may: a template fails in any way
            raise BadTemplateError(_line_of(error), _said(error)) from None
        return "".join(parts)


class _Turns:
    """Counts the turns of all loops of one rendering."""

    def __init__(self) -> None:
        self._left = TURNS
        self._ends_at = SYSTEM_CLOCK.monotonic() + SECONDS

    def turn(self) -> str:
        """One more turn begins."""
        self._left -= 1
        if self._left < 0:
            raise BadTemplateError(None, f"its loops turn more than {TURNS} times")
        if SYSTEM_CLOCK.monotonic() > self._ends_at:
            raise BadTemplateError(None, f"it takes longer than {SECONDS:g} s")
        return ""


def _count_turns(tree: nodes.Template) -> None:
    """Let every turn of a loop be counted: what the sandbox does not bound by itself."""
    for loop in tree.find_all(nodes.For):
        call = nodes.Call(nodes.Name(_TURN, "load"), [], [], None, None)
        loop.body.insert(0, nodes.Output([call]).set_lineno(loop.lineno, override=True))
        # A condition is asked on every turn, also of those that it leaves out.
        loop.test = loop.test and nodes.Or(nodes.Call(nodes.Name(_TURN, "load"), [], [], None, None), loop.test)
    for node in tree.find_all(nodes.Node):
        node.set_environment(tree.environment)  # type: ignore[arg-type]


def _refuse(tree: nodes.Template) -> None:
    for found in tree.find_all(_FORBIDDEN):
        word = type(found).__name__.lower()
        raise BadTemplateError(found.lineno, f"{word} is not for messages: a template stands by itself")
    for number in tree.find_all(nodes.Const):
        if isinstance(number.value, int) and number.value > _LARGEST_NUMBER:
            raise BadTemplateError(number.lineno, f"{number.value} is too large a number")
    unknown = meta.find_undeclared_variables(tree) - VARIABLES.keys()
    for name in sorted(tree.find_all(nodes.Name), key=lambda name: name.lineno):
        if name.name in unknown:
            raise BadTemplateError(name.lineno, f"there is no variable {name.name!r}; {_hint(name.name)}")


def _hint(name: str) -> str:
    close = get_close_matches(name, VARIABLES, n=1)
    return f"was {close[0]} meant?" if close else f"there are {', '.join(VARIABLES)}"


def _line_of(error: BaseException) -> int | None:
    """The line in the template at which ``error`` came up; Jinja2 writes it into the traceback."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == "<template>"]
    return lines[-1] if lines else None


def _said(error: Exception) -> str:
    if isinstance(error, TemplateError):
        return error.message or type(error).__name__
    return f"{type(error).__name__}: {error}"
