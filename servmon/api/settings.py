"""Where the admin API listens and who may use it."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from servmon.api.proxies import TrustedProxies
from servmon.api.unix_socket import UnixPlace
from servmon.model import Section
from servmon.services.sessions import DEFAULT_HOURS

# RFC 6750 section 2.1: what can stand behind "Bearer" in a header.
_BEARER = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_MODE = re.compile("0?[0-7]{3}")
# What sockaddr_un holds, without its end.
LONGEST_SOCKET_PATH = 107


class ApiSection(Section):
    """``[api]``: ``port`` 0 is any free one; without ``token`` the first start creates one in the data folder.

    With ``socket`` it listens there, and on a port only where one is set beside it.
    """

    host: str = Field("127.0.0.1", min_length=1)
    port: int = Field(8350, ge=0, le=65_535)
    socket: str | None = None
    socket_mode: str = "0660"
    socket_group: str | None = None
    token: SecretStr | None = None
    session_hours: float = Field(DEFAULT_HOURS, gt=0, le=24 * 365)
    trusted_proxies: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()

    @property
    def wants_port(self) -> bool:
        """Whether it listens on a port."""
        return self.socket is None or bool({"host", "port"} & self.model_fields_set)

    @property
    def place(self) -> UnixPlace | None:
        """Where its unix socket stands, if it has one."""
        return UnixPlace(Path(self.socket), int(self.socket_mode, 8), self.socket_group) if self.socket else None

    @field_validator("token")
    @classmethod
    def _fits_a_header(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None and not _BEARER.fullmatch(token.get_secret_value()):
            raise ValueError("a token is letters, digits and . _ ~ + / - (RFC 6750), at least one of them")
        return token

    @field_validator("socket")
    @classmethod
    def _is_a_place(cls, socket: str | None) -> str | None:
        if socket is not None and (not socket.startswith("/") or len(socket.encode()) > LONGEST_SOCKET_PATH):
            raise ValueError(f"must be an absolute path of at most {LONGEST_SOCKET_PATH} bytes")
        return socket

    @field_validator("socket_mode")
    @classmethod
    def _is_a_mode(cls, mode: str) -> str:
        if not _MODE.fullmatch(mode):
            raise ValueError('must be permissions in octal digits such as "0660"')
        return mode

    @field_validator("trusted_proxies")
    @classmethod
    def _are_proxies(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        TrustedProxies.of(names)
        return names

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != origin_of(origin):
                raise ValueError(f"{origin!r} is no origin such as https://noc.isp.example, without a path")
        return origins

    @model_validator(mode="after")
    def _is_whole(self) -> ApiSection:
        stray = [name for name in ("socket_mode", "socket_group") if name in self.model_fields_set]
        if self.socket is None and stray:
            raise ValueError(f"{stray[0]} says something of a socket, and api.socket is not set")
        return self


def origin_of(url: str | None) -> str | None:
    """The origin of ``url`` as browsers write it; ``None`` where it is no URL of the web."""
    try:
        parts = urlsplit(url or "")
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    usual = port in (None, 80 if parts.scheme == "http" else 443)
    return f"{parts.scheme}://{host}" if usual else f"{parts.scheme}://{host}:{port}"
