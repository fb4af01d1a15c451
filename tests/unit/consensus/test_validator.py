"""A validator's shell: what leaves it and when, what makes it refuse, and whom it believes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.consensus.committees import Committee, Member
from tests.unit.consensus.test_bodies_shell import Wire

from nocturne.consensus import asking_votes, codec
from nocturne.consensus.asking_votes import AskingVotes
from nocturne.consensus.own_votes import HeardVotes
from nocturne.consensus.quorum.messages import Accuse, Cast, Offer, Vote
from nocturne.consensus.replica import Keep, Report
from nocturne.consensus.store import Kept
from nocturne.consensus.validator import Validator
from nocturne.core.certificates import Ballot, CommitProof, Epoch, VoteKind, sign_vote
from nocturne.core.conflicts import Certified, conflicting_blocks
from nocturne.core.errors import Halt
from nocturne.core.evidence import Evidence, Offence, check_evidence
from nocturne.core.identifiers import Hash
from nocturne.core.modes import Cause, DegradedFound

SECONDS_MAX = 30.0
TURNS = 100
"""Of the loop: more than anything takes that waits for nothing."""
FIRST = Epoch(0, 0)


class HeldStore:
    """A disk that does not sync until it is told to."""

    def __init__(self) -> None:
        self.keeping = threading.Event()
        self.synced = threading.Event()
        self.kept: list[Kept] = []
        self.snapshot = None

    def keep(self, kept: Sequence[Kept]) -> None:
        self.keeping.set()
        assert self.synced.wait(SECONDS_MAX)
        self.kept += kept

    def note_block(self, block: object, sets: object) -> None:
        return None


class FakePublisher:
    """What goes to the topics."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.shown: list[Evidence] = []

    def take(self, publishing: Any) -> None:
        self.taken.append(publishing.publish.made.block.header.height)

    def show(self, evidence: Evidence) -> None:
        self.shown.append(evidence)

    def look(self) -> None:
        return None

    async def follow(self, take: object) -> None:
        await asyncio.Event().wait()


class Shell:
    """The shell of a committee's member, beside the others' silence."""

    def __init__(self, n: int) -> None:
        self.committee = Committee(n)
        self.member: Member = self.committee.members[0]
        self.wire = Wire(self.committee)
        self.subject: Validator = self.wire.add(self.member)
        self.store = HeldStore()
        self.publisher = FakePublisher()
        self.subject._store = self.store  # type: ignore[assignment]
        self.subject._publisher = self.publisher  # type: ignore[assignment]
        self.subject._heard = HeardVotes()

    @property
    def said(self) -> list[codec.Value]:
        return [codec.decode(data) for _, _, data in self.wire.said]

    @property
    def others(self) -> list[Member]:
        return self.committee.members[1:]

    def gather(self) -> None:
        """Its log brings a record, and the replica looks."""
        ledger = self.committee.ledger
        ledger.write("a")
        for partition, offset, prepared in ledger.records:
            self.member.replica.gathering.admit(partition, offset, prepared)
        self.subject._step(self.subject._replica.look)

    def vote(self, of: Member, kind: VoteKind, digest: Hash, view: int = 1) -> Vote:
        ledger = self.committee.ledger
        ballot = Ballot(kind, ledger.ledger_id, FIRST, ledger.validators.hash, view, digest)
        index = self.committee.members.index(of)
        return Vote(index, kind, FIRST, view, digest, sign_vote(of.signer, ballot))

    async def leaves_nothing_before_the_sync(self, left: Callable[[], bool]) -> None:
        """Once the disk is busy with what was to be kept, nothing goes; then it does."""
        writing = asyncio.ensure_future(self.subject._write())
        try:
            assert await asyncio.to_thread(self.store.keeping.wait, SECONDS_MAX)
            await turns()
            assert not left()
            self.store.synced.set()
            await until(left)
        finally:
            self.store.synced.set()
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            self.close()

    def close(self) -> None:
        if self.subject._wake is not None:
            self.subject._wake.cancel()
        self.subject._disk.shutdown()


async def turns() -> None:
    for _ in range(TURNS):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SECONDS_MAX):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


# What leaves it --------------------------------------------------------------------------------


def test_no_message_leaves_before_what_was_to_be_kept_is_durable() -> None:
    async def go() -> None:
        one = Shell(4)
        one.gather()
        await one.leaves_nothing_before_the_sync(lambda: bool(one.wire.said))
        assert {type(value) for value in one.said} == {Offer, Cast}
        votes = {value.vote for value in one.said if isinstance(value, Cast)}
        assert votes == {kept for kept in one.store.kept if isinstance(kept, Vote)}

    asyncio.run(go())


def test_no_block_goes_to_the_topic_before_its_commit_is_durable() -> None:
    async def go() -> None:
        one = Shell(1)
        one.gather()
        await one.leaves_nothing_before_the_sync(lambda: bool(one.publisher.taken))
        assert one.publisher.taken == [1]

    asyncio.run(go())


def test_who_signs_two_votes_of_a_view_is_shown_to_all_once_the_own_votes_are_durable() -> None:
    async def go() -> None:
        one = Shell(4)
        liar = one.others[0]
        first, second = (
            one.vote(liar, VoteKind.NOTARIZE, Hash(bytes([number]) * 32)) for number in (2, 1)
        )
        ledger = one.committee.ledger
        own = one.vote(one.member, VoteKind.NOTARIZE, Hash(b"3" * 32))
        accusation = Report(Accuse(1, first, second), ledger.validators)
        one.subject._do([Keep(own), accusation])
        await one.leaves_nothing_before_the_sync(lambda: bool(one.publisher.shown))
        (evidence,) = one.publisher.shown
        found = check_evidence(evidence, ledger.ledger_id, ledger.validators)
        assert (found, evidence.validator) == (Offence.TWO_NOTARIZATIONS, 1)

    asyncio.run(go())


