"""Questions that take more than one look at the read model: pages of events, folds, exports.

Each page is a snapshot of its own, and none is held while a reader takes what it got. What was read
once stays right: the ledger only grows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar
from weakref import WeakValueDictionary

import grpc

from nocturne.core.certificates import decode_commit_proof
from nocturne.core.errors import Malformed, Unavailable
from nocturne.core.exports import (
    RECEIPTS_PER_LINE,
    VALIDATORS_LINES_MAX,
    block_line,
    export_line,
    receipts_line,
    state_line,
    validators_line,
)
from nocturne.core.identifiers import Hash, SessionId, session_key
from nocturne.core.kinds import Kind, KindFault, KindRegistry
from nocturne.core.strict_json import JsonValue, canonical_json
from nocturne.query.folds import FoldCache, Folded, next_checkpoint
from nocturne.query.records import (
    EventRecords,
    EventRow,
    LeafTree,
    ReceiptRow,
    RecordRow,
    line_of,
)
from nocturne.query.refusals import Refused, failed, not_found, out_of_range
from nocturne.query.state_tree import StateTrees
from nocturne.query.store import Applied, BlockRow, SessionRow, Snapshot, Store
from nocturne.runtime.settings import Founding

PAGE_EVENTS_MAX: Final = 500
PAGE_EVENTS_FIRST: Final = 50
"""The size of events is not known before the first page."""
PAGE_BYTES: Final = 1024 * 1024
"""Aimed at; one event may be larger."""
EXPORT_RECEIPTS_PER_PAGE: Final = 500
EXPORT_CHUNK_BYTES: Final = 256 * 1024
EXCHANGES_MAX: Final = 2
"""How often a fold begins again because the read model was exchanged; once is rare."""

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class EventPage:
    """Event rows in a row, what they were read at, and of which read model."""

    rows: Sequence[EventRow]
    applied: Applied
    model: int


class EventPages:
    """Reads a session's events page by page, each of about `PAGE_BYTES`."""

    def __init__(self, store: Store, session: SessionId, first: int, through: int | None) -> None:
        self._store = store
        self.session = session
        self._through = through
        self._size = PAGE_EVENTS_FIRST
        self.next_sequence = max(first, 1)

    async def read(self, limit: int = PAGE_EVENTS_MAX) -> EventPage:
        """The next page, empty when there is no further event yet. DATA_LOSS when one is missing:
        sequences are dense, so somebody took it away.
        """
        size = min(self._size, limit)

        async def question(snapshot: Snapshot) -> EventPage:
            rows = await snapshot.events(self.session, self.next_sequence, size, self._through)
            return EventPage(rows, snapshot.applied, snapshot.model)

        page = await self._store.ask(question)
        for sequence, row in enumerate(page.rows, self.next_sequence):
            if row.sequence != sequence:
                raise _event_missing(self.session, sequence)
        if page.rows:
            self.next_sequence = page.rows[-1].sequence + 1
            mean = sum(len(row.value) + len(row.header) for row in page.rows) // len(page.rows)
            self._size = max(1, min(PAGE_EVENTS_MAX, PAGE_BYTES // max(mean, 1)))
        return page


def _event_missing(session: SessionId, sequence: int) -> Refused:
    return failed(
        grpc.StatusCode.DATA_LOSS,
        "ROWS_ALTERED",
        f"event {sequence} of session {session} is not in the read model",
    )


async def session_row(store: Store, session: SessionId) -> tuple[SessionRow, Applied]:
    """The session; `Refused` NOT_FOUND when it was never opened."""
    row, applied, _ = await _session_of_model(store, session)
    return row, applied


async def _session_of_model(store: Store, session: SessionId) -> tuple[SessionRow, Applied, int]:
    async def question(snapshot: Snapshot) -> tuple[SessionRow | None, Applied, int]:
        return await snapshot.session(session), snapshot.applied, snapshot.model

    row, applied, model = await store.ask(question)
    if row is None:
        raise not_found("session", session)
    return row, applied, model


# States ----------------------------------------------------------------------------------------


class _Exchanged(Unavailable):
    """Another read model took the place of the one that a fold began on."""


class States:
    """Folds sessions with the reader's half of their kinds. What is remembered is of one read
    model: a rebuilt one may have taken the place of one whose rows were altered.
    """

    def __init__(self, store: Store, registry: KindRegistry, cache: FoldCache) -> None:
        self._store = store
        self._registry = registry
        self._cache = cache
        # One fold of a session at a time: who waits finds the states that the one before left. A
        # lock that nobody holds or waits for is gone.
        self._turns: WeakValueDictionary[SessionId, asyncio.Lock] = WeakValueDictionary()
        self._model: int | None = None

    async def at(self, session: SessionId, sequence: int) -> tuple[Folded, Applied]:
        """The state after event `sequence` (0: the head)."""
        for _ in range(EXCHANGES_MAX):
            try:
                return await self._at(session, sequence)
            except _Exchanged:
                continue
        return await self._at(session, sequence)

    async def _at(self, session: SessionId, sequence: int) -> tuple[Folded, Applied]:
        row, applied, model = await _session_of_model(self._store, session)
        if sequence > row.sequence:
            raise out_of_range("at_sequence", f"the session ends at {row.sequence}")
        kind = self._registry.get(row.kind, row.kind_version)
        if kind is None:
            raise failed(
                grpc.StatusCode.FAILED_PRECONDITION,
                "KIND_WITHOUT_STATE",
                f"sessions of kind {row.kind} version {row.kind_version} have no folded state here",
            )
        if model != self._model:
            self._cache.clear()
            self._model = model
        sequence = sequence or row.sequence
        known = self._cache.nearest(session, sequence)
        if known is not None and known.sequence == sequence:
            return known, applied
        async with self._turns.setdefault(session, asyncio.Lock()):
            return await self._fold(row, kind, sequence, model), applied

    async def _fold(self, row: SessionRow, kind: Kind, sequence: int, model: int) -> Folded:
        if model != self._model:
            raise _exchanged()
        known = self._cache.nearest(row.session, sequence)
        if known is None:
            # A session's head before its first event is its key, which is what the row still says.
            known = await _answered(lambda: _printed(0, row.head_hash, kind.initial()))
        pages = EventPages(self._store, row.session, known.sequence + 1, None)
        records = EventRecords()
        while known.sequence < sequence:
            # As far as the next state that is left behind, or as is asked.
            end = min(sequence, next_checkpoint(known.sequence))
            known = await self._fold_to(end, known, kind, pages, records, model)
            if model == self._model:
                self._cache.keep(row.session, known)
        return known

    async def _fold_to(
        self,
        end: int,
        known: Folded,
        kind: Kind,
        pages: EventPages,
        records: EventRecords,
        model: int,
    ) -> Folded:
        state, head, at = known.state, known.head_hash, known.sequence
        while at < end:
            page = await pages.read(min(PAGE_EVENTS_MAX, end - at))
            if page.model != model:
                raise _exchanged()
            if not page.rows:
                raise _event_missing(pages.session, at + 1)
            state = await _answered(partial(_folded, kind, state, page.rows, records))
            at, head = page.rows[-1].sequence, page.rows[-1].event_hash
        return await _answered(lambda: _printed(end, head, state))


def _folded(
    kind: Kind, state: JsonValue, rows: Sequence[EventRow], records: EventRecords
) -> JsonValue:
    for row in rows:
        state = kind.fold(state, *records.fold_input(row), row.sequence)
    return state


def _printed(sequence: int, head_hash: bytes, state: JsonValue) -> Folded:
    try:
        return Folded(sequence, head_hash, state, canonical_json(state))
    except Malformed as fault:
        raise KindFault(f"the state after event {sequence} is no JSON: {fault}") from fault


async def _answered(work: Callable[[], Answer]) -> Answer:
    """Done beside the event loop: other questions do not wait for a long fold. A kind that breaks
    its contract has no answer here; it stops validators, not those who read other sessions.
    """
    try:
        return await asyncio.to_thread(work)
    except KindFault as fault:
        raise failed(grpc.StatusCode.INTERNAL, "KIND_FAULT", str(fault)) from fault


def _exchanged() -> _Exchanged:
    return _Exchanged("the read model was exchanged too often to fold a session")


# Dispositions and exports ----------------------------------------------------------------------


def block_line_of(block: BlockRow) -> bytes:
    """The block's line of an export."""
    return block_line(block.header, decode_commit_proof(block.proof))


async def validators_lines(snapshot: Snapshot, founding: Founding, height: int) -> list[bytes]:
    """The lines of the changes of the validators before a block. DATA_LOSS when a block that shows
    one is missing.
    """
    sets = founding.genesis.founding_sets
    for changed_at, record in await snapshot.validator_changes():
        sets = sets.after(changed_at, (record,), VALIDATORS_LINES_MAX)
    lines = []
    for last, keys in sets.changes_before(height):
        block = await snapshot.block(last)
        if block is None:
            raise failed(
                grpc.StatusCode.DATA_LOSS, "ROWS_ALTERED", f"block {last} is not in the read model"
            )
        lines.append(validators_line(block.header, decode_commit_proof(block.proof), keys))
    return lines


class Exporter:
    """Prints a session's export, as of one height."""

    def __init__(self, store: Store, trees: StateTrees, founding: Founding) -> None:
        self._store = store
        self._trees = trees
        self._founding = founding

    async def lines(self, session: SessionId) -> AsyncIterator[bytes]:
        """The export's lines, in their order (core/exports.py)."""
        row, _ = await session_row(self._store, session)
        height, tree = await self._trees.newest()
        if height == 0:
            raise not_found("session", row.session, "no block is applied yet")
        key = session_key(self._founding.ledger_id, session)
        yield export_line(self._founding.data, session, height)
        for line in await self._store.ask(
            lambda snapshot: validators_lines(snapshot, self._founding, height)
        ):
            yield line
        hashes: list[Hash] = []
        last = 0
        async for block, lines, receipts in self._blocks(session, height):
            last = block.height
            hashes += receipts
            yield block_line_of(block)
            for line in lines:
                yield line
        if last != height:
            yield block_line_of(await self._block(height))
        for first in range(0, len(hashes), RECEIPTS_PER_LINE):
            yield receipts_line(first + 1, hashes[first : first + RECEIPTS_PER_LINE])
        yield state_line(session, height, key, tree.prove(key))

    async def _blocks(
        self, session: SessionId, through: int
    ) -> AsyncIterator[tuple[BlockRow, list[bytes], list[Hash]]]:
        """Each block with dispositions of the session: its lines, and its receipts' hashes."""
        at: tuple[BlockRow, LeafTree] | None = None
        lines: list[bytes] = []
        receipts: list[Hash] = []
        async for place, receipt_hash in self._places(session, through):
            height, leaf_index = place
            if at is None or at[0].height != height:
                if at is not None:
                    yield at[0], lines, receipts
                block = await self._block(height)
                at, lines, receipts = (block, LeafTree(block.leaves)), [], []
            record = await self._record(height, leaf_index)
            lines.append(line_of(record, at[0].time, at[1], self._founding.genesis.authority))
            if receipt_hash is not None:
                receipts.append(receipt_hash)
        if at is not None:
            yield at[0], lines, receipts

    async def _places(
        self, session: SessionId, through: int
    ) -> AsyncIterator[tuple[tuple[int, int], Hash | None]]:
        """(height, leaf) of the session's dispositions, ascending; a receipt's with its hash."""
        receipts = self._receipts(session, through)
        receipt = await anext(receipts, None)
        async for place in self._events(session, through):
            while receipt is not None and (receipt.height, receipt.leaf_index) < place:
                yield (receipt.height, receipt.leaf_index), Hash(receipt.receipt_hash)
                receipt = await anext(receipts, None)
            yield place, None
        while receipt is not None:
            yield (receipt.height, receipt.leaf_index), Hash(receipt.receipt_hash)
            receipt = await anext(receipts, None)

    async def _events(self, session: SessionId, through: int) -> AsyncIterator[tuple[int, int]]:
        """The places of the session's accepted commands, each once."""
        pages = EventPages(self._store, session, 1, through)
        last: tuple[int, int] | None = None
        while (page := await pages.read()).rows:
            for row in page.rows:
                place = (row.height, row.leaf_index)
                if place != last:
                    last = place
                    yield place

    async def _receipts(self, session: SessionId, through: int) -> AsyncIterator[ReceiptRow]:
        first = 0
        while True:
            after = first

            async def question(snapshot: Snapshot, after: int = after) -> list[ReceiptRow]:
                return await snapshot.home_receipts(
                    session, after, EXPORT_RECEIPTS_PER_PAGE, through
                )

            rows = await self._store.ask(question)
            for row in rows:
                yield row
            if not rows:
                return
            first = rows[-1].home_index + 1

    async def _block(self, height: int) -> BlockRow:
        block = await self._store.ask(lambda snapshot: snapshot.block(height))
        if block is None:
            raise failed(
                grpc.StatusCode.DATA_LOSS, "ROWS_ALTERED", f"block {height} is not in the rows"
            )
        return block

    async def _record(self, height: int, leaf_index: int) -> RecordRow:
        record = await self._store.ask(lambda snapshot: snapshot.record(height, leaf_index))
        if record is None:
            raise failed(
                grpc.StatusCode.DATA_LOSS,
                "ROWS_ALTERED",
                f"record {leaf_index} of block {height} is not in the read model",
            )
        return record
