"""Answers in JSON: a long list is written in turns, and reads as if it were written at one stroke."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from servmon.api.endpoint_shapes import EndpointTexts, endpoint_shape
from servmon.api.shapes import json_text, page, plain
from servmon.model import Endpoint, Severity

AT = datetime(2026, 11, 23, 15, 43, 49, tzinfo=UTC)
ENTRIES = [{"id": 'a"\n', "severity": Severity.MAJOR, "at": AT, "name": "Köln"}, [], {}, None, "items", 1.5]


@pytest.mark.parametrize(
    "value",
    [
        {"items": ENTRIES, "next_cursor": None},
        {"items": ENTRIES, "next_cursor": "abc", "resolution": "raw"},
        {"items": [], "next_cursor": None},
        {"items": ENTRIES},
        {"items": "none"},
        {"total": 3, "items": {"a": 1}},
        ENTRIES,
        None,
    ],
    ids=str,
)
async def test_a_list_written_in_turns_reads_as_written_at_one_stroke(value):
    assert await json_text(value) == json.dumps(plain(value), ensure_ascii=False)


async def test_an_endpoint_is_written_once_while_it_stays_the_same_and_reads_as_any_other(monkeypatch):
    texts = EndpointTexts()
    web = Endpoint("web", "Köln\n", "http://web/", "HTTP", options={"password": "hunter2"}, created_at=AT)
    shown = {"items": [texts.of(web)], "next_cursor": None}
    assert await json_text(shown) == await json_text({"items": [endpoint_shape(web)], "next_cursor": None})
    assert "hunter2" not in texts.of(web)
    assert texts.of(web) is texts.of(web)
    changed = replace(web, name="Bonn")
    assert json.loads(texts.of(changed))["name"] == "Bonn"
    monkeypatch.setattr("servmon.api.endpoint_shapes.MOST_TEXTS", 1)
    texts.of(Endpoint("other", "other", "tcp://192.0.2.1:1", "TCP"))
    assert list(texts._known) == ["other"]


async def test_the_thousandth_entry_of_a_list_keeps_no_check_waiting(monkeypatch):
    monkeypatch.setattr("servmon.tasks.TURN_SECONDS", -1.0)  # so each piece that gives way at all does so every time
    shown = page(range(1000), 999, shape=lambda row: {"n": row}, cursor=str)
    assert await _turns(shown) == 999
    assert await _turns(json_text({"items": [{"n": number} for number in range(999)], "next_cursor": "998"})) == 999


async def _turns(work) -> int:
    """How often ``work`` gives way to others."""
    steps = work.__await__()
    return sum(1 for _ in steps)
