"""gRPC as the services serve it: bounded messages, health, reflection, keepalive, graceful end."""

from __future__ import annotations

import asyncio
import inspect
import logging
import resource
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
import structlog
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from nocturne.core.errors import Unavailable
from nocturne.runtime.handlers import shape_of
from nocturne.runtime.security import CONNECTION_SECONDS_MAX, GRACE_SECONDS, Security
from nocturne.runtime.vitals import STARTING, Vitals

Metadata = tuple[tuple[str, str | bytes], ...]

MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024
"""gRPC's own default, made explicit; a service names what its messages need."""
STOP_SECONDS_MAX: Final = 3.0
"""How long calls in flight may go on once the service is told to stop."""

CONNECTIONS_MAX: Final = 8_192
"""At once, and never more than half of the descriptors that the process may have, so that whoever
opens connections does not take those of Kafka, the database and the files; one more is closed.
"""
HANDSHAKE_SECONDS_MAX: Final = 10
"""For a connection to become one of HTTP/2, over TLS or not; whoever says nothing is closed."""
STREAMS_MAX: Final = 4_096
"""Calls at once on one connection, those that follow sessions among them; more wait at the client.
"""
WATCHES_MAX: Final = 1_000
"""Calls of health's `Watch`, which nobody needs a role for and which do not end."""
TERMINATION_SECONDS: Final = 60.0
UNREADABLE_LOG_SECONDS: Final = 1.0
"""Between two lines on calls with bytes that are no text."""

log = structlog.get_logger()

_SERVER_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
    # A taken port is an error, never shared with whoever took it.
    ("grpc.so_reuseport", 0),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_SECONDS_MAX * 1000),
    ("grpc.max_concurrent_streams", STREAMS_MAX),
)
_TLS_OPTIONS: Final = (
    ("grpc.max_connection_age_ms", CONNECTION_SECONDS_MAX * 1000),
    ("grpc.max_connection_age_grace_ms", GRACE_SECONDS * 1000),
)


@dataclass(frozen=True, slots=True)
class RpcService:
    """A gRPC service by its full name, and the generated function that adds its servicer."""

    full_name: str
    add: Callable[[grpc.aio.Server], None]


