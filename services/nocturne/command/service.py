"""The command service's shell: publishes commands, follows their outcomes, answers callers.

Rules: docs/spec/services.md, command. What decides is in `admission`, `limits` and `outcomes`; gRPC
is met in `servicer`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, Protocol

import structlog
from confluent_kafka import Message
from google.rpc import code_pb2
from pydantic import Field

from nocturne.command import replies, store
from nocturne.command.admission import Admitted, admit
from nocturne.command.changes import Changes
from nocturne.command.limits import (
    REFUSAL_TOKENS,
    Counted,
    RateLimits,
    Sent,
    SessionCounts,
    is_punished,
    principal_of,
)
from nocturne.command.outbox import Outbox
from nocturne.command.outcomes import PENDING_MAX, Level, Outcome, OutcomeTable, Pending
from nocturne.command.progress import Progress
from nocturne.command.replies import Refused
from nocturne.core.block_intake import BlockIntake, CheckedBlock
from nocturne.core.blocks import decode_seal
from nocturne.core.errors import Malformed, NocturneError
from nocturne.core.identifiers import Hash, format_hash, format_id
from nocturne.core.log_epochs import openings_of
from nocturne.core.modes import DegradedFound
from nocturne.core.receipts import decode_receipt, reason_of
from nocturne.core.topics import (
    BLOCKS,
    COMMANDS,
    RECEIPTS,
    SEALS,
    cloud_event_headers,
    frame,
    partition_of,
    unframe,
)
from nocturne.runtime.degraded import LedgerMode
from nocturne.runtime.kafka import (
    AckedProducer,
    BatchConsumer,
    Delivery,
    ProducedRecord,
    Start,
    Undelivered,
    consumer_config,
    headers_of,
    partition_count,
    producer_config,
    topic_settings,
    watermarks,
)
from nocturne.runtime.rpc import RpcServer
from nocturne.runtime.settings import Founding, KafkaSettings
from nocturne.runtime.spans import OFF, TRACED_PER_BATCH_MAX, Span, Tracer
from nocturne.runtime.telemetry import Metrics
from nocturne.runtime.tracing import (
    HEADER,
    RANDOM_BYTES,
    is_sampled,
    make_traceparent,
    trace_id_of,
    unsampled,
)

CONSUMER_GROUP: Final = "nocturne-command"
BLOCKS_BEFORE: Final = 64
"""Blocks read from before the start: they hold the first outcomes of commands repeated soon."""
SIGNATURES_BEFORE: Final = 1024
"""Seals and receipts (per partition) read from before the start: further back than blocks."""
BLOCK_BATCH_MAX: Final = 8
"""Blocks of one hand-over; a block can have 12 MiB."""
WATCH_SECONDS: Final = 0.5
INVALID_LOG_SECONDS: Final = 1.0
"""Between two lines on records of strangers in one topic, who could fill the disk with them; the
counter counts them all.
"""
EXPIRY_SECONDS: Final = 0.05
OLDEST_SECONDS: Final = 1.0
"""How often the oldest pending command is looked for, among all of them."""
KEEP_SECONDS: Final = 10.0
"""Between two writings of the counts of sessions: after a crash so much of blocks is read again."""

log = structlog.get_logger()


class CommandSettings(KafkaSettings):
    """Settings of the command service."""

    durability: Literal["flushed", "replicated"] = "flushed"
    """How the log keeps what is accepted; checked against the topic's own settings at the start."""
    deadline_ms: int = 20_000
    """How long a caller waits who names no deadline."""
    deadline_ms_max: int = 120_000
    rate_per_second: float = Field(20_000.0, ge=0, allow_inf_nan=False)
    """Tokens a second for one principal: a command costs one, a refused one ten; 0: any number.
    The default is more than the service admits, so that refusals alone are felt: 2 000 a second.
    """
    rate_burst: float = Field(100_000.0, ge=0, allow_inf_nan=False)
    sessions_per_author_max: int = Field(100_000, ge=0)
    """Sessions that one author may open; 0: any number."""


class Caller(Protocol):
    """Who waits for the outcome of a command; `correlation` is the caller's own number."""

    def answer(self, correlation: int, outcome: Outcome) -> None:
        """The outcome, at the level asked for or at the deadline."""

    def refuse(self, correlation: int, refused: Refused) -> None:
        """It did not become a command, or the log did not take it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Commands that a caller sent together: (correlation, signed command in Avro)."""

    commands: Sequence[tuple[int, bytes]]
    wait: Level
    seconds: float
    with_proof: bool
    traceparent: bytes | None


