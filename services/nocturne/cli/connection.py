"""The ledger of a home over gRPC: what `ledger.Ledger` asks, in the words of the services.

Rules: docs/spec/services.md. Everything is asked once, in bounded time, and what cannot be had is
`Unavailable` in a sentence that says what to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from itertools import islice
from typing import Any, Final

import grpc
import grpc.aio

from nocturne.cli import trust
from nocturne.cli.failures import ExitCode, Failure
from nocturne.cli.ledger import Ledger, Level, Outcome, Session, State, Totals
from nocturne.cli.trust import Founding
from nocturne.core.commands import SignedCommand, encode_signed_command
from nocturne.core.errors import Malformed, Unavailable
from nocturne.core.events import Event, Position, decode_event, decode_event_header
from nocturne.core.exports import LINE_BYTES_MAX
from nocturne.core.genesis import Genesis
from nocturne.core.identifiers import Hash, LedgerId, SessionId
from nocturne.core.receipts import Receipt, decode_receipt, decode_receipt_header
from nocturne.core.strict_json import DEPTH_LIMIT, parse_json
from nocturne.embedded import lock
from nocturne.embedded import status as statuses
from nocturne.embedded.home import Home
from nocturne.wire.command.v1 import command_pb2, command_pb2_grpc
from nocturne.wire.query.v1 import query_pb2, query_pb2_grpc

PAGE_SIZE_MAX: Final = 1000
BATCH_COMMANDS_MAX: Final = 64
"""Commands in one message of a stream: it is signed and sent while the one before is certified."""
STATE_BYTES_MAX: Final = LINE_BYTES_MAX
MARGIN_MS: Final = 500
"""How much longer than its own deadline a service is given to answer."""

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", LINE_BYTES_MAX),
    ("grpc.max_send_message_length", LINE_BYTES_MAX),
    # A service of this machine is reached directly, whatever proxy the environment names.
    ("grpc.enable_http_proxy", 0),
)
_PASSING: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
    }
)
_LOOK: Final = "'nocturne status' shows what runs"


@asynccontextmanager
async def connect(home: Home, deadline_ms: int) -> AsyncGenerator[Ledger, None]:
    """The ledger that runs on `home`; `Unavailable` when none does."""
    founding = trust.founding_of(home)
    found = statuses.read(home.status)
    names = {service.name for service in found.services}
    if founding is None or lock.holder(home.lock) is None or not {"command", "query"} <= names:
        raise Unavailable(f"Nothing runs in {home.root}: 'nocturne up --detach' starts it.")
    async with (
        grpc.aio.insecure_channel(found.address("command"), _OPTIONS) as command,
        grpc.aio.insecure_channel(found.address("query"), _OPTIONS) as query,
    ):
        yield Remote(founding, command, query, deadline_ms)


class Remote:
    """A `Ledger` behind two addresses."""

    def __init__(
        self,
        founding: Founding,
        command: grpc.aio.Channel,
        query: grpc.aio.Channel,
        deadline_ms: int,
    ) -> None:
        self._founding = founding
        self._command = command_pb2_grpc.CommandServiceStub(command)
        self._query = query_pb2_grpc.QueryServiceStub(query)
        self._seconds = (deadline_ms + MARGIN_MS) / 1000

    @property
    def ledger_id(self) -> LedgerId:
        """The hash of the genesis."""
        return self._founding.ledger_id

    @property
    def genesis(self) -> Genesis:
        """Limits, kinds and the authority's key."""
        return self._founding.genesis

    # Writing -----------------------------------------------------------------------------------

    async def submit(self, signed: SignedCommand, wait: Level, deadline_ms: int) -> Outcome:
        """Publish one command and wait for `wait`, at most `deadline_ms`."""
        request = command_pb2.SubmitRequest(
            signed_command=encode_signed_command(signed),
            wait=command_pb2.Level.ValueType(wait),
            deadline_ms=deadline_ms,
        )
        with _sentences("command"):
            answer = await self._command.Submit(request, timeout=(deadline_ms + MARGIN_MS) / 1000)
        return outcome_of(answer.outcome)

    async def submit_all(
        self, commands: Iterable[SignedCommand], wait: Level, deadline_ms: int, in_flight_max: int
    ) -> AsyncGenerator[Outcome, None]:
        """Publish in order; outcomes in the order of the commands."""
        window = _Window(commands, wait, deadline_ms, in_flight_max)
        answered: dict[int, Outcome] = {}
        due = 0
        with _sentences("command"):
            call = self._command.SubmitStream(window.requests())
            try:
                async for response in call:
                    for one in response.outcomes:
                        answered[one.correlation] = _outcome_or_refusal(one)
                    while due in answered:
                        window.answered()
                        yield answered.pop(due)
                        due += 1
            finally:
                call.cancel()
        if window.unanswered:
            raise Unavailable(f"The command service ended the stream early: {_LOOK}.")

    # Reading -----------------------------------------------------------------------------------

    async def session(self, session: SessionId) -> Session | None:
        """One session, None if there is none."""
        request = query_pb2.GetSessionRequest(session_id=session)
        try:
            with _sentences("query"):
                answer = await self._query.GetSession(request, timeout=self._seconds)
        except _NotThere:
            return None
        return session_of(answer.session)

    async def sessions(self, limit: int) -> AsyncGenerator[Session, None]:
        """Sessions by their ids, at most `limit`."""
        token = ""
        while limit > 0:
            size = min(limit, PAGE_SIZE_MAX)
            request = query_pb2.ListSessionsRequest(page_size=size, page_token=token)
            with _sentences("query"):
                page = await self._query.ListSessions(request, timeout=self._seconds)
            for one in page.sessions:
                yield session_of(one)
            limit -= len(page.sessions)
            token = page.next_page_token
            if not token:
                return

    async def events(
        self, session: SessionId, from_sequence: int, follow: bool
    ) -> AsyncGenerator[Event, None]:
        """Events from a sequence on; with `follow`, without an end."""
        request = query_pb2.ListEventsRequest(
            session_id=session, from_sequence=from_sequence, follow=follow
        )
        async with aclosing(_stream("query", self._query.ListEvents(request))) as pages:
            async for page in pages:
                for data in page.events:
                    yield decode_event(data)

    async def receipts(self, session: SessionId | None) -> AsyncGenerator[Receipt, None]:
        """Receipts of a session, or of all, by position."""
        token = ""
        while True:
            request = query_pb2.ListReceiptsRequest(
                session_id=session or "", page_size=PAGE_SIZE_MAX, page_token=token
            )
            with _sentences("query"):
                page = await self._query.ListReceipts(request, timeout=self._seconds)
            for data in page.receipts:
                yield decode_receipt(data)
            token = page.next_page_token
            if not token:
                return

    async def state(self, session: SessionId, at_sequence: int | None) -> State:
        """The state at a sequence, or at the head."""
        request = query_pb2.GetStateRequest(session_id=session, at_sequence=at_sequence or 0)
        with _sentences("query"):
            answer = await self._query.GetState(request, timeout=self._seconds)
        value = parse_json(answer.state_json, STATE_BYTES_MAX, DEPTH_LIMIT)
        return State(session, answer.sequence, Hash(answer.head_hash), value)

    async def export(self, session: SessionId) -> AsyncGenerator[bytes, None]:
        """The pieces of the session's export file."""
        request = query_pb2.ExportSessionRequest(session_id=session)
        async with aclosing(_stream("query", self._query.ExportSession(request))) as pieces:
            async for piece in pieces:
                yield piece.lines

    async def totals(self) -> Totals:
        """What the projection holds."""
        with _sentences("query"):
            answer = await self._query.GetStatus(
                query_pb2.GetStatusRequest(), timeout=self._seconds
            )
        if answer.ledger_id != self.ledger_id:
            raise Failure(
                ExitCode.FAILED,
                "The query service reads another ledger than this home's genesis founds.",
            )
        applied = answer.applied_through
        return Totals(
            applied.height,
            applied.block_digest,
            applied.timestamp_ms,
            answer.sessions,
            answer.events,
            answer.receipts,
            answer.records,
            dict(answer.refused_records),
        )


