"""gRPC channels, and what gRPC's errors mean to a caller."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from nocturne.client.credentials import PLAIN, Loaded
from nocturne.client.results import AccessDenied, LedgerDegraded, NotConfigured
from nocturne.core.errors import Malformed, NocturneError, Unavailable
from nocturne.core.modes import CAUSE, METADATA_CAUSE, METADATA_MODE, REASON

MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024
"""The longest line of an export; nearly all messages are below 1 MiB."""
BACKOFF_SECONDS: Final = 0.1
BACKOFF_SECONDS_MAX: Final = 3.0
CAUSE_CHARACTERS_MAX: Final = 64
UNKNOWN_CAUSE: Final = "UNKNOWN"
DOUBLINGS_MAX: Final = 10
"""More of them than to the bound; thousands of refusals in a row make no number too large."""

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A service that was started again is found again soon.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_http_proxy", 0),
)

_PASSING: Final = frozenset(
    {
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNKNOWN,
    }
)
"""Worth another try: with a command this is safe, with a question too."""

PASSING_NUMBERS: Final = frozenset(code.value[0] for code in _PASSING)
"""The same as google.rpc codes, as a stream's refusals carry them."""


def channel(address: str, loaded: Loaded = PLAIN) -> grpc.aio.Channel:
    """A channel to `address` (host:port); without authorities in plain text."""
    if not loaded.is_tls:
        return grpc.aio.insecure_channel(address, options=_OPTIONS)
    pair = loaded.pair
    credentials = grpc.ssl_channel_credentials(
        loaded.authorities,
        None if pair is None else pair.key,
        None if pair is None else pair.certificate,
    )
    return grpc.aio.secure_channel(address, credentials, options=_OPTIONS)


def is_passing(error: grpc.aio.AioRpcError) -> bool:
    """Whether the same call may go better later."""
    return error.code() in _PASSING


def backoff_seconds(attempt: int, error: grpc.aio.AioRpcError | None = None) -> float:
    """When to try again: as the service says, else doubling, bounded; half of it jitter."""
    asked = None if error is None else _retry_delay(error)
    doubled = BACKOFF_SECONDS * float(2 ** min(attempt, DOUBLINGS_MAX))
    bound = asked or min(doubled, BACKOFF_SECONDS_MAX)
    return bound * random.uniform(0.5, 1.0)


@contextmanager
def translated(service: str) -> Iterator[None]:
    """Turns gRPC's errors into those of `core.errors`."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise fault_of(service, error.code(), error.details() or "", degraded_in(error)) from error


def fault_of(
    service: str, code: grpc.StatusCode | None, details: str, degraded: str | None = None
) -> NocturneError:
    """The error that a caller of this package sees. `degraded` is the cause's name, where the
    ledger is DEGRADED.
    """
    words = f"{service}: {details or code}"
    if degraded is not None:
        return LedgerDegraded(words, degraded)
    if code is grpc.StatusCode.INVALID_ARGUMENT:
        return Malformed(words)
    if code in (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED):
        return AccessDenied(words)
    if code in (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.UNIMPLEMENTED):
        return NotConfigured(words)
    if code in _PASSING or code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unavailable(words)
    return NocturneError(words)


def code_of(number: int) -> grpc.StatusCode | None:
    """The status code of a google.rpc code."""
    return next((code for code in grpc.StatusCode if code.value[0] == number), None)


def degraded_in(error: grpc.aio.AioRpcError) -> str | None:
    """The name of the cause, when the call was refused because the ledger is DEGRADED."""
    info = error_details_pb2.ErrorInfo()
    for detail in _details_of(error):
        if detail.Unpack(info) and info.reason == REASON:
            return degraded_by(info.reason, info.metadata.get(CAUSE, ""))
    return None


def degraded_by(reason: str, cause: str) -> str | None:
    """The same of a refusal's reason and cause, which are what a server says: cut."""
    return cause[:CAUSE_CHARACTERS_MAX] or UNKNOWN_CAUSE if reason == REASON else None


def mode_in(metadata: Iterable[tuple[str, str | bytes]] | None) -> tuple[str, str]:
    """The ledger's mode and its cause, as an answer's trailing metadata say; empty if not said."""
    said = {name: value for name, value in metadata or () if isinstance(value, str)}
    mode, cause = said.get(METADATA_MODE, ""), said.get(METADATA_CAUSE, "")
    return mode[:CAUSE_CHARACTERS_MAX], cause[:CAUSE_CHARACTERS_MAX]


def _retry_delay(error: grpc.aio.AioRpcError) -> float | None:
    retry = error_details_pb2.RetryInfo()
    for detail in _details_of(error):
        if detail.Unpack(retry):
            delay: float = retry.retry_delay.ToNanoseconds() / 1e9
            return delay
    return None


def _details_of(error: grpc.aio.AioRpcError) -> Iterator[AnyMessage]:
    for name, value in error.trailing_metadata() or ():
        if name == "grpc-status-details-bin" and isinstance(value, bytes):
            yield from status_pb2.Status.FromString(value).details
