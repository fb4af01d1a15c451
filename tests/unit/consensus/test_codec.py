"""What validators say, as bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.consensus.committees import Committee
from tests.unit.consensus.test_own_votes import BLOCK, vote
from tests.unit.core.test_modes import CONFLICTS

from nocturne.consensus import codec
from nocturne.consensus.offers import (
    PART_BYTES,
    PARTS_MAX,
    AskPart,
    AskSnapshot,
    Manifest,
    Part,
    Snapshot,
    SnapshotOffer,
)
from nocturne.consensus.quorum.messages import Cast, Committed, Offer, Proposal, Vote
from nocturne.core.certificates import Certificate, Epoch, VoteKind
from nocturne.core.certified_snapshot import CHANGES_MAX
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import Hash
from nocturne.core.keys import Signature
from nocturne.wire.consensus.v1 import peer_pb2

SEED = 5


def said() -> list[codec.Value]:
    """One of everything, most of it as a committee says it."""
    committee = Committee(4, SEED)
    heard: list[codec.Value] = []

    def overhear(sender: object, to: object, say: object) -> bool:
        heard.append(say.message)  # type: ignore[attr-defined]
        return False

    committee.loses = overhear
    for number in range(3):
        committee.write(f"s{number}")
        committee.run(200)
    kept = [one for one in committee.members[0].kept if isinstance(one, Committed)]
    proposal = kept[0].proposal
    certificate = kept[0].proof.finalization
    by_type: dict[type, codec.Value] = {type(one): one for one in heard}
    return [
        *by_type.values(),
        Offer(proposal, (certificate, certificate)),
        Cast(vote(3), True),
        certificate,
        kept[0],
        proposal,
        vote(2**63 - 1, epoch=7),
        codec.Fetch(BLOCK),
        codec.Fetched(proposal),
        codec.AskVotes(),
        codec.NewestVotes(()),
        codec.NewestVotes((vote(1), vote(2, VoteKind.FINALIZE), vote(3, VoteKind.NULLIFY))),
        codec.Control(b""),
        codec.Control(b"record"),
        *map(codec.Conflicting, CONFLICTS),
        codec.Halting(True),
        codec.Halting(False),
        AskSnapshot(0, True),
        AskSnapshot(7, False),
        SnapshotOffer(9, None),
        SnapshotOffer(9, snapshot_of(kept[0])),
        AskPart(BLOCK, 3),
        Part(BLOCK, 0, b"part"),
    ]


def snapshot_of(block: Committed) -> Snapshot:
    manifest = Manifest(PART_BYTES + 1, (BLOCK, BLOCK))
    return Snapshot(block, (b"line\n", b"other\n"), 8, 1234, manifest)


SAID = said()


@pytest.mark.parametrize("value", SAID, ids=lambda one: type(one).__name__)
def test_what_is_said_is_what_is_heard(value: codec.Value) -> None:
    data = codec.encode(value)
    assert codec.decode(data) == value


@given(st.sampled_from(SAID), st.data())
@settings(max_examples=300, deadline=None)
def test_a_changed_byte_is_another_value_or_malformed_and_never_breaks(
    value: codec.Value, data: st.DataObject
) -> None:
    encoded = bytearray(codec.encode(value))
    at = data.draw(st.integers(0, max(0, len(encoded) - 1)))
    if encoded:
        encoded[at] ^= data.draw(st.integers(1, 255))
    check_one_encoding(bytes(encoded))


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_value_or_malformed(data: bytes) -> None:
    check_one_encoding(data)


def check_one_encoding(data: bytes) -> None:
    try:
        value = codec.decode(data)
    except Malformed:
        return
    assert codec.encode(value) == data


def wire(**fields: object) -> bytes:
    return peer_pb2.PeerValue(**fields).SerializeToString()  # type: ignore[arg-type]


def test_unknown_fields_other_orders_and_doubled_fields_are_refused() -> None:
    data = codec.encode(codec.Fetch(BLOCK))
    for other in (data + b"\xf8\x07\x01", data + data, b"\xf8\x07\x01" + data, data[:-1]):
        with pytest.raises(Malformed):
            codec.decode(other)
    cast = codec.encode(Cast(vote(3), False))
    assert peer_pb2.PeerValue.FromString(cast + b"\x12\x02\x10\x01").cast.again
    with pytest.raises(Malformed, match="one encoding"):
        codec.decode(cast + b"\x12\x02\x10\x01")


@pytest.mark.parametrize(
    "changed",
    [
        {"view": 0},
        {"view": 2**63},
        {"kind": 0},
        {"kind": 4},
        {"epoch": 2**63},
        {"recovery": 2**31},
        {"digest": b"short"},
        {"signatures": b""},
        {"signatures": b"\x01short"},
    ],
)
def test_a_vote_out_of_its_bounds_is_refused(changed: dict[str, object]) -> None:
    good = peer_pb2.PeerValue.FromString(codec.encode(vote(3))).vote
    for name, value in changed.items():
        setattr(good, name, value)
    with pytest.raises(Malformed):
        codec.decode(wire(vote=good))


def test_bounds_of_what_is_listed_and_of_the_whole() -> None:
    offer = next(one for one in SAID if isinstance(one, Offer))
    certificate = next(one for one in SAID if isinstance(one, Certificate))
    full = replace(offer, grounds=(certificate,) * codec.GROUNDS_MAX)
    assert codec.decode(codec.encode(full)) == full
    with pytest.raises(Malformed, match="at most 257 certificates"):
        codec.decode(codec.encode(replace(full, grounds=(*full.grounds, certificate))))
    with pytest.raises(Malformed, match="at most 3"):
        codec.decode(codec.encode(codec.NewestVotes((vote(1),) * 4)))
    with pytest.raises(Malformed, match="control"):
        codec.decode(codec.encode(codec.Control(bytes(384 * 1024 + 1))))
    with pytest.raises(Malformed, match="at most"):
        codec.decode(bytes(codec.VALUE_BYTES_MAX + 1))


def test_a_snapshots_offer_out_of_its_bounds_is_refused() -> None:
    offer = next(one for one in SAID if isinstance(one, SnapshotOffer) and one.snapshot)
    good = peer_pb2.PeerValue.FromString(codec.encode(offer)).snapshot_offer
    for words, change in (
        ("expected 2 parts", {"parts": bytes(32)}),
        ("hashes", {"parts": bytes(33)}),
        ("expected 1 to", {"size": 0, "parts": b""}),
        ("expected 1 to", {"size": 2**40}),
        ("out of range", {"published_offset": 2**63}),
    ):
        other = peer_pb2.SnapshotOffer.FromString(good.SerializeToString())
        for name, value in change.items():
            setattr(other.snapshot, name, value)
        with pytest.raises(Malformed, match=words):
            codec.decode(wire(snapshot_offer=other))
    many = peer_pb2.SnapshotOffer.FromString(good.SerializeToString())
    many.snapshot.changes.extend([b"x"] * CHANGES_MAX)
    with pytest.raises(Malformed, match="more changes"):
        codec.decode(wire(snapshot_offer=many))


def test_a_part_out_of_its_bounds_is_refused() -> None:
    for value in (
        Part(BLOCK, 0, b""),
        Part(BLOCK, 0, bytes(PART_BYTES + 1)),
        Part(BLOCK, PARTS_MAX, b"x"),
        Part(Hash(b"short"), 0, b"x"),
        AskPart(BLOCK, PARTS_MAX),
        AskPart(Hash(b"short"), 0),
        AskSnapshot(2**63, False),
        SnapshotOffer(2**63, None),
    ):
        with pytest.raises(Malformed):
            codec.decode(codec.encode(value))


def test_a_certificate_has_no_headers() -> None:
    committed = next(one for one in SAID if isinstance(one, Committed))
    header = committed.proposal.header_bytes
    proof = replace(committed.proof, headers=(header,))
    value = peer_pb2.PeerValue.FromString(codec.encode(replace(committed, proof=proof)))
    with pytest.raises(Malformed, match="no headers"):
        codec.decode(wire(certificate=value.committed.proof))


def test_a_proposals_digest_is_that_of_its_header() -> None:
    proposal = next(one for one in SAID if isinstance(one, Proposal))
    lie = replace(proposal, digest=Hash(bytes(32)))
    assert codec.decode(codec.encode(lie)) == proposal


def test_votes_of_hybrid_keys_keep_both_signatures() -> None:
    (one,) = vote(3).signatures
    both = Vote(
        1, VoteKind.NOTARIZE, Epoch(1, 2), 3, BLOCK, (one, Signature(2, one.key_id, b"x" * 2420))
    )
    assert codec.decode(codec.encode(both)) == both
