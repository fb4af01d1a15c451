"""Execute ranges of the log against a state: dispositions, roots and the next state. Pure.

Rules: docs/spec/ledger.md §5 and docs/spec/blocks.md. The result is a function of the state and the
records alone; for an unchanged `~ledger` it does not depend on where blocks begin and end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, assert_never

from nocturne.core import merkle
from nocturne.core.blocks import (
    Disposition,
    Range,
    RecordDisposition,
    StateChange,
    disposition_leaf,
    hash_control,
    log_next,
    log_start,
)
from nocturne.core.commands import SignedCommand
from nocturne.core.decide import Accepted, Rejected, decide
from nocturne.core.encoding import u8
from nocturne.core.errors import Halt
from nocturne.core.events import Position, encode_event_header, hash_event, header_of
from nocturne.core.governing import (
    CONTROL_OVERHEAD_BYTES,
    NO_CONTROL,
    ControlBatch,
    apply_control,
)
from nocturne.core.identifiers import LEDGER_SESSION, AuthorId, Hash, SessionId
from nocturne.core.intake import Prepared
from nocturne.core.log_epochs import NO_TOPIC, positions_after
from nocturne.core.receipts import Head, ReceiptHeader, encode_receipt_header, hash_receipt
from nocturne.core.state import (
    LEDGER_ID_WINDOW,
    LEDGER_KIND,
    IdWindow,
    LedgerState,
    SessionState,
    new_session,
)
from nocturne.core.state_leaf import LogPosition

RECORD_BYTES: Final = 64
"""Of a record's disposition beside its own bytes, its event headers and its receipt."""
GAP_BYTES: Final = 8
EVENT_BYTES: Final = 256
"""Of an event header beside session, key, event type, content type and kind."""
KEY_BYTES: Final = 8
"""Of each public key in an event header beside its bytes."""
RECEIPT_BYTES: Final = 424
"""The most a receipt header takes; the name of an invariant has at most 128 characters."""
SESSION_BYTES: Final = 192
"""Of a touched session: its state change."""
POSITION_BYTES: Final = 64
"""Of each partition in the state change of the log positions."""


@dataclass(frozen=True, slots=True)
class PartitionBatch:
    """Records of one partition in [next offset, end), offsets ascending; a missing one is a gap."""

    partition: int
    topic_uuid: bytes
    end: int
    records: Sequence[tuple[int, Prepared]]


@dataclass(frozen=True, slots=True)
class Execution:
    """What a block over these ranges holds, and the state after it."""

    state: LedgerState
    ranges: tuple[Range, ...]
    records: tuple[RecordDisposition, ...]
    record_count: int
    dispositions_root: Hash
    state_root: Hash
    control: tuple[bytes, ...]
    control_hash: Hash
    state_changes: tuple[StateChange, ...]


def execute(
    state: LedgerState,
    batches: Sequence[PartitionBatch],
    control: ControlBatch = NO_CONTROL,
    body_bytes_max: int | None = None,
) -> Execution:
    """Execute as much of `batches` as one block takes, partitions ascending; `ranges` says what was
    taken: at least one offset, if there is one and no `control`. Then all of `control` is applied.

    A range takes at most `range_records_max` offsets, and the serialised body stays within
    `block_bytes_max` of the genesis (or a lower `body_bytes_max`). Executing the taken ranges again
    takes them whole. `Halt` when a partition's topic is not the one its range began with;
    `Malformed` when a control record is not valid here.
    """
    limits = state.view.genesis.limits
    budget = min(body_bytes_max or limits.block_bytes_max, limits.block_bytes_max)
    budget -= sum([CONTROL_OVERHEAD_BYTES + len(record) for record in control.records])
    run = _Run(state)
    must_move = not control.records
    for batch, end in _shared_out(state, batches, limits.range_records_max, budget, must_move):
        run.take(batch, end)
    run.govern(control)
    return run.finish()


def _shared_out(
    state: LedgerState,
    batches: Sequence[PartitionBatch],
    offsets_max: int,
    budget: int,
    must_move: bool,
) -> list[tuple[PartitionBatch, int]]:
    """How far each batch goes into one block, partitions ascending.

    Each has a fair share of what is left, and for its first offset all of it. The state root draws
    who is asked first: a rule that moves in step with the log could pass over one for ever.
    """
    starts = {one.partition: one.next_offset for one in state.positions}
    first = int.from_bytes(state.root_hash[:8], "big")
    order = sorted(batches, key=lambda batch: (batch.partition - first) % len(starts))
    # The leaves of the log positions and of `~ledger`, and the counts of the lists.
    room = _Room(budget - len(starts) * POSITION_BYTES - 2 * SESSION_BYTES, must_move)
    ends: dict[int, int] = {}
    for index, batch in enumerate(order):
        start = starts[batch.partition]
        end = room.end_of(batch, start, start + offsets_max, len(order) - index)
        if end > start:
            ends[batch.partition] = end
    taken = [(batch, ends[batch.partition]) for batch in batches if batch.partition in ends]
    return sorted(taken, key=lambda one: one[0].partition)


