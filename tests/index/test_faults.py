from __future__ import annotations

import errno

import numpy as np
import pytest

from spherequant.errors import ConflictError, FormatError, InputError, SpherequantError
from spherequant.index.faults import reported


class PanicException(BaseException):  # the name that PyO3 gives it
    """What a panic in Rust looks like."""


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OSError(errno.ENOSPC, "x"), SpherequantError, "no space left.*free some space"),
        (
            OSError("LanceError(IO): No space left on device (os error 28), /home/r/a.rs:25:9"),
            SpherequantError,
            "no space left.*free some space",
        ),
        (PermissionError(errno.EACCES, "x"), SpherequantError, "permission denied.*owner"),
        (OSError("x (os error 13)"), SpherequantError, "permission denied.*owner"),
        (OSError("x (os error 30)"), SpherequantError, "read-only file system"),
        (OSError("x (os error 5)"), SpherequantError, "look at the disk"),
        (FileNotFoundError(errno.ENOENT, "x"), FormatError, "a file of the index is missing"),
        (OSError("Not found: a/b.lance, /x.rs:1:2"), FormatError, "a file of the index is missing"),
        (OSError("Too many concurrent writers. Attempted"), ConflictError, "committed first"),
        (ValueError("odd, /home/runner/a/b.rs:1:2"), SpherequantError, "^doing: odd$"),
        (PanicException("boom"), SpherequantError, "^doing: boom$"),
        (RuntimeError(""), SpherequantError, "RuntimeError"),
    ],
)
def test_errors_are_said_in_our_words(error, kind, words):
    with pytest.raises(kind, match=words) as caught, reported("doing"):
        raise error
    assert ".rs" not in str(caught.value)
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), TypeError("x"), InputError("mine")])
def test_other_errors_pass(error):
    with pytest.raises(type(error)) as caught, reported("doing"):
        raise error
    assert caught.value is error


def test_a_full_disk_is_a_clear_error_and_loses_nothing(index, run_script):
    """A limit on file size stands in for a full disk: the kernel refuses the same writes."""
    script = (
        "import resource, signal, numpy as np\n"
        "from spherequant.errors import SpherequantError\n"
        "from spherequant.index import Index\n"
        "index = Index.open(sys.argv[1])\n"
        "index.add(['a'], codes=[[1, 2, 3]])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20000, resource.RLIM_INFINITY))\n"
        "keys = [f'{i}' * 30 for i in range(3000)]\n"
        "try:\n"
        "    index.add(keys, codes=np.random.default_rng(0).integers(0, 16, (3000, 3)))\n"
        "except SpherequantError as error:\n"
        "    print(error)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))\n"
        "index.add(['b'], codes=[[1, 2, 3]])\n"
    )
    with run_script(script, index.folder) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "file too large; raise the limit" in out
    assert out.count("\n") == 1
    index.refresh()
    assert len(index) == 2


def test_a_damaged_data_file_is_a_clear_error(index):
    index.add(["a"], codes=[[1, 2, 3]])
    index.close()
    (data,) = (index.folder / "items.lance" / "data").iterdir()
    data.write_bytes(b"\0" * data.stat().st_size)
    with pytest.raises(SpherequantError, match="cannot read the index"):
        len(index)
    data.unlink()
    with pytest.raises(FormatError, match="missing"):
        index.search(vectors=np.ones(16))
