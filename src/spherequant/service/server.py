"""The process: its socket, its signals, its end."""

from __future__ import annotations

import math
import signal
import socket
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import uvicorn

from spherequant.errors import ConfigError
from spherequant.service.application import create_app
from spherequant.service.connections import bounded_protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from os import PathLike

    from fastapi import FastAPI

    from spherequant.service.settings import Settings

_BACKLOG = 512
_KEEP_ALIVE_SECONDS = 15
_SWITCH_SECONDS = 0.0005


def serve(
    directory: str | PathLike[str],
    settings: Settings,
    started: Callable[[str], object] | None = None,
) -> None:
    """Serve an index until the process is told to stop (SIGINT, SIGTERM).

    Requests under way are finished, and accepted writes are made.

    Args:
        directory: the index.
        settings: address, bounds, API keys.
        started: called with the address once requests are taken.

    Raises:
        ConfigError: the address cannot be listened on.
        FormatError: no index is there, or it is damaged.
    """
    # A thread that embeds gives up the interpreter at every layer, and by default has it back 5 ms
    # later at the worst: longer than the layer takes.
    sys.setswitchinterval(_SWITCH_SECONDS)
    with listening(settings) as sock:
        server = make_server(
            create_app(directory, settings),
            settings,
            lambda: started(address(sock)) if started else None,
        )
        server.run(sockets=[sock])


def make_server(app: FastAPI, settings: Settings, started: Callable[[], object]) -> uvicorn.Server:
    """The server of an application, not yet running; it ends when ``should_exit`` is set."""
    config = uvicorn.Config(
        app,
        http=bounded_protocol(settings),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
    )
    return _Server(config, started)


@contextmanager
def listening(settings: Settings) -> Iterator[socket.socket]:
    """A socket that listens at the settings' address.

    Raises:
        ConfigError: it cannot.
    """
    host, port = settings.host.strip("[]"), settings.port
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol_number, _, place = found[0]
        sock = socket.socket(family, kind, protocol_number)
    except (OSError, UnicodeError):
        raise ConfigError(f"--host {settings.host} is no address of this machine") from None
    with sock:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(place)
            sock.listen(_BACKLOG)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {settings.host}, port {port}: {error.strerror}. Choose another "
                "with --port (0 for any that is free)"
            ) from None
        sock.setblocking(False)
        yield sock


def address(sock: socket.socket) -> str:
    """The address of a listening socket, for a browser."""
    host, port = sock.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{port}/"


class _Server(uvicorn.Server):
    """Ends quietly on signals, instead of raising them once more when all is done."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], object]) -> None:
        super().__init__(config)
        self._tell_started = started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._tell_started()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGINT and SIGTERM while the block runs."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        wanted = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in wanted}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
