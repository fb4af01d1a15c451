"""The validator's disk: recovery, snapshots, forgetting, and every way they can disagree."""

import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.unit.consensus.ledgers import VALIDATOR, Ledger

from nocturne.consensus import store as stores
from nocturne.consensus.chain import Made
from nocturne.consensus.offers import content_of
from nocturne.consensus.published import Published
from nocturne.consensus.quorum.messages import Vote
from nocturne.consensus.snapshot_files import Abandoned, Head, read_part
from nocturne.consensus.store import Kept, Recovered, Store
from nocturne.core import snapshot
from nocturne.core.certificates import Ballot, Epoch, VoteKind, sign_vote
from nocturne.core.errors import Halt
from nocturne.core.identifiers import Hash
from nocturne.core.kinds import KindRegistry, builtin_kinds
from nocturne.runtime import journal

KINDS = KindRegistry(builtin_kinds().values())


class Disk:
    """A home, opened and closed as a process would."""

    def __init__(self, home: Path, ledger: Ledger) -> None:
        self.home = home
        self.ledger = ledger
        self.label = journal.owner_label(ledger.ledger_id, VALIDATOR.key)

    def create(self) -> None:
        journal.create(self.home / journal.FOLDER, self.label)

    def open(self) -> Store:
        return Store(self.home, self.label)

    def recovered(self) -> Recovered:
        opened = self.open()
        found = opened.recover(self.ledger.data, KINDS)
        opened.close()
        return found


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    made = Disk(tmp_path, Ledger())
    made.create()
    return made


def opened(disk: Disk) -> Store:
    store = disk.open()
    store.recover(disk.ledger.data, KINDS)
    return store


@dataclass
class Step:
    """A block, and all that the replica wanted kept before it is published."""

    made: Made
    kept: list[Kept]


def extended(ledger: Ledger, *sessions: str) -> Step:
    ledger.write(*sessions)
    return Step(ledger.extend(), ledger.kept)


def keep(store: Store, *steps: Step) -> None:
    store.keep([record for step in steps for record in step.kept])


def snapshotted(store: Store, step: Step, published: Published | None = None) -> None:
    made = step.made
    store.write_snapshot(made.committed, made.state, published, threading.Event())


def test_without_a_journal_there_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(journal.JournalMissing):
        Disk(tmp_path, Ledger()).open()


def test_a_new_journal_starts_at_genesis(disk: Disk) -> None:
    found = disk.recovered()
    assert (found.chain.tip.height, found.published, found.digests) == (0, None, {})


def test_kept_blocks_are_recovered(disk: Disk) -> None:
    store = disk.open()
    ledger = disk.ledger
    made = [extended(ledger, "a", "b"), extended(ledger, "a"), extended(ledger, "c")]
    keep(store, *made[:2])
    store.note_published(Published(2, 7))
    keep(store, *made[2:])
    store.close()
    found = disk.recovered()
    assert found.chain.tip == ledger.chain.tip
    assert found.chain.state.root_hash == ledger.chain.state.root_hash
    assert found.published == Published(2, 7)
    assert found.digests == {one.made.block.header.height: one.made.block.digest for one in made}
    assert {one.partition: one.end for one in found.ranges.values()} == {
        partition: end for partition, end in enumerate(ledger.ends) if end
    }
    assert found.replayed == 3
    store = disk.open()
    assert [encoded for _, encoded in store.blocks_after(1)] == [
        one.made.encoded for one in made[1:]
    ]


def test_a_block_torn_by_a_crash_was_never_published_and_is_gone(disk: Disk) -> None:
    store = disk.open()
    first = extended(disk.ledger, "a")
    keep(store, first)
    tip = disk.ledger.chain.tip
    keep(store, extended(disk.ledger, "b"))
    store.close()
    (segment,) = (disk.home / journal.FOLDER).glob("*.seg")
    segment.write_bytes(segment.read_bytes()[:-1])
    found = disk.recovered()
    assert found.chain.tip == tip
    assert found.torn_bytes > 0


def test_a_snapshot_stands_for_the_blocks_before_it(disk: Disk) -> None:
    store = opened(disk)
    made = [extended(disk.ledger, session) for session in "abcd"]
    keep(store, *made[:3])
    snapshotted(store, made[1], Published(2, 5))
    keep(store, *made[3:])
    store.close()
    found = disk.recovered()
    assert found.replayed == 2
    assert found.chain.tip == disk.ledger.chain.tip
    assert found.chain.state.root_hash == disk.ledger.chain.state.root_hash
    assert found.published == Published(2, 5)
    assert sorted(found.digests) == [1, 2, 3, 4]


