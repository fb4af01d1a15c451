"""Spans of sampled commands on their way into the read model, made when PostgreSQL has committed.

Rules: docs/guides/observability.md, traces. Under the command's span, for each of the first sampled
commands of a block: `projection.apply`, from the block's arrival to the commit, and in it
`projection.gather` (the wait for its signatures and for its turn) and `projection.transaction`.
Asked only while traces are recorded at all.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from nocturne.core.blocks import Block
from nocturne.core.record_headers import traceparent_of
from nocturne.runtime.spans import TRACED_PER_BATCH_MAX, Tracer
from nocturne.runtime.tracing import is_sampled

BLOCKS_MAX: Final = 1024
"""Blocks with sampled commands that wait to be written; past them the oldest goes without spans."""


@dataclass(frozen=True, slots=True)
class _Read:
    traceparents: tuple[bytes, ...]
    read_ns: int


class BlockTraces:
    """The sampled commands of blocks that are read and not yet committed."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._blocks: OrderedDict[int, _Read] = OrderedDict()
        self._writing_ns = 0

    def read(self, block: Block) -> None:
        """A block came."""
        found = [
            traceparent
            for record in block.records
            if (traceparent := traceparent_of(record.headers)) is not None
            and is_sampled(traceparent)
        ]
        if not found:
            return
        self._tracer.dropped(len(found) - TRACED_PER_BATCH_MAX)
        some = tuple(found[:TRACED_PER_BATCH_MAX])
        self._blocks[block.header.height] = _Read(some, time.time_ns())
        if len(self._blocks) > BLOCKS_MAX:
            _, oldest = self._blocks.popitem(last=False)
            self._tracer.dropped(len(oldest.traceparents))

    def writing(self) -> None:
        """A transaction begins."""
        self._writing_ns = time.time_ns()

    def committed(self, height: int) -> None:
        """It is committed, with every block up to `height`: make the spans."""
        now = time.time_ns()
        spans_left = TRACED_PER_BATCH_MAX
        while self._blocks and next(iter(self._blocks)) <= height:
            at, read = self._blocks.popitem(last=False)
            self._tracer.dropped(len(read.traceparents) - spans_left)
            for traceparent in read.traceparents[:spans_left]:
                self._apply(traceparent, at, read.read_ns, now)
            spans_left = max(0, spans_left - len(read.traceparents))

    def _apply(self, traceparent: bytes, height: int, read_ns: int, now: int) -> None:
        told = {"nocturne.height": height}
        span = self._tracer.begin("projection.apply", traceparent, "CONSUMER", told, read_ns)
        if span is not None:
            span.child("projection.gather", read_ns, max(read_ns, self._writing_ns))
            span.child("projection.transaction", max(read_ns, self._writing_ns), now)
            span.end(ended_ns=now)
