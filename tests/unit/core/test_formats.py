"""Every byte format of the core: parse reverses print, and nothing else parses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.core import shapes
from tests.vectors.synthetic import example_ledger, make_genesis, signer_of

from nocturne.core.blocks import (
    Block,
    Seal,
    decode_block,
    decode_block_header,
    decode_seal,
    encode_block,
    encode_block_header,
    encode_disposition,
    encode_seal,
    hash_block,
    headers_bytes,
    sign_proposal,
)
from nocturne.core.certificates import (
    Certificate,
    CommitProof,
    Epoch,
    VoteKind,
    decode_commit_proof,
    encode_commit_proof,
)
from nocturne.core.commands import (
    SignedCommand,
    decode_command,
    decode_evidence,
    decode_signed_command,
    decode_signed_command_trusted,
    encode_command,
    encode_signed_command,
)
from nocturne.core.control import Control, decode_control, sign_control
from nocturne.core.encoding import Codec
from nocturne.core.errors import Malformed
from nocturne.core.events import (
    Position,
    decode_event,
    decode_event_header,
    decode_event_signatures,
    encode_event,
    encode_event_header,
    header_of,
)
from nocturne.core.genesis import decode_genesis, encode_genesis
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.keys import Signatures
from nocturne.core.receipts import (
    ReceiptHeader,
    decode_receipt,
    decode_receipt_header,
    decode_receipt_signatures,
    encode_receipt,
    encode_receipt_header,
)
from nocturne.core.record_headers import parse_headers
from nocturne.core.state_leaf import (
    SESSION_LEAF_BYTES,
    LogPosition,
    SessionLeaf,
    decode_positions,
    encode_positions,
)

reproducible = settings(derandomize=True, deadline=None, max_examples=30)

EXAMPLE = example_ledger()


def signed_event(signed: SignedCommand, signatures: Signatures) -> bytes:
    """An envelope around the first event of any command."""
    header = header_of(
        signed.command, signed.command_hash, Position(1, 0, 7), 0, 1, Hash(bytes(32))
    )
    return encode_event(encode_event_header(header), signatures, 3, 4, signed, 0)


# A format: how any of it is made, printed, and parsed.
FORMATS: dict[
    str, tuple[st.SearchStrategy[Any], Callable[[Any], bytes], Callable[[bytes], Any]]
] = {
    "command": (shapes.commands(), encode_command, decode_command),
    "signed command": (shapes.signed_commands(), encode_signed_command, decode_signed_command),
    "event header": (shapes.event_headers, encode_event_header, decode_event_header),
    "receipt header": (shapes.receipt_headers, encode_receipt_header, decode_receipt_header),
    "commit proof": (shapes.commit_proofs, encode_commit_proof, decode_commit_proof),
    "block header": (shapes.block_headers(), encode_block_header, decode_block_header),
    "block": (shapes.blocks(), encode_block, decode_block),
    "seal": (shapes.seals, encode_seal, decode_seal),
    "session leaf": (shapes.session_leaves, SessionLeaf.encode, SessionLeaf.decode),
    "log positions": (
        st.lists(shapes.log_positions, max_size=3).map(tuple),
        encode_positions,
        decode_positions,
    ),
    "record headers": (
        st.lists(st.tuples(st.text(), st.none() | shapes.payload_bytes), max_size=3).map(tuple),
        headers_bytes,
        parse_headers,
    ),
}

# Formats whose every byte string of the right length is one of them.
DENSE = {"session leaf", "log positions"}


@pytest.mark.parametrize("name", FORMATS)
def test_parse_reverses_print(name: str) -> None:
    values, encode, decode = FORMATS[name]

    @given(values)
    @reproducible
    def check(value: Any) -> None:
        assert decode(encode(value)) == value

    check()


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_cut_or_continued_is_malformed(name: str) -> None:
    values, encode, decode = FORMATS[name]

    @given(values, st.data())
    @reproducible
    def check(value: Any, data: st.DataObject) -> None:
        good = encode(value)
        if name == "log positions" and not good:
            return
        cut = data.draw(st.integers(0, len(good) - 1))
        if not (name == "log positions" and cut % 64 == 0):
            with pytest.raises(Malformed):
                decode(good[:cut])
        with pytest.raises(Malformed):
            decode(good + b"\x00")

    check()


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - DENSE))
def test_changed_bytes_are_malformed_or_another_record_in_its_one_encoding(name: str) -> None:
    values, encode, decode = FORMATS[name]

    @given(values, st.data())
    @settings(derandomize=True, deadline=None, max_examples=100)
    def check(value: Any, data: st.DataObject) -> None:
        good = encode(value)
        at = data.draw(st.integers(0, len(good) - 1))
        change = data.draw(st.binary(min_size=1, max_size=9))
        bad = good[:at] + change + good[at + data.draw(st.integers(0, 9)) :]
        try:
            other = decode(bad)
        except Malformed:
            return
        assert encode(other) == bad

    check()


@pytest.mark.parametrize("name", sorted(FORMATS.keys() - DENSE))
def test_any_bytes_are_malformed_or_a_record_in_its_one_encoding(name: str) -> None:
    _, encode, decode = FORMATS[name]

    @given(st.binary(max_size=300))
    @settings(derandomize=True, deadline=None, max_examples=100)
    def check(data: bytes) -> None:
        try:
            value = decode(data)
        except Malformed:
            return
        assert encode(value) == data

    check()


def test_a_long_record_is_refused_before_it_is_read() -> None:
    codec = Codec("disposition", 100)
    with pytest.raises(Malformed, match="at most 100 bytes, got 101"):
        codec.decode(bytes(101))
    with pytest.raises(Malformed, match="at most 10 bytes"):
        decode_signed_command(bytes(11), 10)


def test_a_count_that_no_bytes_follow_is_malformed_at_once() -> None:
    codec = Codec("disposition", 1 << 20)
    for count in ("02", "feffffffffffffffff01", "ffffffffffffffffff01"):
        with pytest.raises(Malformed):
            codec.decode(bytes.fromhex("020000" + "00" + count))


@pytest.mark.parametrize(
    "events",
    [
        "0400" + "01" * 32 + "00",  # a count of two, one hash and an end
        "02" + "01" * 32 + "02" + "01" * 32 + "00",  # two blocks
        "0340" + "01" * 64 + "00",  # a negative count with a length
        "8200" + "01" * 32 + "00",  # a long varint
    ],
)
def test_an_array_has_one_encoding(events: str) -> None:
    with pytest.raises(Malformed):
        Codec("disposition", 1 << 20).decode(bytes.fromhex("020000" + "00" + events + "00"))


@given(shapes.dispositions)
@reproducible
def test_a_disposition_is_read_back(disposition: Any) -> None:
    codec = Codec("disposition", 1 << 20)
    record = codec.decode(encode_disposition(disposition))
    assert record["commandHash"] == disposition.command_hash
    assert tuple(record["events"]) == disposition.events


# Envelopes: the hashed record is a prefix --------------------------------------------------------


@given(shapes.signed_commands())
@reproducible
def test_a_signed_command_begins_with_the_hashed_bytes(signed: SignedCommand) -> None:
    data = encode_signed_command(signed)
    assert data.startswith(signed.command_bytes)
    assert decode_signed_command_trusted(data) == signed
    evidence = decode_evidence(data, len(signed.command_bytes))
    assert (evidence.command_bytes, evidence.signatures, evidence.payloads) == (
        signed.command_bytes,
        signed.signatures,
        signed.payloads,
    )


@given(shapes.signed_commands(), shapes.signatures)
@reproducible
def test_an_event_begins_with_its_header_and_is_read_back(
    signed: SignedCommand, signatures: Signatures
) -> None:
    data = signed_event(signed, signatures)
    event = decode_event(data)
    assert data.startswith(event.header_bytes)
    assert (event.command, event.payload) == (signed.command, signed.payloads[0])
    assert (event.signatures, event.author_signatures) == (signatures, signed.signatures)
    assert (event.height, event.timestamp) == (3, 4)
    assert decode_event_signatures(data, event.header_bytes) == signatures
    with pytest.raises(Malformed):
        decode_event_signatures(data, event.header_bytes[:-1] + b"\x7f")
    with pytest.raises(Malformed):
        decode_event(data[:-1])
    with pytest.raises(Malformed):
        decode_event(data + b"\x00")


@given(shapes.signed_commands(), shapes.signed_commands())
@reproducible
def test_an_event_with_the_command_of_another_is_malformed(
    signed: SignedCommand, other: SignedCommand
) -> None:
    if signed.command == other.command:
        return
    header = header_of(
        signed.command, signed.command_hash, Position(1, 0, 7), 0, 1, Hash(bytes(32))
    )
    data = encode_event(encode_event_header(header), (), 3, 4, other, 0)
    with pytest.raises(Malformed, match="not the one its header names"):
        decode_event(data)


@given(shapes.receipt_headers, shapes.signatures, shapes.heights, shapes.times)
@reproducible
def test_a_receipt_begins_with_its_header_and_is_read_back(
    header: ReceiptHeader, signatures: Signatures, height: int, timestamp: int
) -> None:
    header_bytes = encode_receipt_header(header)
    data = encode_receipt(header_bytes, signatures, height, timestamp)
    receipt = decode_receipt(data)
    assert receipt.header == header
    assert receipt.header_bytes == header_bytes
    assert (receipt.signatures, receipt.height, receipt.timestamp) == (
        signatures,
        height,
        timestamp,
    )
    assert decode_receipt_signatures(data, header_bytes) == signatures
    for bad in (data[:-1], data + b"\x00"):
        with pytest.raises(Malformed):
            decode_receipt(bad)


# Genesis and control -----------------------------------------------------------------------------


def test_a_genesis_is_read_back_and_every_change_of_it_is_another_ledger_or_none() -> None:
    genesis = make_genesis("any", validators=2)
    good = encode_genesis(genesis)
    assert decode_genesis(good) == genesis
    for at in range(len(good)):
        bad = good[:at] + bytes((good[at] ^ 0x41,)) + good[at + 1 :]
        try:
            other = decode_genesis(bad)
        except Malformed:
            continue
        assert encode_genesis(other) == bad != good


def test_heights_views_and_epochs_below_their_first_are_malformed() -> None:
    signed = EXAMPLE.command("s", b"{}", kind="facts")
    header = header_of(
        signed.command, signed.command_hash, Position(1, 0, 7), 0, 1, Hash(bytes(32))
    )
    event = encode_event(encode_event_header(header), (), 0, 4, signed, 0)
    with pytest.raises(Malformed, match="height 0"):
        decode_event(event)
    with pytest.raises(Malformed, match="views start at 1"):
        decode_commit_proof(encode_commit_proof(_proof(Epoch(0, 0), 0)))
    with pytest.raises(Malformed, match="none below 0"):
        decode_commit_proof(encode_commit_proof(_proof(Epoch(-1, 0), 1)))
    with pytest.raises(Malformed, match="heights start at 1"):
        decode_seal(encode_seal(Seal(LedgerId(bytes(32)), 0, Hash(bytes(32)), Hash(bytes(32)), ())))


def _proof(epoch: Epoch, view: int) -> CommitProof:
    none = Hash(bytes(32))
    return CommitProof(Certificate(VoteKind.FINALIZE, epoch, none, view, none, ()), ())


def test_a_control_record_is_read_back() -> None:
    control = Control(LedgerId(bytes(32)), 7, 300, "EpochEnded", {})
    data = sign_control(control, (signer_of("one"), signer_of("two")))
    found, signatures = decode_control(data)
    assert found == control
    assert [one.key_id for one in signatures] == sorted(one.key_id for one in signatures)
    for bad in (data[:-1], data + b"\x00", b""):
        with pytest.raises(Malformed):
            decode_control(bad)


def test_leaves_of_another_length_are_malformed() -> None:
    for length in (0, SESSION_LEAF_BYTES - 1, SESSION_LEAF_BYTES + 1):
        with pytest.raises(Malformed):
            SessionLeaf.decode(bytes(length))
    one = LogPosition(0, 1, bytes(16), 0, Hash(bytes(32)))
    assert len(encode_positions((one,))) == 64
    with pytest.raises(Malformed):
        decode_positions(bytes(63))


def test_the_blocks_of_a_ledger_are_read_back() -> None:
    for made in EXAMPLE.blocks:
        digest = hash_block(made.header_bytes)
        block = Block(
            made.header,
            made.header_bytes,
            digest,
            sign_proposal(signer_of("ledger validator 0"), digest),
            made.proof,
            (),
            made.records,
            (),
        )
        assert decode_block(encode_block(block)) == block
