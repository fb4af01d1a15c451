"""A validator of several that dies and takes up again what its journal has."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.consensus.committees import Committee, Member
from tests.unit.consensus.ledgers import TOPIC, machine_on
from tests.unit.consensus.test_replica import agreed, records_of

from nocturne.consensus import store as stores
from nocturne.consensus.chain import Executed
from nocturne.consensus.gathering import Gathering
from nocturne.consensus.offers import content_of
from nocturne.consensus.quorum.messages import Cast, Committed, Proposal, Vote
from nocturne.consensus.replica import Replica, Say
from nocturne.consensus.store import Recovered, Store
from nocturne.core import snapshot
from nocturne.core.certificates import VoteKind
from nocturne.core.certified_snapshot import Claim, load, prove
from nocturne.core.errors import Halt
from nocturne.core.kinds import KindRegistry, builtin_kinds
from nocturne.runtime import journal

KINDS = KindRegistry(builtin_kinds().values())


class Disk:
    """The journal of a member: what it keeps goes there."""

    def __init__(self, home: Path, committee: Committee, member: Member) -> None:
        self.home = home
        self.committee = committee
        self.member = member
        self.label = journal.owner_label(committee.ledger.ledger_id, member.signer.key)
        journal.create(home / journal.FOLDER, self.label)
        self.written = 0

    def write(self) -> None:
        """All that was kept so far is synced."""
        store = Store(self.home, self.label)
        store.recover(self.committee.ledger.data, KINDS)
        kept = self.member.kept[self.written :]
        if kept:
            store.keep(kept)
        self.written = len(self.member.kept)
        store.close()

    def recovered(self) -> Recovered:
        store = Store(self.home, self.label)
        found = store.recover(self.committee.ledger.data, KINDS)
        store.close()
        return found

    def start(self) -> None:
        """A new process of the member, from its journal."""
        found = self.recovered()
        chain = found.chain
        member = self.member
        gathering = Gathering(TOPIC, chain.state.positions, {}, {})
        machine = machine_on(chain, member.signer)
        member.replica = Replica(machine, chain, gathering, found.newest)
        member.alive = True
        member.read = 0
        member.published = member.published[: chain.tip.height]
        self.committee.do(member, member.replica.restore(found.records, self.committee.clock))
        self.committee.read(member)


def restarted(tmp_path: Path, n: int, kept_share: float = 1.0) -> Committee:
    """A member dies in the middle, with a share of what it kept synced, and comes back."""
    committee = Committee(n)
    member = committee.members[1 % n]
    disk = Disk(tmp_path, committee, member)
    for number in range(10):
        committee.write(f"s{number % 3}")
        committee.run(30)
    committee.kill(member)
    member.kept = member.kept[: int(len(member.kept) * kept_share)]
    disk.write()
    for number in range(5):
        committee.write(f"t{number}")
        committee.run(30)
    published = [made for one in committee.members for made in one.published if one is not member]
    disk.start()
    for made in sorted(published, key=lambda one: one.block.header.height):
        committee.bring(member, made)
    for number in range(5):
        committee.write(f"u{number}")
        committee.run(100)
    committee.run(5_000)
    return committee


@pytest.mark.parametrize("n", [1, 4])
def test_it_goes_on_from_its_journal(tmp_path: Path, n: int) -> None:
    committee = restarted(tmp_path, n)
    assert {records_of(one) for one in committee.members} == {20}
    agreed(committee)


def test_a_committed_block_whose_records_were_not_written_waits_for_them(tmp_path: Path) -> None:
    committee = Committee(4)
    member = committee.members[2]
    disk = Disk(tmp_path, committee, member)
    for number in range(4):
        committee.write(f"s{number}")
        committee.run(100)
    member.kept = [one for one in member.kept if isinstance(one, Committed | Vote)]
    disk.write()
    found = disk.recovered()
    assert found.chain.tip.height == 0
    assert len([one for one in found.records if isinstance(one, Committed)]) == 4
    disk.start()
    committee.run(1_000)
    assert records_of(member) == 4
    agreed(committee)


def test_its_own_votes_above_the_committed_block_come_back(tmp_path: Path) -> None:
    committee = Committee(4)
    member = committee.members[0]
    disk = Disk(tmp_path, committee, member)
    committee.loses = lambda sender, to, say: True
    committee.write("a")
    committee.run(50)
    disk.write()
    found = disk.recovered()
    votes = [one for one in found.records if isinstance(one, Vote)]
    assert [one.view for one in votes] == [1]
    assert [one.header.height for one in found.records if isinstance(one, Proposal)] == [1]


def test_a_commit_that_does_not_continue_the_one_before_is_a_halt(tmp_path: Path) -> None:
    committee = Committee(4)
    member = committee.members[0]
    disk = Disk(tmp_path, committee, member)
    for number in range(3):
        committee.write(f"s{number}")
        committee.run(200)
    commits = [one for one in member.kept if isinstance(one, Committed)]
    member.kept = [commits[0], commits[2]]
    disk.write()
    with pytest.raises(Halt, match="does not continue"):
        disk.recovered()


def test_a_commit_without_a_quorum_is_a_halt(tmp_path: Path) -> None:
    committee = Committee(4)
    member = committee.members[0]
    disk = Disk(tmp_path, committee, member)
    committee.write("a")
    committee.run(200)
    for index, one in enumerate(member.kept):
        if isinstance(one, Committed):
            fin = one.proof.finalization
            short = replace(one.proof, finalization=replace(fin, votes=fin.votes[:2]))
            member.kept[index] = replace(one, proof=short)
    disk.write()
    with pytest.raises(Halt, match="journal: block 1"):
        disk.recovered()


def test_forgetting_keeps_what_a_later_start_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "SEGMENT_BYTES", 2_000)
    committee = Committee(4)
    member = committee.members[3]
    disk = Disk(tmp_path, committee, member)
    for number in range(8):
        committee.write(f"s{number}")
        committee.run(100)
        disk.write()
    store = Store(disk.home, disk.label)
    store.recover(committee.ledger.data, KINDS)
    made = member.published[5]
    store.write_snapshot(made.committed, made.state, None, threading.Event())
    store.forget_before(6, member.replica.live_records())
    store.close()
    found = disk.recovered()
    assert found.chain.tip == member.replica.chain.tip
    assert min(found.digests) > 1
    disk.start()
    committee.write("more")
    committee.run(3_000)
    assert records_of(member) == 9
    agreed(committee)


def test_blocks_that_one_finalization_commits_are_all_in_the_journal(tmp_path: Path) -> None:
    """Finalize votes are lost for a while: the next one that arrives commits more than its own."""
    committee = Committee(4)
    member = committee.members[0]
    disk = Disk(tmp_path, committee, member)

    def loses_finalizations(_: Member, to: Member, say: Say) -> bool:
        message = say.message
        return isinstance(message, Cast) and message.vote.kind is VoteKind.FINALIZE

    committee.loses = loses_finalizations
    for number in range(4):
        committee.write(f"s{number}")
        committee.run(60)
    assert member.published == []
    committee.loses = lambda sender, to, say: False
    committee.run(5_000)
    assert records_of(member) == 4
    disk.write()
    found = disk.recovered()
    assert found.chain.tip == member.replica.chain.tip
    store = Store(disk.home, disk.label)
    store.recover(committee.ledger.data, KINDS)
    assert [at for at, _ in store.blocks_after(0)] == [*range(1, len(member.published) + 1)]
    assert len(member.published) > 1


def test_who_joins_by_a_snapshot_reads_no_older_record_and_its_votes_count(tmp_path: Path) -> None:
    """It was away, and the log has no record any more that it missed."""
    committee = Committee(4)
    member = committee.members[3]
    disk = Disk(tmp_path, committee, member)
    for number in range(4):
        committee.write(f"s{number}")
        committee.run(100)
    committee.kill(member)
    disk.write()
    for number in range(12):
        committee.write(f"s{number % 5}")
        committee.run(100)
    made = committee.members[0].published[-1]
    block, ledger = made.committed, committee.ledger
    chunks = tuple(snapshot.encode(made.state))
    claim = Claim(block.proposal.header_bytes, block.proposal.signatures, block.proof, ())
    load(prove(claim, ledger.genesis, ledger.ledger_id), ledger.data, chunks, KINDS)
    store = Store(disk.home, disk.label)
    before = store.recover(ledger.data, KINDS)
    store.join(block, (), None, content_of(chunks), threading.Event())
    store.close()
    # All records but those that no block has are gone.
    ledger.records = [
        one for one in ledger.records if one[1] >= made.state.positions[one[0]].next_offset
    ]
    for other in committee.members:
        other.read = len(ledger.records)
    own_votes = [one for one in before.records if isinstance(one, Vote)]
    found = disk.recovered()
    assert (found.chain.tip.height, found.replayed) == (made.block.header.height, 0)
    assert [one for one in found.records if isinstance(one, Vote)] == own_votes
    disk.start()
    member.published = committee.members[0].published[: made.block.header.height]
    committee.kill(committee.members[0])
    committee.write("more", "after")
    committee.run(5_000)
    living = committee.members[1:]
    assert {records_of(one) for one in living} == {18}
    agreed(committee, living)
    kept = [one for one in member.kept if isinstance(one, Committed)]
    votes = kept[-1].proof.finalization.votes
    assert 3 in [index for index, _ in votes], "of four one is dead: nothing goes without it"


def test_what_was_voted_for_is_taken_from_the_journal_when_the_log_is_gone(tmp_path: Path) -> None:
    """Its records may be nowhere else: not in the log, and in no published block that came."""
    committee = Committee(4)
    member = committee.members[1]
    disk = Disk(tmp_path, committee, member)

    def votes_for_more() -> bool:
        heights = [one.block.header.height for one in member.kept if isinstance(one, Executed)]
        return max(heights, default=0) > len(member.published) > 2

    for number in range(200):
        committee.write(f"s{number % 3}")
        committee.run(7)
        if votes_for_more():
            break
    assert votes_for_more()
    height = len(member.published)
    committee.kill(member)
    disk.write()
    committee.run(3_000)
    committee.lose_log(bytes(range(16, 32)))
    disk.start()
    member.replica.gathering.stand()
    assert len(member.published) == height
    made = committee.members[0].published[height]
    assert made.block.header.ranges
    committed = Committed(
        Proposal(
            made.block.header,
            made.block.header_bytes,
            made.block.digest,
            made.block.leader_signatures,
        ),
        made.block.proof,  # type: ignore[arg-type]
    )
    committee.do(member, member.replica.hear(None, committed, committee.clock))
    assert committee.digests(member) == committee.digests(committee.members[0])[: height + 1]
