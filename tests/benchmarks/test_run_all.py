"""What `make results` runs, leaves out and does not run again."""

from __future__ import annotations

import ast
import sys

import pytest

import results
import run_all
from run_all import STEPS, Step


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """A folder of scripts, one of which fails, in place of the repository."""
    (tmp_path / "benchmarks").mkdir()
    counting = (
        "import os, sys\n"
        f"reduced = os.environ.get({results.REDUCED!r})\n"
        "open('ran', 'a').write(f'{sys.argv[1:]} {reduced};')\n"
    )
    (tmp_path / "benchmarks/counts.py").write_text(counting)
    (tmp_path / "benchmarks/fails.py").write_text("raise SystemExit(3)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(results, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(run_all, "RUNS", tmp_path / "results")
    (tmp_path / "docs").mkdir()
    return tmp_path


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["run_all.py", *arguments])
    return run_all.main()


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step.script} {step.full}")
def test_each_step_is_a_script_that_takes_its_arguments(step):
    path = results.ROOT / "benchmarks" / f"{step.script}.py"
    options = {
        node.value
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    if step.script == "figures":
        options |= {"--mosaics", "--mosaic-queries", "--mosaic-epochs"}
    for full in (True, False):
        asked = [word for word in step.command(full=full) or () if word.startswith("--")]
        assert set(asked) <= options


def test_a_step_runs_once(runs, monkeypatch, capfd):
    monkeypatch.setattr(
        run_all, "STEPS", (Step("counts", "--a 1", "--b"), Step("counts", "", None))
    )
    assert run(monkeypatch) == 0
    assert (runs / "ran").read_text() == "['--b'] 1;"
    assert run(monkeypatch) == 0
    assert (runs / "ran").read_text() == "['--b'] 1;"
    assert "ended before: benchmarks/counts.py --b" in capfd.readouterr().out
    assert run(monkeypatch, "--again") == 0
    (runs / "benchmarks/counts.py").write_text("open('ran', 'w').write('changed')\n")
    assert run(monkeypatch) == 0
    assert (runs / "ran").read_text() == "changed"
    assert (runs / "docs/results.md").exists()


def test_full_runs_everything_in_order(runs, monkeypatch):
    monkeypatch.setattr(
        run_all, "STEPS", (Step("counts", "--a 1", "--b"), Step("counts", "", None))
    )
    assert run(monkeypatch, "--full") == 0
    assert (runs / "ran").read_text() == "['--a', '1'] None;[] None;"


def test_a_failure_keeps_no_other_from_running(runs, monkeypatch, capfd):
    monkeypatch.setattr(run_all, "STEPS", (Step("fails", "", ""), Step("counts", "", "")))
    assert run(monkeypatch) == 1
    assert (runs / "ran").exists()
    assert "failed:\n  benchmarks/fails.py" in capfd.readouterr().err
    assert run(monkeypatch) == 1, "what failed is run again"


def test_what_is_lacking_is_said(runs, monkeypatch, capfd):
    steps = (Step("counts", "", "", ("set.zip",)), Step("counts", "", "", gibibytes=1 << 20))
    monkeypatch.setattr(run_all, "STEPS", steps)
    monkeypatch.setenv("SPHEREQUANT_DATA", str(runs))
    assert run(monkeypatch, "--full") == 0
    out = capfd.readouterr().out
    assert (
        "left out: benchmarks/counts.py: set SPHEREQUANT_DATA to the folder that holds set" in out
    )
    assert f"left out: benchmarks/counts.py: needs {1 << 20} GiB of memory" in out
    assert not (runs / "ran").exists()
    (runs / "set.zip").touch()
    assert run(monkeypatch, "--list") == 0
    assert "to run: benchmarks/counts.py" in capfd.readouterr().out