# Its own votes ---------------------------------------------------------------------------------


async def starting(one: Shell, go: Callable[[list[str]], Awaitable[None]]) -> None:
    """Let it start, until `go` is done with it. What happened: votes are restored, others heard."""
    subject, replica, ledger = one.subject, one.member.replica, one.committee.ledger
    happened: list[str] = []
    restore, hear = replica.restore, replica.hear

    def restored(records: Any, now: int) -> Any:
        happened.append("restored")
        return restore(records, now)

    def heard(sender: Any, message: Any, now: int) -> Any:
        happened.append("heard")
        return hear(sender, message, now)

    async def run(gather: object) -> None:
        await asyncio.Event().wait()

    async def set_serving(serving: bool) -> None:
        happened.append("serving")

    replica.restore = restored  # type: ignore[method-assign]
    replica.hear = heard  # type: ignore[method-assign]
    own = one.member.signer.key
    subject._asking = AskingVotes(ledger.ledger_id, own, subject._peers.send)
    subject._desk = SimpleNamespace(open=lambda *_: None)  # type: ignore[assignment]
    subject._reading = SimpleNamespace(run=run, state=None)  # type: ignore[assignment]
    recovered: Any = SimpleNamespace(records=())
    server: Any = SimpleNamespace(set_serving=set_serving)
    starts = asyncio.ensure_future(subject._certify(recovered, server))
    try:
        await go(happened)
    finally:
        starts.cancel()
        await asyncio.gather(starts, return_exceptions=True)
        one.close()


def test_it_asks_all_for_its_newest_votes_and_takes_part_once_a_quorum_has_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asking_votes, "ASK_SECONDS", 0.001)

    async def all_of_it() -> None:
        one = Shell(4)
        keys = [other.signer.key for other in one.others]

        async def go(happened: list[str]) -> None:
            await until(lambda: {to for _, to, _ in one.wire.said} == {*keys})
            assert {type(value) for value in one.said} == {codec.AskVotes}
            vote = one.vote(one.others[0], VoteKind.NULLIFY, Hash(bytes(32)))
            await one.subject.hear(keys[0], Cast(vote, again=False))
            await one.subject.hear(keys[0], codec.NewestVotes(()))
            await one.subject.hear(keys[0], codec.NewestVotes(()))
            asked = len(one.wire.said)
            await until(lambda: len(one.wire.said) > asked + 4)
            assert happened == []
            await one.subject.hear(keys[1], codec.NewestVotes(()))
            await until(lambda: "serving" in happened)
            assert happened == ["restored", "serving"]
            await one.subject.hear(keys[0], Cast(vote, again=False))
            assert happened == ["restored", "serving", "heard"]

        await starting(one, go)

    asyncio.run(all_of_it())


def test_a_vote_of_its_own_that_its_journal_lacks_makes_it_refuse() -> None:
    async def all_of_it() -> None:
        one = Shell(4)
        lost = one.vote(one.member, VoteKind.NOTARIZE, Hash(b"7" * 32), view=7)

        async def go(happened: list[str]) -> None:
            await until(lambda: bool(one.wire.said))
            await one.subject.hear(one.others[0].signer.key, codec.NewestVotes((lost,)))
            fault = one.subject._fault
            assert fault.done()
            with pytest.raises(Halt, match="older copy"):
                fault.result()
            assert happened == []

        await starting(one, go)

    asyncio.run(all_of_it())


# Whom it believes ------------------------------------------------------------------------------


def certified(committee: Committee, *sessions: str) -> Certified:
    committee.write(*sessions)
    committee.run(1_000)
    block = committee.members[0].published[0].block
    assert isinstance(block.proof, CommitProof)
    return Certified(block.header_bytes, block.proof)


def test_it_goes_on_whoever_says_that_he_halts_or_that_the_chain_is_two() -> None:
    async def go() -> None:
        one = Shell(4)
        own, other = certified(Committee(4), "a"), certified(Committee(4), "x")
        ledger_id = one.committee.ledger.ledger_id
        unproved = conflicting_blocks(ledger_id, own, Certified(other.header_bytes, own.proof))
        for member in one.others:
            for value in (
                codec.Halting(False),
                codec.Halting(True),
                codec.Conflicting(unproved),
            ):
                await one.subject.hear(member.signer.key, value)
        assert not one.subject._fault.done()
        assert one.wire.count(one.member, "peer_messages_refused_total") == len(one.others)
        keys = tuple(member.signer.key for member in one.others)
        assert one.subject._said_halts.saw_another_log(keys) == len(keys)
        one.close()

    asyncio.run(go())


def test_a_proof_of_two_histories_degrades_it_whoever_brings_it() -> None:
    async def go() -> None:
        one = Shell(4)
        own, other = certified(Committee(4), "a"), certified(Committee(4), "x")
        proof = conflicting_blocks(one.committee.ledger.ledger_id, own, other)
        await one.subject.hear(one.others[0].signer.key, codec.Conflicting(proof))
        with pytest.raises(DegradedFound) as found:
            one.subject._fault.result()
        assert found.value.degraded.cause is Cause.CONFLICTING_COMMIT_PROOFS
        assert found.value.degraded.conflict == proof
        one.close()

    asyncio.run(go())
