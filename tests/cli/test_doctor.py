"""``spherequant doctor``."""

import tempfile

from spherequant import __version__
from spherequant.quantizer import Encoder


def test_every_check_runs(spherequant):
    text = spherequant("doctor").stdout
    assert __version__ in text
    for name in ("device", "native module", "temporary files", "index"):
        assert f"ok    {name}: " in text
    for library in ("torch", "pylance", "fastapi", "optional faiss", "optional pillow_heif"):
        assert library in text
    assert "All checks passed." in text


def test_what_is_broken_is_named_and_the_rest_still_checked(spherequant, monkeypatch):
    monkeypatch.setattr(Encoder, "encode", lambda *_: {}["gone"])
    text = spherequant("doctor", code=1).stdout
    assert "FAIL  native module: KeyError" in text
    assert "FAIL  index: " in text
    assert "ok    temporary files" in text
    assert "2 of 4 checks failed: native module, index" in text


def test_an_unwritable_temporary_folder_is_found(spherequant, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    assert "FAIL  temporary files: FileNotFoundError" in spherequant("doctor", code=1).stdout
