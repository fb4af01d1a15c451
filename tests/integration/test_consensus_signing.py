"""The validator and the signing service as processes, on a real broker: what they make, and what
they do when they are killed, lied to, or find their own data changed.
"""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Message, TopicPartition
from confluent_kafka.admin import AdminClient
from tests.machines import make_broker, started, until
from tests.stand import (
    SECONDS_MAX,
    TRACEPARENT,
    Running,
    Stand,
    author,
    digests,
    fresh_topics,
    wait_for_log,
)

from nocturne.core import topics
from nocturne.core.blocks import (
    decode_seal,
    encode_block,
    encode_block_header,
    hash_block,
    hash_signatures,
    seal_signed,
)
from nocturne.core.commands import Opening
from nocturne.core.events import Event, decode_event, event_signed
from nocturne.core.genesis import encode_genesis
from nocturne.core.identifiers import Hash
from nocturne.core.receipts import Reason, Receipt, decode_receipt, receipt_signed
from nocturne.deploy import topics as topics_job
from nocturne.embedded import ceremony, kafka
from nocturne.embedded.kafka import Broker
from nocturne.embedded.processes import grpc_serves
from nocturne.embedded.services import kafka_process
from nocturne.runtime.kafka import ProducedRecord, TransactionalProducer, producer_config

pytestmark = pytest.mark.integration

