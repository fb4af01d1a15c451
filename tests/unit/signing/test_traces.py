"""Spans of sampled commands in signing: found in blocks, made when they are published."""

from __future__ import annotations

from tests.fake_tracer import FakeTracer, sampled
from tests.unit.signing.chains import Source

from nocturne.signing.traces import BatchTraces, sampled_in


def test_the_sampled_commands_of_a_block_are_found_in_its_order() -> None:
    source = Source()
    unsampled = sampled(2)[:-2] + b"00"
    for number, trace in enumerate((sampled(1), unsampled, None, b"nonsense", sampled(3))):
        headers = () if trace is None else (("traceparent", trace),)
        source.ledger.log(*source.ledger.record(f"s{number}", headers=headers))
    block = source.checked().block
    found = list(sampled_in(block, 77))
    assert {one.traceparent for one in found} == {sampled(1), sampled(3)}
    assert {(one.height, one.read_ns) for one in found} == {(block.header.height, 77)}


def test_each_has_a_span_from_the_blocks_arrival_to_the_commit_with_its_parts() -> None:
    source = Source()
    for number in (1, 2):
        source.ledger.log(*source.ledger.record("a", headers=(("traceparent", sampled(number)),)))
    tracer = FakeTracer()
    subject = BatchTraces(tracer, list(sampled_in(source.checked().block, 77)))
    subject.recorded()
    subject.signed()
    subject.publishing()
    assert tracer.spans == []
    subject.published()
    spans = tracer.named("signing.sign")
    assert [span.parent for span in spans] == [sampled(1), sampled(2)]
    for span in spans:
        assert span.times[0] == 77
        assert span.ended
        assert tracer.parts(span) == [
            "signing.record",
            "signing.signatures",
            "signing.queue",
            "signing.publish",
        ]
