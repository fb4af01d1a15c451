"""Spans of sampled commands in a validator: of the records of a block, within its bound."""

from __future__ import annotations

import pytest
from tests.fake_tracer import FakeTracer, sampled
from tests.unit.signing.chains import Source

from nocturne.consensus import traces
from nocturne.consensus.traces import RecordTraces
from nocturne.core.blocks import Block


def block_of(commands: int) -> Block:
    return Source().block(*["a"] * commands).block


def arrived(subject: RecordTraces, block: Block, *, first: int = 0) -> int:
    """Every record of the block came, sampled; how many there are."""
    count = 0
    for one in block.header.ranges:
        for offset in range(one.start, one.end):
            subject.arrived(one.partition, offset, (("traceparent", sampled(first + count)),))
            count += 1
    return count


def test_a_blocks_sampled_records_have_their_spans_once_it_is_published() -> None:
    tracer = FakeTracer()
    subject = RecordTraces(tracer)
    block = block_of(2)
    count = arrived(subject, block)
    (one, *_) = block.header.ranges
    # Of the next block.
    subject.arrived(one.partition, one.end, (("traceparent", sampled(99)),))
    found = subject.taken(block, 5)
    assert found is not None
    found.durable(6)
    assert tracer.spans == []
    found.published()
    certified = tracer.named("consensus.certify")
    assert [span.parent for span in certified] == [sampled(number) for number in range(count)]
    for span in certified:
        assert span.ended
        assert span.attributes["nocturne.height"] == block.header.height
        assert tracer.parts(span) == [
            "consensus.execute",
            "consensus.journal",
            "consensus.publish",
        ]
    assert subject.taken(block, 7) is None


@pytest.mark.parametrize(
    "headers",
    [
        (),
        (("x", sampled(1)),),
        (("traceparent", None),),
        (("traceparent", b"01"),),
        (("traceparent", sampled(1)[:-2] + b"00"),),
        (("traceparent", sampled(1)[:-2] + b"00"), ("traceparent", sampled(1))),
    ],
)
def test_a_record_that_is_not_sampled_has_none(
    headers: tuple[tuple[str, bytes | None], ...],
) -> None:
    tracer = FakeTracer()
    subject = RecordTraces(tracer)
    block = block_of(1)
    (one, *_) = block.header.ranges
    subject.arrived(one.partition, one.start, headers)
    assert subject.taken(block, 0) is None


def test_a_block_has_its_bound_and_so_have_records_that_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(traces, "TRACED_PER_BATCH_MAX", 2)
    monkeypatch.setattr(traces, "ARRIVED_MAX", 4)
    tracer = FakeTracer()
    subject = RecordTraces(tracer)
    block = block_of(6)
    count = arrived(subject, block)
    assert count == 6
    found = subject.taken(block, 0)
    assert found is not None
    found.published()
    # Two went because six are more than four may wait, two because a block has two.
    assert [span.parent for span in tracer.named("consensus.certify")] == [sampled(2), sampled(3)]
    assert tracer.lost == 4
