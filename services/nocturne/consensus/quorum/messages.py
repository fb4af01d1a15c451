"""What the machine hears and says: messages between validators, events from the host, effects.

Rules: docs/spec/quorum.md §2, §3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from nocturne.core.blocks import (
    BlockHeader,
    Range,
    encode_block_header,
    hash_block,
    proposal_signed,
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
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.keys import Key, Signatures, Signer


@dataclass(frozen=True, slots=True)
class Rules:
    """What genesis fixes. `epoch_length` in heights, `clock_bound_ms` is the B of the time rule."""

    ledger_id: LedgerId
    epoch_length: int
    clock_bound_ms: int


class Scheme(Protocol):
    """How votes and proposals are signed. Simulations have a cheaper one."""

    def sign_vote(self, ballot: Ballot) -> Signatures:
        """This validator's signature of its vote."""

    def sign_proposal(self, digest: Hash) -> Signatures:
        """This validator's signature of its proposal."""

    @property
    def vote_signed(self) -> Callable[[Key, Ballot, Signatures], bool]:
        """Whether a validator's vote is signed by it."""

    @property
    def proposal_signed(self) -> Callable[[Key, Hash, Signatures], bool]:
        """Whether a block was proposed by its leader."""


class Suites:
    """The scheme of `core.keys`: every suite of the validator's key."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self.vote_signed = vote_signed
        self.proposal_signed = proposal_signed

    def sign_vote(self, ballot: Ballot) -> Signatures:
        """By every suite."""
        return sign_vote(self._signer, ballot)

    def sign_proposal(self, digest: Hash) -> Signatures:
        """By every suite."""
        return sign_proposal(self._signer, digest)


# Messages ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Proposal:
    """A block's header, as its leader signed it. Who holds a commit proof asks for no signature."""

    header: BlockHeader
    header_bytes: bytes
    digest: Hash
    signatures: Signatures

    @staticmethod
    def of(header: BlockHeader, sign: Callable[[Hash], Signatures]) -> Proposal:
        """The proposal of `header`."""
        header_bytes = encode_block_header(header)
        digest = hash_block(header_bytes)
        return Proposal(header, header_bytes, digest, sign(digest))


@dataclass(frozen=True, slots=True)
class Offer:
    """A proposal with what entitles to it (K2): the parent's certificate, and the nullification of
    every view between, views ascending.
    """

    proposal: Proposal
    grounds: tuple[Certificate, ...]


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
class Cast:
    """A vote on its way. `again`: it was sent before, and whoever knows more answers."""

    vote: Vote
    again: bool


@dataclass(frozen=True, slots=True)
class Committed:
    """A ledger block and its commit proof."""

    proposal: Proposal
    proof: CommitProof


Message = Offer | Cast | Certificate | Committed


# Events --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Received:
    """A message came from the validator `sender` of the current set, or from an observer (None)."""

    sender: int | None
    message: Message


@dataclass(frozen=True, slots=True)
class Fetched:
    """The proposal that a `Fetch` asked for, from wherever: its digest is proof enough."""

    proposal: Proposal


@dataclass(frozen=True, slots=True)
class Contents:
    """What a block says of the records that it disposes of. Without records and control it is
    *empty*.
    """

    ranges: tuple[Range, ...]
    control_hash: Hash
    record_count: int
    dispositions_root: Hash
    state_root: Hash

    @staticmethod
    def of(header: BlockHeader) -> Contents:
        """As `header` says."""
        return Contents(
            header.ranges,
            header.control_hash,
            header.record_count,
            header.dispositions_root,
            header.state_root,
        )

    @property
    def empty(self) -> bool:
        """Neither records nor control."""
        return not self.ranges and self.control_hash == bytes(32)


@dataclass(frozen=True, slots=True)
class Built:
    """The answer to `Build`. An empty one is none while the log has something."""

    view: int
    parent: Hash
    contents: Contents


@dataclass(frozen=True, slots=True)
class Checked:
    """The answer to `Check`. True: the host holds the block's records durably, as its own consumer
    delivered them; executing them on the parent gave the header's contents, within the limits.
    """

    digest: Hash
    valid: bool


@dataclass(frozen=True, slots=True)
class LogStands:
    """Whether the host holds records or control that a block on `parent` could have."""

    parent: Hash
    has_more: bool


@dataclass(frozen=True, slots=True)
class Fired:
    """A timer's time is over."""

    timer: int


@dataclass(frozen=True, slots=True)
class SetDecided:
    """The validators of an epoch, as the chain has decided (two epochs before)."""

    epoch: Epoch
    validators: ValidatorSet


Event = Received | Fetched | Built | Checked | LogStands | Fired | SetDecided


# Effects -------------------------------------------------------------------------------------


Record = Proposal | Vote | Certificate | Committed
"""What a validator's write-ahead log holds."""


@dataclass(frozen=True, slots=True)
class Persist:
    """Make it durable before any later `Send` or `Commit` leaves the process."""

    record: Record


@dataclass(frozen=True, slots=True)
class Send:
    """To these validators, never to itself. They are of the set in which the step began: it may end
    an epoch, and then says nothing in the next.
    """

    to: tuple[int, ...]
    message: Message


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Bring `Fired` after so long. A newer timer takes its place."""

    timer: int
    delay_ms: int


@dataclass(frozen=True, slots=True)
class Build:
    """Execute what the log has on top of `parent` and bring `Built`; with `empty` at once, even if
    there is nothing. Forgotten when the view has gone by.
    """

    view: int
    parent: Hash
    empty: bool


@dataclass(frozen=True, slots=True)
class Check:
    """Bring `Checked` as soon as it can be said."""

    proposal: Proposal


@dataclass(frozen=True, slots=True)
class Fetch:
    """Bring this block, by its digest, from any peer."""

    digest: Hash


@dataclass(frozen=True, slots=True)
class CatchUp:
    """Others are far ahead: bring `Committed` blocks from here on, in height order."""

    height: int


@dataclass(frozen=True, slots=True)
class Commit:
    """These ledger blocks are committed, in height order; each proof convinces anyone."""

    blocks: tuple[Committed, ...]


@dataclass(frozen=True, slots=True)
class Accuse:
    """Two things that one validator signed and that no correct one signs both; of the set in which
    the step began.
    """

    validator: int
    first: Vote | Proposal
    second: Vote | Proposal


Effect = Persist | Send | SetTimer | Build | Check | Fetch | CatchUp | Commit | Accuse
