"""Room 5: codes and what is known of each item, kept, changed and searched. No torch.

``Index`` is the door. Inside, one subject a file:

    header      index.json: what an index is made of, and what it refuses
    creation    a new index, whole or not at all
    arguments   what callers hand over, checked
    incoming    the same, embedded and encoded: rows
    columns     the columns of items.lance, the user's own among them
    versions    items.lance opened, with caches that are shared and bounded
    keys        items found by their key
    catalogue   items.lance: upserts, changes, removals, ids that are given once
    replacing   rows in the place of others, in one commit that none passes
    commits     many small writes share one commit
    leases      which versions an open snapshot still needs
    upkeep      compaction and cleaning, behind the writers
    filters     ``where``: a filter expression, and nothing else
    scan        exact top-k of the codes
    segments    ids and codes of a version in memory, and how they follow the next one
    cache       the same in a file, to open fast
    merging     what has gathered since is merged, behind the readers
    searcher    an immutable snapshot that answers searches
    counts      how many items have each label and value
    duplicates  pictures that are nearly the same, and equal files
    originals   the file that an item was made from
    sync        an index brought up to date with a source of images
    comparison  the speed of searches beside that of other libraries
    faiss_files our codes as an index of FAISS, and back
    footprint   bytes in memory and on disk, counted while others write
    embedder    the only place that meets networks
    faults      errors of Lance and of the disk, said in our words
"""

from __future__ import annotations

import os

# Lance logs to stderr what it then also raises; it looks when it is first imported.
os.environ.setdefault("LANCE_LOG", "error")

from spherequant.index.columns import infer_metadata_columns
from spherequant.index.counts import Counts
from spherequant.index.duplicates import (
    DuplicateGroup,
    DuplicateGroups,
    GroupMember,
    NearDuplicate,
)
from spherequant.index.embedder import BatchEmbedder, Embedder, load_embedder
from spherequant.index.footprint import Footprint
from spherequant.index.index import Index
from spherequant.index.searcher import Hit, Searcher, SearchResult, StoredItem
from spherequant.index.sync import SyncReport

__all__ = [
    "BatchEmbedder",
    "Counts",
    "DuplicateGroup",
    "DuplicateGroups",
    "Embedder",
    "Footprint",
    "GroupMember",
    "Hit",
    "Index",
    "NearDuplicate",
    "SearchResult",
    "Searcher",
    "StoredItem",
    "SyncReport",
    "infer_metadata_columns",
    "load_embedder",
]
