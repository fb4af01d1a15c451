"""Reading the commands topic for as long as it is the certified one.

Rules: docs/spec/consensus.md, intake. Shell. Where the log is another one, reading ends and the
intake stands: the validator still votes for blocks without ranges, so that the operators' record
that opens the next log epoch can be certified. Once it is, reading begins anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from nocturne.consensus.chain import Chain
from nocturne.consensus.commands_log import (
    TOPIC_CHECK_SECONDS,
    Kept,
    check_log,
    kept_by_broker,
    watch_log,
)
from nocturne.consensus.gathering import CertifiedRange, Gathering, LogLost
from nocturne.core import topics
from nocturne.core.errors import Unavailable
from nocturne.core.intake import Prepared
from nocturne.core.log_epochs import NO_TOPIC
from nocturne.core.record_headers import parse_headers
from nocturne.core.state_leaf import LogPosition
from nocturne.runtime import kafka
from nocturne.runtime.cluster import Cluster
from nocturne.runtime.kafka import AckedProducer, BatchConsumer, ProducedRecord, Start

AGAIN_SECONDS: Final = 2.0
"""How long each validator has to append again what it holds of a lost log before the next one does:
most of it is in every validator's hands, and one copy is enough.
"""
CONSUME_RECORDS_MAX: Final = 256
"""Of one hand-over from the consumer's thread: at the largest size still below 64 MiB."""

Gather = Callable[[BatchConsumer], Awaitable[None]]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LogState:
    """What is certified of the log (`positions`), held here beyond it, and what the broker has;
    `cause` is why the intake stands, empty while it does not.
    """

    cause: str
    topic_uuid: bytes
    positions: tuple[LogPosition, ...]
    held: tuple[int, ...]
    kept: tuple[Kept, ...]


