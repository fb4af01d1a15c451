"""Storms at every entrance of a running ledger: refused in words or answered by a verified receipt;
every service stays up and grows little; honest work goes on and everything agrees in the end.

NOCTURNE_HOSTILE_SEED replays a storm, NOCTURNE_HOSTILE_INPUTS makes it shorter or longer.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import grpc
import grpc.aio
import psutil
import pytest
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from google.rpc import code_pb2
from tests.e2e import truth
from tests.e2e.conftest import Running
from tests.e2e.driver import OPTIONS, Author, Driver
from tests.hostile import samples
from tests.hostile.bad_commands import Wrongs
from tests.hostile.inputs import hostile_bytes, hostile_text, oversize
from tests.hostile.test_parsers import GROWTH_BYTES_MAX, INPUTS, SEED
from tests.machines import until
from tests.unit.core import shapes

from nocturne.consensus.handshake import Calling
from nocturne.core import topics
from nocturne.core.access import EXCHANGE
from nocturne.core.blocks import encode_seal
from nocturne.core.commands import Opening, encode_signed_command
from nocturne.core.evidence import encode_evidence
from nocturne.core.genesis import Genesis, decode_genesis
from nocturne.core.identifiers import format_id
from nocturne.core.keys import Ed25519Signer
from nocturne.core.receipts import decode_receipt, hash_receipt, receipt_signed
from nocturne.embedded.services import VALIDATORS_DEFAULT, services_of
from nocturne.embedded.status import Health
from nocturne.wire.command.v1 import command_pb2
from nocturne.wire.consensus.v1 import consensus_pb2
from nocturne.wire.query.v1 import query_pb2

pytestmark = [pytest.mark.integration, pytest.mark.long, pytest.mark.timeout(600)]

ONE_PARTITION: Final = (topics.BLOCKS, topics.SEALS, topics.EVIDENCE)
SERVING_SECONDS_MAX: Final = 60.0
SERVICES: Final = tuple(service.name for service in services_of(VALIDATORS_DEFAULT))
WARM_UP: Final = INPUTS // 10
"""Inputs of an entrance before its processes are measured."""
AT_ONCE: Final = 32
STREAM_BATCH: Final = 100
CALL_SECONDS: Final = 30.0
FOLLOW_SECONDS: Final = 0.5
"""A question that follows what comes is cut off after this."""
OUTCOME_MS: Final = 120_000

REFUSED_CALLS: Final = frozenset(
    {
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
    }
)
"""What a hostile call may end with, each with words. UNKNOWN would be an exception of ours."""

STRANGERS_CALLS: Final = REFUSED_CALLS | {grpc.StatusCode.PERMISSION_DENIED}
"""The same of a stream between validators, for a key that is no validator's."""


@dataclass
class Sizes:
    """Resident bytes of every service's process."""

    running: Running
    before: dict[str, tuple[int, int]]

    @staticmethod
    def of(running: Running) -> Sizes:
        """Once all of them serve: a ledger is ready before the last of its validators is."""

        def all_serve() -> bool:
            status = running.status
            return all(status.service(name).health is Health.HEALTHY for name in SERVICES)

        until(all_serve, SERVING_SECONDS_MAX, "every service serves")
        return Sizes(running, _sizes(running))

    def check(self, entrance: str) -> None:
        """The same processes are there, healthy, and none has grown by more than the bound."""
        after = _sizes(self.running)
        for name, (pid, size) in self.before.items():
            assert after[name][0] == pid, f"{entrance}, seed {SEED}: {name} was started again"
            grown = after[name][1] - size
            assert grown < GROWTH_BYTES_MAX, f"{entrance}, seed {SEED}: {name} grew by {grown}"


def _sizes(running: Running) -> dict[str, tuple[int, int]]:
    found = {}
    for name in SERVICES:
        service = running.status.service(name)
        assert service.pid is not None, f"{name} does not run"
        assert service.health is Health.HEALTHY, f"{name} is {service.health.value}"
        found[name] = (service.pid, psutil.Process(service.pid).memory_info().rss)
    return found


@pytest.fixture(scope="module")
def genesis(running: Running) -> Genesis:
    return decode_genesis(running.genesis_bytes)


