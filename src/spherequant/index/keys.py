"""Items of items.lance found by their key, through Lance's index of that column.

The index is a B-tree that Lance keeps beside the rows. It covers the files that were there when it
was last brought up to date; the others are read whole, so upkeep has it follow what is added, in
pieces that are merged size class by size class: a key is rewritten a few times in its life.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

KEY_INDEX = "key_index"
AnyT = TypeVar("AnyT")

# Bounds the text of one filter: about 100 bytes a key.
_LOOKUP_KEYS = 2_000
# Reading the keys of so many items costs what looking up one key in the index does.
_READ_FOR_ONE = 500
_SCAN_ROWS = 65_536
# A piece of the index is merged with those after it unless it is so many times as large.
_GROWTH = 4


def quote(text: str) -> str:
    """``text`` as an SQL string literal."""
    return "'" + text.replace("'", "''") + "'"


def create_key_index(dataset: Any) -> None:
    """Give an empty data set the index of its keys."""
    dataset.create_scalar_index("key", "BTREE", name=KEY_INDEX)


def follow_keys(dataset: Any) -> None:
    """Bring the index of the keys up to date with what was added.

    Pieces of the index that are not much larger than what comes are merged with it: there are never
    more than the logarithm of the number of items, and a key is written as often in its life.
    """
    facts = dataset.stats.index_stats(KEY_INDEX)
    fresh = facts["num_unindexed_rows"]
    if not fresh:
        return
    merged = 0
    for rows in reversed(facts["num_indexed_rows_per_delta"]):
        if rows > _GROWTH * fresh:
            break
        fresh += rows
        merged += 1
    dataset.optimize.optimize_indices(num_indices_to_merge=merged, index_names=[KEY_INDEX])


def find_rows(dataset: Any, keys: Sequence[str], names: Sequence[str]) -> pa.Table:
    """Stored columns of the items with these keys, in no particular order.

    Args:
        dataset: Lance dataset at some version.
        keys: what to look for; unknown keys are passed over.
        names: columns to read.

    Returns:
        One row for each key that is stored, with ``_rowaddr`` (uint64), where the row lies.
    """
    unique = list(dict.fromkeys(keys))
    if len(unique) * _READ_FOR_ONE > dataset.count_rows():
        tables = list(_matching(dataset, unique, names))
    else:
        tables = [
            dataset.to_table(columns=list(names), filter=_among(some), with_row_address=True)
            for some in chunks(unique, _LOOKUP_KEYS)
        ]
    if tables:
        return pa.concat_tables(tables)
    fields = [dataset.schema.field(name) for name in names]
    return pa.schema([*fields, pa.field("_rowaddr", pa.uint64())]).empty_table()


def _matching(dataset: Any, keys: list[str], names: Sequence[str]) -> Iterator[pa.Table]:
    """The same by reading everything, a batch at a time."""
    wanted = pa.array(keys, pa.string())
    batches = dataset.scanner(
        columns=list(dict.fromkeys(["key", *names])), with_row_address=True, batch_size=_SCAN_ROWS
    ).to_batches()
    for batch in batches:
        found = batch.filter(pc.is_in(batch["key"], value_set=wanted))
        if found.num_rows:
            yield pa.Table.from_batches([found]).select([*names, "_rowaddr"])


def _among(keys: Sequence[str]) -> str:
    return f"key IN ({', '.join(map(quote, keys))})"


def rows_at(
    dataset: Any, addresses: NDArray[np.integer[Any]], names: Sequence[str]
) -> Iterator[dict[str, Any]]:
    """Stored columns of the rows at these addresses, in no particular order."""
    for some in chunks(addresses.tolist(), _LOOKUP_KEYS):
        listed = ", ".join(map(str, some))
        table = dataset.to_table(columns=list(names), filter=f"_rowaddr IN ({listed})")
        yield from table.to_pylist()


def chunks(values: Sequence[AnyT], size: int) -> Iterator[Sequence[AnyT]]:
    """The values in order, so many at a time."""
    return (values[start : start + size] for start in range(0, len(values), size))
