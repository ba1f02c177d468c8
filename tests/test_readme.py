"""The commands and the Python of the README run as they are written, on a few tiny photos."""

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import spherequant
from spherequant.cli import app

README = Path(__file__).parents[1] / "README.md"
QUICK = "--epochs 1 --dim 8 --image-size 16"


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Two classes of photos, with the files that the README names."""
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(8):
            pixels = generator.integers(0, 256, (20, 20, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.jpg")
    Image.fromarray(pixels).save(tmp_path / "holiday.jpg")
    monkeypatch.chdir(tmp_path)


def test_the_commands(photos):
    commands = re.findall(r"^    (spherequant .+)$", README.read_text("utf-8"), re.MULTILINE)
    assert [shlex.split(line)[1] for line in commands] == ["train", "index", "search", "evaluate"]
    for line in commands:
        arguments = shlex.split(line)[1:] + (QUICK.split() if " train " in line else [])
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, (line, result.output)
    assert Path("results.html").read_text("utf-8").count("data:image/jpeg") == 1 + 10
    assert Path("report/report.html").exists()


def test_the_python(photos, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    settings = "TrainConfig(bits=32)"
    assert settings in block
    quick = block.replace(settings, "TrainConfig(bits=32, epochs=1, dim=8, image_size=16)")
    exec(compile(quick, str(README), "exec"), {"__name__": "readme"})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "16 images added"
    assert len(lines) == 1 + 5 + 1
    assert 0 <= float(lines[-1].removeprefix("mAP ")) <= 1


def test_the_links_lead_somewhere():
    documents = [README, README.parent / "CONTRIBUTING.md", *README.parent.glob("docs/*.md")]
    assert len(documents) > 5
    for document in documents:
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text("utf-8")):
            assert link.startswith("https://") or (document.parent / link).exists(), (
                document,
                link,
            )


def test_the_version_asked_for_is_the_one_that_runs():
    assert sys.version_info >= (3, 11)
    changes = (README.parent / "CHANGELOG.md").read_text("utf-8")
    assert f"## {spherequant.__version__}" in changes