FACTS = Opening("facts", 1)
KILLS = 5


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker of this module's own: its topics have the ledger's names and are made anew."""
    made = make_broker(tmp_path_factory.mktemp("kafka"))
    kafka.prepare(made)
    with started(kafka_process(made), made.folder / "log"):
        yield made


@pytest.fixture
def stand(broker: Broker, tmp_path: Path) -> Iterator[Stand]:
    made = Stand(tmp_path / "home", broker.bootstrap)
    fresh_topics(broker.bootstrap, made.partitions)
    yield made
    made.stop_all()


def events_of(stand: Stand) -> list[Event]:
    return [decode_event(topics.unframe(one.value())) for one in stand.read_all(topics.EVENTS)]


def receipts_of(stand: Stand) -> list[Receipt]:
    return [decode_receipt(topics.unframe(one.value())) for one in stand.read_all(topics.RECEIPTS)]


def commands(stand: Stand, count: int, sessions: int = 5, first: int = 0) -> list[ProducedRecord]:
    """`count` commands, round over some sessions; the first of each session opens it."""
    return [
        stand.command(
            author(),
            f"session-{number % sessions}",
            first + number,
            opening=FACTS if first == 0 and number < sessions else None,
        )
        for number in range(count)
    ]


def header(message: Message, name: str) -> bytes | None:
    return dict(message.headers() or ()).get(name)  # type: ignore[return-value]


def check_signed(stand: Stand) -> None:
    """Everything in the blocks is signed, once for every reader who drops equal copies, and sealed
    in order; nothing else is.
    """
    authority = stand.genesis.authority
    events = {event.event_hash: event for event in events_of(stand)}
    receipts = {receipt.receipt_hash: receipt for receipt in receipts_of(stand)}
    seals = {
        seal.height: seal
        for seal in (
            decode_seal(topics.unframe(one.value()))
            for one in stand.read(topics.SEALS, committed=True)
        )
    }
    blocks = stand.blocks()
    assert sorted(seals) == [block.header.height for block in blocks]
    heads: dict[str, tuple[int, bytes]] = {}
    used = Counter[bytes]()
    for block in blocks:
        signatures = []
        time, height = block.header.time, block.header.height
        for record in block.records:
            for header_bytes in record.events:
                event = next(e for e in events.values() if e.header_bytes == header_bytes)
                assert event_signed(authority, event.event_hash, time, height, event.signatures)
                sequence, previous = heads.get(event.header.session, (0, None))
                assert event.header.sequence == sequence + 1
                assert previous in (None, event.header.previous_hash)
                heads[event.header.session] = (sequence + 1, event.event_hash)
                signatures.append(event.signatures)
                used[event.event_hash] += 1
            if record.receipt is not None:
                receipt = next(r for r in receipts.values() if r.header_bytes == record.receipt)
                assert receipt_signed(
                    authority, receipt.receipt_hash, time, height, receipt.signatures
                )
                signatures.append(receipt.signatures)
                used[receipt.receipt_hash] += 1
        seal = seals[height]
        assert seal_signed(authority, seal)
        assert seal.block_digest == block.digest
        assert seal.signatures_hash == hash_signatures(signatures)
    assert set(used) == set(events) | set(receipts)
    assert set(used.values()) <= {1}


def check_copies_are_equal(stand: Stand) -> None:
    """Records of one identity are the same bytes, however often they were published."""
    for topic in (topics.EVENTS, topics.RECEIPTS, topics.SEALS):
        known: dict[bytes | None, bytes | None] = {}
        messages = (
            stand.read(topic, committed=True) if topic == topics.SEALS else stand.read_all(topic)
        )
        for message in messages:
            identity = header(message, "ce_id")
            assert known.setdefault(identity, message.value()) == message.value()


# The way of a command ----------------------------------------------------------------------------


def test_every_offset_is_disposed_of_once_and_signed(stand: Stand) -> None:
    stand.start("consensus")
    stand.start("signing")
    records = [
        stand.command(author(), "a", 1, opening=FACTS),
        stand.command(author(), "a", 2, events=3, expected=1),
        stand.command(author(), "a", 3, expected=1),
        stand.command(author(2), "a", 4),
        stand.command(author(), "a", 2, events=3, expected=1),
    ]
    records += [replace(records[0], value=b"no command"), replace(records[1], key=b"other")]
    stand.submit(records)
    stand.wait_certified()
    stand.wait_sealed(len(stand.blocks()))
    check_signed(stand)
    events = events_of(stand)
    assert [event.header.sequence for event in events] == [1, 2, 3, 4]
    receipts = receipts_of(stand)
    assert Counter(receipt.header.reason for receipt in receipts) == {
        Reason.DUPLICATE_SEQ: 1,
        Reason.NOT_A_MEMBER: 1,
        Reason.ID_REUSED: 1,
        Reason.MALFORMED: 2,
    }
    refused = next(r.header for r in receipts if r.header.reason is Reason.DUPLICATE_SEQ)
    assert refused.head is not None
    assert refused.head.sequence == 4
    for message in stand.read_all(topics.EVENTS):
        assert header(message, "traceparent") == TRACEPARENT
        assert header(message, "nocturne-height") is not None
        assert header(message, "ce_source") == stand.source.encode()


def test_an_idle_chain_is_silent(stand: Stand) -> None:
    stand.start("consensus")
    stand.submit(commands(stand, 1, 1))
    stand.wait_certified()
    before = len(stand.read(topics.BLOCKS))
    again = stand.start("signing")
    stand.wait_sealed(before)
    assert len(stand.read(topics.BLOCKS)) == before
    assert again.stop() == 0


def test_control_markers_are_gaps_even_at_the_end(stand: Stand) -> None:
    stand.start("consensus")
    first, second = commands(stand, 2, 1)

    async def in_transactions() -> None:
        producer = TransactionalProducer(producer_config(stand.cluster), "tester")
        await producer.publish([first])
        await producer.publish([second])
        await producer.close()

    stand.on_kafka(in_transactions)
    stand.wait_certified()
    hashes = [record.record_hash is None for block in stand.blocks() for record in block.records]
    assert hashes == [False, True, False, True]


def test_records_of_strangers_in_the_blocks_topic_are_never_signed(stand: Stand) -> None:
    consensus = stand.start("consensus")
    signing = stand.start("signing")
    stand.submit(commands(stand, 3))
    stand.wait_certified()
    block = stand.blocks()[-1]
    forged = replace(block.header, height=block.header.height + 1, parent_digest=block.digest)
    forged_bytes = encode_block_header(forged)
    fake = replace(block, header=forged, header_bytes=forged_bytes, digest=hash_block(forged_bytes))
    for value in (b"", b"junk", topics.frame(2, encode_block(fake))):
        stand.submit([ProducedRecord(topics.BLOCKS, 0, b"9", value)])
    wait_for_log(signing, "foreign_record")
    consensus.kill()
    stand.start("consensus")
    stand.submit(commands(stand, 3, first=3))
    stand.wait_sealed(block.header.height + 1)
    assert signing.process.poll() is None
    assert signing.said().count("foreign_record") == 3
    assert all(receipt.height < 10**6 for receipt in receipts_of(stand))
    assert len(events_of(stand)) == 6


LITTLE_ROOM = """
from nocturne.core import block_intake, waiting_blocks
waiting_blocks.HELD_BLOCKS_MAX = block_intake.HELD_BLOCKS_MAX = 3
"""


def test_blocks_of_several_publishers_are_signed_once_whatever_their_order(stand: Stand) -> None:
    """The first block comes last, behind more than may wait, and all of them twice."""
    consensus = stand.start("consensus")
    for number in range(12):
        stand.submit(commands(stand, 1, first=number, sessions=1))
        stand.wait_certified()
    blocks = stand.blocks()
    values = [one.value() for one in stand.read(topics.BLOCKS)]
    assert len(blocks) == len(values) >= 10
    assert consensus.stop() == 0
    lose_blocks_topic(stand)
    order = [*reversed(values[1:]), *values[1:], values[0], values[0]]
    stand.submit([ProducedRecord(topics.BLOCKS, 0, b"1", value) for value in order])
    signing = stand.start("signing", before=LITTLE_ROOM)
    stand.wait_sealed(len(blocks))
    assert "records_read_again" in signing.said()
    assert "foreign_record" not in signing.said()
    assert len(events_of(stand)) == sum(len(one.events) for b in blocks for one in b.records)
    assert signing.stop() == 0
    again = stand.start("signing")
    assert f'"published_height": {len(blocks)}' in again.said()
    stand.submit([ProducedRecord(topics.BLOCKS, 0, b"1", value) for value in values])
    stand.start("consensus")
    stand.submit(commands(stand, 1, first=12, sessions=1))
    stand.wait_sealed(len(blocks) + 1)
    assert len(stand.read(topics.SEALS, committed=True)) == len(blocks) + 1
    assert "foreign_record" not in again.said()


# Crashes -----------------------------------------------------------------------------------------


SMALL_SNAPSHOTS = """
from nocturne.consensus import store
store.SNAPSHOT_JOURNAL_BYTES = store.SEGMENT_BYTES = 40_000
store.SNAPSHOT_SHARE = 0
"""


def test_killed_at_any_moment_nothing_is_lost_and_nothing_differs(stand: Stand) -> None:
    broken = {"consensus": SMALL_SNAPSHOTS, "signing": ""}
    seed = int(os.environ.get("NOCTURNE_SEED", random.SystemRandom().randrange(10**6)))
    print(f"NOCTURNE_SEED={seed}")
    dice = random.Random(seed)
    running: dict[str, Running] = {name: stand.start(name) for name in ("consensus", "signing")}
    sent = 0
    for _ in range(KILLS):
        victim = dice.choice(sorted(running))
        count = dice.randrange(20, 120)
        stand.submit(commands(stand, count, first=sent))
        sent += count
        wanted = dice.randrange(len(stand.read(topics.BLOCKS)) + 3)
        until_blocks(stand, min(wanted, 1))
        running[victim].kill()
        stand.submit(commands(stand, 10, first=sent))
        sent += 10
        running[victim] = stand.start(victim, before=broken[victim])
    stand.wait_certified()
    stand.wait_sealed(len(stand.blocks()))
    check_signed(stand)
    check_copies_are_equal(stand)
    assert '"event": "snapshot"' in running["consensus"].said()
    assert len({event.header.event_id for event in events_of(stand)}) == sent


def until_blocks(stand: Stand, count: int) -> None:
    until(lambda: len(stand.read(topics.BLOCKS)) >= count, 20, f"{count} blocks")


FSYNC_FAILS = """
import errno, os
sync, calls = os.fdatasync, 0
def refuse(file):
    global calls
    calls += 1
    if calls > 2:
        raise OSError(errno.EIO, "Input/output error")
    sync(file)
