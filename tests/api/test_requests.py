"""What a request may bring: bodies and query parameters, the hostile ones too."""

from __future__ import annotations

import base64
import json
import time
from io import BytesIO

JSON = {"Content-Type": "application/json"}


async def post_raw(api, data, **headers: str):
    return await api.post("/services/", data=data, headers={**JSON, **headers})


NO_JSON = [
    b"",
    b"{",
    b"{} {}",
    b"\xff",
    b"\xef\xbb\xbf{}",
    b'{"timeout": NaN}',
    b'{"timeout": -Infinity}',
    b'{"timeout": 1e999}',
    b'{"timeout": ' + b"9" * 5000 + b"}",
    b"{'id': 'a'}",
    b'{"id": "a\nb"}',
]
WRONG_AT = {
    b"[]": "",
    b'"text"': "",
    b"null": "",
    b'{"id": "a", "id": "b"}': "id",
    b'{"name": "a\\u0000b"}': "name",
    b'{"name": "\\ud800"}': "name",
    b'{"tags": ["a", "b\\u0000"]}': "tags.1",
    b'{"a\\u0000b": 1}': "a\\x00b",
    b'{"a":' * 40 + b"1" + b"}" * 40: "",
    b'{"a":' + b"[" * 500_000: "",
    b'{"\\"[[": ' + b"[" * 33 + b"]" * 33 + b"}": "",
}


async def test_a_body_that_is_no_json_is_400(door):
    statuses = {body: (await post_raw(door, body)).status for body in NO_JSON}
    assert statuses == dict.fromkeys(NO_JSON, 400)


async def test_json_that_cannot_be_meant_is_422_and_says_where(door):
    for body, field in WRONG_AT.items():
        reply = await post_raw(door, body)
        assert (reply.status, reply.wrong_fields) == (422, [field]), body[:50]


async def test_brackets_inside_text_are_no_depth(api):
    reply = await post_raw(api, json.dumps({"url": "tcp://192.0.2.1:1", "name": '[{\\"' * 50}).encode())
    assert reply.status == 201, reply.json


async def test_many_repeated_names_are_refused_in_no_time(door):
    body = b"{" + b",".join([b'"a%d":1,"a%d":1' % (n, n) for n in range(30_000)]) + b"}"
    began = time.process_time()
    reply = await post_raw(door, body)
    assert time.process_time() - began < 3
    assert (reply.status, len(reply.wrong_fields)) == (422, 100)


async def test_a_body_above_one_mebibyte_is_413(door):
    assert (await post_raw(door, BytesIO(b'{"name": "' + b"x" * 1024 * 1024 + b'"}'))).status == 413


async def test_a_body_that_is_not_said_to_be_json_is_415(door):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json; charset=utf-16"):
        assert (await post_raw(door, b"{}", **{"Content-Type": kind})).status == 415, kind


async def test_every_kind_of_json_is_accepted(api):
    for kind in ("application/json; charset=UTF-8", "application/merge-patch+json"):
        reply = await post_raw(api, b'{"url": "tcp://192.0.2.1:1"}', **{"Content-Type": kind})
        assert reply.status == 201, kind


async def test_a_limit_outside_1_to_1000_is_422(door):
    for limit in ("0", "-1", "1001", "x", "", "1.0", "1_0", "\u0661", "9" * 5000):
        reply = await door.get("/services/", params={"limit": limit})
        assert (reply.status, reply.wrong_fields) == (422, ["limit"]), limit


async def test_a_cursor_from_elsewhere_is_422(door):
    forged = [
        b"",
        b"null",
        b"{}",
        b"[1]",
        b'["a\\u0000"]',
        b'["b", "c"]',
        b'["2026-11-23T15:43:49Z", "x"]',
        b'["2026-11-23T15:43:49Z", 5]',
        b"[" * 2000,
        b"\xff",
    ]
    cursors = [base64.urlsafe_b64encode(key).decode() for key in forged] + ["%", "a", "é", "x" * 101]
    for path in ("/services/", "/services/a/history", "/outages/", "/outages/active", "/maintenance/"):
        for cursor in cursors:
            reply = await door.get(path, params={"cursor": cursor})
            assert (reply.status, reply.wrong_fields) == (422, ["cursor"]), (path, cursor[:50])


async def test_an_unknown_or_repeated_query_parameter_is_422(door):
    assert (await door.get("/services/?limt=5")).wrong_fields == ["limt"]
    assert (await door.get("/services/?limit=5&limit=6")).wrong_fields == ["limit"]
    assert (await door.get("/services/status/summary?x=1")).wrong_fields == ["x"]
