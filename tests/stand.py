"""A ledger's writing half on a test stand: one founded home, a broker's topics made fresh, and the
validator and the signing service as processes of their own.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, cast

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from tests.machines import free_ports, until

from nocturne.core import topics
from nocturne.core.blocks import Block, decode_block, link_of, link_to
from nocturne.core.certificates import CommitProof, check_commit_proof
from nocturne.core.commands import (
    Command,
    EventDraft,
    Opening,
    Payload,
    encode_signed_command,
    payload_hash,
    sign_command,
)
from nocturne.core.errors import Malformed
from nocturne.core.genesis import Genesis, decode_genesis
from nocturne.core.identifiers import AuthorId, CommandId, Hash, SessionId, format_id
from nocturne.core.keys import Ed25519Signer, Signer, key_id
from nocturne.core.log_epochs import openings_of
from nocturne.deploy import topics as topics_job
from nocturne.embedded import ceremony
from nocturne.embedded.home import Home
from nocturne.embedded.processes import grpc_serves, launched
from nocturne.runtime.cluster import Cluster
from nocturne.runtime.kafka import (
    AckedProducer,
    BatchConsumer,
    ProducedRecord,
    Start,
    consumer_config,
    producer_config,
)

SECONDS_MAX = 30.0
Result = TypeVar("Result")
TRACEPARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def fresh_topics(bootstrap: str, partitions: int) -> None:
    """The ledger's topics, made anew: whatever was in them is gone."""
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    there: list[str] = [
        name for name in topics.TOPICS if name in admin.list_topics(timeout=10).topics
    ]
    for deleted in admin.delete_topics(there, operation_timeout=10).values() if there else ():
        deleted.result(10)

    def made() -> bool:
        # A topic that is being deleted cannot be made yet.
        try:
            topics_job.ensure(Cluster(bootstrap), topics_job.plan(partitions))
        except Exception:
            return False
        return True

    until(made, SECONDS_MAX, "the topics are made anew")


@dataclass
class Running:
    """A service's process."""

    process: subprocess.Popen[bytes]
    log: Path
    address: str

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(SECONDS_MAX)

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(SECONDS_MAX)

    def ended(self) -> int:
        """Wait for its own end; the exit code."""
        return self.process.wait(SECONDS_MAX)

    def said(self) -> str:
        return self.log.read_text()


@dataclass
class _Known:
    """What was read of a partition, and the offset to read on from."""

    following: int
    messages: list[Message]


