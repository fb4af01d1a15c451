"""The shell of the signing service: certified blocks in, signed events, receipts and seals out.

Rules: docs/spec/signing.md. Three parts run side by side, each bounded by the one behind it:

    read      blocks, their commit proofs and bodies checked
    sign      everything at hand: guarded, recorded with one synced transaction, then signed
    publish   each such batch in one Kafka transaction

From where to read on stands in this service's own store, written with the next batch, and not in
the Kafka transaction: it costs no round trip, and what it allows is what a crash allows anyway,
that a batch is signed and published twice, byte for byte the same. Consumers drop the second; a
position that came first would lose a batch, and cannot, for it is written after the commit.
"""

from __future__ import annotations

import asyncio
import time
from collections import ChainMap, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

import structlog
from confluent_kafka import Message

from nocturne.core import topics
from nocturne.core.block_intake import BlockIntake, CheckedBlock
from nocturne.core.blocks import decode_block_front
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import Hash, SessionId, format_hash
from nocturne.core.keys import Signer, key_id
from nocturne.core.modes import DegradedFound
from nocturne.runtime import kafka
from nocturne.runtime.degraded import LedgerMode, measure, stay_degraded
from nocturne.runtime.home import CannotStart, held_alone
from nocturne.runtime.kafka import BatchConsumer, ProducedRecord, Start, TransactionalProducer
from nocturne.runtime.keys import load_signer
from nocturne.runtime.lifecycle import Lifecycle
from nocturne.runtime.registry import schema_ids
from nocturne.runtime.rpc import RpcServer, serve
from nocturne.runtime.security import security_of
from nocturne.runtime.settings import Founding, KafkaSettings, KeySettings, read_founding
from nocturne.runtime.spans import TRACED_PER_BATCH_MAX
from nocturne.runtime.telemetry import BATCH_BUCKETS, Metrics
from nocturne.signing import guard
from nocturne.signing.guard import Head
from nocturne.signing.signatures import BlockSigner, SignedRecord
from nocturne.signing.store import Recorded, Resume, SigningStore
from nocturne.signing.traces import BatchTraces, sampled_in

CONSUMER_GROUP: Final = "nocturne-signing"
TRANSACTIONAL_ID: Final = "nocturne-signing-v1"
STORE_FILE: Final = "signed.sqlite"
CONSUME_BLOCKS_MAX: Final = 16
"""Of one hand-over from the consumer's thread: a block has up to 4 MiB by default."""
BATCH_RECORDS_MAX: Final = 2048
"""Records after which a batch takes no further block: well within a transaction's time."""
WAITING_RECORDS_MAX: Final = 8192
"""Checked and not yet signed; past them the blocks stay in the topic."""

Result = TypeVar("Result")
log = structlog.get_logger()


class Settings(KafkaSettings, KeySettings):
    """What the signing service is told."""


async def run(settings: Settings, lifecycle: Lifecycle) -> None:
    """Sign until told to stop."""
    kafka.measure_rotation(settings.cluster, lifecycle.metrics)
    founding = read_founding(settings.genesis_file)
    signer = load_signer(settings.key_file)
    authority = founding.genesis.authority
    if signer.key != authority:
        raise CannotStart(
            f"the key {format_hash(key_id(signer.key))} is not the authority's in the genesis, "
            f"which is {format_hash(key_id(authority))}"
        )
    with held_alone(settings.home_dir):
        mode = LedgerMode(settings.home_dir, founding.ledger_id)
        measure(lifecycle.metrics, lambda: mode.degraded)
        signing = Signing(settings, lifecycle, founding, signer)
        server = await serve(
            settings.listen,
            vitals=lifecycle.vitals,
            security=security_of(settings, lifecycle.metrics),
            trailing=mode.metadata,
        )
        try:
            await _until_degraded(signing, mode, server)
            if mode.kept is not None:
                # Whatever it signed now could be the second signature of one place.
                await stay_degraded(server, lifecycle.stopping, mode.kept)
        finally:
            await server.stop()


async def _until_degraded(signing: Signing, mode: LedgerMode, server: RpcServer) -> None:
    """Sign until told to stop, or until the ledger is found DEGRADED, now or before."""
    if mode.kept is not None:
        return
    try:
        await signing.run(server)
    except DegradedFound as found:
        mode.keep(found.degraded)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A checked block, and how to resume once it is published."""

    checked: CheckedBlock
    resume: Resume
    since: float
    read_ns: int


@dataclass(frozen=True, slots=True)
class _Batch:
    """Signed records of some blocks, in order, and the traces among them that are recorded."""

    records: list[SignedRecord]
    resume: Resume
    since: float
    traces: BatchTraces | None


class Measures:
    """The service's metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self.height = metrics.gauge("height", "Newest block signed and published")
        self.lag = metrics.gauge("lag_blocks", "Blocks in the topic that are not published signed")
        self.signed = metrics.counter("signatures", "Events and receipts signed")
        self.again = metrics.counter("blocks_again", "Blocks signed again after a start")
        self.foreign = metrics.counter(
            "foreign_records", "Records of the blocks topic that are no certified block"
        )
        self.batch = metrics.histogram(
            "batch_records", "Records in a transaction", buckets=BATCH_BUCKETS
        )
        self.seconds = metrics.histogram(
            "batch_seconds", "From a batch's first block to its commit"
        )
        self.store_seconds = metrics.histogram("store_seconds", "Recording a batch, synced")
        self.sign_seconds = metrics.histogram(
            "sign_seconds", "Making the signatures of a batch, the wait for its turns included"
        )
        self.publish_seconds = metrics.histogram(
            "publish_seconds", "Publishing a batch in one Kafka transaction, attempts included"
        )


