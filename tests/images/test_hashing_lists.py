"""train.txt, test.txt and database.txt of the hashing literature."""

from __future__ import annotations

import dataclasses

import pytest

from miniatures import LISTS, WNIDS, imagenet_rows, list_line, make_imagenet, write
from spherequant.errors import LabelError, SourceError
from spherequant.images.hashing_lists import ListSizes, read_lists


@pytest.fixture
def root(tmp_path, jpeg):
    make_imagenet(tmp_path, jpeg)
    return tmp_path


def append(path, text):
    path.write_bytes(path.read_bytes() + text.encode())


def test_rows(root):
    contents = read_lists(root, LISTS)
    assert contents.warnings == ()
    rows = {row.key: row for row in contents.rows}
    assert len(rows) == 10
    query = rows["val_image/ILSVRC2012_val_00000007.JPEG"]  # the class's name: from its column
    assert (query.labels, query.split) == ((WNIDS[1],), "test")
    assert rows[f"image/{WNIDS[1]}_0.JPEG"].split == "train"
    assert rows[f"image/{WNIDS[1]}_3.JPEG"].split is None
    assert all(row.labels == (row.key[6:15],) for row in rows.values() if "/n" in row.key)


@pytest.mark.parametrize("start", ["", "./", "C:\\data\\", "/mnt/\u00fc \u00e9/"])
def test_keys_do_not_depend_on_where_the_list_was_made(root, jpeg, start):
    keys = [row.key for row in read_lists(root, LISTS).rows]
    make_imagenet(root, jpeg, start=start)
    for name in ("test", "train", "database"):
        path = root / f"{name}.txt"
        text = path.read_text().replace("\n", "\r\n")
        write(path, "\ufeff" + (text.replace("/", "\\") if "\\" in start else text))
    assert [row.key for row in read_lists(root, LISTS).rows] == keys


def test_spaces_in_names_and_columns_without_names(tmp_path):
    for name, paths in [("test", ["q 1.jpg"]), ("train", ["a b.jpg"]), ("database", ["a b.jpg"])]:
        write(tmp_path / f"{name}.txt", "\n".join(list_line(p, {0, 2}, 3) for p in paths))
    contents = read_lists(tmp_path, ListSizes(3, 1, (1,), 2))
    assert [(row.key, row.labels) for row in contents.rows] == [
        ("a b.jpg", ("000", "002")),
        ("q 1.jpg", ("000", "002")),
    ]


def test_missing_lists_are_named(root):
    (root / "train.txt").unlink()
    (root / "database.txt").unlink()
    with pytest.raises(SourceError) as caught:
        read_lists(root, LISTS)
    assert "2 of the 3 files" in str(caught.value)
    assert f"{root}/train.txt  (from the lists of HashNet's code)" in str(caught.value)
    assert f"{root}/database.txt" in str(caught.value)
    assert f"{root}/test.txt" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("test", list_line("new.jpg", {0}, 2), r"test\.txt names 3 images; .* list has 2\."),
        ("train", list_line("new.jpg", {0}, 2), r"train\.txt names 5 images; .* list has 4\."),
        ("database", list_line("new.jpg", {0}, 3), r"line 9: .* 2 columns .* of 3 columns"),
        ("database", "new.jpg 1", r"line 9: .*found 'new.jpg 1' of 1 columns"),
        ("database", "new.jpg 0 2", "line 9: expected a path and 2 columns of 0 or 1"),
        ("database", "\na.jpg 0 1", "line 9: expected a path and 2 columns .* found '' of 0"),
        ("database", "0 1", "line 9: expected a path and 2 columns"),
        ("database", list_line("a/../b.jpg", {0}, 2), r"line 9: 'a/\.\./b\.jpg' has '\.\.'"),
        ("database", list_line("./", {0}, 2), "line 9: no image is named"),
        (
            "database",
            list_line(f"/home/someone/imagenet/image/{WNIDS[1]}_0.JPEG", {1}, 2),
            "line 9: .* stands above with other labels",
        ),
        (
            "database",
            list_line("/home/someone/imagenet/val_image/ILSVRC2012_val_00000007.JPEG", {1}, 2),
            "is a query .* and in train.txt or database.txt too",
        ),
        ("database", list_line(f"image/{WNIDS[0]}_9.JPEG", {0}, 2), "column 1 of the lists is"),
    ],
)
def test_lists_that_are_not_the_published_ones(root, name, line, message):
    append(root / f"{name}.txt", line + "\n")
    with pytest.raises(LabelError, match=message):
        read_lists(root, LISTS)


def test_other_labels_in_another_list(root):
    lines = (root / "train.txt").read_text().splitlines()
    lines[0] = lines[0][:-3] + "0 1"
    write(root / "train.txt", "\n".join(lines))
    with pytest.raises(LabelError, match=r"other labels in train\.txt than in database\.txt"):
        read_lists(root, LISTS)


def test_a_repeated_line_counts_once(root):
    text = (root / "database.txt").read_text()
    write(root / "database.txt", text + text)
    assert len(read_lists(root, LISTS).rows) == 10


def test_another_database_is_a_warning(root):
    (warning,) = read_lists(root, dataclasses.replace(LISTS, labelled=12)).warnings
    assert warning.startswith("10 labelled images in the lists, where the published set has 12")


def test_images_without_a_label_are_left_out(root):
    append(root / "database.txt", list_line("image/none.JPEG", set(), 2) + "\n")
    contents = read_lists(root, LISTS)
    assert "(1 images without a label left out)" in contents.note
    assert {row.split for row in contents.rows} == {"test", "train", None}
    test, _, _ = imagenet_rows()
    write(root / "test.txt", "\n".join(list_line(p, set(), 2) for p, _ in test))
    contents = read_lists(root, LISTS)
    assert "(3 images without a label left out; the protocol draws queries" in contents.note
    assert {row.split for row in contents.rows} == {None}
    assert len(contents.rows) == 8


def test_a_list_that_is_far_too_large_is_not_read(root):
    with (root / "database.txt").open("r+b") as file:
        file.truncate(1 << 31)  # sparse
    with pytest.raises(SourceError, match=r"database\.txt has 2,147,483,648 bytes"):
        read_lists(root, LISTS)


def test_not_utf8(root):
    (root / "test.txt").write_bytes(b"caf\xe9.jpg 0 1\n")
    with pytest.raises(LabelError, match=r"test\.txt is not UTF-8 \(byte 3\)"):
        read_lists(root, LISTS)
