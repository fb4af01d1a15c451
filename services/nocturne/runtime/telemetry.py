"""Logs and metrics of a process: JSON lines on stderr, Prometheus text over HTTP.

Rules: docs/guides/settings.md. A log line is an event name and fields; a metric's name is
`nocturne_<service>_<what>_<unit>`.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Sequence
from typing import TextIO, cast
from wsgiref.simple_server import WSGIServer

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import start_http_server

LATENCY_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 5.0, 20.0)
"""Seconds; doubling from a millisecond, with the promised 40 ms as one of the edges."""
BATCH_BUCKETS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
"""Records in a batch."""


def configure_logs(service: str, level: str) -> None:
    """JSON lines on stderr from structlog and from libraries that use `logging`."""
    stderr = cast("TextIO", _Stderr())
    shared: list[structlog.typing.Processor] = [
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


class MetricsServer:
    """Serves a registry at `listen` (host:port) from a thread of its own."""

    def __init__(self, metrics: Metrics, listen: str) -> None:
        host, _, port = listen.rpartition(":")
        served: tuple[WSGIServer, threading.Thread] = start_http_server(
            int(port), host, metrics.registry
        )
        self._server, self._thread = served

    @property
    def port(self) -> int:
        """The port in use."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
