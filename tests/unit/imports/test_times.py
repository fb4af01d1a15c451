"""Times as sources write them."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nocturne.core.encoding import TIME_MAX
from nocturne.core.errors import Malformed
from nocturne.imports import times


@pytest.mark.parametrize(
    "text, ms",
    [
        ("1970-01-01T00:00:00.000+01:00", -3_600_000),
        ("2011-10-11T13:45:40.276+02:00", 1_318_333_540_276),
        ("2011-10-11T11:45:40.276Z", 1_318_333_540_276),
        ("2011-10-11 11:45:40.2769", 1_318_333_540_276),
        ("2011-10-11", 1_318_291_200_000),
        ("1318333540276", 1_318_333_540_276),
        ("-1", -1),
    ],
)
def test_a_time_is_ms_since_1970(text: str, ms: int) -> None:
    assert times.parse_time(text) == ms
    assert times.nearest(text) == max(ms, 0)


@given(st.datetimes(timezones=st.just(UTC)))
def test_what_names_no_zone_is_utc(time: datetime) -> None:
    without = time.replace(tzinfo=None)
    assert times.parse_time(without.isoformat()) == times.parse_time(time.isoformat())


@given(st.integers(0, TIME_MAX))
def test_digits_are_ms(ms: int) -> None:
    assert times.occurred_at(str(ms)) == ms


@pytest.mark.parametrize("text", ["-1", "1969-12-31T23:59:59Z", str(TIME_MAX + 1)])
def test_an_event_before_1970_or_after_9999_is_refused(text: str) -> None:
    with pytest.raises(Malformed, match="from 1970 to 9999"):
        times.occurred_at(text)


@pytest.mark.parametrize("text", ["", "yesterday", "1e3", "12.5", "٣", "2011-13-01", "9" * 65])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(Malformed):
        times.parse_time(text)
