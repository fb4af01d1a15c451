from pathlib import Path

from nocturne.deploy import topics
from nocturne.embedded import kafka
from nocturne.embedded.kafka import Broker


def test_the_broker_listens_on_loopback_only_and_creates_no_topic_by_itself() -> None:
    text = kafka.settings(Broker(Path("/home/kafka"), 19092, 19093, (), Path("java")))
    lines = dict(line.split("=", 1) for line in text.splitlines())
    assert lines["listeners"] == "PLAINTEXT://127.0.0.1:19092,CONTROLLER://127.0.0.1:19093"
    assert lines["auto.create.topics.enable"] == "false"
    assert lines["log.retention.ms"] == "-1"
    assert lines["group.initial.rebalance.delay.ms"] == "0"


def test_the_broker_takes_the_largest_record_of_every_topic() -> None:
    for topic in topics.plan(partitions=1):
        assert int(topic.settings.get("max.message.bytes", "0")) <= kafka.MESSAGE_BYTES_MAX
