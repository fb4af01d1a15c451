"""The SDK against the whole stack: everything it promises, with real services."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import pytest
from tests.e2e.conftest import Running
from tests.machines import until

from nocturne.client import Client, Committed, Level, Opening, Reason, Refused, SyncClient
from nocturne.core.keys import Ed25519Signer
from nocturne.core.receipts import ReceiptHeader
from nocturne.core.strict_json import JsonValue

VALIDATORS = 1
pytestmark = pytest.mark.integration

FACTS = Opening("facts", 1)
SECONDS_MAX = 90.0


def client_of(running: Running, genesis: bool = True) -> Client:
    status = running.status
    return Client(
        status.address("command"),
        status.address("query"),
        genesis=running.genesis_bytes if genesis else None,
        ledger_id=running.ledger_id,
        signer=Ed25519Signer(os.urandom(32)),
    )


def run(running: Running, test: Callable[[Client], Awaitable[None]], genesis: bool = True) -> None:
    async def whole() -> None:
        async with client_of(running, genesis) as client:
            await test(client)

    asyncio.run(asyncio.wait_for(whole(), SECONDS_MAX))


def test_a_session_is_written_read_followed_and_exported(running: Running, tmp_path: Path) -> None:
    async def test(client: Client) -> None:
        opened = await client.append(
            "sdk/1", [client.json("A", {"n": 0})], opening=FACTS, prove=True
        )
        assert isinstance(opened, Committed)
        assert opened.level is Level.SIGNED
        assert opened.proof
        commands = [await client.build("sdk/1", [client.json("A", {"n": n})]) for n in range(600)]
        results = [result async for _, result in client.submit_many(commands)]
        assert all(isinstance(result, Committed) for result in results)
        await client.readable(
            max(result.place.height for result in results if isinstance(result, Committed))
        )
        seen = []
        async with aclosing(client.events("sdk/1", follow=True)) as events:
            async for event in events:
                seen.append(event.header.sequence)
                if len(seen) == 601:
                    await client.append("sdk/1", [client.json("A", {"n": "live"})])
                if len(seen) == 602:
                    break
        assert seen == list(range(1, 603))
        verdict = await client.export("sdk/1", tmp_path / "sdk.jsonl")
        assert verdict.holds
        assert verdict.events == 602
        session = await client.session("sdk/1")
        assert session is not None
        assert (session.kind, session.sequence) == ("facts", 602)
        assert [one.session async for one in client.sessions("sdk/")] == ["sdk/1"]
        assert (await client.status()).refused_records == ()

    run(running, test)


def test_a_refusal_has_its_receipt_and_proof(running: Running) -> None:
    async def test(client: Client) -> None:
        await client.append("sdk/2", [client.json("A", {})], opening=FACTS)
        result = await client.append(
            "sdk/2", [client.json("A", {})], expected_sequence=7, prove=True
        )
        assert isinstance(result, Refused)
        assert result.reason is Reason.DUPLICATE_SEQ
        assert result.receipt is not None
        assert result.proof
        deadline = asyncio.get_running_loop().time() + SECONDS_MAX
        found: list[ReceiptHeader] = []
        # The read side follows by itself, soon.
        while not found and asyncio.get_running_loop().time() < deadline:
            found = [one.header async for one in client.receipts("sdk/2")]
        assert found == [result.header]

    run(running, test)


def test_old_commands_get_their_first_outcome(running: Running) -> None:
    async def test(client: Client) -> None:
        signed = await client.build("sdk/3", [client.json("A", {})], opening=FACTS)
        first = await client.submit(signed)
        again = await client.submit(signed)
        assert isinstance(first, Committed)
        assert isinstance(again, Committed)
        assert (again.events, again.repeated) == (first.events, True)
        commands = [await client.build("sdk/3", [client.json("A", {})]) for _ in range(300)]
        async for _, result in client.submit_many(commands):
            assert isinstance(result, Committed)
        stale = await client.submit(signed)
        assert isinstance(stale, Committed)
        assert stale.events == first.events

    run(running, test)


def test_the_genesis_of_a_trusted_id_is_fetched(running: Running) -> None:
    async def test(client: Client) -> None:
        assert (await client.ledger()).genesis_bytes == running.genesis_bytes
        result = await client.append("sdk/4", [client.json("A", {})], opening=FACTS)
        assert isinstance(result, Committed)

    run(running, test, genesis=False)


def test_a_document_has_a_state(running: Running) -> None:
    with SyncClient(client_of(running)) as client:
        opening: Opening | None = Opening("document", 1)
        for value in ({"a": 1, "b": 2}, {"b": None, "c": [3]}):
            result = client.append(
                "sdk/5", [client.json("Patched", value)], opening=opening, prove=True
            )
            assert isinstance(result, Committed)
            opening = None
        until(lambda: state_of(client)[0] == 2, SECONDS_MAX, "both patches are applied")
        assert state_of(client) == (2, {"document": {"a": 1, "c": [3]}, "skipped": 0})


def state_of(client: SyncClient) -> tuple[int, JsonValue]:
    state = client.state("sdk/5")
    assert state is not None
    return state.sequence, state.value