@pytest.fixture(scope="module")
def wrongs(running: Running, genesis: Genesis) -> Wrongs:
    """Wrong commands, and the sessions they are aimed at."""
    print(f"seed {SEED}")
    kind = next(one for one in genesis.kinds if one.name == "accounts")
    made = Wrongs(running.ledger_id, Random(f"{SEED}/wrongs"), Opening(kind.name, kind.version))

    async def open_sessions(driver: Driver) -> None:
        for one in made.openings():
            assert (await driver.submit_until_decided(one)).events

    talk(running, open_sessions)
    return made


def talk(running: Running, work: Callable[[Driver], Awaitable[None]]) -> None:
    """Run `work` with a connection."""

    async def with_driver() -> None:
        driver = running.driver()
        try:
            await work(driver)
        finally:
            await driver.close()

    asyncio.run(with_driver())


# Commands --------------------------------------------------------------------------------------


def test_a_storm_of_commands_gets_refusals_or_receipts_that_verify(
    running: Running, genesis: Genesis, wrongs: Wrongs
) -> None:
    async def work(driver: Driver) -> None:
        storm = _commands(wrongs)
        await _stream(driver, genesis, [next(storm) for _ in range(WARM_UP)])
        sizes = Sizes.of(running)
        counted: Counter[str] = Counter()
        left = INPUTS - WARM_UP
        while left > 0:
            part = [next(storm) for _ in range(min(left, 2000))]
            counted += await _stream(driver, genesis, part)
            left -= len(part)
        print(f"SubmitStream: {dict(counted)}")
        assert min(counted["refused"], counted["receipt"]) > left
        sizes.check("SubmitStream")

    talk(running, work)


def _commands(wrongs: Wrongs) -> Iterator[tuple[bytes, bool]]:
    """Bytes, and whether a receipt must come of them if they are admitted."""
    dice = Random(f"{SEED}/commands")
    valid = [encode_signed_command(wrongs.owner.command("hostile/damaged")) for _ in range(20)]
    while True:
        if dice.randrange(5) < 3:
            signed, refused = wrongs.next()
            yield encode_signed_command(signed), refused
        else:
            # A valid command that is left as it is would open nothing: it is refused too.
            yield hostile_bytes(dice, valid), True


async def _stream(
    driver: Driver, genesis: Genesis, inputs: Sequence[tuple[bytes, bool]]
) -> Counter[str]:
    """Submit all in one stream; what became of them, each answer checked."""

    async def requests() -> AsyncIterator[command_pb2.SubmitStreamRequest]:
        for first in range(0, len(inputs), STREAM_BATCH):
            part = enumerate(inputs[first : first + STREAM_BATCH], first)
            yield command_pb2.SubmitStreamRequest(
                commands=[
                    command_pb2.StreamCommand(correlation=number, signed_command=data)
                    for number, (data, _) in part
                ],
                wait=command_pb2.LEVEL_SIGNED,
                deadline_ms=OUTCOME_MS,
            )

    counted: Counter[str] = Counter()
    answered: set[int] = set()
    async for response in driver._submit.SubmitStream(requests(), timeout=OUTCOME_MS / 1000):
        for one in response.outcomes:
            assert one.correlation not in answered
            answered.add(one.correlation)
            counted[_judge(genesis, one, inputs[one.correlation][1])] += 1
    assert len(answered) == len(inputs)
    return counted


def _judge(genesis: Genesis, one: command_pb2.StreamOutcome, must_be_refused: bool) -> str:
    """What the outcome is; AssertionError when it may not be that."""
    if one.WhichOneof("result") == "refusal":
        assert one.refusal.message
        codes = (code_pb2.INVALID_ARGUMENT, code_pb2.RESOURCE_EXHAUSTED)
        assert one.refusal.code in codes, one.refusal
        return "refused"
    outcome = one.outcome
    assert outcome.decided
    assert outcome.level == command_pb2.LEVEL_SIGNED
    if not outcome.receipt_header:
        assert outcome.events
        assert not must_be_refused, decode_event_of(outcome)
        return "events"
    receipt = decode_receipt(outcome.receipt)
    assert receipt.header_bytes == outcome.receipt_header
    # A command too large for a block is known by its record's hash.
    assert receipt_signed(
        genesis.authority,
        hash_receipt(receipt.header_bytes),
        receipt.timestamp,
        receipt.height,
        receipt.signatures,
    )
    return "receipt"


