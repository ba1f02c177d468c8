"""Thumbnails and originals: sent as the images that they are, or not at all."""

import hashlib
import io
import socket
import threading

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module")
def served(serve_copy):
    with serve_copy() as served:
        yield served


@pytest.fixture
def client(served):
    with served.client() as client:
        yield client


def put(client, key, image):
    files = {"image": ("x.html", image, "text/html")}
    assert client.put("/v1/items", params={"key": key}, files=files).status_code == 200


def test_a_thumbnail_is_a_jpeg_that_is_sent_once(client):
    first = client.get("/v1/thumbnail", params={"key": "digits/4/00.png"})
    assert first.headers["content-type"] == "image/jpeg"
    assert first.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in first.headers["content-security-policy"]
    assert Image.open(io.BytesIO(first.content)).size == (24, 24)
    again = client.get(
        "/v1/thumbnail",
        params={"key": "digits/4/00.png"},
        headers={"if-none-match": first.headers["etag"]},
    )
    assert (again.status_code, again.content) == (304, b"")


def test_the_original_of_a_source_is_its_file(client, digits):
    response = client.get("/v1/original", params={"key": "digits/4/00.png"})
    assert response.content == (digits / "4" / "00.png").read_bytes()
    assert response.headers["content-type"] == "image/png"
    assert "content-disposition" not in response.headers


def test_an_original_that_the_client_has_is_not_read(serving, folder, png, monkeypatch):
    served = serving(folder)
    with served.client() as client:
        put(client, "a", png())
        for key in ("a", "digits/4/00.png"):
            first = client.get("/v1/original", params={"key": key})
            with monkeypatch.context() as patched:
                patched.setattr(served.engine.index, "original", None)
                headers = {"if-none-match": first.headers["etag"]}
                again = client.get("/v1/original", params={"key": key}, headers=headers)
            assert (again.status_code, again.content) == (304, b"")
            assert again.headers["etag"] == first.headers["etag"]
        put(client, "a", png(1))
        changed = client.get("/v1/original", params={"key": "a"}, headers=headers)
        assert (changed.status_code, changed.content) == (200, png(1))


def test_an_original_is_hashed_where_it_is_read(serving, folder, monkeypatch):
    hashed = []

    def sha256(data):
        hashed.append(threading.current_thread().name)
        return hashlib.sha256(data)

    for module in ("engine", "pictures"):
        monkeypatch.setattr(f"spherequant.service.{module}.sha256", sha256, raising=False)
    with serving(folder).client() as client:
        assert client.get("/v1/original", params={"key": "digits/4/00.png"}).status_code == 200
    assert len(hashed) == 1
    assert hashed[0].startswith("spherequant-original-")


def test_too_many_downloads_are_told_as_such(serving, folder, assert_problem):
    served = serving(folder)
    with served.client() as client:
        served.service.budget.take(served.settings.max_upload_bytes)
        response = client.get("/v1/original", params={"key": "digits/4/00.png"})
        served.service.budget.give_back(served.settings.max_upload_bytes)
    told = assert_problem(response, 503)
    assert told["detail"] == "Too many downloads at once. Try again in a moment."


@pytest.mark.parametrize(
    ("kind", "type_", "shown"),
    [
        ("PNG", "image/png", True),
        ("JPEG", "image/jpeg", True),
        ("WEBP", "image/webp", True),
        ("GIF", "image/gif", True),
        ("BMP", "image/bmp", True),
        ("TIFF", "image/tiff", False),
    ],
)
def test_what_was_put_comes_back_to_the_byte(client, png, kind, type_, shown):
    image = png(7, kind=kind)
    put(client, kind, image)
    response = client.get("/v1/original", params={"key": kind})
    assert response.content == image
    assert response.headers["content-type"] == type_
    assert ("content-disposition" not in response.headers) == shown


def test_a_polyglot_is_an_image_and_nothing_else(client, png):
    """A GIF that is a script, a JPEG with a page behind it, a PNG that ends in a .zip."""
    script = b"GIF89a=1;alert(document.domain)//"
    page = png(8, kind="JPEG") + b"<html><script>alert(1)</script></html>"
    archive = png(9) + b"PK\x03\x04" + bytes(100)
    assert (
        client.put(
            "/v1/items", params={"key": "script"}, files={"image": ("x.js", script)}
        ).status_code
        == 422
    )
    for key, image, kind in (("page", page, "image/jpeg"), ("archive", archive, "image/png")):
        put(client, key, image)
        for path in ("/v1/original", "/v1/thumbnail"):
            response = client.get(path, params={"key": key}, headers={"accept": "text/html"})
            assert response.headers["content-type"] in (kind, "image/jpeg")
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    "image",
    [
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"<?xml version='1.0'?><svg/>",
        b"<html></html>",
        b"%PDF-1.7",
        b"%!PS-Adobe-3.0 EPSF-3.0",
        b"",
        b"\x89PNG\r\n\x1a\n",
    ],
)
def test_what_is_no_image_is_not_stored(client, assert_problem, image):
    files = {"image": ("x.png", image, "image/png")}
    told = assert_problem(client.put("/v1/items", params={"key": "bad"}, files=files), 422)
    assert told["detail"].startswith("The image ")
    assert client.get("/v1/items", params={"key": "bad"}).status_code == 404


@pytest.mark.parametrize(
    "key",
    [
        "../../../etc/passwd",
        "digits/../../index.json",
        "/etc/passwd",
        "digits/0/00.png/../../x",
        "..\\..\\x",
        "digits/0/00.png%00",
        "file:///etc/passwd",
        "~root",
        "digits//0/00.png",
    ],
)
def test_a_path_is_only_ever_a_key(client, assert_problem, key):
    for path in ("/v1/original", "/v1/thumbnail", "/v1/items"):
        assert_problem(client.get(path, params={"key": key}), 404)


def test_a_key_that_looks_like_a_path_reads_nothing_else(client, png):
    put(client, "../../../etc/passwd", png(10))
    response = client.get("/v1/original", params={"key": "../../../etc/passwd"})
    assert response.content == png(10)


def test_a_client_that_takes_nothing_is_let_go(serving, folder, eventually):
    """It asks for a large file and never reads: its bytes are given back, others are answered."""
    out = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (2_000, 2_000, 3), np.uint8)
    Image.fromarray(noise).save(out, "BMP")
    served = serving(folder, stall_seconds=1.0)
    with served.client() as client:
        put(client, "large", out.getvalue())
        with socket.create_connection(("127.0.0.1", served.port), timeout=30) as sock:
            sock.sendall(b"GET /v1/original?key=large HTTP/1.1\r\nHost: localhost\r\n\r\n")
            eventually(lambda: served.metric("spherequant_upload_bytes") >= 12_000_000)
            eventually(lambda: served.metric("spherequant_upload_bytes") == 0)
        assert client.get("/v1/original", params={"key": "large"}).content == out.getvalue()


def test_originals_need_not_be_kept(serving, folder, png, assert_problem):
    served = serving(folder, keep_originals=False)
    with served.client() as client:
        put(client, "a", png())
        assert_problem(client.get("/v1/original", params={"key": "a"}), 404)
        assert client.get("/v1/thumbnail", params={"key": "a"}).status_code == 200
