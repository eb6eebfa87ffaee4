"""The command line finds a servmon that listens on a unix socket by the same configuration as one on a port."""

from __future__ import annotations

import json

from servmon.api.app import build_app
from servmon.api.server import serve
from servmon.api.unix_socket import UnixPlace
from servmon.services.tokens import AccessToken, TokenBook
from tests.fix_api import TOKEN, services_on
from tests.fix_cli import command


async def test_commands_go_through_the_socket_that_the_configuration_names(connection, tmp_path):
    path = tmp_path / "api.sock"
    file = tmp_path / "servmon.toml"
    file.write_text(f"[api]\nsocket = {json.dumps(str(path))}\ntoken = {json.dumps(TOKEN)}\n", encoding="utf-8")
    app = build_app(services_on(connection), book=TokenBook([AccessToken.of("admin", TOKEN)]))
    server = await serve(app, None, 0, UnixPlace(path, 0o600))
    try:
        made = await command("services", "add", "shop", "tcp://192.0.2.1:1", "--config", str(file))
        assert made[0] == 0, made
        code, out, _ = await command("services", "list", "--config", str(file), "--json")
        assert (code, [one["id"] for one in json.loads(out)["items"]]) == (0, ["shop"])
    finally:
        await server.stop()
    code, _, said = await command("services", "list", "--config", str(file))
    assert code == 1
    assert f"no servmon answers at {path}" in said