class _Window:
    """The requests of a stream, held back so that at most so many commands are unanswered."""

    def __init__(
        self, commands: Iterable[SignedCommand], wait: Level, deadline_ms: int, in_flight_max: int
    ) -> None:
        self._commands = iter(commands)
        self._wait = command_pb2.Level.ValueType(wait)
        self._deadline_ms = deadline_ms
        self._room = in_flight_max
        self._roomy = asyncio.Event()
        self._sent = 0
        self.unanswered = 0

    def answered(self) -> None:
        """One command more has its answer, and whoever waits for it has it too."""
        self.unanswered -= 1
        self._room += 1
        self._roomy.set()

    async def requests(self) -> AsyncIterator[command_pb2.SubmitStreamRequest]:
        """Batches as large as there is room for."""
        while True:
            while self._room == 0:
                self._roomy.clear()
                await self._roomy.wait()
            batch = list(islice(self._commands, min(self._room, BATCH_COMMANDS_MAX)))
            if not batch:
                return
            self._room -= len(batch)
            self.unanswered += len(batch)
            yield self._request(batch)

    def _request(self, batch: list[SignedCommand]) -> command_pb2.SubmitStreamRequest:
        first = self._sent
        self._sent += len(batch)
        return command_pb2.SubmitStreamRequest(
            commands=[
                command_pb2.StreamCommand(
                    correlation=number, signed_command=encode_signed_command(signed)
                )
                for number, signed in enumerate(batch, start=first)
            ],
            wait=self._wait,
            deadline_ms=self._deadline_ms,
        )


