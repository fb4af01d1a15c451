"""Kafka as the services use it: assigned consumers, acknowledged and transactional producers.

Rules: docs/spec/topics.md. librdkafka works in threads; here its batches cross into asyncio, one
hand-over per batch, bounded. librdkafka reconnects by itself, so that a broker's absence shows as
silence, as growing lag, or as `Unavailable` once a bound is passed.

Certificates and authorities are another matter: librdkafka reads them when a client is made and
has no way to give a client others (2.16; asked for in confluentinc/librdkafka#2868). So a client
makes a new one of librdkafka's in its place where nothing is lost, repeated or overtaken: a
consumer at the offsets that it would fetch next, a producer once all it sent was answered, a
transactional one between transactions. When, says `runtime/rotation.py`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import queue
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar, cast

import structlog
from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    ConfigResource,
    OffsetSpec,
    ResourceType,
)

from nocturne.core.errors import NocturneError, Unavailable
from nocturne.runtime.certificates import CertificateFault
from nocturne.runtime.cluster import Cluster, TlsFiles
from nocturne.runtime.rotation import Rotations
from nocturne.runtime.secrets import SecretFault
from nocturne.runtime.telemetry import Metrics

MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
"""The broker's own bound in the embedded runtime; the largest block is below it."""
BATCH_RECORDS_MAX: Final = 2048
"""Records of one hand-over: as many as a block's range may hold by default."""
BACKLOG_BATCHES_MAX: Final = 4
"""Batches that wait for the event loop; past them the thread stops fetching."""
POLL_SECONDS: Final = 0.5
"""How long a thread sleeps without records before it looks whether it should end."""
ADMIN_SECONDS_MAX: Final = 10.0
REFUSED_SECONDS_MAX: Final = 10.0
"""A user that was just made is known to every broker well before."""
REFUSALS_APART_SECONDS_MAX: Final = 5.0
"""Past this the cluster has let in silently: a client connects again every second."""
TRIAL_SECONDS_MAX: Final = 5.0
"""How long a cluster is waited for that is asked whether it lets new certificates in."""
DELIVERY_SECONDS_MAX: Final = 30.0
"""An embedded broker is back five seconds after a kill; past this a record is given up."""
BATCHES_UNDER_WAY_MAX: Final = 4
"""An idempotent producer may have five requests open."""
TRANSACTION_SECONDS_MAX: Final = 30.0
TRANSACTION_ATTEMPTS_MAX: Final = 6
BACKOFF_SECONDS: Final = 0.1
BACKOFF_SECONDS_MAX: Final = 3.0

Result = TypeVar("Result")
Headers = tuple[tuple[str, bytes | None], ...]

log = structlog.get_logger()
_librdkafka = logging.getLogger("librdkafka")


@dataclass(frozen=True, slots=True)
class Start:
    """Where an assigned consumer begins: the offset of the first record it is to deliver."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class ProducedRecord:
    """A record to append. The partition is always named: no partitioner decides for us."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A record that the broker did not acknowledge in time; it may be in the log all the same."""

    cause: str


Delivery = tuple[int, int] | Undelivered
"""(partition, offset) of an acknowledged record; offset -1 when the broker did not say it: it
acknowledged a retry of a record that it had already.
"""


@dataclass(frozen=True, slots=True)
class Consumed:
    """Consumer positions to commit in a transaction: (topic, partition) → next offset."""

    offsets: Mapping[tuple[str, int], int]
    group_metadata: object


# Configuration ---------------------------------------------------------------------------------


class Config(dict[str, Any]):
    """librdkafka's settings of one client, and the cluster and the files that they are for. `repr`
    shows none of them: a password and a key may be among them.
    """

    def __init__(self, cluster: Cluster, files: TlsFiles, settings: Mapping[str, Any]) -> None:
        super().__init__({**cluster.connection(files), **settings})
        self.cluster = cluster
        self.files = files

    def remade(self, files: TlsFiles) -> Config:
        """The same with these files, and with the password of this moment."""
        return Config(self.cluster, files, {**self, **self.cluster.connection(files)})

    def __repr__(self) -> str:
        return f"Config({self.cluster!r})"


