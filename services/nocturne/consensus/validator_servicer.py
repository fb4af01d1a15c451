"""ValidatorService over gRPC: what one validator says of itself, as its report has it.

Rules: docs/spec/services.md, consensus. The report is made by the validator's process at each
question; this file only bounds it and puts it on the wire.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

import grpc

from nocturne.core.identifiers import Hash, KeyId, LedgerId
from nocturne.runtime.rpc import RpcService
from nocturne.wire.consensus.v1 import validator_pb2, validator_pb2_grpc

EVIDENCE_MAX: Final = 16
TEXT_CHARACTERS_MAX: Final = 256
"""Of a cause or a piece of evidence in words: a line on a screen, not a log."""

Context = grpc.aio.ServicerContext[Any, Any]


class ReportedRole(Enum):
    """What the validator does in the current view."""

    STARTING = validator_pb2.VALIDATOR_ROLE_STARTING
    LEADER = validator_pb2.VALIDATOR_ROLE_LEADER
    FOLLOWER = validator_pb2.VALIDATOR_ROLE_FOLLOWER
    OBSERVER = validator_pb2.VALIDATOR_ROLE_OBSERVER
    REFUSING = validator_pb2.VALIDATOR_ROLE_REFUSING
    HALTED = validator_pb2.VALIDATOR_ROLE_HALTED


class ReportedKind(Enum):
    """Of a certificate."""

    NOTARIZATION = validator_pb2.CERTIFICATE_KIND_NOTARIZATION
    NULLIFICATION = validator_pb2.CERTIFICATE_KIND_NULLIFICATION
    FINALIZATION = validator_pb2.CERTIFICATE_KIND_FINALIZATION


@dataclass(frozen=True, slots=True)
class CertificateReport:
    """The newest certificate; `digest` is None for a nullification."""

    kind: ReportedKind
    view: int
    digest: Hash | None


@dataclass(frozen=True, slots=True)
class PeerReport:
    """Another validator or an observer. `index` is its place in the set, None if it has none or
    has not said who it is; `key_id` likewise. `address` is where it is called, `rtt_ms` of the
    newest keep-alive; counts are messages since the process began.
    """

    index: int | None
    key_id: KeyId | None
    address: str
    connected: bool
    rtt_ms: float | None
    sent: int
    received: int
    dropped: int
    last_error: str = ""


@dataclass(frozen=True, slots=True)
class ValidatorReport:
    """One validator at one moment. `index` is its place in the epoch's set of `validators`, None if
    it has none; `role_cause` says why it does not vote, `degraded_cause` why the ledger is
    DEGRADED (None: SYNC_WS). `leader` is the place of the view's leader. `height` is of the newest
    committed block, `skipped_views` counts those given up since the process began. `evidence` has
    the newest pieces first.
    """

    ledger_id: LedgerId
    key_id: KeyId
    index: int | None
    role: ReportedRole
    role_cause: str
    validators: int
    quorum: int
    recovery: int
    epoch: int
    view: int
    leader: int | None
    height: int
    published_height: int
    degraded_cause: str | None
    newest_certificate: CertificateReport | None
    skipped_views: int
    evidence_count: int
    evidence: tuple[str, ...]
    peers: tuple[PeerReport, ...]
    journal_bytes: int


class ValidatorServicer(validator_pb2_grpc.ValidatorServiceServicer):
    """Implements nocturne.consensus.v1.ValidatorService; `provider` is asked at each call, in the
    event loop, and answers from what it has at hand.
    """

    def __init__(self, provider: Callable[[], ValidatorReport]) -> None:
        self._provider = provider

    def rpc_service(self) -> RpcService:
        """How `runtime.rpc` serves it."""
        return RpcService(
            "nocturne.consensus.v1.ValidatorService",
            lambda server: validator_pb2_grpc.add_ValidatorServiceServicer_to_server(self, server),
        )

    async def GetValidator(  # noqa: N802
        self, request: validator_pb2.GetValidatorRequest, context: Context
    ) -> validator_pb2.GetValidatorResponse:
        """What the validator says of itself now."""
        return message_of(self._provider())


def message_of(report: ValidatorReport) -> validator_pb2.GetValidatorResponse:
    """A report on the wire. Pure."""
    degraded = report.degraded_cause is not None
    return validator_pb2.GetValidatorResponse(
        ledger_id=report.ledger_id,
        index=report.index,
        key_id=report.key_id,
        role=report.role.value,
        role_cause=_bounded(report.role_cause),
        validators=report.validators,
        quorum=report.quorum,
        recovery=report.recovery,
        epoch=report.epoch,
        view=report.view,
        leader=report.leader,
        height=report.height,
        published_height=report.published_height,
        mode=(
            validator_pb2.LEDGER_MODE_DEGRADED if degraded else validator_pb2.LEDGER_MODE_SYNC_WS
        ),
        mode_cause=_bounded(report.degraded_cause or ""),
        newest_certificate=_certificate(report.newest_certificate),
        skipped_views=report.skipped_views,
        evidence_count=report.evidence_count,
        newest_evidence=[_bounded(one) for one in report.evidence[:EVIDENCE_MAX]],
        peers=[_peer(one) for one in report.peers],
        journal_bytes=report.journal_bytes,
    )


def _certificate(report: CertificateReport | None) -> validator_pb2.NewestCertificate | None:
    if report is None:
        return None
    return validator_pb2.NewestCertificate(
        kind=report.kind.value, view=report.view, digest=report.digest or b""
    )


def _peer(report: PeerReport) -> validator_pb2.ValidatorPeer:
    return validator_pb2.ValidatorPeer(
        index=report.index,
        key_id=report.key_id or b"",
        address=report.address,
        connected=report.connected,
        rtt_ms=report.rtt_ms,
        sent=report.sent,
        received=report.received,
        dropped=report.dropped,
        last_error=_bounded(report.last_error),
    )


def _bounded(text: str) -> str:
    return text[:TEXT_CHARACTERS_MAX]
