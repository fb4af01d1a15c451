"""An answer is believed only as far as it follows from the command, the genesis and signatures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.unit.client.fakes import FakeLedger
from tests.vectors.synthetic import SyntheticLedger

from nocturne.client import checking
from nocturne.client.checking import EventChain, Ledger
from nocturne.client.results import Committed, Level, Refused, Undecided
from nocturne.core.commands import SignedCommand
from nocturne.core.errors import Malformed
from nocturne.core.events import decode_event, decode_event_header, encode_event_header
from nocturne.core.identifiers import Hash, LedgerId, SessionId
from nocturne.core.keys import Ed25519Signer
from nocturne.core.receipts import Reason, encode_receipt, hash_receipt, sign_receipt
from nocturne.wire.command.v1 import command_pb2


class World:
    def __init__(self) -> None:
        self.fake = FakeLedger()
        self.say = self.fake.ledger.command
        self.ledger = Ledger.of(self.fake.ledger.genesis_bytes)
        self.opened = self.say("a/1", b"{}", kind="facts")
        self.first = self.fake.take(self.opened)

    def check(self, signed: SignedCommand, outcome: command_pb2.Outcome) -> object:
        return checking.result_of(self.ledger, signed, outcome)


@pytest.fixture
def world() -> World:
    return World()


def test_events_that_follow_from_the_command_are_believed(world: World) -> None:
    signed = world.say("a/1", b"{}", b"[]")
    result = world.check(signed, world.fake.take(signed))
    assert isinstance(result, Committed)
    assert [one.sequence for one in result.events] == [2, 3]
    assert result.sequence == 3
    assert result.level is Level.SIGNED
    assert result.place.height == 2


def altered_header(**changes: object) -> Callable[[command_pb2.Outcome], None]:
    def alter(outcome: command_pb2.Outcome) -> None:
        header = decode_event_header(outcome.events[0])
        outcome.events[0] = encode_event_header(replace(header, **changes))  # type: ignore[arg-type]

    return alter


ALTERATIONS: dict[str, Callable[[command_pb2.Outcome], None]] = {
    "another command": lambda o: setattr(o, "command_hash", bytes(32)),
    "no such level": lambda o: setattr(o, "level", 9),
    "no disposition": lambda o: o.ClearField("events"),
    "an event too many": lambda o: o.events.append(o.events[0]),
    "an event too few": lambda o: o.events.__delitem__(1),
    "swapped": lambda o: o.events.reverse(),
    "bytes that are no header": lambda o: o.events.__setitem__(0, b"junk"),
    "another payload": altered_header(payload_hash=Hash(bytes(32))),
    "another type": altered_header(event_type="Other"),
    "another ledger": altered_header(ledger_id=LedgerId(bytes(32))),
    "another session": altered_header(session=SessionId("a/2")),
    "another sequence": altered_header(sequence=7),
    "sequence zero": altered_header(sequence=0),
    "another beginning": altered_header(previous_hash=Hash(bytes(32))),
    "another author": altered_header(author=bytes(32)),
    "another offset": lambda o: setattr(o.position, "offset", 77),
    "both": lambda o: setattr(o, "receipt_header", b"x"),
}


@pytest.mark.parametrize("name", ALTERATIONS)
def test_events_that_do_not_follow_from_the_command_are_not_believed(
    world: World, name: str
) -> None:
    signed = world.say("b/1", b"{}", b"[]", kind="facts")
    outcome = world.fake.take(signed)
    ALTERATIONS[name](outcome)
    with pytest.raises(Malformed):
        world.check(signed, outcome)


def test_the_expected_sequence_is_held_to(world: World) -> None:
    signed = world.say("a/1", b"{}", expected=1)
    outcome = world.fake.take(signed)
    header = decode_event_header(outcome.events[0])
    assert isinstance(world.check(signed, outcome), Committed)
    outcome.events[0] = encode_event_header(replace(header, sequence=5))
    with pytest.raises(Malformed, match="expected sequence 2, got 5"):
        world.check(signed, outcome)


def refusal(world: World) -> tuple[SignedCommand, command_pb2.Outcome]:
    signed = world.say("a/1", b"{}", expected=9)
    return signed, world.fake.take(signed)


def test_a_refusal_is_a_value_with_the_true_head(world: World) -> None:
    signed, outcome = refusal(world)
    result = world.check(signed, outcome)
    assert isinstance(result, Refused)
    assert result.reason is Reason.DUPLICATE_SEQ
    assert result.header.head is not None
    assert result.header.head.sequence == 1
    assert result.receipt is not None


def test_a_refusal_needs_the_authoritys_receipt_from_signed_on(world: World) -> None:
    signed, outcome = refusal(world)
    outcome.receipt = b""
    with pytest.raises(Malformed):
        world.check(signed, outcome)
    outcome.level = command_pb2.LEVEL_CERTIFIED
    result = world.check(signed, outcome)
    assert isinstance(result, Refused)
    assert result.receipt is None


def test_a_receipt_that_someone_else_signed_is_not_believed(world: World) -> None:
    signed, outcome = refusal(world)
    forged = sign_receipt(
        Ed25519Signer(bytes(32)),
        hash_receipt(outcome.receipt_header),
        outcome.timestamp_ms,
        outcome.height,
    )
    outcome.receipt = encode_receipt(
        outcome.receipt_header, forged, outcome.height, outcome.timestamp_ms
    )
    with pytest.raises(Malformed, match="not signed by the authority"):
        world.check(signed, outcome)


def test_another_commands_receipt_is_not_believed(world: World) -> None:
    _, outcome = refusal(world)
    signed = world.say("a/1", b"{}", expected=9)
    outcome.command_hash = signed.command_hash
    with pytest.raises(Malformed, match="of another command"):
        world.check(signed, outcome)


def test_a_record_too_large_has_a_receipt_of_its_own_hash(world: World) -> None:
    signed = world.say("a/1", b'"' + b"x" * 5000 + b'"')
    result = world.check(signed, world.fake.take(signed))
    assert isinstance(result, Refused)
    assert result.reason is Reason.TOO_LARGE


def test_before_a_decision_nothing_is_claimed(world: World) -> None:
    outcome = command_pb2.Outcome(
        level=command_pb2.LEVEL_ACCEPTED, command_hash=world.opened.command_hash
    )
    result = world.check(world.opened, outcome)
    assert result == Undecided(world.opened.command_hash, Level.ACCEPTED)


def test_a_genesis_of_another_ledger_is_refused(world: World) -> None:
    with pytest.raises(Malformed, match="not of the one that is trusted"):
        Ledger.of(world.fake.ledger.genesis_bytes, LedgerId(bytes(32)))


def test_a_proof_must_be_of_the_decision(world: World) -> None:
    result = world.check(world.opened, world.first)
    assert isinstance(result, Committed)
    block, index = world.fake.places[world.opened.command_hash][0]
    proof = world.fake.proof(block, index)
    assert checking.proved(world.ledger, result, proof).proof == proof
    other = world.say("a/1", b"{}")
    world.fake.take(other)
    block, index = world.fake.places[other.command_hash][0]
    with pytest.raises(Malformed, match="another decision"):
        checking.proved(world.ledger, result, world.fake.proof(block, index))
    with pytest.raises(Malformed):
        checking.proved(world.ledger, result, proof.replace(b"Noted", b"Moted"))


def test_a_self_made_ledgers_proof_is_refused(world: World) -> None:
    other = FakeLedger(SyntheticLedger("other", partitions=1))
    signed = other.ledger.command("a/1", b"{}", kind="facts")
    other.take(signed)
    block, index = other.places[signed.command_hash][0]
    with pytest.raises(Malformed, match="proof"):
        checking.check_proof(world.ledger, other.proof(block, index))


def session_events(world: World) -> list[bytes]:
    for _ in range(3):
        world.fake.take(world.say("a/1", b"{}"))
    return world.fake.events("a/1")


def test_a_sessions_events_are_checked_one_by_one(world: World) -> None:
    chain = EventChain(world.ledger, SessionId("a/1"))
    for data in session_events(world):
        chain.take(decode_event(data))
    assert chain.next_sequence == 5
    later = EventChain(world.ledger, SessionId("a/1"), 3)
    for data in session_events(world)[2:4]:
        later.take(decode_event(data))


def test_an_event_left_out_doubled_or_swapped_is_noticed(world: World) -> None:
    events = [decode_event(one) for one in session_events(world)]
    for order in ([0, 2], [0, 0], [1], [0, 1, 3]):
        chain = EventChain(world.ledger, SessionId("a/1"))
        for number in order[:-1]:
            chain.take(events[number])
        with pytest.raises(Malformed):
            chain.take(events[order[-1]])


@pytest.mark.parametrize(
    "changes",
    [
        {"height": 9},
        {"timestamp": 1},
        {"signatures": ()},
        {"author_signatures": ()},
    ],
)
def test_an_altered_envelope_is_noticed(world: World, changes: dict[str, object]) -> None:
    event = decode_event(session_events(world)[0])
    with pytest.raises(Malformed, match="signed"):
        checking.check_event(world.ledger, replace(event, **changes))  # type: ignore[arg-type]


def test_another_payload_is_noticed(world: World) -> None:
    event = decode_event(session_events(world)[0])
    with pytest.raises(Malformed, match="payload"):
        checking.check_event(
            world.ledger, replace(event, payload=replace(event.payload, data=b"[]"))
        )