def consumer_config(cluster: Cluster, group: str, **overrides: object) -> Config:
    """A consumer that is assigned its partitions. Overrides are librdkafka's names with `_` for
    `.`: `isolation_level="read_committed"`.
    """
    settings = {
        **_COMMON,
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # An offset that is gone is a finding, never a reason to begin somewhere else.
        "auto.offset.reset": "error",
        "isolation.level": "read_uncommitted",
        # Tells the end of the log past trailing control markers, which are never delivered.
        "enable.partition.eof": True,
        # The broker answers at the first byte; the wait only bounds an idle poll.
        "fetch.min.bytes": 1,
        "fetch.wait.max.ms": 1_000,
        "fetch.error.backoff.ms": 100,
        "fetch.queue.backoff.ms": 10,
        "fetch.max.bytes": MESSAGE_BYTES_MAX,
        "max.partition.fetch.bytes": 4 * 1024 * 1024,
        "queued.min.messages": 20_000,
        "queued.max.messages.kbytes": 32 * 1024,
        **_dotted(overrides),
    }
    return Config(cluster, _rotations.files_of(cluster), settings)


def producer_config(cluster: Cluster, **overrides: object) -> Config:
    """An idempotent producer that counts only what all in-sync replicas hold."""
    settings = {
        **_COMMON,
        "enable.idempotence": True,
        "acks": "all",
        # Not below 1: librdkafka waits in whole milliseconds and spins through what is left of a
        # shorter linger, 135 µs of a core for every record.
        "linger.ms": 1,
        "compression.type": "lz4",
        "message.max.bytes": MESSAGE_BYTES_MAX,
        "delivery.timeout.ms": int(DELIVERY_SECONDS_MAX * 1000),
        "queue.buffering.max.messages": 100_000,
        "queue.buffering.max.kbytes": 64 * 1024,
        "retry.backoff.ms": 50,
        **_dotted(overrides),
    }
    return Config(cluster, _rotations.files_of(cluster), settings)


def admin_config(cluster: Cluster) -> Config:
    """A client that asks, or administers."""
    return Config(cluster, _rotations.files_of(cluster), _COMMON)


_COMMON: Final[Mapping[str, Any]] = {
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1000,
    "allow.auto.create.topics": False,
    "logger": _librdkafka,
}


def _dotted(overrides: Mapping[str, object]) -> dict[str, object]:
    return {name.replace("_", "."): value for name, value in overrides.items()}


# Being refused ---------------------------------------------------------------------------------


class Doorkeeper:
    """Hears whether the cluster lets one client in, and tells it from a cluster that is away.

    librdkafka tries for ever, and says in its error callback alone why: whoever waits for a client
    asks `check` now and then. After a refusal the password's file is read again, so that a password
    that was changed in both places is taken up.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._since = self._last = -math.inf
        self._cause = ""
        self._password_asked = False
        self.last_words = ""
        """What the client last said of its connections; what it answers is often less."""

    def heard(self, error: KafkaError) -> None:
        """What the error callback was told."""
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self.last_words = error.str()
        if error.code() not in _REFUSALS and _TLS_ALERT not in error.str():
            return
        self._cause = error.str()
        now = time.monotonic()
        if now - self._last > REFUSALS_APART_SECONDS_MAX:
            self._since = now
        self._last = now
        self._password_asked = error.code() == KafkaError._AUTHENTICATION

    def give_password(self, client: Consumer | Producer) -> None:
        """Give a client that was refused the password of this moment. Never from a callback:
        confluent-kafka 2.16 ends the process when a client is called within its own callbacks.
        """
        if not self._password_asked:
            return
        self._password_asked = False
        try:
            settings = self._cluster.connection()
        except NocturneError as fault:
            self._cause = f"{self._cause}; {fault}"
            return
        if "sasl.password" in settings:
            client.set_sasl_credentials(settings["sasl.username"], settings["sasl.password"])

    @property
    def refusal(self) -> str:
        """Why the cluster refused last; empty when it never did."""
        return self._cause

    def let_in(self) -> None:
        """The cluster has answered."""
        self._last = -math.inf

    def check(self, seconds: float = REFUSED_SECONDS_MAX) -> None:
        """`Unavailable` once the cluster has refused again and again for so long."""
        now = time.monotonic()
        lasts = now - self._last <= REFUSALS_APART_SECONDS_MAX
        if lasts and now - self._since >= seconds:
            cluster = self._cluster
            raise Unavailable(
                f"Kafka at {cluster.bootstrap} and {cluster.principal} do not accept each other: "
                f"{self._cause}"
            )


_REFUSALS: Final = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL})
"""A password or a certificate that one side does not accept."""
_TLS_ALERT: Final = " alert "
"""In the words for a broker that refuses our certificate: by TLS 1.3 it says so after the
handshake, and librdkafka takes that for a connection that broke.
"""


# Rotating certificates and authorities ----------------------------------------------------------


def _refusal(cluster: Cluster, files: TlsFiles) -> str | None:
    """As `rotation.LetsIn` says: a client of its own tries the files before any other has them."""
    doorkeeper = Doorkeeper(cluster)
    try:
        admin = AdminClient(
            Config(cluster, files, {**_COMMON, **_QUIET, "error_cb": doorkeeper.heard})
        )
    except SecretFault as fault:
        raise Unavailable(str(fault)) from fault
    except (KafkaException, ValueError) as fault:
        return _cause(fault)
    deadline = time.monotonic() + TRIAL_SECONDS_MAX
    while time.monotonic() < deadline:
        try:
            if admin.list_topics(timeout=POLL_SECONDS).brokers:
                return None
        except KafkaException:
            # Its callbacks are called by nobody else, and they alone say why.
            admin.poll(0)
        if doorkeeper.refusal:
            return doorkeeper.refusal
    raise Unavailable(f"Kafka at {cluster.bootstrap} did not answer: {doorkeeper.last_words}")


_QUIET: Final = {"reconnect.backoff.ms": 1000, "log_level": 0}
"""Of a trial, whose failure whoever asked for it says: librdkafka would at each attempt."""

_rotations: Final = Rotations(_refusal)


def measure_rotation(cluster: Cluster, metrics: Metrics) -> None:
    """Count for a service what the files of its Kafka clients do. Before any of them is made."""
    _rotations.measure(cluster, metrics)


# Questions to the cluster ----------------------------------------------------------------------


def topic_uuid(cluster: Cluster, topic: str) -> bytes:
    """The topic's 16-byte id: another one means that it was made anew. Blocks."""
    return asked(cluster, lambda admin: _topic_uuid(admin, topic), f"the id of topic {topic}")


