"""A collector of OpenTelemetry traces for tests: real OTLP over gRPC, what came is kept."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from tests.machines import until

SERVICE_NAME = "service.name"


@dataclass(frozen=True, slots=True)
class Seen:
    """A span as it came; ids in hex, times in ns."""

    service: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    kind: int
    began: int
    ended: int
    attributes: dict[str, str | int | bool]
    is_error: bool


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Implements opentelemetry.proto.collector.trace.v1.TraceService."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._spans: list[Seen] = []

    def Export(  # noqa: N802
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: object
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        """Keep what comes."""
        came = [
            _seen(_value(of_resource, SERVICE_NAME), span)
            for resource in request.resource_spans
            for of_resource in (resource.resource.attributes,)
            for scope in resource.scope_spans
            for span in scope.spans
        ]
        with self._lock:
            self._spans += came
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self, trace_id: str | None = None) -> list[Seen]:
        """All that came, or those of one trace."""
        with self._lock:
            return [one for one in self._spans if trace_id in (None, one.trace_id)]

    def wait_for(self, trace_id: str, names: set[str], seconds: float = 20.0) -> list[Seen]:
        """The trace's spans, once these are among them."""
        until(
            lambda: names <= {one.name for one in self.spans(trace_id)},
            seconds,
            f"spans {sorted(names)} of trace {trace_id}",
        )
        return self.spans(trace_id)


def _seen(service: Any, span: Any) -> Seen:
    return Seen(
        str(service),
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.kind,
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes},
        span.status.code == 2,
    )


def _value(attributes: Any, key: str) -> str:
    return next(one.value.string_value for one in attributes if one.key == key)


@contextmanager
def collecting(port: int = 0) -> Iterator[tuple[Collector, int]]:
    """A collector that listens on the loopback, and its port."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(4))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    found = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield collector, found
    finally:
        server.stop(0).wait()
