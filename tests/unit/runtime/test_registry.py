"""Schema ids: fixed without a registry, looked up with one, never registered."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from nocturne.core.errors import Unavailable
from nocturne.core.schemas import SCHEMAS
from nocturne.core.topics import BLOCKS, COMMANDS, FIXED_SCHEMA_IDS, SCHEMA_NAMES, TOPICS
from nocturne.runtime.registry import schema_ids, subject_of


@contextmanager
def registry(known: dict[str, tuple[int, str]]) -> Iterator[str]:
    """A registry with these subjects: the id and the schema of each."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            subject = self.path.removeprefix("/subjects/")
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            found = known.get(subject)
            matches = found is not None and found[1] == body["schema"]
            answer = {"id": found[0]} if found and matches else {"error_code": 40403}
            self.send_response(200 if matches else 404)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def all_subjects() -> dict[str, tuple[int, str]]:
    return {
        subject_of(topic): (100 + number, SCHEMAS[SCHEMA_NAMES[topic]])
        for number, topic in enumerate(TOPICS)
    }


def test_without_a_registry_the_ids_are_fixed() -> None:
    assert schema_ids(None) == FIXED_SCHEMA_IDS


def test_subjects_are_named_by_topic_and_record() -> None:
    assert subject_of(COMMANDS) == "nocturne.commands.v1-nocturne.v1.SignedCommand"
    assert subject_of(BLOCKS) == "nocturne.blocks.v1-nocturne.v1.Block"


def test_a_registry_says_its_own_ids() -> None:
    with registry(all_subjects()) as url:
        assert schema_ids(url) == {topic: 100 + number for number, topic in enumerate(TOPICS)}


def test_a_missing_or_other_schema_is_said() -> None:
    subjects = all_subjects()
    subjects[subject_of(BLOCKS)] = (5, '"string"')
    with registry(subjects) as url, pytest.raises(Unavailable, match=r"nocturne\.v1\.Block"):
        schema_ids(url)


def test_a_registry_that_is_away_is_unavailable() -> None:
    with pytest.raises(Unavailable, match="cannot be asked"):
        schema_ids("http://127.0.0.1:9")
