"""What is done to every request and answer: hosts, origins, headers, and what is logged.

*Hosts.* A page of some other site can have its name point at 127.0.0.1 after it was loaded (DNS
rebinding), and would then be same-origin with this service. It cannot forge the Host header, so
a service on loopback answers to the names of loopback alone.

*Origins.* A foreign page can send simple requests without asking (a form, a multipart POST).
Browsers say where such a request comes from; what changes items or costs work, which is all below
``/v1`` and ``/metrics``, must come from our own page or from no page at all.

*Log.* Method, route, status, bytes and seconds: no query string, no key, no body.
"""

from __future__ import annotations

import logging
import os
import time
import traceback
from typing import TYPE_CHECKING

from spherequant.service.problems import Problem, failed
from spherequant.service.settings import LOOPBACK_NAMES, Settings, is_loopback

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from spherequant.service.metrics import Metrics

logger = logging.getLogger(__name__)

_SAFE = {"GET", "HEAD", "OPTIONS"}
_WORK = ("/v1/", "/metrics")
_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}
# For everything that is no page: were it ever opened as one, it could do nothing.
DATA_POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"
_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"content-security-policy": DATA_POLICY.encode(),
    b"cache-control": b"no-store",
}


class Protection:
    """ASGI middleware around the whole application.

    Args:
        app: the application.
        settings: which hosts may be named.
        metrics: told of every answer.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics
        loopback = is_loopback(settings.host)
        self._hosts = {name.lower() for name in settings.allowed_hosts}
        if loopback:
            host = settings.host.strip("[]").lower()
            self._hosts |= {*LOOPBACK_NAMES, f"[{host}]" if ":" in host else host}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        started = time.monotonic()
        try:
            try:
                self._check(scope)
                await self._app(scope, receive, answer)
            except Problem as problem:
                await problem.response()(scope, receive, answer)
        except Exception as error:
            scope["spherequant.error"] = error
            if not answer.status:
                await failed().response()(scope, receive, answer)
        finally:
            self._tell(scope, answer, time.monotonic() - started)

    def _check(self, scope: Scope) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "").lower()
        if self._hosts and _name_of(host) not in self._hosts:
            names = " or ".join(sorted(self._hosts))
            raise Problem(421, f"This service does not go by that name: ask it as {names}.")
        if scope["method"] in _SAFE and not scope["path"].startswith(_WORK):
            return
        origin = headers.get(b"origin")
        site = headers.get(b"sec-fetch-site", "none")
        if site not in ("same-origin", "none") or (
            origin is not None and origin.lower().partition("://")[2] != host
        ):
            raise Problem(403, "Pages of other sites may not use this service.")

    def _tell(self, scope: Scope, answer: _Answer, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        status = answer.status or 0
        self._metrics.requests.labels(route, method, str(status)).inc()
        self._metrics.request_seconds.labels(route).observe(seconds)
        logger.info("%s %s %d %d bytes %.4f s", method, route, status, answer.sent, seconds)
        error = scope.get("spherequant.error")
        if error is not None:
            logger.error("%s %s failed: %s", method, route, _told(error))


class _Answer:
    """Sends an answer on, with the headers that every answer has."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.sent = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", ()))
            given = {name for name, _ in headers}
            headers += [pair for pair in _HEADERS.items() if pair[0] not in given]
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body":
            self.sent += len(message.get("body", b""))
        await self._send(message)


def _name_of(host: str) -> str:
    """The name in a Host header, without its port."""
    if host.startswith("["):
        return "".join(host.partition("]")[:2])
    return host.partition(":")[0]


def _told(error: BaseException) -> str:
    """Kind and place of an error. Its text could hold what was asked, and is left out."""
    if os.environ.get("SPHEREQUANT_DEBUG"):
        return "".join(traceback.format_exception(error))
    places = traceback.extract_tb(error.__traceback__)[-6:]
    return " <- ".join(
        [type(error).__name__, *(f"{p.name} ({p.filename}:{p.lineno})" for p in reversed(places))]
    )
