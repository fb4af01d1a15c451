"""A validator that lies: its honest machine knows where things stand; it says what it wants.

It signs whatever its own key can sign, and puts together whatever it heard; it cannot sign for
others. Each liar has some of the ways below.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import Enum
from typing import TYPE_CHECKING, Final, TypeVar

from tests.simulation.log import LEDGER, opening_to
from tests.simulation.node import Node
from tests.simulation.plan import Fault
from tests.simulation.spoilt import candidates, fork, spoilt, with_contents
from tests.simulation.store import height_of

from nocturne.consensus.quorum.messages import (
    Cast,
    Committed,
    Effect,
    Event,
    Message,
    Offer,
    Persist,
    Proposal,
    Received,
    Send,
    Vote,
)
from nocturne.consensus.quorum.tally import VIEWS_AHEAD_MAX
from nocturne.core.blocks import BlockHeader, BlockKind
from nocturne.core.certificates import Ballot, Certificate, CommitProof, Epoch, VoteKind
from nocturne.core.identifiers import Hash

if TYPE_CHECKING:
    from tests.simulation.world import World

NONE: Final = Hash(bytes(32))
KEPT_MAX: Final = 200
LIE_GAP_MS: Final = 100
"""Liars answer each other's lies, too: without a gap between lies nothing else would be heard."""
WAYS_OF_ONE: Final = 5
OPENS_LOG_EPOCHS: Final = "lie: opens log epochs"
"""What every liar does besides, where there are operators."""
OPENING_SHARE: Final = 0.2

T = TypeVar("T")


class Way(Enum):
    """How it lies."""

    VOTES = "votes for everything, twice"
    NAMES = "votes in others' names"
    EQUIVOCATION = "offers different blocks to different nodes"
    CONTENTS = "offers invalid blocks"
    FORKS = "offers blocks on parents that do not entitle to it"
    TURNS = "offers blocks out of turn"
    IDLENESS = "offers empty blocks when there is nothing to do"
    SILENCE = "keeps silent towards some"
    REPLAY = "repeats old messages"
    RELABELLING = "gives old votes and certificates another epoch, view, kind or set"
    FORGERY = "makes certificates and proofs up"
    STRETCHING = "proves more than a proof is asked for"
    GARBAGE = "says nonsense"


