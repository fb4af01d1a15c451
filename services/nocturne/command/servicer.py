"""CommandService over gRPC: one command and its outcome, or streams of batches of both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from typing import Any, Final, NoReturn

import grpc

from nocturne.command.outcomes import Level, Outcome
from nocturne.command.replies import Refused, deadline_of, level_of, outcome_message
from nocturne.command.service import Batch, Commands, CommandSettings
from nocturne.runtime.guard import caller_of
from nocturne.runtime.rpc import RpcService, details_of
from nocturne.runtime.tracing import HEADER, parse_traceparent
from nocturne.wire.command.v1 import command_pb2, command_pb2_grpc

REQUEST_BYTES_MAX: Final = 2 * 1024 * 1024
"""A batch of usual commands, or one as large as a record may be, twice."""
UNANSWERED_MAX: Final = 4096
"""Commands of one stream without an answer; past them the stream is not read."""
RESPONSE_BYTES_MAX: Final = 1024 * 1024
"""Past this a response is sent and the next begun; one outcome alone may be larger."""
MARGIN_SECONDS: Final = 0.1
"""An answer leaves this long before the caller's own deadline, to be there in time."""

Context = grpc.aio.ServicerContext[Any, Any]


class CommandServicer(command_pb2_grpc.CommandServiceServicer):
    """Implements nocturne.command.v1.CommandService."""

    def __init__(self, commands: Commands, settings: CommandSettings) -> None:
        self._commands = commands
        self._settings = settings

    async def Submit(  # noqa: N802
        self, request: command_pb2.SubmitRequest, context: Context
    ) -> command_pb2.SubmitResponse:
        """One command; the answer at the level asked for, or at the deadline."""
        asked = self._asked(request.wait, request.deadline_ms, context)
        if isinstance(asked, Refused):
            return await _abort(context, asked)
        wait, seconds = asked
        caller = _One()
        batch = Batch(
            [(0, request.signed_command)], wait, seconds, request.with_proof, _trace_of(context)
        )
        waiting = self._commands.submit(caller, caller_of(context), batch)
        try:
            answer = await caller.answered
        finally:
            self._commands.forget(waiting)
        if isinstance(answer, Refused):
            return await _abort(context, answer)
        return command_pb2.SubmitResponse(
            outcome=outcome_message(answer, self._settings.durability)
        )

    async def SubmitStream(  # type: ignore[override]  # noqa: N802
        self,
        request_iterator: AsyncIterable[command_pb2.SubmitStreamRequest],
        context: Context,
    ) -> None:
        """Batches in, batches out, for as long as the caller sends."""
        stream = _Stream(self._settings.durability)
        writing = asyncio.ensure_future(stream.write_all(context))
        try:
            async for request in request_iterator:
                await self._take(stream, request, context)
            stream.end()
            await writing
        finally:
            if not writing.cancel() and not writing.cancelled():
                # If it failed, then by what ended the stream: nobody is left to be told.
                writing.exception()
            self._commands.forget_caller(stream)

    async def _take(
        self, stream: _Stream, request: command_pb2.SubmitStreamRequest, context: Context
    ) -> None:
        commands = [(one.correlation, one.signed_command) for one in request.commands]
        trace = _trace_of(context)
        while commands:
            room = await stream.room()
            part, commands = commands[:room], commands[room:]
            asked = self._asked(request.wait, request.deadline_ms, context)
            stream.begin(len(part))
            if isinstance(asked, Refused):
                for correlation, _ in part:
                    stream.refuse(correlation, asked)
                continue
            wait, seconds = asked
            batch = Batch(part, wait, seconds, False, trace)
            self._commands.submit(stream, caller_of(context), batch)

    def _asked(
        self, wait: int, deadline_ms: int, context: Context
    ) -> tuple[Level, float] | Refused:
        level = level_of(wait)
        if isinstance(level, Refused):
            return level
        seconds = deadline_of(
            deadline_ms, self._settings.deadline_ms, self._settings.deadline_ms_max
        )
        if isinstance(seconds, Refused):
            return seconds
        remaining = context.time_remaining()
        if remaining is not None:
            seconds = min(seconds, max(0.0, remaining - MARGIN_SECONDS))
        return level, seconds


