"""Requests that are sent again, answers that are none, and what is said of them."""

import socket
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from spherequant.errors import ConfigError, InputError, ServiceError, SpherequantError
from spherequant.service import transport
from spherequant.service.client import Client
from spherequant.service.problems import busy
from spherequant.service.schemas import BatchPut


@pytest.fixture
def slept(monkeypatch):
    """The waits that a client makes, none of which takes time."""
    waits = []
    monkeypatch.setattr(transport.time, "sleep", waits.append)
    return waits


def failing(monkeypatch, place, name, times):
    """Let a method of a running service say that it is busy, a few times; count the calls."""
    right, calls = getattr(place, name), []

    def once_more(*arguments, **options):
        calls.append(name)
        if len(calls) <= times:
            raise busy()
        return right(*arguments, **options)

    monkeypatch.setattr(place, name, once_more)
    return calls


@pytest.mark.parametrize(("times", "sent"), [(0, 1), (2, 3), (3, 4)])
def test_a_busy_service_is_asked_again(served, monkeypatch, slept, times, sent):
    calls = failing(monkeypatch, served.engine, "search", times)
    with Client(served.url) as client:
        assert client.search(key="digits/0/00.png", k=3).results
    assert len(calls) == sent
    assert slept == [1.0] * times


def test_a_service_that_stays_busy_is_left(served, monkeypatch, slept):
    calls = failing(monkeypatch, served.engine, "search", 99)
    with Client(served.url) as client, pytest.raises(ServiceError, match="in a moment") as caught:
        client.search(key="digits/0/00.png")
    assert (caught.value.status, caught.value.title) == (503, "Service Unavailable")
    assert len(calls) == transport.TRIES
    assert len(slept) == transport.TRIES - 1


def test_what_is_not_idempotent_is_sent_once(served, monkeypatch, slept):
    monkeypatch.setattr(served.service.budget, "_limit", 0)
    with Client(served.url) as client, pytest.raises(ServiceError, match="Too many uploads"):
        client.batch([BatchPut(key="a")], [b"x"])
    assert slept == []


def test_a_delete_that_was_carried_out_at_the_first_try(served, monkeypatch, slept, png):
    right = served.engine.remove

    async def half(keys):
        await right(keys)
        monkeypatch.setattr(served.engine, "remove", right)
        raise busy()

    with Client(served.url) as client:
        client.put("gone", png())
        monkeypatch.setattr(served.engine, "remove", half)
        client.delete("gone")
        assert slept == [1.0]
        with pytest.raises(ServiceError, match="No item has the key 'gone'"):
            client.delete("gone")


@pytest.mark.parametrize(
    ("told", "waits"),
    [
        (b"2", [2.0] * 3),
        (b"0", [0.0] * 3),
        (b"", [1.0] * 3),
        (b"soon", [1.0] * 3),
        (b"3600", []),
        (b"Fri, 31 Dec 9999 23:59:59 -2300", [1.0] * 3),
        (format_datetime(datetime.now(UTC) + timedelta(hours=1)).encode(), []),
        (format_datetime(datetime.now(UTC) - timedelta(hours=1)).encode(), [0.0] * 3),
    ],
)
def test_retry_after_is_followed_within_bounds(slept, told, waits):
    answer = b"HTTP/1.1 503 Busy\r\nRetry-After: %s\r\nContent-Length: 0\r\n" % told
    with answering(answer) as (url, asked), Client(url) as client, pytest.raises(ServiceError):
        client.health()
    assert slept == waits
    assert len(asked) == len(waits) + 1


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    with (
        Client(f"http://127.0.0.1:{port}/") as client,
        pytest.raises(ServiceError, match=f":{port} cannot be reached.*refused.*running there"),
    ):
        client.health()


