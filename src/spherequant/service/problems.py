"""Every error as a problem document (RFC 9457).

``detail`` is always a sentence of ours. What a library said may name its files, its builder's
paths or its types; it is logged by kind and place, and never sent.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError
from starlette.responses import JSONResponse

from spherequant.errors import (
    ConflictError,
    InputError,
    OriginalError,
    SpherequantError,
    UnknownKeyError,
)
from spherequant.service.stages import BusyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from fastapi import FastAPI
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException
    from starlette.requests import Request

ResultT = TypeVar("ResultT")

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = "1"

_CODES = {
    400: "bad-request",
    401: "key-needed",
    403: "forbidden",
    404: "not-found",
    405: "method-not-allowed",
    408: "too-slow",
    409: "conflict",
    413: "too-large",
    415: "unsupported-type",
    421: "unknown-host",
    422: "not-usable",
    500: "failed",
    503: "busy",
}
_DETAILS = {
    404: "Nothing is at this address.",
    405: "This address does not take this method.",
}
# What pydantic objects to, by its name for the objection, in our words.
_OBJECTIONS = {
    "missing": "is missing",
    "extra_forbidden": "is not known here",
    "int_parsing": "is a whole number",
    "int_type": "is a whole number",
    "int_from_float": "is a whole number",
    "int_parsing_size": "is a whole number, and not that long",
    "float_parsing": "is a number",
    "float_type": "is a number",
    "finite_number": "is a finite number",
    "greater_than_equal": "is at least {ge}",
    "less_than_equal": "is at most {le}",
    "string_type": "is a text",
    "string_too_short": "has at least {min_length} characters",
    "string_too_long": "has at most {max_length} characters",
    "list_type": "is a list",
    "dict_type": "is an object",
    "model_type": "is an object",
    "too_short": "has at least {min_length} entries",
    "too_long": "has at most {max_length} entries",
    "json_invalid": "is not JSON",
    "less_than": "is below {lt}",
    "bool_parsing": "is true or false",
}


# What pydantic adds to the place of a value of metadata, and the objections of its kinds.
_BRANCHES = {"constrained-int", "float", "constrained-str"}
_KINDS = {"int_type", "float_type", "string_type"}
_OF_ANY_KIND = "is a text, a number or null"


class Problem(Exception):  # noqa: N818 - RFC 9457's word
    """An answer that is a problem document.

    Args:
        status: the HTTP status.
        detail: what was wrong, with which value, and what to do.
        errors: for a request that does not fit: where, and what is wrong there.
        headers: of the answer.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})
        if status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.headers.setdefault("Retry-After", RETRY_SECONDS)

    def document(self) -> dict[str, Any]:
        """The members of the document."""
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "code": _CODES.get(self.status, "failed"),
        }
        if self.errors is not None:
            document["errors"] = list(self.errors)
        return document

    def response(self) -> JSONResponse:
        """The answer."""
        return JSONResponse(self.document(), self.status, self.headers, media_type=MEDIA_TYPE)


def busy(detail: str = "Too many requests wait already. Try again in a moment.") -> Problem:
    """The answer to what would have to wait too long."""
    return Problem(503, detail)


def failed() -> Problem:
    """The answer when the service itself failed."""
    return Problem(500, "The service failed to answer. Its log says where.")


def not_found(key: str) -> Problem:
    """The answer for a key that the index does not have."""
    return Problem(404, f"No item has the key {key!r}.")


def unusable(objections: Sequence[Mapping[str, Any]]) -> Problem:
    """The answer to a request of which pydantic objected to parts."""
    told: dict[str, str] = {}
    for found in objections:
        place = [str(part) for part in found["loc"]]
        what = _objection(found)
        if place[-1] in _BRANCHES:
            # Each kind that a value may have objects to it, under a name of its own.
            place = place[:-1]
            if found["type"] in _KINDS:
                told.setdefault(".".join(place), _OF_ANY_KIND)
                continue
        if told.get(".".join(place), _OF_ANY_KIND) == _OF_ANY_KIND:
            told[".".join(place)] = what
    errors = [{"where": where, "what": what} for where, what in list(told.items())[:20]]
    first = errors[0]
    return Problem(422, f"{first['where']} {first['what']}.", errors=errors)


def parsed(validate: Callable[[Any], ResultT], value: object, where: str) -> ResultT:
    """A value that pydantic accepts.

    Raises:
        Problem: it does not.
    """
    try:
        return validate(value)
    except ValidationError as error:
        found: list[dict[str, Any]] = [
            {**one, "loc": (where, *one["loc"])}
            for one in error.errors(include_url=False, include_input=False)
        ]
        raise unusable(found) from None


def _objection(found: Mapping[str, Any]) -> str:
    context = found.get("ctx", {})
    if found["type"] == "value_error":
        return str(context["error"])  # of our own validators
    return _OBJECTIONS.get(str(found["type"]), "is not usable").format(**context)


def problem_of(error: Exception) -> Problem:
    """What the outside hears of an error.

    Messages of ``InputError`` are about what the caller gave. Those of other errors name files of
    the server, and stay in its log.
    """
    if isinstance(error, BusyError):
        return busy()
    if isinstance(error, UnknownKeyError):
        return not_found(error.keys[0])
    if isinstance(error, OriginalError):
        return Problem(404, "The original of this item is not to be had here.")
    if isinstance(error, InputError):
        return Problem(422, str(error))
    if isinstance(error, ConflictError):
        return busy("Other writers were first, again and again. Try again in a moment.")
    return failed()


def install(app: FastAPI) -> None:
    """Answer every error of the application with a problem document."""
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException

    async def on_problem(_: Request, error: Problem) -> JSONResponse:
        return error.response()

    async def on_ours(request: Request, error: SpherequantError) -> JSONResponse:
        problem = problem_of(error)
        if problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
            request.scope["spherequant.error"] = error
        return problem.response()

    async def on_http(_: Request, error: HTTPException) -> JSONResponse:
        detail = _DETAILS.get(error.status_code, "The request cannot be answered.")
        return Problem(error.status_code, detail, headers=error.headers).response()

    async def on_validation(_: Request, error: RequestValidationError) -> JSONResponse:
        return unusable(error.errors()).response()

    # Starlette's type has handlers take any exception; each of these gets its own kind alone.
    handlers: dict[type[Exception], Any] = {
        Problem: on_problem,
        SpherequantError: on_ours,
        HTTPException: on_http,
        RequestValidationError: on_validation,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
