"""What the index holds: labels, columns, size, changes, duplicates; other writers' commits."""

import subprocess
import sys
import threading

import pytest

from spherequant.index import Index


@pytest.fixture(scope="module")
def served(serve_copy, made, png):
    with serve_copy(refresh_seconds=1_000.0) as served, served.client() as client:
        for key, labels, metadata in (
            ("a", ["cat", "pet"], '{"year": 2019, "note": "x"}'),
            ("b", ["cat"], '{"year": 2019}'),
            ("c", [], '{"year": 2020, "weight": 0.5}'),
        ):
            client.put(
                "/v1/items",
                params={"key": key},
                files={"image": ("x", png(3))},
                data={"labels": labels, "metadata": metadata},
            ).raise_for_status()
        yield served


@pytest.fixture
def client(served):
    with served.client() as client:
        yield client


def test_labels_with_counts(client):
    told = client.get("/v1/labels").json()
    assert told["distinct"] == 12
    assert told["unlabelled"] == 1
    counts = {row["label"]: row["count"] for row in told["labels"]}
    assert counts == {**{str(digit): 20 for digit in range(10)}, "cat": 2, "pet": 1}
    assert [row["count"] for row in told["labels"]] == sorted(counts.values(), reverse=True)
    some = client.get("/v1/labels", params={"where": "year = 2019"}).json()
    assert some["labels"] == [{"label": "cat", "count": 2}, {"label": "pet", "count": 1}]


def test_columns_and_their_values(client, assert_problem):
    told = {column["name"]: column for column in client.get("/v1/columns").json()["columns"]}
    assert {"key", "labels", "source", "size", "changed", "year", "weight", "note"} <= set(told)
    assert not {"root", "thumbnail", "original", "code", "vector"} & set(told)
    assert told["year"]["metadata"]
    assert told["year"]["values"] == [{"value": 2019, "count": 2}, {"value": 2020, "count": 1}]
    assert told["note"]["values"] == [{"value": "x", "count": 1}]
    assert told["weight"]["values"] == []
    for name in told:  # each can be filtered by
        response = client.post(
            "/v1/search", json={"key": "a"}, params={"where": f"`{name}` IS NOT NULL"}
        )
        assert response.status_code == 200, response.text


def test_the_collection(client, served):
    told = client.get("/v1/collection", params={"recent": 2}).json()
    assert told["items"] == 203
    assert (told["labels"], told["unlabelled"]) == (12, 1)
    assert (told["bits"], told["dim"], told["bytes_per_item"]) == (16, 8, 2)
    assert told["bytes_disk"] > told["bytes_thumbnails"] > 0
    assert told["takes_images"]
    assert not told["keeps_vectors"]
    assert told["fingerprint"] == served.engine.header.fingerprint
    assert [item["key"] for item in told["recent"]] == ["c", "b"]


def test_duplicates(client, assert_problem):
    told = client.get("/v1/duplicates", params={"max_distance": 0, "where": "source is null"})
    groups = told.json()["groups"]
    assert [sorted(member["key"] for member in group["members"]) for group in groups] == [
        ["a", "b", "c"]
    ]
    assert len({member["digest"] for member in groups[0]["members"]}) == 1
    assert groups[0]["size"] == 3
    near = client.get("/v1/items/duplicates", params={"key": "a", "max_distance": 0}).json()
    assert near["results"] == [
        {"key": "b", "distance": 0, "exact": True},
        {"key": "c", "distance": 0, "exact": True},
    ]
    assert_problem(client.get("/v1/items/duplicates", params={"key": "none"}), 404)
    assert_problem(client.get("/v1/duplicates", params={"max_distance": 7}), 422)
    for limit in (1, 200):  # cut from one answer
        cut = client.get("/v1/duplicates", params={"limit": limit}).json()
        assert len(cut["groups"]) == min(limit, cut["total"])
    assert_problem(client.get("/v1/duplicates", params={"where": "root = 'x'"}), 422)


def test_answers_are_worked_out_once_for_each_version(served, client, monkeypatch, png):
    calls = []
    real = type(served.engine.searcher).counts
    monkeypatch.setattr(
        type(served.engine.searcher),
        "counts",
        lambda self, *a, **o: (calls.append(1), real(self, *a, **o))[1],
    )
    where = {"where": "year = 2020"}
    first = client.get("/v1/labels", params=where).json()
    assert client.get("/v1/labels", params=where).json() == first
    assert len(calls) == 1
    client.put("/v1/items", params={"key": "d"}, files={"image": ("x", png(4))})
    client.get("/v1/labels", params=where)
    assert len(calls) == 2
    client.delete("/v1/items", params={"key": "d"})


ADD = """
import sys
from spherequant.index import Index
import numpy as np
with Index.open(sys.argv[1]) as index:
    index.add(["from elsewhere"], codes=np.zeros((1, 2), np.uint8), labels=["else"])
"""


def elsewhere(folder):
    subprocess.run([sys.executable, "-c", ADD, str(folder)], check=True, timeout=120)


def test_commits_of_another_process_are_taken_up_when_asked(served, client):
    before = client.get("/ready").json()
    elsewhere(served.folder)
    assert client.get("/ready").json() == before
    told = client.post("/v1/refresh").json()
    assert told["items"] == before["items"] + 1
    assert told["index_version"] > before["index_version"]
    item = client.get("/v1/items", params={"key": "from elsewhere"}).json()
    assert item["labels"] == ["else"]
    client.delete("/v1/items", params={"key": "from elsewhere"})


def test_commits_of_another_process_are_taken_up_by_themselves(serving, folder, eventually):
    served = serving(folder, refresh_seconds=0.05)
    with served.client() as client, Index.open(folder) as other:
        other.remove(["digits/0/00.png"])
        eventually(lambda: client.get("/ready").json()["items"] == 199)
        assert client.get("/v1/items", params={"key": "digits/0/00.png"}).status_code == 404


def test_the_latest_items_under_a_filter(client):
    told = client.get("/v1/latest", params={"n": 2}).json()["items"]
    assert [item["key"] for item in told] == ["c", "b"]
    some = client.get("/v1/latest", params={"where": "array_has(labels, 'pet')"}).json()["items"]
    assert [item["key"] for item in some] == ["a"]


def test_the_collection_names_the_bounds_of_requests(client, served):
    settings = served.settings
    assert client.get("/v1/collection").json()["limits"] == {
        "image_bytes": settings.max_image_bytes,
        "pixels": settings.max_pixels,
        "k": settings.max_k,
        "offset": settings.max_offset,
    }


def test_duplicates_to_the_byte_alone(client):
    groups = client.get("/v1/duplicates", params={"exact": True}).json()["groups"]
    assert {"a", "b", "c"} in [{member["key"] for member in group["members"]} for group in groups]
    for group in groups:
        assert len({member["digest"] for member in group["members"]}) == 1


def test_an_error_in_a_refresh_does_not_end_refreshing(serving, folder, monkeypatch, eventually):
    served = serving(folder, refresh_seconds=0.05)
    refresh, failed = served.engine.index.refresh, threading.Event()

    def fail_once():
        if not failed.is_set():
            failed.set()
            raise MemoryError
        refresh()

    monkeypatch.setattr(served.engine.index, "refresh", fail_once)
    assert failed.wait(10)
    with Index.open(folder) as other:
        other.remove(["digits/0/00.png"])
    eventually(lambda: len(served.engine.searcher) == 199)
