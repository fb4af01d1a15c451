"""Blocks whose records the own log does not bring: others give their bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.consensus.committees import Committee, Member
from tests.unit.consensus.ledgers import Ledger, signer
from tests.unit.consensus.test_log_lost import opening
from tests.unit.consensus.test_replica import agreed, records_of
from tests.unit.consensus.test_restarts import Disk

from nocturne.consensus import bodies, serving
from nocturne.consensus.bodies import Bodies, Newest, Wanted, part_of
from nocturne.consensus.chain import Executed
from nocturne.consensus.gathering import LogLost
from nocturne.consensus.measures import Measures
from nocturne.consensus.offers import PART_BYTES, AskPart, Part
from nocturne.consensus.quorum.messages import (
    Cast,
    Check,
    Checked,
    Committed,
    Effect,
    Event,
    Vote,
)
from nocturne.consensus.replica import Action, Keep, Say
from nocturne.consensus.serving import Serving
from nocturne.core.blocks import BLOCK_BYTES_MAX, Block, decode_block, encode_block
from nocturne.core.certificates import VoteKind
from nocturne.core.errors import PeerFault
from nocturne.core.identifiers import Hash
from nocturne.core.keys import Key
from nocturne.runtime.telemetry import Metrics


def notarized_by(member: Member) -> set[bytes]:
    """Blocks that it voted to notarize."""
    votes = [one for one in member.kept if isinstance(one, Vote)]
    return {bytes(one.digest) for one in votes if one.kind is VoteKind.NOTARIZE}


def with_ranges(member: Member) -> set[bytes]:
    return {bytes(one.block.digest) for one in member.published if one.block.header.ranges}


def withheld(committee: Committee) -> Member:
    """A member whose log stops bringing records; the others go on, and nothing is published."""
    committee.tell = lambda made: None  # type: ignore[method-assign]
    committee.write("a")
    committee.run(1_000)
    member = committee.members[3]
    member.withheld = True
    for number in range(6):
        committee.write(f"s{number % 3}", f"t{number}")
        committee.run(100)
    return member


def test_a_validator_whose_log_withholds_records_follows_by_what_others_give() -> None:
    committee = Committee(4)
    member = withheld(committee)
    committee.run(20_000)
    assert records_of(member) == 13
    assert member.fetched > 0
    assert agreed(committee) == committee.digests(member)
    own = with_ranges(member) & notarized_by(member)
    assert len(own) == len(with_ranges(member)) - member.fetched


def test_records_that_come_after_all_are_compared_and_not_executed_again() -> None:
    committee = Committee(4)
    member = withheld(committee)
    committee.run(20_000)
    before = committee.digests(member)
    member.withheld = False
    committee.read(member)
    assert member.replica.gathering.waiting == 0
    assert not member.replica.gathering.has_offsets
    assert committee.digests(member) == before
    committee.write("after")
    committee.run(2_000)
    assert {records_of(one) for one in committee.members} == {14}
    assert bytes(member.published[-1].block.digest) in notarized_by(member)


def test_records_that_come_after_all_and_are_others_mean_that_the_log_is_lost() -> None:
    committee = Committee(4)
    member = withheld(committee)
    committee.run(20_000)
    records = committee.ledger.records
    partition, offset, prepared = records[member.read]
    records[member.read] = (
        partition,
        offset,
        replace(prepared, record_hash=records[0][2].record_hash),
    )
    member.withheld = False
    with pytest.raises(LogLost, match="the log was changed"):
        committee.read(member)


def test_what_the_log_brought_of_a_block_before_is_compared_with_what_others_give() -> None:
    committee = Committee(4)
    committee.write("a")
    committee.run(1_000)
    member = committee.members[3]
    member.withheld = True
    committee.write("b", "c", "b", "c", "b", "c")
    partition, offset, prepared = committee.ledger.records[1]
    changed = replace(prepared, record_hash=committee.ledger.records[0][2].record_hash)
    member.replica.gathering.admit(partition, offset, changed)
    committee.run(20_000)
    [cause] = member.stood
    assert "is not that of the quorum" in cause
    assert member.replica.gathering.stands
    # It goes on with what others give, and votes for none of it.
    committee.write("b", "c")
    committee.run(20_000)
    assert len(agreed(committee)) >= 3
    assert with_ranges(member) - notarized_by(member)


def misled(committee: Committee, number: int) -> Member:
    """A member whose log brings other records than the others', of blocks that these commit."""
    committee.write("a")
    committee.run(1_000)
    member = committee.members[number]
    member.withheld = True
    committee.write("b", "c")
    for partition, offset, prepared in committee.ledger.records[member.read :]:
        changed = replace(prepared, record_hash=committee.ledger.records[0][2].record_hash)
        member.replica.gathering.admit(partition, offset, changed)
    member.read = len(committee.ledger.records)
    committee.run(1_000)
    return member


