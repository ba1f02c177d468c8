"""Connections: uvicorn's HTTP protocol, with bounds on their number and on slow clients.

uvicorn waits for the head of a request for as long as it takes, and goes on reading a body whose
answer was already sent. Here both end after a while, so that who holds connections open costs no
more than the connections, of which there is a bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio

    from spherequant.service.settings import Settings

# How long what a refused client still sends is read and dropped, so that it sees the answer.
_LINGER_SECONDS = 3.0


def bounded_protocol(settings: Settings) -> type[asyncio.Protocol]:
    """The protocol with a service's bounds, as a class: uvicorn makes one for each connection."""
    bounds = {
        "max_connections": settings.max_connections,
        "head_seconds": settings.stall_seconds,
    }
    return type("BoundedProtocol", (_BoundedProtocol,), bounds)


class _BoundedProtocol(H11Protocol):
    """One connection.

    Attributes:
        max_connections: one more is cut at once.
        head_seconds: within which the head of a request must have come, once it began.
    """

    max_connections: int
    head_seconds: float
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
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
            self.loop.call_later(_LINGER_SECONDS, self._end_lingering, self.cycle)

    def _end_lingering(self, cycle: object) -> None:
        """Close where a client still sends a body whose answer it has had."""
        if self.cycle is cycle and self.conn.their_state is h11.SEND_BODY:
            self.transport.close()

    def _time_head(self) -> None:
        self._head_timer = self.loop.call_later(self.head_seconds, self._close_if_headless)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _close_if_headless(self) -> None:
        self._head_timer = None
        if self.conn.their_state is h11.IDLE:
            self.transport.close()
