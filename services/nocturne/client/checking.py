"""Check what services answer against what the caller knows: command and genesis. Pure.

Rules: docs/spec/ledger.md §3 and §4. Everything here raises `Malformed` with what is wrong: a
service that answers so is broken or lies.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from nocturne.audit.verify import Verdict, verify_disposition_proof
from nocturne.client.results import Committed, Level, Place, Refused, Result, Undecided
from nocturne.core.commands import (
    SignedCommand,
    author_signed_hash,
    encode_command,
    hash_command,
    payload_hash,
)
from nocturne.core.errors import Malformed
from nocturne.core.events import (
    Event,
    EventHeader,
    Position,
    decode_event_header,
    encode_event_header,
    event_signed,
    hash_event,
    header_of,
)
from nocturne.core.exports import (
    BlockLine,
    EventsLine,
    ReceiptLine,
    parse_line,
    split_proof,
)
from nocturne.core.genesis import Genesis, decode_genesis, ledger_id_of
from nocturne.core.identifiers import Hash, LedgerId, SessionId, session_key
from nocturne.core.receipts import (
    Reason,
    Receipt,
    ReceiptHeader,
    decode_receipt,
    decode_receipt_header,
    encode_receipt,
    encode_receipt_header,
    hash_receipt,
    receipt_signed,
)
from nocturne.wire.command.v1 import command_pb2


@dataclass(frozen=True, slots=True)
class Ledger:
    """The ledger that the caller trusts, by its genesis."""

    genesis_bytes: bytes
    genesis: Genesis
    ledger_id: LedgerId

    @staticmethod
    def of(genesis_bytes: bytes, ledger_id: LedgerId | None = None) -> Ledger:
        """The ledger of a genesis; `Malformed` unless it is `ledger_id`, when one is given."""
        found = ledger_id_of(genesis_bytes)
        if ledger_id not in (None, found):
            raise Malformed(f"genesis: of ledger {found.hex()}, not of the one that is trusted")
        return Ledger(genesis_bytes, decode_genesis(genesis_bytes), found)


# Outcomes --------------------------------------------------------------------------------------


def result_of(ledger: Ledger, signed: SignedCommand, outcome: command_pb2.Outcome) -> Result:
    """The outcome of `signed`: its events must be the ones that the command leaves no choice in,
    its receipt must be of this command and, where there is one, signed by the authority.
    """
    if outcome.command_hash != signed.command_hash:
        raise Malformed("outcome: of another command")
    try:
        level = Level(outcome.level)
    except ValueError as fault:
        raise Malformed(f"outcome: there is no level {outcome.level}") from fault
    if not outcome.decided:
        return Undecided(signed.command_hash, level)
    if bool(outcome.events) == bool(outcome.receipt_header):
        raise Malformed("outcome: expected events or a receipt")
    if outcome.events:
        headers = _check_headers(signed, tuple(outcome.events))
        place = _place_of(outcome, headers[0].position)
        return Committed(signed.command_hash, level, place, headers, outcome.repeated, b"")
    header = decode_receipt_header(outcome.receipt_header)
    check_refusal(ledger, signed, header)
    receipt = None
    if level >= Level.SIGNED:
        receipt = decode_receipt(outcome.receipt)
        if receipt.header_bytes != outcome.receipt_header:
            raise Malformed("outcome: the signed receipt is another one")
        check_receipt(ledger, receipt)
    place = _place_of(outcome, header.position)
    return Refused(signed.command_hash, level, place, header, receipt, outcome.repeated, b"")


def _place_of(outcome: command_pb2.Outcome, position: Position) -> Place:
    """The place of the decision. Its records name the position; the outcome names the command's
    own, which is another one when the command was repeated.
    """
    own = outcome.position
    if not outcome.repeated and position != Position(own.log_epoch, own.partition, own.offset):
        raise Malformed("outcome: its records stand at another position")
    return Place(position, outcome.height, outcome.timestamp_ms, Hash(outcome.block_digest))


def _check_headers(signed: SignedCommand, records: tuple[bytes, ...]) -> tuple[EventHeader, ...]:
    command = signed.command
    if len(records) != len(command.events):
        raise Malformed(f"outcome: expected {len(command.events)} events, got {len(records)}")
    headers = [decode_event_header(records[0])]
    first = headers[0]
    _check_beginning(signed, first)
    previous = hash_event(records[0])
    for index, data in enumerate(records):
        header = header_of(
            command,
            signed.command_hash,
            first.position,
            index,
            first.sequence + index,
            first.previous_hash if index == 0 else previous,
        )
        if encode_event_header(header) != data:
            raise Malformed(f"outcome: event {index} is not the one that the command asks for")
        if index > 0:
            headers.append(header)
            previous = hash_event(data)
    return tuple(headers)


def _check_beginning(signed: SignedCommand, first: EventHeader) -> None:
    """What the author knew of the sequence, and of the hash before event 1."""
    command = signed.command
    expected = 0 if command.opening is not None else command.expected_sequence
    if expected is not None and first.sequence != expected + 1:
        raise Malformed(f"outcome: expected sequence {expected + 1}, got {first.sequence}")
    beginning = session_key(command.ledger_id, command.session)
    if first.sequence < 1 or (first.sequence == 1) != (first.previous_hash == beginning):
        raise Malformed("outcome: the first event does not continue the session")


def check_refusal(ledger: Ledger, signed: SignedCommand, header: ReceiptHeader) -> None:
    """The receipt is of this command in this ledger."""
    if header.ledger_id != ledger.ledger_id:
        raise Malformed("receipt: of another ledger")
    # A record too large is not looked into: its receipt has the record's hash.
    if header.reason is not Reason.TOO_LARGE and header.command_hash != signed.command_hash:
        raise Malformed("receipt: of another command")


def check_receipt(ledger: Ledger, receipt: Receipt) -> None:
    """The authority signed it."""
    if receipt.header.ledger_id != ledger.ledger_id:
        raise Malformed("receipt: of another ledger")
    if not receipt_signed(
        ledger.genesis.authority,
        receipt.receipt_hash,
        receipt.timestamp,
        receipt.height,
        receipt.signatures,
    ):
        raise Malformed("receipt: not signed by the authority")


# Proofs ----------------------------------------------------------------------------------------


def check_proof(ledger: Ledger, proof: bytes) -> Verdict:
    """The verdict on a disposition proof; `Malformed` when it does not hold."""
    verdict = verify_disposition_proof(proof, ledger.genesis_bytes, ledger.ledger_id)
    if verdict.fault is not None:
        raise Malformed(f"proof: {verdict.fault}")
    return verdict


def result_of_proof(ledger: Ledger, signed: SignedCommand, proof: bytes, repeated: bool) -> Result:
    """What became of `signed`, from a disposition proof alone: checked down to the validators'
    signatures.
    """
    verdict = check_proof(ledger, proof)
    level = Level.SIGNED if verdict.signed else Level.CERTIFIED
    block_line, line = (parse_line(one) for one in split_proof(proof))
    assert isinstance(block_line, BlockLine)
    assert isinstance(line, EventsLine | ReceiptLine)
    at = line.placement
    place = Place(at.position, at.height, at.timestamp, block_line.digest)
    if isinstance(line, EventsLine):
        if line.command_hash != signed.command_hash:
            raise Malformed("proof: of another command")
        headers = tuple(decode_event_header(one) for one in line.headers())
        return Committed(signed.command_hash, level, place, headers, repeated, proof)
    check_refusal(ledger, signed, line.header)
    receipt = _receipt_of(line) if verdict.signed else None
    return Refused(signed.command_hash, level, place, line.header, receipt, repeated, proof)


def _receipt_of(line: ReceiptLine) -> Receipt:
    at = line.placement
    header_bytes = encode_receipt_header(line.header)
    signatures = line.attestation.signatures
    return decode_receipt(encode_receipt(header_bytes, signatures, at.height, at.timestamp))


def proved(ledger: Ledger, result: Committed | Refused, proof: bytes) -> Committed | Refused:
    """The result with its proof, which holds and is of this result's decision."""
    check_proof(ledger, proof)
    block_line, line = (parse_line(one) for one in split_proof(proof))
    assert isinstance(block_line, BlockLine)
    assert isinstance(line, EventsLine | ReceiptLine)
    at = line.placement
    place = Place(at.position, at.height, at.timestamp, block_line.digest)
    if isinstance(line, EventsLine):
        hashes = [hash_event(one) for one in line.headers()]
    else:
        hashes = [hash_receipt(encode_receipt_header(line.header))]
    if place != result.place or hashes != decision_hashes(result):
        raise Malformed("proof: of another decision than the outcome")
    return replace(result, proof=proof)


