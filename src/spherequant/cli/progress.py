"""How far a long run has come: bars on a terminal, else a line now and then. Always on stderr."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Self

from spherequant.cli.output import note

if TYPE_CHECKING:
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    from spherequant.training import TrainEvent

LINE_EVERY_SECONDS = 10.0


class Progress:
    """Stages, one after the other, each with a count of what is done.

    A context manager: the bars end with it.
    """

    def __init__(self) -> None:
        self._bars = _bars() if sys.stderr.isatty() else None
        self._task: TaskID | None = None
        self._stage = ""
        # A stage begins where the one before it was last heard of.
        self._since = self._last_heard = self._last_line = time.monotonic()
        self._ended = ""

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def show(self, stage: str, done: int, total: int, detail: str = "") -> None:
        """Tell where a stage stands.

        Args:
            stage: what is being done; another name begins another bar.
            done: out of ``total``.
            total: 0 when it is not known.
            detail: speed and time left, or what else is worth a look; made from the counts when
                it is left out.
        """
        if stage != self._stage:
            self._begin(stage, total)
        self._last_heard = time.monotonic()
        detail = detail or self._speed(done, total)
        if self._bars is not None and self._task is not None:
            self._bars.update(self._task, completed=done, total=total or None, detail=detail)
        else:
            self._line(done, total, detail)

    def training(self, event: TrainEvent) -> None:
        """Show an event of ``train``: loss terms, images a second, time left."""
        if event.stage == "decode":
            self.show("reading images", event.step, event.steps)
        elif event.stage == "train":
            terms = "  ".join(f"{name} {value:.3f}" for name, value in event.losses.items())
            speed = f"{event.images_per_second:,.0f} images/s"
            left = f"{clock(event.seconds_left)} left"
            epoch = f"epoch {min(event.epoch + 1, event.epochs)}/{event.epochs}"
            detail = "  ".join(part for part in (epoch, terms, speed, left) if part)
            self.show("training", event.step, event.steps, detail)

    def _begin(self, stage: str, total: int) -> None:
        self._stage = stage
        self._since = self._last_heard
        if self._bars is not None:
            self._task = self._bars.add_task(stage, total=total or None, detail="")

    def _speed(self, done: int, total: int) -> str:
        """Return what was done a second since the stage began, and the time left at that speed."""
        seconds = time.monotonic() - self._since
        if done <= 0 or seconds <= 0:
            return ""
        speed = done / seconds
        text = f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.1f}/s"
        return f"{text}  {clock((total - done) / speed)} left" if total > done else text

    def _line(self, done: int, total: int, detail: str) -> None:
        now = time.monotonic()
        ends = total > 0 and done >= total and self._ended != self._stage
        if not ends and now - self._last_line < LINE_EVERY_SECONDS:
            return
        self._last_line = now
        if ends:
            self._ended = self._stage
        count = f"{done:,} of {total:,}" if total else f"{done:,}"
        note(f"{self._stage}: {count}  {detail}".rstrip())


def clock(seconds: float) -> str:
    """Return a duration as m:ss, or h:mm:ss from an hour on."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _bars() -> Bars:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[detail]}", markup=False),
        console=Console(stderr=True),
    )
