"""Talks to the servmon that runs on this machine, by the address and token that its configuration tells.

Another one is reached by its URL and a file with a token for it.
"""

from __future__ import annotations

import json
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote, urlencode, urlsplit

import typer

from servmon.cli.base import EXIT_CONFIGURATION, SERVICE_FILE, fail, load, shown

if TYPE_CHECKING:
    from servmon.settings import Settings

PATIENCE_SECONDS = 60.0
PAGE = 1000

Complain = Callable[[str], NoReturn]


class LocalApi:
    """The admin API at ``base``; every failure is a sentence for ``complain``, which does not return.

    By default it ends the process with the sentence on stderr and exit status 1. ``token`` is asked for once.
    """

    def __init__(
        self, base: str, token: Callable[[], str], complain: Complain | None = None, socket: str | None = None
    ) -> None:
        self._base = base.rstrip("/")
        self._socket = socket
        self._token = token
        self.complain: Complain = complain or partial(fail, code=1)
        # What else a person may want to know where nobody answers.
        self.hint = ""

    @classmethod
    def of(cls, settings: Settings) -> LocalApi:
        """The daemon that these settings describe."""
        api, token = settings.api, partial(_token_of, settings)
        # A wildcard is no address to connect to.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(api.host, api.host)  # noqa: S104 - compared, not bound
        base = f"http://{f'[{host}]' if ':' in host else host}:{api.port}" if api.wants_port else "http://localhost"
        made = cls(base, token, socket=None if api.wants_port else api.socket)
        made.hint = "; none runs here, or one that was started with another [api]"
        return made

    def get(self, path: str, **query: str | None) -> Any:
        """The JSON that answers a GET; what is ``None`` in ``query`` is left out."""
        given = urlencode({name: value for name, value in query.items() if value is not None}, errors="surrogateescape")
        return self._ask("GET", path, query=given)

    def pages(self, path: str, **query: str | None) -> Iterator[Any]:
        """Every item of a list, page by page."""
        return self._items(path, PAGE, query)

    def first(self, most: int, path: str, **query: str | None) -> Iterator[Any]:
        """The first ``most`` items of a list."""
        return islice(self._items(path, min(PAGE, most), query), most)

    def _items(self, path: str, size: int, query: Mapping[str, str | None]) -> Iterator[Any]:
        cursor: str | None = None
        while True:
            page = self.get(path, **{"limit": str(size), **query, "cursor": cursor})
            if not isinstance(page, dict) or "items" not in page:
                self.complain(f"what answers at {self._base} is no servmon: it sent no list")
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON that answers a POST of ``body``."""
        return self._ask("POST", path, body)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """The JSON that answers a PATCH with ``body``."""
        return self._ask("PATCH", path, body)

    def delete(self, path: str) -> None:
        """Delete what is at ``path``."""
        self._ask("DELETE", path)

    def open(self, path: str, headers: Mapping[str, str], patience: float) -> HTTPResponse:
        """The open answer to a GET, to be read as it comes; raises ``OSError`` where nobody answers."""
        return self._send("GET", path, headers=headers, patience=patience)

    def nobody_answers(self, error: Exception) -> str:
        """The sentence for an ``error`` of the connection."""
        reason = getattr(error, "reason", error)
        said = getattr(reason, "strerror", None) or reason
        return f"no servmon answers at {self._socket or self._base}: {said}{self.hint}"

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, query: str = "") -> Any:
        try:
            with self._send(method, path + (query and f"?{query}"), body) as answer:
                text = answer.read()
                return json.loads(text) if text else None
        except (OSError, HTTPException) as error:
            self.complain(self.nobody_answers(error))
        except ValueError:
            self.complain(f"what answers at {self._base} is no servmon: it sent no JSON")

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> HTTPResponse:
        place, mark, query = path.partition("?")
        request = urllib.request.Request(  # noqa: S310 - http or https is all it can be
            self._base + quote(place, safe="/%") + mark + query,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._token()}", "Content-Type": "application/json", **(headers or {})},
            method=method,
        )
        try:
            answer: HTTPResponse = _opener(self._socket).open(request, timeout=patience)
        except urllib.error.HTTPError as error:
            with error:
                self.complain(_told(error))
        return answer


def reach(config: Path | None, url: str | None, token_file: Path | None) -> LocalApi:
    """The API that the command line means: that of ``url``, else that of the configuration."""
    token = partial(_read_token, token_file) if token_file else None
    if url is not None:
        if not _is_address(url):
            fail("--url is no address such as http://monitor.isp.example:8350, without a name and password in it", 2)
        if token is None:
            fail("--url needs --token-file: the token of the servmon here is sent nowhere else", EXIT_CONFIGURATION)
        return LocalApi(url, token)
    # Asked where the command line names no file.
    if config is None and os.access(SERVICE_FILE, os.R_OK):
        config = SERVICE_FILE
    api = LocalApi.of(_where_it_runs(config))
    if token is not None:
        api._token = token  # noqa: SLF001 - its own module
    return api


def _where_it_runs(config: Path | None) -> Settings:
    """The settings that tell; a mistake in the file, by which no servmon goes, keeps nobody from asking."""
    loaded = load(config, or_last_good=True)
    for line in loaded.broken:
        typer.echo(shown(line), err=True)
    if loaded.broken:
        typer.echo(f"{config} has a mistake; the configuration that was applied last is gone by", err=True)
    return loaded.settings


def _is_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return (
            parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
        )
    except ValueError:
        return False


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: the token is for whom it was given, not for whom that one names."""

    def redirect_request(self, *_: Any) -> None:
        """Follow nothing."""


