"""A file with validators' addresses, read again while whoever reads it runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nocturne.core.errors import Malformed
from nocturne.runtime.addresses import FILE_BYTES_MAX, PEERS_MAX, AddressFile, parse_addresses


def test_there_is_an_address_on_each_line_and_the_rest_is_for_people() -> None:
    data = b"# the first three\na:1\n\n  b.example:65535  # Ada's\r\n[::1]:7400\na:1\n"
    assert parse_addresses(data) == ("a:1", "b.example:65535", "[::1]:7400")
    assert parse_addresses(b"") == ()


@pytest.mark.parametrize(
    "data, words",
    [
        (b"a", "line 1: expected host:port"),
        (b"a:1\nb:65536", "line 2"),
        (b"a:1 b:2", "line 1: expected one host:port"),
        (b"a:1,b:2", "line 1: expected one host:port"),
        (b"\xff", "UTF-8"),
        (b"\n" * (FILE_BYTES_MAX + 1), "at most"),
        (b"".join(b"a:%d\n" % number for number in range(PEERS_MAX + 1)), "at most"),
    ],
)
def test_what_is_no_list_of_addresses_is_malformed(data: bytes, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        parse_addresses(data)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.binary(max_size=200))
def test_any_bytes_are_addresses_or_malformed(data: bytes) -> None:
    try:
        found = parse_addresses(data)
    except Malformed:
        return
    assert parse_addresses("\n".join(found).encode()) == found


def test_a_file_is_read_when_it_changed_and_a_broken_one_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "peers"
    file = AddressFile(path)
    assert file.read() == (), "one that is not there lists nothing"
    assert file.read() is None
    path.write_text("a:1\n")
    assert file.read() == ("a:1",)
    assert file.read() is None
    path.write_text("nonsense\n")
    assert file.read() is None
    path.write_text("a:1\nb:2\n")
    assert file.read() == ("a:1", "b:2")
    path.unlink()
    path.mkdir()
    assert file.read() is None
    path.rmdir()
    assert file.read() == ()
