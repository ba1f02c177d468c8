"""Traffic keeps the number of items, and its broken files are broken."""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

import numpy as np
import pytest

from service_traffic import Traffic, broken_images
from serving import jpeg
from spherequant.errors import InputError
from spherequant.images import decode
from spherequant.service.filters import check_filter

ITEMS = 50
TURNS = 600


@pytest.fixture(scope="module")
def sent():
    traffic = Traffic(np.random.default_rng(0), 4, ITEMS, [jpeg(0, 64)])
    return [traffic.turn() for _ in range(TURNS)]


def test_one_item_goes_for_each_that_comes(sent):
    there = {f"item/{number}" for number in range(ITEMS)}
    for _, requests in sent:
        for request in requests:
            method, target = request.split(b" ", 2)[:2]
            key = unquote_plus(target.decode()).partition("key=")[2]
            if method == b"PUT" and key != "broken":
                assert key not in there
                there.add(key)
            elif method == b"DELETE":
                there.remove(key)
        assert len(there) == ITEMS
    assert "item/0" not in there


def test_filters_differ_and_are_taken(sent):
    columns = ("labels", "serial", "size")
    filters = [
        unquote_plus(re.search(rb"where=(\S+)", requests[0])[1].decode())
        for kind, requests in sent
        if kind == "search with a filter"
    ]
    assert len(set(filters)) == len(filters) > 20
    for where in filters:
        assert check_filter(where, columns, 2_000) == where


def test_all_kinds_come(sent):
    assert len({kind for kind, _ in sent}) == 11


@pytest.mark.parametrize("number", range(5))
def test_broken_images_are_broken(number):
    with pytest.raises(InputError):
        decode(broken_images(jpeg(0, 128))[number])
