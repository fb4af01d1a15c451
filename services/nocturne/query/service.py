"""The query service's shell: gRPC in, snapshots of the read model out.

Rules: docs/spec/services.md, query; proto/nocturne/query/v1/query.proto. The process has no way to
write: its role can only SELECT, its transactions are read-only, it knows no broker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, NoReturn, TypeVar

import grpc
import structlog

from nocturne.core.errors import Malformed, Unavailable
from nocturne.core.identifiers import format_hash, format_id, session_key
from nocturne.core.modes import Degraded, metadata_of
from nocturne.query import questions
from nocturne.query.feed import LOOK_SECONDS, Feed, FollowersFull
from nocturne.query.folds import FoldCache
from nocturne.query.reading import (
    EXPORT_CHUNK_BYTES,
    EventPages,
    Exporter,
    States,
    block_line_of,
    session_row,
    validators_lines,
)
from nocturne.query.records import EventRecords, LeafTree, RecordRow, line_of, receipt_record
from nocturne.query.refusals import Refused, failed, invalid, not_found, try_again
from nocturne.query.state_tree import StateTrees
from nocturne.query.store import Applied, BlockRow, SessionRow, Snapshot, Store
from nocturne.runtime.kinds import installed_kinds
from nocturne.runtime.lifecycle import Lifecycle
from nocturne.runtime.rpc import RpcServer, RpcService, details_of, serve
from nocturne.runtime.security import security_of
from nocturne.runtime.settings import Founding, PostgresSettings, read_founding
from nocturne.runtime.spans import OFF, Span, Tracer
from nocturne.runtime.telemetry import Metrics
from nocturne.runtime.tracing import HEADER, parse_traceparent, trace_id_of
from nocturne.wire.query.v1 import query_pb2 as pb
from nocturne.wire.query.v1 import query_pb2_grpc

MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024
"""The longest line of an export; nearly all messages are below 1 MiB."""
EVENTS_PER_MESSAGE: Final = 500
HEALTH_SECONDS: Final = 1.0
HASH_BYTES: Final = 32
ID_BYTES: Final = 16
FULL_NAME: Final = "nocturne.query.v1.QueryService"

Response = TypeVar("Response")
Context = grpc.aio.ServicerContext[Any, Any]

log = structlog.get_logger()


class Settings(PostgresSettings):
    """What the query service reads from the environment."""


async def serve_query(lifecycle: Lifecycle, settings: Settings) -> None:
    """Serve until stopped."""
    founding = read_founding(settings.genesis_file)
    store = Store(settings.database, founding.ledger_id)
    feed = Feed(settings.database, store)
    states = States(store, installed_kinds().of(founding.genesis), FoldCache())
    measures = Measures(lifecycle.metrics)
    query = Query(founding, store, feed, states, measures, lifecycle.tracer)
    service = RpcService(
        FULL_NAME,
        lambda server: query_pb2_grpc.add_QueryServiceServicer_to_server(query, server),
    )
    mode = _Mode()
    server = await serve(
        settings.listen,
        [service],
        message_bytes_max=MESSAGE_BYTES_MAX,
        vitals=lifecycle.vitals,
        security=security_of(settings, lifecycle.metrics),
        trailing=mode.metadata,
    )
    await store.open()
    try:
        await lifecycle.until_stopped(
            feed.run(), _watch(server, store, feed, mode, measures), server.served()
        )
    finally:
        await server.stop()
        await store.close()


async def _watch(
    server: RpcServer, store: Store, feed: Feed, mode: _Mode, measures: Measures
) -> None:
    """Health follows whether the read model answers, and the mode what it says."""
    serving = False
    while True:
        try:
            applied = await store.ask(mode.read)
            measures.height.set(applied.height)
            measures.applied_time.set(applied.time / 1000)
        except Unavailable as fault:
            if serving:
                log.warning("not_serving", cause=str(fault))
        measures.followers.set(feed.followers)
        if store.reachable != serving:
            serving = store.reachable
            await server.set_serving(serving, "" if serving else "the read model does not answer")
        await asyncio.sleep(HEALTH_SECONDS)


class _Mode:
    """The ledger's mode, as the projection has written it down; while that cannot be read, what
    was read last is said.
    """

    def __init__(self) -> None:
        self._read = False
        self._why: Degraded | None = None

    async def read(self, snapshot: Snapshot) -> Applied:
        """Read it, with what the snapshot is of."""
        try:
            why = await snapshot.degraded()
        except Unavailable:
            # A read model of another version does not say.
            return snapshot.applied
        if why is not None and why != self._why:
            log.error("degraded", cause=why.cause.name, text=why.text)
        self._why, self._read = why, True
        return snapshot.applied

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with every answer; nothing before it was read."""
        return metadata_of(self._why) if self._read else ()


