"""Which filters a stranger may ask with.

The index hands an expression to Lance, whose planner knows hundreds of functions: ``repeat('x',
1000000000)`` is one of them. And it filters on any column, ``root`` among them, which names folders
of the server. So what comes over HTTP is cut into words here, and each must be known: a column that
may be seen, one of a few cheap functions, an operator. What passes goes to the index's compiler.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from spherequant.service.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Collection

FUNCTIONS = frozenset(
    {
        "abs",
        "array_has",
        "array_has_all",
        "array_has_any",
        "array_length",
        "coalesce",
        "contains",
        "ends_with",
        "length",
        "lower",
        "make_array",
        "round",
        "starts_with",
        "upper",
    }
)
HIDDEN = frozenset({"root", "code", "vector", "thumbnail", "original"})
"""Columns that no filter from outside may name: paths of the server, and bytes."""

_LOGIC = {"and", "or", "not", "in", "is", "null", "true", "false", "like", "ilike", "between"}
_TYPES = {"int", "bigint", "double", "string", "boolean", "date", "timestamp"}
_WORDS = frozenset({"cast", "as"} | _LOGIC | _TYPES)
_MOST_PARTS = 600
_MOST_TESTS = 60
_TOKEN = re.compile(
    r"""\s+
    | (?P<text>'(?:[^']|'')*')
    | `(?P<quoted>[^`]*)`
    | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)
    | (?P<word>[^\W\d]\w*)
    | (?P<sign><=|>=|<>|!=|==|[-+*/%<>=(),\[\]])
    """,
    re.VERBOSE,
)
_NOT_TESTS = {"(", ")", "[", "]", ","}


def check_filter(where: str, columns: Collection[str], longest: int) -> str:
    """A filter that may go to the index.

    Args:
        where: the expression.
        columns: the index's columns.
        longest: most characters.

    Raises:
        Problem: it is too long, or names what is not known here.
    """
    if len(where) > longest:
        raise _refused(f"has {len(where):,} characters; at most {longest:,} are taken")
    seen = {name.casefold() for name in columns} - HIDDEN
    parts = tests = position = 0
    while position < len(where):
        token = _TOKEN.match(where, position)
        if token is None:
            raise _refused(f"cannot be read at {where[position : position + 20]!r}")
        position = token.end()
        parts += bool(token.lastgroup)
        tests += _is_test(token)
        _check_name(token, where, seen)
    if parts > _MOST_PARTS or tests > _MOST_TESTS:
        raise _refused(f"has more than {_MOST_PARTS} parts or {_MOST_TESTS} operators")
    return where


def _is_test(token: re.Match[str]) -> bool:
    """Whether evaluating this part costs a pass over the items."""
    word, sign = token["word"], token["sign"]
    if word is not None:
        return word.lower() in {"like", "ilike", "in", "between", "is", "cast", "not"} | FUNCTIONS
    return sign is not None and sign not in _NOT_TESTS


def _check_name(token: re.Match[str], where: str, seen: Collection[str]) -> None:
    """Refuse a name that is neither a column to be seen, nor a function or word that is known."""
    quoted, word = token["quoted"], token["word"]
    called = where[token.end() :].lstrip().startswith("(")
    if quoted is not None:
        if called or quoted.casefold() not in seen:
            raise _refused(f"names {quoted!r}, which is no column that a filter can name")
        return
    if word is None or word.lower() in _WORDS:
        return
    if called:
        if word.lower() not in FUNCTIONS:
            raise _refused(f"calls {word!r}; the functions are {', '.join(sorted(FUNCTIONS))}")
    elif word.casefold() not in seen:
        raise _refused(f"names {word!r}, which is no column that a filter can name")


def _refused(what: str) -> Problem:
    return Problem(
        422,
        f"The filter {what}. Examples: array_has(labels, 'cat'), key LIKE 'holiday/%', "
        "size > 100000.",
        errors=[{"where": "query.where", "what": what}],
    )
