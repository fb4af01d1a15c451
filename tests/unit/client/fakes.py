"""Command and query services over one ledger in memory, that can be told to misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.rpc import code_pb2
from tests.vectors.synthetic import MadeBlock, SyntheticLedger

from nocturne.command import replies
from nocturne.core import exports
from nocturne.core.blocks import hash_block, positions_of
from nocturne.core.commands import SignedCommand, decode_signed_command
from nocturne.core.errors import Malformed
from nocturne.core.events import Position, decode_event_header, encode_event, hash_event, sign_event
from nocturne.core.identifiers import Hash
from nocturne.core.intake import evidence_of
from nocturne.core.modes import Degraded, ModeState
from nocturne.core.receipts import (
    Reason,
    decode_receipt_header,
    encode_receipt,
    hash_receipt,
    sign_receipt,
)
from nocturne.runtime.rpc import details_of
from nocturne.wire.command.v1 import command_pb2, command_pb2_grpc
from nocturne.wire.query.v1 import query_pb2, query_pb2_grpc


@dataclass
class FakeLedger:
    """A ledger where every command is a block of its own."""

    ledger: SyntheticLedger = field(default_factory=lambda: SyntheticLedger(partitions=1))
    places: dict[Hash, list[tuple[MadeBlock, int]]] = field(default_factory=dict)

    def take(self, signed: SignedCommand) -> command_pb2.Outcome:
        """Execute a command; its outcome."""
        self.ledger.submit(signed)
        block = self.ledger.make_block()
        self.places.setdefault(signed.command_hash, []).append((block, 0))
        return self.outcome(signed.command_hash, block, 0)

    def outcome(self, command_hash: Hash, block: MadeBlock, index: int) -> command_pb2.Outcome:
        record = block.records[index]
        position = positions_of(block.header)[index]
        header = block.header
        message = command_pb2.Outcome(
            level=command_pb2.LEVEL_SIGNED,
            command_hash=command_hash,
            durability="flushed",
            position=command_pb2.Position(
                log_epoch=position.log_epoch, partition=position.partition, offset=position.offset
            ),
            height=header.height,
            timestamp_ms=header.time,
            block_digest=hash_block(block.header_bytes),
            events=record.events,
            decided=True,
        )
        if record.receipt is not None:
            message.receipt_header = record.receipt
            message.receipt = self.receipt(block, record.receipt)
            if decode_receipt_header(record.receipt).reason is Reason.REPEATED:
                message.repeated = True
        return message

    def receipt(self, block: MadeBlock, data: bytes) -> bytes:
        header = block.header
        signatures = sign_receipt(
            self.ledger.authority, hash_receipt(data), header.time, header.height
        )
        return encode_receipt(data, signatures, header.height, header.time)

    def proof(self, block: MadeBlock, index: int) -> bytes:
        line = exports.block_line(block.header_bytes, block.proof)
        return exports.disposition_proof(line, self.ledger.disposition(block, index))

    def events(self, session: str) -> list[bytes]:
        """Event records of a session."""
        found = []
        for block in self.ledger.blocks:
            for record in block.records:
                for index, data in enumerate(record.events):
                    if decode_event_header(data).session != session:
                        continue
                    time, height = block.header.time, block.header.height
                    signatures = sign_event(self.ledger.authority, hash_event(data), time, height)
                    evidence = evidence_of(record)
                    found.append(encode_event(data, signatures, height, time, evidence, index))
        return found


Answer = Callable[[SignedCommand, command_pb2.Outcome], command_pb2.Outcome | None]


class FakeCommand(command_pb2_grpc.CommandServiceServicer):
    """Answers at once. `alter` may change an outcome; the numbers say how often to misbehave."""

    def __init__(self, ledger: FakeLedger) -> None:
        self.ledger = ledger
        self.alter: Callable[[command_pb2.Outcome], None] = lambda _: None
        self.unavailable = 0
        self.refuse_in_stream = 0
        self.break_stream_after: list[int] = []
        self.answer_stream_after: list[float] = []
        self.answer_twice = False
        self.hold = False
        self.released = asyncio.Event()
        self.received: list[bytes] = []
        self.unanswered_max = 0
        self.answer_nothing = False
        self.degraded: Degraded | None = None
        self.asked = 0

    async def Submit(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.asked += 1
        if self.degraded is not None:
            refused = replies.degraded(self.degraded)
            details = details_of(context, refused.status())
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, refused.message, details)
        if self.unavailable:
            self.unavailable -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the log cannot be reached")
        if request.wait > command_pb2.LEVEL_SIGNED:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not configured")
        if self.answer_nothing:
            await asyncio.Event().wait()
        try:
            outcome = self._take(request.signed_command)
        except Malformed as fault:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(fault))
        if request.with_proof and outcome.decided:
            block, index = self.ledger.places[Hash(outcome.command_hash)][-1]
            outcome.proof = self.ledger.proof(block, index)
        self.alter(outcome)
        return command_pb2.SubmitResponse(outcome=outcome)

    def _take(self, data: bytes) -> command_pb2.Outcome:
        self.received.append(data)
        return self.ledger.take(decode_signed_command(data))

    async def SubmitStream(self, requests: Any, context: Any) -> Any:  # noqa: N802
        left = self.break_stream_after.pop(0) if self.break_stream_after else None
        seconds = self.answer_stream_after.pop(0) if self.answer_stream_after else 0
        held: list[Any] = []
        async for request in requests:
            held += request.commands
            self.unanswered_max = max(self.unanswered_max, len(held))
            if self.hold and not self.released.is_set():
                continue
            response = command_pb2.SubmitStreamResponse()
            for one in held:
                if left is not None and left == 0:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "broken")
                left = None if left is None else left - 1
                response.outcomes.append(self._answer(one))
            held.clear()
            await asyncio.sleep(seconds)
            yield response
            if self.answer_twice:
                yield response

    def _answer(self, one: Any) -> command_pb2.StreamOutcome:
        self.asked += 1
        if self.degraded is not None:
            refusal = replies.degraded(self.degraded).refusal()
            return command_pb2.StreamOutcome(correlation=one.correlation, refusal=refusal)
        if self.refuse_in_stream:
            self.refuse_in_stream -= 1
            refusal = command_pb2.Refusal(code=code_pb2.RESOURCE_EXHAUSTED, message="over rate")
            return command_pb2.StreamOutcome(correlation=one.correlation, refusal=refusal)
        try:
            outcome = self._take(one.signed_command)
        except Malformed as fault:
            refusal = command_pb2.Refusal(code=code_pb2.INVALID_ARGUMENT, message=str(fault))
            return command_pb2.StreamOutcome(correlation=one.correlation, refusal=refusal)
        self.alter(outcome)
        return command_pb2.StreamOutcome(correlation=one.correlation, outcome=outcome)


class FakeQuery(query_pb2_grpc.QueryServiceServicer):
    """What a reader needs. `alter` may change an event's bytes."""

    def __init__(self, ledger: FakeLedger) -> None:
        self.ledger = ledger
        self.alter: Callable[[int, bytes], bytes] = lambda _, data: data
        self.lies = False
        """ListReceipts gives all, whatever was asked for."""
        self.lagging = 0
        self.unavailable = 0
        self.break_follow_after: list[int] = []
        self.changed = asyncio.Event()
        self.mode = ModeState()

    async def GetDisposition(self, request: Any, context: Any) -> Any:  # noqa: N802
        if self.lagging:
            self.lagging -= 1
            await context.abort(grpc.StatusCode.NOT_FOUND, "not applied")
        for places in self.ledger.places.values():
            for block, index in places:
                asked = request.position
                position = Position(asked.log_epoch, asked.partition, asked.offset)
                if (
                    request.WhichOneof("by") == "position"
                    and positions_of(block.header)[index] == position
                ) or self.ledger.places.get(Hash(request.command_hash)) is places:
                    line = exports.block_line(block.header_bytes, block.proof)
                    return query_pb2.GetDispositionResponse(
                        disposition_line=self.ledger.ledger.disposition(block, index),
                        block_line=line,
                        genesis=self.ledger.ledger.genesis_bytes,
                    )
        return await context.abort(grpc.StatusCode.NOT_FOUND, "nothing")

    async def GetSession(self, request: Any, context: Any) -> Any:  # noqa: N802
        if self.unavailable:
            self.unavailable -= 1
            await context.abort(grpc.StatusCode.UNAVAILABLE, "away")
        events = self.ledger.events(request.session_id)
        if not events:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no session")
        return query_pb2.GetSessionResponse(
            session=query_pb2.Session(
                session_id=request.session_id, kind="facts", kind_version=1, sequence=len(events)
            )
        )

    async def ListSessions(self, request: Any, context: Any) -> Any:  # noqa: N802
        names = [f"s/{number}" for number in range(5)]
        first = int(request.page_token or 0)
        page = [one for one in names if one.startswith(request.prefix)][first : first + 2]
        return query_pb2.ListSessionsResponse(
            sessions=[query_pb2.Session(session_id=name) for name in page],
            next_page_token=str(first + 2) if first + 2 < len(names) else "",
        )

    async def ListEvents(self, request: Any, context: Any) -> Any:  # noqa: N802
        sent = max(0, request.from_sequence - 1)
        left = self.break_follow_after.pop(0) if self.break_follow_after else None
        while True:
            self.changed.clear()
            records = self.ledger.events(request.session_id)
            for number in range(sent, len(records)):
                if left is not None and left == 0:
                    await context.abort(grpc.StatusCode.UNAVAILABLE, "broken")
                left = None if left is None else left - 1
                data = self.alter(number + 1, records[number])
                yield query_pb2.ListEventsResponse(events=[data])
            sent = max(sent, len(records))
            if not request.follow:
                return
            await self.changed.wait()

    async def ListReceipts(self, request: Any, context: Any) -> Any:  # noqa: N802
        records = [
            self.ledger.receipt(block, record.receipt)
            for block in self.ledger.ledger.blocks
            for record in block.records
            if record.receipt is not None
            and (
                not request.HasField("claimed")
                or self.lies
                or decode_receipt_header(record.receipt).claimed == request.claimed
            )
        ]
        first = int(request.page_token or 0)
        return query_pb2.ListReceiptsResponse(
            receipts=[
                self.alter(first + index, data)
                for index, data in enumerate(records[first : first + 2])
            ],
            next_page_token=str(first + 2) if first + 2 < len(records) else "",
        )

    async def GetState(self, request: Any, context: Any) -> Any:  # noqa: N802
        return query_pb2.GetStateResponse(
            session_id=request.session_id, sequence=3, state_json=b'{"a":1}'
        )

    async def GetStatus(self, request: Any, context: Any) -> Any:  # noqa: N802
        context.set_trailing_metadata(self.mode.metadata())
        return query_pb2.GetStatusResponse(
            ledger_id=self.ledger.ledger.state.ledger_id,
            sessions=2,
            refused_records={"stranger": 3},
        )

    async def GetBlock(self, request: Any, context: Any) -> Any:  # noqa: N802
        await context.abort(grpc.StatusCode.NOT_FOUND, "nothing")

    async def GetGenesis(self, request: Any, context: Any) -> Any:  # noqa: N802
        return query_pb2.GetGenesisResponse(genesis=self.ledger.ledger.genesis_bytes)

    async def ExportSession(self, request: Any, context: Any) -> Any:  # noqa: N802
        for number, line in enumerate(self.ledger.ledger.export(request.session_id)):
            yield query_pb2.ExportSessionResponse(lines=self.alter(number, line))


@dataclass
class Services:
    """Both, served on loopback."""

    ledger: FakeLedger
    command: FakeCommand
    query: FakeQuery
    address: str


@asynccontextmanager
async def services() -> AsyncIterator[Services]:
    """Serve until the end of the block."""
    ledger = FakeLedger()
    command, query = FakeCommand(ledger), FakeQuery(ledger)
    server = grpc.aio.server()
    command_pb2_grpc.add_CommandServiceServicer_to_server(command, server)
    query_pb2_grpc.add_QueryServiceServicer_to_server(query, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield Services(ledger, command, query, f"127.0.0.1:{port}")
    finally:
        await server.stop(0)
