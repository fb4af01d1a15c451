"""`python -m tests.e2e.liar <file>`: a validator that lies, in the place of an honest one.

The production service, whose honest machine knows where things stand; what leaves it over its
streams is what the liar wants. It has its validator's key and nobody else's. `<file>` holds the
names of the ways it lies in, read again and again; `<file>.told` how many lies it told, by way.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from nocturne.consensus import codec, service
from nocturne.consensus.__main__ import main
from nocturne.consensus.peer_bounds import QUEUE_VALUES_MAX
from nocturne.consensus.peer_stream import Hear
from nocturne.consensus.peers import PEER_MESSAGE_BYTES_MAX, Peers
from nocturne.consensus.quorum.messages import Cast, Committed, Offer, Proposal, Vote
from nocturne.core.blocks import HEADER_BYTES_MAX, BlockHeader, sign_proposal
from nocturne.core.certificates import (
    Ballot,
    Certificate,
    CommitProof,
    Epoch,
    ValidatorSet,
    VoteKind,
    sign_vote,
)
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.keys import Key, Signer
from nocturne.runtime.settings import read_founding
from nocturne.runtime.telemetry import Metrics

NONE: Final = Hash(bytes(32))
KEPT_MAX: Final = 300
TICK_SECONDS: Final = 0.05


class Way(StrEnum):
    """How it lies."""

    EQUIVOCATION = "offers different blocks to different validators"
    VOTES = "votes twice"
    SILENCE = "keeps silent towards some, and at times towards all"
    FORGERY = "makes certificates and proofs up"
    STALENESS = "gives old votes and certificates another view or kind"
    REPLAY = "repeats old messages"
    OVERSIZE = "offers blocks that are too large, and values past every bound"
    GARBAGE = "says nonsense"


class LyingPeers(Peers):
    """Streams on which nothing is what its own validator said."""

    ways_file: Path

    def __init__(
        self,
        ledger_id: LedgerId,
        signer: Signer,
        addresses: Sequence[str],
        members: Callable[[], Collection[Key]],
        hear: Hear,
        settings: Any,
        metrics: Metrics,
    ) -> None:
        async def overhear(sender: Key, value: codec.Value) -> None:
            if isinstance(value, codec.Fetch) and value.digest in self._rivals:
                super(LyingPeers, self).send(sender, codec.Fetched(self._rivals[value.digest]))
            self._remember(value)
            await hear(sender, value)

        super().__init__(ledger_id, signer, addresses, members, overhear, settings, metrics)
        self._set: ValidatorSet = read_founding(settings.genesis_file).genesis.validator_set
        self._ledger = ledger_id
        self._pen = signer
        self._me = self._set.keys.index(signer.key)
        self._others = [key for key in self._set.keys if key != signer.key]
        self._dice = random.Random(os.urandom(8))
        self._ways: frozenset[Way] = frozenset()
        self._told: Counter[Way] = Counter()
        self._heard: deque[codec.Value] = deque(maxlen=KEPT_MAX)
        self._certificates: deque[Certificate] = deque(maxlen=KEPT_MAX)
        self._rivals: dict[Hash, Proposal] = {}
        self._rival_of: dict[Hash, Proposal] = {}
        self._offered: Proposal | None = None
        self._silent_at = 0

    # What its validator says --------------------------------------------------------------------

    def send(self, key: Key, value: codec.Value) -> None:
        """Say something else."""
        self._remember(value)
        for one in self._instead(key, value):
            super().send(key, one)

    def _instead(self, key: Key, value: codec.Value) -> Iterator[codec.Value]:
        place = self._others.index(key)
        if Way.SILENCE in self._ways and (
            place == 0 or self._silent_at % 80 < 40 or self._dice.random() < 0.3
        ):
            self._told[Way.SILENCE] += 1
            return
        if Way.EQUIVOCATION in self._ways and isinstance(value, Offer):
            self._told[Way.EQUIVOCATION] += 1
            rival = Offer(self._rival(value.proposal), value.grounds)
            half = len(self._others) // 2
            if place <= half:
                yield value
            if place >= half:
                # One of them is told both.
                yield rival
            return
        yield value
        if isinstance(value, Cast):
            vote = value.vote
            if Way.EQUIVOCATION in self._ways and vote.digest in self._rival_of:
                digest = self._rival_of[vote.digest].digest
                yield Cast(self._vote(vote.kind, vote.epoch, vote.view, digest), value.again)
            if Way.VOTES in self._ways:
                for other in self._contradictions(vote):
                    self._told[Way.VOTES] += 1
                    yield Cast(other, value.again)

    def _rival(self, proposal: Proposal) -> Proposal:
        """The same a millisecond later: as valid, and another block."""
        rival = self._rival_of.get(proposal.digest)
        if rival is None:
            rival = self._signed(replace(proposal.header, time=proposal.header.time + 1))
            self._rival_of[proposal.digest] = rival
            self._rivals[rival.digest] = rival
        return rival

    def _signed(self, header: BlockHeader) -> Proposal:
        return Proposal.of(header, lambda digest: sign_proposal(self._pen, digest))

    def _contradictions(self, vote: Vote) -> Iterator[Vote]:
        other = Hash(self._dice.randbytes(32))
        # One offence a view: a validator is accused of no more than one in each.
        if (vote.kind is VoteKind.NOTARIZE) is (vote.view % 2 == 0):
            return
        match vote.kind:
            case VoteKind.NOTARIZE:
                yield self._vote(VoteKind.NOTARIZE, vote.epoch, vote.view, other)
            case VoteKind.FINALIZE:
                yield self._vote(VoteKind.NULLIFY, vote.epoch, vote.view, NONE)
                yield self._vote(VoteKind.FINALIZE, vote.epoch, vote.view, other)
            case VoteKind.NULLIFY:
                yield self._vote(VoteKind.FINALIZE, vote.epoch, vote.view, other)

    def _vote(self, kind: VoteKind, epoch: Epoch, view: int, digest: Hash) -> Vote:
        ballot = Ballot(kind, self._ledger, epoch, self._set.hash, view, digest)
        return Vote(self._me, kind, epoch, view, digest, sign_vote(self._pen, ballot))

    # What it says of its own accord --------------------------------------------------------------

    async def run(self) -> None:
        """Talk and lie."""
        lying = asyncio.ensure_future(self._lie_for_ever())
        try:
            await super().run()
        finally:
            lying.cancel()

    async def _lie_for_ever(self) -> None:
        told = self.ways_file.with_suffix(".told")
        lies: dict[Way, Callable[[], None]] = {
            Way.FORGERY: self._forge,
            Way.STALENESS: self._relabel,
            Way.REPLAY: self._replay,
            Way.OVERSIZE: self._exceed,
            Way.GARBAGE: self._talk_nonsense,
        }
        while True:
            self._silent_at += 1
            names = self.ways_file.read_text().split()
            self._ways = frozenset(Way[name] for name in names)
            for way, lie in lies.items():
                if way in self._ways:
                    lie()
            fresh = told.with_suffix(".new")
            fresh.write_text(json.dumps({way.name: count for way, count in self._told.items()}))
            fresh.replace(told)
            await asyncio.sleep(TICK_SECONDS)

    def _remember(self, value: codec.Value) -> None:
        if isinstance(value, Certificate):
            self._certificates.append(value)
        if isinstance(value, Offer):
            self._offered = value.proposal
            self._certificates.extend(value.grounds)
        if self._dice.random() < 0.3:
            self._heard.append(value)

    def _tell(self, value: codec.Value, way: Way) -> None:
        for key in self._others:
            if self._dice.random() < 0.7:
                self._told[way] += 1
                super().send(key, value)

    def _forge(self) -> None:
        for held in list(self._certificates)[-3:]:
            fin = replace(held, kind=VoteKind.FINALIZE)
            one, *others = held.votes
            made = [
                fin,
                replace(held, votes=held.votes[1:]),
                replace(held, votes=(one, *[(number, one[1]) for number, _ in others])),
                replace(held, votes=tuple((number, one[1]) for number, _ in held.votes)),
            ]
            self._tell(self._dice.choice(made), Way.FORGERY)
            if self._offered is not None and held.kind is VoteKind.NOTARIZE:
                proof = CommitProof(replace(fin, digest=self._offered.digest), ())
                self._tell(Committed(self._offered, proof), Way.FORGERY)
        if self._offered is None:
            return
        # Of one's own votes alone, in all names.
        header, digest = self._offered.header, self._offered.digest
        vote = self._vote(VoteKind.FINALIZE, header.epoch, header.view, digest)
        votes = tuple((number, vote.signatures) for number in range(self._set.quorum))
        alone = Certificate(vote.kind, header.epoch, self._set.hash, header.view, digest, votes)
        self._tell(alone, Way.FORGERY)
        self._tell(Committed(self._offered, CommitProof(alone, ())), Way.FORGERY)
        stranger = replace(vote, validator=(self._me + 1) % len(self._set.keys))
        self._tell(Cast(stranger, True), Way.FORGERY)

    def _relabel(self) -> None:
        held: list[Vote | Certificate] = [*self._certificates]
        held += [one.vote for one in self._heard if isinstance(one, Cast)]
        if not held or self._offered is None:
            return
        old, header = self._dice.choice(held), self._offered.header
        self._tell_of(old)
        self._tell_of(replace(old, view=header.view + self._dice.choice((0, 1))))
        self._tell_of(replace(old, epoch=Epoch(0, old.epoch.number + 1)))
        if old.kind is not VoteKind.NULLIFY:
            self._tell_of(replace(old, kind=VoteKind.FINALIZE))
            self._tell_of(replace(old, digest=self._offered.digest, view=header.view))

    def _tell_of(self, old: Vote | Certificate) -> None:
        self._tell(Cast(old, True) if isinstance(old, Vote) else old, Way.STALENESS)

    def _replay(self) -> None:
        for _ in range(min(10, len(self._heard))):
            self._tell(self._dice.choice(self._heard), Way.REPLAY)

    def _exceed(self) -> None:
        if self._offered is None:
            return
        header = self._offered.header
        view = header.view + 1 + (self._me - header.view) % len(self._set.keys)
        large = replace(header, view=view, leader_proof=bytes(HEADER_BYTES_MAX - 16 * 1024))
        many = replace(header, view=view, record_count=2**31 - 1)
        far = replace(
            header,
            view=view,
            ranges=tuple(replace(one, end=2**40) for one in header.ranges),
        )
        # A megabyte each: now and then, or nothing else would be said.
        made = (many, far, large) if self._dice.random() < 0.1 else (many, far)
        for one in made:
            self._tell(Offer(self._signed(one), ()), Way.OVERSIZE)
        if self._dice.random() < 0.1:
            self._say_bytes(bytes(codec.VALUE_BYTES_MAX + 1), Way.OVERSIZE)
        if self._dice.random() < 0.02:
            self._say_bytes(bytes(PEER_MESSAGE_BYTES_MAX + 1), Way.OVERSIZE)

    def _talk_nonsense(self) -> None:
        dice = self._dice
        self._say_bytes(dice.randbytes(dice.choice((0, 1, 40, 1000))), Way.GARBAGE)
        if self._heard:
            data = bytearray(codec.encode(dice.choice(self._heard)))
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
            self._say_bytes(bytes(data), Way.GARBAGE)
            self._say_bytes(bytes(data[: dice.randrange(len(data))]), Way.GARBAGE)
        view = dice.choice((1, 2**31, 2**63 - 1))
        digest = Hash(dice.randbytes(32))
        strange = self._vote(dice.choice(tuple(VoteKind)), Epoch(3, 10**6), view, digest)
        self._tell(Cast(replace(strange, validator=10**6), True), Way.GARBAGE)
        self._tell(Cast(strange, False), Way.GARBAGE)
        if dice.random() < 0.05:
            # No envelope at all: it costs the stream.
            peer = self._peer(dice.choice(self._others))
            if peer.speaks_over is not None:
                self._told[Way.GARBAGE] += 1
                stream = peer.speaks_over
                stream.seal = _nonsense  # type: ignore[method-assign]
                stream.wake.set()

    def _say_bytes(self, data: bytes, way: Way) -> None:
        for key in self._others:
            peer = self._peer(key)
            if peer.speaks_over is not None:
                self._told[way] += 1
                peer.outgoing.add(data, QUEUE_VALUES_MAX)
                peer.speaks_over.wake.set()


def _nonsense(content: object) -> bytes:
    return os.urandom(100)


if __name__ == "__main__":
    LyingPeers.ways_file = Path(sys.argv.pop())
    vars(service)["Peers"] = LyingPeers
    sys.exit(main())
