"""The signing service's order: recorded and synced, signed, published, and then said to be."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.consensus.ledgers import AUTHORITY, PARTITIONS, Ledger

from nocturne.core import topics
from nocturne.core.block_intake import CheckedBlock
from nocturne.core.errors import Unavailable
from nocturne.core.identifiers import SessionId
from nocturne.core.keys import key_id
from nocturne.core.modes import Cause, DegradedFound
from nocturne.runtime.settings import Founding
from nocturne.runtime.telemetry import Metrics
from nocturne.signing.guard import Head
from nocturne.signing.service import STORE_FILE, Signing, _Batch
from nocturne.signing.signatures import BlockSigner, SignedRecord
from nocturne.signing.store import Recorded, Resume, SigningStore

SECONDS_MAX = 30.0
TURNS = 100
"""Of the loop: more than anything takes that waits for nothing."""


class Store(SigningStore):
    """The real one, whose sync may be held up."""

    def __init__(self, path: Path, ledger: Ledger) -> None:
        super().__init__(path, ledger.ledger_id, key_id(AUTHORITY.key))
        self.recording = threading.Event()
        self.synced = threading.Event()
        self.synced.set()

    def record(
        self, blocks: Sequence[Recorded], heads: Mapping[SessionId, Head], resume: Resume | None
    ) -> None:
        self.recording.set()
        assert self.synced.wait(SECONDS_MAX)
        super().record(blocks, heads, resume)


class Signer(BlockSigner):
    """The real one; says what it signed."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(ledger.ledger_id, PARTITIONS, AUTHORITY, topics.FIXED_SCHEMA_IDS)
        self.heights: list[int] = []

    def sign(self, checked: CheckedBlock) -> list[SignedRecord]:
        self.heights.append(checked.block.header.height)
        return super().sign(checked)


class Service:
    """A process of the service as it stands once it has resumed, without its topics."""

    def __init__(self, home: Path, ledger: Ledger) -> None:
        lifecycle: Any = SimpleNamespace(
            metrics=Metrics("signing"), tracer=SimpleNamespace(on=False)
        )
        founding = Founding(ledger.data, ledger.genesis, ledger.ledger_id)
        nothing: Any = None
        self.signing = Signing(nothing, lifecycle, founding, AUTHORITY)
        self.store = self.signing._store = Store(home / STORE_FILE, ledger)
        self.signer = self.signing._block_signer = Signer(ledger)
        self.signing._last_height = self.store.last_height()
        self.signing._intake = self.signing._intake_from(self.store.resume())

    def offer(self, *values: bytes) -> None:
        """These records of the blocks topic, from its beginning."""
        for offset, value in enumerate(values):
            self.signing._offer(offset, value)

    async def batch(self) -> _Batch:
        """What is signed next; or what ends signing."""
        signing = asyncio.ensure_future(self.signing._sign())
        batch = asyncio.ensure_future(self.signing._batches.get())
        try:
            awaited: set[asyncio.Future[Any]] = {signing, batch}
            await asyncio.wait(awaited, timeout=SECONDS_MAX, return_when=asyncio.FIRST_COMPLETED)
            if signing.done():
                signing.result()
            return batch.result()
        finally:
            for one in (signing, batch):
                one.cancel()
            await asyncio.gather(signing, batch, return_exceptions=True)

    def close(self) -> None:
        """As a kill does: nothing is written on the way."""
        self.signing._disk.shutdown()
        self.store.close()


def blocks(ledger: Ledger, *sessions: str) -> list[bytes]:
    values = []
    for session in sessions:
        ledger.write(session)
        values.append(topics.frame(2, ledger.extend().encoded))
    return values


def test_nothing_is_signed_before_its_record_is_synced(tmp_path: Path) -> None:
    ledger = Ledger()
    service = Service(tmp_path, ledger)
    service.store.synced.clear()
    service.offer(*blocks(ledger, "a", "a"))

    async def go() -> None:
        batch = asyncio.ensure_future(service.batch())
        try:
            assert await asyncio.to_thread(service.store.recording.wait, SECONDS_MAX)
            for _ in range(TURNS):
                await asyncio.sleep(0)
            assert service.signer.heights == []
            assert not batch.done()
        finally:
            service.store.synced.set()
        await batch

    asyncio.run(go())
    assert service.signer.heights == [1, 2]
    assert service.store.last_height() == 2
    service.close()


def test_what_was_recorded_and_not_published_is_signed_again_in_full_with_the_same_bytes(
    tmp_path: Path,
) -> None:
    ledger = Ledger()
    values = blocks(ledger, "a", "b", "a")
    killed = Service(tmp_path, ledger)
    killed.offer(*values[:2])
    first = asyncio.run(killed.batch())
    killed.close()
    service = Service(tmp_path, ledger)
    service.offer(*values)
    assert len(service.signing._ready) == 3
    again = asyncio.run(service.batch())
    assert again.records[: len(first.records)] == first.records
    assert len(again.records) > len(first.records)
    assert service.signer.heights == [1, 2, 3]
    service.close()


def test_another_certified_block_at_a_signed_height_is_not_signed(tmp_path: Path) -> None:
    ledger, other = Ledger(), Ledger()
    before = Service(tmp_path, ledger)
    before.offer(*blocks(ledger, "a"))
    asyncio.run(before.batch())
    before.close()
    service = Service(tmp_path, other)
    service.offer(*blocks(other, "x"))
    with pytest.raises(DegradedFound) as found:
        asyncio.run(service.batch())
    assert found.value.degraded.cause is Cause.SIGNING_CONFLICT
    assert service.signer.heights == []
    service.close()


def test_what_the_broker_did_not_take_does_not_count_as_published(tmp_path: Path) -> None:
    """A position that came first would lose the batch: nobody would sign it again."""
    ledger = Ledger()
    service = Service(tmp_path, ledger)
    signing = service.signing
    service.offer(*blocks(ledger, "a"))
    batch = asyncio.run(service.batch())
    refuses = [True, False]
    published: list[int] = []

    async def publish(records: list[Any]) -> None:
        if refuses.pop(0):
            raise Unavailable("the broker is away")
        published.append(len(records))
        await asyncio.Event().wait()

    async def go() -> None:
        producer: Any = SimpleNamespace(publish=publish)
        await signing._batches.put(batch)
        with pytest.raises(Unavailable):
            await signing._publish(producer)
        signing._write_published()
        assert service.store.resume().published_height == 0
        await signing._batches.put(batch)
        publishing = asyncio.ensure_future(signing._publish(producer))
        for _ in range(TURNS):
            await asyncio.sleep(0)
        signing._write_published()
        assert service.store.resume().published_height == 0
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)

    asyncio.run(go())
    assert published == [len(batch.records)]
    service.close()
