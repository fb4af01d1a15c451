"""The shell of one validator: from the commands topic through the chain and the disk to the blocks
topic.

Rules: docs/spec/consensus.md. Four parts run side by side, each bounded by the one behind it:

    gather    records from the log, prepared (their authors' signatures checked)
    propose   everything that has gathered becomes the next block
    write     blocks that are made become durable, one fsync for all that wait, then are published
    confirm   the broker's acknowledgements, in order; snapshots

The next block is executed while earlier ones are synced and published.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar, cast

import structlog

from nocturne.consensus.chain import Made
from nocturne.consensus.control_servicer import Asked, ControlDesk, ControlServicer
from nocturne.consensus.gathering import Gathering
from nocturne.consensus.published import Published, TopicCheck
from nocturne.consensus.store import Abandoned, Recovered, Store
from nocturne.consensus.traces import BlockTraces, RecordTraces
from nocturne.core import topics
from nocturne.core.blocks import Block, LogRecord, RecordDisposition, hash_record, headers_bytes
from nocturne.core.errors import Halt, Malformed, Unavailable
from nocturne.core.genesis import Genesis
from nocturne.core.identifiers import LedgerId, format_hash
from nocturne.core.intake import prepare
from nocturne.core.keys import Signer, key_id
from nocturne.core.receipts import reason_of
from nocturne.core.record_headers import Headers
from nocturne.runtime import journal, kafka
from nocturne.runtime.home import CannotStart, held_alone
from nocturne.runtime.journal import JournalMissing
from nocturne.runtime.kafka import (
    AckedProducer,
    BatchConsumer,
    Delivery,
    ProducedRecord,
    Start,
    Undelivered,
)
from nocturne.runtime.keys import load_signer
from nocturne.runtime.kinds import InstalledKinds, check_kinds, installed_kinds
from nocturne.runtime.lifecycle import Lifecycle
from nocturne.runtime.registry import schema_ids
from nocturne.runtime.rpc import RpcServer, serve
from nocturne.runtime.security import security_of
from nocturne.runtime.settings import Founding, KafkaSettings, KeySettings, read_founding
from nocturne.runtime.telemetry import BATCH_BUCKETS, Metrics

if TYPE_CHECKING:
    from confluent_kafka import Message

PREPARE_RECORDS: Final = 32
"""Prepared in one go, about 4 ms, before other parts get their turn."""
CONSUME_RECORDS_MAX: Final = 256
"""Of one hand-over from the consumer's thread: at the largest size still below 64 MiB."""
BLOCKS_WAITING_MAX: Final = 4
"""Blocks made and not yet durable; past them the chain waits for the disk."""
BLOCKS_UNCONFIRMED_MAX: Final = 16
"""Blocks sent and not yet acknowledged; past them the chain waits for the broker."""
PAUSE_SECONDS_PER_RECORD: Final = 0.0005
PAUSE_SECONDS_MIN: Final = 0.01
PAUSE_SECONDS_MAX: Final = 0.05
"""After a block of n records the next one waits n half milliseconds, at least 10 and at most 50: a
command that comes alone waits for nothing, and under load blocks grow. A block costs the whole
stack about 3 ms (signatures, an fsync, transactions) whatever is in it: without the least pause
500 commands a second made 400 blocks and filled both cores. The longest pause is reached only
above 2 000 commands a second."""
REPUBLISH_BLOCKS: Final = 64
WATCH_SECONDS: Final = 1.0
TOPIC_CHECK_SECONDS: Final = 10.0
"""How long records of a topic that was made anew while this process ran, and grew past its position
before the next fetch, could be taken for the old one's. Any other way it shows at once."""
SNAPSHOT_BUCKETS_S: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0)
CONSUMER_GROUP: Final = "nocturne-consensus"
UNREADABLE_HEADERS: Final[Headers] = (("\ufffd", None),)

Result = TypeVar("Result")
log = structlog.get_logger()


class Settings(KafkaSettings, KeySettings):
    """What a validator is told."""


