"""JSON read by one rule and printed in one form, so that all readers see the same value.

Rules: docs/spec/encoding.md, JSON. Read: RFC 8259 within I-JSON (RFC 7493): UTF-8 without byte
order mark, no name twice in an object, no lone surrogate, no NaN or Infinity, nesting and length
bounded. Print: RFC 8785 (JCS). A number that is whole and below 10^21 in size is an integer,
whatever its spelling (1, 1.0, 10e-1), because RFC 8785 prints it so; integers lie within
±(2^53−1), and a number that would print as one beyond is refused. Larger or broken numbers are
IEEE 754 doubles.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, NoReturn, TypeAlias

import rfc8785

from nocturne.core.errors import Malformed

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"

INTEGER_MAX: Final = 2**53 - 1
"""The largest integer that every JSON reader keeps exact. RFC 7493 §2.2."""
DEPTH_LIMIT: Final = 256
"""The largest `depth_max` a caller may ask for: the C reader recurses once per level."""

_INTEGER_CHARACTERS_MAX: Final = 17
"""Of −9007199254740991; longer ones are out of range (JSON has no leading zeros)."""
_WHOLE_PRINTED_BELOW: Final = 1e21
"""Whole numbers from here on print with an exponent. RFC 8785 §3.2.2.3, ECMA-262 §7.1.12.1."""
_SHOWN_CHARACTERS_MAX: Final = 40

_STRUCTURE: Final = re.compile(rb'\\.|["\[\]{}]', re.DOTALL)
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_json(data: bytes, bytes_max: int, depth_max: int) -> JsonValue:
    """The one value of `data`; `Malformed` says which rule of this file it breaks.

    A scalar has depth 0, `[]` depth 1, `[{}]` depth 2. `depth_max` is at most `DEPTH_LIMIT`.
    """
    assert 0 <= depth_max <= DEPTH_LIMIT, f"depth_max: expected 0 to {DEPTH_LIMIT}, got {depth_max}"
    if len(data) > bytes_max:
        raise Malformed(f"JSON: expected at most {bytes_max} bytes, got {len(data)}")
    _check_depth(data, depth_max)
    try:
        value: JsonValue = _DECODER.decode(data.decode("utf-8"))
        if _SURROGATE.search(data):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as fault:
        raise Malformed(f"JSON: expected UTF-8, got another byte at {fault.start}") from fault
    except UnicodeEncodeError as fault:
        raise Malformed("JSON: expected surrogates in pairs, got a lone one") from fault
    except json.JSONDecodeError as fault:
        raise Malformed(f"JSON: expected RFC 8259, got at {fault.pos}: {fault.msg}") from fault
    return value


def canonical_json(value: JsonValue) -> bytes:
    """The one printed form: names sorted by UTF-16, no space, shortest numbers. RFC 8785.

    `Malformed` for a value that `parse_json` would not read back: numbers out of range, lone
    surrogates.
    """
    _check_numbers(value)
    try:
        return rfc8785.dumps(value)
    except ValueError as fault:
        raise Malformed(f"JSON value: expected one that RFC 8785 can print, got {fault}") from fault


def is_canonical(data: bytes, bytes_max: int, depth_max: int) -> bool:
    """`data` is exactly what `canonical_json` prints for its value."""
    try:
        return canonical_json(parse_json(data, bytes_max, depth_max)) == data
    except Malformed:
        return False


def _check_depth(data: bytes, depth_max: int) -> None:
    """Before parsing: hostile nesting must not reach the recursive reader."""
    if data.count(b"[") + data.count(b"{") <= depth_max:
        return
    depth = 0
    in_string = False
    for found in _STRUCTURE.finditer(data):
        mark = found[0]
        if mark == b'"':
            in_string = not in_string
        elif in_string or len(mark) == 2:
            continue
        elif mark in b"[{":
            depth += 1
            if depth > depth_max:
                raise Malformed(f"JSON: expected at most {depth_max} levels, got more")
        else:
            depth -= 1


def _object(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                shown = ascii(name[:_SHOWN_CHARACTERS_MAX])
                raise Malformed(f"JSON object: expected each name once, got {shown} again")
            seen.add(name)
    return members


def _integer(text: str) -> int:
    if len(text) > _INTEGER_CHARACTERS_MAX or abs(int(text)) > INTEGER_MAX:
        _refuse_number(text)
    return int(text)


def _double(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _refuse_number(text)
    if not value.is_integer():
        return value
    if abs(value) <= INTEGER_MAX:
        return int(value)
    if abs(value) < _WHOLE_PRINTED_BELOW:
        _refuse_number(text)
    return value


def _refuse_number(text: str) -> NoReturn:
    shown = text[:_SHOWN_CHARACTERS_MAX]
    raise Malformed(f"JSON number: expected a double, or an integer within ±(2^53−1), got {shown}")


def _check_numbers(value: JsonValue) -> None:
    """RFC 8785's printer refuses large integers, not whole doubles that print as large integers."""
    if isinstance(value, dict):
        for member in value.values():
            _check_numbers(member)
    elif isinstance(value, list):
        for member in value:
            _check_numbers(member)
    elif isinstance(value, float) and INTEGER_MAX < abs(value) < _WHOLE_PRINTED_BELOW:
        _refuse_number(repr(value))


_DECODER: Final[Any] = json.JSONDecoder(
    object_pairs_hook=_object,
    parse_int=_integer,
    parse_float=_double,
    parse_constant=_refuse_number,
)
