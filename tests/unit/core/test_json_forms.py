"""JSON forms: payloads, times and signatures have one text each, and it is read back."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.core import shapes

from nocturne.core.encoding import TIME_MAX
from nocturne.core.errors import Malformed
from nocturne.core.json_fields import Fields, difference, format_time, parse_time
from nocturne.core.json_forms import payload_from, payload_json
from nocturne.core.strict_json import canonical_json

reproducible = settings(derandomize=True, deadline=None, max_examples=200)
SALT = base64.b64encode(bytes(32)).decode()

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: abs(x) < 2**53)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def carried(content_type: str, data: bytes) -> bytes:
    """Through its JSON form and back."""
    fields = Fields.of({**payload_json(content_type, data), "salt": SALT}, "event")
    return payload_from(fields).data


@given(json_values)
@reproducible
def test_any_json_payload_stands_as_json_and_comes_back(value: Any) -> None:
    data = canonical_json(value)
    assert "payload" in payload_json("application/json", data)
    assert carried("application/json", data) == data


@given(st.binary(max_size=60), shapes.content_types)
@reproducible
def test_any_bytes_come_back(data: bytes, content_type: str) -> None:
    assert carried(content_type, data) == data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" {}",
        b'{"b":1,"a":2}',
        b'{"a":1,"a":1}',
        b"1.0",
        b"-0",
        b"1e400",
        b"9007199254740992",
        b"100000000000000000000",
        b"NaN",
        b'"\\u0041"',
        b'"\\ud800"',
        b'"\xed\xa0\x80"',
        b"\xef\xbb\xbf{}",
        b"{}\n",
        b"[" * 65 + b"]" * 65,
        b"[" * 100_000,
    ],
)
def test_json_in_another_form_than_its_canonical_one_stands_as_bytes(data: bytes) -> None:
    form = payload_json("application/json", data)
    assert form == {"payloadBase64": base64.b64encode(data).decode()}
    assert carried("application/json", data) == data


@pytest.mark.parametrize("data", [b"1e+21", b"1e-7", b"5e-324", b"0.1", b"[" * 64 + b"]" * 64])
def test_numbers_and_depth_up_to_the_bounds_stand_as_json(data: bytes) -> None:
    assert "payload" in payload_json("application/json", data)
    assert carried("application/json", data) == data


def test_only_json_content_types_stand_as_json() -> None:
    for content_type in ("application/json", "application/merge-patch+json", "a+json"):
        assert payload_json(content_type, b"{}") == {"payload": {}}
    for content_type in ("text/plain", "application/json; charset=utf-8", "application/jsonl"):
        assert payload_json(content_type, b"{}") == {"payloadBase64": "e30="}


# Times -------------------------------------------------------------------------------------------


@given(shapes.times)
@reproducible
def test_times_are_read_back(ms: int) -> None:
    assert parse_time(format_time(ms)) == ms


def test_times_print_as_rfc_3339() -> None:
    assert format_time(0) == "1970-01-01T00:00:00.000Z"
    assert format_time(1_700_000_000_007) == "2023-11-14T22:13:20.007Z"
    assert format_time(TIME_MAX) == "9999-12-31T23:59:59.999Z"
    for bad in (-1, TIME_MAX + 1):
        with pytest.raises(Malformed):
            format_time(bad)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2023-11-14T22:13:20Z",
        "2023-11-14T22:13:20.0000Z",
        "2023-11-14T22:13:20.000z",
        "2023-11-14 22:13:20.000Z",
        "2023-11-14T22:13:20.000+00:00",
        "2023-02-29T00:00:00.000Z",
        "2023-13-01T00:00:00.000Z",
        "2023-11-14T24:00:00.000Z",
        "2023-11-14T22:13:60.000Z",
        "1969-12-31T23:59:59.999Z",
        "0000-01-01T00:00:00.000Z",
        "٢٠٢٣-11-14T22:13:20.000Z",
        "2023-11-14T22:13:20.000Z\n",
    ],
)
def test_no_other_text_is_a_time(text: str) -> None:
    with pytest.raises(Malformed):
        parse_time(text)


# Members -----------------------------------------------------------------------------------------


def test_members_are_read_as_what_they_must_be_or_named() -> None:
    fields = Fields.of({"a": 1, "b": "x", "c": True, "d": None, "e": [], "f": {}}, "line")
    assert (fields.natural("a"), fields.text("b"), fields.boolean("c")) == (1, "x", True)
    assert fields.optional_natural("d") is None
    assert fields.optional_data("d") is None
    assert fields.optional_object("d") is None
    for read, name in (
        (fields.natural, "c"),
        (fields.natural, "b"),
        (fields.text, "a"),
        (fields.boolean, "a"),
        (fields.data, "b"),
        (fields.hash, "b"),
        (fields.session, "a"),
        (fields.object, "e"),
        (fields.text, "missing"),
    ):
        with pytest.raises(Malformed):
            read(name)
    with pytest.raises(Malformed, match=r"line\.e: expected at most 0"):
        Fields.of({"e": [1]}, "line").texts("e", 0)


@pytest.mark.parametrize("text", ["é", "AA=", "AA", "A A=", "AA==\n", "AA_-"])
def test_base64_has_one_alphabet_and_its_padding(text: str) -> None:
    with pytest.raises(Malformed, match="base64"):
        Fields.of({"a": text}, "line").data("a")


@pytest.mark.parametrize("at", [0, 40, 79, 80, 127])
def test_two_long_values_that_begin_alike_are_shown_where_they_differ(at: int) -> None:
    """A signature of which one digit was altered."""
    printed = "ed25519-" + "72ad84fa4f04a1b9" * 8
    at += len("ed25519-")
    given = printed[:at] + "x" + printed[at + 1 :]
    found = difference("signature", given, printed)
    assert found is not None
    expected, _, got = found.removeprefix("signature: expected ").partition(
        " by the rest of its line, got "
    )
    assert expected != got
    assert "x" in got
    assert len(found) < 300
    longer = difference("signature", printed + "0", printed)
    assert longer is not None
    assert longer.endswith("a1b90'")


def test_a_difference_is_named_by_its_path() -> None:
    assert difference("", {"a": [1, 2]}, {"a": [1, 2]}) is None
    assert difference("", {"a": 1}, {"a": True}) is not None
    assert difference("", {"a": [1, 3]}, {"a": [1, 2]}) == (
        "a[1]: expected 2 by the rest of its line, got 3"
    )
    assert difference("", {"a": [1]}, {"a": [1, 2]}) == (
        "a: expected a list of 2 by the rest of its line, got a list of 1"
    )
    assert difference("", {"a": 1}, {}) == "a: expected no such member"
    assert difference("", {}, {"a": 1}) == "a: expected this member, got none"