def test_whose_log_is_another_than_a_committed_blocks_takes_no_more_of_it_and_follows() -> None:
    committee = Committee(4)
    member = misled(committee, 3)
    [cause] = member.stood
    assert "this validator's log is not that of the quorum: block" in cause
    assert "has other records from offset" in cause
    for number in range(6):
        committee.write(f"s{number}")
        committee.run(3_000)
    assert len(agreed(committee)) >= 6
    assert member.stood == [cause]
    assert member.fetched >= 6


def test_a_log_epoch_is_opened_though_one_saw_another_log_and_one_is_away() -> None:
    """The broker lost certified records that one had not read, and has others in their place."""
    committee = Committee(4)
    committee.tell = lambda made: None  # type: ignore[method-assign]
    slow = misled(committee, 2)
    for member in committee.members:
        if member is not slow:
            member.replica.gathering.stand()
    committee.members[3].alive = False
    assert slow.stood
    committee.control(opening(committee, 0, 1))
    committee.run(20_000)
    living = committee.members[:3]
    assert all(any(one.block.control for one in member.published) for member in living)


def test_nobody_is_asked_while_the_own_log_brings_its_records_in_time() -> None:
    committee = Committee(4)
    asked: list[Part] = []
    committee.tampers = lambda giver, part: asked.append(part)
    for number in range(20):
        committee.write(f"s{number % 4}")
        committee.run(50)
    committee.run(5_000)
    assert {records_of(one) for one in committee.members} == {20}
    assert asked == []


def no_block(part: Part) -> Part:
    return replace(part, data=part.data[:-1] + bytes([part.data[-1] ^ 1]))


def other_records(part: Part) -> Part:
    """Under the header of the block."""
    block = decode_block(part.data[4:])
    if not block.records:
        return no_block(part)
    gone = replace(block.records[0], value=b"other")
    encoded = encode_block(replace(block, records=(gone, *block.records[1:])))
    data = part_of(encoded, 0)
    assert data is not None
    return replace(part, data=data)


def no_records(part: Part) -> Part:
    block = replace(decode_block(part.data[4:]), records=())
    return replace(part, data=part_of(encode_block(block), 0) or b"")


@pytest.mark.parametrize("lie", [no_block, other_records, no_records])
def test_a_liar_costs_a_fetch_and_is_asked_no_more_for_the_block(
    lie: Callable[[Part], Part],
) -> None:
    committee = Committee(4)
    liars = committee.members[:2]
    given: list[tuple[Member, bytes]] = []

    def tampers(giver: Member, part: Part) -> Part:
        given.append((giver, bytes(part.digest)))
        return lie(part) if giver in liars else part

    committee.tampers = tampers
    member = withheld(committee)
    committee.run(20_000)
    assert records_of(member) == 13
    agreed(committee)
    assert member.refused
    of_liars = [(one.signer.key, digest) for one, digest in given if one in liars]
    assert len(of_liars) == len(set(of_liars))
    assert {one.giver for one in member.refused} <= {one.signer.key for one in liars}


def test_while_the_intake_stands_others_are_asked_at_once() -> None:
    committee = Committee(4)
    committee.tell = lambda made: None  # type: ignore[method-assign]
    committee.write("a")
    committee.run(1_000)
    member = committee.members[3]
    member.replica.gathering.stand()
    committee.write("b", "c")
    committee.run(1_000)
    assert records_of(member) == 3
    assert member.fetched >= 1
    agreed(committee)


