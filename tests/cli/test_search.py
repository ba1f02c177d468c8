"""``spherequant search``."""

import json
import re

import pytest


def test_the_json_has_the_keys_that_others_rely_on(indexed, photos, spherequant_json):
    value = spherequant_json("search", indexed.path, photos / "cat" / "04.png", "-k", "3")
    (query,) = value["queries"]
    assert set(query) == {"query", "results"}
    assert query["query"] == str(photos / "cat" / "04.png")
    assert [result["rank"] for result in query["results"]] == [1, 2, 3]
    for result in query["results"]:
        assert set(result) == {"rank", "key", "score", "labels", "metadata"}
    scores = [result["score"] for result in query["results"]]
    assert scores == sorted(scores, reverse=True)
    assert value["skipped"] == []


def test_results_are_lines_on_stdout(indexed, photos, spherequant):
    image = photos / "ant" / "01.png"
    lines = spherequant("search", indexed.path, image, "-k", "4").stdout.splitlines()
    assert lines[0] == str(image)
    assert len(lines) == 5
    for rank, line in enumerate(lines[1:], start=1):
        assert re.fullmatch(rf" +{rank}  -?\d\.\d{{4}}  (ant|bee|cat)/\d\d\.png  \w+", line), line


def test_a_search_by_key_leaves_the_item_out(indexed, spherequant_json):
    value = spherequant_json(
        "search", indexed.path, "--key", "ant/01.png", "--key", "bee/02.png", "-k", "40"
    )
    for query in value["queries"]:
        keys = [result["key"] for result in query["results"]]
        assert len(keys) == 35
        assert query["query"] not in keys


def test_filters_scores_and_reranking(indexed, spherequant, spherequant_json):
    ask = ("search", indexed.path, "--key", "cat/00.png", "-k", "40")
    bees = spherequant_json(*ask, "--where", "array_has(labels, 'bee')")
    assert {tuple(hit["labels"]) for hit in bees["queries"][0]["results"]} == {("bee",)}
    assert spherequant_json(*ask, "--min-score", "50")["queries"][0]["results"] == []
    assert "nothing found" in spherequant(*ask, "--min-score", "50").stdout
    assert len(spherequant_json(*ask, "--rerank", "40")["queries"][0]["results"]) == 35


def test_the_page_holds_its_images(indexed, photos, spherequant, tmp_path):
    page = tmp_path / "new" / "page.html"
    images = [photos / "ant" / "01.png", photos / "bee" / "01.png"]
    told = spherequant("search", indexed.path, *images, "--key", "cat/01.png", "-k", "2",
                       "--html", page)  # fmt: skip
    assert f"page: {page}" in told.stderr
    html = page.read_text(encoding="utf-8")
    assert html.count("data:image/jpeg;base64,") == 3 * (1 + 2)
    assert "http://" not in html
    assert "https://" not in html


def test_an_unreadable_query_is_reported_and_the_others_answered(indexed, photos, spherequant):
    paths = [photos / "bee" / "broken.jpg", photos / "nowhere.png", photos, photos / "cat/00.png"]
    result = spherequant("search", indexed.path, *paths, "-k", "1", "--json")
    value = json.loads(result.stdout)
    assert [query["query"] for query in value["queries"]] == [str(paths[3])]
    assert [skip["path"] for skip in value["skipped"]] == [str(path) for path in paths[:3]]
    assert "Could not be read (3):" in result.stderr
    assert "No such file or directory" in result.stderr
    assert "a folder" in result.stderr


def test_only_unreadable_queries_are_an_error(indexed, photos, spherequant):
    result = spherequant("search", indexed.path, photos / "bee" / "broken.jpg", code=1)
    assert "none of the query images could be read" in result.stderr
    assert result.stdout == ""


def test_bounds_hold_for_queries_too(indexed, photos, spherequant):
    image = photos / "ant" / "00.png"
    result = spherequant("search", indexed.path, image, "--max-pixels", "100", code=1)
    assert "raise it with --max-pixels 400" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        ((), 2, "give at least one IMAGE, or --key KEY"),
        (("--key", "no/such.png"), 1, "no item has the key 'no/such.png'"),
        (("--key", "ant/00.png", "-k", "0"), 2, "-k"),
        (("--key", "ant/00.png", "--where", "size >"), 1, "size >"),
        (("--key", "ant/00.png", "-k", "10", "--rerank", "5"), 1, "at least k=10"),
    ],
)
def test_wrong_questions(arguments, code, expected, indexed, spherequant):
    assert expected in spherequant("search", indexed.path, *arguments, code=code).stderr


def test_a_missing_index_is_named(spherequant, photos, tmp_path):
    result = spherequant("search", tmp_path, photos / "ant" / "00.png", code=1)
    assert "is not an index" in result.stderr
    assert "spherequant index MODEL SOURCE --out INDEX" in result.stderr
