"""What validators come back from, and what a real broker can be made to do to them: each a process
of its own, on real brokers. Never are there two histories; whoever cannot go on says why.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient
from tests.machines import make_broker, started, until
from tests.quorum_stand import SECONDS_MAX, QuorumStand
from tests.stand import author, fresh_topics, wait_for_log

from nocturne.client.operating import OperatorClient
from nocturne.client.validators import Role
from nocturne.core import topics
from nocturne.core.certificates import CommitProof
from nocturne.core.control import Control, sign_control
from nocturne.core.validator_sets import ACTION, set_fields, with_rotated
from nocturne.embedded import kafka
from nocturne.embedded.kafka import Broker
from nocturne.embedded.processes import grpc_serves
from nocturne.embedded.services import kafka_process
from nocturne.runtime.lifecycle import HALTED_FILE

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(1500)]

OFTEN = "from nocturne.consensus import commands_log; commands_log.TOPIC_CHECK_SECONDS = 0.5"
OFTEN_SNAPSHOTS = """
from nocturne.consensus import fetching, store
store.SNAPSHOT_JOURNAL_BYTES = 100_000
fetching.JOIN_BLOCKS_MIN = 5
"""
SMALL_SEGMENTS = """
from nocturne.consensus import store
store.SEGMENT_BYTES = 20_000
"""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker of this module's own: its topics have the ledger's names and are made anew."""
    made = make_broker(tmp_path_factory.mktemp("kafka"))
    kafka.prepare(made)
    with started(kafka_process(made), made.folder / "log"):
        yield made


@pytest.fixture
def stand(broker: Broker, tmp_path: Path) -> Iterator[QuorumStand]:
    """Four validators of a new ledger, none of them started."""
    made = QuorumStand(tmp_path / "home", broker.bootstrap)
    fresh_topics(broker.bootstrap, made.partitions)
    yield made
    made.stop_all()


