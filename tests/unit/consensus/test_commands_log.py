"""Records as the broker's client gives them."""

from typing import Any, cast

import pytest

from nocturne.consensus.commands_log import UNREADABLE_HEADERS, log_record_of
from nocturne.core.blocks import LogRecord


class Delivered:
    """A message as confluent_kafka has it; its headers are read when they are asked for."""

    def __init__(self, headers: object) -> None:
        self._headers = headers

    def key(self) -> bytes | None:
        return b"k"

    def value(self) -> bytes | None:
        return None

    def headers(self) -> object:
        if isinstance(self._headers, Exception):
            raise self._headers
        return self._headers


def log_record(headers: object) -> LogRecord:
    return log_record_of(cast("Any", Delivered(headers)))


def test_a_record_keeps_what_is_null_and_the_order_of_its_headers() -> None:
    headers = [("b", b"1"), ("a", None), ("b", b"")]
    assert log_record(headers) == LogRecord(b"k", None, tuple(headers))
    assert log_record(None) == log_record([]) == LogRecord(b"k", None, ())


@pytest.mark.parametrize(
    "fault", [SystemError("a result with an exception set"), UnicodeDecodeError("u", b"", 0, 1, "")]
)
def test_names_that_are_not_utf_8_do_not_stop_the_log(fault: Exception) -> None:
    assert log_record(fault) == LogRecord(b"k", None, UNREADABLE_HEADERS)