class Query(query_pb2_grpc.QueryServiceServicer):
    """Every call of the contract. `Refused` becomes its status, `Unavailable` UNAVAILABLE."""

    def __init__(
        self,
        founding: Founding,
        store: Store,
        feed: Feed,
        states: States,
        measures: Measures,
        tracer: Tracer = OFF,
    ) -> None:
        self._founding = founding
        self._store = store
        self._feed = feed
        self._states = states
        self._exporter = Exporter(store, StateTrees(store), founding)
        self._tracer = tracer
        self._measures = measures

    async def GetSession(  # noqa: N802
        self, request: pb.GetSessionRequest, context: Context
    ) -> pb.GetSessionResponse:
        """One session."""
        return await self._answer("GetSession", context, lambda: self._session(request))

    async def ListSessions(  # noqa: N802
        self, request: pb.ListSessionsRequest, context: Context
    ) -> pb.ListSessionsResponse:
        """A page of sessions."""
        return await self._answer("ListSessions", context, lambda: self._sessions(request))

    async def ListEvents(  # noqa: N802
        self, request: pb.ListEventsRequest, context: Context
    ) -> AsyncIterator[pb.ListEventsResponse]:
        """The past, then with `follow` what comes."""
        async for response in self._stream("ListEvents", context, self._events(request)):
            yield response

    async def ListReceipts(  # noqa: N802
        self, request: pb.ListReceiptsRequest, context: Context
    ) -> pb.ListReceiptsResponse:
        """A page of receipts."""
        return await self._answer("ListReceipts", context, lambda: self._receipts(request))

    async def GetState(  # noqa: N802
        self, request: pb.GetStateRequest, context: Context
    ) -> pb.GetStateResponse:
        """A folded state."""
        return await self._answer("GetState", context, lambda: self._state(request))

    async def GetDisposition(  # noqa: N802
        self, request: pb.GetDispositionRequest, context: Context
    ) -> pb.GetDispositionResponse:
        """What became of a command, with its proof."""
        return await self._answer("GetDisposition", context, lambda: self._disposition(request))

    async def GetBlock(  # noqa: N802
        self, request: pb.GetBlockRequest, context: Context
    ) -> pb.GetBlockResponse:
        """A block's header and commit proof."""
        return await self._answer("GetBlock", context, lambda: self._block(request))

    async def ExportSession(  # noqa: N802
        self, request: pb.ExportSessionRequest, context: Context
    ) -> AsyncIterator[pb.ExportSessionResponse]:
        """A session's export in chunks of whole lines."""
        async for response in self._stream("ExportSession", context, self._export(request)):
            yield response

    async def GetStatus(  # noqa: N802
        self, request: pb.GetStatusRequest, context: Context
    ) -> pb.GetStatusResponse:
        """What there is in all, and what was refused."""
        return await self._answer("GetStatus", context, self._status)

    async def GetGenesis(  # noqa: N802
        self, request: pb.GetGenesisRequest, context: Context
    ) -> pb.GetGenesisResponse:
        """What the ledger was founded with; it never changes, and is read nowhere."""
        return pb.GetGenesisResponse(genesis=self._founding.data)

    # Answers ------------------------------------------------------------------------------------

    async def _session(self, request: pb.GetSessionRequest) -> pb.GetSessionResponse:
        row, applied = await session_row(self._store, questions.session_of(request.session_id))
        return pb.GetSessionResponse(session=_session(row), applied_through=_applied(applied))

    async def _sessions(self, request: pb.ListSessionsRequest) -> pb.ListSessionsResponse:
        prefix = questions.prefix_of(request.prefix)
        after = questions.session_after(request.page_token, prefix)
        size = questions.page_size_of(request.page_size)

        async def question(snapshot: Snapshot) -> tuple[list[SessionRow], Applied]:
            return await snapshot.sessions(after, prefix, size + 1), snapshot.applied

        rows, applied = await self._store.ask(question)
        page = rows[:size]
        return pb.ListSessionsResponse(
            sessions=map(_session, page),
            next_page_token=(questions.session_token(page[-1].session) if len(rows) > size else ""),
            applied_through=_applied(applied),
        )

    async def _events(
        self, request: pb.ListEventsRequest
    ) -> AsyncGenerator[pb.ListEventsResponse, None]:
        session = questions.session_of(request.session_id)
        first = questions.natural("from_sequence", request.from_sequence)
        left = questions.natural("limit", request.limit) or None
        # Registered before the first page is read: what comes after that page wakes it.
        with self._feed.following(session_key(self._founding.ledger_id, session)) as changed:
            await session_row(self._store, session)
            pages = EventPages(self._store, session, first, None)
            while left is None or left > 0:
                changed.clear()
                size = EVENTS_PER_MESSAGE if left is None else min(left, EVENTS_PER_MESSAGE)
                page = await pages.read(size)
                if page.rows:
                    records = EventRecords()
                    yield pb.ListEventsResponse(
                        events=[records.encode(row) for row in page.rows],
                        applied_through=_applied(page.applied),
                    )
                    left = None if left is None else left - len(page.rows)
                elif not request.follow:
                    return
                else:
                    await _wait(changed)

    async def _receipts(self, request: pb.ListReceiptsRequest) -> pb.ListReceiptsResponse:
        session = questions.optional_session_of(request.session_id)
        after = questions.receipt_after(request.page_token)
        size = questions.page_size_of(request.page_size)
        claimed = request.claimed if request.HasField("claimed") else None

        async def question(snapshot: Snapshot) -> tuple[list[Any], bool, Applied]:
            known = session is None or await snapshot.session(session) is not None
            rows = await snapshot.receipts(session, after, size + 1, claimed)
            return rows, known, snapshot.applied

        rows, known, applied = await self._store.ask(question)
        if not known and not rows:
            raise not_found("session", request.session_id)
        page = rows[:size]
        return pb.ListReceiptsResponse(
            receipts=map(receipt_record, page),
            next_page_token=(
                questions.receipt_token(page[-1].position) if len(rows) > size else ""
            ),
            applied_through=_applied(applied),
        )

    async def _state(self, request: pb.GetStateRequest) -> pb.GetStateResponse:
        session = questions.session_of(request.session_id)
        sequence = questions.natural("at_sequence", request.at_sequence)
        folded, applied = await self._states.at(session, sequence)
        return pb.GetStateResponse(
            session_id=session,
            sequence=folded.sequence,
            head_hash=folded.head_hash,
            state_json=folded.state_json,
            applied_through=_applied(applied),
        )

    async def _disposition(self, request: pb.GetDispositionRequest) -> pb.GetDispositionResponse:
        find, name = _finder(request)

        async def question(
            snapshot: Snapshot,
        ) -> tuple[tuple[RecordRow, BlockRow, list[bytes]] | None, Applied]:
            place = await find(snapshot)
            if place is None:
                return None, snapshot.applied
            record, block = await snapshot.record(*place), await snapshot.block(place[0])
            if record is None or block is None:
                return None, snapshot.applied
            changes = await validators_lines(snapshot, self._founding, block.height)
            return (record, block, changes), snapshot.applied

        found, applied = await self._store.ask(question)
        if found is None:
            raise not_found("disposition", name)
        record, block, changes = found
        if not record.events and record.receipt is None:
            raise not_found("disposition", name, f"{name} is a gap: no record stands there")
        authority = self._founding.genesis.authority
        return pb.GetDispositionResponse(
            disposition_line=line_of(record, block.time, LeafTree(block.leaves), authority),
            block_line=block_line_of(block),
            applied_through=_applied(applied),
            genesis=self._founding.data,
            validators_lines=b"".join(changes),
        )

    async def _block(self, request: pb.GetBlockRequest) -> pb.GetBlockResponse:
        height = questions.natural("height", request.height)

        async def question(snapshot: Snapshot) -> tuple[BlockRow | None, Applied]:
            return await snapshot.block(height), snapshot.applied

        block, applied = await self._store.ask(question)
        if block is None:
            raise not_found(
                "block", str(height), f"block {height}: applied are 1 to {applied.height}"
            )
        return pb.GetBlockResponse(
            block_line=block_line_of(block), applied_through=_applied(applied)
        )

    async def _export(
        self, request: pb.ExportSessionRequest
    ) -> AsyncGenerator[pb.ExportSessionResponse, None]:
        session = questions.session_of(request.session_id)
        chunk = bytearray()
        async for line in self._exporter.lines(session):
            if chunk and len(chunk) + len(line) > EXPORT_CHUNK_BYTES:
                yield pb.ExportSessionResponse(lines=bytes(chunk))
                chunk.clear()
            chunk += line
        yield pb.ExportSessionResponse(lines=bytes(chunk))

    async def _status(self) -> pb.GetStatusResponse:
        async def question(snapshot: Snapshot) -> tuple[Any, Applied]:
            return await snapshot.counts(), snapshot.applied

        counts, applied = await self._store.ask(question)
        return pb.GetStatusResponse(
            applied_through=_applied(applied),
            ledger_id=self._founding.ledger_id,
            sessions=counts.sessions,
            events=counts.events,
            receipts=counts.receipts,
            records=counts.records,
            refused_records=counts.refused,
        )

    # Errors -------------------------------------------------------------------------------------

    async def _answer(
        self, call: str, context: Context, question: Callable[[], Awaitable[Response]]
    ) -> Response:
        with self._call(call, context) as asked:
            try:
                answer = await question()
            except (Refused, Malformed, Unavailable) as fault:
                await self._abort(context, asked, fault)
            asked.answered()
            asked.ended()
            return answer

    async def _stream(
        self, call: str, context: Context, responses: AsyncGenerator[Response, None]
    ) -> AsyncGenerator[Response, None]:
        with self._call(call, context) as asked:
            try:
                async with aclosing(responses):
                    async for response in responses:
                        asked.answered()
                        yield response
            except (Refused, Malformed, Unavailable) as fault:
                await self._abort(context, asked, fault)
            asked.ended()

    def _call(self, call: str, context: Context) -> _Call:
        traceparent = None
        for name, value in context.invocation_metadata() or ():
            if name == HEADER:
                traceparent = parse_traceparent(value)
        span = None
        if self._tracer.on:
            span = self._tracer.begin(f"query.{call}", traceparent, "SERVER")
        return _Call(self._measures, call, traceparent, span)

    async def _abort(self, context: Context, asked: _Call, fault: Exception) -> NoReturn:
        refused = _refused(fault)
        asked.ended(refused.code.name, refused.message)
        await context.abort(refused.code, refused.message, details_of(context, refused.status()))