async def run(settings: Settings, lifecycle: Lifecycle) -> None:
    """Run one validator until it is told to stop."""
    kafka.measure_rotation(settings.cluster, lifecycle.metrics)
    founding = read_founding(settings.genesis_file)
    kinds = installed_kinds()
    check_kinds(founding.genesis, kinds)
    signer = load_signer(settings.key_file)
    _check_validator(founding.genesis, signer)
    with held_alone(settings.home_dir):
        desk = ControlDesk()
        server = await serve(
            settings.listen,
            [ControlServicer(desk).rpc_service()],
            vitals=lifecycle.vitals,
            security=security_of(settings, lifecycle.metrics),
        )
        try:
            store = _store_of(settings.home_dir, founding.ledger_id, signer)
            if store is None:
                await _observe(lifecycle, settings.home_dir)
                return
            validator = Validator(settings, lifecycle, founding, kinds, signer, store, desk)
            await validator.run(server)
        finally:
            await server.stop()


def _check_validator(genesis: Genesis, signer: Signer) -> None:
    keys = genesis.validator_set.keys
    if len(keys) != 1:
        raise CannotStart(
            f"the genesis has {len(keys)} validators, this release runs ledgers with one"
        )
    if signer.key != keys[0]:
        raise CannotStart(
            f"the key {format_hash(key_id(signer.key))} is not the validator's in the genesis, "
            f"which is {format_hash(key_id(keys[0]))}"
        )


def _store_of(home: Path, ledger_id: LedgerId, signer: Signer) -> Store | None:
    try:
        return Store(home, journal.owner_label(ledger_id, signer.key))
    except JournalMissing:
        return None


async def _observe(lifecycle: Lifecycle, home: Path) -> None:
    """A key without its journal may have voted before: it never votes again."""
    log.error(
        "observing",
        cause=f"the key's journal is not in {home / journal.FOLDER}; a key votes only with the "
        "journal that it was made with, for nothing else knows how it voted",
        way_out="stop, put the journal back as it last was, start again; or found another ledger",
    )
    lifecycle.vitals.set_serving(False, "observing: the key's journal is not in its folder")
    await lifecycle.stopping.wait()


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A block that is made, when the first of its records arrived (monotonic seconds), the control
    record that it carries, and its records whose traces are recorded.
    """

    made: Made
    since: float
    asked: Asked | None
    traces: BlockTraces | None


@dataclass(frozen=True, slots=True)
class _Sent:
    """A block on its way to the broker."""

    waiting: _Waiting
    delivery: asyncio.Future[list[Delivery]]


class Measures:
    """The validator's metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self.height = metrics.gauge("height", "Newest block made")
        self.published = metrics.gauge("published_height", "Newest block the broker acknowledged")
        self.records = metrics.counter("records", "Offsets disposed of")
        self.last_block = metrics.gauge(
            "last_block_timestamp_seconds", "Time in the newest block made, since 1970; 0: none"
        )
        self.lag = metrics.gauge("lag_records", "Records in the log that no block has")
        self.partition_lag = metrics.gauge(
            "partition_lag_records", "The same, of each partition", ("partition",)
        )
        self.dispositions = metrics.counter(
            "dispositions",
            "Offsets disposed of, by outcome: events, gap, or the reason of the receipt",
            ("outcome",),
        )
        self.block_records = metrics.histogram(
            "block_records", "Offsets in a block", buckets=BATCH_BUCKETS
        )
        self.block_seconds = metrics.histogram(
            "block_seconds", "From a block's first record to its acknowledgement"
        )
        self.execute_seconds = metrics.histogram(
            "execute_seconds", "Executing and certifying a block"
        )
        self.fsync_seconds = metrics.histogram("fsync_seconds", "Journal append and fsync")
        self.snapshot_seconds = metrics.histogram(
            "snapshot_seconds", "Writing a snapshot", buckets=SNAPSHOT_BUCKETS_S
        )
        self.ignored = metrics.counter(
            "foreign_block_records", "Records of the blocks topic that are no committed block"
        )
        self.journal_bytes = metrics.gauge(
            "journal_bytes_since_snapshot", "What a start would execute again"
        )

    def made(self, block: Block) -> None:
        """A block was certified."""
        header = block.header
        self.height.set(header.height)
        self.last_block.set(header.time / 1000)
        self.records.inc(header.record_count)
        self.block_records.observe(header.record_count)
        outcomes = Counter(map(_outcome_of, block.records))
        for outcome, count in outcomes.items():
            self.dispositions.labels(outcome).inc(count)


