"""What the rooms ask of the machine."""

import os
import re
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path

import pytest

import spherequant
from spherequant.system import forget, replacing, usable_processors


def test_processors_are_those_of_this_process():
    script = (
        "import os; from spherequant.system import usable_processors\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); print(usable_processors())"
    )
    alone = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert int(alone.stdout) == 1
    assert usable_processors() == len(os.sched_getaffinity(0))


class TestReplacing:
    def test_what_was_written_takes_the_place(self, tmp_path):
        (tmp_path / "f").write_text("old")
        with replacing(tmp_path / "f") as draft:
            draft.write_text("new")
            assert (tmp_path / "f").read_text() == "old"
        assert (tmp_path / "f").read_text() == "new"
        assert list(tmp_path.iterdir()) == [tmp_path / "f"]

    def test_an_error_leaves_the_old_file_and_no_draft(self, tmp_path):
        (tmp_path / "f").write_text("old")

        def fail(path):
            with replacing(path) as draft:
                draft.write_text("new")
                raise KeyError

        with pytest.raises(KeyError):
            fail(tmp_path / "f")
        assert (tmp_path / "f").read_text() == "old"
        assert list(tmp_path.iterdir()) == [tmp_path / "f"]

    def test_drafts_of_killed_writers_go_an_hour_on(self, tmp_path):
        """Those of this file alone, whatever its name."""
        old, young, other = (tmp_path / f"{name}.partial" for name in ("[f].a", "[f].b", "f.c"))
        for path in (old, young, other):
            path.write_text("x")
        for path in (old, other):
            os.utime(path, (0, 0))
        with replacing(tmp_path / "[f]") as draft:
            draft.write_text("new")
        assert set(tmp_path.iterdir()) == {tmp_path / "[f]", young, other}

    def test_what_is_forgotten_leaves_no_draft(self, tmp_path):
        for name in ("f", "f.a.partial", "g.a.partial"):
            (tmp_path / name).write_text("x")
        forget(tmp_path / "f")
        forget(tmp_path / "f")
        assert list(tmp_path.iterdir()) == [tmp_path / "g.a.partial"]

    def test_writers_at_once_do_not_share_a_draft(self, tmp_path):
        barrier = threading.Barrier(4)

        def write(text):
            with replacing(tmp_path / "f") as draft:
                draft.write_text(text)
                barrier.wait(10)
                assert draft.read_text() == text

        writers = [threading.Thread(target=write, args=[f"{n}" * 99]) for n in range(4)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert len(set((tmp_path / "f").read_text())) == 1
        assert list(tmp_path.iterdir()) == [tmp_path / "f"]

    def test_nothing_written_is_an_error(self, tmp_path):
        with pytest.raises(FileNotFoundError), replacing(tmp_path / "f"):
            pass


@pytest.mark.parametrize("room", ["index", "service", "cli"])
def test_the_table_of_a_room_names_its_files(room):
    """One subject a file: each, but for the room's own door and the verbs of the shell."""
    doors = {"__init__", room}
    folder = Path(spherequant.__file__).parent / room
    files = {path.stem for path in folder.glob("*.py")} - doors
    if room == "cli":
        files -= {"bench", "doctor", "evaluate", "export", "index", "info", "search"}
        files -= {"serve", "train"}
    table = import_module(f"spherequant.{room}").__doc__
    named = set(re.findall(r"^    (?:\w+, )*\w+", table, re.MULTILINE))
    named = {name for names in named for name in names.strip().split(", ")}
    assert files <= named, files - named
    assert named - files <= doors, named - files
