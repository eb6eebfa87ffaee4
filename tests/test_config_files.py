"""A configuration in several files: the folder beside the main one, templates, and what is kept of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from servmon.settings import SettingsError, load, load_or_last_good
from servmon.settings.beside import NICENESS, load_beside
from servmon.settings.kept import KEPT, keep, newest
from servmon.settings.watch import ConfigWatch
from servmon.tasks import spawn

NOW = datetime(2026, 11, 24, tzinfo=UTC)
QUIET = "[alert]\nnotification_channels = []\n"


def endpoint(name: str, *lines: str) -> str:
    return "\n".join(["[[endpoints]]", f'id = "{name}"', *lines, ""])


@pytest.fixture
def write(tmp_path):
    def write(**files: str):
        for name, text in files.items():
            path = tmp_path / ("servmon.toml" if name == "main" else f"conf.d/{name}.toml")
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path / "servmon.toml"

    return write


def problems(path) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(path, {})
    return caught.value.lines


def test_files_of_the_folder_add_endpoints_in_the_order_of_their_names(write):
    url = 'url = "tcp://192.0.2.1:1"'
    path = write(main=QUIET + endpoint("a", url), south=endpoint("c", url), north=endpoint("b", url))
    assert [one.id for one in load(path, {}).endpoints] == ["a", "b", "c"]


def test_a_mistake_in_the_folder_is_named_with_its_own_file_and_line(write, tmp_path):
    url = 'url = "tcp://192.0.2.1:1"'
    path = write(
        main=endpoint("a", url, "timeout = 0"), north=endpoint("b", url), south=endpoint("c", url, "retries = -1")
    )
    first, second = problems(path)
    assert first.startswith(f"{path}:4: endpoints[a].timeout: ")
    assert second.startswith(f"{tmp_path}/conf.d/south.toml:4: endpoints[c].retries: ")


def test_every_file_that_is_no_toml_is_named_at_once(write, tmp_path):
    path = write(main="[service", north="x = = 1", south=endpoint("c"))
    assert [line.split(": ")[0] for line in problems(path)] == [f"{path}:1", f"{tmp_path}/conf.d/north.toml:1"]


def test_an_id_twice_in_two_files_names_both_places(write, tmp_path):
    url = 'url = "tcp://192.0.2.1:1"'
    path = write(main=endpoint("a", url), north=endpoint("a", url))
    (line,) = problems(path)
    assert line == (
        f"{tmp_path}/conf.d/north.toml:2: endpoints[a].id: is already the id of the endpoint in {path}:2;"
        " every endpoint needs its own"
    )


def test_settings_have_one_place_the_main_file(write, tmp_path):
    path = write(main=QUIET, north="[service]\ncheck_interval = 5\n")
    (line,) = problems(path)
    assert line.startswith(f"{tmp_path}/conf.d/north.toml:1: service: belongs into the main file")


TEMPLATE = '[[templates]]\nname = "web"\nprotocol = "HTTPS"\ncheck_interval = 30\ntags = ["web"]\n'


def test_an_endpoint_takes_a_templates_fields_and_its_own_win(write):
    path = write(
        main=QUIET + TEMPLATE,
        north=endpoint("a", 'use = "web"', 'url = "https://a.example/"')
        + endpoint(
            "b", 'use = "web"', 'url = "https://b.example/"', "check_interval = 5", "timeout = 1", "retries = 1"
        ),
    )
    a, b = load(path, {}).endpoints
    assert (a.check_interval, a.tags, a.protocol) == (30, ("web",), "HTTPS")
    assert (b.check_interval, b.tags) == (5, ("web",))
    assert a.name == "a"


def test_a_templates_mistake_is_said_once_where_it_stands(write):
    path = write(
        main=TEMPLATE + "timeout = -1\n",
        north="".join(endpoint(f"e{n}", 'use = "web"', 'url = "https://a.example/"') for n in range(50)),
    )
    (line,) = problems(path)
    assert line == f"{path}:6: templates[web].timeout: must be more than 0, not -1"


@pytest.mark.parametrize(
    ("template", "use", "sentence"),
    [
        ('name = "web"', '"wep"', "there is no template 'wep'; was web meant?"),
        ('name = "web"', "3", "there is no template 3; write [[templates]] with this name"),
        ("", '"web"', 'templates.0: needs a name, such as name = "web"'),
        ('name = "web"\nid = "x"', '"web"', "templates.0.id: belongs to each endpoint, not to a template"),
    ],
)
def test_a_slip_around_templates_is_one_sentence(write, template, use, sentence):
    path = write(main=f"[[templates]]\n{template}\n" + endpoint("a", f"use = {use}", 'url = "tcp://192.0.2.1:1"'))
    assert any(sentence in line for line in problems(path))


def test_an_edit_in_the_folder_is_noticed_once_it_has_settled(write):
    path = write(main=QUIET, north="")
    watch = ConfigWatch(path)
    assert [watch.poll(), watch.poll()] == [False, False]
    write(north=endpoint("a", 'url = "tcp://192.0.2.1:1"'))
    assert [watch.poll(), watch.poll(), watch.poll()] == [False, True, False]
    (path.parent / "conf.d/north.toml").unlink()
    assert [watch.poll(), watch.poll(), watch.poll()] == [False, True, False]


def test_a_broken_file_gives_way_to_the_last_good_configuration_with_its_folder(write, tmp_path):
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    main = f'[servmon]\ndata_dir = "data"\n[log]\nfile = "servmon.log"\n{QUIET}'
    path = write(main=main, north=endpoint("a", 'url = "tcp://192.0.2.1:1"'))
    good = load(path, {})
    keep(good.texts, data_dir, NOW)
    write(main=main + "[service\n")
    last = load_or_last_good(path, {})
    assert [one.id for one in last.endpoints] == ["a"]
    assert last.path == path
    assert last.settings.log.file == tmp_path / "servmon.log"  # beside the original, not beside the copy
    assert last.broken[0].startswith(f"{path}:7: not valid TOML")


def test_with_nothing_kept_a_broken_file_is_an_error(write, tmp_path):
    with pytest.raises(SettingsError, match="not valid TOML"):
        load_or_last_good(write(main="[service"), {"SERVMON_DATA_DIR": str(tmp_path)})


def test_another_file_never_starts_what_was_kept_of_this_one(write, tmp_path):
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    path = write(main=f"{QUIET}# one text, two files\n")
    keep(load(path, {}).texts, data_dir, NOW)
    mistyped = path.with_name("servmno.toml")
    with pytest.raises(SettingsError, match="cannot be read: No such file or directory"):
        load_or_last_good(mistyped, {"SERVMON_DATA_DIR": str(data_dir)})
    path.rename(mistyped)
    keep(load(mistyped, {}).texts, data_dir, NOW + timedelta(hours=1))
    mistyped.unlink()
    assert load_or_last_good(mistyped, {"SERVMON_DATA_DIR": str(data_dir)}).broken


def test_what_is_kept_is_private_bounded_and_not_repeated(write, tmp_path):
    path = write(main=QUIET)
    for number in range(KEPT + 5):
        write(main=f"{QUIET}# edit {number}\n")
        for minute in range(2):
            keep(load(path, {}).texts, tmp_path, NOW + timedelta(hours=number, minutes=minute))
    kept = sorted((tmp_path / "configurations").iterdir())
    assert len(kept) == KEPT
    found = newest(tmp_path)
    assert found is not None
    assert found.file.read_text(encoding="utf-8").endswith(f"# edit {KEPT + 4}\n")
    assert found.origin == path
    assert (found.file.stat().st_mode & 0o777, kept[0].stat().st_mode & 0o777) == (0o600, 0o700)


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{threading.main_thread().native_id}/children").read_text().split())


async def test_a_file_is_read_beside_the_checks_only_when_they_leave_the_core_free(tmp_path):
    path = tmp_path / "servmon.toml"
    os.mkfifo(path)
    before = children()
    reading = spawn(load_beside(path), name="reading")
    child = None
    while child is None:  # until the child opens the file, the pipe cannot be opened for writing
        await asyncio.sleep(0.01)
        with contextlib.suppress(OSError):
            child = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    (pid,) = children() - before
    assert os.getpriority(os.PRIO_PROCESS, int(pid)) == NICENESS
    os.write(child, QUIET.encode())
    os.close(child)
    assert (await reading).number == 0


def test_a_folder_that_cannot_be_read_is_no_empty_one(tmp_path):
    path = tmp_path / "servmon.toml"
    path.write_text("", encoding="utf-8")
    (tmp_path / "conf.d").symlink_to("conf.d")  # nobody can read that, root neither
    with pytest.raises(SettingsError) as caught:
        load(path, {})
    assert caught.value.lines == (f"{tmp_path}/conf.d: cannot be read: Too many levels of symbolic links",)
    watch = ConfigWatch(path)
    (tmp_path / "conf.d").unlink()
    assert [watch.poll(), watch.poll(), watch.poll()] == [False, True, False]
