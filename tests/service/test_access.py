"""API keys: where they come from, and what they open."""

import pytest

from spherequant.errors import ConfigError
from spherequant.service.access import Access, load_keys
from spherequant.service.problems import Problem
from spherequant.service.settings import Settings

READ, WRITE, OTHER = "r" * 20, "w" * 20, "x" * 20


@pytest.fixture
def access():
    return Access(Settings(read_keys=(READ,), write_keys=(WRITE,)))


def status(access, authorization, *, write):
    try:
        access.check(authorization, write=write)
    except Problem as problem:
        return problem.status
    return 200


@pytest.mark.parametrize(
    ("authorization", "read", "write"),
    [
        (None, 401, 401),
        ("", 401, 401),
        ("Bearer", 401, 401),
        ("Bearer ", 401, 401),
        (f"Basic {READ}", 401, 401),
        (READ, 401, 401),
        (f"Bearer {OTHER}", 401, 401),
        (f"Bearer {READ[:-1]}", 401, 401),
        (f"Bearer {READ}x", 401, 401),
        ("Bearer \xff\udc80", 401, 401),
        (f"Bearer {READ}", 200, 403),
        (f"bearer  {READ}", 200, 403),
        (f"Bearer {WRITE}", 200, 200),
    ],
)
def test_who_may_do_what(access, authorization, read, write):
    assert status(access, authorization, write=False) == read
    assert status(access, authorization, write=True) == write


def test_without_keys_everything_is_open():
    assert status(Access(Settings()), None, write=True) == 200


def test_with_a_write_key_alone_reading_needs_it_too():
    access = Access(Settings(write_keys=(WRITE,)))
    access.check(f"Bearer {WRITE}", write=False)
    with pytest.raises(Problem) as caught:
        access.check(None, write=False)
    assert caught.value.status == 401


def test_without_a_write_key_nobody_writes():
    assert status(Access(Settings(read_keys=(READ,))), f"Bearer {READ}", write=True) == 403


def test_keys_come_from_a_variable_or_a_file(tmp_path):
    assert load_keys("K", None, {"K": f" {READ}\n"}) == (READ,)
    assert load_keys("K", None, {}) == ()
    file = tmp_path / "keys"
    file.write_text(f"# readers\n{READ}\n\n  {OTHER}  \n  # rotated in March 2026\n")
    assert load_keys("K", file, {"K": WRITE}) == (READ, OTHER)


def test_a_file_without_keys_is_refused(tmp_path):
    file = tmp_path / "keys"
    with pytest.raises(ConfigError, match="cannot be read"):
        load_keys("K", file)
    file.write_text("# none\n")
    with pytest.raises(ConfigError, match="holds no key"):
        load_keys("K", file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_keys("K", file)


def test_over_http(serving, folder, assert_problem):
    served = serving(folder, read_keys=(READ,), write_keys=(WRITE,))
    item = {"key": "digits/0/00.png"}
    with served.client() as client:
        for path in ("/", "/health", "/ready", "/openapi.json"):
            assert client.get(path).status_code == 200
        for method, path in (
            ("POST", "/v1/search"),
            ("GET", "/v1/items"),
            ("PUT", "/v1/items"),
            ("PATCH", "/v1/items"),
            ("DELETE", "/v1/items"),
            ("POST", "/v1/items:batch"),
            ("GET", "/v1/items/duplicates"),
            ("GET", "/v1/thumbnail"),
            ("GET", "/v1/original"),
            ("GET", "/v1/labels"),
            ("GET", "/v1/columns"),
            ("GET", "/v1/collection"),
            ("GET", "/v1/duplicates"),
            ("POST", "/v1/refresh"),
            ("GET", "/metrics"),
        ):
            response = client.request(method, path, params=item)
            assert_problem(response, 401)
            assert response.headers["www-authenticate"] == "Bearer"
            reader = client.request(
                method, path, params=item, headers={"authorization": f"Bearer {READ}"}
            )
            writes = method in ("PUT", "PATCH", "DELETE") or "batch" in path or "refresh" in path
            assert (reader.status_code == 403) == writes, (method, path)
        writer = {"authorization": f"Bearer {WRITE}"}
        assert client.delete("/v1/items", params=item, headers=writer).status_code == 204
