"""What a validator reports is what a client reads, within its bounds."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import grpc
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from nocturne.client import validators as client
from nocturne.client.validators import Mode, Role, ask_validator, validator_of
from nocturne.consensus.validator_servicer import (
    CertificateReport,
    PeerReport,
    ReportedKind,
    ReportedRole,
    ValidatorReport,
    ValidatorServicer,
    message_of,
)
from nocturne.core.errors import Malformed, Unavailable
from nocturne.core.identifiers import Hash, KeyId, LedgerId
from nocturne.wire.consensus.v1 import validator_pb2

PEER = PeerReport(0, KeyId(b"\x05" * 32), "10.0.0.1:7400", True, 0.8, 12, 13, 1)
REPORT = ValidatorReport(
    ledger_id=LedgerId(b"\x01" * 32),
    key_id=KeyId(b"\x02" * 32),
    index=1,
    role=ReportedRole.FOLLOWER,
    role_cause="",
    validators=4,
    quorum=3,
    recovery=0,
    epoch=2,
    view=70,
    leader=2,
    height=131_100,
    published_height=131_099,
    degraded_cause=None,
    newest_certificate=CertificateReport(ReportedKind.FINALIZATION, 69, Hash(b"\x03" * 32)),
    skipped_views=5,
    evidence_count=2,
    evidence=("validator 3 voted for two blocks in view 66", "validator 3 finalized view 12"),
    peers=(PEER, PeerReport(None, None, "", False, None, 0, 0, 0, "refused")),
    journal_bytes=12_345,
)
naturals = st.integers(0, 2**63 - 1)
hashes = st.binary(min_size=32, max_size=32)
texts = st.text(max_size=400)
peers = st.builds(
    PeerReport,
    st.none() | st.integers(0, 30),
    st.none() | hashes.map(KeyId),
    texts,
    st.booleans(),
    st.none() | st.floats(0, 1e9),
    naturals,
    naturals,
    naturals,
    texts,
)
reports = st.builds(
    ValidatorReport,
    ledger_id=hashes.map(LedgerId),
    key_id=hashes.map(KeyId),
    index=st.none() | st.integers(0, 30),
    role=st.sampled_from(ReportedRole),
    role_cause=texts,
    validators=st.just(31),
    quorum=st.integers(1, 31),
    recovery=naturals,
    epoch=naturals,
    view=naturals,
    leader=st.none() | st.integers(0, 30),
    height=naturals,
    published_height=naturals,
    degraded_cause=st.none() | texts,
    newest_certificate=st.none()
    | st.builds(CertificateReport, st.sampled_from(ReportedKind), naturals, hashes.map(Hash)),
    skipped_views=naturals,
    evidence_count=naturals,
    evidence=st.lists(texts, max_size=20).map(tuple),
    peers=st.lists(peers, max_size=5).map(tuple),
    journal_bytes=naturals,
)


def test_a_client_reads_what_the_validator_reports() -> None:
    async def asked() -> client.Validator:
        server = grpc.aio.server()
        ValidatorServicer(lambda: REPORT).rpc_service().add(server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            return await ask_validator(f"127.0.0.1:{port}", 10.0)
        finally:
            await server.stop(None)

    found = asyncio.run(asked())
    assert (found.index, found.role, found.view, found.leader) == (1, Role.FOLLOWER, 70, 2)
    assert found.newest_certificate == client.Certificate(
        client.CertificateKind.FINALIZATION, 69, b"\x03" * 32
    )
    assert found.evidence == REPORT.evidence
    assert found.mode is Mode.SYNC_WS
    assert found.peers == (
        client.Peer(0, b"\x05" * 32, "10.0.0.1:7400", True, 0.8, 12, 13, 1, ""),
        client.Peer(None, None, "", False, None, 0, 0, 0, "refused"),
    )


def test_a_validator_that_is_away_is_unavailable() -> None:
    with pytest.raises(Unavailable):
        asyncio.run(ask_validator("127.0.0.1:1", 5.0))


@given(reports)
def test_every_report_is_read_back_with_its_texts_cut(report: ValidatorReport) -> None:
    found = validator_of(message_of(report))
    for name in ("index", "leader", "view", "height", "epoch", "journal_bytes", "quorum"):
        assert getattr(found, name) == getattr(report, name)
    assert found.role.name == report.role.name
    assert (found.mode is Mode.DEGRADED) == (report.degraded_cause is not None)
    assert found.mode_cause == (report.degraded_cause or "")[:256]
    assert found.evidence == tuple(one[:256] for one in report.evidence[:16])
    assert [one.rtt_ms for one in found.peers] == [one.rtt_ms for one in report.peers]


@given(st.binary(max_size=300))
def test_bytes_that_no_validator_would_send_are_refused_or_read_within_bounds(data: bytes) -> None:
    try:
        found = validator_of(validator_pb2.GetValidatorResponse.FromString(data))
    except (Malformed, DecodeError):
        return
    assert len(found.evidence) <= 16


def wrong(**fields: object) -> validator_pb2.GetValidatorResponse:
    message = message_of(REPORT)
    message.MergeFrom(validator_pb2.GetValidatorResponse(**fields))  # type: ignore[arg-type]
    return message


@pytest.mark.parametrize(
    "message, said",
    [
        (wrong(index=4), "index: expected a place below 4, got 4"),
        (wrong(leader=-1), "leader: expected a place below 4"),
        (wrong(quorum=5), "expected a quorum of 1 to 4, got 5"),
        (wrong(key_id=b"short"), "key_id: expected 32 bytes, got 5"),
        (wrong(ledger_id=b"\x01" * 33), "ledger_id: expected 32 bytes, got 33"),
        (wrong(role=99), "role: expected one that is known, got 99"),
        (wrong(mode=3), "mode: expected one that is known"),
        (wrong(view=-1), "view: expected no negative number"),
        (wrong(newest_certificate={"kind": 0}), ""),
        (wrong(newest_certificate={"kind": 7}), "newest_certificate.kind: expected one that is"),
        (wrong(newest_certificate={"digest": b"1"}), "newest_certificate.digest: expected 32"),
        (wrong(peers=[{"rtt_ms": float("nan")}]), "peers.rtt_ms: expected a time, got nan"),
        (wrong(peers=[{"rtt_ms": -1.0}]), "peers.rtt_ms: expected a time"),
        (wrong(peers=[{"key_id": b"1"}]), "peers.key_id: expected 32 bytes"),
        (wrong(peers=[{"sent": -1}]), "peers.sent: expected no negative number"),
        (wrong(peers=[{}] * 1023), "expected at most 1024 peers, got 1025"),
    ],
)
def test_what_no_validator_would_say_is_refused_in_words(
    message: validator_pb2.GetValidatorResponse, said: str
) -> None:
    if not said:
        # A zero is what the field has anyway, and changes nothing.
        assert validator_of(message) == validator_of(message_of(REPORT))
        return
    with pytest.raises(Malformed, match=said):
        validator_of(message)


def test_a_nullification_has_no_digest() -> None:
    newest = CertificateReport(ReportedKind.NULLIFICATION, 7, None)
    found = validator_of(message_of(replace(REPORT, newest_certificate=newest)))
    assert found.newest_certificate == client.Certificate(
        client.CertificateKind.NULLIFICATION, 7, None
    )
