"""Paths of lists and files below a folder."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spherequant.errors import SourceError
from spherequant.images.listing import Entry
from spherequant.images.matching import distinct_endings, match_files


def files(*paths):
    return [Entry(path, 1, 0.0, path) for path in paths]


def matched(keys, *paths):
    return {key: entry.place for key, entry in match_files(keys, files(*paths)).items()}


def test_folders_above_do_not_matter():
    keys = ["someone/imagenet/val_image/a.JPEG", "someone/imagenet/image/n1_2.JPEG"]
    assert matched(keys, "val/n3/a.JPEG", "train/n1/n1_2.JPEG", "README.txt") == {
        keys[0]: "val/n3/a.JPEG",
        keys[1]: "train/n1/n1_2.JPEG",
    }


def test_equal_file_names_need_their_folders():
    keys = ["dog/1.jpg", "cat/1.jpg", "cat/2.jpg"]
    assert matched(keys, "photos/dog/1.jpg", "2.jpg") == {
        "dog/1.jpg": "photos/dog/1.jpg",
        "cat/2.jpg": "2.jpg",
    }
    assert matched(keys, "1.jpg") == {}


def test_a_key_that_ends_another():
    assert matched(["1.jpg", "a/1.jpg"], "a/1.jpg") == {"a/1.jpg": "a/1.jpg"}
    assert matched(["1.jpg", "a/1.jpg"], "1.jpg", "a/1.jpg") == {
        "1.jpg": "1.jpg",
        "a/1.jpg": "a/1.jpg",
    }


def test_the_nearest_of_two_files_and_a_tie():
    assert matched(["a/1.jpg"], "b/1.jpg", "x/a/1.jpg") == {"a/1.jpg": "x/a/1.jpg"}
    with pytest.raises(SourceError, match=r"two files could be a/1\.jpg: b/1\.jpg and c/1\.jpg"):
        matched(["a/1.jpg"], "c/1.jpg", "b/1.jpg")


def test_names_in_either_normal_form():
    assert matched(["caf\u00e9.jpg"], "cafe\u0301.jpg") == {"caf\u00e9.jpg": "cafe\u0301.jpg"}


paths = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join)


@given(st.lists(paths, unique=True, max_size=12))
def test_every_file_is_its_own_key(keys):
    assert matched(keys, *keys) == {key: key for key in keys}
    endings = distinct_endings(keys)
    assert sorted(endings.values()) == sorted(keys)
    for ending, key in endings.items():
        others = [other for other in keys if f"/{other}".endswith(f"/{ending}") and other != key]
        assert ending == key or not others
