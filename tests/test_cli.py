"""The command line as a user, or Nagios, calls it."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Sequence

import pytest

from servmon import __version__
from tests.fix_servers import greets


async def servmon(*arguments: str, answers: Sequence[str] = ()) -> tuple[int, str, str]:
    """Run a command; ``answers`` are the lines that it reads."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "servmon", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate("".join(f"{answer}\n" for answer in answers).encode())
    assert process.returncode is not None
    assert b"Traceback" not in err
    return process.returncode, out.decode(), err.decode()


async def test_up_is_exit_0_and_one_line_with_performance_data(web_server):
    server = await web_server()
    code, out, err = await servmon("check", server.url)
    assert (code, err) == (0, "")
    assert re.fullmatch(r"HTTP OK - 200 in \d+(\.\d\d)? ms \| time=0\.\d{3,6}s;;;0;5\n", out)


async def test_down_is_exit_2_and_says_why(closed_port):
    code, out, _ = await servmon("check", f"127.0.0.1:{closed_port}", "--protocol", "tcp", "--option", "retries=0")
    assert code == 2
    assert out == f"TCP CRITICAL - 127.0.0.1:{closed_port} refused the connection\n"


async def test_what_must_not_answer_is_exit_0_while_it_does_not(closed_port):
    code, out, _ = await servmon("check", f"tcp://127.0.0.1:{closed_port}", "-o", "inverted=true")
    assert code == 0
    assert out == f"TCP OK - silent, as it must be: 127.0.0.1:{closed_port} refused the connection\n"


async def test_degraded_is_exit_1(web_server):
    server = await web_server()
    code, out, _ = await servmon("check", server.url, "-o", "degraded_threshold_ms=0.0001")
    assert code == 1
    assert out.startswith("HTTP WARNING - slow: ")


async def test_json_is_one_object_with_at_least_the_promised_fields(closed_port):
    code, out, _ = await servmon("check", f"tcp://127.0.0.1:{closed_port}", "--json", "-o", "retries=1")
    found = json.loads(out)
    assert code == 2
    assert found["status"] == "DOWN"
    assert found["response_time"] is None
    assert found["failure_kind"] == "refused"
    assert found["attempts"] == 2
    assert "refused" in found["error_message"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "Missing argument"),
        (("--nonsense",), "No such option"),
        (("127.0.0.1:1",), "protocol: is missing"),
        (("tcp://127.0.0.1:1", "-o", "timeout"), "is not NAME=VALUE, as in timeout=2"),
        (("tcp://127.0.0.1:1", "-o", "timeout=-3"), "timeout: must be more than 0, not -3"),
        (("tcp://127.0.0.1:1", "-o", "timeot=3"), "timeot: is no field of an endpoint and no option of TCP; did you"),
        (("tcp://127.0.0.1:1", "-o", "id=3"), "id is given by the target itself"),
        (("http://127.0.0.1", "--protocol", "TCP"), "protocol: TCP contradicts the url"),
    ],
)
async def test_a_slip_is_exit_3_and_a_sentence_never_2_which_means_down(arguments, sentence):
    code, out, err = await servmon("check", *arguments)
    assert code == 3
    assert out == ""
    assert sentence in " ".join(err.split())


async def test_a_number_is_text_where_only_text_will_do(tcp_server):
    server = await tcp_server(greets(b"5"))
    code, _, err = await servmon(
        "check",
        f"http://127.0.0.1:{server.port}",
        "-o",
        "expected_response_pattern=5",
        "-o",
        "name=7",
        "-o",
        "retries=0",
    )
    assert err == ""
    assert code == 2  # the question was understood; what answers is no web server


async def test_plug_in_output_has_no_second_bar(web_server):
    server = await web_server()
    code, out, _ = await servmon("check", server.url, "-o", "expected_response_pattern=a|b|nowhere", "-o", "retries=0")
    assert code == 2
    assert out.count("|") <= 1


async def test_the_version_and_the_help_go_to_stdout():
    assert await servmon("--version") == (0, f"{__version__}\n", "")
    code, out, _ = await servmon("--help")
    assert code == 0
    assert "check" in out


async def test_config_check_names_every_mistake_with_its_line_and_exits_2(tmp_path):
    file = tmp_path / "servmon.toml"
    file.write_text('[service]\ncheck_interval = 0\ncolour = 1\n[[endpoints]]\nid = "a"\n', encoding="utf-8")
    code, out, err = await servmon("config", "check", "--config", str(file))
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert f"{file}:2: service.check_interval: must be at least 1, not 0" in lines
    assert any(line.startswith(f"{file}:3: service.colour: unknown key") for line in lines)
    assert any(line.startswith(f"{file}:4: endpoints") for line in lines)


async def test_run_with_a_missing_file_is_one_sentence_and_exit_2(tmp_path):
    code, _, err = await servmon("run", "--config", str(tmp_path / "not-there.toml"))
    assert code == 2
    assert err == f"{tmp_path}/not-there.toml: cannot be read: No such file or directory\n"


async def test_an_unreachable_database_is_one_sentence_without_the_password(tmp_path, closed_port):
    file = tmp_path / "servmon.toml"
    file.write_text(
        f'[servmon]\ndata_dir = "{tmp_path}"\n[database]\n'
        f'url = "postgresql://servmon:hunter2@127.0.0.1:{closed_port}/servmon"\n',
        encoding="utf-8",
    )
    code, _, err = await servmon("db", "migrate", "--config", str(file))
    assert code == 1
    assert "hunter2" not in err
    assert f"127.0.0.1:{closed_port}" in err


async def test_the_selftest_passes():
    code, out, err = await servmon("selftest")
    assert (code, err) == (0, ""), out
    assert out.splitlines()[-1] == "All as it should be."
