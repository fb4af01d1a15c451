"""Admission: what is a command, decided cheaply and never otherwise than the core decides it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nocturne.command import admission
from nocturne.command.admission import admit
from nocturne.core.commands import (
    Command,
    EventDraft,
    Opening,
    Payload,
    SignedCommand,
    decode_signed_command,
    encode_signed_command,
    payload_hash,
    sign_command,
)
from nocturne.core.encoding import TIME_MAX
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import AuthorId, CommandId, LedgerId, SessionId
from nocturne.core.keys import Ed25519Signer, key_id

RECORD_BYTES_MAX = 1024 * 1024
SIGNER = Ed25519Signer(bytes(32))


def signed(
    session: str = "orders/7",
    expected: int | None = None,
    opening: Opening | None = None,
    occurred_at: int = 1_700_000_000_000,
    payloads: tuple[bytes, ...] = (b'{"a":1}',),
    event_type: str = "OrderPlaced",
    content_type: str = "application/json",
) -> SignedCommand:
    carried = tuple(Payload(bytes(32), data) for data in payloads)
    command = Command(
        LedgerId(bytes(32)),
        SessionId(session),
        AuthorId(key_id(SIGNER.key)),
        SIGNER.key,
        CommandId(bytes(range(16))),
        expected,
        opening,
        occurred_at,
        tuple(EventDraft(event_type, content_type, payload_hash(one)) for one in carried),
    )
    return sign_command(command, carried, SIGNER)


SESSIONS = st.text("abcXYZ019._:/@-", min_size=1, max_size=128)
NAMES = st.text("abcXYZ019._:/-", min_size=1, max_size=128)
COMMANDS = st.builds(
    signed,
    session=SESSIONS,
    expected=st.none(),
    opening=st.none() | st.builds(Opening, NAMES, st.integers(1, 2**31 - 1)),
    occurred_at=st.integers(0, TIME_MAX),
    payloads=st.lists(st.binary(max_size=300), min_size=1, max_size=4).map(tuple),
    event_type=NAMES,
    content_type=NAMES,
) | st.builds(signed, session=SESSIONS, expected=st.none() | st.integers(0, 2**53 - 2))


@settings(deadline=None)
@given(COMMANDS)
def test_a_command_is_admitted_with_its_session_id_and_hash(command: SignedCommand) -> None:
    admitted = admit(encode_signed_command(command), RECORD_BYTES_MAX)
    assert admitted.session == command.command.session.encode()
    assert admitted.command_id == command.command.command_id
    assert admitted.command_hash == command.command_hash


@settings(deadline=None)
@given(COMMANDS)
def test_the_common_shape_takes_the_short_way(command: SignedCommand) -> None:
    assert admission._scan(encode_signed_command(command)) is not None


@settings(max_examples=500, deadline=None)
@given(COMMANDS, st.data())
def test_a_damaged_command_is_admitted_exactly_when_the_core_decodes_it(
    command: SignedCommand, data: st.DataObject
) -> None:
    damaged = bytearray(encode_signed_command(command))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        match data.draw(st.sampled_from(["change", "insert", "remove", "cut"])):
            case "change":
                damaged[at] = data.draw(st.integers(0, 255))
            case "insert":
                damaged.insert(at, data.draw(st.integers(0, 255)))
            case "remove":
                del damaged[at]
            case "cut":
                del damaged[max(9, at) :]
    found = outcome_of(lambda: admit(bytes(damaged), RECORD_BYTES_MAX).command_hash)
    expected = outcome_of(lambda: decode_signed_command(bytes(damaged)).command_hash)
    assert found == expected


def outcome_of(call: Callable[[], bytes]) -> bytes | str:
    try:
        return call()
    except Malformed as fault:
        return str(fault)


def test_every_single_changed_byte_is_judged_as_the_core_does() -> None:
    whole = encode_signed_command(signed(opening=Opening("facts", 1), expected=0))
    for at in range(len(whole)):
        for value in (0, 1, 2, 3, 0x7F, 0x80, 0xFF, whole[at] ^ 1):
            damaged = whole[:at] + bytes((value,)) + whole[at + 1 :]
            found = outcome_of(lambda data=damaged: admit(data, RECORD_BYTES_MAX).command_hash)  # type: ignore[misc]
            expected = outcome_of(lambda data=damaged: decode_signed_command(data).command_hash)  # type: ignore[misc]
            assert found == expected, (at, value)


def test_a_record_over_the_limit_is_no_command_and_one_at_the_limit_is() -> None:
    data = encode_signed_command(signed())
    assert admit(data, len(data) + 5).session == b"orders/7"
    with pytest.raises(Malformed, match="at most"):
        admit(data, len(data) + 4)


def test_the_cache_of_names_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "_DRAFTS_KNOWN_MAX", 4)
    for number in range(20):
        admit(encode_signed_command(signed(event_type=f"Type{number}")), RECORD_BYTES_MAX)
        assert len(admission._drafts_known) <= 4