def test_what_was_executed_from_others_bytes_is_checked_again_before_it_is_voted_for() -> None:
    """Whatever the machine asks: it is told so once the own log has brought the records."""
    committee = Committee(4)
    committee.write("a")
    committee.run(1_000)
    first, *_, member = committee.members
    member.withheld = True
    committee.loses = lambda sender, to, say: _is_of(say, VoteKind.FINALIZE)
    committee.write("b")
    committee.run(60)
    proposal = member.replica.proposal(first.replica.machine.parent)
    assert proposal is not None
    assert member.replica.chain.executed(proposal.digest) is None
    committee.run(2_500)
    assert member.replica.chain.executed(proposal.digest) is not None
    assert not member.replica.is_own(proposal.digest)
    told: list[Checked] = []
    step = member.replica.machine.step

    def watched(event: Event, now: int) -> tuple[Effect, ...]:
        if isinstance(event, Checked) and event.digest == proposal.digest:
            told.append(event)
        return step(event, now)

    member.replica.machine.step = watched  # type: ignore[method-assign]
    member.replica._take(Check(proposal), member.replica.validators)
    committee.do(member, member.replica.look(committee.clock))
    assert told == []
    member.withheld = False
    committee.read(member)
    assert Checked(proposal.digest, True) in told
    assert member.replica.is_own(proposal.digest)


def test_a_block_above_the_committed_one_that_others_gave_is_not_journalled() -> None:
    """A start takes what the journal has there as voted for."""
    committee = Committee(4)
    committee.write("a")
    committee.run(1_000)
    first, *_, member = committee.members
    member.withheld = True
    committee.loses = lambda sender, to, say: _is_of(say, VoteKind.FINALIZE)
    committee.write("b")
    committee.run(60)
    digest = first.replica.machine.parent
    committee.run(2_500)
    assert member.replica.body(digest) is not None
    assert digest not in _journalled(member)
    committee.loses = lambda sender, to, say: False
    committee.run(10_000)
    assert member.fetched == 1
    kept = [one for one in member.kept if isinstance(one, Executed | Committed)]
    (block,) = [one for one in kept if isinstance(one, Executed) and one.block.digest == digest]
    (commit,) = [
        one for one in kept if isinstance(one, Committed) and one.proposal.digest == digest
    ]
    assert kept.index(commit) < kept.index(block)


@pytest.mark.parametrize("is_committed", [True, False])
def test_who_followed_by_what_others_gave_starts_again_and_goes_on(
    tmp_path: Path, is_committed: bool
) -> None:
    committee = Committee(4)
    member = committee.members[3]
    disk = Disk(tmp_path, committee, member)
    committee.write("a")
    committee.run(1_000)
    member.withheld = True
    committee.loses = lambda sender, to, say: not is_committed and _is_of(say, VoteKind.FINALIZE)
    committee.write("b")
    committee.run(2_600)
    given = committee.members[0].replica.chain.tip.digest
    if not is_committed:
        given = next(iter(member.replica._not_own))
    committee.kill(member)
    disk.write()
    disk.start()
    assert member.replica.chain.tip.height == len(member.published)
    assert (given == member.replica.chain.tip.digest) == is_committed
    assert member.replica.chain.executed(given) is None
    committee.loses = lambda sender, to, say: False
    committee.run(20_000)
    assert records_of(member) == 2
    agreed(committee)
    assert given not in notarized_by(member)
    member.withheld = False
    committee.read(member)
    committee.write("c")
    committee.run(5_000)
    assert {records_of(one) for one in committee.members} == {3}


def test_who_started_again_gives_what_its_journal_has(tmp_path: Path) -> None:
    committee = Committee(4)
    committee.write("a")
    committee.run(1_000)
    member = withheld(committee)
    *others, _ = committee.members
    for number, one in enumerate(others):
        (tmp_path / str(number)).mkdir()
        disk = Disk(tmp_path / str(number), committee, one)
        committee.kill(one)
        disk.write()
        disk.start()
    committee.run(20_000)
    assert records_of(member) == 14
    assert agreed(committee) == committee.digests(member)


