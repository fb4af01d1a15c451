"""The client: a ledger's two addresses, an author's key, and everything checked that comes back.

async with Client("127.0.0.1:17401", "127.0.0.1:17402", genesis=…, signer=…) as client:
    result = await client.append("orders/7", [client.json("OrderPlaced", {"amount": 3})],
                                 opening=Opening("facts", 1))
    async for event in client.events("orders/7"):
        ...
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import grpc

from nocturne.audit.verify import Verdict, verify_export
from nocturne.client import checking, transport
from nocturne.client.building import (
    ID_RANDOM_BYTES,
    SALT_BYTES,
    Author,
    Draft,
    IdMint,
    build,
    data_payload,
    json_payload,
)
from nocturne.client.checking import EventChain, Ledger
from nocturne.client.credentials import Credentials
from nocturne.client.folding import Folded, Folding
from nocturne.client.link import Link
from nocturne.client.pipeline import Commands, Pipeline
from nocturne.client.results import (
    AppliedThrough,
    Committed,
    Level,
    NotConfigured,
    Refused,
    Result,
    Session,
    State,
    Status,
    Undecided,
)
from nocturne.client.sealing import (
    SubjectKey,
    SubjectKeys,
    check_sealed_size,
    sealed_draft,
)
from nocturne.client.windows import Windows
from nocturne.core.commands import Opening, SignedCommand, encode_signed_command
from nocturne.core.errors import Malformed, NocturneError, Unavailable
from nocturne.core.events import Event, decode_event
from nocturne.core.identifiers import Hash, LedgerId, SessionId, event_id
from nocturne.core.keys import Signer
from nocturne.core.kinds import Kind
from nocturne.core.receipts import Reason, Receipt, decode_receipt
from nocturne.core.sealing import NONCE_BYTES
from nocturne.core.strict_json import DEPTH_LIMIT, JsonValue, parse_json
from nocturne.runtime.clock import now_ms
from nocturne.wire.command.v1 import command_pb2, command_pb2_grpc
from nocturne.wire.query.v1 import query_pb2, query_pb2_grpc

DEADLINE_SECONDS: Final = 20.0
DEADLINE_SECONDS_MAX: Final = 120.0
"""What the command service takes."""
MARGIN_SECONDS: Final = 0.5
"""How much longer than its own deadline a service is given to answer."""
IN_FLIGHT_MAX: Final = 2048
"""Unanswered commands of `submit_many`: half of what the service takes of one stream."""
PAGE_SIZE: Final = 1000
LOOK_SECONDS: Final = 0.05
"""Between questions for a disposition that the read side has not applied yet."""


class Client:
    """One author's view of one ledger. Use it in one event loop, as an async context manager.

    `ledger_id` is what is trusted: the genesis, given or fetched, must be its. Given a genesis
    alone, that one is trusted. A service without an address is `NotConfigured`. Who signs is
    `author`, or the author whose first key is `signer`; without either it only reads and submits
    what others signed.
    """

    def __init__(
        self,
        command_address: str | None,
        query_address: str | None = None,
        *,
        ledger_id: LedgerId | None = None,
        genesis: bytes | None = None,
        signer: Signer | None = None,
        author: Author | None = None,
        credentials: Credentials | None = None,
        deadline_seconds: float = DEADLINE_SECONDS,
        now_ms: Callable[[], int] = now_ms,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if ledger_id is None and genesis is None:
            raise ValueError("ledger: expected its id or its genesis, got neither")
        if signer is not None and author is not None:
            raise ValueError("author: expected an author or its first key, got both")
        self._trusted = ledger_id
        self._ledger = None if genesis is None else Ledger.of(genesis, ledger_id)
        self._author = Author.of(signer) if signer is not None else author
        self._addresses = (command_address, query_address)
        self._credentials = credentials
        self._deadline_seconds = min(deadline_seconds, DEADLINE_SECONDS_MAX)
        self._now_ms = now_ms
        self._random = random
        self._ids = IdMint()
        self._windows: Windows | None = None
        self._command: Link | None = None
        self._query: Link | None = None
        self._mode = ("", "")
        """The ledger's, and its cause, as the newest answer of the query service says."""

    async def __aenter__(self) -> Client:
        command, query = self._addresses
        own = self._credentials
        if command is not None:
            self._command = Link("command", command, command_pb2_grpc.CommandServiceStub, own)
        if query is not None:
            self._query = Link("query", query, query_pb2_grpc.QueryServiceStub, own)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for one in (self._command, self._query):
            if one is not None:
                await one.close()
        self._command = self._query = None

    async def ledger(self) -> Ledger:
        """The trusted ledger; its genesis is fetched and checked when only its id was given."""
        if self._ledger is None:
            data = await self._fetch_genesis()
            self._ledger = Ledger.of(data, self._trusted)
        return self._ledger

    # Building ----------------------------------------------------------------------------------

    def json(self, event_type: str, value: JsonValue) -> Draft:
        """An event with a JSON payload, freshly salted."""
        return Draft(event_type, json_payload(value, self._random(SALT_BYTES)))

    def data(self, event_type: str, data: bytes, content_type: str) -> Draft:
        """An event with a payload of any type, freshly salted."""
        return Draft(event_type, data_payload(data, self._random(SALT_BYTES)), content_type)

    async def build(
        self,
        session: str,
        drafts: Sequence[Draft],
        *,
        opening: Opening | None = None,
        expected_sequence: int | None = None,
        seal: SubjectKey | None = None,
    ) -> SignedCommand:
        """A signed command with a new id, for `submit` and `submit_many`. With `seal` its payloads
        are sealed with that key before it is signed; `TooLarge` when it gets too large by that.
        """
        if self._author is None:
            raise ValueError("author: none was given, so that nothing can be signed")
        now_ms = self._now_ms()
        ledger = await self.ledger()
        if seal is not None:
            drafts = [sealed_draft(one, seal, self._random(NONCE_BYTES)) for one in drafts]
        signed = build(
            ledger.ledger_id,
            self._author,
            session,
            drafts,
            self._ids.mint(now_ms, self._random(ID_RANDOM_BYTES)),
            now_ms,
            opening=opening,
            expected_sequence=expected_sequence,
        )
        if seal is not None:
            check_sealed_size(signed, ledger.genesis.limits)
        return signed

    # Writing -----------------------------------------------------------------------------------

    async def append(
        self,
        session: str,
        drafts: Sequence[Draft],
        *,
        opening: Opening | None = None,
        expected_sequence: int | None = None,
        seal: SubjectKey | None = None,
        wait: Level = Level.SIGNED,
        deadline_seconds: float | None = None,
        prove: bool = False,
    ) -> Result:
        """Build, sign and submit one command; `seal` as in `build`."""
        signed = await self.build(
            session, drafts, opening=opening, expected_sequence=expected_sequence, seal=seal
        )
        return await self.submit(signed, wait=wait, deadline_seconds=deadline_seconds, prove=prove)

    async def submit(
        self,
        signed: SignedCommand,
        *,
        wait: Level = Level.SIGNED,
        deadline_seconds: float | None = None,
        prove: bool = False,
    ) -> Result:
        """Submit a command and check what became of it. Sent again, the same, while the service
        cannot take it; `Unavailable` when that lasts to the deadline.

        A command that was in the log before gets its first outcome, from the read side if the
        command service knows it no more. With `prove` a decision comes with its checked proof.
        """
        ledger = await self.ledger()
        deadline = time.monotonic() + self._bounded(deadline_seconds)
        windows = self._window_of(ledger)
        await windows.enter(signed)
        try:
            outcome = await self._submit(signed, wait, deadline, prove)
        finally:
            windows.leave(signed)
        if outcome is None:
            return Undecided(signed.command_hash, Level.UNKNOWN)
        result = checking.result_of(ledger, signed, outcome)
        result = await self._first_outcome(ledger, signed, result, deadline)
        if prove and not isinstance(result, Undecided) and not result.proof:
            return await self._proved(ledger, signed, result, outcome.proof, deadline)
        return result

    async def submit_many(
        self,
        commands: Commands,
        *,
        wait: Level = Level.SIGNED,
        deadline_seconds: float | None = None,
        in_flight_max: int = IN_FLIGHT_MAX,
    ) -> AsyncGenerator[tuple[SignedCommand, Result], None]:
        """Submit commands in their order over one stream; each with its checked result, in the
        order of the results. Commands may be any iterable, also an endless one.
        """
        ledger = await self.ledger()
        seconds = self._bounded(deadline_seconds)
        windows = self._window_of(ledger)
        pipeline = Pipeline(self._commanding(), windows, wait, seconds, in_flight_max)
        async with aclosing(pipeline.answers(commands)) as answers:
            async for signed, outcome in answers:
                result = checking.result_of(ledger, signed, outcome)
                deadline = time.monotonic() + seconds
                yield signed, await self._first_outcome(ledger, signed, result, deadline)

    async def _submit(
        self, signed: SignedCommand, wait: Level, deadline: float, prove: bool
    ) -> command_pb2.Outcome | None:
        """The service's outcome; None when it did not answer in time."""
        data = encode_signed_command(signed)
        link = self._commanding()
        attempt = 0
        while True:
            left = max(0.001, deadline - time.monotonic())
            request = command_pb2.SubmitRequest(
                signed_command=data,
                wait=command_pb2.Level.ValueType(wait),
                deadline_ms=int(left * 1000) + 1,
                with_proof=prove,
            )
            try:
                async with link.stub() as stub:
                    answer = await stub.Submit(
                        request, timeout=left + MARGIN_SECONDS, metadata=link.metadata
                    )
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    return None
                pause = transport.backoff_seconds(attempt, error)
                passing = await link.passing(error)
                if not passing or time.monotonic() + pause > deadline:
                    raise await link.fault_of(error) from error
                await asyncio.sleep(pause)
                attempt += 1
            else:
                outcome: command_pb2.Outcome = answer.outcome
                return outcome

    async def _first_outcome(
        self, ledger: Ledger, signed: SignedCommand, result: Result, deadline: float
    ) -> Result:
        """What became of a command at first, where the result only says that it is an old one."""
        if not isinstance(result, Refused) or self._query is None:
            return result
        by: query_pb2.GetDispositionRequest
        first = result.header.first_position
        if result.reason is Reason.REPEATED and first is not None:
            position = query_pb2.Position(
                log_epoch=first.log_epoch, partition=first.partition, offset=first.offset
            )
            by = query_pb2.GetDispositionRequest(position=position)
        elif result.reason is Reason.STALE_ID:
            by = query_pb2.GetDispositionRequest(command_hash=signed.command_hash)
        else:
            return result
        found = await self._disposition(by, deadline)
        if found is None:
            return result
        first_result = checking.result_of_proof(ledger, signed, _proof_of(found), repeated=True)
        # An id too old of a command that never was in the log is its own first outcome.
        if isinstance(first_result, Refused) and first_result.header == result.header:
            return result
        return first_result

    async def _proved(
        self,
        ledger: Ledger,
        signed: SignedCommand,
        result: Committed | Refused,
        proof: bytes,
        deadline: float,
    ) -> Result:
        """The result with its proof: the service's, or the read side's."""
        if proof:
            return checking.proved(ledger, result, proof)
        position = result.place.position
        by = query_pb2.GetDispositionRequest(
            position=query_pb2.Position(
                log_epoch=position.log_epoch,
                partition=position.partition,
                offset=position.offset,
            )
        )
        found = await self._disposition(by, deadline)
        if found is None:
            raise Unavailable("query: the proof is not there yet: ask again")
        return checking.result_of_proof(ledger, signed, _proof_of(found), result.repeated)

    # Reading -----------------------------------------------------------------------------------

    async def session(self, session: str) -> Session | None:
        """One session; None when it was never opened, as far as is applied."""
        request = query_pb2.GetSessionRequest(session_id=session)
        answer = await self._ask("GetSession", request)
        return None if answer is None else _session_of(answer.session)

    async def sessions(self, prefix: str = "") -> AsyncIterator[Session]:
        """All sessions whose ids begin with `prefix`, in the order of their ids."""
        token = ""
        while True:
            request = query_pb2.ListSessionsRequest(
                page_size=PAGE_SIZE, page_token=token, prefix=prefix
            )
            page = await self._asked("ListSessions", request)
            for one in page.sessions:
                yield _session_of(one)
            token = page.next_page_token
            if not token:
                return

    async def events(
        self, session: str, from_sequence: int = 1, *, follow: bool = False
    ) -> AsyncGenerator[Event, None]:
        """The session's events, each checked: its chain, its command, author and authority.

        With `follow` it stays and gives what comes, over a service's restarts too, no gap and no
        double.
        """
        chain = EventChain(await self.ledger(), SessionId(session), from_sequence)
        attempt = 0
        while True:
            request = query_pb2.ListEventsRequest(
                session_id=session, from_sequence=chain.next_sequence, follow=follow
            )
            try:
                async with aclosing(self._pages("ListEvents", request)) as pages:
                    async for page in pages:
                        attempt = 0
                        for data in page.events:
                            event = decode_event(data)
                            chain.take(event)
                            yield event
                if not follow:
                    return
            except grpc.aio.AioRpcError as error:
                if not follow or not await self._querying().passing(error):
                    raise await self._querying().fault_of(error) from error
            await asyncio.sleep(transport.backoff_seconds(attempt))
            attempt += 1

    async def receipts(
        self, session: str | None = None, claimed: bool | None = None
    ) -> AsyncIterator[Receipt]:
        """Receipts of a session, or of the whole ledger, by position, each checked. With `claimed`
        False only those of authenticated authors; with True only the others, whose session anybody
        may have named.
        """
        ledger = await self.ledger()
        token = ""
        while True:
            request = query_pb2.ListReceiptsRequest(
                session_id=session or "", page_size=PAGE_SIZE, page_token=token, claimed=claimed
            )
            page = await self._asked("ListReceipts", request)
            for data in page.receipts:
                receipt = decode_receipt(data)
                checking.check_receipt(ledger, receipt)
                if claimed not in (None, receipt.header.claimed):
                    raise Malformed("query: a receipt that was not asked for, by its `claimed`")
                yield receipt
            token = page.next_page_token
            if not token:
                return

    async def state(self, session: str, at_sequence: int = 0) -> State | None:
        """The session's state at a sequence (0: the head), as the read side folds it; None when
        there is no such session. It is not proved: `events` are.
        """
        request = query_pb2.GetStateRequest(session_id=session, at_sequence=at_sequence)
        answer = await self._ask("GetState", request)
        if answer is None:
            return None
        return State(
            SessionId(session),
            answer.sequence,
            Hash(answer.head_hash),
            parse_json(answer.state_json, transport.MESSAGE_BYTES_MAX, DEPTH_LIMIT),
            _applied_of(answer.applied_through),
        )

    async def disposition(self, command_hash: Hash) -> bytes | None:
        """The checked proof of what became of a command; None as far as is applied."""
        by = query_pb2.GetDispositionRequest(command_hash=command_hash)
        found = await self._ask("GetDisposition", by)
        if found is None:
            return None
        proof = _proof_of(found)
        checking.check_proof(await self.ledger(), proof)
        return proof

    async def fold(
        self, session: str, kind: Kind, keys: SubjectKeys, at_sequence: int = 0
    ) -> Folded:
        """The state that one with these subject keys reads, folded here from the session's checked
        events, up to a sequence (0: the head).
        """
        folding = Folding(kind, keys)
        async with aclosing(self.events(session)) as events:
            async for event in events:
                folding.take(event)
                if event.header.sequence == at_sequence:
                    break
        return folding.folded

    async def outcome(self, signed: SignedCommand) -> Result | None:
        """What became of a command, by its checked proof, as far as the read side has applied: its
        events if it ever became any, though a copy of it was refused later.
        """
        by = query_pb2.GetDispositionRequest(
            event_id=event_id(signed.command.ledger_id, signed.command_hash, 0)
        )
        found = await self._ask("GetDisposition", by)
        if found is None:
            by = query_pb2.GetDispositionRequest(command_hash=signed.command_hash)
            found = await self._ask("GetDisposition", by)
        if found is None:
            return None
        return checking.result_of_proof(
            await self.ledger(), signed, _proof_of(found), repeated=True
        )

    async def export(self, session: str, path: Path) -> Verdict:
        """Write the session's export to `path` and verify it there. What does not verify is not
        kept: `Malformed`.
        """
        ledger = await self.ledger()
        partial = path.with_name(f"{path.name}.partial")
        try:
            with partial.open("wb") as file:
                async for lines in self._export(session):
                    file.write(lines)
            with partial.open("rb") as file:
                verdict = verify_export(file, ledger.ledger_id)
            if verdict.fault is not None:
                raise Malformed(f"export: {verdict.fault}")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        return verdict

    async def readable(self, height: int, seconds: float | None = None) -> None:
        """Wait until the read side shows block `height`: what is signed is readable soon after.

        `Unavailable` when it does not within `seconds` (the client's deadline if None).
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._bounded(seconds)
        while (await self.status()).applied_through.height < height:
            if loop.time() > deadline:
                raise Unavailable(f"query: block {height} is not readable yet")
            await asyncio.sleep(LOOK_SECONDS)

    async def status(self) -> Status:
        """What the read side holds."""
        answer = await self._asked("GetStatus", query_pb2.GetStatusRequest())
        mode = self._mode
        ledger = await self.ledger()
        if answer.ledger_id != ledger.ledger_id:
            raise Malformed("query: it reads another ledger")
        return Status(
            _applied_of(answer.applied_through),
            answer.sessions,
            answer.events,
            answer.receipts,
            answer.records,
            tuple(sorted(answer.refused_records.items())),
            *mode,
        )

    # ---------------------------------------------------------------------------------------------

    def _bounded(self, seconds: float | None) -> float:
        return min(seconds or self._deadline_seconds, DEADLINE_SECONDS_MAX)

    def _window_of(self, ledger: Ledger) -> Windows:
        if self._windows is None:
            self._windows = Windows(ledger.genesis.limits.id_window)
        return self._windows

    def _commanding(self) -> Link:
        if self._command is None:
            raise NotConfigured("command: the client was given no address of a command service")
        return self._command

    def _querying(self) -> Link:
        if self._query is None:
            raise NotConfigured("query: the client was given no address of a query service")
        return self._query

    async def _pages(self, method: str, request: object) -> AsyncGenerator[Any, None]:
        """What a streaming method of the query service sends."""
        link = self._querying()
        async with link.stub() as stub:
            call = getattr(stub, method)(request, metadata=link.metadata)
            try:
                async for page in call:
                    yield page
            finally:
                call.cancel()

    async def _asked(self, method: str, request: object) -> Any:
        answer = await self._ask(method, request)
        if answer is None:
            raise NocturneError(f"query: {method}: not found")
        return answer

    async def _ask(self, method: str, request: object) -> Any:
        """The answer; None for NOT_FOUND. It is asked for again while the service is away."""
        link = self._querying()
        deadline = time.monotonic() + self._deadline_seconds
        attempt = 0
        while True:
            try:
                async with link.stub() as stub:
                    call = getattr(stub, method)(
                        request,
                        timeout=max(0.001, deadline - time.monotonic()),
                        metadata=link.metadata,
                    )
                    answer = await call
                    self._mode = transport.mode_in(await call.trailing_metadata())
                    return answer
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.NOT_FOUND:
                    return None
                pause = transport.backoff_seconds(attempt, error)
                if not await link.passing(error) or time.monotonic() + pause > deadline:
                    raise await link.fault_of(error) from error
            await asyncio.sleep(pause)
            attempt += 1

    async def _disposition(
        self, by: query_pb2.GetDispositionRequest, deadline: float
    ) -> query_pb2.GetDispositionResponse | None:
        """What the read side says, waiting until it has applied it; None at the deadline."""
        while True:
            found: query_pb2.GetDispositionResponse | None = await self._ask("GetDisposition", by)
            if found is not None or time.monotonic() + LOOK_SECONDS > deadline:
                return found
            await asyncio.sleep(LOOK_SECONDS)

    async def _export(self, session: str) -> AsyncIterator[bytes]:
        request = query_pb2.ExportSessionRequest(session_id=session)
        try:
            async with aclosing(self._pages("ExportSession", request)) as pages:
                async for piece in pages:
                    yield piece.lines
        except grpc.aio.AioRpcError as error:
            raise await self._querying().fault_of(error) from error

    async def _fetch_genesis(self) -> bytes:
        answer = await self._asked("GetGenesis", query_pb2.GetGenesisRequest())
        return bytes(answer.genesis)


def _proof_of(found: query_pb2.GetDispositionResponse) -> bytes:
    return bytes(found.validators_lines + found.block_line + found.disposition_line)


def _session_of(message: query_pb2.Session) -> Session:
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


def _applied_of(message: query_pb2.AppliedThrough) -> AppliedThrough:
    return AppliedThrough(message.height, Hash(message.block_digest), message.timestamp_ms)
