"""Shares of the processors."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import torch

from spherequant.service.processors import Processors


@pytest.fixture
def processors(monkeypatch: pytest.MonkeyPatch) -> Processors:
    """Four of them, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    made = Processors()
    yield made
    torch.set_num_threads(before)


def test_one_thread_alone_has_them_all(processors):
    with processors.share() as share:
        assert share == torch.get_num_threads() == 4


def test_threads_that_embed_at_once_share_them(processors):
    shares, met = [], threading.Barrier(4)

    def embed() -> tuple[int, int]:
        with processors.share() as share:
            shares.append(share)
            during = torch.get_num_threads()
            met.wait(30)
        return share - during, torch.get_num_threads()

    with ThreadPoolExecutor(4) as threads:
        outcomes = [threads.submit(embed) for _ in range(4)]
        assert [outcome.result() for outcome in outcomes] == [(0, 4)] * 4
    assert sorted(shares) == [1, 1, 2, 4]
    with processors.share() as share:
        assert share == 4


def test_there_is_never_less_than_one_thread(processors):
    with ExitStack() as held:
        for _ in range(4):
            held.enter_context(processors.share())
        assert held.enter_context(processors.share()) == torch.get_num_threads() == 1


def test_what_is_stored_takes_them_all_however_many_ask(processors):
    begun, ended = threading.Event(), threading.Event()

    def ask() -> None:
        with processors.share(), processors.share():
            begun.set()
            ended.wait(30)

    asking = threading.Thread(target=ask)
    asking.start()
    begun.wait(30)
    with ThreadPoolExecutor(1) as fresh, processors.whole() as count:
        assert count == torch.get_num_threads() == 4

        def stored() -> int:
            with processors.whole():
                return torch.get_num_threads()

        assert fresh.submit(stored).result() == 4
    ended.set()
    asking.join()


def test_a_share_is_given_back_after_an_error(processors):
    with pytest.raises(ValueError, match="broken"), processors.share():
        raise ValueError("broken")
    with processors.share() as share:
        assert share == 4


def test_a_gpu_is_asked_by_one_thread(processors, monkeypatch):
    assert processors.workers == 4
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert Processors().workers == 1
