"""ControlService over gRPC: the operators' records on their way into a block.

Rules: docs/spec/services.md, consensus. A record waits until a validator proposes it in a block,
this one or another; the answer is given once that block is certified, durable and published.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, NoReturn

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo
from google.rpc.status_pb2 import Status

from nocturne.consensus.chain import Chain
from nocturne.consensus.log_reading import LogState
from nocturne.core.blocks import Block
from nocturne.core.errors import Malformed, Unavailable
from nocturne.core.governing import control_number
from nocturne.core.keys import key_bytes, signatures_bytes
from nocturne.core.validator_sets import Member
from nocturne.runtime.rpc import RpcService
from nocturne.wire.consensus.v1 import consensus_pb2, consensus_pb2_grpc

ANSWER_SECONDS_MAX: Final = 30.0
"""A block takes milliseconds; past this the broker or the disk is away."""
STATUS_DETAILS: Final = "grpc-status-details-bin"
DOMAIN: Final = "nocturne.consensus"

Context = grpc.aio.ServicerContext[Any, Any]


class ControlDesk:
    """Where those wait who brought a control record, until a block has it."""

    def __init__(self) -> None:
        self._waiting: dict[bytes, asyncio.Future[Block]] = {}
        self._chain: Chain | None = None
        self._bring: Callable[[bytes], bool] = _nobody
        self._certifies: Callable[[], bool] = lambda: False
        self._log: Callable[[], Awaitable[LogState]] | None = None

    @property
    def chain(self) -> Chain | None:
        """The validator's chain, None before it certifies, and while it only observes: nobody
        listens to an observer, so what is brought to it would come to no block.
        """
        return self._chain if self._certifies() else None

    @property
    def log(self) -> Callable[[], Awaitable[LogState]] | None:
        """Where the log stands, None before it certifies."""
        return self._log

    def open(
        self,
        chain: Chain,
        bring: Callable[[bytes], bool],
        certifies: Callable[[], bool],
        log: Callable[[], Awaitable[LogState]],
    ) -> None:
        """The validator is ready. `bring` says whether it has room for a record, `certifies`
        whether it is in the set, `log` where the log stands.
        """
        self._chain = chain
        self._bring = bring
        self._certifies = certifies
        self._log = log

    def close(self) -> None:
        """The validator certifies no more."""
        self._chain = None
        self._bring = _nobody

    def bring(self, record: bytes) -> asyncio.Future[Block] | None:
        """The block that will carry the record; None when too many wait already."""
        found = self._waiting.get(record)
        if found is None:
            if not self._bring(record):
                return None
            found = self._waiting[record] = asyncio.get_running_loop().create_future()
            found.add_done_callback(lambda _: self._waiting.pop(record, None))
        return found

    def refuse(self, record: bytes, fault: Malformed) -> None:
        """No block can carry it."""
        found = self._waiting.get(record)
        if found is not None and not found.done():
            found.set_exception(fault)

    def published(self, block: Block) -> None:
        """The topic has this block."""
        for record in block.control:
            found = self._waiting.get(record)
            if found is not None and not found.done():
                found.set_result(block)


class ControlServicer(consensus_pb2_grpc.ControlServiceServicer):
    """Implements nocturne.consensus.v1.ControlService."""

    def __init__(self, desk: ControlDesk) -> None:
        self._desk = desk

    def rpc_service(self) -> RpcService:
        """How `runtime.rpc` serves it."""
        return RpcService(
            "nocturne.consensus.v1.ControlService",
            lambda server: consensus_pb2_grpc.add_ControlServiceServicer_to_server(self, server),
        )

    async def GetControl(  # noqa: N802
        self, request: consensus_pb2.GetControlRequest, context: Context
    ) -> consensus_pb2.GetControlResponse:
        """What was decided so far, as of the newest block."""
        chain = await self._chain(context)
        view = chain.state.view
        return consensus_pb2.GetControlResponse(
            ledger_id=view.ledger_id,
            height=chain.tip.height,
            number=control_number(view.items),
            open_policy=[
                consensus_pb2.OpenRule(author=one.author, kind=one.kind, prefix=one.prefix)
                for one in view.open_policy
            ],
            operators=sorted(view.operators),
            operator_threshold=view.genesis.operator_threshold,
            epoch_length=view.genesis.epoch_length,
            validator_sets=[
                _decided(one.first_epoch, one.members(view.genesis.validators))
                for one in chain.sets.ahead(chain.tip.height)
            ],
        )

    async def SubmitControl(  # noqa: N802
        self, request: consensus_pb2.SubmitControlRequest, context: Context
    ) -> consensus_pb2.SubmitControlResponse:
        """Bring one record into the next block."""
        chain = await self._chain(context)
        try:
            # Beside the proposals, which would wait for it: only what may stand comes to the desk.
            await asyncio.to_thread(chain.check_next_control, request.signed_control)
        except Malformed as fault:
            await _invalid(context, str(fault))
        carried = self._desk.bring(request.signed_control)
        if carried is None:
            message = "too many control records wait already: try again later"
            await _abort(context, grpc.StatusCode.RESOURCE_EXHAUSTED, message, "DESK_FULL")
        try:
            block = await asyncio.wait_for(asyncio.shield(carried), ANSWER_SECONDS_MAX)
        except Malformed as fault:
            await _invalid(context, str(fault))
        except TimeoutError:
            message = "no block was certified in time: see GetControl, whether it came in later"
            await _abort(context, grpc.StatusCode.UNAVAILABLE, message, "NO_BLOCK")
        return consensus_pb2.SubmitControlResponse(height=block.header.height, digest=block.digest)

    async def GetLog(  # noqa: N802
        self, request: consensus_pb2.GetLogRequest, context: Context
    ) -> consensus_pb2.GetLogResponse:
        """What is certified of the log, and what this validator's broker has of it."""
        chain = await self._chain(context)
        assert self._desk.log is not None, "it is ready with its chain"
        try:
            found = await self._desk.log()
        except Unavailable as fault:
            await _abort(context, grpc.StatusCode.UNAVAILABLE, str(fault), "BROKER_AWAY")
        return consensus_pb2.GetLogResponse(
            ledger_id=chain.state.ledger_id,
            height=chain.tip.height,
            cause=found.cause,
            topic_uuid=found.topic_uuid,
            partitions=[
                consensus_pb2.LogPartition(
                    partition=position.partition,
                    log_epoch=position.log_epoch,
                    topic_uuid=position.topic_uuid,
                    next_offset=position.next_offset,
                    held_records=held,
                    first_offset=kept.first,
                    end_offset=kept.end,
                )
                for position, held, kept in zip(
                    found.positions, found.held, found.kept, strict=True
                )
            ],
        )

    async def _chain(self, context: Context) -> Chain:
        chain = self._desk.chain
        if chain is None:
            message = "the validator does not certify: it starts, or observes only"
            await _abort(context, grpc.StatusCode.UNAVAILABLE, message, "NOT_CERTIFYING")
        return chain


