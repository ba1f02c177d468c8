"""Hostile uploads: too large, too slow, cut off, bombs; refused, and the service well after."""

import contextlib
import io
import socket
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

BOUNDARY = "xxBOUNDARYxx"
KIND = f"multipart/form-data; boundary={BOUNDARY}"


def form(data, name="image", *, end=True, disposition=None):
    disposition = disposition or f'form-data; name="{name}"; filename="x.png"'
    head = f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n".encode()
    return head + data + (f"\r\n--{BOUNDARY}--\r\n".encode() if end else b"")


def post(client, content, kind=KIND, **headers):
    return client.post("/v1/search", content=content, headers={"content-type": kind} | headers)


@pytest.fixture(autouse=True)
def _well_after(shared, client, png):
    """Whatever a test sent, the service answers, and holds nothing."""
    yield
    response = post(client, form(png()))
    assert response.status_code == 200, response.text
    assert shared.metric("spherequant_upload_bytes") == 0
    assert shared.engine._room._taken == 0


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", KIND, 400),
        (b"nonsense", KIND, 400),
        (form(b"x"), "multipart/form-data", 400),
        (form(b"x"), "multipart/form-data; boundary=", 400),
        (form(b"x"), f"multipart/form-data; boundary={'b' * 5_000}", 400),
        (form(b"x"), "multipart/form-data; boundary=other", 400),
        (form(b"x", disposition='form-data; filename="x"'), KIND, 400),
        (form(b"x", disposition='attachment; name="image"; filename="x"'), KIND, 400),
        (form(b"x", disposition="form-data" + "; a=b" * 10_000), KIND, 400),
        (form(b"x", disposition='form-data; name="image"; filename="x"' + ';"' * 2_100), KIND, 400),
        (form(b"x", disposition='form-data; name="image"\r\nX: y' + "\r\nX: y" * 900), KIND, 400),
        (form(b"x", "image\udcff".encode("utf-8", "surrogateescape").decode("latin-1")), KIND, 422),
        (form(b"x", "other"), KIND, 422),
        (form(b"x", end=False), KIND, 400),
        (form(b"x")[:-10], KIND, 400),
        (f"--{BOUNDARY}--\r\n".encode(), KIND, 422),
        (form(b"x", disposition='form-data; name="image"'), KIND, 422),
        (form(b"x")[:-12] + b"\r\n--" + form(b"y")[2:], KIND, 422),
    ],
)
def test_malformed_forms(client, assert_problem, body, kind, status):
    assert_problem(post(client, body, kind), status)


def test_an_upload_cut_off_at_any_byte_is_never_an_image(client, png):
    body = form(png())
    for cut in range(0, len(body) - 4, 97):
        assert post(client, body[:cut]).status_code in (400, 422)


def test_too_large_by_its_length_and_while_it_comes(client, assert_problem):
    data = bytes(3 << 20)
    told = assert_problem(post(client, form(data)), 413)
    assert told["detail"] == "The upload is too large: at most 2 MiB are taken."

    def pieces():
        yield form(b"", end=False)
        for _ in range(48):
            yield bytes(65_536)

    assert_problem(post(client, pieces()), 413)  # chunked: no length is declared


