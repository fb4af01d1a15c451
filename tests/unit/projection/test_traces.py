"""Spans of sampled commands in the projection: of the blocks that a transaction wrote."""

from __future__ import annotations

import pytest
from tests.fake_tracer import FakeTracer, sampled
from tests.unit.signing.chains import Source

from nocturne.core.blocks import Block
from nocturne.projection import traces
from nocturne.projection.traces import BlockTraces


def blocks(*sizes: int) -> list[Block]:
    """Blocks with so many sampled commands each, numbered through."""
    source = Source()
    made, number = [], 0
    for size in sizes:
        for _ in range(size):
            headers = (("traceparent", sampled(number)),)
            source.ledger.log(*source.ledger.record("a", headers=headers))
            number += 1
        if not size:
            source.ledger.write("a")
        made.append(source.checked().block)
    return made


def test_the_blocks_up_to_the_height_written_have_their_spans() -> None:
    tracer = FakeTracer()
    subject = BlockTraces(tracer)
    for block in blocks(1, 0, 2, 1):
        subject.read(block)
    subject.writing()
    subject.committed(3)
    spans = tracer.named("projection.apply")
    assert [span.parent for span in spans] == [sampled(0), sampled(1), sampled(2)]
    assert [span.attributes["nocturne.height"] for span in spans] == [1, 3, 3]
    for span in spans:
        assert span.ended
        assert tracer.parts(span) == ["projection.gather", "projection.transaction"]
    subject.committed(4)
    assert len(tracer.named("projection.apply")) == 4
    assert tracer.lost == 0


def test_a_transaction_has_its_bound_and_so_have_blocks_that_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(traces, "TRACED_PER_BATCH_MAX", 3)
    monkeypatch.setattr(traces, "BLOCKS_MAX", 2)
    tracer = FakeTracer()
    subject = BlockTraces(tracer)
    for block in blocks(1, 2, 5):
        subject.read(block)
    subject.writing()
    subject.committed(3)
    # One went with its block, two of the five with their block's bound, two with the transaction's.
    assert len(tracer.named("projection.apply")) == 3
    assert tracer.lost == 5
