"""Rows of items.lance written in the place of others, in one commit that no other writer's passes.

Lance checks a commit against those made since the version that it was planned on, by the files
that both name: two writers that each add a row name no file in common, and both would win. So every
commit here names the oldest file too, as it was: of two planned on one version, Lance refuses the
second, which looks again and plans again. That is what keeps keys unique; a merge-insert does so by
comparing every stored key, which takes seconds at 100 million items.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lance
import numpy as np
from lance.fragment import write_fragments

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray


def replace_rows(
    dataset: Any, rows: pa.Table | pa.RecordBatchReader, gone: NDArray[np.uint64]
) -> Any:
    """Commit new rows and drop others, both or neither.

    Args:
        dataset: the version that the change was planned on.
        rows: what to add, of the data set's schema.
        gone: row addresses of what is replaced.

    Returns:
        The data set at the version that was committed.

    Raises:
        OSError: a conflict (``faults.is_conflict``): another writer has committed since.
    """
    thinned, removed = _without(dataset, gone)
    added = write_fragments(rows, dataset, mode="append")
    oldest = oldest_fragment(dataset)
    if oldest is None:
        # Of no other commit of rows does Lance let this one come second.
        operation = lance.LanceOperation.Merge(added, dataset.lance_schema)
    else:
        if oldest not in thinned and oldest not in removed:
            thinned[oldest] = dataset.get_fragment(oldest).metadata
        operation = lance.LanceOperation.Update(
            removed_fragment_ids=removed,
            updated_fragments=list(thinned.values()),
            new_fragments=added,
        )
    return lance.LanceDataset.commit(
        dataset, operation, read_version=dataset.version, max_retries=0
    )


def remove_rows(dataset: Any, gone: NDArray[np.uint64]) -> Any:
    """Commit that rows are no longer there.

    Args:
        dataset: the version that the removal was planned on.
        gone: row addresses, at least one.

    Returns:
        The data set at the version that was committed.

    Raises:
        OSError: a conflict: another writer has changed one of the files since.
    """
    thinned, removed = _without(dataset, gone)
    operation = lance.LanceOperation.Delete(list(thinned.values()), removed, "id IN (...)")
    return lance.LanceDataset.commit(
        dataset, operation, read_version=dataset.version, max_retries=0
    )


def oldest_fragment(dataset: Any) -> int | None:
    """The lowest number of a file of rows; None where there is none.

    Numbers only rise, so as long as the oldest file is there, every writer names the same one; and
    who removes it conflicts with those who name it.
    """
    return min((fragment.fragment_id for fragment in dataset.get_fragments()), default=None)


def _without(dataset: Any, gone: NDArray[np.uint64]) -> tuple[dict[int, Any], list[int]]:
    """The files that hold these rows, without them; and the numbers of those left with none."""
    thinned: dict[int, Any] = {}
    removed: list[int] = []
    numbers = gone >> np.uint64(32)
    for number in np.unique(numbers).tolist():
        listed = ", ".join(map(str, gone[numbers == number].tolist()))
        left = dataset.get_fragment(number).delete(f"_rowaddr IN ({listed})")
        if left is None:
            removed.append(number)
        else:
            thinned[number] = left
    return thinned, removed
