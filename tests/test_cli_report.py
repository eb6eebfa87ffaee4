"""``servmon report``: what was told and what was not, as stored."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from servmon.cli import app
from servmon.cli.report import _lines, _moment
from servmon.clock import now
from servmon.store import alerts, notifications
from tests.test_cli import servmon

PRESENT = datetime(2026, 11, 25, 20, tzinfo=UTC)


@pytest.fixture
async def told(db):
    """Four messages and five pieces of news that were not told, of which one each is too old."""
    for hours, column, error in (
        (9, "sent_at", None),
        (3, "sent_at", None),
        (2, "given_up_at", "dry run: decided, not sent"),
        (1, None, None),
    ):
        await db.execute(
            "insert into notification (id, alert_id, channel, kind, severity, subject, body, created_at, last_error"
            f"{f', {column}' if column else ''}) values ($1, $1, 'noc', 'down', 'MAJOR', $2, 'b', $3, $4"
            f"{', $3' if column else ''})",
            uuid4(),
            f"DOWN: web {hours}",
            now() - timedelta(hours=hours),
            error,
        )
    for hours, stage in ((9, "silence"), (1, "silence"), (1, "dependency"), (2, "dependency"), (1, "sent")):
        await db.execute(
            "insert into alert_decision (news_id, kind, stage, reason, at) values ($1, 'down', $2, 'because', $3)",
            uuid4(),
            stage,
            now() - timedelta(hours=hours),
        )
    return db


async def test_what_was_told_and_what_was_not_is_listed_and_counted(told):
    since = now() - timedelta(hours=8)
    lines = list(_lines(since, await notifications.made_since(told, since), await alerts.kept_back_since(told, since)))
    assert lines[0] == f"since {since:%Y-%m-%d %H:%M} UTC: 3 messages (1 sent, 1 not sent, 1 owed)"
    assert [line.partition("  noc: ")[2] for line in lines[1:4]] == [
        "DOWN: web 3: sent",
        "DOWN: web 2: not sent: dry run: decided, not sent",
        "DOWN: web 1: owed",
    ]
    assert lines[4:] == [
        "not told: 3 pieces of news",
        "       2  dependency: because",
        "       1  silence: because",
    ]


def test_nothing_is_said_in_one_line():
    assert list(_lines(PRESENT, [], [])) == ["since 2026-11-25 20:00 UTC: 0 messages"]


async def test_a_report_is_one_json_object(told, database, monkeypatch, tmp_path):
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("SERVMON_DATA_DIR", str(tmp_path))
    code, out, err = await servmon("report", "--since", "1d", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert [message["fate"].partition(":")[0] for message in found["messages"]] == ["sent", "sent", "not sent", "owed"]
    assert found["not_told"][0] == {"stage": "dependency", "reason": "because", "number": 2}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30m", PRESENT - timedelta(minutes=30)),
        ("8h", PRESENT - timedelta(hours=8)),
        ("7d", PRESENT - timedelta(days=7)),
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=UTC)),
        ("2026-11-20T10:00:00+02:00", datetime(2026, 11, 20, 8, tzinfo=UTC)),
    ],
)
def test_the_beginning_is_a_span_a_time_or_a_day(text, expected):
    assert _moment(text, PRESENT) == expected


def test_another_beginning_is_refused_with_what_would_be_right():
    refused = CliRunner().invoke(app, ["report", "--since", "yesterday"])
    assert refused.exit_code == 2
    assert "--since yesterday: must be a time in RFC 3339, such as 2026-11-23T15:43:49Z; or a span" in refused.output
