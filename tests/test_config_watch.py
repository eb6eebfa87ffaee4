"""A change of the configuration file is seen once, and only when it has settled."""

from __future__ import annotations

import asyncio
import os

import pytest

from servmon.settings.watch import ConfigWatch


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text("a = 1\n")
    return path


def replace(path, text):
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def test_an_unchanged_file_is_never_reported(path):
    watch = ConfigWatch(path)
    assert not any(watch.poll() for _ in range(5))


def test_a_change_is_reported_once_after_two_like_looks(path):
    watch = ConfigWatch(path)
    path.write_text("a = 22\n")
    assert [watch.poll() for _ in range(5)] == [False, True, False, False, False]


def test_a_file_being_written_is_left_alone_until_it_rests(path):
    watch = ConfigWatch(path)
    looks = []
    for size in range(2, 6):
        path.write_text("a" * size)
        looks.append(watch.poll())
    assert looks == [False] * 4
    assert watch.poll()


def test_an_atomic_rename_is_a_change_even_at_the_same_size_and_time(path):
    watch = ConfigWatch(path)
    before = path.stat()
    replace(path, "a = 2\n")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [watch.poll(), watch.poll()] == [False, True]


def test_a_switched_symbolic_link_is_a_change(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.toml").write_text(name)
    data = tmp_path / "..data"
    data.symlink_to("one")
    (tmp_path / "config.toml").symlink_to("..data/config.toml")
    watch = ConfigWatch(tmp_path / "config.toml")
    new = tmp_path / "..new"
    new.symlink_to("two")
    new.replace(data)
    assert [watch.poll(), watch.poll(), watch.poll()] == [False, True, False]


def test_a_removed_file_is_no_change_until_it_is_back(path):
    watch = ConfigWatch(path)
    path.unlink()
    assert not any(watch.poll() for _ in range(3))
    path.write_text("a = 3333\n")
    assert [watch.poll(), watch.poll(), watch.poll()] == [False, True, False]


def test_a_file_moved_away_and_back_is_no_change(path, tmp_path):
    watch = ConfigWatch(path)
    path.rename(tmp_path / "away")
    assert not watch.poll()
    (tmp_path / "away").rename(path)
    assert not any(watch.poll() for _ in range(3))


def test_a_change_that_is_taken_back_before_it_settles_is_none(path):
    watch = ConfigWatch(path)
    original = path.stat()
    path.write_text("b = 1\n")
    os.utime(path, ns=(1, 1))
    assert not watch.poll()
    path.write_text("a = 1\n")
    os.utime(path, ns=(original.st_atime_ns, original.st_mtime_ns))
    assert not any(watch.poll() for _ in range(3))


def test_a_file_that_was_not_there_at_first_is_reported_when_it_comes(tmp_path):
    watch = ConfigWatch(tmp_path / "later.toml")
    assert not watch.poll()
    (tmp_path / "later.toml").write_text("")
    assert [watch.poll(), watch.poll()] == [False, True]


def test_a_second_change_while_the_first_is_read_is_reported_too(path):
    watch = ConfigWatch(path)
    replace(path, "b")
    assert [watch.poll(), watch.poll()] == [False, True]
    replace(path, "c")
    assert [watch.poll(), watch.poll()] == [False, True]


async def test_waiting_for_a_change_polls_every_two_seconds(path):
    slept = []

    async def sleep(seconds):
        slept.append(seconds)
        if len(slept) == 3:
            path.write_text("a = 4444\n")
        await asyncio.sleep(0)

    await ConfigWatch(path, sleep=sleep).changed()
    assert slept == [2.0] * 4
