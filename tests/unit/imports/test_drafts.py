"""Commands of imports: the same source asks with the same bytes, and its ids rise."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from tests import ledger_factory

from nocturne.client.building import Author
from nocturne.core.commands import (
    Opening,
    author_signed,
    check_payloads,
    decode_signed_command,
    encode_signed_command,
)
from nocturne.core.genesis import Limits
from nocturne.core.identifiers import LedgerId, SessionId
from nocturne.imports.drafts import (
    ATTEMPTS_END,
    NUMBERS_END,
    Draft,
    attempt_of,
    command_id,
    command_of,
    payload_bytes_max,
)

ALICE = Author.of(ledger_factory.ALICE)
BOB = Author.of(ledger_factory.BOB)
LEDGER = LedgerId(bytes(32))
OTHER_LEDGER = LedgerId(b"x" * 32)
SESSION = SessionId("s" * 128)
OPENING = Opening("k" * 128, 2**31 - 1)
DRAFT = Draft(1, bytes(range(20)), "t" * 128, "c/" + "c" * 126, b"{}", 1_700_000_000_000)


def test_a_command_is_a_function_of_draft_place_and_key() -> None:
    first = command_of(DRAFT, LEDGER, SESSION, OPENING, ALICE)
    assert command_of(DRAFT, LEDGER, SESSION, OPENING, ALICE) == first
    assert author_signed(first, ALICE.signer.key)
    check_payloads(first)
    assert decode_signed_command(encode_signed_command(first)) == first


def test_the_first_opens_and_every_one_expects_the_one_before() -> None:
    first = command_of(DRAFT, LEDGER, SESSION, OPENING, ALICE).command
    third = command_of(replace(DRAFT, number=3), LEDGER, SESSION, OPENING, ALICE).command
    assert (first.opening, first.expected_sequence) == (OPENING, 0)
    assert (third.opening, third.expected_sequence) == (None, 2)
    assert third.occurred_at == DRAFT.occurred_at


def test_salts_differ_by_author_ledger_session_and_draft() -> None:
    commands = [
        command_of(DRAFT, LEDGER, SESSION, OPENING, ALICE),
        command_of(DRAFT, LEDGER, SESSION, OPENING, BOB),
        command_of(DRAFT, OTHER_LEDGER, SESSION, OPENING, ALICE),
        command_of(DRAFT, LEDGER, SessionId("other"), OPENING, ALICE),
        command_of(replace(DRAFT, number=2), LEDGER, SESSION, OPENING, ALICE),
        command_of(replace(DRAFT, payload=b"[]"), LEDGER, SESSION, OPENING, ALICE),
        command_of(DRAFT, LEDGER, SESSION, OPENING, ALICE, attempt=1),
    ]
    assert len({one.payloads[0].salt for one in commands}) == len(commands)


NUMBERS = st.integers(1, NUMBERS_END - 2)


@given(NUMBERS, st.integers(0, ATTEMPTS_END - 1), st.binary(min_size=8), st.binary(min_size=8))
def test_ids_rise_with_the_number_within_an_attempt(
    number: int, attempt: int, source: bytes, other: bytes
) -> None:
    draft = replace(DRAFT, number=number, source=source)
    later = replace(DRAFT, number=number + 1, source=other)
    assert command_id(draft, attempt) < command_id(later, attempt)
    assert attempt_of(command_id(draft, attempt)) == attempt


@given(NUMBERS, NUMBERS, st.integers(0, ATTEMPTS_END - 2), st.binary(min_size=8))
def test_every_id_of_an_attempt_is_above_every_one_of_the_attempt_before(
    number: int, refused: int, attempt: int, source: bytes
) -> None:
    draft = replace(DRAFT, number=number, source=source)
    behind = replace(DRAFT, number=refused, source=source)
    assert command_id(behind, attempt) < command_id(draft, attempt + 1)


def test_the_largest_payload_fits_a_command() -> None:
    limits = Limits(command_bytes_max=2048)
    draft = replace(DRAFT, payload=b"x" * payload_bytes_max(limits))
    signed = command_of(draft, LEDGER, SESSION, OPENING, ALICE)
    assert len(encode_signed_command(signed)) + 5 <= limits.command_bytes_max
