from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from spherequant.index import leases, searcher
from spherequant.index.leases import leased_versions, take_lease
from spherequant.index.versions import Versions

OPEN_FILES = Path("/proc/self/fd")


def test_a_lease_holds_until_released(tmp_path):
    first = take_lease(tmp_path, 3)
    second = take_lease(tmp_path, 3)
    other = take_lease(tmp_path, 7)
    assert leased_versions(tmp_path) == {3, 7}
    first.release()
    first.release()
    assert leased_versions(tmp_path) == {3, 7}
    second.release()
    other.release()
    assert leased_versions(tmp_path) == set()
    assert list(tmp_path.iterdir()) == []


def test_a_forked_process_gives_nothing_up(tmp_path):
    code = (
        "import os, sys, pathlib\n"
        "from spherequant.index.leases import leased_versions, take_lease\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "lease = take_lease(folder, 3)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    lease.release()\n"
        "    os._exit(0)\n"
        "print(os.waitpid(child, 0)[1], leased_versions(folder))\n"
        "lease.release()\n"
        "print(leased_versions(folder))\n"
    )
    # Lance warns of forks, which is what is tried here.
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["0 {3}", "set()"]


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "x-y.lease").write_text("")
    (tmp_path / "notes.txt").write_text("")
    assert leased_versions(tmp_path) == set()
    assert len(list(tmp_path.iterdir())) == 2


def test_a_killed_process_holds_nothing(tmp_path):
    code = (
        "import sys, time, pathlib\n"
        "from spherequant.index.leases import take_lease\n"
        "lease = take_lease(pathlib.Path(sys.argv[1]), 5)\n"
        "print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        assert leased_versions(tmp_path) == {5}
        process.kill()
    assert leased_versions(tmp_path) == set()
    assert list(tmp_path.iterdir()) == []


def test_a_lease_that_comes_late_is_taken_again(index, monkeypatch):
    """Between the choice of a version and its lease it may have been cleaned away."""
    taken = []

    def take(*given):
        lease = take_lease(*given)
        taken.append(lease)
        return lease

    times = iter([0.0, searcher.GRACE_SECONDS / 3, 100.0, 100.1])
    monkeypatch.setattr(searcher, "take_lease", take)
    monkeypatch.setattr(searcher, "time", SimpleNamespace(monotonic=lambda: next(times)))
    folder = index.folder
    _, lease = searcher._open_leased(Versions(folder / "items.lance"), folder / "leases")
    assert (len(taken), taken[1]) == (2, lease)
    others = list((folder / "leases").iterdir())
    lease.release()
    assert len(others) - len(list((folder / "leases").iterdir())) == 1
    taken[0].release()  # it was already: that changes nothing
    assert len(others) - len(list((folder / "leases").iterdir())) == 1


def test_where_nothing_can_be_written_there_is_no_lease(tmp_path):
    if sys.platform != "linux":
        pytest.skip("/proc is Linux's")
    assert take_lease(tmp_path / "missing" / "deeper", 1) is None


def test_where_nothing_can_be_locked_nothing_is_left(tmp_path, monkeypatch):
    lease = take_lease(tmp_path, 3)
    before = len(list(OPEN_FILES.iterdir()))

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(leases.fcntl, "flock", no_locks)
    assert [take_lease(tmp_path, 4) for _ in range(5)] == [None] * 5
    assert len(list(tmp_path.iterdir())) == 1
    assert len(list(OPEN_FILES.iterdir())) == before
    assert leased_versions(tmp_path) == {3}
    lease.release()
