from __future__ import annotations

import subprocess
import sys

import pytest

import spherequant.embedding


def test_every_public_name_can_be_imported():
    for name in spherequant.embedding.__all__:
        assert getattr(spherequant.embedding, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Backbon'"):
        spherequant.embedding.Backbon  # noqa: B018  # the access is the test


def test_importing_loads_neither_torch_nor_timm():
    program = (
        "import sys, spherequant.embedding, spherequant.embedding.backbone\n"
        "print([name for name in ('torch', 'timm', 'torchvision') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
