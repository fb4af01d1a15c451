"""Many commands over one stream: in their order, bounded, sent again when the stream breaks."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing
from typing import Final

import grpc

from nocturne.client import transport
from nocturne.client.link import Link
from nocturne.client.results import Level
from nocturne.client.windows import Windows
from nocturne.core.commands import SignedCommand, encode_signed_command
from nocturne.core.errors import PeerFault, Unavailable
from nocturne.wire.command.v1 import command_pb2

BATCH_COMMANDS_MAX: Final = 128
BATCH_BYTES_MAX: Final = 1024 * 1024
"""Half of what the service takes in one message."""
FRESH_MAX: Final = 2 * BATCH_COMMANDS_MAX
"""Commands taken from the caller and not yet sent."""

Commands = Iterable[SignedCommand] | AsyncIterable[SignedCommand]
Answer = tuple[SignedCommand, command_pb2.Outcome]


class Pipeline:
    """One use: `answers` gives each command with its outcome, in the order of the outcomes."""

    def __init__(
        self,
        link: Link,
        windows: Windows,
        wait: Level,
        deadline_seconds: float,
        in_flight_max: int,
    ) -> None:
        self._link = link
        self._windows = windows
        self._wait = command_pb2.Level.ValueType(wait)
        self._deadline_seconds = deadline_seconds
        self._in_flight_max = in_flight_max
        self._fresh: deque[SignedCommand] = deque()
        self._exhausted = False
        self._count = 0
        self._unanswered: dict[int, SignedCommand] = {}
        self._again: deque[int] = deque()
        self._refusals = 0
        self._streams = 0
        self._to_send = asyncio.Event()
        self._to_take = asyncio.Event()

    async def answers(self, commands: Commands) -> AsyncGenerator[Answer, None]:
        """Send `commands` as they come. `Unavailable` when for the whole deadline no command is
        answered; `PeerFault` when the service answers what it was not asked; what `commands`
        raises comes out after the answers to those before.
        """
        pump = asyncio.ensure_future(self._pump(commands))
        self._windows.listen(self._to_send.set)
        loop = asyncio.get_running_loop()
        attempt, answered_at = 0, loop.time()
        try:
            while not self._done():
                broken = None
                try:
                    async with aclosing(self._stream()) as stream:
                        async for answer in stream:
                            yield answer
                            attempt, answered_at = 0, loop.time()
                except grpc.aio.AioRpcError as error:
                    broken = error
                if broken is not None and not await self._link.passing(broken):
                    raise await self._link.fault_of(broken)
                if loop.time() - answered_at > self._deadline_seconds:
                    cause = "no answer" if broken is None else broken.details()
                    raise Unavailable(f"command: {cause}: submit the same commands again")
                if not self._done():
                    await asyncio.sleep(transport.backoff_seconds(attempt, broken))
                    attempt += 1
            await pump
        finally:
            pump.cancel()
            self._windows.unlisten(self._to_send.set)
            for signed in self._unanswered.values():
                self._windows.leave(signed)

    def _done(self) -> bool:
        return self._exhausted and not self._fresh and not self._unanswered

    async def _pump(self, commands: Commands) -> None:
        """Take the caller's commands at the speed at which they are sent."""
        try:
            if isinstance(commands, AsyncIterable):
                async for signed in commands:
                    await self._take(signed)
            else:
                for signed in commands:
                    await self._take(signed)
        finally:
            self._exhausted = True
            self._to_send.set()

    async def _take(self, signed: SignedCommand) -> None:
        while len(self._fresh) >= FRESH_MAX:
            self._to_take.clear()
            await self._to_take.wait()
        self._fresh.append(signed)
        self._to_send.set()

    async def _stream(self) -> AsyncGenerator[Answer, None]:
        """One stream, to its end. What it leaves unanswered is sent first by the next."""
        self._streams += 1
        self._again = deque(sorted(self._unanswered))
        async with self._link.stub() as stub:
            call = stub.SubmitStream(self._requests(self._streams), metadata=self._link.metadata)
            try:
                async for response in call:
                    for one in response.outcomes:
                        answer = self._answer_of(one)
                        if answer is not None:
                            yield answer
            finally:
                call.cancel()
                self._to_send.set()

    def _answer_of(self, one: command_pb2.StreamOutcome) -> Answer | None:
        refusal = one.refusal if one.WhichOneof("result") == "refusal" else None
        if refusal is not None and refusal.code in transport.PASSING_NUMBERS:
            seconds = transport.backoff_seconds(self._refusals)
            self._refusals += 1
            asyncio.get_running_loop().call_later(
                seconds, self._send_again, self._streams, one.correlation
            )
            return None
        self._refusals = 0
        signed = self._unanswered.pop(one.correlation, None)
        if signed is None:
            raise PeerFault(f"command: expected answers to what was sent, got {one.correlation}")
        self._windows.leave(signed)
        self._to_send.set()
        if refusal is not None:
            degraded = transport.degraded_by(refusal.reason, refusal.cause)
            code = transport.code_of(refusal.code)
            raise transport.fault_of("command", code, refusal.message, degraded)
        return signed, one.outcome

    def _send_again(self, number: int, correlation: int) -> None:
        """The pause after a refusal in stream `number` is over. A later stream has begun with all
        that was unanswered: to send it there again would have it answered twice.
        """
        if number == self._streams and correlation in self._unanswered:
            self._again.append(correlation)
            self._to_send.set()

    async def _requests(self, number: int) -> AsyncIterator[command_pb2.SubmitStreamRequest]:
        """What stream `number` sends. gRPC goes on asking for it after a stream has broken; then
        it is over, or it would take what the next stream is to send.
        """
        deadline_ms = int(self._deadline_seconds * 1000)
        while number == self._streams and not self._done():
            batch = self._batch()
            if batch:
                yield command_pb2.SubmitStreamRequest(
                    commands=batch, wait=self._wait, deadline_ms=deadline_ms
                )
            else:
                self._to_send.clear()
                await self._to_send.wait()

    def _batch(self) -> list[command_pb2.StreamCommand]:
        """What can be sent now."""
        batch: list[command_pb2.StreamCommand] = []
        size = 0
        while len(batch) < BATCH_COMMANDS_MAX and size < BATCH_BYTES_MAX:
            correlation = self._next()
            if correlation is None:
                break
            data = encode_signed_command(self._unanswered[correlation])
            batch.append(command_pb2.StreamCommand(correlation=correlation, signed_command=data))
            size += len(data)
        return batch

    def _next(self) -> int | None:
        while self._again:
            correlation = self._again.popleft()
            if correlation in self._unanswered:
                return correlation
        if not self._fresh or len(self._unanswered) >= self._in_flight_max:
            return None
        if not self._windows.try_enter(self._fresh[0]):
            return None
        self._count += 1
        self._unanswered[self._count] = self._fresh.popleft()
        self._to_take.set()
        return self._count
