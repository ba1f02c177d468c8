from __future__ import annotations

import sys

import pytest

from spherequant.errors import MissingDependencyError
from spherequant.training import TrainEvent
from spherequant.training.tensorboard import log_to

EVENTS = [
    TrainEvent("decode", 0, 2, 10, 20),
    TrainEvent("train", 0, 2, 1, 4, {"softmax": 2.0, "total": 2.5}, images_per_second=100.0),
    TrainEvent("quantize", 1, 2, 2, 4),
    TrainEvent("train", 1, 2, 3, 4, {"softmax": 1.0, "centre": 0.25, "total": 1.5}, 120.0),
]


def test_without_a_directory_the_report_is_the_callers_own():
    seen: list[TrainEvent] = []
    with log_to(None, seen.append) as report:
        assert report == seen.append


def test_every_term_is_written_and_the_report_still_called(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen: list[TrainEvent] = []
    with log_to(tmp_path / "log", seen.append) as report:
        for event in EVENTS:
            report(event)
    assert seen == EVENTS
    log = EventAccumulator(str(tmp_path / "log"))
    log.Reload()
    found = {
        tag: [(event.step, event.value) for event in log.Scalars(tag)]
        for tag in log.Tags()["scalars"]
    }
    assert found == {
        "loss/softmax": [(1, 2.0), (3, 1.0)],
        "loss/centre": [(3, 0.25)],
        "loss/total": [(1, 2.5), (3, 1.5)],
        "speed/images_per_second": [(1, 100.0), (3, 120.0)],
    }


def test_without_the_library_the_error_names_the_pip_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with (
        pytest.raises(MissingDependencyError, match=r"pip install 'spherequant\[tensorboard\]'"),
        log_to(tmp_path, print),
    ):
        pass
