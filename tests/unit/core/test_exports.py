"""Lines of exports: one encoding, in which every redundant field is checked."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.core import shapes
from tests.vectors.synthetic import example_ledger, make_genesis

from nocturne.core import exports
from nocturne.core.blocks import RecordDisposition, encode_block_header, hash_block, hash_record
from nocturne.core.certificates import Epoch
from nocturne.core.commands import hash_command
from nocturne.core.errors import Malformed
from nocturne.core.events import Position, decode_event, encode_event
from nocturne.core.exports import (
    BlockLine,
    EventsLine,
    ExportLine,
    Line,
    Placement,
    ReceiptLine,
    ReceiptsLine,
    RefusedRecord,
    StateLine,
    ValidatorsLine,
    disposition_line,
    parse_line,
    print_line,
    proof_lines,
    split_proof,
)
from nocturne.core.genesis import encode_genesis
from nocturne.core.identifiers import Hash, SessionId, session_key
from nocturne.core.intake import evidence_of
from nocturne.core.json_forms import UNSIGNED, Attestation, event_json, receipt_json
from nocturne.core.keys import Signature, key_id
from nocturne.core.receipts import decode_receipt, encode_receipt
from nocturne.core.strict_json import canonical_json

reproducible = settings(derandomize=True, deadline=None, max_examples=40)
LEDGER = example_ledger()
GENESIS = encode_genesis(make_genesis())

placements = st.builds(
    Placement,
    shapes.naturals,
    shapes.times,
    shapes.positions,
    shapes.small,
    st.lists(shapes.hashes, max_size=3).map(tuple),
)


@st.composite
def attestations(draw: st.DrawFn) -> Attestation:
    """Signatures under any key, or none."""
    if draw(st.booleans()):
        return UNSIGNED
    key = draw(shapes.keys)
    data = draw(st.binary(min_size=64, max_size=64))
    return Attestation(key, (Signature(1, key_id(key), data),))


@st.composite
def events_lines(draw: st.DrawFn) -> EventsLine:
    """Any command as if accepted; nothing in it needs to be true."""
    signed = draw(shapes.signed_commands())
    command = signed.command
    author = Signature(1, key_id(command.key), draw(st.binary(min_size=64, max_size=64)))
    count = len(command.events)
    return EventsLine(
        draw(placements),
        command,
        hash_command(signed.command_bytes),
        (author,),
        signed.payloads,
        draw(st.integers(1, 2**40)),
        draw(shapes.hashes),
        tuple(draw(st.lists(attestations(), min_size=count, max_size=count))),
    )


@st.composite
def receipt_lines(draw: st.DrawFn) -> ReceiptLine:
    """Any receipt of a record that is no command."""
    placement = draw(placements)
    record = RefusedRecord(
        draw(st.none() | shapes.payload_bytes),
        draw(st.none() | shapes.payload_bytes),
        draw(shapes.payload_bytes),
    )
    header = replace(
        draw(shapes.receipt_headers),
        position=placement.position,
        command_hash=hash_record(record.key, record.value, record.headers),
    )
    return ReceiptLine(placement, header, record, (), draw(attestations()))


@st.composite
def block_lines(draw: st.DrawFn) -> BlockLine:
    """Any header whose time can be written, with any proof."""
    header = replace(draw(shapes.block_headers()), time=draw(shapes.times))
    data = encode_block_header(header)
    return BlockLine(header, data, hash_block(data), draw(shapes.commit_proofs))


siblings = st.lists(shapes.hashes, max_size=3).map(tuple)


@st.composite
def validators_lines(draw: st.DrawFn) -> ValidatorsLine:
    """Any block that names any keys."""
    line = draw(block_lines())
    header = replace(line.header, epoch=Epoch(line.header.epoch.recovery, draw(st.integers(0, 99))))
    data = encode_block_header(header)
    keys = tuple(draw(st.lists(shapes.keys, max_size=4)))
    return ValidatorsLine(BlockLine(header, data, hash_block(data), line.proof), keys)


LINES: dict[str, st.SearchStrategy[Any]] = {
    "validators": validators_lines(),
    "export": st.builds(ExportLine, shapes.sessions, shapes.naturals, st.just(GENESIS)),
    "block": block_lines(),
    "events": events_lines(),
    "receipt": receipt_lines(),
    "receipts": st.builds(
        ReceiptsLine, shapes.naturals, st.lists(shapes.hashes, max_size=3).map(tuple)
    ),
    "state": st.builds(
        StateLine,
        shapes.sessions,
        shapes.naturals,
        shapes.session_leaves,
        siblings,
        st.none(),
    ),
    "absent": st.builds(
        StateLine,
        shapes.sessions,
        shapes.naturals,
        st.none(),
        siblings,
        st.none() | st.tuples(shapes.hashes, shapes.payload_bytes),
    ),
}


@pytest.mark.parametrize("name", LINES)
def test_parse_reverses_print(name: str) -> None:
    @given(LINES[name])
    @reproducible
    def check(line: Line) -> None:
        printed = print_line(line)
        assert printed.endswith(b"}\n")
        assert printed.count(b"\n") == 1
        assert parse_line(printed) == line

    check()


@pytest.mark.parametrize("name", LINES)
def test_a_changed_line_is_malformed_or_another_line_in_its_one_encoding(name: str) -> None:
    @given(LINES[name], st.data())
    @reproducible
    def check(line: Line, data: st.DataObject) -> None:
        good = print_line(line)
        at = data.draw(st.integers(0, len(good) - 1))
        change = data.draw(st.sampled_from([b"0", b"9", b"a", b'"', b" ", b"}", b"\xff", b""]))
        bad = good[:at] + change + good[at + 1 :]
        try:
            other = parse_line(bad)
        except Malformed:
            return
        assert print_line(other) == bad

    check()


@given(st.binary(max_size=200))
@reproducible
def test_any_bytes_are_answered(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_line(data + b"\n")


@pytest.mark.parametrize(
    "text",
    [
        "null",
        "[]",
        '"export"',
        "{}",
        '{"type":1}',
        '{"type":null}',
        '{"type":"export"}',
        '{"type":"receipts","first":true,"receiptHashes":[]}',
        '{"first":-1,"receiptHashes":[],"type":"receipts"}',
        '{"first":1.5,"receiptHashes":[],"type":"receipts"}',
        '{"first":9007199254740992,"receiptHashes":[],"type":"receipts"}',
        '{"first":1,"receiptHashes":{},"type":"receipts"}',
        '{"first":1,"receiptHashes":[1],"type":"receipts"}',
        '{"first":1,"receiptHashes":["sha256-00"],"type":"receipts"}',
    ],
)
def test_members_of_the_wrong_type_are_named(text: str) -> None:
    with pytest.raises(Malformed, match=r"expected"):
        parse_line(text.encode() + b"\n")


def test_lines_and_lists_have_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    many = tuple(Hash(bytes(32)) for _ in range(exports.RECEIPTS_PER_LINE + 1))
    with pytest.raises(Malformed, match="at most 1000, got 1001"):
        parse_line(print_line(ReceiptsLine(1, many)))
    deep = b'{"type":' + b"[" * 300 + b"]" * 300 + b"}\n"
    with pytest.raises(Malformed, match="levels"):
        parse_line(deep)
    monkeypatch.setattr(exports, "LINE_BYTES_MAX", 100)
    with pytest.raises(Malformed, match="at most 100 bytes"):
        print_line(ReceiptsLine(1, many))
    with pytest.raises(Malformed, match="at most 100 bytes, got 101"):
        parse_line(bytes(101))


def test_a_contradiction_within_a_line_is_named_by_its_path() -> None:
    line = next(line for line in LEDGER.export("orders/1") if b'"events"' in line)
    value = json.loads(line)
    for path, change in (
        (("events", 0, "eventId"), "00000000-0000-0000-0000-000000000000"),
        (("events", 0, "index"), 1),
        (("events", 0, "timestamp"), "2023-11-14T22:13:20.001Z"),
        (("events", 0, "occurredAt"), "2023-11-14T22:13:20.001Z"),
        (("events", 0, "author"), "sha256-" + "0" * 64),
        (("events", 0, "opening"), None),
        (("events", 0, "opening", "version"), 2),
        (("events", 0, "position", "offset"), 1),
        (("events", 0, "publicKey"), "ed25519-" + "0" * 64),
        (("events", 0, "height"), 2),
        (("command", "commandHash"), "sha256-" + "0" * 64),
    ):
        bad = json.loads(json.dumps(value))
        *way, last = path
        place = bad
        for step in way:
            place = place[step]
        place[last] = change
        with pytest.raises(Malformed, match="by the rest of its line") as found:
            parse_line(canonical_json(bad) + b"\n")
        named = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
        assert str(found.value).startswith(named.lstrip(".") + ":")


# From what services hold -------------------------------------------------------------------------


def place_of(index: int) -> Placement:
    return Placement(1, 1_700_000_000_000, Position(1, 0, index), index, ())


def test_a_gap_has_no_line() -> None:
    gap = RecordDisposition(None, None, b"", None, (), None, 0)
    with pytest.raises(Malformed, match="a gap has no line"):
        disposition_line(place_of(3), gap, LEDGER.authority.key, [])


def test_events_that_are_not_the_commands_are_refused() -> None:
    block = LEDGER.blocks[0]
    first, second = block.records[0], block.records[1]
    mixed = replace(first, events=second.events[:1])
    with pytest.raises(Malformed, match="events of another command"):
        disposition_line(place_of(0), mixed, LEDGER.authority.key, [])
    # The same record at another place would give other headers.
    with pytest.raises(Malformed, match="events of another command"):
        disposition_line(place_of(7), first, LEDGER.authority.key, [])
    with pytest.raises(Malformed, match="expected 2, got 1"):
        disposition_line(
            place_of(1), second, LEDGER.authority.key, LEDGER.signatures_of(block, first)
        )


def test_the_json_of_an_event_is_the_same_on_its_own_and_in_an_export() -> None:
    block = LEDGER.blocks[0]
    lines = [parse_line(line) for line in LEDGER.export("orders/1")]
    values = [json.loads(line) for line in LEDGER.export("orders/1")]
    record = block.records[0]
    (signatures,) = LEDGER.signatures_of(block, record)
    event = decode_event(
        encode_event(
            record.events[0],
            signatures,
            block.header.height,
            block.header.time,
            evidence_of(record),
            0,
        )
    )
    assert isinstance(lines[2], EventsLine)
    assert event_json(event, LEDGER.authority.key) == values[2]["events"][0]


def test_the_json_of_a_receipt_is_the_same_on_its_own_and_in_an_export() -> None:
    block = LEDGER.blocks[0]
    record = block.records[2]
    assert record.receipt is not None
    (signatures,) = LEDGER.signatures_of(block, record)
    receipt = decode_receipt(
        encode_receipt(record.receipt, signatures, block.header.height, block.header.time)
    )
    line = next(line for line in LEDGER.export("orders/1") if b'"type":"receipt"}' in line)
    assert receipt_json(receipt, LEDGER.authority.key) == json.loads(line)["receipt"]
    unsigned = replace(receipt, signatures=())
    assert receipt_json(unsigned, LEDGER.authority.key)["signature"] is None


def test_a_state_line_says_presence_and_absence() -> None:
    tree = LEDGER.state.tree
    for session in ("orders/1", "nobody"):
        key = session_key(LEDGER.state.ledger_id, SessionId(session))
        line = parse_line(exports.state_line(SessionId(session), 3, key, tree.prove(key)))
        assert isinstance(line, StateLine)
        assert (line.leaf is None) == (session == "nobody")


def test_a_proof_is_two_lines_after_those_of_changes() -> None:
    assert split_proof(exports.disposition_proof(b"a\n", b"b\n")) == (b"a\n", b"b\n")
    proof = exports.disposition_proof(b"a\n", b"b\n", b"v\nw\n")
    assert proof == b"v\nw\na\nb\n"
    assert split_proof(proof) == (b"a\n", b"b\n")
    assert proof_lines(proof)[:-2] == [b"v\n", b"w\n"]
    many = b"v\n" * exports.VALIDATORS_LINES_MAX
    proof_lines(many + b"a\nb\n")
    for bad in (b"", b"a\n", many + b"v\na\nb\n"):
        with pytest.raises(Malformed):
            split_proof(bad)
