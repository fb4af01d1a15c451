"""The command service with a real broker, a real validator and a real authority."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import Any

import grpc
import pytest
from confluent_kafka import Producer
from google.rpc import code_pb2, error_details_pb2, status_pb2
from tests.machines import free_ports, until
from tests.stand import SECONDS_MAX, Running, Stand, author, fresh_topics

from nocturne.core import exports
from nocturne.core.blocks import decode_block
from nocturne.core.commands import (
    Command,
    EventDraft,
    Opening,
    Payload,
    SignedCommand,
    encode_signed_command,
    payload_hash,
    sign_command,
)
from nocturne.core.errors import Malformed
from nocturne.core.events import decode_event_header
from nocturne.core.identifiers import AuthorId, CommandId, SessionId, format_id
from nocturne.core.keys import Signer, key_id
from nocturne.core.receipts import (
    Reason,
    decode_receipt,
    decode_receipt_header,
    receipt_signed,
)
from nocturne.core.topics import BLOCKS, COMMANDS, SEALS, frame, unframe
from nocturne.embedded.kafka import Broker
from nocturne.embedded.processes import grpc_serves, launched
from nocturne.runtime.kafka import ProducedRecord
from nocturne.wire.command.v1 import command_pb2, command_pb2_grpc

pytestmark = pytest.mark.integration

ALICE = author(1)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class CommandStand(Stand):
    """The stand with a command service."""

    def start_command(self, **environment: str) -> Running:
        port = free_ports("command")["command"]
        log = self.folder / "command.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                launched([sys.executable, "-m", "nocturne.command"]),
                env={
                    **os.environ,
                    "NOCTURNE_GENESIS_FILE": str(self.genesis_file),
                    "NOCTURNE_HOME_DIR": str(self.home.data("command")),
                    "NOCTURNE_LISTEN": f"127.0.0.1:{port}",
                    "NOCTURNE_KAFKA_BOOTSTRAP": self.bootstrap,
                    **environment,
                },
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        return Running(process, log, f"127.0.0.1:{port}")

    def wait_serving(self, running: Running) -> None:
        until(
            lambda: grpc_serves(running.address) or running.process.poll() is not None,
            SECONDS_MAX,
            "command is healthy",
        )
        assert running.process.poll() is None, running.said()

    def make(
        self,
        session: str,
        number: int,
        *,
        expected: int | None = None,
        opening: Opening | None = None,
        payloads: Sequence[bytes] = (b"{}",),
        signer: Signer = ALICE,
    ) -> SignedCommand:
        carried = tuple(Payload(os.urandom(32), data) for data in payloads)
        command = Command(
            self.ledger_id,
            SessionId(session),
            AuthorId(key_id(ALICE.key)),
            ALICE.key,
            CommandId(number.to_bytes(16, "big")),
            expected,
            opening,
            1_700_000_000_000,
            tuple(EventDraft("Seen", "application/json", payload_hash(one)) for one in carried),
        )
        return sign_command(command, carried, signer)


@pytest.fixture(scope="module")
def stand(kafka_broker: Broker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandStand]:
    made = CommandStand(tmp_path_factory.mktemp("command"), kafka_broker.bootstrap)
    fresh_topics(kafka_broker.bootstrap, made.partitions)
    made.start("consensus")
    made.start("signing")
    yield made
    made.stop_all()


@pytest.fixture(scope="module")
def command(stand: CommandStand) -> Iterator[Running]:
    running = stand.start_command()
    stand.wait_serving(running)
    yield running
    assert running.stop() == 0, running.said()


Stub = Any


def ask(running: Running, work: Callable[[Stub], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with grpc.aio.insecure_channel(running.address) as channel:
            await asyncio.wait_for(work(command_pb2_grpc.CommandServiceStub(channel)), SECONDS_MAX)

    asyncio.run(bounded())


def request(signed: SignedCommand, **fields: Any) -> command_pb2.SubmitRequest:
    return command_pb2.SubmitRequest(signed_command=encode_signed_command(signed), **fields)


FACTS = Opening("facts", 1)


def test_a_command_comes_back_signed_with_its_events(stand: CommandStand, command: Running) -> None:
    signed = stand.make("first/1", 1, opening=FACTS, payloads=(b"{}", b"[]"))

    async def work(stub: Stub) -> None:
        answer = await stub.Submit(request(signed), metadata=[("traceparent", TRACE)])
        outcome = answer.outcome
        assert outcome.level == command_pb2.LEVEL_SIGNED
        assert outcome.decided
        assert outcome.durability == "flushed"
        assert outcome.command_hash == signed.command_hash
        headers = [decode_event_header(one) for one in outcome.events]
        assert [one.sequence for one in headers] == [1, 2]
        assert {one.command_hash for one in headers} == {signed.command_hash}
        assert outcome.position.log_epoch == 1
        assert outcome.position.partition == headers[0].position.partition

    ask(command, work)
    messages = [
        message
        for message in stand.read_all(COMMANDS, committed=False)
        if message.key() == b"first/1"
    ]
    assert len(messages) == 1
    headers = dict(messages[0].headers() or [])
    assert headers["ce_id"] == format_id(signed.command.command_id).encode()
    assert headers["ce_source"] == stand.source.encode()
    assert headers["traceparent"] == TRACE.encode()
    assert unframe(messages[0].value()) == encode_signed_command(signed)


def test_a_refused_command_comes_back_with_its_signed_receipt(
    stand: CommandStand, command: Running
) -> None:
    signed = stand.make("nowhere/1", 2, expected=5)
    forged = stand.make("nowhere/1", 3, signer=author(2))

    async def work(stub: Stub) -> None:
        for one in (signed, forged):
            outcome = (await stub.Submit(request(one))).outcome
            assert outcome.level == command_pb2.LEVEL_SIGNED
            assert not outcome.events
            receipt = decode_receipt(outcome.receipt)
            assert receipt.header == decode_receipt_header(outcome.receipt_header)
            assert receipt.header.command_hash == one.command_hash
            assert receipt_signed(
                stand.genesis.authority,
                receipt.receipt_hash,
                outcome.timestamp_ms,
                outcome.height,
                receipt.signatures,
            )
        assert receipt.header.reason is Reason.SIGNATURE_INVALID

    ask(command, work)


def test_a_repeated_command_comes_back_with_the_first_outcome(
    stand: CommandStand, command: Running
) -> None:
    signed = stand.make("again/1", 1, opening=FACTS)

    async def work(stub: Stub) -> None:
        first = (await stub.Submit(request(signed))).outcome
        second = (await stub.Submit(request(signed))).outcome
        assert (first.repeated, second.repeated) == (False, True)
        assert second.events == first.events
        assert second.position.offset > first.position.offset
        assert second.level == command_pb2.LEVEL_SIGNED

    ask(command, work)


def test_a_proof_comes_when_asked_for(stand: CommandStand, command: Running) -> None:
    signed = stand.make("proved/1", 1, opening=FACTS)

    async def work(stub: Stub) -> None:
        outcome = (await stub.Submit(request(signed, with_proof=True))).outcome
        block, disposition = map(exports.parse_line, exports.split_proof(outcome.proof))
        assert isinstance(block, exports.BlockLine)
        assert isinstance(disposition, exports.EventsLine)
        assert block.digest == outcome.block_digest
        assert list(disposition.headers()) == list(outcome.events)

    ask(command, work)


def test_each_level_can_be_waited_for_and_the_others_are_not_configured(
    stand: CommandStand, command: Running
) -> None:
    async def work(stub: Stub) -> None:
        for number, level in enumerate(
            (command_pb2.LEVEL_ACCEPTED, command_pb2.LEVEL_CERTIFIED, command_pb2.LEVEL_SIGNED)
        ):
            signed = stand.make(f"level/{number}", 1, opening=FACTS)
            outcome = (await stub.Submit(request(signed, wait=level))).outcome
            assert outcome.level >= level
            assert outcome.decided == (level > command_pb2.LEVEL_ACCEPTED)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Submit(request(signed, wait=command_pb2.LEVEL_ANCHORED))
        assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "not configured" in (caught.value.details() or "")

    ask(command, work)


def details(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin":
            return status_pb2.Status.FromString(value)
    raise AssertionError("no details")


def test_what_is_not_a_command_is_refused_with_details(
    stand: CommandStand, command: Running
) -> None:
    limit = stand.genesis.limits.record_bytes_max
    good = encode_signed_command(stand.make("x/1", 1))

    async def work(stub: Stub) -> None:
        for data in (b"", b"nonsense", good[:-1], good + b"\x00", bytes(limit)):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Submit(command_pb2.SubmitRequest(signed_command=data))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            status = details(caught.value)
            assert status.code == code_pb2.INVALID_ARGUMENT
            bad = error_details_pb2.BadRequest()
            assert status.details[0].Unpack(bad)
            assert bad.field_violations[0].field == "signed_command"

    ask(command, work)


def test_a_command_over_the_ledgers_limit_but_not_the_records_gets_its_receipt(
    stand: CommandStand, command: Running
) -> None:
    size = stand.genesis.limits.command_bytes_max
    signed = stand.make("large/1", 1, opening=FACTS, payloads=(b'"' + b"x" * size + b'"',))

    async def work(stub: Stub) -> None:
        outcome = (await stub.Submit(request(signed))).outcome
        assert decode_receipt(outcome.receipt).header.reason is Reason.TOO_LARGE

    ask(command, work)


def test_a_deadline_answers_with_the_level_reached(stand: CommandStand, command: Running) -> None:
    signed = stand.make("hasty/1", 1, opening=FACTS)

    async def work(stub: Stub) -> None:
        outcome = (await stub.Submit(request(signed, deadline_ms=1))).outcome
        assert outcome.level <= command_pb2.LEVEL_SIGNED
        assert outcome.command_hash == signed.command_hash
        again = (await stub.Submit(request(signed))).outcome
        assert again.level == command_pb2.LEVEL_SIGNED
        assert len(again.events) == 1
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Submit(request(signed, deadline_ms=10**9))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    ask(command, work)


def test_a_stream_answers_every_command_once(stand: CommandStand, command: Running) -> None:
    count, batch = 3000, 250
    sessions = [f"stream/{number}" for number in range(10)]
    opened = [stand.make(name, 0, opening=FACTS) for name in sessions]
    signed = [stand.make(sessions[n % 10], n + 1) for n in range(count)]

    async def requests(
        commands: Sequence[SignedCommand],
    ) -> AsyncIterator[command_pb2.SubmitStreamRequest]:
        for first in range(0, len(commands), batch):
            yield command_pb2.SubmitStreamRequest(
                commands=[
                    command_pb2.StreamCommand(
                        correlation=first + index, signed_command=encode_signed_command(one)
                    )
                    for index, one in enumerate(commands[first : first + batch])
                ],
            )

    async def answers(
        stub: Stub, commands: Sequence[SignedCommand]
    ) -> dict[int, command_pb2.Outcome]:
        found: dict[int, command_pb2.Outcome] = {}
        async for response in stub.SubmitStream(requests(commands)):
            for one in response.outcomes:
                assert one.WhichOneof("result") == "outcome"
                assert one.correlation not in found
                found[one.correlation] = one.outcome
        return found

    async def work(stub: Stub) -> None:
        await answers(stub, opened)
        found = await answers(stub, signed)
        assert sorted(found) == list(range(count))
        for number, outcome in found.items():
            assert outcome.command_hash == signed[number].command_hash
            assert outcome.level == command_pb2.LEVEL_SIGNED
            assert len(outcome.events) == 1

    ask(command, work)


def test_a_stream_refuses_one_command_and_takes_the_others(
    stand: CommandStand, command: Running
) -> None:
    good = stand.make("mixed/1", 1, opening=FACTS)

    async def work(stub: Stub) -> None:
        call = stub.SubmitStream()
        await call.write(
            command_pb2.SubmitStreamRequest(
                commands=[
                    command_pb2.StreamCommand(correlation=7, signed_command=b"nonsense"),
                    command_pb2.StreamCommand(
                        correlation=8, signed_command=encode_signed_command(good)
                    ),
                ]
            )
        )
        await call.write(
            command_pb2.SubmitStreamRequest(
                commands=[command_pb2.StreamCommand(correlation=9, signed_command=b"")],
                wait=command_pb2.LEVEL_WITNESSED,
            )
        )
        await call.done_writing()
        found = {}
        async for response in call:
            found.update({one.correlation: one for one in response.outcomes})
        assert found[7].refusal.code == code_pb2.INVALID_ARGUMENT
        assert found[8].outcome.level == command_pb2.LEVEL_SIGNED
        assert found[9].refusal.code == code_pb2.FAILED_PRECONDITION

    ask(command, work)


def test_a_caller_that_goes_leaves_nothing_waiting(stand: CommandStand, command: Running) -> None:
    signed = [stand.make("gone/1", number, expected=9) for number in range(50)]

    async def work(stub: Stub) -> None:
        call = stub.SubmitStream()
        await call.write(
            command_pb2.SubmitStreamRequest(
                commands=[
                    command_pb2.StreamCommand(
                        correlation=number, signed_command=encode_signed_command(one)
                    )
                    for number, one in enumerate(signed)
                ]
            )
        )
        call.cancel()
        outcome = (await stub.Submit(request(stand.make("gone/2", 1, opening=FACTS)))).outcome
        assert outcome.level == command_pb2.LEVEL_SIGNED

    ask(command, work)


def test_records_of_strangers_on_the_service_topics_are_skipped(
    stand: CommandStand, command: Running
) -> None:
    block = stand.read(BLOCKS)[-1].value()
    assert block is not None
    forged = bytearray(block)
    forged[-1] ^= 1
    assert decode_block(unframe(block)).header.height > 0
    stand.submit(
        [
            ProducedRecord(BLOCKS, 0, b"x", b"junk"),
            ProducedRecord(BLOCKS, 0, b"x", bytes(forged)),
            ProducedRecord(SEALS, 0, b"x", frame(3, b"junk")),
            ProducedRecord("nocturne.receipts.v1", 0, b"x", frame(5, b"junk")),
            # A tombstone.
            ProducedRecord(BLOCKS, 0, b"x", b""),
        ]
    )
    signed = stand.make("calm/1", 1, opening=FACTS)
    refused = stand.make("calm/2", 1, expected=3)

    async def work(stub: Stub) -> None:
        for one in (signed, refused):
            outcome = (await stub.Submit(request(one))).outcome
            assert outcome.level == command_pb2.LEVEL_SIGNED

    ask(command, work)
    assert command.said().count("record_invalid") >= 3


def test_a_transaction_left_open_by_a_stranger_hides_nothing(
    stand: CommandStand, command: Running
) -> None:
    hung = Producer({"bootstrap.servers": stand.bootstrap, "transactional.id": "hung"})
    hung.init_transactions(SECONDS_MAX)
    hung.begin_transaction()
    for topic in (BLOCKS, SEALS, "nocturne.receipts.v1"):
        hung.produce(topic, b"junk", partition=0)
    hung.flush(SECONDS_MAX)

    async def work(stub: Stub) -> None:
        for number in range(8):
            signed = stand.make(f"hung/{number}", 1, expected=number % 2, opening=None)
            opened = stand.make(f"hung/{number}", 2, opening=FACTS)
            for one in (signed, opened):
                outcome = (await stub.Submit(request(one))).outcome
                assert outcome.level == command_pb2.LEVEL_SIGNED

    try:
        ask(command, work)
    finally:
        hung.abort_transaction(SECONDS_MAX)


def test_over_its_rate_a_sender_is_told_when_to_come_back(stand: CommandStand) -> None:
    running = stand.start_command(NOCTURNE_RATE_PER_SECOND="0.01", NOCTURNE_RATE_BURST="2")
    stand.wait_serving(running)

    async def work(stub: Stub) -> None:
        for number in range(2):
            await stub.Submit(request(stand.make(f"rate/{number}", 1, opening=FACTS)))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Submit(request(stand.make("rate/3", 1, opening=FACTS)))
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        retry = error_details_pb2.RetryInfo()
        assert details(caught.value).details[0].Unpack(retry)
        # A token in 100 s, less what the two before took.
        assert 20 < retry.retry_delay.seconds <= 100

    try:
        ask(running, work)
    finally:
        assert running.stop() == 0, running.said()


def test_a_durability_that_the_topic_has_not_is_not_claimed(
    stand: CommandStand,
) -> None:
    running = stand.start_command(NOCTURNE_DURABILITY="replicated")
    assert running.ended() == 1
    assert "min.insync.replicas" in running.said()


# The last one: a service that starts behind old copies may wait for blocks before them.


def is_block(value: bytes | None) -> bool:
    try:
        decode_block(unframe(value))
    except Malformed:
        return False
    return True


def test_blocks_that_come_again_in_any_order_change_nothing(
    stand: CommandStand, command: Running
) -> None:
    async def submit(stub: Stub, signed: SignedCommand) -> None:
        outcome = (await stub.Submit(request(signed))).outcome
        assert outcome.level == command_pb2.LEVEL_SIGNED

    for number in range(3):
        signed = stand.make("again/1", number + 1, opening=FACTS if number == 0 else None)
        ask(command, partial(submit, signed=signed))
    # What strangers wrote in other tests would be counted again.
    values = [one.value() for one in stand.read(BLOCKS) if is_block(one.value())]
    invalid = command.said().count("record_invalid")
    stand.submit([ProducedRecord(BLOCKS, 0, b"1", value) for value in reversed(values)])
    ask(command, partial(submit, signed=stand.make("again/1", 4)))
    assert command.said().count("record_invalid") == invalid
