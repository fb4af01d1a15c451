"""JSON: what is refused, and that print and parse are each other's reverse.

Run again with the same examples: they are derandomized.
"""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nocturne.core.errors import Malformed
from nocturne.core.strict_json import (
    INTEGER_MAX,
    JsonValue,
    canonical_json,
    is_canonical,
    parse_json,
)

BYTES_MAX = 4096
DEPTH_MAX = 8

reproducible = settings(derandomize=True, deadline=None, max_examples=300)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
numbers = st.integers(-INTEGER_MAX, INTEGER_MAX) | st.floats(
    allow_nan=False, allow_infinity=False
).filter(lambda drawn: not INTEGER_MAX < abs(drawn) < 1e21)
trees: st.SearchStrategy[JsonValue] = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def parse(data: bytes, depth_max: int = DEPTH_MAX) -> JsonValue:
    return parse_json(data, BYTES_MAX, depth_max)


@pytest.mark.parametrize(
    "data,value",
    [
        (b"null", None),
        (b' {"a" : [1, true, "x"]}\n', {"a": [1, True, "x"]}),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        ('"\U0001f600"'.encode(), "\U0001f600"),
        (b'"\\u0000"', "\x00"),
        (b"9007199254740991", INTEGER_MAX),
        (b"-9007199254740991", -INTEGER_MAX),
        (b"1.5", 1.5),
        (b"6.022e23", 6.022e23),
        (b"5e-324", 5e-324),
        (b'"[[[[[[[[[[[["', "[" * 12),
        (b'"\\"[[[[[[[[[[[["', '"' + "[" * 12),
    ],
)
def test_valid_json_has_one_value(data: bytes, value: JsonValue) -> None:
    assert parse(data) == value


@pytest.mark.parametrize("data", [b"1", b"1.0", b"10e-1", b"0.1e1", b"1E0"])
def test_a_whole_number_is_an_integer_whatever_its_spelling(data: bytes) -> None:
    value = parse(data)
    assert value == 1
    assert type(value) is int


@pytest.mark.parametrize("data", [b"-0", b"-0.0", b"0e5", b"1e-400"])
def test_there_is_one_zero(data: bytes) -> None:
    assert repr(parse(data)) == "0"


@pytest.mark.parametrize(
    "data,reason",
    [
        (b"", "RFC 8259"),
        (b"{", "RFC 8259"),
        (b"[1,]", "RFC 8259"),
        (b"1 2", "RFC 8259"),
        (b"01", "RFC 8259"),
        (b".5", "RFC 8259"),
        (b"+1", "RFC 8259"),
        (b"'a'", "RFC 8259"),
        (b"tru", "RFC 8259"),
        (b"\xef\xbb\xbf1", "RFC 8259"),
        (b"\xc2\xa01", "RFC 8259"),
        (b'"\n"', "RFC 8259"),
        (b'"\\x41"', "RFC 8259"),
        (b"\\[", "RFC 8259"),
        (b'{"a":1,"a":1}', "once"),
        (b'{"a":1,"\\u0061":2}', "once"),
        (b'[{"b":{"a":1,"a":2}}]', "once"),
        (b"NaN", "number"),
        (b"[Infinity]", "number"),
        (b"-Infinity", "number"),
        (b"1e999", "number"),
        (b"-1e999", "number"),
        (b"9007199254740992", "number"),
        (b"-9007199254740992", "number"),
        (b"9007199254740992.0", "number"),
        (b"1e20", "number"),
        (b"9" * 3000, "number"),
        (b'"\\ud800"', "surrogate"),
        (b'"\\uDC00"', "surrogate"),
        (b'{"\\ude00\\ud83d":1}', "surrogate"),
        (b'"\xff"', "UTF-8"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        (b'"\xc0\xaf"', "UTF-8"),
        ("1".encode("utf-16"), "UTF-8"),
        (b"[" * 9, "levels"),
        (b"[" * 9 + b"]" * 9, "levels"),
        (b'{"a":' * 9 + b"1" + b"}" * 9, "levels"),
        (b'["\\"]",' + b"[" * 9, "levels"),
        (b" " * 4097, "4096 bytes"),
    ],
)
def test_what_another_reader_could_read_otherwise_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        parse(data)


def test_nesting_up_to_the_bound_is_read() -> None:
    assert parse(b"[" * 8 + b"]" * 8) == [[[[[[[[]]]]]]]]
    assert parse(b"[" + b"[],{}," * 20 + b"0]", 2) is not None
    assert parse(b"1", 0) == 1
    with pytest.raises(Malformed, match="levels"):
        parse(b"[]", 0)


def test_hostile_nesting_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(Malformed, match="levels"):
        parse_json(b"[" * 1_000_000, 1_000_000, 256)


@reproducible
@given(trees)
def test_parse_is_the_reverse_of_print(value: JsonValue) -> None:
    printed = canonical_json(value)
    parsed = parse_json(printed, 1 << 20, 64)
    assert parsed == value
    assert canonical_json(parsed) == printed
    assert is_canonical(printed, 1 << 20, 64)


@reproducible
@given(trees)
def test_any_spelling_of_a_value_prints_the_same(value: JsonValue) -> None:
    spelled = json.dumps(value, indent=1, ensure_ascii=True).encode()
    assert canonical_json(parse_json(spelled, 1 << 20, 64)) == canonical_json(value)


@reproducible
@given(st.binary(max_size=40) | st.text('[]{}",:\\u0dDe1.-+ntf', max_size=24).map(str.encode))
def test_any_bytes_are_read_or_malformed(data: bytes) -> None:
    try:
        value = parse(data)
    except Malformed:
        assert not is_canonical(data, BYTES_MAX, DEPTH_MAX)
    else:
        assert parse(canonical_json(value)) == value


def test_the_example_of_rfc_8785_prints_as_the_rfc_says() -> None:
    data = (
        rb'{"numbers":[333333333.33333329,1E30,4.50,2e-3,0.000000000000000000000000001],'
        rb'"string":"\u20ac$\u000F\u000aA'
        rb"'"
        rb'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}'
    )
    assert (
        canonical_json(parse(data))
        == (
            '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
            '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
        ).encode()
    )


def test_names_sort_by_utf_16_units() -> None:
    names: JsonValue = {"\ufb33": 1, "\U0001f600": 2, "ö": 3, "1": 4}
    assert list(json.loads(canonical_json(names))) == ["1", "ö", "\U0001f600", "\ufb33"]


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        2**53,
        -(2**53),
        [1e16],
        {"a": -1e20},
        "\ud800",
        {"\ud800": 1},
        {"a": {"b": ["\udfff"]}},
    ],
)
def test_a_value_that_would_not_be_read_back_is_not_printed(value: JsonValue) -> None:
    with pytest.raises(Malformed):
        canonical_json(value)


@pytest.mark.parametrize("data", [b" 1", b'{"b":1,"a":1}', b"1.0", b'"\\u0061"', b"1e2", b"{"])
def test_another_spelling_is_not_canonical(data: bytes) -> None:
    assert not is_canonical(data, BYTES_MAX, DEPTH_MAX)
