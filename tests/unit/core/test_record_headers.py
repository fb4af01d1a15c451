"""Headers of a record, read back from a block."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nocturne.core.blocks import headers_bytes
from nocturne.core.errors import Malformed
from nocturne.core.record_headers import parse_headers, traceparent_of

HEADERS = st.lists(
    st.tuples(st.text(st.characters(codec="utf-8"), max_size=8), st.none() | st.binary(max_size=8)),
    max_size=4,
).map(tuple)


@given(HEADERS)
def test_what_is_printed_is_parsed(headers: tuple[tuple[str, bytes | None], ...]) -> None:
    assert parse_headers(headers_bytes(headers)) == headers


@given(HEADERS, st.data())
def test_cut_or_continued_bytes_are_malformed(
    headers: tuple[tuple[str, bytes | None], ...], data: st.DataObject
) -> None:
    printed = headers_bytes(headers)
    end = data.draw(st.integers(0, len(printed) - 1))
    for other in (printed[:end], printed + b"\x00"):
        with pytest.raises(Malformed):
            parse_headers(other)


@given(st.binary(max_size=40))
def test_whatever_parses_is_what_is_printed(data: bytes) -> None:
    try:
        headers = parse_headers(data)
    except Malformed:
        return
    assert headers_bytes(headers) == data


TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_the_first_trace_is_found_without_reading_the_other_headers() -> None:
    other = TRACE.replace(b"4", b"5")
    headers = (("x", None), ("traceparent", TRACE), ("traceparent", other))
    assert traceparent_of(headers_bytes(headers)) == TRACE


@pytest.mark.parametrize(
    "headers",
    [(), (("traceparent", None),), (("traceparent", b"short"),), (("Traceparent", TRACE),)],
)
def test_headers_without_a_trace_have_none(headers: tuple[tuple[str, bytes | None], ...]) -> None:
    assert traceparent_of(headers_bytes(headers)) is None
