"""What the attacks work with: the running ledger, everybody's keys, and the forger's.

The forger has more than any user: the database's superuser and the broker. He lacks the keys of
authors, validators and the authority, and that is all that stands against him.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from confluent_kafka import Message, Producer

from nocturne.audit.verify import Verdict, verify_export
from nocturne.client import Client, Status
from nocturne.client.link import Link
from nocturne.client.transport import translated
from nocturne.core.errors import Unavailable
from nocturne.core.identifiers import SessionId
from nocturne.core.keys import Ed25519Signer
from nocturne.core.receipts import Head
from nocturne.embedded.demo.forgery import ForgedRecord, Forger
from nocturne.embedded.demo.people import People
from nocturne.embedded.demo.scenario import Plan
from nocturne.embedded.demo.tampering import lines_of
from nocturne.runtime.clock import now_ms
from nocturne.wire.query.v1 import query_pb2

LOOK_SECONDS: Final = 0.05
SETTLED_SECONDS_MAX: Final = 20.0
"""How long anything may take that takes milliseconds when all is well."""
DEADLINE_SECONDS: Final = 20.0
EXPORT_SECONDS_MAX: Final = 60.0
_PRODUCE_SECONDS_MAX: Final = 10.0


@dataclass(frozen=True, slots=True)
class Stage:
    """One running ledger under attack. `kafka` are librdkafka's settings of a connection that may
    do anything, `dsn` is the superuser's; `dice` choose all that is free.
    """

    client: Client
    query: Link
    people: People
    plan: Plan
    genesis_bytes: bytes
    kafka: Mapping[str, str]
    dsn: str
    dice: random.Random

    def forger(self) -> Forger:
        """Somebody with keys of his own."""
        return Forger(*(Ed25519Signer(self.dice.randbytes(32)) for _ in range(3)))

    def now_ms(self) -> int:
        """The wall clock, for what authors and forgers claim."""
        return now_ms()

    async def export(self, session: SessionId) -> bytes:
        """The session's export as the query service gives it; the SDK would verify it first."""
        request = query_pb2.ExportSessionRequest(session_id=session)
        with translated("query"):
            async with self.query.stub() as query:
                call = query.ExportSession(
                    request, timeout=EXPORT_SECONDS_MAX, metadata=self.query.metadata
                )
                return b"".join([piece.lines async for piece in call])

    async def head(self, session: SessionId) -> Head:
        """Where a session stands, as the read side shows it."""
        found = await self.client.session(session)
        if found is None:
            raise Unavailable(f"{session} is not readable")
        return Head(found.sequence, found.head_hash)

    def verify(self, export: bytes, *, trusting: bool = True) -> Verdict:
        """The offline verifier's verdict on an export."""
        return verify_export(lines_of(export), self.people.ledger_id if trusting else None)

    async def readable(self, height: int) -> None:
        """Wait until the read side has applied `height`."""
        deadline = time.monotonic() + SETTLED_SECONDS_MAX
        while (await self.client.status()).applied_through.height < height:
            if time.monotonic() > deadline:
                raise Unavailable(f"block {height} was not readable in {SETTLED_SECONDS_MAX:.0f} s")
            await asyncio.sleep(LOOK_SECONDS)

    async def refused_more(self, topics: Sequence[str], before: Status) -> Status:
        """Wait until the read side has counted a refused record more for each of `topics`; what it
        holds then, or after the longest wait.
        """
        deadline = time.monotonic() + SETTLED_SECONDS_MAX
        while True:
            status = await self.client.status()
            grown = [topic for topic in topics if new_causes(topic, before, status)]
            if len(grown) == len(topics) or time.monotonic() > deadline:
                return status
            await asyncio.sleep(LOOK_SECONDS)

    async def produce(self, records: Sequence[ForgedRecord]) -> None:
        """Append records to the topics, as anyone with access to the broker could."""
        await asyncio.to_thread(_produce, self.kafka, records)


def new_causes(topic: str, before: Status, after: Status) -> list[str]:
    """The causes by which more records of `topic` (`blocks`, …) are refused than before."""
    known = dict(before.refused_records)
    return [
        cause
        for cause, count in after.refused_records
        if cause.split(".")[0] == topic and count > known.get(cause, 0)
    ]


def _produce(kafka: Mapping[str, str], records: Sequence[ForgedRecord]) -> None:
    producer = Producer({**kafka, "log_level": 0})
    faults: list[str] = []

    def delivered(error: object, _: Message) -> None:
        if error is not None:
            faults.append(str(error))

    for one in records:
        producer.produce(
            one.topic, one.value, one.key, one.partition, delivered, headers=list(one.headers)
        )
    if producer.flush(_PRODUCE_SECONDS_MAX) or faults:
        raise Unavailable(f"the broker did not take the forged records: {faults or 'no answer'}")
