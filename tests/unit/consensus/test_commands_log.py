"""Records as the broker's client gives them, and the watch over the log while it is read."""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import pytest

from nocturne.consensus import commands_log
from nocturne.consensus.commands_log import UNREADABLE_HEADERS, log_record_of, watch_log
from nocturne.core.blocks import LogRecord
from nocturne.core.errors import Halt, Unavailable
from nocturne.core.identifiers import Hash
from nocturne.core.state_leaf import LogPosition
from nocturne.runtime.cluster import Cluster

UUID, ANOTHER = b"u" * 16, b"v" * 16


class Delivered:
    """A message as confluent_kafka has it; its headers are read when they are asked for."""

    def __init__(self, headers: object) -> None:
        self._headers = headers

    def key(self) -> bytes | None:
        return b"k"

    def value(self) -> bytes | None:
        return None

    def headers(self) -> object:
        if isinstance(self._headers, Exception):
            raise self._headers
        return self._headers


def log_record(headers: object) -> LogRecord:
    return log_record_of(cast("Any", Delivered(headers)))


def test_a_record_keeps_what_is_null_and_the_order_of_its_headers() -> None:
    headers = [("b", b"1"), ("a", None), ("b", b"")]
    assert log_record(headers) == LogRecord(b"k", None, tuple(headers))
    assert log_record(None) == log_record([]) == LogRecord(b"k", None, ())


@pytest.mark.parametrize(
    "fault", [SystemError("a result with an exception set"), UnicodeDecodeError("u", b"", 0, 1, "")]
)
def test_names_that_are_not_utf_8_do_not_stop_the_log(fault: Exception) -> None:
    assert log_record(fault) == LogRecord(b"k", None, UNREADABLE_HEADERS)


def certified_to(*offsets: int) -> list[LogPosition]:
    return [
        LogPosition(partition, 1, UUID, offset, Hash(bytes(32)))
        for partition, offset in enumerate(offsets)
    ]


class Log:
    """A broker that is asked again and again: each answer is the topic's id and its ends, or that
    it is away. After the last the topic is another one, so that every watch ends.
    """

    def __init__(self, *answers: tuple[int, ...] | None) -> None:
        self._answers = list(answers)
        self.certified = certified_to(3, 5)

    def topic_uuid(self, _: Cluster, __: str) -> bytes:
        if not self._answers:
            return ANOTHER
        if self._answers[0] is None:
            del self._answers[0]
            raise Unavailable("the broker is away")
        return UUID

    def ends(self, _: Cluster, __: str, partitions: Sequence[int]) -> dict[int, int]:
        answer = self._answers.pop(0) if self._answers else (10**9,) * len(partitions)
        assert answer is not None
        # Meanwhile more is certified: the ends are older than that.
        self.certified = certified_to(*(one + 1 for one in answer))
        return {one: answer[one] for one in partitions}

    def halt(self, monkeypatch: pytest.MonkeyPatch) -> str:
        """Watch it to the end; the cause."""
        monkeypatch.setattr(commands_log, "TOPIC_CHECK_SECONDS", 0)
        monkeypatch.setattr(commands_log.kafka, "topic_uuid", self.topic_uuid)
        monkeypatch.setattr(commands_log.kafka, "ends", self.ends)
        watching = watch_log(Cluster("nowhere:1"), UUID, lambda: self.certified)
        with pytest.raises(Halt) as halted:
            asyncio.run(asyncio.wait_for(watching, 30))
        return str(halted.value)


def test_a_log_that_loses_certified_records_while_it_is_read_halts_the_validator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cause = Log((3, 5), (4, 5)).halt(monkeypatch)
    assert cause == (
        "partition 1 of nocturne.commands.v1 ends at offset 5, certified up to 6: the broker lost "
        "certified records"
    )


def test_a_log_that_grows_behind_what_is_certified_meanwhile_or_is_away_halts_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "was made anew while it was read" in Log((3, 5), (4, 6), None, (5, 7)).halt(monkeypatch)
