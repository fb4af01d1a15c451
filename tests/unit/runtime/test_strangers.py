"""What anybody who reaches a service's address can do to it: nothing that lasts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import resource
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.machines import until
from tests.raw_http2 import answer, request

from nocturne.core.errors import Unavailable
from nocturne.runtime import rpc
from nocturne.runtime.guard import Guard
from nocturne.runtime.rpc import RpcServer, serve
from nocturne.runtime.security import Security
from nocturne.runtime.telemetry import Metrics

HOST = "127.0.0.1"
SECONDS_MAX = 20.0
SERVED = b"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
SECRET = b"a-token-that-is-nearly-right"


@pytest.fixture
def access_file(tmp_path: Path) -> Path:
    file = tmp_path / "access.json"
    file.write_text(json.dumps({"principals": [{"name": "shop", "roles": ["read"]}]}))
    return file


@asynccontextmanager
async def served(access_file: Path | None = None) -> AsyncIterator[RpcServer]:
    guard = None if access_file is None else Guard(access_file, Metrics("a"))
    server = await serve(f"{HOST}:0", security=Security(None, guard))
    await server.set_serving(True)
    try:
        yield server
    finally:
        await server.stop(0)


async def serves(server: RpcServer) -> bool:
    async with grpc.aio.insecure_channel(f"{HOST}:{server.port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            found = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5.0)
        except grpc.aio.AioRpcError:
            return False
        return bool(found.status == health_pb2.HealthCheckResponse.SERVING)


def limited(test: Callable[[], Any]) -> None:
    asyncio.run(asyncio.wait_for(test(), SECONDS_MAX))


@pytest.mark.parametrize(
    "path, headers",
    [
        (b"/a\xff/b", ()),
        (b"\xff", ()),
        (SERVED, ((b"authorization", b"Bearer " + SECRET + b"\xff"),)),
        (SERVED, ((b"traceparent", b"\xfe" * 55),)),
    ],
    ids=["path", "no path", "token", "metadata"],
)
def test_a_call_that_is_no_text_ends_alone_and_nothing_of_it_is_logged(
    access_file: Path, caplog: pytest.LogCaptureFixture, path: bytes, headers: Any
) -> None:
    async def called() -> None:
        async with served(access_file) as server:
            for _ in range(5):
                await asyncio.to_thread(answer, server.port, request(path, headers))
            assert await serves(server), "the server still answers"

    with caplog.at_level(logging.DEBUG):
        limited(called)
    for record in caplog.records:
        assert "Invalid encoding" not in record.getMessage()
        assert SECRET.decode() not in record.getMessage()
        fault = record.exc_info[1] if record.exc_info else None
        # Neither is of the call: an answer that the server's stop cuts off, and a completion that
        # gRPC's one poller of the process has for the closed loop of another test.
        if not isinstance(fault, asyncio.CancelledError | RuntimeError):
            assert record.levelno < logging.ERROR, record.getMessage()


def with_option(monkeypatch: pytest.MonkeyPatch, name: str, value: int) -> None:
    options = {**dict(rpc._SERVER_OPTIONS), name: value}
    monkeypatch.setattr(rpc, "_SERVER_OPTIONS", tuple(options.items()))


def test_connections_beyond_the_bound_are_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rpc, "CONNECTIONS_MAX", 3)

    async def called() -> None:
        async with served() as server:
            with contextlib.ExitStack() as stack:
                opened = [
                    stack.enter_context(socket.create_connection((HOST, server.port), 5))
                    for _ in range(12)
                ]
                await asyncio.to_thread(
                    until, lambda: _closed(opened) == 9, SECONDS_MAX, "the others are closed"
                )
            await asyncio.to_thread(
                until, lambda: _is_kept(server.port), SECONDS_MAX, "there is room again"
            )

    limited(called)


def _closed(connections: list[socket.socket]) -> int:
    """How many of them the server has closed."""
    count = 0
    for one in connections:
        one.settimeout(0.02)
        try:
            # What a server of HTTP/2 says first is not looked at; it waits for the preface.
            count += one.recv(65536, socket.MSG_PEEK) == b""
        except TimeoutError:
            continue
        except ConnectionError:
            count += 1
    return count


def _is_kept(port: int) -> bool:
    with socket.create_connection((HOST, port), 5) as one:
        return _closed([one]) == 0


def test_a_connection_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    with_option(monkeypatch, "grpc.server_handshake_timeout_ms", 300)

    async def called() -> None:
        async with served() as server:
            with socket.create_connection((HOST, server.port), 5) as one:
                await asyncio.to_thread(_read_to_the_end, one)

    limited(called)


def _read_to_the_end(connection: socket.socket) -> None:
    connection.settimeout(SECONDS_MAX)
    while connection.recv(65536):
        pass


@pytest.mark.parametrize(
    "descriptors, connections",
    [(256, 128), (1_024, 512), (1_048_576, 8_192), (resource.RLIM_INFINITY, 8_192)],
)
def test_connections_leave_half_of_the_descriptors_to_others(
    monkeypatch: pytest.MonkeyPatch, descriptors: int, connections: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (descriptors, descriptors))
    assert rpc.connections_max() == connections


def test_the_bounds_of_connections_are_given_to_grpc() -> None:
    given = dict(rpc._SERVER_OPTIONS)
    assert given["grpc.server_handshake_timeout_ms"] == rpc.HANDSHAKE_SECONDS_MAX * 1000
    assert given["grpc.max_concurrent_streams"] == rpc.STREAMS_MAX


def test_health_has_room_for_so_many_watchers_and_still_answers_checks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rpc, "WATCHES_MAX", 2)

    async def called() -> None:
        async with (
            served() as server,
            grpc.aio.insecure_channel(f"{HOST}:{server.port}") as channel,
        ):
            stub: Any = health_pb2_grpc.HealthStub(channel)
            watches = [stub.Watch(health_pb2.HealthCheckRequest()) for _ in range(2)]
            for one in watches:
                assert (await one.read()).status == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Watch(health_pb2.HealthCheckRequest()).read()
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert await serves(server)
            watches[0].cancel()
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    freed = stub.Watch(health_pb2.HealthCheckRequest())
                    await freed.read()
                    break

    limited(called)


def test_a_server_that_ends_by_itself_ends_the_services_work() -> None:
    async def work() -> None:
        async with served() as server:
            part = asyncio.ensure_future(server.served())
            await asyncio.sleep(0)
            assert not part.done()
            await server._server.stop(0)
            with pytest.raises(Unavailable, match="ended by itself"):
                await asyncio.wait_for(part, SECONDS_MAX)

    asyncio.run(work())


def test_a_server_that_is_stopped_is_only_done_with_its_part() -> None:
    async def work() -> None:
        async with served() as server:
            part = asyncio.ensure_future(server.served())
            cancelled = asyncio.ensure_future(server.served())
            await asyncio.sleep(0)
            cancelled.cancel()
            await server.stop(0)
            await asyncio.wait_for(part, SECONDS_MAX)

    asyncio.run(work())
