"""The client against a real service: what it asks, sends, and says when something is wrong."""

import io
import json
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spherequant.errors import InputError, ServiceError
from spherequant.index import Index
from spherequant.quantizer import Codebooks
from spherequant.service.client import Client
from spherequant.service.schemas import BatchPut

READER, WRITER = "a-key-that-may-read", "a-key-that-may-write"


@pytest.fixture(scope="module")
def served(serve_copy):
    """A service that these tests write to, each under keys of its own."""
    with serve_copy(max_batch=20) as served:
        yield served


@pytest.fixture
def client(served):
    with Client(served.url) as client:
        yield client


def test_a_search_is_that_of_the_index(served, client, digits):
    file = digits / "3" / "01.png"
    with Index.open(served.folder) as index:
        (expected,) = index.search(images=[Image.open(file)], k=7).items
    for image in (file, str(file), file.read_bytes(), Image.open(file)):
        found = client.search(image, k=7).results
        assert [(hit.rank, hit.key, hit.score) for hit in found] == [
            (hit.rank, hit.key, hit.score) for hit in expected
        ]
    assert found[0].labels == list(expected[0].labels)


def test_an_upright_picture_is_sent(served, client, digits):
    """A picture that its file turns is asked with as the file itself is."""
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    Image.open(digits / "7" / "00.png").convert("RGB").save(out, "PNG", exif=exif)
    by_file = client.search(out.getvalue(), k=5).results
    assert client.search(Image.open(io.BytesIO(out.getvalue())), k=5).results == by_file


def test_search_by_key_and_vector_pages_and_filters(served, client):
    by_key = client.search(key="digits/0/00.png", k=4)
    assert len(by_key.results) == 4
    assert "digits/0/00.png" not in [hit.key for hit in by_key.results]
    assert client.search(key="digits/0/00.png", k=2, offset=2).results == by_key.results[2:]
    lowest = by_key.results[1].score
    best = client.search(key="digits/0/00.png", k=4, min_score=lowest).results
    assert best == [hit for hit in by_key.results if hit.score >= lowest]
    vector = np.ones(8, np.float32)
    nines = client.search(vector=vector, k=30, where="array_has(labels, '9')")
    assert {tuple(hit.labels) for hit in nines.results} == {("9",)}
    with Index.open(served.folder) as index:
        where = "array_has(labels, '9')"
        expected = index.search(vectors=vector[None], k=30, where=where).items[0]
    assert [hit.key for hit in nines.results] == [hit.key for hit in expected]
    assert [hit.score for hit in nines.results] == [hit.score for hit in expected]


def test_put_get_change_delete(client, png, tmp_path):
    key, file = "a folder/é & 1.png", tmp_path / "image.png"
    file.write_bytes(png(1))
    metadata = {"year": 2019, "weight": 0.5, "note": "it's"}
    stored = client.put(key, file, labels=("x", "y"), metadata=metadata)
    item = client.get(key)
    assert (item.id, item.key) == (stored.id, key)
    assert (item.labels, item.metadata) == (["x", "y"], metadata)
    assert client.original(key) == png(1)
    assert Image.open(io.BytesIO(client.thumbnail(key))).format == "JPEG"
    assert client.put("one label", file, labels="x").key == "one label"
    assert client.get("one label").labels == ["x"]
    client.delete("one label")
    assert client.change(key, metadata={"year": None}) == stored
    assert client.get(key).metadata == metadata | {"year": None}
    client.change(key, labels=[])
    assert client.get(key).labels == []
    client.delete(key)
    for gone in (client.get, client.delete, client.thumbnail):
        with pytest.raises(ServiceError, match="No item has the key") as caught:
            gone(key)
        assert (caught.value.status, caught.value.title) == (404, "Not Found")


def test_a_batch_has_an_outcome_for_each(client, png):
    client.put("batch/old", png(2))
    outcomes = client.batch(
        [BatchPut(key="batch/1", labels=["one"]), BatchPut(key="batch/2")],
        [png(3), b"no image"],
        delete=["batch/old", "batch/never"],
    ).results
    assert [one.status for one in outcomes] == ["stored", "refused", "deleted", "missing"]
    assert "not an image" in outcomes[1].detail
    assert client.get("batch/1").labels == ["one"]
    assert client.batch(delete=["batch/1"]).results[0].status == "deleted"
    with pytest.raises(ServiceError, match="send one for each") as caught:
        client.batch([BatchPut(key="batch/3")])
    assert caught.value.status == 422


def test_vectors_are_put_where_there_is_no_network(serving, tmp_path):
    with Index.create(tmp_path / "i", Codebooks([[[1.0, 0.0], [0.0, 1.0]]])):
        pass
    with Client(serving(tmp_path / "i").url) as client:
        client.put("a", vector=[2, 0], labels=["one"])
        client.batch([BatchPut(key="b", vector=[0.0, 1.0])])
        assert [hit.key for hit in client.search(vector=(0, 3)).results] == ["b", "a"]
        assert not client.collection().takes_images
        with pytest.raises(ServiceError, match="takes vectors, no images"):
            client.search(b"x")


def test_what_the_index_holds(served, client):
    assert client.health().status == "ok"
    assert client.ready().fingerprint == client.collection(recent=3).fingerprint
    assert len(client.collection(recent=3).recent) == 3
    labels = client.labels(where="key LIKE 'digits/%'")
    assert {(one.label, one.count) for one in labels.labels} == {(str(n), 20) for n in range(10)}
    assert {"key", "labels", "year"} <= {column.name for column in client.columns().columns}
    assert client.refresh().items == client.ready().items == len(served.engine.searcher)


