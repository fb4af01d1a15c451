"""Check an export or a disposition proof offline, and name the first thing that is wrong.

Rules: docs/spec/exports.md, verification. Pure: lines come in, a verdict goes out. Nothing is
believed but the ledger id that the caller trusts; without one a verdict says at most that all is
consistent. Memory does not grow with events: a root needs a frontier, a receipt 64 bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from nocturne.core import merkle
from nocturne.core.blocks import (
    FORMAT_VERSION,
    RULES_VERSION,
    BlockHeader,
    BlockKind,
    Disposition,
    disposition_leaf,
    link_of,
    link_to,
)
from nocturne.core.certificates import ValidatorSet, check_commit_proof
from nocturne.core.commands import Command, author_signed_hash, payload_hash
from nocturne.core.encoding import HASH_BYTES
from nocturne.core.errors import Malformed
from nocturne.core.events import Position, event_signed, hash_event
from nocturne.core.exports import (
    RECEIPTS_PER_LINE,
    VALIDATORS_LINES_MAX,
    BlockLine,
    EventsLine,
    ExportLine,
    Placement,
    ReceiptLine,
    ReceiptsLine,
    RefusedRecord,
    StateLine,
    ValidatorsLine,
    parse_line,
    proof_lines,
)
from nocturne.core.genesis import decode_genesis, ledger_id_of
from nocturne.core.identifiers import (
    LEDGER_SESSION,
    Hash,
    LedgerId,
    SessionId,
    format_hash,
    session_key,
)
from nocturne.core.json_fields import format_time
from nocturne.core.json_forms import UNSIGNED, Attestation
from nocturne.core.keys import Key
from nocturne.core.receipts import (
    Reason,
    ReceiptHeader,
    encode_receipt_header,
    hash_receipt,
    receipt_signed,
)
from nocturne.core.sparse_tree import Proof, root_from_proof
from nocturne.core.validator_sets import ValidatorSets, check_keys


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found. `fault` is the first thing wrong, in words; None when there is none.

    `identity_checked`: the ledger is the one the caller trusts. `signed`: the authority has signed
    everything in it (always so in an export without fault). Counts are of what was checked.
    """

    fault: str | None
    ledger_id: LedgerId | None
    identity_checked: bool
    session: str
    height: int
    events: int
    receipts: int
    head_hash: Hash | None
    signed: bool

    @property
    def holds(self) -> bool:
        """Nothing is wrong and the ledger is the trusted one: exit code 0 of `nocturne verify`."""
        return self.fault is None and self.identity_checked

    @property
    def sentence(self) -> str:
        """The verdict in one line, for a person."""
        if self.fault is not None:
            return self.fault
        assert self.ledger_id is not None
        ledger = format_hash(self.ledger_id)
        if not self.identity_checked:
            return f"consistent with ledger {ledger}, identity not checked"
        counted = f"{_counted(self.events, 'event')} and {_counted(self.receipts, 'receipt')}"
        return f"verified: {counted} of {self.session} as of block {self.height} of ledger {ledger}"


def _counted(number: int, thing: str) -> str:
    return f"1 {thing}" if number == 1 else f"{number} {thing}s"


class _Wrong(Exception):  # noqa: N818  it is a finding, not an error of ours
    """The first thing wrong, in words."""


def verify_export(lines: Iterable[bytes], trusted: LedgerId | None) -> Verdict:
    """Check a session's export, line by line, against the ledger `trusted`."""
    export = _Export(trusted)
    number = 0
    fault: str | None = None
    try:
        for line in lines:
            number += 1
            export.take(line)
        export.end()
    except Malformed as malformed:
        fault = f"line {number}: {malformed}"
    except _Wrong as wrong:
        fault = str(wrong)
    return export.verdict(fault)


