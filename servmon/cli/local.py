"""Talks to the servmon that runs on this machine, by the address and token that its configuration tells."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from servmon.cli.base import fail
from servmon.settings import Settings

PATIENCE_SECONDS = 60.0
PAGE = 1000


class LocalApi:
    """The admin API of the local daemon; every failure ends the process with a sentence and exit status 1."""

    def __init__(self, settings: Settings) -> None:
        host = settings.api.host
        # A wildcard is no address to connect to.
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound
        self._base = f"http://[{host}]:{settings.api.port}" if ":" in host else f"http://{host}:{settings.api.port}"
        self._settings = settings

    def get(self, path: str, **query: str | None) -> Any:
        """The JSON that answers a GET; what is ``None`` in ``query`` is left out."""
        given = urlencode({name: value for name, value in query.items() if value is not None})
        return self._ask("GET", path, None, given)

    def pages(self, path: str, **query: str | None) -> Iterator[Any]:
        """Every item of a list, page by page."""
        cursor: str | None = None
        while True:
            page = self.get(path, **{"limit": str(PAGE), **query, "cursor": cursor})
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def post(self, path: str, body: dict[str, Any]) -> Any:
        """The JSON that answers a POST of ``body``."""
        return self._ask("POST", path, json.dumps(body).encode())

    def _ask(self, method: str, path: str, body: bytes | None, query: str = "") -> Any:
        request = urllib.request.Request(  # noqa: S310 - http is all it can be
            self._base + quote(path) + (query and f"?{query}"),
            data=body,
            headers={"Authorization": f"Bearer {self._token()}", "Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:  # noqa: S310 - as above
                return json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                fail(_told(error), 1)
        except (urllib.error.URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            fail(f"no servmon answers at {self._base}: {getattr(reason, 'strerror', None) or reason}", 1)

    def _token(self) -> str:
        if self._settings.api.token is not None:
            return self._settings.api.token.get_secret_value()
        path = self._settings.servmon.data_dir / "admin.token"
        try:
            return path.read_text(encoding="ascii").strip()
        except OSError as error:
            fail(f"the API's token cannot be read from {path}: {error.strerror or error}", 1)


def _told(error: urllib.error.HTTPError) -> str:
    try:
        problem = json.loads(error.read())
        lines = [problem["detail"], *(one["message"] for one in problem.get("errors", ()))]
    except (ValueError, KeyError, OSError):
        return f"servmon answered {error.code} {error.reason}"
    return "\n".join(dict.fromkeys(lines))
