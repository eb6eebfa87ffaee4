"""One Elasticsearch cluster over HTTP: each failure is a sentence without secrets, and nothing is tried twice."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from servmon.elastic.settings import ElasticsearchSection
from servmon.errors import ServmonError

REQUEST_SECONDS = 30.0
LONGEST_REASON = 500
_ALL_FAILURES = tuple(range(400, 600))
_JSON = "application/vnd.elasticsearch+json; compatible-with=8"
_NDJSON = "application/vnd.elasticsearch+x-ndjson; compatible-with=8"
# Of a bulk answer only what says how each document fared.
_BULK = (
    "/_bulk?filter_path=errors,items.*.status,items.*.error.type,items.*.error.reason,items.*.error.caused_by.reason"
)


class ElasticError(ServmonError):
    """Elasticsearch does not do its part just now; trying again later may help."""


class AwayError(ElasticError):
    """The cluster as a whole cannot be used: no answer, an overload, our key is refused."""


class TooLargeError(ElasticError):
    """A request was larger than the cluster, or a proxy before it, takes."""


class Cluster:
    """The cluster of ``[elasticsearch]``. A context manager; certificates are verified, always.

    ``node_class`` is the client's way to speak HTTP, for servers that are not quite Elasticsearch.
    """

    def __init__(
        self, settings: ElasticsearchSection, *, node_class: Any = None, request_seconds: float = REQUEST_SECONDS
    ) -> None:
        self._settings = settings
        self._node_class = node_class
        self._request_seconds = request_seconds
        self._client: Any = None
        self._failures: tuple[type[Exception], ...] = ()

    async def __aenter__(self) -> Self:
        # The client takes a second to import: not on the loop, and only where somebody wants Elasticsearch.
        module = await asyncio.to_thread(importlib.import_module, "elasticsearch")
        transport = importlib.import_module("elastic_transport")
        self._failures = (transport.TransportError, module.ApiError, OSError, asyncio.TimeoutError)
        options = _options(self._settings)
        if self._node_class is not None:
            options["node_class"] = self._node_class
        try:
            # Pauses between tries are ours; the client's own retries have none.
            self._client = module.AsyncElasticsearch(
                list(self._settings.hosts),
                max_retries=0,
                retry_on_timeout=False,
                request_timeout=self._request_seconds,
                **options,
            )
        except (OSError, ValueError) as error:  # an unreadable certificate, or one that is none
            raise AwayError(f"the TLS files of [elasticsearch] cannot be used: {error}") from None
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def ask(self, method: str, path: str, body: Any = None, *, missing: Any = None) -> Any:
        """The JSON that answers one request, or ``missing`` where there is nothing at ``path`` (404).

        Raises ``AwayError``, and ``ElasticError`` where the cluster refuses this very request.
        """
        status, answer = await self._request(method, path, body, _JSON)
        if status == 404 and missing is not None:
            return missing
        if status >= 400:
            raise _refusal(status, f"{method} {path}", answer)
        return answer

    async def bulk(self, body: bytes, count: int) -> Sequence[dict[str, Any]] | None:
        """Send ``count`` actions; what became of each, ``None`` where all went well.

        Raises ``TooLargeError`` and ``AwayError``.
        """
        status, answer = await self._request("POST", _BULK, body, _NDJSON)
        if status == 413:
            raise TooLargeError("413: the batch is too large")
        if status >= 400:
            raise AwayError(str(_refusal(status, "a batch", answer)))
        if not isinstance(answer, dict) or "errors" not in answer:
            raise AwayError("what answers a batch is not Elasticsearch")
        if not answer["errors"]:
            return None
        items = [next(iter(item.values())) for item in answer.get("items", ())]
        if len(items) != count:
            raise AwayError(f"{len(items)} answers to {count} documents")
        return items

    async def _request(self, method: str, path: str, body: Any, content_type: str) -> tuple[int, Any]:
        headers = {"accept": _JSON}
        if body is not None:
            headers["content-type"] = content_type
        # While one host can be reached nobody has to wait; the client asks another one each time.
        for others in reversed(range(len(self._settings.hosts))):
            try:
                answer = await self._client.options(ignore_status=_ALL_FAILURES).perform_request(
                    method, path, headers=headers, body=body
                )
            except self._failures as error:
                if not (others and type(error).__name__ == "ConnectionError"):
                    raise AwayError(_sentence(error)) from None
            else:
                return answer.meta.status, answer.body
        raise AwayError("no hosts are configured")


def _options(settings: ElasticsearchSection) -> dict[str, Any]:
    found: dict[str, Any] = {
        name: str(path)
        for name, path in (
            ("ca_certs", settings.ca_file),
            ("client_cert", settings.client_cert),
            ("client_key", settings.client_key),
        )
        if path is not None
    }
    if settings.api_key is not None:
        found["api_key"] = settings.api_key.get_secret_value()
    if settings.username is not None and settings.password is not None:
        found["basic_auth"] = (settings.username, settings.password.get_secret_value())
    return found


def _refusal(status: int, what: str, answer: Any) -> ElasticError:
    if status == 401:
        return AwayError(f"401: our api_key, or username and password, are not accepted{_because(answer)}")
    if status == 403:
        return ElasticError(f"403: we lack a right for {what}{_because(answer)}")
    if status == 429:
        return AwayError(f"429: it is overloaded{_because(answer)}")
    kind = AwayError if status >= 500 else ElasticError
    return kind(f"{status}: {what} is refused{_because(answer)}")


def _because(answer: Any) -> str:
    error = answer.get("error") if isinstance(answer, dict) else answer
    return f": {reason_of(error)}" if error else ""


def reason_of(error: Any) -> str:
    """What Elasticsearch says is wrong, in a line."""
    if isinstance(error, dict):
        caused = error.get("caused_by") or {}
        told = [error.get("type"), error.get("reason"), caused.get("reason") if isinstance(caused, dict) else None]
        text = ": ".join(str(part) for part in told if part)
    else:
        text = str(error)
    return " ".join(text.split())[:LONGEST_REASON] or "no reason given"


def _sentence(error: Exception) -> str:
    kind = type(error).__name__
    if kind in ("ConnectionTimeout", "TimeoutError"):
        return "no answer in time"
    told = " ".join(str(getattr(error, "message", None) or error).split())[:LONGEST_REASON]
    if kind == "TlsError" or "certificate" in told.lower():
        return f"its certificate is not to be trusted (see ca_file): {told}"
    if kind == "SerializationError":
        return "its answer was cut off, or is not JSON"
    if kind == "UnsupportedProductError":
        return "what answers there is not Elasticsearch"
    return told or kind