def verify_disposition_proof(
    proof: bytes, genesis_bytes: bytes, trusted: LedgerId | None
) -> Verdict:
    """Check what became of one command, from the lines of its proof.

    It may be `certified` only: then it holds with `signed` false.
    """
    fault: str | None = None
    ledger: _Ledger | None = None
    block: BlockLine | None = None
    line: EventsLine | ReceiptLine | None = None
    try:
        ledger = _ledger_of(genesis_bytes, trusted)
        changes, block, line = _proof_lines(proof)
        for change in changes:
            ledger = _with_change(ledger, change, block.header.height)
        _check_block(ledger, block)
        _check_ledger(ledger, line)
        _check_disposition(ledger, block, line, -1, unsigned_allowed=True)
        _check_all_or_none_signed(line)
    except (Malformed, _Wrong) as found:
        fault = str(found)
    events = line if isinstance(line, EventsLine) and fault is None else None
    receipt = line if isinstance(line, ReceiptLine) and fault is None else None
    session = events.command.session if events else receipt.header.session if receipt else ""
    return Verdict(
        fault,
        None if ledger is None else ledger.ledger_id,
        ledger is not None and ledger.identity_checked,
        session,
        0 if block is None else block.header.height,
        0 if events is None else len(events.command.events),
        0 if receipt is None else 1,
        None,
        _is_signed(line) if line is not None and fault is None else False,
    )


def _proof_lines(
    proof: bytes,
) -> tuple[list[ValidatorsLine], BlockLine, EventsLine | ReceiptLine]:
    *before, first, second = map(parse_line, proof_lines(proof))
    changes = [one for one in before if isinstance(one, ValidatorsLine)]
    if (
        len(changes) < len(before)
        or not isinstance(first, BlockLine)
        or not isinstance(second, EventsLine | ReceiptLine)
    ):
        raise _Wrong("the proof is not a block line and a disposition line")
    return changes, first, second


def _is_signed(line: EventsLine | ReceiptLine) -> bool:
    attestations = line.attestations if isinstance(line, EventsLine) else (line.attestation,)
    return all(one != UNSIGNED for one in attestations)


# The ledger and its blocks ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Ledger:
    """What the genesis says: who certifies, who signs; and whom the lines since have proved to
    certify later epochs.
    """

    ledger_id: LedgerId
    sets: ValidatorSets
    authority: Key
    identity_checked: bool


def _ledger_of(genesis_bytes: bytes, trusted: LedgerId | None) -> _Ledger:
    ledger_id = ledger_id_of(genesis_bytes)
    if trusted is not None and ledger_id != trusted:
        raise _Wrong(
            f"the export is of ledger {format_hash(ledger_id)}, "
            f"not of the trusted {format_hash(trusted)}"
        )
    genesis = decode_genesis(genesis_bytes)
    return _Ledger(ledger_id, genesis.founding_sets, genesis.authority, trusted is not None)


def _check_block(ledger: _Ledger, line: BlockLine) -> None:
    header = line.header
    where = f"block {header.height}"
    if header.ledger_id != ledger.ledger_id:
        raise _Wrong(f"{where}: it is of ledger {format_hash(header.ledger_id)}")
    if (header.format_version, header.rules_version) != (FORMAT_VERSION, RULES_VERSION):
        raise _Wrong(f"{where}: its format or rules version is not 1")
    if header.kind is not BlockKind.LEDGER:
        raise _Wrong(f"{where}: a tail block is no ledger block")
    try:
        validators = ledger.sets.of_block(header)
    except Malformed as malformed:
        raise _Wrong(str(malformed)) from malformed
    link = link_to(header, line.digest)
    try:
        check_commit_proof(line.proof, link, ledger.ledger_id, validators, link_of)
    except Malformed as malformed:
        raise _Wrong(f"{where}: {malformed}") from malformed


