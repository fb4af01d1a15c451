"""Ids rise whatever the clock does; payloads are salted and canonical; commands decode."""

from __future__ import annotations

from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nocturne.client.building import Author, Draft, IdMint, build, data_payload, json_payload
from nocturne.core.commands import (
    Opening,
    check_payloads,
    decode_signed_command,
    encode_signed_command,
)
from nocturne.core.identifiers import CommandId, LedgerId
from nocturne.core.keys import Ed25519Signer

SALT = bytes(range(32))


@given(
    st.lists(st.tuples(st.integers(0, 2**48 - 1), st.binary(min_size=10, max_size=10)), min_size=1)
)
def test_ids_rise_and_are_version_7_whatever_the_clock_does(
    draws: list[tuple[int, bytes]],
) -> None:
    mint = IdMint()
    ids = [mint.mint(now_ms, random) for now_ms, random in draws]
    assert ids == sorted(set(ids))
    for one in ids:
        uuid = UUID(bytes=one)
        assert (uuid.version, uuid.variant) == (7, "specified in RFC 4122")


@given(st.integers(0, 2**47), st.binary(min_size=10, max_size=10))
def test_an_id_begins_with_its_time(now_ms: int, random: bytes) -> None:
    assert int.from_bytes(IdMint().mint(now_ms, random)[:6], "big") == now_ms


def test_the_largest_random_bits_do_not_break_the_order() -> None:
    mint = IdMint()
    ids = [mint.mint(5, b"\xff" * 10) for _ in range(3)]
    assert ids == sorted(set(ids))
    assert int.from_bytes(ids[1][:6], "big") == 6


def test_too_few_random_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="10 bytes"):
        IdMint().mint(0, b"short")
    with pytest.raises(ValueError, match="32 bytes"):
        data_payload(b"", b"short")


def test_json_is_canonical() -> None:
    assert json_payload({"b": 1, "a": [True, None]}, SALT).data == b'{"a":[true,null],"b":1}'


def test_a_built_command_is_one() -> None:
    signer = Ed25519Signer(bytes(32))
    drafts = [Draft("A", json_payload({}, SALT)), Draft("B", data_payload(b"x", SALT), "text/x")]
    signed = build(
        LedgerId(bytes(32)),
        Author.of(signer),
        "orders/7",
        drafts,
        CommandId(bytes(16)),
        1_700_000_000_000,
        opening=Opening("facts", 1),
    )
    assert decode_signed_command(encode_signed_command(signed)) == signed
    check_payloads(signed)
    assert [one.content_type for one in signed.command.events] == ["application/json", "text/x"]
