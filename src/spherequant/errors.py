"""Every error that spherequant raises on purpose.

    SpherequantError
    ├── InputError               a value or a file that the caller gave cannot be used
    │   ├── SourceError          a source is missing, empty, unreadable or ambiguous
    │   ├── LabelError           labels are missing, too few, or do not match the images
    │   ├── DuplicateKeyError    the same key stands for two items
    │   └── UnknownKeyError      no item has a key
    ├── ConfigError              an unknown or impossible setting
    ├── FormatError              a stored file is damaged, or newer than this version reads
    ├── FingerprintError         codes and a model that do not belong together
    ├── OriginalError            the file of an item is not to be had
    ├── RemovalRefusedError      a sync would remove more of a source than it may
    ├── ConflictError            another writer won, again and again
    ├── ServiceError             a service did not answer, or refused a request
    └── MissingDependencyError   an optional library is not installed

Each message says what was wrong, with which file or value, and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


class SpherequantError(Exception):
    """Base of all errors that spherequant raises on purpose."""


class InputError(SpherequantError, ValueError):
    """A value or a file that the caller gave cannot be used."""


class SourceError(InputError):
    """A source of images is missing, empty, unreadable or ambiguous."""


class LabelError(InputError):
    """Labels are missing, too few, or do not match the images."""


class DuplicateKeyError(InputError):
    """The same key stands for two items."""


class UnknownKeyError(InputError):
    """No item has a key.

    Attributes:
        keys: those that none has.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
        super().__init__(f"no item has the key {keys[0]!r}{more}.")
        self.keys = list(keys)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments, not the message that was made of them."""
        return type(self), (self.keys,)


class ConfigError(SpherequantError, ValueError):
    """An unknown or impossible setting."""


class FormatError(SpherequantError):
    """A stored file is damaged, or newer than this version reads."""


class FingerprintError(SpherequantError):
    """Codes and a model that do not belong together."""


class OriginalError(SpherequantError):
    """The file of an item was not kept, is gone or changed, or lies outside its source."""


class RemovalRefusedError(SpherequantError):
    """A sync would remove more of a source than it may."""


class ConflictError(SpherequantError):
    """Another writer won the race for a commit, again and again."""


class ServiceError(SpherequantError):
    """A service did not answer, or refused a request.

    Attributes:
        status: of its answer, as HTTP counts; None where no answer came.
        title: of its problem document (RFC 9457), or empty.
        detail: what that says of the cause, in a sentence, or empty.
    """

    def __init__(
        self, message: str, *, status: int | None = None, title: str = "", detail: str = ""
    ) -> None:
        super().__init__(message)
        self.status = status
        self.title = title
        self.detail = detail


class MissingDependencyError(SpherequantError, ImportError):
    """An optional library is not installed; the message names the pip line."""

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs {library}, which is not installed. "
            f"Install it with: pip install 'spherequant[{extra}]'"
        )
        self._given = library, extra, purpose

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the arguments, not the message that was made of them."""
        return type(self), self._given
