"""Requests are written and answers read as HTTP has them."""

from __future__ import annotations

import asyncio
import math

import pytest

from serving import Answer, connected, form, json_body, metric_in, request


def asked(answers):
    """What a server that says this answers, and what it was sent."""
    sent = []

    async def serve(reader, writer):
        sent.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answers)
        writer.close()
        await writer.wait_closed()

    async def ask():
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            host, port = server.sockets[0].getsockname()
            async with connected(f"http://{host}:{port}/", 1) as (connection,):
                return await connection.ask(request("GET", "/v1/items", {"key": "a/é", "k": None}))

    return asyncio.run(ask()), sent


def test_an_answer_is_its_status_and_its_body():
    answer, (sent,) = asked(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n[1]")
    assert answer == Answer(200, b"[1]")
    assert answer.json() == [1]
    assert sent.startswith(b"GET /v1/items?key=a%2F%C3%A9 HTTP/1.1\r\nHost: localhost\r\n")


def test_an_answer_without_a_body():
    answer, _ = asked(b"HTTP/1.1 204 No Content\r\nx: y\r\n\r\n")
    assert answer == Answer(204, b"")


@pytest.mark.parametrize("cut", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[1"])
def test_an_answer_that_is_cut_off(cut):
    with pytest.raises((OSError, asyncio.IncompleteReadError)):
        asked(cut)


def test_bodies_say_their_type_and_length():
    sent = request("POST", "/v1/search", None, json_body({"key": "a"}))
    assert sent.endswith(
        b'Content-Type: application/json\r\nContent-Length: 12\r\n\r\n{"key": "a"}'
    )
    kind, body = form(b"JPEG", [("labels", "ä")])
    boundary = kind.partition("boundary=")[2].encode()
    assert body.split(b"--" + boundary) == [
        b"",
        '\r\nContent-Disposition: form-data; name="labels"\r\n\r\nä\r\n'.encode(),
        b'\r\nContent-Disposition: form-data; name="image"; filename="image.jpg"\r\n\r\nJPEG\r\n',
        b"--\r\n",
    ]


def test_metrics_are_read_by_their_whole_name():
    text = '# HELP a b\na_total 1\na 2.5\na{b="c"} 9\n'
    assert metric_in(text, "a") == 2.5
    assert math.isnan(metric_in(text, "b"))
