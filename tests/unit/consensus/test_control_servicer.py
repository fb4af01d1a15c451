"""ControlService: what operators are told, and who takes what they bring."""

from __future__ import annotations

import asyncio

import grpc
import pytest
from tests.unit.consensus.ledgers import Ledger

from nocturne.client.operating import OperatorClient
from nocturne.consensus.control_servicer import ControlDesk, ControlServicer
from nocturne.consensus.log_reading import LogState
from nocturne.core.errors import Unavailable
from nocturne.core.validator_sets import check_members
from nocturne.wire.consensus.v1 import consensus_pb2_grpc


async def nobody_asks() -> LogState:
    raise AssertionError("nobody asks where the log stands")


def test_who_only_observes_takes_no_record_for_nobody_would_hear_of_it() -> None:
    ledger = Ledger()
    in_set = True
    brought: list[bytes] = []

    def bring(record: bytes) -> bool:
        brought.append(record)
        return True

    async def scenario() -> None:
        nonlocal in_set
        desk = ControlDesk()
        server = grpc.aio.server()
        consensus_pb2_grpc.add_ControlServiceServicer_to_server(ControlServicer(desk), server)
        address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        async with OperatorClient(address, ledger.ledger_id) as client:
            with pytest.raises(Unavailable, match="it starts, or observes only"):
                await client.governance()
            desk.open(ledger.chain, bring, lambda: in_set, nobody_asks)
            now = await client.governance()
            (one,) = now.sets
            assert (one.first_epoch, now.epoch_length) == (0, ledger.genesis.epoch_length)
            assert one.members == ledger.genesis.validators
            check_members(one.members)
            in_set = False
            with pytest.raises(Unavailable, match="it starts, or observes only"):
                await client.governance()
            with pytest.raises(Unavailable, match="it starts, or observes only"):
                await client.submit(b"record")
        await server.stop(None)

    asyncio.run(asyncio.wait_for(scenario(), 30))
    assert brought == []
