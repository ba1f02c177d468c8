"""Items over HTTP: read, put, changed, deleted; one and many; seen by the search that follows."""

import dataclasses
import io
import json
import threading
import time

import numpy as np
import pytest
from PIL import Image

from spherequant.errors import SpherequantError
from spherequant.index import Index
from spherequant.quantizer import Codebooks
from spherequant.service.batches import read_batch
from spherequant.service.items import item_as_json
from spherequant.service.schemas import BatchResponse, Item
from spherequant.service.stages import BusyError


@pytest.fixture(scope="module")
def served(serve_copy):
    """A service that these tests write to, each under keys of its own."""
    with serve_copy(max_batch=20) as served:
        yield served


@pytest.fixture
def client(served):
    with served.client() as client:
        yield client


def put(client, key, image, code=200, **data):
    response = client.put(
        "/v1/items", params={"key": key}, files={"image": ("../../evil.svg", image)}, data=data
    )
    assert response.status_code == code, response.text
    return response.json()


def get(client, key):
    response = client.get("/v1/items", params={"key": key})
    assert response.status_code == 200, response.text
    return Item.model_validate(response.json())


def found(client, image, **parameters):
    response = client.post("/v1/search", files={"image": ("x", image)}, params=parameters)
    return [hit["key"] for hit in response.json()["results"]]


def test_put_get_search_replace_delete(client, png, assert_problem):
    image, key = png(1), "a folder/é 1.png"
    metadata = json.dumps({"year": 2019, "weight": 0.5, "note": "it's"})
    stored = put(client, key, image, labels=["x", "y"], metadata=metadata)
    item = get(client, key)
    assert item.id == stored["id"]
    assert item.labels == ["x", "y"]
    assert item.metadata == {"year": 2019, "weight": 0.5, "note": "it's"}
    assert (item.source, item.size, item.original) == (None, len(image), True)
    assert len(item.phash) == 16
    assert item.changed.endswith("Z")
    where = "array_has(labels, 'y') AND year = 2019"
    assert found(client, image, where=where) == [key]
    again = put(client, key, png(2), labels=["z"])
    assert again == stored
    assert found(client, png(2), where=where) == []
    assert get(client, key).metadata == {"year": None, "weight": None, "note": None}
    assert client.delete("/v1/items", params={"key": key}).status_code == 204
    assert_problem(client.get("/v1/items", params={"key": key}), 404)
    assert_problem(client.delete("/v1/items", params={"key": key}), 404)
    assert put(client, key, image)["id"] > stored["id"]


def test_a_put_item_has_the_code_thumbnail_and_hash_that_the_index_would_make(
    served, client, png, made, tmp_path
):
    image = png(3, side=300)
    put(client, "same", image)
    with Index.create(tmp_path / "other", made.model) as other:
        other.add(["same"], images=[Image.open(io.BytesIO(image))], originals=[image])
        mine, theirs = served.engine.searcher.items(["same"])[0], other.get(["same"])[0]
        small = other.thumbnails([theirs.id])[theirs.id]
    assert np.array_equal(mine.code, theirs.code)
    assert (mine.phash, mine.digest) == (theirs.phash, theirs.digest)
    assert client.get("/v1/thumbnail", params={"key": "same"}).content == small


def test_a_key_is_stored_in_nfc(client, png):
    put(client, "e\u0301", png(4))
    assert get(client, "\u00e9").key == get(client, "e\u0301").key == "\u00e9"


def test_labels_and_metadata_are_changed_alone(client, png, assert_problem):
    put(client, "change", png(5), labels=["a"], metadata='{"year": 1, "note": "n"}')
    before = get(client, "change")

    def change(body, key="change"):
        return client.patch("/v1/items", params={"key": key}, json=body)

    assert change({"metadata": {"year": 2}}).json() == {"id": before.id, "key": "change"}
    assert get(client, "change").metadata == {"year": 2, "weight": None, "note": "n"}
    assert change({"labels": []}).status_code == 200
    after = get(client, "change")
    assert after.labels == []
    assert (after.digest, after.phash, after.original) == (
        before.digest,
        before.phash,
        before.original,
    )
    assert after.changed > before.changed
    for body in ({}, {"labels": None}, {"labels": "a"}, {"metadata": {"nope": 1}}, {"x": 1}):
        assert_problem(change(body), 422)
    assert_problem(change({"labels": ["a"]}, key="unknown"), 404)
    assert_problem(change({"labels": ["a"]}, key="digits/0/00.png"), 409)
    assert client.patch("/v1/items", params={"key": "change"}, content=b"x").status_code == 415


