"""Run the business case, most of it at full speed and the rest paced, and hold it to its plan."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from nocturne.cli.ledger import Level, Totals
from nocturne.core.errors import NocturneError
from nocturne.core.receipts import Reason
from nocturne.embedded.demo import load
from nocturne.embedded.demo.findings import Burst, Counts, Light, Refused, Samples
from nocturne.embedded.demo.load import Answer
from nocturne.embedded.demo.people import People
from nocturne.embedded.demo.scenario import Plan
from nocturne.embedded.demo.steps import Step

PACED_SHARE: Final = 0.1
"""Of the commands: enough for a p99, few enough for some seconds."""
PACED_PER_SECOND: Final = 100.0
PACED_LEVELS: Final = (Level.CERTIFIED, Level.SIGNED)
"""Awaited in turn, so that both latencies are of the same load."""

MEANINGS: Final = {
    Reason.SIGNATURE_INVALID: "An approval in another department's name",
    Reason.SESSION_CLOSED: "An invoice for an order that was closed",
    Reason.UNKNOWN_KIND: "An order opened as a spreadsheet, which the ledger does not have",
    Reason.NOT_A_MEMBER: "A quote by a department that has no part in the order",
    Reason.REPEATED: "The same payment sent twice by an impatient system",
    Reason.ID_REUSED: "A payment sent again with another account in it",
    Reason.DUPLICATE_SEQ: "An approval on the basis of an outdated order",
    Reason.INVARIANT_VIOLATION: "The removal of an order's only owner",
}


class NotAsPlanned(NocturneError):  # noqa: N818
    """The ledger decided something else than its rules say: the demonstration has failed."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What the business case measured; `height` is the last block's with an outcome in it."""

    burst: Burst
    light: Light
    height: int


async def run(address: str, plan: Plan, people: People, count: Callable[[int, int], None]) -> Ran:
    """Send the whole plan in its order. `NotAsPlanned` names the first outcome that differs."""
    total = len(plan.steps)
    split = total - round(total * PACED_SHARE)
    fast, paced = plan.steps[:split], plan.steps[split:]
    began = time.perf_counter()
    answers = await load.offer(
        address,
        map(people.signed, fast),
        len(fast),
        None,
        lambda _: Level.SIGNED,
        lambda done, _: count(done, total),
    )
    seconds = time.perf_counter() - began
    check(fast, answers)
    slower = await load.offer(
        address,
        map(people.signed, paced),
        len(paced),
        PACED_PER_SECOND,
        lambda index: PACED_LEVELS[index % len(PACED_LEVELS)],
        lambda done, _: count(split + done, total),
    )
    check(paced, slower)
    samples = [
        Samples.of(level.name.lower(), load.latencies(slower, level)) for level in PACED_LEVELS
    ]
    return Ran(
        Burst(len(fast), seconds, Level.SIGNED.name.lower()),
        Light(PACED_PER_SECOND, tuple(samples)),
        max(answer.height for answer in (*answers, *slower)),
    )


def check(steps: Sequence[Step], answers: Sequence[Answer]) -> None:
    """Every answer is what its step foresees; `NotAsPlanned` names the first that is not."""
    for step, answer in zip(steps, answers, strict=True):
        if not answer.decided or answer.level < answer.wait:
            raise NotAsPlanned(f"a command of {step.session} was not decided in time")
        expected = _expected(step)
        got = _got(answer)
        if got != expected:
            raise NotAsPlanned(f"a command of {step.session}: expected {expected}, got {got}")


def counts_of(plan: Plan, totals: Totals) -> Counts:
    """What the read side counts, which must be what the plan comes to; else `NotAsPlanned`."""
    refusals = plan.refusals
    expected = (plan.events, sum(refusals.values()), len(plan.steps))
    got = (totals.events, totals.receipts, totals.records)
    if got != expected:
        raise NotAsPlanned(
            f"events, receipts and commands in Postgres: expected {expected}, got {got}"
        )
    return Counts(
        totals.records,
        totals.events,
        totals.receipts,
        len(plan.sessions),
        totals.height,
        tuple(
            Refused(reason.name, MEANINGS[reason], number)
            for reason, number in Counter(refusals).most_common()
        ),
    )


def _expected(step: Step) -> str:
    if step.refusal is None:
        return f"{len(step.facts)} events"
    return step.refusal.name


def _got(answer: Answer) -> str:
    if answer.repeated:
        # Answered with the first outcome; the repetition itself has a receipt in the ledger.
        return Reason.REPEATED.name
    return f"{answer.events} events" if answer.refusal is None else answer.refusal.reason.name
