"""Author keys and the open policy on a running ledger: in force from the next block, for ever."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e import truth
from tests.e2e.conftest import Running
from tests.e2e.driver import Answer, Author, Driver
from tests.e2e.killing import kill

from nocturne.client.operating import OperatorClient
from nocturne.core.author_keys import (
    AUTHOR_KEY_REVOKED,
    AUTHOR_KEY_ROTATED,
    revoked_payload,
    rotated_payload,
)
from nocturne.core.commands import Opening
from nocturne.core.control import Control, sign_control
from nocturne.core.errors import Malformed
from nocturne.core.events import decode_event_header
from nocturne.core.genesis import OpenRule
from nocturne.core.governing import policy_fields
from nocturne.core.identifiers import LEDGER_SESSION
from nocturne.core.receipts import Reason, decode_receipt
from nocturne.embedded.ceremony import operator_key
from nocturne.runtime.keys import load_signer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]
SEED = 20261122
FACTS = Opening("facts", 1)
NOCTURNE = Path(sys.executable).with_name("nocturne")


def _author(running: Running, number: int) -> Author:
    return Author(running.ledger_id, random.Random(SEED + number))


def _reason(answer: Answer) -> Reason:
    assert answer.receipt, f"expected a receipt, got {answer}"
    return decode_receipt(answer.receipt).header.reason


async def _act(driver: Driver, author: Author, event_type: str, payload: bytes) -> Answer:
    return await driver.submit(author.command(LEDGER_SESSION, (payload,), event_type=event_type))


def test_a_rotated_and_a_revoked_key_stay_so_when_every_process_was_killed(
    running: Running,
) -> None:
    async def scenario() -> None:
        driver = running.driver()
        alice, bob = _author(running, 1), _author(running, 2)
        await driver.submit(alice.command("keys/alice", opening=FACTS))
        await driver.submit(bob.command("keys/bob", opening=FACTS))
        newer = _author(running, 3)
        rotated = await _act(
            driver, alice, AUTHOR_KEY_ROTATED, rotated_payload(alice.id, newer.signer)
        )
        revoked = await _act(driver, bob, AUTHOR_KEY_REVOKED, revoked_payload(bob.id))
        assert rotated.events, rotated
        assert revoked.events, revoked
        successor = newer.standing_for(alice.id)
        for round_of in range(2):
            for refused in (alice.command("keys/alice"), bob.command("keys/bob")):
                answer = await driver.submit_until_decided(refused)
                assert _reason(answer) is Reason.UNKNOWN_AUTHOR
            answer = await driver.submit_until_decided(successor.command("keys/alice"))
            (header,) = map(decode_event_header, answer.events)
            assert (header.author, header.key) == (alice.id, newer.signer.key)
            if round_of == 0:
                for name in (*running.validators, "signing", "projection", "query", "command"):
                    await kill(running, name, round_of)
        await driver.close()

    asyncio.run(scenario())


def test_the_operator_changes_who_may_open_what_by_the_command_line(running: Running) -> None:
    def nocturne(*arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [NOCTURNE, *arguments, "--home", str(running.home.root)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, (arguments, done.stdout, done.stderr)
        return done.stdout + done.stderr

    async def open_session(name: str) -> Answer:
        driver = running.driver()
        answer = await driver.submit(_author(running, 4).command(name, opening=FACTS))
        await driver.close()
        return answer

    before = json.loads(nocturne("policy", "show", "--json"))
    rules = [{"author": None, "kind": "facts", "prefix": "orders/"}]
    nocturne("policy", "set", json.dumps(rules))
    after = json.loads(nocturne("policy", "show", "--json"))
    assert after["number"] == before["number"] + 1
    assert after["openPolicy"] == rules
    assert asyncio.run(open_session("orders/policy")).events
    assert _reason(asyncio.run(open_session("other/1"))) is Reason.NOT_PERMITTED_TO_OPEN
    refusal = nocturne("submit", "other/2", "Seen", "{}", code=1)
    assert "NOT_PERMITTED_TO_OPEN" in refusal
    nocturne("policy", "set", json.dumps(before["openPolicy"]))
    assert asyncio.run(open_session("other/1")).events
    for wrong in ("{}", "[1]", '[{"author":"x","kind":"","prefix":""}]', "[" * 100, "@/no/file"):
        assert "Traceback" not in nocturne("policy", "set", wrong, code=2)


def test_a_control_record_that_may_not_stand_is_refused_in_words(running: Running) -> None:
    addresses = tuple(map(running.status.address, running.validators))
    operator = load_signer(operator_key(running.home))
    everyone = (OpenRule(None, "", ""),)

    async def scenario() -> None:
        async with OperatorClient(addresses, running.ledger_id) as client:
            now = await client.governance()

            def record(number: int, height: int, signer: object = operator) -> bytes:
                control = Control(
                    running.ledger_id, number, height, "OpenPolicyChanged", policy_fields(everyone)
                )
                return sign_control(control, (signer,))  # type: ignore[arg-type]

            far = now.height + 1000
            wrong = {
                "expected number": record(now.number + 2, far),
                "valid up to height": record(now.number + 1, 0),
                "operators": record(now.number + 1, far, _author(running, 5).signer),
                "control": b"garbage",
            }
            for words, bad in wrong.items():
                with pytest.raises(Malformed, match=words):
                    await client.submit(bad)
            # Of two that are brought at once one is the next.
            both = await asyncio.gather(
                *(client.submit(record(now.number + 1, far + one)) for one in range(2)),
                return_exceptions=True,
            )
            assert sorted(isinstance(one, Malformed) for one in both) == [False, True]
            # The same one, brought twice, is in one block.
            twice = await asyncio.gather(
                *(client.submit(record(now.number + 2, far)) for _ in range(2))
            )
            assert twice[0] == twice[1]

    asyncio.run(scenario())


def test_everything_agrees_with_blocks_that_carry_control_only(running: Running) -> None:
    async def settled() -> None:
        driver = running.driver()
        last = await driver.submit(_author(running, 7).command("settled/1", opening=FACTS))
        await driver.wait_readable(last.height)
        await driver.close()

    asyncio.run(settled())
    found = truth.read(running.bootstrap, running.genesis_bytes)
    truth.check(found)
    truth.check_postgres(found, running.dsn())
    assert any(one.block.control and not one.block.records for one in found.blocks)
