"""Every outcome is held to the plan, and the first that differs ends the demonstration."""

from __future__ import annotations

from typing import Any, cast

import pytest

from nocturne.client import Committed, Level, Refused, Undecided
from nocturne.client.results import AppliedThrough, Status
from nocturne.core.identifiers import AuthorId, Hash
from nocturne.core.receipts import Reason, ReceiptHeader
from nocturne.embedded.demo import business, scenario
from nocturne.embedded.demo.business import NotAsPlanned
from nocturne.embedded.demo.load import Answer
from nocturne.embedded.demo.purchase import DEPARTMENTS

AUTHORS = {name: AuthorId(name.encode().ljust(32, b".")) for name in DEPARTMENTS}
PLAN = scenario.plan(20261121, 600, AUTHORS)
NOTHING = cast("Any", None)
HASH = Hash(bytes(32))


def _committed(events: int, *, repeated: bool = False, level: Level = Level.SIGNED) -> Committed:
    return Committed(HASH, level, NOTHING, (NOTHING,) * events, repeated, b"")


def _refused(reason: Reason) -> Refused:
    header = cast("ReceiptHeader", type("Header", (), {"reason": reason})())
    return Refused(HASH, Level.SIGNED, NOTHING, header, None, False, b"")


def _as_planned() -> list[Answer]:
    answers = []
    for step in PLAN.steps:
        result: Committed | Refused
        if step.refusal is None:
            result = _committed(len(step.facts))
        elif step.refusal is Reason.REPEATED:
            result = _committed(1, repeated=True)
        else:
            result = _refused(step.refusal)
        answers.append(Answer(result, Level.SIGNED, 1.0))
    return answers


def test_what_was_foreseen_passes() -> None:
    business.check(PLAN.steps, _as_planned())


@pytest.mark.parametrize(
    "result, said",
    [
        (_committed(99), "got 99 events"),
        (_committed(1, repeated=True), "got REPEATED"),
        (_refused(Reason.NOT_A_MEMBER), "got NOT_A_MEMBER"),
        (Undecided(HASH, Level.ACCEPTED), "got no decision in time"),
        (_committed(1, level=Level.CERTIFIED), "got level certified"),
    ],
)
def test_the_first_outcome_that_differs_is_named(
    result: Committed | Refused | Undecided, said: str
) -> None:
    answers = _as_planned()
    accepted = next(i for i, step in enumerate(PLAN.steps) if step.refusal is None)
    answers[accepted] = Answer(result, Level.SIGNED, 1.0)
    with pytest.raises(NotAsPlanned, match=said) as caught:
        business.check(PLAN.steps, answers)
    assert PLAN.steps[accepted].session in str(caught.value)


def test_an_accepted_forgery_is_not_as_planned() -> None:
    answers = _as_planned()
    refused = next(i for i, step in enumerate(PLAN.steps) if step.refusal is not None)
    answers[refused] = Answer(_committed(1), Level.SIGNED, 1.0)
    with pytest.raises(NotAsPlanned, match="got 1 events"):
        business.check(PLAN.steps, answers)


def _status(events: int, receipts: int, records: int) -> Status:
    return Status(AppliedThrough(7, HASH, 0), 0, events, receipts, records, ())


def test_the_read_side_must_count_what_the_plan_comes_to() -> None:
    receipts = sum(PLAN.refusals.values())
    counts = business.counts_of(PLAN, _status(PLAN.events, receipts, 600))
    assert (counts.commands, counts.events, counts.receipts) == (600, PLAN.events, receipts)
    assert sum(one.count for one in counts.refused) == receipts
    for wrong in ((PLAN.events - 1, receipts, 600), (PLAN.events, receipts + 1, 600)):
        with pytest.raises(NotAsPlanned, match="in Postgres"):
            business.counts_of(PLAN, _status(*wrong))


def test_every_reason_of_the_plan_has_words() -> None:
    assert set(scenario.plan(20261121, 5000, AUTHORS).refusals) <= set(business.MEANINGS)
