"""The projection's shell: four consumers, one writer, health.

Rules: docs/spec/services.md, projection. Blocks, seals, events and receipts are read side by side;
whatever is whole is written, while the next records are read. One transaction at a time; what came
in the meantime is the next one, so that a batch is one block when there is nothing to do and many
when there is a backlog.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import structlog
from confluent_kafka import Message

from nocturne.core import topics
from nocturne.core.identifiers import Hash
from nocturne.projection.chain import Chain
from nocturne.projection.collector import (
    Collector,
    SignatureRecord,
    low_waters,
)
from nocturne.projection.fold import FirstState
from nocturne.projection.rows import Batch, batch_of
from nocturne.projection.store import Standing, Store
from nocturne.runtime.kafka import BatchConsumer, Start, consumer_config, headers_of
from nocturne.runtime.lifecycle import Lifecycle
from nocturne.runtime.rpc import HealthServer
from nocturne.runtime.settings import KafkaSettings, PostgresSettings, read_founding
from nocturne.runtime.telemetry import BATCH_BUCKETS, Metrics

HEIGHT_HEADER: Final = "nocturne-height"
ID_HEADER: Final = "ce_id"
TRANSACTION_RECORDS_MAX: Final = 4096
"""Records of one transaction: two full blocks; a larger one would only make readers wait."""
TICK_SECONDS: Final = 0.25
"""Records of a block that is not read are judged after two ticks."""
JUDGED_PER_TICK_MAX: Final = 256
"""About 60 ms of verifying."""
CAUGHT_UP_BLOCKS: Final = 64
"""With a longer backlog, records that came before their blocks are what is expected."""
BLOCKS_PER_BATCH: Final = 64

_HEIGHT: Final = re.compile(rb"[1-9][0-9]{0,15}\Z")

log = structlog.get_logger()


class Settings(KafkaSettings, PostgresSettings):
    """What the projection reads from the environment."""


async def serve_projection(lifecycle: Lifecycle, settings: Settings) -> None:
    """Run until stopped. `Halt` on contradictions in what is certified or stored."""
    ledger = read_founding(settings.genesis_file)
    first_state = await asyncio.to_thread(FirstState.of, ledger.data)
    health = HealthServer(settings.listen)
    await health.start()
    closing = threading.Event()
    store = Store(settings.postgres_dsn, closing)
    # One thread: what is begun there ends before the connection is closed.
    database = ThreadPoolExecutor(1, "postgres")
    loop = asyncio.get_running_loop()
    try:
        loading = loop.run_in_executor(database, store.load, first_state)
        standing = await _unless_stopped(lifecycle, loading)
        if standing is not None:
            log.info("loaded", height=standing.height, sessions=standing.tree.size)
            projection = Projection(lifecycle, settings, first_state, store, database, standing)
            await projection.run(health)
    finally:
        closing.set()
        await health.stop()
        await loop.run_in_executor(database, store.close)
        database.shutdown(wait=False)


async def _unless_stopped(
    lifecycle: Lifecycle, loading: asyncio.Future[Standing]
) -> Standing | None:
    stopping = asyncio.ensure_future(lifecycle.stopping.wait())
    either: set[asyncio.Future[Any]] = {loading, stopping}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    return await loading if loading.done() else None


class Projection:
    """One run, from where the read model stands."""

    def __init__(
        self,
        lifecycle: Lifecycle,
        settings: Settings,
        first_state: FirstState,
        store: Store,
        database: ThreadPoolExecutor,
        standing: Standing,
    ) -> None:
        genesis = first_state.genesis
        self._lifecycle = lifecycle
        self._bootstrap = settings.kafka_bootstrap
        self._partitions = genesis.partitions
        self._store = store
        self._database = database
        self._start = standing.offsets
        self._applied = (standing.height, bytes(standing.digest), standing.time)
        self._chain = Chain(
            first_state.ledger_id,
            genesis.validator_set,
            standing.height,
            Hash(standing.digest),
            standing.tree,
        )
        self._collector = Collector(first_state.ledger_id, genesis.authority, standing.height)
        self._consumers: dict[str, BatchConsumer] = {}
        self._changed = asyncio.Event()
        self._metrics = _ProjectionMetrics(lifecycle.metrics)

    async def run(self, health: HealthServer) -> None:
        """Read, write, judge and watch until stopped."""
        for topic in (topics.BLOCKS, topics.SEALS, topics.EVENTS, topics.RECEIPTS):
            self._consumers[topic] = self._consumer(topic)
        await health.set_serving(True)
        try:
            await self._lifecycle.until_stopped(
                self._read(topics.BLOCKS, self._take_blocks, self._collector.wants_blocks),
                self._read(topics.SEALS, self._take_seals, self._collector.wants_seals),
                self._read_signatures(topics.EVENTS),
                self._read_signatures(topics.RECEIPTS),
                self._write(),
                self._watch(health),
            )
        finally:
            await asyncio.gather(*(one.close() for one in self._consumers.values()))

    # Reading ------------------------------------------------------------------------------------

    def _consumer(self, topic: str) -> BatchConsumer:
        starts = [
            Start(topic, partition, self._start.get((topic, partition), 0))
            for partition in self._partitions_of(topic)
        ]
        config = consumer_config(self._bootstrap, "nocturne-projection")
        if topic == topics.BLOCKS:
            return BatchConsumer(config, starts, batch_records_max=BLOCKS_PER_BATCH)
        return BatchConsumer(config, starts)

    def _partitions_of(self, topic: str) -> range:
        return range(1 if topic in (topics.BLOCKS, topics.SEALS) else self._partitions)

    async def _read(
        self, topic: str, take: Callable[[Sequence[Message]], None], wants: Callable[[], bool]
    ) -> None:
        while True:
            await self._until(wants)
            take(await self._consumers[topic].batch())
            self._changed.set()

    async def _read_signatures(self, topic: str) -> None:
        while True:
            await self._until(lambda: self._collector.wants(topic))
            if self._collector.shed(topic):
                await self._reread(topic)
            self._take_signatures(topic, await self._consumers[topic].batch())
            self._changed.set()

    async def _reread(self, topic: str) -> None:
        """Begin again where records were let go for want of room."""
        consumer = self._consumers[topic]
        for partition in self._partitions_of(topic):
            self._start[topic, partition] = self._collector.low_water(
                topic, partition, consumer.next_offset(topic, partition)
            )
        self._collector.reread(topic)
        log.warning("records_read_again", topic=topic)
        await consumer.close()
        self._consumers[topic] = self._consumer(topic)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def _take_blocks(self, messages: Sequence[Message]) -> None:
        for message in messages:
            offset = message.offset()
            assert offset is not None
            folded, refused = self._chain.offer(offset, message.value())
            if refused is not None:
                log.warning("block_refused", offset=offset, cause=refused)
                self._collector.refuse(topics.BLOCKS, 0, offset)
            for block in folded:
                self._collector.offer_block(block)

    def _take_seals(self, messages: Sequence[Message]) -> None:
        for message in messages:
            offset = message.offset()
            assert offset is not None
            self._collector.offer_seal(0, offset, message.value())

    def _take_signatures(self, topic: str, messages: Sequence[Message]) -> None:
        offer = self._collector.offer
        for message in messages:
            partition, offset = message.partition(), message.offset()
            assert partition is not None
            assert offset is not None
            record_id = height = None
            for name, data in headers_of(message) or ():
                if name == HEIGHT_HEADER:
                    height = data
                elif name == ID_HEADER:
                    record_id = data
            value = message.value()
            if (
                value is None
                or not isinstance(record_id, bytes)
                or not isinstance(height, bytes)
                or _HEIGHT.match(height) is None
            ):
                self._collector.refuse(topic, partition, offset)
            else:
                offer(SignatureRecord(topic, partition, offset, record_id, int(height), value))

    # Writing ------------------------------------------------------------------------------------

    async def _write(self) -> None:
        while True:
            batch = self._next_batch()
            if batch is None:
                self._changed.clear()
                await self._changed.wait()
                continue
            # Room was made: whoever waits for it goes on while the transaction runs.
            self._changed.set()
            height, digest, _ = self._applied
            with self._metrics.transaction_seconds.time():
                await asyncio.get_running_loop().run_in_executor(
                    self._database, self._store.write, (height, digest), batch
                )
            self._applied = (batch.height, batch.digest, batch.time)
            self._metrics.written(batch)

    def _next_batch(self) -> Batch | None:
        blocks = self._collector.take(TRANSACTION_RECORDS_MAX)
        refusals = self._collector.take_refusals()
        if not blocks and not refusals:
            return None
        return batch_of(*self._applied, blocks, self._low_waters(), refusals)

    def _low_waters(self) -> list[tuple[str, int, int]]:
        following = [
            (topic, partition, consumer.next_offset(topic, partition))
            for topic, consumer in self._consumers.items()
            for partition in self._partitions_of(topic)
        ]
        blocks = following.pop(0)
        low = self._chain.low_water(self._collector.taken, blocks[2])
        return [(topics.BLOCKS, 0, low), *low_waters(self._collector, following)]

    # Watching -----------------------------------------------------------------------------------

    async def _watch(self, health: HealthServer) -> None:
        """Judge what waits for a block that does not come; say how things stand."""
        serving = True
        read = self._chain.height
        while True:
            await asyncio.sleep(TICK_SECONDS)
            idle, read = read == self._chain.height, self._chain.height
            if idle or self._consumers[topics.BLOCKS].lag() <= CAUGHT_UP_BLOCKS:
                self._collector.judge(JUDGED_PER_TICK_MAX)
                self._changed.set()
            if self._store.reachable != serving:
                serving = self._store.reachable
                await health.set_serving(serving)
            self._metrics.stands(
                self._collector,
                {topic: consumer.lag() for topic, consumer in self._consumers.items()},
            )


class _ProjectionMetrics:
    def __init__(self, metrics: Metrics) -> None:
        self._height = metrics.gauge("applied_height", "Height of the last block in PostgreSQL")
        self._events = metrics.counter("events", "Events written")
        self._receipts = metrics.counter("receipts", "Receipts written")
        self._blocks = metrics.counter("blocks", "Blocks written")
        self._refused = metrics.counter(
            "refused_records", "Records that are not their writers'", ("cause",)
        )
        self._lag = metrics.gauge("lag_records", "Records known and not read", ("topic",))
        self._waiting = metrics.gauge(
            "waiting_blocks", "Blocks read whose signatures are not all here"
        )
        self._held = metrics.gauge("held_records", "Records whose block is not read yet")
        self._batch = metrics.histogram(
            "transaction_records", "Records of a transaction", buckets=BATCH_BUCKETS
        )
        self.transaction_seconds = metrics.histogram(
            "transaction_seconds", "Time of a transaction, attempts included"
        )

    def written(self, batch: Batch) -> None:
        """A batch was committed."""
        self._height.set(batch.height)
        self._events.inc(batch.events)
        self._receipts.inc(batch.receipts)
        self._blocks.inc(batch.blocks)
        self._batch.observe(batch.records)
        for refusal in batch.refusals:
            self._refused.labels(refusal.cause.value).inc()

    def stands(self, collector: Collector, lags: dict[str, int]) -> None:
        """Gauges, at each tick."""
        self._waiting.set(collector.waiting)
        self._held.set(collector.held)
        for topic, lag in lags.items():
            self._lag.labels(topic).set(lag)
