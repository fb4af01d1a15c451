"""The guard: never two things for one place."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.signing.chains import Source

from nocturne.core.block_intake import CheckedBlock
from nocturne.core.errors import Halt
from nocturne.core.events import decode_event_header
from nocturne.core.identifiers import Hash, SessionId
from nocturne.signing.guard import (
    Head,
    check_next,
    event_id_of,
    heads_after,
    is_signed,
    session_of,
    sessions_of,
)

ONE, OTHER = Hash(b"1" * 32), Hash(b"2" * 32)
Heads = dict[SessionId, Head]


def after(source: Source, checked: CheckedBlock, heads: Heads) -> Heads:
    hashes = [one.events for one in checked.dispositions]
    return heads_after(source.ledger.ledger_id, checked.block, hashes, heads)


def test_a_height_is_signed_for_one_block_only() -> None:
    assert not is_signed(5, ONE, None)
    assert is_signed(5, ONE, ONE)
    with pytest.raises(Halt, match="block 5: this authority signed"):
        is_signed(5, OTHER, ONE)


def test_heights_are_signed_without_a_hole() -> None:
    check_next(4, 5)
    for last in (3, 5, 6):
        with pytest.raises(Halt):
            check_next(last, 5)


def test_heads_follow_the_events_of_a_chain() -> None:
    source = Source()
    heads: Heads = {}
    for sessions in ("ab", "a", "aab", "c"):
        checked = source.block(*sessions)
        assert sessions_of(checked.block) == set(sessions)
        heads.update(after(source, checked, heads))
    assert {name: head.sequence for name, head in heads.items()} == {"a": 4, "b": 2, "c": 1}
    for name, head in heads.items():
        state = source.ledger.chain.state.session(name)
        assert state is not None
        assert (state.sequence, state.head_hash) == (head.sequence, head.hash)


def test_a_command_of_several_events_moves_the_head_by_as_many() -> None:
    source = Source()
    source.ledger.log(*source.ledger.record("a", events=3))
    assert after(source, source.checked(), {})[SessionId("a")].sequence == 3


@pytest.mark.parametrize("head", [Head(1, ONE), Head(0, ONE), Head(7, ONE)])
def test_an_event_that_does_not_link_to_the_head_is_a_halt(head: Head) -> None:
    source = Source()
    source.block("a")
    second = source.block("a")
    with pytest.raises(Halt, match="session a: expected event"):
        after(source, second, {SessionId("a"): head})


@pytest.mark.parametrize("sequence", [0, 2, 63, 64])
def test_an_event_that_links_to_the_head_and_has_another_sequence_is_a_halt(sequence: int) -> None:
    source = Source()
    head = after(source, source.block("a"), {})[SessionId("a")]
    second = source.block("a")
    with pytest.raises(Halt, match=f"session a: expected event {sequence + 1} after"):
        after(source, second, {SessionId("a"): Head(sequence, head.hash)})


def test_an_event_after_a_forgotten_one_is_a_halt() -> None:
    source = Source()
    source.block("a")
    with pytest.raises(Halt, match="expected event 1"):
        after(source, source.block("a"), {})


def test_the_same_event_twice_is_a_halt() -> None:
    source = Source()
    checked = source.block("a")
    heads = after(source, checked, {})
    with pytest.raises(Halt, match="expected event 2"):
        after(source, checked, heads)
    doubled = replace(checked.block, records=checked.block.records * 2)
    hashes = [one.events for one in checked.dispositions] * 2
    with pytest.raises(Halt, match="expected event 2"):
        heads_after(source.ledger.ledger_id, doubled, hashes, {})


@given(
    st.text("abcXYZ019._:/@-", min_size=1, max_size=128),
    st.integers(0, 3),
)
@settings(max_examples=40, deadline=None)
def test_fields_are_sliced_as_they_are_decoded(session: str, events_before: int) -> None:
    source = Source()
    for _ in range(events_before + 1):
        checked = source.block(session)
    (header_bytes,) = checked.block.records[0].events
    header = decode_event_header(header_bytes)
    assert session_of(header_bytes) == header.session == session
    assert event_id_of(header_bytes) == header.event_id


def test_long_sequences_are_numbers_of_several_bytes() -> None:
    source = Source()
    for _ in range(30):
        source.ledger.log(*source.ledger.record("a", events=100))
    heads: Heads = {}
    while source.ledger.gathering.has_offsets:
        checked = source.checked()
        heads.update(after(source, checked, heads))
        header_bytes = checked.block.records[-1].events[-1]
        assert event_id_of(header_bytes) == decode_event_header(header_bytes).event_id
    assert heads[SessionId("a")].sequence == 3_000