def _with_change(ledger: _Ledger, line: ValidatorsLine, height_max: int) -> _Ledger:
    """The ledger once the line has shown who certifies from its epoch on. What it is for lies
    above it, at `height_max` or below.

    An epoch in which nothing changed needs no line: it would be signed by the very keys that sign
    what comes after it.
    """
    header = line.block.header
    where = f"validators of epoch {line.first_epoch}"
    newest = ledger.sets.decided[-1]
    if len(ledger.sets.decided) > VALIDATORS_LINES_MAX:
        raise _Wrong(f"{where}: expected at most {VALIDATORS_LINES_MAX} changes")
    if header.height >= height_max:
        raise _Wrong(f"{where}: block {header.height} is not below block {height_max}")
    _check_block(ledger, line.block)
    if not ledger.sets.is_end(header.height):
        raise _Wrong(f"{where}: block {header.height} is not the last of its epoch")
    if line.first_epoch <= newest.first_epoch:
        raise _Wrong(f"{where}: they stand after those of epoch {newest.first_epoch}")
    if header.next_validator_set_hash == header.validator_set_hash:
        raise _Wrong(f"{where}: they are those of the epoch before")
    try:
        check_keys(line.keys)
    except Malformed as malformed:
        raise _Wrong(f"{where}: {malformed}") from malformed
    validators = ValidatorSet.of(line.keys)
    if validators.hash != header.next_validator_set_hash:
        raise _Wrong(f"{where}: block {header.height} names others")
    return replace(ledger, sets=ledger.sets.proved(line.first_epoch, validators))


def _leaf_index(header: BlockHeader, position: Position) -> int | None:
    """The index of a position among the block's dispositions, None if it is not in its ranges."""
    before = 0
    for one in header.ranges:
        if (one.log_epoch, one.partition) == (position.log_epoch, position.partition):
            inside = one.start <= position.offset < one.end
            return before + position.offset - one.start if inside else None
        before += one.end - one.start
    return None


# One disposition ----------------------------------------------------------------------------------


def _check_ledger(ledger: _Ledger, line: EventsLine | ReceiptLine) -> None:
    named = line.command.ledger_id if isinstance(line, EventsLine) else line.header.ledger_id
    if named != ledger.ledger_id:
        raise _Wrong(f"{_name_of(line)}: it is of ledger {format_hash(named)}")


def _check_disposition(
    ledger: _Ledger,
    block: BlockLine,
    line: EventsLine | ReceiptLine,
    leaf_before: int,
    *,
    unsigned_allowed: bool,
) -> None:
    """What a line shows alone, under its block and after the leaf `leaf_before` (-1: none)."""
    if isinstance(line, EventsLine):
        _check_events(ledger, block, line, leaf_before, unsigned_allowed)
    else:
        _check_receipt(ledger, block, line, leaf_before, unsigned_allowed)


def _check_all_or_none_signed(line: EventsLine | ReceiptLine) -> None:
    if isinstance(line, EventsLine) and len({one == UNSIGNED for one in line.attestations}) > 1:
        raise _Wrong(f"{_name_of(line)}: the authority has signed only some of them")


def _check_placement(
    block: BlockLine,
    placement: Placement,
    disposition: Disposition,
    leaf_before: int,
    what: str,
) -> None:
    header = block.header
    if placement.height != header.height:
        raise _Wrong(f"{what}: it says block {placement.height}, it stands in {header.height}")
    if placement.timestamp != header.time:
        raise _Wrong(
            f"{what}: it says {format_time(placement.timestamp)}, "
            f"the time of its block is {format_time(header.time)}"
        )
    index = _leaf_index(header, placement.position)
    if index is None:
        raise _Wrong(f"{what}: its position is not in the ranges of block {header.height}")
    if placement.leaf_index != index:
        raise _Wrong(f"{what}: its leaf is {index}, not {placement.leaf_index}")
    if index <= leaf_before:
        raise _Wrong(f"block {header.height}: leaf {index} stands after leaf {leaf_before}")
    try:
        root = merkle.root_from_inclusion(
            disposition_leaf(disposition), index, header.record_count, placement.path
        )
    except Malformed as malformed:
        raise _Wrong(f"{what}: {malformed}") from malformed
    if root != header.dispositions_root:
        raise _Wrong(f"{what}: block {header.height} does not contain it as it stands here")


