"""Schema registries for tests: one in memory with Confluent's API, and some that misbehave."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import unquote

from nocturne.core.schemas import SCHEMAS
from nocturne.core.topics import SCHEMA_NAMES, TOPICS
from nocturne.runtime.registry import COMPATIBILITY, subject_of

Body = dict[str, str]
Answer = tuple[int, object]


@dataclass
class Fake:
    """A registry in memory, as far as Confluent's API is used; `asked` is what changed it."""

    schemas: dict[str, tuple[int, str]] = field(default_factory=dict)
    modes: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    authorization: str | None = None

    def answer(self, method: str, path: str, body: Body) -> Answer:
        kind, subject, *rest = (unquote(part) for part in path.removeprefix("/").split("/"))
        if kind == "config":
            return self.config(method, subject, body)
        found = self.schemas.get(subject)
        if rest:
            self.asked.append(("add", subject))
            if found is not None and found[1] != body["schema"]:
                return 409, {"error_code": 409, "message": "incompatible"}
            self.schemas[subject] = (100 + len(self.schemas), body["schema"])
            return 200, {"id": self.schemas[subject][0]}
        if found is None:
            return 404, {"error_code": 40401}
        if found[1] != body["schema"]:
            return 404, {"error_code": 40403}
        return 200, {"id": found[0], "subject": subject, "version": 1}

    def config(self, method: str, subject: str, body: Body) -> Answer:
        if method == "PUT":
            self.asked.append(("mode", subject))
            self.modes[subject] = body["compatibility"]
            return 200, body
        mode = self.modes.get(subject)
        if mode is None:
            return 404, {"error_code": 40401 if subject not in self.schemas else 40408}
        return 200, {"compatibilityLevel": mode}

    @staticmethod
    def complete() -> Fake:
        """One that has everything."""
        return Fake(
            {
                subject_of(topic): (100 + number, SCHEMAS[SCHEMA_NAMES[topic]])
                for number, topic in enumerate(TOPICS)
            },
            {subject_of(topic): COMPATIBILITY[topic].value for topic in TOPICS},
        )


@contextmanager
def served(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """The address of a server that answers every request so."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            with suppress(OSError):
                answer(self)

        do_GET = do_POST = do_PUT = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def registry(fake: Fake) -> Iterator[str]:
    """The address of a registry in memory."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        fake.authorization = request.headers["Authorization"]
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"] or 0)) or "{}")
        status, value = fake.answer(request.command, request.path, body)
        send(request, status, json.dumps(value).encode())

    with served(answer) as url:
        yield url


def send(request: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    request.send_response(status)
    request.end_headers()
    request.wfile.write(body)


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """The address of a server that answers everything alike."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.rfile.read(int(request.headers["Content-Length"] or 0))
        send(request, status, body)

    with served(answer) as url:
        yield url