def png_of(width, height, data=b""):
    """A PNG that claims a size; its pixels are ``data`` unpacked."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def test_a_decompression_bomb_is_refused_by_its_size(client, assert_problem):
    bomb = png_of(50_000, 50_000, zlib.compress(bytes(1 << 20)))
    told = assert_problem(post(client, form(bomb)), 413)
    assert told["detail"] == "The image has 50000 x 50000 pixels; at most 1,000,000 are taken."


def test_what_is_decoded_in_python_has_a_lower_bound(client, assert_problem, png):
    """The bound of this service is 1,000,000 pixels, and 126 x 126 are 15,876."""
    assert post(client, form(png(side=125, kind="QOI"))).status_code == 200
    told = assert_problem(post(client, form(png(side=126, kind="QOI"))), 413)
    assert told["detail"] == (
        "The image has 126 x 126 pixels; at most 15,625 of such a format are taken."
    )


def test_a_picture_that_unpacks_to_more_than_it_claims(client, assert_problem):
    bomb = png_of(4, 4, zlib.compress(bytes(200 << 20), 9))
    assert post(client, form(bomb)).status_code == 200  # what is too much is not unpacked


def test_text_in_a_picture_may_not_unpack_to_much(client, assert_problem):
    text = b"Comment\0\0" + zlib.compress(bytes(64 << 20), 9)
    out = io.BytesIO()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(out, "PNG")
    data = out.getvalue()
    chunk = struct.pack(">I", len(text)) + b"zTXt" + text
    chunk += struct.pack(">I", zlib.crc32(b"zTXt" + text))
    assert_problem(post(client, form(data[:33] + chunk + data[33:])), 422)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 100,
        b"GIF89a" + b"\xff" * 20,
        b"\xff\xd8\xff\xe0" + b"\0" * 50,
        b"II*\0" + b"\xff" * 100,
        b"RIFF\xff\xff\xff\xffWEBPVP8 " + b"\xff" * 50,
        b"\0\0\0\x20ftypavif" + b"\0" * 50,
        b"BM" + b"\xff" * 60,
        b"P6 99999 99999 255\n",
        b"qoif" + b"\xff" * 20,
    ],
)
def test_bytes_that_only_begin_like_an_image(client, assert_problem, data):
    response = post(client, form(data))
    told = assert_problem(response, 413 if response.status_code == 413 else 422)
    assert told["detail"].startswith(("The image cannot be used: ", "The image has "))
    assert "PIL" not in told["detail"]
    assert "(" not in told["detail"]


def test_a_truncated_image_is_refused(client, assert_problem, png):
    for kind in ("PNG", "JPEG", "GIF", "WEBP"):
        data = png(5, side=64, kind=kind)
        assert_problem(post(client, form(data[: len(data) // 2])), 422)


def send(served, *pieces, pause=0.0):
    """Send bytes by hand; what comes back until the connection ends or nothing comes."""
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as sock:
        for piece in pieces:
            sock.sendall(piece)
            time.sleep(pause)
        sock.settimeout(30)
        got = b""
        while piece := sock.recv(65_536):
            got += piece
        return got


def head(path="/v1/search", length=1_000, method="POST"):
    return (
        f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {KIND}\r\n"
        f"Content-Length: {length}\r\n\r\n"
    ).encode()


@pytest.fixture(scope="module")
def impatient(serve_copy):
    with serve_copy(stall_seconds=0.5) as served:
        yield served


def test_a_client_that_stops_sending_is_let_go(impatient):
    assert send(impatient, head() + b"--").startswith(b"HTTP/1.1 408 ")


def test_a_client_that_sends_a_trickle_is_let_go(impatient):
    got = trickle(impatient, head(length=100_000) + form(b"", end=False))
    assert got.startswith(b"HTTP/1.1 408 ")


def test_what_came_fast_buys_no_time_for_a_trickle(impatient):
    got = trickle(impatient, head(length=2_000_000) + form(bytes(1_000_000), end=False))
    assert got.startswith(b"HTTP/1.1 408 ")


def trickle(served, begun):
    """The answer to a request that goes on by ten bytes a second, for 20 seconds at most."""
    got = b""
    with socket.create_connection(("127.0.0.1", served.port), timeout=30) as sock:
        sock.sendall(begun)
        sock.settimeout(0.1)
        started = time.monotonic()
        while not got and time.monotonic() - started < 20:
            sock.sendall(b"x")
            try:
                got = sock.recv(1_000)
            except TimeoutError:
                continue
    return got


@pytest.mark.parametrize("sent", [b"", b"GET /health HT", b"GET /health HTTP/1.1\r\nHost: lo"])
def test_a_head_that_never_ends_is_let_go(impatient, sent):
    started = time.monotonic()
    assert send(impatient, sent) == b""
    assert time.monotonic() - started < 20


def test_a_second_head_that_never_ends_is_let_go(impatient):
    whole = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    got = send(impatient, whole, b"GET /hea", pause=0.2)
    assert got.count(b"HTTP/1.1 200 OK") == 1


def test_a_client_that_goes_away_leaves_nothing_behind(shared, eventually):
    with contextlib.ExitStack() as clients:
        for _ in range(5):
            sock = clients.enter_context(socket.create_connection(("127.0.0.1", shared.port)))
            sock.sendall(head(length=9_000) + form(bytes(5_000), end=False))
        eventually(lambda: shared.metric("spherequant_upload_bytes") > 0)
    eventually(lambda: shared.metric("spherequant_upload_bytes") == 0)
    with shared.client() as client:
        assert client.get("/health").status_code == 200


def test_a_refused_body_is_not_read_for_ever(shared):
    """The client goes on sending; it sees the answer, then the end."""
    got = b""
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", shared.port), timeout=30) as sock:
        sock.sendall(head(length=1 << 40))
        sock.settimeout(0.05)
        try:
            while time.monotonic() - started < 30:
                sock.sendall(bytes(65_536))
                try:
                    got += sock.recv(65_536)
                except TimeoutError:
                    continue
        except OSError:
            pass
    assert got.startswith(b"HTTP/1.1 413 ")
    assert time.monotonic() - started < 25


def test_bodies_in_memory_are_bounded_together(serving, folder, png, assert_problem):
    bounds = dict.fromkeys(("max_image_bytes", "max_body_bytes", "max_upload_bytes"), 100_000)
    served = serving(folder, **bounds, stall_seconds=20.0)
    with served.client() as client:
        with socket.create_connection(("127.0.0.1", served.port)) as sock:
            sock.sendall(head(length=99_000) + form(bytes(90_000), end=False))
            deadline = time.monotonic() + 30
            while served.metric("spherequant_upload_bytes") < 90_000:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            response = post(client, form(bytes(20_000)))
            assert_problem(response, 503)
            assert response.headers["retry-after"] == "1"
        deadline = time.monotonic() + 30
        while served.metric("spherequant_upload_bytes"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert post(client, form(png())).status_code == 200
