"""Our HTTP client and aiohttp's before the same odd servers: both must come to the same verdict.

aiohttp's client reads every byte of these answers in its own way; where ours differs, ``DIFFERENCES`` says why.
"""

from __future__ import annotations

import asyncio
import gzip
import random
import re
import zlib
from collections.abc import Callable
from contextlib import suppress

import aiohttp
import pytest

from servmon.probes.base import ProbeFailed
from servmon.probes.http_answer import HttpAnswer, Wanted
from tests.fix_servers import check_once, closes_at_once, greets, is_silent, resets, says

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def _length(body: bytes, more: bytes = b"") -> bytes:
    return OK + more + b"Content-Length: " + str(len(body)).encode() + b"\r\n\r\n" + body


ANSWERS: dict[str, bytes] = {
    "length": _length(b"welcome"),
    "no body": _length(b""),
    "chunked": CHUNKED + b"7\r\nwelcome\r\n0\r\n\r\n",
    "chunks in capitals with extensions": CHUNKED + b"07;a=b\r\nwelcome\r\n0\r\n\r\n",
    "chunks and trailers": CHUNKED + b"3\r\nwel\r\n4\r\ncome\r\n0\r\nX-Sum: 1\r\n\r\n",
    "until closed": OK + b"\r\nwelcome",
    "until closed, said so": OK + b"Connection: close\r\n\r\nwelcome",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nwelcome",
    "HTTP/1.0 with a length": b"HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\nwelcome",
    "HTTP/1.0 kept alive": b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 7\r\n\r\nwelcome",
    "100 before": b"HTTP/1.1 100 Continue\r\n\r\n" + _length(b"welcome"),
    "two interim answers": b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"
    + _length(b"welcome"),
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 7\r\n\r\nwelcome",
    "an odd reason": b"HTTP/1.1 200 \xc3\xa4 or b\r\nContent-Length: 7\r\n\r\nwelcome",
    "204": b"HTTP/1.1 204 No Content\r\n\r\n",
    "204 that has a length": b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
    "205": b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
    "304": b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n",
    "404": b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    "500 cut off": b"HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\nshort",
    "599": b"HTTP/1.1 599 Odd\r\nContent-Length: 0\r\n\r\n",
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 7\n\nwelcome",
    "an empty line first": b"\r\n" + _length(b"welcome"),
    "many headers": _length(b"welcome", b"".join(b"X-%d: y\r\n" % n for n in range(90))),
    "a header without a value": _length(b"welcome", b"X-Empty:\r\n"),
    "a header of bytes": _length(b"welcome", b"X-Odd: \xff\xfe\r\n"),
    "the same length twice": OK + b"Content-Length: 7\r\nContent-Length: 7\r\n\r\nwelcome",
    "two lengths": OK + b"Content-Length: 7\r\nContent-Length: 5\r\n\r\nwelcome",
    "length and chunks": OK + b"Content-Length: 7\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nwelcome\r\n0\r\n\r\n",
    "folded header": OK + b"X: a\r\n b\r\nContent-Length: 7\r\n\r\nwelcome",
    "space before the colon": OK + b"X : a\r\nContent-Length: 7\r\n\r\nwelcome",
    "no colon": OK + b"nonsense\r\nContent-Length: 7\r\n\r\nwelcome",
    "negative length": OK + b"Content-Length: -5\r\n\r\n",
    "length in words": OK + b"Content-Length: seven\r\n\r\nwelcome",
    "huge length": OK + b"Content-Length: 99999999999999999999999\r\n\r\nwelcome",
    "truncated length": OK + b"Content-Length: 10\r\n\r\nshort",
    "bad chunk size": CHUNKED + b"zz\r\nwelcome\r\n0\r\n\r\n",
    "bad chunk": CHUNKED + b"5\r\nwelcome\r\n0\r\n\r\n",
    "huge chunk size": CHUNKED + b"fffffffffffffffff\r\nwelcome",
    "truncated chunks": CHUNKED + b"7\r\nwelcome\r\n",
    "chunk cut in the middle": CHUNKED + b"7\r\nwel",
    "bad status": b"HTTP/1.1 abc OK\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "no version": b"HTTP 200 OK\r\n\r\n",
    "cut in the status line": b"HTTP/1.1 20",
    "cut in the head": OK + b"Content-Len",
    "cut after the head": OK + b"Content-Length: 7\r\n\r\n",
    "head and no more": OK + b"\r\n",
    "nothing": b"",
    "garbage": bytes(range(256)),
    "NUL bytes": b"\0" * 300,
    "HTML alone": b"<html>welcome</html>",
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "SMTP": b"220 mail.example ESMTP\r\n\r\n",
    "a TLS alert": b"\x15\x03\x01\0\2\2\x28",
    "HTTP/2 settings": b"\0\0\0\4\0\0\0\0\0",
    "2 MB header": OK + b"X: " + b"x" * 2_000_000 + b"\r\n\r\n",
    "endless header names": OK + b"x" * 300_000,
    "gzip": _length(gzip.compress(b"welcome", mtime=0), b"Content-Encoding: gzip\r\n"),
    "deflate": _length(zlib.compress(b"welcome"), b"Content-Encoding: deflate\r\n"),
    "deflate without its head": _length(zlib.compress(b"welcome")[2:-4], b"Content-Encoding: deflate\r\n"),
    "no gzip after all": _length(b"welcome, in plain words", b"Content-Encoding: gzip\r\n"),
    "identity": _length(b"welcome", b"Content-Encoding: identity\r\n"),
    "a large body": _length(b"welcome" * 20_000),
    "redirect to nowhere": b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
    "redirect to a file": b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\nContent-Length: 0\r\n\r\n",
    "redirect to itself": b"HTTP/1.1 301 Moved\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
    "more than announced": _length(b"welcome") + b"and more",
    "two answers": _length(b"welcome") * 2,
    "switching protocols": b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    "ICY": b"ICY 200 OK\r\n\r\nwelcome",
    "unknown encoding": _length(b"welcome", b"Content-Encoding: rot13\r\n"),
    "gzip and more": _length(gzip.compress(b"welcome", mtime=0) + b"\0\0", b"Content-Encoding: gzip\r\n"),
    "NUL in a header": _length(b"welcome", b"X: a\0b\r\n"),
    "gzip cut off": _length(gzip.compress(b"welcome " * 9, mtime=0)[:-12], b"Content-Encoding: gzip\r\n"),
    "RTSP": b"RTSP/1.0 200 OK\r\nContent-Length: 7\r\n\r\nwelcome",
    "HTTP/2.0 in words": b"HTTP/2.0 200 OK\r\nContent-Length: 7\r\n\r\nwelcome",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\nContent-Length: 7\r\n\r\nwelcome",
    "lower case": b"http/1.1 200 OK\r\nContent-Length: 7\r\n\r\nwelcome",
}
DIFFERENCES = {
    "gzip and more": "up: what stands behind the end is passed over, as browsers do",
    "no gzip after all": "up where no text is wanted: decoding costs time, and only who reads the text needs it",
    "more than announced": "up: what stands behind the announced end is nobody's answer, as curl and browsers see it",
    "NUL in a header": "up: it is none of the headers that count",
    "gzip cut off": "down where its text is wanted: half of it is missing",
    "RTSP": "down: another protocol of HTTP's family is not what was asked for",
}
BEHAVIOURS = {
    "silent": is_silent,
    "closes at once": closes_at_once,
    "resets": resets,
    "greets and waits": greets(b"220 ready\r\n"),
    "resets in the body": says(OK + b"Content-Length: 50\r\n\r\nx", then=resets),
}


