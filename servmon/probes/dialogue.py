"""What is said over a TCP connection, step by step, and what mail, file and SSH servers are asked."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from servmon.probes.pattern import compiled

_LONGEST_PAYLOAD = 65_536


def _checked_pattern(value: str) -> str:
    try:
        compiled(_by_line(value))
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is not a regular expression: {error}") from error
    return value


Pattern = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_checked_pattern)]


class Step(BaseModel):
    """One step: ``send`` a text, ``expect`` an expression in what comes, or go over to TLS (``starttls``).

    In an expression ``^`` and ``$`` stand for the ends of lines. Where ``fail`` is found while waiting, nothing better
    will come. What came before a step's end is used up by it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    send: Annotated[str, Field(min_length=1, max_length=_LONGEST_PAYLOAD)] | None = None
    expect: Pattern | None = None
    fail: Pattern | None = None
    starttls: bool = False

    @model_validator(mode="after")
    def _is_one_thing(self) -> Self:
        if [self.send is not None, self.expect is not None, self.starttls].count(True) != 1:
            raise ValueError("must be one of send, expect and starttls = true")
        if self.fail is not None and self.expect is None:
            raise ValueError("fail means nothing without expect")
        return self


def expression(pattern: str) -> re.Pattern[str]:
    """A step's expression, which counts lines."""
    return compiled(_by_line(pattern))


def _by_line(pattern: str) -> str:
    return f"(?m){pattern}"


def _reply(expected: str, refused: str) -> Step:
    # To the end of its line, so that no half of a reply is taken for the next one.
    return Step(expect=f"{expected}.*\\n", fail=f"{refused}.*\\n")


_START_TLS = Step(starttls=True)
# A code may stand alone (RFC 5321, 4.2); IMAP knows no capitals (RFC 9051, 9).
_SMTP_NO, _IMAP_NO, _POP3_NO = r"^[45]\d\d( |$)", r"(?i:^(\* BYE|a\d (NO|BAD)))", "^-ERR"
_EHLO = (Step(send="EHLO servmon.invalid\r\n"), _reply("^250( |$)", _SMTP_NO))

# Before TLS, how it is begun, after it; the same where TLS is not wished for.
_PRESETS: dict[str, tuple[tuple[Step, ...], tuple[Step, ...], tuple[Step, ...]]] = {
    "smtp": (
        (_reply("^220( |$)", _SMTP_NO), *_EHLO),
        (Step(send="STARTTLS\r\n"), _reply("^220( |$)", _SMTP_NO), _START_TLS, *_EHLO),
        (Step(send="QUIT\r\n"), _reply("^221( |$)", _SMTP_NO)),
    ),
    "imap": (
        (_reply(r"(?i:^\* (OK|PREAUTH))", _IMAP_NO),),
        (Step(send="a1 STARTTLS\r\n"), _reply("(?i:^a1 OK)", _IMAP_NO), _START_TLS),
        (Step(send="a2 LOGOUT\r\n"), _reply("(?i:^a2 OK)", "(?i:^a2 (NO|BAD))")),
    ),
    "pop3": (
        (_reply(r"^\+OK", _POP3_NO),),
        (Step(send="STLS\r\n"), _reply(r"^\+OK", _POP3_NO), _START_TLS),
        (Step(send="QUIT\r\n"), _reply(r"^\+OK", _POP3_NO)),
    ),
    "ftp": (
        (_reply("^220( |$)", _SMTP_NO),),
        (Step(send="AUTH TLS\r\n"), _reply("^234( |$)", _SMTP_NO), _START_TLS),
        (Step(send="QUIT\r\n"), _reply("^221", _SMTP_NO)),
    ),
    # The banner may come after other lines (RFC 4253, 4.2).
    "ssh": ((Step(expect=r"^SSH-(2\.0|1\.99)-.*\n", fail=r"^SSH-1\.[0-8].*\n"),), (), ()),
}


def offers_starttls(preset: str) -> bool:
    """Whether a ready-made dialogue knows how to begin TLS."""
    return bool(_PRESETS[preset][1])


@lru_cache
def preset_steps(preset: str, *, starttls: bool) -> tuple[Step, ...]:
    """The steps of a ready-made dialogue (RFC 5321 and 3207, 9051, 1939 and 2595, 959 and 4217, 4253)."""
    before, begin_tls, after = _PRESETS[preset]
    return before + (begin_tls if starttls else ()) + after
