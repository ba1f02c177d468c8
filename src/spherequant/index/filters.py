"""``where``: one filter expression of SQL, evaluated by Lance, and nothing else.

Lance pastes the text behind ``SELECT 1 FROM t WHERE`` and ignores what follows the expression
(``; DROP ...``, ``LIMIT 1``), reads "double quotes" as text and not as a name, and overflows its
stack on long chains of operators. So the text is looked at here first.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from spherequant.errors import InputError, SpherequantError
from spherequant.index.faults import is_panic, translate

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

MAX_CHARACTERS = 100_000
# A chain of 1,000 operators ends the process (a stack overflow in the planner), 500 do not.
MAX_OPERATORS = 250
_EXAMPLES = "array_has(labels, 'cat'), key LIKE 'holiday/%', size > 100000"

_QUOTED = re.compile(r"'(?:[^']|'')*'|`[^`]*`")
_OPERATOR = re.compile(r"::|[-+*/%|&^<>=!~]+")
_WORD = re.compile(r"\b[^\W\d]\w*\b(?!\s*\()")  # that is not called
# A chain of the first three of any length does no harm; the last are values. All others count as
# operators: the planner calls itself for many of them.
_FREE = re.compile(r"and|or|xor|false|infinity|nan|null|true", re.IGNORECASE)
_KEYWORD = re.compile(
    r"array|as|at|between|cast|collate|distinct|div|escape|from|ilike|in|interval|is|like|not"
    r"|regexp|rlike|similar|to|try_cast|unknown|with|without|zone"
    r"|bigint|bool|boolean|char|date|decimal|double|float|int|integer|numeric|precision|real"
    r"|smallint|string|text|time|timestamp|tinyint|unsigned|varchar",
    re.IGNORECASE,
)
_NO_FIELD = re.compile(r"No field named (.+?)\. ")


def check_where(where: object, columns: Collection[str]) -> str:
    """The expression, in parentheses, or an error that says what is wrong with it.

    Args:
        where: the expression.
        columns: that it may name.

    Raises:
        InputError: the text is no single expression, or names what is no column.
    """
    if not isinstance(where, str) or not where.strip():
        raise InputError(f"a filter is a text such as {_EXAMPLES}; got {where!r}.")
    if len(where) > MAX_CHARACTERS:
        raise InputError(
            f"the filter has {len(where):,} characters; at most {MAX_CHARACTERS:,} are allowed."
        )
    bare = _QUOTED.sub(" ? ", where)
    reason = _objection(bare, columns)
    if reason:
        raise InputError(f"the filter {_shown(where)} cannot be used: {reason}.")
    return f"({where})"


def _objection(bare: str, columns: Collection[str]) -> str | None:
    """What is wrong with an expression whose quoted parts were taken out."""
    for mark, reason in (
        (";", "it is one expression, without ';'"),
        ("--", "comments ('--') are not allowed; put a space between two minus signs"),
        ("/*", "comments ('/*') are not allowed"),
        ('"', "texts stand in 'single quotes', unusual column names in `backticks`"),
        ("'", "a single quote is not closed; a quote inside a text is doubled ('it''s')"),
        ("`", "a backtick is not closed"),
        ("\0", "it contains a NUL character"),
    ):
        if mark in bare:
            return reason
    depth = 0
    for character in bare:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            break
    if depth != 0:
        return "its parentheses do not match"
    names = {name.casefold() for name in columns}
    words = [word for word in _WORD.findall(bare) if word.casefold() not in names]
    words = [word for word in words if not _FREE.fullmatch(word)]
    unknown = next((word for word in words if not _KEYWORD.fullmatch(word)), None)
    if unknown is not None:
        return f"there is no column {unknown!r}. The columns are: {', '.join(columns)}"
    operators = len(_OPERATOR.findall(bare)) + len(words)
    if operators > MAX_OPERATORS:
        return (
            f"it has {operators:,} operators, at most {MAX_OPERATORS} are allowed; for many values "
            "write key IN ('a', 'b', ...)"
        )
    return None


def matching_ids(dataset: Any, where: str, columns: Sequence[str]) -> NDArray[np.int64]:
    """Ids of the items for which the expression is true.

    Args:
        dataset: Lance dataset at the snapshot's version.
        where: the expression.
        columns: names to tell the user when one is unknown.

    Returns:
        int64 [n], in no particular order.

    Raises:
        InputError: the expression cannot be evaluated.
    """
    expression = check_where(where, columns)
    with _explained(where, columns):
        found = dataset.to_table(columns=["id"], filter=expression)
    ids: NDArray[np.int64] = found["id"].to_numpy()
    return ids


def filtered(
    dataset: Any, where: str, names: Sequence[str], columns: Sequence[str]
) -> Iterator[Any]:
    """Stored columns of the items for which the expression is true, a batch at a time.

    Args:
        dataset: Lance dataset at the snapshot's version.
        where: the expression.
        names: columns to read.
        columns: names to tell the user when one is unknown.

    Raises:
        InputError: the expression cannot be evaluated.
    """
    expression = check_where(where, columns)
    with _explained(where, columns):
        yield from dataset.to_batches(columns=list(names), filter=expression)


@contextmanager
def _explained(where: str, columns: Sequence[str]) -> Iterator[None]:
    """Raise what goes wrong with a filter inside in our words."""
    try:
        yield
    except Exception as error:
        raise _explain(error, where, columns) from error
    except BaseException as error:
        if is_panic(error):
            raise _explain(error, where, columns) from error
        raise


def _explain(error: BaseException, where: str, columns: Sequence[str]) -> SpherequantError:
    """The error in our words: Lance's own text names its source files and internal types."""
    text = str(error)
    if "(os error" in text or "Not found:" in text:
        return translate(error, "cannot evaluate the filter")
    unknown = _NO_FIELD.search(text)
    if unknown:
        name = unknown.group(1).strip("\"'`")
        reason = f"there is no column {name!r}. The columns are: {', '.join(columns)}"
    elif "parser error" in text or "tokenizing" in text:
        reason = "it is no valid expression"
    elif "return a boolean" in text:
        reason = "it is no condition, true or false for each item"
    elif "Invalid function" in text or "No function matches" in text:
        reason = "it calls a function that does not exist, or with values of other types"
    elif "convert to literal" in text or "Cast error" in text or "type" in text.lower():
        reason = (
            "it compares values of different types (labels is a list: array_has(labels, 'cat'))"
        )
    else:
        reason = "it cannot be evaluated"
    return InputError(f"the filter {_shown(where)} cannot be used: {reason}. Examples: {_EXAMPLES}")


def _shown(where: str) -> str:
    return repr(where if len(where) <= 200 else where[:200] + "...")
