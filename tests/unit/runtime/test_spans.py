"""Spans are made for sampled traces alone, and whatever the collector does, nobody waits."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter

import pytest
from tests.collector import Collector, collecting
from tests.machines import free_ports, until

from nocturne.core.errors import NocturneError
from nocturne.runtime import spans
from nocturne.runtime.spans import OFF, Tracer, tracer_of
from nocturne.runtime.tracing import is_sampled, parse_traceparent, trace_id_of

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
SAMPLED = f"00-{TRACE_ID}-00f067aa0ba902b7-01".encode()
UNSAMPLED = SAMPLED[:-2] + b"00"
SECONDS_MAX = 20.0


class Counted:
    def __init__(self) -> None:
        self.sent = 0
        self.lost: Counter[str] = Counter()

    def exported(self, spans: int) -> None:
        self.sent += spans

    def dropped(self, cause: str, spans: int) -> None:
        self.lost[cause] += spans


def tracer_to(port: int, counted: Counted | None = None, ratio: float = 1.0) -> Tracer:
    return tracer_of("test", f"http://127.0.0.1:{port}", ratio, counted or Counted())


def all_of(collector: Collector, tracer: Tracer) -> Collector:
    tracer.close()
    return collector


def test_off_makes_nothing_and_imports_nothing_of_opentelemetry() -> None:
    assert tracer_of("test", None, 1.0, Counted()) is OFF
    assert not OFF.on
    assert OFF.begin("x", SAMPLED) is None
    OFF.record("x", SAMPLED, 1, 2)
    OFF.dropped(3)
    OFF.close()
    code = "import sys, nocturne.command.__main__, nocturne.consensus.service; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert not [one for one in loaded.stdout.split() if one.startswith("opentelemetry")]


def test_a_span_is_its_parents_child_and_has_its_parts() -> None:
    with collecting() as (collector, port):
        tracer = tracer_to(port)
        span = tracer.begin("command.submit", SAMPLED, "SERVER", {"a": 1}, 1_000)
        assert span is not None
        assert trace_id_of(span.traceparent) == TRACE_ID
        assert is_sampled(span.traceparent)
        span.child("command.publish", 2_000, 3_000, {"b": "two"})
        span.end("it failed", 4_000)
        found = {one.name: one for one in all_of(collector, tracer).spans()}
    outer, inner = found["command.submit"], found["command.publish"]
    assert outer.service == "nocturne-test"
    assert (outer.trace_id, outer.parent_id) == (TRACE_ID, "00f067aa0ba902b7")
    assert (inner.trace_id, inner.parent_id) == (TRACE_ID, outer.span_id)
    assert (outer.began, outer.ended, outer.kind, outer.is_error) == (1_000, 4_000, 2, True)
    assert (inner.began, inner.ended, inner.attributes) == (2_000, 3_000, {"b": "two"})


def test_only_sampled_parents_get_spans_whatever_the_ratio() -> None:
    with collecting() as (_, port):
        all_traces, no_traces = tracer_to(port, ratio=1.0), tracer_to(port, ratio=0.0)
        assert all_traces.begin("x", UNSAMPLED) is None
        assert all_traces.begin("x", b"00-nonsense") is None
        assert no_traces.begin("x", None) is None
        for tracer in (all_traces, no_traces):
            assert tracer.begin("x", SAMPLED) is not None
            tracer.close()


def test_of_traces_that_begin_here_the_share_asked_for_is_recorded() -> None:
    random.seed(11)
    with collecting() as (_, port):
        tracer = tracer_to(port, ratio=0.25)
        begun = [span for _ in range(2000) if (span := tracer.begin("x", None)) is not None]
        tracer.close()
    assert 400 < len(begun) < 600, "seed 11"
    ids = {parse_traceparent(span.traceparent) for span in begun}
    assert None not in ids
    assert len(ids) == len(begun)
    # A sampler by trace id with the same ratio, anywhere later, takes each of them too.
    lows = [int((trace_id_of(span.traceparent) or "")[16:], 16) for span in begun]
    assert max(lows) < 0.25 * 2**64


def test_a_full_queue_drops_and_counts_and_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "QUEUE_SPANS_MAX", 100)
    monkeypatch.setattr(spans, "FLUSH_SECONDS_MAX", 0.2)
    counted = Counted()
    tracer = tracer_to(free_ports("nobody")["nobody"], counted)
    started = time.monotonic()
    for _ in range(1000):
        span = tracer.begin("x", SAMPLED)
        assert span is not None
        span.end()
    made_in = time.monotonic() - started
    tracer.dropped(7)
    tracer.close()
    assert counted.sent == 0
    assert counted.lost["batch"] == 7
    assert counted.lost["queue"] >= 800
    assert made_in < 5.0, "making spans waits for nobody"


def test_what_waited_for_the_collector_is_sent_when_it_comes_back() -> None:
    port = free_ports("collector")["collector"]
    counted = Counted()
    tracer = tracer_to(port, counted)
    for number in range(10):
        tracer.record(f"span {number}", SAMPLED, 1, 2)
    with collecting(port) as (collector, _):
        until(lambda: counted.sent == 10, SECONDS_MAX, "the spans were sent")
        assert {one.name for one in collector.spans()} == {f"span {n}" for n in range(10)}
        tracer.close()
    assert counted.lost == {}


def test_an_sdk_that_is_disabled_elsewhere_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    with pytest.raises(NocturneError, match="OTEL_SDK_DISABLED"):
        tracer_to(1)