def test_the_vector_of_an_image_asks_for_its_next_page(client, png):
    first = client.search(png(5), k=3, with_vector=True)
    assert client.search(png(5), k=3).vector is None
    following = client.search(vector=first.vector, k=3, offset=3).results
    whole = client.search(png(5), k=6).results[3:]
    assert [hit.key for hit in following] == [hit.key for hit in whole]
    # The last bits of an embedding may depend on what was embedded with it.
    np.testing.assert_allclose([hit.score for hit in following], [h.score for h in whole], 1e-5)


def test_the_latest(client, png):
    for key in ("latest/1", "latest/2"):
        client.put(key, png(6))
    found = client.latest(1, where="key LIKE 'latest/%'").items
    assert [item.key for item in found] == ["latest/2"]


def test_duplicates(client, png):
    for key in ("twin/1", "twin/2"):
        client.put(key, png(9))
    (twin,) = client.near_duplicates("twin/1", max_distance=0).results
    assert (twin.key, twin.exact) == ("twin/2", True)
    groups = client.duplicates(where="key LIKE 'twin/%'").groups
    assert [one.key for one in groups[0].members] == ["twin/1", "twin/2"]
    assert client.duplicates(where="key LIKE 'twin/%'", exact=True).groups == groups


def test_keys_come_from_the_argument_or_the_environment(serving, folder, png, monkeypatch):
    url = serving(folder, read_keys=(READER,), write_keys=(WRITER,)).url
    monkeypatch.delenv("SPHEREQUANT_API_KEY", raising=False)
    with Client(url) as client:
        assert client.ready().status == "ready"
        with pytest.raises(ServiceError, match="Set SPHEREQUANT_API_KEY to") as caught:
            client.get("digits/0/00.png")
        assert caught.value.status == 401
    monkeypatch.setenv("SPHEREQUANT_API_KEY", READER)
    with Client(url) as client:
        assert client.get("digits/0/00.png").labels == ["0"]
        with pytest.raises(ServiceError, match="may read, and not write") as caught:
            client.put("new", png())
        assert caught.value.status == 403
    with Client(url, api_key=WRITER) as client:
        client.put("new", png())


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.search(),
        lambda client: client.search(b"x", key="a"),
        lambda client: client.search(vector=["a"]),
        lambda client: client.search(vector=[float("nan")]),
        lambda client: client.search(vector=[]),
        lambda client: client.search(17),
        lambda client: client.search("no/such/file.png"),
        lambda client: client.search(Path.cwd()),
        lambda client: client.put("a"),
        lambda client: client.put("a", b"x", labels=17),
        lambda client: client.put("a", b"x", metadata={"weight": float("inf")}),
        lambda client: client.change("a"),
        lambda client: client.batch([{"nothing": 1}]),
    ],
)
def test_what_cannot_be_sent(ask):
    """It is told before anything is sent: nobody listens there."""
    with Client("http://127.0.0.1:9") as client, pytest.raises(InputError):
        ask(client)


def test_a_picture_that_is_cut_off(png):
    cut = Image.open(io.BytesIO(png(side=300)[:2_000]))
    with Client("http://127.0.0.1:9") as client, pytest.raises(InputError, match="truncated"):
        client.search(cut)


def test_the_example_of_the_document(served, png, tmp_path, monkeypatch, capsys):
    document = Path(__file__).parents[2] / "docs" / "service.md"
    (block,) = re.findall(r"```python\n(.*?)```", document.read_text("utf-8"), re.DOTALL)
    assert "http://127.0.0.1:8000" in block
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("new.jpg", "query.jpg", "other.jpg")):
        Path(name).write_bytes(png(number))
    code = compile(block.replace("http://127.0.0.1:8000", served.url), str(document), "exec")
    exec(code, {"__name__": "document"})
    assert capsys.readouterr().out.startswith("1 new/1.jpg ")
    with Client(served.url) as client:
        assert client.get("new/2.jpg").labels == ["dog"]
        with pytest.raises(ServiceError, match="No item"):
            client.get("new/1.jpg")


def test_what_a_later_service_adds_is_passed_over(client):
    document = client.search(key="digits/0/00.png", k=1).model_dump()
    document["results"][0]["later"] = document["later"] = {"a": 1}
    answers = [document, {"results": "none"}]
    with _Answering(json.dumps(one).encode() for one in answers) as url, Client(url) as other:
        found = other.search(key="a")
        assert found.results[0].key == document["results"][0]["key"]
        with pytest.raises(ServiceError, match="is it the address that `spherequant serve` named"):
            other.search(key="a")


class _Answering:
    """Something else that answers with JSON, one answer a connection."""

    def __init__(self, bodies):
        self.bodies = bodies

    def __enter__(self):
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self._run)
        self.thread.start()
        return f"http://127.0.0.1:{self.sock.getsockname()[1]}"

    def _run(self):
        for body in self.bodies:
            connection, _ = self.sock.accept()
            with connection:
                connection.settimeout(60)
                data = b""
                while b"}" not in data:  # the request's body is one JSON object
                    data += connection.recv(65_536)
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n"
                    b"Content-Length: %d\r\n\r\n" % len(body) + body
                )

    def __exit__(self, *_):
        self.thread.join(60)
        self.sock.close()


def test_importing_it_loads_no_server_and_no_network_library():
    heavy = {"torch", "lance", "fastapi", "starlette", "uvicorn", "httpx2", "numpy", "PIL"}
    code = f"import sys, spherequant.service.client; print(sorted({heavy!r} & set(sys.modules)))"
    src = Path(__file__).parents[2] / "src"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(src)},
    )  # fmt: skip
    assert done.stdout.strip() == "[]"
