"""Event logs of IEEE 1849: everything in them is kept, and nothing hostile comes through."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nocturne.imports import xes
from nocturne.imports.records import Record, SourceFault

LOG = """<?xml version="1.0" encoding="UTF-8"?>
<!-- made for this test -->
<log xes.version="1.0" xmlns="http://www.xes-standard.org/">
  <extension name="Concept" prefix="concept" uri="http://www.xes-standard.org/concept.xesext"/>
  <global scope="event"><string key="concept:name" value="UNKNOWN"/></global>
  <classifier name="Activity" keys="concept:name lifecycle:transition"/>
  <string key="concept:name" value="Permits"/>
  <float key="average" value="2.3832541524E7"><float key="A" value="1.0"/></float>
  <trace>
    <string key="concept:name" value="case 1/a"/>
    <event>
      <string key="concept:name" value="Ask"/>
      <date key="time:timestamp" value="2026-11-21T09:00:00.000+01:00"/>
      <int key="cost" value="9223372036854775807"><string key="currency" value="EUR"/></int>
      <boolean key="urgent" value="true"/><id key="identity" value="urn:uuid:0"/>
      <list key="parts"><string key="note" value="n"/><values>
        <string key="part" value="x"/><string key="part" value="y"/></values></list>
      <container key="box"><int key="a" value="1"/></container>
    </event>
    <event><string key="concept:name" value="Answer"/></event>
  </trace>
  <trace><event><date key="time:timestamp" value="1969-01-01T00:00:00Z"/></event></trace>
  <trace><string key="concept:name" value="nothing happened"/></trace>