async def _ours(network, url: str, seconds: float, **fields) -> str:
    try:
        await check_once(network, url, seconds, **fields)
    except TimeoutError:
        return "timeout"
    except ProbeFailed:
        return "down"
    return "up"


async def _theirs(url: str, seconds: float, pattern: str | None = None) -> str:
    timeout = aiohttp.ClientTimeout(total=seconds)
    connector = aiohttp.TCPConnector(force_close=True)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.get(url, max_redirects=6) as answer,
        ):
            if not 200 <= answer.status <= 299:
                return "down"
            text = await answer.text(errors="replace")
            return "up" if pattern is None or pattern in text else "down"
    except TimeoutError:
        return "timeout"
    except (aiohttp.ClientError, OSError, ValueError):
        return "down"


@pytest.mark.parametrize("case", ANSWERS)
async def test_the_verdict_is_that_of_aiohttp(network, tcp_server, case):
    server = await tcp_server(says(ANSWERS[case]))
    url = f"http://127.0.0.1:{server.port}/"
    ours = [await _ours(network, url, 5, expected_response_pattern=pattern) for pattern in (None, "welcome")]
    theirs = [await _theirs(url, 5, pattern) for pattern in (None, "welcome")]
    assert (ours == theirs) is (case not in DIFFERENCES), (ours, theirs, DIFFERENCES.get(case))