def _decided(first_epoch: int, members: Sequence[Member]) -> consensus_pb2.DecidedValidators:
    return consensus_pb2.DecidedValidators(
        first_epoch=first_epoch,
        validators=[
            consensus_pb2.ValidatorMember(
                key=key_bytes(key), possession=signatures_bytes(possession)
            )
            for key, possession in members
        ],
    )


async def _invalid(context: Context, message: str) -> NoReturn:
    violation = BadRequest.FieldViolation(field="signed_control", description=message)
    detail = BadRequest(field_violations=[violation])
    await _abort_with(context, grpc.StatusCode.INVALID_ARGUMENT, message, detail)


async def _abort(context: Context, code: grpc.StatusCode, message: str, reason: str) -> NoReturn:
    await _abort_with(context, code, message, ErrorInfo(reason=reason, domain=DOMAIN))


async def _abort_with(
    context: Context, code: grpc.StatusCode, message: str, detail: BadRequest | ErrorInfo
) -> NoReturn:
    packed = AnyMessage()
    packed.Pack(detail)
    status = Status(code=code.value[0], message=message, details=[packed])
    await context.abort(code, message, ((STATUS_DETAILS, status.SerializeToString()),))
    raise AssertionError("abort returns to nobody")


def _nobody(_: bytes) -> bool:
    """Before the validator is ready nobody takes a record."""
    return False
