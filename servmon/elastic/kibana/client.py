"""Asks Kibana over HTTP, and says in a sentence what is wrong where it does not do what it was asked."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import aiohttp

from servmon.elastic.kibana.settings import KibanaSection
from servmon.errors import ServmonError

T = TypeVar("T")

DEADLINE_SECONDS = 60
LONGEST_QUOTE = 400
# What a key or user needs, as Kibana's own pages call it.
PRIVILEGES = "Saved Objects Management: All, Dashboard: All, Visualize Library: All, Stack Rules: All"


class KibanaError(ServmonError):
    """Kibana cannot be reached, or does not do what it was asked; the sentence says what to do."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: ``body`` is JSON, or the text where it was none."""

    status: int
    body: Any

    @property
    def ok(self) -> bool:
        """Whether it was done; an answer without JSON is some proxy's, or a log-in page."""
        return 200 <= self.status < 300 and not isinstance(self.body, str)

    @property
    def table(self) -> Mapping[str, Any]:
        """The JSON object in it, an empty one where there is none."""
        return self.body if isinstance(self.body, Mapping) else {}

    @property
    def message(self) -> str:
        """Kibana's own words, fit for a terminal."""
        return quoted(self.table.get("message") or self.table.get("error") or (self.body if not self.table else ""))


def quoted(text: object) -> str:
    """Words from elsewhere on one line, without control characters, not too many."""
    plain = " ".join("".join(sign if sign.isprintable() else " " for sign in str(text or "")).split())
    return plain if len(plain) <= LONGEST_QUOTE else f"{plain[:LONGEST_QUOTE]} …"


class Kibana:
    """One space of a Kibana."""

    def __init__(self, session: aiohttp.ClientSession, url: str, space: str) -> None:
        self._session = session
        self.url = url
        self.space = space

    @property
    def space_url(self) -> str:
        """The space's own address: that of the default one is Kibana's."""
        return self.url if self.space == "default" else f"{self.url}/s/{self.space}"

    async def ask(self, method: str, path: str, *, body: Any = None, form: aiohttp.FormData | None = None) -> Answer:
        """The answer to one request in the space. Raises ``KibanaError`` where none comes."""
        try:
            async with self._session.request(
                method, f"{self.space_url}{path}", json=body, data=form, allow_redirects=False
            ) as answer:
                return Answer(answer.status, _parsed(await answer.read()))
        except aiohttp.ClientSSLError as error:
            reason = quoted(getattr(error, "certificate_error", None) or error)
            raise KibanaError(
                f"{self.url}: no trusted connection ({reason}); kibana.ca_file names the authority that signed"
                " the certificate"
            ) from None
        except TimeoutError:
            raise KibanaError(f"{self.url}: no answer within {DEADLINE_SECONDS} s; ask again, or see its log") from None
        except aiohttp.ClientError as error:
            raise KibanaError(f"{self.url}: cannot be reached ({quoted(error)}); is kibana.url right?") from None

    async def get(self, path: str, what: str, kind: type[T]) -> T:
        """The JSON of a GET, a ``kind``. Raises ``KibanaError``, beginning with ``what`` failed."""
        answer = await self.ask("GET", path)
        if not answer.ok or not isinstance(answer.body, kind):
            raise refused(what, answer)
        return answer.body


def _parsed(body: bytes) -> Any:
    text = body.decode("utf-8", "replace")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


_ADVICE: Mapping[int, str] = {
    401: "it does not know these credentials; set kibana.api_key, or kibana.username and kibana.password",
    403: f"the key or user may not do this; it needs the Kibana privileges {PRIVILEGES}",
    404: "there is nothing at this address; is the base path in kibana.url right, and the space?",
    409: "something else changed it at the same time, or it exists in another space; run this again",
    413: "a proxy in between takes no body of this size; raise its limit",
    429: "it is asked too much just now; run this again later",
    502: "the proxy in between does not reach Kibana",
    503: "it is not ready yet, or has no connection to Elasticsearch; run this again when its status is available",
}
_NO_JSON = "that is no answer of Kibana's; is kibana.url right, and is no log-in page before it?"
_REDIRECT = "it leads elsewhere, as to a log-in page; set kibana.api_key, and give kibana.url as it is in the end"
_GENERAL_ADVICE: Mapping[int, str] = {2: _NO_JSON, 3: _REDIRECT, 5: "an error inside Kibana; its log says more"}


def refused(what: str, answer: Answer) -> KibanaError:
    """The sentence for an answer that is no success."""
    advice = _ADVICE.get(answer.status) or _GENERAL_ADVICE.get(answer.status // 100, "")
    said = f' Kibana said: "{answer.message}"' if answer.message else ""
    return KibanaError(f"{what}: Kibana answered {answer.status}{f': {advice}' if advice else ''}.{said}")


@asynccontextmanager
async def connected(settings: KibanaSection, url: str, space: str) -> AsyncIterator[Kibana]:
    """The Kibana at ``url``, to be asked. Raises ``KibanaError`` where ``ca_file`` cannot be used."""
    headers = {"kbn-xsrf": "servmon", "User-Agent": "servmon", "Accept": "application/json", **_identity(settings)}
    connector = aiohttp.TCPConnector(ssl=_trust(settings))
    timeout = aiohttp.ClientTimeout(total=DEADLINE_SECONDS)
    async with aiohttp.ClientSession(headers=headers, connector=connector, timeout=timeout) as session:
        yield Kibana(session, url, space)


def _identity(settings: KibanaSection) -> dict[str, str]:
    if settings.api_key:
        return {"Authorization": f"ApiKey {settings.api_key.get_secret_value()}"}
    if settings.username and settings.password:
        return {"Authorization": aiohttp.BasicAuth(settings.username, settings.password.get_secret_value()).encode()}
    return {}


def _trust(settings: KibanaSection) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        reason = getattr(error, "strerror", None) or error
        raise KibanaError(f"kibana.ca_file: {settings.ca_file} cannot be used: {reason}") from None
