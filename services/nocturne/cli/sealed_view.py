"""Payloads as this home's subject keys let one read them, for people and for programs. Pure."""

from __future__ import annotations

from nocturne.cli.screen import bytes_text, json_text
from nocturne.client.sealing import Closed, Opened, SubjectKeys, Why, payload_of
from nocturne.core.commands import SEALED_CONTENT_TYPE
from nocturne.core.events import Event
from nocturne.core.identifiers import format_id
from nocturne.core.json_fields import JsonObject
from nocturne.core.json_forms import payload_json

_WORDS = {
    Why.SEALED: "sealed",
    Why.ERASED: "erased, its key was destroyed here",
    Why.BROKEN: "not a sealed payload, whatever its type says",
}


def payload_text(event: Event, keys: SubjectKeys) -> str:
    """The payload on one line; why it cannot be read when it cannot."""
    match payload_of(event, keys):
        case Closed(why, subject_key):
            key = "" if subject_key is None else f", subject key {format_id(subject_key)}"
            return f"({_WORDS[why]}{key}, {bytes_text(len(event.payload.data))})"
        case Opened(content_type, data, subject_key):
            return _plain_text(content_type, data) + ("" if subject_key is None else "  (unsealed)")


def sealed_json(event: Event, keys: SubjectKeys) -> JsonObject:
    """What stands beside the carried bytes of a sealed payload; nothing for a plain one."""
    if event.header.content_type != SEALED_CONTENT_TYPE:
        return {}
    found = payload_of(event, keys)
    identity = found.subject_key
    told: JsonObject = {
        "sealed": True,
        "subjectKey": None if identity is None else format_id(identity),
        "erased": isinstance(found, Closed) and found.why is Why.ERASED,
        "unsealed": None,
    }
    if isinstance(found, Opened):
        told["unsealed"] = {
            "contentType": found.content_type,
            **payload_json(found.content_type, found.data),
        }
    return told


def _plain_text(content_type: str, data: bytes) -> str:
    match payload_json(content_type, data):
        case {"payload": value}:
            return json_text(value)
        case _:
            return f"({content_type}, {bytes_text(len(data))})"
