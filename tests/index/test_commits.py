from __future__ import annotations

import threading
import time
from dataclasses import dataclass

import pytest

from spherequant.errors import SpherequantError
from spherequant.index.commits import GroupCommit


@dataclass
class Write:
    value: int
    size: int = 1


def submit_from_threads(group, writes):
    outcomes = {}

    def run(write):
        try:
            outcomes[write.value] = group.submit(write)
        except Exception as error:  # the outcome is looked at by the test
            outcomes[write.value] = error

    threads = [threading.Thread(target=run, args=(write,)) for write in writes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def test_writes_that_arrive_together_share_a_commit():
    groups = []

    def commit(writes):
        groups.append([w.value for w in writes])
        return [w.value * 10 for w in writes]

    group = GroupCommit(commit, wait_seconds=0.3)
    outcomes = submit_from_threads(group, [Write(i) for i in range(20)])
    assert outcomes == {i: i * 10 for i in range(20)}
    assert sorted(v for values in groups for v in values) == list(range(20))
    assert len(groups) <= 2


def test_a_full_group_does_not_wait():
    group = GroupCommit(lambda writes: [1 for _ in writes], wait_seconds=30, full_items=100)
    started = time.monotonic()
    assert group.submit(Write(0, size=100)) == 1
    assert time.monotonic() - started < 5


def test_each_writer_gets_its_own_outcome():
    def commit(writes):
        return [ValueError(w.value) if w.value % 2 else w.value for w in writes]

    outcomes = submit_from_threads(GroupCommit(commit), [Write(i) for i in range(8)])
    for value, outcome in outcomes.items():
        assert isinstance(outcome, ValueError) == bool(value % 2)


def test_a_failing_commit_fails_every_writer_and_the_next_one_works():
    broken = [True]

    def commit(writes):
        if broken[0]:
            raise OSError("no disk")
        return [w.value for w in writes]

    group = GroupCommit(commit)
    outcomes = submit_from_threads(group, [Write(i) for i in range(4)])
    assert all(isinstance(outcome, OSError) for outcome in outcomes.values())
    broken[0] = False
    assert group.submit(Write(7)) == 7


def test_an_interrupted_leader_leaves_the_others_able_to_work():
    calls = []

    def commit(writes):
        calls.append(len(writes))
        if len(calls) == 1:
            raise KeyboardInterrupt
        return [w.value for w in writes]

    group = GroupCommit(commit)
    with pytest.raises(KeyboardInterrupt):
        group.submit(Write(0))
    assert group.submit(Write(1)) == 1


def test_followers_of_an_interrupted_leader_are_told():
    started = threading.Event()
    errors = []

    def commit(writes):
        started.set()
        raise KeyboardInterrupt

    group = GroupCommit(commit, wait_seconds=0.2)

    def lead():
        with pytest.raises(KeyboardInterrupt):
            group.submit(Write(0))

    def follow():
        with pytest.raises(SpherequantError, match="interrupted") as caught:
            group.submit(Write(1))
        errors.append(caught.value)

    leader = threading.Thread(target=lead)
    leader.start()
    time.sleep(0.05)
    follower = threading.Thread(target=follow)
    follower.start()
    leader.join()
    follower.join()
    assert started.is_set()
    assert len(errors) == 1


@pytest.mark.parametrize("leading", [True, False])
def test_a_write_interrupted_while_it_waits_is_never_made(leading, monkeypatch):
    made = []

    def commit(writes):
        made.extend(write.value for write in writes)
        return [1 for _ in writes]

    group = GroupCommit(commit, wait_seconds=30)
    group._leading = not leading  # else it waits for another leader

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(group._changed, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            group.submit(Write(0))
    group._leading, group._wait_seconds = False, 0.0
    assert group.submit(Write(1)) == 1
    assert made == [1]
