"""Writers that never give up a command while processes end, and the check of their answers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from tests.e2e import truth
from tests.e2e.conftest import Running
from tests.e2e.driver import Answer, Author, Driver

from nocturne.core.commands import Opening
from nocturne.core.events import decode_event_header
from nocturne.core.receipts import decode_receipt_header

WRITERS = 6


class Load:
    """Writers that never give up a command, and what they were told of each."""

    def __init__(self, running: Running, dice: random.Random) -> None:
        self._running = running
        self._dice = dice
        self._prefix = f"load-{dice.getrandbits(32):08x}"
        self._stopping = asyncio.Event()
        self.answers: list[Answer] = []

    async def run(self) -> None:
        """Write until `finish`."""
        driver = self._running.driver()
        try:
            await asyncio.gather(*[self._writer(driver, number) for number in range(WRITERS)])
        finally:
            await driver.close()

    async def finish(self, writing: asyncio.Task[None]) -> list[Answer]:
        """Let each writer of `run` finish its command, until all of it is readable; what they were
        told.
        """
        self._stopping.set()
        await writing
        driver = self._running.driver()
        await driver.wait_readable(max(one.height for one in self.answers))
        await driver.close()
        return self.answers

    async def _writer(self, driver: Driver, number: int) -> None:
        author = Author(self._running.ledger_id, random.Random(self._dice.getrandbits(64)))
        written = 0
        while not self._stopping.is_set():
            session = f"{self._prefix}/{number}/{written // 20}"
            opening = Opening("facts", 1) if written % 20 == 0 else None
            # Some expect a sequence that is gone: refusals must survive kills as well.
            expected = 1 if opening is None and written % 7 == 6 else None
            payloads = tuple(b'{"n":%d}' % (written + i) for i in range(1 + written % 3))
            signed = author.command(session, payloads, opening=opening, expected=expected)
            self.answers.append(await driver.submit_until_decided(signed))
            written += 1


def checked(running: Running, answers: Sequence[Answer]) -> truth.Truth:
    """What the ledger holds, once topics, blocks, events, receipts and rows agree on it, and the
    answers do.
    """
    found = truth.read(running.bootstrap, running.genesis_bytes)
    truth.check(found)
    truth.check_postgres(found, running.dsn())
    _check_answers(answers, found)
    return found


def _check_answers(answers: Sequence[Answer], found: truth.Truth) -> None:
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
