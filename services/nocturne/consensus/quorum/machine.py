"""The certificate core: votes in views, certificates, commits. Pure: time and events come in,
effects go out.

Rules: docs/spec/quorum.md. A correct validator
    K1  notarizes at most one block in a view;
    K2  notarizes a block only while it holds Not(parent), or at an epoch's begin the commit proof
        of the last block before it (genesis before all), and Nul(u) for every view between;
    K3  finalizes only while it holds Not, and never finalizes and nullifies one view.

`step` returns effects in an order that the host keeps: it finishes each `Persist` before any later
`Send` or `Commit`. The machine counts its own vote at once, because nothing that follows from it
leaves the process before the vote is durable.

    event                     in state                          what follows
    ------------------------  --------------------------------  ---------------------------------
    the leader's turn         busy, K2 met, not proposed        Build
    Built                     view and parent unchanged         Persist, Send Offer; notarize
    Offer                     of the current view, K2 met       Check
    Checked valid             the same, K1, time in bounds      Persist, Send notarize
    quorum notarizes          -                                 Not; enter view+1; finalize (K3)
    quorum nullifies          -                                 Nul; enter view+1
    quorum finalizes          block and ancestors known         Commit; the epoch's end: next epoch
                              some unknown                      Fetch
    Fired, first in a view    busy                              send votes again; empty block
    Fired, later              busy, not finalized (K3)          the same; nullify, also what was
                                                                jumped over
    a vote sent again         its view is decided here          Send the best certificate
    anything of another epoch earlier                           Send Committed
                              later                             CatchUp
    a second, different vote  -                                 Accuse
    or proposal of a view

*Busy*: the log has something past the parent, or the newest notarized block is not final, or the
epoch before is over and this one has no final block. A machine that is not busy is silent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar, assert_never

from nocturne.consensus.quorum.leaders import LeaderSchedule, recipients
from nocturne.consensus.quorum.messages import (
    Accuse,
    Build,
    Built,
    Cast,
    CatchUp,
    Check,
    Checked,
    Commit,
    Committed,
    Contents,
    Effect,
    Event,
    Fetch,
    Fetched,
    Fired,
    LogStands,
    Message,
    Offer,
    Persist,
    Proposal,
    Received,
    Record,
    Rules,
    Scheme,
    Send,
    SetDecided,
    SetTimer,
    Vote,
)
from nocturne.consensus.quorum.pacing import Pacing
from nocturne.consensus.quorum.tally import VIEWS_AHEAD_MAX, Tally
from nocturne.core import merkle
from nocturne.core.blocks import (
    FORMAT_VERSION,
    RULES_VERSION,
    BlockHeader,
    BlockKind,
    link_of,
    link_to,
)
from nocturne.core.certificates import (
    COMMIT_PROOF_HEADERS_MAX,
    Ballot,
    Certificate,
    CommitProof,
    Epoch,
    ValidatorSet,
    VoteKind,
    check_certificate,
    check_commit_proof,
)
from nocturne.core.conflicts import Certified
from nocturne.core.encoding import ZERO_HASH
from nocturne.core.errors import Halt, Malformed, PeerFault
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.keys import Key
from nocturne.core.modes import two_histories

LEADER_PROOF: Final = b""
"""Leaders take turns; there is nothing to prove."""
OFFERS_AHEAD_MAX: Final = 16
"""Proposals of later views that are kept; their leaders offer them again."""
FETCHED_MAX: Final = 64
"""Unknown ancestors of a final block that are fetched one by one; beyond them CatchUp."""
JUMPED_MAX: Final = 16
"""Views that were jumped over and are asked about at once."""
NO_DIGEST: Final = Hash(ZERO_HASH)
NO_RECORDS_ROOT: Final = Hash(merkle.root(()))
RESEND_STAGE: Final = 1
"""The first wait in a view is over: votes may have been lost."""
GIVE_UP_STAGE: Final = 2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Tip:
    """A block as its child sees it."""

    digest: Hash
    height: int
    epoch: Epoch
    view: int
    time: int
    state_root: Hash | None
    """None at genesis, where no tail block can stand."""

    @staticmethod
    def genesis(ledger_id: LedgerId) -> _Tip:
        """Height 0; the ledger id stands for its digest, and time begins at 0."""
        return _Tip(Hash(ledger_id), 0, Epoch(0, 0), 0, 0, None)

    @staticmethod
    def of(proposal: Proposal) -> _Tip:
        """The block of `proposal`."""
        header = proposal.header
        return _Tip(
            proposal.digest,
            header.height,
            header.epoch,
            header.view,
            header.time,
            header.state_root,
        )


class Machine:
    """One validator, or an observer whose key is not in the set, from the newest block that it
    holds a commit proof of.
    """

    def __init__(
        self,
        rules: Rules,
        sets: Sequence[tuple[Epoch, ValidatorSet]],
        scheme: Scheme,
        schedule: LeaderSchedule,
        pacing: Pacing,
        own_key: Key,
        final: Committed | None,
    ) -> None:
        """`sets` are those known, the current epoch's among them; `final` is None at genesis."""
        self._rules = rules
        self._sets = dict(sets)
        self._scheme = scheme
        self._schedule = schedule
        self._pacing = pacing
        self._own_key = own_key
        self._effects: list[Effect] = []
        self._log: tuple[Hash, bool] = (NO_DIGEST, False)
        self._timer = 0
        self._final = final
        self._base = _Tip.genesis(rules.ledger_id) if final is None else _Tip.of(final.proposal)
        self._begin(self._epoch_after(self._base))

    def _begin(self, epoch: Epoch) -> None:
        """Stand where nothing is known above the final block."""
        found = self._sets.get(epoch)
        if found is None:
            raise Halt(f"the validators of epoch {epoch.number} are not known at its begin")
        self._epoch = epoch
        self._set = found
        self._sets = {one: known for one, known in self._sets.items() if one >= epoch}
        keys = found.keys
        self._index = keys.index(self._own_key) if self._own_key in keys else None
        self._everyone = tuple(range(len(keys)))
        self._tally = Tally(epoch, found)
        self._base_view = self._base.view if self._base.epoch == epoch else 0
        self._view = self._base_view + 1
        self._blocks: dict[Hash, Proposal] = {}
        self._offered: dict[int, Proposal] = {}
        self._proposed: dict[int, Proposal] = {}
        self._nots: dict[int, Certificate] = {}
        self._nuls: dict[int, Certificate] = {}
        self._fin: Certificate | None = None
        self._votes: dict[VoteKind, dict[int, Vote]] = {kind: {} for kind in VoteKind}
        self._checks: dict[Hash, bool | None] = {}
        self._fetching: set[Hash] = set()
        self._accused: set[int] = set()
        self._building: tuple[int, Hash, bool] | None = None
        self._failures = 0
        self._stage = 0
        self._armed = False

    # What the host asks ------------------------------------------------------------------------

    @property
    def epoch(self) -> Epoch:
        """The current epoch."""
        return self._epoch

    @property
    def validators(self) -> ValidatorSet:
        """The set of the current epoch."""
        return self._set

    @property
    def view(self) -> int:
        """The current view of the current epoch."""
        return self._view

    @property
    def own_key(self) -> Key:
        """This validator's."""
        return self._own_key

    @property
    def index(self) -> int | None:
        """This validator's index in the current set; None for an observer."""
        return self._index

    @property
    def final(self) -> Committed | None:
        """The newest committed ledger block; None at genesis."""
        return self._final

    @property
    def parent(self) -> Hash:
        """The block that the next one continues; the ledger id stands for genesis. The host says by
        `LogStands` whether the log has something past it.
        """
        found = self._parent_digest()
        return self._base.digest if found is None else found

    @property
    def busy(self) -> bool:
        """Whether there is something to certify; otherwise nothing is said."""
        if self._nots:
            return True
        if self._base.epoch != self._epoch and self._base.height > 0:
            return True
        return self._log == (self.parent, True)

    def restore(self, records: Sequence[Record]) -> tuple[Effect, ...]:
        """Take up what the own write-ahead log holds beyond the final block, before any `step`.
        `Halt` for votes that do not bind here because an epoch's end before them is missing.
        """
        for record in records:
            match record:
                case Proposal():
                    self._restore_proposal(record)
                case Vote():
                    if record.epoch > self._epoch:
                        raise Halt(
                            f"the log has a vote of epoch {record.epoch.number}, and the final "
                            "block is of before that: it is not the newest that the log has"
                        )
                    if record.epoch == self._epoch and record.view > self._base_view:
                        self._votes[record.kind][record.view] = record
                        self._count(record)
                case Certificate():
                    if record.epoch == self._epoch:
                        self._hold(record)
                case Committed():
                    if record.proposal.header.height == self._base.height + 1:
                        self._adopt(record)
                case unreachable:
                    assert_never(unreachable)
        self._commit_final()
        # All but a commit that only now became possible is in the log already.
        return tuple(
            one
            for one in self._taken()
            if not isinstance(one, Persist | Send)
            or (isinstance(one, Persist) and isinstance(one.record, Committed))
        )

    def _restore_proposal(self, proposal: Proposal) -> None:
        header = proposal.header
        if header.epoch != self._epoch or header.view <= self._base_view:
            return
        self._blocks[proposal.digest] = proposal
        self._offered[header.view] = proposal
        # It was in the log, so its records were: they were checked, or made, before.
        self._checks[proposal.digest] = True
        if self._leader(header.view) == self._index:
            self._proposed[header.view] = proposal

    def holds(self, proposal: Proposal) -> bool:
        """Whether it is what the leader of its view offered, as far as this validator takes offers:
        of the current epoch, of no view too far ahead, signed, and the first of its view.
        """
        known = self._offered.get(proposal.header.view)
        return known is not None and known.digest == proposal.digest

    def awaits(self, digest: Hash) -> bool:
        """Whether this block was asked for by its digest and has not come."""
        return digest in self._fetching

    def step(self, event: Event, now: int) -> tuple[Effect, ...]:
        """What follows from `event` at `now` (ms since 1970 UTC).

        `PeerFault` for a message that no correct validator of the epoch sends; it changes nothing,
        but that of an offer what comes before the wrong ground is kept.
        `Halt` when what this validator holds contradicts itself.
        """
        match event:
            case Received(sender, message):
                self._receive(sender, message)
            case Fetched(proposal):
                if proposal.digest in self._fetching:
                    self._fetching.discard(proposal.digest)
                    self._blocks[proposal.digest] = proposal
            case Built():
                self._propose(event, now)
            case Checked(digest, valid):
                if digest in self._checks:
                    self._checks[digest] = valid
            case LogStands(parent, has_more):
                self._log = (parent, has_more)
            case Fired(timer):
                self._fire(timer)
            case SetDecided(epoch, validators):
                known = self._sets.setdefault(epoch, validators)
                if known.hash != validators.hash:
                    raise Halt(f"two validator sets are decided for epoch {epoch.number}")
            case unreachable:
                assert_never(unreachable)
        self._settle(now)
        return self._taken()

    def _taken(self) -> tuple[Effect, ...]:
        effects = tuple(self._effects)
        self._effects.clear()
        return effects

    # Hearing -----------------------------------------------------------------------------------

    def _receive(self, sender: int | None, message: Message) -> None:
        match message:
            case Cast(vote, again):
                if self._is_of_now(vote.epoch, sender if again else None):
                    self._take_vote(vote)
                    if again and sender is not None:
                        self._answer(sender, vote.view)
            case Offer():
                if self._is_of_now(message.proposal.header.epoch, sender):
                    self._take_offer(message)
            case Certificate():
                if self._is_of_now(message.epoch, sender):
                    self._take_certificate(message)
            case Committed():
                self._take_committed(message)
            case unreachable:
                assert_never(unreachable)

    def _is_of_now(self, epoch: Epoch, asks: int | None) -> bool:
        """Whether it is of the current epoch. Who is behind is told where the chain is; where
        others are ahead, what lies between is asked for.
        """
        if epoch == self._epoch:
            return True
        if epoch > self._epoch:
            self._catch_up()
        elif asks is not None and self._final is not None:
            self._send((asks,), self._final)
        return False

    def _take_offer(self, offer: Offer) -> None:
        proposal = offer.proposal
        view = proposal.header.view
        if not self._base_view < view <= self._view + OFFERS_AHEAD_MAX:
            return
        if proposal.header.leader_proof != LEADER_PROOF:
            raise PeerFault("proposal: expected no leader proof, for leaders take turns")
        if len(offer.grounds) > VIEWS_AHEAD_MAX + 1:
            raise PeerFault(f"proposal: expected at most {VIEWS_AHEAD_MAX + 1} certificates")
        known = self._offered.get(view)
        if known is None or known.digest != proposal.digest:
            leader = self._leader(view)
            key = self._set.keys[leader]
            if not self._scheme.proposal_signed(key, proposal.digest, proposal.signatures):
                raise PeerFault(f"proposal of view {view}: not signed by its leader {leader}")
            if known is not None:
                self._accuse_leader(leader, known, proposal)
                return
            self._offered[view] = proposal
        for certificate in offer.grounds:
            if certificate.epoch == self._epoch:
                self._take_certificate(certificate)

    def _accuse_leader(self, leader: int, first: Proposal, second: Proposal) -> None:
        view = first.header.view
        if view not in self._accused:
            self._accused.add(view)
            self._effects.append(Accuse(leader, first, second))

    def _take_vote(self, vote: Vote) -> None:
        if vote.validator == self._index or vote.view > self._view + VIEWS_AHEAD_MAX:
            return
        if vote.view <= self._base_view or self._tally.known(vote):
            return
        keys = self._set.keys
        if not 0 <= vote.validator < len(keys):
            raise PeerFault(f"vote: expected one of {len(keys)} validators, got {vote.validator}")
        if (vote.kind is VoteKind.NULLIFY) != (vote.digest == NO_DIGEST):
            raise PeerFault("vote: a nullification, and it alone, is of no block")
        ballot = self._ballot(vote.kind, vote.view, vote.digest)
        if not self._scheme.vote_signed(keys[vote.validator], ballot, vote.signatures):
            raise PeerFault(f"vote of validator {vote.validator}: its signature does not verify")
        self._count(vote)

    def _take_certificate(self, certificate: Certificate) -> None:
        if certificate.view <= self._base_view or self._holds(certificate):
            return
        check_certificate(certificate, self._rules.ledger_id, self._set, self._scheme.vote_signed)
        self._hold(certificate)

    def _take_committed(self, committed: Committed) -> None:
        proposal = committed.proposal
        header = proposal.header
        if header.height <= self._base.height:
            return
        if header.epoch != self._epoch:
            self._is_of_now(header.epoch, None)
            return
        if header.kind is not BlockKind.LEDGER:
            # It has its ancestor's height, so by its height it would contradict the base.
            raise Malformed("committed block: expected a ledger block, got a tail block")
        finalization = committed.proof.finalization
        if finalization.epoch != header.epoch:
            # Views of another epoch are none of this one, even if it has the same validators.
            raise Malformed("committed block: expected a finalization of its own epoch")
        continues = header.parent_digest == self._base.digest
        if not continues and proposal.digest in self._blocks and self._holds(finalization):
            return
        check_commit_proof(
            committed.proof,
            link_to(header, proposal.digest),
            self._rules.ledger_id,
            self._set,
            link_of,
            self._scheme.vote_signed,
        )
        if continues:
            self._adopt(committed)
            return
        if header.height == self._base.height + 1:
            raise self._two_chains(
                Certified(proposal.header_bytes, committed.proof),
                f"block {header.height} is committed on {header.parent_digest.hex()}, and so is "
                f"{self._base.digest.hex()} at its parent's height",
            )
        self._blocks[proposal.digest] = proposal
        self._hold(finalization)

    def _answer(self, sender: int, view: int) -> None:
        """Send what ends the view, and what ended the newest one here."""
        # Who is busy while all is settled here lacks what settled it: a Not may be all that it has.
        if self._final is not None and (view <= self._base_view or not self.busy):
            self._send((sender,), self._final)
        for one in sorted({view, self._view - 1}):
            held = self._nots.get(one) or self._nuls.get(one)
            if held is not None:
                self._send((sender,), held)

    # Counting and holding ----------------------------------------------------------------------

    def _count(self, vote: Vote) -> None:
        counted = self._tally.add(vote)
        conflict, found = counted.conflict, counted.certificate
        if conflict is not None:
            # Before the certificate: that may end the epoch in which the index is one of the set.
            self._effects.append(Accuse(vote.validator, conflict.first, conflict.second))
        if found is not None and not self._holds(found):
            self._hold(found)
            n = len(self._set.keys)
            if len(self._recipients(found.kind, found.view, 0)) < n:
                # Votes went to leaders alone: who gathered them tells everyone.
                self._send(self._everyone, found)

    def _holds(self, certificate: Certificate) -> bool:
        """Whether it says nothing new. One of another block in its view does: it is a reason to
        halt, if it is right.
        """
        held = self._nots.get(certificate.view)
        match certificate.kind:
            case VoteKind.NOTARIZE:
                return held is not None and held.digest == certificate.digest
            case VoteKind.NULLIFY:
                return certificate.view in self._nuls
            case VoteKind.FINALIZE:
                if held is not None and held.digest != certificate.digest:
                    return False
                return self._fin is not None and self._fin.view >= certificate.view

    def _hold(self, certificate: Certificate) -> None:
        """Keep a certificate that was checked, or made of votes that were, if it is new."""
        view = certificate.view
        if view <= self._base_view or self._holds(certificate):
            return
        self._effects.append(Persist(certificate))
        if certificate.kind is VoteKind.NULLIFY:
            self._nuls[view] = certificate
        else:
            known = self._nots.setdefault(view, certificate)
            if known.digest != certificate.digest:
                raise Halt(f"view {view}: two blocks are certified")
            if certificate.kind is VoteKind.FINALIZE:
                # What is final was notarized.
                self._fin = certificate
        if view >= self._view:
            self._failures += certificate.kind is VoteKind.NULLIFY
            self._view = view + 1
            self._stage = 0
            self._armed = False

    # What follows from what is held ------------------------------------------------------------

    def _settle(self, now: int) -> None:
        """Do all that has become possible."""
        said = -1
        while said != len(self._effects):
            said = len(self._effects)
            if self._fin is not None:
                self._commit_final()
            if self._index is not None:
                if self._nots:
                    self._finalize()
                proposal = self._offered.get(self._view)
                if proposal is not None:
                    self._notarize(proposal, now)
                if self._view not in self._proposed:
                    self._build(now)
        self._pace()

    def _finalize(self) -> None:
        """K3, for the newest notarized view alone: it commits all before it."""
        view = max(self._nots)
        voted = self._votes
        if view in voted[VoteKind.FINALIZE] or view in voted[VoteKind.NULLIFY]:
            return
        if self._fin is None or self._fin.view < view:
            self._cast(VoteKind.FINALIZE, view, self._nots[view].digest)

    def _notarize(self, proposal: Proposal, now: int) -> None:
        """Vote for what the current view's leader offered, if everything speaks for it."""
        view, voted, header = self._view, self._votes, proposal.header
        if view in voted[VoteKind.NOTARIZE] or view in voted[VoteKind.NULLIFY]:
            return
        if self._checks.get(proposal.digest, True) is not True:
            # All else spoke for it when it was asked for; the answer is not here, or is no.
            return
        parent = self._justified(header)
        if parent is None or not self._continues(header, parent):
            return
        if Contents.of(header).empty and not self.busy:
            return
        if header.kind is BlockKind.LEDGER and not self._is_checked(proposal):
            return
        bound = self._rules.clock_bound_ms
        if not max(parent.time, now - bound) <= header.time <= max(parent.time, now + bound):
            return
        self._blocks[proposal.digest] = proposal
        if view not in self._proposed:
            self._effects.append(Persist(proposal))
        self._cast(VoteKind.NOTARIZE, view, proposal.digest)

    def _is_checked(self, proposal: Proposal) -> bool:
        if proposal.digest not in self._checks:
            self._checks[proposal.digest] = None
            self._effects.append(Check(proposal))
        return self._checks[proposal.digest] is True

    def _justified(self, header: BlockHeader) -> _Tip | None:
        """K2: the parent, if this validator holds what entitles `header` to continue it."""
        if any(view not in self._nuls for view in range(header.parent_view + 1, header.view)):
            return None
        if (header.parent_view, header.parent_digest) == (self._base_view, self._base.digest):
            return self._base
        held = self._nots.get(header.parent_view)
        if held is None or held.digest != header.parent_digest:
            return None
        return self._block(held.digest)

    def _continues(self, header: BlockHeader, parent: _Tip) -> bool:
        """Whether `header` is one that a correct leader makes on `parent`, but for its contents."""
        contents = Contents.of(header)
        expected = self._header(header.view, parent, header.parent_view, header.time, contents)
        if self._ends_epoch(parent) and contents != _tail_contents(parent):
            return False
        return header == expected and header.time >= parent.time

    def _block(self, digest: Hash) -> _Tip | None:
        """The block, asked for if it is not here."""
        if digest == self._base.digest:
            return self._base
        found = self._blocks.get(digest)
        if found is None:
            self._fetch(digest)
            return None
        return _Tip.of(found)

    def _fetch(self, digest: Hash) -> None:
        if digest not in self._fetching and len(self._fetching) < FETCHED_MAX:
            self._fetching.add(digest)
            self._effects.append(Fetch(digest))

    def _catch_up(self) -> None:
        effect = CatchUp(self._base.height + 1)
        if effect not in self._effects:
            self._effects.append(effect)

    # Leading -----------------------------------------------------------------------------------

    def _parent_digest(self) -> Hash | None:
        """The newest notarized block before the current view with only nullified views between."""
        view = self._view - 1
        while view > self._base_view and view not in self._nots:
            if view not in self._nuls:
                return None
            view -= 1
        return self._base.digest if view <= self._base_view else self._nots[view].digest

    def _build(self, now: int) -> None:
        """Ask for the contents of the block that this validator may propose now. An empty one waits
        until votes that are on their way have had their time.
        """
        view = self._view
        if self._leader(view) != self._index:
            return
        digest = self._parent_digest()
        parent = None if digest is None else self._block(digest)
        if parent is None or not self.busy or view in self._votes[VoteKind.NULLIFY]:
            return
        waited = self._stage >= RESEND_STAGE
        if self._ends_epoch(parent):
            if waited:
                self._offer(parent, _tail_contents(parent), now)
            return
        wish = (view, parent.digest, waited)
        if wish != self._building and (waited or self._log == (parent.digest, True)):
            self._building = wish
            self._effects.append(Build(view, parent.digest, waited))

    def _propose(self, built: Built, now: int) -> None:
        if self._building is None or self._building[:2] != (built.view, built.parent):
            return
        if built.view != self._view or built.view in self._proposed or self._index is None:
            return
        parent = self._block(built.parent)
        if parent is None or built.parent != self._parent_digest():
            return
        if built.contents.empty and not (self._building[2] and self.busy):
            self._building = None
            return
        self._offer(parent, built.contents, now)

    def _offer(self, parent: _Tip, contents: Contents, now: int) -> None:
        view = self._view
        parent_view = self._base_view if parent is self._base else parent.view
        header = self._header(view, parent, parent_view, max(parent.time, now), contents)
        proposal = Proposal.of(header, self._scheme.sign_proposal)
        self._proposed[view] = self._offered[view] = proposal
        self._checks[proposal.digest] = True
        self._effects.append(Persist(proposal))
        self._send(self._everyone, Offer(proposal, self._grounds(header)))

    def _grounds(self, header: BlockHeader) -> tuple[Certificate, ...]:
        # Whoever lacks older ones asks for them: what was jumped over is said again in `_fire`.
        first = max(header.parent_view + 1, header.view - VIEWS_AHEAD_MAX)
        nuls = [self._nuls[view] for view in range(first, header.view)]
        held = self._nots.get(header.parent_view)
        if held is None and self._final is not None:
            last = self._final.proof.finalization
            held = last if last.digest == header.parent_digest else None
        return tuple(nuls if held is None else [held, *nuls])

    def _header(
        self, view: int, parent: _Tip, parent_view: int, time: int, contents: Contents
    ) -> BlockHeader:
        following = self._sets.get(_next(self._epoch), self._set)
        ended = self._ends_epoch(parent)
        return BlockHeader(
            BlockKind.TAIL if ended else BlockKind.LEDGER,
            FORMAT_VERSION,
            RULES_VERSION,
            self._rules.ledger_id,
            self._epoch,
            self._set.hash,
            following.hash,
            view,
            parent.height if ended else parent.height + 1,
            parent.digest,
            parent_view,
            time,
            contents.ranges,
            contents.control_hash,
            contents.record_count,
            contents.dispositions_root,
            contents.state_root,
            LEADER_PROOF,
        )

    # Committing --------------------------------------------------------------------------------

    def _commit_final(self) -> None:
        """Commit what the newest finalization commits, as soon as all of it is here."""
        fin = self._fin
        if fin is None:
            return
        chain: list[Proposal] = []
        digest = fin.digest
        while digest != self._base.digest:
            block = self._blocks.get(digest)
            if block is None:
                self._fetch(digest)
                return
            header = block.header
            if header.epoch != self._epoch or header.view <= self._base_view:
                chain.append(block)
                raise self._two_chains(
                    self._beside_base(chain, fin),
                    f"view {fin.view} is finalized on {digest.hex()}, which does not continue the "
                    f"committed block {self._base.height} {self._base.digest.hex()}",
                )
            if header.height - self._base.height > FETCHED_MAX and not chain:
                self._catch_up()
            if len(chain) == COMMIT_PROOF_HEADERS_MAX:
                # No proof from here reaches down to the base; others committed in shorter steps.
                self._catch_up()
                return
            chain.append(block)
            digest = header.parent_digest
        chain.reverse()
        headers = tuple(block.header_bytes for block in chain)
        blocks = tuple(
            Committed(block, CommitProof(fin, headers[number + 1 :]))
            for number, block in enumerate(chain)
            if block.header.kind is BlockKind.LEDGER
        )
        self._fin = None
        if blocks:
            self._stand_on(blocks)
        self._go_on_from(fin.view)

    def _beside_base(self, chain: Sequence[Proposal], fin: Certificate) -> Certified | None:
        """Of what `fin` commits, newest first, the ledger block that no chain has with the base:
        of its height, or of the next on another parent. None if there is none in this epoch.
        """
        for number, block in enumerate(chain):
            header, base = block.header, self._base
            is_other = header.height == base.height and block.digest != base.digest
            is_on_other = header.height == base.height + 1 and header.parent_digest != base.digest
            is_of_now = header.kind is BlockKind.LEDGER and header.epoch == fin.epoch
            if is_of_now and (is_other or is_on_other):
                after = tuple(one.header_bytes for one in reversed(chain[:number]))
                return Certified(block.header_bytes, CommitProof(fin, after))
        return None

    def _two_chains(self, other: Certified | None, without: str) -> Halt:
        """What to raise on commit proofs that contradict each other."""
        final = self._final
        own = None if final is None else Certified(final.proposal.header_bytes, final.proof)
        return two_histories(self._rules.ledger_id, own, other, without)

    def _adopt(self, committed: Committed) -> None:
        """The next block, with the proof that somebody else put together."""
        self._stand_on((committed,))
        self._go_on_from(committed.proposal.header.view)
        fin = committed.proof.finalization
        if fin.epoch == self._epoch:
            self._hold(fin)

    def _stand_on(self, blocks: tuple[Committed, ...]) -> None:
        self._final = blocks[-1]
        self._base = _Tip.of(blocks[-1].proposal)
        self._effects.append(Persist(blocks[-1]))
        self._effects.append(Commit(blocks))

    def _go_on_from(self, settled: int) -> None:
        """Forget the views up to `settled`; after an epoch's last block begin the next (K2: its
        commit proof takes Not's place there).
        """
        following = self._epoch_after(self._base)
        if following != self._epoch:
            assert self._final is not None
            named = self._final.proposal.header.next_validator_set_hash
            if named == self._set.hash:
                self._sets.setdefault(following, self._set)
            if following in self._sets and self._sets[following].hash != named:
                raise Halt(f"the chain names other validators for epoch {following.number}")
            self._begin(following)
            return
        self._base_view = settled
        if self._fin is not None and self._fin.view <= settled:
            self._fin = None
        if self._view <= settled:
            self._view = settled + 1
        self._stage = 0
        self._armed = False
        self._failures = 0
        self._tally.forget_through(settled)
        for votes in self._votes.values():
            _forget(votes, settled)
        _forget(self._offered, settled)
        _forget(self._proposed, settled)
        _forget(self._nots, settled)
        _forget(self._nuls, settled)
        self._accused = {view for view in self._accused if view > settled}
        self._blocks = {
            digest: block for digest, block in self._blocks.items() if block.header.view > settled
        }
        self._checks = {
            block.digest: self._checks[block.digest]
            for block in self._offered.values()
            if block.digest in self._checks
        }
        self._fetching.clear()

    def _epoch_after(self, tip: _Tip) -> Epoch:
        """The epoch of the block that continues the committed `tip`."""
        ended = tip.height > 0 and tip.height % self._rules.epoch_length == 0
        return _next(tip.epoch) if ended else tip.epoch

    def _ends_epoch(self, tip: _Tip) -> bool:
        """Whether only tail blocks may stand on `tip`, the base or a block of the current epoch."""
        return self._epoch_after(tip) != self._epoch

    # Voting, sending, waiting ------------------------------------------------------------------

    def _cast(self, kind: VoteKind, view: int, digest: Hash, again: bool = False) -> None:
        assert self._index is not None
        signatures = self._scheme.sign_vote(self._ballot(kind, view, digest))
        vote = Vote(self._index, kind, self._epoch, view, digest, signatures)
        self._votes[kind][view] = vote
        self._effects.append(Persist(vote))
        self._send_vote(vote, again)
        self._count(vote)

    def _send_vote(self, vote: Vote, again: bool) -> None:
        """To those that its route says; after some waits in a view that is everyone."""
        to = self._recipients(vote.kind, vote.view, self._stage if again else 0)
        self._send(tuple(to), Cast(vote, again))

    def _fire(self, timer: int) -> None:
        if not self._armed or timer != self._timer:
            return
        self._armed = False
        self._stage += 1
        self._effects.extend(Fetch(digest) for digest in sorted(self._fetching))
        if self._index is None:
            return
        view = self._view
        # Whoever lacks the one is in an earlier view; whoever lacks the other may see no reason to
        # do anything at all.
        for held in (self._nots.get(max(self._nots, default=0)), self._nuls.get(view - 1)):
            if held is not None:
                self._send(self._everyone, held)
        if view in self._proposed:
            proposal = self._proposed[view]
            self._send(self._everyone, Offer(proposal, self._grounds(proposal.header)))
        finalized = max(self._votes[VoteKind.FINALIZE], default=0)
        again = [
            self._votes[VoteKind.FINALIZE].get(finalized),
            self._votes[VoteKind.NOTARIZE].get(view),
            self._votes[VoteKind.NULLIFY].get(view),
        ]
        for vote in again:
            if vote is not None:
                self._send_vote(vote, again=True)
        if self._stage >= GIVE_UP_STAGE and self.busy:
            self._ask_for_jumped()
            self._nullify(view, again=False)

    def _ask_for_jumped(self) -> None:
        """Of the views past the newest notarized one some were jumped over: without their
        nullifications nothing can be proposed. Nobody may hold them all, so each is asked for, by a
        vote: whoever holds what ended the view answers, and if nobody does it is nullified anew.
        """
        first = max(self._nots, default=self._base_view) + 1
        jumped = [view for view in range(first, self._view) if view not in self._nuls]
        for view in jumped[:JUMPED_MAX]:
            vote = self._votes[VoteKind.NULLIFY].get(view)
            if vote is None:
                self._nullify(view, again=True)
            else:
                self._send_vote(vote, again=True)

    def _nullify(self, view: int, again: bool) -> None:
        """K3: unless this validator finalized the view."""
        if view not in self._votes[VoteKind.FINALIZE] and view not in self._votes[VoteKind.NULLIFY]:
            self._cast(VoteKind.NULLIFY, view, NO_DIGEST, again=again)

    def _pace(self) -> None:
        wanted = self.busy or bool(self._fetching)
        if wanted and not self._armed:
            self._timer += 1
            self._effects.append(
                SetTimer(self._timer, self._pacing.delay_ms(self._stage, self._failures))
            )
        self._armed = wanted

    def _send(self, to: Sequence[int], message: Message) -> None:
        others = tuple(sorted(one for one in to if one != self._index))
        if others:
            self._effects.append(Send(others, message))

    def _leader(self, view: int) -> int:
        return self._schedule.leader(self._epoch, view, len(self._set.keys))

    def _recipients(self, kind: VoteKind, view: int, resends: int) -> frozenset[int]:
        n = len(self._set.keys)
        return recipients(self._schedule, self._epoch, kind, view, n, resends)

    def _ballot(self, kind: VoteKind, view: int, digest: Hash) -> Ballot:
        rules = self._rules
        return Ballot(kind, rules.ledger_id, self._epoch, self._set.hash, view, digest)


def _forget(by_view: dict[int, T], settled: int) -> None:
    for view in [view for view in by_view if view <= settled]:
        del by_view[view]


def _next(epoch: Epoch) -> Epoch:
    return Epoch(epoch.recovery, epoch.number + 1)


def _tail_contents(parent: _Tip) -> Contents:
    """A tail block repeats the state of what it commits."""
    assert parent.state_root is not None
    return Contents((), NO_DIGEST, 0, NO_RECORDS_ROOT, parent.state_root)
