"""The projection's shell: four consumers, one writer, health.

Rules: docs/spec/services.md, projection. Blocks, seals, events and receipts are read side by side;
whatever is whole is written, while the next records are read. One transaction at a time; what came
in the meantime is the next one, so that a batch is one block when there is nothing to do and many
when there is a backlog.
"""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import structlog

from nocturne.core.errors import NocturneError
from nocturne.core.modes import DegradedFound
from nocturne.projection.collector import Cause, Collector
from nocturne.projection.fold import FirstState
from nocturne.projection.reading import (
    CONSUMER_GROUP,
    TICK_SECONDS,
    TOPICS,
    Reading,
    partitions_of,
)
from nocturne.projection.rows import Batch, batch_of
from nocturne.projection.store import Standing, Store
from nocturne.projection.traces import BlockTraces
from nocturne.runtime.cluster import Cluster
from nocturne.runtime.degraded import stay_degraded
from nocturne.runtime.kafka import measure_rotation, partition_count
from nocturne.runtime.lifecycle import Lifecycle
from nocturne.runtime.rpc import HealthServer
from nocturne.runtime.security import security_of
from nocturne.runtime.settings import KafkaSettings, PostgresSettings, read_founding
from nocturne.runtime.telemetry import BATCH_BUCKETS, Metrics

TRANSACTION_RECORDS_MAX: Final = 4096
"""Records of one transaction: two full blocks; a larger one would only make readers wait."""

log = structlog.get_logger()


class Settings(KafkaSettings, PostgresSettings):
    """What the projection reads from the environment."""


async def serve_projection(lifecycle: Lifecycle, settings: Settings) -> None:
    """Run until stopped. `Halt` on contradictions in what is certified or stored."""
    measure_rotation(settings.cluster, lifecycle.metrics)
    ledger = read_founding(settings.genesis_file)
    first_state = await asyncio.to_thread(FirstState.of, ledger.data)
    health = HealthServer(
        settings.listen, lifecycle.vitals, security_of(settings, lifecycle.metrics)
    )
    await health.start()
    closing = threading.Event()
    store = Store(settings.database, closing)
    # One thread: what is begun there ends before the connection is closed.
    database = ThreadPoolExecutor(1, "postgres")
    loop = asyncio.get_running_loop()
    try:
        loading = loop.run_in_executor(database, store.load, first_state)
        standing = await _unless_stopped(lifecycle, loading)
        if standing is not None:
            partitions = first_state.genesis.partitions
            await asyncio.to_thread(check_topics, settings.cluster, partitions)
            log.info("loaded", height=standing.height, sessions=standing.tree.size)
            projection = Projection(lifecycle, settings, first_state, store, database, standing)
            degraded = await loop.run_in_executor(database, store.degraded)
            try:
                if degraded is None:
                    await projection.run(health)
            except DegradedFound as found:
                degraded = found.degraded
                await loop.run_in_executor(database, store.degrade, ledger.ledger_id, degraded)
            if degraded is not None:
                # Nothing more of either history is applied; what is readable stays readable.
                log.error("degraded", cause=degraded.cause.name, text=degraded.text)
                await stay_degraded(health, lifecycle.stopping, degraded)
    finally:
        closing.set()
        await health.stop()
        await loop.run_in_executor(database, store.close)
        database.shutdown(wait=False)


def check_topics(cluster: Cluster, partitions: int) -> None:
    """`Unavailable` unless every topic that is read is there and may be read about; `NocturneError`
    when one is of another ledger. Blocks.

    librdkafka says nothing of a topic that a user may not see: it would be waited for in silence.
    """
    for topic in TOPICS:
        found, expected = partition_count(cluster, topic), len(partitions_of(topic, partitions))
        if found != expected:
            raise NocturneError(f"topic {topic}: expected {expected} partitions, got {found}")


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
        self._lifecycle = lifecycle
        self._store = store
        self._database = database
        self._applied = (standing.height, bytes(standing.digest), standing.time)
        self._reading = Reading(settings.cluster, CONSUMER_GROUP, first_state, standing)
        self._metrics = Measures(lifecycle.metrics)
        self._metrics.applied(standing.height, standing.time)
        self._tracer = lifecycle.tracer
        self._traces = BlockTraces(lifecycle.tracer)
        if self._tracer.on:
            self._reading.when_read = self._traces.read

    async def run(self, health: HealthServer) -> None:
        """Read, write, judge and watch until stopped."""
        self._reading.open()
        await health.set_serving(True)
        try:
            await self._lifecycle.until_stopped(
                *self._reading.parts(), self._write(), self._watch(health), health.served()
            )
        finally:
            await self._reading.close()

    # Writing ------------------------------------------------------------------------------------

    async def _write(self) -> None:
        while True:
            batch = self._next_batch()
            if batch is None:
                self._reading.changed.clear()
                await self._reading.changed.wait()
                continue
            if self._tracer.on:
                self._traces.writing()
            # Room was made: whoever waits for it goes on while the transaction runs.
            self._reading.changed.set()
            height, digest, _ = self._applied
            with self._metrics.transaction_seconds.time():
                await asyncio.get_running_loop().run_in_executor(
                    self._database, self._store.write, (height, digest), batch
                )
            self._applied = (batch.height, batch.digest, batch.time)
            self._metrics.written(batch)
            if self._tracer.on:
                self._traces.committed(batch.height)

    def _next_batch(self) -> Batch | None:
        blocks = self._reading.collector.take(TRANSACTION_RECORDS_MAX)
        refusals = self._reading.collector.take_refusals()
        if not blocks and not refusals:
            return None
        return batch_of(*self._applied, blocks, self._reading.low_waters(), refusals)

    # Watching -----------------------------------------------------------------------------------

    async def _watch(self, health: HealthServer) -> None:
        """Say how things stand."""
        serving = True
        while True:
            await asyncio.sleep(TICK_SECONDS)
            if self._store.reachable != serving:
                serving = self._store.reachable
                await health.set_serving(serving, "" if serving else "PostgreSQL does not answer")
            self._metrics.stands(self._reading.collector, self._reading.lags())


class Measures:
    """The service's metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self._height = metrics.gauge("applied_height", "Height of the last block in PostgreSQL")
        self._time = metrics.gauge(
            "applied_timestamp_seconds", "Time in the last block in PostgreSQL, since 1970"
        )
        self._rows = metrics.counter("rows", "Rows copied into a table", ("table",))
        self._events = metrics.counter("events", "Events written")
        self._receipts = metrics.counter("receipts", "Receipts written")
        self._blocks = metrics.counter("blocks", "Blocks written")
        self._refused = metrics.counter(
            "refused_records", "Records that are not their writers', by topic and cause", ("cause",)
        )
        for cause in Cause:
            self._refused.labels(cause.value)
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

    def applied(self, height: int, time: int) -> None:
        """The read model has the blocks up to `height`, whose time is `time` ms."""
        self._height.set(height)
        self._time.set(time / 1000)

    def written(self, batch: Batch) -> None:
        """A batch was committed."""
        self.applied(batch.height, batch.time)
        for table, rows in batch.copied.items():
            self._rows.labels(table).inc(len(rows))
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
