"""The blocks topic: publishing what it lacks, and reading what others publish there.

Rules: docs/spec/consensus.md, publishing. What is decided is in `published`.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from nocturne.consensus.commands_log import offset_of
from nocturne.consensus.measures import Measures
from nocturne.consensus.published import UNPUBLISHED_MAX, Found, Published, Topic, TopicCheck
from nocturne.consensus.replica import Publish
from nocturne.consensus.store import Recovered
from nocturne.consensus.traces import BlockTraces
from nocturne.core import topics
from nocturne.core.blocks import Block
from nocturne.core.errors import Halt, Unavailable
from nocturne.core.evidence import Evidence, Pieces, encode_evidence, name_of
from nocturne.core.identifiers import format_hash
from nocturne.runtime import kafka
from nocturne.runtime.clock import now_ms
from nocturne.runtime.cluster import Cluster
from nocturne.runtime.kafka import (
    AckedProducer,
    BatchConsumer,
    Delivery,
    ProducedRecord,
    Start,
    Undelivered,
)
from nocturne.runtime.settings import Founding

REPUBLISH_BLOCKS: Final = 64
FOLLOW_RECORDS_MAX: Final = 16
EVIDENCE_WAITING_MAX: Final = 1_024
"""Pieces that the topic has not taken yet; past them the oldest goes."""
EVIDENCE_AGAIN_SECONDS: Final = 1.0
FOLLOW_BACK: Final = 64
"""Records before the newest published one that are read again: blocks may stand out of order."""
CONSUMER_GROUP: Final = "nocturne-consensus"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Publishing:
    """A committed block on its way to the topic: since when its first record is here (monotonic
    seconds), and its records whose traces are recorded.
    """

    publish: Publish
    since: float
    traces: BlockTraces | None


@dataclass(frozen=True, slots=True)
class _Sent:
    height: int
    delivery: asyncio.Future[list[Delivery]]


class Publisher:
    """The shell of `Topic`."""

    def __init__(
        self,
        cluster: Cluster,
        founding: Founding,
        schema_ids: Mapping[str, int],
        measures: Measures,
        on_published: Callable[[Block], None],
    ) -> None:
        """`on_published` is called with each block of this process that the topic has."""
        self._cluster = cluster
        self._founding = founding
        self._schema_ids = schema_ids
        self._measures = measures
        self._on_published = on_published
        self._source = f"nocturne:{format_hash(founding.ledger_id)}"
        self._producer = AckedProducer(kafka.producer_config(cluster, linger_ms=0))
        self._sent: asyncio.Queue[_Sent] = asyncio.Queue(UNPUBLISHED_MAX)
        self._publishing: dict[int, Publishing] = {}
        self._later: asyncio.TimerHandle | None = None
        self._pieces = Pieces()
        self._evidence: deque[Evidence] = deque(maxlen=EVIDENCE_WAITING_MAX)
        self._evidence_waits = asyncio.Event()
        self._start: Published | None = None

    @property
    def topic(self) -> Topic:
        """What the topic has, once it was read."""
        return self._topic

    async def begin(
        self, recovered: Recovered, missing: Callable[[int], Awaitable[list[tuple[int, bytes]]]]
    ) -> None:
        """Read the topic, and publish what it lacks; the journal's blocks may or may not have got
        there. `missing` gives those above a height, as `Store.blocks_after`.
        """
        published = await self._read_topic(recovered, recovered.published)
        height = 0 if published is None else published.height
        first = min(recovered.digests, default=1)
        if height + 1 < first:
            raise Halt(
                f"the topic {topics.BLOCKS} has the certified blocks up to {height} only, and the "
                f"journal begins with block {first}: put the topic back from a backup"
            )
        blocks = [] if height >= recovered.chain.tip.height else await missing(height)
        for start in range(0, len(blocks), REPUBLISH_BLOCKS):
            some = blocks[start : start + REPUBLISH_BLOCKS]
            placed = await self._producer.produce_batch(
                [self._record_of(number, encoded) for number, encoded in some]
            )
            published = Published(some[-1][0], placed[-1][1])
        if blocks:
            log.info("published_again", first=blocks[0][0], last=blocks[-1][0])
        self._measures.published.set(0 if published is None else published.height)
        self._start = published
        self._topic = Topic(
            self._founding.ledger_id,
            recovered.chain.sets,
            recovered.digests,
            published,
        )

    def take(self, publishing: Publishing) -> None:
        """The next committed block; it is durable."""
        publish = publishing.publish
        self._publishing[publish.made.block.header.height] = publishing
        self._topic.committed(publish.made, publish.rank, now_ms())

    def look(self) -> None:
        """Send what is to be published now, and look again when something else may be."""
        self._settle()
        for made in self._topic.due(now_ms()):
            height = made.block.header.height
            record = self._record_of(height, made.encoded)
            self._sent.put_nowait(_Sent(height, self._producer.deliver([record])))
        if self._later is not None:
            self._later.cancel()
            self._later = None
        due = self._topic.next_due
        if due is not None:
            wait = max(0.01, (due - now_ms()) / 1000)
            self._later = asyncio.get_running_loop().call_later(wait, self.look)

    async def confirm(self) -> None:
        """The broker's acknowledgements, for ever. `Unavailable` when one does not come."""
        while True:
            sent = await self._sent.get()
            (delivery,) = await sent.delivery
            if isinstance(delivery, Undelivered):
                # Started anew, this process looks for the block in the topic and publishes it.
                raise Unavailable(f"block {sent.height} was not acknowledged: {delivery.cause}")
            self._topic.acknowledged(sent.height, delivery[1])
            self.look()

    def show(self, evidence: Evidence) -> None:
        """Publish a piece of evidence, unless its place has one already."""
        if self._pieces.is_new(evidence):
            self._evidence.append(evidence)
            self._evidence_waits.set()

    async def publish_evidence(self) -> None:
        """What `show` was given, for ever. Where the topic does not take it, it is tried again:
        a liar is no reason to end.
        """
        while True:
            self._evidence_waits.clear()
            while self._evidence:
                evidence = self._evidence[0]
                (delivery,) = await self._producer.deliver([self._evidence_record(evidence)])
                if isinstance(delivery, Undelivered):
                    log.warning("evidence_not_published", cause=delivery.cause)
                    await asyncio.sleep(EVIDENCE_AGAIN_SECONDS)
                elif self._evidence and self._evidence[0] is evidence:
                    self._evidence.popleft()
            await self._evidence_waits.wait()

    async def follow(self, take: Callable[[Found], Awaitable[None]]) -> None:
        """Read the topic for ever: what others publish; and `take` what they committed and this
        validator has not.
        """
        low, _ = await asyncio.to_thread(kafka.watermarks, self._cluster, topics.BLOCKS, 0)
        start = low if self._start is None else max(low, self._start.offset - FOLLOW_BACK)
        consumer = self._consumer(start)
        try:
            while True:
                for message in await consumer.batch():
                    ignored = self._topic.ignored
                    found = self._topic.offer(offset_of(message), message.value())
                    self._measures.ignored.inc(self._topic.ignored - ignored)
                    if found is not None:
                        await take(found)
                self.look()
        finally:
            await consumer.close()

    async def close(self) -> None:
        """Let go of the broker."""
        if self._later is not None:
            self._later.cancel()
        await self._producer.close()

    def _settle(self) -> None:
        """Tell of what the topic has by now."""
        published = self._topic.published
        height = 0 if published is None else published.height
        for at in [at for at in self._publishing if at <= height]:
            one = self._publishing.pop(at)
            self._measures.block_seconds.observe(time.monotonic() - one.since)
            self._measures.published.set(at)
            if one.traces is not None:
                one.traces.published()
            self._on_published(one.publish.made.block)

    async def check_topic(self) -> None:
        """`Unavailable` when the broker lost published blocks: a start publishes them again."""
        published = self.topic.published
        if published is None:
            return
        _, end = await asyncio.to_thread(kafka.watermarks, self._cluster, topics.BLOCKS, 0)
        if end <= published.offset:
            raise Unavailable(
                f"the topic {topics.BLOCKS} ends at offset {end}, block {published.height} was "
                f"published at {published.offset}: what it lacks is published again at a start"
            )

    async def _read_topic(self, recovered: Recovered, known: Published | None) -> Published | None:
        low, high = await asyncio.to_thread(kafka.watermarks, self._cluster, topics.BLOCKS, 0)
        check = TopicCheck(
            self._founding.ledger_id,
            recovered.chain.sets,
            recovered.digests,
            recovered.chain.tip.height,
            known,
        )
        start = low if known is None else known.offset
        if low <= start < high:
            await self._offer(check, start, high)
        self._measures.ignored.inc(check.ignored)
        try:
            return check.newest()
        except LookupError as fault:
            log.warning("blocks_topic_changed", cause=str(fault))
            return await self._read_topic(recovered, None)

    async def _offer(self, check: TopicCheck, start: int, end: int) -> None:
        consumer = self._consumer(start)
        try:
            while consumer.next_offset(topics.BLOCKS, 0) < end:
                for message in await consumer.batch():
                    check.offer(offset_of(message), message.value())
        finally:
            await consumer.close()

    def _consumer(self, start: int) -> BatchConsumer:
        return BatchConsumer(
            kafka.consumer_config(self._cluster, CONSUMER_GROUP),
            [Start(topics.BLOCKS, 0, start)],
            batch_records_max=FOLLOW_RECORDS_MAX,
        )

    def _evidence_record(self, evidence: Evidence) -> ProducedRecord:
        name = name_of(evidence)
        topic = topics.EVIDENCE
        return ProducedRecord(
            topic,
            0,
            name.encode("ascii"),
            topics.frame(self._schema_ids[topic], encode_evidence(evidence)),
            topics.cloud_event_headers(topic, name, self._source, str(evidence.view), None),
        )

    def _record_of(self, height: int, encoded: bytes) -> ProducedRecord:
        number = str(height)
        return ProducedRecord(
            topics.BLOCKS,
            0,
            number.encode("ascii"),
            topics.frame(self._schema_ids[topics.BLOCKS], encoded),
            topics.cloud_event_headers(topics.BLOCKS, number, self._source, number, None),
        )