def test_of_the_newest_blocks_so_many_are_held_and_so_many_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bodies, "NEWEST_MAX", 3)
    monkeypatch.setattr(bodies, "NEWEST_BYTES_MAX", 10)
    digests = [Hash(bytes([number]) * 32) for number in range(6)]
    subject = Newest()
    for digest in digests[:4]:
        subject.add(digest, b"xx")
    assert [subject.get(one) for one in digests[:4]] == [None, b"xx", b"xx", b"xx"]
    subject.add(digests[4], b"yyyyyyyyy")
    assert [subject.get(one) for one in digests[:5]] == [None, None, None, None, b"yyyyyyyyy"]
    subject.add(digests[5], bytes(11))
    assert subject.get(digests[5]) is None


def _is_of(say: Say, kind: VoteKind) -> bool:
    return isinstance(say.message, Cast) and say.message.vote.kind is kind


def _journalled(member: Member) -> set[bytes]:
    return {bytes(one.block.digest) for one in member.kept if isinstance(one, Executed)}


# Worlds ------------------------------------------------------------------------------------------


class Watched(Committee):
    """Checks with each vote that a member's own log had brought what it votes for."""

    def __init__(self, n: int, seed: int) -> None:
        super().__init__(n, seed)
        self.brought: dict[Key, set[tuple[bytes, int, int]]] = {}
        self.voted = 0

    def read(self, member: Member) -> None:
        before = member.read
        brought = self.brought.setdefault(member.signer.key, set())
        topic = self.topic
        if not (member.withheld or member.replica.gathering.stands or not member.alive):
            brought |= {(topic, part, at) for part, at, _ in self.ledger.records[before:]}
        super().read(member)

    def do(self, member: Member, actions: list[Action]) -> None:
        brought = self.brought.setdefault(member.signer.key, set())
        for action in actions:
            if isinstance(action, Keep) and isinstance(vote := action.record, Vote):
                if vote.kind is not VoteKind.NOTARIZE:
                    continue
                proposal = member.replica.proposal(vote.digest)
                assert proposal is not None
                self.voted += 1
                for one in proposal.header.ranges:
                    wanted = {
                        (one.topic_uuid, one.partition, at) for at in range(one.start, one.end)
                    }
                    assert wanted <= brought, "a vote for what the own log did not bring"
        super().do(member, actions)


@pytest.mark.parametrize("seed", range(40))
def test_whichever_way_the_bytes_come_the_chain_is_one_and_no_vote_is_for_others_bytes(
    seed: int,
) -> None:
    committee = Watched(4, seed)
    dice = committee.dice
    liar = dice.choice(committee.members)
    share = dice.choice([0.0, 0.1, 0.3])
    lossy = True

    def loses(_: Member, __: Member, ___: Say) -> bool:
        return lossy and dice.random() < share

    def tampers(giver: Member, part: Part) -> Part | None:
        if lossy and dice.random() < share:
            return None
        if giver is not liar:
            return part
        flipped = bytearray(part.data)
        flipped[dice.randrange(len(flipped))] ^= 1 << dice.randrange(8)
        return replace(part, data=bytes(flipped))

    committee.loses, committee.tampers = loses, tampers
    if dice.random() < 0.5:
        committee.tell = lambda made: None  # type: ignore[method-assign]
    written = 0
    for _ in range(dice.randint(4, 15)):
        member = dice.choice(committee.members)
        member.withheld = dice.random() < 0.6
        committee.read(member)
        sessions = [f"s{dice.randrange(4)}" for _ in range(dice.randint(1, 3))]
        committee.write(*sessions)
        written += len(sessions)
        committee.run(dice.choice([5, 30, 200, 3_000]))
    lossy = False
    withheld = dice.choice(committee.members)
    for member in committee.members:
        member.withheld = member is withheld
        committee.read(member)
    committee.run(60_000)
    assert {records_of(one) for one in committee.members} == {written}
    agreed(committee)
    withheld.withheld = False
    committee.read(withheld)
    committee.write("after")
    committee.run(10_000)
    assert {records_of(one) for one in committee.members} == {written + 1}
    assert len({one.replica.chain.state.root_hash for one in committee.members}) == 1
    assert committee.voted > 0


# Whom to ask --------------------------------------------------------------------------------------

GIVERS = tuple([signer(300 + number).key for number in range(4)])


def a_block() -> Block:
    ledger = Ledger()
    ledger.write("a", "b", "c")
    return ledger.extend().block


BLOCK = a_block()
ENCODED = encode_block(BLOCK)


