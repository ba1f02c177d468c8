"""Labels from folders and tables, splits, and the note that says what was read."""

from __future__ import annotations

import unicodedata

import pytest

from spherequant.errors import ConfigError, LabelError
from spherequant.images.labels import (
    label_items,
    looks_like_date_or_camera,
    tidy_labels,
)
from spherequant.images.listing import Entry, list_images


def read(names, mode="auto", *, archive=False, tables=None):
    """Items by key, skips and note of files that are all images, beside the given tables."""
    tables = tables or {}
    entries = [Entry(name, 9, 0.0, None) for name in [*names, *tables]]
    items, skips, note = label_items(
        list_images(entries, lambda entry: b"\xff\xd8\xff"),
        mode,
        archive=archive,
        read=lambda entry: tables[entry.path].encode(),
    )
    return {item.key: item for item in items}, skips, note


def labels(items):
    return {key: item.labels for key, item in items.items()}


# Folder names


def test_two_class_folders_are_labels_and_the_note_says_so():
    items, skips, note = read(["bee/1.jpg", "ant/1.jpg", "ant/deep/er/2.jpg"])
    assert labels(items) == {
        "ant/1.jpg": ("ant",),
        "ant/deep/er/2.jpg": ("ant",),
        "bee/1.jpg": ("bee",),
    }
    assert note == "2 folder names as labels: ant, bee; --labels none for unlabelled photos"
    assert not skips
    assert all(item.split is None for item in items.values())


def test_the_note_shortens_long_lists():
    _, _, note = read([f"class{i:02}/1.jpg" for i in range(20)])
    assert note.startswith("20 folder names as labels: class00, class01, ")
    assert "class07, ...;" in note


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["1.jpg", "2.jpg"], "lie in no folders"),
        (["ant/1.jpg", "ant/2.jpg"], "one folder only ('ant')"),
        (["ant/1.jpg", "bee/1.jpg", "1.jpg"], "1 images lie beside the folders"),
        (["2019/1.jpg", "2020/1.jpg"], "look like dates or cameras (2019, 2020)"),
        (["ant/1.jpg", "100CANON/1.jpg"], "look like dates or cameras (100CANON)"),
    ],
)
def test_auto_reads_no_labels_where_folders_may_mean_something_else(names, why):
    items, _, note = read(names)
    assert set(labels(items).values()) == {()}
    assert note.startswith("no labels: ")
    assert why in note
    assert ("--labels folders" in note) == any("/" in name for name in names)


def test_folders_asked_for_overrule_the_doubts():
    items, _, note = read(["2019/1.jpg", "2019/2.jpg", "x.jpg"], "folders")
    assert labels(items) == {"2019/1.jpg": ("2019",), "2019/2.jpg": ("2019",), "x.jpg": ()}
    assert note.startswith("1 folder name as labels: 2019; 1 images lie outside")
    with pytest.raises(LabelError, match="--labels none"):
        read(["1.jpg"], "folders")


def test_none_is_none():
    items, _, note = read(["train/a/1.jpg", "train/b/1.jpg"], "none", tables={"labels.csv": ""})
    assert set(labels(items).values()) == {()}
    assert {item.split for item in items.values()} == {None}
    assert note == "no labels, as asked"


def test_unknown_mode_names_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'folders'"):
        read(["1.jpg"], "folder")


@pytest.mark.parametrize(
    "name",
    [
        *("2019", "1998", "2019-05", "2019_05_12", "20190512", "201905", "2019.05.12 Harbour"),
        *("2019-05-12_wedding", "12.05.2019", "1-5-2021", "May 2019", "march", "2019 May"),
        *("2019-05 Harbour", "2019_12_Sylt"),
        *("DCIM", "dcim", "Camera", "Camera Roll", "100CANON", "101MSDCF", "100_PANA", "999APPLE"),
    ],
)
def test_dates_and_cameras(name):
    assert looks_like_date_or_camera(name)


@pytest.mark.parametrize(
    "name",
    [
        *("cat", "0", "9", "10", "007", "001.ak47", "n01443537", "1984 Chevrolet", "Audi 2019"),
        *("2300", "12345678", "100canon", "marching", "cameras", "T-shirt", "v2019", "1899", "200"),
        "2010 12mm lens",
    ],
)
def test_names_of_things(name):
    assert not looks_like_date_or_camera(name)