class Traced:
    """The span of a command whose trace is recorded, and when the log was given it and had it."""

    __slots__ = ("logged_ns", "published_ns", "span")

    def __init__(self, span: Span) -> None:
        self.span = span
        self.published_ns = 0
        self.logged_ns = 0

    def logged(self, position: tuple[int, int]) -> None:
        """The log has the command."""
        self.logged_ns = time.time_ns()
        self.span.child(
            "command.publish",
            self.published_ns,
            self.logged_ns,
            {"nocturne.partition": position[0], "nocturne.offset": position[1]},
        )

    def answered(self, outcome: Outcome) -> None:
        """The caller has its answer."""
        now = time.time_ns()
        if self.logged_ns:
            self.span.child("command.wait", self.logged_ns, now)
        told: dict[str, str | int | bool] = {"nocturne.level": outcome.level.name.lower()}
        if outcome.decision is not None:
            told["nocturne.height"] = outcome.decision.block.height
            told["nocturne.outcome"] = outcome_name(outcome)
        self.span.set(told)
        self.span.end(ended_ns=now)


Tag = tuple[Caller, int, float, str, Traced | None]
"""Of a pending command: its caller, the caller's number, when it came, its principal, its span."""


def outcome_name(outcome: Outcome) -> str:
    """In metrics and traces: `events`, the reason of a receipt, or `undecided`."""
    if outcome.repeated:
        return "repeated"
    if outcome.decision is None:
        return "undecided"
    if outcome.decision.receipt is None:
        return "events"
    return reason_of(outcome.decision.receipt).name.lower()


class Counters:
    """What the service counts."""

    def __init__(self, metrics: Metrics, pending: Callable[[], float]) -> None:
        self.published = metrics.counter("commands_published", "Commands given to Kafka")
        refused = metrics.counter(
            "commands_refused", "Refused at admission, by google.rpc code", ["code"]
        )
        self.refused = {code: refused.labels(name) for name, code in code_pb2.Code.items()}
        self.answered = metrics.counter(
            "commands_answered",
            "Answered, by the level reached and by the outcome: events, undecided, or the reason "
            "of the receipt",
            ["level", "outcome"],
        )
        self.expired = metrics.counter("commands_expired", "Answered at their deadline")
        self.invalid = metrics.counter(
            "records_invalid", "Skipped as not their writer's", ["topic"]
        )
        for topic in (BLOCKS, SEALS, RECEIPTS):
            self.invalid.labels(topic)
        metrics.gauge("commands_pending", "Waiting for their outcome").set_function(pending)
        self.oldest = metrics.gauge(
            "oldest_pending_seconds", "How long the oldest command waits for its outcome"
        )
        self.stalled = metrics.gauge(
            "uncertified_seconds", "How long the log has waited for a block over its commands"
        )
        self.lag = metrics.gauge("lag_blocks", "Blocks in the topic and not yet taken")
        self.seconds = metrics.histogram("outcome_seconds", "From admission to the answer")


