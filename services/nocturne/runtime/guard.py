"""Who may call, asked before every method: the shell around `core.access`.

Rules: docs/guides/security.md. The access file is read again when it changes. One that is broken
changes nothing: the last good one stays in force, the log says so once, and a metric counts it.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, Final, NoReturn

import grpc
import structlog
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status

from nocturne.core import access
from nocturne.core.access import (
    ACCESS_BYTES_MAX,
    Access,
    Cause,
    Certificate,
    Principal,
    Refused,
    Shown,
)
from nocturne.core.errors import Malformed, NocturneError
from nocturne.runtime.handlers import shape_of
from nocturne.runtime.telemetry import Metrics

DOMAIN: Final = "nocturne.access"
LOG_SECONDS: Final = 1.0
"""Between two lines on calls refused for one cause, with which anybody could fill the disk; the
metric counts them all. By cause, so that who knocks without a token does not hide who tries one.
"""
REFUSAL_SECONDS_MAX: Final = 1.0
"""To tell the caller of an open stream why it ends; then it ends all the same."""

log = structlog.get_logger()

_principal: ContextVar[str | None] = ContextVar("nocturne_principal", default=None)


def caller_of(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """Who calls, for whoever charges callers: the authenticated principal, else the peer's address.

    A principal's name has no colon and an address has one, so that neither passes for the other.
    """
    name = _principal.get()
    return context.peer() if name is None else name


class AccessFault(NocturneError):  # noqa: N818
    """The access file cannot be used; the message says why."""


def read_access(path: Path) -> bytes:
    """The bytes of an access file, within the bound."""
    try:
        with path.open("rb") as file:
            return file.read(ACCESS_BYTES_MAX + 1)
    except OSError as fault:
        raise AccessFault(f"access file {path}: cannot be read ({fault.strerror})") from fault


class Guard(grpc.aio.ServerInterceptor):
    """Lets a call in whose principal has a role for it. `AccessFault` when there is no good file to
    begin with.
    """

    def __init__(self, path: Path, metrics: Metrics) -> None:
        self._path = path
        self._data: bytes | None = None
        self._fault: str | None = None
        self._refused = metrics.counter("calls_refused", "Calls refused at the door", ["cause"])
        self._read = metrics.counter("access_reads", "Access files met", ["outcome"])
        for outcome in ("taken", "refused"):
            # There from the beginning: a series that begins with 1 never increases.
            self._read.labels(outcome)
        self.version = 0
        """Counts the access files taken."""
        self.access = self._first()
        self._silent_until: dict[Cause, float] = {}
        self._streams: set[_Standing] = set()
        # One for each method that is served: wrapping costs more than many calls.
        self._wrapped: dict[str, tuple[Any, Any]] = {}

    def _first(self) -> Access:
        data = read_access(self._path)
        try:
            found = access.parse_access(data)
        except Malformed as fault:
            raise AccessFault(f"access file {self._path}: {fault}") from fault
        self._data = data
        return found

    def look(self) -> None:
        """Take the file if it is another now, and good. Reads it: call it from a thread."""
        try:
            data = read_access(self._path)
            if data == self._data:
                self._fault = None
                return
            found = access.parse_access(data)
        except (AccessFault, Malformed) as fault:
            self._keep(str(fault))
            return
        self._data, self._fault = data, None
        self.access = found
        self.version += 1
        self._read.labels("taken").inc()
        log.info("access_taken", file=str(self._path), principals=len(found.principals))

    def _keep(self, fault: str) -> None:
        """The last good one stays; said once for each way in which a file is broken."""
        if fault == self._fault:
            return
        self._fault = fault
        self._read.labels("refused").inc()
        log.error("access_refused", file=str(self._path), cause=fault, in_force="the last good one")

    # Before a method ----------------------------------------------------------------------------

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        """The handler with the question before it; health without."""
        handler = await continuation(details)
        if handler is None or details.method in access.OPEN:
            return handler
        known = self._wrapped.get(details.method)
        if known is None or known[0] is not handler:
            guarded = _guarded(self, details.method, handler)
            known = self._wrapped[details.method] = (handler, guarded)
        return known[1]

    @contextmanager
    def holding(self, standing: _Standing) -> Iterator[None]:
        """Know a stream for as long as it is open."""
        self._streams.add(standing)
        try:
            yield
        finally:
            self._streams.discard(standing)

    async def review(self) -> None:
        """End the streams that the file of now does not admit, quiet ones too: without a message
        nothing else would ask again.
        """
        # At once, and each within a bound: a caller that does not read keeps nobody else in.
        await asyncio.gather(*(one.review() for one in tuple(self._streams)))

    async def refuse(self, context: Any, method: str, refused: Refused) -> NoReturn:
        """Answer with the reason, count it, and say it."""
        self._refused.labels(refused.cause.value).inc()
        now = time.monotonic()
        if now >= self._silent_until.get(refused.cause, 0.0):
            self._silent_until[refused.cause] = now + LOG_SECONDS
            log.warning(
                "call_refused",
                method=method,
                cause=refused.cause.value,
                reason=refused.message,
                principal=refused.principal,
                peer=context.peer(),
            )
        code = (
            grpc.StatusCode.PERMISSION_DENIED
            if refused.authenticated
            else grpc.StatusCode.UNAUTHENTICATED
        )
        status = Status(code=code.value[0], message=refused.message)
        status.details.add().Pack(ErrorInfo(reason=refused.cause.name, domain=DOMAIN))
        details = (("grpc-status-details-bin", status.SerializeToString()),)
        await context.abort(code, refused.message, details)
        raise AssertionError("abort returns to nobody")


class _Standing:
    """One call's admission; asked again for each message of a stream once the file has changed, and
    by `Guard.review`, so that a stream does not outlive what it was admitted by.
    """

    def __init__(self, guard: Guard, method: str, context: Any) -> None:
        self._guard = guard
        self._method = method
        self._context = context
        self._shown = shown_by(context)
        self._version = -1
        self._task = asyncio.current_task()

    async def check(self) -> None:
        """Admit the call, or end it with the reason. For the task of the call."""
        guard = self._guard
        if self._version == guard.version:
            return
        self._version = guard.version
        found = access.decide(guard.access, self._method, self._shown)
        if not isinstance(found, Principal):
            await guard.refuse(self._context, self._method, found)
        _principal.set(found.name)

    async def review(self) -> None:
        """End the call from outside if it is not admitted any more."""
        guard = self._guard
        if self._version == guard.version:
            return
        found = access.decide(guard.access, self._method, self._shown)
        # One that is still admitted finds out by itself, for the name it is charged by.
        if isinstance(found, Principal):
            return
        self._version = guard.version
        with suppress(grpc.aio.AbortError, grpc.aio.UsageError, TimeoutError):
            # Who was answered already, has gone, or does not read, gets no reason.
            async with asyncio.timeout(REFUSAL_SECONDS_MAX):
                await guard.refuse(self._context, self._method, found)
        if self._task is not None:
            self._task.cancel()


def shown_by(context: Any) -> Shown:
    """What the caller of `context` shows: its metadata, and the certificate of its connection."""
    authorization = tuple(
        value for name, value in context.invocation_metadata() or () if name == "authorization"
    )
    if authorization:
        # It decides alone: the certificate, whose reading costs more, is not looked at.
        return Shown(authorization)
    peer = context.auth_context()
    if not peer.get("x509_subject") and not peer.get("x509_pem_cert"):
        return Shown()
    common_name = next(iter(_texts(peer, "x509_common_name")), None)
    certificate = Certificate(_texts(peer, "peer_dns"), _texts(peer, "peer_uri"), common_name)
    return Shown((), certificate)


def _texts(peer: Any, name: str) -> tuple[str, ...]:
    return tuple(value.decode("utf-8", "replace") for value in peer.get(name, ()))


def _guarded(guard: Guard, method: str, handler: Any) -> Any:
    """The handler behind the question. Requests are decoded only once it is answered."""
    make, behaviour = shape_of(handler)
    decode = handler.request_deserializer or _as_it_is
    is_stream = handler.request_streaming or handler.response_streaming

    async def each(requests: AsyncIterable[bytes], standing: _Standing) -> AsyncIterator[Any]:
        async for request in requests:
            await standing.check()
            yield decode(request)

    async def admitted(requests: Any, context: Any) -> tuple[_Standing, Any]:
        standing = _Standing(guard, method, context)
        await standing.check()
        taken = each(requests, standing) if handler.request_streaming else decode(requests)
        return standing, taken

    async def generator(requests: Any, context: Any) -> AsyncIterator[Any]:
        standing, taken = await admitted(requests, context)
        with guard.holding(standing):
            async with aclosing(behaviour(taken, context)) as answers:
                async for answer in answers:
                    await standing.check()
                    yield answer

    async def coroutine(requests: Any, context: Any) -> Any:
        standing, taken = await admitted(requests, context)
        if not is_stream:
            return await behaviour(taken, context)
        with guard.holding(standing):
            return await behaviour(taken, context)

    # gRPC tells by its type how a method answers, so that the wrapper is of the same.
    return make(
        generator if inspect.isasyncgenfunction(behaviour) else coroutine,
        request_deserializer=None,
        response_serializer=handler.response_serializer,
    )


def _as_it_is(data: bytes) -> bytes:
    return data