# Splits


def test_top_folders_named_so_are_splits():
    items, _, note = read(
        ["train/a/1.jpg", "train/b/x/2.jpg", "Validation/a/1.jpg", "test/b/1.jpg", "valid/a/2.jpg"]
    )
    assert {key: (item.labels, item.split) for key, item in items.items()} == {
        "train/a/1.jpg": (("a",), "train"),
        "train/b/x/2.jpg": (("b",), "train"),
        "Validation/a/1.jpg": (("a",), "val"),
        "valid/a/2.jpg": (("a",), "val"),
        "test/b/1.jpg": (("b",), "test"),
    }
    assert note.startswith("2 folder names as labels: a, b (splits train 2, val 2, test 1)")


def test_one_split_alone_is_a_split():
    items, _, _ = read(["train/a/1.jpg", "train/b/1.jpg"])
    assert {item.split for item in items.values()} == {"train"}
    assert labels(items)["train/a/1.jpg"] == ("a",)


def test_a_flat_test_folder_beside_classed_training_is_an_unlabelled_split():
    items, _, note = read(["train/a/1.jpg", "train/b/1.jpg", "test/1.jpg"])
    assert (items["test/1.jpg"].labels, items["test/1.jpg"].split) == ((), "test")
    assert labels(items)["train/a/1.jpg"] == ("a",)
    assert "1 images lie outside the class folders" in note


def test_train_among_classes_is_a_class():
    items, _, _ = read(["car/1.jpg", "train/1.jpg", "plane/1.jpg", "train/deep/2.jpg"])
    assert labels(items)["train/1.jpg"] == ("train",)
    assert labels(items)["train/deep/2.jpg"] == ("train",)
    assert {item.split for item in items.values()} == {None}


def test_flat_splits_without_classes_are_no_labels():
    items, _, note = read(["train/1.jpg", "test/1.jpg"])
    assert labels(items) == {"train/1.jpg": (), "test/1.jpg": ()}
    assert "folders named after splits (test, train) hold no class folders" in note


def test_two_splits_are_splits_beside_other_folders():
    items, _, _ = read(["train/a/1.jpg", "test/b/1.jpg", "unlabeled/1.jpg", "x.jpg"])
    assert items["train/a/1.jpg"].split == "train"
    assert (items["unlabeled/1.jpg"].labels, items["unlabeled/1.jpg"].split) == ((), None)
    assert items["x.jpg"].labels == ()


def test_dates_under_splits_are_no_labels_either():
    _, _, note = read(["train/2019/1.jpg", "train/2020/1.jpg"])
    assert "look like dates" in note


# A wrapping folder


def test_one_wrapping_folder_of_an_archive_is_looked_into():
    names = ["set/train/a/1.jpg", "set/test/b/1.jpg"]
    items, _, _ = read(names, archive=True)
    assert items["set/train/a/1.jpg"].labels == ("a",)
    assert items["set/test/b/1.jpg"].split == "test"
    unwrapped, _, note = read(names)
    assert unwrapped["set/train/a/1.jpg"].labels == ()
    assert "one folder only" in note
    assert labels(read(["set/a/1.jpg", "set/b/1.jpg"], archive=True)[0])["set/b/1.jpg"] == ("b",)


def test_a_single_class_is_no_wrapper():
    items, _, _ = read(["cat/1.jpg", "cat/2.jpg"], "folders", archive=True)
    assert labels(items)["cat/1.jpg"] == ("cat",)
    items, _, _ = read(["train/a/1.jpg", "train/b/1.jpg"], archive=True)
    assert items["train/a/1.jpg"].split == "train"


def test_a_table_inside_the_wrapper_has_paths_relative_to_itself():
    tables = {"set/labels.csv": "path,labels\nimages/1.jpg,cat\n"}
    items, skips, _ = read(["set/images/1.jpg"], archive=True, tables=tables)
    assert items["set/images/1.jpg"].labels == ("cat",)
    assert not skips
    items, skips, _ = read(["set/images/1.jpg"], archive=False, tables=tables)
    assert items["set/images/1.jpg"].labels == ()
    assert [(s.path, s.reason) for s in skips] == [("set/labels.csv", "not an image")]


