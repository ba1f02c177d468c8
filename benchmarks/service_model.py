"""What a service must answer: its items as a dictionary, searched by brute force.

The model knows what was acknowledged and what is on its way. While a question is open (a
``Window``), each key may stand in any of the states that it had or was given meanwhile; an answer
that fits none of them is wrong. Scores are compared to the bit.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from spherequant.quantizer import normalise_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from spherequant.quantizer import Codebooks

    Vector = NDArray[np.float32]

# A table's entry in float64 and in the definition's float32.
_TABLE_TOLERANCE = 1e-5


class WrongAnswerError(Exception):
    """An answer that no state of the items explains."""


@dataclass(eq=False, slots=True)
class State:
    """One state of an item.

    Attributes:
        key: of the item.
        code: its M bytes.
        labels: all of them.
        metadata: value of each column.
        digest: sha256 of its image in hex, None for what was put as a vector.
        id: None until the service has told it.
    """

    key: str
    code: bytes
    labels: tuple[str, ...]
    metadata: Mapping[str, Any]
    digest: str | None = None
    id: int | None = None

    def is_told_by(self, item: Mapping[str, Any]) -> bool:
        """Whether an answer about the item says exactly this."""
        return (
            item["key"] == self.key
            and tuple(item["labels"]) == self.labels
            and item["metadata"] == self.metadata
            and item["digest"] == self.digest
            and item["original"] == (self.digest is not None)
            and self.id in (None, item["id"])
        )


@dataclass(slots=True)
class Window:
    """What may be true while a question is open.

    Attributes:
        settled: what was acknowledged when it was asked.
        further: key -> states that it may have instead; None for no item.
    """

    settled: dict[str, State]
    further: dict[str, list[State | None]]

    def possible(self, key: str) -> list[State | None]:
        """The states in which the key may be."""
        return [self.settled.get(key), *self.further.get(key, ())]

    def certain(self) -> list[State]:
        """Items that nobody touches meanwhile."""
        return [state for key, state in self.settled.items() if key not in self.further]

    def uncertain(self) -> dict[str, list[State | None]]:
        """The other keys with their possible states."""
        return {key: self.possible(key) for key in self.further}


@dataclass(slots=True)
class ModelItems:
    """What was acknowledged, and what is on its way: one write a key at a time.

    Attributes:
        current: the acknowledged state of each item.
        on_the_way: key -> the state that is asked for, None for a removal.
        ids: all that were ever told, of removed items too.
        acknowledged: how many writes of an item were.
    """

    current: dict[str, State] = field(default_factory=dict)
    on_the_way: dict[str, State | None] = field(default_factory=dict)
    ids: set[int] = field(default_factory=set)
    acknowledged: int = 0
    _open: list[Window] = field(default_factory=list)

    @contextmanager
    def window(self) -> Iterator[Window]:
        """The states that are possible while the block runs."""
        window = Window(dict(self.current), {k: [s] for k, s in self.on_the_way.items()})
        self._open.append(window)
        try:
            yield window
        finally:
            self._open = [other for other in self._open if other is not window]

    def begin(self, key: str, wanted: State | None) -> None:
        """A write of this key is about to be sent."""
        before = self.current.get(key)
        if wanted is not None and before is not None:
            wanted.id = before.id
        self.on_the_way[key] = wanted
        for window in self._open:
            window.further.setdefault(key, []).append(wanted)

    def acknowledge(self, key: str, number: int | None = None) -> None:
        """The write was answered.

        Args:
            key: of the item.
            number: the id that was told, None of a removal.

        Raises:
            WrongAnswerError: the id is another item's, or not the one that the item had.
        """
        self.acknowledged += 1
        self.adopt(key, self.on_the_way[key], number)

    def adopt(self, key: str, state: State | None, number: int | None = None) -> None:
        """This is how the item stands; see ``acknowledge``."""
        self.on_the_way.pop(key, None)
        if state is None:
            self.current.pop(key, None)
            return
        known, state.id = state.id, number
        self.current[key] = state
        if number is None or (known is not None and known != number):
            raise WrongAnswerError(f"{key!r} had the id {known} and is told as {number}")
        if known is None and number in self.ids:
            raise WrongAnswerError(f"{key!r} was given the id {number} of another item")
        self.ids.add(number)


class Scoring:
    """The definition of a score, in NumPy.

    Args:
        codebooks: of the index.
    """

    def __init__(self, codebooks: Codebooks) -> None:
        self._codebooks = codebooks
        self.dim = codebooks.dim

    def unit(self, vector: Sequence[float]) -> Vector:
        """What a vector of a request asks with, float32 [D]."""
        return np.asarray(normalise_rows(np.array([vector], np.float64))[0])

    def reconstruction(self, code: bytes) -> Vector:
        """What a key asks with, float32 [D]."""
        decoded = self._codebooks.decode(np.frombuffer(code, np.uint8)[None])
        return np.asarray(normalise_rows(decoded)[0])

    def scores(self, query: Vector, states: Sequence[State]) -> NDArray[np.float32]:
        """The score of each state: the float32 sum of its M entries of the query's table, [N]."""
        table = self._codebooks.lookup_table(query[None])[0]
        plain = self._codebooks.array.astype(np.float64) @ query.astype(np.float64)
        if not np.allclose(table, plain, rtol=0, atol=_TABLE_TOLERANCE):
            raise WrongAnswerError("a table of inner products is none")
        joined = b"".join(state.code for state in states)
        codes = np.frombuffer(joined, np.uint8).reshape(len(states), len(table))
        total = np.zeros(len(states), np.float32)
        for entries, places in zip(table, codes.T, strict=True):
            total += entries[places]
        return total


