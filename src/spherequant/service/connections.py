"""Connections: uvicorn's HTTP protocol, with bounds on their number and on slow clients.

uvicorn waits for the head of a request, and for a client to take its answer, for as long as it
takes, and goes on reading a body whose answer was already sent. Here all of these end after a
while, so that who holds connections open costs no more than the connections, of which there is a
bound.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from spherequant.service.settings import LEAST_BYTES_PER_SECOND

if TYPE_CHECKING:
    import asyncio

    from spherequant.service.settings import Settings

# How long what a refused client still sends is read and dropped, so that it sees the answer.
_LINGER_SECONDS = 3.0


def bounded_protocol(settings: Settings) -> type[asyncio.Protocol]:
    """The protocol with a service's bounds, as a class: uvicorn makes one for each connection."""
    bounds = {
        "max_connections": settings.max_connections,
        "stall_seconds": settings.stall_seconds,
    }
    return type("BoundedProtocol", (_BoundedProtocol,), bounds)


class _BoundedProtocol(H11Protocol):
    """One connection.

    Attributes:
        max_connections: one more is cut at once.
        stall_seconds: within which the head of a request must have come, once it began; and how
            often a client is looked at that has yet to take what was sent to it.
    """

    max_connections: int
    stall_seconds: float
    _head_timer: asyncio.TimerHandle | None = None
    _taking_timer: asyncio.TimerHandle | None = None
    _untaken: int = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            transport.abort()
            return
        # Writing is then paused as long as any byte is left, before and after it is closed.
        transport.set_write_buffer_limits(high=0)
        self._time_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        self._stop_taking_timer()
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

    def pause_writing(self) -> None:
        super().pause_writing()
        self._time_taking()

    def resume_writing(self) -> None:
        self._stop_taking_timer()
        super().resume_writing()

    def _end_lingering(self, cycle: object) -> None:
        """Close where a client still sends a body whose answer it has had."""
        if self.cycle is cycle and self.conn.their_state is h11.SEND_BODY:
            self.transport.close()

    def _time_head(self) -> None:
        self._head_timer = self.loop.call_later(self.stall_seconds, self._close_if_headless)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _close_if_headless(self) -> None:
        self._head_timer = None
        if self.conn.their_state is h11.IDLE:
            self.transport.close()

    def _time_taking(self) -> None:
        self._untaken = self.transport.get_write_buffer_size()
        self._taking_timer = self.loop.call_later(self.stall_seconds, self._abort_if_untaken)

    def _stop_taking_timer(self) -> None:
        if self._taking_timer is not None:
            self._taking_timer.cancel()
            self._taking_timer = None

    def _abort_if_untaken(self) -> None:
        """Let a client go that takes too little: closing would wait until it has taken all."""
        taken = self._untaken - self.transport.get_write_buffer_size()
        if taken < LEAST_BYTES_PER_SECOND * self.stall_seconds:
            self.transport.abort()
        else:
            self._time_taking()