class Commands:
    """Takes commands in, publishes them, and calls their callers back. Lives in the event loop."""

    def __init__(
        self,
        founding: Founding,
        producer: AckedProducer,
        schema_id: int,
        limits: RateLimits,
        sessions: SessionCounts,
        metrics: Metrics,
        mode: LedgerMode,
        tracer: Tracer = OFF,
    ) -> None:
        genesis = founding.genesis
        self._source = f"nocturne:{format_hash(founding.ledger_id)}"
        self._producer = producer
        self.mode = mode
        self._tracer = tracer
        self._schema_id = schema_id
        self._limits = limits
        self.sessions = sessions
        self._sent = Sent()
        # Of each partition, the first offset that no block has covered.
        self._decided_to = [0] * genesis.partitions
        self._partitions = genesis.partitions
        self._outboxes = [Outbox(producer, self._delivered) for _ in range(genesis.partitions)]
        self._unlogged = 0
        self._progress = Progress()
        self._record_bytes_max = genesis.limits.record_bytes_max
        self.table = OutcomeTable(founding.ledger_id, genesis.authority)
        self.counters = Counters(metrics, lambda: len(self.table))

    def submit(self, caller: Caller, sender: str, batch: Batch) -> list[Pending]:
        """Publish what is a command of `batch`; the caller is called back for each, at once or
        later. Returns those that wait.
        """
        now = time.monotonic()
        if self.mode.kept is not None:
            self._refuse_all(caller, batch, replies.degraded(self.mode.kept))
            return []
        principal = principal_of(sender)
        wait = self._limits.take(principal, len(batch.commands), now)
        if wait > 0:
            self._refuse_all(caller, batch, replies.over_rate(wait))
            return []
        if not self._producer.reachable:
            self._refuse_all(caller, batch, replies.away("no broker answers"))
            return []
        if self._is_stalled(now):
            self._refuse_all(caller, batch, replies.stalled(self._progress.waiting_seconds(now)))
            return []
        plain = batch.traceparent or make_traceparent(os.urandom(RANDOM_BYTES))
        spans_left = 0
        if self._tracer.on:
            # Those of this batch that get no span of their own are recorded by nobody after.
            plain = unsampled(plain)
            spans_left = TRACED_PER_BATCH_MAX
            if is_sampled(batch.traceparent):
                self._tracer.dropped(len(batch.commands) - spans_left)
        touched: set[Outbox] = set()
        waiting: list[Pending] = []
        for correlation, data in batch.commands:
            traced, traceparent = None, plain
            if spans_left:
                span = self._tracer.begin("command.submit", batch.traceparent, "SERVER")
                if span is not None:
                    spans_left -= 1
                    traced, traceparent = Traced(span), span.traceparent
            try:
                admitted = admit(data, self._record_bytes_max)
            except Malformed as fault:
                self._refuse(caller, correlation, replies.malformed(str(fault)), traced)
                continue
            if admitted.opener is not None and self._is_over(admitted.opener, admitted):
                refused = replies.sessions_spent(self.sessions.per_author_max)
                self._refuse(caller, correlation, refused, traced)
                continue
            tag = (caller, correlation, now, principal, traced)
            pending = self._register(admitted.command_hash, tag, batch, now)
            if pending is None:
                self._refuse(caller, correlation, replies.full(len(self.table)), traced)
                continue
            if traced is not None:
                _describe(traced, admitted)
            record = self._record(admitted, data, traceparent)
            outbox = self._outboxes[record.partition]
            outbox.put(record, pending)
            self._unlogged += 1
            touched.add(outbox)
            waiting.append(pending)
        self.counters.published.inc(len(waiting))
        for outbox in touched:
            outbox.flush()
        return waiting

    def _is_stalled(self, now: float) -> bool:
        """Whether too few validators certify; it is the ledger's mode while it lasts."""
        stalled = self._progress.is_stalled(now)
        seconds = self._progress.waiting_seconds(now)
        self.mode.want_of_a_quorum(
            f"nothing has been certified for {seconds:.0f} s, though commands wait"
            if stalled
            else None
        )
        return stalled

    def _register(self, command_hash: Hash, tag: Tag, batch: Batch, now: float) -> Pending | None:
        """A place among the pending; None when there is none, or too many are not yet in the log:
        the answers to those may have been given at their deadlines.
        """
        if self._unlogged >= PENDING_MAX:
            return None
        deadline = now + batch.seconds
        return self.table.register(command_hash, batch.wait, deadline, tag, batch.with_proof)

    def _is_over(self, opener: bytes, admitted: Admitted) -> bool:
        """Whether it opens a session for an author who has its number; not when it is the
        repetition of a command whose outcome is known.
        """
        return self.sessions.is_full(opener) and not self.table.knows(admitted.command_hash)

    def _record(self, admitted: Admitted, data: bytes, traceparent: bytes) -> ProducedRecord:
        session = admitted.session
        headers = cloud_event_headers(
            COMMANDS,
            format_id(admitted.command_id),
            self._source,
            session.decode("ascii"),
            traceparent,
        )
        partition = partition_of(session, self._partitions)
        value = frame(self._schema_id, data)
        return ProducedRecord(COMMANDS, partition, session, value, headers)

    def answer(self, answered: Iterable[Pending]) -> None:
        """Call back whoever waits for these."""
        now = time.monotonic()
        counts: dict[tuple[Level, str], int] = {}
        for pending in answered:
            caller, correlation, since, _, traced = pending.tag
            outcome = pending.outcome()
            counted = (outcome.level, outcome_name(outcome))
            counts[counted] = counts.get(counted, 0) + 1
            self.counters.seconds.observe(now - since)
            caller.answer(correlation, outcome)
            if traced is not None:
                traced.answered(outcome)
        for (level, name), count in counts.items():
            self.counters.answered.labels(level.name.lower(), name).inc(count)

    def forget(self, waiting: Iterable[Pending]) -> None:
        """Their caller has gone."""
        for pending in waiting:
            traced = pending.tag[4]
            if traced is not None and not pending.done:
                traced.span.end("the caller has gone")
            self.table.forget(pending)

    def forget_caller(self, caller: Caller) -> None:
        """The caller has gone with whatever it still waits for."""
        self.forget(self.table.find(lambda tag: tag[0] is caller))

    async def expire(self) -> None:
        """Answer at deadlines, for as long as the service runs."""
        look_at = 0.0
        while True:
            await asyncio.sleep(EXPIRY_SECONDS)
            if time.monotonic() >= look_at:
                look_at = time.monotonic() + OLDEST_SECONDS
                self.counters.oldest.set(self._oldest_seconds())
                self._is_stalled(time.monotonic())
                self.counters.stalled.set(self._progress.waiting_seconds(time.monotonic()))
            expired = self.table.expire(time.monotonic())
            if expired:
                self.counters.expired.inc(len(expired))
                self.answer(expired)

    def _oldest_seconds(self) -> float:
        now = time.monotonic()
        waiting = self.table.find(lambda _: True)
        return max((now - one.tag[2] for one in waiting), default=0.0)

    def _delivered(self, waiting: Sequence[Pending], deliveries: Sequence[Delivery]) -> None:
        self._unlogged -= len(waiting)
        placed = []
        for pending, delivery in zip(waiting, deliveries, strict=True):
            if isinstance(delivery, Undelivered):
                if not pending.done:
                    self.table.forget(pending)
                    caller, correlation, _, _, traced = pending.tag
                    self._refuse(caller, correlation, replies.away(delivery.cause), traced)
                continue
            if pending.tag[4] is not None and not pending.done:
                pending.tag[4].logged(delivery)
            if delivery[1] >= 0:
                self._progress.logged(*delivery, time.monotonic())
            if self._limits.limited:
                self._note_sent(pending, *delivery)
            if self.table.placed(pending, *delivery):
                placed.append(pending)
        self.answer(placed)

    def take_block(self, checked: CheckedBlock) -> list[Pending]:
        """Those answered by a committed block; what it refuses and opens is counted."""
        self.sessions.take(checked)
        now = time.monotonic()
        for one in checked.block.header.ranges:
            self._decided_to[one.partition] = one.end
            self._progress.decided(one.partition, one.end, now)
        for principal, refusals in self._sent.refused(checked).items():
            self._limits.charge(principal, refusals * (REFUSAL_TOKENS - 1), now)
        for opening in openings_of(checked.block.control):
            # Whatever waited for the lost log would seem to wait for ever.
            self._decided_to[opening.partition] = opening.start
            self._progress.reopened(opening.partition, opening.start)
            self._sent.reopened(opening.partition)
        self._is_stalled(now)
        return self.table.block(checked)

    def _note_sent(self, pending: Pending, partition: int, offset: int) -> None:
        """Remember whom to charge, or charge at once when the block was faster than the report."""
        principal = pending.tag[3]
        if offset >= self._decided_to[partition]:
            self._sent.note(partition, offset, principal)
            return
        decision = self.table.decided(partition, offset)
        if decision is not None and is_punished(decision.receipt):
            self._limits.charge(principal, REFUSAL_TOKENS - 1, time.monotonic())

    def _refuse(
        self, caller: Caller, correlation: int, refused: Refused, traced: Traced | None = None
    ) -> None:
        self.counters.refused[refused.code].inc()
        if traced is not None:
            traced.span.end(refused.message)
        caller.refuse(correlation, refused)

    def _refuse_all(self, caller: Caller, batch: Batch, refused: Refused) -> None:
        for correlation, _ in batch.commands:
            self._refuse(caller, correlation, refused)


