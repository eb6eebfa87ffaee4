"""Documents in batches, and what became of each: arrived, refused for what it is, or to be sent again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from servmon.elastic.cluster import Cluster, ElasticError, TooLargeError, reason_of
from servmon.elastic.mapping import Document, Kind
from servmon.store.rows import plain

MOST_DOCUMENTS = 500
MOST_BYTES = 5 * 1024 * 1024
# Encoded between two turns of the loop: some two milliseconds, so that no check is late for it.
DOCUMENTS_A_TURN = 100

# These come back with 400 as well, but say nothing about the document.
_OF_THE_INDEX = frozenset(
    {
        "validation_exception",  # the cluster has its full number of shards
        "index_closed_exception",
        "invalid_index_name_exception",
        "process_cluster_event_timeout_exception",
    }
)
_ENCODE = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=plain).encode


@dataclass(slots=True)
class Outcome:
    """What became of some documents."""

    arrived: list[Document] = field(default_factory=list)
    refused: list[tuple[Document, str]] = field(default_factory=list)
    # Not taken just now, and why.
    later: list[tuple[Document, str]] = field(default_factory=list)

    def add(self, other: Outcome) -> None:
        """Join the outcome of other documents."""
        self.arrived += other.arrived
        self.refused += other.refused
        self.later += other.later


async def send(cluster: Cluster, documents: Iterable[Document]) -> Outcome:
    """Send documents, one batch at a time. Raises ``AwayError``; what was sent before may have arrived."""
    outcome = Outcome()
    async for batch, lines in _batches(documents):
        outcome.add(await _send_batch(cluster, batch, lines))
    return outcome


async def remove(cluster: Cluster, index: str, ids: Sequence[str], version: int) -> Outcome:
    """Delete documents, unless they are newer than ``version``; one that is not there is gone already."""
    gone = [Document(Kind.MAINTENANCE, index, one, version, {}) for one in ids]
    lines = [_line({"delete": _versioned(document)}) for document in gone]
    return _judge(gone, await cluster.bulk(b"".join(lines), len(gone))) if gone else Outcome()


async def _batches(documents: Iterable[Document]) -> AsyncIterator[tuple[list[Document], list[bytes]]]:
    batch: list[Document] = []
    lines: list[bytes] = []
    size = 0
    for number, document in enumerate(documents, start=1):
        if number % DOCUMENTS_A_TURN == 0:
            await asyncio.sleep(0)
        encoded = encode(document)
        if batch and (len(batch) == MOST_DOCUMENTS or size + len(encoded) > MOST_BYTES):
            yield batch, lines
            batch, lines, size = [], [], 0
        batch.append(document)
        lines.append(encoded)
        size += len(encoded)
    if batch:
        yield batch, lines


def encode(document: Document) -> bytes:
    """A document with its action, as the bulk API takes it. A line feed in a value is no line feed in JSON."""
    if document.kind is Kind.STATUS:
        action = f'{{"create":{{"_index":"{document.index}","_id":"{document.id}"}}}}\n'.encode()
    else:
        action = _line({"index": _versioned(document)})
    return action + _line(document.source)


def _versioned(document: Document) -> dict[str, Any]:
    version = {"version": document.version, "version_type": "external_gte"}
    return {"_index": document.index, "_id": document.id, **version}


def _line(value: Any) -> bytes:
    return (_ENCODE(value) + "\n").encode("utf-8", "replace")


async def _send_batch(cluster: Cluster, batch: list[Document], lines: list[bytes]) -> Outcome:
    try:
        items = await cluster.bulk(b"".join(lines), len(batch))
    except TooLargeError as error:
        if len(batch) == 1:
            return Outcome(refused=[(batch[0], str(error))])
        outcome, middle = Outcome(), len(batch) // 2
        for half in (slice(middle), slice(middle, None)):
            outcome.add(await _send_batch(cluster, batch[half], lines[half]))
        return outcome
    return _judge(batch, items)


def _judge(batch: Sequence[Document], items: Sequence[dict[str, Any]] | None) -> Outcome:
    if items is None:
        return Outcome(arrived=list(batch))
    outcome = Outcome()
    for document, item in zip(batch, items, strict=True):
        status = item.get("status", 500)
        # 409: it is there already, or something newer is. 404 of a deletion: it is gone, or its whole index is.
        if status < 300 or status == 409 or (status == 404 and not document.source):
            outcome.arrived.append(document)
            continue
        error = item.get("error")
        reason = f"{status}: {reason_of(error)}"
        of_the_index = isinstance(error, dict) and error.get("type") in _OF_THE_INDEX
        (outcome.refused if status == 400 and not of_the_index else outcome.later).append((document, reason))
    return outcome


def first_reason(outcome: Outcome) -> ElasticError:
    """Why some documents have to be sent again."""
    document, reason = outcome.later[0]
    return ElasticError(f"{len(outcome.later)} documents are not taken, the first by {document.index}: {reason}")
