"""Protocols: which images are asked, trained on, and searched.

A split is a function of the protocol, the split seed and the items' keys, labels and splits; never
of their order. Images are chosen by sorted sha256 of (tag, seed, key), so counts are exact.

An image of several labels counts in one class only where classes have quotas: the first of its
labels in sorted order (nuswide-21 fills the quotas of rare labels first instead). Images without a
label, in a source that has labels, go to the database only. In a source without labels everything
is trained on and searched, and a tenth is asked.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING

import numpy as np

from spherequant.errors import ConfigError, LabelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from spherequant.images.items import Item

_CIFAR_QUERIES = 100  # a class; cifar10-54k and cifar10-59k
_CIFAR_TRAINING = 500
_CIFAR_CLASSES, _CIFAR_TRAIN, _CIFAR_TEST = 10, 5000, 1000  # what CIFAR-10 is, a class

Classes = dict[str, list[int]]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What a benchmark's protocol needs of its source.

    Attributes:
        labels: Labels in all.
        queries: Queries: of each label (nuswide-21, imagenet-100), else in all.
        training: Training images, likewise; several where several versions are in use.
        images: Fewest and most images that pass for the set. Copies of NUS-WIDE lack images that
            are gone from Flickr; with all that its publisher labels it has some 209,000.
    """

    labels: int
    queries: int
    training: tuple[int, ...]
    images: tuple[int, int]


SIZES: dict[str, Sizes] = {
    "nuswide-21": Sizes(21, 100, (500,), (176_000, 200_000)),
    "nuswide-81": Sizes(81, 5_000, (10_000,), (156_000, 215_000)),
    "imagenet-100": Sizes(100, 50, (130, 100), (125_000, 135_000)),
}


@dataclass(frozen=True, eq=False)
class Split:
    """Positions in the source's items, each array int64, sorted and read-only.

    Attributes:
        queries: Images asked for.
        training: Images trained on; without ``validation``.
        database: Images searched.
        validation: Carved out of the protocol's training images, never trained on: 5 % of each
            class, rounded down, at most 50. In the database where the training images are.
        seen_classes: Sorted labels that training may meet.
        unseen_classes: Sorted labels kept from training (``unseen-classes`` only).
        protocol: One of `PROTOCOLS`.
        split_seed: Seed of the choice; apart from the seed of training.
    """

    queries: NDArray[np.int64]
    training: NDArray[np.int64]
    database: NDArray[np.int64]
    validation: NDArray[np.int64]
    seen_classes: tuple[str, ...]
    unseen_classes: tuple[str, ...]
    protocol: str
    split_seed: int


def make_split(items: Sequence[Item], protocol: str = "holdout", split_seed: int = 0) -> Split:
    """Divide listed items as a protocol says.

    Args:
        items: The source's items, in any order.
        protocol: One of `PROTOCOLS`.
        split_seed: Another seed, another choice.

    Raises:
        ConfigError: An unknown protocol; names the nearest.
        LabelError: The protocol needs labels, splits or sizes that the items do not have.
    """
    if protocol not in _DIVIDE:
        nearest = get_close_matches(protocol, PROTOCOLS, n=1, cutoff=0.0)
        raise ConfigError(
            f"protocol {protocol!r} is unknown; use one of {', '.join(PROTOCOLS)}"
            + (f" (did you mean {nearest[0]!r}?)" if nearest else "")
        )
    return _DIVIDE[protocol](_Deck(items, split_seed), protocol)


