"""What operators do: read what was decided, and bring signed control records to a validator.

Rules: docs/spec/blocks.md §8. Any validator takes a record; of several addresses the first is asked
that answers. A record names its own number, so the same one brought twice counts once: the second
time it is refused, for the next number is expected.

What a validator says was decided is not proved. Operators sign whole sets of validators, so whoever
builds one asks all addresses, and believes what more of them say than may lie (`agreed`).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import grpc

from nocturne.client.credentials import Credentials
from nocturne.client.link import Link
from nocturne.core.errors import Malformed, Unavailable
from nocturne.core.genesis import OpenRule
from nocturne.core.identifiers import AuthorId, Hash, KeyId, LedgerId
from nocturne.core.keys import key_from_bytes, signatures_from_bytes
from nocturne.core.validator_sets import EPOCHS_UNTIL, Member
from nocturne.wire.consensus.v1 import consensus_pb2, consensus_pb2_grpc

if TYPE_CHECKING:
    from types import TracebackType

ANSWER_SECONDS_MAX: Final = 35.0
"""A little more than a validator waits for its own block."""
LOOK_SECONDS_MAX: Final = 5.0
"""For a question to one of several validators: its answer is at hand, and there is a next one."""


VALIDATORS_MAX: Final = 1_024
"""In one set of an answer: a genesis may name more than operators may decide."""


@dataclass(frozen=True, slots=True)
class DecidedSet:
    """The validators, with proofs of possession, of an epoch and of those after it."""

    first_epoch: int
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Governance:
    """What the operators decided so far, as one validator says: not proved. `sets` begins with the
    set of the next block's epoch; later ones follow, first epochs ascending.
    """

    ledger_id: LedgerId
    height: int
    number: int
    open_policy: tuple[OpenRule, ...]
    operators: tuple[KeyId, ...]
    operator_threshold: int
    epoch_length: int
    sets: tuple[DecidedSet, ...]

    @property
    def newest(self) -> DecidedSet:
        """The set that was decided last: what a change begins with."""
        return self.sets[-1]


@dataclass(frozen=True, slots=True)
class Governed:
    """The block that carries a control record."""

    height: int
    digest: Hash


@dataclass(frozen=True, slots=True)
class LogPartition:
    """One partition: what is certified of it, in which log epoch of which topic (zero before its
    first range), how many records the validator holds beyond that, and what the broker has.
    """

    partition: int
    log_epoch: int
    topic_uuid: bytes
    next_offset: int
    held_records: int
    first_offset: int
    end_offset: int


@dataclass(frozen=True, slots=True)
class LogStands:
    """Where the log stands, as one validator says: not proved. `cause` is why it takes no records,
    empty while it does; `topic_uuid` is of the topic that its broker has.
    """

    height: int
    cause: str
    topic_uuid: bytes
    partitions: tuple[LogPartition, ...]


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

    async def agreed_governance(self) -> Governance:
        """What was decided so far, as all that answer are asked and enough of them agree on it
        (`agreed`). `Unavailable` when none answers or too few agree.
        """
        told = await asyncio.gather(*map(self._governance, self._links), return_exceptions=True)
        answers: list[tuple[Link, Governance]] = []
        faults: list[BaseException] = []
        for link, one in zip(self._links, told, strict=True):
            if isinstance(one, BaseException):
                faults.append(one)
            else:
                answers.append((link, one))
        for fault in faults:
            if not isinstance(fault, Unavailable | Malformed):
                raise fault
        if not answers:
            raise faults[-1]
        found = agreed([one for _, one in answers], len(self._links))
        self._answering = next(link for link, one in answers if _same(one, found))
        return found

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
            answer.epoch_length,
            _sets(answer),
        )

    async def log(self) -> LogStands:
        """Where the log stands, as the validator says that `governance` found."""
        if self._answering is None:
            await self.governance()
        assert self._answering is not None, "or else nobody answered"
        request = consensus_pb2.GetLogRequest()
        answer = await self._ask(self._answering, "GetLog", request, ANSWER_SECONDS_MAX)
        if answer.ledger_id != self._ledger_id:
            raise Malformed("consensus: it serves another ledger")
        return LogStands(
            answer.height,
            answer.cause,
            answer.topic_uuid,
            tuple(
                LogPartition(
                    one.partition,
                    one.log_epoch,
                    one.topic_uuid,
                    one.next_offset,
                    one.held_records,
                    one.first_offset,
                    one.end_offset,
                )
                for one in answer.partitions
            ),
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


def agreed(answers: Sequence[Governance], asked: int) -> Governance:
    """What most of the answers say, at their median height, if more say it than may lie of so many
    that were asked: more than ⌊(asked−1)/3⌋. `Unavailable` when no answer has so many.
    """
    ordered = sorted(answers, key=lambda one: one.height)
    alike = Counter(replace(one, height=0) for one in ordered)
    most, count = max(alike.items(), key=lambda item: (item[1], item[0].number))
    needed = (asked - 1) // 3 + 1
    if count < needed:
        raise Unavailable(
            f"the validators do not agree on what was decided: {needed} of {asked} have to say the "
            f"same, and {count} do"
        )
    heights = [one.height for one in ordered if _same(one, most)]
    return replace(most, height=heights[len(heights) // 2])


def _same(one: Governance, other: Governance) -> bool:
    """But for how far a chain has come."""
    return replace(one, height=other.height) == other


def _sets(answer: consensus_pb2.GetControlResponse) -> tuple[DecidedSet, ...]:
    """`Malformed` on what no validator says."""
    if not 1 <= len(answer.validator_sets) <= EPOCHS_UNTIL + 1:
        raise Malformed(
            f"consensus: expected 1 to {EPOCHS_UNTIL + 1} validator sets, "
            f"got {len(answer.validator_sets)}"
        )
    if answer.epoch_length < 1:
        raise Malformed(f"consensus: expected an epoch length, got {answer.epoch_length}")
    sets = tuple(map(_set, answer.validator_sets))
    firsts = [one.first_epoch for one in sets]
    if firsts[0] < 0 or any(one >= after for one, after in pairwise(firsts)):
        raise Malformed(f"consensus: expected first epochs ascending, got {firsts}")
    return sets


def _set(message: consensus_pb2.DecidedValidators) -> DecidedSet:
    if not 1 <= len(message.validators) <= VALIDATORS_MAX:
        raise Malformed(
            f"consensus: expected 1 to {VALIDATORS_MAX} validators, got {len(message.validators)}"
        )
    return DecidedSet(
        message.first_epoch,
        tuple(
            (key_from_bytes(one.key), signatures_from_bytes(one.possession))
            for one in message.validators
        ),
    )


def _rule(message: consensus_pb2.OpenRule) -> OpenRule:
    author = AuthorId(message.author) if message.HasField("author") else None
    return OpenRule(author, message.kind, message.prefix)
