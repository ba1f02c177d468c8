"""``spherequant doctor``: whether this installation works here."""

# Annotations are read by typer when the program runs: no `from __future__ import annotations`.
import platform
import re
import sys
import tempfile
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import typer

from spherequant import __version__
from spherequant.cli.output import one_line, say
from spherequant.system import usable_processors

# module, extra, what it is for
_OPTIONAL = (
    ("faiss", "faiss", "evaluate --baselines"),
    ("pillow_heif", "heif", "HEIC and HEIF images"),
    ("tensorboard", "tensorboard", "train --log-dir"),
)
_CPU_FLAGS = ("avx2", "fma", "avx512f", "avx512bw", "avx512vbmi", "avx512_bf16", "amx_bf16", "neon")


def doctor() -> None:
    """Check that this installation works here."""
    for name, text in (
        ("spherequant", f"{__version__} in {Path(__file__).parent.parent}"),
        ("python", f"{platform.python_version()} ({sys.executable})"),
        ("platform", platform.platform()),
        ("libraries", _versions()),
        ("processor", _processor()),
    ):
        say(f"      {name}: {one_line(text)}")
    for module, extra, purpose in _OPTIONAL:
        found = find_spec(module) is not None
        cure = "" if found else f"; pip install 'spherequant[{extra}]'"
        say(f"      optional {module}: {'present' if found else 'not installed'} ({purpose}{cure})")
    failed = [name for name, check in _CHECKS if not _passes(name, check)]
    if failed:
        say(f"\n{len(failed)} of {len(_CHECKS)} checks failed: {', '.join(failed)}")
        raise typer.Exit(1)
    say("\nAll checks passed.")


def _passes(name: str, check: Callable[[], str]) -> bool:
    try:
        text = check()
    except Exception as error:  # whatever is broken is what doctor is asked to find
        say(f"FAIL  {name}: {one_line(f'{type(error).__name__}: {error}')}")
        return False
    say(f"ok    {name}: {one_line(text)}")
    return True


def _versions() -> str:
    found = []
    for requirement in metadata.requires("spherequant") or ():
        if "extra ==" in requirement:
            continue
        name = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name} missing")
    return ", ".join(found)


def _processor() -> str:
    flags: set[str] = set()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith(("flags", "Features")):
                flags = set(line.partition(":")[2].split())
                break
    known = [flag for flag in _CPU_FLAGS if flag in flags]
    features = " ".join(known) or "features unknown"
    return f"{platform.machine()}, {usable_processors()} usable, {features}"


def _check_device() -> str:
    import torch

    if torch.cuda.is_available():
        device = f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}"
        torch.ones(2, device="cuda").sum().item()
    else:
        device = f"CPU, {torch.backends.cpu.get_cpu_capability()}"
    return f"{device}; {torch.get_num_threads()} threads"


def _check_native() -> str:
    import numpy as np

    from spherequant import _native
    from spherequant.index import scan
    from spherequant.quantizer import Codebooks, Encoder

    # Orthogonal codewords of falling length: the best code of a codeword sum is known.
    codebooks = Codebooks(np.stack([np.eye(4, 8), np.eye(4, 8, k=4) / 2]))
    codes = Encoder(codebooks).encode(codebooks.decode([[2, 1], [0, 3]]))
    if codes.tolist() != [[2, 1], [0, 3]]:
        raise RuntimeError(f"it encodes wrongly: {codes.tolist()}; install spherequant again")
    return f"encodes as it should, scans with {scan.level()} ({_native.__file__})"


def _check_index() -> str:
    import numpy as np

    from spherequant.index import Index
    from spherequant.quantizer import Codebooks

    with tempfile.TemporaryDirectory(prefix="spherequant-doctor-") as folder:
        codebooks = Codebooks(np.eye(4)[None])
        with Index.create(Path(folder) / "index", codebooks, thumbnails=False) as index:
            index.add(["a", "b"], vectors=np.eye(4)[[1, 3]])
        with Index.open(Path(folder) / "index") as index:
            found = index.search(vectors=np.eye(4)[3], k=1).keys
    if found != [["b"]]:
        raise RuntimeError(f"a search of a small index finds {found}, not [['b']]")
    return "writes, opens and searches a Lance data set"


def _check_temporary() -> str:
    with tempfile.TemporaryFile(prefix="spherequant-doctor-") as file:
        file.write(b"spherequant")
    return f"{tempfile.gettempdir()} can be written"


_CHECKS: tuple[tuple[str, Callable[[], str]], ...] = (
    ("device", _check_device),
    ("native module", _check_native),
    ("temporary files", _check_temporary),
    ("index", _check_index),
)
