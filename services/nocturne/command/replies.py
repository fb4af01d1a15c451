"""Answers as protobuf, and refusals as google.rpc errors with their details. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2

from nocturne.command.outcomes import REACHABLE, Level, Outcome
from nocturne.core.modes import CAUSE, REASON, Degraded
from nocturne.wire.command.v1 import command_pb2

RETRY_SECONDS: Final = 1.0
"""When to try again while Kafka is away or the service is full."""
DOMAIN: Final = "nocturne.command"
"""Of the reasons in ErrorInfo."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Why something did not become a command here: a google.rpc code and words. INVALID_ARGUMENT
    names the `field`; errors that pass have the seconds after which to try again; the others a
    `reason` that a program can read, which may have a `cause`.
    """

    code: int
    message: str
    field: str = ""
    retry_seconds: float | None = None
    reason: str = ""
    cause: str = ""

    def status(self) -> status_pb2.Status:
        """The google.rpc status: BadRequest, RetryInfo or ErrorInfo in its details."""
        status = status_pb2.Status(code=self.code, message=self.message)
        status.details.add().Pack(self._detail())
        return status

    def refusal(self) -> command_pb2.Refusal:
        """The same in a stream."""
        return command_pb2.Refusal(
            code=self.code, message=self.message, reason=self.reason, cause=self.cause
        )

    def _detail(
        self,
    ) -> error_details_pb2.BadRequest | error_details_pb2.RetryInfo | error_details_pb2.ErrorInfo:
        if self.field:
            violation = error_details_pb2.BadRequest.FieldViolation(
                field=self.field, description=self.message
            )
            return error_details_pb2.BadRequest(field_violations=[violation])
        if self.retry_seconds is not None:
            delay = Duration()
            delay.FromNanoseconds(int(self.retry_seconds * 1e9))
            return error_details_pb2.RetryInfo(retry_delay=delay)
        metadata = {CAUSE: self.cause} if self.cause else {}
        return error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=metadata)


def malformed(cause: str) -> Refused:
    """Not a command."""
    return Refused(code_pb2.INVALID_ARGUMENT, cause, field="signed_command")


def over_rate(wait_seconds: float) -> Refused:
    """The principal has spent its rate, each refused command tenfold."""
    return Refused(
        code_pb2.RESOURCE_EXHAUSTED,
        f"over rate: try again in {wait_seconds:.3f} s",
        retry_seconds=wait_seconds,
    )


def sessions_spent(per_author_max: int) -> Refused:
    """The author has opened as many sessions as one may."""
    return Refused(
        code_pb2.FAILED_PRECONDITION,
        f"the author has opened {per_author_max} sessions, as many as one may here: write to one "
        "of them, or have the service's SESSIONS_PER_AUTHOR_MAX raised",
        reason="SESSIONS_PER_AUTHOR",
    )


def full(pending: int) -> Refused:
    """Too many commands wait for their outcome."""
    return Refused(
        code_pb2.RESOURCE_EXHAUSTED,
        f"{pending} commands wait for their outcome: try again later",
        retry_seconds=RETRY_SECONDS,
    )


def away(cause: str) -> Refused:
    """Kafka does not take the command. It may be in the log all the same; repeating it is safe."""
    return Refused(
        code_pb2.UNAVAILABLE,
        f"the log cannot be reached ({cause}): repeat the same command",
        retry_seconds=RETRY_SECONDS,
    )


def stalled(seconds: float) -> Refused:
    """Nothing is certified for so long."""
    return Refused(
        code_pb2.UNAVAILABLE,
        f"nothing has been certified for {seconds:.0f} s, though commands wait: too few validators "
        "answer (see 'nocturne validators'): repeat the same command later",
        retry_seconds=RETRY_SECONDS,
    )


def degraded(why: Degraded) -> Refused:
    """The ledger is DEGRADED by what has no automatic exit."""
    return Refused(
        code_pb2.FAILED_PRECONDITION,
        f"{why.sentence}: no command is taken until a person ends it (runbook degraded.md)",
        reason=REASON,
        cause=why.cause.name,
    )


def level_of(wait: int) -> Level | Refused:
    """The level asked for, `signed` when none is named; refused when this ledger has it not."""
    if wait == Level.UNKNOWN:
        return Level.SIGNED
    try:
        level = Level(wait)
    except ValueError:
        message = f"wait: there is no level {wait}"
        return Refused(code_pb2.INVALID_ARGUMENT, message, field="wait")
    if level not in REACHABLE:
        names = ", ".join(one.name.lower() for one in REACHABLE)
        return Refused(
            code_pb2.FAILED_PRECONDITION,
            f"level {level.name.lower()} is not configured on this ledger: it has {names}",
            reason="LEVEL_NOT_CONFIGURED",
        )
    return level


def deadline_of(deadline_ms: int, usual_ms: int, longest_ms: int) -> float | Refused:
    """Seconds to wait."""
    if not 0 <= deadline_ms <= longest_ms:
        return Refused(
            code_pb2.INVALID_ARGUMENT,
            f"deadline_ms: expected 0 to {longest_ms}, got {deadline_ms}",
            field="deadline_ms",
        )
    return (deadline_ms or usual_ms) / 1000


def outcome_message(outcome: Outcome, durability: str) -> command_pb2.Outcome:
    """The outcome on the wire."""
    message = command_pb2.Outcome(
        level=command_pb2.Level.ValueType(outcome.level),
        command_hash=outcome.command_hash,
        durability=durability,
        repeated=outcome.repeated,
        decided=outcome.decision is not None,
    )
    position = outcome.position
    if position is not None:
        message.position.log_epoch = position.log_epoch
        message.position.partition = position.partition
        message.position.offset = position.offset
    decision = outcome.decision
    if decision is not None:
        block = decision.block
        message.height = block.height
        message.timestamp_ms = block.timestamp
        message.block_digest = block.digest
        message.events.extend(decision.events)
        if decision.receipt is not None:
            message.receipt_header = decision.receipt
        if outcome.receipt is not None:
            message.receipt = outcome.receipt
        message.proof = outcome.proof
    return message
