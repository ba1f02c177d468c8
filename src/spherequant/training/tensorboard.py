"""The terms of the objective as a TensorBoard log."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from spherequant.errors import MissingDependencyError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from spherequant.training.loop import Report, TrainEvent


@contextmanager
def log_to(log_dir: str | os.PathLike[str] | None, report: Report) -> Iterator[Report]:
    """Return a report that also writes each term of the objective to a log.

    Args:
        log_dir: the log's directory; None for no log.
        report: what is called beside.

    Raises:
        MissingDependencyError: tensorboard is not installed.
    """
    if log_dir is None:
        yield report
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependencyError("tensorboard", "tensorboard", "a training log") from error
    writer = SummaryWriter(str(log_dir))

    def both(event: TrainEvent) -> None:
        for name, value in event.losses.items():
            writer.add_scalar(f"loss/{name}", value, event.step)
        if event.images_per_second:
            writer.add_scalar("speed/images_per_second", event.images_per_second, event.step)
        report(event)

    try:
        yield both
    finally:
        writer.close()
