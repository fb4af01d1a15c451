"""One stream between two validators that know each other, and what is kept of the validator at its
other end. Either end writes and reads at once.

Rules: docs/spec/peers.md §3, §4.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import grpc

from nocturne.consensus import codec
from nocturne.consensus.handshake import Opener, Sealer
from nocturne.consensus.peer_bounds import (
    ENVELOPE_COST,
    VALUES_BURST,
    VALUES_PER_SECOND,
    Allowance,
    Outgoing,
)
from nocturne.core.errors import Malformed, PeerFault
from nocturne.core.keys import Key
from nocturne.runtime.telemetry import Metrics
from nocturne.wire.consensus.v1 import exchange_pb2

VALUES_AT_ONCE: Final = 16
"""Heard in one go, some milliseconds with their signatures, before others get their turn."""
RTT_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)

Hear = Callable[[Key, codec.Value], Awaitable[None]]

GONE: Final = (
    grpc.RpcError,
    grpc.aio.BaseError,
    asyncio.InvalidStateError,
)
"""What gRPC raises on a stream whose other end is away."""


class Pipe(Protocol):
    """gRPC's end of a stream, as who called and who was called have it."""

    async def read(self) -> Any:
        """A message's bytes, or `grpc.aio.EOF`."""

    async def write(self, message: bytes, /) -> None:
        """Returns once the transport has taken it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """Why a stream is no more, in gRPC's code and in words."""

    code: grpc.StatusCode
    words: str


class PeerMeasures:
    """What the talk with other validators tells of itself."""

    def __init__(self, metrics: Metrics) -> None:
        self.connected = metrics.gauge("peers_connected", "Validators that a stream is open to")
        self.opened = metrics.counter("peer_streams_opened", "Streams after a good handshake")
        self.refused = metrics.counter(
            "peer_streams_refused", "Streams that were cut or not let in", ["cause"]
        )
        self.sent = metrics.counter("peer_values_sent", "What was said to validators")
        self.received = metrics.counter("peer_values_received", "What was heard of validators")
        self.malformed = metrics.counter(
            "peer_values_malformed", "What was heard of validators and is not well-formed"
        )
        self.dropped = metrics.counter(
            "peer_values_dropped", "What was to be said to a validator and was not", ["cause"]
        )
        self.pauses = metrics.counter(
            "peer_pauses", "Times that a validator was not read on, for it said too much"
        )
        self.round_trip = metrics.histogram(
            "peer_round_trip_seconds", "From a ping to its pong", buckets=RTT_BUCKETS
        )


class Stream:
    """One stream after its handshake. `wake` it when there is something to say."""

    def __init__(self, pipe: Pipe, sealer: Sealer, opener: Opener, address: str | None) -> None:
        self.pipe = pipe
        self.address = address
        """Where it was dialed; None: it was accepted."""
        self.opened_at = time.monotonic()
        self.reading_since: float | None = self.opened_at
        """None while what was read is worked on: then silence is our own."""
        self.pinged_at = 0.0
        self.wake = asyncio.Event()
        self.ended: asyncio.Future[Ended] = asyncio.get_running_loop().create_future()
        self._sealer = sealer
        self._opener = opener
        self._ping_due = False
        self._pings = 0
        self._ping: int | None = None
        self._pong_due = 0

    def end(self, code: grpc.StatusCode, words: str) -> None:
        """Cut it; the first reason counts."""
        if not self.ended.done():
            self.ended.set_result(Ended(code, words))

    def ping(self) -> None:
        """Send a ping, unless the last one is still on its way."""
        if self._ping is None:
            self._ping_due = True
            self.wake.set()

    def next_content(self, batch: list[bytes]) -> exchange_pb2.Content | None:
        """What there is to say; None: nothing."""
        if not batch and not self._ping_due and self._pong_due == 0:
            return None
        content = exchange_pb2.Content(values=batch, pong=self._pong_due)
        if self._ping_due:
            self._pings += 1
            content.ping = self._ping = self._pings
            self.pinged_at = time.monotonic()
            self._ping_due = False
        self._pong_due = 0
        return content

    def seal(self, content: exchange_pb2.Content) -> bytes:
        """The next envelope."""
        return self._sealer.seal(content)

    def open(self, data: bytes) -> exchange_pb2.Content:
        """The next envelope's content; `PeerFault` when it is not."""
        return self._opener.open(data)

    def take_pings(self, content: exchange_pb2.Content) -> float | None:
        """Answer a ping. Of a pong: the seconds since its ping."""
        if content.ping:
            self._pong_due = content.ping
            self.wake.set()
        if self._ping is None or content.pong != self._ping:
            return None
        self._ping = None
        return time.monotonic() - self.pinged_at