class _ThroughSocket(HTTPConnection):
    """A connection to the unix socket at ``path``, whatever the address says."""

    def __init__(self, path: str, host: str, **options: Any) -> None:
        super().__init__(host, **options)
        self._path = path

    def connect(self) -> None:
        """Connect to it."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _SocketHandler(urllib.request.HTTPHandler):
    """Sends everything through one unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def http_open(self, request: urllib.request.Request) -> HTTPResponse:
        """The answer to ``request``."""
        return self.do_open(partial(_ThroughSocket, self._path), request)


def _opener(path: str | None = None) -> urllib.request.OpenerDirector:
    # No proxy: what is asked is this machine or one that was named, and the token is nobody else's business.
    through = [_SocketHandler(path)] if path else []
    return urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects, *through)


def _token_of(settings: Settings) -> str:
    if settings.api.token is not None:
        return settings.api.token.get_secret_value()
    path = settings.servmon.data_dir / "admin.token"
    return _read_token(path, "; servmon makes it at its first start. Does the one here have another --config?")


def _read_token(path: Path, hint: str = "") -> str:
    try:
        token = path.read_text(encoding="ascii").strip()
    except OSError as error:
        if isinstance(error, PermissionError):
            hint = "; ask as its owner or as root, or with a token of your own: --url and --token-file"
        fail(f"the API's token cannot be read from {path}: {error.strerror or error}{hint}", 1)
    except ValueError:
        token = ""
    if not token or not token.isprintable() or " " in token:
        fail(f"{path} holds no token: it is one line, as `servmon tokens create` prints it", 1)
    return token


def _told(error: urllib.error.HTTPError) -> str:
    try:
        problem = json.loads(error.read())
        lines = [problem["detail"], *(_named(one) for one in problem.get("errors", ()))]
        if len(lines) > 1 and lines[0].startswith("not acceptable: "):
            del lines[0]  # it only lists the fields that the others name
    except (ValueError, KeyError, TypeError, OSError):
        return f"what answers is no servmon: {error.code} {error.reason}"
    return "\n".join(dict.fromkeys(lines))


def _named(wrong: Mapping[str, str]) -> str:
    return f"{wrong['field']}: {wrong['message']}" if wrong.get("field") else wrong["message"]