class _Deck:
    """Items with their classes, and the one way to choose among them."""

    def __init__(self, items: Sequence[Item], seed: int) -> None:
        self.items = items
        self.seed = seed
        self.everything = set(range(len(items)))
        self.labels = sorted({label for item in items for label in item.labels})
        self.labelled = {position for position, item in enumerate(items) if item.labels}

    def classes(self, positions: Iterable[int]) -> Classes:
        """Labelled positions by the first label in sorted order."""
        found: defaultdict[str, list[int]] = defaultdict(list)
        for position in positions:
            if self.items[position].labels:
                found[min(self.items[position].labels)].append(position)
        return dict(found)

    def of_split(self, split: str) -> set[int]:
        """Labelled positions of a split of the source."""
        return {position for position in self.labelled if self.items[position].split == split}

    def choose(self, tag: str, positions: Sequence[int], count: int) -> set[int]:
        """The ``count`` positions whose keys hash lowest."""
        ordered = sorted(
            positions, key=lambda position: self.digest(tag, self.items[position].identity)
        )
        return set(ordered[:count])

    def digest(self, tag: str, name: str) -> bytes:
        """Sha256 of tag, seed and name, by which choices are sorted."""
        text = f"{tag}\0{self.seed}\0{name}"
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()

    def choose_each(self, tag: str, classes: Classes, counts: Mapping[str, int]) -> set[int]:
        """``counts[c]`` positions of each class."""
        return {
            position
            for name, members in classes.items()
            for position in self.choose(tag, members, counts[name])
        }

    def choose_labelled(self, tag: str, positions: set[int], count: int) -> set[int]:
        """``count`` positions for each label among all that carry it; the rarest label first.

        Frequent labels would otherwise take the images of rare ones, which hardly ever stand alone.
        """
        carriers: dict[str, list[int]] = {label: [] for label in self.labels}
        for position in positions:
            for label in self.items[position].labels:
                carriers[label].append(position)
        chosen: set[int] = set()
        for label in sorted(self.labels, key=lambda label: (len(carriers[label]), label)):
            free = [position for position in carriers[label] if position not in chosen]
            chosen |= self.choose(tag, free, count)
        return chosen

    def tenth(self, classes: Classes, most: int) -> set[int]:
        """Queries: a tenth of each class, 1 to ``most``; none from a class of one image."""
        counts = {
            name: min(most, max(1, len(members) // 10)) if len(members) > 1 else 0
            for name, members in classes.items()
        }
        return self.choose_each("query", classes, counts)

    def divide(
        self,
        protocol: str,
        *,
        queries: set[int],
        training: set[int],
        database: set[int],
        unseen: Sequence[str] = (),
    ) -> Split:
        """Carve validation out of training and sort everything."""
        classes = self.classes(training)
        counts = {name: min(50, len(members) // 20) for name, members in classes.items()}
        validation = self.choose_each("validation", classes, counts)
        return Split(
            queries=_positions(queries),
            training=_positions(training - validation),
            database=_positions(database),
            validation=_positions(validation),
            seen_classes=tuple(label for label in self.labels if label not in set(unseen)),
            unseen_classes=tuple(unseen),
            protocol=protocol,
            split_seed=self.seed,
        )


def _holdout(deck: _Deck, protocol: str) -> Split:
    """Queries: the test split, else val, else a tenth of each class. The rest is both others."""
    if not deck.labelled:
        return _without_labels(deck, protocol)
    queries = (
        deck.of_split("test")
        or deck.of_split("val")
        or deck.tenth(deck.classes(deck.labelled), most=100)
    )
    return deck.divide(
        protocol,
        queries=queries,
        training=deck.labelled - queries,
        database=deck.everything - queries,
    )


def _without_labels(deck: _Deck, protocol: str) -> Split:
    """Nothing to judge by: train on everything, search everything, and ask a tenth of it."""
    count = min(100, max(1, len(deck.items) // 10))
    return deck.divide(
        protocol,
        queries=deck.choose("query", sorted(deck.everything), count),
        training=deck.everything,
        database=deck.everything,
    )


def _unseen_classes(deck: _Deck, protocol: str) -> Split:
    """A quarter of the classes, rounded up, is kept from training; one class always stays.

    An image with any unseen label is never trained on. A source of one class has no unseen one.
    """
    if not deck.labelled:
        raise LabelError(
            "protocol unseen-classes needs labels, and no image has one: "
            "use --labels folders or csv, or --protocol holdout"
        )
    count = min(-(-len(deck.labels) // 4), len(deck.labels) - 1)
    by_hash = sorted(deck.labels, key=lambda label: deck.digest("unseen", label))
    unseen = set(by_hash[:count])
    queries = deck.tenth(deck.classes(deck.labelled), most=50)
    seen = {p for p in deck.labelled if unseen.isdisjoint(deck.items[p].labels)}
    return deck.divide(
        protocol,
        queries=queries,
        training=seen - queries,
        database=deck.everything - queries,
        unseen=sorted(unseen),
    )


def _cifar_sampled(deck: _Deck, protocol: str) -> Split:
    """1,000 queries of the test split and 5,000 training images of the train split.

    The database is everything else (54k), or everything but the queries (59k).
    """
    train, test = _cifar(deck, protocol)
    queries = deck.choose_each("query", test, dict.fromkeys(test, _CIFAR_QUERIES))
    training = deck.choose_each("training", train, dict.fromkeys(train, _CIFAR_TRAINING))
    database = deck.everything - queries
    return deck.divide(
        protocol,
        queries=queries,
        training=training,
        database=database - training if protocol == "cifar10-54k" else database,
    )


def _cifar_full(deck: _Deck, protocol: str) -> Split:
    """The test split asks, the train split is trained on and searched."""
    _cifar(deck, protocol)
    train = deck.of_split("train")
    return deck.divide(protocol, queries=deck.of_split("test"), training=train, database=train)


def _cifar(deck: _Deck, protocol: str) -> tuple[Classes, Classes]:
    """Train and test images by class, of a source that is CIFAR-10 in size.

    The sizes are part of the protocol's name, so another source is refused, not approximated.
    """
    train, test = deck.classes(deck.of_split("train")), deck.classes(deck.of_split("test"))
    sizes = {len(members) for members in train.values()}, {len(m) for m in test.values()}
    if (
        sizes != ({_CIFAR_TRAIN}, {_CIFAR_TEST})
        or train.keys() != test.keys()
        or len(train) != _CIFAR_CLASSES
        or len(deck.items) != _CIFAR_CLASSES * (_CIFAR_TRAIN + _CIFAR_TEST)
    ):
        raise LabelError(
            f"protocol {protocol} needs CIFAR-10: {_CIFAR_CLASSES} classes, each with "
            f"{_CIFAR_TRAIN:,} images in a split 'train' and {_CIFAR_TEST:,} in a split 'test'. "
            f"This source has {len(deck.items):,} images of {len(deck.labels)} classes, "
            f"{len(deck.of_split('train')):,} of them in 'train' and "
            f"{len(deck.of_split('test')):,} in 'test'. Use --protocol holdout"
        )
    return train, test


def _nuswide(deck: _Deck, protocol: str) -> Split:
    """The split of the lists where the source has one, else drawn: each concept (21), or all (81).

    The database is everything but the queries.
    """
    sizes = SIZES[protocol]
    _check_set(deck, protocol)
    each = sizes.labels if protocol == "nuswide-21" else 1
    queries, training = deck.of_split("test"), deck.of_split("train")
    if not queries and not training:
        if protocol == "nuswide-21":
            queries = deck.choose_labelled("query", deck.labelled, sizes.queries)
            rest = deck.labelled - queries
            training = deck.choose_labelled("training", rest, sizes.training[0])
        else:
            queries = deck.choose("query", sorted(deck.labelled), sizes.queries)
            rest = deck.labelled - queries
            training = deck.choose("training", sorted(rest), sizes.training[0])
    expected = each * sizes.queries, each * sizes.training[0]
    if (len(queries), len(training)) != expected:
        raise LabelError(
            f"protocol {protocol} has {expected[0]:,} queries and {expected[1]:,} training images; "
            f"this source gives {len(queries):,} and {len(training):,}. Use --protocol holdout"
        )
    return deck.divide(
        protocol, queries=queries, training=training, database=deck.everything - queries
    )


def _imagenet_100(deck: _Deck, protocol: str) -> Split:
    """The split of the lists; the database is everything but the queries."""
    sizes = SIZES[protocol]
    _check_set(deck, protocol)
    queries, training = deck.of_split("test"), deck.of_split("train")
    counts = [
        {len(members) for members in deck.classes(positions).values()}
        for positions in (queries, training)
    ]
    if counts[0] != {sizes.queries} or counts[1] not in [{size} for size in sizes.training]:
        versions = " or ".join(str(size) for size in sizes.training)
        raise LabelError(
            f"protocol {protocol} has {sizes.queries} queries and {versions} training images of "
            f"each class; this source gives {len(queries):,} and {len(training):,} in all. Use the "
            "published lists, or --protocol holdout"
        )
    return deck.divide(
        protocol, queries=queries, training=training, database=deck.everything - queries
    )


def _check_set(deck: _Deck, protocol: str) -> None:
    """Refuse a source that cannot be the set that a protocol is named after."""
    sizes = SIZES[protocol]
    least, most = sizes.images
    if len(deck.labels) != sizes.labels or not least <= len(deck.labelled) <= most:
        raise LabelError(
            f"protocol {protocol} needs the set {protocol}: {sizes.labels} labels and {least:,} to "
            f"{most:,} labelled images. This source has {len(deck.labels):,} and "
            f"{len(deck.labelled):,}. Use --protocol holdout"
        )


def _positions(chosen: set[int]) -> NDArray[np.int64]:
    positions = np.array(sorted(chosen), dtype=np.int64)
    positions.setflags(write=False)
    return positions


_DIVIDE = {
    "holdout": _holdout,
    "unseen-classes": _unseen_classes,
    "cifar10-54k": _cifar_sampled,
    "cifar10-59k": _cifar_sampled,
    "cifar10-full": _cifar_full,
    "nuswide-21": _nuswide,
    "nuswide-81": _nuswide,
    "imagenet-100": _imagenet_100,
}

PROTOCOLS: tuple[str, ...] = tuple(_DIVIDE)
