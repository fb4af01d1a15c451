"""Spans of OpenTelemetry traces: made for sampled traces alone, exported by OTLP, never waited for.

Rules: docs/guides/observability.md, traces. Without NOCTURNE_OTLP_ENDPOINT nothing of OpenTelemetry
is even imported, and whoever would make a span asks one attribute: `tracer.on`.

Sampling is parent-based: a trace that somebody began is recorded if its flags say so; of traces
that begin here a share is. What is sampled is decided once, by who begins the trace; the other
services follow the flag in the `traceparent` that is carried through the topics.
"""

from __future__ import annotations

import logging
import random
import socket
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, Protocol

import structlog

from nocturne.core.errors import NocturneError
from nocturne.runtime.tracing import is_sampled

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace import Tracer as SdkTracer
    from opentelemetry.sdk.trace.export import SpanExporter
    from opentelemetry.trace import Span as SdkSpan
    from opentelemetry.trace import SpanKind

TRACED_PER_BATCH_MAX: Final = 64
"""Sampled commands of one batch, block or transaction that get spans, some 20 µs of a core each.
The command service takes the flag from what is over; later services count it as dropped.
"""
QUEUE_SPANS_MAX: Final = 8192
"""Spans that wait for the collector, 2 kB each; past them new ones are dropped and counted."""
EXPORT_SPANS_MAX: Final = 512
"""Of one request to the collector."""
EXPORT_SECONDS: Final = 1.0
"""How long spans gather before they are sent."""
EXPORT_SECONDS_MAX: Final = 5
"""For one request, its retries included."""
RETRY_SECONDS_MAX: Final = 30.0
"""Between two tries while the collector is away: 1, 2, 4, … seconds."""
FLUSH_SECONDS_MAX: Final = 0.8
"""At the end of the process; what is not sent by then is lost. With lifecycle.STOP_SECONDS_MAX and
its second for what hangs it stays within the ten seconds after which a supervisor kills.
"""

Attributes = Mapping[str, str | int | bool]

log = structlog.get_logger()


class Counts(Protocol):
    """Where it is counted what became of spans."""

    def exported(self, spans: int) -> None:
        """The collector has so many more."""

    def dropped(self, cause: str, spans: int) -> None:
        """So many more are lost: the `queue` was full, no `export` succeeded, a `batch` had too
        many.
        """


class Span:
    """A span that is under way, of a sampled trace. Not for two threads at once."""

    __slots__ = ("_span", "_tracer", "began_ns", "traceparent")

    def __init__(self, tracer: Tracer, span: SdkSpan, began_ns: int) -> None:
        self._tracer = tracer
        self._span = span
        self.began_ns = began_ns
        context = span.get_span_context()
        self.traceparent = b"00-%032x-%016x-%02x" % (
            context.trace_id,
            context.span_id,
            context.trace_flags,
        )
        """Its context, for its children anywhere."""

    def set(self, attributes: Attributes) -> None:
        """Add attributes."""
        self._span.set_attributes(attributes)

    def child(
        self, name: str, began_ns: int, ended_ns: int, attributes: Attributes | None = None
    ) -> None:
        """A part of it that is over, by the wall clock."""
        self._tracer.record(name, self.traceparent, began_ns, ended_ns, attributes)

    def end(self, error: str = "", ended_ns: int | None = None) -> None:
        """It is over, with an error in words if there was one."""
        if error:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end(ended_ns)


class Tracer:
    """Makes the spans of one process. Made by `tracer_of`, or `OFF`."""

    def __init__(self, exporting: _Exporting | None = None) -> None:
        self._exporting = exporting
        self.on = exporting is not None
        """Whether any trace is recorded: ask before doing work that only spans need."""

    def begin(
        self,
        name: str,
        parent: bytes | None,
        kind: str = "INTERNAL",
        attributes: Attributes | None = None,
        began_ns: int | None = None,
    ) -> Span | None:
        """A span under `parent` (a traceparent), or of a new trace without one; None when that
        trace is not sampled.
        """
        exporting = self._exporting
        if exporting is None:
            return None
        if parent is None:
            # Of the clock's dice: whether a trace is recorded changes nothing that is recorded.
            if random.random() >= exporting.ratio:
                return None
        elif not is_sampled(parent):
            return None
        began_ns = time.time_ns() if began_ns is None else began_ns
        return Span(self, exporting.start(name, parent, kind, attributes, began_ns), began_ns)

    def record(
        self,
        name: str,
        parent: bytes,
        began_ns: int,
        ended_ns: int,
        attributes: Attributes | None = None,
    ) -> None:
        """A span that is over, when `parent` is sampled."""
        span = self.begin(name, parent, "INTERNAL", attributes, began_ns)
        if span is not None:
            span.end(ended_ns=ended_ns)

    def dropped(self, spans: int) -> None:
        """So many sampled ones got no span, for a batch has its bound."""
        if self._exporting is not None and spans > 0:
            self._exporting.counts.dropped("batch", spans)

    def close(self) -> None:
        """Send what waits, within a bound. Blocks."""
        if self._exporting is not None:
            self._exporting.close()


OFF: Final = Tracer()
"""Records nothing."""


