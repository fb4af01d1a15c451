"""A folded block says what executing its log again says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger_factory import record_value
from tests.unit.projection.chains import Chain, every_outcome
from tests.unit.projection.topics_in_memory import Message, Reader, first_tree, tree_after

from nocturne.core import topics
from nocturne.core.block_intake import BlockIntake, CheckedBlock
from nocturne.core.blocks import StateChange
from nocturne.core.errors import Malformed
from nocturne.core.events import EventHeader, Position, encode_event_header
from nocturne.core.identifiers import AuthorId, EventId, Hash, LedgerId, SessionId
from nocturne.core.keys import PublicKey
from nocturne.core.receipts import Head, Reason, ReceiptHeader
from nocturne.core.state import LedgerState
from nocturne.projection.fold import FirstState, FoldedBlock, fold_block, home_of, place_of


def checked_blocks(made: Chain) -> list[CheckedBlock]:
    ledger = made.ledger
    intake = BlockIntake(ledger.ledger_id, ledger.genesis.founding_sets, 1, Hash(ledger.ledger_id))
    return [one for block, _ in made.published for one in intake.offer(record_value(block))]


def folded_blocks(made: Chain) -> list[FoldedBlock]:
    first_state = FirstState.of(made.ledger.genesis_bytes)
    tree = first_tree(first_state)
    folded = []
    for checked in checked_blocks(made):
        one, tree = fold_block(made.ledger.ledger_id, tree, checked)
        folded.append(one)
    assert tree.root_hash == made.ledger.state.root_hash
    return folded


def test_founding_names_every_leaf_of_the_first_state() -> None:
    made = Chain()
    first_state = FirstState.of(made.ledger.genesis_bytes)
    first = LedgerState.founding(made.ledger.genesis_bytes)
    assert first_tree(first_state).root_hash == first.root_hash
    assert first_tree(first_state).size == tree_after(first).size == 2


def test_events_and_heads_are_those_of_the_fold() -> None:
    made = every_outcome()
    heads: dict[str, tuple[int, bytes]] = {}
    for folded in folded_blocks(made):
        for event in folded.events:
            assert event.sequence == heads.get(event.session, (0, b""))[0] + 1
            heads[event.session] = (event.sequence, event.event_hash)
    for session, head in heads.items():
        state = made.ledger.state.session(SessionId(session))
        assert state is not None
        assert head == (state.sequence, state.head_hash)


def test_a_receipt_is_counted_in_the_session_whose_root_holds_it() -> None:
    made = every_outcome()
    counts: dict[str, int] = {}
    for folded in folded_blocks(made):
        for receipt in folded.receipts:
            assert receipt.home_index == counts.get(receipt.home, 0)
            counts[receipt.home] = receipt.home_index + 1
    for session, count in counts.items():
        state = made.ledger.state.session(SessionId(session))
        assert state is not None
        assert count == state.receipts.size


def test_openings_and_closings_are_seen() -> None:
    made = every_outcome()
    opened: dict[str, tuple[str, int]] = {}
    closed = set()
    for folded in folded_blocks(made):
        for change in folded.sessions:
            if change.opened is not None:
                opened[change.session] = change.opened
            if change.closed:
                closed.add(change.session)
    assert opened == {"orders/1": ("document", 1), "readings": ("facts", 1)}
    assert closed == {"readings"}


def test_the_words_of_a_closing_close_nothing_by_themselves() -> None:
    made = Chain()
    ledger = made.ledger
    ledger.append(ledger.opening("nocturne.SessionClosed", number=1))
    made.commit()
    (folded,) = folded_blocks(made)
    assert [change.closed for change in folded.sessions] == [False]


@pytest.mark.parametrize(
    "alter",
    [
        lambda changes: changes[1:],
        lambda changes: (*changes, StateChange(Hash(bytes(32)), b"x")),
        lambda changes: (*changes, changes[0]),
        lambda changes: (replace(changes[0], value=bytes(144)), *changes[1:]),
        lambda changes: (replace(changes[0], value=None), *changes[1:]),
    ],
    ids=["fewer", "more", "twice", "another", "removed"],
)
def test_state_changes_that_do_not_make_the_certified_root_are_refused(alter) -> None:  # type: ignore[no-untyped-def]
    made = every_outcome()
    checked = checked_blocks(made)[0]
    tree = first_tree(FirstState.of(made.ledger.genesis_bytes))
    altered = replace(
        checked, block=replace(checked.block, state_changes=alter(checked.block.state_changes))
    )
    with pytest.raises(Malformed, match="state"):
        fold_block(made.ledger.ledger_id, tree, altered)
    fold_block(made.ledger.ledger_id, tree, checked)


def test_a_false_copy_does_not_keep_the_true_block_out() -> None:
    made = every_outcome()
    block = made.published[0][0]
    reader = Reader(made)
    altered = replace(block, state_changes=())
    reader.read(Message(topics.BLOCKS, 0, record_value(altered), 0))
    assert reader.chain.height == 0
    reader.read(Message(topics.BLOCKS, 0, record_value(block), 1))
    assert reader.chain.height == 1
    reader.read(Message(topics.BLOCKS, 0, record_value(altered), 2))
    reader.read(Message(topics.BLOCKS, 0, record_value(block), 3))
    reader.take()
    assert [one.offset for one in reader.refusals] == [0, 2]


def test_a_receipt_of_an_open_session_and_a_known_author_stays_there() -> None:
    header = ReceiptHeader(
        LedgerId(bytes(32)),
        Hash(bytes(32)),
        Reason.DUPLICATE_SEQ,
        "S1",
        "orders",
        1,
        False,
        Head(1, Hash(bytes(32))),
        Position(1, 0, 0),
        None,
    )
    assert home_of(header) == "orders"
    assert home_of(replace(header, head=None)) == "~ledger"
    assert home_of(replace(header, claimed=True, head=None)) == "~ledger"


@settings(max_examples=300, deadline=None)
@given(
    st.text("abcXYZ019._:/@-", min_size=1, max_size=128),
    st.integers(1, 2**53 - 1),
    st.binary(min_size=16, max_size=16),
)
def test_a_place_is_read_where_the_encoder_put_it(
    session: str, sequence: int, event_id: bytes
) -> None:
    header = EventHeader(
        LedgerId(b"\x80" * 32),
        SessionId(session),
        sequence,
        Hash(b"\xff" * 32),
        EventId(event_id),
        Hash(bytes(32)),
        Position(1, 2, 3),
        0,
        AuthorId(bytes(32)),
        (PublicKey(1, bytes(32)),),
        "Type",
        "text/plain",
        Hash(bytes(32)),
        5,
        None,
    )
    assert place_of(encode_event_header(header)) == (session, sequence, event_id)
