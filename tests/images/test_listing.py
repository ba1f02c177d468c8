"""From file names to keys."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spherequant.errors import SourceError
from spherequant.images.listing import Entry, check_readable, list_images, printable

JPEG = b"\xff\xd8\xff\xe0"


def listing(names, head=JPEG, size=100):
    entries = [Entry(name, size, 0.0, number) for number, name in enumerate(names)]
    return list_images(entries, lambda entry: head)


JUNK = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir"}
parts = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)
names = st.lists(parts, min_size=1, max_size=3).map(lambda p: "/".join(p) + ".jpg")


@given(st.lists(names, unique=True), st.randoms())
def test_keys_are_nfc_unique_sorted_and_independent_of_order(found, random):
    first = listing(found)
    keys = list(first.images)
    assert keys == sorted(set(keys))
    assert all(unicodedata.is_normalized("NFC", key) for key in keys)
    shuffled = list(found)
    random.shuffle(shuffled)
    second = listing(shuffled)
    assert list(second.images) == keys
    assert {k: e.path for k, e in first.images.items()} == {
        k: e.path for k, e in second.images.items()
    }
    assert sorted(map(str, first.skips)) == sorted(map(str, second.skips))


@given(st.lists(names, unique=True))
def test_nothing_is_lost_silently_but_junk(found):
    result = listing(found)
    hidden = [
        n for n in found if any(p.startswith(".") or p.casefold() in JUNK for p in n.split("/"))
    ]
    seen = {entry.path for entry in result.images.values()} | {s.path for s in result.skips}
    assert set(found) - set(hidden) <= seen


def test_of_two_forms_of_one_name_the_composed_is_kept():
    composed, decomposed = "é.jpg", unicodedata.normalize("NFD", "é.jpg")
    for order in ([composed, decomposed], [decomposed, composed]):
        result = listing(order)
        assert [e.path for e in result.images.values()] == [composed]
        assert [s.path for s in result.skips] == [decomposed]
        assert "second file with the key" in result.skips[0].reason


def test_what_is_passed_over_is_present_under_its_key():
    found = listing(["e\u0301/a.txt", "../b.txt"], head=b"text")
    assert found.present == {"\xe9/a.txt"}
    assert len(found.skips) == 2


def test_keys_distinguish_case():
    assert list(listing(["B.jpg", "a.jpg", "A.JPG", "A.jpg"]).images) == [
        "A.JPG",
        "A.jpg",
        "B.jpg",
        "a.jpg",
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/etc/passwd.jpg", "absolute"),
        ("C:\\photos\\a.jpg", "absolute"),
        ("../a.jpg", r"'\.\.'"),
        ("a/../../b.jpg", r"'\.\.'"),
        ("a/..", r"'\.\.'"),
        (b"caf\xe9.jpg".decode("utf-8", "surrogateescape"), "UTF-8"),
    ],
)
def test_names_that_cannot_be_keys_are_reported(name, reason):
    result = listing([name])
    assert not result.images
    assert len(result.skips) == 1
    result.skips[0].path.encode()

    assert re.search(reason, result.skips[0].reason)


def test_odd_but_harmless_names_are_read():
    found = ["./a.jpg", "b//c.jpg", "d..e.jpg", "..f/g.jpg", "h/i...jpg"]
    assert list(listing(found).images) == ["a.jpg", "b/c.jpg", "d..e.jpg", "h/i...jpg"]


@pytest.mark.parametrize(
    "name",
    [
        ".DS_Store",
        "a/.DS_Store",
        "Thumbs.db",
        "THUMBS.DB",
        "desktop.ini",
        "__MACOSX/a.jpg",
        "._a.jpg",
        ".git/x.png",
        "@eaDir/a.jpg",
    ],
)
def test_junk_is_ignored_silently(name):
    result = listing([name])
    assert not result.images
    assert not result.skips


def test_contents_decide_where_the_name_does_not():
    assert list(listing(["a.txt", "b", "c.JPG"]).images) == ["a.txt", "b", "c.JPG"]
    result = listing(["a.txt", "b", "c.JPG"], head=b"Dear reader")
    assert list(result.images) == ["c.JPG"]  # it claims to be an image: decoding will say
    assert {s.reason for s in result.skips} == {"not an image"}
    empty = listing(["a.jpg", "b.txt"], size=0)
    assert [(s.path, s.reason) for s in empty.skips] == [
        ("a.jpg", "empty file (0 bytes)"),
        ("b.txt", "not an image"),
    ]


def test_a_listing_without_a_readable_image_is_refused():
    for found, head, message in [
        ([], JPEG, "it is empty"),
        (["a.jpg"], b"no", "none of its 1 files is a readable image .a.jpg"),
        (["a.txt"], b"no", "none of its 1 files .*a.txt: not an image"),
    ]:
        with pytest.raises(SourceError, match=message):
            check_readable(listing(found, head), lambda entry, head=head: head, "photos")
    check_readable(listing(["a.jpg"]), lambda entry: JPEG, "photos")


def test_printable():
    assert printable("é") == "é"
    assert printable(b"\xe9".decode("utf-8", "surrogateescape")) == "\ufffd"
