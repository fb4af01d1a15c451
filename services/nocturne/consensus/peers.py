"""Streams between validators: everyone dials everyone, and the handshake alone tells who is who.

Rules: docs/spec/peers.md. What is sent to a validator goes over the stream that was dialed to it
while that is open, else over one that it dialed. Nothing here waits for one validator on behalf of
another, and nothing grows without a bound.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

import grpc
import structlog

from nocturne.consensus import codec
from nocturne.consensus.handshake import SECRET_BYTES, Called, Calling, Opener, Sealer
from nocturne.consensus.peer_bounds import AWAY_VALUES_MAX, QUEUE_VALUES_MAX
from nocturne.consensus.peer_stream import (
    GONE,
    Conversation,
    Ended,
    Hear,
    Peer,
    PeerMeasures,
    Pipe,
    Stream,
    in_words,
)
from nocturne.core.access import EXCHANGE
from nocturne.core.errors import PeerFault
from nocturne.core.identifiers import LedgerId, format_hash
from nocturne.core.keys import Key, Signer, key_id
from nocturne.runtime.addresses import AddressFile
from nocturne.runtime.certificates import CertificateFault, read_authorities, read_pair
from nocturne.runtime.rpc import RpcService
from nocturne.runtime.settings import PeerSettings
from nocturne.runtime.telemetry import Metrics
from nocturne.runtime.ticks import next_tick
from nocturne.wire.consensus.v1 import exchange_pb2

PEER_MESSAGE_BYTES_MAX: Final = codec.VALUE_BYTES_MAX + 64 * 1024
"""Of an envelope: the longest value alone, with what is around it."""

HANDSHAKE_SECONDS_MAX: Final = 5.0
"""From the call to the end of the handshake; the connection's own beginning is in it for the
caller."""
HANDSHAKES_MAX: Final = 32
"""At once, of callers that are not known yet; for one more the oldest is cut. A good one takes
milliseconds, so whoever fills them keeps no validator out for long."""
TICK_SECONDS: Final = 1.0
PING_SECONDS: Final = 5.0
SILENT_SECONDS_MAX: Final = 10.0
"""Without a word, while pings are due every five seconds: the other end is gone, or the way to it.
"""
BACKOFF_SECONDS: Final = 0.05
BACKOFF_SECONDS_MAX: Final = 1.0
"""A validator that was started again is to be back at once."""
STEADY_SECONDS: Final = 2.0
"""A stream that lasted so long ends the doubling of waits."""
REFUSED_SECONDS: Final = 5.0
"""To the next try at an address where one is refused, or that is a validator's second one: it goes
better only when a set, or a deployment, has changed."""
OWN_SECONDS: Final = 30.0
"""To the next look at one's own address: it may be another's by then."""
FILE_SECONDS: Final = 2.0
"""Between two looks at the file with addresses."""
STOP_SECONDS_MAX: Final = 1.0
LOG_SECONDS: Final = 1.0
"""Between two lines on streams that are refused for one cause; the metric counts them all."""

_CODE = grpc.StatusCode
_REFUSALS: Final = frozenset({_CODE.PERMISSION_DENIED, _CODE.ALREADY_EXISTS, _CODE.ABORTED})
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", PEER_MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", PEER_MESSAGE_BYTES_MAX),
    # Each dial is a connection of its own, made at once: how long to wait is decided here.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """How one stands with another validator. `key` is None as long as nobody has proved one at the
    address; `address` is None for one that only called.
    """

    key: Key | None
    address: str | None
    connected: bool
    rtt_ms: float | None
    sent: int
    received: int
    dropped: int
    error: str | None
    """The last one, in words; None: there is none since the last good handshake."""


@dataclass(slots=True)
class _Place:
    """An address and what is known of it."""

    address: str
    key: Key | None = None
    is_own: bool = False
    error: str | None = None


@dataclass(slots=True)
class _Dial:
    """One handshake that was begun here."""

    is_own: bool = False
    """It was answered here."""


_Known = tuple[Key, Sealer, Opener]


class Peers:
    """The other validators. `members` are the keys that may be talked to, asked again and again;
    `hear` takes what they say, one value of a stream after the other, and may be cancelled where it
    waits. What `hear` raises ends `run` with it.
    """

    def __init__(
        self,
        ledger_id: LedgerId,
        signer: Signer,
        addresses: Sequence[str],
        members: Callable[[], Collection[Key]],
        hear: Hear,
        settings: PeerSettings,
        metrics: Metrics,
    ) -> None:
        self._ledger_id = ledger_id
        self._signer = signer
        self._members = members
        self._measures = PeerMeasures(metrics)
        self._talk = Conversation(hear, self._fail, self._measures)
        self._door = _Door(settings)
        self._addresses = tuple(dict.fromkeys(addresses))
        self._file = settings.peers_file
        self._places: dict[str, _Place] = {one: _Place(one) for one in self._addresses}
        self._keeping: dict[str, asyncio.Task[None]] = {}
        """There while it runs, one for each place."""
        self._peers: dict[Key, Peer] = {}
        self._fault: asyncio.Future[None] | None = None
        """There while it runs."""
        self._dialing: dict[bytes, _Dial] = {}
        """By their shares: a call with one of them is one's own."""
        self._unknown: dict[asyncio.Future[None], None] = {}
        """Of callers in their handshake, oldest first: done when one has to go."""
        self._handlers: set[asyncio.Task[Any]] = set()
        self._newest: tuple[codec.Value, bytes] | None = None
        self._silent_until: dict[str, float] = {}

    # For the host ------------------------------------------------------------------------------

    def send(self, key: Key, value: codec.Value) -> None:
        """Say `value` to a validator as soon as it can be said; never waits. When too much waits
        the oldest goes.
        """
        data = self._encoded(value)
        peer = self._peer(key)
        if len(data) > codec.VALUE_BYTES_MAX:
            log.error("peer_value_too_long", bytes=len(data), kind=type(value).__name__)
            self._talk.dropped(peer, "size", 1)
            return
        stream = peer.speaks_over
        if stream is None:
            self._talk.dropped(peer, "away", peer.outgoing.add(data, AWAY_VALUES_MAX))
            return
        self._talk.dropped(peer, "full", peer.outgoing.add(data, QUEUE_VALUES_MAX))
        stream.wake.set()

    def waiting_bytes(self, key: Key) -> int:
        """Of what is to be said to a validator and was not yet."""
        peer = self._peers.get(key)
        return 0 if peer is None else peer.outgoing.waiting_bytes

    def connected(self) -> frozenset[Key]:
        """Those that a stream is open to."""
        return frozenset(key for key, peer in self._peers.items() if peer.speaks_over is not None)

    def statuses(self) -> tuple[PeerStatus, ...]:
        """Of each address but one's own, then of those that only called."""
        placed = [self._status_of(one) for one in self._places.values() if not one.is_own]
        known = {one.key for one in placed}
        called = [
            _status(peer, None, peer.error) for key, peer in self._peers.items() if key not in known
        ]
        return (*placed, *called)

    def rpc_service(self) -> RpcService:
        """How `runtime.rpc` serves it. Until `run` and after it, callers are told to come later."""
        handler: Any = grpc.stream_stream_rpc_method_handler(self._exchange)
        service, _, method = EXCHANGE.strip("/").partition("/")
        handlers = {method: handler}
        generic = grpc.method_handlers_generic_handler(service, handlers)
        return RpcService(service, lambda server: server.add_generic_rpc_handlers((generic,)))

    async def run(self) -> None:
        """Dial and listen until cancelled; raises what `hear` raises."""
        self._fault = asyncio.get_running_loop().create_future()
        for place in self._places.values():
            self._start(place)
        parts = [asyncio.ensure_future(self._watch())]
        if self._file is not None:
            parts.append(asyncio.ensure_future(self._read_again(AddressFile(self._file))))
        try:
            done, _ = await asyncio.wait({*parts, self._fault}, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()
        finally:
            self._fault = None
            parts += self._keeping.values()
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            self._keeping.clear()
            await self._send_away()

    # Everyone ----------------------------------------------------------------------------------

    def _encoded(self, value: codec.Value) -> bytes:
        """What is said to all is encoded once."""
        if self._newest is None or self._newest[0] is not value:
            self._newest = (value, codec.encode(value))
        return self._newest[1]

    def _peer(self, key: Key) -> Peer:
        peer = self._peers.get(key)
        if peer is None:
            peer = self._peers[key] = Peer(key)
        return peer

    def _status_of(self, place: _Place) -> PeerStatus:
        peer = None if place.key is None else self._peers.get(place.key)
        if peer is None:
            return PeerStatus(place.key, place.address, False, None, 0, 0, 0, place.error)
        return _status(peer, place.address, place.error or peer.error)

    def _fail(self, fault: Exception) -> None:
        if self._fault is not None and not self._fault.done():
            self._fault.set_exception(fault)

    async def _watch(self) -> None:
        while True:
            members = frozenset(self._members())
            now = time.monotonic()
            for key, peer in tuple(self._peers.items()):
                for stream in peer.streams:
                    self._look_at(stream, key in members, now)
                if key not in members and not peer.streams:
                    del self._peers[key]
            self._measures.connected.set(len(self.connected()))
            await next_tick(TICK_SECONDS)

    def _look_at(self, stream: Stream, is_member: bool, now: float) -> None:
        since = stream.reading_since
        if not is_member:
            stream.end(_CODE.PERMISSION_DENIED, "the key is no validator's any more")
        elif since is not None and now - since > SILENT_SECONDS_MAX:
            stream.end(_CODE.UNAVAILABLE, f"silent for {SILENT_SECONDS_MAX:.0f} s")
        elif stream.address is not None and now // PING_SECONDS > stream.pinged_at // PING_SECONDS:
            stream.ping()

    async def _send_away(self) -> None:
        for peer in self._peers.values():
            for stream in peer.streams:
                stream.end(_CODE.UNAVAILABLE, "the validator stops")
        for waiting in self._unknown:
            if not waiting.done():
                waiting.set_result(None)
        if self._handlers:
            await asyncio.wait(self._handlers, timeout=STOP_SECONDS_MAX)

    def _refuse(self, cause: str, address: str, ended: Ended) -> Ended:
        """Count a stream that is not let in, and say it now and then."""
        self._measures.refused.labels(cause).inc()
        now = time.monotonic()
        if now >= self._silent_until.get(cause, 0.0):
            self._silent_until[cause] = now + LOG_SECONDS
            log.warning("peer_refused", cause=cause, address=address, reason=ended.words)
        return ended

    # Who calls ---------------------------------------------------------------------------------

    async def _exchange(self, _: object, context: Any) -> None:
        """One call of `Exchange`."""
        if self._fault is None:
            await context.abort(_CODE.UNAVAILABLE, "the validator does not talk yet, or any more")
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        try:
            known = await self._met(context)
            if not isinstance(known, Ended):
                key, sealer, opener = known
                stream = Stream(context, sealer, opener, None)
                known = await self._talk.run(self._peer(key), stream)
        finally:
            self._handlers.discard(task)
        await context.abort(known.code, known.words)

    async def _met(self, context: Any) -> _Known | Ended:
        """The handshake with a caller, within its bounds."""
        if len(self._unknown) >= HANDSHAKES_MAX:
            oldest = next(iter(self._unknown))
            del self._unknown[oldest]
            oldest.set_result(None)
        pushed = asyncio.get_running_loop().create_future()
        self._unknown[pushed] = None
        meeting = asyncio.ensure_future(self._meet(context))
        try:
            await asyncio.wait(
                {meeting, pushed},
                timeout=HANDSHAKE_SECONDS_MAX,
                return_when=asyncio.FIRST_COMPLETED,
            )
            return self._outcome_of(meeting, pushed.done(), context.peer())
        finally:
            self._unknown.pop(pushed, None)
            meeting.cancel()

    async def _meet(self, context: Any) -> _Known | Ended:
        called = Called(self._ledger_id, self._signer, os.urandom(SECRET_BYTES))
        caller = called.hear_hello(await _read(context))
        if caller.key == self._signer.key:
            return self._own_call(caller.share, context.peer())
        if caller.key not in self._members():
            return self._no_member(caller.key, context.peer())
        await context.write(called.hello())
        called.hear_proof(await _read(context))
        sealer, opener = called.seals()
        # It tells the caller that it is let in.
        await context.write(sealer.seal(exchange_pb2.Content()))
        return caller.key, sealer, opener

    def _own_call(self, share: bytes, address: str) -> Ended:
        """A call with one's own key: from here, or from another process that has it too."""
        dial = self._dialing.get(share)
        if dial is not None:
            dial.is_own = True
            return Ended(_CODE.FAILED_PRECONDITION, "this is one's own address")
        ended = Ended(_CODE.PERMISSION_DENIED, "this validator has that key itself")
        return self._refuse("own_key", address, ended)

    def _no_member(self, key: Key, address: str) -> Ended:
        words = f"the key {format_hash(key_id(key))} is no validator's in the set that is known"
        return self._refuse("stranger", address, Ended(_CODE.PERMISSION_DENIED, words))

    def _outcome_of(
        self, meeting: asyncio.Future[_Known | Ended], pushed: bool, address: str
    ) -> _Known | Ended:
        """Of a handshake that has ended, or whose time is over."""
        if not meeting.done():
            if self._fault is None:
                return Ended(_CODE.UNAVAILABLE, "the validator stops")
            if pushed:
                ended = Ended(_CODE.RESOURCE_EXHAUSTED, "too many handshakes at once")
                return self._refuse("crowd", address, ended)
            ended = Ended(
                _CODE.DEADLINE_EXCEEDED, f"no handshake within {HANDSHAKE_SECONDS_MAX:.0f} s"
            )
            return self._refuse("slow", address, ended)
        if meeting.cancelled():
            # gRPC raises that for a status that the other end may send.
            return Ended(_CODE.CANCELLED, "the other end cancelled the stream")
        fault = meeting.exception()
        if fault is None:
            return meeting.result()
        if isinstance(fault, PeerFault):
            ended = Ended(_CODE.INVALID_ARGUMENT, str(fault))
            return self._refuse("handshake", address, ended)
        if isinstance(fault, grpc.aio.AioRpcError):
            return Ended(fault.code(), in_words(fault.details()))
        if isinstance(fault, GONE):
            return Ended(_CODE.UNAVAILABLE, "the other end is away")
        raise fault

    # Whom one calls ----------------------------------------------------------------------------

    def _start(self, place: _Place) -> None:
        task = self._keeping[place.address] = asyncio.ensure_future(self._keep(place))
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Dialing ends by itself with a bug alone."""
        fault = None if task.cancelled() else task.exception()
        if isinstance(fault, Exception):
            self._fail(fault)

    async def _read_again(self, file: AddressFile) -> None:
        """Dial what the file has, as it is now, beside the addresses that the settings name."""
        while True:
            listed = await asyncio.to_thread(file.read)
            if listed is not None:
                await self._dial_those(dict.fromkeys((*self._addresses, *listed)))
            await next_tick(FILE_SECONDS)

    async def _dial_those(self, addresses: Collection[str]) -> None:
        gone = [one for one in self._places if one not in addresses]
        for address in gone:
            del self._places[address]
            task = self._keeping.pop(address)
            task.cancel()
            await asyncio.wait({task})
        for address in addresses:
            if address not in self._places:
                self._places[address] = _Place(address)
                self._start(self._places[address])

    async def _keep(self, place: _Place) -> None:
        """Dial one address for ever."""
        failures = 0
        while True:
            began = time.monotonic()
            ended = await self._dial(place)
            place.error = None if place.is_own else ended.words
            failures = 0 if time.monotonic() - began > STEADY_SECONDS else failures + 1
            await asyncio.sleep(_pause(place, ended, failures))

    async def _dial(self, place: _Place) -> Ended:
        """One stream, from its beginning to its end."""
        try:
            channel = await self._door.channel(place.address)
        except CertificateFault as fault:
            return self._refuse("certificates", place.address, Ended(_CODE.UNAVAILABLE, str(fault)))
        calling = Calling(self._ledger_id, self._signer, os.urandom(SECRET_BYTES))
        dial = self._dialing[calling.own.share] = _Dial()
        async with channel:
            call: Any = channel.stream_stream(EXCHANGE)()
            greeting = asyncio.ensure_future(self._greet(call, calling, place))
            try:
                await asyncio.wait({greeting}, timeout=HANDSHAKE_SECONDS_MAX)
                known = self._outcome_of(greeting, False, place.address)
            finally:
                greeting.cancel()
                del self._dialing[calling.own.share]
                place.is_own = dial.is_own
            if isinstance(known, Ended):
                return known
            key, sealer, opener = known
            place.error = None
            stream = Stream(call, sealer, opener, place.address)
            log.info("peer_met", address=place.address, key=format_hash(key_id(key)))
            ended = await self._talk.run(self._peer(key), stream)
            log.info("peer_lost", address=place.address, cause=ended.words)
            return ended

    async def _greet(self, call: Pipe, calling: Calling, place: _Place) -> _Known | Ended:
        await call.write(calling.hello())
        key = calling.hear_hello(await _read(call))
        place.key = key
        if key not in self._members():
            return self._no_member(key, place.address)
        older = self._peer(key).dialed
        if older is not None and older.address != place.address:
            words = f"the same validator answers at {older.address}"
            return Ended(_CODE.ALREADY_EXISTS, words)
        await call.write(calling.proof())
        sealer, opener = calling.seals()
        opener.open(await _read(call))
        return key, sealer, opener


class _Door:
    """How other validators are reached: over TLS with authorities to trust, else in plain text."""

    def __init__(self, settings: PeerSettings) -> None:
        self._settings = settings
        self._good: grpc.ChannelCredentials | None = None

    async def channel(self, address: str) -> grpc.aio.Channel:
        """Not connected yet; `CertificateFault` when the files never were any good."""
        if self._settings.peers_ca_file is None:
            return grpc.aio.insecure_channel(address, options=_OPTIONS)
        try:
            self._good = await asyncio.to_thread(self._read)
        except CertificateFault as fault:
            # What is broken does not take the place of what works.
            if self._good is None:
                raise
            log.warning("peer_certificates_refused", cause=str(fault), in_use="the last good ones")
        return grpc.aio.secure_channel(address, self._good, options=_OPTIONS)

    def _read(self) -> grpc.ChannelCredentials:
        """The files as they are now, for each connection anew: that is how they are replaced."""
        settings = self._settings
        assert settings.peers_ca_file is not None
        authorities = read_authorities(settings.peers_ca_file)
        if settings.tls_cert_file is None or settings.tls_key_file is None:
            return grpc.ssl_channel_credentials(authorities)
        pair = read_pair(settings.tls_cert_file, settings.tls_key_file)
        return grpc.ssl_channel_credentials(authorities, pair.key, pair.certificate)


async def _read(pipe: Any) -> bytes:
    data = await pipe.read()
    if not isinstance(data, bytes):
        raise PeerFault("peer: closed the stream in the handshake")
    return data


def _status(peer: Peer, address: str | None, error: str | None) -> PeerStatus:
    is_connected = peer.speaks_over is not None
    rtt_ms = None if peer.round_trip is None or not is_connected else peer.round_trip * 1000
    return PeerStatus(
        peer.key, address, is_connected, rtt_ms, peer.sent, peer.received, peer.dropped, error
    )


def _pause(place: _Place, ended: Ended, failures: int) -> float:
    """Seconds to the next try; half of it is jitter."""
    if place.is_own:
        bound = OWN_SECONDS
    elif ended.code in _REFUSALS:
        bound = REFUSED_SECONDS
    else:
        bound = min(BACKOFF_SECONDS * 2.0 ** min(failures, 10), BACKOFF_SECONDS_MAX)
    return bound * random.uniform(0.5, 1.0)
