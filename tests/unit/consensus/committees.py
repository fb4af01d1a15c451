"""Several validators without I/O, their messages and timers, and one log that each reads itself."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush

from tests.unit.consensus.ledgers import NOW, TOPIC, Ledger, genesis, machine_on, signer

from nocturne.consensus.bodies import part_of
from nocturne.consensus.chain import Chain, Executed, Made
from nocturne.consensus.gathering import Gathering
from nocturne.consensus.offers import AskPart, Part
from nocturne.consensus.quorum.messages import Committed, Proposal, Record
from nocturne.consensus.replica import (
    Action,
    Ask,
    AskBody,
    Dismiss,
    Keep,
    Look,
    Publish,
    Refuse,
    Replica,
    Report,
    Say,
    Stand,
    Wake,
)
from nocturne.core.blocks import LogRecord
from nocturne.core.certificates import CommitProof
from nocturne.core.keys import Ed25519Signer, Key
from nocturne.core.record_headers import parse_headers

LATENCY_MS = 3


@dataclass
class Member:
    """One validator, and what it has said that it keeps."""

    signer: Ed25519Signer
    replica: Replica
    kept: list[Record | Executed] = field(default_factory=list)
    published: list[Made] = field(default_factory=list)
    reported: list[Report] = field(default_factory=list)
    refused: list[Refuse] = field(default_factory=list)
    stood: list[str] = field(default_factory=list)
    """Why its intake stands, by what a committed block has."""
    fetched: int = 0
    """Blocks that it published whose records its own log had not brought."""
    withheld: bool = False
    """Whether its log brings nothing for now."""
    read: int = 0
    """How much of the log its consumer has delivered."""
    topic: bytes = TOPIC
    """The topic that it reads."""
    alive: bool = True
    timer: int = 0
    life: int = 0


class Committee:
    """`n` validators in one time, deterministic by `seed`."""

    def __init__(self, n: int, seed: int = 0, epoch_length: int = 1000) -> None:
        self.dice = random.Random(seed)
        self.signers = tuple(signer(100 + number) for number in range(n))
        self.ledger = Ledger(genesis(epoch_length, validators=self.signers))
        self.now = 0
        self._soon: list[tuple[int, int, Callable[[], None]]] = []
        self._count = 0
        self.topic = TOPIC
        self.loses: Callable[[Member, Member, Say], bool] = lambda sender, to, say: False
        self.tampers: Callable[[Member, Part], Part | None] = lambda giver, part: part
        """What of a block's bytes is really given."""
        self.members = [self._fresh(one) for one in self.signers]

    def _fresh(self, one: Ed25519Signer) -> Member:
        chain = Chain(self.ledger.founding, None)
        gathering = Gathering(TOPIC, chain.state.positions, {}, {})
        return Member(one, Replica(machine_on(chain, one), chain, gathering))

    def write(self, *sessions: str) -> None:
        """Commands go to the log; every living member reads it soon."""
        self.ledger.write(*sessions)
        for member in self.members:
            self.after(self.dice.randint(0, 2 * LATENCY_MS), lambda one=member: self.read(one))

    def read(self, member: Member) -> None:
        """Its consumer delivers what the log has."""
        gathering = member.replica.gathering
        if not member.alive or member.topic != self.topic or gathering.stands or member.withheld:
            return
        for partition, offset, prepared in self.ledger.records[member.read :]:
            if offset < gathering.starts[partition]:
                continue
            if gathering.is_certified(partition, offset):
                gathering.compare(partition, offset, prepared.record_hash)
            else:
                gathering.admit(partition, offset, prepared)
        member.read = len(self.ledger.records)
        self.do(member, member.replica.look(self.clock))

    def lose_log(self, topic: bytes) -> list[LogRecord]:
        """The commands topic is made anew, and everyone's intake stands for it. What it had."""
        lost = [prepared for _, _, prepared in self.ledger.records]
        self.topic = topic
        self.ledger.records.clear()
        self.ledger.ends = [0] * len(self.ledger.ends)
        self.ledger.gathering = Gathering(topic, self.ledger.founding.positions, {}, {})
        for member in self.members:
            member.replica.gathering.stand()
        return [LogRecord(one.key, one.value, parse_headers(one.headers)) for one in lost]

    def begin_anew(self) -> None:
        """Everyone whose chain goes on with the new topic reads it from its positions on."""
        for member in self.members:
            positions = member.replica.chain.state.positions
            if {one.topic_uuid for one in positions} <= {self.topic, bytes(16)}:
                member.topic, member.read = self.topic, 0
                member.replica.gathering.begin(self.topic, positions, {})
                self.read(member)

    @property
    def clock(self) -> int:
        """ms since 1970."""
        return NOW + self.now

    def after(self, delay: int, happen: Callable[[], None]) -> None:
        """In so many ms."""
        self._count += 1
        heappush(self._soon, (self.now + delay, self._count, happen))

    def run(self, ms: int) -> None:
        """Let so much time go by."""
        end = self.now + ms
        while self._soon and self._soon[0][0] <= end:
            self.now, _, happen = heappop(self._soon)
            happen()
        self.now = end

    def do(self, member: Member, actions: list[Action]) -> None:
        """Carry out what a member says."""
        life = member.life
        for action in actions:
            match action:
                case Keep(record):
                    member.kept.append(record)
                case Say():
                    self.send(member, action)
                case Wake(timer, delay):
                    member.timer = timer
                    self.after(delay, lambda timer=timer: self.fire(member, life, timer))
                case Look(delay):
                    self.after(delay, lambda: self.look(member, life))
                case Ask(digest):
                    for other in self.members:
                        found = other.replica.proposal(digest) if other.alive else None
                        if found is not None:
                            self.after(LATENCY_MS, lambda one=found: self.fetched(member, one))
                case AskBody(to, ask):
                    self.after(LATENCY_MS, lambda to=to, ask=ask: self.ask(member, to, ask))
                case Refuse():
                    member.refused.append(action)
                case Publish(made, rank, is_own):
                    member.published.append(made)
                    member.fetched += not is_own
                    if rank == 0:
                        self.after(LATENCY_MS, lambda one=made: self.tell(one))
                case Report():
                    member.reported.append(action)
                case Dismiss():
                    pass
                case Stand(lost):
                    member.stood.append(str(lost))

    def send(self, sender: Member, say: Say) -> None:
        for other in self.members:
            if other.signer.key in say.to and not self.loses(sender, other, say):
                self.after(
                    self.dice.randint(1, 2 * LATENCY_MS),
                    lambda to=other: self.hear(sender, to, say),
                )

    def hear(self, sender: Member, to: Member, say: Say) -> None:
        if to.alive:
            self.do(to, to.replica.hear(sender.signer.key, say.message, self.clock))

    def fetched(self, member: Member, proposal: Proposal) -> None:
        if member.alive:
            self.do(member, member.replica.fetched(proposal, self.clock))

    def ask(self, member: Member, to: Key, ask: AskPart) -> None:
        """A member asks another one for a part of a block."""
        (giver,) = [one for one in self.members if one.signer.key == to]
        encoded = giver.replica.body(ask.digest) if giver.alive else None
        data = None if encoded is None else part_of(encoded, ask.index)
        if data is None:
            return
        part = self.tampers(giver, Part(ask.digest, ask.index, data))
        if part is not None:
            self.after(LATENCY_MS, lambda: self.give(giver, member, part))

    def give(self, giver: Member, member: Member, part: Part) -> None:
        if member.alive:
            self.do(member, member.replica.given(giver.signer.key, part, self.clock))

    def fire(self, member: Member, life: int, timer: int) -> None:
        if member.alive and member.life == life and member.timer == timer:
            self.do(member, member.replica.fired(timer, self.clock))

    def look(self, member: Member, life: int) -> None:
        if member.alive and member.life == life:
            self.do(member, member.replica.look(self.clock))

    def join(self, number: int) -> Member:
        """One more, whose key is in no set, with an empty home."""
        member = self._fresh(signer(number))
        self.members.append(member)
        return member

    def control(self, record: bytes) -> None:
        """An operator's record comes to one member, which tells the others."""
        for member in self.members:
            if member.alive:
                self.do(member, member.replica.add_control(record, self.clock))

    def tell(self, made: Made) -> None:
        """The topic has it: those who are behind take it."""
        height = made.block.header.height
        for member in self.members:
            if member.alive and height == member.replica.height + 1:
                self.bring(member, made)
            elif member.alive and height <= member.replica.height:
                self.bring_body(member, made)

    def bring(self, member: Member, made: Made) -> None:
        """A published block comes to a member."""
        self.do(member, member.replica.hear(None, committed(made), self.clock))
        self.bring_body(member, made)

    def bring_body(self, member: Member, made: Made) -> None:
        """The body of a block that is committed there already."""
        self.do(member, member.replica.bring_body(committed(made), made.block, self.clock))

    def kill(self, member: Member) -> None:
        """Nothing that it was told from here on is heard."""
        member.alive = False
        member.life += 1

    def digests(self, member: Member) -> list[bytes]:
        """Of the blocks that it published, in order."""
        return [one.block.digest for one in member.published]


def committed(made: Made) -> Committed:
    """A published block's header with its proof."""
    block = made.block
    assert isinstance(block.proof, CommitProof)
    proposal = Proposal(block.header, block.header_bytes, block.digest, block.leader_signatures)
    return Committed(proposal, block.proof)
