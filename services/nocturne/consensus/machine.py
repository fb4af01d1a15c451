"""The certificate core: votes in views, certificates, commits. Pure: time and events come in,
effects go out.

Rules: docs/spec/consensus.md. A correct validator
    K1  notarizes at most one block in a view;
    K2  notarizes a block only while it holds Not(parent), or at an epoch's begin the commit proof
        of the last block before it (genesis before all), and Nul(u) for every view between;
    K3  finalizes only while it holds Not, and never finalizes and nullifies one view.

`step` returns effects in an order that the host keeps: it finishes each `Persist` before any later
`Send` or `Commit`. The machine counts its own vote at once, because nothing that follows from it
leaves the process before the vote is durable.

This is the leader's side. With one validator that is all of it: it leads every view, its own vote
is the quorum, so a view ends in the step that began it. No view is ever given up, so there is
nothing to nullify, no timer, and no empty block: an empty block carries a held notarization to
finality, and here none stays held. A ledger that nothing is written to is silent.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, assert_never

from nocturne.core.blocks import (
    FORMAT_VERSION,
    RULES_VERSION,
    BlockHeader,
    BlockKind,
    Range,
    encode_block_header,
    hash_block,
    sign_proposal,
)
from nocturne.core.certificates import (
    Ballot,
    Certificate,
    CommitProof,
    Epoch,
    ValidatorSet,
    VoteKind,
    sign_vote,
    vote_signed,
)
from nocturne.core.errors import PeerFault
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.keys import Signatures, Signer

LEADER_PROOF: Final = b""
"""Leaders take turns; there is nothing to prove."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What genesis fixes. `epoch_length` in heights, `clock_bound_ms` is the B of the time rule."""

    ledger_id: LedgerId
    validators: ValidatorSet
    epoch_length: int
    clock_bound_ms: int


@dataclass(frozen=True, slots=True)
class Tip:
    """A block as its child sees it: the newest one that is notarized, or committed."""

    height: int
    digest: Hash
    epoch: Epoch
    view: int
    time: int

    @staticmethod
    def genesis(ledger_id: LedgerId) -> Tip:
        """Height 0; the ledger id stands for its digest, and time begins at 0."""
        return Tip(0, Hash(ledger_id), Epoch(0, 0), 0, 0)

    @staticmethod
    def of(header: BlockHeader, digest: Hash) -> Tip:
        """The tip that a ledger block is."""
        return Tip(header.height, digest, header.epoch, header.view, header.time)


# Events --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Executed:
    """The host executed records on top of the block `parent`: what a proposal says of them."""

    parent: Hash
    ranges: tuple[Range, ...]
    control_hash: Hash
    record_count: int
    dispositions_root: Hash
    state_root: Hash


@dataclass(frozen=True, slots=True)
class Vote:
    """One validator's vote, by its index in the set."""

    validator: int
    kind: VoteKind
    epoch: Epoch
    view: int
    digest: Hash
    signatures: Signatures


@dataclass(frozen=True, slots=True)
class VoteReceived:
    """A vote came from a peer."""

    vote: Vote


Event = Executed | VoteReceived


# Effects -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Proposal:
    """A block's header as its leader signed it."""

    header: BlockHeader
    header_bytes: bytes
    digest: Hash
    signatures: Signatures


@dataclass(frozen=True, slots=True)
class Persist:
    """Make it durable before any later effect leaves the process."""

    record: Proposal | Vote


@dataclass(frozen=True, slots=True)
class Send:
    """Send it to every other validator."""

    message: Proposal | Vote


@dataclass(frozen=True, slots=True)
class Commit:
    """The block is committed; this proof convinces anyone."""

    proposal: Proposal
    proof: CommitProof


Effect = Persist | Send | Commit


