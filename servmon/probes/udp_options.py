"""What an endpoint that is asked over UDP may say, and the datagram that comes of it."""

from __future__ import annotations

import base64
import binascii
import re
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from servmon.probes.pattern import compiled
from servmon.probes.route import ConnectingOptions

_LARGEST_PAYLOAD = 65_507


def _checked_hex(value: str) -> str:
    try:
        payload = bytes.fromhex(value)
    except ValueError as error:
        raise ValueError(f"{value[:40]!r} is not hexadecimal; pairs of digits such as 'e3 00 06' would be") from error
    if len(payload) > _LARGEST_PAYLOAD:
        raise ValueError(f"is {len(payload)} bytes; a datagram holds {_LARGEST_PAYLOAD}")
    return value


def _not_nothing(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty, and every reply holds that; leave it out where any reply is right")
    return value


def _checked_base64(value: str) -> str:
    try:
        payload = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"{value[:40]!r} is not base64 (RFC 4648); '4wAG7A==' would be") from error
    if len(payload) > _LARGEST_PAYLOAD:
        raise ValueError(f"is {len(payload)} bytes; a datagram holds {_LARGEST_PAYLOAD}")
    return value


def _checked_text(value: str) -> str:
    if len(value.encode()) > _LARGEST_PAYLOAD:
        raise ValueError(f"is {len(value.encode())} bytes; a datagram holds {_LARGEST_PAYLOAD}")
    return value


def _checked_pattern(value: str) -> str:
    try:
        compiled(value)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"is not a regular expression: {error}") from error
    return value


class UdpOptions(ConnectingOptions):
    """What is sent, and what the reply must hold. Any reply will do by default; without one nothing is proved.

    ``preset`` stands for all of them: ``ntp`` asks for the time, and may say how far the server's clock may be off.
    """

    send: Annotated[str, AfterValidator(_checked_text)] | None = None
    send_hex: Annotated[str, AfterValidator(_checked_hex)] | None = None
    send_base64: Annotated[str, AfterValidator(_checked_base64)] | None = None
    expect: (
        Annotated[str, Field(max_length=2000), AfterValidator(_not_nothing), AfterValidator(_checked_pattern)] | None
    ) = None
    expect_hex: Annotated[str, AfterValidator(_not_nothing), AfterValidator(_checked_hex)] | None = None
    preset: Literal["ntp"] | None = None
    max_offset_ms: float | None = Field(None, gt=0)
    max_stratum: int = Field(15, ge=1, le=15)


@lru_cache(maxsize=4096)
def payload_of(send: str | None, send_hex: str | None, send_base64: str | None = None) -> bytes:
    """The datagram to send; empty where nothing is said."""
    if send_hex is not None:
        return bytes.fromhex(send_hex)
    return base64.b64decode(send_base64) if send_base64 is not None else (send or "").encode()
