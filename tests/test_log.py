"""Logs that people read on a terminal and programs read elsewhere, without secrets and without forged lines."""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog

from servmon import log
from servmon.errors import StartError
from servmon.log.repeats import BURST, WINDOW_SECONDS
from servmon.tasks import cancel, spawn
from tests.fix_servers import settled


class Clock:
    """Stands still until told."""

    def __init__(self):
        self.at = 0.0

    def monotonic(self):
        return self.at

    def advance(self, seconds):
        self.at += seconds


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_left_as_it_was():
    root = logging.getLogger()
    level = root.level
    yield
    log._install(None, level)
    logging.captureWarnings(capture=False)
    for name in log._QUIET:
        logging.getLogger(name).setLevel(logging.NOTSET)
    structlog.reset_defaults()


@pytest.fixture
def records():
    """Configure JSON logs and read back what was written."""
    stream = io.StringIO()

    def read():
        return [json.loads(line) for line in stream.getvalue().splitlines()]

    log.configure("info", "json", None, stream=stream)
    return read


@pytest.fixture
def clock(records):
    """The clock of what was configured last."""
    moved = Clock()
    (gate,) = log._gates()
    gate.repeats._clock = moved
    return moved


def raised(message: str) -> BaseException:
    password = "planted-local"  # noqa: F841 - it is here to be left out of the traceback
    try:
        raise ValueError(message)  # noqa: TRY301 - only a raised error has a traceback
    except ValueError as error:
        return error


def test_off_a_terminal_each_event_is_one_json_object_with_a_utc_time(records):
    structlog.get_logger("servmon.x").info("outage declared", endpoint_id="web", after_s=3)
    (record,) = records()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", record.pop("timestamp"))
    assert record == {
        "event": "outage declared", "endpoint_id": "web", "after_s": 3, "level": "info", "logger": "servmon.x"
    }  # fmt: skip


def test_the_standard_librarys_logs_come_the_same_way(records):
    logging.getLogger("lib").warning("%d of %s", 3, "four")
    (record,) = records()
    assert (record["event"], record["level"], record["logger"]) == ("3 of four", "warning", "lib")
    assert record["timestamp"].endswith("Z")


def test_python_warnings_come_the_same_way(records):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=False)
        logging.captureWarnings(capture=True)
        warnings.warn("careful", UserWarning, stacklevel=1)
    (record,) = records()
    assert record["logger"] == "py.warnings"
    assert "careful" in record["event"]


def test_on_a_terminal_it_is_readable_and_in_colour():
    stream = Terminal()
    log.configure("info", "auto", None, stream=stream)
    structlog.get_logger("x").info("hello", who="me")
    assert "\x1b[" in stream.getvalue()
    assert "hello" in stream.getvalue()


def test_readable_off_a_terminal_has_no_colours():
    stream = io.StringIO()
    log.configure("info", "console", None, stream=stream)
    structlog.get_logger("x").info("hello", who="me")
    assert "\x1b" not in stream.getvalue()
    assert re.search(r"Z \[info +\] hello +\[x\] who=me\n", stream.getvalue())


def test_json_may_be_had_on_a_terminal_too():
    stream = Terminal()
    log.configure("info", "json", None, stream=stream)
    structlog.get_logger("x").info("hello")
    assert json.loads(stream.getvalue())["event"] == "hello"


def test_the_level_holds_and_may_be_changed_while_running(records):
    ours, theirs = structlog.get_logger("x"), logging.getLogger("lib")
    ours.debug("no")
    theirs.debug("no")
    assert records() == []
    stream = io.StringIO()
    log.configure("debug", "json", None, stream=stream)
    ours.debug("yes")
    theirs.debug("yes")
    assert len(stream.getvalue().splitlines()) == 2
    assert records() == []


def test_a_second_configuration_leaves_other_handlers_alone(records):
    other = logging.NullHandler()
    logging.getLogger().addHandler(other)
    log.configure("info", "json", None, stream=io.StringIO())
    assert other in logging.getLogger().handlers
    assert sum(isinstance(handler, log._Gate) for handler in logging.getLogger().handlers) == 1
    logging.getLogger().removeHandler(other)


def test_request_logs_of_the_web_server_are_off(records):
    logging.getLogger("aiohttp.access").critical("GET /")
    logging.getLogger("asyncio").info("Using selector")
    assert records() == []