os.fdatasync = refuse
"""


def test_a_failed_fsync_ends_the_process_and_the_next_one_goes_on(stand: Stand) -> None:
    consensus = stand.start("consensus", before=FSYNC_FAILS)
    for number in range(5):
        if consensus.process.poll() is None:
            stand.submit(commands(stand, 1, 1, first=number))
    assert consensus.ended() == 1
    assert "fsync failed (Input/output error)" in consensus.said()
    before = digests(stand.blocks())
    stand.start("consensus")
    stand.wait_certified()
    assert digests(stand.blocks())[: len(before)] == before


def test_a_lost_blocks_topic_is_filled_again_from_the_journal(stand: Stand) -> None:
    consensus = stand.start("consensus")
    signing = stand.start("signing")
    stand.submit(commands(stand, 20))
    stand.wait_certified()
    before = stand.blocks()
    stand.wait_sealed(len(before))
    assert (consensus.stop(), signing.stop()) == (0, 0)
    lose_blocks_topic(stand)
    # The stranger's record shifts every offset, so that none is where it was.
    stand.submit([ProducedRecord(topics.BLOCKS, 0, b"1", b"junk")])
    stand.start("consensus")
    assert digests(stand.blocks()) == digests(before)
    again = stand.start("signing")
    stand.submit(commands(stand, 5, first=20))
    stand.wait_certified()
    stand.wait_sealed(len(stand.blocks()))
    check_signed(stand)
    assert again.process.poll() is None


def lose_blocks_topic(stand: Stand) -> None:
    admin = AdminClient({"bootstrap.servers": stand.bootstrap})
    admin.delete_topics([topics.BLOCKS])[topics.BLOCKS].result(10)
    until(lambda: topics.BLOCKS not in admin.list_topics(timeout=5).topics, 20, "it is gone")
    topics_job.ensure(stand.cluster, topics_job.plan(stand.partitions))
    stand.forget()


def test_a_lost_blocks_topic_that_the_journal_cannot_fill_is_a_halt(stand: Stand) -> None:
    consensus = stand.start("consensus", before=SMALL_SNAPSHOTS)
    sent = 0
    while '"event": "snapshot"' not in consensus.said():
        stand.submit(commands(stand, 20, first=sent))
        sent += 20
        stand.wait_certified()
    # The journal's first segment goes with the snapshot; the next start finds blocks missing.
    stand.submit(commands(stand, 40, first=sent))
    stand.wait_certified()
    consensus.stop()
    lose_blocks_topic(stand)
    halted = stand.start("consensus", healthy=False)
    assert halted.ended() == 3
    assert "put the topic back" in halted.said()


def test_a_clean_start_publishes_nothing_again(stand: Stand) -> None:
    consensus = stand.start("consensus")
    signing = stand.start("signing")
    stand.submit(commands(stand, 20))
    stand.wait_certified()
    stand.wait_sealed(len(stand.blocks()))
    assert (consensus.stop(), signing.stop()) == (0, 0)
    sizes = [len(stand.read(topics.BLOCKS)), len(events_of(stand))]
    stand.start("consensus")
    stand.start("signing")
    stand.submit(commands(stand, 1, first=20))
    stand.wait_certified()
    stand.wait_sealed(len(stand.blocks()))
    assert [len(stand.read(topics.BLOCKS)), len(events_of(stand))] == [sizes[0] + 1, sizes[1] + 1]


# Halts and refusals ------------------------------------------------------------------------------


def stopped_after(stand: Stand, count: int) -> None:
    """A ledger with `count` records certified, its validator stopped."""
    consensus = stand.start("consensus")
    stand.submit(commands(stand, count))
    stand.wait_certified()
    assert consensus.stop() == 0


def test_a_commands_topic_made_anew_lets_the_intake_stand_at_every_start(stand: Stand) -> None:
    stopped_after(stand, 5)
    blocks = len(stand.blocks())
    fresh_topics(stand.bootstrap, stand.partitions)
    for number in (1, 2):
        stands_for(stand.start("consensus"), "was made anew", number)
    assert len(stand.blocks()) == blocks, "what was certified is published again, and nothing else"
    assert not (stand.home.data(ceremony.VALIDATOR) / "halted").exists()


def test_a_commands_topic_made_anew_under_a_running_validator_lets_its_intake_stand(
    stand: Stand,
) -> None:
    often = "from nocturne.consensus import commands_log; commands_log.TOPIC_CHECK_SECONDS = 0.2"
    running = stand.start("consensus", before=often)
    stand.submit(commands(stand, 5))
    stand.wait_certified()
    fresh_topics(stand.bootstrap, stand.partitions)

    def has_noticed() -> bool:
        # The process may end for the blocks that are lost too: the next start finds out all.
        return "was made anew" in running.said() or running.process.poll() is not None

    until(has_noticed, SECONDS_MAX, "the other topic is noticed")
    running.stop()
    said = said_to_stand(running, "was made anew")
    stands_for(stand.start("consensus"), "was made anew", said + 1)


def test_records_deleted_before_they_were_certified_let_the_intake_stand(stand: Stand) -> None:
    stopped_after(stand, 5)
    placed = stand.submit(commands(stand, 2, sessions=1, first=5))
    admin = AdminClient({"bootstrap.servers": stand.bootstrap})
    partition, offset = placed[-1]
    whole = TopicPartition(topics.COMMANDS, partition, offset + 1)
    admin.delete_records([whole])[TopicPartition(topics.COMMANDS, partition)].result(10)
    stands_for(stand.start("consensus"), "deleted before they were certified")


def stands_for(running: Running, words: str, times: int = 1) -> None:
    """It says so as often, and runs until it is told to stop."""
    until(
        lambda: said_to_stand(running, words) >= times,
        SECONDS_MAX,
        f"the intake stands: {words}",
    )
    assert running.stop() == 0


def said_to_stand(running: Running, words: str) -> int:
    """How often the processes of this log said so."""
    lines = running.said().splitlines()
    return sum("intake_stands" in one and words in one for one in lines)


def test_certified_records_that_retention_took_are_not_missed(stand: Stand) -> None:
    stopped_after(stand, 5)
    admin = AdminClient({"bootstrap.servers": stand.bootstrap})
    ends = [
        TopicPartition(topics.COMMANDS, partition, end)
        for partition, end in enumerate(stand.ends(topics.COMMANDS))
        if end
    ]
    for deleted in admin.delete_records(ends).values():
        deleted.result(10)
    stand.start("consensus")
    stand.submit(commands(stand, 5, first=5))
    until(lambda: sum(stand.certified_to()) == 10, 20, "all are certified")


def test_an_old_copy_of_the_validators_home_is_a_halt(stand: Stand, tmp_path: Path) -> None:
    stopped_after(stand, 5)
    home = stand.home.data(ceremony.VALIDATOR)
    shutil.copytree(home, tmp_path / "old")
    consensus = stand.start("consensus")
    stand.submit(commands(stand, 5, first=5))
    stand.wait_certified()
    consensus.stop()
    shutil.rmtree(home)
    (tmp_path / "old").rename(home)
    halted = stand.start("consensus", healthy=False)
    assert halted.ended() == 3
    assert "old copy" in halted.said()


def test_a_key_without_its_journal_observes_and_never_votes(stand: Stand) -> None:
    stopped_after(stand, 5)
    before = len(stand.read(topics.BLOCKS))
    shutil.rmtree(stand.home.data(ceremony.VALIDATOR) / "journal")
    observer = stand.start("consensus", healthy=False)
    wait_for_log(observer, "observing")
    stand.submit(commands(stand, 5, first=5))
    assert not grpc_serves(observer.address)
    assert len(stand.read(topics.BLOCKS)) == before
    assert observer.stop() == 0
    assert not (stand.home.data(ceremony.VALIDATOR) / "journal").exists()


@pytest.mark.parametrize("service", ["consensus", "signing"])
def test_a_second_process_on_one_home_does_not_start(stand: Stand, service: str) -> None:
    first = stand.start(service)
    second = stand.start(service, healthy=False)
    assert second.ended() == 1
    assert "in use by another process" in second.said()
    assert first.process.poll() is None


def test_a_kind_with_other_code_is_one_clear_sentence(stand: Stand) -> None:
    genesis = stand.genesis
    first, *others = genesis.kinds
    changed = replace(first, code_hash=Hash(bytes(32)))
    stand.genesis_file.write_bytes(encode_genesis(replace(genesis, kinds=(changed, *others))))
    refused = stand.start("consensus", healthy=False)
    assert refused.ended() == 1
    assert "in the release that the ledger was founded with" in refused.said()
    unknown = replace(first, version=77)
    stand.genesis_file.write_bytes(encode_genesis(replace(genesis, kinds=(unknown, *others))))
    refused = stand.start("consensus", healthy=False)
    assert refused.ended() == 1
    assert "not in this installation" in refused.said()


def test_a_wrong_key_signs_and_votes_nothing(stand: Stand) -> None:
    validator = ceremony.validator_key(stand.home)
    authority = ceremony.authority_key(stand.home)
    validator_data, authority_data = validator.read_bytes(), authority.read_bytes()
    validator.write_bytes(authority_data)
    authority.write_bytes(validator_data)
    for service in ("consensus", "signing"):
        refused = stand.start(service, healthy=False)
        assert refused.ended() == 1
        assert "is not the" in refused.said()


def test_an_authority_that_signed_another_block_signs_no_more_and_stays_to_say_why(
    stand: Stand,
) -> None:
    stand.start("consensus")
    signing = stand.start("signing")
    stand.submit(commands(stand, 3))
    stand.wait_certified()
    stand.wait_sealed(len(stand.blocks()))
    signing.kill()
    store = stand.home.data("signing") / "signed.sqlite"
    with sqlite3.connect(store) as database:
        database.execute("UPDATE blocks SET digest = ? WHERE height = 1", (bytes(32),))
        database.execute("UPDATE state SET published_height = 0, next_offset = 0, positions = x''")
    database.close()
    sealed = len(stand.read(topics.SEALS))
    for _ in range(2):
        degraded = stand.start("signing")
        wait_for_log(degraded, "SIGNING_CONFLICT")
        assert degraded.stop() == 0
    assert "this authority signed" in degraded.said()
    assert (stand.home.data("signing") / "degraded").exists()
    assert len(stand.read(topics.SEALS)) == sealed
