"""One request to a service: sent, sent again while the service is busy, and its answer judged."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from spherequant.errors import ConfigError, InputError, ServiceError
from spherequant.service.settings import is_loopback

if TYPE_CHECKING:
    import httpx2

API_KEY_VARIABLE = "SPHEREQUANT_API_KEY"
TRIES = 4
LONGEST_WAIT = 10.0  # seconds; a service that asks for more is not waited for
_WAIT = 1.0  # where a 503 does not say how long
_CONNECT_SECONDS = 10.0
_LONGEST_DETAIL = 1_000
_PROBLEM = "application/problem+json"


class Transport:
    """A connection to one service.

    Args:
        url: of the service, such as ``http://127.0.0.1:8000``.
        api_key: sent with each request; else that of ``SPHEREQUANT_API_KEY``, if there is one.
        timeout: seconds to wait for the service to take or give the next piece.

    Raises:
        ConfigError: the address is none, or the key or the time cannot be used.
    """

    def __init__(self, url: str, api_key: str | None, timeout: float) -> None:
        import httpx2

        self.url = _checked_url(url)
        self._timeout = timeout
        if not timeout > 0:
            raise ConfigError(f"a timeout is a number of seconds above 0, not {timeout}")
        key = _checked_key(os.environ.get(API_KEY_VARIABLE, "") if api_key is None else api_key)
        try:
            self._client = httpx2.Client(
                headers={"Authorization": f"Bearer {key}"} if key else {},
                timeout=httpx2.Timeout(timeout, connect=min(timeout, _CONNECT_SECONDS)),
                # No proxy of the environment reaches what listens on this machine alone.
                trust_env=not is_loopback(urlsplit(self.url).hostname or ""),
            )
        except (ImportError, ValueError) as error:
            raise ConfigError(
                "the proxy that the environment names (HTTP_PROXY, ALL_PROXY) cannot be used: "
                f"{_plain(str(error))}"
            ) from None

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ask(self, method: str, path: str, *, again: bool = True, **parts: Any) -> httpx2.Response:
        """Send a request and return its answer.

        Args:
            method: of HTTP.
            path: behind the address of the service.
            again: send it again, `TRIES` times in all, where the service is too busy. Only for what
                may be done twice.
            parts: what httpx2 takes: ``params``, ``json``, ``content``, ``data``, ``files``.

        Raises:
            ServiceError: no answer came, or one that says what was wrong.
            InputError: a parameter cannot be sent.
        """
        response, _ = self.send(method, path, again=again, **parts)
        self.check(response)
        return response

    def send(
        self, method: str, path: str, *, again: bool = True, **parts: Any
    ) -> tuple[httpx2.Response, int]:
        """Send a request; return its answer, whatever it says, and how often it was sent.

        Raises:
            ServiceError: no answer came.
            InputError: a parameter cannot be sent.
        """
        for sent in range(1, TRIES + 1):
            response = self._send_once(method, path, parts)
            wait = _wait_of(response)
            if response.status_code != 503 or not again or sent == TRIES or wait > LONGEST_WAIT:
                break
            time.sleep(wait)
        return response, sent

    def check(self, response: httpx2.Response) -> None:
        """Let an answer pass, or not.

        Raises:
            ServiceError: it is a problem document, or comes from something else than a service.
        """
        if response.is_success:
            return
        if _kind(response) != _PROBLEM:
            raise self.foreign(response)
        raise _service_error(response)

    def foreign(self, response: httpx2.Response) -> ServiceError:
        """The error for an answer that no service of ours gives."""
        return ServiceError(
            f"{self.url} answered with status {response.status_code}, and not as a service of "
            "spherequant does: is it the address that `spherequant serve` named?",
            status=response.status_code,
        )

    def _send_once(self, method: str, path: str, parts: dict[str, Any]) -> httpx2.Response:
        import httpx2

        try:
            return self._client.request(method, self.url + path, **parts)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            reason = _plain(str(error)) or "timed out"
            raise ServiceError(
                f"{self.url} cannot be reached ({reason}): is `spherequant serve` running there?"
            ) from None
        except httpx2.TimeoutException:
            raise ServiceError(
                f"{self.url} gave no answer within {self._timeout:g} seconds: try again, or wait "
                "longer (timeout=)"
            ) from None
        except (httpx2.InvalidURL, UnicodeError) as error:
            reason = _plain(str(error))
            raise InputError(f"this cannot be sent to {self.url}: {reason}") from None
        except httpx2.RequestError as error:
            raise ServiceError(
                f"the connection to {self.url} broke ({type(error).__name__}): whether the request "
                "was carried out is not known"
            ) from None


def _checked_url(url: str) -> str:
    """The address without a slash at its end."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # of a port, or of brackets
        usable = False
    if not usable or parts.query or parts.fragment or not url.isprintable():
        raise ConfigError(
            f"{_plain(url)!r} is no address of a service: give one such as http://127.0.0.1:8000"
        )
    if parts.username or parts.password:
        raise ConfigError(
            "the address of a service holds no password: set its API key in the environment as "
            f"{API_KEY_VARIABLE}"
        )
    return url.rstrip("/")


def _checked_key(key: str) -> str:
    key = key.strip()
    if key and not (key.isascii() and key.isprintable()):
        raise ConfigError(
            f"an API key has printable ASCII characters alone: look at {API_KEY_VARIABLE}"
        )
    return key


def _wait_of(response: httpx2.Response) -> float:
    """Seconds that an answer asks to wait: its Retry-After, a number or a date."""
    told = response.headers.get("retry-after", "").strip()
    if told.isdecimal():
        return float(told)
    try:
        until = parsedate_to_datetime(told).astimezone(UTC)
    except (ValueError, OverflowError):
        return _WAIT
    return max(0.0, (until - datetime.now(UTC)).total_seconds())


def _service_error(response: httpx2.Response) -> ServiceError:
    """The error that a problem document tells of."""
    try:
        document = json.loads(response.content)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        document = {}
    status = response.status_code
    title = _plain(str(document.get("title") or "error"))
    detail = _plain(str(document.get("detail") or "The service does not say why."))
    cure = f" Set {API_KEY_VARIABLE} to a key that the service knows." if status == 401 else ""
    return ServiceError(
        f"{title} ({status}): {detail}{cure}", status=status, title=title, detail=detail
    )


def _kind(response: httpx2.Response) -> str:
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def _plain(text: str) -> str:
    """Text from elsewhere, fit for one line of a terminal."""
    return "".join(c if c.isprintable() else " " for c in text[:_LONGEST_DETAIL])
