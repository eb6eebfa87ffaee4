"""Two Elasticsearch servers that we did not write, and a proxy of ours in front that fails as real clusters do."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import aiohttp
import noida_db
import pytest
from aiohttp import web
from elastic_transport import AiohttpHttpNode, HttpHeaders
from osmem_server import OsmemServer

from tests.fix_servers import free_port, patience

NOIDA, OSMEM = "noida", "osmem"


class PlainMimeNode(AiohttpHttpNode):
    """osmem answers 406 to the media type of the official client; every real server takes it."""

    async def perform_request(
        self, method: str, target: str, body: Any = None, headers: Any = None, **more: Any
    ) -> Any:
        plain = HttpHeaders(headers or {})
        _make_plain(plain)
        return await super().perform_request(method, target, body, plain, **more)


def _make_plain(headers: MutableMapping[str, str]) -> None:
    for name in [name for name in headers if name.lower() in ("accept", "content-type")]:
        if "vnd.elasticsearch+" in headers[name]:
            headers[name] = "application/x-ndjson" if "ndjson" in headers[name] else "application/json"


class Cluster:
    """An empty Elasticsearch at ``url``; what it holds can be asked over plain HTTP."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind = kind
        self.url = url

    @property
    def node_class(self) -> type[AiohttpHttpNode]:
        """What the official client has to speak through."""
        return PlainMimeNode if self.kind == OSMEM else AiohttpHttpNode

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """The status and the JSON of one request."""
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, json=body) as answer,
        ):
            return answer.status, await answer.json(content_type=None)

    async def indices(self) -> list[str]:
        """The names of all indices that there are."""
        _, found = await self.ask("GET", "/_cat/indices?format=json&h=index&expand_wildcards=all")
        return sorted(row["index"] for row in found)

    async def documents(self, index: str) -> dict[str, dict[str, Any]]:
        """Every document of an index by its id, at most 10,000."""
        await self.ask("POST", f"/{index}/_refresh")
        status, found = await self.ask("POST", f"/{index}/_search", {"size": 10_000, "query": {"match_all": {}}})
        if status == 404:
            return {}
        assert status == 200, found
        return {hit["_id"]: hit["_source"] for hit in found["hits"]["hits"]}

    async def empty(self) -> None:
        """Delete all indices and templates of ours, each by its name, since a server may refuse wildcards."""
        for index in await self.indices():
            await self.ask("DELETE", f"/{index}")
        for path in ("/_index_template", "/_component_template"):
            _, found = await self.ask("GET", path)
            for template in next(iter(found.values()), []):
                if template["name"].startswith("servmon"):
                    await self.ask("DELETE", f"{path}/{template['name']}")


Fault = Callable[[web.Request, bytes], Awaitable[web.StreamResponse | None]]


class FaultProxy:
    """Stands before a cluster. ``fault`` may answer in its place, change nothing (``None``), or never answer."""

    def __init__(self, cluster: Cluster, *, tls: ssl.SSLContext | None = None) -> None:
        self.cluster = cluster
        self._tls = tls
        self.fault: Fault | None = None
        self.requests: list[tuple[str, str]] = []
        self.port = free_port()
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._session = aiohttp.ClientSession(auto_decompress=False)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=self._tls).start()

    async def stop(self) -> None:
        """Refuse connections from now on; ``start`` listens on the same port again."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append((request.method, request.path))
        if self.fault is not None and (answer := await self.fault(request, body)) is not None:
            return answer
        return await self.forward(request, body)

    async def forward(self, request: web.Request, body: bytes, *, plain: bool = False) -> web.Response:
        """The cluster's own answer; ``plain`` where the test wants to read it."""
        assert self._session is not None
        left_out = ("host", "content-length", *(("accept-encoding",) if plain else ()))
        kept = {name: value for name, value in request.headers.items() if name.lower() not in left_out}
        if plain:
            kept["Accept-Encoding"] = "identity"
        if self.cluster.kind == OSMEM:
            _make_plain(kept)
        async with self._session.request(
            request.method, self.cluster.url + request.raw_path, data=body or None, headers=kept
        ) as answer:
            # The encoding is the cluster's: a body that it zipped is passed on as it is.
            headers = {
                name: value
                for name, value in answer.headers.items()
                if name.lower() not in ("transfer-encoding", "content-length", "connection")
            }
            return web.Response(status=answer.status, body=await answer.read(), headers=headers)


@contextlib.contextmanager
def _noida() -> Iterator[str]:
    binary = Path(noida_db.__file__).with_name("noida-db")
    binary.chmod(0o755)
    folder, port = tempfile.mkdtemp(prefix="noida-"), free_port()
    arguments = ["start", "--only", "elasticsearch", "--host", "127.0.0.1", "--elasticsearch-port", str(port)]
    process = subprocess.Popen(
        [binary, *arguments, "--data-dir", folder], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def noida_url() -> Iterator[str]:
    with _noida() as url:
        yield url


@pytest.fixture(scope="session")
def osmem() -> Iterator[OsmemServer]:
    server = OsmemServer.start(japanese=False)
    try:
        yield server
    finally:
        server.close()
        server.process.stdout.close()


@pytest.fixture(params=[NOIDA, OSMEM])
async def cluster(request: pytest.FixtureRequest) -> AsyncIterator[Cluster]:
    """An empty cluster; each test that asks for it runs on both servers."""
    if request.param == OSMEM:
        clone = request.getfixturevalue("osmem").clone()
        try:
            yield Cluster(OSMEM, clone.url)
        finally:
            clone.close()
        return
    found = Cluster(NOIDA, request.getfixturevalue("noida_url"))
    async with patience():
        while not await _answers(found):  # noqa: ASYNC110 - another process rings no bell here
            await asyncio.sleep(0.02)
    yield found
    await found.empty()


async def _answers(cluster: Cluster) -> bool:
    with contextlib.suppress(aiohttp.ClientConnectionError):
        return (await cluster.ask("GET", "/"))[0] == 200
    return False


@pytest.fixture
async def proxy(cluster: Cluster) -> AsyncIterator[FaultProxy]:
    """A fault proxy before ``cluster``, listening."""
    made = FaultProxy(cluster)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def mirror(database: str, db: Any, proxy: FaultProxy) -> AsyncIterator[Any]:
    """The follower between an empty database and an empty cluster behind the fault proxy; time is told."""
    from tests.elastic.rig import Mirror  # noqa: PLC0415 - the rig needs this module

    made = Mirror(database, db, proxy)
    await made.open()
    yield made
    await made.close()
