"""The administrator's token in the data folder."""

from __future__ import annotations

import re

import pytest

from servmon.api.token_file import load_or_create_token
from servmon.errors import StartError


def test_the_first_start_makes_a_token_that_only_its_owner_can_read(tmp_path):
    made = load_or_create_token(tmp_path, None)
    assert re.fullmatch(r"svm_[0-9a-f]{8}_[A-Za-z0-9_-]{43}", made.token)
    assert made.path == tmp_path / "admin.token"
    assert made.path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["admin.token"]


def test_the_next_start_keeps_it(tmp_path):
    assert load_or_create_token(tmp_path, None) == load_or_create_token(tmp_path, None)


def test_a_configured_token_leaves_no_file(tmp_path):
    token = load_or_create_token(tmp_path, "chosen")
    assert (token.token, token.path) == ("chosen", None)
    assert not list(tmp_path.iterdir())


def test_a_file_that_others_can_read_is_closed_to_them(tmp_path):
    made = load_or_create_token(tmp_path, None)
    made.path.chmod(0o644)
    assert load_or_create_token(tmp_path, None) == made
    assert made.path.stat().st_mode & 0o777 == 0o600


def test_an_empty_file_left_by_a_crash_is_filled(tmp_path):
    (tmp_path / "admin.token").touch()
    made = load_or_create_token(tmp_path, None)
    assert made.path.read_text().strip() == made.token != ""


@pytest.mark.parametrize("content", [b"two words", b"caf\xc3\xa9", b"a\0b"])
def test_a_file_that_holds_no_token_stops_the_start_with_a_sentence(tmp_path, content):
    (tmp_path / "admin.token").write_bytes(content)
    with pytest.raises(StartError, match=r"admin\.token: holds no token; delete the file"):
        load_or_create_token(tmp_path, None)


def test_a_folder_that_is_not_there_stops_the_start_with_a_sentence(tmp_path):
    with pytest.raises(StartError, match="cannot be kept there: No such file or directory"):
        load_or_create_token(tmp_path / "gone", None)


def test_the_token_does_not_show_in_its_representation(tmp_path):
    made = load_or_create_token(tmp_path, None)
    assert made.token not in repr(made)
