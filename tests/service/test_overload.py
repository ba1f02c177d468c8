"""More than can be done: refused at once, and all is well when it is over."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest


class Stopped:
    """Work that waits until it is let go on."""

    def __init__(self, work):
        self.work, self.go_on, self.begun = work, threading.Event(), threading.Event()

    def __call__(self, batch):
        self.begun.set()
        assert self.go_on.wait(60)
        return self.work(batch)


def stop(monkeypatch, stage):
    stopped = Stopped(stage._work)
    monkeypatch.setattr(stage, "_work", stopped)
    return stopped


def statuses(futures):
    return sorted(future.result(60).status_code for future in futures)


def test_images_beyond_the_queue_are_refused_and_others_answered(
    serving, folder, png, assert_problem, monkeypatch, eventually
):
    served = serving(folder, max_uploads=4, decoders=1)
    stopped = stop(monkeypatch, served.engine._decoding)
    with served.client() as client, ThreadPoolExecutor(20) as pool:

        def search(number):
            return client.post("/v1/search", files={"image": ("x", png(number))})

        first = pool.submit(search, 0)
        assert stopped.begun.wait(60)
        waiting = [pool.submit(search, number) for number in range(1, 5)]
        eventually(lambda: served.metric("spherequant_queue_depth", queue="decode") == 4)
        refused = search(5)
        assert_problem(refused, 503)
        assert refused.headers["retry-after"] == "1"
        # What needs no decoding goes on.
        assert client.post("/v1/search", json={"key": "digits/0/00.png"}).status_code == 200
        assert client.get("/ready").status_code == 200
        stopped.go_on.set()
        assert statuses([first, *waiting]) == [200] * 5
        assert search(6).status_code == 200
        assert served.metric("spherequant_refused_total", queue="decode") == 1
        assert served.metric("spherequant_queue_depth", queue="decode") == 0


def test_a_slow_filter_holds_up_no_other_search(serving, folder, monkeypatch):
    served = serving(folder)
    stopped = stop(monkeypatch, served.engine._filtering)
    with served.client() as client, ThreadPoolExecutor(2) as pool:

        def search(**parameters):
            return client.post("/v1/search", json={"key": "digits/0/00.png"}, params=parameters)

        slow = pool.submit(search, where="size > 0")
        assert stopped.begun.wait(60)
        assert search().status_code == 200
        stopped.go_on.set()
        assert slow.result(60).status_code == 200


def test_what_takes_too_long_is_given_up(serving, folder, assert_problem, monkeypatch):
    served = serving(folder, answer_seconds=0.2)
    stopped = stop(monkeypatch, served.engine._searching)
    with served.client() as client:
        response = client.post("/v1/search", json={"key": "digits/0/00.png"})
        assert_problem(response, 503)
        stopped.go_on.set()
        assert client.post("/v1/search", json={"key": "digits/0/00.png"}).status_code == 200


def test_a_write_that_nobody_waits_for_is_made_all_the_same(
    serving, folder, png, assert_problem, monkeypatch, eventually
):
    served = serving(folder, answer_seconds=0.2, writers=1)
    stopped = stop(monkeypatch, served.engine._writing)
    with served.client() as client:
        files = {"image": ("x", png())}
        assert_problem(client.put("/v1/items", params={"key": "late"}, files=files), 503)
        assert served.engine._room._taken > 0
        stopped.go_on.set()
        eventually(lambda: client.get("/ready").json()["items"] == 201)
        eventually(lambda: served.engine._room._taken == 0)


@pytest.mark.parametrize("path", ["/v1/items", "/v1/items:batch"])
def test_bytes_of_a_put_that_nobody_waits_for_count_until_it_ends(
    serving, folder, png, monkeypatch, eventually, path
):
    served = serving(folder, answer_seconds=0.2, decoders=1)
    stopped = stop(monkeypatch, served.engine._decoding)
    image = png(side=200)
    with served.client() as client:
        files = {"image": ("x", image)}
        if path == "/v1/items":
            assert client.put(path, params={"key": "late"}, files=files).status_code == 503
        else:
            batch = client.post(path, data={"items": '{"put": [{"key": "late"}]}'}, files=files)
            assert batch.json()["results"][0]["status"] == "unknown"
        assert served.metric("spherequant_upload_bytes") > len(image)
        stopped.go_on.set()
        eventually(lambda: client.get("/ready").json()["items"] == 201)
        eventually(lambda: served.metric("spherequant_upload_bytes") == 0)


def test_an_image_that_nobody_waits_for_leaves_the_queue(
    serving, folder, png, monkeypatch, eventually
):
    served = serving(folder, answer_seconds=0.2, decoders=1)
    stopped = stop(monkeypatch, served.engine._decoding)
    with served.client() as client:
        for _ in range(3):
            assert client.post("/v1/search", files={"image": ("x", png())}).status_code == 503
        eventually(lambda: served.metric("spherequant_queue_depth", queue="decode") == 0)
        stopped.go_on.set()


def test_a_storm_of_everything_leaves_the_service_well(serving, folder, png):
    served = serving(folder, max_uploads=8, max_asks=8, max_writes=4, writers=2)
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 5, 200).tolist()
    with served.client() as client, ThreadPoolExecutor(32) as pool:

        def ask(number, kind):
            key = {"key": f"storm/{number}"}
            if kind == 0:
                return client.post("/v1/search", files={"image": ("x", png(number))})
            if kind == 1:
                return client.put("/v1/items", params=key, files={"image": ("x", png(number))})
            if kind == 2:
                where = f"size > {number % 7}"
                body = {"key": "digits/0/00.png"}
                return client.post("/v1/search", json=body, params={"where": where})
            if kind == 3:
                return client.delete("/v1/items", params=key)
            return client.get("/v1/thumbnail", params={"key": "digits/0/00.png"})

        answers = list(pool.map(ask, range(200), kinds))
        told = {answer.status_code for answer in answers}
        assert told <= {200, 204, 404, 503}
        assert 200 in told
        stored = sum(a.status_code == 200 for a, k in zip(answers, kinds, strict=True) if k == 1)
        assert client.get("/ready").json()["items"] == 200 + stored
    assert all(
        served.metric("spherequant_queue_depth", queue=name) == 0
        for name in ("decode", "embed", "search", "filtered search", "write")
    )


def test_connections_beyond_the_bound_are_cut(serving, folder):
    import httpx

    served = serving(folder, max_connections=3)
    clients = [served.client() for _ in range(3)]
    try:
        for client in clients:
            assert client.get("/health").status_code == 200
        with served.client() as fourth, pytest.raises(httpx.TransportError):
            fourth.get("/health")
    finally:
        for client in clients:
            client.close()
