"""The columns of items.lance: ours, and one for each metadata name of the user.

Types of the user's columns are fixed when the index is made, or else by the first items that come
into it. Text from a labels.csv is read into them; an empty text is null.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from spherequant.errors import ConfigError, InputError
from spherequant.images.listing import is_unicode
from spherequant.index.header import METADATA_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from spherequant.images import Item
    from spherequant.index.header import Header

OURS = (
    "id",
    "key",
    "changed",
    "code",
    "labels",
    "source",
    "root",
    "size",
    "mtime",
    "digest",
    "phash",
    "thumbnail",
    "original",
    "vector",
)
TYPES = dict(zip(METADATA_TYPES, (pa.int64(), pa.float64(), pa.string()), strict=True))
Value = int | float | str | None
CHANGED = pa.field("changed", pa.timestamp("us", "UTC"), nullable=False)

# "007" is a name and not a number: reading it as 7 would lose it. So is an underscore in "1_000".
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]{0,18})")
_FLOAT = re.compile(r"[+-]?(0|[1-9][0-9]*)?(\.[0-9]*)?([eE][+-]?[0-9]+)?")
_WHOLE = re.compile(r"[+-]?[0-9]+")
_INT64 = range(-(2**63), 2**63)


def schema(header: Header) -> pa.Schema:
    """The Arrow schema of items.lance for an index with this header."""
    # Lance's unenforced primary key: of two writers who insert one new key, the second fails and
    # plans again, instead of storing the key twice.
    primary = {"lance-schema:unenforced-primary-key": "true"}
    fields = [
        pa.field("id", pa.int64(), nullable=False),
        pa.field("key", pa.string(), nullable=False, metadata=primary),
        CHANGED,
        pa.field("code", pa.list_(pa.uint8(), header.n_codebooks), nullable=False),
        pa.field("labels", pa.list_(pa.string())),
        pa.field("source", pa.string()),
        pa.field("root", pa.string()),
        pa.field("size", pa.int64()),
        pa.field("mtime", pa.float64()),
        pa.field("digest", pa.string()),
        pa.field("phash", pa.uint64()),
    ]
    if header.thumbnails:
        fields.append(pa.field("thumbnail", pa.binary()))
    # Lance keeps a blob apart from what scans read, and gives it only when it is asked for.
    fields.append(pa.field("original", pa.large_binary(), metadata={"lance-encoding:blob": "true"}))
    if header.keep_vectors:
        fields.append(pa.field("vector", pa.list_(pa.float16(), header.dim)))
    fields += [pa.field(name, TYPES[kind]) for name, kind in header.metadata.items()]
    return pa.schema(fields)


def decided(header: Header, stored: pa.Schema) -> Header:
    """The header with the user's columns that a version of items.lance has.

    Only an index that was made without a word on them leaves that to items.lance.
    """
    if not header.undecided:
        return header
    kinds = {kind: name for name, kind in TYPES.items()}
    own = [field for field in stored if field.name not in OURS]
    return replace(header, metadata={field.name: str(kinds.get(field.type)) for field in own})


def with_nulls(table: pa.Table, stored: pa.Schema) -> pa.Table:
    """The rows with null in columns of the user that they lack, columns in the stored order."""
    for field in stored:
        if field.name not in OURS and field.name not in table.schema.names:
            table = table.append_column(field, pa.nulls(table.num_rows, field.type))
    return table.select([name for name in stored.names if name in table.schema.names])


def type_name(kind: pa.DataType) -> str:
    """What a column holds, in the words of this project."""
    if pa.types.is_list(kind):
        return f"list of {kind.value_type}"
    if pa.types.is_timestamp(kind):
        return "timestamp"
    return "float64" if pa.types.is_float64(kind) else str(kind)


def check_metadata_columns(columns: Mapping[str, str]) -> dict[str, str]:
    """The user's columns, checked: names that Lance can hold, known types, no clash.

    Raises:
        ConfigError: a name or a type cannot be used; the message names the cure.
    """
    taken = {name: name for name in OURS}
    for name, kind in columns.items():
        if kind not in TYPES:
            raise ConfigError(
                f"metadata column {name!r} has the type {kind!r}; it may be {', '.join(TYPES)}."
            )
        if not isinstance(name, str) or not name.strip() or len(name) > 200:
            raise ConfigError(f"{name!r} cannot name a metadata column: 1 to 200 characters.")
        if name.startswith("_") or any(c in ".`\\" or not c.isprintable() for c in name):
            raise ConfigError(
                f"{name!r} cannot name a metadata column: no leading '_', no '.', '`', backslash "
                "or control character. Give it another name."
            )
        # Filters do not tell upper from lower case.
        other = taken.get(name.casefold())
        if other is not None:
            owner = "a column of the index itself" if other in OURS else f"the column {other!r}"
            raise ConfigError(
                f"metadata column {name!r} clashes with {owner}. Give it another name, for "
                f"example {name + '_value'!r}."
            )
        taken[name.casefold()] = name
    return dict(columns)


def infer_metadata_columns(items: Iterable[Item]) -> dict[str, str]:
    """Name -> type of the metadata that listed images carry.

    A column is ``int64`` when every text in it is a whole number, else ``float64`` when every text
    is a number and no whole number is rounded by it, else ``string``. Empty texts do not count.

    Args:
        items: listed images, with the further columns of labels.csv in ``metadata``.

    Returns:
        Columns for ``Index.create(metadata_columns=...)``, in order of first appearance.

    Raises:
        ConfigError: a name cannot be a column.
    """
    kinds: dict[str, str | None] = {}
    rounded: set[str] = set()
    for item in items:
        for name, text in item.metadata.items():
            kinds[name] = _wider(kinds.get(name), text)
            if _is_rounded(text):
                rounded.add(name)
    for name in rounded:
        kinds[name] = "string" if kinds[name] == "float64" else kinds[name]
    return check_metadata_columns({name: kind or "string" for name, kind in kinds.items()})


def columns_of_values(
    metadata: Sequence[Mapping[str, object] | None], keys: Sequence[str]
) -> dict[str, str]:
    """Name -> type of metadata that a caller gives: the narrowest that holds every value.

    Args:
        metadata: for each item a mapping from name to value, or None.
        keys: of the items, for messages.

    Raises:
        InputError: a name cannot be a column, or a value fits no column, or not the one that the
            others of its name need.
    """
    found: dict[str, str] = {}
    given = [(key, as_mapping(values, key)) for key, values in zip(keys, metadata, strict=True)]
    for _, values in given:
        for name, value in values.items():
            found[name] = _kind_of(value, found.get(name, ""))
    try:
        kinds = check_metadata_columns({name: kind or "string" for name, kind in found.items()})
    except ConfigError as error:
        raise InputError(str(error)) from None
    for key, values in given:
        for name, value in values.items():
            check_value(name, value, kinds[name], key)
    return kinds


def as_mapping(values: object, key: str) -> Mapping[str, object]:
    """The metadata of one item, empty for None.

    Raises:
        InputError: no mapping, or not from texts.
    """
    if values is None:
        return {}
    if isinstance(values, Mapping) and all(isinstance(name, str) for name in values):
        return values
    raise InputError(f"metadata of {key!r} maps names of columns to values; got {values!r}.")


def _kind_of(value: object, kind: str) -> str:
    """The type of a column of type ``kind`` so far (none when empty) that ``value`` comes to."""
    if value is None or kind == "string":
        return kind
    if isinstance(value, (float, np.floating)):
        return "float64"
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return kind or "int64"
    return "string"


def _wider(kind: str | None, text: str) -> str | None:
    """The narrowest type for a column of type ``kind`` so far that also holds ``text``."""
    text = text.strip()
    if not text or kind == "string":
        return kind
    if _INTEGER.fullmatch(text) and int(text) in _INT64:
        return kind or "int64"
    return "float64" if _is_float(text) else "string"


def _is_float(text: str) -> bool:
    # Any digit must be there ("." and "e5" match the pattern's optional parts).
    if not _FLOAT.fullmatch(text) or not text.lstrip("+-.")[:1].isdigit():
        return False
    return math.isfinite(float(text))


def _is_rounded(text: str) -> bool:
    """Whether a text is a whole number that float64 does not hold exactly, as long ids are."""
    digits = text.strip()
    # 15 digits always fit and 310 never do; int() refuses texts of several thousand.
    if not 15 < len(digits) < 312 or not _WHOLE.fullmatch(digits):
        return False
    value = float(digits)
    return not math.isfinite(value) or int(digits) != int(value)


def parse_text(text: str, kind: str) -> Value:
    """A text of labels.csv as a value of ``kind``; empty text is None.

    Raises:
        ValueError: the text is no such value.
    """
    if kind == "string":
        return text or None
    text = text.strip()
    if not text:
        return None
    if kind == "int64":
        if not _INTEGER.fullmatch(text) or int(text) not in _INT64:
            raise ValueError(f"{text!r} is no int64")
        return int(text)
    if not _is_float(text):
        raise ValueError(f"{text!r} is no float64")
    return float(text)


def check_value(name: str, value: object, kind: str, key: str) -> Value:
    """A metadata value that a caller gave, as a value of the column's type.

    Raises:
        InputError: the value does not fit the column.
    """
    if value is None:
        return None
    if kind == "string":
        if isinstance(value, str) and is_unicode(value):
            return value
    elif isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        if kind == "float64":
            with suppress(OverflowError):  # a whole number beyond every float
                # As in labels.csv, no long id is rounded.
                if isinstance(value, (float, np.floating)) or int(float(value)) == value:
                    return float(value)
        elif value == value // 1 and int(value) in _INT64:  # whole; NaN and infinity are not
            return int(value)
    raise InputError(
        f"metadata {name!r} of {key!r} is {value!r}, which does not fit the column's type {kind}."
    )


@dataclass(frozen=True, slots=True)
class Rows:
    """Items on their way into the catalogue; every sequence has one entry for each item.

    Attributes:
        keys: their keys.
        codes: uint8 [n, M].
        labels: tuples of labels.
        metadata: values of the user's columns.
        vectors: float32 [n, D] unit vectors, where the index keeps them.
        thumbnails: JPEG bytes or None.
        sizes: bytes of the encoded images.
        mtimes: seconds since the epoch.
        digests: sha256 hex of the encoded images.
        phashes: perceptual hashes, or None.
        originals: the encoded images, where they are kept.
        source: name of the source they come from.
        root: its root.
    """

    keys: Sequence[str]
    codes: NDArray[np.uint8]
    labels: Sequence[Sequence[str]]
    metadata: Sequence[Mapping[str, Value]]
    vectors: NDArray[np.float32] | None = None
    thumbnails: Sequence[bytes | None] | None = None
    sizes: Sequence[int | None] | None = None
    mtimes: Sequence[float | None] | None = None
    digests: Sequence[str | None] | None = None
    phashes: Sequence[int | None] | None = None
    originals: Sequence[bytes | None] | None = None
    source: str | None = None
    root: str | None = None

    def table(self, header: Header) -> pa.Table:
        """These rows as an Arrow table of every column but ``id`` and ``changed``."""
        n = len(self.keys)
        empty = [None] * n
        codes = pa.array(np.ascontiguousarray(self.codes, np.uint8).reshape(-1))
        columns: dict[str, Any] = {
            "key": list(self.keys),
            "code": pa.FixedSizeListArray.from_arrays(codes, header.n_codebooks),
            "labels": [list(some) for some in self.labels],
            "source": [self.source] * n,
            "root": [self.root] * n,
            "size": self.sizes or empty,
            "mtime": self.mtimes or empty,
            "digest": self.digests or empty,
            "phash": self.phashes or empty,
            "original": self.originals or empty,
        }
        if header.thumbnails:
            columns["thumbnail"] = self.thumbnails or empty
        if header.keep_vectors:
            halves = np.ascontiguousarray(self.vectors, np.float16).reshape(-1)
            columns["vector"] = pa.FixedSizeListArray.from_arrays(pa.array(halves), header.dim)
        for name in header.metadata:
            columns[name] = [values.get(name) for values in self.metadata]
        wanted = pa.schema([f for f in schema(header) if f.name not in ("id", "changed")])
        return pa.Table.from_arrays(
            [
                column
                if isinstance(column, pa.Array)
                else pa.array(column, wanted.field(name).type)
                for name, column in ((name, columns[name]) for name in wanted.names)
            ],
            schema=wanted,
        )
