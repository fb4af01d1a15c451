"""Event logs of IEEE 1849 (XES) as records: one event at a time, one record an event. Pure.

Rules: docs/guides/importing.md, import xes. XML is read by expat with every document type
declaration refused: entities, internal or external, can only come from one, so neither a bomb of
entities nor a file from elsewhere can come in. Elements are known by their local names.

The payload of one event (RFC 8785 JSON): its attributes by their keys, each value as the text that
stood there beside the name of its type; the first event of a case also has the case's attributes,
and the first of the log what the log says of itself:
{"attributes":{"concept:name":{"string":"Ask"},"cost":{"attributes":{"currency":{"string":"EUR"}},
 "float":"1.50"},"time:timestamp":{"date":"2026-11-21T09:00:00.000+01:00"}},
 "case":{"attributes":{"concept:name":{"string":"case 7"}}},
 "log":{"attributes":{},"classifiers":[{"keys":"concept:name","name":"Activity"}],"extensions":[],
 "globals":[],"xml":{"xes.version":"1.0"}}}
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final
from xml.parsers import expat

from nocturne.core.errors import Malformed
from nocturne.core.identifiers import SessionId
from nocturne.core.strict_json import JsonValue, canonical_json
from nocturne.imports import names, times
from nocturne.imports.records import Record, SourceFault

EVENT_TYPE: Final = "ActivityRecorded"
KIND: Final = "facts"
NAME: Final = "concept:name"
TIME: Final = "time:timestamp"

TOKEN_BYTES_MAX: Final = 1024 * 1024
"""One tag with all its XML attributes, one comment, one stretch of text."""
PART_BYTES_MAX: Final = 4 * 1024 * 1024
"""One event, or what a case or the log says of itself: so much of the file is held of each, as
objects that take up to 32 times that (measured: 10 to 25)."""
DEPTH_MAX: Final = 32
"""Attributes within attributes."""

_PLAIN: Final = frozenset({"string", "date", "int", "float", "boolean", "id"})
_NESTING: Final = frozenset({"list", "container"})
_HEADS: Final = {"extension": "extensions", "classifier": "classifiers"}
_SHOWN: Final = 60


@dataclass(slots=True)
class _Node:
    """An element that is open: its name, where its children's attributes go, and its own value."""

    name: str
    value: dict[str, JsonValue] = field(default_factory=dict)
    attributes: dict[str, JsonValue] = field(default_factory=dict)
    listed: list[JsonValue] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Event:
    """An event, the `number` of its trace (from 1) and its own in it, `index` (from 0). An event
    outside of any trace is a case of its own with number 0.
    """

    attributes: dict[str, JsonValue]
    line: int
    case: dict[str, JsonValue]
    number: int
    index: int


def records(chunks: Iterable[bytes], prefix: str) -> Generator[Record, None, None]:
    """The records of a log; sessions are `<prefix><case>`."""
    reader = _Reader()
    said_log = False
    at = 0
    for event in reader.events(chunks):
        payload: dict[str, JsonValue] = {"attributes": event.attributes}
        if event.index == 0 and event.number:
            payload["case"] = {"attributes": event.case}
        if not said_log:
            payload["log"] = reader.log_value()
            said_log = True
        place = f"line {event.line} (trace {event.number}, event {event.index + 1})"
        at = _occurred_at(event, at if event.index else 0, place)
        session = _session_of(event, prefix)
        yield Record(session, EVENT_TYPE, _json(payload, place), at, place)


def _session_of(event: _Event, prefix: str) -> SessionId:
    if event.number == 0:
        return names.session_of(prefix, names.numbered(0))
    own = text_of(event.case, NAME)
    return names.session_of(prefix, names.escaped(own) if own else names.numbered(event.number))


def _occurred_at(event: _Event, before: int, place: str) -> int:
    """The event's own time; if it has none, that of the one before it in its case."""
    text = text_of(event.attributes, TIME)
    if text is None:
        return before
    try:
        return times.nearest(text)
    except Malformed as fault:
        raise SourceFault(place, f"{TIME}: {fault}") from fault


def _json(value: JsonValue, place: str) -> bytes:
    try:
        return canonical_json(value)
    except Malformed as fault:
        raise SourceFault(place, str(fault)) from fault


def text_of(attributes: dict[str, JsonValue], key: str) -> str | None:
    """The text of a plain attribute, None if there is none."""
    match attributes.get(key):
        case dict(attribute):
            for name in _PLAIN:
                text = attribute.get(name)
                if isinstance(text, str):
                    return text
    return None