def partition_count(cluster: Cluster, topic: str) -> int:
    """How many partitions the topic has. Blocks; `Unavailable` when there is no such topic."""
    return asked(
        cluster, lambda admin: _partition_count(admin, topic), f"the partitions of {topic}"
    )


def topic_settings(cluster: Cluster, topic: str) -> dict[str, str]:
    """The topic's settings as the broker has them, defaults included. Blocks."""
    return asked(cluster, lambda admin: _topic_settings(admin, topic), f"the settings of {topic}")


def watermarks(
    cluster: Cluster, topic: str, partition: int, *, committed: bool = False
) -> tuple[int, int]:
    """(first offset kept, next offset) of a partition; with `committed` up to the first open
    transaction. Blocks.
    """
    isolation = IsolationLevel.READ_COMMITTED if committed else IsolationLevel.READ_UNCOMMITTED
    return asked(
        cluster,
        lambda admin: _watermarks(admin, TopicPartition(topic, partition), isolation),
        f"the offsets of {topic}-{partition}",
    )


def ends(cluster: Cluster, topic: str, partitions: Sequence[int]) -> dict[int, int]:
    """The next offset of each partition, open transactions included, by one question. Blocks."""
    return asked(
        cluster, lambda admin: _ends(admin, topic, partitions), f"the ends of topic {topic}"
    )


def committed_offsets(
    cluster: Cluster, group: str, partitions: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], int]:
    """What `group` has committed: (topic, partition) → next offset, without those it has not.
    Blocks.
    """
    return asked(
        cluster, lambda admin: _committed(admin, group, partitions), f"the offsets of {group}"
    )


def _topic_uuid(admin: AdminClient, topic: str) -> bytes:
    described = admin.describe_topics(TopicCollection([topic]), request_timeout=ADMIN_SECONDS_MAX)[
        topic
    ].result(ADMIN_SECONDS_MAX)
    uuid = described.topic_id
    bits = (uuid.get_most_significant_bits(), uuid.get_least_significant_bits())
    return b"".join(part.to_bytes(8, "big", signed=True) for part in bits)


def _partition_count(admin: AdminClient, topic: str) -> int:
    known = admin.list_topics(topic, timeout=ADMIN_SECONDS_MAX)
    error = known.topics[topic].error
    if error is not None:
        raise KafkaException(error)
    return len(known.topics[topic].partitions)


def _topic_settings(admin: AdminClient, topic: str) -> dict[str, str]:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    entries = admin.describe_configs([resource])[resource].result(ADMIN_SECONDS_MAX)
    return {name: entry.value for name, entry in entries.items()}


def _watermarks(
    admin: AdminClient, place: TopicPartition, isolation: IsolationLevel
) -> tuple[int, int]:
    # By an admin client: a consumer would look for the coordinator of a group that nobody needs.
    low, high = (
        admin.list_offsets(
            {place: spec}, isolation_level=isolation, request_timeout=ADMIN_SECONDS_MAX
        )[place]
        for spec in (OffsetSpec.earliest(), OffsetSpec.latest())  # type: ignore[no-untyped-call]
    )
    return low.result(ADMIN_SECONDS_MAX).offset, high.result(ADMIN_SECONDS_MAX).offset


