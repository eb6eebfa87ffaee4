"""The endpoints of the configuration in Postgres."""

from __future__ import annotations

import pytest

from servmon.provisioning import MANY, Provisioning
from servmon.settings import Loaded, Settings
from servmon.standing import Standing
from tests.store.seeds import endpoint


@pytest.mark.parametrize(("number", "counted"), [(10, False), (MANY, True)])
async def test_after_many_at_once_postgres_need_not_find_out_by_itself_that_there_are_so_many(
    number, counted, db, tmp_path
):
    wanted = tuple(endpoint(f"e{n}") for n in range(number))
    loaded = Loaded(Settings(), wanted, (), None)
    await Provisioning(loaded, db, Standing({}, [].append, tmp_path)).begin()
    assert await db.fetchval("select count(*) from service_endpoint") == number
    known = await db.fetchval("select reltuples from pg_class where relname = 'service_endpoint'")
    assert (known == number) is counted
