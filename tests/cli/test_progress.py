"""Progress on a terminal and elsewhere."""

import sys

import pytest

from spherequant.cli import progress
from spherequant.cli.progress import Progress, clock
from spherequant.training import TrainEvent


@pytest.fixture
def now(monkeypatch):
    """A clock that the test moves."""
    time = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: time[0])
    return time


def test_lines_come_now_and_then_and_at_the_end_of_a_stage(capsys, now):
    with Progress() as shown:
        for done in range(5):
            now[0] += 4.0
            shown.show("reading", done, 4)
        shown.show("reading", 4, 4)
        now[0] += 2.0
        shown.show("ranking", 30, 30)
    assert capsys.readouterr().err.splitlines() == [
        "reading: 2 of 4  0.2/s  0:12 left",
        "reading: 4 of 4  0.2/s",
        "ranking: 30 of 30  15/s",
    ]


def test_training_shows_terms_speed_and_time_left(capsys, now):
    with Progress() as shown:
        shown.training(TrainEvent("decode", 0, 3, 50, 50))
        now[0] += 11
        event = TrainEvent("train", 1, 3, 20, 60, {"softmax": 1.5, "total": 1.75}, 812.4, 75.0)
        shown.training(event)
        shown.training(TrainEvent("quantize", 1, 3, 20, 60))
    assert capsys.readouterr().err.splitlines() == [
        "reading images: 50 of 50",
        "training: 20 of 60  epoch 2/3  softmax 1.500  total 1.750  812 images/s  1:15 left",
    ]


def test_bars_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with Progress() as shown:
        shown.show("reading [red]images", 3, 8)
        shown.show("guessing", 1, 0)
    told = capsys.readouterr().err
    assert "reading [red]images" in told
    assert "3/8" in told
    assert "guessing" in told


def test_clock():
    assert [clock(s) for s in (-1, 0, 59.6, 61, 3599, 3600, 36061)] == [
        "0:00",
        "0:00",
        "1:00",
        "1:01",
        "59:59",
        "1:00:00",
        "10:01:01",
    ]