@dataclass(frozen=True, slots=True)
class Asked:
    """A search.

    Attributes:
        query: float32 [D], of length one.
        k: results wanted.
        offset: better ones to pass over.
        label: items that carry it, None for all.
        since: items whose ``serial`` is at least this, None for all.
        min_score: least score, None for any.
        without: key of the item that asks.
    """

    query: Vector
    k: int
    offset: int = 0
    label: str | None = None
    since: int | None = None
    min_score: float | None = None
    without: str | None = None

    @property
    def where(self) -> str | None:
        """The filter as the service takes it."""
        parts = [] if self.label is None else [f"array_has(labels, '{self.label}')"]
        if self.since is not None:
            parts.append(f"serial >= {self.since}")
        return " AND ".join(parts) or None

    def allows(self, state: State, score: np.float32) -> bool:
        """Whether a state may be among the results."""
        return bool(
            state.key != self.without
            and (self.label is None or self.label in state.labels)
            and (self.since is None or state.metadata["serial"] >= self.since)
            and (self.min_score is None or score >= np.float32(self.min_score))
        )


@dataclass(frozen=True, slots=True)
class Scored:
    """A state, or the hit that shows it, with its score."""

    state: State
    score: np.float32

    def before(self, other: Scored) -> bool:
        """Whether it surely comes first: by score, then by age where both ids are known."""
        if self.score != other.score:
            return bool(self.score > other.score)
        mine, theirs = self.state.id, other.state.id
        return mine is not None and theirs is not None and mine < theirs


def allowed(
    scoring: Scoring, asked: Asked, states: Iterable[State | None], least: float = -np.inf
) -> list[Scored]:
    """Those of the states that may be among the results and score enough, with their scores."""
    items = [state for state in states if state is not None]
    scores = scoring.scores(asked.query, items)
    scored = [Scored(items[place], scores[place]) for place in np.flatnonzero(scores >= least)]
    return [one for one in scored if asked.allows(one.state, one.score)]


def expected(scoring: Scoring, asked: Asked, states: Iterable[State]) -> list[Scored]:
    """All results that are not cut off by ``k``, in their order, when nothing else is going on."""
    found = allowed(scoring, asked, states)
    found.sort(key=lambda one: (-one.score, one.state.id))
    return found[asked.offset :]


def check_exactly(hits: Sequence[Mapping[str, Any]], results: Sequence[Scored]) -> None:
    """Compare an answer with the results that it must have, from the first one on.

    Raises:
        WrongAnswerError: it has others.
    """
    for rank, (hit, result) in enumerate(zip(hits, results, strict=False), start=1):
        if hit["rank"] != rank or not _shows(hit, result):
            raise WrongAnswerError(f"result {rank} is {hit} and should be {_described(result)}")
    if len(hits) != len(results):
        raise WrongAnswerError(f"{len(hits)} results instead of {len(results)}")


