"""What one validator says of itself: for whoever keeps a ledger running, not proved.

Rules: docs/spec/services.md, consensus. A validator may lie: what it says is bounded here, and
shown as its own words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal, TypeVar

import grpc

from nocturne.client.credentials import Credentials
from nocturne.client.link import Link
from nocturne.core.errors import Malformed
from nocturne.wire.consensus.v1 import validator_pb2, validator_pb2_grpc

PEERS_MAX: Final = 1_024
EVIDENCE_MAX: Final = 16
TEXT_CHARACTERS_MAX: Final = 256
HASH_BYTES: Final = 32


class Role(StrEnum):
    """What a validator does in the current view."""

    STARTING = "starting"
    LEADER = "leader"
    FOLLOWER = "follower"
    OBSERVER = "observer"
    REFUSING = "refusing to vote"
    HALTED = "halted"


class Mode(StrEnum):
    """Of the ledger, as the validator has it."""

    SYNC_WS = "SYNC_WS"
    DEGRADED = "DEGRADED"


class CertificateKind(StrEnum):
    """What a quorum has voted."""

    NOTARIZATION = "notarization"
    NULLIFICATION = "nullification"
    FINALIZATION = "finalization"


_ROLES: Final[Mapping[int, Role]] = {
    validator_pb2.VALIDATOR_ROLE_STARTING: Role.STARTING,
    validator_pb2.VALIDATOR_ROLE_LEADER: Role.LEADER,
    validator_pb2.VALIDATOR_ROLE_FOLLOWER: Role.FOLLOWER,
    validator_pb2.VALIDATOR_ROLE_OBSERVER: Role.OBSERVER,
    validator_pb2.VALIDATOR_ROLE_REFUSING: Role.REFUSING,
    validator_pb2.VALIDATOR_ROLE_HALTED: Role.HALTED,
}
_MODES: Final[Mapping[int, Mode]] = {
    validator_pb2.LEDGER_MODE_SYNC_WS: Mode.SYNC_WS,
    validator_pb2.LEDGER_MODE_DEGRADED: Mode.DEGRADED,
}
_KINDS: Final[Mapping[int, CertificateKind]] = {
    validator_pb2.CERTIFICATE_KIND_NOTARIZATION: CertificateKind.NOTARIZATION,
    validator_pb2.CERTIFICATE_KIND_NULLIFICATION: CertificateKind.NULLIFICATION,
    validator_pb2.CERTIFICATE_KIND_FINALIZATION: CertificateKind.FINALIZATION,
}


@dataclass(frozen=True, slots=True)
class Certificate:
    """`digest` is None for a nullification."""

    kind: CertificateKind
    view: int
    digest: bytes | None


@dataclass(frozen=True, slots=True)
class Peer:
    """Another validator, or an observer, as the one that was asked sees it. `index` and `key_id`
    are None before it has said who it is; counts are messages.
    """

    index: int | None
    key_id: bytes | None
    address: str
    connected: bool
    rtt_ms: float | None
    sent: int
    received: int
    dropped: int
    last_error: str


@dataclass(frozen=True, slots=True)
class Validator:
    """What a validator says of itself. `index` is its place in the epoch's set of `validators`, of
    which `quorum` make a certificate; None if it has none. `role_cause` says why it does not vote,
    `mode_cause` why the ledger is degraded.
    """

    ledger_id: bytes
    index: int | None
    key_id: bytes
    role: Role
    role_cause: str
    validators: int
    quorum: int
    recovery: int
    epoch: int
    view: int
    leader: int | None
    height: int
    published_height: int
    mode: Mode
    mode_cause: str
    newest_certificate: Certificate | None
    skipped_views: int
    evidence_count: int
    evidence: tuple[str, ...]
    peers: tuple[Peer, ...]
    journal_bytes: int


async def ask_validator(
    address: str, deadline_seconds: float, credentials: Credentials | None = None
) -> Validator:
    """What the validator at `address` says of itself; `Unavailable` when it says nothing in time,
    with the reason, `Malformed` when it says what no validator would.
    """
    link = Link("consensus", address, validator_pb2_grpc.ValidatorServiceStub, credentials)
    try:
        async with link.stub() as stub:
            answer = await stub.GetValidator(
                validator_pb2.GetValidatorRequest(),
                timeout=deadline_seconds,
                metadata=link.metadata,
            )
    except grpc.aio.AioRpcError as error:
        raise await link.fault_of(error) from error
    finally:
        await link.close()
    return validator_of(answer)


def validator_of(message: validator_pb2.GetValidatorResponse) -> Validator:
    """A validator from its message; `Malformed` on what no validator would say. Texts are cut."""
    if len(message.peers) > PEERS_MAX:
        raise Malformed(f"validator: expected at most {PEERS_MAX} peers, got {len(message.peers)}")
    if not 1 <= message.quorum <= message.validators:
        raise Malformed(
            f"validator: expected a quorum of 1 to {message.validators}, got {message.quorum}"
        )
    has_certificate = message.HasField("newest_certificate")
    return Validator(
        ledger_id=_hash("ledger_id", message.ledger_id),
        index=_place(message, "index"),
        key_id=_hash("key_id", message.key_id),
        role=_known("role", _ROLES, message.role),
        role_cause=_text(message.role_cause),
        validators=message.validators,
        quorum=message.quorum,
        recovery=_natural("recovery", message.recovery),
        epoch=_natural("epoch", message.epoch),
        view=_natural("view", message.view),
        leader=_place(message, "leader"),
        height=_natural("height", message.height),
        published_height=_natural("published_height", message.published_height),
        mode=_known("mode", _MODES, message.mode),
        mode_cause=_text(message.mode_cause),
        newest_certificate=_certificate(message.newest_certificate) if has_certificate else None,
        skipped_views=_natural("skipped_views", message.skipped_views),
        evidence_count=_natural("evidence_count", message.evidence_count),
        evidence=tuple(map(_text, message.newest_evidence[:EVIDENCE_MAX])),
        peers=tuple(map(_peer, message.peers)),
        journal_bytes=_natural("journal_bytes", message.journal_bytes),
    )


def _certificate(message: validator_pb2.NewestCertificate) -> Certificate:
    kind = _known("newest_certificate.kind", _KINDS, message.kind)
    digest = None
    if kind is not CertificateKind.NULLIFICATION:
        digest = _hash("newest_certificate.digest", message.digest)
    return Certificate(kind, _natural("newest_certificate.view", message.view), digest)


def _peer(message: validator_pb2.ValidatorPeer) -> Peer:
    rtt_ms = message.rtt_ms if message.HasField("rtt_ms") else None
    if rtt_ms is not None and not (math.isfinite(rtt_ms) and rtt_ms >= 0):
        raise Malformed(f"validator: peers.rtt_ms: expected a time, got {rtt_ms}")
    return Peer(
        index=_natural("peers.index", message.index) if message.HasField("index") else None,
        key_id=_hash("peers.key_id", message.key_id) if message.key_id else None,
        address=_text(message.address),
        connected=message.connected,
        rtt_ms=rtt_ms,
        sent=_natural("peers.sent", message.sent),
        received=_natural("peers.received", message.received),
        dropped=_natural("peers.dropped", message.dropped),
        last_error=_text(message.last_error),
    )


def _place(
    message: validator_pb2.GetValidatorResponse, name: Literal["index", "leader"]
) -> int | None:
    """A place in the set, which has `validators` of them."""
    if not message.HasField(name):
        return None
    place: int = getattr(message, name)
    if not 0 <= place < message.validators:
        raise Malformed(
            f"validator: {name}: expected a place below {message.validators}, got {place}"
        )
    return place


Member = TypeVar("Member", Role, Mode, CertificateKind)


def _known(name: str, members: Mapping[int, Member], number: int) -> Member:
    found = members.get(number)
    if found is None:
        raise Malformed(f"validator: {name}: expected one that is known, got {number}")
    return found


def _hash(name: str, data: bytes) -> bytes:
    if len(data) != HASH_BYTES:
        raise Malformed(f"validator: {name}: expected {HASH_BYTES} bytes, got {len(data)}")
    return data


def _natural(name: str, number: int) -> int:
    if number < 0:
        raise Malformed(f"validator: {name}: expected no negative number, got {number}")
    return number


def _text(text: str) -> str:
    return text[:TEXT_CHARACTERS_MAX]
