"""The frozen schemas and a schema registry with Confluent's API: ids, subjects, compatibility.

Rules: docs/spec/topics.md §5. Subjects are named `<topic>-<record's full name>`
(TopicRecordNameStrategy). A service only looks ids up: a schema that the registry lacks, or has
otherwise, is a deployment's fault and said so. A person registers, with `nocturne schemas
register`.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final

from nocturne.core.errors import Malformed, NocturneError, Unavailable
from nocturne.core.schemas import SCHEMAS
from nocturne.core.strict_json import JsonValue, parse_json
from nocturne.core.topics import (
    BLOCKS,
    COMMANDS,
    EVENTS,
    EVIDENCE,
    FIXED_SCHEMA_IDS,
    RECEIPTS,
    SCHEMA_NAMES,
    SEALS,
    TOPICS,
)

SECONDS_MAX: Final = 10.0
"""For one answer, from the first look at its host's name to the last byte: a registry that thinks
longer about a lookup is away."""
ANSWER_BYTES_MAX: Final = 1 << 20
"""An answer holds one schema, as text within JSON; the largest of ours is 7 kB."""
ANSWER_DEPTH_MAX: Final = 16
REASON_CHARACTERS_MAX: Final = 300
"""Of the registry's own words, which are a stranger's."""
ID_MAX: Final = 2**31 - 1
"""Registries count in Java's int; the prefix has four bytes."""

_CHUNK_BYTES: Final = 64 * 1024
_SUBJECT_NOT_FOUND: Final = 40401
_SCHEMA_NOT_FOUND: Final = 40403
_MODE_NOT_SET: Final = 40408
_CONFLICT: Final = 409
_REFUSED_SCHEMA: Final = 422
# No @ in the path: before it stands a password with a slash in it, which must be written %2F.
_ADDRESS: Final = re.compile(r"https?://[^\s/?#]+(?:/[^\s?#@]*)?")


class Compatibility(StrEnum):
    """What a registry lets a new version of a schema change, in its own words."""

    BACKWARD_TRANSITIVE = "BACKWARD_TRANSITIVE"
    FULL_TRANSITIVE = "FULL_TRANSITIVE"


COMPATIBILITY: Final = {
    # Who reads commands (validators) is upgraded before who writes them (authors).
    COMMANDS: Compatibility.BACKWARD_TRANSITIVE,
    # What the ledger publishes is read for ever, by readers of any age, outside our reach.
    BLOCKS: Compatibility.FULL_TRANSITIVE,
    SEALS: Compatibility.FULL_TRANSITIVE,
    EVENTS: Compatibility.FULL_TRANSITIVE,
    RECEIPTS: Compatibility.FULL_TRANSITIVE,
    EVIDENCE: Compatibility.FULL_TRANSITIVE,
}


class Standing(Enum):
    """What a registry has under a subject."""

    READY = "ready"
    NO_SUBJECT = "not registered"
    OTHER_SCHEMA = "another schema"


@dataclass(frozen=True, slots=True)
class Subject:
    """One topic's subject as a registry has it; `compatibility` is the subject's own mode, None
    when it has none.
    """

    topic: str
    standing: Standing
    schema_id: int | None
    compatibility: str | None

    @property
    def name(self) -> str:
        """The subject's name."""
        return subject_of(self.topic)

    @property
    def ready(self) -> bool:
        """The schema is there, and under the mode that it must have."""
        return (
            self.standing is Standing.READY
            and self.compatibility == COMPATIBILITY[self.topic].value
        )


class SchemaRefused(NocturneError):  # noqa: N818
    """The registry holds something under a subject that our schema is not compatible with."""


def schema_ids(registry_url: str | None) -> Mapping[str, int]:
    """Topic → schema id for the records' prefix. Blocks when there is a registry to ask;
    `Unavailable` when it does not have every schema.
    """
    if registry_url is None:
        return FIXED_SCHEMA_IDS
    registry = Registry(registry_url)
    return {topic: registry.id_of(topic) for topic in TOPICS}


def subject_of(topic: str) -> str:
    """The subject of a topic's one record type."""
    schema = json.loads(SCHEMAS[SCHEMA_NAMES[topic]])
    return f"{topic}-{schema['namespace']}.{schema['name']}"


def is_address(text: str) -> bool:
    """Whether this can be a registry's address: http or https, a host, perhaps a path."""
    if not _ADDRESS.fullmatch(text):
        return False
    try:
        parts = urllib.parse.urlsplit(text)
        # Asked for its fault: a password that is cut at its slash looks like a port.
        _ = parts.port
        return bool(parts.hostname)
    except ValueError:
        # Brackets that are no IPv6 address, or a port that is no number up to 65535.
        return False