def _check_events(
    ledger: _Ledger, block: BlockLine, line: EventsLine, leaf_before: int, unsigned_allowed: bool
) -> None:
    what = _name_of(line)
    command = line.command
    hashes = tuple(map(hash_event, line.headers()))
    disposition = Disposition(line.placement.position, line.command_hash, hashes, None)
    _check_placement(block, line.placement, disposition, leaf_before, what)
    if not author_signed_hash(line.command_hash, command.key, line.author_signatures):
        raise _Wrong(f"{what}: its author's signature does not verify")
    for index, payload in enumerate(line.payloads):
        if payload_hash(payload) != command.events[index].payload_hash:
            what = f"event {line.sequence + index}"
            raise _Wrong(f"{what}: its payload is not the one its author signed")
    for index, event_hash in enumerate(hashes):
        what = f"event {line.sequence + index}"
        attestation = line.attestations[index]
        if _is_attested(ledger, attestation, what, unsigned_allowed) and not event_signed(
            attestation.key,
            event_hash,
            line.placement.timestamp,
            line.placement.height,
            attestation.signatures,
        ):
            raise _Wrong(f"{what}: the authority's signature does not verify")


def _check_receipt(
    ledger: _Ledger, block: BlockLine, line: ReceiptLine, leaf_before: int, unsigned_allowed: bool
) -> None:
    header = line.header
    receipt_hash = hash_receipt(encode_receipt_header(header))
    what = _name_of(line)
    disposition = Disposition(line.placement.position, header.command_hash, (), receipt_hash)
    _check_placement(block, line.placement, disposition, leaf_before, what)
    _check_refused(line, what)
    attestation = line.attestation
    if _is_attested(ledger, attestation, what, unsigned_allowed) and not receipt_signed(
        attestation.key,
        receipt_hash,
        line.placement.timestamp,
        line.placement.height,
        attestation.signatures,
    ):
        raise _Wrong(f"{what}: the authority's signature does not verify")


def _check_refused(line: ReceiptLine, what: str) -> None:
    """What was refused stands beside the receipt in the one form that the receipt leaves open."""
    header = line.header
    match line.refused:
        case Command() as command:
            if command.session != header.session:
                raise _Wrong(f"{what}: it names another session than the command it refuses")
            if header.claimed:
                if line.author_signatures:
                    raise _Wrong(f"{what}: nothing binds the signatures of a claimed command")
            elif not author_signed_hash(header.command_hash, command.key, line.author_signatures):
                raise _Wrong(f"{what}: the author's signature of its command does not verify")
        case RefusedRecord():
            if header.session or header.reason is Reason.TOO_LARGE:
                raise _Wrong(f"{what}: it does not refuse a record that is no command")
        case None:
            if header.session or header.reason is not Reason.TOO_LARGE:
                raise _Wrong(f"{what}: what it refuses is withheld")


def _is_attested(
    ledger: _Ledger, attestation: Attestation, what: str, unsigned_allowed: bool
) -> bool:
    if attestation == UNSIGNED:
        if unsigned_allowed:
            return False
        raise _Wrong(f"{what}: the authority has not signed it")
    if attestation.key != ledger.authority:
        raise _Wrong(f"{what}: signed by another key than the authority's")
    return True


def _name_of(line: EventsLine | ReceiptLine) -> str:
    if isinstance(line, ReceiptLine):
        return f"receipt {format_hash(hash_receipt(encode_receipt_header(line.header)))}"
    count = len(line.command.events)
    if count == 1:
        return f"event {line.sequence}"
    return f"events {line.sequence} to {line.sequence + count - 1}"


# A whole export -----------------------------------------------------------------------------------