class _Room:
    """What is left of a block's body, every record counted with the most it can become."""

    __slots__ = ("_is_empty", "_left", "_sessions")

    def __init__(self, bytes_max: int, must_move: bool) -> None:
        """With `must_move` the first offset fits always: a block without it would say nothing."""
        self._left = bytes_max
        self._sessions: set[SessionId] = set()
        self._is_empty = must_move

    def end_of(self, batch: PartitionBatch, start: int, end_max: int, sharers: int) -> int:
        """The offset at which the batch must stop."""
        end_max = min(batch.end, end_max)
        reserved = self._left - self._left // sharers
        at = start
        for offset, prepared in batch.records:
            if offset >= end_max:
                break
            at = self._skip(at, offset, reserved)
            if at < offset or not self._take(prepared, 0 if at == start else reserved):
                return at
            at = offset + 1
        return self._skip(at, end_max, reserved)

    def _skip(self, start: int, end: int, reserved: int) -> int:
        """Take gaps; where they end, at the latest."""
        fitting = max((self._left - reserved) // GAP_BYTES, 1 if self._is_empty else 0)
        end = min(end, start + fitting)
        self._left -= (end - start) * GAP_BYTES
        self._is_empty = self._is_empty and end == start
        return end

    def _take(self, prepared: Prepared, reserved: int) -> bool:
        cost = _body_bytes_max(prepared)
        session = None if prepared.signed is None else prepared.signed.command.session
        if session is not None and session not in self._sessions:
            cost += SESSION_BYTES
        if cost > self._left - reserved and not self._is_empty:
            return False
        if session is not None:
            self._sessions.add(session)
        self._left -= cost
        self._is_empty = False
        return True


class _OpenSession:
    """A session while a block is executed. Trees whose hashes nothing needs before the block's end
    are changed once, at its end.
    """

    __slots__ = (
        "_changed_items",
        "_changed_windows",
        "_state",
        "closed",
        "event_hashes",
        "head_hash",
        "kind",
        "kind_version",
        "members",
        "owners",
        "receipt_hashes",
        "sequence",
    )

    def __init__(self, state: SessionState) -> None:
        self._state = state
        self._changed_items: dict[bytes, bytes | None] = {}
        self._changed_windows: dict[AuthorId, IdWindow] = {}
        self.kind = state.kind
        self.kind_version = state.kind_version
        self.closed = state.closed
        self.sequence = state.sequence
        self.head_hash = state.head_hash
        self.members = state.members
        self.owners = state.owners
        self.event_hashes: list[Hash] = []
        self.receipt_hashes: list[Hash] = []

    @property
    def is_changed(self) -> bool:
        """Nothing changes without an event or a receipt of the session, or a control record."""
        return bool(self.event_hashes or self.receipt_hashes or self._changed_items)

    def id_window(self, author: AuthorId) -> IdWindow | None:
        return self._changed_windows.get(author) or self._state.ids.get(author)

    def item(self, key: bytes) -> bytes | None:
        if key in self._changed_items:
            return self._changed_items[key]
        return self._state.items.get(key)

    def keep_id(self, signed: SignedCommand, position: Position, window_size: int) -> None:
        author = signed.command.author
        window = self.id_window(author) or IdWindow()
        self._changed_windows[author] = window.keep(
            signed.command.command_id, signed.command_hash, position, window_size
        )

    def accept(self, accepted: Accepted, event_hashes: Sequence[Hash]) -> None:
        self.sequence += len(event_hashes)
        self.head_hash = event_hashes[-1]
        self.event_hashes += event_hashes
        self.closed = accepted.closed
        self.owners = accepted.owners
        self._changed_items.update(accepted.items)
        if accepted.members:
            self.members = self.members.update(
                {
                    author: None if role is None else (u8(role), role)
                    for author, role in accepted.members.items()
                }
            )

    def govern(self, items: Mapping[bytes, bytes | None]) -> None:
        self._changed_items.update(items)

    def finish(self) -> SessionState:
        state = self._state
        return SessionState(
            state.session,
            self.kind,
            self.kind_version,
            self.closed,
            self.sequence,
            self.head_hash,
            _extended(state.events, self.event_hashes),
            _extended(state.receipts, self.receipt_hashes),
            self.members,
            state.ids.update(
                {author: (one.digest(), one) for author, one in self._changed_windows.items()}
            ),
            state.items.update(
                {
                    key: None if value is None else (value, value)
                    for key, value in self._changed_items.items()
                }
            ),
            self.owners,
        )


class _Run:
    """The execution of one block."""

    def __init__(self, state: LedgerState) -> None:
        self._before = state
        self._view = state.view
        self._positions = {one.partition: one for one in state.positions}
        self._sessions: dict[SessionId, _OpenSession] = {}
        self._ranges: list[Range] = []
        self._records: list[RecordDisposition] = []
        self._leaves: list[bytes] = []
        self._control: tuple[bytes, ...] = ()

    def take(self, batch: PartitionBatch, end: int) -> None:
        """Execute the batch up to `end`, which lies above the partition's next offset."""
        position = _fixed(self._positions[batch.partition], self._before, batch.topic_uuid)
        log_hash = position.log_hash
        offset = position.next_offset
        for at, prepared in batch.records:
            if at >= end:
                break
            assert at >= offset, f"partition {batch.partition}: offset {at} after {offset - 1}"
            self._gaps(position, offset, at)
            log_hash = log_next(log_hash, at, prepared.record_hash)
            self._dispose(Position(position.log_epoch, batch.partition, at), prepared)
            offset = at + 1
        self._gaps(position, offset, end)
        self._ranges.append(
            Range(
                position.log_epoch,
                position.topic_uuid,
                batch.partition,
                position.next_offset,
                end,
                log_hash,
            )
        )
        self._positions[batch.partition] = LogPosition(
            batch.partition, position.log_epoch, position.topic_uuid, end, log_hash
        )

    def govern(self, control: ControlBatch) -> None:
        """Apply the operators' records to `~ledger` and the log positions, after the records of the
        log.
        """
        if not control.records:
            return
        ledger = self._find(LEDGER_SESSION)
        assert ledger is not None
        view = self._view
        # The log's own records change other items: what they changed in this block is not read.
        ledger.govern(apply_control(view.items, view.ledger_id, view.genesis, control))
        self._positions = positions_after(self._positions, control.records)
        self._control = control.records

    def finish(self) -> Execution:
        """Roots and the next state."""
        positions = tuple(self._positions[key] for key in sorted(self._positions))
        sessions = {
            name: session.finish() for name, session in self._sessions.items() if session.is_changed
        }
        state, leaves = self._before.after(sessions, positions)
        return Execution(
            state,
            tuple(self._ranges),
            tuple(self._records),
            len(self._records),
            Hash(merkle.root(self._leaves)),
            state.root_hash,
            self._control,
            hash_control(self._control),
            tuple(StateChange(Hash(key), value) for key, value in leaves.items()),
        )

    def _id_window(self, session: _OpenSession) -> int:
        size = self._view.genesis.limits.id_window
        # Whoever has a key may act there: what one can leave behind stays small.
        return min(size, LEDGER_ID_WINDOW) if session.kind == LEDGER_KIND else size

    def _gaps(self, position: LogPosition, start: int, end: int) -> None:
        for offset in range(start, end):
            self._records.append(_GAP)
            at = Position(position.log_epoch, position.partition, offset)
            self._leaves.append(disposition_leaf(Disposition(at, None, (), None)))

    def _dispose(self, position: Position, prepared: Prepared) -> None:
        signed = prepared.signed
        session = None if signed is None else self._find(signed.command.session)
        decision = decide(self._view, session, prepared)
        match decision:
            case Accepted():
                assert signed is not None
                self._accept(position, prepared, signed, decision, session)
            case Rejected():
                self._reject(position, prepared, decision, session)
            case unreachable:
                assert_never(unreachable)

    def _accept(
        self,
        position: Position,
        prepared: Prepared,
        signed: SignedCommand,
        accepted: Accepted,
        session: _OpenSession | None,
    ) -> None:
        command = signed.command
        if session is None:
            assert command.opening is not None
            session = self._open(command.session, command.opening.kind, command.opening.version)
        headers: list[bytes] = []
        hashes: list[Hash] = []
        previous = session.head_hash
        for index in range(len(command.events)):
            sequence = session.sequence + index + 1
            header = header_of(command, signed.command_hash, position, index, sequence, previous)
            headers.append(encode_event_header(header))
            previous = hash_event(headers[-1])
            hashes.append(previous)
        session.accept(accepted, hashes)
        session.keep_id(signed, position, self._id_window(session))
        self._record(position, prepared, tuple(hashes), tuple(headers), None)

    def _reject(
        self,
        position: Position,
        prepared: Prepared,
        rejected: Rejected,
        session: _OpenSession | None,
    ) -> None:
        header = self._receipt_of(position, prepared, rejected, session)
        data = encode_receipt_header(header)
        home = session if rejected.authenticated else None
        if home is None:
            home = self._find(LEDGER_SESSION)
            assert home is not None
        home.receipt_hashes.append(hash_receipt(data))
        if rejected.keeps_id and session is not None:
            assert prepared.signed is not None
            session.keep_id(prepared.signed, position, self._id_window(session))
        self._record(position, prepared, (), (), data)

    def _receipt_of(
        self,
        position: Position,
        prepared: Prepared,
        rejected: Rejected,
        session: _OpenSession | None,
    ) -> ReceiptHeader:
        command = None if prepared.signed is None else prepared.signed.command
        expected = None if command is None else command.expected_sequence
        head: Head | None = None
        if rejected.authenticated and session is not None:
            head = Head(session.sequence, session.head_hash)
        return ReceiptHeader(
            self._view.ledger_id,
            prepared.command_hash,
            rejected.reason,
            rejected.violated_invariant,
            "" if command is None else command.session,
            None if expected is None else expected + 1,
            not rejected.authenticated,
            head,
            position,
            rejected.first_position,
        )

    def _record(
        self,
        position: Position,
        prepared: Prepared,
        events: tuple[Hash, ...],
        headers: tuple[bytes, ...],
        receipt: bytes | None,
    ) -> None:
        signed = prepared.signed
        self._records.append(
            RecordDisposition(
                prepared.key,
                prepared.value,
                prepared.headers,
                prepared.record_hash,
                headers,
                receipt,
                0 if signed is None else len(signed.command_bytes),
            )
        )
        receipt_hash = None if receipt is None else hash_receipt(receipt)
        self._leaves.append(
            disposition_leaf(Disposition(position, prepared.command_hash, events, receipt_hash))
        )

    def _find(self, session: SessionId) -> _OpenSession | None:
        found = self._sessions.get(session)
        if found is None:
            state = self._before.session(session)
            if state is None:
                return None
            found = self._touch(session, state)
        return found

    def _open(self, session: SessionId, kind: str, version: int) -> _OpenSession:
        return self._touch(session, new_session(self._view.ledger_id, session, kind, version))

    def _touch(self, session: SessionId, state: SessionState) -> _OpenSession:
        self._sessions[session] = _OpenSession(state)
        return self._sessions[session]


def _extended(frontier: merkle.Frontier, hashes: Sequence[Hash]) -> merkle.Frontier:
    return frontier.extend(map(merkle.leaf_hash, hashes)) if hashes else frontier


_GAP: Final = RecordDisposition(None, None, b"", None, (), None, 0)


def _body_bytes_max(prepared: Prepared) -> int:
    """The most that a record takes of a block's body, but for its session's state change."""
    own = (
        RECORD_BYTES + len(prepared.key or b"") + len(prepared.value or b"") + len(prepared.headers)
    )
    if prepared.signed is None or prepared.fault is not None:
        return own + RECEIPT_BYTES
    command = prepared.signed.command
    keys = sum([KEY_BYTES + len(part.data) for part in command.key])
    each = EVENT_BYTES + len(command.session) + keys
    # The names of types and kind stand in the command too.
    events = len(command.events) * each + len(prepared.signed.command_bytes)
    return own + max(events, RECEIPT_BYTES)


def _fixed(position: LogPosition, state: LedgerState, topic_uuid: bytes) -> LogPosition:
    """The position with its topic known: the first range of a partition fixes the topic's uuid."""
    if position.topic_uuid == topic_uuid:
        return position
    if position.topic_uuid != NO_TOPIC:
        raise Halt(
            f"partition {position.partition}: expected the topic {position.topic_uuid.hex()}, "
            f"got {topic_uuid.hex()}: it was made anew"
        )
    start = log_start(state.ledger_id, topic_uuid, position.log_epoch)
    return LogPosition(position.partition, position.log_epoch, topic_uuid, 0, start)
