"""Drive a running ledger from a test through nothing but its public contracts."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass

import grpc
import grpc.aio

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
from nocturne.core.events import Event, decode_event
from nocturne.core.identifiers import AuthorId, CommandId, LedgerId, SessionId
from nocturne.core.keys import Ed25519Signer, key_id
from nocturne.core.receipts import Receipt, decode_receipt
from nocturne.wire.command.v1 import command_pb2, command_pb2_grpc
from nocturne.wire.query.v1 import query_pb2, query_pb2_grpc

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
OPTIONS = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    # A killed service comes back on the same port: try it again soon.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]
_PASSING = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
)


class Author:
    """An author whose key and command ids come from a seed; its ids rise."""

    def __init__(self, ledger_id: LedgerId, dice: random.Random) -> None:
        self.signer = Ed25519Signer(dice.randbytes(32))
        self.id = AuthorId(key_id(self.signer.key))
        self._ledger_id = ledger_id
        self._dice = dice
        self._count = 0

    def standing_for(self, author: AuthorId) -> Author:
        """This author's key, signing in another's name."""
        self.id = author
        return self

    def command(
        self,
        session: str,
        payloads: tuple[bytes, ...] = (b'{"n":1}',),
        *,
        opening: Opening | None = None,
        expected: int | None = None,
        command_id: bytes | None = None,
        event_type: str = "Noted",
        ledger_id: LedgerId | None = None,
    ) -> SignedCommand:
        """A signed command with one event a payload."""
        self._count += 1
        salted = tuple(Payload(self._dice.randbytes(32), data) for data in payloads)
        command = Command(
            ledger_id or self._ledger_id,
            SessionId(session),
            self.id,
            self.signer.key,
            CommandId(command_id or self._count.to_bytes(8, "big") + self._dice.randbytes(8)),
            expected,
            opening,
            1_700_000_000_000 + self._count,
            tuple(EventDraft(event_type, "application/json", payload_hash(one)) for one in salted),
        )
        return sign_command(command, salted, self.signer)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the command service said: events' headers, or a receipt's header and signed form."""

    level: int
    decided: bool
    height: int
    events: tuple[bytes, ...]
    receipt_header: bytes
    receipt: bytes
    repeated: bool
    position: tuple[int, int, int]


class Driver:
    """A connection to `command` and `query`; every wait is bounded."""

    def __init__(self, command_address: str, query_address: str) -> None:
        self._commands = grpc.aio.insecure_channel(command_address, options=OPTIONS)
        self._queries = grpc.aio.insecure_channel(query_address, options=OPTIONS)
        self._submit = command_pb2_grpc.CommandServiceStub(self._commands)
        self.query = query_pb2_grpc.QueryServiceStub(self._queries)

    async def close(self) -> None:
        """End both connections."""
        await self._commands.close()
        await self._queries.close()

    async def submit(
        self,
        signed: SignedCommand | bytes,
        level: command_pb2.Level.ValueType = command_pb2.LEVEL_SIGNED,
        deadline_s: float = 20.0,
        with_proof: bool = False,
    ) -> Answer:
        """One attempt."""
        data = signed if isinstance(signed, bytes) else encode_signed_command(signed)
        request = command_pb2.SubmitRequest(
            signed_command=data,
            wait=level,
            deadline_ms=int(deadline_s * 1000),
            with_proof=with_proof,
        )
        response = await self._submit.Submit(request, timeout=deadline_s + 5)
        return _answer(response.outcome)

    async def submit_until_decided(
        self, signed: SignedCommand, seconds_max: float = 90.0
    ) -> Answer:
        """The same command again and again until its outcome is known: safe by its id."""
        deadline = time.monotonic() + seconds_max
        while True:
            try:
                answer = await self.submit(signed, deadline_s=5.0)
                if answer.decided and answer.level >= command_pb2.LEVEL_SIGNED:
                    return answer
            except grpc.aio.AioRpcError as fault:
                if fault.code() not in _PASSING:
                    raise
            if time.monotonic() > deadline:
                raise TimeoutError(f"no outcome of a command within {seconds_max} s")
            await asyncio.sleep(0.05)

    async def events(self, session: str) -> list[Event]:
        """All events of a session."""
        request = query_pb2.ListEventsRequest(session_id=session, from_sequence=1)
        return [
            decode_event(data)
            async for response in self.query.ListEvents(request, timeout=60)
            for data in response.events
        ]

    async def receipts(self, session: str = "") -> list[Receipt]:
        """All receipts of a session, or of the ledger."""
        found: list[Receipt] = []
        token = ""
        while True:
            request = query_pb2.ListReceiptsRequest(
                session_id=session, page_size=1000, page_token=token
            )
            page = await self.query.ListReceipts(request, timeout=60)
            found += [decode_receipt(data) for data in page.receipts]
            token = page.next_page_token
            if not token:
                return found

    async def export(self, session: str) -> bytes:
        """A session's export."""
        request = query_pb2.ExportSessionRequest(session_id=session)
        return b"".join(
            [part.lines async for part in self.query.ExportSession(request, timeout=120)]
        )

    async def status(self) -> query_pb2.GetStatusResponse:
        """What the read side has applied."""
        return await self.query.GetStatus(query_pb2.GetStatusRequest(), timeout=30)

    async def wait_readable(self, height: int, seconds_max: float = 60.0) -> None:
        """Until the read side has applied `height`."""
        deadline = time.monotonic() + seconds_max
        while True:
            try:
                if (await self.status()).applied_through.height >= height:
                    return
            except grpc.aio.AioRpcError as fault:
                if fault.code() not in _PASSING:
                    raise
            if time.monotonic() > deadline:
                raise TimeoutError(f"height {height} was not readable within {seconds_max} s")
            await asyncio.sleep(0.05)


def _answer(outcome: command_pb2.Outcome) -> Answer:
    at = outcome.position
    return Answer(
        outcome.level,
        outcome.decided,
        outcome.height,
        tuple(outcome.events),
        outcome.receipt_header,
        outcome.receipt,
        outcome.repeated,
        (at.log_epoch, at.partition, at.offset),
    )
