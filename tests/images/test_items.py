"""Items, skips and limits as values."""

from __future__ import annotations

import dataclasses
import pickle

import pytest

from spherequant.errors import ConfigError, InputError
from spherequant.images import Item, Limits, Skip


def test_items_are_values():
    item = Item("a/b.jpg", ("cat",), "train", 12, 1.5, {"camera": "x"})
    assert item == Item("a/b.jpg", ("cat",), "train", 12, 1.5, {"camera": "x"})
    assert len({item, item}) == 1
    assert pickle.loads(pickle.dumps(item)) == item
    assert Item("a").metadata == {}
    with pytest.raises(dataclasses.FrozenInstanceError):
        item.key = "c"
    assert Skip("a", "b") == Skip("a", "b")


def test_limits_refuse_the_impossible():
    with pytest.raises(ConfigError, match="--max-pixels"):
        Limits(max_pixels=0)
    with pytest.raises(ConfigError, match="--max-megabytes"):
        Limits(max_bytes=0)


def test_limits_are_exact():
    limits = Limits(max_pixels=100, max_bytes=1 << 20)
    limits.check_pixels(10, 10)
    limits.check_bytes(1 << 20)
    with pytest.raises(InputError, match=r"101 x 1 pixels, above the bound of 100;.*101$"):
        limits.check_pixels(101, 1)
    with pytest.raises(InputError, match=r"1\.0 megabytes, above the bound of 1;.*-megabytes 2$"):
        limits.check_bytes((1 << 20) + 1)
    with pytest.raises(InputError, match="0 x 5"):
        limits.check_pixels(0, 5)