@pytest.mark.parametrize("mtime", [float("inf"), float("nan")])
def test_a_time_that_json_cannot_say_is_null(made, mtime):
    with Index.open(made.folder) as index:
        (item,) = index.latest(1)
    assert item_as_json(item)["mtime"] == item.mtime
    assert item_as_json(dataclasses.replace(item, mtime=mtime))["mtime"] is None


def test_items_of_a_synced_source_are_not_replaced(client, png, assert_problem):
    response = client.put(
        "/v1/items", params={"key": "digits/0/00.png"}, files={"image": ("x", png())}
    )
    told = assert_problem(response, 409)
    assert "'digits/0/00.png'" in told["detail"]
    assert "/" not in told["detail"].replace("digits/0/00.png", "")


@pytest.mark.parametrize(
    ("data", "where"),
    [
        ({"metadata": "{"}, "form.metadata"),
        ({"metadata": "[]"}, "form.metadata"),
        ({"metadata": '{"year": true}'}, "form.metadata"),
        ({"metadata": '{"year": [1]}'}, "form.metadata"),
        ({"metadata": '{"weight": NaN}'}, "form.metadata"),
        ({"metadata": '{"weight": 1e999}'}, "form.metadata"),
        ({"metadata": '{"weight": ' + "9" * 400 + "}"}, "form.metadata"),
        ({"metadata": '{"note": "\\ud800"}'}, "form.metadata"),
        ({"metadata": '{"note": "' + "x" * 16_385 + '"}'}, "form.metadata"),
        ({"metadata": json.dumps({f"c{n}": 1 for n in range(101)})}, "form.metadata"),
        ({"metadata": ["{}", "{}"]}, "form.metadata"),
        ({"labels": ""}, "form.labels"),
        ({"labels": "x" * 201}, "form.labels"),
        ({"labels": ["x"] * 101}, "form.labels"),
        ({"label": "x"}, "form.label"),
        ({"image": "text"}, "form.image"),
    ],
)
def test_forms_that_cannot_be_used(client, png, assert_problem, data, where):
    files = None if "image" in data else {"image": ("x", png())}
    if files is None:
        data, files = {}, {"image": (None, "text")}
    response = client.put("/v1/items", params={"key": "bad"}, files=files, data=data)
    assert assert_problem(response, 422)["errors"][0]["where"].startswith(where)
    assert_problem(client.get("/v1/items", params={"key": "bad"}), 404)


@pytest.mark.parametrize(
    "metadata", [{"nope": 1}, {"year": "text"}, {"year": 1.5}, {"note": 3}, {"year": 2**62 * 1.0}]
)
def test_metadata_that_does_not_fit(client, png, assert_problem, metadata):
    response = client.put(
        "/v1/items",
        params={"key": "bad"},
        files={"image": ("x", png())},
        data={"metadata": json.dumps(metadata)},
    )
    if metadata == {"year": 2**62 * 1.0}:  # a whole number, however it is written
        assert response.status_code == 200
        client.delete("/v1/items", params={"key": "bad"})
    else:
        assert_problem(response, 422)


@pytest.mark.parametrize("key", ["", "x" * 3_000, "a\0b"])
def test_keys_that_cannot_be(client, png, assert_problem, key):
    for method in ("GET", "DELETE", "PUT"):
        files = {"image": ("x", png())} if method == "PUT" else None
        assert_problem(client.request(method, "/v1/items", params={"key": key}, files=files), 422)
    assert_problem(client.get("/v1/items"), 422)


def batch(client, items, images=()):
    files = [("items", (None, json.dumps(items)))]
    files += [("image", (f"{i}", image)) for i, image in enumerate(images)]
    return client.post("/v1/items:batch", files=files)


def test_a_batch_has_an_outcome_for_each(client, png):
    put(client, "old", png(10))
    items = {
        "put": [
            {"key": "b/1", "labels": ["one"]},
            {"key": "b/broken"},
            {"key": "digits/0/01.png"},
            {"key": "b/unknown column", "metadata": {"nope": 1}},
            {"key": "b/2", "metadata": {"year": 2}},
        ],
        "delete": ["old", "never there"],
    }
    images = [png(11), b"no image", png(12), png(13), png(14)]
    response = batch(client, items, images)
    BatchResponse.model_validate(response.json())
    outcomes = response.json()["results"]
    assert [(o["key"], o["status"]) for o in outcomes] == [
        ("b/1", "stored"),
        ("b/broken", "refused"),
        ("digits/0/01.png", "refused"),
        ("b/unknown column", "refused"),
        ("b/2", "stored"),
        ("old", "deleted"),
        ("never there", "missing"),
    ]
    assert all(("detail" in o) == (o["status"] == "refused") for o in outcomes)
    assert get(client, "b/1").labels == ["one"]
    assert get(client, "b/2").metadata["year"] == 2


