"""200 authors move money at random, race, overdraw and steal while processes are killed."""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
from collections import Counter
from dataclasses import dataclass, field

import pytest
from tests.e2e import truth
from tests.e2e.conftest import Running
from tests.e2e.driver import Answer, Author, Driver
from tests.e2e.killing import kill

from nocturne.core.commands import Opening
from nocturne.core.events import decode_event_header
from nocturne.core.genesis import decode_genesis
from nocturne.core.identifiers import format_hash
from nocturne.core.receipts import Reason, decode_receipt, receipt_signed
from nocturne.wire.query.v1 import query_pb2

VALIDATORS = 1
pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]

SEED = int(os.environ.get("NOCTURNE_SEED", secrets.randbelow(2**32)))
AUTHORS = 200
TRANSFERS = 8
START = 100
SESSION = "bank/1"
KILLS = 8
LOOKS = 20


@dataclass
class _Bank:
    """Who takes part, and what each was told."""

    running: Running
    dice: random.Random
    issuer: Author
    authors: list[Author]
    answers: list[Answer] = field(default_factory=list)
    head: int = 0

    async def found(self, driver: Driver) -> None:
        """One opens the session, takes the others in, each opens its account and is given money."""
        opened = self.issuer.command(
            SESSION,
            (b'{"account":"bank"}',),
            opening=Opening("accounts", 1),
            event_type="Opened",
        )
        self._note(await driver.submit(opened))
        members = [
            f'{{"author":"{format_hash(one.id)}","role":"writer"}}'.encode() for one in self.authors
        ]
        added = self.issuer.command(SESSION, tuple(members), event_type="nocturne.MemberAdded")
        self._note(await driver.submit(added))
        for answer in await asyncio.gather(
            *[
                driver.submit(
                    author.command(SESSION, (b'{"account":"%d"}' % number,), event_type="Opened")
                )
                for number, author in enumerate(self.authors)
            ]
        ):
            self._note(answer)
        money = tuple(
            b'{"account":"%d","amount":%d}' % (number, START) for number in range(AUTHORS)
        )
        self._note(await driver.submit(self.issuer.command(SESSION, money, event_type="Issued")))
        assert all(one.events for one in self.answers)

    async def transfer(self, driver: Driver, number: int) -> None:
        """Pay somebody, now and then too much, from another's account, or at a stale sequence."""
        dice = random.Random(self.dice.getrandbits(64))
        for _ in range(TRANSFERS):
            source = number if dice.randrange(10) else dice.randrange(AUTHORS)
            target = dice.choice([one for one in range(AUTHORS) if one != source])
            amount = dice.choice((1, 7, 60, 150))
            data = {"from": str(source), "to": str(target), "amount": amount}
            signed = self.authors[number].command(
                SESSION,
                (json.dumps(data).encode(),),
                event_type="Transferred",
                expected=self.head if dice.randrange(4) == 0 else None,
            )
            self._note(await driver.submit_until_decided(signed))

    def _note(self, answer: Answer) -> None:
        self.answers.append(answer)
        for header in answer.events:
            self.head = max(self.head, decode_event_header(header).sequence)


def _replayed(payloads: list[tuple[str, bytes]]) -> list[dict[str, int]]:
    """All balances after each event, by adding and taking away: no rule of the kind is used."""
    balances: dict[str, int] = {}
    after = []
    for event_type, payload in payloads:
        data = json.loads(payload)
        match event_type:
            case "Opened":
                balances[data["account"]] = 0
            case "Issued":
                balances[data["account"]] += data["amount"]
            case "Transferred":
                balances[data["from"]] -= data["amount"]
                balances[data["to"]] += data["amount"]
        after.append(dict(balances))
    return after


def test_money_is_conserved_never_negative_and_every_refusal_has_its_receipt(
    running: Running,
) -> None:
    print(f"NOCTURNE_SEED={SEED}")
    dice = random.Random(SEED)
    people = [Author(running.ledger_id, random.Random(dice.getrandbits(64))) for _ in range(201)]
    bank = _Bank(running, dice, people[0], people[1:])

    async def scenario() -> None:
        driver = running.driver()
        await bank.found(driver)
        moving = asyncio.gather(*[bank.transfer(driver, number) for number in range(AUTHORS)])
        for number in range(KILLS):
            name = dice.choice([one.name for one in running.status.services])
            await kill(running, name, number)
            if moving.done():
                break
        await moving
        await driver.wait_readable(max(one.height for one in bank.answers))
        await _check(bank, driver)
        await driver.close()

    asyncio.run(scenario())
    found = truth.read(running.bootstrap, running.genesis_bytes)
    truth.check(found)
    truth.check_postgres(found, running.dsn())


async def _check(bank: _Bank, driver: Driver) -> None:
    refused = [decode_receipt(one.receipt) for one in bank.answers if one.receipt]
    assert len(refused) + sum(bool(one.events) for one in bank.answers) == len(bank.answers)
    reasons = Counter(one.header.violated_invariant or one.header.reason.name for one in refused)
    print(f"{len(bank.answers)} commands, refused: {dict(reasons)}")
    assert set(reasons) <= {"accounts.non_negative", "accounts.holder", "S1"}
    assert reasons["accounts.non_negative"] > 0
    assert reasons["accounts.holder"] > 0
    authority = decode_genesis(bank.running.genesis_bytes).authority
    listed = {one.header_bytes for one in await driver.receipts(SESSION)}
    for one in refused:
        assert one.header_bytes in listed, "every refusal is readable"
        assert receipt_signed(
            authority, one.receipt_hash, one.timestamp, one.height, one.signatures
        )
        if one.header.reason is Reason.DUPLICATE_SEQ:
            assert one.header.head is not None

    events = await driver.events(SESSION)
    assert [one.header.sequence for one in events] == list(range(1, len(events) + 1))
    after = _replayed([(one.header.event_type, one.payload.data) for one in events])
    for sequence, balances in enumerate(after, 1):
        assert all(balance >= 0 for balance in balances.values()), f"overdrawn at {sequence}"
        if sequence >= 2 * AUTHORS + AUTHORS + 1:
            assert sum(balances.values()) == AUTHORS * START, f"not conserved at {sequence}"
    sequences = [len(after), *(bank.dice.randrange(1, len(after)) for _ in range(LOOKS))]
    for sequence in sequences:
        answer = await driver.query.GetState(
            query_pb2.GetStateRequest(session_id=SESSION, at_sequence=sequence)
        )
        state = json.loads(answer.state_json)
        assert {name: one["balance"] for name, one in state["accounts"].items()} == after[
            sequence - 1
        ]