def decode_event_of(outcome: command_pb2.Outcome) -> str:
    """For a message."""
    return f"seed {SEED}: events of a command that must be refused: {outcome.events[0].hex()}"


def test_calls_that_are_no_messages_and_wrong_ones_are_refused(
    running: Running, wrongs: Wrongs
) -> None:
    """Submit one by one: bytes that no protobuf is, fields out of range, too large."""
    dice = Random(f"{SEED}/submit")
    valid = [
        command_pb2.SubmitRequest(
            signed_command=encode_signed_command(wrongs.next()[0]),
            wait=dice.choice((0, 1, 2, 3, 6, 99, -1)),
            deadline_ms=dice.choice((0, 1, 50, 2**31 - 1, -1)),
            with_proof=dice.random() < 0.1,
        ).SerializeToString()
        for _ in range(50)
    ]
    too_large = oversize(4 * 1024 * 1024)

    def calls() -> Iterator[_Call]:
        while True:
            data = too_large if dice.randrange(1000) == 0 else hostile_bytes(dice, valid)
            yield _Call("/nocturne.command.v1.CommandService/Submit", data, False)

    codes = _storm_of_calls(running, "command", calls())
    assert codes["INVALID_ARGUMENT"] > 0
    assert codes["RESOURCE_EXHAUSTED"] > 0


# Questions and control records -----------------------------------------------------------------

_STREAMED: Final = ("ListEvents", "ExportSession")


def test_a_storm_of_questions_is_answered_or_refused_in_words(
    running: Running, wrongs: Wrongs
) -> None:
    dice = Random(f"{SEED}/questions")
    service = query_pb2.DESCRIPTOR.services_by_name["QueryService"]
    valid = {
        method.name: [
            request.SerializeToString()
            for request in _requests(dice, getattr(query_pb2, method.input_type.name))
        ]
        for method in service.methods
    }

    def calls() -> Iterator[_Call]:
        names = sorted(valid)
        while True:
            name = dice.choice(names)
            right = dice.choice(valid[name])
            data = right if dice.randrange(2) else hostile_bytes(dice, valid[name])
            yield _Call(f"/{service.full_name}/{name}", data, name in _STREAMED)

    codes = _storm_of_calls(running, "query", calls())
    assert codes["OK"] > 0
    assert codes["INVALID_ARGUMENT"] > 0
    assert codes["NOT_FOUND"] > 0


def _requests(dice: Random, kind: Any) -> Iterator[Any]:
    """Well-formed requests with fields that are not what they must be."""
    for _ in range(100):
        request = kind()
        for field in request.DESCRIPTOR.fields:
            if dice.randrange(4) == 0:
                continue
            if field.message_type is not None:
                request.position.partition = dice.choice((0, 1, 2**31 - 1, -1))
                request.position.offset = dice.choice((0, 5, 2**63 - 1, -(2**63)))
            else:
                setattr(request, field.name, _value(dice, field))
        yield request


def _value(dice: Random, field: Any) -> Any:
    if field.cpp_type == field.CPPTYPE_STRING and field.type == field.TYPE_BYTES:
        return dice.choice((b"", bytes(32), bytes(16), dice.randbytes(33)))
    if field.cpp_type == field.CPPTYPE_STRING:
        text = hostile_text(dice, ["hostile/honest", "~ledger", "a/1"])[:300]
        return dice.choice((text, "hostile/honest", "~ledger")).encode("utf-8", "replace").decode()
    if field.cpp_type == field.CPPTYPE_BOOL:
        return dice.random() < 0.2
    bits = 31 if field.cpp_type == field.CPPTYPE_INT32 else 63
    return dice.choice((0, 1, 2, 1000, 1001, -1, 2**bits - 1, -(2**bits)))


