"""API keys: who may read, who may write.

A key travels as ``Authorization: Bearer KEY``. Keys come from the environment or from files, never
from the command line, where other users of the machine could read them.
"""

from __future__ import annotations

import hmac
import os
from hashlib import sha256
from typing import TYPE_CHECKING

from spherequant.errors import ConfigError
from spherequant.service.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from spherequant.service.settings import Settings

READ_VARIABLE = "SPHEREQUANT_READ_KEY"
WRITE_VARIABLE = "SPHEREQUANT_WRITE_KEY"
_LARGEST_FILE = 65_536


def load_keys(
    variable: str, file: Path | None, environment: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """API keys from a variable of the environment, or from a file with one key a line.

    Args:
        variable: name of the variable.
        file: read instead, where it is given; ``#`` begins a comment line.
        environment: ``os.environ`` when None.

    Raises:
        ConfigError: the file cannot be read or holds no key.
    """
    if file is None:
        given = (os.environ if environment is None else environment).get(variable, "").strip()
        return (given,) if given else ()
    try:
        with file.open(encoding="utf-8") as stream:
            text = stream.read(_LARGEST_FILE)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise ConfigError(f"the file of API keys {file} cannot be read: {reason}") from None
    lines = (line.strip() for line in text.splitlines())
    keys = tuple(line for line in lines if line and not line.startswith("#"))
    if not keys:
        raise ConfigError(f"the file of API keys {file} holds no key: write one on each line")
    return keys


class Access:
    """Which keys open what. Keeps digests alone, and compares them in constant time."""

    def __init__(self, settings: Settings) -> None:
        self._readers = [_digest(key) for key in (*settings.read_keys, *settings.write_keys)]
        self._writers = [_digest(key) for key in settings.write_keys]
        self._open = not self._readers

    def check(self, authorization: str | None, *, write: bool) -> None:
        """Let a request pass, or not.

        Args:
            authorization: the header of that name.
            write: whether it would change items.

        Raises:
            Problem: no key, an unknown one, or one that may not write.
        """
        if self._open:
            return
        scheme, _, key = (authorization or "").partition(" ")
        digest = _digest(key.strip()) if scheme.lower() == "bearer" else b""
        if not _among(digest, self._readers):
            raise Problem(
                401,
                "An API key is needed: send it as 'Authorization: Bearer KEY'.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        if write and not _among(digest, self._writers):
            raise Problem(403, "This API key may read, and not write.")


def _digest(key: str) -> bytes:
    return sha256(key.encode("utf-8", "surrogateescape")).digest()


def _among(digest: bytes, known: list[bytes]) -> bool:
    """Whether a digest is one of those known; all are compared, whichever it is."""
    found = False
    for other in known:
        found |= hmac.compare_digest(digest, other)
    return found
