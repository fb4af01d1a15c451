"""The guard at the door: what it counts and says, and whom it sends away later."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from tests.certificates import Authority
from tests.machines import until

from nocturne.core import access
from nocturne.core.access import Role
from nocturne.runtime import security
from nocturne.runtime.guard import Guard
from nocturne.runtime.rpc import RpcService, serve
from nocturne.runtime.security import Security, ServerTls
from nocturne.runtime.telemetry import Metrics


@pytest.mark.parametrize("outcome", ["taken", "refused"])
def test_files_that_were_met_are_counted_from_nought(tmp_path: Path, outcome: str) -> None:
    metrics = Metrics("command")
    access = tmp_path / "callers.json"
    access.write_text(json.dumps({"principals": [{"name": "shop", "roles": ["read"]}]}))
    Guard(access, metrics)
    made = Authority().make("localhost")
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    certificate.write_bytes(made.certificate)
    key.write_bytes(made.key)
    ServerTls(certificate, key, None, metrics)
    for name in ("access_reads", "tls_reads"):
        value = metrics.registry.get_sample_value(
            f"nocturne_command_{name}_total", {"outcome": outcome}
        )
        assert value == 0.0, name


# Streams that are open ---------------------------------------------------------------------------

SECONDS_MAX = 20.0
SERVICE = "test.v1.Streams"
TOKEN = "a-token-of-the-shop"
METADATA = (("authorization", f"Bearer {TOKEN}"),)


async def happens(condition: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(until, condition, SECONDS_MAX, what)


def grant(file: Path, *names: str) -> None:
    digest = f"sha256-{access.sha256(TOKEN.encode()).hex()}"
    principals = [{"name": name, "roles": ["read"], "tokens": [digest]} for name in names]
    file.write_text(json.dumps({"principals": principals}))


def streams(ended: list[str]) -> RpcService:
    """Methods whose streams say nothing after the first message, or by the context alone."""

    async def quiet(_: bytes, __: Any) -> AsyncIterator[bytes]:
        try:
            yield b"first"
            await asyncio.Event().wait()
        finally:
            ended.append("Quiet")

    async def both(requests: Any, context: Any) -> None:
        try:
            async for one in requests:
                await context.write(one)
        finally:
            ended.append("Both")

    async def deaf(_: bytes, context: Any) -> None:
        try:
            while True:
                await context.write(b"x" * 1_000_000)
        finally:
            ended.append("Deaf")

    handlers: dict[str, Any] = {
        "Quiet": grpc.unary_stream_rpc_method_handler(quiet),
        "Both": grpc.stream_stream_rpc_method_handler(both),
        "Deaf": grpc.unary_stream_rpc_method_handler(deaf),
    }
    generic = grpc.method_handlers_generic_handler(SERVICE, handlers)
    return RpcService(SERVICE, lambda server: server.add_generic_rpc_handlers((generic,)))


def test_who_is_taken_out_of_the_file_loses_quiet_streams_and_those_it_does_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = {f"/{SERVICE}/{name}": frozenset({Role.READ}) for name in ("Quiet", "Both", "Deaf")}
    monkeypatch.setattr(access, "METHODS", methods)
    monkeypatch.setattr(security, "LOOK_SECONDS", 0.1)
    file = tmp_path / "access.json"
    grant(file, "shop")
    guard = Guard(file, Metrics("a"))
    ended: list[str] = []

    async def test() -> None:
        server = await serve("127.0.0.1:0", [streams(ended)], security=Security(None, guard))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            quiet: Any = channel.unary_stream(f"/{SERVICE}/Quiet")(b"", metadata=METADATA)
            assert await quiet.read() == b"first"
            both: Any = channel.stream_stream(f"/{SERVICE}/Both")(metadata=METADATA)
            await both.write(b"one")
            assert await both.read() == b"one"
            deaf: Any = channel.unary_stream(f"/{SERVICE}/Deaf")(b"", metadata=METADATA)
            await deaf.initial_metadata()
            # Another name for the same token: whoever still may stays.
            grant(file, "store")
            await happens(lambda: guard.version == 1, "the file is taken")
            await both.write(b"two")
            assert await both.read() == b"two"
            grant(file)
            for call in (quiet, both):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    assert await call.read() is not grpc.aio.EOF
                assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
                assert "not one that the service knows" in (caught.value.details() or "")
            await happens(lambda: len(ended) == 3, "all have ended")
            assert not guard._streams
        await server.stop(0)

    asyncio.run(asyncio.wait_for(test(), SECONDS_MAX))
    assert sorted(ended) == ["Both", "Deaf", "Quiet"]


def test_refusals_of_one_cause_do_not_hide_those_of_another(tmp_path: Path) -> None:
    file = tmp_path / "access.json"
    grant(file, "shop")
    guard = Guard(file, Metrics("a"))

    async def test() -> None:
        server = await serve("127.0.0.1:0", security=Security(None, guard))
        path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            for metadata in ((), (), (("authorization", "Bearer another-token-of-some"),), ()):
                call: Any = channel.stream_stream(path)(iter(()), metadata=metadata)
                with pytest.raises(grpc.aio.AioRpcError):
                    await call.read()
        await server.stop(0)

    with structlog.testing.capture_logs() as lines:
        asyncio.run(asyncio.wait_for(test(), SECONDS_MAX))
    causes = [one["cause"] for one in lines if one["event"] == "call_refused"]
    assert causes == ["no_credentials", "unknown_token"]