def decision_hashes(result: Committed | Refused) -> list[Hash]:
    """The event hashes, or the receipt's."""
    if isinstance(result, Committed):
        return [hash_event(encode_event_header(one)) for one in result.events]
    return [hash_receipt(encode_receipt_header(result.header))]


# Events ----------------------------------------------------------------------------------------


class EventChain:
    """Checks a session's events one after the other: sequence, chain, command, both signatures."""

    def __init__(self, ledger: Ledger, session: SessionId, from_sequence: int = 1) -> None:
        self._ledger = ledger
        self._session = session
        self.next_sequence = max(1, from_sequence)
        self._previous: Hash | None = None
        if self.next_sequence == 1:
            self._previous = Hash(session_key(ledger.ledger_id, session))

    def take(self, event: Event) -> None:
        """`Malformed` unless `event` is the next one, as its author and the authority signed it."""
        header = event.header
        where = f"event {self.next_sequence} of {self._session}"
        if (header.session, header.sequence) != (self._session, self.next_sequence):
            raise Malformed(f"{where}: got event {header.sequence} of {header.session}")
        if self._previous not in (None, header.previous_hash):
            raise Malformed(f"{where}: it does not continue the one before it")
        check_event(self._ledger, event)
        self.next_sequence += 1
        self._previous = event.event_hash


def check_event(ledger: Ledger, event: Event) -> None:
    """`Malformed` unless the event is what its author signed, and the authority signed it."""
    header, command = event.header, event.command
    where = f"event {header.sequence} of {header.session}"
    if header.ledger_id != ledger.ledger_id:
        raise Malformed(f"{where}: of another ledger")
    if not 0 <= header.index < len(command.events):
        raise Malformed(f"{where}: its command has no event {header.index}")
    command_hash = hash_command(encode_command(command))
    expected = header_of(
        command, command_hash, header.position, header.index, header.sequence, header.previous_hash
    )
    if expected != header:
        raise Malformed(f"{where}: not the one that its command asks for")
    if payload_hash(event.payload) != header.payload_hash:
        raise Malformed(f"{where}: its payload is not the one that was signed")
    if not author_signed_hash(command_hash, command.key, event.author_signatures):
        raise Malformed(f"{where}: not signed by its author")
    if not event_signed(
        ledger.genesis.authority, event.event_hash, event.timestamp, event.height, event.signatures
    ):
        raise Malformed(f"{where}: not signed by the authority")
