"""Logs and metrics of a process: JSON lines on stderr, Prometheus metrics in a registry.

Rules: docs/guides/observability.md. A log line is an event name and fields; a metric's name is
`nocturne_<service>_<what>_<unit>`; what every process has is `nocturne_process_<what>_<unit>` with
the label `component`, so that one expression asks all services.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import TextIO, cast

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from nocturne.runtime.vitals import Vitals

LATENCY_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 5.0, 20.0)
"""Seconds; doubling from a millisecond, with the promised 40 ms as one of the edges."""
BATCH_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
"""Records in a batch."""


def configure_logs(service: str, level: str) -> None:
    """JSON lines on stderr from structlog and from libraries that use `logging`."""
    stderr = cast("TextIO", _Stderr())
    shared: list[structlog.typing.Processor] = [
        # The trace_id of what is being done, where there is one.
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _named(service),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processor=structlog.processors.JSONRenderer(), foreign_pre_chain=shared
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)


class _Stderr:
    """Whatever stderr is when a line is written: loggers outlive a stream that was put in place."""

    def write(self, text: str) -> int:
        return sys.stderr.write(text)

    def flush(self) -> None:
        sys.stderr.flush()


def _named(service: str) -> structlog.typing.Processor:
    def add(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        event["service"] = service
        return event

    return add


class Metrics:
    """The metrics of one process, in a registry of their own, under one prefix."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        self._prefix = f"nocturne_{service.replace('-', '_')}"
        ProcessCollector(registry=self.registry)

    def counter(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Counter:
        """Counts up; exposed with the suffix `_total`."""
        return Counter(f"{self._prefix}_{name}", documentation, labels, registry=self.registry)

    def gauge(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Gauge:
        """A number that goes up and down."""
        return Gauge(f"{self._prefix}_{name}", documentation, labels, registry=self.registry)

    def histogram(
        self,
        name: str,
        documentation: str,
        labels: Sequence[str] = (),
        buckets: Sequence[float] = LATENCY_BUCKETS_S,
    ) -> Histogram:
        """A distribution; seconds unless the name ends in another unit."""
        return Histogram(
            f"{self._prefix}_{name}",
            documentation,
            labels,
            buckets=tuple(buckets),
            registry=self.registry,
        )


class ProcessMetrics:
    """What every process tells of itself: one name for all services, told apart by `component`.

    Not `service`: what scrapes in Kubernetes gives that label itself.
    """

    def __init__(self, metrics: Metrics, component: str, vitals: Vitals) -> None:
        def gauge(name: str, documentation: str) -> Gauge:
            name = f"nocturne_process_{name}"
            made = Gauge(name, documentation, ("component",), registry=metrics.registry)
            return made.labels(component)

        info = Gauge(
            "nocturne_process_info",
            "1; its version is a label",
            ("component", "version"),
            registry=metrics.registry,
        )
        info.labels(component, version("nocturne")).set(1)
        ready = gauge("ready", "1 while it takes work, as gRPC health and /readyz say")
        ready.set_function(lambda: float(vitals.ready().yes))
        halted = gauge("halted", "1 when its own data contradicted itself and it stays stopped")
        halted.set_function(lambda: float(vitals.is_halted))
        delay = Histogram(
            "nocturne_process_event_loop_delay_seconds",
            "How late the event loop turned, measured twice a second",
            ("component",),
            buckets=LATENCY_BUCKETS_S,
            registry=metrics.registry,
        )
        self.loop_delay = delay.labels(component)
        exported = Counter(
            "nocturne_process_spans_exported",
            "Spans of traces that the collector has taken",
            ("component",),
            registry=metrics.registry,
        )
        self._exported = exported.labels(component)
        dropped = Counter(
            "nocturne_process_spans_dropped",
            "Spans of traces that were lost: the queue was full, no collector took them before the "
            "end, or a batch had more than it may",
            ("component", "cause"),
            registry=metrics.registry,
        )
        self._dropped = {
            cause: dropped.labels(component, cause) for cause in ("queue", "export", "batch")
        }

    def exported(self, spans: int) -> None:
        """The collector has taken so many more."""
        self._exported.inc(spans)

    def dropped(self, cause: str, spans: int) -> None:
        """So many more are lost, by `spans.Counts`'s causes."""
        self._dropped[cause].inc(spans)
