"""What `make results` runs: the scripts of this folder in their order, each once.

    python benchmarks/run_all.py           the reduced settings: that everything runs, in minutes
    python benchmarks/run_all.py --full    everything in full: days on two cores
    python benchmarks/run_all.py --list    what would run, and what it lacks

A step that has ended is not run again until its script or its command changes (--again runs all). A
training that was cut off goes on from its last epoch. What lacks data, memory or a library is left
out with the reason; a step that fails does not keep the others from running.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import results
from embeddings import RUNS

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Step:
    """One run of a script.

    Attributes:
        script: its name, without the ending.
        full: its arguments with --full; None leaves it out.
        reduced: its arguments without --full; None leaves it out.
        data: files or folders below SPHEREQUANT_DATA, or below SPHEREQUANT_WEIGHTS where they
            begin with ``weights:``.
        gibibytes: of memory that it needs with --full.
        environment: variables that it runs with.
    """

    script: str
    full: str | None
    reduced: str | None
    data: tuple[str, ...] = ()
    gibibytes: int = 0
    environment: tuple[tuple[str, str], ...] = ()

    def command(self, *, full: bool) -> list[str] | None:
        """Return the command line, or None where the step is left out."""
        arguments = self.full if full else self.reduced
        if arguments is None:
            return None
        return [f"benchmarks/{self.script}.py", *shlex.split(arguments)]

    def lacks(self, *, full: bool) -> str | None:
        """Return why the step cannot run here, or None."""
        for wanted in self.data:
            name = wanted.removeprefix("weights:")
            variable = "SPHEREQUANT_DATA" if name == wanted else "SPHEREQUANT_WEIGHTS"
            root = os.environ.get(variable)
            if not root or not (Path(root) / name).exists():
                return f"set {variable} to the folder that holds {name}"
        if importlib.util.find_spec("faiss") is None:
            return "needs FAISS: pip install faiss-cpu"
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if full and memory < self.gibibytes * GIB:
            return f"needs {self.gibibytes} GiB of memory"
        return None


_CIFAR10 = ("cifar10.zip",)
_QUICK_RUN = "cifar10-full-2-epochs-0/dsq-32"
_PHOTO_RUN = "cifar10-54k-160px-12-epochs-seed-0/dsq-32"
_UNSEEN_RUN = "unseen-classes-small-64px-18-epochs-seed-0/dsq-32"
_UNSEEN_CIFAR10 = "unseen-classes-cifar10-small-32px-15-epochs-seed-0/dsq-32"
STEPS = (
    Step("cifar10_full", "", None, _CIFAR10),
    Step("cifar10_54k", "", None, (*_CIFAR10, "weights:mobilenetv2_100.tf_in1k")),
    Step("grid", "", "--only cifar10-54k-dsq-32-0", _CIFAR10),
    Step("lengths_trained", "", None, _CIFAR10),
    Step("attribution", "", None, _CIFAR10),
    Step("attribution", "--methods orthohash --bits 64", None, _CIFAR10),
    Step("margin", "", "--epochs 1 --pairs 2", _CIFAR10),
    Step("margin", "--protocol cifar10-full", None, _CIFAR10),
    Step("class_target", "results/cifar10-full-0/dsq-32", None, _CIFAR10),
    Step("lengths", "results/cifar10-full-0/dsq-32", None, _CIFAR10),
    Step("unseen_classes", "", None, ("tiny-imagenet.zip",)),
    Step("levelling", f"results/{_UNSEEN_RUN}", None, ("tiny-imagenet.zip",)),
    Step("unseen_classes", "--source cifar10", None, _CIFAR10),
    Step("levelling", f"results/{_UNSEEN_CIFAR10} --source cifar10", None, _CIFAR10),
    Step(
        "multi_label",
        "",
        "--mosaics 1000 --mosaic-queries 100 --mosaic-epochs 2",
        (*_CIFAR10, "tinycoco-multilabel.zip"),
    ),
    Step(
        "figures",  # after cifar10_full and grid, whose records one of them shows
        "",
        "--epochs 2 --queries 300 --items 1000 5000 --mosaics 1000 --mosaic-queries 100 "
        "--mosaic-epochs 2",
        _CIFAR10,
    ),
    Step(
        "codebook_error",
        "--variants 20000",
        f"--vectors supervised --bits 16 --rows 2000 --run {_QUICK_RUN}",
        (*_CIFAR10, "weights:mobilenetv2_100.tf_in1k"),
    ),
    Step("norms", "", None, (*_CIFAR10, "weights:mobilenetv2_100.tf_in1k")),
    Step("sparse_codes", "", f"--run {_QUICK_RUN} --queries 300", _CIFAR10),
    Step("sparse_tables", "", "--seconds 0.05"),
    Step("search", "", "--items 300000 --bits 32 --repetitions 3", gibibytes=8),
    Step(
        "search",
        "--clusters 100",
        "--clusters 100 --items 300000 --bits 32 --repetitions 3",
        gibibytes=8,
    ),
    Step(
        "search",
        "--bits 32 64",
        None,
        gibibytes=8,
        environment=(("SPHEREQUANT_SIMD", "avx2"),),
    ),
    Step("filters", "", "--items 300000 --bits 32 --repetitions 3", gibibytes=8),
    Step(
        "large",
        "--openings 2 --seconds 45",
        "--items 300000 --openings 1 --seconds 5",
        gibibytes=16,
    ),
    Step("embedding_speed", "", "--repetitions 2"),
    Step(
        "encoding",
        "--dim 64",
        "--dim 64 --bits 32 --rows 2000 --repetitions 3",
    ),
    Step("encoding", "--dim 512", None),
    Step("reopening", "", "--items 300000 --repetitions 2", gibibytes=8),
    Step("keys", "", "--items 100000 --repetitions 2", gibibytes=8),
    Step("commits", "", "--items 1000 --looks 2"),
    Step("service_load", "", "--items 20000 --seconds 3 --rate 20"),
    Step("service_load", f"--model results/{_PHOTO_RUN}", None),
    Step(
        "service_endurance",
        "",
        "--puts 1000 --items 1000 --memory-seconds 10 --known 300 --mixed-seconds 10 "
        "--round-seconds 5 --kills 2",
    ),
    Step("training_time", "", None, _CIFAR10),
    Step("robustness", "", "--kills 2", _CIFAR10),
)


def main() -> int:
    """Run what is left to run; return an exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--again", action="store_true", help="run what has ended before, too")
    parser.add_argument("--list", action="store_true", help="only say what would run")
    options = parser.parse_args()
    os.chdir(results.ROOT)
    failed = []
    for step in STEPS:
        command = step.command(full=options.full)
        if command is None:
            continue
        words = shlex.join([*(f"{name}={value}" for name, value in step.environment), *command])
        reason = step.lacks(full=options.full)
        if reason is not None:
            print(f"left out: {words}: {reason}", flush=True)
        elif not options.again and ended(step, command):
            print(f"ended before: {words}", flush=True)
        elif options.list:
            print(f"to run: {words}", flush=True)
        elif not _run(step, command, words, full=options.full):
            failed.append(words)
    if failed:
        print("\nfailed:", *failed, sep="\n  ", file=sys.stderr)
        return 1
    if not options.list:
        results.render()
        print(f"\n{results.DOCS / 'results.md'}")
    return 0


