"""The command in this process and as a process of its own; a model and an index made by it once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from spherequant.cli import app

SRC = Path(__file__).parents[2] / "src"
# Small and quick; the figures it gives are not looked at.
QUICK = ("--bits", "16", "--epochs", "1", "--dim", "8", "--image-size", "16")
QUICK += ("--precision", "float32")  # whatever the processor


def invoke(*arguments, code=0):
    """Run the command in this process and check its exit code."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, (result.exit_code, result.output, result.exception)
    return result


def invoke_json(*arguments):
    """The one JSON object that a verb prints."""
    return json.loads(invoke(*arguments, "--json").stdout)


@pytest.fixture(scope="session")
def spherequant():
    return invoke


@pytest.fixture(scope="session")
def spherequant_json():
    return invoke_json


@pytest.fixture(scope="session")
def process():
    """Start the command as a process: its interpreter, arguments and environment."""

    def start(*arguments, **options):
        environment = os.environ | {"PYTHONPATH": str(SRC), "OMP_NUM_THREADS": "1"}
        environment |= options.pop("env", {})
        return subprocess.Popen(
            [sys.executable, "-m", "spherequant", *map(str, arguments)],
            stdout=options.pop("stdout", subprocess.PIPE),
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            **options,
        )

    return start


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """Three classes of twelve small images, and one file that is no image."""
    folder = tmp_path_factory.mktemp("given") / "photos"
    generator = np.random.default_rng(0)
    for place, name in enumerate(("ant", "bee", "cat")):
        (folder / name).mkdir(parents=True)
        for number in range(12):
            pixels = generator.integers(0, 120, (20, 20, 3), np.uint8)
            pixels[:, :, place] += 120
            Image.fromarray(pixels).save(folder / name / f"{number:02}.png")
    (folder / "bee" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut short")
    return folder


@pytest.fixture(scope="session")
def trained(photos, tmp_path_factory):
    """A model of ``photos``, and what the command that made it said."""
    out = tmp_path_factory.mktemp("made") / "model"
    result = invoke("train", photos, "--out", out, *QUICK, "--json")
    return SimpleNamespace(path=out, result=result, json=json.loads(result.stdout))


@pytest.fixture(scope="session")
def indexed(photos, trained, tmp_path_factory):
    """An index of ``photos`` with vectors, and what the command that made it said."""
    out = tmp_path_factory.mktemp("made") / "index"
    result = invoke("index", trained.path, photos, "--out", out, "--keep-vectors", "--json")
    return SimpleNamespace(path=out, result=result, json=json.loads(result.stdout))


@pytest.fixture(scope="session")
def served(process, indexed):
    """The address of a service over the index of ``photos``, run by the command."""
    run = process("serve", indexed.path, "--port", "0", "--quiet", stdout=subprocess.DEVNULL)
    try:
        lines = iter(run.stderr)
        yield next(line.split()[-1] for line in lines if "serving" in line)
    finally:
        run.terminate()
        run.communicate(timeout=60)


@pytest.fixture(scope="session")
def quick():
    return QUICK
