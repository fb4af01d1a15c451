"""The four topics in memory, in any interleaving, and what reads them: chain and collector."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.unit.projection.chains import Chain

from nocturne.core import topics
from nocturne.core.identifiers import LEDGER_SESSION, Hash, SessionId
from nocturne.core.sparse_tree import SparseTree
from nocturne.core.state import LedgerState
from nocturne.projection.chain import Chain as ProjectionChain
from nocturne.projection.collector import (
    Collector,
    Refusal,
    SignatureRecord,
    SignedBlock,
    low_waters,
)
from nocturne.projection.fold import FirstState, StateTree


@dataclass(frozen=True, slots=True)
class Message:
    """A record as a consumer gets it; `record_id` and `height` of the signature topics."""

    topic: str
    partition: int
    value: bytes
    offset: int = 0
    record_id: bytes = b""
    height: int = 0

    @staticmethod
    def of(record: SignatureRecord) -> Message:
        return Message(
            record.topic,
            record.partition,
            record.value,
            0,
            record.record_id,
            record.height,
        )

    @property
    def place(self) -> tuple[str, int, int]:
        return self.topic, self.partition, self.offset


def with_offsets(messages: Iterable[Message]) -> list[Message]:
    """Each partition's records get the offsets 0, 1, 2, … in their order."""
    following: dict[tuple[str, int], int] = {}
    placed = []
    for one in messages:
        offset = following.get((one.topic, one.partition), 0)
        following[one.topic, one.partition] = offset + 1
        placed.append(
            Message(one.topic, one.partition, one.value, offset, one.record_id, one.height)
        )
    return placed


def first_tree(first_state: FirstState) -> StateTree:
    """The state tree before block 1."""
    changes: dict[bytes, tuple[bytes, SessionId | None] | None] = {
        key: (value, None) for key, value in first_state.leaves
    }
    changes[first_state.ledger_key] = (first_state.ledger_leaf, LEDGER_SESSION)
    empty: StateTree = SparseTree()
    return empty.update(changes)


def tree_after(state: LedgerState) -> StateTree:
    """The projection's tree of a state: leaves, with the sessions' names."""
    changes: dict[bytes, tuple[bytes, SessionId | None] | None] = {}
    for key, session in state.tree.items():
        value = state.tree.value(key)
        assert value is not None
        changes[key] = (value, None if session is None else session.session)
    empty: StateTree = SparseTree()
    return empty.update(changes)


@dataclass(slots=True)
class Reader:
    """The projection without its shell."""

    made: Chain
    height: int = 0
    digest: bytes = b""
    tree: StateTree | None = None
    chain: ProjectionChain = field(init=False)
    collector: Collector = field(init=False)
    signed: list[SignedBlock] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    following: dict[tuple[str, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        first_state = FirstState.of(self.made.ledger.genesis_bytes)
        tree = first_tree(first_state) if self.tree is None else self.tree
        self.chain = ProjectionChain(
            first_state.ledger_id,
            first_state.genesis.founding_sets,
            self.height,
            Hash(self.digest or first_state.ledger_id),
            tree,
        )
        authority = first_state.genesis.authority
        self.collector = Collector(first_state.ledger_id, authority, self.height)

    def read(self, message: Message) -> None:
        """One record; blocks that became whole are taken at once."""
        self.following[message.topic, message.partition] = message.offset + 1
        if message.topic == topics.BLOCKS:
            given, refused = self.chain.offer(message.offset, message.value)
            if refused is not None:
                self.collector.refuse(topics.BLOCKS, 0, message.offset)
            for folded in given:
                self.collector.offer_block(folded)
        elif message.topic == topics.SEALS:
            self.collector.offer_seal(0, message.offset, message.value)
        else:
            self.collector.offer(
                SignatureRecord(
                    message.topic,
                    message.partition,
                    message.offset,
                    message.record_id,
                    message.height,
                    message.value,
                )
            )

    def take(self) -> None:
        """What is whole by now."""
        self.signed += self.collector.take(10**9)
        self.refusals += self.collector.take_refusals()

    def read_all(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self.read(message)
            self.take()

    def tick(self) -> None:
        """Long enough for whatever is held to be judged."""
        for _ in range(3):
            self.collector.judge(10**9)
        self.take()

    def low_waters(self) -> dict[tuple[str, int], int]:
        """Where a restart begins to read."""
        following = [
            (topic, partition, offset)
            for (topic, partition), offset in self.following.items()
            if topic != topics.BLOCKS
        ]
        low = {
            (topic, partition): offset
            for topic, partition, offset in low_waters(self.collector, following)
        }
        low[topics.BLOCKS, 0] = self.chain.low_water(
            self.collector.taken, self.following.get((topics.BLOCKS, 0), 0)
        )
        return low