@dataclass
class Stand:
    """One ledger on one broker."""

    folder: Path
    bootstrap: str
    partitions: int = 4
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        founded = ceremony.ensure(self.folder, 1)
        self.home = Home(self.folder)
        self.ledger_id = founded.ledger_id
        self.genesis_file = founded.genesis_file
        self.source = f"nocturne:sha256-{self.ledger_id.hex()}"
        self._running: list[Running] = []
        self._askers: dict[bool, Consumer] = {}
        self._known: dict[tuple[str, int, bool], _Known] = {}

    @property
    def cluster(self) -> Cluster:
        return Cluster(self.bootstrap)

    @property
    def genesis(self) -> Genesis:
        return decode_genesis(self.genesis_file.read_bytes())

    # Processes ----------------------------------------------------------------------------

    def start(
        self, service: str, *, healthy: bool = True, before: str = "", **environment: str
    ) -> Running:
        """One service; returns when it is healthy, unless it is not to be. `before` is Python that
        the process runs first: what breaks its machine. `environment` is laid over its settings.
        """
        name = {"consensus": ceremony.VALIDATOR}.get(service, service)
        key = {
            "consensus": ceremony.validator_key(self.home),
            "signing": ceremony.authority_key(self.home),
        }.get(service)
        port = free_ports(service)[service]
        log = self.folder / f"{service}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                launched([sys.executable, *_argv(service, before)]),
                env={
                    **os.environ,
                    "NOCTURNE_GENESIS_FILE": str(self.genesis_file),
                    "NOCTURNE_HOME_DIR": str(self.home.data(name)),
                    "NOCTURNE_LISTEN": f"127.0.0.1:{port}",
                    "NOCTURNE_KAFKA_BOOTSTRAP": self.bootstrap,
                    **({} if key is None else {"NOCTURNE_KEY_FILE": str(key)}),
                    **self.environment,
                    **environment,
                },
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        running = Running(process, log, f"127.0.0.1:{port}")
        self._running.append(running)
        if healthy:
            self.wait_healthy(service, running)
        return running

    def wait_healthy(self, service: str, running: Running) -> None:
        """Until a service that was started says that it serves."""
        until(
            lambda: grpc_serves(running.address) or running.process.poll() is not None,
            SECONDS_MAX,
            f"{service} is healthy",
        )
        assert running.process.poll() is None, running.said()

    def stop_all(self) -> None:
        for running in self._running:
            if running.process.poll() is None:
                running.kill()
        for asker in self._askers.values():
            asker.close()

    # Commands -----------------------------------------------------------------------------

    def submit(self, records: Sequence[ProducedRecord]) -> list[tuple[int, int]]:
        """Append to the commands topic; (partition, offset) of each."""
        return self.on_kafka(lambda: self._produce(records))

    async def _produce(self, records: Sequence[ProducedRecord]) -> list[tuple[int, int]]:
        producer = AckedProducer(producer_config(self.cluster))
        try:
            return await producer.produce_batch(records)
        finally:
            await producer.close()

    def command(
        self,
        author: Signer,
        session: str,
        number: int,
        *,
        expected: int | None = None,
        opening: Opening | None = None,
        events: int = 1,
    ) -> ProducedRecord:
        """A record with a signed command of the kind's own event type; ids rise with `number`."""
        payloads = tuple(
            Payload(os.urandom(32), b'{"number": %d, "event": %d}' % (number, index))
            for index in range(events)
        )
        command = Command(
            self.ledger_id,
            SessionId(session),
            AuthorId(key_id(author.key)),
            author.key,
            CommandId(number.to_bytes(16, "big")),
            expected,
            opening,
            1_700_000_000_000 + number,
            tuple(EventDraft("Seen", "application/json", payload_hash(p)) for p in payloads),
        )
        signed = sign_command(command, payloads, author)
        key = session.encode("ascii")
        return ProducedRecord(
            topics.COMMANDS,
            topics.partition_of(key, self.partitions),
            key,
            topics.frame(topics.FIXED_SCHEMA_IDS[topics.COMMANDS], encode_signed_command(signed)),
            topics.cloud_event_headers(
                topics.COMMANDS, format_id(command.command_id), self.source, session, TRACEPARENT
            ),
        )

    # Reading ------------------------------------------------------------------------------

    def read(self, topic: str, partition: int = 0, *, committed: bool = False) -> list[Message]:
        """Every record of a partition, as it is now."""
        low, high = self._asker(committed).get_watermark_offsets(
            TopicPartition(topic, partition), timeout=SECONDS_MAX
        )
        known = self._known.setdefault((topic, partition, committed), _Known(low, []))
        if known.following < high:
            self.on_kafka(lambda: self._read_on(topic, partition, known, high, committed))
        return list(known.messages)

    async def _read_on(
        self, topic: str, partition: int, known: _Known, high: int, committed: bool
    ) -> None:
        isolation = "read_committed" if committed else "read_uncommitted"
        consumer = BatchConsumer(
            consumer_config(self.cluster, "stand", isolation_level=isolation),
            [Start(topic, partition, known.following)],
        )
        try:
            while consumer.next_offset(topic, partition) < high:
                known.messages += await consumer.batch()
            known.following = consumer.next_offset(topic, partition)
        finally:
            await consumer.close()

    def _asker(self, committed: bool) -> Consumer:
        """A client for questions only; kept, for making one costs more than many questions."""
        if committed not in self._askers:
            isolation = "read_committed" if committed else "read_uncommitted"
            config = consumer_config(self.cluster, "stand", isolation_level=isolation)
            self._askers[committed] = Consumer(config)
        return self._askers[committed]

    def forget(self) -> None:
        """What was read of the topics: they were made anew."""
        self._known.clear()

    def read_all(self, topic: str, *, committed: bool = True) -> list[Message]:
        """Every record of a topic with the ledger's partitions."""
        return [
            message
            for partition in range(self.partitions)
            for message in self.read(topic, partition, committed=committed)
        ]

    def blocks(self) -> list[Block]:
        """The chain as published, in height order: of equal ones the first, none of strangers."""
        found: dict[int, Block] = {}
        for message in self.read(topics.BLOCKS):
            try:
                block = decode_block(topics.unframe(message.value()))
                check_commit_proof(
                    cast("CommitProof", block.proof),
                    link_to(block.header, block.digest),
                    self.ledger_id,
                    self.genesis.validator_set,
                    link_of,
                )
            except Malformed:
                continue
            known = found.setdefault(block.header.height, block)
            assert known.digest == block.digest, f"two blocks at height {block.header.height}"
        assert sorted(found) == list(range(1, len(found) + 1))
        return [found[height] for height in sorted(found)]

    def ends(self, topic: str) -> list[int]:
        """The next offset of each partition of the commands topic."""
        return [
            self._asker(False).get_watermark_offsets(TopicPartition(topic, p), SECONDS_MAX)[1]
            for p in range(self.partitions)
        ]

    def certified_to(self) -> list[int]:
        """Up to which offset each partition is in blocks."""
        reached = [0] * self.partitions
        for block in self.blocks():
            for one in block.header.ranges:
                assert one.start == reached[one.partition]
                reached[one.partition] = one.end
            for opening in openings_of(block.control):
                reached[opening.partition] = opening.start
        return reached

    def wait_certified(self) -> None:
        """Until blocks cover the whole commands topic."""
        until(
            lambda: self.certified_to() == self.ends(topics.COMMANDS),
            SECONDS_MAX,
            "blocks cover the commands topic",
        )

    def wait_sealed(self, height: int) -> None:
        """Until the seal of this height is published."""
        wanted = str(height).encode()
        until(
            lambda: any(m.key() == wanted for m in self.read(topics.SEALS, committed=True)),
            SECONDS_MAX,
            f"height {height} is sealed",
        )

    def on_kafka(self, work: Callable[[], Awaitable[Result]]) -> Result:
        async def bounded() -> Result:
            return await asyncio.wait_for(work(), SECONDS_MAX)

        return asyncio.run(bounded())


def _argv(service: str, before: str) -> list[str]:
    if not before:
        return ["-m", f"nocturne.{service}"]
    run = f"import sys; from nocturne.{service}.__main__ import main; sys.exit(main())"
    return ["-c", f"{before}\n{run}"]


def author(number: int = 1) -> Ed25519Signer:
    """An author, the same for the same number."""
    return Ed25519Signer(number.to_bytes(32, "big"))


def digests(blocks: Sequence[Block]) -> list[Hash]:
    """Of each block."""
    return [block.digest for block in blocks]


def wait_for_log(running: Running, text: str) -> None:
    """Until the process has said `text`."""
    until(lambda: text in running.said(), SECONDS_MAX, f"{text!r} in {running.log}")


def now() -> float:
    """Seconds, for measuring."""
    return time.monotonic()


__all__ = ["KafkaException", "Running", "Stand", "author", "digests", "fresh_topics"]
