"""A validator that begins with a snapshot of others: the transfer is simulated, what is chosen,
fetched, proved and loaded is so by production's code.

A world in which somebody joins has true states: those of a ledger whose positions follow the log.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from tests.simulation.log import LEDGER, position_at
from tests.simulation.network import DELAY_MS
from tests.simulation.signing import digest_of

from nocturne.consensus.fetching import Download, candidate, chosen, sources
from nocturne.consensus.offers import (
    PART_BYTES,
    AskPart,
    Cutter,
    Manifest,
    Part,
    Snapshot,
    SnapshotOffer,
    content_of,
)
from nocturne.consensus.quorum.messages import Committed, Proposal
from nocturne.consensus.snapshot_files import PartsFile, chunks_of
from nocturne.core import snapshot
from nocturne.core.certified_snapshot import Proved, change_line
from nocturne.core.control import Control, sign_control
from nocturne.core.errors import Malformed, PeerFault
from nocturne.core.genesis import (
    FinalityPolicy,
    Genesis,
    Limits,
    OpenRule,
    encode_genesis,
    ledger_id_of,
)
from nocturne.core.governing import ControlBatch, apply_control
from nocturne.core.identifiers import Hash, SessionId
from nocturne.core.keys import Ed25519Signer, Key, prove_possession
from nocturne.core.sparse_tree import SparseTree
from nocturne.core.state import LEDGER_KIND, LEDGER_SESSION, LedgerState, new_session
from nocturne.core.validator_sets import ACTION, EPOCHS_UNTIL, Member, set_fields

if TYPE_CHECKING:
    from tests.simulation.node import Node

T = TypeVar("T")

ANSWERS_MS: Final = 500
AGAIN_MS: Final = 1_000
LOOK_MS: Final = 50
SNAPSHOT_HEIGHTS: Final = 5
"""Who tells the truth has a snapshot of each so many heights, and gives the newest
below its newest block."""
PADDING_BYTES: Final = 5 * PART_BYTES
"""Of each state: so that its content has several parts, and several give some."""
KEPT_STATES_MAX: Final = 64
AUTHORITY: Final = Ed25519Signer(digest_of(b"authority"))
"""And the one operator."""


class Gift(Enum):
    """What one of the f gives who asks for a snapshot."""

    UNCERTIFIED = "a block that nobody certified, with another block's proof"
    OTHER_STATE = "a certified block, and another state than the one after it"
    OTHER_BYTES = "parts with other bytes than it offered"
    NO_PARTS = "an offer, and no part of it"
    NO_PARTS_OF_THE_NEWEST = "the newest block, as nobody else does, and no part of it"
    MUCH = "a certified block, and three times the bytes of a state"


OF_THE_NEWEST: Final = frozenset(Gift) - {Gift.OTHER_BYTES, Gift.NO_PARTS}
"""What is given as of the newest block: it goes before what others offer."""


class LedgerStates:
    """The states of a ledger of these validators: `~ledger`, a large session, and how far the log
    is executed.
    """

    def __init__(
        self,
        validators: Sequence[Ed25519Signer],
        epoch_length: int,
        later: Mapping[int, Sequence[Ed25519Signer]],
    ) -> None:
        """`later`: the validators from an epoch on, where others follow. All states know all of
        them: who changes when is decided before the world begins.
        """
        members = tuple((one.key, prove_possession(one)) for one in validators)
        self.genesis = Genesis(
            1,
            1,
            bytes(32),
            1,
            epoch_length,
            Limits(),
            members,
            AUTHORITY.key,
            prove_possession(AUTHORITY),
            (),
            (AUTHORITY.key,),
            1,
            (),
            (OpenRule(None, "", ""),),
            FinalityPolicy(),
        )
        self.genesis_bytes = encode_genesis(self.genesis)
        founding = LedgerState.founding(self.genesis_bytes)
        session = SessionId("large")
        value = digest_of(b"padding") * (PADDING_BYTES // 32)
        items: SparseTree[bytes] = SparseTree()
        large = replace(
            new_session(founding.ledger_id, session, "facts", 1),
            items=items.update({digest_of(b"item"): (value, value)}),
        )
        ledger = new_session(founding.ledger_id, LEDGER_SESSION, LEDGER_KIND, 1)
        for number, (epoch, signers) in enumerate(sorted(later.items()), start=1):
            members = tuple((one.key, prove_possession(one)) for one in signers)
            ledger = replace(ledger, items=self._decided(ledger.items, number, epoch, members))
        sessions = {session: large, LEDGER_SESSION: ledger}
        self._base = founding.after(sessions, founding.positions)[0]
        self.sets = self._base.view.validator_sets
        self.after = lru_cache(KEPT_STATES_MAX)(self._after)

    def _decided(
        self, items: SparseTree[bytes], number: int, epoch: int, members: Sequence[Member]
    ) -> SparseTree[bytes]:
        """The items of `~ledger` once the operators decided these validators from `epoch` on."""
        height = (epoch - EPOCHS_UNTIL) * self.genesis.epoch_length + 1
        ledger_id = ledger_id_of(self.genesis_bytes)
        control = Control(ledger_id, number, height, ACTION, set_fields(members))
        batch = ControlBatch(height, (sign_control(control, (AUTHORITY,)),))
        changes = apply_control(items, ledger_id, self.genesis, batch)
        return items.update(
            {key: None if one is None else (one, one) for key, one in changes.items()}
        )

    def _after(self, end: int, log_hash: Hash) -> LedgerState:
        return self._base.after({}, (position_at(1, end, log_hash),))[0]

    def root_after(self, end: int, log_hash: Hash) -> Hash:
        """As `States` says."""
        return self.after(end, log_hash).root_hash


class Giving:
    """What a node gives to who asks."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.gift: Gift | None = None
        """How it lies."""
        self._contents: dict[Hash, bytes] = {}

    def offer(self, height: int) -> SnapshotOffer:
        """The answer to who has executed up to `height`."""
        node = self._node
        newest = len(node.committed)
        if self.gift in OF_THE_NEWEST:
            at = newest
        else:
            at = newest - 1 - (newest - 1) % SNAPSHOT_HEIGHTS
            if at <= height:
                # Who has more and no snapshot of it writes one.
                at = newest
        if at <= height or at < 1:
            return SnapshotOffer(newest, None)
        return SnapshotOffer(newest, self._snapshot(at))

    def _snapshot(self, at: int) -> Snapshot:
        block = self._node.committed[at - 1]
        chains, states = self._node.world.chains, self._node.world.ledger
        digest = block.proposal.digest
        end = chains.end_of(digest)
        assert end is not None
        assert states is not None
        log_hash = chains.log_of(digest)
        if self.gift in (Gift.UNCERTIFIED, Gift.OTHER_STATE):
            end, log_hash = end + 1, Hash(digest_of(b"made up", log_hash))
        state = states.after(end, log_hash)
        if self.gift is Gift.UNCERTIFIED:
            header = block.proposal.header
            header = replace(header, height=header.height + 1, state_root=state.root_hash)
            made = Proposal.of(header, self._node.scheme.sign_proposal)
            block = Committed(made, block.proof)
        content = b"".join(content_of(snapshot.encode(state)))
        if self.gift is Gift.MUCH:
            content *= 3
        manifest = manifest_of(content)
        self._contents[manifest.digest()] = content
        return Snapshot(block, self._changes(at), 0, 0, manifest)

    def _changes(self, below: int) -> tuple[bytes, ...]:
        """The lines that lead to the validators of this height."""
        ledger = self._node.world.ledger
        assert ledger is not None
        found = [
            change_line(block.proposal.header_bytes, block.proof, ledger.sets)
            for block in self._node.committed[: below - 1]
        ]
        return tuple([one[1] for one in found if one is not None])

    def part(self, ask: AskPart) -> Part | None:
        """The answer to who asks for a part."""
        content = self._contents.get(ask.digest)
        if content is None or self.gift in (Gift.NO_PARTS, Gift.NO_PARTS_OF_THE_NEWEST):
            return None
        data = content[ask.index * PART_BYTES : (ask.index + 1) * PART_BYTES]
        if self.gift is Gift.OTHER_BYTES:
            data = data[:-1] + bytes([data[-1] ^ 1])
        return Part(ask.digest, ask.index, data)