def _describe(traced: Traced, admitted: Admitted) -> None:
    traced.published_ns = time.time_ns()
    traced.span.set(
        {
            "nocturne.session": admitted.session.decode("ascii"),
            "nocturne.command_id": format_id(admitted.command_id),
            "nocturne.command_hash": format_hash(admitted.command_hash),
        }
    )


class Follower:
    """Follows blocks, seals and receipts from near their ends, for `Commands` to answer."""

    def __init__(
        self,
        founding: Founding,
        settings: CommandSettings,
        commands: Commands,
        counted: Counted | None,
    ) -> None:
        self._commands = commands
        self._home = settings.home_dir
        self._ledger_id = founding.ledger_id
        self._cluster = settings.cluster
        self._counted = counted
        sets = founding.genesis.founding_sets
        if counted is not None:
            sets = sets.decoded(counted.sets)
            commands.table.changes = Changes.decoded(counted.changes)
        self._intake = BlockIntake(founding.ledger_id, sets, None)
        self._partitions = founding.genesis.partitions
        self._blocks: BatchConsumer | None = None
        self._first_end = 0
        self._taken_to = 0
        """The offset after the last record of blocks that was looked at, whatever it was."""
        self._kept_to = 0 if counted is None else counted.height

    def following(self) -> bool:
        """Whether the blocks that were there at the start have been read."""
        return self._blocks is not None and (self._blocks.next_offset(BLOCKS, 0) >= self._first_end)

    def lag(self) -> int:
        """Blocks in the topic and not yet taken."""
        return 0 if self._blocks is None else self._blocks.lag()

    async def follow(self) -> None:
        """Follow all three until the ledger is found DEGRADED: then nothing more of it is believed
        here, and callers are told why.
        """
        mode = self._commands.mode
        if mode.kept is not None:
            return
        parts = [
            asyncio.ensure_future(one)
            for one in (self.follow_blocks(), self.follow_seals(), self.follow_receipts())
        ]
        try:
            await asyncio.gather(*parts)
        except DegradedFound as found:
            mode.keep(found.degraded)
        finally:
            for one in parts:
                one.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    async def follow_blocks(self) -> None:
        """Take committed blocks, for as long as the service runs."""
        near, self._first_end = await self._start(BLOCKS, 0, BLOCKS_BEFORE)
        start = replace(near, offset=min(near.offset, await self._counted_to()))
        while True:
            self._taken_to = start.offset
            blocks = self._blocks = self._consumer([start], BLOCK_BATCH_MAX)
            await self._follow(blocks, BLOCKS, self._take_block, 1, self._must_read_again)
            again_from = self._intake.read_again_from
            assert again_from is not None
            log.warning("records_read_again", topic=BLOCKS, offset=again_from)
            self._intake.read_again(again_from)
            start = Start(BLOCKS, 0, again_from)

    def _must_read_again(self) -> bool:
        return self._intake.read_again_from is not None

    async def _counted_to(self) -> int:
        """The offset of the blocks topic from which sessions are not counted yet."""
        low, high = await asyncio.to_thread(watermarks, self._cluster, BLOCKS, 0)
        if self._counted is None or not low <= self._counted.offset <= high:
            log.info("sessions_counted_anew", blocks_offset=low)
            return low
        return self._counted.offset

    async def keep_counts(self) -> None:
        """Keep the counts of sessions, for as long as the service runs."""
        while True:
            await asyncio.sleep(KEEP_SECONDS)
            await self.keep_now()

    async def keep_now(self) -> None:
        """Keep the counts as they are, and where blocks that are not counted begin. Not any more
        once the ledger is DEGRADED: whoever ends that has the same records read again.
        """
        sessions = self._commands.sessions
        if sessions.height > self._kept_to and self._commands.mode.kept is None:
            self._kept_to = sessions.height
            counted = replace(
                sessions.counted(self._intake.low_water(self._taken_to)),
                sets=self._intake.sets.encode(),
                changes=self._commands.table.changes.encode(),
            )
            await asyncio.to_thread(store.save, self._home, self._ledger_id, counted)

    async def follow_seals(self) -> None:
        """Take the authority's seals."""
        start, _ = await self._start(SEALS, 0, SIGNATURES_BEFORE)
        await self._follow(self._consumer([start]), SEALS, self._take_seal)

    async def follow_receipts(self) -> None:
        """Take signed receipts."""
        starts = [
            (await self._start(RECEIPTS, partition, SIGNATURES_BEFORE))[0]
            for partition in range(self._partitions)
        ]
        await self._follow(self._consumer(starts), RECEIPTS, self._take_receipt)

    async def _start(self, topic: str, partition: int, before: int) -> tuple[Start, int]:
        low, high = await asyncio.to_thread(watermarks, self._cluster, topic, partition)
        return Start(topic, partition, max(low, high - before)), high

    def _consumer(self, starts: Sequence[Start], batch_records_max: int = 512) -> BatchConsumer:
        # Not only committed ones: every record proves itself, the authority repeats what a
        # transaction of its own did not commit, and one that a stranger leaves open would hide all
        # that follow it.
        config = consumer_config(self._cluster, CONSUMER_GROUP, isolation_level="read_uncommitted")
        return BatchConsumer(config, starts, batch_records_max=batch_records_max)

    async def _follow(
        self,
        consumer: BatchConsumer,
        topic: str,
        take: Callable[[Message], Iterable[Pending]],
        pause_every: int = 64,
        is_done: Callable[[], bool] = lambda: False,
    ) -> None:
        """Until `is_done` after a record."""
        invalid = self._commands.counters.invalid.labels(topic)
        silent_until = 0.0
        try:
            while True:
                for number, message in enumerate(await consumer.batch(), start=1):
                    try:
                        self._commands.answer(take(message))
                    except Malformed as fault:
                        invalid.inc()
                        if time.monotonic() >= silent_until:
                            _log_invalid(message, fault)
                            silent_until = time.monotonic() + INVALID_LOG_SECONDS
                    if is_done():
                        return
                    # A block is long work, and so are many signatures: let callers be heard.
                    if number % pause_every == 0:
                        await asyncio.sleep(0)
        finally:
            await consumer.close()

    def _take_block(self, message: Message) -> list[Pending]:
        offset = message.offset() or 0
        self._taken_to = offset + 1
        answered: list[Pending] = []
        for checked in self._intake.offer(message.value(), offset):
            self._commands.table.changes.take(checked, self._intake.sets)
            answered += self._commands.take_block(checked)
        return answered

    def _take_seal(self, message: Message) -> list[Pending]:
        return self._commands.table.seal(decode_seal(unframe(message.value())))

    def _take_receipt(self, message: Message) -> list[Pending]:
        return self._commands.table.receipt(decode_receipt(unframe(message.value())))


