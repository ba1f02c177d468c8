"""``spherequant serve``: what it refuses before it starts, and what it passes on."""

import logging

import pytest


@pytest.fixture
def served(monkeypatch):
    """What the command would serve."""
    calls = []
    monkeypatch.setattr(
        "spherequant.service.server.serve",
        lambda index, settings, started: (
            calls.append((index, settings)),
            started("http://127.0.0.1:1/"),
        ),
    )
    for name in ("SPHEREQUANT_READ_KEY", "SPHEREQUANT_WRITE_KEY"):
        monkeypatch.delenv(name, raising=False)
    root = logging.getLogger()
    before = root.handlers[:], root.level
    yield calls
    root.handlers[:], root.level = before


def test_it_listens_on_loopback_and_says_where(spherequant, served, tmp_path):
    result = spherequant("serve", tmp_path)
    ((index, settings),) = served
    assert index == tmp_path
    assert (settings.host, settings.port, settings.exposed) == ("127.0.0.1", 8000, False)
    assert settings.keep_originals
    assert f"serving {tmp_path} at http://127.0.0.1:1/" in result.stderr


def test_options_are_passed_on(spherequant, served, tmp_path, monkeypatch):
    keys = tmp_path / "keys"
    keys.write_text("a-key-of-twenty-chars\n")
    monkeypatch.setenv("SPHEREQUANT_WRITE_KEY", "another-key-of-twenty")
    spherequant(
        "serve",
        tmp_path,
        "--host",
        "0.0.0.0",
        "--port",
        "0",
        "--read-keys",
        keys,
        "--allowed-host",
        "a.example",
        "--max-pixels",
        "1000",
        "--max-megabytes",
        "3",
        "--no-originals",
    )
    settings = served[0][1]
    assert settings.read_keys == ("a-key-of-twenty-chars",)
    assert settings.write_keys == ("another-key-of-twenty",)
    assert settings.allowed_hosts == ("a.example",)
    assert (settings.max_pixels, settings.max_image_bytes) == (1_000, 3 << 20)
    assert not settings.keep_originals


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_other_machines_need_keys(spherequant, served, tmp_path, host):
    told = spherequant("serve", tmp_path, "--host", host, code=1).stderr
    assert "--read-keys FILE" in told
    assert not served


def test_keys_are_no_options(spherequant, served, tmp_path):
    text = spherequant("serve", "--help").stdout
    assert "one a line" in " ".join(text.split())
    told = spherequant("serve", tmp_path, "--read-keys", "a-key-of-twenty-chars", code=1).stderr
    assert "cannot be read" in told


def test_no_index_there(spherequant, tmp_path):
    assert "error:" in spherequant("serve", tmp_path / "none", "--port", "0", code=1).stderr