def manifest_of(content: bytes) -> Manifest:
    """Of a content that is whole."""
    cutter = Cutter()
    cutter.update(content)
    return cutter.manifest()


class Joining:
    """A start of a node that cannot go on without a snapshot: `consensus/joining.py` in a world."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._world = node.world
        self._life = node.life
        self._height = len(node.committed)
        self._nodes = {one.key: one for one in node.world.nodes if one is not node}
        self._answers: dict[Key, SnapshotOffer] = {}
        self._refused: set[Key] = set()
        self._lost: set[bytes] = set()
        self._download: Download | None = None
        self._folder = tempfile.TemporaryDirectory()

    def ask(self) -> None:
        """Everyone; after a while the best answer is taken."""
        self._answers.clear()
        for key in self._nodes:
            hear = partial(self._answers.setdefault, key)
            self._there_and_back(key, lambda giving: giving.offer(self._height), hear)
        self._soon(ANSWERS_MS, self._take_best)

    def _there_and_back(
        self, key: Key, ask: Callable[[Giving], T | None], hear: Callable[[T], object]
    ) -> None:
        other, dice = self._nodes[key], self._world.dice

        def give() -> None:
            answer = ask(other.giving) if other.alive else None
            if answer is not None:
                self._soon(dice.randint(1, DELAY_MS), lambda: hear(answer))

        self._soon(dice.randint(1, DELAY_MS), give)

    def _soon(self, delay: int, what: Callable[[], None]) -> None:
        node = self._node
        self._world.after(delay, lambda: what() if node.life == self._life else None)

    def _take_best(self) -> None:
        ledger, variant = self._world.ledger, self._world.variant
        assert ledger is not None
        offers = {
            key: one.snapshot
            for key, one in self._answers.items()
            if one.snapshot is not None and key not in self._refused
        }
        validators = self._world.true_set_of(self._height // ledger.genesis.epoch_length)
        best = chosen(offers, self._height, True, validators, self._lost)
        if best is None:
            self._soon(AGAIN_MS, self.ask)
            return
        try:
            proved = variant.snapshots.prove(best.claim(), ledger.genesis, LEDGER)
        except Malformed as fault:
            self._refuse([key for key, one in offers.items() if one == best], "claim", fault)
            self.ask()
            return
        keys = sources(offers, best)
        parts = PartsFile(Path(self._folder.name), best.manifest)
        self._download = Download(best.manifest, parts.present(), keys)
        self._fetch(best, proved, parts, keys)

    def _fetch(self, best: Snapshot, proved: Proved, parts: PartsFile, keys: list[Key]) -> None:
        download = self._download
        assert download is not None
        if download.is_done:
            self._load(best, proved, parts, keys)
            return
        for key, index in download.asks(self._world.now / 1000):
            wanted = AskPart(download.digest, index)
            hear = partial(self._take_part, key, parts)
            self._there_and_back(key, partial(_part, wanted), hear)
        self._refuse(download.slow, "slow", TimeoutError("it gave no parts in time, or too few"))
        if download.is_lost:
            self._lost.add(candidate(best))
            parts.close()
            self.ask()
            return
        self._soon(LOOK_MS, lambda: self._fetch(best, proved, parts, keys))

    def _take_part(self, key: Key, parts: PartsFile, part: Part) -> None:
        assert self._download is not None
        try:
            if self._download.take(key, part):
                parts.put(part.index, part.data)
        except PeerFault as fault:
            self._refuse([key], "part", fault)

    def _load(self, best: Snapshot, proved: Proved, parts: PartsFile, keys: list[Key]) -> None:
        ledger = self._world.ledger
        assert ledger is not None
        parts.close()
        chunks = chunks_of(parts.path)
        try:
            state = self._world.variant.snapshots.load(proved, ledger.genesis_bytes, chunks)
        except Malformed as fault:
            self._refuse(keys, "state", fault)
            self.ask()
            return
        self._folder.cleanup()
        self._world.counted["joined"] += 1
        self._node.join(best.block, state)

    def _refuse(self, keys: Sequence[Key], cause: str, fault: Exception) -> None:
        for key in keys:
            if key not in self._refused:
                self._refused.add(key)
                self._world.counted[f"snapshot refused: {cause}"] += 1
                name = self._nodes[key].name
                self._world.note(f"{self._node.name} refuses the snapshot of {name}: {fault}")


def _part(wanted: AskPart, giving: Giving) -> Part | None:
    return giving.part(wanted)