def _ends(admin: AdminClient, topic: str, partitions: Sequence[int]) -> dict[int, int]:
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    found = admin.list_offsets(
        {TopicPartition(topic, one): latest for one in partitions},
        isolation_level=IsolationLevel.READ_UNCOMMITTED,
        request_timeout=ADMIN_SECONDS_MAX,
    )
    return {one.partition: end.result(ADMIN_SECONDS_MAX).offset for one, end in found.items()}


def _committed(
    admin: AdminClient, group: str, partitions: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], int]:
    places = [TopicPartition(topic, partition) for topic, partition in partitions]
    asking = ConsumerGroupTopicPartitions(group, places)
    found = admin.list_consumer_group_offsets([asking], request_timeout=ADMIN_SECONDS_MAX)[group]
    return {
        (one.topic, one.partition): one.offset
        for one in found.result(ADMIN_SECONDS_MAX).topic_partitions
        if one.offset >= 0
    }


def asked(cluster: Cluster, question: Callable[[AdminClient], Result], what: str) -> Result:
    """The answer, asked again with back-off for as long as one request may take. `Unavailable`
    says why there is none; `what` names it. Blocks.
    """
    deadline = time.monotonic() + ADMIN_SECONDS_MAX
    attempt = 0
    doorkeeper = Doorkeeper(cluster)
    while True:
        # The client must outlive its answer: one that is let go takes its open requests with it.
        hear: dict[str, Any] = {"error_cb": doorkeeper.heard}
        try:
            admin = AdminClient(admin_config(cluster) | hear)
        except (SecretFault, CertificateFault) as fault:
            raise Unavailable(f"Kafka was not asked for {what}: {fault}") from fault
        try:
            return question(admin)
        except (KafkaException, TimeoutError) as fault:
            # Its callbacks are called by nobody else.
            admin.poll(0)
            if time.monotonic() > deadline:
                doorkeeper.check(0)
                cause = "; ".join(filter(None, (_cause(fault), doorkeeper.last_words)))
                raise Unavailable(f"Kafka did not tell {what}: {cause}") from fault
            time.sleep(_backoff(attempt))
            attempt += 1


def _backoff(attempt: int) -> float:
    """Seconds: doubling, bounded, half of it jitter."""
    bound = min(BACKOFF_SECONDS * float(2**attempt), BACKOFF_SECONDS_MAX)
    return bound * random.uniform(0.5, 1.0)


def _cause(fault: Exception) -> str:
    first = fault.args[0] if fault.args else fault
    return str(first.str()) if isinstance(first, KafkaError) else str(fault) or repr(fault)


# Consuming -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Arrival:
    """One hand-over from the thread: records, and where partitions ended past the last of them."""

    messages: list[Message]
    ends: list[tuple[str, int, int]] = field(default_factory=list)


def headers_of(message: Message) -> Headers | None:
    """The record's headers in order; None when a name is not UTF-8, as only a stranger writes it:
    the client then has a broken list for us, which must not be asked for twice.
    """
    try:
        return tuple(cast("Headers", message.headers() or ()))
    except (SystemError, UnicodeDecodeError):
        return None


