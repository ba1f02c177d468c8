"""Writers in processes of their own: racing each other, and killed at any moment."""

from __future__ import annotations

import time

import lance
import numpy as np
import pytest

from spherequant.index import Index

ADD = """
import numpy as np
from spherequant.index import Index
index = Index.open(sys.argv[1])
name, turns = sys.argv[2], int(sys.argv[3])
print('ready', flush=True)
sys.stdin.readline()
for turn in range(turns):
    keys = [f'shared {turn}', f'{name} {turn}']
    ids = index.add(keys, codes=np.full((2, 3), turn % 16), labels=[name, name])
    print(turn, *ids.tolist(), flush=True)
index.close()
"""

SYNC = """
from conftest import FakeEmbedder
from spherequant.index import Index, sync
sync.EMBED_ITEMS = sync.COMMIT_ITEMS = 8
class Slow(FakeEmbedder):
    def embed_prepared(self, batch, **given):
        time.sleep(0.02)
        return super().embed_prepared(batch, **given)
import time
from pathlib import Path
path, source = Path(sys.argv[1]), sys.argv[2]
print('start', flush=True)
model = Slow()
index = Index.open(path, model) if path.exists() else Index.create(path, model)
report = index.sync(source, progress=lambda done, _: print('at', done, flush=True))
index.close()
print(report.total, report.added, report.unchanged, model.embedded, flush=True)
"""


def stored(index):
    rows = lance.dataset(str(index.folder / "items.lance")).to_table(columns=["id", "key"])
    return rows["key"].to_pylist(), rows["id"].to_pylist()


def test_two_processes_that_upsert_the_same_new_keys(index, run_script):
    turns = 15
    writers = [run_script(ADD, index.folder, name, turns) for name in ("left", "right")]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n", writer.stderr.read()
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    told = {}
    for name, writer in zip(("left", "right"), writers, strict=True):
        out, err = writer.communicate(timeout=100)
        assert writer.returncode == 0, err
        for line in out.splitlines():
            turn, shared, own = map(int, line.split())
            assert told.setdefault(f"shared {turn}", shared) == shared
            told[f"{name} {turn}"] = own
    keys, ids = stored(index)
    assert len(keys) == len(set(keys)) == 3 * turns
    assert len(set(ids)) == len(ids)
    assert dict(zip(keys, ids, strict=True)) == told


def test_acknowledged_writes_survive_kill_9(index, run_script):
    acknowledged = {}
    for attempt, (lines, pause) in enumerate(((0, 0.02), (3, 0.0), (6, 0.015))):
        with run_script(ADD, index.folder, f"writer {attempt}", 10_000) as writer:
            assert writer.stdout.readline() == "ready\n"
            writer.stdin.write("go\n")
            writer.stdin.flush()
            seen = [writer.stdout.readline() for _ in range(lines)]
            time.sleep(pause)
            writer.kill()
            for line in [*seen, *writer.stdout]:
                if line.count(" ") == 2 and line.endswith("\n"):
                    turn, shared, own = map(int, line.split())
                    acknowledged[f"shared {turn}"] = shared
                    acknowledged[f"writer {attempt} {turn}"] = own
        with Index.open(index.folder) as opened:
            keys, ids = stored(opened)
            assert len(keys) == len(set(keys))
            assert len(ids) == len(set(ids))
            found = dict(zip(keys, ids, strict=True))
            assert acknowledged.items() <= found.items()
            assert len(opened) == len(keys)
            assert len(opened.search(vectors=np.ones(16), k=2).items[0]) == min(2, len(keys))
    assert acknowledged


def test_a_killed_indexing_opens_and_resumes(tmp_path, run_script, write_pictures):
    photos = tmp_path / "photos"
    write_pictures(photos, {f"{i:03}.png": i for i in range(96)})
    folder = tmp_path / "index"
    sizes = []
    for lines, pause in ((0, 0.0), (3, 0.01), (4, 0.0)):
        with run_script(SYNC, folder, photos) as writer:
            assert writer.stdout.readline() == "start\n", writer.stderr.read()
            for _ in range(lines):
                assert writer.stdout.readline().startswith("at ")
            time.sleep(pause)
            writer.kill()
        if folder.exists():
            with Index.open(folder) as opened:
                sizes.append(len(opened))
                assert opened.searcher.ids.tolist() == sorted(set(opened.searcher.ids.tolist()))
    assert sizes == sorted(sizes)
    assert 16 <= sizes[-1] < 96
    with run_script(SYNC, folder, photos) as writer:
        out, err = writer.communicate(timeout=60)
    assert writer.returncode == 0, err
    total, added, unchanged, embedded = map(int, out.splitlines()[-1].split())
    assert total == 96
    assert unchanged == (sizes[-1] if sizes else 0)
    assert added == embedded == 96 - unchanged
    with Index.open(folder) as opened:
        keys, ids = stored(opened)
        assert sorted(keys) == [f"{i:03}.png" for i in range(96)]
        in_order = [row_id for _, row_id in sorted(zip(keys, ids, strict=True))]
        assert in_order == sorted(set(ids))  # source order, whatever happened


def test_a_killed_creation_can_be_repeated(tmp_path, run_script, codebooks):
    script = (
        "import time\n"
        "from conftest import FakeEmbedder\n"
        "from spherequant.index import Index\n"
        "class Stuck(FakeEmbedder):\n"
        "    def save(self, directory):\n"
        "        super().save(directory)\n"
        "        print('saving', flush=True)\n"
        "        time.sleep(60)\n"
        "Index.create(sys.argv[1], Stuck())\n"
    )
    with run_script(script, tmp_path / "i") as writer:
        assert writer.stdout.readline() == "saving\n", writer.stderr.read()
        writer.kill()
    assert not (tmp_path / "i").exists()
    left = [path for path in tmp_path.iterdir() if ".partial-" in path.name]
    assert len(left) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("spherequant.system._ABANDONED_SECONDS", -1.0)
        Index.create(tmp_path / "i", codebooks).close()
    assert [path.name for path in tmp_path.iterdir()] == ["i"]
