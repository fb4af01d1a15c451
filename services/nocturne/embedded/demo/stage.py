"""What the attacks work with: the running ledger, everybody's keys, and the forger's.

The forger has more than any user: the database's superuser and the broker. He lacks the keys of
authors, validators and the authority, and that is all that stands against him.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

from confluent_kafka import Message, Producer

from nocturne.audit.verify import Verdict, verify_export
from nocturne.cli.asking import each_within, within
from nocturne.cli.ledger import Ledger, Totals
from nocturne.core.errors import Unavailable
from nocturne.core.identifiers import SessionId
from nocturne.core.keys import Ed25519Signer
from nocturne.embedded.demo.forgery import ForgedRecord, Forger
from nocturne.embedded.demo.people import People
from nocturne.embedded.demo.scenario import Plan
from nocturne.embedded.demo.tampering import lines_of

LOOK_SECONDS: Final = 0.05
SETTLED_SECONDS_MAX: Final = 20.0
"""How long anything may take that takes milliseconds when all is well."""
DEADLINE_MS: Final = 20_000
_PRODUCE_SECONDS_MAX: Final = 10.0


@dataclass(frozen=True, slots=True)
class Stage:
    """One running ledger under attack. `dsn` is the superuser's; `dice` choose all that is free."""

    ledger: Ledger
    people: People
    plan: Plan
    genesis_bytes: bytes
    bootstrap: str
    dsn: str
    dice: random.Random

    def forger(self) -> Forger:
        """Somebody with keys of his own."""
        return Forger(*(Ed25519Signer(self.dice.randbytes(32)) for _ in range(3)))

    def now_ms(self) -> int:
        """The wall clock, for what authors and forgers claim."""
        return time.time_ns() // 1_000_000

    async def export(self, session: SessionId) -> bytes:
        """The session's export, as the query service gives it."""
        async with aclosing(self.ledger.export(session)) as pieces:
            return b"".join([piece async for piece in each_within(pieces)])

    def verify(self, export: bytes, *, trusting: bool = True) -> Verdict:
        """The offline verifier's verdict on an export."""
        return verify_export(lines_of(export), self.people.ledger_id if trusting else None)

    async def readable(self, height: int) -> None:
        """Wait until the read side has applied `height`."""
        await self._until(lambda totals: totals.height >= height, f"height {height} is readable")

    async def totals(self) -> Totals:
        """What the read side holds."""
        return await within(self.ledger.totals())

    async def refused_more(self, causes: Sequence[str], before: Totals) -> Totals:
        """Wait until the read side has counted a refused record more for a cause that begins with
        each of `causes`; its totals then, or after the longest wait.
        """
        deadline = time.monotonic() + SETTLED_SECONDS_MAX
        while True:
            totals = await self.totals()
            grown = [cause for cause in causes if refused(totals, cause) > refused(before, cause)]
            if len(grown) == len(causes) or time.monotonic() > deadline:
                return totals
            await asyncio.sleep(LOOK_SECONDS)

    async def produce(self, records: Sequence[ForgedRecord]) -> None:
        """Append records to the topics, as anyone with access to the broker could."""
        await asyncio.to_thread(_produce, self.bootstrap, records)

    async def _until(self, holds: Callable[[Totals], bool], what: str) -> None:
        deadline = time.monotonic() + SETTLED_SECONDS_MAX
        while not holds(await self.totals()):
            if time.monotonic() > deadline:
                raise Unavailable(f"not within {SETTLED_SECONDS_MAX:.0f} s: {what}")
            await asyncio.sleep(LOOK_SECONDS)


def refused(totals: Totals, cause: str) -> int:
    """How many records were refused for causes that begin with `cause`."""
    return sum(
        count for name, count in totals.refused_records.items() if name.split(".")[0] == cause
    )


def _produce(bootstrap: str, records: Sequence[ForgedRecord]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0})
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
