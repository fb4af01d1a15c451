"""W3C trace context: what is valid is carried as it is, what is not is replaced."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nocturne.runtime.tracing import make_traceparent, parse_traceparent

VALID = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_valid_traceparent_is_taken_as_it_is() -> None:
    assert parse_traceparent(VALID) == VALID.encode()
    assert parse_traceparent(VALID.encode()) == VALID.encode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        VALID[:-1],
        VALID + "0",
        VALID + "\n",
        VALID.upper(),
        "01" + VALID[2:],
        "ff" + VALID[2:],
        "00-" + "0" * 32 + VALID[35:],
        VALID[:36] + "0" * 16 + VALID[52:],
        VALID.replace("-", "_"),
        "ü" * 55,
    ],
)
def test_anything_else_is_none(text: str) -> None:
    assert parse_traceparent(text) is None


def test_none_is_none() -> None:
    assert parse_traceparent(None) is None


@given(st.binary(min_size=24, max_size=24))
def test_what_is_made_is_valid(random: bytes) -> None:
    assert parse_traceparent(make_traceparent(random)) is not None


def test_the_random_bytes_are_counted() -> None:
    with pytest.raises(ValueError, match="24"):
        make_traceparent(b"few")
