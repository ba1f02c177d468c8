"""One word or path -> the source it means."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from spherequant.errors import ConfigError, SourceError
from spherequant.images import Limits, Source, open_source


def test_a_missing_path_names_the_cure(tmp_path):
    with pytest.raises(SourceError, match=r"gone does not exist: give a folder, \.zip or \.tar"):
        open_source(tmp_path / "gone")
    with pytest.raises(SourceError, match=r"did you mean 'digits'.*cifar10, cifar100"):
        open_source("digit")
    with pytest.raises(SourceError, match="neither a path that exists nor a known set"):
        open_source("holidays")


def test_a_path_that_is_not_utf8_names_the_cure(tmp_path, make_folder):
    bad = make_folder(["a.jpg"], at=os.fsdecode(b"caf\xe9"))
    link = tmp_path / "link"
    link.symlink_to(bad)
    for path in (bad, link, tmp_path / os.fsdecode(b"gone\xe9")):
        with pytest.raises(SourceError, match="not valid UTF-8: rename it") as refused:
            open_source(path)
        str(refused.value).encode()  # it can be printed


def test_a_name_that_is_also_a_path_is_ambiguous(tmp_path, monkeypatch, make_folder):
    make_folder(["a/1.jpg", "b/1.jpg"], at="digits")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=r"write \./digits for the path or digits: for the set"):
        open_source("digits")
    assert len(open_source("./digits").items) == 2
    assert len(open_source("digits:").items) == 1797


def test_importing_and_listing_load_no_torch(make_folder):
    code = (
        "import sys; from spherequant.images import open_source; open_source(sys.argv[1]);"
        "print({'torch', 'torchvision', 'sklearn', 'lance'} & set(sys.modules))"
    )
    folder = str(make_folder(["a.jpg"]))
    found = subprocess.run(
        [sys.executable, "-c", code, folder], capture_output=True, text=True, check=True
    )
    assert found.stdout == "set()\n"


def test_an_open_source_comes_back():
    source = open_source("digits")
    assert open_source(source) is source
    assert isinstance(source, Source)
    with pytest.raises(ConfigError, match="when opening it"):
        open_source(source, labels="none")


def test_home_is_expanded(tmp_path, monkeypatch, make_folder):
    make_folder(["a.jpg"])
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(open_source("~/photos").items) == 1


@pytest.mark.parametrize("spec", [5, None, b"photos"])
def test_other_things_are_refused(spec):
    with pytest.raises(SourceError, match="a source is a path, a name, or"):
        open_source(spec)


def test_limits_and_modes_are_checked_first(make_folder):
    folder = make_folder(["a.jpg"])
    assert open_source(folder, limits=Limits(max_pixels=5)).limits.max_pixels == 5
    with pytest.raises(ConfigError, match="did you mean 'folders'"):
        open_source(folder, labels="folder")
    with pytest.raises(ConfigError, match="did you mean 'none'"):
        open_source([], labels="non")


@pytest.mark.parametrize("nothing", ["", "  "])
def test_an_empty_text_is_not_the_current_folder(nothing):
    with pytest.raises(SourceError, match="empty text"):
        open_source(nothing)
