"""Images that the caller hands over."""

from __future__ import annotations

import io
import tempfile

import numpy as np
import pytest
from PIL import Image

from spherequant.errors import InputError, LabelError, SourceError
from spherequant.images import Limits, decode, open_source

RED = np.full((4, 6, 3), (200, 10, 20), np.uint8)


def png(array) -> bytes:
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG")
    return out.getvalue()


class Again:
    """A re-iterable that is no sequence: it makes its images anew each time."""

    def __init__(self, rows) -> None:
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "p.png"
    path.write_bytes(png(RED))
    return [
        ("pil", Image.fromarray(RED), "red"),
        ("array", RED, ["red", "warm"]),
        ("bytes", png(RED), ()),
        ("path", path, None),
        ("text", str(path), 7),
    ]


@pytest.mark.parametrize("wrap", [list, tuple, Again, iter])
def test_every_kind_of_image(rows, wrap):
    with open_source(wrap(rows)) as source:
        assert (source.name, source.root) == ("given", "given:")
        assert {i.key: i.labels for i in source.items} == {
            "array": ("red", "warm"),
            "bytes": (),
            "path": (),
            "pil": ("red",),
            "text": ("7",),
        }
        assert [i.key for i in source.items] == sorted(i.key for i in source.items)
        assert source.label_note.startswith("3 labels of the given images: 7, red, warm")
        for item in source.items:
            assert np.array_equal(np.asarray(source.image(item)), RED), item
            assert np.array_equal(np.asarray(decode(source.read(item))), RED), item
            assert source.read(item) == source.read(item)


def test_labels_none_and_impossible_modes(rows):
    assert {i.labels for i in open_source(rows, labels="none").items} == {()}
    with pytest.raises(LabelError, match="brings its own labels"):
        open_source(rows, labels="folders")
    unlabelled = open_source([("a", RED, None)])
    assert unlabelled.label_note == "no labels: the given images brings none"


def test_arrays_of_every_allowed_shape():
    grey = np.full((3, 5), 9, np.uint8)
    alpha = np.zeros((3, 5, 4), np.uint8)
    source = open_source([("a", grey, ()), ("b", grey[..., None], ()), ("c", alpha, ())])
    a, b, c = (np.asarray(source.image(item)) for item in source.items)
    assert np.all(a == 9)
    assert np.array_equal(a, b)
    assert np.all(c == 255)


@pytest.mark.parametrize("wrap", [list, Again])
@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (RED.astype(np.float32), r"an array of float32 \[4, 6, 3\]: give uint8"),
        (np.zeros((2, 2, 5), np.uint8), r"uint8 \[2, 2, 5\]"),
        (np.zeros((0, 2, 3), np.uint8), "without pixels"),
        (12, "not an image but int"),
        (b"", "empty file"),
        (b"text", "not an image"),
        ("gone.png", "gone since it was listed"),
    ],
)
def test_bad_images_are_reasons(wrap, image, reason):
    source = open_source(wrap([("bad", image, "x"), ("good", RED, "y")]))
    found = {item.key: item for item in source.items}
    assert found["good"].labels == ("y",)
    if "bad" in found:
        with pytest.raises(InputError, match=reason):
            source.image(found["bad"])
    else:
        (skip,) = source.skips
        assert skip.path == "bad"
        with pytest.raises(InputError, match=reason):
            raise InputError(skip.reason)


def test_a_broken_pil_image_is_a_reason():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    lazy = Image.open(io.BytesIO(png(noise)[:2000]))
    source = open_source([("a", lazy, ())])
    with pytest.raises(InputError, match="truncated PNG"):
        source.image(source.items[0])
    with pytest.raises(InputError, match="truncated PNG"):
        source.read(source.items[0])


def test_orientation_of_a_pil_image_is_honoured():
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    Image.fromarray(RED).save(out, "PNG", exif=exif)
    out.seek(0)
    source = open_source([("a", Image.open(out), ())])
    assert source.image(source.items[0]).size == (4, 6)
    assert decode(source.read(source.items[0])).size == (4, 6)


def test_limits_hold():
    small = Limits(max_pixels=10, max_bytes=20)
    source = open_source([("a", RED, ()), ("b", png(RED), ())], limits=small)
    with pytest.raises(InputError, match="--max-pixels 24"):
        source.image(source.items[0])
    with pytest.raises(InputError, match="--max-megabytes"):
        source.read(source.items[1])
    spooled = open_source(Again([("b", png(RED), ())]), limits=small)
    with pytest.raises(InputError, match="--max-megabytes"):
        spooled.read(spooled.items[0])
    lazy = open_source(
        Again([("a", Image.open(io.BytesIO(png(RED))), ()), ("b", b"x", ())]), limits=small
    )
    assert [skip.reason for skip in lazy.skips] == [
        "6 x 4 pixels, above the bound of 10; raise it with --max-pixels 24"
    ]


def test_keys_are_composed_and_unique():
    source = open_source([("e\u0301", RED, "a"), ("\xe9", RED, "b")])
    assert [(i.key, i.labels) for i in source.items] == [("\xe9", ("a",))]
    assert [(s.path, s.reason) for s in source.skips] == [
        ("\xe9", "a second image with this key: only the first is read")
    ]


@pytest.mark.parametrize(
    "rows",
    [
        [("a", RED)],
        [RED],
        ["a.jpg"],
        [(1, RED, ())],
        [("", RED, ())],
        [],
        iter([]),
        [None],
        [("\ud800", RED, ())],
    ],
)
def test_rows_that_are_none_are_refused(rows):
    with pytest.raises(SourceError, match=r"image number 0|no usable images"):
        open_source(rows)


@pytest.mark.parametrize(
    "labels", [1.5, b"cat", "\udce9", ["cat", "\ud800"], ["cat", None], np.array(1.5), object()]
)
def test_labels_that_are_no_text_are_refused(labels):
    with pytest.raises(SourceError, match=r"the labels of 'a' are .* give a text") as refused:
        open_source([("a", RED, labels)])
    str(refused.value).encode()  # it can be printed


def test_bad_images_are_present():
    with open_source(Again([("a", RED, ()), ("b", 1, ())])) as source:
        assert source.is_present("b")
        assert not source.is_present("c")


def test_an_iterable_of_only_bad_images_is_refused():
    with pytest.raises(SourceError, match=r"no usable images were given \(a: not an image but int"):
        open_source(Again([("a", 1, ())]))


def test_lazy_images_are_not_held_in_memory(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    source = open_source((f"{i}", np.full((2, 2, 3), i, np.uint8), ()) for i in range(9))
    assert [int(np.asarray(source.image(item)).max()) for item in source.items] == list(range(9))
    assert not list(tmp_path.iterdir())
    source.close()
    with pytest.raises(InputError, match="closed"):
        source.read(source.items[0])


def test_a_full_disk_is_named(monkeypatch):
    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Full())
    with pytest.raises(SourceError, match=r"No space left.*TMPDIR"):
        open_source(Again([("a", RED, ())]))
