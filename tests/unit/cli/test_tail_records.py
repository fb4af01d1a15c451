"""What tail says of a record: whose signature holds, what a stranger wrote, what is no record."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger_factory import (
    ALICE,
    BOB,
    VALIDATORS,
    Ledger,
    Opening,
    log_record,
    pointing,
    record_value,
)
from tests.liars import Place, lies_of
from tests.unit.projection.published import publish

from nocturne.cli.screen import json_text
from nocturne.cli.tail_records import (
    HEADERS_SHOWN_MAX,
    TEXT_CHARACTERS_MAX,
    Check,
    Headers,
    Record,
    Trust,
    record_json,
    told_of,
)
from nocturne.core import topics
from nocturne.core.commands import Payload, encode_signed_command
from nocturne.core.events import decode_event
from nocturne.core.evidence import encode_evidence
from nocturne.core.identifiers import LedgerId
from nocturne.core.strict_json import JsonValue

LEDGER = Ledger()
LEDGER.append(LEDGER.opening("orders/1"))
LEDGER.append(LEDGER.command("orders/1", number=2, expected=7))
BLOCK = LEDGER.commit()
PUBLISHED = publish(BLOCK)
TRUST = Trust(LEDGER.ledger_id, LEDGER.genesis)
ELSEWHERE = Trust(LedgerId(bytes(32)), LEDGER.genesis)
COMMAND = LEDGER.command("orders/1", number=3)


def record(topic: str, value: bytes | None, headers: Headers | None = ()) -> Record:
    return Record(topic, 1, 7, 1_700_000_000_000, b"orders/1", value, headers)


def command_value(number: int = 3) -> bytes:
    value = log_record(LEDGER.command("orders/1", number=number)).value
    assert value is not None
    return value


VALUES = {
    topics.COMMANDS: command_value(),
    topics.BLOCKS: record_value(BLOCK),
    topics.SEALS: PUBLISHED.seal_value,
    **{one.topic: one.value for one in PUBLISHED.records},
    topics.EVIDENCE: topics.frame(6, encode_evidence(lies_of(Place.of(LEDGER), VALIDATORS[0])[1])),
}
RECORDS = [record(topic, value) for topic, value in VALUES.items()]
BY_TOPIC = pytest.mark.parametrize("one", RECORDS, ids=lambda one: one.topic)


def test_there_is_a_record_of_every_topic() -> None:
    assert set(VALUES) == set(topics.TOPICS)


@BY_TOPIC
def test_what_its_writer_wrote_is_verified(one: Record) -> None:
    told = told_of(one, TRUST)
    assert (told.check, told.content is not None) == (Check.VERIFIED, True), told.says


def test_evidence_says_who_did_what() -> None:
    said = [
        told_of(record(topics.EVIDENCE, topics.frame(6, encode_evidence(lie))), TRUST).says
        for lie in lies_of(Place.of(LEDGER), VALIDATORS[0], view=9)
    ]
    assert said == [
        f"validator 0 {did} in view 9, and no correct one does"
        for did in (
            "proposed two blocks",
            "voted to notarize two blocks",
            "voted to finalize two blocks",
            "voted both to finalize and to nullify",
        )
    ]


def test_evidence_that_another_key_signed_proves_nothing() -> None:
    for lie in lies_of(Place.of(LEDGER), BOB):
        value = topics.frame(6, encode_evidence(lie))
        told = told_of(record(topics.EVIDENCE, value), TRUST)
        assert told.check is Check.REFUSED
        assert "did not sign" in told.says


@BY_TOPIC
def test_another_ledgers_record_is_refused(one: Record) -> None:
    told = told_of(one, ELSEWHERE)
    assert told.check is Check.REFUSED
    assert "another ledger" in told.says


@BY_TOPIC
@pytest.mark.parametrize("schema_id", [0, 3, 5000, 2**32 - 1])
def test_the_registrys_id_changes_nothing_but_itself(one: Record, schema_id: int) -> None:
    assert one.value is not None
    other = replace(one, value=topics.frame(schema_id, topics.unframe(one.value)))
    told, mine = told_of(one, TRUST), told_of(other, TRUST)
    assert mine == told
    assert record_json(other, mine)["schemaId"] == schema_id


@BY_TOPIC
def test_without_a_genesis_only_an_author_can_be_checked(one: Record) -> None:
    told = told_of(one, None)
    own = Check.VERIFIED if one.topic == topics.COMMANDS else Check.UNCHECKED
    assert (told.check, told.content is not None) == (own, True)


def test_an_event_says_its_content_in_the_names_of_the_api() -> None:
    content = told_of(record(topics.EVENTS, VALUES[topics.EVENTS]), TRUST).content
    assert content is not None
    assert (content["sessionId"], content["sequenceNumber"]) == ("orders/1", 1)
    assert content["payload"] == {"amount": 1}


def test_a_receipt_says_its_reason() -> None:
    told = told_of(record(topics.RECEIPTS, VALUES[topics.RECEIPTS]), TRUST)
    assert "DUPLICATE_SEQ" in told.summary


@pytest.mark.parametrize("topic", [topics.EVENTS, topics.RECEIPTS, topics.SEALS])
def test_what_another_key_signed_is_a_strangers(topic: str) -> None:
    forged = publish(BLOCK, BOB)
    values = {one.topic: one.value for one in forged.records} | {topics.SEALS: forged.seal_value}
    told = told_of(record(topic, values[topic]), TRUST)
    assert told.check is Check.REFUSED
    assert "the authority did not sign it" in told.says
    assert told.content is not None
    # Nothing of a stranger's is shown as the authority's.
    assert told.content.get("publicKey") is None
    assert told.content.get("authority") is None


def test_an_event_with_another_payload_or_author_signature_is_refused() -> None:
    """The authority's signature covers the header alone."""
    whole = VALUES[topics.EVENTS]
    event = decode_event(topics.unframe(whole))
    assert whole.endswith(event.payload.data)
    swapped = whole[: -len(event.payload.data)] + b'{"amount":9}'
    signature = event.author_signatures[0].data
    assert whole.count(signature) == 1
    unsigned = whole.replace(signature, bytes(64))
    for forged, why in ((swapped, "the payload"), (unsigned, "the author's signature")):
        told = told_of(record(topics.EVENTS, forged), TRUST)
        assert told.check is Check.REFUSED
        assert why in told.says


