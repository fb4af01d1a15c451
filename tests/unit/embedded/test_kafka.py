from pathlib import Path

from nocturne.core import topics as names
from nocturne.embedded import kafka, topics
from nocturne.embedded.kafka import Broker


def test_the_broker_listens_on_loopback_only_and_creates_no_topic_by_itself() -> None:
    text = kafka.settings(Broker(Path("/home/kafka"), 19092, 19093, (), Path("java")))
    lines = dict(line.split("=", 1) for line in text.splitlines())
    assert lines["listeners"] == "PLAINTEXT://127.0.0.1:19092,CONTROLLER://127.0.0.1:19093"
    assert lines["auto.create.topics.enable"] == "false"
    assert lines["log.retention.ms"] == "-1"
    assert lines["group.initial.rebalance.delay.ms"] == "0"


def test_every_topic_is_kept_for_ever() -> None:
    plan = topics.plan(partitions=4)
    assert set(plan) == set(names.TOPICS)
    for _, settings in plan.values():
        assert settings["retention.ms"] == "-1"
        assert settings["cleanup.policy"] == "delete"


def test_commands_events_and_receipts_share_the_partition_count() -> None:
    counts = {name: count for name, (count, _) in topics.plan(partitions=7).items()}
    assert counts == {
        names.COMMANDS: 7,
        names.EVENTS: 7,
        names.RECEIPTS: 7,
        names.BLOCKS: 1,
        names.SEALS: 1,
    }


def test_the_broker_takes_the_largest_record_of_every_topic() -> None:
    for _, settings in topics.plan(partitions=1).values():
        assert int(settings.get("max.message.bytes", "0")) <= kafka.MESSAGE_BYTES_MAX
