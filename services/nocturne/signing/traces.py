"""Spans of sampled commands on their way through the signing service, made when they are published.

Rules: docs/guides/observability.md, traces. Under the command's span, for each of the first sampled
commands of a batch: `signing.sign`, from the block's arrival to the Kafka transaction's commit,
and in it `signing.record`, `signing.signatures`, `signing.queue`, `signing.publish`. Asked only
while traces are recorded at all.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nocturne.core.blocks import Block
from nocturne.core.record_headers import traceparent_of
from nocturne.runtime.spans import Tracer
from nocturne.runtime.tracing import is_sampled


@dataclass(frozen=True, slots=True)
class Sampled:
    """A sampled command of a block, and when that was read."""

    traceparent: bytes
    height: int
    read_ns: int


def sampled_in(block: Block, read_ns: int) -> Iterator[Sampled]:
    """The sampled commands of a block, in its order."""
    height = block.header.height
    for record in block.records:
        traceparent = traceparent_of(record.headers)
        if traceparent is not None and is_sampled(traceparent):
            yield Sampled(traceparent, height, read_ns)


class BatchTraces:
    """The sampled commands of one batch, and how far it has come."""

    def __init__(self, tracer: Tracer, commands: Sequence[Sampled]) -> None:
        self._tracer = tracer
        self._commands = commands
        self._times = [("", time.time_ns())]

    def recorded(self) -> None:
        """The guard's store has the batch."""
        self._passed("signing.record")

    def signed(self) -> None:
        """The signatures are made."""
        self._passed("signing.signatures")

    def publishing(self) -> None:
        """Its turn in the producer has come."""
        self._passed("signing.queue")

    def published(self) -> None:
        """The transaction is committed: make the spans."""
        self._passed("signing.publish")
        ended = self._times[-1][1]
        for one in self._commands:
            told = {"nocturne.height": one.height}
            span = self._tracer.begin(
                "signing.sign", one.traceparent, "CONSUMER", told, one.read_ns
            )
            if span is None:
                continue
            for (_, began), (name, until) in zip(self._times, self._times[1:], strict=False):
                span.child(name, began, until)
            span.end(ended_ns=ended)

    def _passed(self, name: str) -> None:
        self._times.append((name, time.time_ns()))