class Registry:
    """One registry. Every method blocks, and raises `Unavailable` when it gets no such answer."""

    def __init__(self, url: str) -> None:
        if not is_address(url):
            raise NocturneError(
                "registry: expected an address like http://registry:8080/apis/ccompat/v7, "
                f"got {_without_password(url)[:200]!r}"
            )
        parts = urllib.parse.urlsplit(url)
        user, at, host = parts.netloc.rpartition("@")
        self._headers = {"Content-Type": "application/vnd.schemaregistry.v1+json"}
        if at:
            credentials = urllib.parse.unquote_to_bytes(user)
            self._headers["Authorization"] = f"Basic {base64.b64encode(credentials).decode()}"
        # From here on without the password: this is what messages show.
        self.url = urllib.parse.urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))

    def id_of(self, topic: str) -> int:
        """The id under which the registry has exactly this topic's schema."""
        found = self._lookup(topic)
        if isinstance(found, int):
            return found
        raise Unavailable(
            f"registry {self.url}: subject {subject_of(topic)}: {found.value}; "
            f"'nocturne schemas register --registry {self.url}' registers it"
        )

    def look(self) -> tuple[Subject, ...]:
        """Every subject as the registry has it now. Changes nothing."""
        return tuple(self._subject(topic) for topic in TOPICS)

    def register(self) -> tuple[Subject, ...]:
        """Bring every subject to its mode and its schema, and say how they then stand. What is so
        already is left alone. `SchemaRefused` when a subject holds what ours may not follow.
        """
        for topic in TOPICS:
            found = self._subject(topic)
            # The mode first: at no moment can someone put a version in that it would refuse.
            if found.compatibility != COMPATIBILITY[topic].value:
                self._set_mode(topic)
            if found.standing is not Standing.READY:
                self._add(topic)
        return self.look()

    def _subject(self, topic: str) -> Subject:
        found = self._lookup(topic)
        ready = isinstance(found, int)
        return Subject(
            topic,
            Standing.READY if isinstance(found, int) else found,
            found if isinstance(found, int) else None,
            self._mode(topic) if ready or found is Standing.OTHER_SCHEMA else None,
        )

    def _lookup(self, topic: str) -> int | Standing:
        answer = self._ask("POST", f"/subjects/{_quoted(topic)}", _schema_of(topic))
        if answer.status == 404 and answer.error_code == _SUBJECT_NOT_FOUND:
            return Standing.NO_SUBJECT
        if answer.status == 404 and answer.error_code == _SCHEMA_NOT_FOUND:
            return Standing.OTHER_SCHEMA
        return self._id_in(answer, topic)

    def _mode(self, topic: str) -> str | None:
        answer = self._ask("GET", f"/config/{_quoted(topic)}", None)
        if answer.status == 404 and answer.error_code in (_SUBJECT_NOT_FOUND, _MODE_NOT_SET):
            return None
        level = self._object(answer, topic).get("compatibilityLevel")
        if not isinstance(level, str):
            raise self._strange(topic, f"expected a compatibilityLevel, got {str(level)[:80]!r}")
        return level[:80]

    def _set_mode(self, topic: str) -> None:
        mode = COMPATIBILITY[topic].value
        answer = self._ask("PUT", f"/config/{_quoted(topic)}", {"compatibility": mode})
        self._object(answer, topic)

    def _add(self, topic: str) -> None:
        answer = self._ask("POST", f"/subjects/{_quoted(topic)}/versions", _schema_of(topic))
        if answer.status in (_CONFLICT, _REFUSED_SCHEMA):
            raise SchemaRefused(
                f"registry {self.url}: subject {subject_of(topic)} holds another schema, which "
                f"ours may not follow ({answer.reason}): remove that subject, or use a registry of "
                "Nocturne's own"
            )
        self._id_in(answer, topic)

    def _id_in(self, answer: _Answer, topic: str) -> int:
        schema_id = self._object(answer, topic).get("id")
        if type(schema_id) is not int or not 0 <= schema_id <= ID_MAX:
            raise self._strange(topic, f"expected an id, got {str(schema_id)[:80]!r}")
        return schema_id

    def _object(self, answer: _Answer, topic: str) -> dict[str, JsonValue]:
        if answer.status == 404:
            raise self._strange(
                topic,
                f"404 {answer.reason}: give the address of Confluent's API, as in "
                "http://registry:8081 or, of Apicurio, http://registry:8080/apis/ccompat/v7",
            )
        if 300 <= answer.status < 400:
            # Not followed: the password is for this host alone, and so is the trust in its answer.
            raise self._strange(
                topic, f"{answer.status}: it sends on to another address: give the final address"
            )
        if answer.status != 200:
            raise self._strange(topic, f"{answer.status} {answer.reason}")
        if not isinstance(answer.value, dict):
            raise self._strange(topic, "the answer is no JSON object")
        return answer.value

    def _strange(self, topic: str, what: str) -> Unavailable:
        return Unavailable(f"registry {self.url}: subject {subject_of(topic)}: {what}")

    def _ask(self, method: str, path: str, body: Mapping[str, str] | None) -> _Answer:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}{path}", data, self._headers, method=method)
        try:
            return _within_seconds_max(lambda: _exchanged(request))
        except TimeoutError as fault:
            raise Unavailable(
                f"registry {self.url}: it did not answer within {SECONDS_MAX:g} s: check that it "
                "runs and that NOCTURNE_REGISTRY_URL or --registry names it"
            ) from fault
        except Malformed as fault:
            raise Unavailable(f"registry {self.url}: its answer is not usable: {fault}") from fault
        except (OSError, http.client.HTTPException, ValueError) as fault:
            cause = getattr(fault, "reason", None) or fault
            raise Unavailable(
                f"registry {self.url}: cannot be asked ({_shown(str(cause) or repr(cause))}): "
                "check that it runs and that NOCTURNE_REGISTRY_URL or --registry names it"
            ) from fault


