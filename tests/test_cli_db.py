"""``servmon db`` as an operator calls it."""

from __future__ import annotations

import json

import pytest

from servmon.store import endpoints
from servmon.store.pool import open_pool
from tests.store.seeds import endpoint, result, store
from tests.test_cli import servmon


@pytest.fixture
def use(monkeypatch, tmp_path):
    monkeypatch.setenv("SERVMON_DATA_DIR", str(tmp_path / "data"))
    return lambda dsn: monkeypatch.setenv("DATABASE_URL", dsn)


async def fill(dsn: str) -> None:
    async with await open_pool(dsn) as db:
        watched = await endpoints.insert(db, endpoint("a"))
    await store(dsn, result(watched))


async def test_a_backup_is_restored_into_another_database(use, database, empty_database, tmp_path):
    await fill(database)
    use(database)
    file = tmp_path / "b.zip"
    code, out, err = await servmon("db", "backup", str(file))
    assert (code, err) == (0, "")
    assert "among them 1 results and 0 outages" in out
    use(empty_database)
    code, out, err = await servmon("db", "restore", str(file), "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["tables"]["service_endpoint"] == 1


async def test_status_says_sizes_and_forecast(use, database):
    await fill(database)
    use(database)
    code, out, err = await servmon("db", "status")
    assert (code, err) == (0, "")
    assert "1 endpoints make 1,440 results a day" in out
    assert "forecast: it grows to about" in out
    assert "service_status_row" in out
    code, out, _ = await servmon("db", "status", "--json")
    found = json.loads(out)
    assert (code, found["results_a_day"], found["endpoints"], found["free_bytes"]) == (0, 1440, 1, None)


async def test_what_stands_in_the_way_is_one_sentence(use, database, tmp_path):
    use(database)
    file = tmp_path / "b.zip"
    file.touch()
    refused = f"{file} exists already; name another, or say --force\n"
    assert await servmon("db", "backup", str(file)) == (1, "", refused)
    use("postgresql://servmon:secret@127.0.0.1:1/servmon")
    code, _, err = await servmon("db", "backup", str(tmp_path / "c.zip"))
    assert code == 1
    assert err.startswith("cannot connect to the database servmon on 127.0.0.1:1: ")
    assert "secret" not in err


async def test_a_running_servmon_is_backed_up_and_not_restored_over(servmon_daemon, tmp_path):
    daemon = servmon_daemon("")
    await daemon.start()
    file = tmp_path / "b.zip"
    code, _, err = await servmon("db", "backup", str(file), "--config", str(daemon.file))
    assert (code, err) == (0, "")
    code, _, err = await servmon("db", "restore", str(file), "--config", str(daemon.file))
    assert code == 1
    assert "another servmon (process" in err
