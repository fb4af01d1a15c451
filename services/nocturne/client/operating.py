"""What operators do: read what was decided, and bring signed control records to a validator.

Rules: docs/spec/blocks.md §8. Any validator takes a record; of several addresses the first is asked
that answers. A record names its own number, so the same one brought twice counts once: the second
time it is refused, for the next number is expected.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import grpc

from nocturne.client.credentials import Credentials
from nocturne.client.link import Link
from nocturne.core.errors import Malformed, Unavailable
from nocturne.core.genesis import OpenRule
from nocturne.core.identifiers import AuthorId, Hash, KeyId, LedgerId
from nocturne.wire.consensus.v1 import consensus_pb2, consensus_pb2_grpc

if TYPE_CHECKING:
    from types import TracebackType

ANSWER_SECONDS_MAX: Final = 35.0
"""A little more than a validator waits for its own block."""
LOOK_SECONDS_MAX: Final = 5.0
"""For a question to one of several validators: its answer is at hand, and there is a next one."""


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
    """Connections to the ControlService of validators, one or several; an async context manager."""

    def __init__(
        self,
        addresses: str | Sequence[str],
        ledger_id: LedgerId,
        credentials: Credentials | None = None,
    ) -> None:
        named = (addresses,) if isinstance(addresses, str) else tuple(addresses)
        if not named:
            raise ValueError("expected the address of a validator, got none")
        self._ledger_id = ledger_id
        self._links = [
            Link("consensus", address, consensus_pb2_grpc.ControlServiceStub, credentials)
            for address in named
        ]
        self._answering: Link | None = None

    async def __aenter__(self) -> OperatorClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for link in self._links:
            await link.close()

    async def governance(self) -> Governance:
        """What was decided so far, as the first validator says that answers. `Unavailable` when
        none does, with the cause of the last.
        """
        faults: list[Unavailable] = []
        for link in self._links:
            try:
                found = await self._governance(link)
            except Unavailable as fault:
                faults.append(fault)
            else:
                self._answering = link
                return found
        raise faults[-1]

    async def _governance(self, link: Link) -> Governance:
        seconds = LOOK_SECONDS_MAX if len(self._links) > 1 else ANSWER_SECONDS_MAX
        answer = await self._ask(link, "GetControl", consensus_pb2.GetControlRequest(), seconds)
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
        """Bring a control record into a block. `Malformed` says why none may carry it.

        It is brought to one validator alone, which answered before: whether one that goes away
        meanwhile has passed it on cannot be known, and another would refuse it then.
        """
        if self._answering is None:
            await self.governance()
        link, self._answering = self._answering, None
        assert link is not None, "or else nobody answered"
        request = consensus_pb2.SubmitControlRequest(signed_control=signed_control)
        answer = await self._ask(link, "SubmitControl", request, ANSWER_SECONDS_MAX)
        self._answering = link
        return Governed(answer.height, Hash(answer.digest))

    async def _ask(self, link: Link, method: str, request: object, seconds: float) -> Any:
        """Once: a record that was brought in before is refused when it is brought again."""
        async with link.stub() as stub:
            try:
                return await getattr(stub, method)(request, timeout=seconds, metadata=link.metadata)
            except grpc.aio.AioRpcError as error:
                raise await link.fault_of(error) from error


def _rule(message: consensus_pb2.OpenRule) -> OpenRule:
    author = AuthorId(message.author) if message.HasField("author") else None
    return OpenRule(author, message.kind, message.prefix)