class _One:
    """The caller of `Submit`."""

    def __init__(self) -> None:
        self.answered: asyncio.Future[Outcome | Refused]
        self.answered = asyncio.get_running_loop().create_future()

    def answer(self, _: int, outcome: Outcome) -> None:
        if not self.answered.done():
            self.answered.set_result(outcome)

    def refuse(self, _: int, refused: Refused) -> None:
        if not self.answered.done():
            self.answered.set_result(refused)


class _Stream:
    """The caller of `SubmitStream`: gathers what is answered in one turn of the event loop."""

    def __init__(self, durability: str) -> None:
        self._durability = durability
        self._unanswered = 0
        self._ended = False
        self._outbox: list[command_pb2.StreamOutcome] = []
        self._woken = asyncio.Event()
        self._roomy = asyncio.Event()

    async def room(self) -> int:
        """How many commands may come now, at least one; waits while the stream is full."""
        while self._unanswered >= UNANSWERED_MAX:
            self._roomy.clear()
            await self._roomy.wait()
        return UNANSWERED_MAX - self._unanswered

    def begin(self, commands: int) -> None:
        """So many more are unanswered."""
        self._unanswered += commands

    def answer(self, correlation: int, outcome: Outcome) -> None:
        message = outcome_message(outcome, self._durability)
        self._put(command_pb2.StreamOutcome(correlation=correlation, outcome=message))

    def refuse(self, correlation: int, refused: Refused) -> None:
        self._put(command_pb2.StreamOutcome(correlation=correlation, refusal=refused.refusal()))

    def end(self) -> None:
        """The caller sends no more."""
        self._ended = True
        self._woken.set()

    async def write_all(self, context: Context) -> None:
        """Send what is answered until the caller has ended and has every answer."""
        while self._outbox or self._unanswered or not self._ended:
            await self._woken.wait()
            self._woken.clear()
            outbox, self._outbox = self._outbox, []
            for part in _parts(outbox):
                await context.write(command_pb2.SubmitStreamResponse(outcomes=part))
                # Only what is sent makes room: a caller that does not read is not read either.
                self._unanswered -= len(part)
                self._roomy.set()

    def _put(self, outcome: command_pb2.StreamOutcome) -> None:
        self._outbox.append(outcome)
        self._woken.set()


def _parts(
    outcomes: list[command_pb2.StreamOutcome],
) -> list[list[command_pb2.StreamOutcome]]:
    """Outcomes of about `RESPONSE_BYTES_MAX` each."""
    parts: list[list[command_pb2.StreamOutcome]] = []
    size = RESPONSE_BYTES_MAX
    for one in outcomes:
        bytes_of_one = one.ByteSize()
        if size + bytes_of_one > RESPONSE_BYTES_MAX:
            parts.append([])
            size = 0
        parts[-1].append(one)
        size += bytes_of_one
    return parts


def _trace_of(context: Context) -> bytes | None:
    for name, value in context.invocation_metadata() or ():
        if name == HEADER:
            return parse_traceparent(value)
    return None


async def _abort(context: Context, refused: Refused) -> NoReturn:
    details = details_of(context, refused.status())
    code = next(one for one in grpc.StatusCode if one.value[0] == refused.code)
    await context.abort(code, refused.message, details)
    raise AssertionError("abort raises")


def rpc_service(servicer: CommandServicer) -> RpcService:
    """For `runtime.rpc.serve`."""
    return RpcService(
        command_pb2.DESCRIPTOR.services_by_name["CommandService"].full_name,
        lambda server: command_pb2_grpc.add_CommandServiceServicer_to_server(servicer, server),
    )