class Measures:
    """The service's metrics."""

    def __init__(self, metrics: Metrics) -> None:
        self.height = metrics.gauge("applied_height", "Height of the last block in the read model")
        self.applied_time = metrics.gauge(
            "applied_timestamp_seconds", "Time in the last block in the read model, since 1970"
        )
        self.followers = metrics.gauge("followers", "Streams that follow a session")
        self.seconds = metrics.histogram(
            "answer_seconds", "Time to an answer; of a stream, to its first message", ("method",)
        )
        self.requests = metrics.counter(
            "requests", "Calls that ended, by method and gRPC code", ("method", "code")
        )
        for method in pb.DESCRIPTOR.services_by_name["QueryService"].methods:
            # There from the beginning: a series that begins with 1 never increases, and the first
            # altered row is to be told.
            self.requests.labels(method.name, grpc.StatusCode.DATA_LOSS.name)


class _Call:
    """One call that is being answered: how long it took, how it ended, its span.

    A call that ends without `ended` was cancelled by its caller, or failed as it never should.
    """

    def __init__(
        self, measures: Measures, method: str, traceparent: bytes | None, span: Span | None
    ) -> None:
        self._measures = measures
        self._method = method
        self._trace_id = trace_id_of(traceparent if span is None else span.traceparent)
        self._span = span
        self._started = time.monotonic()
        self._is_answered = self._is_ended = False

    def __enter__(self) -> _Call:
        if self._trace_id is not None:
            structlog.contextvars.bind_contextvars(trace_id=self._trace_id)
        return self

    def answered(self) -> None:
        """The first message of the answer is there."""
        if not self._is_answered:
            self._is_answered = True
            seconds = time.monotonic() - self._started
            self._measures.seconds.labels(self._method).observe(seconds)

    def ended(self, code: str = "OK", error: str = "") -> None:
        """It ended with this code."""
        self._is_ended = True
        self._measures.requests.labels(self._method, code).inc()
        if self._span is not None:
            self._span.set({"rpc.grpc.status": code})
            self._span.end(error)

    def __exit__(self, kind: type[BaseException] | None, _: object, __: object) -> None:
        if self._is_ended:
            return
        left = kind is None or issubclass(kind, asyncio.CancelledError | GeneratorExit)
        self.ended("CANCELLED" if left else "UNKNOWN", "" if left else "failed")


