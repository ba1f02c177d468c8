"""Searching by image, by key and by vector, over HTTP, beside the index itself."""

import numpy as np
import pytest

from spherequant.index import Index
from spherequant.service.schemas import SearchResponse


@pytest.fixture(scope="module")
def index(shared):
    with Index.open(shared.folder) as opened:
        yield opened


def ask(client, body=None, **parameters):
    response = client.post("/v1/search", json=body, params=parameters)
    assert response.status_code == 200, response.text
    SearchResponse.model_validate(response.json())
    return response.json()["results"]


def pairs(results):
    return [(hit["key"], hit["score"]) for hit in results]


def expected(index, **query):
    return [(hit.key, hit.score) for hit in index.search(**query).items[0]]


def test_by_key_leaves_the_item_itself_out(client, index):
    results = ask(client, {"key": "digits/3/04.png"}, k=7)
    assert pairs(results) == expected(index, keys=["digits/3/04.png"], k=7)
    assert "digits/3/04.png" not in {hit["key"] for hit in results}
    assert [hit["rank"] for hit in results] == list(range(1, 8))
    assert all(hit["labels"] == [hit["key"].split("/")[1]] for hit in results)
    assert all(set(hit["metadata"]) == {"year", "weight", "note"} for hit in results)


def test_by_vector(client, index):
    vector = np.random.default_rng(0).normal(size=8)
    assert pairs(ask(client, {"vector": vector.tolist()})) == expected(index, vectors=vector, k=10)


@pytest.mark.parametrize("key", ["0/00.png", "7/11.png"])
def test_by_image_as_the_index_itself_would(client, index, digits, key):
    data = (digits / key).read_bytes()
    response = client.post("/v1/search", files={"image": ("anything", data)}, params={"k": 5})
    from PIL import Image

    assert pairs(response.json()["results"]) == expected(
        index, images=[Image.open(digits / key)], k=5
    )


def test_pages_follow_each_other(client):
    whole = ask(client, {"key": "digits/1/00.png"}, k=30)
    paged = [
        hit
        for offset in range(0, 30, 7)
        for hit in ask(client, {"key": "digits/1/00.png"}, k=min(7, 30 - offset), offset=offset)
    ]
    assert paged == whole
    assert ask(client, {"key": "digits/1/00.png"}, k=10, offset=300) == []


def test_where_and_min_score(client, index):
    where = "array_has(labels, '5') OR key LIKE '%/2/%'"
    query = {"key": "digits/5/03.png"}
    results = ask(client, query, k=100, where=where)
    assert pairs(results) == expected(index, keys=[query["key"]], k=100, where=where)
    assert {hit["labels"][0] for hit in results} == {"5", "2"}
    floor = results[10]["score"]
    cut = ask(client, query, k=100, where=where, min_score=floor)
    assert pairs(cut) == [(key, score) for key, score in pairs(results) if score >= floor]
    assert ask(client, query, k=5, where=" ") == ask(client, query, k=5)


@pytest.mark.parametrize(
    ("parameters", "where"),
    [
        ({"k": 0}, "query.k"),
        ({"k": 101}, "query.k"),
        ({"k": 10**30}, "query.k"),
        ({"k": "ten"}, "query.k"),
        ({"offset": -1}, "query.offset"),
        ({"offset": 501}, "query.offset"),
        ({"min_score": "nan"}, "query.min_score"),
        ({"min_score": "1e300"}, "query.min_score"),
        ({"rerank": 10_001}, "query.rerank"),
        ({"where": "x = 1"}, "query.where"),
        ({"where": "key LIKE '" + "a" * 500 + "'"}, "query.where"),
    ],
)
def test_parameters_out_of_bounds(client, assert_problem, parameters, where):
    response = client.post("/v1/search", json={"key": "digits/3/04.png"}, params=parameters)
    assert assert_problem(response, 422)["errors"][0]["where"] == where


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"key": "a", "vector": [1.0] * 8},
        {"key": ""},
        {"key": None},
        {"key": "a\0b"},
        {"keys": "a"},
        {"vector": [1.0] * 7},
        {"vector": [0.0] * 8},
        {"vector": ["x"] * 8},
        {"vector": []},
        {"vector": [1.0] * 5_000},
        [],
        "text",
    ],
)
def test_bodies_that_cannot_be_used(client, assert_problem, body):
    assert_problem(client.post("/v1/search", json=body), 422)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"key": "\\ud800"}',
        '{"vector": [NaN, 0, 0, 0, 0, 0, 0, 0]}',
        '{"vector": [1e999, 0, 0, 0, 0, 0, 0, 0]}',
        "[" * 100_000,
        '{"key":' * 30_000,
        '{"vector": [' + "9" * 100_000 + "]}",
        "\xff\xfe",
    ],
)
def test_json_that_is_none(client, assert_problem, text):
    headers = {"content-type": "application/json"}
    content = text.encode("latin-1")
    assert_problem(client.post("/v1/search", content=content, headers=headers), 422)


def test_an_unknown_key_is_not_found(client, assert_problem):
    told = assert_problem(client.post("/v1/search", json={"key": "digits/no"}), 404)
    assert "digits/no" in told["detail"]


def test_reranking_needs_kept_vectors(client, assert_problem):
    response = client.post("/v1/search", json={"key": "digits/3/04.png"}, params={"rerank": 20})
    assert "keeps no vectors" in assert_problem(response, 422)["detail"]


@pytest.mark.parametrize(
    "kind", ["text/plain", "image/png", "application/x-www-form-urlencoded", ""]
)
def test_another_media_type(client, assert_problem, kind):
    response = client.post("/v1/search", content=b"key=a", headers={"content-type": kind})
    assert_problem(response, 415)


def test_an_image_s_vector_asks_for_its_next_page(client, png):
    image = {"image": ("anything", png(5))}
    whole = client.post("/v1/search", params={"k": 20}, files=image).json()
    query = {"k": 10, "with_vector": True}
    first = client.post("/v1/search", params=query, files=image).json()
    assert "vector" not in whole
    assert pairs(first["results"]) == pairs(whole["results"][:10])
    rest = ask(client, {"vector": first["vector"]}, k=10, offset=10)
    assert [hit["key"] for hit in rest] == [hit["key"] for hit in whole["results"][10:]]