def _run(step: Step, command: list[str], words: str, *, full: bool) -> bool:
    print(f"\n$ {words}", flush=True)
    environment = os.environ | dict(step.environment)
    for name in (results.REDUCED, "FULL"):  # grid.py reads the second
        environment.pop(name, None)
    environment["FULL" if full else results.REDUCED] = "1"
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, *command], env=environment, check=False)
    print(f"{time.perf_counter() - begun:.0f} s, exit code {done.returncode}", flush=True)
    if done.returncode == 0:
        mark = _mark(step, command)
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.write_text(_state(step, command), encoding="utf-8")
    return done.returncode == 0


def ended(step: Step, command: list[str]) -> bool:
    """Return whether this command of this script has ended well before."""
    mark = _mark(step, command)
    return mark.exists() and mark.read_text(encoding="utf-8") == _state(step, command)


def _mark(step: Step, command: list[str]) -> Path:
    name = hashlib.sha256(shlex.join([*map(str, step.environment), *command]).encode())
    return RUNS / "ended" / f"{step.script}-{name.hexdigest()[:12]}.json"


def _state(step: Step, command: list[str]) -> str:
    script = hashlib.sha256(Path(command[0]).read_bytes()).hexdigest()
    return json.dumps({"command": command, "environment": step.environment, "script": script})


if __name__ == "__main__":
    sys.exit(main())