def _refused(fault: Exception) -> Refused:
    """The status that an error becomes. Rows that make no sense were put there by someone."""
    if isinstance(fault, Refused):
        return fault
    if isinstance(fault, FollowersFull):
        return try_again(grpc.StatusCode.RESOURCE_EXHAUSTED, "FOLLOWERS_FULL", str(fault))
    if isinstance(fault, Unavailable):
        return try_again(grpc.StatusCode.UNAVAILABLE, "READ_MODEL_AWAY", str(fault))
    log.error("rows_altered", cause=str(fault))
    return failed(grpc.StatusCode.DATA_LOSS, "ROWS_ALTERED", str(fault))


async def _wait(changed: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(LOOK_SECONDS):
            await changed.wait()
    except TimeoutError:
        # A notification may be lost with its connection: look anyway.
        return


def _finder(
    request: pb.GetDispositionRequest,
) -> tuple[Callable[[Snapshot], Awaitable[tuple[int, int] | None]], str]:
    """How to find the place that the request names, and its name in words."""
    match request.WhichOneof("by"):
        case "command_hash":
            command_hash = questions.exactly("command_hash", request.command_hash, HASH_BYTES)
            return lambda snapshot: snapshot.find_command(command_hash), format_hash(command_hash)
        case "event_id":
            event_id = questions.exactly("event_id", request.event_id, ID_BYTES)
            return lambda snapshot: snapshot.find_event(event_id), format_id(event_id)
        case "position":
            asked = request.position
            at = questions.position_of(asked.log_epoch, asked.partition, asked.offset)
            name = f"offset {at.offset} of partition {at.partition}, log epoch {at.log_epoch}"
            return lambda snapshot: snapshot.find_position(at), name
        case _:
            raise invalid("by", "expected a command hash, an event id or a position")


def _session(row: SessionRow) -> pb.Session:
    return pb.Session(
        session_id=row.session,
        kind=row.kind,
        kind_version=row.kind_version,
        sequence=row.sequence,
        head_hash=row.head_hash,
        receipt_count=row.receipt_count,
        closed=row.closed,
        opened_at_ms=row.opened_at,
        updated_at_ms=row.updated_at,
    )


def _applied(applied: Applied) -> pb.AppliedThrough:
    return pb.AppliedThrough(
        height=applied.height, block_digest=applied.digest, timestamp_ms=applied.time
    )