def test_a_storm_of_control_records_changes_nothing(running: Running, wrongs: Wrongs) -> None:
    dice = Random(f"{SEED}/control")
    service = consensus_pb2.DESCRIPTOR.services_by_name["ControlService"]
    validator = "/nocturne.consensus.v1.ValidatorService/GetValidator"
    records = samples.drawn(samples.controls, 20)
    valid = [
        consensus_pb2.SubmitControlRequest(signed_control=one).SerializeToString()
        for one in records
    ]

    def calls() -> Iterator[_Call]:
        while True:
            if dice.randrange(4) == 0:
                yield _Call(validator, hostile_bytes(dice, valid), False)
                continue
            name = dice.choice(("SubmitControl", "SubmitControl", "GetControl"))
            if dice.randrange(2):
                data = hostile_bytes(dice, valid)
            else:
                data = consensus_pb2.SubmitControlRequest(
                    signed_control=hostile_bytes(dice, records)
                ).SerializeToString()
            yield _Call(f"/{service.full_name}/{name}", data, False)

    _storm_of_calls(running, "consensus-0", calls())

    async def number() -> int:
        async with grpc.aio.insecure_channel(running.status.address("consensus-0")) as channel:
            ask = channel.unary_unary(f"/{service.full_name}/GetControl")
            answer = consensus_pb2.GetControlResponse.FromString(await ask(b""))
            return answer.number

    assert asyncio.run(number()) == 0


def test_a_storm_at_the_validators_streams_lets_nobody_in(running: Running) -> None:
    dice = Random(f"{SEED}/exchange")
    stranger = Ed25519Signer(dice.randbytes(32))
    valid = [
        Calling(running.ledger_id, stranger, dice.randbytes(32)).hello(),
        samples.Handshake().proof,
        *samples.drawn(samples.envelopes, 20),
    ]

    def calls() -> Iterator[_Call]:
        while True:
            yield _Call(EXCHANGE, hostile_bytes(dice, valid), True, STRANGERS_CALLS)

    counted = _storm_of_calls(running, "consensus-0", calls())
    assert counted["INVALID_ARGUMENT"] > INPUTS // 2
    assert "OK" not in counted


@dataclass(frozen=True)
class _Call:
    """A call of raw bytes. Of a `streamed` answer one message is taken."""

    method: str
    data: bytes
    streamed: bool
    refused: frozenset[grpc.StatusCode] = REFUSED_CALLS


def _storm_of_calls(running: Running, service: str, calls: Iterator[_Call]) -> Counter[str]:
    """Make the calls, some at once; how they ended, by code."""
    counted: Counter[str] = Counter()

    async def work() -> None:
        async with grpc.aio.insecure_channel(
            running.status.address(service), options=OPTIONS
        ) as channel:
            await _call_all(channel, calls, WARM_UP, counted)
            sizes = Sizes.of(running)
            await _call_all(channel, calls, INPUTS - WARM_UP, counted)
            sizes.check(service)

    asyncio.run(work())
    print(f"{service}: {dict(counted)}")
    return counted


async def _call_all(
    channel: grpc.aio.Channel, calls: Iterator[_Call], count: int, counted: Counter[str]
) -> None:
    numbers = iter(range(count))

    async def worker() -> None:
        for _ in numbers:
            counted[await _called(channel, next(calls))] += 1

    await asyncio.gather(*(worker() for _ in range(AT_ONCE)))


async def _called(channel: grpc.aio.Channel, call: _Call) -> str:
    """The code it ended with; AssertionError for one that a hostile call may not have."""
    shown = f"seed {SEED}: {call.method} {call.data[:200]!r}"
    try:
        if call.streamed:
            answers = channel.unary_stream(call.method)(call.data, timeout=FOLLOW_SECONDS)
            async for _ in answers:
                answers.cancel()
                break
        else:
            await channel.unary_unary(call.method)(call.data, timeout=CALL_SECONDS)
    except grpc.aio.AioRpcError as fault:
        code, said = fault.code(), fault.details() or ""
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            assert call.streamed, shown
        else:
            assert code in call.refused, f"{shown}: {code} {said}"
            assert said, shown
        return code.name
    return "OK"


# Topics ----------------------------------------------------------------------------------------