class RpcServer:
    """A gRPC server with health and reflection beside the services given. NOT_SERVING at first,
    and from the moment on that the process of `vitals` is told to stop.

    With `security` it speaks TLS and asks who calls, as that says; without, it does neither. What
    `trailing` gives goes with every answer (`abort` with `details_of` where an error has details).
    """

    def __init__(
        self,
        listen: str,
        services: Sequence[RpcService],
        message_bytes_max: int,
        vitals: Vitals | None = None,
        security: Security | None = None,
        trailing: Callable[[], Metadata] = lambda: (),
    ) -> None:
        self._vitals = Vitals() if vitals is None else vitals
        self._leaving: asyncio.Task[None] | None = None
        self._names = tuple(service.full_name for service in services)
        self._security = security
        self._watching: asyncio.Task[None] | None = None
        self._stopping = False
        tls = None if security is None else security.tls
        guard = None if security is None else security.guard
        self._server = grpc.aio.server(
            options=[
                *_SERVER_OPTIONS,
                ("grpc.max_allowed_incoming_connections", connections_max()),
                *(() if tls is None else _TLS_OPTIONS),
                ("grpc.max_receive_message_length", message_bytes_max),
                # What is sent is bounded by the one who builds it.
                ("grpc.max_send_message_length", -1),
            ],
            # The guard first: what a stranger sends is not even decoded.
            interceptors=[*(() if guard is None else (guard,)), _RefuseUndecodable(trailing)],
        )
        _quote_nobody()
        self._health = _Health()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        for service in services:
            service.add(self._server)
        reflection.enable_server_reflection(
            (*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )
        try:
            if tls is None:
                self.port = self._server.add_insecure_port(listen)
            else:
                self.port = self._server.add_secure_port(listen, tls.credentials())
        except RuntimeError as fault:
            raise Unavailable(f"address {listen}: cannot listen there, is it taken?") from fault

    async def start(self) -> None:
        """Accept calls; health says NOT_SERVING until `set_serving`."""
        await self.set_serving(False, STARTING)
        await self._server.start()
        self._vitals.when_stopping(self._leave)
        if self._security is not None:
            self._watching = asyncio.ensure_future(self._security.watch())

    async def served(self) -> None:
        """A part of the service's work: returns once `stop` was called. `Unavailable` when the
        server ended by itself: a process that nobody reaches is to be started again.
        """
        # In turns: a wait without a bound, when it is cancelled, cancels the server's own.
        while await self._server.wait_for_termination(TERMINATION_SECONDS):
            pass
        if not self._stopping:
            raise Unavailable("the gRPC server has ended by itself")

    async def set_serving(self, serving: bool, why: str = "") -> None:
        """What health, and with it `/readyz`, says of the process and of every service in it; `why`
        when they do not serve, or what else is to be known.
        """
        self._vitals.set_serving(serving, why)
        status = (
            health_pb2.HealthCheckResponse.SERVING
            if serving
            else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for name in ("", *self._names):
            await self._health.set(name, status)

    async def stop(self, seconds_max: float = STOP_SECONDS_MAX) -> None:
        """Say NOT_SERVING, take no new call, and let the others end, at most `seconds_max`."""
        self._stopping = True
        if self._watching is not None:
            self._watching.cancel()
        self._leave()
        assert self._leaving is not None
        await self._leaving
        await self._server.stop(seconds_max)

    def _leave(self) -> None:
        """NOT_SERVING for ever, whatever the service says after."""
        if self._leaving is None:
            self._leaving = asyncio.ensure_future(self._health.enter_graceful_shutdown())


def connections_max() -> int:
    """Of this process."""
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return CONNECTIONS_MAX
    return min(CONNECTIONS_MAX, descriptors // 2)


class _Health(health.aio.HealthServicer):
    """Health for `WATCHES_MAX` watchers; one more is told to ask instead."""

    def __init__(self) -> None:
        super().__init__()
        self._watches = 0

    async def Watch(self, request: Any, context: Any) -> None:  # noqa: N802
        if self._watches >= WATCHES_MAX:
            message = f"there are {WATCHES_MAX} watchers already: call Check"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, message)
        self._watches += 1
        try:
            await super().Watch(request, context)
        finally:
            self._watches -= 1


class _Unreadable(logging.Filter):
    """Keeps from the log what gRPC's library says of paths and metadata that are not UTF-8: it
    quotes them, and a token may be in them, with a traceback for each, with which anybody could
    fill the disk. A line of our own says that there are such calls.
    """

    def __init__(self) -> None:
        super().__init__()
        self._silent_until = 0.0

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written as it is."""
        if not _is_of_unreadable(record):
            return True
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + UNREADABLE_LOG_SECONDS
            log.warning("call_unreadable", cause="a path or metadata that are not UTF-8")
        return False


def _is_of_unreadable(record: logging.LogRecord) -> bool:
    """Of gRPC's own decoding alone: an error of a service's stays what it is."""
    if record.exc_info is None or not isinstance(record.exc_info[1], UnicodeDecodeError):
        return False
    trace = record.exc_info[1].__traceback__
    while trace is not None:
        if _GRPC_CORE not in trace.tb_frame.f_code.co_filename:
            return False
        trace = trace.tb_next
    return True


_GRPC_LOG: Final = "grpc._cython.cygrpc"
_GRPC_CORE: Final = "_cygrpc"


def _quote_nobody() -> None:
    """One `_Unreadable` for the process."""
    logger = logging.getLogger(_GRPC_LOG)
    if not any(isinstance(one, _Unreadable) for one in logger.filters):
        logger.addFilter(_Unreadable())


@dataclass(frozen=True, slots=True)
class _Undecodable:
    """Stands for a request that is no message of its method."""

    cause: str


class _RefuseUndecodable(grpc.aio.ServerInterceptor):
    """Answers bytes that are no message of the method with INVALID_ARGUMENT. Left to itself gRPC
    says UNKNOWN and logs a traceback for each, with which anybody could fill a disk.
    """

    def __init__(self, trailing: Callable[[], Metadata]) -> None:
        self._trailing = trailing
        # One for each method that is served: wrapping costs more than many calls.
        self._wrapped: dict[str, tuple[Any, Any]] = {}

    async def intercept_service(
        self, continuation: Callable[[Any], Awaitable[Any]], details: Any
    ) -> Any:
        handler = await continuation(details)
        if handler is None or handler.request_deserializer is None:
            return handler
        known = self._wrapped.get(details.method)
        if known is None or known[0] is not handler:
            known = self._wrapped[details.method] = (
                handler,
                _checked(handler, self._trailing),
            )
        return known[1]


def _checked(handler: Any, trailing: Callable[[], Metadata]) -> Any:
    """The handler with its requests looked at before it sees them, and `trailing` with its answers:
    as of the beginning, for one that is aborted, and of the end.
    """
    make, behaviour = shape_of(handler)

    def decode(data: bytes) -> Any:
        try:
            return handler.request_deserializer(data)
        except DecodeError as fault:
            return _Undecodable(str(fault))

    async def each(requests: AsyncIterable[Any], context: Any) -> AsyncIterator[Any]:
        async for request in requests:
            await _refuse_undecodable(request, context)
            yield request

    async def looked_at(requests: Any, context: Any) -> Any:
        if handler.request_streaming:
            return each(requests, context)
        await _refuse_undecodable(requests, context)
        return requests

    async def generator(requests: Any, context: Any) -> AsyncIterator[Any]:
        context.set_trailing_metadata(trailing())
        async for answer in behaviour(await looked_at(requests, context), context):
            yield answer
        context.set_trailing_metadata(trailing())

    async def coroutine(requests: Any, context: Any) -> Any:
        context.set_trailing_metadata(trailing())
        answer = await behaviour(await looked_at(requests, context), context)
        context.set_trailing_metadata(trailing())
        return answer

    # gRPC tells by its type how a method answers, so that the wrapper is of the same.
    return make(
        generator if inspect.isasyncgenfunction(behaviour) else coroutine,
        request_deserializer=decode,
        response_serializer=handler.response_serializer,
    )


async def _refuse_undecodable(request: object, context: Any) -> None:
    if not isinstance(request, _Undecodable):
        return
    message = f"request: expected a message of this method, got other bytes ({request.cause})"
    status = Status(code=grpc.StatusCode.INVALID_ARGUMENT.value[0], message=message)
    violation = BadRequest.FieldViolation(field="request", description=message)
    status.details.add().Pack(BadRequest(field_violations=[violation]))
    details = details_of(context, status)
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, message, details)


def details_of(context: Any, status: Status) -> Metadata:
    """What `abort` sends beside a code and words: the status with its details, and what every
    answer of the server has.
    """
    own: Metadata = tuple(context.trailing_metadata() or ())
    return (*own, ("grpc-status-details-bin", status.SerializeToString()))


class HealthServer(RpcServer):
    """Health alone, for a service without calls of its own."""

    def __init__(
        self, listen: str, vitals: Vitals | None = None, security: Security | None = None
    ) -> None:
        super().__init__(listen, (), MESSAGE_BYTES_MAX, vitals, security)


async def serve(
    listen: str,
    services: Sequence[RpcService] = (),
    *,
    message_bytes_max: int = MESSAGE_BYTES_MAX,
    vitals: Vitals | None = None,
    security: Security | None = None,
    trailing: Callable[[], Metadata] = lambda: (),
) -> RpcServer:
    """A started server at `listen`; the caller says when it is serving, and stops it."""
    server = RpcServer(listen, services, message_bytes_max, vitals, security, trailing)
    await server.start()
    return server