</log>
"""


def read(text: str | bytes, size: int = 1000) -> list[Record]:
    data = text.encode() if isinstance(text, str) else text
    return list(xes.records(pieces(data, size), "xes/log/"))


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def payloads(text: str) -> list[Any]:
    return [json.loads(record.payload) for record in read(text)]


def in_log(inside: str) -> str:
    return f"<log>{inside}</log>"


def in_event(inside: str) -> str:
    return in_log(f"<trace><event>{inside}</event></trace>")


def test_one_record_an_event_in_its_case() -> None:
    found = [(record.session, record.event_type, record.occurred_at) for record in read(LOG)]
    assert found == [
        ("xes/log/case@201@2fa", "ActivityRecorded", 1_795_248_000_000),
        ("xes/log/case@201@2fa", "ActivityRecorded", 1_795_248_000_000),
        ("xes/log/@:2", "ActivityRecorded", 0),
    ]


def test_every_attribute_is_kept_as_its_text() -> None:
    first, second, third = payloads(LOG)
    assert first["attributes"] == {
        "concept:name": {"string": "Ask"},
        "time:timestamp": {"date": "2026-11-21T09:00:00.000+01:00"},
        "cost": {"int": "9223372036854775807", "attributes": {"currency": {"string": "EUR"}}},
        "urgent": {"boolean": "true"},
        "identity": {"id": "urn:uuid:0"},
        "parts": {
            "list": [{"key": "part", "string": "x"}, {"key": "part", "string": "y"}],
            "attributes": {"note": {"string": "n"}},
        },
        "box": {"container": [{"key": "a", "int": "1"}]},
    }
    assert second == {"attributes": {"concept:name": {"string": "Answer"}}}
    assert third["case"] == {"attributes": {}}
    assert "log" not in third


def test_the_first_event_of_a_case_has_the_cases_words_and_the_first_of_all_the_logs() -> None:
    first = payloads(LOG)[0]
    assert first["case"] == {"attributes": {"concept:name": {"string": "case 1/a"}}}
    assert first["log"] == {
        "attributes": {
            "concept:name": {"string": "Permits"},
            "average": {"float": "2.3832541524E7", "attributes": {"A": {"float": "1.0"}}},
        },
        "classifiers": [{"name": "Activity", "keys": "concept:name lifecycle:transition"}],
        "extensions": [
            {
                "name": "Concept",
                "prefix": "concept",
                "uri": "http://www.xes-standard.org/concept.xesext",
            }
        ],
        "globals": [{"scope": "event", "attributes": {"concept:name": {"string": "UNKNOWN"}}}],
        "xml": {"xes.version": "1.0"},
    }


@given(st.integers(1, 200))
def test_pieces_of_any_size_give_the_same_records(size: int) -> None:
    assert read(LOG, size) == read(LOG)


def test_prefixed_elements_are_elements() -> None:
    spelled = '<x:log xmlns:x="http://www.xes-standard.org"><x:trace><x:event/></x:trace></x:log>'
    assert len(read(spelled)) == 1


def test_events_outside_of_any_trace_have_a_session_of_their_own() -> None:
    found = read(in_log("<event/><event/>"))
    assert [record.session for record in found] == ["xes/log/@:0", "xes/log/@:0"]


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=30).filter(
    lambda text: not set(text) & set("\ufffe\uffff")
)


@given(st.dictionaries(TEXTS, TEXTS, max_size=6))
def test_any_text_in_an_attribute_comes_through(attributes: dict[str, str]) -> None:
    inside = "".join(
        f"<string key={quoteattr(key)} value={quoteattr(value)}/>"
        for key, value in attributes.items()
        if key != xes.TIME
    )
    (payload,) = payloads(in_event(inside))
    attributes.pop(xes.TIME, None)
    assert payload["attributes"] == {k: {"string": v} for k, v in attributes.items()}


BOMB = '<!DOCTYPE log [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;">]><log>&b;</log>'
OUTSIDE = '<!DOCTYPE log [<!ENTITY a SYSTEM "file:///etc/passwd">]><log>&a;</log>'


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("", "line 1: this is no XML: no element found"),
        ("nothing", "line 1: this is no XML"),
        (BOMB, "line 1: the file declares a document type"),
        (OUTSIDE, "line 1: the file declares a document type"),
        ('<!DOCTYPE log SYSTEM "http://example.org/a.dtd"><log/>', "declares a document type"),
        (in_event('<string key="k" value="&nbsp;"/>'), "undefined entity"),
        (in_event('<string key="k" value="&#0;"/>'), "this is no XML"),
        (in_event('<string key="k" value="\0"/>'), "this is no XML"),
        (in_event('<string key="k" value="&#xD800;"/>'), "this is no XML"),
        (in_log("\n\n<trace>"), "line 3: this is no XML: mismatched tag"),
        ("<log><trace>", "line 1: this is no XML: no element found"),
        (in_event('<string key="k"/>'), "<string>: expected key and value, got 'key'"),
        (in_event('<string key="k" value="v" more="m"/>'), "expected key and value"),
        (in_event('<list key="k" value="v"/>'), "<list>: expected key, got"),
        (in_event('<double key="k" value="1"/>'), "expected an attribute of XES, got <double>"),
        (in_event("<trace/>"), "expected attributes, got <trace>"),
        (in_event("<event/>"), "expected attributes, got <event>"),
        (in_event("<log/>"), "expected an attribute of XES, got <log>"),
        (in_event("text"), "expected no text between elements, got 'text'"),
        (in_log('<trace/><string key="k" value="v"/>'), "expected a trace, got <string>"),
        (in_log('<trace/><classifier name="n" keys="k"/>'), "expected a trace, got <classifier>"),
        ("<html/>", "expected log, got <html>"),
        (in_event('<int key="k" value="1"/><int key="k" value="2"/>'), "each key once"),
        (in_event(f'<date key="{xes.TIME}" value="soon"/>'), "time:timestamp: time: expected ISO"),
        (in_event('<container key="k">' * 40), "at most 32 deep"),
        ('<?xml version="1.0" encoding="klingon"?><log/>', "this is no XML"),
        (b"<log>\xff\xfe</log>", "not well-formed"),
        (b'<?xml version="1.0" encoding="utf-8"?><log>\x80</log>', "not well-formed"),
    ],
)
def test_what_is_no_event_log_is_one_sentence_with_its_line(
    text: str | bytes, sentence: str
) -> None:
    with pytest.raises(SourceFault) as caught:
        read(text)
    said = str(caught.value)
    assert sentence in said
    assert said.startswith("line ")
    assert "\n" not in said
    assert len(said) < 400


def test_a_tag_without_an_end_is_not_collected() -> None:
    def endless() -> Iterator[bytes]:
        yield b'<log><string key="k" value="'
        for _ in range(100):
            yield b"x" * 65536
        raise AssertionError("read on and on")

    with pytest.raises(SourceFault, match="tags of at most 1048576 bytes"):
        list(xes.records(endless(), "p/"))


@pytest.mark.parametrize("begun", [b"<log>", b"<log><trace>", b"<log><trace><event>"])
def test_a_part_without_an_end_is_not_collected(
    begun: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xes, "PART_BYTES_MAX", 100_000)

    def endless() -> Iterator[bytes]:
        yield begun
        for number in range(xes.PART_BYTES_MAX):
            yield b'<list key="k%d"><values></values></list>' % number
        raise AssertionError("read on and on")

    with pytest.raises(SourceFault, match="takes more than 100000 bytes: leave parts of it out"):
        list(xes.records(endless(), "p/"))


def test_the_largest_part_takes_what_the_guide_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xes, "PART_BYTES_MAX", 100_000)

    def largest() -> Iterator[bytes]:
        yield b"<log><trace><event>"
        # Many small attributes take the most.
        for number in range(5_500):
            yield b'<list key="%d"/>' % number
        yield b"</event></trace></log>"

    tracemalloc.start()
    try:
        assert len(list(xes.records(largest(), "p/"))) == 1
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 * xes.PART_BYTES_MAX


def test_the_events_of_a_long_case_are_not_collected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xes, "PART_BYTES_MAX", 50_000)
    ahead = 0

    def long() -> Iterator[bytes]:
        nonlocal ahead
        yield b'<log><trace><string key="concept:name" value="long"/>'
        for _ in range(5):
            ahead += 1000
            assert ahead == 1000
            yield b"<event>             </event>" * 1000
        yield b"</trace></log>"

    sessions = set()
    for one in xes.records(long(), "p/"):
        ahead -= 1
        sessions.add(one.session)
    assert sessions == {"p/long"}
    assert ahead == 0


def test_what_a_case_says_of_itself_stands_before_its_events() -> None:
    late = in_log('<trace><event/><string key="concept:name" value="late"/></trace>')
    with pytest.raises(SourceFault, match="expected an event after an event, got <string>"):
        read(late)


def test_many_small_cases_are_no_large_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xes, "PART_BYTES_MAX", 1_000)
    assert len(read(in_log("<trace><event></event></trace>" * 500), 100)) == 500


def test_what_stands_before_a_fault_is_given_first() -> None:
    cut = LOG[: LOG.index("</trace>") + 9].encode()
    found: list[Record] = []

    def keep() -> None:
        found.extend(xes.records(pieces(cut, 50), "xes/log/"))

    with pytest.raises(SourceFault, match="no element found"):
        keep()
    assert found == read(LOG)[:2]