def test_a_batch_that_is_cut_off_by_time_says_what_may_be_done_yet(serving, folder, png):
    served = serving(folder, answer_seconds=0.05)
    writing = threading.Event()
    remove = served.engine.index.remove

    def slow(keys):
        writing.wait(30)
        return remove(keys)

    served.engine.index.remove = slow
    with served.client() as client:
        keys = ["digits/0/00.png", "digits/0/01.png"]
        outcomes = client.post("/v1/items:batch", json={"delete": keys}).json()["results"]
    assert {o["status"] for o in outcomes} == {"unknown"}
    assert all("may be done yet" in o["detail"] for o in outcomes)
    writing.set()


def test_what_finds_no_room_in_a_batch_is_busy_and_the_others_are_done(
    serving, folder, png, monkeypatch
):
    served = serving(folder)
    remove = type(served.engine).remove

    async def crowded(engine, keys):
        if keys == ["digits/0/00.png"]:
            raise BusyError("the queue 'write' is full.")
        return await remove(engine, keys)

    monkeypatch.setattr(type(served.engine), "remove", crowded)
    with served.client() as client:
        wanted = {"put": [{"key": "a"}], "delete": ["digits/0/00.png", "digits/0/01.png"]}
        outcomes = batch(client, wanted, [png()]).json()["results"]
    assert [o["status"] for o in outcomes] == ["stored", "busy", "deleted"]
    assert all(("detail" in o) == (o["status"] == "busy") for o in outcomes)


@pytest.mark.parametrize("error", [SpherequantError("private"), RuntimeError("private")])
def test_an_item_of_a_batch_that_fails_fails_alone(
    serving, folder, png, monkeypatch, caplog, eventually, error
):
    served = serving(folder)
    add = served.engine.index.add

    def fail(keys, **given):
        if keys == ["b"]:
            raise error
        return add(keys, **given)

    monkeypatch.setattr(served.engine.index, "add", fail)
    with served.client() as client:
        puts = [{"key": key} for key in "abc"]
        response = batch(client, {"put": puts, "delete": ["digits/0/00.png"]}, map(png, range(3)))
    outcomes = BatchResponse.model_validate(response.json()).results
    assert [o.status for o in outcomes] == ["stored", "failed", "stored", "deleted"]
    assert "private" not in response.text
    eventually(lambda: f"failed: {type(error).__name__}" in caplog.text)
    assert "private" not in caplog.text


def test_what_was_written_and_cannot_be_shown_yet_is_acknowledged(
    serving, folder, png, monkeypatch, eventually
):
    served = serving(folder, refresh_seconds=60.0)

    def fail():
        raise OSError("the disk hung")

    with served.client() as client:
        with monkeypatch.context() as patched:
            patched.setattr(served.engine.index, "_snapshot", fail)
            put(client, "unseen", png())
            assert client.get("/ready").json()["items"] == 200
        assert "unseen" not in found(client, png(), k=201)
        assert client.post("/v1/refresh").json()["items"] == 201
        assert "unseen" in found(client, png(), k=201)


def test_a_large_json_batch_is_refused_and_the_largest_of_vectors_is_not(
    serving, tmp_path, assert_problem, monkeypatch
):
    dim, threads = 4_096, []
    codebooks = Codebooks(np.random.default_rng(0).normal(size=(1, 4, dim)))
    with Index.create(tmp_path / "vectors", codebooks):
        pass

    def read(*given):
        threads.append(threading.current_thread())
        return read_batch(*given)

    monkeypatch.setattr("spherequant.service.bodies.read_batch", read)
    served = serving(tmp_path / "vectors")
    with served.client() as client:
        vector = "[" + ", ".join(["-2.2250738585072014e-308"] * (dim - 1) + ["1.0"]) + "]"
        puts = ", ".join(f'{{"key": "{n}", "vector": {vector}}}' for n in range(256))
        headers = {"content-type": "application/json"}

        def send(content):
            return client.post("/v1/items:batch", content=content, headers=headers)

        answer = send(f'{{"put": [{puts}]}}'.encode())
        assert {o["status"] for o in answer.json()["results"]} == {"stored"}
        assert threads
        assert served.thread not in threads
        assert_problem(send(bytes(30 << 20)), 413)


