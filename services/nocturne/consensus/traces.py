"""Spans of sampled commands on their way through a validator, made when their block is published.

Rules: docs/guides/observability.md, traces. Under the command's span, for each of the first sampled
commands of a block: `consensus.certify`, from the record's arrival to the broker's acknowledgement
of the block, and in it `consensus.execute`, `consensus.journal`, `consensus.publish`. Asked only
while traces are recorded at all.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from nocturne.core.blocks import Block
from nocturne.core.record_headers import Headers
from nocturne.runtime.spans import TRACED_PER_BATCH_MAX, Tracer
from nocturne.runtime.tracing import HEADER, is_sampled

ARRIVED_MAX: Final = 4096
"""Sampled records that wait for their block; past them the oldest goes without spans."""


@dataclass(frozen=True, slots=True)
class _Arrived:
    partition: int
    offset: int
    traceparent: bytes
    arrived_ns: int


class RecordTraces:
    """Sampled records that no block has yet, by position."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._arrived: OrderedDict[tuple[int, int], _Arrived] = OrderedDict()

    def arrived(self, partition: int, offset: int, headers: Headers) -> None:
        """A record came from the log."""
        for name, value in headers:
            if name == HEADER:
                if value is not None and is_sampled(value):
                    self._note(_Arrived(partition, offset, value, time.time_ns()))
                return

    def _note(self, arrived: _Arrived) -> None:
        self._arrived[arrived.partition, arrived.offset] = arrived
        if len(self._arrived) > ARRIVED_MAX:
            self._arrived.popitem(last=False)
            self._tracer.dropped(1)

    def taken(self, block: Block, started_ns: int) -> BlockTraces | None:
        """Those of a block that was executed from `started_ns` to now; None without any."""
        if not self._arrived:
            return None
        ends = {one.partition: one.end for one in block.header.ranges}
        inside = [one for one in self._arrived.values() if one.offset < ends.get(one.partition, 0)]
        for one in inside:
            del self._arrived[one.partition, one.offset]
        if not inside:
            return None
        self._tracer.dropped(len(inside) - TRACED_PER_BATCH_MAX)
        return BlockTraces(self._tracer, block, inside[:TRACED_PER_BATCH_MAX], started_ns)


class BlockTraces:
    """The sampled records of one block that is on its way to the topic."""

    def __init__(
        self, tracer: Tracer, block: Block, records: list[_Arrived], started_ns: int
    ) -> None:
        self._tracer = tracer
        self._block = block
        self._records = records
        self._executing = (started_ns, time.time_ns())
        self._journaling = self._executing

    def durable(self, started_ns: int) -> None:
        """The journal has it, written from `started_ns` to now."""
        self._journaling = (started_ns, time.time_ns())

    def published(self) -> None:
        """The broker has it: make the spans."""
        now = time.time_ns()
        header = self._block.header
        for one in self._records:
            span = self._tracer.begin(
                "consensus.certify",
                one.traceparent,
                "CONSUMER",
                {
                    "nocturne.partition": one.partition,
                    "nocturne.offset": one.offset,
                    "nocturne.height": header.height,
                    "nocturne.block_records": header.record_count,
                },
                one.arrived_ns,
            )
            if span is None:
                continue
            span.child("consensus.execute", *self._executing)
            span.child("consensus.journal", *self._journaling)
            span.child("consensus.publish", self._journaling[1], now)
            span.end(ended_ns=now)
