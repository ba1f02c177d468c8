"""The commands and the Python of the README run as they are written, on a few tiny photos."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import spherequant
from spherequant.cli import app

README = Path(__file__).parents[1] / "README.md"
QUICK = "--epochs 1 --dim 8 --image-size 16"
ADDRESS = "http://127.0.0.1:8000"


def section(title, document=README):
    """The text under a heading, up to the next."""
    return document.read_text("utf-8").partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def commands(text):
    return re.findall(r"^    ((?:spherequant|curl) .+)$", text, re.MULTILINE)


def run(line):
    """Run a command of ours in this process."""
    arguments = shlex.split(line)[1:] + (QUICK.split() if " train " in line else [])
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, (line, result.output)
    return result.stdout


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
    lines = commands(section("Your own photos"))
    assert [shlex.split(line)[1] for line in lines] == ["train", "index", "search", "evaluate"]
    for line in lines:
        run(line)
    assert Path("results.html").read_text("utf-8").count("data:image/jpeg") == 1 + 10
    assert Path("report/report.html").exists()


def test_the_service(photos, capsys):
    text = section("Serve it")
    serve, put, search = commands(text)
    assert f"<{ADDRESS}/>" in text
    for line in commands(section("Your own photos"))[:2]:
        run(line)
    with serving(serve) as address:
        put, search = (line.replace(ADDRESS, address) for line in (put, search))
        assert shutil.which("curl"), "the command of the README needs curl"
        subprocess.run([*shlex.split(put), "--fail", "--silent"], check=True, capture_output=True)
        lines = run(search).splitlines()
        assert len(lines) == 1 + 5
        assert lines[1].split()[0] == "1"
        assert any("new/1.jpg" in line and "beach" in line for line in lines)
        execute(python(text).replace(ADDRESS, address))
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list("12345")


@contextmanager
def serving(line):
    """The address that a `spherequant serve` of the README says, on a port that is free."""
    served = subprocess.Popen(
        [sys.executable, "-m", "spherequant", *shlex.split(line)[1:], "--port", "0", "--quiet"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(README.parent / "src"), "OMP_NUM_THREADS": "1"},
    )
    try:
        yield next(told.split()[-1].rstrip("/") for told in served.stderr if "serving" in told)
    finally:
        served.terminate()
        served.communicate(timeout=60)


def python(text):
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return block


def execute(block):
    exec(compile(block, str(README), "exec"), {"__name__": "readme"})


def test_the_python(photos, capsys):
    for line in commands(section("Your own photos"))[:2]:
        run(line)  # what a reader who goes from the top has by then
    block = python(section("From Python"))
    settings = "TrainConfig(bits=32)"
    assert settings in block
    execute(block.replace(settings, "TrainConfig(bits=32, epochs=1, dim=8, image_size=16)"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "16 images added"
    assert len(lines) == 1 + 5 + 1
    assert 0 <= float(lines[-1].removeprefix("mAP ")) <= 1


def test_a_network_of_ones_own(photos):
    quantizer = README.parent / "docs" / "quantizer.md"
    execute(python(section("Codes of a network of your own", quantizer)))
    with spherequant.Index.open("mine.index") as index:
        assert len(index) == 16


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
