"""The HTTP address of a process: metrics and probes, whoever else is connected."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter

from nocturne.core.errors import Unavailable
from nocturne.runtime.http_server import CONNECTION_SECONDS_MAX, CONNECTIONS_MAX, HttpServer
from nocturne.runtime.vitals import Vitals

SECONDS_MAX = 10.0


@pytest.fixture
def vitals() -> Vitals:
    return Vitals()


@pytest.fixture
def server(vitals: Vitals) -> Iterator[HttpServer]:
    registry = CollectorRegistry()
    Counter("things", "Things counted", registry=registry).inc(3)
    made = HttpServer(registry, vitals, "127.0.0.1:0")
    yield made
    made.close()


def asked(
    server: HttpServer, path: str, method: str = "GET", **headers: str
) -> tuple[int, str, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=SECONDS_MAX)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.headers["Content-Type"], answer.read()


def test_readyz_says_what_the_vitals_say(server: HttpServer, vitals: Vitals) -> None:
    status, kind, body = asked(server, "/readyz")
    assert (status, kind) == (503, "application/json")
    assert json.loads(body) == {"ready": False, "why": "starting"}
    vitals.set_serving(True)
    status, _, body = asked(server, "/readyz?verbose")
    assert (status, json.loads(body)) == (200, {"ready": True})


def test_livez_is_not_readyz(server: HttpServer, vitals: Vitals) -> None:
    vitals.stop()
    assert asked(server, "/readyz")[0] == 503
    status, _, body = asked(server, "/livez")
    assert (status, json.loads(body)) == (200, {"live": True})


def test_metrics_are_in_the_form_that_is_asked_for(server: HttpServer) -> None:
    status, kind, body = asked(server, "/metrics")
    assert status == 200
    assert kind.startswith("text/plain; version=0.0.4")
    assert b"\nthings_total 3.0\n" in body
    _, kind, body = asked(server, "/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_anything_else_is_refused(server: HttpServer) -> None:
    assert asked(server, "/")[0] == 404
    assert asked(server, "/metrics/../readyz")[0] == 404
    assert asked(server, "/metrics", "POST")[0] == 501
    assert asked(server, "/metrics", "DELETE")[0] == 501
    status, _, body = asked(server, "/livez", "HEAD")
    assert (status, body) == (200, b"")


def test_bytes_that_are_no_request_end_their_connection_alone(server: HttpServer) -> None:
    for data in (
        b"\x00\xff\n\n",
        b"GET\r\n\r\n",
        b"A" * 70_000 + b"\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ):
        with (
            socket.create_connection(("127.0.0.1", server.port), SECONDS_MAX) as one,
            contextlib.suppress(ConnectionError),
        ):
            one.sendall(data)
            while one.recv(4096):
                pass
    assert asked(server, "/livez")[0] == 200


def test_who_holds_connections_open_loses_the_oldest_and_keeps_no_probe_waiting(
    server: HttpServer,
) -> None:
    with contextlib.ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), SECONDS_MAX))
            for _ in range(3 * CONNECTIONS_MAX)
        ]
        assert asked(server, "/livez")[0] == 200
        # Its end is seen long before the time-out of a connection that is left alone.
        silent[0].settimeout(2.0)
        assert silent[0].recv(1) == b""


def test_connections_that_come_faster_than_others_are_closed_are_bounded_too(
    server: HttpServer,
) -> None:
    with contextlib.ExitStack() as stack:
        opened = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), SECONDS_MAX))
            for _ in range(10 * CONNECTIONS_MAX)
        ]
        # Each but the newest is closed by the server, and not by its time-out.
        for one in opened[:-CONNECTIONS_MAX]:
            one.settimeout(CONNECTION_SECONDS_MAX / 2)
            with contextlib.suppress(ConnectionError):
                assert one.recv(1) == b""


def test_closing_ends_open_connections(vitals: Vitals) -> None:
    server = HttpServer(CollectorRegistry(), vitals, "127.0.0.1:0")
    with socket.create_connection(("127.0.0.1", server.port), SECONDS_MAX) as one:
        # Accepted: something was answered after it came.
        assert asked(server, "/livez")[0] == 200
        server.close()
        one.settimeout(2.0)
        assert one.recv(1) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port), 1.0)


def test_a_taken_address_is_said(server: HttpServer, vitals: Vitals) -> None:
    with pytest.raises(Unavailable, match="is it taken"):
        HttpServer(CollectorRegistry(), vitals, f"127.0.0.1:{server.port}")
