"""Names as session ids: reversible, and never one for two."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nocturne.core.errors import Malformed
from nocturne.core.identifiers import is_session_id
from nocturne.imports import names

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)


@given(NAMES, st.booleans())
def test_a_name_is_read_back_from_its_session_id(name: str, is_part: bool) -> None:
    assert names.unescaped(names.escaped(name, is_part=is_part)) == name
    assert is_session_id("x/" + names.cut(names.escaped(name), 100))


def test_a_part_has_no_slash_and_a_plain_name_stays_as_it_is() -> None:
    assert names.escaped("Case 4/a") == "Case@204@2fa"
    assert names.escaped("orders/17", is_part=False) == "orders/17"
    assert names.escaped("case-10011:A_b.c") == "case-10011:A_b.c"
    assert names.escaped("a@b") == "a@40b"


@given(st.lists(st.text(max_size=400), min_size=2, max_size=2, unique=True))
def test_two_names_are_two_sessions_also_when_they_are_cut(pair: list[str]) -> None:
    one, other = (names.escaped(name.encode("utf-8", "replace").decode()) for name in pair)
    if one != other:
        assert names.session_of("p/", one) != names.session_of("p/", other)


def test_a_cut_name_carries_its_hash_and_no_half_escape() -> None:
    long = names.escaped("é" * 200)
    session = names.session_of("x/", long)
    assert len(session) <= 128
    assert session.startswith("x/@c3@a9")
    kept, mark, digits = session.rpartition("@-")
    assert mark
    assert len(digits) == 16
    assert names.unescaped(kept.removeprefix("x/").replace("@c3@a9", "e")) is not None


def test_no_name_is_read_as_a_number_in_its_place() -> None:
    with pytest.raises(Malformed):
        names.unescaped(names.numbered(7))


@pytest.mark.parametrize("text", ["@", "@4", "@4G", "@2F", "a b", "~", "é", "x" * 10**6])
def test_what_no_import_wrote_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        names.unescaped(text)


@pytest.mark.parametrize("text, holds", [("", True), ("a/", True), ("a b", False), ("~", False)])
def test_a_prefix_is_what_a_session_id_may_begin_with(text: str, holds: bool) -> None:
    assert names.is_prefix(text) is holds
    assert not names.is_prefix("x" * 101)


def test_the_longest_prefix_leaves_room() -> None:
    prefix = names.prefix_of("xes", "a b" * 100)
    assert names.is_prefix(prefix)
    assert len(names.session_of(prefix, names.escaped("é" * 100))) <= 128
