"""Which line of a TOML text a key stands in. ``tomllib`` knows it while it parses and then forgets it."""

from __future__ import annotations

import re
import tomllib
from bisect import bisect_right
from contextlib import suppress

Keys = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]+|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}' r"|'''.*?'{3,5}" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'",
    re.DOTALL,
)
_KEY = re.compile(r"[A-Za-z0-9_-]+|" r'"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'")
# Nearly all lines of a long file: a bare key with a plain value; taken in one step, the scan is twice as fast.
_SIMPLE = re.compile(r"""([A-Za-z0-9_-]+)[ \t]*=[ \t]*(?:"[^"\\\n]*"|[^][{}"'#,\n]+)[ \t]*(?:#[^\n]*)?(?:\n|\Z)""")
_SCALAR = re.compile(r"[^,\]}#\n]+")


def key_lines(text: str) -> dict[Keys, int]:
    """The line (from 1) of every table and key in ``text``, by its path; list elements count from 0.

    ``text`` must be valid TOML. It is meant for error messages, so what it does not understand it leaves out.
    """
    scan = _Scan(text)
    with suppress(_LostError, RecursionError):  # the positions found so far still help
        scan.document()
    ends = [match.start() for match in re.finditer("\n", text)]
    return {path: bisect_right(ends, offset - 1) + 1 for path, offset in scan.found.items()}


class _LostError(Exception):
    """The scan met something it does not understand."""


class _Scan:
    """A cursor over the text; ``found`` holds the offset of every path seen."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.found: dict[Keys, int] = {}
        self._newest: dict[Keys, int] = {}  # the last element so far of each array of tables

    def document(self) -> None:
        base: Keys = ()
        self._skip(_BLANK)
        while self.at < len(self.text):
            if simple := _SIMPLE.match(self.text, self.at):
                self.found.setdefault((*base, simple[1]), self.at)
                self.at = simple.end()
            elif self.text.startswith("[", self.at):
                base = self._header()
            else:
                self._pair(base)
            self._skip(_BLANK)

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self.text, self.at)
        if match is None:
            raise _LostError
        self.at = match.end()
        return match.group()

    def _expect(self, token: str) -> None:
        if not self.text.startswith(token, self.at):
            raise _LostError
        self.at += len(token)

    def _dotted(self) -> list[str]:
        keys: list[str] = []
        while True:
            self._skip(_SPACE)
            keys.append(_plain(self._skip(_KEY)))
            self._skip(_SPACE)
            if not self.text.startswith(".", self.at):
                return keys
            self.at += 1

    def _header(self) -> Keys:
        start = self.at
        several = self.text.startswith("[[", start)
        self.at += 2 if several else 1
        path: Keys = ()
        for key in self._dotted():
            path = (*self._inside(path), key)
            self.found.setdefault(path, start)
        self._expect("]]" if several else "]")
        if several:
            self._newest[path] = self._newest.get(path, -1) + 1
            path = self._inside(path)
            self.found[path] = start
        return path

    def _inside(self, path: Keys) -> Keys:
        return (*path, self._newest[path]) if path in self._newest else path

    def _pair(self, base: Keys) -> None:
        start = self.at
        for key in self._dotted():
            base = (*base, key)
            self.found.setdefault(base, start)
        self._expect("=")
        self._skip(_SPACE)
        self._value(base)

    def _value(self, path: Keys) -> None:
        first = self.text[self.at : self.at + 1]
        if first in ("'", '"'):
            self._skip(_STRING)
        elif first == "[":
            self._elements(path)
        elif first == "{":
            self._inline(path)
        else:
            self._skip(_SCALAR)

    def _elements(self, path: Keys) -> None:
        self.at += 1
        index = 0
        self._skip(_BLANK)
        while not self.text.startswith("]", self.at):
            self.found.setdefault((*path, index), self.at)
            self._value((*path, index))
            index += 1
            self._comma("]")
        self.at += 1

    def _inline(self, path: Keys) -> None:
        self.at += 1
        self._skip(_BLANK)
        while not self.text.startswith("}", self.at):
            self._pair(path)
            self._comma("}")
        self.at += 1

    def _comma(self, end: str) -> None:
        self._skip(_BLANK)
        if not self.text.startswith(end, self.at):
            self._expect(",")
            self._skip(_BLANK)


def _plain(key: str) -> str:
    if key[0] not in "\"'":
        return key
    try:
        return next(iter(tomllib.loads(f"{key} = 0")))
    except tomllib.TOMLDecodeError:
        raise _LostError from None
