"""Schema ids: fixed without a registry, looked up with one; registered by a person, mode first."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.runtime.registries import Fake, answering, registry, served

from nocturne.core.errors import NocturneError, Unavailable
from nocturne.core.topics import BLOCKS, COMMANDS, EVENTS, FIXED_SCHEMA_IDS, TOPICS
from nocturne.runtime import registry as module
from nocturne.runtime.registry import (
    ANSWER_BYTES_MAX,
    COMPATIBILITY,
    Registry,
    SchemaRefused,
    Standing,
    is_address,
    schema_ids,
    subject_of,
)


def test_without_a_registry_the_ids_are_fixed() -> None:
    assert schema_ids(None) == FIXED_SCHEMA_IDS


def test_subjects_are_named_by_topic_and_record() -> None:
    assert subject_of(COMMANDS) == "nocturne.commands.v1-nocturne.v1.SignedCommand"
    assert subject_of(BLOCKS) == "nocturne.blocks.v1-nocturne.v1.Block"


def test_a_registry_says_its_own_ids() -> None:
    with registry(Fake.complete()) as url:
        assert schema_ids(url) == {topic: 100 + number for number, topic in enumerate(TOPICS)}


def test_looking_ids_up_changes_nothing() -> None:
    fake = Fake.complete()
    with registry(fake) as url:
        schema_ids(url)
    assert fake.asked == []


@pytest.mark.parametrize("missing", [True, False])
def test_a_missing_or_other_schema_names_the_command_to_run(missing: bool) -> None:
    fake = Fake.complete()
    del fake.schemas[subject_of(BLOCKS)]
    if not missing:
        fake.schemas[subject_of(BLOCKS)] = (5, '"string"')
    with registry(fake) as url, pytest.raises(Unavailable) as told:
        schema_ids(url)
    what = "not registered" if missing else "another schema"
    assert f"subject nocturne.blocks.v1-nocturne.v1.Block: {what}" in str(told.value)
    assert f"'nocturne schemas register --registry {url}'" in str(told.value)


def test_registering_sets_the_mode_before_the_schema_and_again_changes_nothing() -> None:
    fake = Fake()
    with registry(fake) as url:
        assert [one.standing for one in Registry(url).look()] == [Standing.NO_SUBJECT] * 6
        first = Registry(url).register()
        assert all(one.ready for one in first)
        changes = list(fake.asked)
        assert Registry(url).register() == first
    assert fake.asked == changes
    for topic in TOPICS:
        subject = subject_of(topic)
        assert [what for what, of in changes if of == subject] == ["mode", "add"]
        assert fake.modes[subject] == COMPATIBILITY[topic].value


def test_commands_may_gain_writers_later_all_else_is_read_for_ever() -> None:
    assert COMPATIBILITY[COMMANDS].value == "BACKWARD_TRANSITIVE"
    assert {COMPATIBILITY[topic].value for topic in TOPICS if topic != COMMANDS} == {
        "FULL_TRANSITIVE"
    }


def test_a_subject_under_another_mode_is_not_ready_until_registered_again() -> None:
    fake = Fake.complete()
    fake.modes[subject_of(EVENTS)] = "NONE"
    with registry(fake) as url:
        assert [one.topic for one in Registry(url).look() if not one.ready] == [EVENTS]
        assert all(one.ready for one in Registry(url).register())
    assert fake.asked == [("mode", subject_of(EVENTS))]


def test_a_subject_that_holds_something_else_is_refused_in_words() -> None:
    fake = Fake.complete()
    fake.schemas[subject_of(EVENTS)] = (5, '"string"')
    with registry(fake) as url, pytest.raises(SchemaRefused, match="holds another schema"):
        Registry(url).register()


def test_a_registry_that_is_away_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="cannot be asked"):
        schema_ids("http://127.0.0.1:9")


@pytest.mark.parametrize(
    "status, body, sentence",
    [
        (200, b"<html>", "not usable: JSON"),
        (200, b"\xff", "not usable: JSON: expected UTF-8"),
        (200, b"[" * 1000, "not usable: JSON: expected at most 16 levels"),
        (200, b"[]", "no JSON object"),
        (200, b"{}", "expected an id, got 'None'"),
        (200, b'{"id": true}', "expected an id"),
        (200, b'{"id": -1}', "expected an id"),
        (200, b'{"id": 4294967296}', "expected an id"),
        (200, b'{"id": "7"}', "expected an id"),
        (200, b" " * (ANSWER_BYTES_MAX + 1), f"expected at most {ANSWER_BYTES_MAX} bytes"),
        (404, b"<html>", "/apis/ccompat/v7"),
        (401, b'{"message": "who are you?"}', "401 who are you?"),
        (500, b"{", "500 Internal Server Error"),
        (503, b"", "503 Service Unavailable"),
    ],
)
def test_a_strange_answer_is_a_clear_sentence(status: int, body: bytes, sentence: str) -> None:
    with answering(status, body) as url, pytest.raises(Unavailable) as told:
        schema_ids(url)
    assert sentence in str(told.value)
    assert len(str(told.value)) < 700


@settings(max_examples=30, deadline=None)
@given(st.integers(200, 599).filter(lambda status: not 300 <= status < 400), st.binary())
def test_whatever_is_answered_is_unavailable(status: int, body: bytes) -> None:
    with answering(status, body) as url, pytest.raises(Unavailable):
        schema_ids(url)


def test_an_answer_that_is_no_http_is_unavailable() -> None:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(b"\x00\x01 not http at all\r\n\r\n")

    with served(answer) as url, pytest.raises(Unavailable, match="cannot be asked"):
        schema_ids(url)


def test_an_answer_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS_MAX", 0.2)
    over = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while not over.is_set():
            request.wfile.write(b" ")
            over.wait(0.01)

    with served(answer) as url:
        try:
            with pytest.raises(Unavailable, match=r"did not answer within 0\.2 s"):
                schema_ids(url)
        finally:
            over.set()


@pytest.mark.parametrize("what", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 100 Continue\r\nX: "])
def test_headers_that_drip_are_given_up(monkeypatch: pytest.MonkeyPatch, what: bytes) -> None:
    monkeypatch.setattr(module, "SECONDS_MAX", 0.2)
    over = threading.Event()
    dripped = threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        try:
            request.wfile.write(what)
            # It ends at last, and long after the deadline, so that a test of no deadline fails.
            for _ in range(300):
                request.wfile.write(b"x")
                if over.wait(0.01):
                    break
            request.wfile.write(b"\r\n\r\n")
        finally:
            dripped.set()

    with served(answer) as url:
        try:
            with pytest.raises(Unavailable, match=r"did not answer within 0\.2 s"):
                schema_ids(url)
            assert not dripped.is_set()
        finally:
            over.set()


@pytest.mark.parametrize("status", [300, 301, 302, 303, 304, 305, 307, 308, 399])
def test_a_redirect_is_not_followed_and_the_password_stays(status: int) -> None:
    other = Fake.complete()

    with registry(other) as elsewhere:

        def answer(request: BaseHTTPRequestHandler) -> None:
            request.rfile.read(int(request.headers["Content-Length"] or 0))
            request.send_response(status)
            request.send_header("Location", elsewhere + request.path)
            request.end_headers()

        with served(answer) as url:
            one = Registry(url.replace("//", "//reader:secret@"))
            with pytest.raises(Unavailable) as told:
                one.look()
            # A lookup is a POST, this is a GET: urllib sends each on for other statuses.
            with pytest.raises(Unavailable, match="give the final address"):
                one._mode(BLOCKS)
    assert f"{status}: it sends on to another address: give the final address" in str(told.value)
    assert "secret" not in str(told.value)
    assert other.authorization is None


def test_a_registry_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS_MAX", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises(Unavailable, match=r"did not answer within 0\.2 s"):
            schema_ids(url)


def test_a_password_is_sent_and_never_shown() -> None:
    fake = Fake.complete()
    with registry(fake) as url:
        address = url.replace("//", "//reader:p%40ss@")
        schema_ids(address)
        # "reader:p@ss"
        assert fake.authorization == "Basic cmVhZGVyOnBAc3M="
        fake.schemas.clear()
        with pytest.raises(Unavailable) as told:
            schema_ids(address)
    assert "p%40ss" not in str(told.value)
    assert "p@ss" not in str(told.value)


@pytest.mark.parametrize(
    "address",
    [
        *("", "registry:8081", "file:///etc/passwd", "ftp://registry", "http://", "http://[x"),
        *("http://a b", "http://u:secret@", "http://registry/?x=1", "http://registry/#x"),
        *("http://bob:hun/secret@host", "http://bob:8081/secret@host", "http://bob/secret@host"),
        *("http://registry:port", "http://registry:65536", "http://b:1/secret/@host/secret@host"),
    ],
)
def test_what_is_no_address_is_refused_before_anyone_is_asked(address: str) -> None:
    assert not is_address(address)
    with pytest.raises(NocturneError, match="expected an address") as told:
        Registry(address)
    assert "secret" not in str(told.value)


@given(st.text(max_size=60) | st.text(max_size=40).map("http://{}".format))
def test_any_text_is_an_address_or_is_not(text: str) -> None:
    if is_address(text):
        Registry(text)