# Away ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("events", [5_000, 100_000])
def test_a_validator_that_was_away_catches_up_under_load_and_votes_again(
    stand: QuorumStand, events: int, record_property: Any
) -> None:
    stand.raise_all()
    stand.certify(8)
    stand.of(3).kill()
    away = time.monotonic()
    each = 20
    for _ in range(events // each // 250):
        stand.write(250, events=each)
    stand.wait_certified()
    missed = len(stand.blocks())
    wrote_s = time.monotonic() - away
    with stand.under_load():
        began = time.monotonic()
        stand.begin(3)
        stand.wait_height(3, missed)
        caught_up_s = time.monotonic() - began
        stand.wait_voting(3)
        # With another one away nothing is certified without its votes.
        stand.of(0).kill()
        height = len(stand.blocks())
        until(lambda: len(stand.blocks()) > height + 2, SECONDS_MAX, "its votes count")
        votes_s = time.monotonic() - began
    stand.wait_certified()
    print(
        f"away for {events} events in {missed} blocks ({wrote_s:.1f} s): "
        f"caught up after {caught_up_s:.1f} s, needed and there after {votes_s:.1f} s"
    )
    for name, value in (("caught_up_s", caught_up_s), ("votes_s", votes_s)):
        record_property(name, round(value, 1))
    stand.check_no_fork()


def test_a_validator_that_was_away_over_snapshots_goes_on_from_one_while_the_log_is_whole(
    stand: QuorumStand, record_property: Any
) -> None:
    stand.raise_all(before=OFTEN_SNAPSHOTS)
    stand.certify(8)
    stand.of(3).kill()
    before = len(stand.blocks())
    for _ in range(40):
        stand.certify(10, events=20)
    with stand.under_load():
        stand.begin(3, before=OFTEN_SNAPSHOTS)
        stand.wait_voting(3)
    joined = _joined(stand, 3, before + 10)
    record_property("joined_s", joined["seconds"])
    stand.of(0).kill()
    stand.certify(10)
    stand.check_no_fork((1, 2, 3))
    # What it goes on from is its own at the next start.
    assert stand.of(3).stop() == 0
    stand.begin(3, before=OFTEN_SNAPSHOTS)
    stand.wait_voting(3)
    stand.certify(5)
    stand.check_no_fork((1, 2, 3))


# Keys and journals -----------------------------------------------------------------------------


def test_a_key_without_its_journal_refuses_to_vote_says_so_and_the_others_go_on(
    stand: QuorumStand, tmp_path: Path
) -> None:
    stand.raise_all()
    stand.certify(20)
    assert stand.of(3).stop() == 0
    (stand.home_of(3) / "journal").rename(tmp_path / "journal")
    stand.begin(3)
    wait_for_log(stand.of(3), "observing")
    stand.certify(20)
    said = stand.report(3)
    assert said is not None
    assert (said.role, said.index) == (Role.REFUSING, 3)
    assert "journal is not in its folder" in said.role_cause
    assert not grpc_serves(stand.of(3).address)
    seen = stand.seen()
    assert (seen["quorum"]["reached"], seen["quorum"]["voting"]) == (True, 3)
    assert seen["validators"][3]["role"] == "refusing to vote"
    assert stand.of(3).stop() == 0
    assert not (stand.home_of(3) / "journal").exists()
    # Put back as it last was, it is the key's own journal again.
    (tmp_path / "journal").rename(stand.home_of(3) / "journal")
    stand.begin(3)
    stand.wait_voting(3)
    stand.certify(5)
    stand.check_no_fork()


def test_a_damaged_journal_halts_with_the_place_of_the_damage_and_the_others_go_on(
    stand: QuorumStand, tmp_path: Path
) -> None:
    stand.raise_all(before=SMALL_SEGMENTS)
    for _ in range(6):
        stand.certify(15)
    for running in (stand.of(2), stand.of(3)):
        assert running.stop() == 0
    journal = stand.home_of(3) / "journal"
    shutil.copytree(journal, tmp_path / "whole")
    segments = sorted(journal.glob("*.seg"))
    assert len(segments) > 3
    stand.begin(2)
    stand.wait_voting(2)

    def damaged(words: str) -> None:
        stand.begin(3)
        stand.wait_halted(3, words)
        stand.certify(5)
        # It stays halted, and what is there is not touched.
        stand.begin(3)
        stand.wait_halted(3, words)
        shutil.rmtree(journal)
        shutil.copytree(tmp_path / "whole", journal)
        (stand.home_of(3) / HALTED_FILE).unlink()

    data = bytearray(segments[1].read_bytes())
    data[len(data) // 2] ^= 1
    segments[1].write_bytes(data)
    damaged("damaged at byte")
    segments[1].unlink()
    damaged("a segment is lost or cut short")
    segments[0].unlink()
    damaged("its beginning is gone")
    stand.begin(3)
    stand.wait_voting(3)
    stand.certify(5)
    stand.check_no_fork()


@pytest.mark.parametrize("all_start", [False, True], ids=["alone", "when all lost power"])
def test_a_journal_that_was_put_back_refuses_to_vote_and_says_why(
    stand: QuorumStand, tmp_path: Path, all_start: bool
) -> None:
    stand.raise_all()
    stand.certify(20)
    assert stand.of(3).stop() == 0
    shutil.copytree(stand.home_of(3), tmp_path / "old")
    stand.begin(3)
    stand.wait_voting(3)
    for _ in range(5):
        stand.certify(4)
    stand.wait_height(3, len(stand.blocks()))
    assert stand.of(3).stop() == 0
    shutil.rmtree(stand.home_of(3))
    shutil.copytree(tmp_path / "old", stand.home_of(3))
    if all_start:
        for ordinal in range(3):
            stand.of(ordinal).kill()
    stand.begin(3)
    if all_start:
        # They are asked as soon as they can be reached.
        for ordinal in range(3):
            stand.begin(ordinal)
    stand.wait_halted(3, "the journal is an older copy")
    stand.certify(5)
    seen = stand.seen()
    assert (seen["quorum"]["voting"], seen["quorum"]["mayFail"]) == (3, 0)
    stand.begin(3)
    stand.wait_halted(3, "the journal is an older copy")
    stand.check_no_fork((0, 1, 2))


# Set changes -----------------------------------------------------------------------------------


def test_a_new_key_catches_up_under_load_and_certifies_from_the_second_epoch_on(
    broker: Broker, tmp_path: Path
) -> None:
    stand = QuorumStand(tmp_path / "home", broker.bootstrap, epoch_length=12)
    fresh_topics(broker.bootstrap, stand.partitions)
    try:
        stand.raise_all()
        for _ in range(10):
            stand.write(50, events=10)
        stand.wait_certified()
        member = stand.admit(4)
        with stand.under_load(commands=4, pause_s=0.05):
            # Before it is admitted it observes, and follows.
            stand.begin(4)
            stand.wait_height(4, len(stand.blocks()))
            said = stand.report(4)
            assert said is not None
            assert (said.role, said.index) == (Role.OBSERVER, None)
            first = stand.sets.epoch_at(_rotated(stand, 3, member)) + 2
            until(
                lambda: len(stand.blocks()) >= (first + 3) * stand.epoch_length,
                SECONDS_MAX,
                "three epochs of the new set",
            )
            stand.wait_voting(4)
        stand.wait_certified()
        gone = stand.report(3)
        assert gone is not None
        assert (gone.role, gone.index) == (Role.OBSERVER, None)
        assert gone.role_cause == "its key is not in the set"
        new_set = with_rotated(stand.genesis.validators, stand.key(3), member)
        for number in range(first + 3):
            keys = tuple(key for key, _ in new_set) if number >= first else None
            assert stand.sets.of(number).keys == (keys or stand.genesis.validator_set.keys)
        # Nothing is certified without it now: of the three others one is away.
        stand.of(0).kill()
        height = len(stand.blocks())
        stand.certify(5)
        for block in stand.blocks()[height + 1 :]:
            assert isinstance(block.proof, CommitProof)
            assert 3 in [index for index, _ in block.proof.finalization.votes]
        stand.check_no_fork((0, 1, 2, 3, 4))
    finally:
        stand.stop_all()


def _rotated(stand: QuorumStand, ordinal: int, member: Any) -> int:
    """The operators put another key in a validator's place; the height that decides it."""

    async def bring() -> int:
        async with OperatorClient(stand.addresses, stand.ledger_id) as client:
            now = await client.governance()
            members = with_rotated(stand.genesis.validators, stand.key(ordinal), member)
            control = Control(
                stand.ledger_id, now.number + 1, now.height + 1000, ACTION, set_fields(members)
            )
            return (await client.submit(sign_control(control, (stand.operator(),)))).height

    return asyncio.run(bring())


# The broker ------------------------------------------------------------------------------------


def test_a_commands_topic_made_anew_is_read_by_nobody_until_the_operators_open_a_log_epoch(
    stand: QuorumStand,
) -> None:
    stand.raise_all(before=OFTEN)
    stand.certify(20)
    before = stand.blocks()
    admin = AdminClient({"bootstrap.servers": stand.bootstrap, "log_level": 0})
    admin.delete_topics([topics.COMMANDS])[topics.COMMANDS].result(10)
    _made_again(stand)
    for ordinal in stand.everyone:
        stand.wait_standing(ordinal, "was made anew")
    # The records that stand at the certified offsets now are certified by nobody.
    stand.submit([stand.command(author(7), "anew", number) for number in range(20)])
    for ordinal in stand.everyone:
        stand.of(ordinal).kill()
    stand.raise_all(before=OFTEN)
    for ordinal in stand.everyone:
        stand.wait_standing(ordinal, "was made anew")
    assert [one.digest for one in stand.blocks()] == [one.digest for one in before]
    opened = stand.open_log_epochs()
    stand.certify(20)
    blocks = stand.blocks()
    assert [one.digest for one in blocks[: len(before)]] == [one.digest for one in before]
    assert {one.log_epoch for block in blocks[: len(before)] for one in block.header.ranges} == {1}
    anew = [one for block in blocks[opened:] for one in block.header.ranges]
    assert anew
    assert max(one.log_epoch for one in anew) == 2
    assert stand.seen()["quorum"]["voting"] == 4
    for ordinal in stand.everyone:
        said = stand.report(ordinal)
        assert said is not None
        assert said.role_cause == ""
    stand.check_no_fork()


def test_commands_that_were_read_and_not_certified_are_appended_again_to_the_new_topic(
    stand: QuorumStand,
) -> None:
    stand.raise_all(before=OFTEN)
    stand.certify(20)
    for ordinal in (2, 3):
        stand.of(ordinal).kill()
    stand.write(8)
    until(lambda: _held(stand) == 8, SECONDS_MAX, "two validators have read the commands")
    admin = AdminClient({"bootstrap.servers": stand.bootstrap, "log_level": 0})
    admin.delete_topics([topics.COMMANDS])[topics.COMMANDS].result(10)
    _made_again(stand)
    for ordinal in (0, 1):
        stand.wait_standing(ordinal, "was made anew")
    assert sum(stand.ends(topics.COMMANDS)) == 0
    stand.raise_all((2, 3), before=OFTEN)
    stand.open_log_epochs()
    until(lambda: _accepted(stand) == 28, SECONDS_MAX, "all commands are certified")
    assert sum(stand.ends(topics.COMMANDS)) == 8, "each of them once"
    stand.check_no_fork()


def _held(stand: QuorumStand) -> int:
    """The records that validator 0 has read and no block has."""

    async def ask() -> int:
        async with OperatorClient(stand.addresses[0], stand.ledger_id) as client:
            return sum(one.held_records for one in (await client.log()).partitions)

    return asyncio.run(ask())


def _accepted(stand: QuorumStand) -> int:
    return sum(bool(one.events) for block in stand.blocks() for one in block.records)


def _made_again(stand: QuorumStand) -> None:
    from nocturne.deploy import topics as topics_job

    def made() -> bool:
        # A topic that is being deleted cannot be made yet.
        try:
            topics_job.ensure(stand.cluster, topics_job.plan(stand.partitions))
        except Exception:
            return False
        return True

    until(made, 60, "the topic is made anew")


def test_certified_records_that_are_deleted_are_not_missed(stand: QuorumStand) -> None:
    stand.raise_all(before=OFTEN)
    stand.certify(40)
    _delete(stand, stand.ends(topics.COMMANDS))
    stand.certify(10)
    # Who starts after it, and who was away meanwhile, go on too.
    stand.of(3).kill()
    stand.certify(10)
    stand.begin(3, before=OFTEN)
    stand.wait_voting(3)
    stand.of(0).kill()
    stand.certify(10)
    stand.check_no_fork()


def test_records_deleted_before_they_were_certified_are_missed_until_the_operators_say_go_on(
    stand: QuorumStand,
) -> None:
    stand.raise_all()
    stand.certify(20)
    for ordinal in stand.everyone:
        stand.of(ordinal).kill()
    stand.write(8)
    _delete(stand, stand.ends(topics.COMMANDS))
    before = stand.blocks()
    for ordinal in stand.everyone:
        stand.begin(ordinal)
    for ordinal in stand.everyone:
        stand.wait_standing(ordinal, "deleted before they were certified")
    assert [one.digest for one in stand.blocks()] == [one.digest for one in before]
    stand.open_log_epochs()
    stand.certify(10)
    stand.check_no_fork()


def test_who_was_away_when_the_records_it_lacks_were_deleted_goes_on_from_a_snapshot_of_others(
    stand: QuorumStand,
) -> None:
    stand.raise_all()
    stand.certify(20)
    stand.of(3).kill()
    stand.certify(20)
    missed = len(stand.blocks())
    _delete(stand, stand.ends(topics.COMMANDS))
    stand.begin(3)
    stand.wait_voting(3)
    _joined(stand, 3, missed)
    # With another one away nothing is certified without its votes.
    stand.of(0).kill()
    stand.certify(10)
    stand.check_no_fork((1, 2, 3))


def test_a_new_key_joins_by_a_snapshot_when_the_old_records_are_gone_and_certifies(
    broker: Broker, tmp_path: Path
) -> None:
    stand = QuorumStand(tmp_path / "home", broker.bootstrap, epoch_length=12)
    fresh_topics(broker.bootstrap, stand.partitions)
    try:
        stand.raise_all()
        for _ in range(10):
            stand.write(50, events=10)
        stand.wait_certified()
        first = stand.sets.epoch_at(_rotated(stand, 3, stand.admit(4))) + 2
        _delete(stand, stand.ends(topics.COMMANDS))
        missed = len(stand.blocks())
        stand.begin(4)
        while len(stand.blocks()) < (first + 1) * stand.epoch_length:
            stand.certify(3)
        stand.wait_voting(4)
        _joined(stand, 4, missed)
        # Nothing is certified without it now: of the three others one is away.
        stand.of(0).kill()
        stand.certify(5)
        stand.check_no_fork((1, 2, 3, 4))
    finally:
        stand.stop_all()


def _joined(stand: QuorumStand, ordinal: int, height: int) -> dict[str, Any]:
    """A validator went on from a snapshot of at least this height, and executed nothing before;
    what it said of it.
    """
    said = [json.loads(line) for line in stand.of(ordinal).said().splitlines() if line[:1] == "{"]
    joined = [one for one in said if one.get("event") == "joined"]
    assert [one["height"] >= height for one in joined] == [True], joined
    recovered = [one for one in said if one.get("event") == "recovered"]
    assert recovered[-1]["height"] >= height
    assert recovered[-1]["replayed_blocks"] == 0
    print(joined[0])
    found: dict[str, Any] = joined[0]
    return found


def _delete(stand: QuorumStand, ends: list[int]) -> None:
    admin = AdminClient({"bootstrap.servers": stand.bootstrap, "log_level": 0})
    up_to = [TopicPartition(topics.COMMANDS, p, end) for p, end in enumerate(ends) if end]
    for deleted in admin.delete_records(up_to).values():
        deleted.result(10)


@pytest.mark.parametrize("others", [0, 80], ids=["and-no-more", "and-written-on"])
def test_a_broker_put_back_to_an_older_copy_is_noticed_and_the_operators_let_it_go_on(
    tmp_path: Path, others: int
) -> None:
    """With other records in the place of the certified ones that it lost: they are as many as it
    takes to hide the loss, and no validator runs while they are written.
    """
    broker = make_broker(tmp_path / "kafka")
    kafka.prepare(broker)
    stand = QuorumStand(tmp_path / "home", broker.bootstrap)
    try:
        with started(kafka_process(broker), broker.folder / "log"):
            fresh_topics(broker.bootstrap, stand.partitions)
            stand.raise_all(before=OFTEN)
            stand.certify(20)
        shutil.copytree(broker.logs, tmp_path / "old")
        with started(kafka_process(broker), broker.folder / "log"):
            stand.certify(40)
            blocks = stand.blocks()
            certified = stand.certified_to()
            if others:
                for ordinal in stand.everyone:
                    stand.of(ordinal).kill()
        shutil.rmtree(broker.logs)
        (tmp_path / "old").rename(broker.logs)
        with started(kafka_process(broker), broker.folder / "log"):
            stand.forget()
            words = "the broker lost certified records"
            if others:
                ends = stand.ends(topics.COMMANDS)
                stand.write(others, who=5, sessions=32)
                written = stand.ends(topics.COMMANDS)
                for was, end, now in zip(ends, certified, written, strict=True):
                    assert was < end < now or end == 0
                for ordinal in stand.everyone:
                    stand.begin(ordinal, before=OFTEN)
                words = "the log was changed"
            for ordinal in stand.everyone:
                stand.wait_standing(ordinal, words)
            digests = {block.header.height: block.digest for block in blocks}
            for ordinal in stand.everyone:
                for height, digest in stand.digests_of(ordinal).items():
                    assert digests.get(height, digest) == digest
            # The blocks that the broker lost are published again, before and after it.
            stand.wait_blocks(len(blocks))
            for ordinal in stand.everyone:
                stand.wait_voting(ordinal)
            stand.open_log_epochs()
            stand.certify(20)
            stand.check_no_fork()
    finally:
        stand.stop_all()


def test_a_validator_whose_broker_shows_other_records_takes_none_and_follows_the_others(
    tmp_path: Path,
) -> None:
    """The broker's folder is copied: two brokers with one past, and another record at the next
    offset of each.
    """
    broker, other = make_broker(tmp_path / "kafka"), make_broker(tmp_path / "other")
    kafka.prepare(broker)
    stand = QuorumStand(tmp_path / "home", broker.bootstrap)
    try:
        with started(kafka_process(broker), broker.folder / "log"):
            fresh_topics(broker.bootstrap, stand.partitions)
            stand.raise_all()
            stand.certify(20)
            stand.of(3).kill()
        shutil.copytree(broker.logs, other.logs)
        kafka.prepare(other)
        with (
            started(kafka_process(broker), broker.folder / "log"),
            started(kafka_process(other), other.folder / "log"),
        ):
            # Until it has registered, it names the address that its copied folder has.
            until(lambda: _names_itself(other), SECONDS_MAX, "the copy names its own address")
            stand.begin(3, NOCTURNE_KAFKA_BOOTSTRAP=other.bootstrap)
            stand.wait_voting(3)
            told, stand.bootstrap = stand.bootstrap, other.bootstrap
            stand.write(8, who=5)
            stand.bootstrap = told
            stand.certify(8)
            stand.certify(8)
            stand.wait_standing(3, "this validator's log is not that of the quorum")
            # What blocks have of the log it takes from the others.
            stand.certify(8)
            until(lambda: stand.digests_of(3) == stand.digests_of(0), SECONDS_MAX, "it follows")
            assert stand.of(3).process.poll() is None
            stand.check_no_fork()
    finally:
        stand.stop_all()


def _names_itself(broker: Broker) -> bool:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    return {one.port for one in admin.list_topics(timeout=10).brokers.values()} == {broker.port}
