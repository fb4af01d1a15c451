"""Operators bring a record to any validator: the first that answers, and to that one alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest

from nocturne.client.operating import OperatorClient
from nocturne.core.errors import Malformed, Unavailable
from nocturne.core.identifiers import LedgerId
from nocturne.wire.consensus.v1 import consensus_pb2, consensus_pb2_grpc

LEDGER = LedgerId(bytes(range(32)))


class FakeValidator(consensus_pb2_grpc.ControlServiceServicer):
    """Answers with its number as the height; `away`, it answers nothing it is asked."""

    def __init__(self, number: int, ledger_id: bytes = LEDGER) -> None:
        self.number = number
        self.ledger_id = ledger_id
        self.away = False
        self.brought: list[bytes] = []

    async def GetControl(  # noqa: N802
        self, request: consensus_pb2.GetControlRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> consensus_pb2.GetControlResponse:
        await self._check(context)
        return consensus_pb2.GetControlResponse(ledger_id=self.ledger_id, height=self.number)

    async def SubmitControl(  # noqa: N802
        self,
        request: consensus_pb2.SubmitControlRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> consensus_pb2.SubmitControlResponse:
        self.brought.append(request.signed_control)
        await self._check(context)
        return consensus_pb2.SubmitControlResponse(height=self.number, digest=bytes(32))

    async def _check(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        if self.away:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"{self.number} does not certify")


@asynccontextmanager
async def serving(validators: Sequence[FakeValidator]) -> AsyncIterator[list[str]]:
    """Their addresses, while they serve."""
    async with AsyncExitStack() as stack:
        addresses = []
        for one in validators:
            server = grpc.aio.server()
            consensus_pb2_grpc.add_ControlServiceServicer_to_server(one, server)
            addresses.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
            await server.start()
            stack.push_async_callback(server.stop, None)
        yield addresses


def test_a_validator_that_is_away_is_passed_over() -> None:
    async def scenario() -> None:
        validators = [FakeValidator(number) for number in range(3)]
        async with serving(validators) as addresses:
            validators[1].away = True
            # Nobody listens on the first: its server never was.
            named = ["127.0.0.1:1", *addresses[1:]]
            async with OperatorClient(named, LEDGER) as client:
                assert (await client.governance()).height == 2
                assert (await client.submit(b"record")).height == 2
        assert [one.brought for one in validators] == [[], [], [b"record"]]

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_record_is_brought_once_even_if_the_validator_goes_away_with_it() -> None:
    async def scenario() -> None:
        validators = [FakeValidator(number) for number in range(2)]
        async with serving(validators) as addresses, OperatorClient(addresses, LEDGER) as client:
            await client.governance()
            validators[0].away = True
            with pytest.raises(Unavailable, match="0 does not certify"):
                await client.submit(b"record")
            assert [one.brought for one in validators] == [[b"record"], []]
            # Asked again, the client looks for one that answers first.
            assert (await client.submit(b"record")).height == 1

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_when_nobody_answers_the_last_cause_is_told() -> None:
    async def scenario() -> None:
        validators = [FakeValidator(number) for number in range(2)]
        for one in validators:
            one.away = True
        async with serving(validators) as addresses, OperatorClient(addresses, LEDGER) as client:
            with pytest.raises(Unavailable, match="1 does not certify"):
                await client.submit(b"record")

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_another_ledger_is_no_reason_to_ask_the_next() -> None:
    async def scenario() -> None:
        validators = [FakeValidator(0, bytes(32)), FakeValidator(1)]
        async with serving(validators) as addresses, OperatorClient(addresses, LEDGER) as client:
            with pytest.raises(Malformed, match="another ledger"):
                await client.governance()

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_an_operators_client_without_an_address_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="got none"):
        OperatorClient((), LEDGER)
