"""What is signed and published for a block."""

from dataclasses import replace

from tests.unit.consensus.ledgers import AUTHORITY, PARTITIONS
from tests.unit.signing.chains import Source

from nocturne.core import topics
from nocturne.core.block_intake import CheckedBlock
from nocturne.core.blocks import LogRecord, decode_seal, hash_signatures, seal_signed
from nocturne.core.events import decode_event, event_signed
from nocturne.core.identifiers import format_hash, format_id
from nocturne.core.keys import Signatures
from nocturne.core.receipts import Reason, decode_receipt, receipt_signed
from nocturne.signing.signatures import BlockSigner, SignedRecord

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def signed(source: Source, checked: CheckedBlock) -> list[SignedRecord]:
    signer = BlockSigner(source.ledger.ledger_id, PARTITIONS, AUTHORITY, topics.FIXED_SCHEMA_IDS)
    return signer.sign(checked)


def avro(record: SignedRecord) -> bytes:
    assert record.value[1:5] == topics.FIXED_SCHEMA_IDS[record.topic].to_bytes(4, "big")
    return topics.unframe(record.value)


def mixed(source: Source) -> CheckedBlock:
    """Events of one and of several, receipts with and without a session, a gap."""
    ledger = source.ledger
    ledger.write("a")
    ledger.log(*ledger.record("b", events=3, headers=(("x", b"y"), ("traceparent", TRACE))))
    partition, record = ledger.record("a", expected=9, headers=(("traceparent", TRACE),))
    ledger.log(partition, record, gap=1)
    ledger.log(0, LogRecord(None, b"nothing", ()))
    return source.checked()


def test_every_event_and_receipt_is_signed_in_block_order_and_then_the_seal() -> None:
    source = Source()
    checked = mixed(source)
    records = signed(source, checked)
    header = checked.block.header
    signatures: list[Signatures] = []
    expected: list[str] = []
    for record, disposition in zip(checked.block.records, checked.dispositions, strict=True):
        for event_bytes, event_hash in zip(record.events, disposition.events, strict=True):
            event = decode_event(avro(records[len(expected)]))
            assert event.header_bytes == event_bytes
            assert (event.height, event.timestamp) == (header.height, header.time)
            assert event_signed(
                AUTHORITY.key, event_hash, header.time, header.height, event.signatures
            )
            signatures.append(event.signatures)
            expected.append(topics.EVENTS)
        if record.receipt is not None:
            receipt = decode_receipt(avro(records[len(expected)]))
            assert receipt.header_bytes == record.receipt
            assert disposition.receipt is not None
            assert receipt_signed(
                AUTHORITY.key, disposition.receipt, header.time, header.height, receipt.signatures
            )
            signatures.append(receipt.signatures)
            expected.append(topics.RECEIPTS)
    assert [record.topic for record in records] == [*expected, topics.SEALS]
    assert sorted(expected) == [topics.EVENTS] * 4 + [topics.RECEIPTS] * 2
    seal = decode_seal(avro(records[-1]))
    assert seal_signed(AUTHORITY.key, seal)
    assert (seal.height, seal.block_digest) == (header.height, checked.block.digest)
    assert seal.signatures_hash == hash_signatures(signatures)


def test_records_go_to_their_sessions_partition_under_their_own_ids() -> None:
    source = Source()
    checked = mixed(source)
    ledger_source = f"nocturne:{format_hash(source.ledger.ledger_id)}".encode()
    for record in signed(source, checked):
        headers = dict(record.headers)
        assert headers["ce_source"] == ledger_source
        assert headers["nocturne-height"] == b"1"
        if record.topic == topics.EVENTS:
            event = decode_event(avro(record))
            assert headers["ce_id"] == format_id(event.header.event_id).encode()
            assert record.key == headers["ce_subject"] == event.header.session.encode()
            assert record.partition == topics.partition_of(record.key, PARTITIONS)
        elif record.topic == topics.RECEIPTS:
            receipt = decode_receipt(avro(record)).header
            at = receipt.position
            position = f"{at.log_epoch}-{at.partition}-{at.offset}"
            assert headers["ce_id"] == position.encode()
            session = "~ledger" if receipt.reason is Reason.MALFORMED else "a"
            assert record.key == headers["ce_subject"] == session.encode()
            assert record.partition == topics.partition_of(record.key, PARTITIONS)
        else:
            assert (record.key, headers["ce_id"], record.partition) == (b"1", b"1", 0)


def test_the_trace_of_the_command_is_carried_to_its_events_and_receipts() -> None:
    source = Source()
    traces = {
        record.key: dict(record.headers).get("traceparent")
        for record in signed(source, mixed(source))
        if record.topic != topics.EVENTS or record.key == b"b"
    }
    assert traces == {b"b": TRACE, b"a": TRACE, b"~ledger": None, b"1": None}


def test_signing_again_gives_the_same_bytes() -> None:
    source = Source()
    checked = mixed(source)
    assert signed(source, checked) == signed(source, checked)


def test_another_key_signs_otherwise_and_nothing_else_differs() -> None:
    source = Source()
    checked = mixed(source)
    other = BlockSigner(
        source.ledger.ledger_id,
        PARTITIONS,
        type(AUTHORITY)(bytes(32)),
        topics.FIXED_SCHEMA_IDS,
    ).sign(checked)
    for one, another in zip(signed(source, checked), other, strict=True):
        assert one.value != another.value
        assert replace(one, value=b"") == replace(another, value=b"")
