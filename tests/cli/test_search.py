"""``spherequant search``."""

import json
import re
import shutil
import socket

import pytest
from PIL import Image


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


ASKED = [
    ("-k", "4"),
    ("--key", "ant/01.png", "--key", "bee/02.png", "-k", "40"),
    ("--key", "cat/00.png", "--where", "array_has(labels, 'bee')"),
    ("--key", "cat/00.png", "--min-score", "50"),
    ("--key", "cat/00.png", "-k", "40", "--rerank", "40"),
]


@pytest.mark.parametrize("options", ASKED)
def test_a_service_answers_as_its_index(options, served, indexed, photos, spherequant):
    images = [] if "--key" in options else [photos / "bee/01.png", photos / "bee/broken.jpg"]
    for more in ((), ("--json",)):
        asked = (*images, *options, *more)
        by_folder = spherequant("search", indexed.path, *asked)
        by_service = spherequant("search", served, *asked)
        assert by_service.stdout == by_folder.stdout
        assert by_service.stderr == by_folder.stderr
    assert len(by_folder.stdout) > 50


def test_the_page_of_a_service_is_that_of_its_index(served, indexed, photos, spherequant, tmp_path):
    asked = (photos / "ant/01.png", "--key", "cat/01.png", "-k", "2", "--html")
    spherequant("search", indexed.path, *asked, tmp_path / "folder.html")
    told = spherequant("search", served, *asked, tmp_path / "new" / "service.html").stderr
    assert f"page: {tmp_path / 'new' / 'service.html'}" in told
    by_folder = (tmp_path / "folder.html").read_text("utf-8")
    by_service = (tmp_path / "new" / "service.html").read_text("utf-8")
    name = served.removeprefix("http://").rstrip("/")
    assert by_service == by_folder.replace(f"from {indexed.path.name}", f"from {name}")
    assert by_service.count("data:image/jpeg;base64,") == 2 * (1 + 2)


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        ((), 2, "give at least one IMAGE, or --key KEY"),
        (("--key", "no/such.png"), 1, "No item has the key 'no/such.png'"),
        (("--key", "ant/00.png", "-k", "0"), 2, "-k"),
        (("--key", "ant/00.png", "-k", "1001"), 1, "k is at most 1000"),
        (("--key", "ant/00.png", "--where", "size >"), 1, "size >"),
        (("--key", "ant/00.png", "-k", "10", "--rerank", "5"), 1, "at least offset + k=10"),
    ],
)
def test_wrong_questions_to_a_service(arguments, code, expected, served, spherequant):
    result = spherequant("search", served, *arguments, code=code)
    assert expected in result.stderr
    assert result.stdout == ""


def test_a_service_is_sent_no_unreadable_image(served, photos, spherequant):
    result = spherequant("search", served, photos / "bee" / "broken.jpg", code=1)
    assert "none of the query images could be read" in result.stderr


def test_an_image_that_is_too_large_for_the_service_is_skipped(
    served, photos, spherequant, tmp_path
):
    large, small = tmp_path / "large.png", photos / "ant/01.png"
    Image.new("RGB", (8_100, 8_000)).save(large, compress_level=1)
    result = spherequant("search", served, large, small, "-k", "1", "--json")
    value = json.loads(result.stdout)
    assert [query["query"] for query in value["queries"]] == [str(small)]
    assert [skip["path"] for skip in value["skipped"]] == [str(large)]
    assert "pixels" in value["skipped"][0]["reason"]


def test_nobody_serves_there(photos, spherequant):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    told = spherequant("search", url, photos / "ant" / "00.png", code=1).stderr
    assert f"{url} cannot be reached" in told
    assert "is `spherequant serve` running there?" in told


def test_a_service_with_keys_takes_them_from_the_environment(
    process, indexed, spherequant, spherequant_json, tmp_path, monkeypatch
):
    folder, key = shutil.copytree(indexed.path, tmp_path / "index"), "a-key-of-twenty-chars"
    run = process("serve", folder, "--port", "0", "--quiet", env={"SPHEREQUANT_READ_KEY": key})
    try:
        url = next(line.split()[-1] for line in run.stderr if "serving" in line)
        monkeypatch.delenv("SPHEREQUANT_API_KEY", raising=False)
        for verb in (("search", url, "--key", "ant/00.png"), ("info", url)):
            assert "Set SPHEREQUANT_API_KEY" in spherequant(*verb, code=1).stderr
        monkeypatch.setenv("SPHEREQUANT_API_KEY", key)
        value = spherequant_json("search", url, "--key", "ant/00.png", "-k", "2")
        assert len(value["queries"][0]["results"]) == 2
        assert spherequant_json("info", url)["total"] == 36
    finally:
        run.terminate()
        run.communicate(timeout=60)