class Liar(Node):
    """One of the f, in some of the ways."""

    def __init__(self, world: World, number: int, fault: Fault | None) -> None:
        super().__init__(world, number, fault)
        self.ways = frozenset(world.dice.sample(tuple(Way), WAYS_OF_ONE))
        self._next_lie = 0
        self._heard: list[Message] = []
        self._certificates: list[Certificate] = []
        self._finals: list[Certificate] = []
        self._proposals: list[Proposal] = []

    # When -------------------------------------------------------------------------------------

    def hear(self, event: Event) -> None:
        """Lie about it, and hear it."""
        if not self.alive:
            return
        if isinstance(event, Received):
            self._remember(event.message)
            if self.world.lying and self.world.now >= self._next_lie:
                self._next_lie = self.world.now + self.world.dice.randint(0, LIE_GAP_MS)
                self._lie(event.message)
        if self.alive:
            super().hear(event)

    def do(self, effects: Sequence[Effect]) -> None:
        """Not all that its machine says, and other things too."""
        if not self.world.lying:
            super().do(effects)
            return
        told: list[Effect] = []
        for effect in effects:
            if isinstance(effect, Persist) and isinstance(effect.record, Certificate):
                self._keep(self._certificates, effect.record)
                if effect.record.kind is VoteKind.FINALIZE:
                    self._finals = [*self._finals[-2:], effect.record]
                    if Way.STRETCHING in self.ways:
                        self.world.soon(self, self._stretch)
            if isinstance(effect, Send):
                told.extend(self._otherwise(effect))
            else:
                told.append(effect)
        super().do(told)

    def start(self) -> None:
        """As any node; now and then it lies of its own accord."""
        super().start()
        if Way.IDLENESS in self.ways:
            self.world.after(500, self._be_busy)

    def _be_busy(self) -> None:
        if self.world.lying and self.alive:
            self._offer_empty()
            self.world.after(self.world.dice.randint(30, 400), self._be_busy)

    def _remember(self, message: Message) -> None:
        if isinstance(message, Offer):
            self._keep(self._proposals, message.proposal)
        if isinstance(message, Certificate):
            self._keep(self._certificates, message)
        if self.world.dice.random() < 0.1:
            self._keep(self._heard, message)

    def _keep(self, kept: list[T], one: T) -> None:
        """A sample of all that there was: relabelling needs what is long gone."""
        if len(kept) < KEPT_MAX:
            kept.append(one)
        else:
            kept[self.world.dice.randrange(KEPT_MAX)] = one

    def _lie(self, message: Message) -> None:
        members = list(self.members())
        if self.number not in members:
            return
        me = members.index(self.number)
        lies: dict[Way, Callable[[], None]] = {
            Way.VOTES: lambda: self._vote_for(me, message),
            Way.NAMES: lambda: self._vote_as_others(me, message),
            Way.TURNS: lambda: self._take_turn(message),
            Way.REPLAY: self._replay,
            Way.RELABELLING: lambda: self._relabel(message),
            Way.FORGERY: lambda: self._forge(message),
            Way.STRETCHING: self._stretch,
            Way.GARBAGE: lambda: self._talk_nonsense(me),
        }
        mine = [way for way in lies if way in self.ways]
        if mine:
            lies[self.world.dice.choice(mine)]()

    def _tell(self, message: Message, way: Way) -> None:
        self.world.counted[f"lie: {way.value}"] += 1
        for to in self.members():
            if to != self.number and self.world.dice.random() < 0.6:
                self.world.network.send(self, (to,), message)

    # Votes ------------------------------------------------------------------------------------

    def _vote(self, me: int, kind: VoteKind, epoch: Epoch, view: int, digest: Hash) -> Vote:
        ballot = Ballot(kind, LEDGER, epoch, self.world.set_of(epoch.number).hash, view, digest)
        return Vote(me, kind, epoch, view, digest, self.scheme.sign_vote(ballot))

    def _vote_for(self, me: int, message: Message) -> None:
        if isinstance(message, Offer):
            header, digest = message.proposal.header, message.proposal.digest
            epoch, view = header.epoch, header.view
        elif isinstance(message, Cast):
            epoch, view, digest = message.vote.epoch, message.vote.view, message.vote.digest
        else:
            return
        for kind in VoteKind:
            what = NONE if kind is VoteKind.NULLIFY else digest
            if kind is VoteKind.NULLIFY or what != NONE:
                vote = self._vote(me, kind, epoch, view, what)
                self._tell(Cast(vote, self.world.dice.random() < 0.5), Way.VOTES)

    def _vote_as_others(self, me: int, message: Message) -> None:
        if not isinstance(message, Cast):
            return
        vote = message.vote
        digest = vote.digest
        if vote.kind is not VoteKind.NULLIFY and self._proposals:
            digest = self.world.dice.choice(self._proposals).digest
        mine = self._vote(me, vote.kind, vote.epoch, vote.view, digest)
        for other in range(len(self.members())):
            self._tell(Cast(replace(mine, validator=other), False), Way.NAMES)

    # Blocks -----------------------------------------------------------------------------------

    def _otherwise(self, effect: Send) -> list[Effect]:
        """What it says instead."""
        dice, offer = self.world.dice, effect.message
        if Way.SILENCE in self.ways and dice.random() < 0.3:
            self.world.counted[f"lie: {Way.SILENCE.value}"] += 1
            return []
        if not isinstance(offer, Offer) or dice.random() < 0.3:
            return [effect]
        header = offer.proposal.header
        others: list[Proposal] = []
        if Way.EQUIVOCATION in self.ways:
            self.world.counted[f"lie: {Way.EQUIVOCATION.value}"] += 1
            others += [offer.proposal, self._signed(replace(header, time=header.time + 1))]
        start = self.world.chains.end_of(header.parent_digest)
        if Way.CONTENTS in self.ways:
            self.world.counted[f"lie: {Way.CONTENTS.value}"] += 1
            others.append(self._signed(spoilt(header, start, self.copy, dice, self.world.chains)))
        if Way.FORKS in self.ways:
            others += self._forks(header)
        if self.world.operators and dice.random() < OPENING_SHARE:
            others += self._openings(header)
        if not others:
            return [effect]
        grounds = offer.grounds
        if grounds and dice.random() < 0.05:
            grounds = grounds * (VIEWS_AHEAD_MAX + 2)
        told: list[Effect] = []
        for to in effect.to:
            for other in dice.sample(others, dice.choice((1, 1, len(others)))):
                told.append(Send((to,), Offer(other, grounds)))
        return told

    def _openings(self, header: BlockHeader) -> list[Proposal]:
        """One at most, that opens a log epoch: the next one, one that is open, or a later one,
        whether the operators have said so or not.
        """
        chains = self.world.chains
        end = chains.end_of(header.parent_digest)
        if header.kind is not BlockKind.LEDGER or end is None:
            return []
        self.world.counted[OPENS_LOG_EPOCHS] += 1
        opening = opening_to(self.world.dice.randint(2, self.world.decided + 1))
        told = chains.opening_of(end, chains.log_of(header.parent_digest), opening)
        return [self._signed(with_contents(header, told))]

    def _signed(self, header: BlockHeader) -> Proposal:
        proposal = Proposal.of(header, self.scheme.sign_proposal)
        self.world.chains.know(proposal)
        self.blocks[proposal.digest] = proposal
        return proposal

    def _forks(self, header: BlockHeader) -> list[Proposal]:
        """One at most, on a block that it heard of lately."""
        chain = [block.proposal for block in self.committed[-3:]]
        found = candidates(header, (*self._proposals[-20:], *chain))
        if not found:
            return []
        parent = self.world.dice.choice(found)
        start = self.world.chains.end_of(parent.digest)
        if start is None or start > self.delivered:
            return []
        self.world.counted[f"lie: {Way.FORKS.value}"] += 1
        return [self._signed(fork(header, parent, start, self.copy, self.world.chains))]

    def _take_turn(self, message: Message) -> None:
        if isinstance(message, Offer):
            header = message.proposal.header
            other = self._signed(replace(header, time=header.time + 1))
            self._tell(Offer(other, message.grounds), Way.TURNS)

    def _offer_empty(self) -> None:
        """In its turn, though the log has nothing and all is final."""
        machine, final = self.machine, self.machine.final
        members = list(self.members())
        if self.number not in members or final is None or machine.view < 2:
            return
        header = final.proposal.header
        leader = members[(machine.view - 1) % len(members)]
        if leader != self.number or header.epoch != machine.epoch:
            return
        start = self.world.chains.end_of(final.proposal.digest)
        if start is None or start > self.delivered or header.view + 1 != machine.view:
            return
        empty = replace(
            header,
            view=machine.view,
            height=header.height + 1,
            parent_digest=final.proposal.digest,
            parent_view=header.view,
            time=max(header.time, self.now()),
        )
        told = self.world.chains.contents(self.copy, start, start)
        proposal = self._signed(with_contents(empty, told))
        self._tell(Offer(proposal, ()), Way.IDLENESS)

    # What was said before -----------------------------------------------------------------------

    def _replay(self) -> None:
        if self._heard:
            self._tell(self.world.dice.choice(self._heard), Way.REPLAY)

    def _relabel(self, message: Message) -> None:
        """An old vote or certificate with the epoch of now, or another view, kind, set."""
        dice = self.world.dice
        epoch = self.machine.epoch
        held: list[Vote | Certificate] = list(self._certificates)
        held += [one.vote for one in self._heard if isinstance(one, Cast)]
        if isinstance(message, Cast):
            held.append(message.vote)
        if not held:
            return
        old = dice.choice(held)
        view = dice.choice((old.view, old.view, old.view + 1, self.machine.view))
        kind = dice.choice((old.kind, *VoteKind))
        digest = old.digest
        if kind is VoteKind.NULLIFY:
            digest = NONE
        elif digest == NONE and self._proposals:
            digest = dice.choice(self._proposals).digest
        if dice.random() < 0.3 and digest != NONE and self._proposals:
            # All as it was but the block.
            epoch, view, kind = old.epoch, old.view, old.kind
            digest = dice.choice(self._proposals[-3:]).digest
        elif dice.random() < 0.5 and old.epoch != epoch:
            # All as it was but the epoch.
            view, kind, digest = old.view, old.kind, old.digest
        if isinstance(old, Vote):
            vote = replace(old, epoch=epoch, view=view, kind=kind, digest=digest)
            self._tell(Cast(vote, False), Way.RELABELLING)
            return
        of_set = self.world.set_of(epoch.number).hash
        if dice.random() < 0.3:
            of_set = old.validator_set_hash
        changed = replace(
            old, epoch=epoch, validator_set_hash=of_set, view=view, kind=kind, digest=digest
        )
        self._tell(changed, Way.RELABELLING)

    def _stretch(self) -> None:
        """True proofs, of tail blocks and over an epoch's end."""
        dice = self.world.dice
        for held in self._finals:
            proposal = self.world.chains.proposals.get(held.digest)
            if proposal is not None and proposal.header.kind is BlockKind.TAIL:
                self._tell(Committed(proposal, CommitProof(held, ())), Way.STRETCHING)
        if len(self.committed) > 1:
            first = dice.randrange(max(0, len(self.committed) - 20), len(self.committed) - 1)
            last = self.committed[dice.randrange(first + 1, len(self.committed))]
            above = self.committed[first + 1 : height_of(last)]
            headers = tuple(one.proposal.header_bytes for one in above)
            proof = CommitProof(last.proof.finalization, (*headers, *last.proof.headers))
            self._tell(Committed(self.committed[first].proposal, proof), Way.STRETCHING)

    # What there never was -----------------------------------------------------------------------

    def _forge(self, message: Message) -> None:
        dice = self.world.dice
        whole = [one for one in self._certificates[-5:] if one.votes]
        if whole:
            held = dice.choice(whole)
            if held.kind is VoteKind.NOTARIZE:
                fin = replace(held, kind=VoteKind.FINALIZE)
                self._tell(fin, Way.FORGERY)
                proposal = self.world.chains.proposals.get(held.digest)
                if proposal is not None:
                    for proof in (CommitProof(held, ()), CommitProof(fin, ())):
                        self._tell(Committed(proposal, proof), Way.FORGERY)
            short = replace(held, votes=held.votes[1:])
            double = replace(held, votes=(held.votes[0], *held.votes[:-1]))
            self._tell(dice.choice((short, double, replace(held, votes=()))), Way.FORGERY)
        if isinstance(message, Offer):
            self._forge_of(message.proposal)

    def _forge_of(self, proposal: Proposal) -> None:
        """Certificates of a block, all votes signed by itself."""
        header = proposal.header
        of_set = self.world.set_of(header.epoch.number)
        kind = self.world.dice.choice(tuple(VoteKind))
        digest = NONE if kind is VoteKind.NULLIFY else proposal.digest
        vote = self._vote(0, kind, header.epoch, header.view, digest)
        votes = tuple((number, vote.signatures) for number in range(of_set.quorum))
        made = Certificate(kind, header.epoch, of_set.hash, header.view, digest, votes)
        self._tell(made, Way.FORGERY)
        fin = replace(made, kind=VoteKind.FINALIZE, digest=proposal.digest)
        self._tell(Committed(proposal, CommitProof(fin, ())), Way.FORGERY)

    def _talk_nonsense(self, me: int) -> None:
        dice = self.world.dice
        epoch = dice.choice((self.machine.epoch, Epoch(0, 10**6), Epoch(3, 0)))
        view = dice.choice((0, 1, self.machine.view, self.machine.view + 10**6, 2**63 - 1))
        digest = Hash(dice.randbytes(32))
        kind = dice.choice(tuple(VoteKind))
        vote = Vote(dice.choice((me, 10**6, -1)), kind, epoch, view, digest, ())
        certificate = Certificate(kind, epoch, digest, view, digest, ((me, ()), (10**6, ())))
        said: list[Message] = [Cast(vote, dice.random() < 0.5), certificate]
        if self._proposals:
            proposal = dice.choice(self._proposals)
            strange = self._signed(replace(proposal.header, epoch=epoch, view=max(view, 1)))
            said += [
                Offer(strange, (certificate,)),
                Committed(strange, CommitProof(certificate, (b"no header",))),
                Committed(proposal, CommitProof(certificate, ())),
            ]
        self._tell(dice.choice(said), Way.GARBAGE)
