"""Chains of `tests.ledger_factory` with what is published of each block."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace

from tests.ledger_factory import BOB, VALIDATORS, Draft, Ledger, make_genesis
from tests.unit.projection.published import Published, publish

from nocturne.core.blocks import Block, LogRecord
from nocturne.core.decide import SESSION_CLOSED
from nocturne.core.identifiers import SessionId

JSON_TYPE = "application/json"


@dataclass(slots=True)
class Chain:
    """A ledger with the records of every topic that its blocks lead to."""

    ledger: Ledger = field(default_factory=Ledger)
    published: list[tuple[Block, Published]] = field(default_factory=list)
    numbers: int = 0

    def number(self) -> int:
        self.numbers += 1
        return self.numbers

    def commit(self, *control: bytes) -> tuple[Block, Published]:
        block = self.ledger.commit(control=control)
        self.published.append((block, publish(block)))
        return self.published[-1]

    def grow(self, blocks: int, seed: int, sessions: int = 8) -> None:
        """Blocks with events, atomic commands and refusals, in a fixed order."""
        dice = random.Random(seed)
        for _ in range(blocks):
            for _ in range(dice.randint(1, 6)):
                self._append(f"grown/{dice.randrange(sessions)}", dice)
            self.commit()

    def _append(self, session: str, dice: random.Random) -> None:
        ledger, number = self.ledger, self.number()
        known = ledger.state.session(SessionId(session))
        if known is None:
            ledger.append(ledger.opening(session, number=number, kind="document"))
            return
        drafts = [
            Draft("Set", b'{"n":%d}' % (number * 10 + index), JSON_TYPE)
            for index in range(dice.choice((1, 1, 1, 3)))
        ]
        expected = dice.choice((None, None, known.sequence, 0))
        ledger.append(ledger.command(session, *drafts, number=number, expected=expected))


def changed_validators() -> Chain:
    """Four epochs of two blocks, each with an event of `orders/1`: for epoch 2 a validator's key is
    rotated, for epoch 3 one is added.
    """
    first = VALIDATORS[:4]
    ledger = Ledger(make_genesis(validators=first, epoch_length=2), first)
    chain = Chain(ledger)
    rotated = (*first[:3], VALIDATORS[5])
    control = {
        1: ledger.change_of(rotated, 1),
        4: ledger.change_of((*rotated, VALIDATORS[6]), 2),
    }
    for height in range(1, 9):
        number = chain.number()
        one = ledger.opening if height == 1 else ledger.command
        ledger.append(one("orders/1", number=number))
        chain.commit(*[record for at, record in control.items() if at == height])
    return chain


def every_outcome() -> Chain:
    """Sessions of two kinds, a closed one, atomic commands, gaps and receipts of many reasons."""
    chain = Chain()
    ledger, number = chain.ledger, chain.number
    ledger.append(ledger.opening("orders/1", number=number(), kind="document"))
    ledger.append(ledger.opening("readings", number=number()))
    chain.commit()
    late = ledger.command("orders/1", Draft("Set", b'{"a":1}'), number=number(), expected=1)
    ledger.append(late)
    ledger.append(
        ledger.command(
            "orders/1",
            Draft("Set", b'{"a":2,"b":[1]}'),
            Draft("Set", b'{"a":null,"c":{"d":true}}'),
            number=number(),
        )
    )
    ledger.append(None, ledger.partition_of("orders/1"))
    ledger.append(late)
    ledger.append(ledger.command("orders/1", number=number(), expected=1))
    ledger.append(ledger.command("orders/1", author=BOB, number=number()))
    ledger.append(ledger.command("never/opened", number=number()))
    chain.commit()
    forged = ledger.command("readings", number=number())
    ledger.append(replace(forged, signatures=late.signatures))
    ledger.append(LogRecord(b"readings", b"no command", (("x", None),)), 1)
    ledger.append(LogRecord(None, b"\x00" * 300_000, ()), 2)
    ledger.append(
        ledger.command("readings", Draft(SESSION_CLOSED, b"{}"), number=number(), expected=1)
    )
    chain.commit()
    ledger.append(ledger.command("readings", number=number()))
    ledger.append(ledger.command("orders/1", Draft("Set", b'{"z":0}'), number=number()))
    chain.commit()
    return chain
