"""Send commands on one stream, as fast as they are taken or at a rate, and time their outcomes.

Open loop: a paced command is sent when its time has come, and its latency runs from that intended
time, so a stalled service cannot hide behind a polite sender.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import grpc.aio

from nocturne.cli.ledger import Level
from nocturne.core.commands import SignedCommand, encode_signed_command
from nocturne.core.errors import Unavailable
from nocturne.core.receipts import ReceiptHeader, decode_receipt_header
from nocturne.wire.command.v1 import command_pb2, command_pb2_grpc

IN_FLIGHT_MAX: Final = 2048
"""Half of what a stream of the command service may have unanswered; a second's worth of work."""
BATCH_MAX: Final = 128
"""Commands of one message."""
DEADLINE_MS: Final = 60_000
SECONDS_MAX: Final = 120.0
"""For all outcomes, from the first command on."""
MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one command, and after how long. `repeated`: it had been decided before."""

    decided: bool
    level: Level
    height: int
    events: int
    refusal: ReceiptHeader | None
    repeated: bool
    wait: Level
    ms: float


@dataclass(slots=True)
class _Sending:
    """The state that both directions of the stream share."""

    commands: Iterator[SignedCommand]
    total: int
    per_second: float | None
    wait_of: Callable[[int], Level]
    room: asyncio.Semaphore
    began: float
    intended: dict[int, float]


async def offer(
    address: str,
    commands: Iterator[SignedCommand],
    total: int,
    per_second: float | None,
    wait_of: Callable[[int], Level],
    count: Callable[[int, int], None],
) -> list[Answer]:
    """The outcomes of `total` commands in their order. `wait_of(i)` is the level awaited for
    command i; without `per_second` each is sent once there is room. `Unavailable` when the service
    refuses one before it is a command, or does not answer in time.
    """
    sending = _Sending(
        commands,
        total,
        per_second,
        wait_of,
        asyncio.Semaphore(IN_FLIGHT_MAX),
        time.perf_counter(),
        {},
    )
    answers: dict[int, tuple[command_pb2.Outcome, float]] = {}
    options = [
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.enable_http_proxy", 0),
    ]
    try:
        async with (
            asyncio.timeout(SECONDS_MAX),
            grpc.aio.insecure_channel(address, options=options) as channel,
        ):
            stub = command_pb2_grpc.CommandServiceStub(channel)
            async for response in stub.SubmitStream(_requests(sending)):
                _take(sending, response, answers)
                count(len(answers), total)
                if len(answers) == total:
                    break
    except TimeoutError as fault:
        raise Unavailable(
            f"{len(answers)} of {total} commands were decided within {SECONDS_MAX:.0f} s"
        ) from fault
    except grpc.aio.AioRpcError as fault:
        raise Unavailable(f"the command service ended the stream: {fault.details()}") from fault
    return [_answer(*answers[index], wait_of(index)) for index in range(total)]


def _take(
    sending: _Sending,
    response: command_pb2.SubmitStreamResponse,
    answers: dict[int, tuple[command_pb2.Outcome, float]],
) -> None:
    now = time.perf_counter()
    for one in response.outcomes:
        if one.HasField("refusal"):
            raise Unavailable(f"the command service refused a command: {one.refusal.message}")
        sending.room.release()
        ms = (now - sending.intended.pop(one.correlation)) * 1000
        answers[one.correlation] = (one.outcome, ms)


async def _requests(sending: _Sending) -> AsyncIterator[command_pb2.SubmitStreamRequest]:
    sent = 0
    while sent < sending.total:
        wait = sending.wait_of(sent)
        batch: list[command_pb2.StreamCommand] = []
        due = _due(sending)
        while sent < due and len(batch) < BATCH_MAX and sending.wait_of(sent) is wait:
            if sending.room.locked() and batch:
                break
            await sending.room.acquire()
            data = encode_signed_command(next(sending.commands))
            sending.intended[sent] = _intended(sending, sent)
            batch.append(command_pb2.StreamCommand(correlation=sent, signed_command=data))
            sent += 1
        yield command_pb2.SubmitStreamRequest(
            commands=batch,
            wait=command_pb2.Level.ValueType(wait.value),
            deadline_ms=DEADLINE_MS,
        )
        delay = _intended(sending, sent) - time.perf_counter()
        if sending.per_second is not None and delay > 0:
            await asyncio.sleep(delay)


def _due(sending: _Sending) -> int:
    """How many commands should have been sent by now, and always one more than were."""
    if sending.per_second is None:
        return sending.total
    elapsed = time.perf_counter() - sending.began
    return min(sending.total, int(elapsed * sending.per_second) + 1)


def _intended(sending: _Sending, index: int) -> float:
    if sending.per_second is None:
        return time.perf_counter()
    return sending.began + index / sending.per_second


def _answer(outcome: command_pb2.Outcome, ms: float, wait: Level) -> Answer:
    header = outcome.receipt_header
    return Answer(
        outcome.decided,
        Level(outcome.level) if outcome.level else Level.ACCEPTED,
        outcome.height,
        len(outcome.events),
        decode_receipt_header(header) if header else None,
        outcome.repeated,
        wait,
        ms,
    )


def latencies(answers: Sequence[Answer], wait: Level) -> list[float]:
    """Of the answers that waited for a level, in ms."""
    return [answer.ms for answer in answers if answer.wait is wait]