def test_a_storm_of_records_on_every_topic_is_counted_and_never_shown(
    running: Running, genesis: Genesis, wrongs: Wrongs
) -> None:
    valid = _valid_records(wrongs)

    async def settled(driver: Driver) -> None:
        """What comes behind the storm is read: all of it was looked at before."""
        for partition in range(genesis.partitions):
            session = next(
                name
                for name in map("hostile/behind/{}".format, range(10_000))
                if topics.partition_of(name.encode(), genesis.partitions) == partition
            )
            author = Author(running.ledger_id, Random(f"{SEED}/{session}/{_next()}"))
            answer = await driver.submit_until_decided(author.command(session))
            await driver.wait_readable(answer.height)

    _append(running, genesis, valid, WARM_UP, "warm")
    talk(running, settled)
    sizes = Sizes.of(running)
    _append(running, genesis, valid, INPUTS - WARM_UP, "storm")
    talk(running, settled)
    sizes.check("topics")


_numbers = iter(range(10**9))


def _next() -> int:
    return next(_numbers)


def _valid_records(wrongs: Wrongs) -> dict[str, list[bytes]]:
    """Values that each topic's readers decode, of this ledger or of another."""
    framed = samples.framed
    return {
        topics.COMMANDS: [framed(encode_signed_command(wrongs.next()[0])) for _ in range(200)],
        topics.BLOCKS: samples.drawn(samples.block_records, 1),
        topics.EVENTS: [framed(one) for one in samples.drawn(samples.signed_events(), 50)],
        topics.RECEIPTS: [framed(one) for one in samples.drawn(samples.signed_receipts(), 50)],
        topics.SEALS: [framed(one) for one in samples.drawn(shapes.seals.map(encode_seal), 50)],
        topics.EVIDENCE: [framed(encode_evidence(one)) for one in samples.LIES],
    }


def _append(
    running: Running, genesis: Genesis, valid: dict[str, list[bytes]], count: int, part: str
) -> None:
    """So many records on each topic, as anyone with access to the broker could write them."""
    producer = Producer(
        {"bootstrap.servers": running.bootstrap, "message.max.bytes": 16_000_000, "linger.ms": 5}
    )
    faults: list[KafkaError] = []

    def delivered(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            faults.append(error)

    for topic, good in valid.items():
        dice = Random(f"{SEED}/{part}/{topic}")
        partitions = 1 if topic in ONE_PARTITION else genesis.partitions
        for _ in range(count):
            value = None if dice.randrange(50) == 0 else hostile_bytes(dice, good)
            key = dice.choice((None, b"", b"a", b"hostile/honest", b"9", dice.randbytes(9)))
            produce = (topic, value, key, dice.randrange(partitions), delivered)
            _produced(producer, produce, _headers(dice))
    assert producer.flush(60) == 0
    assert not faults, faults[0]


def _produced(producer: Producer, produce: Any, headers: Any) -> None:
    topic, value, key, partition, delivered = produce
    while True:
        try:
            producer.produce(topic, value, key, partition, delivered, headers=headers)
            return
        except BufferError:
            producer.poll(0.1)
        except KafkaException as fault:
            raise AssertionError(f"{topic}: {fault}") from fault


def _headers(dice: Random) -> list[tuple[str, bytes | None]]:
    names = ("ce_id", "ce_type", "nocturne_height", "traceparent", "", "é" * 20)
    values = (None, b"", b"1", b"-1", b"9" * 400, b"\xff", format_id(bytes(16)).encode())
    return [(dice.choice(names), dice.choice(values)) for _ in range(dice.randrange(4))]


# In the end ------------------------------------------------------------------------------------


def test_after_the_storms_honest_work_goes_on_and_everything_agrees(
    running: Running, wrongs: Wrongs
) -> None:
    async def work(driver: Driver) -> None:
        honest = Author(running.ledger_id, Random(f"{SEED}/honest"))
        opened = honest.command("hostile/after", opening=Opening("facts", 1))
        assert (await driver.submit_until_decided(opened)).events
        last = await driver.submit_until_decided(wrongs.owner.command("hostile/honest"))
        assert last.events
        await driver.wait_readable(last.height)
        assert len(await driver.events("hostile/after")) == 1

    talk(running, work)
    found = truth.read(running.bootstrap, running.genesis_bytes)
    truth.check(found)
    truth.check_postgres(found, running.dsn())
    assert len(found.receipts) > INPUTS // 2
    for service in running.status.services:
        assert service.restarts == 0, f"{service.name} was started again"
