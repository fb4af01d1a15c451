"""Open-loop load on the command service: a command is sent when its time has come, and its latency
runs from that intended time, so a stalled service cannot hide behind a polite client.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import grpc.aio
from hdrh.histogram import HdrHistogram

from nocturne.core.commands import (
    Command,
    EventDraft,
    Opening,
    Payload,
    encode_signed_command,
    payload_hash,
    sign_command,
)
from nocturne.core.identifiers import AuthorId, CommandId, LedgerId, SessionId
from nocturne.core.keys import Ed25519Signer, key_id
from nocturne.wire.command.v1 import command_pb2, command_pb2_grpc

IN_FLIGHT_MAX = 4096
"""The bound of a stream (command.proto)."""
HISTOGRAM_US = (1, 120_000_000, 3)
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
DEADLINE_MS = 120_000


@dataclass(slots=True)
class Measured:
    """What one phase saw. Histograms are in microseconds from the intended send time."""

    offered: int = 0
    decided: int = 0
    refused: int = 0
    started_at: float = 0.0
    ended_at: float = 0.0
    latency: HdrHistogram = field(default_factory=lambda: HdrHistogram(*HISTOGRAM_US))

    def percentile_ms(self, percentile: float) -> float:
        """A percentile of the latency in ms."""
        return float(self.latency.get_value_at_percentile(percentile)) / 1000


class Commands:
    """Single-event commands of one author, payloads of `payload_bytes`, `sessions` in turn."""

    def __init__(self, ledger_id: LedgerId, sessions: int, payload_bytes: int, run: str) -> None:
        self._ledger_id = ledger_id
        self._signer = Ed25519Signer(os.urandom(32))
        self._author = AuthorId(key_id(self._signer.key))
        self._payload_bytes = payload_bytes
        self._names = [SessionId(f"bench/{run}/{number}") for number in range(sessions)]
        self._count = 0

    def next(self) -> bytes:
        """The next command, signed. The first one of a session opens it."""
        number = self._count
        self._count += 1
        filler = b"%020d" % number
        data = b'{"n":"' + filler.ljust(self._payload_bytes - 8, b"x") + b'"}'
        payload = Payload(os.urandom(32), data)
        command = Command(
            self._ledger_id,
            self._names[number % len(self._names)],
            self._author,
            self._signer.key,
            CommandId((time.time_ns() >> 8).to_bytes(8, "big") + number.to_bytes(8, "big")),
            None,
            Opening("facts", 1) if number < len(self._names) else None,
            time.time_ns() // 1_000_000,
            (EventDraft("Measured", "application/json", payload_hash(payload)),),
        )
        return encode_signed_command(sign_command(command, (payload,), self._signer))


async def offer(
    address: str,
    commands: Commands,
    rate: float,
    seconds: float,
    level: command_pb2.Level.ValueType,
) -> Measured:
    """Offer `rate` commands a second for `seconds`, then wait until all are decided."""
    measured = Measured()
    intended: dict[int, float] = {}
    total = int(rate * seconds)
    room = asyncio.Semaphore(IN_FLIGHT_MAX)
    options = [
        ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ]
    async with grpc.aio.insecure_channel(address, options=options) as channel:
        stub = command_pb2_grpc.CommandServiceStub(channel)
        stream = stub.SubmitStream(
            _requests(commands, rate, total, level, intended, measured, room)
        )
        async for response in stream:
            now = time.perf_counter()
            for outcome in response.outcomes:
                sent = intended.pop(outcome.correlation)
                room.release()
                measured.latency.record_value(max(1, int((now - sent) * 1_000_000)))
                result = outcome.outcome
                measured.decided += 1
                if not result.decided or result.level < level or not result.events:
                    measured.refused += 1
            if measured.decided == total:
                break
    measured.ended_at = time.perf_counter()
    return measured


async def _requests(
    commands: Commands,
    rate: float,
    total: int,
    level: command_pb2.Level.ValueType,
    intended: dict[int, float],
    measured: Measured,
    room: asyncio.Semaphore,
) -> AsyncIterator[command_pb2.SubmitStreamRequest]:
    start = time.perf_counter()
    measured.started_at = start
    sent = 0
    while sent < total:
        due = min(total, int((time.perf_counter() - start) * rate) + 1)
        batch: list[command_pb2.StreamCommand] = []
        while sent < due and len(batch) < 128:
            if room.locked() and batch:
                break
            await room.acquire()
            intended[sent] = start + sent / rate
            batch.append(
                command_pb2.StreamCommand(correlation=sent, signed_command=commands.next())
            )
            sent += 1
        if batch:
            measured.offered += len(batch)
            yield command_pb2.SubmitStreamRequest(
                commands=batch, wait=level, deadline_ms=DEADLINE_MS
            )
        delay = start + sent / rate - time.perf_counter()
        if delay > 0:
            await asyncio.sleep(delay)
