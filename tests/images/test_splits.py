"""Protocols: exact sizes, no dependence on order, and what happens without labels."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spherequant.errors import ConfigError, LabelError
from spherequant.images import PROTOCOLS, Item, make_split
from spherequant.images.splits import SIZES, Sizes


def cifar() -> list[Item]:
    sizes = {"train": 5000, "test": 1000}
    return [
        Item(f"{split}/{label}/{i:04}.jpg", (f"class{label}",), split)
        for split, count in sizes.items()
        for label in range(10)
        for i in range(count)
    ]


CIFAR = cifar()


def parts(split):
    return {
        name: getattr(split, name) for name in ("queries", "training", "database", "validation")
    }


def keys(items, split):
    return {name: sorted(items[i].key for i in rows) for name, rows in parts(split).items()}


def per_class(items, positions):
    return Counter(items[i].labels[0] for i in positions)


@pytest.mark.parametrize(
    ("protocol", "queries", "training", "validation", "database"),
    [
        ("cifar10-54k", 100, 475, 25, 5400),
        ("cifar10-59k", 100, 475, 25, 5900),
        ("cifar10-full", 1000, 4950, 50, 5000),
        ("holdout", 1000, 4950, 50, 5000),
    ],
)
def test_sizes_on_cifar10(protocol, queries, training, validation, database):
    split = make_split(CIFAR, protocol)
    expected = [queries, training, database, validation]
    for (name, positions), count in zip(parts(split).items(), expected, strict=True):
        assert set(per_class(CIFAR, positions).values()) == {count}, name
        assert len(positions) == 10 * count
        assert positions.dtype == np.int64
        assert not positions.flags.writeable
        assert np.all(np.diff(positions) > 0)
    assert {CIFAR[i].split for i in split.queries} == {"test"}
    assert {CIFAR[i].split for i in split.training} == {"train"}
    assert (split.protocol, split.split_seed) == (protocol, 0)
    assert split.seen_classes == tuple(f"class{i}" for i in range(10))
    assert split.unseen_classes == ()
    assert_sound(CIFAR, split)
    trained = set(split.training) | set(split.validation)
    if protocol == "cifar10-54k":
        assert not trained & set(split.database)
    else:
        assert trained <= set(split.database)


def test_54k_and_59k_ask_and_train_alike():
    small, large = make_split(CIFAR, "cifar10-54k"), make_split(CIFAR, "cifar10-59k")
    assert np.array_equal(small.queries, large.queries)
    assert np.array_equal(small.training, large.training)
    assert np.array_equal(small.validation, large.validation)


def assert_sound(items, split):
    """What holds for every protocol on labelled items."""
    queries, training, database, validation = (set(rows.tolist()) for rows in parts(split).values())
    assert not queries & database
    assert not queries & training
    assert not queries & validation
    assert not training & validation
    assert database or len(items) == len(queries)


labelled = st.lists(
    st.tuples(
        st.lists(st.sampled_from("abcdefg"), max_size=3),
        st.sampled_from([None, None, None, "train", "test", "val"]),
    ),
    min_size=1,
    max_size=150,
).map(
    lambda rows: [
        Item(f"k{i}", tuple(sorted(set(names))), split) for i, (names, split) in enumerate(rows)
    ]
)


@settings(max_examples=60, deadline=None)
@given(labelled, st.sampled_from(["holdout", "unseen-classes"]), st.integers(0, 5), st.randoms())
def test_a_split_is_a_function_of_keys_and_seed_alone(items, protocol, seed, random):
    if protocol == "unseen-classes" and not any(item.labels for item in items):
        return
    first = make_split(items, protocol, seed)
    assert dataclasses.asdict(make_split(items, protocol, seed)).keys() >= parts(first).keys()
    shuffled = list(items)
    random.shuffle(shuffled)
    second = make_split(shuffled, protocol, seed)
    assert keys(items, first) == keys(shuffled, second)
    assert (first.seen_classes, first.unseen_classes) == (
        second.seen_classes,
        second.unseen_classes,
    )
    if any(item.labels for item in items):
        assert_sound(items, first)
        trained = [*first.training, *first.validation]
        assert all(items[i].labels for i in [*trained, *first.queries])
        assert set(first.queries) | set(first.database) == set(range(len(items)))
        unseen = set(first.unseen_classes)
        assert all(unseen.isdisjoint(items[i].labels) for i in trained)


@pytest.mark.parametrize("protocol", [name for name in PROTOCOLS if name not in SIZES])
def test_another_seed_is_another_split(protocol):
    one, two = make_split(CIFAR, protocol, 1), make_split(CIFAR, protocol, 2)
    assert keys(CIFAR, one)["validation"] != keys(CIFAR, two)["validation"]
    assert keys(CIFAR, one) == keys(CIFAR, make_split(CIFAR, protocol, 1))


def test_images_are_chosen_by_sorted_sha256():
    items = [Item(f"{i}.jpg", ("a",)) for i in range(40)]

    def by_hash(tag, found, count):
        return sorted(
            sorted(found, key=lambda key: hashlib.sha256(f"{tag}\0007\0{key}".encode()).digest())[
                :count
            ]
        )

    split = make_split(items, "holdout", 7)
    found = keys(items, split)
    assert found["queries"] == by_hash("query", [i.key for i in items], 4)
    rest = [i.key for i in items if i.key not in found["queries"]]
    assert found["validation"] == by_hash("validation", rest, 1)


def sized(counts, split=None):
    return [Item(f"{name}/{i}.jpg", (name,), split) for name, n in counts.items() for i in range(n)]


def test_holdout_takes_a_tenth_of_each_class():
    items = sized({"one": 1, "two": 2, "nineteen": 19, "hundred": 100, "many": 1500})
    split = make_split(items)
    assert per_class(items, split.queries) == {"two": 1, "nineteen": 1, "hundred": 10, "many": 100}
    assert len(split.database) == len(items) - 112
    assert per_class(items, split.validation) == {"hundred": 4, "many": 50}


@pytest.mark.parametrize(
    ("training", "validation"), [(9, 0), (10, 0), (19, 0), (20, 1), (999, 49), (5000, 50)]
)
def test_validation_is_a_twentieth_of_each_class(training, validation):
    items = [*sized({"a": training}, "train"), Item("q", ("a",), "test")]
    split = make_split(items)
    assert len(split.validation) == validation
    assert len(split.training) == training - validation
    assert len(split.database) == training


@pytest.mark.parametrize(
    ("splits", "asked"),
    [
        (("train", "val", "test"), "test"),
        (("train", "val"), "val"),
        (("train", "test"), "test"),
    ],
)
def test_holdout_asks_with_the_sources_own_split(splits, asked):
    items = [Item(f"{s}{i}", ("ab"[i % 2],), s) for s in splits for i in range(8)]
    split = make_split(items)
    assert {items[i].split for i in split.queries} == {asked}
    assert len(split.queries) == 8
    assert len(split.training) == len(split.database) == len(items) - 8


def test_an_unlabelled_test_split_asks_nothing():
    items = [*sized({"a": 30, "b": 30}, "train"), *(Item(f"t{i}", (), "test") for i in range(9))]
    split = make_split(items)
    assert per_class(items, split.queries) == {"a": 3, "b": 3}
    assert {60, 68} <= set(split.database.tolist())


def test_unlabelled_images_among_labelled_ones_are_only_searched():
    items = [*sized({"a": 30, "b": 30}), *(Item(f"x{i}") for i in range(10))]
    for protocol in ("holdout", "unseen-classes"):
        split = make_split(items, protocol)
        used = {*split.queries, *split.training, *split.validation}
        assert max(used) < 60
        assert set(range(60, 70)) <= set(split.database.tolist())


@pytest.mark.parametrize(("count", "asked"), [(1, 1), (9, 1), (10, 1), (55, 5), (3000, 100)])
def test_without_labels_everything_is_trained_on_and_searched(count, asked):
    items = [Item(f"{i}.jpg", split="test" if i % 2 else "train") for i in range(count)]
    split = make_split(items)
    assert split.training.tolist() == split.database.tolist() == list(range(count))
    assert len(split.queries) == asked
    assert len(split.validation) == 0
    assert split.seen_classes == split.unseen_classes == ()


def test_no_items():
    split = make_split([])
    assert all(len(positions) == 0 for positions in parts(split).values())


@pytest.mark.parametrize(
    ("classes", "unseen"), [(1, 0), (2, 1), (3, 1), (4, 1), (5, 2), (8, 2), (10, 3), (200, 50)]
)
def test_unseen_classes(classes, unseen):
    items = sized({f"c{i:03}": 20 for i in range(classes)})
    split = make_split(items, "unseen-classes")
    assert len(split.unseen_classes) == unseen
    assert len(split.seen_classes) == classes - unseen
    assert not set(split.seen_classes) & set(split.unseen_classes)
    assert set(per_class(items, split.queries).values()) == {2}
    assert len(split.queries) == 2 * classes
    assert len(split.database) == 18 * classes
    trained = per_class(items, [*split.training, *split.validation])
    assert trained == dict.fromkeys(split.seen_classes, 18)
    assert_sound(items, split)


def test_unseen_classes_asks_at_most_50_a_class():
    items = sized({"a": 1000, "b": 5, "c": 1})
    counts = per_class(items, make_split(items, "unseen-classes").queries)
    assert counts == {"a": 50, "b": 1}


def test_an_image_with_any_unseen_label_is_never_trained_on():
    items = [Item(f"{i}", tuple(sorted({"abcd"[i % 4], "abcd"[(i // 4) % 4]}))) for i in range(160)]
    split = make_split(items, "unseen-classes")
    (unseen,) = split.unseen_classes
    for position in [*split.training, *split.validation]:
        assert unseen not in items[position].labels
    assert any(unseen in items[position].labels for position in split.database)


def test_images_of_several_labels_count_in_their_first_class():
    items = [Item(f"{i}", ("b", "a") if i < 20 else ("b",)) for i in range(50)]
    queries = make_split(items).queries
    assert sum(position < 20 for position in queries) == 2  # a tenth of 'a'
    assert sum(position >= 20 for position in queries) == 3  # a tenth of what is left for 'b'


@pytest.mark.parametrize("protocol", ["cifar10-54k", "cifar10-59k", "cifar10-full"])
@pytest.mark.parametrize(
    "items",
    [
        CIFAR[:-1],
        [dataclasses.replace(item, split=None) for item in CIFAR],
        [dataclasses.replace(item, labels=()) for item in CIFAR],
        sized({f"c{i}": 60 for i in range(10)}, "train"),
        [],
    ],
)
def test_a_cifar_protocol_says_what_it_needs(protocol, items):
    with pytest.raises(LabelError, match=r"needs CIFAR-10: 10 classes.*Use --protocol holdout"):
        make_split(items, protocol)


@pytest.fixture
def small_sets(monkeypatch):
    """Protocols of benchmarks in small: 4 concepts on 100 images, 3 classes on 60."""
    monkeypatch.setitem(SIZES, "nuswide-21", Sizes(4, 5, (10,), (90, 100)))
    monkeypatch.setitem(SIZES, "nuswide-81", Sizes(4, 12, (30,), (90, 100)))
    monkeypatch.setitem(SIZES, "imagenet-100", Sizes(3, 2, (5, 4), (50, 60)))


def concepts(count=100):
    """All have the label a, and of every 100 images 50 b, 34 c, 20 z; z never stands alone."""
    every = {"a": 1, "b": 2, "c": 3, "z": 5}
    return [
        Item(f"{i:03}.jpg", tuple(name for name, step in every.items() if i % step == 0))
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("protocol", "queries", "training"), [("nuswide-21", 20, 40), ("nuswide-81", 12, 30)]
)
def test_nuswide_is_drawn_by_hash(small_sets, protocol, queries, training):
    items = concepts()
    split = make_split(items, protocol)
    assert len(split.queries) == queries
    assert len(split.training) + len(split.validation) == training
    assert len(split.database) == 100 - queries
    assert_sound(items, split)
    assert {*split.training, *split.validation} <= set(split.database)
    assert keys(items, split) == keys(items[::-1], make_split(items[::-1], protocol))
    other = make_split(items, protocol, 1)
    assert keys(items, other)["queries"] != keys(items, split)["queries"]
    if protocol == "nuswide-21":
        found = Counter(label for i in split.queries for label in items[i].labels)
        assert all(found[label] >= 5 for label in "abcz")
        rare = sorted(
            (i.key for i in items if "z" in i.labels),
            key=lambda key: hashlib.sha256(f"query\0000\0{key}".encode()).digest(),
        )
        assert set(rare[:5]) <= set(keys(items, split)["queries"])


@pytest.mark.parametrize("protocol", ["nuswide-21", "nuswide-81"])
def test_nuswide_takes_the_split_of_lists(small_sets, protocol):
    sizes = {"nuswide-21": (20, 40), "nuswide-81": (12, 30)}[protocol]

    def listed(queries):
        return [
            dataclasses.replace(
                item, split="test" if i < queries else "train" if i < sum(sizes) else None
            )
            for i, item in enumerate(concepts())
        ]

    split = make_split(listed(sizes[0]), protocol)
    assert split.queries.tolist() == list(range(sizes[0]))
    assert split.database.tolist() == list(range(sizes[0], 100))
    with pytest.raises(LabelError, match=rf"has {sizes[0]} queries .* gives {sizes[0] - 1} and"):
        make_split(listed(sizes[0] - 1), protocol)


def test_imagenet_100_takes_the_split_of_lists(small_sets):
    items = [
        Item(f"{c}/{i:02}.jpg", (c,), "test" if i < 2 else "train" if i < 6 else None)
        for c in "xyz"
        for i in range(20)
    ]
    split = make_split(items, "imagenet-100")
    assert set(per_class(items, split.queries).values()) == {2}
    assert set(per_class(items, split.training).values()) == {4}
    assert len(split.database) == 54
    assert_sound(items, split)
    items[0] = dataclasses.replace(items[0], split=None)
    with pytest.raises(LabelError, match=r"2 queries and 5 or 4 training images of each class"):
        make_split(items, "imagenet-100")


@pytest.mark.parametrize("protocol", SIZES)
@pytest.mark.parametrize("items", [CIFAR, concepts(), concepts(89), []])
def test_a_benchmarks_protocol_needs_that_benchmark(small_sets, protocol, items):
    if len(items) == 100 and protocol.startswith("nuswide"):
        items = [dataclasses.replace(item, labels=()) for item in items]
    with pytest.raises(LabelError, match=rf"needs the set {protocol}: .*Use --protocol holdout"):
        make_split(items, protocol)


def test_the_sizes_of_the_benchmarks():
    assert {name: (s.labels, s.queries, s.training) for name, s in SIZES.items()} == {
        "nuswide-21": (21, 100, (500,)),
        "nuswide-81": (81, 5000, (10_000,)),
        "imagenet-100": (100, 50, (130, 100)),
    }


def test_unseen_classes_needs_labels():
    with pytest.raises(LabelError, match="--labels folders or csv"):
        make_split([Item("a")], "unseen-classes")


def test_an_unknown_protocol_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'cifar10-54k'"):
        make_split(CIFAR, "cifar-54k")
