"""Records written to the topics by someone who is not their writer never reach a reader."""

from __future__ import annotations

import asyncio
import random
import time

import pytest
from tests.e2e import truth
from tests.e2e.conftest import Running
from tests.e2e.driver import Author
from tests.e2e.strangers import append

from nocturne.core.blocks import encode_seal, sign_seal
from nocturne.core.commands import Evidence, Opening
from nocturne.core.events import (
    decode_event_header,
    encode_event,
    event_signed,
    hash_event,
    sign_event,
)
from nocturne.core.genesis import decode_genesis
from nocturne.core.identifiers import Hash, format_id
from nocturne.core.keys import Ed25519Signer
from nocturne.core.receipts import (
    decode_receipt,
    encode_receipt,
    hash_receipt,
    sign_receipt,
)
from nocturne.core.topics import BLOCKS, COMMANDS, EVENTS, RECEIPTS, SEALS, frame, partition_of

VALIDATORS = 1
pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
STRANGER = Ed25519Signer(b"s" * 32)
SESSION = "strangers/1"


def test_forged_records_on_every_topic_are_counted_and_never_shown(running: Running) -> None:
    async def before() -> tuple[bytes, bytes, int]:
        driver = running.driver()
        author = Author(running.ledger_id, random.Random(1))
        opened = await driver.submit(author.command(SESSION, opening=Opening("facts", 1)))
        refused = await driver.submit(author.command(SESSION, expected=77))
        await driver.wait_readable(refused.height)
        export = await driver.export(SESSION)
        await driver.close()
        return opened.events[0], refused.receipt, len(export)

    header_bytes, receipt, _ = asyncio.run(before())
    _forge_event(running, header_bytes)
    _forge_receipt(running, receipt)
    _forge_seal(running)
    append(running.bootstrap, BLOCKS, 0, b"9", frame(2, b"not a block"))
    append(running.bootstrap, COMMANDS, 0, b"x", b"not a command")

    async def after() -> None:
        driver = running.driver()
        author = Author(running.ledger_id, random.Random(2))
        # New work goes on behind the forgeries.
        last = await driver.submit(author.command("strangers/2", opening=Opening("facts", 1)))
        await driver.wait_readable(last.height)
        events = await driver.events(SESSION)
        assert [one.header_bytes for one in events] == [header_bytes]
        authority = decode_genesis(running.genesis_bytes).authority
        for one in events:
            assert event_signed(
                authority, one.event_hash, one.timestamp, one.height, one.signatures
            )
        receipts = await driver.receipts(SESSION)
        assert len(receipts) == 1
        deadline = time.monotonic() + 30
        while True:
            counted = dict((await driver.status()).refused_records)
            if sum(counted.values()) >= 4:
                break
            assert time.monotonic() < deadline, f"strangers' records were not counted: {counted}"
            await asyncio.sleep(0.1)
        await driver.close()

    asyncio.run(after())
    found = truth.read(running.bootstrap, running.genesis_bytes)
    truth.check(found)
    truth.check_postgres(found, running.dsn())
    assert found.strangers == {BLOCKS: 1, SEALS: 1, EVENTS: 1, RECEIPTS: 1}


def _forge_event(running: Running, header_bytes: bytes) -> None:
    """A second event at a sequence that is taken, signed by a stranger."""
    header = decode_event_header(header_bytes)
    partition = partition_of(SESSION.encode(), 4)
    author = Author(running.ledger_id, random.Random(3))
    signed = author.command(SESSION, (b'{"forged":true}',))
    signatures = sign_event(STRANGER, hash_event(header_bytes), 1, 1)
    evidence = Evidence(signed.command_bytes, signed.signatures, signed.payloads)
    value = frame(4, encode_event(header_bytes, signatures, 1, 1, evidence, 0))
    headers: list[tuple[str, str | bytes | None]] = [
        ("ce_id", format_id(header.event_id).encode()),
        ("nocturne-height", b"999"),
    ]
    append(running.bootstrap, EVENTS, partition, SESSION.encode(), value, headers)


def _forge_receipt(running: Running, data: bytes) -> None:
    receipt = decode_receipt(data)
    signatures = sign_receipt(STRANGER, hash_receipt(receipt.header_bytes), 1, receipt.height)
    value = frame(5, encode_receipt(receipt.header_bytes, signatures, receipt.height, 1))
    headers: list[tuple[str, str | bytes | None]] = [
        ("ce_id", b"forged"),
        ("nocturne-height", str(receipt.height).encode()),
    ]
    append(running.bootstrap, RECEIPTS, 0, SESSION.encode(), value, headers)


def _forge_seal(running: Running) -> None:
    seal = sign_seal(STRANGER, running.ledger_id, 1, Hash(bytes(32)), Hash(bytes(32)))
    append(running.bootstrap, SEALS, 0, b"1", frame(3, encode_seal(seal)))