@dataclass(slots=True)
class Peer:
    """One other validator."""

    key: Key
    dialed: Stream | None = None
    accepted: Stream | None = None
    outgoing: Outgoing = field(default_factory=Outgoing)
    allowance: Allowance = field(
        default_factory=lambda: Allowance(VALUES_PER_SECOND, VALUES_BURST, time.monotonic())
    )
    sent: int = 0
    received: int = 0
    dropped: int = 0
    round_trip: float | None = None
    error: str | None = None

    @property
    def speaks_over(self) -> Stream | None:
        """The stream that values go over."""
        return self.accepted if self.dialed is None else self.dialed

    @property
    def streams(self) -> list[Stream]:
        """Those that are open."""
        return [one for one in (self.dialed, self.accepted) if one is not None]

    def join(self, stream: Stream) -> None:
        """A newer stream takes the place of an older one in its direction."""
        older = self.accepted if stream.address is None else self.dialed
        if stream.address is None:
            self.accepted = stream
        else:
            self.dialed = stream
        if older is not None:
            older.end(grpc.StatusCode.ABORTED, "a newer stream of this validator took its place")
        self.error = None
        self._wake()

    def leave(self, stream: Stream) -> None:
        """It is no more."""
        if self.dialed is stream:
            self.dialed = None
        if self.accepted is stream:
            self.accepted = None
        self._wake()

    def _wake(self) -> None:
        if self.speaks_over is not None:
            self.speaks_over.wake.set()


class Conversation:
    """What goes on over streams: everything that waits is said, everything that comes is heard."""

    def __init__(
        self, hear: Hear, fail: Callable[[Exception], None], measures: PeerMeasures
    ) -> None:
        self._hear = hear
        self._fail = fail
        self._measures = measures

    async def run(self, peer: Peer, stream: Stream) -> Ended:
        """Until the stream ends, for whichever reason."""
        self._measures.opened.inc()
        peer.join(stream)
        parts = [
            asyncio.ensure_future(self._say(peer, stream)),
            asyncio.ensure_future(self._listen(peer, stream)),
        ]
        try:
            awaited: set[asyncio.Future[Any]] = {*parts, stream.ended}
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            ended = stream.ended.result() if stream.ended.done() else self._end_of(parts)
        finally:
            peer.leave(stream)
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
        peer.error = ended.words
        return ended

    def _end_of(self, parts: Sequence[asyncio.Future[None]]) -> Ended:
        for part in parts:
            # Cancelled: gRPC raises that for a status that the other end may send.
            if not part.done() or part.cancelled():
                continue
            fault = part.exception()
            if isinstance(fault, PeerFault):
                self._measures.refused.labels("garbage").inc()
                return Ended(grpc.StatusCode.INVALID_ARGUMENT, str(fault))
            if isinstance(fault, grpc.aio.AioRpcError):
                return Ended(fault.code(), in_words(fault.details()))
            if isinstance(fault, Exception) and not isinstance(fault, GONE):
                self._fail(fault)
                return Ended(grpc.StatusCode.INTERNAL, "this validator fails")
        return Ended(grpc.StatusCode.UNAVAILABLE, "the other end closed the stream")

    async def _say(self, peer: Peer, stream: Stream) -> None:
        while True:
            batch = peer.outgoing.take() if peer.speaks_over is stream else []
            content = stream.next_content(batch)
            if content is None:
                await stream.wake.wait()
                stream.wake.clear()
                continue
            try:
                await stream.pipe.write(stream.seal(content))
            except BaseException:
                # Perhaps it was sent: what is heard twice changes nothing.
                self.dropped(peer, "full", peer.outgoing.put_back(batch))
                raise
            peer.sent += len(batch)
            self._measures.sent.inc(len(batch))

    async def _listen(self, peer: Peer, stream: Stream) -> None:
        while True:
            stream.reading_since = time.monotonic()
            data = await stream.pipe.read()
            if data is grpc.aio.EOF:
                return
            stream.reading_since = None
            content = stream.open(data)
            round_trip = stream.take_pings(content)
            if round_trip is not None:
                peer.round_trip = round_trip
                self._measures.round_trip.observe(round_trip)
            await self._hear_all(peer, content)
            await self._pace(peer, ENVELOPE_COST + len(content.values))

    async def _hear_all(self, peer: Peer, content: exchange_pb2.Content) -> None:
        for at, data in enumerate(content.values, 1):
            peer.received += 1
            try:
                value = codec.decode(data)
            except Malformed:
                self._measures.malformed.inc()
            else:
                await self._hear(peer.key, value)
            if at % VALUES_AT_ONCE == 0:
                await asyncio.sleep(0)
        self._measures.received.inc(len(content.values))

    async def _pace(self, peer: Peer, cost: int) -> None:
        """Not read on for a while: gRPC's flow control then stops the other end."""
        wait = peer.allowance.pay(cost, time.monotonic())
        if wait > 0:
            self._measures.pauses.inc()
            await asyncio.sleep(wait)

    def dropped(self, peer: Peer, cause: str, count: int) -> None:
        """So many were to be said to it and will not be."""
        if count:
            peer.dropped += count
            self._measures.dropped.labels(cause).inc(count)


WORDS_CHARACTERS_MAX: Final = 200


def in_words(details: str | None) -> str:
    """What the other end says of itself, as it may be shown: a stranger may have written it."""
    said = (details or "no reason given")[:WORDS_CHARACTERS_MAX]
    return "".join(one if one.isprintable() else "�" for one in said)
