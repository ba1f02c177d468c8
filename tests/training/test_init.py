from __future__ import annotations

import subprocess
import sys

import pytest

import spherequant
import spherequant.training


def test_every_public_name_can_be_imported():
    for name in spherequant.training.__all__:
        assert getattr(spherequant.training, name) is not None


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Trian'"):
        spherequant.training.Trian  # noqa: B018  # the access is the test


@pytest.mark.parametrize(
    "use",
    [
        "import spherequant",
        "import spherequant.training",
        "from spherequant import TrainConfig; TrainConfig(bits=16).to_toml()",
        "import spherequant.training.recipe, spherequant.training.randomness",
    ],
)
def test_it_leaves_torch_unloaded(use):
    program = (
        f"import sys; {use}\n"
        "heavy = ('torch', 'torchvision', 'timm', 'lightning_fabric', 'lance', 'faiss')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
