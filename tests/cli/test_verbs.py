"""The verbs together: help, exit codes, signals, pipes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from spherequant import __version__
from spherequant.cli.verbs import DEBUG

SRC = Path(__file__).parents[2] / "src"
VERBS = ("train", "index", "search", "serve", "evaluate", "export", "info", "doctor", "bench")


def test_help_names_the_verbs_and_how_to_begin(spherequant):
    text = spherequant("--help").stdout
    for verb in VERBS:
        assert f"\n  {verb} " in text
    assert "spherequant train SOURCE --out" in " ".join(text.split())


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_has_help(verb, spherequant):
    text = spherequant(verb, "--help").stdout
    assert "Usage:" in text
    assert "..." not in text.splitlines()[2]


def test_version(spherequant):
    assert spherequant("--version").stdout == f"spherequant {__version__}\n"


def test_help_loads_nothing_heavy(process):
    """And so it answers at once: no torch, lance or numpy."""
    run = process("--help", env={"PYTHONPROFILEIMPORTTIME": "1"})
    out, err = run.communicate(timeout=60)
    assert run.returncode == 0
    assert "Usage:" in out
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in err.splitlines()}
    assert "typer" in loaded
    assert not loaded & {
        "torch",
        "lance",
        "numpy",
        "faiss",
        "sklearn",
        "PIL",
        "matplotlib",
        "fastapi",
        "httpx2",
    }


@pytest.mark.parametrize("arguments", [("nonsense",), ("--nonsense",), ("search",)])
def test_wrong_usage(arguments, spherequant):
    assert "Usage:" in spherequant(*arguments, code=2).stderr


def test_an_error_cannot_write_to_the_terminal(spherequant, tmp_path):
    told = spherequant("info", tmp_path / "bad\x1b[31m", code=1).stderr
    assert "\x1b" not in told
    assert "bad\\x1b[31m" in told


def test_an_error_has_a_message_and_no_traceback_unless_asked(spherequant, tmp_path, monkeypatch):
    monkeypatch.delenv(DEBUG, raising=False)
    assert spherequant("info", tmp_path, code=1).stderr.startswith("error: ")
    monkeypatch.setenv(DEBUG, "1")
    told = spherequant("info", tmp_path, code=1).stderr
    assert "Traceback" in told
    assert "FormatError" in told


def test_a_full_disk_is_an_error_like_others(spherequant, trained, photos, monkeypatch, tmp_path):
    def full(*_, **__):
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr("pathlib.Path.mkdir", full)
    page = tmp_path / "new" / "page.html"
    result = spherequant("evaluate", trained.path, photos, "--out", page, code=1)
    assert "No space left on device" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_gpu_too_small_is_an_error_like_others(
    spherequant, trained, photos, monkeypatch, tmp_path
):
    def load(directory):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB")

    monkeypatch.setattr("spherequant.training.Model.load", load)
    result = spherequant("index", trained.path, photos, "--out", tmp_path / "i", code=1)
    assert "\nerror: CUDA out of memory.\n" in result.stderr
    assert "--batch-size" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_interrupted_verb_says_how_to_go_on(spherequant, monkeypatch, trained, photos, tmp_path):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("spherequant.index.Index.sync", interrupted)
    told = spherequant("index", trained.path, photos, "--out", tmp_path / "i", code=130).stderr
    assert "Stopped. The same command goes on where it stopped." in told
    monkeypatch.setattr("spherequant.training.read_description", interrupted, raising=False)
    assert spherequant("info", trained.path, code=130).stderr == "Stopped.\n"


def test_ctrl_c_while_a_model_is_validated_says_that_it_is_complete(
    spherequant, spherequant_json, monkeypatch, photos, tmp_path
):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("spherequant.evaluation.validation.validate", interrupted)
    arguments = ("train", photos, "--out", tmp_path / "m", "--dim", "8", "--image-size", "16")
    told = spherequant(*arguments, "--bits", "8", "--epochs", "1", code=130).stderr
    assert f"the model in {tmp_path / 'm'} is complete" in told
    assert "same command" not in told
    assert spherequant_json("info", tmp_path / "m")["bits"] == 8


def test_ctrl_c_in_a_training_keeps_what_was_done(process, photos, tmp_path):
    arguments = ("train", photos, "--out", tmp_path / "m", "--dim", "8", "--image-size", "16")
    run = process(*arguments, "--epochs", "2000", "--batch-size", "12")
    deadline = time.monotonic() + 120
    while not (tmp_path / "m" / "checkpoint.safetensors").exists():
        assert run.poll() is None, run.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert "The same command goes on where it stopped" in err
    assert "Traceback" not in err
    assert (tmp_path / "m" / "checkpoint.safetensors").exists()


def test_a_reader_that_goes_away_is_met_quietly(process, indexed):
    run = process("search", indexed.path, "--key", "ant/00.png", "-k", "36", "--json")
    run.stdout.close()
    err = run.stderr.read()
    run.stderr.close()
    assert run.wait(timeout=60) == 141
    assert err == ""


def test_a_terminal_of_few_letters_is_enough(process, indexed, tmp_path):
    run = process(
        "search", indexed.path, tmp_path / "grün-绿.png",
        env={"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )  # fmt: skip
    _, err = run.communicate(timeout=60)
    assert run.returncode == 1
    assert "\\u7eff" in err


def test_streams_that_the_caller_closed(process, trained, tmp_path):
    script = (
        "import os, sys; os.close(1); os.close(2);"
        "os.execv(sys.executable, [sys.executable, '-m', 'spherequant', 'info', sys.argv[1]])"
    )
    environment = os.environ | {"PYTHONPATH": str(SRC)}
    done = subprocess.run(
        [sys.executable, "-c", script, trained.path], env=environment, check=False
    )
    assert done.returncode == 0


def test_an_answer_needs_no_reader_of_the_notes(process, trained, photos, tmp_path):
    run = process("index", trained.path, photos, "--out", tmp_path / "i", "--json")
    run.stderr.close()
    with run.stdout as stdout:
        assert json.loads(stdout.read())["added"] == 36
    assert run.wait(timeout=60) == 0
