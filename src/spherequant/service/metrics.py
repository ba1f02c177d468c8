"""What Prometheus reads: how long each stage takes, how much waits, what was answered."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)
        self.stage_seconds = self._histogram(
            "stage_seconds", "Seconds of work on a batch, by stage.", _SECONDS, "stage"
        )
        self.waited = self._histogram(
            "stage_wait_seconds", "Seconds that the first of a batch waited.", _SECONDS, "stage"
        )
        self.batch_size = self._histogram(
            "stage_batch_size", "Tasks in a batch, by stage.", _SIZES, "stage"
        )
        self.request_seconds = self._histogram(
            "request_seconds",
            "Seconds from the head of a request to its answer.",
            _SECONDS,
            "route",
        )
        self.requests = Counter(
            "spherequant_requests_total",
            "Requests answered.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self.refused = Counter(
            "spherequant_refused_total",
            "Tasks refused because a queue was full.",
            ("queue",),
            registry=self.registry,
        )
        self.queue_depth = self._gauge("queue_depth", "Tasks that wait, by queue.", "queue")
        self.upload_bytes = self._gauge("upload_bytes", "Bytes of request bodies in memory.")
        self.items = self._gauge("items", "Items in the index as it is searched.")
        self.version = self._gauge("index_version", "Version of the index as it is searched.")
        self.written = Counter(
            "spherequant_written_total",
            "Items written durably.",
            ("kind",),
            registry=self.registry,
        )

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Observe how long a part of a stage takes."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.stage_seconds.labels(stage).observe(time.monotonic() - started)

    def text(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _histogram(self, name: str, told: str, buckets: tuple[float, ...], *by: str) -> Histogram:
        return Histogram(f"spherequant_{name}", told, by, buckets=buckets, registry=self.registry)

    def _gauge(self, name: str, told: str, *by: str) -> Gauge:
        return Gauge(f"spherequant_{name}", told, by, registry=self.registry)