class Machine:
    """One validator of a set, from the newest block that it holds a commit proof of."""

    def __init__(self, rules: Rules, validator: int, signer: Signer, committed: Tip) -> None:
        if rules.validators.keys[validator] != signer.key:
            raise ValueError(f"validator {validator}: the key is not the one in the set")
        self._rules = rules
        self._validator = validator
        self._signer = signer
        self._effects: list[Effect] = []
        self._proposals: dict[Hash, Proposal] = {}
        self._votes: dict[tuple[VoteKind, Hash], dict[int, Signatures]] = {}
        self._parent = committed
        """The block that holds the newest Not (or commit proof): the next one's parent (K2)."""
        self._epoch, self._view = committed.epoch, committed.view + 1
        self._notarized = committed.view
        """The newest view of this epoch that this validator notarized a block in (K1)."""
        self._begin_epoch_after(committed)

    @property
    def parent(self) -> Tip:
        """The block that the next proposal continues."""
        return self._parent

    @property
    def view(self) -> int:
        """The current view of the current epoch."""
        return self._view

    @property
    def may_propose(self) -> bool:
        """Whether this validator leads the current view (each in turn), and the epoch has a height
        left: past the last one only that block's commit proof helps.
        """
        leads = (self._view - 1) % len(self._rules.validators.keys) == self._validator
        return leads and not (self._parent.epoch == self._epoch and self._ends_epoch(self._parent))

    def step(self, event: Event, now: int) -> tuple[Effect, ...]:
        """What follows from `event` at `now` (ms since 1970 UTC).

        `PeerFault` for a vote that is no vote of this set; it changes nothing.
        """
        match event:
            case Executed():
                self._propose(event, now)
            case VoteReceived(vote):
                self._receive(vote)
            case unreachable:
                assert_never(unreachable)
        effects = tuple(self._effects)
        self._effects.clear()
        return effects

    # A block's way ------------------------------------------------------------------------

    def _propose(self, executed: Executed, now: int) -> None:
        assert self.may_propose, "only the leader of a view proposes, within the epoch"
        assert executed.parent == self._parent.digest, "executed on another block than the parent"
        assert executed.ranges or executed.control_hash != bytes(32), "an empty block is invalid"
        header = self._header(executed, max(self._parent.time, now))
        header_bytes = encode_block_header(header)
        digest = hash_block(header_bytes)
        proposal = Proposal(header, header_bytes, digest, sign_proposal(self._signer, digest))
        self._proposals[digest] = proposal
        self._effects.append(Persist(proposal))
        self._send(proposal)
        if self._may_notarize(header, now):
            self._notarized = header.view
            self._cast(VoteKind.NOTARIZE, proposal)

    def _header(self, executed: Executed, time: int) -> BlockHeader:
        rules = self._rules
        parent = self._parent
        return BlockHeader(
            BlockKind.LEDGER,
            FORMAT_VERSION,
            RULES_VERSION,
            rules.ledger_id,
            self._epoch,
            rules.validators.hash,
            rules.validators.hash,
            self._view,
            parent.height + 1,
            parent.digest,
            parent.view if parent.epoch == self._epoch else 0,
            time,
            executed.ranges,
            executed.control_hash,
            executed.record_count,
            executed.dispositions_root,
            executed.state_root,
            LEADER_PROOF,
        )

    def _may_notarize(self, header: BlockHeader, now: int) -> bool:
        """K1, K2 for a block in the current view, and the time rule. A certified block is never
        asked for its time: neither in catch-up nor in replay.
        """
        bound = self._rules.clock_bound_ms
        parent = self._parent
        return (
            header.view == self._view > self._notarized
            and header.parent_digest == parent.digest
            and header.parent_view == header.view - 1
            and max(parent.time, now - bound) <= header.time <= max(parent.time, now + bound)
        )

    def _cast(self, kind: VoteKind, proposal: Proposal) -> None:
        header = proposal.header
        ballot = self._ballot(kind, header.epoch, header.view, proposal.digest)
        vote = Vote(
            self._validator,
            kind,
            header.epoch,
            header.view,
            proposal.digest,
            sign_vote(self._signer, ballot),
        )
        self._effects.append(Persist(vote))
        self._send(vote)
        self._count(vote)

    def _receive(self, vote: Vote) -> None:
        keys = self._rules.validators.keys
        if not 0 <= vote.validator < len(keys) or vote.validator == self._validator:
            raise PeerFault(
                f"vote: expected another validator of {len(keys)}, got {vote.validator}"
            )
        ballot = self._ballot(vote.kind, vote.epoch, vote.view, vote.digest)
        if not vote_signed(keys[vote.validator], ballot, vote.signatures):
            raise PeerFault(f"vote of validator {vote.validator}: its signature does not verify")
        self._count(vote)

    def _count(self, vote: Vote) -> None:
        proposal = self._proposals.get(vote.digest)
        if proposal is None or vote.kind is VoteKind.NULLIFY:
            return
        header = proposal.header
        if (vote.epoch, vote.view) != (header.epoch, header.view):
            return
        votes = self._votes.setdefault((vote.kind, vote.digest), {})
        if vote.validator in votes or len(votes) >= self._rules.validators.quorum:
            return
        votes[vote.validator] = vote.signatures
        if len(votes) < self._rules.validators.quorum:
            return
        if vote.kind is VoteKind.NOTARIZE:
            self._hold_notarization(proposal)
        else:
            self._commit(proposal, votes)

    def _hold_notarization(self, proposal: Proposal) -> None:
        self._parent = Tip.of(proposal.header, proposal.digest)
        self._view = proposal.header.view + 1
        # K3: holding Not, and this machine nullifies nothing.
        self._cast(VoteKind.FINALIZE, proposal)

    def _commit(self, proposal: Proposal, votes: dict[int, Signatures]) -> None:
        header = proposal.header
        certificate = Certificate(
            VoteKind.FINALIZE,
            header.epoch,
            header.validator_set_hash,
            header.view,
            proposal.digest,
            tuple(sorted(votes.items())),
        )
        self._effects.append(Commit(proposal, CommitProof(certificate, ())))
        del self._proposals[proposal.digest]
        for kind in VoteKind:
            self._votes.pop((kind, proposal.digest), None)
        self._begin_epoch_after(Tip.of(header, proposal.digest))

    def _begin_epoch_after(self, committed: Tip) -> None:
        """After an epoch's last height views restart: the commit proof takes Not's place (K2)."""
        if committed.epoch == self._epoch and self._ends_epoch(committed):
            self._epoch = replace(self._epoch, number=self._epoch.number + 1)
            self._view = 1
            self._notarized = 0

    def _ends_epoch(self, tip: Tip) -> bool:
        return tip.height > 0 and tip.height % self._rules.epoch_length == 0

    def _send(self, message: Proposal | Vote) -> None:
        if len(self._rules.validators.keys) > 1:
            self._effects.append(Send(message))

    def _ballot(self, kind: VoteKind, epoch: Epoch, view: int, digest: Hash) -> Ballot:
        rules = self._rules
        return Ballot(kind, rules.ledger_id, epoch, rules.validators.hash, view, digest)