class LogReading:
    """The shell of `Gathering`."""

    def __init__(
        self,
        cluster: Cluster,
        group: str,
        chain: Chain,
        certified: dict[int, CertifiedRange],
        on_lost: Callable[[], Awaitable[None]],
        rank: Callable[[], int],
    ) -> None:
        """`certified`: the newest certified range of each partition, to be compared again.
        `on_lost` is called when the log that was read is lost: the broker may have lost more.
        `rank`: how many validators append lost commands again before this one.
        """
        self._cluster = cluster
        self._group = group
        self._chain = chain
        self._on_lost = on_lost
        self._rank = rank
        self._opened = asyncio.Event()
        self._losing: asyncio.Future[None] | None = None
        """There while the log is read: fails when a committed block has other records."""
        self._consumer: BatchConsumer | None = None
        self.gathering = Gathering(NO_TOPIC, chain.state.positions, certified, {})
        self.cause: str | None = None
        """Why the intake stands; None while it does not."""

    async def begin(self) -> None:
        """Look at the log for the first time; from then on it is read, or the intake stands."""
        try:
            await self._begin()
        except LogLost as lost:
            self._stand(lost)

    async def run(self, gather: Gather) -> None:
        """Read as long as this goes on. `gather` takes what a consumer brings; it returns when a
        log epoch was opened, and raises `LogLost`.
        """
        while True:
            generation = self.gathering.generation
            if not self.gathering.stands:
                try:
                    await self._read(gather)
                except LogLost as lost:
                    self._stand(lost)
                    await self._on_lost()
            await self._log_epoch_after(generation)
            await self._begin_anew()

    def lose(self, lost: LogLost) -> None:
        """A committed block is of another log: what is read is not taken any more."""
        self._stand(lost)
        if self._losing is not None and not self._losing.done():
            self._losing.set_exception(lost)

    def opened(self) -> None:
        """A committed block may have opened a log epoch."""
        self._opened.set()

    async def state(self) -> LogState:
        """Where the log stands now; `Unavailable` when the broker is away."""
        partitions = len(self._chain.state.positions)
        uuid, kept = await asyncio.to_thread(kept_by_broker, self._cluster, partitions)
        held = [self.gathering.waiting_in(one) for one in range(partitions)]
        return LogState(self.cause or "", uuid, self._chain.state.positions, tuple(held), kept)

    def lag(self) -> int:
        """As `BatchConsumer.lag`; 0 while nothing is read."""
        return 0 if self._consumer is None else self._consumer.lag()

    def lags(self) -> dict[tuple[str, int], int]:
        """As `lag`, for each partition."""
        return {} if self._consumer is None else self._consumer.lags()

    async def _begin(self) -> None:
        """`LogLost` unless the broker has the certified log."""
        partitions = len(self._chain.state.positions)
        while True:
            positions = self._chain.state.positions
            epochs = [one.log_epoch for one in positions]
            uuid, kept_from = await asyncio.to_thread(
                check_log, self._cluster, partitions, positions
            )
            now = self._chain.state.positions
            if epochs == [one.log_epoch for one in now]:
                break
        self.gathering.begin(uuid, now, kept_from)
        self.cause = None

    def _stand(self, lost: LogLost) -> None:
        self.gathering.stand()
        if str(lost) != self.cause:
            self.cause = str(lost)
            log.error("intake_stands", cause=self.cause)

    async def _read(self, gather: Gather) -> None:
        """Until a log epoch is opened, or the log is lost."""
        gathering = self.gathering
        uuid, generation = gathering.topic_uuid, gathering.generation
        consumer = self._consumer = BatchConsumer(
            kafka.consumer_config(self._cluster, self._group),
            [
                Start(topics.COMMANDS, partition, offset)
                for partition, offset in gathering.starts.items()
            ],
            batch_records_max=CONSUME_RECORDS_MAX,
        )
        losing = self._losing = asyncio.get_running_loop().create_future()
        try:
            await _first_of(
                self._gathered(gather, consumer),
                self._append_again(generation),
                watch_log(self._cluster, uuid, self._brought),
                self._log_epoch_after(generation),
                losing,
            )
        finally:
            self._consumer = self._losing = None
            await consumer.close()

    async def _gathered(self, gather: Gather, consumer: BatchConsumer) -> None:
        """`Unavailable` where the broker is away; a topic that is gone may be another one now."""
        generation = self.gathering.generation
        try:
            await gather(consumer)
        except Unavailable:
            partitions = len(self._chain.state.positions)
            await asyncio.to_thread(check_log, self._cluster, partitions, self._brought())
            if generation == self.gathering.generation:
                raise

    def _brought(self) -> list[LogPosition]:
        """What the log must have for as long as it is read: a broker may be behind the others."""
        return self.gathering.brought(self._chain.state.positions)

    async def _append_again(self, generation: int) -> None:
        """Commands of the lost log that the new one has not shown in this validator's turn. Their
        ids make a second copy harmless; what cannot be appended is its sender's to send again.
        """
        if self.gathering.left:
            await asyncio.sleep(self._rank() * AGAIN_SECONDS)
            records = [_again(*one) for one in self.gathering.left]
            self.gathering.forget_left()
            if records:
                await self._append(records)
        await self._log_epoch_after(generation)

    async def _append(self, records: Sequence[ProducedRecord]) -> None:
        producer = AckedProducer(kafka.producer_config(self._cluster))
        try:
            await producer.produce_batch(records)
        except Unavailable as fault:
            log.warning("not_appended_again", records=len(records), cause=str(fault))
        else:
            log.info("appended_again", records=len(records))
        finally:
            await producer.close()

    async def _log_epoch_after(self, generation: int) -> None:
        while self.gathering.generation == generation:
            self._opened.clear()
            await self._opened.wait()

    async def _begin_anew(self) -> None:
        """The chain goes on with another log: as soon as the broker has that one in all partitions.
        The operators open the log epochs of several partitions one after the other.
        """
        while True:
            self._opened.clear()
            try:
                await self._begin()
            except LogLost as lost:
                self._stand(lost)
            else:
                log.info("intake_begins_anew", topic=self.gathering.topic_uuid.hex())
                return
            try:
                await asyncio.wait_for(self._opened.wait(), TOPIC_CHECK_SECONDS)
            except TimeoutError:
                continue


def _again(partition: int, prepared: Prepared) -> ProducedRecord:
    """The record as it was in the lost log; a header without a value, which no service of the
    ledger writes, is left out.
    """
    assert prepared.value is not None
    headers = [
        (name, value) for name, value in parse_headers(prepared.headers) if value is not None
    ]
    return ProducedRecord(topics.COMMANDS, partition, prepared.key, prepared.value, headers)


async def _first_of(*parts: Awaitable[None]) -> None:
    """Run them together until one ends, with its error if it has one; the others are cancelled."""
    tasks = [asyncio.ensure_future(part) for part in parts]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            one.result()
    finally:
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