def test_a_file_gets_json_and_survives_being_rotated_away(tmp_path):
    file = tmp_path / "servmon.log"
    log.configure("info", "auto", file, stream=Terminal())
    structlog.get_logger("x").info("one")
    file.rename(tmp_path / "servmon.log.1")
    structlog.get_logger("x").info("two")
    assert json.loads((tmp_path / "servmon.log.1").read_text())["event"] == "one"
    assert json.loads(file.read_text())["event"] == "two"


def test_a_file_follows_an_asked_for_console_format_without_colours(tmp_path):
    file = tmp_path / "servmon.log"
    log.configure("info", "console", file, stream=Terminal())
    structlog.get_logger("x").info("one")
    assert "\x1b" not in file.read_text()
    assert "one" in file.read_text()


def test_a_file_that_cannot_be_written_stops_the_start_with_a_sentence(tmp_path):
    with pytest.raises(StartError, match=r"log\.file: .*none/x\.log cannot be written: No such file or directory"):
        log.configure("info", "json", tmp_path / "none" / "x.log")


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_an_exception_is_shown_without_local_variables(fmt):
    stream = io.StringIO()
    log.configure("info", fmt, None, stream=stream)
    structlog.get_logger("x").error("failed", exc_info=raised("broken"))
    logging.getLogger("lib").error("failed", exc_info=raised("broken"))
    text = stream.getvalue()
    assert text.count("ValueError: broken") == 2
    assert "planted-local" not in text


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_a_planted_secret_is_in_no_log(fmt):
    stream = io.StringIO()
    log.configure("debug", fmt, None, stream=stream)
    dsn = "postgresql://servmon:plan/ted@db.example/servmon"
    ours = structlog.get_logger("x")
    ours.info(
        "a", token="planted", api_key=12345678, headers={"Authorization": "Bearer planted", "X-Api-Key": "planted"}
    )
    ours.info("b", options=[{"smtp_password": "planted"}], client_secret="planted", url="https://u:planted@h/x")
    ours.info(f"cannot reach {dsn}", dsn=dsn)
    ours.error("d", exc_info=raised(f"{dsn} refused; Authorization: Bearer planted"))
    logging.getLogger("lib").error("host=h password='plan ted' user=u token=planted&x=1")
    text = stream.getvalue()
    for secret in ("planted", "plan/ted", "plan ted", "12345678"):
        assert secret not in text
    assert "db.example" in text


def test_what_only_looks_like_a_secret_is_shown(records):
    structlog.get_logger("x").info("see", token_file="/d/admin.token", url="http://h:80/a?mail=a@b", token=None)
    (record,) = records()
    assert record["token_file"] == "/d/admin.token"
    assert record["url"] == "http://h:80/a?mail=a@b"
    assert record["token"] is None


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_a_banner_can_neither_move_the_cursor_nor_forge_a_line(fmt):
    stream = io.StringIO()
    log.configure("info", fmt, None, stream=stream)
    evil = "hi\r\n2026-01-01T00:00:00Z [info] all is well\x1b[2J\x9b2J\u2028\u202e\ud800"
    structlog.get_logger("x").info(evil, banner=evil, details={evil: [evil]})
    structlog.get_logger("x").error("failed", exc_info=raised(evil))
    logging.getLogger("lib").warning(evil)
    text = stream.getvalue()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u202e\ud800]", text)
    assert not re.search(r"^2026-01-01", text, re.MULTILINE)
    if fmt == "json":
        decoded = [json.loads(line) for line in text.splitlines()]
        assert [record["level"] for record in decoded] == ["info", "error", "warning"]
        assert not any("\x1b" in str(value) for record in decoded for value in record.values())


def test_every_value_has_a_form_in_json(records):
    deep: dict = {}
    deep["self"] = deep
    structlog.get_logger("x").info(
        "odd",
        number=float("nan"),
        at=datetime(2026, 1, 2, 3, tzinfo=UTC),
        raw=b"\x00",
        kinds={1},
        deep=deep,
        thing=object,
    )
    (record,) = records()
    assert record["number"] == "nan"
    assert record["at"] == "2026-01-02T03:00:00.000000Z"
    assert record["raw"] == "b'\\x00'"


