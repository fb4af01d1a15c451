"""`kill -9` of every process at random moments under load: nothing acknowledged is lost, nothing
appears twice, chains are unbroken.

`NOCTURNE_KILLS` sets how many (25; `make kills` has 200), `NOCTURNE_SEED` replays one run's dice.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets

import pytest
from tests.e2e import truth
from tests.e2e.conftest import Running
from tests.e2e.driver import Answer, Author, Driver
from tests.e2e.killing import kill

from nocturne.core.commands import Opening
from nocturne.core.events import decode_event_header
from nocturne.core.receipts import decode_receipt_header

KILLS = int(os.environ.get("NOCTURNE_KILLS", "25"))
SEED = int(os.environ.get("NOCTURNE_SEED", secrets.randbelow(2**32)))
WRITERS = 6
pytestmark = [pytest.mark.integration, pytest.mark.timeout(240 + 30 * KILLS)]


class _Load:
    """Writers that never give up a command, and what they were told of each."""

    def __init__(self, running: Running, dice: random.Random) -> None:
        self._running = running
        self._dice = dice
        self._stopping = asyncio.Event()
        self.answers: list[Answer] = []

    async def run(self) -> None:
        """Write until `stop`."""
        driver = self._running.driver()
        try:
            await asyncio.gather(*[self._writer(driver, number) for number in range(WRITERS)])
        finally:
            await driver.close()

    def stop(self) -> None:
        """Let each writer finish its command."""
        self._stopping.set()

    async def _writer(self, driver: Driver, number: int) -> None:
        author = Author(self._running.ledger_id, random.Random(self._dice.getrandbits(64)))
        written = 0
        while not self._stopping.is_set():
            session = f"kills/{number}/{written // 20}"
            opening = Opening("facts", 1) if written % 20 == 0 else None
            # Some expect a sequence that is gone: refusals must survive kills as well.
            expected = 1 if opening is None and written % 7 == 6 else None
            payloads = tuple(b'{"n":%d}' % (written + i) for i in range(1 + written % 3))
            signed = author.command(session, payloads, opening=opening, expected=expected)
            self.answers.append(await driver.submit_until_decided(signed))
            written += 1


def test_nothing_acknowledged_is_lost_or_doubled_by_kills(running: Running) -> None:
    print(f"NOCTURNE_SEED={SEED} NOCTURNE_KILLS={KILLS}")
    dice = random.Random(SEED)

    async def scenario() -> list[Answer]:
        load = _Load(running, dice)
        writing = asyncio.create_task(load.run())
        for number in range(KILLS):
            await asyncio.sleep(dice.uniform(0.05, 1.2))
            name = dice.choice([one.name for one in running.status.services])
            await kill(running, name, number)
            if writing.done():
                break
        load.stop()
        await writing
        driver = running.driver()
        await driver.wait_readable(max(one.height for one in load.answers))
        await driver.close()
        return load.answers

    answers = asyncio.run(scenario())
    found = truth.read(running.bootstrap, running.genesis_bytes)
    truth.check(found)
    truth.check_postgres(found, running.dsn())
    _check_answers(answers, found)
    print(f"{len(answers)} commands answered, {len(found.events)} events, {KILLS} kills")


def _check_answers(answers: list[Answer], found: truth.Truth) -> None:
    """Each answer that was given is what the ledger says, and no command took effect twice."""
    commands: set[bytes] = set()
    for answer in answers:
        for header_bytes in answer.events:
            header = decode_event_header(header_bytes)
            assert found.events[header.session, header.sequence] == header_bytes
            commands.add(header.command_hash)
        if not answer.events:
            receipt = decode_receipt_header(answer.receipt_header)
            assert found.receipts[receipt.position] == answer.receipt_header
    effects: dict[bytes, set[tuple[int, int]]] = {}
    for header_bytes in found.events.values():
        header = decode_event_header(header_bytes)
        place = (header.position.partition, header.position.offset)
        effects.setdefault(header.command_hash, set()).add(place)
    assert all(len(places) == 1 for places in effects.values())
    assert commands <= set(effects)