# labels.csv


def test_a_table_gives_labels_and_metadata():
    table = 'path,labels,camera,note\n1.jpg,dog| cat |dog,x,"a, b"\nsub/2.jpg,,y,\n'
    items, skips, note = read(["1.jpg", "sub/2.jpg"], tables={"labels.csv": table})
    assert items["1.jpg"].labels == ("cat", "dog")
    assert dict(items["1.jpg"].metadata) == {"camera": "x", "note": "a, b"}
    assert items["sub/2.jpg"].labels == ()
    assert dict(items["sub/2.jpg"].metadata) == {"camera": "y", "note": ""}
    assert not skips
    assert note.startswith("labels.csv: 2 labels on 1 of 2 images: cat, dog;")


def test_a_table_wins_over_folders_unless_asked_otherwise():
    table = {"labels.csv": "path,labels\na/1.jpg,cat\nb/1.jpg,dog\n"}
    assert labels(read(["a/1.jpg", "b/1.jpg"], tables=table)[0])["a/1.jpg"] == ("cat",)
    by_folder, skips, _ = read(["a/1.jpg", "b/1.jpg"], "folders", tables=table)
    assert labels(by_folder)["a/1.jpg"] == ("a",)
    assert not skips


def test_rows_and_images_that_do_not_meet_are_reported():
    table = "path,labels,extra\n1.jpg,cat,x\ngone.jpg,cat,x\n1.jpg,dog,x\n2.jpg,cat,a,b\n\n3.jpg\n"
    items, skips, note = read(["1.jpg", "2.jpg", "3.jpg", "4.jpg"], tables={"labels.csv": table})
    assert labels(items) == {"1.jpg": ("cat",), "2.jpg": (), "3.jpg": (), "4.jpg": ()}
    assert [(s.path, s.reason) for s in skips] == [
        ("1.jpg", "labels.csv line 4: a second row for this image"),
        ("2.jpg", "labels.csv line 5: 4 fields, the header has 3"),
        ("3.jpg", "labels.csv line 7: 1 fields, the header has 3"),
        ("gone.jpg", "labels.csv line 3: no such image in the source"),
    ]
    assert "3 images have no row (2.jpg, 3.jpg, 4.jpg)" in note
    assert "4 rows were not used" in note


def test_a_row_of_an_image_that_was_skipped_is_reported_once():
    entries = [Entry("1.jpg", 9, 0.0, None), Entry("2.jpg", 0, 0.0, None)]
    entries.append(Entry("labels.csv", 9, 0.0, None))
    _, skips, _ = label_items(
        list_images(entries, lambda entry: b"\xff\xd8\xff"),
        "auto",
        archive=False,
        read=lambda entry: b"path,labels\n1.jpg,a\n2.jpg,b\n",
    )
    assert [(s.path, s.reason) for s in skips] == [("2.jpg", "empty file (0 bytes)")]


def test_table_paths_are_forgiven_their_spelling():
    name = "caf\u00e9/1.jpg"
    table = f"path,labels\n{unicodedata.normalize('NFD', name)},a\n.\\b\\2.jpg,b\n./c.jpg,c\n"
    items, skips, _ = read([name, "b/2.jpg", "c.jpg"], tables={"labels.csv": "\ufeff" + table})
    assert labels(items) == {name: ("a",), "b/2.jpg": ("b",), "c.jpg": ("c",)}
    assert not skips


def test_table_may_hold_its_columns_in_any_order_and_unnamed_ones():
    table = ",labels,year,path\n0,cat,1999,1.jpg\n"
    items, _, _ = read(["1.jpg"], tables={"Labels.CSV": table})
    assert items["1.jpg"].labels == ("cat",)
    assert dict(items["1.jpg"].metadata) == {"year": "1999"}


