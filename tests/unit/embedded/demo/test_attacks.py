"""A verdict is what was observed: where nothing is noticed, the attack counts as not caught."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import Any, cast

import pytest
from tests.vectors.synthetic import example_ledger

from nocturne.audit.verify import Verdict as Checked
from nocturne.core.identifiers import SessionId
from nocturne.core.keys import Ed25519Signer
from nocturne.embedded.demo import attacks, scenario
from nocturne.embedded.demo.people import People
from nocturne.embedded.demo.purchase import DEPARTMENTS
from nocturne.embedded.demo.stage import Stage

LEDGER = example_ledger()
SESSION = SessionId("orders/1")
EXPORT = b"".join(LEDGER.export(SESSION))
PEOPLE = People(
    LEDGER.state.ledger_id,
    {name: Ed25519Signer(name.encode().ljust(32, b".")) for name in DEPARTMENTS},
    bytes(32),
)


class _Files(Stage):
    """A stage without a running ledger: whatever is asked for, its export is the example's."""

    async def export(self, session: SessionId) -> bytes:
        return EXPORT


class _Credulous(_Files):
    """Its verifier finds nothing wrong with anything."""

    def verify(self, export: bytes, *, trusting: bool = True) -> Checked:
        good = super().verify(EXPORT)
        return replace(good, identity_checked=trusting)


class _Hostile(_Files):
    """Its verifier refuses everything, good exports too."""

    def verify(self, export: bytes, *, trusting: bool = True) -> Checked:
        return replace(super().verify(export, trusting=trusting), fault="no")


def _stage(kind: type[Stage]) -> Stage:
    none = cast("Any", None)
    return kind(
        client=none,
        query=none,
        people=PEOPLE,
        plan=scenario.plan(1, 150, PEOPLE.authors),
        genesis_bytes=LEDGER.genesis_bytes,
        kafka={},
        dsn="",
        dice=random.Random(1),
    )


async def _on_files(stage: Stage) -> list[bool]:
    verdicts = [
        await attacks.withheld_receipt(stage),
        await attacks.flipped_bits(stage, SESSION),
        await attacks.self_made_ledger(stage, SESSION),
    ]
    return [verdict.caught for verdict in verdicts]


def test_the_verifier_catches_what_is_done_to_an_export() -> None:
    assert asyncio.run(_on_files(_stage(_Files))) == [True, True, True]


@pytest.mark.parametrize("kind", [_Credulous, _Hostile])
def test_a_verifier_that_cannot_tell_good_from_bad_catches_nothing(kind: type[Stage]) -> None:
    assert asyncio.run(_on_files(_stage(kind))) == [False, False, False]


@pytest.mark.parametrize("commands", [100, 150, 300, 5000])
def test_every_plan_has_the_orders_that_are_attacked(commands: int) -> None:
    stage = replace(_stage(_Files), plan=scenario.plan(9, commands, PEOPLE.authors))
    assert attacks._paid_order(stage) != attacks._open_order(stage)
    assert attacks._outdated_order(stage).startswith("orders/")