@pytest.mark.parametrize("case", BEHAVIOURS)
async def test_the_verdict_on_a_misbehaving_server_is_that_of_aiohttp(network, tcp_server, case):
    server = await tcp_server(BEHAVIOURS[case])
    url = f"http://127.0.0.1:{server.port}/"
    assert await _ours(network, url, 0.3) == await _theirs(url, 0.3)


def _mutated(rng: random.Random) -> bytes:
    """One of the answers with some bytes changed, left out, doubled, or cut off."""
    answer = bytearray(rng.choice([one for one in ANSWERS.values() if len(one) < 1000]))
    for _ in range(rng.randint(1, 3)):
        if not answer:
            break
        at = rng.randrange(len(answer))
        match rng.randrange(5):
            case 0:
                answer[at] = rng.randrange(256)
            case 1:
                del answer[at]
            case 2:
                answer[at:at] = answer[at : at + 4]
            case 3:
                del answer[at:]
            case _:
                answer[at:at] = rng.choice([b"\r\n", b"\n", b":", b" ", b"0", b";", b"\0", b"\xff"])
    return bytes(answer)


async def _is_explained(url: str, ours: str, answer: bytes, cut: Callable[[bytes], None]) -> bool:
    """Whether only the differences named above set the verdicts apart."""
    if ours == "down":
        encoding = re.search(rb"(?i)\ncontent-encoding: *([^\r\n]*(?:\r?\n[ \t][^\r\n]*)*)", answer)
        is_unread = encoding is not None and (b"," in encoding[1] or encoding[1].lower() in {b"br", b"zstd"})
        return answer.lstrip().startswith((b"RTSP", b"ICE/")) or is_unread or gzip_is_cut_off(answer)
    if re.search(rb"\0(?s:.*)\n\r?\n", answer) or is_more_than_was_compressed(answer):
        return True
    told: list[ProbeFailed | None] = []
    needed = HttpAnswer("", Wanted(((200, 299),), keep=True, limit=1 << 20), told.append)
    for number, octet in enumerate(answer):
        needed.hear(bytes([octet]))
        if told:
            cut(answer[: number + 1])
            return await _theirs(url, 5) == "up"
    return False


def is_more_than_was_compressed(answer: bytes) -> bool:
    """aiohttp takes nothing of a compressed body behind whose end there is something."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"content-encoding" not in head.lower():
        return False
    for wbits in (zlib.MAX_WBITS | 32, -zlib.MAX_WBITS):
        decoder = zlib.decompressobj(wbits)
        with suppress(zlib.error):
            decoder.decompress(body)
            if decoder.unused_data:
                return True
    return False


def gzip_is_cut_off(answer: bytes) -> bool:
    """aiohttp takes half a gzip body for a whole one."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if b"gzip" not in head.lower():
        return False
    decoder = zlib.decompressobj(zlib.MAX_WBITS | 32)
    with suppress(zlib.error):
        decoder.decompress(body)
        return not decoder.eof
    return False


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.deep)])
async def test_the_verdict_on_random_answers_is_that_of_aiohttp(network, tcp_server, seed):
    rng, answer = random.Random(seed), b""

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for octets in [answer] if rng.random() < 0.5 else [answer[at : at + 7] for at in range(0, len(answer), 7)]:
            writer.write(octets)
            await writer.drain()

    def send(octets: bytes) -> None:
        nonlocal answer
        answer = octets

    server = await tcp_server(behave)
    url, differ = f"http://127.0.0.1:{server.port}/", []
    for _ in range(150 if seed == 1 else 5000):
        send(asked := _mutated(rng))
        # A pattern that any text matches, so that bodies are decoded here too.
        ours, theirs = await _ours(network, url, 5, expected_response_pattern="^"), await _theirs(url, 5)
        if ours != theirs and not await _is_explained(url, ours, asked, send):
            differ.append((ours, theirs, asked))
    assert not differ