def tracer_of(component: str, endpoint: str | None, ratio: float, counts: Counts) -> Tracer:
    """The tracer of a process: `OFF` without an endpoint."""
    if endpoint is None:
        return OFF
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    # The exporter has a line for each try while the collector is away; what counts is said here.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    exporter = OTLPSpanExporter(endpoint=endpoint, timeout=EXPORT_SECONDS_MAX)
    return Tracer(_Exporting(component, exporter, ratio, counts))


class _Exporting:
    """The SDK's tracer, and the queue between it and the exporter's thread."""

    def __init__(
        self, component: str, exporter: SpanExporter, ratio: float, counts: Counts
    ) -> None:
        self.ratio = ratio
        self.counts = counts
        self._queue = _Queue(exporter, counts)
        self._tracer = _sdk_tracer(component, self._queue, ratio)

    def start(
        self,
        name: str,
        parent: bytes | None,
        kind: str,
        attributes: Attributes | None,
        began_ns: int,
    ) -> SdkSpan:
        from opentelemetry.trace import SpanKind

        kinds: type[SpanKind] = SpanKind
        return self._tracer.start_span(
            name,
            context=_context_of(parent),
            kind=kinds[kind],
            attributes=attributes,
            start_time=began_ns,
        )

    def close(self) -> None:
        self._queue.close()


def _context_of(parent: bytes | None) -> Any:
    from opentelemetry.context import Context
    from opentelemetry.trace import (
        NonRecordingSpan,
        SpanContext,
        TraceFlags,
        set_span_in_context,
    )

    # An empty one, never the thread's current one: parents are always named.
    if parent is None:
        return Context()
    _, trace_id, span_id, flags = parent.split(b"-")
    remote = SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
    )
    return set_span_in_context(NonRecordingSpan(remote), Context())


def _sdk_tracer(component: str, queue: _Queue, ratio: float) -> SdkTracer:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
    from opentelemetry.sdk.trace.sampling import ALWAYS_ON

    class Processor(SpanProcessor):
        def on_end(self, span: ReadableSpan) -> None:
            queue.put(span)

    class Ids(RandomIdGenerator):
        """Ids that a sampler by trace id with this ratio takes too, wherever the trace goes."""

        def generate_trace_id(self) -> int:
            low = random.randrange(max(1, round(ratio * 2**64)))
            return (random.getrandbits(63) + 1) << 64 | low

    provider = TracerProvider(
        # What is not sampled was sorted out before, at no cost.
        sampler=ALWAYS_ON,
        resource=Resource.create(
            {
                "service.namespace": "nocturne",
                "service.name": f"nocturne-{component}",
                "service.version": version("nocturne"),
                "service.instance.id": socket.gethostname(),
            }
        ),
        id_generator=Ids(),
        shutdown_on_exit=False,
        span_limits=SpanLimits(max_span_attributes=32, max_span_attribute_length=512),
    )
    provider.add_span_processor(Processor())
    tracer = provider.get_tracer("nocturne", version("nocturne"))
    if type(tracer).__name__ != "Tracer":
        raise NocturneError("NOCTURNE_OTLP_ENDPOINT is set, and OTEL_SDK_DISABLED too: unset one")
    return tracer  # type: ignore[return-value]


class _Queue:
    """Spans on their way to the collector, bounded; one thread sends them."""

    def __init__(self, exporter: SpanExporter, counts: Counts) -> None:
        self._exporter = exporter
        self._counts = counts
        self._spans: deque[ReadableSpan] = deque()
        self._closing = threading.Event()
        self._full = threading.Event()
        self._away = False
        self._thread = threading.Thread(target=self._send_all, name="spans", daemon=True)
        self._thread.start()

    def put(self, span: ReadableSpan) -> None:
        """Never waits."""
        if len(self._spans) >= QUEUE_SPANS_MAX:
            self._counts.dropped("queue", 1)
            return
        self._spans.append(span)
        if len(self._spans) >= EXPORT_SPANS_MAX:
            self._full.set()

    def close(self) -> None:
        """Send what waits, at most `FLUSH_SECONDS_MAX`."""
        self._closing.set()
        self._full.set()
        self._thread.join(FLUSH_SECONDS_MAX)
        self._exporter.shutdown()
        if self._spans:
            self._counts.dropped("export", len(self._spans))

    def _send_all(self) -> None:
        while not (self._closing.is_set() and not self._spans):
            self._full.wait(EXPORT_SECONDS)
            self._full.clear()
            while self._spans and self._send(self._next()):
                pass
            if self._away and self._closing.is_set():
                return

    def _next(self) -> list[ReadableSpan]:
        # Only this thread takes: what is counted is there.
        return [self._spans.popleft() for _ in range(min(len(self._spans), EXPORT_SPANS_MAX))]

    def _send(self, spans: Sequence[ReadableSpan]) -> bool:
        """Until the collector has them; False when the process ends before."""
        from opentelemetry.sdk.trace.export import SpanExportResult

        wait = 1.0
        while self._exporter.export(spans) is not SpanExportResult.SUCCESS:
            if not self._away:
                self._away = True
                log.warning("traces_not_taken", spans_waiting=len(self._spans) + len(spans))
            if self._closing.wait(wait):
                self._counts.dropped("export", len(spans))
                return False
            wait = min(2 * wait, RETRY_SECONDS_MAX)
        if self._away:
            self._away = False
            log.info("traces_taken_again", spans_waiting=len(self._spans))
        self._counts.exported(len(spans))
        return True
