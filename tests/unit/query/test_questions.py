"""What strangers may ask is bounded and read strictly."""

from __future__ import annotations

import base64
import contextlib

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nocturne.core.events import Position
from nocturne.core.identifiers import SessionId
from nocturne.query import questions
from nocturne.query.refusals import Refused, failed, not_found, try_again

SESSIONS = st.text("abcXYZ019._:/@-", min_size=1, max_size=128)


@given(SESSIONS)
def test_a_session_token_leads_to_the_session_after(session: str) -> None:
    token = questions.session_token(SessionId(session))
    assert len(token) <= questions.TOKEN_CHARACTERS_MAX
    assert questions.session_after(token, "") == session
    assert questions.session_after(token, session[:3]) == session


@given(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1), st.integers(0, 2**53 - 1))
def test_a_receipt_token_leads_to_the_position_after(epoch: int, partition: int, at: int) -> None:
    position = Position(epoch, partition, at)
    assert questions.receipt_after(questions.receipt_token(position)) == position


def test_the_first_page_needs_no_token() -> None:
    assert questions.session_after("", "a") == ""
    assert questions.receipt_after("") < Position(0, 0, 0)


TEXTS = st.text(max_size=400) | st.binary(max_size=300).map(lambda b: base64.b64encode(b).decode())


@given(TEXTS)
def test_any_text_is_a_token_or_is_refused(token: str) -> None:
    with contextlib.suppress(Refused):
        assert questions.session_after(token, "p/") == "" or token.isascii()
    with contextlib.suppress(Refused):
        questions.receipt_after(token)


@pytest.mark.parametrize("token", ["=", "czE", "c2E=", "c2E\n", "ą", "s" * 257, "cg"])
def test_a_token_of_another_form_is_refused(token: str) -> None:
    with pytest.raises(Refused):
        questions.session_after(token, "p/")
    with pytest.raises(Refused):
        questions.receipt_after(token)


def test_a_token_of_another_prefix_is_refused() -> None:
    token = questions.session_token(SessionId("a/1"))
    with pytest.raises(Refused):
        questions.session_after(token, "b/")


def test_page_sizes_are_bounded() -> None:
    assert questions.page_size_of(0) == questions.PAGE_SIZE
    assert questions.page_size_of(1000) == 1000
    for size in (-1, 1001):
        with pytest.raises(Refused):
            questions.page_size_of(size)


@pytest.mark.parametrize("session", ["", "a b", "x" * 129, "é", "a\x00"])
def test_what_is_no_session_id_is_refused(session: str) -> None:
    with pytest.raises(Refused, match="session_id"):
        questions.session_of(session)


def test_numbers_and_bytes_have_their_range() -> None:
    assert questions.natural("x", 0) == 0
    for number in (-1, 2**53):
        with pytest.raises(Refused):
            questions.natural("x", number)
    with pytest.raises(Refused):
        questions.exactly("command_hash", b"x" * 31, 32)
    with pytest.raises(Refused):
        questions.position_of(-1, 0, 0)


def test_a_refusal_carries_its_detail() -> None:
    refused = not_found("session", "s")
    assert b"google.rpc.ResourceInfo" in refused.status().SerializeToString()
    away = failed(grpc.StatusCode.UNAVAILABLE, "AWAY", "away")
    assert b"google.rpc.ErrorInfo" in away.status().SerializeToString()


def test_where_asking_again_helps_the_refusal_says_so() -> None:
    again = try_again(grpc.StatusCode.UNAVAILABLE, "AWAY", "away")
    value = again.status().SerializeToString()
    assert b"google.rpc.RetryInfo" in value
    assert b"google.rpc.ErrorInfo" in value