class _Export:
    """An export on its way: what was shown so far, and what may come next."""

    def __init__(self, trusted: LedgerId | None) -> None:
        self._trusted = trusted
        self._first: ExportLine | None = None
        self._ledger: _Ledger | None = None
        self._block: BlockLine | None = None
        self._leaf_index = -1
        self._empty_block: int | None = None
        self._sequence = 0
        self._head_hash: Hash | None = None
        self._events = merkle.Frontier.EMPTY
        self._receipts = merkle.Frontier.EMPTY
        # 32 bytes a receipt each: what stands in the export, and what its list says.
        self._seen = bytearray()
        self._listed = bytearray()
        self._list_is_over = False
        self._ended = False

    def take(self, data: bytes) -> None:
        """The next line."""
        if self._ended:
            raise _Wrong("something follows the state line")
        line = parse_line(data)
        if self._first is None or self._ledger is None:
            if not isinstance(line, ExportLine):
                raise _Wrong("the export does not begin with its export line")
            self._begin(line)
            return
        match line:
            case ExportLine():
                raise _Wrong("a second export line stands in the export")
            case ValidatorsLine():
                if self._block is not None:
                    raise _Wrong("a change of the validators stands after a block")
                if self._listed:
                    raise _Wrong("a change of the validators stands after the list of receipts")
                self._ledger = _with_change(self._ledger, line, self._first.height)
            case BlockLine():
                self._take_block(self._first, self._ledger, line)
            case EventsLine() | ReceiptLine():
                self._take_disposition(self._first, self._ledger, line)
            case ReceiptsLine():
                self._take_list(line)
            case StateLine():
                self._take_state(self._first, self._ledger, line)

    def end(self) -> None:
        """No line follows."""
        if self._first is None:
            raise _Wrong("the export is empty")
        if not self._ended:
            raise _Wrong("the export is cut off: its state line is missing")

    def verdict(self, fault: str | None) -> Verdict:
        """What was found."""
        first, ledger = self._first, self._ledger
        return Verdict(
            fault,
            None if ledger is None else ledger.ledger_id,
            ledger is not None and ledger.identity_checked,
            "" if first is None else first.session,
            0 if first is None else first.height,
            self._sequence,
            self._receipts.size,
            self._head_hash,
            fault is None,
        )

    def _begin(self, line: ExportLine) -> None:
        self._ledger = _ledger_of(line.genesis_bytes, self._trusted)
        self._first = line
        self._head_hash = session_key(line.ledger_id, line.session)

    def _take_block(self, first: ExportLine, ledger: _Ledger, line: BlockLine) -> None:
        height = line.header.height
        self._end_block(first.height)
        if self._listed:
            raise _Wrong(f"block {height} stands after the list of receipts")
        if height > first.height:
            raise _Wrong(f"block {height} is above the export's height {first.height}")
        if self._block is not None:
            before = self._block.header
            if height <= before.height:
                raise _Wrong(f"block {height} stands after block {before.height}")
            if line.header.time < before.time:
                raise _Wrong(f"block {height} is earlier than block {before.height}")
        _check_block(ledger, line)
        self._block = line
        self._leaf_index = -1

    def _end_block(self, export_height: int) -> None:
        """Only the block of the export's height may hold nothing of the session. Said at the end:
        what was taken out of a block has a name, which says more.
        """
        if self._block is None or self._leaf_index >= 0 or self._empty_block is not None:
            return
        height = self._block.header.height
        if height != export_height:
            self._empty_block = height

    def _take_disposition(
        self, first: ExportLine, ledger: _Ledger, line: EventsLine | ReceiptLine
    ) -> None:
        block = self._block
        if block is None or self._listed:
            raise _Wrong("a disposition stands under no block")
        _check_ledger(ledger, line)
        if isinstance(line, EventsLine):
            self._check_sequence(first.session, line)
        else:
            self._check_home(first.session, line.header)
        _check_disposition(ledger, block, line, self._leaf_index, unsigned_allowed=False)
        self._leaf_index = line.placement.leaf_index
        self._append(line)

    def _append(self, line: EventsLine | ReceiptLine) -> None:
        if isinstance(line, EventsLine):
            hashes = list(map(hash_event, line.headers()))
            self._sequence += len(hashes)
            self._head_hash = hashes[-1]
            self._events = self._events.extend(map(merkle.leaf_hash, hashes))
        else:
            receipt_hash = hash_receipt(encode_receipt_header(line.header))
            self._receipts = self._receipts.append(merkle.leaf_hash(receipt_hash))
            self._seen += receipt_hash

    def _check_sequence(self, session: SessionId, line: EventsLine) -> None:
        expected = self._sequence + 1
        what = _name_of(line)
        if line.command.session != session:
            raise _Wrong(f"{what}: it is of session {line.command.session}, not of {session}")
        if line.sequence > expected:
            raise _Wrong(f"event {expected} is withheld: event {line.sequence} stands in its place")
        if line.sequence < expected:
            raise _Wrong(f"event {line.sequence} stands where event {expected} should")
        if line.previous_hash != self._head_hash:
            raise _Wrong(f"{what}: it does not continue event {self._sequence}")

    @staticmethod
    def _check_home(session: SessionId, header: ReceiptHeader) -> None:
        """A receipt belongs to its session if that was open and the author authenticated."""
        home = LEDGER_SESSION if header.head is None else header.session
        if home != session:
            raise _Wrong(f"a receipt of session {home} stands among those of {session}")

    def _take_list(self, line: ReceiptsLine) -> None:
        expected = len(self._listed) // HASH_BYTES + 1
        if line.first != expected:
            raise _Wrong(f"list of receipts: expected receipt {expected} next, got {line.first}")
        if self._list_is_over:
            raise _Wrong(f"list of receipts: a line follows one of fewer than {RECEIPTS_PER_LINE}")
        if not line.hashes:
            raise _Wrong("list of receipts: a line names none")
        self._list_is_over = len(line.hashes) < RECEIPTS_PER_LINE
        self._listed += b"".join(line.hashes)

    def _take_state(self, first: ExportLine, ledger: _Ledger, line: StateLine) -> None:
        block = self._block
        if block is None or block.header.height != first.height:
            raise _Wrong(f"the block of the export's height {first.height} is missing")
        if (line.session, line.height) != (first.session, first.height):
            raise _Wrong(f"state: it is of {line.session} at height {line.height}")
        _check_state_proof(ledger, block, line)
        self._check_events(line)
        self._check_receipts(line)
        if self._empty_block is not None:
            raise _Wrong(f"block {self._empty_block}: nothing of the session stands under it")
        self._ended = True

    def _check_events(self, line: StateLine) -> None:
        certified = 0 if line.leaf is None else line.leaf.sequence
        if certified > self._sequence:
            raise _Wrong(
                f"event {self._sequence + 1} of {certified} is withheld: the export ends before it"
            )
        if certified < self._sequence:
            raise _Wrong(
                f"event {certified + 1} is not in the ledger at height {line.height}, "
                f"which has {certified} of the session"
            )
        if line.leaf is not None and (line.leaf.head_hash, line.leaf.events_root) != (
            self._head_hash,
            self._events.root(),
        ):
            raise _Wrong(f"the events are not those of the ledger at height {line.height}")

    def _check_receipts(self, line: StateLine) -> None:
        count = 0 if line.leaf is None else line.leaf.receipt_count
        root = merkle.EMPTY_ROOT if line.leaf is None else line.leaf.receipts_root
        named = merkle.Frontier.EMPTY.extend(map(merkle.leaf_hash, _hashes(self._listed)))
        if (named.size, named.root()) != (count, root):
            raise _Wrong(
                f"the list of receipts is not that of the ledger: it names {named.size}, "
                f"the session has {count} at height {line.height}"
            )
        if self._seen == self._listed:
            return
        seen = _hashes(self._seen)
        for number, one in enumerate(_hashes(self._listed), 1):
            if next(seen, None) != one:
                raise _Wrong(f"receipt {number} of {count} ({format_hash(one)}) is withheld")
        raise _Wrong(f"more than the session's {count} receipts stand in the export")


def _hashes(joined: bytearray) -> Iterator[bytes]:
    return (bytes(joined[at : at + HASH_BYTES]) for at in range(0, len(joined), HASH_BYTES))


def _check_state_proof(ledger: _Ledger, block: BlockLine, line: StateLine) -> None:
    key = session_key(ledger.ledger_id, line.session)
    if line.other is not None and line.other[0] == key:
        raise _Wrong("state: the leaf that is to show its absence is the session's own")
    leaf = line.other if line.leaf is None else (key, line.leaf.encode())
    try:
        root, _ = root_from_proof(key, Proof(line.siblings, leaf))
    except Malformed as malformed:
        raise _Wrong(f"state: {malformed}") from malformed
    if root != block.header.state_root:
        raise _Wrong(
            f"state: it is not what block {block.header.height} certifies of {line.session}"
        )
