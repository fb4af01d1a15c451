"""The command service's followers with topics in memory: two histories end what they believe."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.ledger_factory import AUTHORITY
from tests.unit.core.test_modes import CHAIN, rival, seal

from nocturne.command import service
from nocturne.command.limits import RateLimits, SessionCounts
from nocturne.command.service import Commands, CommandSettings, Follower, watch
from nocturne.core.blocks import Block, encode_block, encode_seal
from nocturne.core.conflicts import check_conflict
from nocturne.core.genesis import encode_genesis
from nocturne.core.modes import Cause
from nocturne.core.topics import BLOCKS, SEALS, frame
from nocturne.runtime.degraded import LedgerMode
from nocturne.runtime.kafka import Start
from nocturne.runtime.settings import Founding
from nocturne.runtime.telemetry import Metrics

FOUNDING = Founding(encode_genesis(CHAIN.genesis), CHAIN.genesis, CHAIN.ledger_id)


@dataclass
class FakeMessage:
    where: str
    at: int
    data: bytes

    def topic(self) -> str:
        return self.where

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.at

    def value(self) -> bytes:
        return self.data

    def headers(self) -> None:
        return None


class FakeTopics:
    """What the service reads; `read` says which topics somebody has."""

    def __init__(self, blocks: Sequence[Block], seals: Sequence[bytes] = ()) -> None:
        self.records = {
            BLOCKS: [frame(1, encode_block(one)) for one in blocks],
            SEALS: [frame(1, one) for one in seals],
        }
        self.read: set[str] = set()
        self.closed = 0

    def watermarks(self, _: object, topic: str, __: int) -> tuple[int, int]:
        return 0, len(self.records.get(topic, ()))

    def consumer(self, _: object, starts: Sequence[Start], **__: object) -> FakeConsumer:
        self.read.add(starts[0].topic)
        return FakeConsumer(self, starts[0].topic)


class FakeConsumer:
    def __init__(self, topics: FakeTopics, topic: str) -> None:
        self._topics = topics
        self._topic = topic
        self._given = 0

    def next_offset(self, *_: object) -> int:
        return self._given

    def lag(self) -> int:
        return 0

    async def batch(self) -> list[FakeMessage]:
        records = self._topics.records.get(self._topic, [])
        if self._given == len(records):
            await asyncio.Event().wait()
        self._given += 1
        return [FakeMessage(self._topic, self._given - 1, records[self._given - 1])]

    async def close(self) -> None:
        self._topics.closed += 1


class FakeServer:
    def __init__(self) -> None:
        self.said: list[tuple[bool, str]] = []

    async def set_serving(self, serving: bool, why: str = "") -> None:
        self.said.append((serving, why))


class World:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, home: Path, topics: FakeTopics) -> None:
        monkeypatch.setattr(service, "BatchConsumer", topics.consumer)
        monkeypatch.setattr(service, "watermarks", topics.watermarks)
        settings = CommandSettings(
            home_dir=home,
            genesis_file=home / "genesis.avro",
            listen="127.0.0.1:0",
            kafka_bootstrap="127.0.0.1:1",
        )
        metrics = Metrics("command")
        self.mode = LedgerMode(home, CHAIN.ledger_id)
        producer: Any = object()
        self.commands = Commands(
            FOUNDING, producer, 1, RateLimits(0, 0), SessionCounts(0), metrics, self.mode
        )
        self.follower = Follower(FOUNDING, settings, self.commands, None)

    def follow(self) -> None:
        """Until it follows no more."""
        asyncio.run(asyncio.wait_for(self.follower.follow(), 10))

    def serving(self) -> list[tuple[bool, str]]:
        server: Any = FakeServer()
        producer: Any = object()
        asyncio.run(asyncio.wait_for(watch(server, producer, self.follower, self.mode), 10))
        found: list[tuple[bool, str]] = server.said
        return found


TOPICS = {
    Cause.CONFLICTING_COMMIT_PROOFS: FakeTopics([*CHAIN.blocks, rival(2)]),
    Cause.SIGNING_CONFLICT: FakeTopics(
        CHAIN.blocks, [encode_seal(seal(b"a" * 32)), encode_seal(seal(b"b" * 32))]
    ),
}


@pytest.mark.parametrize("cause", TOPICS)
def test_proof_in_a_topic_is_kept_and_nothing_is_followed_any_more_also_after_a_restart(
    cause: Cause, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    topics = TOPICS[cause]
    world = World(monkeypatch, tmp_path, topics)
    world.follow()
    kept = world.mode.kept
    assert kept is not None
    assert kept.cause is cause
    assert kept.conflict is not None
    sets = CHAIN.genesis.founding_sets
    check_conflict(kept.conflict, CHAIN.ledger_id, sets, AUTHORITY.key)
    assert topics.closed == len(topics.read), "no consumer is left open"

    topics.read.clear()
    again = World(monkeypatch, tmp_path, topics)
    again.follow()
    assert topics.read == set()
    assert again.mode.kept == kept
    assert again.serving() == [(True, f"the ledger is DEGRADED: {kept}")]


def test_one_history_is_followed_for_as_long_as_the_service_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world = World(monkeypatch, tmp_path, FakeTopics(CHAIN.blocks))
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(world.follower.follow(), 0.5))
    assert world.follower.following()
    assert world.mode.degraded is None
    assert list(tmp_path.iterdir()) == []