class Signing:
    """The running service."""

    def __init__(
        self, settings: Settings, lifecycle: Lifecycle, founding: Founding, signer: Signer
    ) -> None:
        self._settings = settings
        self._lifecycle = lifecycle
        self._founding = founding
        self._signer = signer
        self._measures = Measures(lifecycle.metrics)
        self._tracer = lifecycle.tracer
        self._disk = ThreadPoolExecutor(1, "signing-store")
        self._ready: deque[_Ready] = deque()
        self._ready_records = 0
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._batches: asyncio.Queue[_Batch] = asyncio.Queue(1)
        self._published: Resume | None = None
        """What is published and not yet written down."""
        self._last_height = 0

    async def run(self, server: RpcServer) -> None:
        """Resume, then sign until told to stop."""
        store = self._store = await self._on_disk(self._open_store)
        resume = store.resume()
        self._measures.height.set(resume.published_height)
        self._last_height = store.last_height()
        self._intake = self._intake_from(resume)
        cluster = self._settings.cluster
        ids = await asyncio.to_thread(schema_ids, self._settings.registry_url)
        founding = self._founding
        self._block_signer = BlockSigner(
            founding.ledger_id, founding.genesis.partitions, self._signer, ids
        )
        start = await self._first_offset(resume)
        producer = TransactionalProducer(
            kafka.producer_config(cluster, linger_ms=0), TRANSACTIONAL_ID
        )
        await producer.open()
        self._consumer = self._consumer_from(start)
        self._resume = replace(resume, next_offset=start)
        try:
            await server.set_serving(True)
            log.info("signing", published_height=resume.published_height, offset=start)
            await self._lifecycle.until_stopped(
                self._read(),
                self._sign(),
                self._publish(producer),
                self._watch(),
                server.served(),
            )
        finally:
            await self._consumer.close()
            await producer.close()
            await asyncio.to_thread(self._disk.shutdown, wait=True)
            self._write_published()
            store.close()

    # Starting -----------------------------------------------------------------------------

    def _open_store(self) -> SigningStore:
        return SigningStore(
            self._settings.home_dir / STORE_FILE,
            self._founding.ledger_id,
            key_id(self._signer.key),
        )

    def _intake_from(self, resume: Resume) -> BlockIntake:
        height = resume.published_height
        parent = self._store.digest(height) if height else Hash(self._founding.ledger_id)
        return BlockIntake(
            self._founding.ledger_id,
            self._founding.genesis.founding_sets.decoded(resume.sets),
            height + 1,
            parent,
            resume.positions,
        )

    async def _first_offset(self, resume: Resume) -> int:
        """Where to read on: behind the last published block, if it is still there; from the
        beginning when the topic was made anew. Blocks that are known are skipped.
        """
        cluster = self._settings.cluster
        low, high = await asyncio.to_thread(kafka.watermarks, cluster, topics.BLOCKS, 0)
        last = resume.next_offset - 1
        if not low <= last < high:
            return low
        consumer = self._consumer_from(last)
        try:
            messages: list[Message] = []
            while not messages:
                messages = await consumer.batch()
        finally:
            await consumer.close()
        # The record behind which everything was taken: a block that is published, if not the last
        # one, for blocks come out of order and twice.
        try:
            front = decode_block_front(topics.unframe(messages[0].value()))
        except Malformed:
            return low
        height = front.header.height
        is_known = height <= resume.published_height and front.digest == self._store.digest(height)
        return resume.next_offset if is_known else low

    def _consumer_from(self, offset: int) -> BatchConsumer:
        return BatchConsumer(
            kafka.consumer_config(self._settings.cluster, CONSUMER_GROUP),
            [Start(topics.BLOCKS, 0, offset)],
            batch_records_max=CONSUME_BLOCKS_MAX,
        )

    # Running ------------------------------------------------------------------------------

    async def _read(self) -> None:
        while True:
            while self._ready_records >= WAITING_RECORDS_MAX:
                self._room.clear()
                await self._room.wait()
            for message in await self._consumer.batch():
                offset = message.offset()
                assert offset is not None
                self._offer(offset, message.value())
                again_from = self._intake.read_again_from
                if again_from is not None:
                    await self._read_again(again_from)
                    break
                await asyncio.sleep(0)

    async def _read_again(self, offset: int) -> None:
        """A block that found no place to wait is missing."""
        log.warning("records_read_again", topic=topics.BLOCKS, offset=offset)
        self._intake.read_again(offset)
        await self._consumer.close()
        self._consumer = self._consumer_from(offset)

    def _offer(self, offset: int, value: bytes | None) -> None:
        intake = self._intake
        dropped = intake.dropped
        try:
            given = intake.offer(value, offset)
        except Malformed as fault:
            self._measures.foreign.inc()
            log.warning("foreign_record", topic=topics.BLOCKS, offset=offset, cause=str(fault))
            return
        finally:
            self._measures.foreign.inc(intake.dropped - dropped)
        if not given:
            return
        following = intake.low_water(offset + 1)
        self._resume = Resume(
            given[-1].block.header.height, following, intake.positions, intake.sets.encode()
        )
        now, read_ns = time.monotonic(), time.time_ns()
        for checked in given:
            self._ready.append(_Ready(checked, self._resume, now, read_ns))
            self._ready_records += len(checked.block.records)
        self._arrived.set()

    async def _sign(self) -> None:
        while True:
            await self._arrived.wait()
            taken = self._take()
            blocks = [one.checked for one in taken]
            traces = self._traces_of(taken) if self._tracer.on else None
            await self._on_disk(partial(self._record, blocks))
            if traces is not None:
                traces.recorded()
            started = time.monotonic()
            records: list[SignedRecord] = []
            for checked in blocks:
                records += self._block_signer.sign(checked)
                await asyncio.sleep(0)
            self._measures.sign_seconds.observe(time.monotonic() - started)
            if traces is not None:
                traces.signed()
            await self._batches.put(_Batch(records, taken[-1].resume, taken[0].since, traces))

    def _traces_of(self, taken: list[_Ready]) -> BatchTraces | None:
        """Of the first sampled commands of a batch."""
        found = [one for ready in taken for one in sampled_in(ready.checked.block, ready.read_ns)]
        self._tracer.dropped(len(found) - TRACED_PER_BATCH_MAX)
        return BatchTraces(self._tracer, found[:TRACED_PER_BATCH_MAX]) if found else None

    def _take(self) -> list[_Ready]:
        """Blocks at hand, at least one; those that came with one record of the topic stay together,
        for only behind the last of them is it said how to resume.
        """
        taken: list[_Ready] = []
        count = 0
        while self._ready and (
            count < BATCH_RECORDS_MAX or self._ready[0].resume == taken[-1].resume
        ):
            one = self._ready.popleft()
            count += len(one.checked.block.records)
            taken.append(one)
        self._ready_records -= count
        self._room.set()
        if not self._ready:
            self._arrived.clear()
        return taken

    def _record(self, blocks: list[CheckedBlock]) -> None:
        """Guard the blocks and make them durable; in the store's thread, before any is signed."""
        started = time.monotonic()
        store = self._store
        recorded: list[Recorded] = []
        heads: dict[SessionId, Head] = {}
        fresh: list[CheckedBlock] = []
        for checked in blocks:
            height, digest = checked.block.header.height, checked.block.digest
            known = store.digest(height) if height <= self._last_height else None
            if guard.is_signed(height, digest, known):
                self._measures.again.inc()
                continue
            guard.check_next(self._last_height, height)
            self._last_height = height
            recorded.append(Recorded(height, digest))
            fresh.append(checked)
        sessions = {session for one in fresh for session in guard.sessions_of(one.block)}
        before = store.heads(sessions)
        for checked in fresh:
            hashes = [one.events for one in checked.dispositions]
            after = guard.heads_after(
                self._founding.ledger_id, checked.block, hashes, ChainMap(heads, before)
            )
            heads.update(after)
        if recorded:
            published, self._published = self._published, None
            store.record(recorded, heads, published)
            self._measures.store_seconds.observe(time.monotonic() - started)

    async def _publish(self, producer: TransactionalProducer) -> None:
        while True:
            batch = await self._batches.get()
            started = time.monotonic()
            if batch.traces is not None:
                batch.traces.publishing()
            await producer.publish(
                [
                    ProducedRecord(one.topic, one.partition, one.key, one.value, one.headers)
                    for one in batch.records
                ]
            )
            self._measures.publish_seconds.observe(time.monotonic() - started)
            if batch.traces is not None:
                batch.traces.published()
            self._published = batch.resume
            self._measures.height.set(batch.resume.published_height)
            self._measures.signed.inc(len(batch.records))
            self._measures.batch.observe(len(batch.records))
            self._measures.seconds.observe(time.monotonic() - batch.since)

    async def _watch(self) -> None:
        while True:
            self._measures.lag.set(self._consumer.lag() + len(self._ready))
            await asyncio.sleep(1.0)

    def _write_published(self) -> None:
        """On the way out: so that a clean start publishes nothing again."""
        if self._published is not None:
            self._store.record((), {}, self._published)

    async def _on_disk(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._disk, function)