def test_table_beside_splits():
    table = "path,labels\ntrain/1.jpg,a\ntest/1.jpg,b\n"
    items, _, _ = read(["train/1.jpg", "test/1.jpg"], tables={"labels.csv": table})
    assert {key: item.split for key, item in items.items()} == {
        "train/1.jpg": "train",
        "test/1.jpg": "test",
    }
    items, _, _ = read(["train/1.jpg", "train/2.jpg"], tables={"labels.csv": table})
    assert {item.split for item in items.values()} == {None}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "must start with the header"),
        ("file;label\n", "must start with the header 'path,labels'.*'file;label'"),
        ("path,label\n1.jpg,a\n", "must start with the header"),
        ("path,labels\n", "names no image of the source .it has no rows.*'1.jpg'"),
        ("path,labels\nx/1.jpg,a\n", "names no image.*'x/1.jpg': labels.csv line 2: no such"),
        ("path,labels,labels\n1.jpg,a,b\n", "two columns of one name"),
        ("path,labels\n" + "x" * 200_000 + ",a\n", "field larger"),
    ],
)
def test_tables_that_cannot_be_used_say_why(table, message):
    with pytest.raises(LabelError, match=message):
        read(["1.jpg"], tables={"labels.csv": table})


def test_a_table_of_another_encoding_names_the_cure():
    entries = [Entry("1.jpg", 9, 0.0, None), Entry("labels.csv", 9, 0.0, None)]
    with pytest.raises(LabelError, match=r"not UTF-8 \(byte 13\); save it as 'CSV UTF-8'"):
        label_items(
            list_images(entries, lambda entry: b"\xff\xd8\xff"),
            "csv",
            archive=False,
            read=lambda entry: b"path,labels\n1\xe9.jpg,a\n",
        )


def test_csv_asked_for_must_be_there():
    with pytest.raises(LabelError, match=r"--labels csv needs a labels\.csv"):
        read(["a/1.jpg", "b/1.jpg"], "csv")


def test_tidy_labels():
    assert tidy_labels(["b", " a ", "", "b", unicodedata.normalize("NFD", "é")]) == ("a", "b", "é")


@pytest.mark.parametrize("mode", ["auto", "csv"])
def test_a_table_that_was_passed_over_is_not_replaced_by_folders(mode):
    listing = list_images(
        [Entry(name, 9, 0.0, None) for name in ("a/1.jpg", "b/2.jpg")],
        lambda entry: b"\xff\xd8\xff",
    )
    listing.skip("Labels.csv", "encrypted: unpack the archive with its password")
    with pytest.raises(LabelError, match=r"Labels\.csv cannot be used: encrypted.*--labels f"):
        label_items(listing, mode, archive=False, read=lambda entry: b"")
    assert label_items(listing, "folders", archive=False, read=lambda entry: b"")[0]


def test_a_quote_that_is_not_closed_is_an_error():
    names = ["a.jpg", "b.jpg", "c.jpg"]
    for row in ('b.jpg,"y', 'b.jpg,"5" disk"'):
        table = f"path,labels\na.jpg,x\n{row}\nc.jpg,z\n"
        with pytest.raises(LabelError, match=r"labels\.csv line \d.*save it as CSV again"):
            read(names, tables={"labels.csv": table})


def test_a_name_with_a_backslash_is_found_as_it_is_written():
    table = "path,labels\na\\b.jpg,x\nc\\d.jpg,y\n"
    items, _, _ = read(["a\\b.jpg", "c/d.jpg"], tables={"labels.csv": table})
    assert labels(items) == {"a\\b.jpg": ("x",), "c/d.jpg": ("y",)}


def test_of_two_tables_of_one_name_the_second_is_reported():
    entries = [
        Entry(name, 9, 0.0, n) for n, name in enumerate(["a.jpg", "labels.csv", "labels.csv"])
    ]
    tables = {1: b"path,labels\na.jpg,old\n", 2: b"path,labels\na.jpg,new\n"}
    listing = list_images(entries, lambda entry: b"\xff\xd8\xff")
    items, skips, _ = label_items(
        listing, "auto", archive=True, read=lambda entry: tables[entry.place]
    )
    assert items[0].labels == ("old",)
    assert [(skip.path, skip.reason.split(":")[0]) for skip in skips] == [
        ("labels.csv", "a second file with the key 'labels.csv'")
    ]
