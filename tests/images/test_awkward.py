"""The folder of awkward files, listed and decoded as a folder, a .zip and a .tar."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest

from spherequant.images import Skip, open_source, stream


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "gztar"])
def test_every_file_ends_as_expected(awkward_folder, awkward, tmp_path, kind):
    folder, expected = awkward_folder
    path = folder if kind == "folder" else shutil.make_archive(tmp_path / "packed", kind, folder)
    with open_source(path) as source:
        outcomes = list(stream(source, source.items, lambda _, image: np.asarray(image), workers=2))
        skips = [*source.skips, *(o for o in outcomes if isinstance(o, Skip))]
        read = {o[0].key: o for o in outcomes if not isinstance(o, Skip)}

    assert len(expected) >= 30
    assert sorted(read) == sorted(key for key, e in expected.items() if e.ok)
    assert sorted(s.path for s in skips) == sorted(p for p, e in expected.items() if not e.ok)
    for skip in skips:
        assert re.search(expected[skip.path].outcome, skip.reason), skip
        assert "object at" not in skip.reason
        assert "\n" not in skip.reason
    for key, (item, pixels) in read.items():
        assert item.labels == expected[key].labels
        assert pixels.shape == (32, 48, 3), key
        middle = pixels[16, 24].astype(int)
        assert np.abs(middle - awkward.COLOURS[item.labels[0]]).max() <= 12, (key, middle)


def test_transparent_parts_are_white_and_rotation_is_honoured(awkward_folder):
    folder, _ = awkward_folder
    source = open_source(folder)
    pixels = {
        item.key: np.asarray(source.image(item))
        for item in source.items
        if re.search("alpha.png|alpha.webp|transparent|rotated", item.key)
        and "with-alpha" not in item.key
    }
    assert len(pixels) == 4
    for key, picture in pixels.items():
        left = picture[16, 3].astype(int)  # see-through, or the white edge before rotation
        assert left.min() > 245, (key, left)