@dataclass(frozen=True, slots=True)
class _Answer:
    """A status and its JSON value, None when an error's body is not JSON."""

    status: int
    value: JsonValue

    @property
    def error_code(self) -> int | None:
        """Confluent's own number for what is wrong."""
        code = self.value.get("error_code") if isinstance(self.value, dict) else None
        return code if isinstance(code, int) else None

    @property
    def reason(self) -> str:
        """What the registry says is wrong, in its words, cut."""
        message = self.value.get("message") if isinstance(self.value, dict) else None
        said = message if isinstance(message, str) else http.client.responses.get(self.status, "")
        return _shown(said)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves a redirect the answer that it is; urllib would take the password to any host."""

    def redirect_request(self, *_: object) -> None:
        return None


def _within_seconds_max(work: Callable[[], _Answer]) -> _Answer:
    """What `work` gives; `TimeoutError` when that takes longer.

    A socket's own timeout begins anew with each byte, and neither it nor a clock beside the body
    sees names that are looked up, handshakes and headers. So the work is left behind in a daemon
    thread, which no process waits for: who gets the error ends, or asks again on a person's word.
    """
    done: Future[_Answer] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as fault:
            done.set_exception(fault)

    threading.Thread(target=run, name="registry", daemon=True).start()
    return done.result(SECONDS_MAX)


def _exchanged(request: urllib.request.Request) -> _Answer:
    with _opened(request) as answer:
        return _read(answer)


@contextmanager
def _opened(request: urllib.request.Request) -> Iterator[http.client.HTTPResponse]:
    """The answer, whatever its status."""
    try:
        opener = urllib.request.build_opener(_NoRedirect)
        answer = opener.open(request, timeout=SECONDS_MAX)
    except urllib.error.HTTPError as refused:
        answer = refused
    with answer:
        yield answer


def _read(answer: http.client.HTTPResponse) -> _Answer:
    """At most `ANSWER_BYTES_MAX`; ends after `SECONDS_MAX` though nobody waits any more."""
    deadline = time.monotonic() + SECONDS_MAX
    body = bytearray()
    while chunk := answer.read1(_CHUNK_BYTES):
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            raise Malformed(f"expected at most {ANSWER_BYTES_MAX} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError
    try:
        value = parse_json(bytes(body), ANSWER_BYTES_MAX, ANSWER_DEPTH_MAX)
    except Malformed:
        if answer.status == 200:
            raise
        value = None
    return _Answer(answer.status, value)


def _schema_of(topic: str) -> dict[str, str]:
    return {"schema": SCHEMAS[SCHEMA_NAMES[topic]], "schemaType": "AVRO"}


def _quoted(topic: str) -> str:
    return urllib.parse.quote(subject_of(topic), safe="")


def _shown(text: str) -> str:
    return " ".join(text.split())[:REASON_CHARACTERS_MAX]


def _without_password(url: str) -> str:
    """Of something that is no address: nothing before an `@`, which may be a secret."""
    return url.rpartition("@")[2]
