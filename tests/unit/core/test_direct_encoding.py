"""The records that are written without the general Avro writer have its bytes, and only those.

Derandomized: the same examples at every run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger_factory import ALICE, Draft, Ledger, pointing
from tests.mutation import mutated

from nocturne.core.blocks import (
    Block,
    Disposition,
    ProofPointer,
    RecordDisposition,
    StateChange,
    decode_block,
    encode_block,
    encode_disposition,
)
from nocturne.core.certificates import CommitProof, commit_proof_to_avro
from nocturne.core.commands import (
    Command,
    EventDraft,
    Evidence,
    Opening,
    Payload,
    SignedCommand,
    decode_signed_command,
    encode_command,
    encode_signed_command,
    sign_command,
)
from nocturne.core.encoding import AvroRecord, Codec, array_to_avro, long_to_avro
from nocturne.core.errors import Malformed
from nocturne.core.events import (
    EventHeader,
    Position,
    decode_event_signatures,
    encode_event,
    encode_event_header,
)
from nocturne.core.identifiers import AuthorId, CommandId, EventId, Hash, KeyId, LedgerId, SessionId
from nocturne.core.keys import Key, PublicKey, Signature, Signatures, encode_signatures
from nocturne.core.receipts import (
    Head,
    Reason,
    ReceiptHeader,
    encode_receipt,
    encode_receipt_header,
    reason_of,
)

reproducible = settings(derandomize=True, deadline=None, max_examples=200, print_blob=True)

numbers = st.integers(-(2**63), 2**63 - 1) | st.integers(-70, 70) | st.integers(8000, 8400)
small = st.integers(-(2**31), 2**31 - 1) | st.integers(0, 200)
names = st.text(st.characters(codec="utf-8"), max_size=150)
binary = st.binary(max_size=200)
ids = st.binary(min_size=16, max_size=16)
hashes = st.binary(min_size=32, max_size=32)
optional_bytes = st.none() | binary
public_keys = st.builds(PublicKey, small, binary)
keys = st.lists(public_keys, max_size=3).map(tuple)
signatures = st.lists(st.builds(Signature, small, hashes.map(KeyId), binary), max_size=3).map(tuple)
openings = st.none() | st.builds(Opening, names, small)
positions = st.builds(Position, small, small, numbers)
drafts = st.builds(EventDraft, names, names, hashes.map(Hash))
payloads = st.builds(Payload, hashes, binary)
commands = st.builds(
    Command,
    hashes.map(LedgerId),
    names.map(SessionId),
    hashes.map(AuthorId),
    keys,
    ids.map(CommandId),
    st.none() | numbers,
    openings,
    numbers,
    st.lists(drafts, max_size=4).map(tuple),
)
headers = st.builds(
    EventHeader,
    hashes.map(LedgerId),
    names.map(SessionId),
    numbers,
    hashes.map(Hash),
    ids.map(EventId),
    hashes.map(Hash),
    positions,
    small,
    hashes.map(AuthorId),
    keys,
    names,
    names,
    hashes.map(Hash),
    numbers,
    openings,
)


def by_writer(name: str, record: AvroRecord) -> bytes:
    return Codec(name, 1 << 26).encode(record)


def key_record(key: Key) -> list[AvroRecord]:
    return [{"suite": part.suite, "bytes": part.data} for part in key]


def signature_records(given_signatures: Signatures) -> list[AvroRecord]:
    return [
        {"suite": one.suite, "keyId": one.key_id, "bytes": one.data} for one in given_signatures
    ]


def opening_record(opening: Opening | None) -> AvroRecord | None:
    return None if opening is None else {"kind": opening.kind, "version": opening.version}


def payload_record(payload: Payload) -> AvroRecord:
    return {"salt": payload.salt, "bytes": payload.data}


def position_record(position: Position) -> AvroRecord:
    return {
        "logEpoch": position.log_epoch,
        "partition": position.partition,
        "offset": position.offset,
    }


def command_record(command: Command) -> AvroRecord:
    return {
        "ledgerId": command.ledger_id,
        "session": command.session,
        "author": command.author,
        "key": key_record(command.key),
        "commandId": command.command_id,
        "expectedSequence": command.expected_sequence,
        "opening": opening_record(command.opening),
        "occurredAt": command.occurred_at,
        "events": [
            {
                "eventType": one.event_type,
                "contentType": one.content_type,
                "payloadHash": one.payload_hash,
            }
            for one in command.events
        ],
    }


@given(numbers)
@reproducible
def test_longs_are_the_writers(number: int) -> None:
    schema: AvroRecord = {"type": "record", "name": "L", "fields": [{"name": "n", "type": "long"}]}
    assert long_to_avro(number) == Codec("long", 20, schema).encode({"n": number})


def test_longs_change_length_where_the_writers_do() -> None:
    lengths = {n: len(long_to_avro(n)) for n in (0, 63, 64, 8191, 8192, 2**20, -1, -64, -65)}
    assert lengths == {0: 1, 63: 1, 64: 2, 8191: 2, 8192: 3, 2**20: 4, -1: 1, -64: 1, -65: 2}
    assert array_to_avro([]) == b"\x00"


@given(commands)
@reproducible
def test_commands_are_the_writers(command: Command) -> None:
    assert encode_command(command) == by_writer("command", command_record(command))


@given(commands, signatures, st.lists(payloads, max_size=3).map(tuple))
@reproducible
def test_envelopes_are_the_writers(
    command: Command, signed: Signatures, carried: tuple[Payload, ...]
) -> None:
    data = encode_command(command)
    envelope = SignedCommand(command, signed, carried, data, Hash(bytes(32)))
    assert encode_signed_command(envelope) == by_writer(
        "signed_command",
        {
            "command": command_record(command),
            "signatures": signature_records(signed),
            "payloads": [payload_record(one) for one in carried],
        },
    )


def header_record(header: EventHeader) -> AvroRecord:
    return {
        "ledgerId": header.ledger_id,
        "session": header.session,
        "sequence": header.sequence,
        "previousHash": header.previous_hash,
        "eventId": header.event_id,
        "commandHash": header.command_hash,
        **position_record(header.position),
        "index": header.index,
        "author": header.author,
        "key": key_record(header.key),
        "eventType": header.event_type,
        "contentType": header.content_type,
        "payloadHash": header.payload_hash,
        "occurredAt": header.occurred_at,
        "opening": opening_record(header.opening),
    }


@given(headers)
@reproducible
def test_event_headers_are_the_writers(header: EventHeader) -> None:
    assert encode_event_header(header) == by_writer("event_header", header_record(header))


@given(headers, signatures, numbers, numbers, commands, signatures, payloads)
@reproducible
def test_events_are_the_writers(
    header: EventHeader,
    certified: Signatures,
    height: int,
    timestamp: int,
    command: Command,
    author: Signatures,
    payload: Payload,
) -> None:
    data = encode_event_header(header)
    evidence = Evidence(encode_command(command), author, (payload,))
    event = encode_event(data, certified, height, timestamp, evidence, 0)
    assert event == by_writer(
        "event",
        {
            "header": header_record(header),
            "signatures": signature_records(certified),
            "height": height,
            "timestamp": timestamp,
            "command": command_record(command),
            "authorSignatures": signature_records(author),
            "payload": payload_record(payload),
        },
    )
    assert decode_event_signatures(event, data) == certified


@given(
    st.builds(
        Disposition,
        positions,
        st.none() | hashes.map(Hash),
        st.lists(hashes.map(Hash), max_size=4).map(tuple),
        st.none() | hashes.map(Hash),
    )
)
@reproducible
def test_dispositions_are_the_writers(disposition: Disposition) -> None:
    assert encode_disposition(disposition) == by_writer(
        "disposition",
        {
            "position": position_record(disposition.position),
            "commandHash": disposition.command_hash,
            "events": list(disposition.events),
            "receipt": disposition.receipt,
        },
    )


@given(
    st.builds(
        ReceiptHeader,
        hashes.map(LedgerId),
        hashes.map(Hash),
        st.sampled_from(Reason),
        names,
        names,
        st.none() | numbers,
        st.booleans(),
        st.none() | st.builds(Head, numbers, hashes.map(Hash)),
        positions,
        st.none() | positions,
    ),
    signatures,
    numbers,
    numbers,
)
@reproducible
def test_receipts_are_the_writers(
    header: ReceiptHeader, certified: Signatures, height: int, timestamp: int
) -> None:
    head, first = header.head, header.first_position
    record = {
        "ledgerId": header.ledger_id,
        "commandHash": header.command_hash,
        "reason": int(header.reason),
        "violatedInvariant": header.violated_invariant,
        "session": header.session,
        "attemptedSequence": header.attempted_sequence,
        "claimed": header.claimed,
        "head": None if head is None else {"sequence": head.sequence, "hash": head.hash},
        "position": position_record(header.position),
        "firstPosition": None if first is None else position_record(first),
    }
    data = encode_receipt_header(header)
    assert data == by_writer("receipt_header", record)
    assert reason_of(data) is header.reason
    assert encode_receipt(data, certified, height, timestamp) == by_writer(
        "receipt",
        {
            "receipt": record,
            "signatures": signature_records(certified),
            "height": height,
            "timestamp": timestamp,
        },
    )


LEDGER = Ledger()
LEDGER.append(LEDGER.opening("s", Draft(), Draft()))
LEDGER.append(LEDGER.command("s", number=2, expected=9))
LEDGER.append(None, 1)
BLOCK = LEDGER.commit()

records = st.builds(
    RecordDisposition,
    optional_bytes,
    optional_bytes,
    binary,
    st.none() | hashes.map(Hash),
    st.lists(binary, max_size=3).map(tuple),
    optional_bytes,
    small,
)


@given(
    signatures,
    st.lists(binary, max_size=2).map(tuple),
    st.lists(records, max_size=5).map(tuple),
    st.lists(st.builds(StateChange, hashes.map(Hash), optional_bytes), max_size=3).map(tuple),
    st.none() | st.builds(ProofPointer, numbers, hashes.map(Hash)),
)
@reproducible
def test_blocks_are_the_writers(
    leader: Signatures,
    control: tuple[bytes, ...],
    carried: tuple[RecordDisposition, ...],
    changes: tuple[StateChange, ...],
    pointer: ProofPointer | None,
) -> None:
    block = replace(
        BLOCK,
        leader_signatures=leader,
        control=control,
        records=carried,
        state_changes=changes,
        proof=BLOCK.proof if pointer is None else pointer,
    )
    data = encode_block(block)
    assert (
        data[len(BLOCK.header_bytes) :]
        == by_writer("block", block_record(block))[len(BLOCK.header_bytes) :]
    )
    assert decode_block(data) == block


def block_record(block: Block) -> AvroRecord:
    header = Codec("block_header", 1 << 20).decode(block.header_bytes)
    proof: object
    if isinstance(block.proof, CommitProof):
        proof = ("nocturne.v1.CommitProof", commit_proof_to_avro(block.proof))
    else:
        pointer = {"height": block.proof.height, "digest": block.proof.digest}
        proof = ("nocturne.v1.ProofPointer", pointer)
    return {
        "header": header,
        "leaderSignatures": signature_records(block.leader_signatures),
        "proof": proof,
        "control": list(block.control),
        "records": [
            {
                "key": one.key,
                "value": one.value,
                "headers": one.headers,
                "recordHash": one.record_hash,
                "events": list(one.events),
                "receipt": one.receipt,
                "commandLength": one.command_length,
            }
            for one in block.records
        ],
        "stateChanges": [{"key": one.key, "value": one.value} for one in block.state_changes],
    }


# What is read -----------------------------------------------------------------------------------

SIGNED = LEDGER.opening("t", Draft(), Draft("Other", b"x", "text/plain"), number=300)


def is_read(decode: Callable[[bytes], object], data: bytes) -> bool:
    try:
        decode(data)
    except Malformed:
        return False
    return True


@given(st.integers(0, 2**32), st.integers(1, 3))
@settings(reproducible, max_examples=1000)
def test_no_envelope_is_read_that_the_general_reader_would_not_write_again(
    seed: int, edits: int
) -> None:
    data = mutated(Random(seed), encode_signed_command(SIGNED), edits)
    if is_read(decode_signed_command, data):
        record = Codec("signed_command", 1 << 24).decode(data)
        assert decode_signed_command(data).command_bytes == by_writer("command", record["command"])


@given(st.integers(0, 2**32), st.integers(1, 3), st.booleans())
@settings(reproducible, max_examples=600)
def test_no_block_is_read_that_the_general_reader_would_not_write_again(
    seed: int, edits: int, points: bool
) -> None:
    data = mutated(Random(seed), encode_block(pointing(BLOCK, BLOCK) if points else BLOCK), edits)
    if is_read(decode_block, data):
        Codec("block", 1 << 24).decode(data)


@given(st.integers(0, 2**32))
@settings(reproducible, max_examples=300)
def test_signatures_of_an_event_are_read_in_their_one_encoding_only(seed: int) -> None:
    (header, _) = next(one.events for one in BLOCK.records if one.events)
    evidence = Evidence(SIGNED.command_bytes, SIGNED.signatures, SIGNED.payloads)
    event = encode_event(header, SIGNED.signatures, 1, 1, evidence, 0)
    damaged = mutated(Random(seed), event[len(header) :], 1)
    try:
        read = decode_event_signatures(header + damaged, header)
    except Malformed:
        return
    assert damaged.startswith(encode_signatures(read))


@pytest.mark.parametrize(
    "changes",
    [
        {"ledger_id": bytes(31)},
        {"author": bytes(33)},
        {"command_id": bytes(15)},
        {"events": (replace(SIGNED.command.events[0], payload_hash=Hash(b"")),)},
    ],
    ids=str,
)
def test_a_command_with_a_part_of_another_length_is_not_signed(changes: dict[str, object]) -> None:
    command = replace(SIGNED.command, **changes)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected an id of 16 bytes"):
        sign_command(command, SIGNED.payloads, ALICE)
    with pytest.raises(ValueError, match="salts of 32"):
        sign_command(SIGNED.command, (Payload(bytes(16), b""),), ALICE)
