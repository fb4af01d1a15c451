"""A server's files under its feet: what is taken, what is not, and how long an old one counts."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from tests.certificates import CLIENT, DAY, SERVER, Authority, Made
from tests.machines import until
from tests.raw_http2 import PREFACE, SETTINGS

from nocturne.runtime import rpc, security
from nocturne.runtime.guard import Guard
from nocturne.runtime.rpc import RpcService, serve
from nocturne.runtime.security import Security, ServerTls
from nocturne.runtime.settings import ServiceSettings
from nocturne.runtime.telemetry import Metrics

HOST = "127.0.0.1"
SECONDS_MAX = 20.0
AUTHORITY = Authority()
NEXT = Authority("next")


def good() -> Made:
    return AUTHORITY.make("server", HOST, use=SERVER)


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(test(), SECONDS_MAX))


async def happens(condition: Callable[[], bool], what: str) -> None:
    await asyncio.to_thread(until, condition, SECONDS_MAX, what)


def mutual(folder: Path, made: Made) -> ServerTls:
    ca_file = AUTHORITY.write(folder / "ca.crt")
    return ServerTls(*made.write(folder, "server"), ca_file, Metrics("a"))


# What is taken -----------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["expired", "mismatch", "gone"])
def test_an_authority_is_withdrawn_though_the_certificate_cannot_be_used(
    tmp_path: Path, broken: str
) -> None:
    expired = AUTHORITY.make("server", HOST, begins=-2 * DAY, ends=-DAY)
    tls = mutual(tmp_path, expired if broken == "expired" else good())
    if broken == "mismatch":
        (tmp_path / "server.key").write_bytes(good().key)
    if broken == "gone":
        (tmp_path / "server.crt").unlink()
    NEXT.write(tmp_path / "ca.crt")
    tls.look()
    assert tls._held.authorities == NEXT.certificate


def test_a_certificate_is_taken_though_the_authorities_cannot_be_used(tmp_path: Path) -> None:
    tls = mutual(tmp_path, good())
    (tmp_path / "ca.crt").write_bytes(b"")
    fresh = good()
    fresh.write(tmp_path, "server")
    tls.look()
    assert tls._held.pair.certificate == fresh.certificate
    assert tls._held.authorities == AUTHORITY.certificate


def test_files_are_taken_that_are_put_in_place_by_a_link_as_kubernetes_does(
    tmp_path: Path,
) -> None:
    """Of a Secret, files are links through the link `..data`, which is replaced by a new one."""
    principals = {"principals": [{"name": "shop", "roles": ["read"]}]}

    def put(version: str, made: Made, names: int) -> None:
        made.write(tmp_path / version, "server")
        AUTHORITY.write(tmp_path / version / "ca.crt")
        (tmp_path / version / "access.json").write_text(
            json.dumps(principals if names else {"principals": []})
        )
        fresh = tmp_path / "..data_tmp"
        fresh.symlink_to(version)
        fresh.replace(tmp_path / "..data")

    first, second = good(), good()
    put("..1", first, 0)
    for name in ("server.crt", "server.key", "ca.crt", "access.json"):
        (tmp_path / name).symlink_to(Path("..data") / name)
    metrics = Metrics("a")
    files = [tmp_path / name for name in ("server.crt", "server.key", "ca.crt")]
    both = Security(ServerTls(*files, metrics), Guard(tmp_path / "access.json", metrics))
    assert both.tls is not None
    assert both.guard is not None
    put("..2", second, 1)
    both.look()
    assert both.tls._held.pair.certificate == second.certificate
    assert len(both.guard.access.principals) == 1
    # A Secret that is withdrawn leaves links to nowhere: the last good ones stay.
    (tmp_path / "..data").unlink()
    both.look()
    assert both.tls._held.pair.certificate == second.certificate
    assert len(both.guard.access.principals) == 1


def test_a_look_that_fails_is_not_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "LOOK_SECONDS", 0.01)
    looks: list[int] = []

    class Failing(Security):
        def look(self) -> None:
            looks.append(1)
            raise [ValueError("a mistake"), OSError("no descriptor")][len(looks) % 2]

    async def test() -> None:
        watching = asyncio.ensure_future(Failing(None, None).watch())
        await happens(lambda: len(looks) > 3, "it looks again and again")
        watching.cancel()

    run(test)


# What is left open --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "listen, files, said",
    [
        ("127.0.0.1:0", (), []),
        ("[::1]:0", (), []),
        ("localhost:0", (), []),
        ("0.0.0.0:0", (), ["TLS_CERT_FILE", "ACCESS_FILE"]),
        ("[::]:0", (), ["TLS_CERT_FILE", "ACCESS_FILE"]),
        ("ledger.example.com:0", ("access_file",), ["TLS_CERT_FILE"]),
        ("10.0.0.1:0", ("tls_cert_file", "tls_key_file"), ["ACCESS_FILE"]),
        ("10.0.0.1:0", ("tls_cert_file", "tls_key_file", "access_file"), []),
    ],
)
def test_what_is_open_to_a_network_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    listen: str,
    files: tuple[str, ...],
    said: list[str],
) -> None:
    # Its thread would read this process's stderr.
    monkeypatch.setattr(security, "HandshakeLog", lambda _: None)
    certificate, key = good().write(tmp_path, "server")
    access_file = tmp_path / "access.json"
    access_file.write_text('{"principals": []}')
    known = {"tls_cert_file": certificate, "tls_key_file": key, "access_file": access_file}
    given: dict[str, Any] = {name: known[name] for name in files}
    settings = ServiceSettings(
        home_dir=tmp_path, genesis_file=tmp_path / "genesis", listen=listen, **given
    )
    with structlog.testing.capture_logs() as lines:
        security.security_of(settings, Metrics("a"))
    causes = [one["cause"] for one in lines if one["event"] == "open_to_the_network"]
    assert len(causes) == (1 if said else 0)
    for name in said:
        assert f"{name} is not set" in causes[0]


def test_settings_that_are_shown_show_no_password(tmp_path: Path) -> None:
    settings = ServiceSettings(
        home_dir=tmp_path,
        genesis_file=tmp_path / "genesis",
        listen="127.0.0.1:0",
        registry_url="http://user:a-password@registry:8080",
    )
    assert "a-password" not in repr(settings)
    assert "a-password" not in str(settings)


# How long a certificate counts -------------------------------------------------------------------


@pytest.mark.slow
def test_a_client_certificate_that_has_expired_is_not_let_in_by_a_ticket_from_before(
    tmp_path: Path,
) -> None:
    """A session that is resumed is one whose certificate nobody looks at again."""
    versions = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)
    client = AUTHORITY.make("shop", ends=timedelta(seconds=3), use=CLIENT)
    expires = time.time() + 3
    files = client.write(tmp_path, "client")

    def shake(
        port: int, context: ssl.SSLContext, session: ssl.SSLSession | None
    ) -> tuple[bool, ssl.SSLSession | None]:
        """Whether the server speaks to us, and the ticket that it gave."""
        plain = socket.create_connection((HOST, port), SECONDS_MAX)
        with plain, context.wrap_socket(plain, server_hostname=HOST, session=session) as secure:
            secure.sendall(PREFACE + SETTINGS)
            return secure.recv(9) != b"", secure.session

    def refused(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None) -> bool:
        try:
            return not shake(port, context, session)[0]
        except OSError:
            return True

    def context_of(version: ssl.TLSVersion) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=AUTHORITY.certificate.decode())
        context.load_cert_chain(*files)
        context.set_alpn_protocols(["h2"])
        context.minimum_version = context.maximum_version = version
        return context

    async def test() -> None:
        server = await serve(f"{HOST}:0", security=Security(mutual(tmp_path, good()), None))
        tickets = []
        for context in map(context_of, versions):
            came_in, ticket = await asyncio.to_thread(shake, server.port, context, None)
            assert came_in
            assert ticket is not None
            tickets.append((context, ticket))
        await asyncio.to_thread(until, lambda: time.time() > expires + 1, 10, "it has expired")
        for context, ticket in tickets:
            assert await asyncio.to_thread(refused, server.port, context, None)
            assert await asyncio.to_thread(refused, server.port, context, ticket)
        await server.stop(0)

    run(test)


def following() -> RpcService:
    """A method whose stream does not end by itself."""

    async def follow(_: bytes, __: Any) -> Any:
        yield b"first"
        await asyncio.Event().wait()

    handlers: dict[str, Any] = {"Follow": grpc.unary_stream_rpc_method_handler(follow)}
    generic = grpc.method_handlers_generic_handler("test.v1.Follow", handlers)
    return RpcService("test.v1.Follow", lambda server: server.add_generic_rpc_handlers((generic,)))


def test_a_connection_over_tls_ends_in_time_with_its_streams_and_is_not_made_again_without_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of an hour and ten minutes, a second and a half."""
    given = dict(rpc._TLS_OPTIONS)
    assert given["grpc.max_connection_age_ms"] == security.CONNECTION_SECONDS_MAX * 1000
    assert given["grpc.max_connection_age_grace_ms"] == security.GRACE_SECONDS * 1000
    short = {"grpc.max_connection_age_ms": 1_000, "grpc.max_connection_age_grace_ms": 500}
    monkeypatch.setattr(rpc, "_TLS_OPTIONS", tuple(short.items()))
    client = AUTHORITY.make("shop", use=CLIENT)
    tls = mutual(tmp_path, good())
    credentials = grpc.ssl_channel_credentials(
        AUTHORITY.certificate, client.key, client.certificate
    )

    async def test() -> None:
        server = await serve(f"{HOST}:0", [following()], security=Security(tls, None))
        address = f"{HOST}:{server.port}"
        async with grpc.aio.secure_channel(address, credentials) as channel:
            follow: Any = channel.unary_stream("/test.v1.Follow/Follow")
            stream = follow(b"")
            assert await stream.read() == b"first"
            # The server's own authority stays; only whose clients it takes is another now.
            NEXT.write(tmp_path / "ca.crt")
            await happens(lambda: tls._held.authorities == NEXT.certificate, "it is taken")
            # The connection was made before: its stream goes on until its time is over.
            with pytest.raises(grpc.aio.AioRpcError):
                await stream.read()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await follow(b"").read()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        await server.stop(0)

    run(test)
