"""The state of a ledger: windows of command ids against a model, leaves, positions, persistence."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger_factory import ALICE, BOB, Ledger, author_id, make_genesis

from nocturne.core import merkle
from nocturne.core.encoding import domain
from nocturne.core.errors import Malformed
from nocturne.core.events import Position
from nocturne.core.genesis import OpenRule
from nocturne.core.identifiers import LEDGER_SESSION, Hash, LedgerId, SessionId, session_key
from nocturne.core.state import IdWindow, LedgerState, new_session
from nocturne.core.state_leaf import (
    LogPosition,
    SessionLeaf,
    decode_positions,
    encode_positions,
    positions_key,
)

reproducible = settings(derandomize=True, deadline=None, max_examples=200, print_blob=True)


# The window of command ids ----------------------------------------------------------------------


def entry_of(number: int) -> tuple[bytes, Hash, Position]:
    identity = number.to_bytes(16, "big")
    return identity, Hash(sha256(identity).digest()), Position(1, number % 7, number * 3)


@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 8))
@reproducible
def test_a_window_keeps_the_largest_ids_and_knows_what_it_let_go(
    numbers: list[int], size: int
) -> None:
    """The model: all ids ever kept; the `size` largest are found, the rest, and all below the
    largest of the rest, are stale.
    """
    window, seen = IdWindow(), set[int]()
    for number in numbers:
        identity, command_hash, position = entry_of(number)
        if window.find(identity) is None and not window.is_stale(identity):
            assert number not in seen
            window = window.keep(identity, command_hash, position, size)
            seen.add(number)
        kept = sorted(seen)[-size:]
        gone = sorted(seen)[:-size]
        assert [one[:16] for one in window.entries] == [entry_of(one)[0] for one in kept]
        for one in range(41):
            found = window.find(entry_of(one)[0])
            assert found == (entry_of(one)[1:] if one in kept else None)
            assert window.is_stale(entry_of(one)[0]) == (bool(gone) and one <= gone[-1])


def test_a_window_digest_is_of_its_floor_and_entries() -> None:
    identity, command_hash, position = entry_of(5)
    window = IdWindow().keep(identity, command_hash, position, 2)
    tag = domain("nocturne/ids/v1")
    entry = identity + command_hash + bytes.fromhex("0000000100000005000000000000000f")
    assert window.entries == (entry,)
    assert window.digest() == sha256(tag + b"\x00" + entry).digest()
    floored = replace(window, floor=bytes(16))
    assert floored.digest() == sha256(tag + b"\x01\x00\x00\x00\x10" + bytes(16) + entry).digest()


def test_the_smallest_and_the_largest_id_are_ids() -> None:
    window = IdWindow()
    for identity in (bytes(16), b"\xff" * 16):
        window = window.keep(identity, Hash(bytes(32)), Position(1, 0, 0), 2)
    assert window.find(bytes(16)) is not None
    assert window.find(b"\xff" * 16) is not None
    assert window.find(b"\xff" * 15 + b"\xfe") is None
    assert not window.is_stale(bytes(16))


# Leaves -----------------------------------------------------------------------------------------

hashes = st.binary(min_size=32, max_size=32).map(Hash)
numbers = st.integers(0, 2**64 - 1)


@given(st.builds(SessionLeaf, numbers, hashes, hashes, numbers, hashes, hashes))
@reproducible
def test_a_session_leaf_is_144_bytes_and_comes_back(leaf: SessionLeaf) -> None:
    data = leaf.encode()
    assert len(data) == 144
    assert SessionLeaf.decode(data) == leaf
    for bad in (data[:-1], data + b"\x00", b""):
        with pytest.raises(Malformed):
            SessionLeaf.decode(bad)


@given(
    st.lists(
        st.builds(
            LogPosition,
            st.integers(0, 2**32 - 1),
            st.integers(0, 2**32 - 1),
            st.binary(min_size=16, max_size=16),
            numbers,
            hashes,
        ),
        max_size=6,
    ).map(tuple)
)
@reproducible
def test_log_positions_come_back(positions: tuple[LogPosition, ...]) -> None:
    data = encode_positions(positions)
    assert len(data) == 64 * len(positions)
    assert decode_positions(data) == positions
    if data:
        with pytest.raises(Malformed):
            decode_positions(data[:-1])


def test_every_part_of_a_session_changes_its_leaf() -> None:
    ledger = Ledger()
    ledger.answer(ledger.opening("s"))
    session = ledger.session("s")
    other = Ledger()
    other.answer(other.opening("b", kind="balances"))
    variants = [
        session,
        replace(session, sequence=2),
        replace(session, head_hash=Hash(bytes(32))),
        replace(session, events=session.events.append(bytes(32))),
        replace(session, receipts=session.receipts.append(bytes(32))),
        replace(session, closed=True),
        replace(session, kind="document"),
        replace(session, kind_version=2),
        replace(session, session=SessionId("s2")),
        replace(session, members=new_session(ledger.ledger_id, SessionId("x"), "", 1).members),
        replace(session, ids=new_session(ledger.ledger_id, SessionId("x"), "", 1).ids),
        replace(session, items=session.items.update({bytes(32): (b"1", b"1")})),
    ]
    assert len({one.leaf().encode() for one in variants}) == len(variants)


# The ledger -------------------------------------------------------------------------------------


def test_a_ledger_is_founded_with_its_own_session_and_nothing_consumed() -> None:
    ledger = Ledger()
    state = LedgerState.founding(ledger.genesis_bytes)
    own = state.session(LEDGER_SESSION)
    assert own is not None
    assert (own.sequence, own.head_hash) == (0, session_key(ledger.ledger_id, LEDGER_SESSION))
    assert own.leaf().events_root == own.leaf().receipts_root == merkle.EMPTY_ROOT
    assert [one.next_offset for one in state.positions] == [0] * 4
    assert {one.topic_uuid for one in state.positions} == {bytes(16)}
    assert state.tree.size == 2
    assert state.tree.value(positions_key(ledger.ledger_id)) == encode_positions(state.positions)
    assert state.session(SessionId("s")) is None


def test_two_ledgers_share_no_key_and_no_root() -> None:
    one, other = Ledger(), Ledger(make_genesis(nonce=1))
    assert one.ledger_id != other.ledger_id
    assert one.state.root_hash != other.state.root_hash
    name = SessionId("s")
    assert session_key(one.ledger_id, name) != session_key(other.ledger_id, name)
    assert positions_key(one.ledger_id) != positions_key(LedgerId(bytes(32)))


def test_a_state_is_a_value_that_later_blocks_leave_as_it_was() -> None:
    ledger = Ledger()
    states = [ledger.state]
    for number in range(1, 6):
        ledger.answer((ledger.opening if number == 1 else ledger.command)("s", number=number))
        states.append(ledger.state)
    roots = [state.root_hash for state in states]
    assert len(set(roots)) == 6
    for number, state in enumerate(states[1:], start=1):
        session = state.session(SessionId("s"))
        assert session is not None
        assert session.sequence == number
        assert state.root_hash == ledger.blocks[number - 1].header.state_root


@pytest.mark.parametrize(
    "rule, permitted",
    [
        (OpenRule(None, "", ""), True),
        (OpenRule(author_id(ALICE), "facts", "a/"), True),
        (OpenRule(author_id(BOB), "facts", "a/"), False),
        (OpenRule(None, "document", ""), False),
        (OpenRule(None, "", "b"), False),
        (OpenRule(None, "", "a/session/x"), False),
    ],
)
def test_a_rule_admits_its_author_kind_and_prefix(rule: OpenRule, permitted: bool) -> None:
    view = replace(Ledger().state.view, open_policy=(rule,))
    assert view.may_open(author_id(ALICE), "facts", SessionId("a/session")) is permitted
    assert not replace(view, open_policy=()).may_open(
        author_id(ALICE), "facts", SessionId("a/session")
    )