def test_a_command_whose_payload_or_signature_is_not_its_authors_is_refused() -> None:
    swapped = replace(COMMAND, payloads=(Payload(bytes(32), b"{}"),))
    other = LEDGER.command("orders/1", number=3, author=BOB)
    signed_by_other = replace(COMMAND, signatures=other.signatures)
    for forged, why in ((swapped, "payload 0"), (signed_by_other, "the author's signature")):
        value = topics.frame(1, encode_signed_command(forged))
        told = told_of(record(topics.COMMANDS, value), TRUST)
        assert told.check is Check.REFUSED
        assert why in told.says


def test_a_verified_command_is_not_said_to_be_accepted() -> None:
    told = told_of(record(topics.COMMANDS, VALUES[topics.COMMANDS]), TRUST)
    assert "whether it was accepted, a block says" in told.says


def test_a_block_with_another_body_is_refused_under_the_same_proof() -> None:
    forged = replace(BLOCK, records=BLOCK.records[:1])
    assert told_of(record(topics.BLOCKS, record_value(forged)), TRUST).check is Check.REFUSED


def test_a_block_whose_proof_stands_elsewhere_is_not_called_certified() -> None:
    ledger = Ledger()
    ledger.answer(ledger.opening("a"))
    ledger.answer(ledger.opening("b", author=ALICE, number=2))
    first, second = ledger.blocks
    told = told_of(
        record(topics.BLOCKS, record_value(pointing(first, second))),
        Trust(ledger.ledger_id, ledger.genesis),
    )
    assert (told.check, told.says) == (
        Check.UNCHECKED,
        "its commit proof is said to stand in block 2",
    )


@pytest.mark.parametrize("topic", topics.TOPICS)
@pytest.mark.parametrize(
    "value", [None, b"", b"\x00", b"garbage", b"\x00\x00\x00\x00\x04", b"\x00\x00\x00\x00\x04{}"]
)
def test_garbage_is_unreadable_with_its_reason(topic: str, value: bytes | None) -> None:
    told = told_of(record(topic, value), TRUST)
    assert told.check is Check.UNREADABLE
    assert told.says
    printed = record_json(record(topic, value), told)
    assert printed["record"] is None


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(RECORDS), st.data())
def test_any_change_of_a_record_is_told_and_never_verified(
    one: Record, data: st.DataObject
) -> None:
    value = one.value
    assert value is not None
    at = data.draw(st.integers(topics.PREFIX_BYTES, len(value) - 1))
    cut = data.draw(st.booleans())
    changed = value[:at] if cut else value[:at] + bytes([value[at] ^ 0xFF]) + value[at + 1 :]
    told = told_of(replace(one, value=changed), TRUST)
    # What is not under a block's commit proof is the leader's own signature, and state changes.
    if one.topic == topics.EVIDENCE:
        # Of another set it may be, of which a genesis says nothing.
        assert told.check is not Check.VERIFIED
    elif one.topic != topics.BLOCKS:
        assert told.check in (Check.REFUSED, Check.UNREADABLE)
    json_text(record_json(one, told))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(topics.TOPICS),
    st.binary(max_size=300).map(lambda tail: topics.frame(4, tail)) | st.binary(max_size=50),
    st.lists(st.tuples(st.text(max_size=300), st.none() | st.binary(max_size=900)), max_size=40),
    st.integers(-(2**63), 2**63 - 1),
)
def test_any_record_is_told_on_one_bounded_line(
    topic: str, value: bytes, headers: list[tuple[str, bytes | None]], time: int
) -> None:
    one = Record(topic, 0, 0, time, value, value, tuple(headers))
    printed = record_json(one, told_of(one, TRUST))
    line = json_text(printed)
    assert "\n" not in line
    assert "\x1b" not in line
    shown: JsonValue = printed["headers"]
    assert isinstance(shown, dict)
    assert len(shown) <= HEADERS_SHOWN_MAX
    assert all(len(text) <= TEXT_CHARACTERS_MAX for text in (*shown, *shown.values()) if text)


def test_headers_that_are_no_utf8_are_null() -> None:
    one = record(topics.EVENTS, VALUES[topics.EVENTS], None)
    assert record_json(one, told_of(one, TRUST))["headers"] is None


def test_an_opening_is_in_what_an_author_asked_for() -> None:
    value = log_record(LEDGER.opening("orders/2", number=9)).value
    content = told_of(record(topics.COMMANDS, value), TRUST).content
    assert content is not None
    assert content["opening"] == {"kind": Opening("facts", 1).kind, "version": 1}
    assert content["payloads"] == [{"payload": {"amount": 1}}]