class BatchConsumer:
    """Delivers the records of assigned partitions in lists, in order per partition.

    One thread reads; at most `backlog_batches_max` lists of `batch_records_max` records wait.
    """

    def __init__(
        self,
        config: Config,
        starts: Sequence[Start],
        *,
        batch_records_max: int = BATCH_RECORDS_MAX,
        backlog_batches_max: int = BACKLOG_BATCHES_MAX,
    ) -> None:
        self._starts = tuple(starts)
        self._batch_records_max = batch_records_max
        self._config = config
        self._doorkeeper = Doorkeeper(config.cluster)
        self._next = {(s.topic, s.partition): s.offset for s in starts}
        self._consumer = self._made(self._next)
        # From here on only the thread touches the consumer: its methods take a lock of their own
        # while they hold the interpreter's, and two threads in them never get out again.
        self._group_metadata = self._consumer.consumer_group_metadata()
        self._ends: dict[tuple[str, int], int] = {}
        self._ends_known_until = 0.0
        self._room = threading.Semaphore(backlog_batches_max)
        self._closing = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Arrival] = deque()
        self._arrived = asyncio.Event()
        self._fault: Exception | None = None
        self._membership = _rotations.join(config.cluster, config.files)
        self._thread = threading.Thread(target=self._read, name="kafka-consumer", daemon=True)
        self._thread.start()

    async def batch(self) -> list[Message]:
        """The next records, at least one; or none when `next_offset` moved past control markers.

        `Unavailable` on errors that librdkafka does not get over: an offset or a topic that is
        gone, no permission.
        """
        while not self._waiting:
            match self._fault:
                case Unavailable():
                    raise self._fault
                case Exception():
                    raise Unavailable(f"consumer: {_cause(self._fault)}") from self._fault
            self._arrived.clear()
            await self._arrived.wait()
        arrival = self._waiting.popleft()
        self._room.release()
        for message in arrival.messages:
            # Most batches hold one partition's records in a row; the last one counts.
            self._next[message.topic(), message.partition()] = message.offset() + 1  # type: ignore[index,operator]
        for topic, partition, offset in arrival.ends:
            self._next[topic, partition] = max(self._next[topic, partition], offset)
        return arrival.messages

    def next_offset(self, topic: str, partition: int) -> int:
        """The offset after all that `batch` has returned: no record of the log lies below it that
        was not delivered. Skipped offsets are control markers or compacted away.
        """
        return self._next[topic, partition]

    def lag(self) -> int:
        """Offsets known to be in the log and not yet returned by `batch`, over all partitions.
        Known as of the last fetch, about a second before at most.
        """
        return sum(max(0, high - self._next[key]) for key, high in self._ends.items())

    def lags(self) -> dict[tuple[str, int], int]:
        """As `lag`, for each partition."""
        return {key: max(0, high - self._next[key]) for key, high in self._ends.items()}

    def group_metadata(self) -> object:
        """For `Consumed`: whose positions a transaction commits."""
        return self._group_metadata

    async def close(self) -> None:
        """End the thread and leave the broker."""
        self._closing.set()
        self._membership.leave()
        await asyncio.to_thread(self._thread.join)

    def _made(self, places: Mapping[tuple[str, int], int]) -> Consumer:
        """One of librdkafka's consumers that begins there."""
        consumer = Consumer({**self._config, "error_cb": self._on_error})
        consumer.assign([TopicPartition(*place, offset) for place, offset in places.items()])
        return consumer

    def _change_over(self, files: TlsFiles) -> None:
        """To a consumer with these files, from after what this one has handed over: what it has
        fetched beyond is fetched again.
        """
        try:
            config = self._config.remade(files)
        except SecretFault as fault:
            log.warning("kafka_consumer_not_changed", cause=str(fault))
            return
        places = {(s.topic, s.partition): s.offset for s in self._starts}
        for reached in self._consumer.position([TopicPartition(*place) for place in places]):
            # Below zero where nothing came yet.
            if reached.offset >= 0:
                places[reached.topic, reached.partition] = reached.offset
        self._config = config
        self._starts = tuple(Start(*place, offset) for place, offset in places.items())
        old, self._consumer = self._consumer, self._made(places)
        old.close()
        self._doorkeeper.let_in()

    def _read(self) -> None:
        try:
            while not self._closing.is_set():
                if (files := self._membership.files) != self._config.files:
                    self._change_over(files)
                if self._room.acquire(timeout=POLL_SECONDS):
                    self._read_one()
        except (KafkaException, RuntimeError, Unavailable) as fault:
            self._post(partial(self._failed, fault))
        finally:
            self._consumer.close()

    def _read_one(self) -> None:
        arrival = self._take()
        if time.monotonic() > self._ends_known_until:
            self._note_watermarks()
            self._ends_known_until = time.monotonic() + POLL_SECONDS
        if arrival is None:
            self._room.release()
        else:
            self._post(partial(self._hand_over, arrival))

    def _take(self) -> _Arrival | None:
        # `consume` would wait its whole timeout for a full batch: wait for the first record only.
        first = self._consumer.poll(POLL_SECONDS)
        if first is None:
            self._doorkeeper.give_password(self._consumer)
            self._doorkeeper.check()
            return None
        rest = self._consumer.consume(self._batch_records_max - 1, timeout=0)
        arrival = _Arrival([])
        for message in (first, *rest):
            error = message.error()
            if error is None:
                arrival.messages.append(message)
            elif error.code() == KafkaError._PARTITION_EOF:
                self._doorkeeper.let_in()
                self._note_end(arrival, message)
            elif not (error.retriable() or error.code() in _PASSING):
                raise KafkaException(error)
            else:
                log.warning("kafka_consumer", error=error.str())
        if arrival.messages:
            self._doorkeeper.let_in()
        return arrival if arrival.messages or arrival.ends else None

    def _on_error(self, error: KafkaError) -> None:
        _log_error(error)
        self._doorkeeper.heard(error)

    def _note_watermarks(self) -> None:
        for topic, partition in self._next:
            _, high = self._consumer.get_watermark_offsets(
                TopicPartition(topic, partition), cached=True
            )
            self._ends[topic, partition] = high

    def _note_end(self, arrival: _Arrival, end: Message) -> None:
        topic, partition, offset = end.topic(), end.partition(), end.offset()
        assert topic is not None
        assert partition is not None
        assert offset is not None
        last = arrival.messages[-1] if arrival.messages else None
        plain = last is not None and (last.topic(), last.partition(), last.offset()) == (
            topic,
            partition,
            offset - 1,
        )
        # An end right behind a record says nothing new; the loop need not be woken for it.
        if not plain and self._next.get((topic, partition)) != offset:
            arrival.ends.append((topic, partition, offset))

    def _post(self, call: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:
            # The loop is closed: the process ends, nobody waits any more.
            self._closing.set()

    def _hand_over(self, arrival: _Arrival) -> None:
        self._waiting.append(arrival)
        self._arrived.set()

    def _failed(self, fault: Exception) -> None:
        self._fault = fault
        self._arrived.set()


_PASSING: Final = frozenset(
    {
        KafkaError._TRANSPORT,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._WAIT_CACHE,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.BROKER_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.OFFSET_NOT_AVAILABLE,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.KAFKA_STORAGE_ERROR,
    }
)
"""Errors that pass by themselves: librdkafka goes on trying."""


def _log_error(error: KafkaError) -> None:
    log.warning("kafka", error=error.str(), fatal=error.fatal())


# Producing -------------------------------------------------------------------------------------


class _Pending:
    """The deliveries of one batch, gathered from the producer's thread into one future."""

    __slots__ = ("_deliveries", "_loop", "_producer", "_reported", "future")

    def __init__(self, producer: AckedProducer, loop: asyncio.AbstractEventLoop, size: int) -> None:
        self._producer = producer
        self._loop = loop
        self._deliveries: list[Delivery] = [Undelivered("not reported")] * size
        # Appending is atomic under the interpreter's lock, counting with += is not.
        self._reported: list[None] = []
        self.future: asyncio.Future[list[Delivery]] = loop.create_future()

    def report(self, index: int, error: KafkaError | None, message: Message) -> None:
        if error is None:
            self._producer.answered()
            offset = message.offset()
            partition = message.partition()
            assert partition is not None
            known = offset is not None and offset >= 0
            self._put(index, (partition, offset if known and offset is not None else -1))
        else:
            self._put(index, Undelivered(error.str()))

    def refuse(self, index: int, cause: str) -> None:
        self._put(index, Undelivered(cause))

    def _put(self, index: int, delivery: Delivery) -> None:
        self._deliveries[index] = delivery
        self._reported.append(None)
        if len(self._reported) == len(self._deliveries):
            try:
                self._loop.call_soon_threadsafe(self._finish)
            except RuntimeError:
                log.warning("deliveries_unheard", records=len(self._deliveries))

    def _finish(self) -> None:
        if not self.future.done():
            self.future.set_result(self._deliveries)


class AckedProducer:
    """Appends records idempotently; one future per batch, resolved when all are acknowledged.

    While as many batches are under way as requests may be open, what comes is gathered and then
    sent together. More would not be faster, for the broker answers a connection in order; and
    librdkafka spins on a core while records are queued behind open requests (seen at 500 a second).
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._doorkeeper = Doorkeeper(config.cluster)
        self.reachable = True
        """False from the moment that no broker answers until a record is acknowledged again."""
        self._broken: str | None = None
        self._producer = Producer({**config, "error_cb": self._on_error})
        self._gathered: list[tuple[_Pending, Sequence[ProducedRecord]]] = []
        self._under_way = 0
        self._turn = threading.Lock()
        """Held while records are given to librdkafka, and to shut or open that way."""
        self._open = threading.Event()
        self._open.set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = threading.Event()
        self._membership = _rotations.join(config.cluster, config.files)
        self._thread = threading.Thread(target=self._poll, name="kafka-producer", daemon=True)
        self._thread.start()

    def deliver(self, records: Sequence[ProducedRecord]) -> asyncio.Future[list[Delivery]]:
        """Queue `records`; the future has one delivery for each, in their order, and never fails.

        Records of one partition are appended in their order. Does not block. `Unavailable` once
        librdkafka has declared the producer unusable: the process has to start anew.
        """
        self.check()
        loop = self._loop = asyncio.get_running_loop()
        pending = _Pending(self, loop, len(records))
        if not records:
            pending.future.set_result([])
            return pending.future
        pending.future.add_done_callback(self._finished)
        self._gathered.append((pending, records))
        if self._under_way < BATCHES_UNDER_WAY_MAX:
            self._send_gathered()
        return pending.future

    def _finished(self, _: asyncio.Future[list[Delivery]]) -> None:
        self._under_way -= 1
        self._send_gathered()

    def _send_gathered(self) -> None:
        with self._turn:
            if not self._open.is_set():
                # The producer is being changed; it is sent after that.
                return
            gathered, self._gathered = self._gathered, []
            self._under_way += len(gathered)
            for pending, records in gathered:
                self._send(pending, records)

    def _send(self, pending: _Pending, records: Sequence[ProducedRecord]) -> None:
        produce = self._producer.produce
        for index, record in enumerate(records):
            try:
                produce(
                    record.topic,
                    record.value,
                    record.key,
                    record.partition,
                    partial(pending.report, index),
                    headers=cast("Any", record.headers),
                )
            except BufferError:
                pending.refuse(index, "the producer's queue is full")
            except KafkaException as fault:
                pending.refuse(index, _cause(fault))

    async def produce_batch(self, records: Sequence[ProducedRecord]) -> list[tuple[int, int]]:
        """(partition, offset) of every record; `Unavailable` when any was not acknowledged."""
        positions = []
        for delivery in await self.deliver(records):
            if isinstance(delivery, Undelivered):
                self._doorkeeper.check(0)
                raise Unavailable(f"Kafka did not acknowledge a record: {delivery.cause}")
            positions.append(delivery)
        return positions

    async def close(self, seconds_max: float = 5.0) -> None:
        """Wait for what is queued, at most `seconds_max`, then end the thread."""
        self._membership.leave()
        await asyncio.to_thread(self._open.wait, seconds_max)
        self._send_gathered()
        await asyncio.to_thread(self._producer.flush, seconds_max)
        self._closing.set()
        await asyncio.to_thread(self._thread.join)

    def check(self) -> None:
        """`Unavailable` once librdkafka has declared the producer unusable, or the cluster has
        refused it for too long.
        """
        if self._broken is not None:
            raise Unavailable(f"producer: {self._broken}")
        self._doorkeeper.check()

    def answered(self) -> None:
        """The cluster has acknowledged a record."""
        self.reachable = True
        self._doorkeeper.let_in()

    def probe(self) -> None:
        """Ask the cluster for its brokers, so that `reachable` is right without traffic. Blocks."""
        try:
            found = self._producer.list_topics(timeout=2.0).brokers
        except KafkaException:
            self.reachable = False
        else:
            self.reachable = bool(found)
            self._doorkeeper.let_in()

    def _poll(self) -> None:
        while not self._closing.is_set():
            self._producer.poll(POLL_SECONDS)
            self._doorkeeper.give_password(self._producer)
            if (files := self._membership.files) != self._config.files:
                self._change_over(files)

    def _change_over(self, files: TlsFiles) -> None:
        """To a producer with these files. It is given nothing before the old one has an answer to
        everything, so that neither overtakes the other; the old one's delivery time bounds that.
        """
        try:
            config = self._config.remade(files)
        except SecretFault as fault:
            log.warning("kafka_producer_not_changed", cause=str(fault))
            return
        with self._turn:
            self._open.clear()
        # Kept to the end of this function: letting it go takes its time, and no turn.
        old = self._producer
        while len(old) > 0 and not self._closing.is_set():
            old.poll(POLL_SECONDS)
            self._doorkeeper.give_password(old)
        producer = Producer({**config, "error_cb": self._on_error})
        with self._turn:
            self._config, self._producer = config, producer
            self._open.set()
        self._doorkeeper.let_in()
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._send_gathered)
            except RuntimeError:
                # The loop is closed: nobody waits any more.
                self._closing.set()

    def _on_error(self, error: KafkaError) -> None:
        log.warning("kafka_producer", error=error.str(), fatal=error.fatal())
        self._doorkeeper.heard(error)
        if error.fatal():
            self._broken = error.str()
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.reachable = False


class _Worker:
    """One daemon thread for calls that block: a hung broker cannot keep the process from ending."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None]
        self._calls = queue.SimpleQueue()
        threading.Thread(target=self._work, name=name, daemon=True).start()

    async def call(self, function: Callable[[], Result]) -> Result:
        future: Future[Result] = Future()
        self._calls.put((function, future))
        return await asyncio.wrap_future(future)

    def ask(self, function: Callable[[], Any]) -> None:
        """Call it when its turn comes; nobody waits for it. From any thread."""
        self._calls.put((function, Future()))

    def end(self) -> None:
        self._calls.put(None)

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            function, future = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(function())
            except BaseException as fault:
                future.set_exception(fault)


class TransactionalProducer:
    """Publishes batches of records, each in one transaction under a stable transactional id.

    librdkafka does not speak KIP-890: a commit that timed out can act on the next transaction. So
    after a commit or abort of unknown end the producer is destroyed and made anew, and the batch
    is published again: records can appear twice, and consumers must de-duplicate.
    """

    def __init__(self, config: Config, transactional_id: str) -> None:
        self._config = config
        self._doorkeeper = Doorkeeper(config.cluster)
        self._transactional_id = transactional_id
        self._producer: Producer | None = None
        self._worker = _Worker("kafka-transactions")
        self._ending = threading.Event()
        # Also without a publication: who is silent would go on asking with the old certificate.
        self._membership = _rotations.join(
            config.cluster, config.files, lambda: self._worker.ask(self._change_over)
        )

    async def open(self) -> None:
        """Fence whoever used the id before and end its transaction, so that nothing hangs."""
        await self._worker.call(partial(self._repeated, self._ready))

    async def publish(
        self, records: Sequence[ProducedRecord], consumed: Consumed | None = None
    ) -> None:
        """Append all of `records`, and commit the positions, or nothing. One caller at a time.

        `Unavailable` after the last attempt; what was published then is unknown.
        """
        await self._worker.call(partial(self._repeated, partial(self._publish, records, consumed)))

    async def close(self) -> None:
        """Give up a publication that is still being repeated, and end the thread."""
        self._ending.set()
        self._membership.leave()
        self._worker.end()

    def _change_over(self) -> None:
        """Between two transactions, to a producer with other files; the next one repeats what
        fails here.
        """
        if self._producer is None:
            return
        try:
            self._ready()
        except (KafkaException, NocturneError) as fault:
            log.warning("kafka_transaction", error=_cause(fault), attempt=0)

    def _ready(self) -> Producer:
        if (files := self._membership.files) != self._config.files:
            self._config = self._config.remade(files)
            # No transaction is open. The new one's first act fences it, should it live on.
            self._producer = None
        if self._producer is None:
            # The password as it is now: it may have been changed since the last one.
            self._config = self._config.remade(files)
            producer = Producer(
                {
                    **self._config,
                    "transactional.id": self._transactional_id,
                    "transaction.timeout.ms": int(TRANSACTION_SECONDS_MAX * 1000),
                    "error_cb": self._on_error,
                }
            )
            try:
                producer.init_transactions(TRANSACTION_SECONDS_MAX)
            finally:
                # Its callbacks are called by nobody else.
                producer.poll(0)
            self._producer = producer
            self._doorkeeper.let_in()
        return self._producer

    def _on_error(self, error: KafkaError) -> None:
        _log_error(error)
        self._doorkeeper.heard(error)

    def _repeated(self, step: Callable[[], object]) -> None:
        for attempt in range(TRANSACTION_ATTEMPTS_MAX):
            try:
                step()
                return
            except KafkaException as fault:
                log.warning("kafka_transaction", error=_cause(fault), attempt=attempt)
                self._after(fault)
                self._doorkeeper.check(0)
                last = fault
            if self._ending.wait(_backoff(attempt)):
                break
        raise Unavailable(f"Kafka transaction: {_cause(last)}") from last

    def _publish(self, records: Sequence[ProducedRecord], consumed: Consumed | None) -> None:
        producer = self._ready()
        producer.begin_transaction()
        for record in records:
            self._produce(producer, record)
        if consumed is not None:
            offsets = [TopicPartition(t, p, offset) for (t, p), offset in consumed.offsets.items()]
            producer.send_offsets_to_transaction(
                offsets, consumed.group_metadata, TRANSACTION_SECONDS_MAX
            )
        producer.commit_transaction(TRANSACTION_SECONDS_MAX)

    def _produce(self, producer: Producer, record: ProducedRecord) -> None:
        deadline = time.monotonic() + DELIVERY_SECONDS_MAX
        while True:
            try:
                producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    record.partition,
                    headers=cast("Any", record.headers),
                )
            except BufferError as fault:
                if time.monotonic() > deadline:
                    raise KafkaException(KafkaError(KafkaError._QUEUE_FULL)) from fault
                producer.poll(0.01)
            else:
                return

    def _after(self, fault: KafkaException) -> None:
        """Make sure that no transaction is open: abort it, or let the producer go."""
        producer, error = self._producer, fault.args[0]
        self._producer = None
        if producer is not None:
            producer.poll(0)
        if producer is None or not error.txn_requires_abort():
            # Fatal, or of unknown end: the next producer's first act fences this one.
            if producer is not None:
                producer.purge()
            return
        try:
            producer.abort_transaction(TRANSACTION_SECONDS_MAX)
        except KafkaException as second:
            log.warning("kafka_abort", error=_cause(second))
            producer.purge()
        else:
            self._producer = producer
