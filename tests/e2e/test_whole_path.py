"""A signed command in; a certified, signed event or receipt out; and everything agrees."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import replace

import pytest
from tests.e2e import truth
from tests.e2e.conftest import Running
from tests.e2e.driver import Answer, Author, Driver
from tests.e2e.strangers import append

from nocturne.core.commands import (
    Opening,
    Payload,
    SignedCommand,
    encode_signed_command,
    sign_command,
)
from nocturne.core.events import decode_event_header
from nocturne.core.genesis import decode_genesis
from nocturne.core.identifiers import LEDGER_SESSION, LedgerId
from nocturne.core.receipts import Reason, decode_receipt, receipt_signed
from nocturne.core.topics import COMMANDS, frame, partition_of
from nocturne.wire.command.v1 import command_pb2

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
SEED = 20261121
FACTS = Opening("facts", 1)


def _author(running: Running, number: int) -> Author:
    return Author(running.ledger_id, random.Random(SEED + number))


def test_a_command_becomes_a_signed_event_that_query_shows_and_verifies(running: Running) -> None:
    async def scenario() -> None:
        driver = running.driver()
        author = _author(running, 1)
        opened = await driver.submit(
            author.command("orders/1", (b'{"item":"chair"}', b'{"n":2}'), opening=FACTS)
        )
        assert opened.decided
        assert opened.level == command_pb2.LEVEL_SIGNED
        assert [decode_event_header(one).sequence for one in opened.events] == [1, 2]
        await driver.wait_readable(opened.height)
        events = await driver.events("orders/1")
        assert [one.header_bytes for one in events] == list(opened.events)
        assert events[0].payload.data == b'{"item":"chair"}'
        await driver.close()

    asyncio.run(scenario())


def test_sixty_four_writers_race_for_one_sequence_and_one_wins(running: Running) -> None:
    async def scenario() -> None:
        driver = running.driver()
        author = _author(running, 2)
        opened = await driver.submit(author.command("race/1", opening=FACTS))
        first = decode_event_header(opened.events[0])
        contenders = [author.command("race/1", expected=1) for _ in range(64)]
        answers = await asyncio.gather(*[driver.submit(one) for one in contenders])
        winners = [one for one in answers if one.events]
        losers = [one for one in answers if one.receipt]
        assert (len(winners), len(losers)) == (1, 63)
        await driver.wait_readable(max(one.height for one in answers))
        events = await driver.events("race/1")
        assert [one.header.sequence for one in events] == [1, 2]
        assert events[0].event_hash == events[1].header.previous_hash
        for loser in losers:
            receipt = decode_receipt(loser.receipt)
            assert receipt.header.reason is Reason.DUPLICATE_SEQ
            assert receipt.header.head is not None
            assert receipt.header.head.sequence == 2
            assert receipt.header.head.hash == events[1].event_hash
        assert first.sequence == 1
        await driver.close()

    asyncio.run(scenario())


def test_every_reason_is_given_to_a_real_command_by_a_receipt_that_verifies(
    running: Running,
) -> None:
    async def scenario() -> dict[Reason, Answer]:
        driver = running.driver()
        given = await _every_refusal(running, driver)
        await driver.wait_readable(max(one.height for one in given.values()))
        listed = {one.header_bytes for one in await driver.receipts()}
        for reason, answer in given.items():
            receipt = decode_receipt(answer.receipt)
            assert receipt.header.reason is reason
            assert receipt.header_bytes in listed, f"{reason.name} is readable"
            assert receipt_signed(
                decode_genesis(running.genesis_bytes).authority,
                receipt.receipt_hash,
                receipt.timestamp,
                receipt.height,
                receipt.signatures,
            )
        await driver.close()
        return given

    given = asyncio.run(scenario())
    direct = _append_what_admission_would_refuse(running)
    assert set(given) | direct == set(Reason)


async def _every_refusal(running: Running, driver: Driver) -> dict[Reason, Answer]:
    author, other = _author(running, 3), _author(running, 4)
    first = author.command("reasons/1", opening=FACTS)
    await driver.submit(first)
    reused = author.command("reasons/1", command_id=first.command.command_id)
    wrong_session = await driver.submit(author.command("reasons/2", opening=FACTS))
    assert wrong_session.events
    await driver.submit(author.command("reasons/2", (b"{}",), event_type="nocturne.SessionClosed"))
    forged = author.command("reasons/1")
    stolen = SignedCommand(
        forged.command,
        other.command("reasons/1").signatures,
        forged.payloads,
        forged.command_bytes,
        forged.command_hash,
    )
    cases = {
        Reason.MALFORMED: SignedCommand(
            forged.command,
            forged.signatures,
            (Payload(bytes(32), b'{"n":"another"}'),),
            forged.command_bytes,
            forged.command_hash,
        ),
        Reason.TOO_LARGE: author.command("reasons/1", (b'"' + b"x" * 300_000 + b'"',)),
        Reason.SIGNATURE_INVALID: stolen,
        Reason.UNKNOWN_AUTHOR: _under_anothers_name(author, other),
        Reason.SESSION_CLOSED: author.command("reasons/2"),
        Reason.UNKNOWN_KIND: author.command("reasons/3", opening=Opening("no-such-kind", 1)),
        Reason.NOT_PERMITTED_TO_OPEN: author.command("~reserved", opening=FACTS),
        Reason.NOT_A_MEMBER: other.command("reasons/1"),
        Reason.ID_REUSED: reused,
        Reason.DUPLICATE_SEQ: author.command("reasons/1", expected=99),
        Reason.INVARIANT_VIOLATION: author.command("reasons/1", event_type="nocturne.NoSuchAct"),
    }
    given = {reason: await driver.submit(command) for reason, command in cases.items()}
    assert {reason for reason, one in given.items() if one.receipt} == set(cases)
    given[Reason.STALE_ID] = await _stale(driver, author)
    repeated = await driver.submit(first)
    assert repeated.repeated
    assert repeated.events, "a repeated command is answered with its first outcome"
    return given


def _under_anothers_name(author: Author, other: Author) -> SignedCommand:
    signed = author.command("reasons/1")
    command = replace(signed.command, author=other.id)
    return sign_command(command, signed.payloads, author.signer)


async def _stale(driver: Driver, author: Author) -> Answer:
    """More ids than the window keeps, then one below them all."""
    await driver.submit(author.command("reasons/stale", opening=FACTS))
    answers = await asyncio.gather(
        *[driver.submit(author.command("reasons/stale")) for _ in range(300)]
    )
    assert all(one.events for one in answers)
    return await driver.submit(author.command("reasons/stale", command_id=bytes(16)))


def _append_what_admission_would_refuse(running: Running) -> set[Reason]:
    """Records that only someone with access to Kafka can append: they get receipts all the same."""
    author = _author(running, 5)
    signed = author.command("reasons/direct", opening=FACTS)
    value = frame(1, encode_signed_command(signed))
    session = b"reasons/direct"
    right = partition_of(session, 4)
    append(running.bootstrap, COMMANDS, (right + 1) % 4, session, value)
    append(running.bootstrap, COMMANDS, right, session, value)
    append(running.bootstrap, COMMANDS, right, session, value)
    append(running.bootstrap, COMMANDS, right, b"", b"\x00garbage")

    async def scenario() -> set[Reason]:
        driver = running.driver()
        last = await driver.submit(author.command("reasons/after", opening=FACTS))
        await driver.wait_readable(last.height)
        seen = Counter(one.header.reason for one in await driver.receipts())
        await driver.close()
        return set(seen)

    for _ in range(40):
        found = asyncio.run(scenario())
        if {Reason.WRONG_PARTITION, Reason.REPEATED} <= found:
            break
    return found & {Reason.WRONG_PARTITION, Reason.REPEATED}


def test_a_command_for_another_ledger_is_refused_as_unsigned(running: Running) -> None:
    async def scenario() -> None:
        driver = running.driver()
        author = _author(running, 6)
        foreign = author.command("foreign/1", opening=FACTS, ledger_id=LedgerId(bytes(32)))
        answer = await driver.submit(foreign)
        assert decode_receipt(answer.receipt).header.reason is Reason.SIGNATURE_INVALID
        await driver.close()

    asyncio.run(scenario())


def test_topics_blocks_and_postgres_agree_and_equal_a_fresh_fold(running: Running) -> None:
    async def settled() -> None:
        driver = running.driver()
        last = await driver.submit(_author(running, 7).command("settled/1", opening=FACTS))
        await driver.wait_readable(last.height)
        await driver.receipts(LEDGER_SESSION)
        await driver.close()

    asyncio.run(settled())
    found = truth.read(running.bootstrap, running.genesis_bytes)
    truth.check(found)
    truth.check_postgres(found, running.dsn())
    assert len(found.receipts) > 70