def _log_invalid(message: Message, fault: Malformed) -> None:
    log.warning(
        "record_invalid",
        topic=message.topic(),
        partition=message.partition(),
        offset=message.offset(),
        cause=str(fault),
        **_trace_of(message),
    )


def _trace_of(message: Message) -> dict[str, str]:
    """For a log line: the trace that the record says it belongs to."""
    for name, value in headers_of(message) or ():
        if name == HEADER and (found := trace_id_of(value)) is not None:
            return {"trace_id": found}
    return {}


async def watch(
    server: RpcServer, producer: AckedProducer, follower: Follower, mode: LedgerMode
) -> None:
    """Say SERVING while Kafka answers and blocks are followed, for as long as the service runs; and
    while the ledger is DEGRADED for good, for then every caller is to hear why. `Unavailable` when
    the producer cannot be used any more.
    """
    serving = False
    while mode.kept is None:
        producer.check()
        if not producer.reachable:
            await asyncio.to_thread(producer.probe)
        now_serving = producer.reachable and follower.following()
        if now_serving != serving:
            serving = now_serving
            log.info("serving" if serving else "not_serving", reachable=producer.reachable)
            why = "blocks are not followed" if producer.reachable else "no broker answers"
            await server.set_serving(serving, "" if serving else why)
        await asyncio.sleep(WATCH_SECONDS)
    await server.set_serving(True, mode.kept.sentence)


def check_topic(settings: CommandSettings, founding: Founding) -> None:
    """`NocturneError` unless the commands topic is the ledger's and as durable as is said. Blocks.

    The answer names the durability, so that it must be true.
    """
    cluster = settings.cluster
    found = partition_count(cluster, COMMANDS)
    expected = founding.genesis.partitions
    if found != expected:
        raise NocturneError(f"topic {COMMANDS}: expected {expected} partitions, got {found}")
    topic = topic_settings(cluster, COMMANDS)
    replicas_min, flush = int(topic["min.insync.replicas"]), int(topic["flush.messages"])
    if settings.durability == "replicated" and replicas_min < 2:
        raise NocturneError(
            f"topic {COMMANDS}: durability replicated needs min.insync.replicas of 2 or more, "
            f"got {replicas_min}"
        )
    if settings.durability == "flushed" and flush != 1:
        raise NocturneError(
            f"topic {COMMANDS}: durability flushed needs flush.messages of 1, got {flush}"
        )


def producer_for(settings: CommandSettings) -> AckedProducer:
    """The producer of the commands topic: idempotent, never transactional."""
    return AckedProducer(producer_config(settings.cluster))