def check_search(
    scoring: Scoring, window: Window, asked: Asked, answer: Mapping[str, Any]
) -> list[Scored]:
    """Compare an answer with what may be true; give what its hits show.

    Raises:
        WrongAnswerError: a hit that no state explains, another order, an item that is missing.
    """
    hits = answer["results"]
    if len(hits) > asked.k:
        raise WrongAnswerError(f"{len(hits)} results where {asked.k} were asked for")
    unsure = {key: allowed(scoring, asked, states) for key, states in window.uncertain().items()}
    # Of a full page: what scores less than all of it is no matter.
    least = min((hit["score"] for hit in hits), default=0.0) if len(hits) == asked.k else -np.inf
    sure = allowed(scoring, asked, window.certain(), least)
    by_key = unsure | {one.state.key: [one] for one in sure}
    found = [_explained(hit, by_key.get(hit["key"], [])) for hit in hits]
    _check_order(asked, hits, found)
    _check_complete(asked, found, sure, unsure)
    _check_total(window, answer["total"])
    return found


def check_item(window: Window, key: str, status: int, item: Any) -> None:
    """Compare an answer about one item with what may be true.

    Raises:
        WrongAnswerError: the item cannot be so.
    """
    possible = window.possible(key)
    if not any(is_so(state, status, item) for state in possible):
        raise WrongAnswerError(f"{key!r} is answered {status} {item} and may be {possible}")


def is_so(state: State | None, status: int, item: Any) -> bool:
    """Whether the answer to a question about one item says that it is in this state."""
    if state is None:
        return status == 404
    return status == 200 and state.is_told_by(item)


def _explained(hit: Mapping[str, Any], candidates: Sequence[Scored]) -> Scored:
    for candidate in candidates:
        if _shows(hit, candidate):
            return candidate
    may = [_described(candidate) for candidate in candidates]
    raise WrongAnswerError(f"{hit} is a result; what may be so: {may}")


def _shows(hit: Mapping[str, Any], result: Scored) -> bool:
    state = result.state
    return (
        hit["key"] == state.key
        and hit["score"] == float(result.score)
        and tuple(hit["labels"]) == state.labels
        and hit["metadata"] == state.metadata
    )


def _described(result: Scored) -> str:
    return f"{result.score!r} {result.state}"


def _check_order(asked: Asked, hits: Sequence[Mapping[str, Any]], found: Sequence[Scored]) -> None:
    wanted = list(range(asked.offset + 1, asked.offset + 1 + len(hits)))
    if [hit["rank"] for hit in hits] != wanted:
        raise WrongAnswerError(f"ranks are {[hit['rank'] for hit in hits]}, not {wanted}")
    if len({hit["key"] for hit in hits}) < len(hits):
        raise WrongAnswerError(f"a key comes twice among {[hit['key'] for hit in hits]}")
    for one, following in pairwise(found):
        if following.before(one):
            raise WrongAnswerError(f"{_described(following)} comes after {_described(one)}")


def _check_complete(
    asked: Asked,
    found: Sequence[Scored],
    sure: Sequence[Scored],
    unsure: Mapping[str, Sequence[Scored]],
) -> None:
    """Nothing that is surely there is missing between the results, or before or after them."""
    shown = {one.state.key for one in found}
    left = [one for one in sure if one.state.key not in shown]
    ahead = [one for one in left if not found or one.before(found[0])]
    if len(ahead) > asked.offset:
        raise WrongAnswerError(f"missing before the results: {_described(ahead[0])}")
    if not found:
        return
    missing = [
        one
        for one in left
        if found[0].before(one) and (len(found) < asked.k or one.before(found[-1]))
    ]
    if missing:
        raise WrongAnswerError(f"missing among the results: {_described(missing[0])}")
    maybe = sum(
        any(not found[0].before(one) for one in states)
        for key, states in unsure.items()
        if key not in shown
    )
    if len(ahead) + maybe < asked.offset:
        raise WrongAnswerError(
            f"{asked.offset} results were passed over and only {len(ahead) + maybe} can come first"
        )


def _check_total(window: Window, total: int) -> None:
    unsure = window.uncertain().values()
    settled = len(window.settled.keys() - window.further.keys())
    least = settled + sum(None not in states for states in unsure)
    most = settled + sum(any(state is not None for state in states) for states in unsure)
    if not least <= total <= most:
        raise WrongAnswerError(f"the total is {total}, which lies outside {least} to {most}")