def _outcome_of(record: RecordDisposition) -> str:
    if record.events:
        return "events"
    if record.receipt is None:
        return "gap"
    return reason_of(record.receipt).name.lower()


class Validator:
    """One running validator."""

    def __init__(
        self,
        settings: Settings,
        lifecycle: Lifecycle,
        founding: Founding,
        kinds: InstalledKinds,
        signer: Signer,
        store: Store,
        desk: ControlDesk,
    ) -> None:
        self._settings = settings
        self._desk = desk
        self._cluster = settings.cluster
        self._lifecycle = lifecycle
        self._founding = founding
        self._kinds = kinds
        self._signer = signer
        self._store = store
        self._measures = Measures(lifecycle.metrics)
        self._tracer = lifecycle.tracer
        self._traces = RecordTraces(lifecycle.tracer)
        self._source = f"nocturne:{format_hash(founding.ledger_id)}"
        self._disk = ThreadPoolExecutor(1, "journal")
        self._made: asyncio.Queue[_Waiting] = asyncio.Queue(BLOCKS_WAITING_MAX)
        self._sent: asyncio.Queue[_Sent] = asyncio.Queue(BLOCKS_UNCONFIRMED_MAX)
        self._gathered = asyncio.Event()
        self._room = asyncio.Event()
        self._first_arrival: float | None = None
        self._abandon = threading.Event()
        self._snapshot: asyncio.Future[None] | None = None
        self._published: Published | None = None
        self._newest_confirmed: Made | None = None

    async def run(self, server: RpcServer) -> None:
        """Recover, republish, then certify until told to stop."""
        recovered = await self._on_disk(self._recover)
        self._chain = recovered.chain
        self._measures.height.set(self._chain.tip.height)
        self._measures.last_block.set(self._chain.tip.time / 1000)
        self._schema_id = (await asyncio.to_thread(schema_ids, self._settings.registry_url))[
            topics.BLOCKS
        ]
        uuid, kept_from = await asyncio.to_thread(self._check_log)
        self._gathering = Gathering(uuid, self._chain.state.positions, recovered.ranges, kept_from)
        producer = AckedProducer(kafka.producer_config(self._cluster, linger_ms=0))
        consumer: BatchConsumer | None = None
        try:
            await self._republish(recovered, producer)
            consumer = BatchConsumer(
                kafka.consumer_config(self._cluster, CONSUMER_GROUP),
                [
                    Start(topics.COMMANDS, partition, offset)
                    for partition, offset in self._gathering.starts.items()
                ],
                batch_records_max=CONSUME_RECORDS_MAX,
            )
            self._desk.open(self._chain, self._gathered.set)
            await server.set_serving(True)
            log.info("certifying", height=self._chain.tip.height, partitions=len(kept_from))
            await self._lifecycle.until_stopped(
                self._gather(consumer),
                self._propose(),
                self._write(producer),
                self._confirm(),
                self._watch(consumer),
                self._check_topic(uuid),
                server.served(),
            )
        finally:
            await self._close(producer, consumer)

    # Starting -----------------------------------------------------------------------------

    def _recover(self) -> Recovered:
        started = time.monotonic()
        recovered = self._store.recover(self._founding.data, self._kinds.registry, self._signer)
        log.info(
            "recovered",
            height=recovered.chain.tip.height,
            replayed_blocks=recovered.replayed,
            torn_bytes=recovered.torn_bytes,
            seconds=round(time.monotonic() - started, 3),
        )
        return recovered

    def _check_log(self) -> tuple[bytes, dict[int, int]]:
        """The commands topic's id, and the first offset that each partition still has."""
        partitions = self._founding.genesis.partitions
        found = kafka.partition_count(self._cluster, topics.COMMANDS)
        if found != partitions:
            raise CannotStart(
                f"the topic {topics.COMMANDS} has {found} partitions, the genesis {partitions}"
            )
        uuid = kafka.topic_uuid(self._cluster, topics.COMMANDS)
        kept_from = {}
        for position in self._chain.state.positions:
            partition, following = position.partition, position.next_offset
            if position.topic_uuid not in (bytes(16), uuid):
                raise Halt(
                    f"the topic {topics.COMMANDS} was made anew: partition {partition} is "
                    f"certified up to offset {following} of topic {position.topic_uuid.hex()}, "
                    f"the broker has {uuid.hex()}"
                )
            low, high = kafka.watermarks(self._cluster, topics.COMMANDS, partition)
            if low > following:
                raise Halt(
                    f"partition {partition} of {topics.COMMANDS} starts at offset {low}, certified "
                    f"up to {following}: records were deleted before they were certified"
                )
            if high < following:
                raise Halt(
                    f"partition {partition} of {topics.COMMANDS} ends at offset {high}, certified "
                    f"up to {following}: the broker lost certified records"
                )
            kept_from[partition] = low
        return uuid, kept_from

    async def _republish(self, recovered: Recovered, producer: AckedProducer) -> None:
        """Publish what the topic lacks; the journal's blocks may or may not have got there."""
        published = await self._read_topic(recovered, recovered.published)
        height = 0 if published is None else published.height
        first = min(recovered.digests, default=1)
        if height + 1 < first:
            raise Halt(
                f"the topic {topics.BLOCKS} has the certified blocks up to {height} only, and the "
                f"journal begins with block {first}: put the topic back from a backup"
            )
        missing = await self._on_disk(lambda: list(self._store.blocks_after(height)))
        for start in range(0, len(missing), REPUBLISH_BLOCKS):
            some = missing[start : start + REPUBLISH_BLOCKS]
            placed = await producer.produce_batch(
                [self._record_of(number, encoded) for number, encoded in some]
            )
            published = Published(some[-1][0], placed[-1][1])
        if missing:
            log.info("published_again", first=missing[0][0], last=missing[-1][0])
        self._published = published
        self._measures.published.set(0 if published is None else published.height)

    async def _read_topic(self, recovered: Recovered, known: Published | None) -> Published | None:
        low, high = await asyncio.to_thread(kafka.watermarks, self._cluster, topics.BLOCKS, 0)
        check = TopicCheck(
            self._founding.ledger_id,
            self._founding.genesis.validator_set,
            recovered.digests,
            recovered.chain.tip.height,
            known,
        )
        start = low if known is None else known.offset
        if low <= start < high:
            await self._offer_topic(check, start, high)
        self._measures.ignored.inc(check.ignored)
        try:
            return check.newest()
        except LookupError as fault:
            log.warning("blocks_topic_changed", cause=str(fault))
            return await self._read_topic(recovered, None)

    async def _offer_topic(self, check: TopicCheck, start: int, end: int) -> None:
        consumer = BatchConsumer(
            kafka.consumer_config(self._cluster, CONSUMER_GROUP),
            [Start(topics.BLOCKS, 0, start)],
            batch_records_max=16,
        )
        try:
            while consumer.next_offset(topics.BLOCKS, 0) < end:
                for message in await consumer.batch():
                    check.offer(_offset_of(message), message.value())
        finally:
            await consumer.close()

    # Running ------------------------------------------------------------------------------

    async def _gather(self, consumer: BatchConsumer) -> None:
        while True:
            while self._gathering.is_full:
                self._room.clear()
                await self._room.wait()
            messages = await consumer.batch()
            arrived = time.monotonic()
            for start in range(0, len(messages), PREPARE_RECORDS):
                self._take(messages[start : start + PREPARE_RECORDS])
                if self._gathering.has_offsets:
                    self._first_arrival = self._first_arrival or arrived
                    self._gathered.set()
                await asyncio.sleep(0)
            for partition in self._gathering.starts:
                following = consumer.next_offset(topics.COMMANDS, partition)
                self._gathering.reach(partition, following)
            if self._gathering.has_offsets:
                self._first_arrival = self._first_arrival or arrived
                self._gathered.set()

    def _take(self, messages: Sequence[Message]) -> None:
        context = self._chain.context
        gathering = self._gathering
        for message in messages:
            partition, offset = _partition_of(message), _offset_of(message)
            record = log_record_of(message)
            if gathering.is_certified(partition, offset):
                record_hash = hash_record(record.key, record.value, headers_bytes(record.headers))
                gathering.compare(partition, offset, record_hash)
            else:
                gathering.admit(partition, offset, prepare(context, partition, record))
                if self._tracer.on:
                    self._traces.arrived(partition, offset, record.headers)

    async def _propose(self) -> None:
        while True:
            await self._gathered.wait()
            since = self._first_arrival or time.monotonic()
            asked = self._next_control()
            if asked is None and not self._gathering.has_offsets:
                self._gathered.clear()
                continue
            started_ns = time.time_ns()
            started = time.monotonic()
            made = self._chain.extend(
                self._gathering.batches(),
                time.time_ns() // 1_000_000,
                () if asked is None else (asked.record,),
            )
            self._measures.execute_seconds.observe(time.monotonic() - started)
            header = made.block.header
            traces = self._traces.taken(made.block, started_ns) if self._tracer.on else None
            self._gathering.taken(header.ranges)
            self._room.set()
            if not self._gathering.has_offsets:
                self._first_arrival = None
                if not self._desk.is_waited_at:
                    self._gathered.clear()
            self._measures.made(made.block)
            await self._made.put(_Waiting(made, since, asked, traces))
            await asyncio.sleep(
                min(
                    PAUSE_SECONDS_MAX,
                    max(PAUSE_SECONDS_MIN, header.record_count * PAUSE_SECONDS_PER_RECORD),
                )
            )

    def _next_control(self) -> Asked | None:
        """The next control record that the next block may carry: one a block is enough."""
        while (asked := self._desk.take()) is not None:
            try:
                self._chain.check_next_control(asked.record)
            except Malformed as fault:
                asked.refuse(fault)
            else:
                return asked
        return None

    async def _write(self, producer: AckedProducer) -> None:
        while True:
            waiting = [await self._made.get()]
            while not self._made.empty():
                waiting.append(self._made.get_nowait())
            started = time.monotonic()
            started_ns = time.time_ns()
            await self._on_disk(partial(self._store.keep, [one.made for one in waiting]))
            self._measures.fsync_seconds.observe(time.monotonic() - started)
            for one in waiting:
                if one.traces is not None:
                    one.traces.durable(started_ns)
                record = self._record_of(one.made.block.header.height, one.made.encoded)
                await self._sent.put(_Sent(one, producer.deliver([record])))

    async def _confirm(self) -> None:
        while True:
            sent = await self._sent.get()
            (delivery,) = await sent.delivery
            made = sent.waiting.made
            height = made.block.header.height
            if isinstance(delivery, Undelivered):
                # Started anew, this process looks for the block in the topic and publishes it.
                raise Unavailable(f"block {height} was not acknowledged: {delivery.cause}")
            self._newest_confirmed = made
            if sent.waiting.asked is not None:
                sent.waiting.asked.published(made.block)
            self._measures.block_seconds.observe(time.monotonic() - sent.waiting.since)
            self._measures.published.set(height)
            if sent.waiting.traces is not None:
                sent.waiting.traces.published()
            if delivery[1] >= 0:
                self._published = Published(height, delivery[1])
                self._store.note_published(self._published)
            if self._store.snapshot_due and (self._snapshot is None or self._snapshot.done()):
                self._start_snapshot(made)

    async def _check_topic(self, uuid: bytes) -> None:
        while True:
            await asyncio.sleep(TOPIC_CHECK_SECONDS)
            try:
                found = await asyncio.to_thread(kafka.topic_uuid, self._cluster, topics.COMMANDS)
            except Unavailable as fault:
                log.warning("topic_check", cause=str(fault))
                continue
            if found != uuid:
                raise Halt(
                    f"the topic {topics.COMMANDS} was made anew while it was read: it was "
                    f"{uuid.hex()}, the broker now has {found.hex()}"
                )

    async def _watch(self, consumer: BatchConsumer) -> None:
        while True:
            self._measures.lag.set(consumer.lag() + self._gathering.waiting)
            for (_, partition), lag in consumer.lags().items():
                waiting = self._gathering.waiting_in(partition)
                self._measures.partition_lag.labels(str(partition)).set(lag + waiting)
            self._measures.journal_bytes.set(self._store.bytes_since_snapshot)
            if self._snapshot is not None and self._snapshot.done():
                self._snapshot.result()
            await asyncio.sleep(WATCH_SECONDS)

    # Snapshots and ending -----------------------------------------------------------------

    def _start_snapshot(self, made: Made) -> None:
        """In a thread of its own, from a state that never changes; then forget what it covers."""
        self._store.begin_snapshot()
        self._snapshot = asyncio.ensure_future(self._write_snapshot(made, self._published))

    async def _write_snapshot(self, made: Made, published: Published | None) -> None:
        started = time.monotonic()
        header = made.block.header
        await _in_daemon_thread(
            partial(
                self._store.write_snapshot,
                made.block.header_bytes,
                made.state,
                published,
                self._abandon,
            )
        )
        # Every block up to here is acknowledged: the broker has them, and the snapshot the rest.
        await self._on_disk(partial(self._store.forget_before, header.height))
        seconds = time.monotonic() - started
        self._measures.snapshot_seconds.observe(seconds)
        log.info("snapshot", height=header.height, seconds=round(seconds, 3))

    async def _close(self, producer: AckedProducer, consumer: BatchConsumer | None) -> None:
        self._abandon.set()
        if consumer is not None:
            await consumer.close()
        await producer.close()
        if self._snapshot is not None:
            await asyncio.gather(self._snapshot, return_exceptions=True)
        await asyncio.to_thread(self._disk.shutdown, wait=True)
        self._store.close()

    def _record_of(self, height: int, encoded: bytes) -> ProducedRecord:
        number = str(height)
        return ProducedRecord(
            topics.BLOCKS,
            0,
            number.encode("ascii"),
            topics.frame(self._schema_id, encoded),
            topics.cloud_event_headers(topics.BLOCKS, number, self._source, number, None),
        )

    async def _on_disk(self, function: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._disk, function)


async def _in_daemon_thread(function: Callable[[], None]) -> None:
    """Run `function` in a thread that does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def finish(error: BaseException | None) -> None:
        if done.done():
            return
        if error is None or isinstance(error, Abandoned):
            done.set_result(None)
        else:
            done.set_exception(error)

    def work() -> None:
        error: BaseException | None = None
        try:
            function()
        except BaseException as fault:
            error = fault
        loop.call_soon_threadsafe(finish, error)

    threading.Thread(target=work, name="snapshot", daemon=True).start()
    await done


def log_record_of(message: Message) -> LogRecord:
    """The record as the broker delivered it. Names of headers that are not UTF-8 cannot be had from
    this client: such a record counts with `UNREADABLE_HEADERS` instead, for every validator alike.
    """
    try:
        headers = tuple(cast("Headers", message.headers() or ()))
    except (SystemError, UnicodeDecodeError):
        headers = UNREADABLE_HEADERS
    return LogRecord(message.key(), message.value(), headers)


def _partition_of(message: Message) -> int:
    partition = message.partition()
    assert partition is not None
    return partition


def _offset_of(message: Message) -> int:
    offset = message.offset()
    assert offset is not None
    return offset
