"""The file that says which key signs: printed and read back, replaced as a whole."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nocturne.cli.author_state import (
    ONE_KEY,
    ROTATIONS_MAX,
    AuthorState,
    parse_state,
    print_state,
    read_state,
    write_state,
)
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import CommandId
from nocturne.runtime.keys import KeyFileFault

STATES = st.builds(
    AuthorState,
    st.integers(1, ROTATIONS_MAX),
    st.none() | st.binary(min_size=16, max_size=16).map(CommandId),
    st.booleans(),
)


@given(STATES)
def test_what_is_printed_reads_back(state: AuthorState) -> None:
    assert parse_state(print_state(state)) == state


@given(st.binary(max_size=200) | STATES.map(print_state).flatmap(lambda good: st.just(good + b" ")))
def test_whatever_it_would_not_print_is_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_state(data)


@pytest.mark.parametrize(
    "data",
    [
        b'{"current":0,"next":null,"revoked":false}',
        b'{"current":true,"next":null,"revoked":false}',
        b'{"current":10001,"next":null,"revoked":false}',
        b'{"current":1,"next":{},"revoked":false}',
        b'{"current":1,"next":null,"revoked":false,"x":1}',
        b'{"current":1,"next":null,"revoked":false}' + b" " * 2000,
    ],
)
def test_numbers_and_forms_out_of_bounds_are_refused(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_state(data)


def test_an_author_without_the_file_has_one_key(tmp_path: Path) -> None:
    assert read_state(tmp_path / "state.json") == ONE_KEY


def test_a_state_is_replaced_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    write_state(file, AuthorState(2))
    # What a crash left of a write that never ended is of no consequence.
    (tmp_path / "state.json.new").write_bytes(b'{"curr')
    assert read_state(file) == AuthorState(2)
    write_state(file, AuthorState(3, CommandId(bytes(16))))
    assert read_state(file) == AuthorState(3, CommandId(bytes(16)))


def test_a_broken_state_names_the_file_and_the_way_out(tmp_path: Path) -> None:
    file = tmp_path / "state.json"
    file.write_bytes(b"{}")
    with pytest.raises(KeyFileFault, match=r"state\.json: .*restore it"):
        read_state(file)
