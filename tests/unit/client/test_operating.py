"""Operators bring a record to any validator: the first that answers, and to that one alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest

from nocturne.client.operating import DecidedSet, OperatorClient
from nocturne.core.errors import Malformed, Unavailable
from nocturne.core.identifiers import LedgerId
from nocturne.core.keys import Ed25519Signer, key_bytes, prove_possession, signatures_bytes
from nocturne.core.validator_sets import Member
from nocturne.wire.consensus.v1 import consensus_pb2, consensus_pb2_grpc

LEDGER = LedgerId(bytes(range(32)))


def member(number: int) -> Member:
    signer = Ed25519Signer(bytes([number]) * 32)
    return signer.key, prove_possession(signer)


def decided(first_epoch: int, *numbers: int) -> consensus_pb2.DecidedValidators:
    """A set, as a validator says it."""
    return consensus_pb2.DecidedValidators(
        first_epoch=first_epoch,
        validators=[
            consensus_pb2.ValidatorMember(key=key_bytes(key), possession=signatures_bytes(proof))
            for key, proof in map(member, numbers)
        ],
    )


class FakeValidator(consensus_pb2_grpc.ControlServiceServicer):
    """Answers with its number as the height; `away`, it answers nothing it is asked."""

    def __init__(self, number: int, ledger_id: bytes = LEDGER) -> None:
        self.number = number
        self.ledger_id = ledger_id
        self.away = False
        self.brought: list[bytes] = []
        self.sets = [decided(0, 1, 2)]

    async def GetControl(  # noqa: N802
        self, request: consensus_pb2.GetControlRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> consensus_pb2.GetControlResponse:
        await self._check(context)
        return consensus_pb2.GetControlResponse(
            ledger_id=self.ledger_id, height=self.number, epoch_length=4, validator_sets=self.sets
        )

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


def test_the_sets_that_are_decided_come_with_their_keys_and_proofs() -> None:
    async def scenario() -> None:
        validators = [FakeValidator(number) for number in range(3)]
        for one in validators:
            one.sets = [decided(0, 1, 2), decided(2, 1, 2, 3)]
        async with serving(validators) as addresses, OperatorClient(addresses, LEDGER) as client:
            now = await client.governance()
            assert now.epoch_length == 4
            assert now.sets[0] == DecidedSet(0, (member(1), member(2)))
            assert now.newest == DecidedSet(2, (member(1), member(2), member(3)))

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_liar_among_four_cannot_say_who_the_validators_are() -> None:
    async def scenario() -> None:
        validators = [FakeValidator(number) for number in range(4)]
        async with serving(validators) as addresses, OperatorClient(addresses, LEDGER) as client:
            validators[0].sets = [decided(0, 7, 8)]
            now = await client.agreed_governance()
            assert now.newest.members == (member(1), member(2))
            assert now.height == 2, "the median of those that agree"
            # The record goes to one that told the truth.
            assert (await client.submit(b"record")).height == 1
            # One away and one that lies: two agree, and of four one may lie.
            validators[3].away = True
            assert (await client.agreed_governance()).newest.members == (member(1), member(2))
            # With the third away nobody is believed.
            validators[2].away = True
            with pytest.raises(Unavailable, match="2 of 4 have to say the same, and 1 do"):
                await client.agreed_governance()
            for one in validators:
                one.away = True
            with pytest.raises(Unavailable, match="does not certify"):
                await client.agreed_governance()

    asyncio.run(asyncio.wait_for(scenario(), 30))


@pytest.mark.parametrize(
    "sets, words",
    [
        ([], "1 to 3 validator sets"),
        ([decided(number, 1) for number in range(4)], "1 to 3 validator sets"),
        ([decided(2, 1), decided(2, 1)], "ascending"),
        ([decided(-1, 1)], "ascending"),
        ([decided(0)], "1 to 1024 validators"),
        ([decided(0, *[1] * 1025)], "1 to 1024 validators"),
        (
            [consensus_pb2.DecidedValidators(validators=[consensus_pb2.ValidatorMember(key=b"x")])],
            "key",
        ),
    ],
)
def test_sets_that_no_validator_says_are_malformed(
    sets: list[consensus_pb2.DecidedValidators], words: str
) -> None:
    async def scenario() -> None:
        validator = FakeValidator(0)
        validator.sets = sets
        async with serving([validator]) as addresses, OperatorClient(addresses, LEDGER) as client:
            with pytest.raises(Malformed, match=words):
                await client.governance()

    asyncio.run(asyncio.wait_for(scenario(), 30))