# From messages to values -----------------------------------------------------------------------


def outcome_of(message: command_pb2.Outcome) -> Outcome:
    """The outcome of a message; `Malformed` when its records are none."""
    at = message.position
    receipt = decode_receipt(message.receipt) if message.receipt else None
    refusal = decode_receipt_header(message.receipt_header) if message.receipt_header else None
    if receipt is not None and receipt.header_bytes != message.receipt_header:
        raise Malformed("outcome: its signed receipt is not of its receipt header")
    return Outcome(
        level=Level(message.level),
        decided=message.decided,
        command_hash=Hash(message.command_hash),
        position=Position(at.log_epoch, at.partition, at.offset)
        if message.HasField("position")
        else None,
        height=message.height if message.decided else None,
        timestamp=message.timestamp_ms if message.decided else None,
        events=tuple(decode_event_header(data) for data in message.events),
        refusal=refusal,
        receipt=receipt,
        repeated=message.repeated,
    )


def session_of(message: query_pb2.Session) -> Session:
    """The session of a message."""
    return Session(
        SessionId(message.session_id),
        message.kind,
        message.kind_version,
        message.sequence,
        Hash(message.head_hash),
        message.receipt_count,
        message.closed,
        message.opened_at_ms,
        message.updated_at_ms,
    )


def _outcome_or_refusal(one: command_pb2.StreamOutcome) -> Outcome:
    if one.WhichOneof("result") == "outcome":
        return outcome_of(one.outcome)
    codes: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
    raise _failure("command", codes.get(one.refusal.code), one.refusal.message)


# What a service's silence or refusal means -----------------------------------------------------


class _NotThere(Failure):
    """NOT_FOUND."""


@contextmanager
def _sentences(service: str) -> Iterator[None]:
    """Turns gRPC's errors into ours."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise _failure(service, error.code(), error.details() or "") from error


async def _stream(service: str, call: Any) -> AsyncGenerator[Any, None]:
    """The messages of a streaming answer; ended early, the call ends too."""
    with _sentences(service):
        try:
            async for message in call:
                yield message
        finally:
            call.cancel()


def _failure(service: str, code: grpc.StatusCode | None, details: str) -> Exception:
    if code is grpc.StatusCode.NOT_FOUND:
        return _NotThere(ExitCode.FAILED, f"{details}.")
    if code is grpc.StatusCode.UNAVAILABLE and not details.startswith("the log"):
        return Unavailable(f"The {service} service cannot be reached: {_LOOK}.")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unavailable(f"The {service} service did not answer in time: {_LOOK}.")
    if code in _PASSING:
        return Unavailable(f"The {service} service cannot take this now ({details}): try again.")
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return Failure(ExitCode.BAD_USE, f"The {service} service refused this: {details}.")
    return Failure(ExitCode.FAILED, f"The {service} service failed: {details or code}.")
