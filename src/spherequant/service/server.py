"""The process: sockets, signals, slow clients."""

from __future__ import annotations

import logging
import signal
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from spherequant.errors import ConfigError
from spherequant.service.application import create_app
from spherequant.service.settings import Settings

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator
    from os import PathLike

logger = logging.getLogger(__name__)

_BACKLOG = 512
_KEEP_ALIVE_SECONDS = 15
# How long what a refused client still sends is read and dropped, so that it sees the answer.
_LINGER_SECONDS = 3.0


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
    with listening(settings) as sock:
        app = create_app(directory, settings)
        config = uvicorn.Config(
            app,
            http=protocol(settings),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=int(settings.drain_seconds),
        )
        server = _Server(config, lambda: started(address(sock)) if started else None)
        server.run(sockets=[sock])


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


def protocol(settings: Settings) -> type[asyncio.Protocol]:
    """uvicorn's HTTP protocol, with bounds on connections and on slow clients."""

    class Bounded(H11Protocol):
        """One connection."""

        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > settings.max_connections:
                transport.abort()
                return
            self._time_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_head_timer()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._stop_head_timer()
            elif self._head_timer is None:  # a piece of the next request's head
                self._time_head()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            if self.conn.their_state is h11.SEND_BODY:
                cycle = self.cycle
                self.loop.call_later(_LINGER_SECONDS, self._end_lingering, cycle)

        def _end_lingering(self, cycle: object) -> None:
            """Close where a client still sends a body whose answer it has had."""
            if self.cycle is cycle and self.conn.their_state is h11.SEND_BODY:
                self.transport.close()

        def _time_head(self) -> None:
            self._head_timer = self.loop.call_later(settings.stall_seconds, self._close_if_idle)

        def _stop_head_timer(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _close_if_idle(self) -> None:
            """Close where the head of a request never came to its end."""
            self._head_timer = None
            if self.conn.their_state is h11.IDLE:
                self.transport.close()

    return Bounded
