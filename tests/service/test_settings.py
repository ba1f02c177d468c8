"""Settings: who is exposed, and which are refused."""

import pytest

from spherequant.errors import ConfigError
from spherequant.service.settings import Settings, is_loopback

KEY = "k" * 32


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]", "127.8.8.8"])
def test_loopback_needs_no_key(host):
    assert is_loopback(host)
    assert not Settings(host=host).exposed


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_any_other_address_needs_keys(host):
    with pytest.raises(ConfigError, match="SPHEREQUANT_READ_KEY"):
        Settings(host=host)
    with pytest.raises(ConfigError, match="a key for reading first"):
        Settings(host=host, write_keys=(KEY,))
    assert Settings(host=host, read_keys=(KEY,)).exposed


def test_a_public_name_before_loopback_needs_keys_too():
    with pytest.raises(ConfigError, match="key for reading"):
        Settings(allowed_hosts=("images.example.org",))
    assert not Settings(allowed_hosts=("localhost",)).exposed


@pytest.mark.parametrize("key", ["short", "ü" * 20, "with\nline-end-in-the-middle", ""])
def test_keys_that_are_none(key):
    with pytest.raises(ConfigError, match="secrets"):
        Settings(read_keys=(key,))


def test_keys_are_not_shown():
    assert KEY not in repr(Settings(read_keys=(KEY,), write_keys=(KEY,)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 70_000},
        {"port": -1},
        {"max_image_bytes": 0},
        {"max_batch": 0},
        {"max_batch": 2_000},
        {"max_image_bytes": 100 << 20},  # above a body
        {"max_image_bytes": 1 << 30, "max_body_bytes": 2 << 30},  # above what is held of all
        {"allowed_hosts": ("search.example:8443",), "read_keys": (KEY,)},
        {"allowed_hosts": ("https://search.example",), "read_keys": (KEY,)},
    ],
)
def test_values_out_of_range(wrong):
    with pytest.raises(ConfigError):
        Settings(**wrong)
