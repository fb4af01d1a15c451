"""The business case: a company buys, from request to payment, over one quarter. Pure.

The same seed, count and authors give the same plan. The plan says what must become of every
command, so that the demonstration can hold the ledger to it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nocturne.core.identifiers import AuthorId, SessionId
from nocturne.core.receipts import Reason
from nocturne.embedded.demo.purchase import (
    SUPPLIERS,
    Clock,
    begin_supplier,
    note_delivery,
    purchase,
)
from nocturne.embedded.demo.steps import Department, Script, Step

COMMANDS_PER_ORDER: Final = 25
"""Of all commands, facts about suppliers included; an order's own are about twenty."""
COMMANDS_MIN: Final = 100
QUARTER_MINUTES: Final = 60 * 540
"""Sixty working days of nine hours; orders begin within them."""


@dataclass(frozen=True, slots=True)
class Plan:
    """All steps in the order of their times."""

    steps: tuple[Step, ...]
    orders: int
    suppliers: int

    @property
    def sessions(self) -> tuple[SessionId, ...]:
        """Every session that opens, by id."""
        return tuple(sorted({step.session for step in self.steps if step.refusal is None}))

    @property
    def events(self) -> int:
        """How many events the ledger must hold in the end."""
        return sum(len(step.facts) for step in self.steps if step.refusal is None)

    @property
    def refusals(self) -> Mapping[Reason, int]:
        """How many receipts of which reason it must hold."""
        return Counter(step.refusal for step in self.steps if step.refusal is not None)


def plan(seed: int, commands: int, authors: Mapping[Department, AuthorId]) -> Plan:
    """Exactly `commands` steps; `ValueError` below the number that makes a case at all."""
    if commands < COMMANDS_MIN:
        raise ValueError(f"commands: expected at least {COMMANDS_MIN}, got {commands}")
    dice = random.Random(seed)
    suppliers = [begin_supplier(supplier, authors) for supplier in SUPPLIERS]
    orders = _orders(commands - len(suppliers), authors, dice)
    written = len(suppliers) + sum(len(order.steps) for order in orders)
    for number in range(1, commands - written + 1):
        at = Clock(dice.randrange(QUARTER_MINUTES), dice.randrange(60_000)).after(1)
        # The times of one session's notes need not rise: they expect no sequence.
        note_delivery(dice.choice(suppliers), number, at, dice)
    return Plan(_in_order([*suppliers, *orders]), len(orders), len(suppliers))


def _orders(room: int, authors: Mapping[Department, AuthorId], dice: random.Random) -> list[Script]:
    """As many orders as the case has, and no more steps than `room`."""
    orders: list[Script] = []
    for number in range(1, room // COMMANDS_PER_ORDER + 1):
        order = purchase(number, dice.randrange(QUARTER_MINUTES), authors, dice)
        if len(order.steps) > room:
            break
        room -= len(order.steps)
        orders.append(order)
    return orders


def _in_order(scripts: Sequence[Script]) -> tuple[Step, ...]:
    """All steps by time; a session's own order stays, because its times rise or do not matter."""
    steps = [step for script in scripts for step in script.steps]
    return tuple(sorted(steps, key=lambda step: (step.at, step.session, step.identity)))
