"""The four topics that a read model is made of, read side by side into a chain and a collector.

Rules: docs/spec/services.md, projection. The projection reads them from where the read model
stands, a rebuild from their beginning; what becomes whole is taken from `collector`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import structlog
from confluent_kafka import Message

from nocturne.core import topics
from nocturne.core.blocks import Block
from nocturne.core.identifiers import Hash
from nocturne.projection.chain import Chain
from nocturne.projection.collector import Collector, SignatureRecord, low_waters
from nocturne.projection.fold import FirstState
from nocturne.projection.store import Standing
from nocturne.runtime.cluster import Cluster
from nocturne.runtime.kafka import BatchConsumer, Start, consumer_config, headers_of

TOPICS: Final = (topics.BLOCKS, topics.SEALS, topics.EVENTS, topics.RECEIPTS)
CONSUMER_GROUP: Final = "nocturne-projection"
REBUILD_GROUP: Final = "nocturne-rebuild"
HEIGHT_HEADER: Final = "nocturne-height"
ID_HEADER: Final = "ce_id"
TICK_SECONDS: Final = 0.25
"""Records of a block that is not read are judged after two ticks."""
JUDGED_PER_TICK_MAX: Final = 256
"""About 60 ms of verifying."""
CAUGHT_UP_BLOCKS: Final = 64
"""With a longer backlog, records that came before their blocks are what is expected."""
BLOCKS_PER_BATCH: Final = 64

_HEIGHT: Final = re.compile(rb"[1-9][0-9]{0,15}\Z")

log = structlog.get_logger()


class Reading:
    """One run of the four consumers, from where a read model stands."""

    def __init__(
        self, cluster: Cluster, group: str, first_state: FirstState, standing: Standing
    ) -> None:
        genesis = first_state.genesis
        self._cluster = cluster
        self._group = group
        self._partitions = genesis.partitions
        self._start = dict(standing.offsets)
        self._chain = Chain(
            first_state.ledger_id,
            standing.sets,
            standing.height,
            Hash(standing.digest),
            standing.tree,
        )
        self.collector = Collector(first_state.ledger_id, genesis.authority, standing.height)
        self._consumers: dict[str, BatchConsumer] = {}
        self.changed = asyncio.Event()
        """Something was read, or there is room for more."""
        self.when_read: Callable[[Block], None] | None = None
        """Told of each block of the chain, in height order."""

    def open(self) -> None:
        """Begin to fetch."""
        for topic in TOPICS:
            self._consumers[topic] = self._consumer(topic)

    def parts(self) -> tuple[Coroutine[Any, Any, None], ...]:
        """What runs side by side until cancelled: it reads, and judges what waits for a block that
        does not come. `Halt` on contradictions in what is certified.
        """
        return (
            self._read_blocks(),
            self._read(topics.SEALS, self._take_seals, self.collector.wants_seals),
            self._read_signatures(topics.EVENTS),
            self._read_signatures(topics.RECEIPTS),
            self._judge(),
        )

    async def close(self) -> None:
        """Leave the broker."""
        await asyncio.gather(*(one.close() for one in self._consumers.values()))

    def lags(self) -> dict[str, int]:
        """Records known and not read, by topic."""
        return {topic: consumer.lag() for topic, consumer in self._consumers.items()}

    def following(self) -> dict[tuple[str, int], int]:
        """The offset after the last record read, by topic and partition."""
        return {
            (topic, partition): consumer.next_offset(topic, partition)
            for topic, consumer in self._consumers.items()
            for partition in partitions_of(topic, self._partitions)
        }

    def low_waters(self) -> list[tuple[str, int, int]]:
        """(topic, partition, first offset that a restart must read) as of what was taken."""
        following = [(*place, offset) for place, offset in self.following().items()]
        blocks = following.pop(0)
        low = self._chain.low_water(self.collector.taken, blocks[2])
        return [(topics.BLOCKS, 0, low), *low_waters(self.collector, following)]

    # Consuming ----------------------------------------------------------------------------------

    def _consumer(self, topic: str) -> BatchConsumer:
        starts = [
            Start(topic, partition, self._start.get((topic, partition), 0))
            for partition in partitions_of(topic, self._partitions)
        ]
        config = consumer_config(self._cluster, self._group)
        if topic == topics.BLOCKS:
            return BatchConsumer(config, starts, batch_records_max=BLOCKS_PER_BATCH)
        return BatchConsumer(config, starts)

    async def _read(
        self, topic: str, take: Callable[[Sequence[Message]], None], wants: Callable[[], bool]
    ) -> None:
        while True:
            await self._until(wants)
            take(await self._consumers[topic].batch())
            self.changed.set()

    async def _read_blocks(self) -> None:
        while True:
            await self._until(self.collector.wants_blocks)
            again_from = self._take_blocks(await self._consumers[topics.BLOCKS].batch())
            if again_from is not None:
                self._start[topics.BLOCKS, 0] = again_from
                await self._begin_again(topics.BLOCKS)
                # Not before: until then the low water is below what the old consumer delivered.
                self._chain.read_again(again_from)
            self.changed.set()

    async def _read_signatures(self, topic: str) -> None:
        while True:
            await self._until(lambda: self.collector.wants(topic))
            if self.collector.shed(topic):
                await self._reread(topic)
            self._take_signatures(topic, await self._consumers[topic].batch())
            self.changed.set()

    async def _reread(self, topic: str) -> None:
        """Begin again where records were let go for want of room."""
        consumer = self._consumers[topic]
        for partition in partitions_of(topic, self._partitions):
            self._start[topic, partition] = self.collector.low_water(
                topic, partition, consumer.next_offset(topic, partition)
            )
        self.collector.reread(topic)
        await self._begin_again(topic)

    async def _begin_again(self, topic: str) -> None:
        log.warning("records_read_again", topic=topic)
        await self._consumers[topic].close()
        self._consumers[topic] = self._consumer(topic)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.changed.clear()
            await self.changed.wait()

    def _take_blocks(self, messages: Sequence[Message]) -> int | None:
        """The offset to read on from, if it is not the one after them."""
        for message in messages:
            offset = message.offset()
            assert offset is not None
            folded, refused = self._chain.offer(offset, message.value())
            if refused is not None:
                log.warning("block_refused", offset=offset, cause=refused)
                self.collector.refuse(topics.BLOCKS, 0, offset)
            for block in folded:
                self.collector.offer_block(block)
                if self.when_read is not None:
                    self.when_read(block.block)
            if (again_from := self._chain.read_again_from) is not None:
                return again_from
        return None

    def _take_seals(self, messages: Sequence[Message]) -> None:
        for message in messages:
            offset = message.offset()
            assert offset is not None
            self.collector.offer_seal(0, offset, message.value())

    def _take_signatures(self, topic: str, messages: Sequence[Message]) -> None:
        offer = self.collector.offer
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
                self.collector.refuse(topic, partition, offset)
            else:
                offer(SignatureRecord(topic, partition, offset, record_id, int(height), value))

    async def _judge(self) -> None:
        read = self._chain.height
        while True:
            await asyncio.sleep(TICK_SECONDS)
            idle, read = read == self._chain.height, self._chain.height
            if idle or self._consumers[topics.BLOCKS].lag() <= CAUGHT_UP_BLOCKS:
                self.collector.judge(JUDGED_PER_TICK_MAX)
                self.changed.set()


def partitions_of(topic: str, partitions: int) -> range:
    """The partitions of a topic of a ledger with this many."""
    return range(1 if topic in (topics.BLOCKS, topics.SEALS) else partitions)
