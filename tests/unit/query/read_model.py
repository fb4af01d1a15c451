"""The read model in memory, made of a chain: a fake of `nocturne.query.store`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from tests.ledger_factory import record_value
from tests.unit.projection.chains import Chain
from tests.unit.projection.topics_in_memory import tree_after

from nocturne.core.block_intake import BlockIntake
from nocturne.core.blocks import positions_of
from nocturne.core.certificates import CommitProof, encode_commit_proof
from nocturne.core.events import decode_event_header, hash_event
from nocturne.core.identifiers import Hash, SessionId
from nocturne.core.keys import signatures_bytes
from nocturne.core.receipts import decode_receipt_header, hash_receipt
from nocturne.core.validator_sets import changes_validators
from nocturne.projection.fold import home_of
from nocturne.query.records import EventRow, ReceiptRow, RecordRow
from nocturne.query.store import Applied, BlockRow, SessionRow, Snapshot, Store

Answer = TypeVar("Answer")


@dataclass(slots=True)
class ReadModel:
    """Every row that the projection would write for the first `height` blocks of a chain."""

    made: Chain
    height: int
    events: dict[str, list[EventRow]] = field(default_factory=dict)
    homes: dict[str, list[ReceiptRow]] = field(default_factory=dict)
    records: dict[tuple[int, int], RecordRow] = field(default_factory=dict)
    blocks: dict[int, BlockRow] = field(default_factory=dict)
    changes: list[tuple[int, bytes]] = field(default_factory=list)
    validators: list[tuple[int, bytes]] = field(default_factory=list)
    states: dict[int, list[tuple[bytes, bytes]]] = field(default_factory=dict)
    reads: int = 0
    number: int = 1

    def __post_init__(self) -> None:
        ledger = self.made.ledger
        intake = BlockIntake(
            ledger.ledger_id, ledger.genesis.founding_sets, 1, Hash(ledger.ledger_id)
        )
        for block, published in self.made.published:
            (checked,) = intake.offer(record_value(block))
            header = block.header
            assert isinstance(block.proof, CommitProof)
            self.blocks[header.height] = BlockRow(
                header.height,
                header.time,
                block.header_bytes,
                encode_commit_proof(block.proof),
                b"".join(checked.leaves),
            )
            packed = b"".join(
                change.key + len(change.value).to_bytes(4, "big") + change.value
                for change in block.state_changes
                if change.value is not None
            )
            self.changes.append((header.height, packed))
            self.validators += [
                (header.height, one) for one in block.control if changes_validators(one)
            ]
            signed = iter(map(signatures_bytes, published.signatures))
            for leaf, (position, record) in enumerate(
                zip(positions_of(header), block.records, strict=True)
            ):
                signatures = []
                for index, data in enumerate(record.events):
                    assert record.value is not None
                    signatures.append(next(signed))
                    event = decode_event_header(data)
                    self.events.setdefault(event.session, []).append(
                        EventRow(
                            event.sequence,
                            hash_event(data),
                            header.height,
                            leaf,
                            index,
                            data,
                            signatures[-1],
                            header.time,
                            record.value,
                            record.command_length,
                        )
                    )
                if record.receipt is not None:
                    signatures.append(next(signed))
                    home = self.homes.setdefault(home_of(decode_receipt_header(record.receipt)), [])
                    home.append(
                        ReceiptRow(
                            position,
                            len(home),
                            header.height,
                            leaf,
                            hash_receipt(record.receipt),
                            record.receipt,
                            signatures[-1],
                            header.time,
                        )
                    )
                self.records[header.height, leaf] = RecordRow(
                    position,
                    header.height,
                    leaf,
                    record.command_length,
                    record.key,
                    record.value,
                    record.headers,
                    checked.dispositions[leaf].command_hash,
                    record.events,
                    record.receipt,
                    tuple(signatures),
                )

    def leaves_now(self) -> list[tuple[bytes, bytes]]:
        """The state tree's leaves; only of the last block, for that is the ledger's state."""
        assert self.height == len(self.made.published)
        tree = tree_after(self.made.ledger.state)
        return [(key, tree.value(key) or b"") for key, _ in tree.items()]

    @property
    def store(self) -> Store:
        """What query takes for its store."""
        return cast("Store", _Store(self))


@dataclass(frozen=True, slots=True)
class _Store:
    model: ReadModel

    async def ask(self, question: Callable[[Snapshot], Awaitable[Answer]]) -> Answer:
        return await question(cast("Snapshot", _Snapshot(self.model)))


class _Snapshot:
    def __init__(self, model: ReadModel) -> None:
        self._model = model
        block = model.blocks[model.height]
        ledger_id = model.made.ledger.ledger_id
        self.applied = Applied(model.height, b"", block.time, ledger_id)
        self.model = model.number

    async def session(self, session: SessionId) -> SessionRow | None:
        state = self._model.made.ledger.state.session(session)
        if state is None:
            return None
        leaf = state.leaf()
        return SessionRow(
            session,
            state.kind,
            state.kind_version,
            leaf.sequence,
            leaf.head_hash,
            leaf.receipt_count,
            state.closed,
            0,
            0,
            0,
        )

    async def events(
        self, session: SessionId, first: int, limit: int, through: int | None = None
    ) -> list[EventRow]:
        self._model.reads += 1
        rows = self._model.events.get(session, [])
        return [row for row in rows if row.sequence >= first and row.height <= (through or 10**9)][
            :limit
        ]

    async def home_receipts(
        self, home: SessionId, first: int, limit: int, through: int
    ) -> list[ReceiptRow]:
        rows = self._model.homes.get(home, [])
        return [row for row in rows if row.home_index >= first and row.height <= through][:limit]

    async def record(self, height: int, leaf_index: int) -> RecordRow | None:
        return self._model.records.get((height, leaf_index))

    async def block(self, height: int) -> BlockRow | None:
        return self._model.blocks.get(height)

    async def validator_changes(self) -> list[tuple[int, bytes]]:
        return [one for one in self._model.validators if one[0] <= self._model.height]

    async def leaves(self) -> list[tuple[bytes, bytes]]:
        return self._model.leaves_now()

    async def state_changes(self, above: int, limit: int) -> list[tuple[int, bytes]]:
        return [one for one in self._model.changes if above < one[0] <= self._model.height][:limit]

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"not asked in these tests: {name}")
