"""Run the business case, most of it at full speed and the rest paced, and hold it to its plan."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, assert_never

from nocturne.client import Client, Committed, Level, Refused, Result, Status, Undecided
from nocturne.core.errors import NocturneError
from nocturne.core.receipts import Reason
from nocturne.embedded.demo import load
from nocturne.embedded.demo.findings import Burst, Counts, Light, RefusedFor, Samples
from nocturne.embedded.demo.load import Answer, Command
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


async def run(client: Client, plan: Plan, people: People, count: Callable[[int, int], None]) -> Ran:
    """Send the whole plan in its order. `NotAsPlanned` names the first outcome that differs."""
    total = len(plan.steps)
    done = 0

    def one_more() -> None:
        nonlocal done
        done += 1
        count(done, total)

    split = total - round(total * PACED_SHARE)
    fast, paced = plan.steps[:split], plan.steps[split:]
    began = time.perf_counter()
    commands = [Command(partial(people.signed, step), None) for step in fast]
    answers = await load.offer(client, commands, Level.SIGNED, one_more)
    seconds = time.perf_counter() - began
    check(fast, answers)
    slower = await _paced(client, paced, people, one_more)
    return Ran(
        Burst(len(fast), seconds, Level.SIGNED.name.lower()),
        Light(
            PACED_PER_SECOND,
            tuple(
                Samples.of(level.name.lower(), [one.ms for one in slower if one.wait is level])
                for level in PACED_LEVELS
            ),
        ),
        max(_height(answer.result) for answer in (*answers, *slower)),
    )


async def _paced(
    client: Client, steps: Sequence[Step], people: People, count: Callable[[], None]
) -> list[Answer]:
    """Each step in its turn, half of the sessions awaiting one level, half the other: a session's
    commands stay on one stream, and so in order.
    """
    began = time.perf_counter()
    streams: dict[Level, list[tuple[Step, Command]]] = {level: [] for level in PACED_LEVELS}
    sessions = {session: index for index, session in enumerate({one.session for one in steps})}
    for index, step in enumerate(steps):
        level = PACED_LEVELS[sessions[step.session] % len(PACED_LEVELS)]
        due = began + index / PACED_PER_SECOND
        streams[level].append((step, Command(partial(people.signed, step), due)))
    async with asyncio.TaskGroup() as group:
        tasks = {
            level: group.create_task(
                load.offer(client, [command for _, command in stream], level, count)
            )
            for level, stream in streams.items()
        }
    for level, stream in streams.items():
        check([step for step, _ in stream], tasks[level].result())
    return [answer for task in tasks.values() for answer in task.result()]


def check(steps: Sequence[Step], answers: Sequence[Answer]) -> None:
    """Every answer is what its step foresees; `NotAsPlanned` names the first that is not."""
    for step, answer in zip(steps, answers, strict=True):
        expected, got = _expected(step), _got(answer)
        if got != expected:
            raise NotAsPlanned(f"a command of {step.session}: expected {expected}, got {got}")


def counts_of(plan: Plan, status: Status) -> Counts:
    """What the read side counts, which must be what the plan comes to; else `NotAsPlanned`."""
    refusals = plan.refusals
    expected = (plan.events, sum(refusals.values()), len(plan.steps))
    got = (status.events, status.receipts, status.records)
    if got != expected:
        raise NotAsPlanned(
            f"events, receipts and commands in Postgres: expected {expected}, got {got}"
        )
    return Counts(
        status.records,
        status.events,
        status.receipts,
        len(plan.sessions),
        status.applied_through.height,
        tuple(
            RefusedFor(reason.name, MEANINGS[reason], number)
            for reason, number in Counter(refusals).most_common()
        ),
    )


def _expected(step: Step) -> str:
    if step.refusal is None:
        return f"{len(step.facts)} events"
    return step.refusal.name


def _got(answer: Answer) -> str:
    match answer.result:
        case Undecided():
            return "no decision in time"
        case result if result.level < answer.wait:
            return f"level {result.level.name.lower()}"
        case Committed(repeated=True) | Refused(repeated=True):
            # Answered with the first outcome; the repetition has a receipt of its own.
            return Reason.REPEATED.name
        case Committed(events=events):
            return f"{len(events)} events"
        case Refused(header=header):
            return header.reason.name
        case unreachable:
            assert_never(unreachable)


def _height(result: Result) -> int:
    return 0 if isinstance(result, Undecided) else result.place.height
