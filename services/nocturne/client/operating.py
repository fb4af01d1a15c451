"""What operators do: read what was decided, and bring signed control records to a validator.

Rules: docs/spec/blocks.md §8. A record names its own number, so the same one brought twice counts
once: the second time it is refused, for the next number is expected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import grpc

from nocturne.client.credentials import Credentials
from nocturne.client.link import Link
from nocturne.core.errors import Malformed
from nocturne.core.genesis import OpenRule
from nocturne.core.identifiers import AuthorId, Hash, KeyId, LedgerId
from nocturne.wire.consensus.v1 import consensus_pb2, consensus_pb2_grpc

if TYPE_CHECKING:
    from types import TracebackType

ANSWER_SECONDS_MAX: Final = 35.0
"""A little more than a validator waits for its own block."""


@dataclass(frozen=True, slots=True)
class Governance:
    """What the operators decided so far, as one validator says: not proved."""

    ledger_id: LedgerId
    height: int
    number: int
    open_policy: tuple[OpenRule, ...]
    operators: tuple[KeyId, ...]
    operator_threshold: int


@dataclass(frozen=True, slots=True)
class Governed:
    """The block that carries a control record."""

    height: int
    digest: Hash


class OperatorClient:
    """A connection to one validator's ControlService; an async context manager."""

    def __init__(
        self, address: str, ledger_id: LedgerId, credentials: Credentials | None = None
    ) -> None:
        self._ledger_id = ledger_id
        self._link = Link("consensus", address, consensus_pb2_grpc.ControlServiceStub, credentials)

    async def __aenter__(self) -> OperatorClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._link.close()

    async def governance(self) -> Governance:
        """What was decided so far. `Unavailable` when the validator does not certify."""
        answer = await self._ask("GetControl", consensus_pb2.GetControlRequest())
        if answer.ledger_id != self._ledger_id:
            raise Malformed("consensus: it serves another ledger")
        return Governance(
            self._ledger_id,
            answer.height,
            answer.number,
            tuple(_rule(one) for one in answer.open_policy),
            tuple(KeyId(one) for one in answer.operators),
            answer.operator_threshold,
        )

    async def submit(self, signed_control: bytes) -> Governed:
        """Bring a control record into a block. `Malformed` says why none may carry it."""
        request = consensus_pb2.SubmitControlRequest(signed_control=signed_control)
        answer = await self._ask("SubmitControl", request)
        return Governed(answer.height, Hash(answer.digest))

    async def _ask(self, method: str, request: object) -> Any:
        """Once: a record that was brought in before is refused when it is brought again."""
        async with self._link.stub() as stub:
            try:
                return await getattr(stub, method)(
                    request, timeout=ANSWER_SECONDS_MAX, metadata=self._link.metadata
                )
            except grpc.aio.AioRpcError as error:
                raise await self._link.fault_of(error) from error


def _rule(message: consensus_pb2.OpenRule) -> OpenRule:
    author = AuthorId(message.author) if message.HasField("author") else None
    return OpenRule(author, message.kind, message.prefix)