def test_what_is_said_again_and_again_is_written_a_few_times_and_then_counted(records, clock):
    for number in range(BURST + 57):
        structlog.get_logger("x").warning("Postgres went away", path=f"/{number}")
    structlog.get_logger("x").info("Postgres went away")
    assert len(records()) == BURST + 1
    clock.advance(WINDOW_SECONDS)
    structlog.get_logger("y").info("something else")
    assert [one["event"] for one in records()[BURST + 1 :]] == ["… 57 more: Postgres went away", "something else"]
    assert (records()[-2]["level"], records()[-2]["logger"]) == ("warning", "x")


def test_after_the_window_the_next_ones_are_written_again_and_what_differs_is_never_held_back(records, clock):
    for _ in range(3):
        for _ in range(BURST):
            logging.getLogger("lib").error("at %d %% of %s", 3, "all")
        clock.advance(WINDOW_SECONDS)
    for number in range(BURST + 3):
        structlog.get_logger("x").warning(f"another {number}")
    assert len(records()) == 4 * BURST + 3


async def test_the_count_is_said_even_where_nothing_else_is_and_at_the_end(records, clock, monkeypatch):
    monkeypatch.setattr(log, "COUNT_SECONDS", 0)
    counting = spawn(log.count_repeats(), name="counting")
    for _ in range(2):
        for _ in range(BURST + 1):
            logging.getLogger("lib").error("at %d %%", 3)
        clock.advance(WINDOW_SECONDS)
        await settled(lambda: records()[-1]["event"] == "… 1 more: at %d %%")
    await cancel(counting)
    for _ in range(BURST + 5):
        logging.getLogger("lib").error("once more")
    log._install(None, logging.INFO)
    assert records()[-1]["event"] == "… 5 more: once more"


def test_at_debug_every_line_is_written(clock):
    stream = io.StringIO()
    log.configure("debug", "json", None, stream=stream)
    assert log.shows_checks()
    for _ in range(2 * BURST):
        structlog.get_logger("x").debug("checked")
    assert len(stream.getvalue().splitlines()) == 2 * BURST
    log.configure("info", "json", None, stream=stream)
    assert not log.shows_checks()


def test_told_to_reopen_the_file_it_writes_into_whatever_has_its_name(tmp_path):
    file = tmp_path / "servmon.log"
    log.configure("info", "json", file, stream=io.StringIO())
    structlog.get_logger("x").info("one")
    file.rename(tmp_path / "servmon.log.1")
    log.reopen()
    log.reopen()
    structlog.get_logger("x").info("two")
    assert json.loads(file.read_text())["event"] == "two"


def test_a_log_folder_that_vanishes_is_said_once_and_stops_nobody(tmp_path, capsys):
    folder = tmp_path / "logs"
    folder.mkdir()
    file = folder / "servmon.log"
    log.configure("info", "json", file, stream=io.StringIO())
    file.unlink()
    folder.rmdir()
    for _ in range(3):
        structlog.get_logger("x").info("lost")
    assert capsys.readouterr().err == f"log.file: {file} cannot be written: No such file or directory\n"
    folder.mkdir()
    structlog.get_logger("x").info("back")
    structlog.get_logger("x").info("and well")
    assert [json.loads(line)["event"] for line in file.read_text().splitlines()] == ["back", "and well"]


def test_a_full_disk_is_said_once_and_stops_nobody(capsys):
    log.configure("info", "json", Path("/dev/full"), stream=io.StringIO())
    for _ in range(3):
        structlog.get_logger("x").info("lost")
    assert capsys.readouterr().err == "log.file: /dev/full cannot be written: No space left on device\n"


@pytest.mark.parametrize("secret", ["hunter2-plain", 'qu"o\\te', "a.b*c+d(e"])
def test_a_secret_that_is_known_appears_in_no_log_wherever_it_stands(secret):
    stream = io.StringIO()
    log.configure("debug", "json", None, stream=stream)
    log.hide("test", [secret, "shrt"])
    structlog.get_logger("x").info(f"cannot reach https://hooks.example/{secret}", seen=[secret, {"a": (secret,)}])
    structlog.get_logger("x").error("d", exc_info=raised(f"GET /{secret} failed: {[secret]}"))
    logging.getLogger("lib").error("payload %s and %s, shrt", secret, json.dumps(secret))
    log.hide("test", [])
    assert secret not in stream.getvalue()
    assert json.dumps(secret)[1:-1] not in stream.getvalue()
    assert "hooks.example/***" in stream.getvalue()
    assert ", shrt" in stream.getvalue()
    assert log.masked(secret) == secret