def wanted(*givers: Key, from_ms: int = 0) -> list[Wanted]:
    return [Wanted(BLOCK.digest, 1, givers or GIVERS, from_ms)]


@given(
    st.lists(
        st.sampled_from(["gives", "silent", "lies", "cuts", "swells"]), min_size=1, max_size=4
    ),
    st.integers(256, 4096),
)
@settings(derandomize=True, deadline=None, max_examples=60)
def test_one_who_gives_is_enough_and_nobody_is_asked_for_more_than_the_bounds(
    manners: list[str], part_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bodies, "PART_BYTES", part_bytes)
        subject, now, found = Bodies(), 0, None
        givers = GIVERS[: len(manners)]
        manner = dict(zip(givers, manners, strict=True))
        liars: set[Key] = set()
        for _ in range(200):
            subject.want(wanted(*givers), 0, now)
            asks = subject.asks(now)
            assert len(asks) <= bodies.ASKED_MAX
            assert len({key for key, _ in asks}) <= 1
            for key, ask in asks:
                assert key not in liars
                data = part_of(ENCODED, ask.index)
                assert data is not None, "no part past the end is asked for"
                match manner[key]:
                    case "silent":
                        continue
                    case "lies":
                        data = data[:-1] + bytes([data[-1] ^ 1])
                    case "cuts":
                        data = data[:-1] or b"xx"
                    case "swells":
                        data += b"x"
                try:
                    found = subject.take(key, Part(ask.digest, ask.index, data)) or found
                except PeerFault:
                    liars.add(key)
                if found is not None and found != BLOCK:
                    # Executing it shows so.
                    found = None
                    subject.refuse(BLOCK.digest, key)
                    liars.add(key)
            if found is not None:
                break
            following = subject.next_at()
            now = now + 1 if asks else now + 1 if following is None else max(now + 1, following)
        assert (found is not None) == ("gives" in manners)
        if found is not None:
            assert (subject.asks(now), subject.next_at()) == ([], None)


@given(st.lists(st.tuples(st.integers(0, 3), st.binary(min_size=1, max_size=40)), max_size=10))
@settings(derandomize=True, deadline=None, max_examples=200)
def test_whatever_bytes_come_they_are_the_block_or_refused(parts: list[tuple[int, bytes]]) -> None:
    subject = Bodies()
    for number, (index, data) in enumerate(parts):
        subject.want(wanted(), 0, number)
        for key, ask in subject.asks(number):
            try:
                found = subject.take(key, Part(ask.digest, index, data))
            except PeerFault:
                continue
            assert found is None or found.digest == BLOCK.digest


def test_what_was_not_asked_for_is_not_taken() -> None:
    subject = Bodies()
    part = Part(BLOCK.digest, 0, part_of(ENCODED, 0) or b"")
    assert subject.take(GIVERS[0], part) is None
    subject.want(wanted(from_ms=5), 0, 0)
    assert (subject.asks(4), subject.next_at()) == ([], 5)
    assert subject.take(GIVERS[0], part) is None
    assert subject.asks(5) == [(GIVERS[0], AskPart(BLOCK.digest, 0))]
    assert subject.take(GIVERS[1], part) is None
    assert subject.take(GIVERS[0], replace(part, index=1)) is None
    assert subject.take(GIVERS[0], part) == BLOCK
    assert subject.take(GIVERS[0], part) is None


def test_another_block_is_refused_and_the_next_one_is_asked() -> None:
    subject = Bodies()
    subject.want(wanted(), 0, 0)
    ((key, _),) = subject.asks(0)
    other = a_second()
    with pytest.raises(PeerFault, match="another block"):
        subject.take(key, Part(BLOCK.digest, 0, part_of(encode_block(other), 0) or b""))
    ((following, _),) = subject.asks(0)
    assert (key, following) == (GIVERS[0], GIVERS[1])


def a_second() -> Block:
    ledger = Ledger()
    ledger.write("z")
    return ledger.extend().block


