"""The HTTP address of a process: `/metrics` for Prometheus, `/livez` and `/readyz` for probes.

Rules: docs/guides/observability.md. It runs in threads of its own, so that it answers while the
event loop is stuck, and says so. Whoever reaches it can read and nothing else: GET and HEAD alone,
no request body, bounded connections.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import socketserver
import threading
from collections import OrderedDict
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from nocturne.core.errors import Unavailable
from nocturne.runtime.vitals import Answer, Vitals

CONNECTIONS_MAX: Final = 16
"""At once; one more and the oldest is closed, so that nobody who holds connections open keeps a
probe from being answered."""
CONNECTION_SECONDS_MAX: Final = 5.0
"""How long a connection may say nothing, or not take what it asked for."""
CLOSE_SECONDS: Final = 0.5
"""After so long at the latest the thread sees that it is to end; it wakes for it all the time."""
METRICS: Final = "/metrics"
LIVEZ: Final = "/livez"
READYZ: Final = "/readyz"

_log = logging.getLogger("nocturne.http")


class HttpServer:
    """Serves a registry and the vitals at `listen` (host:port) until closed.

    `Unavailable` when it cannot listen there.
    """

    def __init__(self, registry: CollectorRegistry, vitals: Vitals, listen: str) -> None:
        host, _, port = listen.rpartition(":")
        try:
            self._server = _Server(host.strip("[]"), int(port), registry, vitals)
        except OSError as fault:
            raise Unavailable(
                f"address {listen}: cannot listen there ({fault.strerror}), is it taken?"
            ) from fault
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="http", daemon=True, args=(CLOSE_SECONDS,)
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The port in use."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Stop serving; connections that are open are closed."""
        self._server.shutdown()
        self._server.server_close()
        self._server.close_all()
        self._thread.join()


class _Server(socketserver.ThreadingMixIn, HTTPServer):
    daemon_threads = True
    block_on_close = False
    # A taken port is an error; one in TIME_WAIT is not.
    allow_reuse_address = True
    # A burst waits in the kernel; beyond its queue a connection has to come again a second later.
    request_queue_size = 128

    def __init__(self, host: str, port: int, registry: CollectorRegistry, vitals: Vitals) -> None:
        self.registry = registry
        self.vitals = vitals
        self._open: OrderedDict[socket.socket, None] = OrderedDict()
        self._lock = threading.Lock()
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        self.address_family = found[0][0]
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own would ask the resolver for this machine's name.
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open[request] = None
            oldest = None
            if len(self._open) > CONNECTIONS_MAX:
                # Taken out here: its thread may come to it later than the next connection does,
                # and that one has to close another.
                oldest, _ = self._open.popitem(last=False)
        if oldest is not None:
            _shut(oldest)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A caller that went away, or was closed for a newer one: nobody is left to be told.
        _log.debug("connection ended", exc_info=True)

    def close_all(self) -> None:
        with self._lock:
            left = list(self._open)
        for one in left:
            _shut(one)


def _shut(connection: socket.socket) -> None:
    """Wake the thread that reads it, with the end of the stream; that thread closes it."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """One answer a connection: HTTP/1.0, closed after it."""

    server: _Server
    server_version = "nocturne"
    sys_version = ""
    timeout = CONNECTION_SECONDS_MAX

    def do_GET(self) -> None:
        """Answer."""
        match urlsplit(self.path).path:
            case "/metrics":
                encode, content_type = choose_encoder(self.headers.get("Accept", ""))
                self._send(200, content_type, encode(self.server.registry))
            case "/livez":
                self._tell("live", self.server.vitals.live())
            case "/readyz":
                self._tell("ready", self.server.vitals.ready())
            case _:
                text = f"not here: there are {METRICS}, {LIVEZ} and {READYZ}\n"
                self._send(404, "text/plain; charset=utf-8", text.encode())

    do_HEAD = do_GET  # noqa: N815

    def _tell(self, what: str, answer: Answer) -> None:
        told: dict[str, object] = {what: answer.yes}
        if answer.why:
            told["why"] = answer.why
        body = json.dumps(told).encode() + b"\n"
        self._send(200 if answer.yes else 503, "application/json", body)

    def _send(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Probes come every few seconds: no line for each."""