def test_old_segments_are_forgotten_but_never_the_snapshots_block(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "SEGMENT_BYTES", 2_000)
    store = opened(disk)
    made = []
    for session in "abcdefgh":
        made.append(extended(disk.ledger, session))
        keep(store, *made[-1:])
    store.forget_before(0, ())
    snapshotted(store, made[5], Published(6, 5))
    store.forget_before(6, ())
    store.close()
    found = disk.recovered()
    assert found.chain.tip == disk.ledger.chain.tip
    assert 1 not in found.digests
    assert 6 in found.digests
    assert found.replayed == 2


def test_a_vote_that_no_block_has_settled_outlives_its_segment(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is of a later view than every block that came after it in the journal, and binds."""
    monkeypatch.setattr(stores, "SEGMENT_BYTES", 2_000)
    ledger = disk.ledger
    none = Hash(bytes(32))
    kind, epoch, view = VoteKind.NULLIFY, Epoch(0, 0), 99
    ballot = Ballot(kind, ledger.ledger_id, epoch, ledger.validators.hash, view, none)
    vote = Vote(0, kind, epoch, view, none, sign_vote(VALIDATOR, ballot))
    store = opened(disk)
    store.keep([vote])
    made = []
    for session in "abcdefgh":
        made.append(extended(ledger, session))
        keep(store, *made[-1:])
    snapshotted(store, made[5])
    store.forget_before(6, [vote])
    store.close()
    found = disk.recovered()
    assert 1 not in found.digests
    assert vote in found.records


def test_only_the_newest_snapshot_stays(disk: Disk) -> None:
    store = opened(disk)
    made = [extended(disk.ledger, session) for session in "abc"]
    keep(store, *made)
    for one in made:
        snapshotted(store, one)
    assert [path.name for path in (disk.home / "snapshots").iterdir()] == ["000000000003.snapshot"]


def test_a_snapshot_is_due_after_so_much_journal(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened(disk)
    made = extended(disk.ledger, "a")
    keep(store, made)
    assert [store.snapshot_due] == [False]
    monkeypatch.setattr(stores, "SNAPSHOT_JOURNAL_BYTES", len(made.made.encoded))
    assert [store.snapshot_due] == [True]
    store.begin_snapshot()
    assert [store.snapshot_due] == [False]


def test_an_abandoned_snapshot_leaves_nothing_to_be_believed(disk: Disk) -> None:
    store = opened(disk)
    made = extended(disk.ledger, "a")
    keep(store, made)
    ending = threading.Event()
    ending.set()
    with pytest.raises(Abandoned):
        store.write_snapshot(made.made.committed, made.made.state, None, ending)
    store.close()
    assert disk.recovered().replayed == 1
    assert not list((disk.home / "snapshots").iterdir())


def test_every_changed_byte_of_a_snapshot_is_a_halt(disk: Disk) -> None:
    store = opened(disk)
    made = extended(disk.ledger, "a", "b")
    keep(store, made)
    snapshotted(store, made)
    store.close()
    (path,) = (disk.home / "snapshots").iterdir()
    whole = path.read_bytes()
    for position in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(Halt, match="snapshot"):
            disk.recovered()
    for end in range(0, len(whole), 11):
        path.write_bytes(whole[:end])
        with pytest.raises(Halt, match="snapshot"):
            disk.recovered()
    path.write_bytes(whole + b"\x00")
    with pytest.raises(Halt, match="snapshot"):
        disk.recovered()


def test_a_snapshot_beside_a_journal_that_lacks_its_block_is_a_halt(
    disk: Disk, tmp_path: Path
) -> None:
    store = opened(disk)
    made = [extended(disk.ledger, session) for session in "ab"]
    keep(store, *made[:1])
    shutil.copytree(disk.home / journal.FOLDER, tmp_path / "older")
    keep(store, *made[1:])
    snapshotted(store, made[1])
    store.close()
    shutil.rmtree(disk.home / journal.FOLDER)
    (tmp_path / "older").rename(disk.home / journal.FOLDER)
    with pytest.raises(Halt, match="the journal lacks block 2"):
        disk.recovered()


def test_a_journal_without_its_beginning_or_snapshot_is_a_halt(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "SEGMENT_BYTES", 2_000)
    store = opened(disk)
    for session in "abcd":
        keep(store, extended(disk.ledger, session))
    store.close()
    sorted((disk.home / journal.FOLDER).glob("*.seg"))[0].unlink()
    with pytest.raises(Halt, match="expected block 1"):
        disk.recovered()


def test_records_of_another_build_are_a_halt(disk: Disk) -> None:
    opened_journal = journal.open_journal(disk.home / journal.FOLDER, disk.label)
    opened_journal.append([b"\x09what is this"])
    opened_journal.sync()
    opened_journal.close()
    with pytest.raises(Halt, match="not a record of this build"):
        disk.recovered()


def test_more_than_a_frame_holds_is_kept_in_order_by_several(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "SYNC_BYTES_MAX", 1_000)
    store = opened(disk)
    made = [extended(disk.ledger, session) for session in "abcdef"]
    keep(store, *made)
    store.close()
    found = disk.recovered()
    assert found.chain.tip == disk.ledger.chain.tip
    assert found.replayed == 6


# Joining -------------------------------------------------------------------------------------


@dataclass
class Given:
    """A snapshot of another validator's, and the blocks after it."""

    steps: list[Step]
    head: Head
    content: bytes


def given_by_another(ledger: Ledger, blocks: int = 5, at: int = 3) -> Given:
    steps = [extended(ledger, f"s{number}") for number in range(blocks)]
    made = steps[at - 1].made
    head = Head(made.committed, Published(made.block.header.height, 70), ())
    return Given(steps, head, b"".join(content_of(snapshot.encode(made.state))))


def joined(store: Store, given: Given) -> None:
    head = given.head
    store.join(head.block, head.changes, head.published, [given.content], threading.Event())


def test_the_journal_goes_on_from_a_snapshot_that_others_gave(disk: Disk) -> None:
    store = opened(disk)
    keep(store, extended(disk.ledger, "own"))
    given = given_by_another(disk.ledger, blocks=4)
    joined(store, given)
    found = store.recover(disk.ledger.data, KINDS)
    assert (found.chain.tip.height, found.replayed) == (4, 0)
    assert found.published == given.head.published
    assert (found.digests, found.ranges) == ({4: given.head.block.proposal.digest}, {})
    keep(store, *given.steps[3:])
    store.close()
    again = disk.recovered()
    assert again.chain.tip == disk.ledger.chain.tip
    assert again.replayed == 1
    store = opened(disk)
    assert store.snapshot is not None
    assert store.snapshot.head == given.head
    assert [height for height, _ in store.blocks_after(4)] == [5]


def test_a_crash_before_the_journal_goes_on_leaves_what_was(disk: Disk) -> None:
    store = opened(disk)
    keep(store, extended(disk.ledger, "own"))
    given = given_by_another(disk.ledger)
    before = sorted((disk.home / journal.FOLDER).glob("*.seg"))[-1].read_bytes()
    joined(store, given)
    store.close()
    # The file is there and the record is not.
    (segment,) = (disk.home / journal.FOLDER).glob("*.seg")
    segment.write_bytes(before)
    (path,) = (disk.home / "snapshots").iterdir()
    path.rename(path.with_suffix(".joined"))
    found = disk.recovered()
    assert (found.chain.tip.height, found.replayed) == (1, 1)
    assert not list((disk.home / "snapshots").iterdir())


def test_a_crash_before_the_snapshot_is_in_its_place_is_made_up_for(disk: Disk) -> None:
    store = opened(disk)
    given = given_by_another(disk.ledger)
    joined(store, given)
    store.close()
    (path,) = (disk.home / "snapshots").iterdir()
    path.rename(path.with_suffix(".joined"))
    found = disk.recovered()
    assert (found.chain.tip.height, found.replayed) == (3, 0)
    assert [one.suffix for one in (disk.home / "snapshots").iterdir()] == [".snapshot"]


def test_without_the_snapshot_that_it_goes_on_from_the_journal_is_a_halt(disk: Disk) -> None:
    store = opened(disk)
    joined(store, given_by_another(disk.ledger))
    store.close()
    (path,) = (disk.home / "snapshots").iterdir()
    path.unlink()
    with pytest.raises(Halt, match="the snapshot of block 3, from which the journal goes on"):
        disk.recovered()


def test_a_later_snapshot_of_its_own_takes_the_place_of_the_one_that_was_given(
    disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "SEGMENT_BYTES", 2_000)
    store = opened(disk)
    keep(store, extended(disk.ledger, "own"))
    given = given_by_another(disk.ledger)
    joined(store, given)
    store.recover(disk.ledger.data, KINDS)
    keep(store, *given.steps[3:])
    snapshotted(store, given.steps[4], Published(5, 75))
    store.close()
    assert disk.recovered().replayed == 0
    store = opened(disk)
    store.forget_before(6, ())
    store.close()
    assert disk.recovered().chain.tip == disk.ledger.chain.tip


def test_what_is_offered_of_a_snapshot_is_its_content_in_parts(disk: Disk) -> None:
    store = opened(disk)
    given = given_by_another(disk.ledger)
    keep(store, *given.steps)
    snapshotted(store, given.steps[2], given.head.published)
    found = store.snapshot
    assert found is not None
    assert found.head == given.head
    assert found.offer().manifest.size == len(given.content)
    with found.path.open("rb") as file:
        data = b"".join(
            read_part(file.fileno(), found, index) for index in range(len(found.manifest.parts))
        )
    assert data == given.content
    store.close()
    store = opened(disk)
    assert store.snapshot == found
