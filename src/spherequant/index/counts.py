"""How many items have each label, and each value of a column, in bounded memory."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from spherequant.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# Of a column with more values none is counted: they are rather names than kinds.
MAX_DISTINCT = 100_000


@dataclass(frozen=True, slots=True)
class Counts:
    """The values of one column.

    Attributes:
        values: values and the number of items that have them, the most frequent first.
        distinct: how many values there are; None where there are more than ``MAX_DISTINCT``, of
            which none is counted.
        empty: items without a value.
    """

    values: list[tuple[str | int, int]]
    distinct: int | None
    empty: int


def countable(metadata: Mapping[str, str], names: Sequence[str] | None) -> list[str]:
    """The columns to count.

    Args:
        metadata: name -> type of the user's columns.
        names: those asked for; None for all that can be counted.

    Raises:
        InputError: one of them cannot be counted.
    """
    known = ["labels", *(name for name, kind in metadata.items() if kind != "float64")]
    if names is None:
        return known
    for name in names:
        if name not in known:
            raise InputError(
                f"the values of {name!r} cannot be counted; those of {', '.join(known)} can."
            )
    return list(dict.fromkeys(names))


def count_values(batches: Iterable[Any], names: Sequence[str], limit: int) -> dict[str, Counts]:
    """Count what stands in columns.

    Args:
        batches: Arrow batches with these columns.
        names: the columns.
        limit: most values to name of each.
    """
    counters = {name: _Counter() for name in names}
    for batch in batches:
        for name, counter in counters.items():
            counter.take(batch[name])
    return {name: counter.counts(limit) for name, counter in counters.items()}


class _Counter:
    """Counts the values of one column."""

    def __init__(self) -> None:
        self._found: Counter[Any] | None = Counter()
        self._empty = 0

    def take(self, column: pa.Array) -> None:
        if pa.types.is_list(column.type):
            filled = pc.sum(pc.greater(pc.list_value_length(column), 0)).as_py()
            self._empty += len(column) - (filled or 0)
            # A label that an item has twice counts once.
            pairs = pa.table({"item": pc.list_parent_indices(column), "value": column.flatten()})
            column = pairs.group_by(["item", "value"]).aggregate([])["value"]
        else:
            self._empty += column.null_count
        if self._found is None:
            return
        for pair in pc.value_counts(column.drop_null()).to_pylist():
            self._found[pair["values"]] += pair["counts"]
        if len(self._found) > MAX_DISTINCT:
            self._found = None

    def counts(self, limit: int) -> Counts:
        if self._found is None:
            return Counts([], None, self._empty)
        ordered = sorted(self._found.items(), key=lambda pair: (-pair[1], pair[0]))
        return Counts(ordered[:limit], len(self._found), self._empty)
