"""Connections: who takes nothing of what was sent is let go, who takes it slowly gets it all."""

import contextlib
import socket
import threading
import time

import pytest
from fastapi import FastAPI, Response

from spherequant.service.server import listening, make_server
from spherequant.service.settings import Settings

LARGE = 4 << 20


@pytest.fixture
def server():
    """A service's server with an answer that no socket's buffer holds, written at once."""
    app, ready = FastAPI(), threading.Event()
    settings = Settings(port=0, stall_seconds=0.5)

    @app.get("/large")
    async def large() -> Response:
        return Response(bytes(LARGE))

    with listening(settings) as sock:
        server = make_server(app, settings, ready.set)
        server.port = sock.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        assert ready.wait(60)
        yield server
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()


def connect(server):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    sock.settimeout(60)
    sock.connect(("127.0.0.1", server.port))
    return sock


def pieces(sock):
    """Bytes of each piece that comes, to the end of the connection."""
    with contextlib.suppress(ConnectionError):
        while piece := sock.recv(65_536):
            yield len(piece)


def head(connection):
    return f"GET /large HTTP/1.1\r\nHost: localhost\r\nConnection: {connection}\r\n\r\n".encode()


@pytest.mark.parametrize(
    "sent",
    [head("close"), head("keep-alive"), 500 * head("keep-alive")],
    ids=["closed", "kept", "pipelined"],
)
def test_a_client_that_takes_nothing_is_let_go(server, eventually, sent):
    """Whether its answer was the last, or others wait behind it."""
    with connect(server) as sock:
        sock.sendall(sent)
        eventually(lambda: server.server_state.total_requests or server.server_state.tasks)
        eventually(lambda: not server.server_state.connections, seconds=20)
        eventually(lambda: not server.server_state.tasks)
        assert sum(pieces(sock)) < LARGE  # cut off: not even one answer was sent whole


def test_a_client_that_takes_its_time_gets_it_all(server):
    """That is more than the time to stall."""
    started, got = time.monotonic(), 0
    with connect(server) as sock:
        sock.sendall(head("close"))
        for size in pieces(sock):
            got += size
            time.sleep(size / LARGE)
    assert got > LARGE
    assert time.monotonic() - started >= 1.0
