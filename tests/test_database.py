"""The data folder is one servmon's alone, wherever the records are."""

from __future__ import annotations

import os

import pytest

from servmon.database import database, reachable_database
from servmon.errors import StartError
from servmon.settings import load

URL = "postgresql://servmon@db.isp.example/servmon"


def settings_of(tmp_path, data_dir):
    file = tmp_path / "servmon.toml"
    file.write_text(f'[servmon]\ndata_dir = "{data_dir}"\n[database]\nurl = "{URL}"\n', encoding="utf-8")
    return load(file).settings


async def test_two_servmons_with_a_database_elsewhere_do_not_share_a_data_folder(tmp_path):
    settings = settings_of(tmp_path, tmp_path / "data")
    for _ in range(2):  # the one that ended left it free
        async with database(settings) as (dsn, _):
            assert dsn == URL
            with pytest.raises(StartError, match=rf"^another servmon \(process {os.getpid()}\) uses the data folder"):
                async with database(settings):
                    pass
            async with reachable_database(settings) as seen:  # what only looks is let in
                assert seen == URL


@pytest.mark.parametrize("url", [URL, None])
async def test_a_data_folder_that_cannot_be_used_is_named_once(tmp_path, url):
    (tmp_path / "file").touch()
    settings = settings_of(tmp_path, tmp_path / "file" / "data")
    if url is None:
        settings = settings.model_copy(update={"database": settings.database.model_copy(update={"url": None})})
    with pytest.raises(StartError) as refused:
        async with database(settings):
            pass
    assert str(refused.value) == f"cannot use the data folder {tmp_path}/file/data: Not a directory"
