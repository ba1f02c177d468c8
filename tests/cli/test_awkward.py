"""A folder of awkward files, from the shell: indexed, searched, skips told, labels unshifted."""

import re

import pytest


@pytest.fixture(scope="module")
def expected(awkward, tmp_path_factory):
    folder = tmp_path_factory.mktemp("awkward") / "photos"
    return folder, awkward.make_awkward_folder(folder)


def test_every_file_is_found_or_told(expected, trained, spherequant, spherequant_json, tmp_path):
    folder, files = expected
    out = tmp_path / "index"
    value = spherequant_json("index", trained.path, folder, "--out", out)
    good = {key: file.labels for key, file in files.items() if file.ok}
    bad = {key: file.outcome for key, file in files.items() if not file.ok}
    assert len(files) >= 30
    assert value["total"] == value["added"] == len(good)

    reasons = {skip["path"]: skip["reason"] for skip in value["skipped"]}
    assert reasons.keys() == bad.keys()
    for path, outcome in bad.items():
        assert re.search(outcome, reasons[path]), (path, reasons[path])

    ask = spherequant_json("search", out, "--key", "red/plain.jpg", "-k", "100")
    labels = {hit["key"]: tuple(hit["labels"]) for hit in ask["queries"][0]["results"]}
    assert labels | {"red/plain.jpg": ("red",)} == good

    again = spherequant("index", trained.path, folder, "--out", out)
    assert "0 added, 0 updated, 0 removed" in again.stdout
    assert f"Skipped ({len(bad)}):" in again.stderr
