"""A tracer that keeps its spans instead of sending them. Every trace begun here is sampled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nocturne.runtime.spans import Span, Tracer
from nocturne.runtime.tracing import is_sampled


class FakeSpan(Span):
    """A span as it was made; `ended` once it is over."""

    __slots__ = ("attributes", "ended", "error", "name", "parent", "times", "tracer")

    def __init__(self, tracer: FakeTracer, name: str, parent: bytes | None, number: int) -> None:
        self.tracer = tracer
        self.name = name
        self.parent = parent
        self.attributes: dict[str, Any] = {}
        self.ended = False
        self.error = ""
        self.times = (0, 0)
        trace = b"%032x" % number if parent is None else parent.split(b"-")[1]
        self.traceparent = b"00-%s-%016x-01" % (trace, number)

    def set(self, attributes: Mapping[str, str | int | bool]) -> None:
        self.attributes.update(attributes)

    def child(
        self,
        name: str,
        began_ns: int,
        ended_ns: int,
        attributes: Mapping[str, str | int | bool] | None = None,
    ) -> None:
        self.tracer.record(name, self.traceparent, began_ns, ended_ns, attributes)

    def end(self, error: str = "", ended_ns: int | None = None) -> None:
        assert not self.ended, f"{self.name} ends twice"
        self.ended, self.error = True, error
        self.times = (self.times[0], ended_ns or self.times[0])


class FakeTracer(Tracer):
    """Keeps what is made."""

    def __init__(self) -> None:
        super().__init__()
        self.on = True
        self.spans: list[FakeSpan] = []
        self.lost = 0

    def begin(
        self,
        name: str,
        parent: bytes | None,
        kind: str = "INTERNAL",
        attributes: Mapping[str, str | int | bool] | None = None,
        began_ns: int | None = None,
    ) -> FakeSpan | None:
        if parent is not None and not is_sampled(parent):
            return None
        span = FakeSpan(self, name, parent, len(self.spans) + 1)
        span.set(attributes or {})
        span.times = (began_ns or 0, 0)
        self.spans.append(span)
        return span

    def dropped(self, spans: int) -> None:
        self.lost += max(0, spans)

    def named(self, name: str) -> list[FakeSpan]:
        """The spans of one name."""
        return [one for one in self.spans if one.name == name]

    def parts(self, span: FakeSpan) -> list[str]:
        """The names of its children, in the order that they were made."""
        return [one.name for one in self.spans if one.parent == span.traceparent]


def sampled(number: int) -> bytes:
    """A caller's traceparent of its own."""
    return b"00-%032x-00f067aa0ba902b7-01" % (number + 1)