class _Reader:
    """Expat's calls, turned into events."""

    def __init__(self) -> None:
        self.log = _Node("log")
        self._heads: dict[str, list[JsonValue]] = {
            "classifiers": [],
            "extensions": [],
            "globals": [],
        }
        self._open: list[_Node] = []
        self._line = 0
        self._traces = 0
        self._index = 0
        self._ready: list[_Event] = []
        self._began = False
        self._part_began_at = 0
        self._fed = 0
        self._parser = expat.ParserCreate(namespace_separator=" ")
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end
        self._parser.CharacterDataHandler = self._text
        self._parser.StartDoctypeDeclHandler = self._refuse_doctype
        self._parser.EntityDeclHandler = self._refuse_doctype
        self._parser.SetParamEntityParsing(expat.XML_PARAM_ENTITY_PARSING_NEVER)

    def events(self, chunks: Iterable[bytes]) -> Iterator[_Event]:
        """The events, each once its end was read."""
        for chunk in chunks:
            self._fed += len(chunk)
            yield from self._parse(chunk, False)
            if self._fed - self._parser.CurrentByteIndex > TOKEN_BYTES_MAX + len(chunk):
                raise self._fault(f"expected tags of at most {TOKEN_BYTES_MAX} bytes, got more.")
            if self._fed - self._part_began_at > PART_BYTES_MAX + len(chunk):
                raise self._fault(
                    f"one event, or what a case or the log says of itself, takes more than "
                    f"{PART_BYTES_MAX} bytes: leave parts of it out."
                )
        yield from self._parse(b"", True)

    def log_value(self) -> JsonValue:
        """What the log says of itself."""
        return {**self._heads, "attributes": self.log.attributes, "xml": self.log.value}

    def _parse(self, data: bytes, is_last: bool) -> Iterator[_Event]:
        """The events that end in `data`; also those before a fault in it."""
        fault = self._fed_to_expat(data, is_last)
        ready, self._ready = self._ready, []
        yield from ready
        if fault is not None:
            raise fault

    def _fed_to_expat(self, data: bytes, is_last: bool) -> SourceFault | None:
        try:
            self._parser.Parse(data, is_last)
        except SourceFault as fault:
            return fault
        except expat.ExpatError as fault:
            return SourceFault(
                f"line {fault.lineno}", f"this is no XML: {expat.ErrorString(fault.code)}."
            )
        except (UnicodeError, ValueError, LookupError) as fault:
            # An encoding that its declaration names and nobody can read.
            return self._fault(f"this is no XML that can be read: {fault}.")
        return None

    def _fault(self, what: str) -> SourceFault:
        return SourceFault(f"line {self._parser.CurrentLineNumber}", what)

    # Expat's calls -------------------------------------------------------------------------------

    def _refuse_doctype(self, *_: object) -> None:
        raise self._fault(
            "the file declares a document type, and none is read: take the DOCTYPE out."
        )

    def _text(self, text: str) -> None:
        if text.strip():
            raise self._fault(f"expected no text between elements, got {text[:_SHOWN]!a}.")

    def _start(self, qualified: str, given: dict[str, str]) -> None:
        name = qualified.rpartition(" ")[2]
        parent = self._open[-1].name if self._open else ""
        node = _Node(name)
        if parent == "":
            self._expect(name == "log", "log", name)
            node = self.log
            node.value = dict(given)
        elif name == "trace":
            self._expect(parent == "log" and not given, "attributes", name)
            self._traces += 1
            self._index = 0
            self._begin_part()
        elif name == "event":
            self._expect(parent in ("log", "trace") and not given, "attributes", name)
            self._begin_part()
            self._line = self._parser.CurrentLineNumber
        elif name in _HEADS or name == "global":
            self._expect(parent == "log" and not self._began, "a trace", name)
            node.value = dict(given)
        elif name == "values":
            self._expect(parent == "list" and not given, "attributes", name)
        else:
            self._expect(name in _PLAIN or name in _NESTING, "an attribute of XES", name)
            self._expect(parent not in _HEADS, "nothing inside", name)
            # IEEE 1849 has them first; so an event's session is known, and no case is collected.
            self._expect(parent != "trace" or not self._index, "an event after an event", name)
            self._expect(parent != "log" or not self._began, "a trace", name)
            node.value = self._attribute(name, given)
        if len(self._open) > DEPTH_MAX:
            raise self._fault(f"expected attributes at most {DEPTH_MAX} deep, got more.")
        self._open.append(node)

    def _begin_part(self) -> None:
        self._began = True
        self._part_began_at = self._parser.CurrentByteIndex

    def _attribute(self, name: str, given: dict[str, str]) -> dict[str, JsonValue]:
        wanted = {"key", "value"} if name in _PLAIN else {"key"}
        if given.keys() != wanted:
            raise self._fault(
                f"<{name}>: expected {' and '.join(sorted(wanted))}, got "
                f"{ascii(', '.join(sorted(given)))[:_SHOWN]}."
            )
        return dict(given)

    def _expect(self, holds: bool, expected: str, got: str) -> None:
        if not holds:
            raise self._fault(f"expected {expected}, got <{ascii(got[:_SHOWN])[1:-1]}>.")

    def _end(self, _: str) -> None:
        node = self._open.pop()
        parent = self._open[-1] if self._open else None
        if node.name == "event":
            if parent is not None and parent.name == "trace":
                event = _Event(
                    node.attributes, self._line, parent.attributes, self._traces, self._index
                )
                self._index += 1
            else:
                event = _Event(node.attributes, self._line, {}, 0, 0)
            self._ready.append(event)
        elif node.name == "values":
            assert parent is not None
            parent.listed = node.listed
        elif node.name in _HEADS:
            self._heads[_HEADS[node.name]].append(node.value)
        elif node.name == "global":
            self._heads["globals"].append({**node.value, "attributes": node.attributes})
        elif parent is not None and node.name != "trace":
            self._add(node, parent)

    def _add(self, node: _Node, parent: _Node) -> None:
        """An attribute is whole: put it where it belongs."""
        key = str(node.value["key"])
        value: dict[str, JsonValue] = {node.name: node.value.get("value", node.listed)}
        if node.attributes:
            value["attributes"] = node.attributes
        if parent.name in ("values", "container"):
            parent.listed.append({"key": key, **value})
        elif key in parent.attributes:
            raise self._fault(
                f"expected each key once in an element (IEEE 1849), got {key[:_SHOWN]!a} again."
            )
        else:
            parent.attributes[key] = value
