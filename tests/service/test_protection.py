"""Hosts, origins, headers and the log."""

import logging

import pytest

KEY = "secret-key-" * 3


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:8000", 200),
        ("127.0.0.1:1", 200),
        ("[::1]:8000", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.nip.io:8000", 421),
        ("evil.example:8000@localhost", 421),
        ("", 421),
        ("[::1", 421),
    ],
)
def test_loopback_answers_to_its_own_names_alone(client, host, status):
    for path in ("/health", "/", "/v1/labels", "/openapi.json"):
        response = client.get(path, headers={"host": host})
        assert response.status_code == status, (path, response.text)


def test_a_name_may_be_allowed(serving, folder):
    served = serving(folder, allowed_hosts=("Images.example",), read_keys=(KEY,))
    with served.client() as client:
        assert client.get("/health", headers={"host": "images.example"}).status_code == 200
        refused = client.get("/health", headers={"host": "other.example"})
        assert refused.status_code == 421
        assert "ask it as 127.0.0.1 or [::1] or images.example or localhost" in refused.text


def test_every_loopback_address_answers_to_itself(serving, folder):
    served = serving(folder, host="127.0.0.2")
    with served.client() as client:
        assert client.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://localhost:8000", "host": "localhost:8000"}, 200),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://[::1"}, 403),
        ({"origin": "http://localhost:9999", "host": "localhost:8000"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
    ],
)
def test_pages_of_other_sites_change_nothing(client, headers, status):
    for path in ("/v1/search", "/v1/items:batch"):
        body = {"key": "digits/0/00.png"} if "search" in path else {"delete": []}
        assert client.post(path, json=body, headers=headers).status_code == status
    for path in ("/v1/labels", "/v1/duplicates", "/metrics"):
        assert client.get(path, headers=headers).status_code == status
    for path in ("/", "/page/main.js", "/health"):  # a link from another site may lead to the page
        assert client.get(path, headers=headers).status_code == 200


def test_other_sites_may_not_read_either(client):
    response = client.options(
        "/v1/search",
        headers={"origin": "https://evil.example", "access-control-request-method": "POST"},
    )
    assert response.status_code == 403
    for path in ("/", "/health", "/v1/labels"):
        response = client.get(path, headers={"origin": "https://evil.example"})
        assert "access-control-allow-origin" not in response.headers
        assert response.headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize(
    "path", ["/", "/page/index.html", "/health", "/v1/labels", "/nothing", "/v1/search"]
)
def test_every_answer_has_the_headers(client, path):
    headers = client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "server" not in headers


def test_modules_have_their_media_type_on_any_machine(client, monkeypatch):
    import mimetypes

    monkeypatch.setattr(mimetypes, "guess_type", lambda *_, **__: ("text/plain", None))
    assert client.get("/page/main.js").headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize(
    "path",
    [
        "/page/../settings.py",
        "/page/..%2fsettings.py",
        "/page/%2e%2e/settings.py",
        "/page//etc",
        "/page/..\\settings.py",
        "/page/%00",
        "/page/",
        "/page",
        "/page/" + "a" * 5_000,
    ],
)
def test_the_page_serves_its_own_files_alone(shared, path):
    import socket

    with socket.create_connection(("127.0.0.1", shared.port), timeout=30) as sock:
        sock.sendall(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        got = b""
        while piece := sock.recv(65_536):
            got += piece
    assert got.split(b" ")[1] in (b"404", b"307")
    assert b"class Settings" not in got


def test_addresses_and_methods_that_are_not_there(client, assert_problem):
    assert_problem(client.get("/nothing"), 404)
    assert assert_problem(client.get("/v1/search"), 405)["code"] == "method-not-allowed"
    assert client.get("/v1/search").headers["allow"] == "POST"
    assert_problem(client.request("BREW", "/v1/search"), 405)
    assert client.head("/nothing").status_code == 404


def test_the_log_has_no_keys_and_no_questions(
    serving, folder, png, caplog, monkeypatch, eventually
):
    caplog.set_level(logging.DEBUG)
    served = serving(folder, read_keys=(KEY,), write_keys=(KEY,))

    def fails(*_, **__):
        raise RuntimeError("very-private-text")

    with served.client(headers={"authorization": f"Bearer {KEY}"}) as client:
        asked = {"where": "note = 'where-text'"}
        client.post("/v1/search", json={"key": "asked-key"}, params=asked)
        client.put("/v1/items", params={"key": "put-key"}, files={"image": ("name-text", png())})
        client.get(
            "/v1/items", params={"key": "put-key"}, headers={"authorization": "Bearer bad-key"}
        )
        client.get("/nothing/path-text?x=y")
        monkeypatch.setattr(type(served.engine.searcher), "search", fails)
        response = client.post("/v1/search", json={"key": "digits/0/00.png"}, params=asked)
    assert response.status_code == 500
    assert "very-private-text" not in response.text

    def text():
        ours = (r for r in caplog.records if not r.name.startswith(("httpx", "httpcore")))
        return "\n".join(record.getMessage() for record in ours)

    eventually(lambda: "RuntimeError" in text())  # it is logged after the answer
    assert "POST /v1/search 404" in text()
    for secret in (
        KEY,
        "where-text",
        "asked-key",
        "put-key",
        "name-text",
        "bad-key",
        "path-text",
        "very-private-text",
    ):
        assert secret not in text()
