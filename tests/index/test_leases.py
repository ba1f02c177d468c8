from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from spherequant.index import leases
from spherequant.index.leases import leased_versions, take_lease

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