@pytest.mark.parametrize("bad", [1, {"key": ""}, {"key": "a", "more": 1}])
def test_objections_to_a_large_batch_are_bounded(client, assert_problem, bad):
    body = json.dumps({"put": [bad] * 30_000, "delete": [bad] * 30_000}).encode()
    started = time.monotonic()
    response = client.post(
        "/v1/items:batch", content=body, headers={"content-type": "application/json"}
    )
    assert len(assert_problem(response, 422)["errors"]) <= 20
    assert time.monotonic() - started < 2


def test_batches_share_commits(served, client, png):
    before = served.engine.searcher.version
    keys = [f"many/{i}" for i in range(20)]
    response = batch(client, {"put": [{"key": key} for key in keys]}, map(png, range(20, 40)))
    assert {o["status"] for o in response.json()["results"]} == {"stored"}
    assert served.engine.searcher.version - before < 20
    before = served.engine.searcher.version
    response = client.post("/v1/items:batch", json={"delete": keys})
    assert {o["status"] for o in response.json()["results"]} == {"deleted"}
    assert served.engine.searcher.version - before < 20


@pytest.mark.parametrize(
    ("items", "images", "code"),
    [
        ({"put": [{"key": "a"}]}, 0, 422),
        ({"put": [{"key": "a"}]}, 2, 422),
        ({"put": [{"key": "a"}, {"key": "a"}]}, 2, 422),
        ({"put": [{"key": "a"}], "delete": ["a"]}, 1, 422),
        ({"delete": ["a"] * 2}, 0, 422),
        ({"delete": [str(i) for i in range(21)]}, 0, 422),
        ({"put": [{"key": "a", "labels": "x"}]}, 1, 422),
        ({"put": {"key": "a"}}, 1, 422),
        ({"removed": ["a"]}, 0, 422),
        ([], 0, 422),
    ],
)
def test_batches_that_cannot_be_used(client, png, assert_problem, items, images, code):
    assert_problem(batch(client, items, [png()] * images), code)
    assert_problem(client.get("/v1/items", params={"key": "a"}), 404)


def test_an_index_without_a_network_takes_vectors(serving, tmp_path, png, assert_problem):
    rng = np.random.default_rng(0)
    with Index.create(
        tmp_path / "vectors", Codebooks(rng.normal(size=(2, 16, 4))), keep_vectors=True
    ):
        pass
    served = serving(tmp_path / "vectors")
    with served.client() as client:
        item = {"vector": [1, 0, 0, 0], "labels": ["x"]}
        assert client.post("/v1/search", json={"vector": [1, 0, 0, 0]}).json() == {
            "results": [],
            "total": 0,
        }
        assert client.put("/v1/items", params={"key": "a"}, json=item).json()["key"] == "a"
        puts = [{"key": f"k{i}", "vector": rng.normal(size=4).tolist()} for i in range(9)]
        outcomes = client.post("/v1/items:batch", json={"put": puts}).json()["results"]
        assert {o["status"] for o in outcomes} == {"stored"}
        results = client.post("/v1/search", json={"vector": [1, 0, 0, 0]}, params={"rerank": 10})
        assert results.json()["results"][0]["key"] == "a"
        assert results.json()["results"][0]["score"] == 1.0
        assert len(client.post("/v1/search", json={"key": "a"}).json()["results"]) == 9
        assert_problem(
            client.put("/v1/items", params={"key": "b"}, files={"image": ("x", png())}), 422
        )
        assert_problem(client.post("/v1/search", files={"image": ("x", png())}), 422)
        assert not client.get("/ready").json()["takes_images"]
        assert_problem(client.get("/v1/thumbnail", params={"key": "a"}), 404)


def test_a_search_that_begins_after_a_write_was_acknowledged_sees_it(served, png):
    """Four writers at once, each checking its own writes and deletes."""
    failures = []

    def write(number):
        image = png(100 + number)
        with served.client() as client:
            for turn in range(6):
                key = f"writer {number}/{turn}"
                put(client, key, image, labels=[f"w{number}"])
                keys = found(client, image, where=f"array_has(labels, 'w{number}')", k=100)
                if key not in keys:
                    failures.append(("not found", key, keys))
                if turn % 2:
                    client.delete("/v1/items", params={"key": key})
                    if key in found(client, image, k=100, where=f"array_has(labels, 'w{number}')"):
                        failures.append(("still found", key))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