def test_something_that_never_answers():
    with (
        socket.create_server(("127.0.0.1", 0)) as sock,
        Client(f"http://127.0.0.1:{sock.getsockname()[1]}", timeout=0.2) as client,
        pytest.raises(ServiceError, match=r"no answer within 0\.2 seconds") as caught,
    ):
        client.health()
    assert caught.value.status is None
    assert isinstance(caught.value, SpherequantError)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "broke"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", "broke"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n", "302"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n", "not as a service of spherequant"),
        (
            b"HTTP/1.1 400 Bad\r\nContent-Type: application/problem+json\r\nContent-Length: 0\r\n",
            "does not say why",
        ),
    ],
)
def test_answers_of_something_else(answer, told):
    with (
        answering(answer) as (url, asked),
        Client(url) as client,
        pytest.raises(ServiceError, match=told),
    ):
        client.health()
    assert len(asked) == 1


def test_a_problem_without_end_is_none():
    body = b"[" * 200_000
    head = b"HTTP/1.1 422 X\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n"
    with (
        answering(head % len(body), body) as (url, _),
        Client(url) as client,
        pytest.raises(ServiceError, match="does not say why"),
    ):
        client.health()


def test_a_detail_cannot_colour_a_terminal():
    body = b'{"title": "T", "detail": "\\u001b[31mred\\nline"}'
    head = b"HTTP/1.1 422 X\r\nContent-Type: application/problem+json\r\nContent-Length: %d\r\n"
    with (
        answering(head % len(body), body) as (url, _),
        Client(url) as client,
        pytest.raises(ServiceError) as caught,
    ):
        client.health()
    assert str(caught.value) == "T (422):  [31mred line"
    assert caught.value.detail == " [31mred line"


@contextmanager
def answering(head, body=b""):
    """Something that gives every request the same answer; its address, and what it was asked."""
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as sock:

        def run():
            while True:
                try:
                    connection, _ = sock.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(60)
                    data = connection.recv(65_536)
                    if not data:
                        return
                    asked.append(data)
                    if head:
                        connection.sendall(head + b"Connection: close\r\n\r\n" + body)

        thread = threading.Thread(target=run)
        thread.start()
        address = sock.getsockname()
        try:
            yield f"http://127.0.0.1:{address[1]}", asked
        finally:
            socket.create_connection(address).close()
            thread.join(60)


@pytest.fixture
def served(serving, folder):
    return serving(folder)


@pytest.mark.parametrize(
    "url",
    ["127.0.0.1:8000", "ftp://a", "http://", "http://a:x", "http://[::1", "http://a:99999",
     "http://a/?q=1", "http://a\x1b[31m", "file:///etc/passwd"],
)  # fmt: skip
def test_addresses_that_are_none(url):
    with pytest.raises(ConfigError, match=r"such as http://127\.0\.0\.1:8000"):
        Client(url)


def test_an_address_holds_no_password():
    with pytest.raises(ConfigError, match="SPHEREQUANT_API_KEY") as caught:
        Client("http://me:secret@localhost:8000")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["grün", "a\nb", "a\0b"])
def test_keys_that_cannot_travel(key):
    with pytest.raises(ConfigError, match="printable") as caught:
        Client("http://localhost:8000", api_key=key)
    assert key not in str(caught.value)


@pytest.mark.parametrize("timeout", [0, -1.0, float("nan")])
def test_a_timeout_is_above_zero(timeout):
    with pytest.raises(ConfigError, match="timeout"):
        Client("http://localhost:8000", timeout=timeout)


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.get("\ud800"),
        lambda client: client.search(key="\ud800"),
        lambda client: client.search(key="a", where="key = '\udcff'"),
        lambda client: client.labels(where="x" * 100_000),
    ],
)
def test_parameters_that_cannot_travel(ask):
    with Client("http://127.0.0.1:9") as client, pytest.raises(InputError, match="cannot be sent"):
        ask(client)


def test_a_proxy_that_cannot_be_used(monkeypatch):
    monkeypatch.setenv("ALL_PROXY", "nonsense://a")
    with pytest.raises(ConfigError, match="ALL_PROXY"):
        Client("http://service.example")


def test_no_proxy_stands_before_this_machine(served, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with Client(served.url) as client:
        assert client.health().status == "ok"
