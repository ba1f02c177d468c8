"""What must not break: killed writers, vanished folders, awkward files, equal seeds.

    SPHEREQUANT_DATA=... python benchmarks/robustness.py

Runs the commands as a user would, in subprocesses, on images of CIFAR-10; about ten minutes.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

import results
from spherequant import Index, Model

IMAGES_A_CLASS = 400


def main() -> None:
    """Run every check, record what each found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kills", type=int, default=10, help="of a first run of `index`")
    options = parser.parse_args()
    random.seed(options.seed)
    archive = results.data_file("SPHEREQUANT_DATA", "cifar10.zip")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        photos = unpack(archive, work / "photos", range(IMAGES_A_CLASS))
        train(photos, work / "model", "--epochs", "2")
        rows = [
            killed_writers(work, photos, options.kills),
            two_folders(work, archive),
            awkward_files(work),
            equal_seeds(work, photos),
            resumed(work, photos),
        ]
    results.record(
        "robustness",
        "What must not break",
        f"{IMAGES_A_CLASS * 10} images of CIFAR-10 in folders, `small` trained for two epochs.",
        [{"caption": "Checks", "columns": ["check", "found"], "rows": rows}],
    )


def killed_writers(work: Path, photos: Path, kills: int) -> list[str]:
    """Kill `index` at random moments of a first run; open; run again to the end."""
    wanted = {path.relative_to(photos).as_posix() for path in photos.rglob("*.jpg")}
    begun = time.perf_counter()
    run("index", str(work / "model"), str(photos), "--out", str(work / "whole"))
    whole = time.perf_counter() - begun
    opened = []
    for number in range(kills):
        index = work / f"killed-{number}"
        arguments = ["index", str(work / "model"), str(photos), "--out", str(index)]
        process = subprocess.Popen(
            [*COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(random.uniform(0.3, 0.95) * whole)
        process.kill()
        process.wait()
        opened.append(count(index))
        run(*arguments)
        with Index.open(index) as final:
            keys = final.search(vectors=unit(final), k=len(final)).keys[0]
        check(len(keys) == len(wanted) and set(keys) == wanted, "each image stands there once")
    return [
        f"a first `index` killed (SIGKILL) at {kills} random moments",
        (
            f"opened each time, with {', '.join(opened)} items (- before there was an index); "
            f"the run after each kill ends with {len(wanted)}, each key once"
        ),
    ]


def two_folders(work: Path, archive: Path) -> list[str]:
    """Index two folders; take one away; take most of the other away."""
    first = unpack(archive, work / "first", range(500, 520))
    second = unpack(archive, work / "second", range(600, 620))
    index = str(work / "two")
    run("index", str(work / "model"), str(first), "--out", index)
    report = run("index", str(work / "model"), str(second), "--out", index)
    check(report["total"] == 400 and report["removed"] == 0, "the second removes nothing")
    shutil.rmtree(second)
    check("exist" in fails("index", str(work / "model"), str(second), "--out", index), "vanished")
    for folder in sorted(first.iterdir())[:6]:
        shutil.rmtree(folder)
    message = fails("index", str(work / "model"), str(first), "--out", index)
    check("--allow-removal" in message, "the refusal names the option")
    with Index.open(index) as opened:
        check(len(opened) == 400, "nothing was removed")
    return [
        "two folders, one after the other",
        (
            "400 items of both; a folder that vanished, and one that lost more than half, are "
            "refused and nothing is removed"
        ),
    ]


def awkward_files(work: Path) -> list[str]:
    """Index and search the folder of awkward files that the tests describe."""
    path = Path(__file__).resolve().parent.parent / "tests" / "awkward.py"
    spec = importlib.util.spec_from_file_location("awkward", path)
    if spec is None or spec.loader is None:
        sys.exit(f"{path} cannot be read")
    awkward: Any = importlib.util.module_from_spec(spec)
    sys.modules["awkward"] = awkward
    spec.loader.exec_module(awkward)
    folder = work / "awkward"
    expected = awkward.make_awkward_folder(folder)
    report = run("index", str(work / "model"), str(folder), "--out", str(work / "odd"))
    good = {name for name, value in expected.items() if value.outcome == "ok"}
    listed = {entry["path"] for entry in report["skipped"]}
    with Index.open(work / "odd") as index:
        found = index.search(vectors=unit(index), k=len(index) + 1)
        labels = {hit.key: tuple(hit.labels) for hit in found.items[0]}
    check(set(labels) == good, "every good file is in the index, and no other")
    check(all(labels[name] == expected[name].labels for name in good), "labels are unshifted")
    return [
        f"{len(expected)} awkward files",
        (
            f"{len(good)} indexed with the labels of their folders, {len(listed)} reported as "
            "skipped with a reason"
        ),
    ]


def equal_seeds(work: Path, photos: Path) -> list[str]:
    """Train twice with one seed."""
    train(photos, work / "again", "--epochs", "2")
    first, second = Model.load(work / "model"), Model.load(work / "again")
    check(first.fingerprint == second.fingerprint, "two trainings of one seed give one model")
    return ["two trainings with the same seed", f"the same fingerprint, {first.fingerprint[:16]}"]


def resumed(work: Path, photos: Path) -> list[str]:
    """Kill a training after its first checkpoint, go on, compare."""
    out = work / "resumed"
    process = subprocess.Popen(
        [*COMMAND, "train", str(photos), "--out", str(out), *QUICK, "--epochs", "2"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (out / "checkpoint.safetensors").exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    check(process.wait() == -9, "the training was killed before its end")
    train(photos, out, "--epochs", "2")
    same = Model.load(out).fingerprint == Model.load(work / "model").fingerprint
    check(same, "resumed equals uninterrupted")
    return ["a training killed after its first epoch, resumed", "the same fingerprint"]


# -- commands ---------------------------------------------------------------------------------

COMMAND = [sys.executable, "-m", "spherequant"]
QUICK = ["--backbone", "small", "--bits", "32"]


def train(source: Path, out: Path, *options: str) -> None:
    """Train a small model."""
    run("train", str(source), "--out", str(out), *QUICK, *options)


def run(*arguments: str) -> dict[str, Any]:
    """Run a verb with --json; exit when it fails."""
    done = subprocess.run(
        [*COMMAND, *arguments, "--json"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    values: dict[str, Any] = json.loads(done.stdout)
    return values


def fails(*arguments: str) -> str:
    """Run a verb that must fail with a clear error; return the error."""
    done = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, check=False)
    check(done.returncode == 1, f"{' '.join(arguments)} ends with exit code 1")
    check("Traceback" not in done.stderr, "without a traceback")
    return done.stderr


def check(holds: object, what: str) -> None:
    """Exit when something does not hold."""
    if not holds:
        sys.exit(f"NOT SO: {what}")
    print(f"ok: {what}", file=sys.stderr)


def count(index: Path) -> str:
    """Return how many items an index holds, by opening it."""
    if not (index / "index.json").exists():
        return "-"
    with Index.open(index) as opened:
        return str(len(opened))


def unit(index: Index) -> Any:
    """Return a query that any index takes: its first codeword."""
    return index.codebooks.array[0, :1]


def unpack(archive: Path, folder: Path, numbers: range) -> Path:
    """Unpack some training images of each class."""
    wanted = {f"{number:04d}.jpg" for number in numbers}
    with zipfile.ZipFile(archive) as source:
        for name in source.namelist():
            split, *rest = name.split("/")
            if split == "train" and rest[-1] in wanted:
                target = folder.joinpath(*rest)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(source.read(name))
    return folder


if __name__ == "__main__":
    main()