def test_the_length_is_bounded_before_any_other_part_is_asked_for() -> None:
    subject = Bodies()
    subject.want(wanted(), 0, 0)
    ((key, ask),) = subject.asks(0)
    too_long = (BLOCK_BYTES_MAX + 1).to_bytes(4, "big") + bytes(PART_BYTES - 4)
    with pytest.raises(PeerFault, match="expected a length"):
        subject.take(key, Part(ask.digest, 0, too_long))
    ((key, ask),) = subject.asks(0)
    longest = BLOCK_BYTES_MAX.to_bytes(4, "big") + bytes(PART_BYTES - 4)
    assert subject.take(key, Part(ask.digest, 0, longest)) is None
    assert [one.index for _, one in subject.asks(0)] == [1, 2]


def test_who_is_late_has_its_turn_again_after_the_others_and_who_gave_is_first() -> None:
    subject = Bodies()
    now, asked = 0, []
    for _ in range(6):
        subject.want(wanted(), 0, now)
        asked += [key for key, _ in subject.asks(now)]
        following = subject.next_at()
        assert following is not None
        now = following
    assert asked[:5] == [*GIVERS, GIVERS[0]]
    giver = asked[-1]
    assert subject.take(giver, Part(BLOCK.digest, 0, part_of(ENCODED, 0) or b"")) == BLOCK
    second = a_second()
    subject.want([Wanted(second.digest, 2, GIVERS, 0)], 1, now)
    assert [key for key, _ in subject.asks(now)] == [giver]


def test_who_lied_of_a_block_is_remembered_while_it_is_not_wanted() -> None:
    subject = Bodies()
    subject.want(wanted(), 0, 0)
    ((key, _),) = subject.asks(0)
    subject.refuse(BLOCK.digest, key)
    subject.want([], 0, 1)
    subject.want(wanted(), 0, 2)
    ((following, _),) = subject.asks(2)
    assert following != key
    # Once a block at its height is executed nothing of it matters.
    subject.want([], 1, 3)
    subject.want(wanted(), 1, 4)
    assert [one for one, _ in subject.asks(4)] == [key]


@pytest.mark.parametrize("size", [1, 4, 7, 8, 9, 16, 20])
def test_parts_are_the_length_and_the_record_whatever_its_size(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "PART_BYTES", 8)
    encoded = bytes(range(size))
    parts = []
    while (part := part_of(encoded, len(parts))) is not None:
        parts.append(part)
    assert b"".join(parts) == size.to_bytes(4, "big") + encoded
    assert {len(one) for one in parts[:-1]} <= {8}
    assert part_of(encoded, len(parts) + 5) is None


# Giving -------------------------------------------------------------------------------------------


def test_parts_of_a_block_are_given_in_turn_and_none_while_much_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bodies, "PART_BYTES", 512)
    metrics = Metrics("giving")
    measures = Measures(metrics)
    waiting = {GIVERS[0]: 0, GIVERS[1]: serving.WAITING_BYTES_MAX}
    given: list[tuple[Key, Part]] = []
    looked: list[Hash] = []

    def body(digest: Hash) -> bytes | None:
        looked.append(digest)
        return ENCODED if digest == BLOCK.digest else None

    async def ask() -> None:
        subject = Serving(
            lambda: None,
            lambda: 1,
            lambda: None,
            body,
            lambda key, value: given.append((key, value)) if isinstance(value, Part) else None,
            lambda key: waiting[key],
            measures,
        )
        giving = asyncio.ensure_future(subject.run())
        subject.hear(GIVERS[0], AskPart(Hash(bytes(32)), 0))
        subject.hear(GIVERS[0], AskPart(BLOCK.digest, 99))
        for key in GIVERS[:2]:
            subject.hear(key, AskPart(BLOCK.digest, 1))
            subject.hear(key, AskPart(BLOCK.digest, 0))
        try:
            async with asyncio.timeout(30):
                while len(given) < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                assert {key for key, _ in given} == {GIVERS[0]}
                waiting[GIVERS[1]] = 0
                while len(given) < 4:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        finally:
            giving.cancel()
            await asyncio.gather(giving, return_exceptions=True)

    asyncio.run(ask())
    for key in GIVERS[:2]:
        parts = [one for to, one in given if to == key]
        assert [one.index for one in parts] == [1, 0]
        assert [one.data for one in parts] == [part_of(ENCODED, 1), part_of(ENCODED, 0)]
    assert looked == [Hash(bytes(32)), BLOCK.digest]
    total = metrics.registry.get_sample_value("nocturne_giving_block_given_bytes_total")
    assert total == sum(len(one.data) for _, one in given)
