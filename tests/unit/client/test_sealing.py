"""Drafts are sealed before they are signed; readers open what they have the key of."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests import ledger_factory
from tests.unit.cli.memory_ledger import MemoryLedger

from nocturne.client.building import Author, Draft, build, data_payload, json_payload
from nocturne.client.folding import Folded, Folding
from nocturne.client.results import Committed, Level
from nocturne.client.sealing import (
    Closed,
    KeyRing,
    Opened,
    SubjectKey,
    SubjectKeys,
    TooLarge,
    Why,
    check_sealed_size,
    make_subject_key,
    payload_of,
    sealed_draft,
)
from nocturne.core.commands import SEALED_CONTENT_TYPE, Opening
from nocturne.core.events import Event
from nocturne.core.genesis import Limits
from nocturne.core.identifiers import CommandId
from nocturne.core.kinds import builtin_kinds

ALICE = Author.of(ledger_factory.ALICE)
KEY = make_subject_key(bytes(range(48)))
OTHER = make_subject_key(bytes(range(1, 49)))
NONCE = bytes(range(24))
SALT = bytes(32)
SECRET = Draft("Told", json_payload({"name": "Ada"}, SALT))
DOCUMENT = builtin_kinds()["document"]


def events_of(*drafts: Draft) -> list[Event]:
    """One session's events with these payloads."""
    ledger = MemoryLedger()
    for number, draft in enumerate(drafts):
        opening = Opening("document", 1) if number == 0 else None
        identity = CommandId(number.to_bytes(16, "big"))
        signed = build(ledger.ledger_id, ALICE, "s", [draft], identity, 0, opening=opening)
        assert isinstance(asyncio.run(ledger.submit(signed, Level.SIGNED, 1)), Committed)
    return ledger.events_of["s"]


def folded(events: Sequence[Event], keys: SubjectKeys) -> Folded:
    folding = Folding(DOCUMENT, keys)
    for event in events:
        folding.take(event)
    return folding.folded


@given(st.binary(max_size=200), st.binary(min_size=48, max_size=48))
def test_what_is_sealed_before_signing_opens_with_the_key_and_only_with_it(
    data: bytes, random: bytes
) -> None:
    key = make_subject_key(random)
    draft = Draft("A", data_payload(data, SALT), "text/x")
    sealed = sealed_draft(draft, key, NONCE)
    assert (sealed.event_type, sealed.content_type) == ("A", SEALED_CONTENT_TYPE)
    (event,) = events_of(sealed)
    assert payload_of(event, KeyRing([KEY, key])) == Opened("text/x", data, key.id)
    assert payload_of(event, KeyRing([KEY])) == Closed(Why.SEALED, key.id)


def test_a_plain_payload_needs_no_key() -> None:
    (event,) = events_of(SECRET)
    assert payload_of(event, KeyRing()) == Opened("application/json", b'{"name":"Ada"}', None)


def test_another_key_under_the_same_id_neither_opens_nor_hides_the_right_one() -> None:
    (event,) = events_of(sealed_draft(SECRET, KEY, NONCE))
    false = SubjectKey(KEY.id, OTHER.key)
    assert payload_of(event, KeyRing([false])) == Closed(Why.SEALED, KEY.id)
    assert isinstance(payload_of(event, KeyRing([false, KEY])), Opened)


def test_what_only_claims_to_be_sealed_is_called_broken() -> None:
    (event,) = events_of(Draft("A", data_payload(b"{}", SALT), SEALED_CONTENT_TYPE))
    assert payload_of(event, KeyRing([KEY])) == Closed(Why.BROKEN, None)


def test_who_has_the_key_folds_what_others_skip() -> None:
    events = events_of(SECRET, sealed_draft(Draft("B", json_payload({"b": 2}, SALT)), KEY, NONCE))
    with_key = folded(events, KeyRing([KEY]))
    without = folded(events, KeyRing())
    assert with_key.value == {"document": {"name": "Ada", "b": 2}, "skipped": 0}
    assert (with_key.unsealed, with_key.sealed) == (1, 0)
    assert without.value == {"document": {"name": "Ada"}, "skipped": 1}
    assert (without.unsealed, without.sealed) == (0, 1)
    assert with_key.head_hash == without.head_hash == events[-1].event_hash


def test_too_large_once_sealed_says_both_sizes() -> None:
    limits = Limits()
    for size, fits in ((limits.command_bytes_max - 2_000, True), (limits.command_bytes_max, False)):
        draft = sealed_draft(Draft("A", data_payload(bytes(size), SALT)), KEY, NONCE)
        signed = build(MemoryLedger().ledger_id, ALICE, "s", [draft], CommandId(bytes(16)), 0)
        if fits:
            check_sealed_size(signed, limits)
        else:
            with pytest.raises(TooLarge, match=f"takes {limits.command_bytes_max}"):
                check_sealed_size(signed, limits)


def test_a_subject_key_shows_nothing_of_itself_and_has_its_lengths() -> None:
    assert KEY.key.hex() not in repr(KEY)
    assert repr(KEY.key) not in repr(KEY)
    with pytest.raises(ValueError, match="16 bytes"):
        SubjectKey(b"", KEY.key)
    with pytest.raises(ValueError, match="48 bytes"):
        make_subject_key(b"short")
