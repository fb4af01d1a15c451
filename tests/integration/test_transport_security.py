"""TLS and roles at the services' doors: who comes in, who does not and why, on both sides; and that
certificates and principals are replaced without a restart and without a failed call.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tests.certificates import CLIENT, DAY, SERVER, Authority, Made
from tests.integration.test_command_service import FACTS, CommandStand
from tests.machines import free_ports, until
from tests.secure_server import CALLER, methods
from tests.stand import Running, fresh_topics
from tests.vectors.synthetic import SyntheticLedger

from nocturne.client import (
    AccessDenied,
    Client,
    Committed,
    Credentials,
    CredentialsFault,
    Level,
    Result,
    TlsRefused,
)
from nocturne.client.credentials import Loaded, load
from nocturne.client.operating import OperatorClient
from nocturne.client.transport import channel
from nocturne.core.access import METHODS, Role
from nocturne.core.commands import SignedCommand
from nocturne.core.genesis import ledger_id_of
from nocturne.core.identifiers import format_hash
from nocturne.embedded.kafka import Broker
from nocturne.embedded.processes import launched
from nocturne.runtime.certificates import Pair
from nocturne.wire.query.v1 import query_pb2, query_pb2_grpc

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[2]
SECONDS_MAX = 60.0
"""Of waits for a condition: a process that starts on a busy machine is the longest."""
OVERTAKEN_MAX = 20
"""Calls until one shows the refusal (see `_refused`)."""
HOST = "127.0.0.1"
GENESIS = SyntheticLedger(partitions=1).genesis_bytes


def digest_of(token: str) -> str:
    return f"sha256-{hashlib.sha256(token.encode()).hexdigest()}"


def token_of(name: str) -> str:
    return f"token-of-{name}-0123456789"


def principal(name: str, *roles: str, certificates: Sequence[str] = ()) -> dict[str, object]:
    return {
        "name": name,
        "roles": list(roles),
        "tokens": [digest_of(token_of(name))],
        "certificates": list(certificates),
    }


@dataclass
class Server:
    """A running process with its doors."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / "server.log"
        self.authority = Authority()
        self.ca_file = self.authority.write(self.folder / "ca.crt")
        self.access_file = self.folder / "access.json"

    @property
    def genesis_file(self) -> Path:
        return self.folder / "genesis"

    def start(self, *, access: Sequence[object] | None = None, **environment: str) -> Server:
        self.genesis_file.write_bytes(GENESIS)
        ports = free_ports("grpc", "metrics")
        self.address = f"{HOST}:{ports['grpc']}"
        self.metrics = f"http://{HOST}:{ports['metrics']}/metrics"
        settings = {
            "HOME_DIR": str(self.folder / "home"),
            "GENESIS_FILE": str(self.genesis_file),
            "LISTEN": self.address,
            "METRICS_LISTEN": f"{HOST}:{ports['metrics']}",
            **environment,
        }
        if access is not None:
            self.grant(access)
            settings["ACCESS_FILE"] = str(self.access_file)
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                launched([sys.executable, "-m", "tests.secure_server"]),
                env={**os.environ, **{f"NOCTURNE_{n}": v for n, v in settings.items()}},
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        until(self._answers, SECONDS_MAX, "the server answers")
        return self

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        host, _, port = self.address.rpartition(":")
        try:
            socket.create_connection((host, int(port)), 2).close()
        except OSError:
            return False
        return True

    def scrape(self) -> str:
        try:
            with urllib.request.urlopen(self.metrics, timeout=2) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    def counted(self, name: str, label: str) -> float:
        found = re.search(rf'nocturne_secure_{name}_total{{[a-z]+="{label}"}} (\S+)', self.scrape())
        return 0.0 if found is None else float(found[1])

    def said(self, event: str) -> list[dict[str, Any]]:
        """The log's lines of one event."""
        lines = [json.loads(one) for one in self.log.read_text().splitlines() if one[:1] == "{"]
        return [one for one in lines if one["event"] == event]

    def grant(self, principals: Sequence[object]) -> None:
        fresh = self.access_file.with_suffix(".fresh")
        fresh.write_text(json.dumps({"principals": principals}))
        fresh.replace(self.access_file)

    def tls(self, made: Made, *, mutual: bool = False) -> dict[str, str]:
        certificate, key = made.write(self.folder, "server")
        found = {"TLS_CERT_FILE": str(certificate), "TLS_KEY_FILE": str(key)}
        return found | ({"TLS_CLIENT_CA_FILE": str(self.ca_file)} if mutual else {})

    def credentials(self, made: Made | None = None, token: str | None = None) -> Credentials:
        cert = key = token_file = None
        if made is not None:
            cert, key = made.write(self.folder / "client", "client")
        if token is not None:
            token_file = self.folder / "token"
            token_file.write_text(token + "\n")
        return Credentials(self.ca_file, cert, key, token_file)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(SECONDS_MAX)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "server")
    yield made
    made.stop()


def good(server: Server) -> Made:
    return server.authority.make("server", "localhost", HOST, use=SERVER)


def ask(
    server: Server, credentials: Credentials | None, address: str | None = None
) -> query_pb2.GetStatusResponse | None:
    """One call as the SDK makes it; what is wrong comes out as the SDK says it."""

    async def asked() -> Any:
        async with Client(
            None,
            address or server.address,
            genesis=GENESIS,
            credentials=credentials,
            deadline_seconds=3.0,
        ) as client:
            return await client.session("orders/1")

    return asyncio.run(asyncio.wait_for(asked(), SECONDS_MAX))


# Refused, with a reason on both sides -----------------------------------------------------------


def test_a_client_certificate_of_the_right_authority_comes_in(server: Server) -> None:
    server.start(**server.tls(good(server), mutual=True))
    assert ask(server, server.credentials(server.authority.make("shop", use=CLIENT))) is not None


BAD_CLIENTS: dict[str, tuple[Callable[[Server], Made | None], str, str]] = {
    "none": (
        lambda server: None,
        "demands a client certificate, and none was given",
        "no_certificate",
    ),
    "of a wrong authority": (
        lambda server: Authority("stranger").make("shop", use=CLIENT),
        "of no authority that the server trusts",
        "unknown_authority",
    ),
    "expired": (
        lambda server: server.authority.make("shop", begins=-2 * DAY, ends=-DAY, use=CLIENT),
        "the certificate has expired",
        "expired",
    ),
    "not valid yet": (
        lambda server: server.authority.make("shop", begins=DAY, ends=2 * DAY, use=CLIENT),
        "the certificate is not valid yet",
        "not_yet_valid",
    ),
    "for servers only": (
        lambda server: server.authority.make("shop", use=SERVER),
        "not for this use",
        "wrong_purpose",
    ),
}


def test_a_bad_client_certificate_is_refused_with_the_reason_on_both_sides(server: Server) -> None:
    server.start(**server.tls(good(server), mutual=True))
    for name, (make, sentence, cause) in BAD_CLIENTS.items():
        with pytest.raises(TlsRefused, match=sentence):
            ask(server, server.credentials(make(server)))
        until(
            lambda cause=cause: server.counted("tls_handshakes_failed", cause) > 0,  # type: ignore[misc]
            SECONDS_MAX,
            f"a certificate {name} is counted as {cause}: {server.log.read_text()}",
        )
    # A line a cause, in the log's own form; none of gRPC's is left beside them.
    assert len(server.said("tls_handshake_failed")) >= len(BAD_CLIENTS)
    assert all(line[:1] == "{" for line in server.log.read_text().splitlines())


def test_a_client_refuses_a_server_certificate_of_a_wrong_authority(server: Server) -> None:
    server.start(**server.tls(Authority("stranger").make("server", HOST)))
    with pytest.raises(TlsRefused, match="of no authority that is trusted here"):
        ask(server, server.credentials())


def test_a_client_refuses_a_server_certificate_of_another_name(server: Server) -> None:
    server.start(**server.tls(server.authority.make("server", "other.example.com")))
    with pytest.raises(TlsRefused, match=f"certificate is not for {HOST}"):
        ask(server, server.credentials())
    with pytest.raises(TlsRefused, match="certificate is not for localhost"):
        ask(server, server.credentials(), server.address.replace(HOST, "localhost"))


def test_an_expired_server_certificate_is_refused_and_the_server_says_that_it_is(
    server: Server,
) -> None:
    server.start(**server.tls(server.authority.make("s", HOST, begins=-2 * DAY, ends=-DAY)))
    with pytest.raises(TlsRefused, match="the server's certificate has expired"):
        ask(server, server.credentials())
    (line,) = server.said("tls_certificate_unusable")
    assert line["cause"] == "the certificate has expired"


def test_plain_text_to_a_server_of_tls_and_the_other_way_is_said(
    server: Server, tmp_path: Path
) -> None:
    server.start(**server.tls(good(server)))
    with pytest.raises(TlsRefused, match="the server speaks TLS: name the file"):
        ask(server, None)
    until(lambda: server.counted("tls_handshakes_failed", "no_tls") > 0, SECONDS_MAX, "counted")
    plain = Server(tmp_path / "plain").start()
    try:
        with pytest.raises(TlsRefused, match="the server speaks no TLS"):
            ask(plain, plain.credentials())
    finally:
        plain.stop()


def test_settings_that_do_not_go_together_end_the_process_with_a_line_each(tmp_path: Path) -> None:
    certificate, key = Authority().make("s").write(tmp_path, "server")
    for given, lines in (
        ({"TLS_CERT_FILE": str(certificate)}, ["NOCTURNE_TLS_KEY_FILE: "]),
        ({"TLS_KEY_FILE": str(key)}, ["NOCTURNE_TLS_KEY_FILE: "]),
        ({"TLS_CLIENT_CA_FILE": str(certificate)}, ["NOCTURNE_TLS_CLIENT_CA_FILE: "]),
    ):
        found = _ended(tmp_path, given)
        assert found.returncode == 2, found.stderr
        said = [one for one in found.stderr.decode().splitlines() if one[:1] != "{"]
        assert len(said) == len(lines)
        assert all(expected in line for expected, line in zip(lines, said, strict=True))


def test_files_that_are_no_good_at_the_start_are_named(tmp_path: Path) -> None:
    certificate, key = Authority().make("s").write(tmp_path, "server")
    _, other_key = Authority().make("s").write(tmp_path, "other")
    broken = tmp_path / "access.json"
    broken.write_text('{"principals": [{"name": "shop", "roles": ["everything"]}]}')
    pair = {"TLS_CERT_FILE": str(certificate), "TLS_KEY_FILE": str(key)}
    for given, sentence in (
        (pair | {"TLS_KEY_FILE": str(other_key)}, "is not the one of the certificate in"),
        (pair | {"TLS_CERT_FILE": str(tmp_path / "gone")}, "cannot be read"),
        (pair | {"TLS_CLIENT_CA_FILE": str(key)}, "expected certificates of authorities in PEM"),
        ({"ACCESS_FILE": str(broken)}, "shop has the role 'everything'"),
    ):
        found = _ended(tmp_path, given)
        assert found.returncode == 1, found.stderr
        assert sentence in found.stderr.decode()


def _ended(folder: Path, given: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    genesis_file = folder / "genesis"
    genesis_file.write_bytes(GENESIS)
    settings = {
        "HOME_DIR": str(folder / "home"),
        "GENESIS_FILE": str(genesis_file),
        "LISTEN": f"{HOST}:0",
        **given,
    }
    return subprocess.run(
        [sys.executable, "-m", "tests.secure_server"],
        env={**os.environ, **{f"NOCTURNE_{name}": value for name, value in settings.items()}},
        cwd=ROOT,
        capture_output=True,
        timeout=SECONDS_MAX,
        check=False,
    )


# Roles ------------------------------------------------------------------------------------------

WAYS = ("token", "certificate")


async def _answered(call: Any) -> dict[str, str]:
    """The trailing metadata of a call that is answered, of one answer or of a stream of them."""
    if hasattr(call, "__aiter__"):
        async for _ in call:
            break
        call.cancel()
        return {}
    await call
    return dict(await call.trailing_metadata())


async def _refused(ask: Callable[[], Awaitable[Any]]) -> grpc.aio.AioRpcError:
    """How `ask` is refused. gRPC's client says INTERNAL instead of the status when the server's
    answer overtakes the request that it still writes: then it is asked again.
    """
    for _ in range(OVERTAKEN_MAX):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask()
        if "execute_batch" not in caught.value.debug_error_string():
            break
    return caught.value


def _call(
    link: grpc.aio.Channel, path: str, method: Any, metadata: Any, *, silent: bool = False
) -> Any:
    """A call of a method; a stream of requests has one, or none if it is `silent`: gRPC's client
    may say INTERNAL when a call is refused while it still writes.
    """
    request = method.input_type._concrete_class()
    given: dict[str, Any] = {
        "request_serializer": method.input_type._concrete_class.SerializeToString,
        "response_deserializer": method.output_type._concrete_class.FromString,
    }
    if method.client_streaming:
        return link.stream_stream(path, **given)(
            iter([] if silent else [request]), metadata=metadata
        )
    if method.server_streaming:
        return link.unary_stream(path, **given)(request, metadata=metadata)
    return link.unary_unary(path, **given)(request, metadata=metadata)


@pytest.mark.parametrize("way", WAYS)
def test_each_role_calls_its_methods_and_no_other(server: Server, way: str) -> None:
    by_certificate = way == "certificate"
    access = [principal(role, role, certificates=[f"{role}.example.com"]) for role in Role]
    server.start(access=access, **server.tls(good(server), mutual=by_certificate))
    refused_calls = itertools.count()

    async def tried(role: Role) -> None:
        own = (
            server.credentials(server.authority.make("x", f"{role}.example.com", use=CLIENT))
            if by_certificate
            else server.credentials()
        )
        metadata = () if by_certificate else [("authorization", f"Bearer {token_of(role)}")]
        async with channel(server.address, load(own)) as link:
            for path, method in methods():
                allowed = METHODS[path]

                async def ask(path: str = path, method: Any = method) -> dict[str, str]:
                    silent = role not in METHODS[path]
                    if silent:
                        next(refused_calls)
                    return await _answered(_call(link, path, method, metadata, silent=silent))

                if role in allowed:
                    caller = (await ask()).get(CALLER, role.value)
                    assert caller == role, "the service is told who calls"
                    continue
                refused = await _refused(ask)
                assert refused.code() is grpc.StatusCode.PERMISSION_DENIED, path
                words = refused.details() or ""
                assert words.startswith(f"{role} lacks the role "), words
                assert all(one in words for one in allowed), words

    async def all_tried() -> None:
        for role in Role:
            await tried(role)

    asyncio.run(asyncio.wait_for(all_tried(), 4 * SECONDS_MAX))
    calls = next(refused_calls)
    assert calls >= sum(role not in METHODS[path] for role in Role for path, _ in methods())
    assert server.counted("calls_refused", "lacks_role") == calls


def test_without_credentials_only_health_answers(server: Server) -> None:
    server.start(access=[principal("shop", "read")])

    async def tried() -> None:
        async with channel(server.address) as link:
            for path, method in methods():
                refused = await _refused(
                    lambda path=path, method=method: _answered(
                        _call(link, path, method, (), silent=True)
                    )
                )
                assert refused.code() is grpc.StatusCode.UNAUTHENTICATED
                assert "no credentials: send a token" in (refused.details() or "")
            health: Any = health_pb2_grpc.HealthStub(link)
            answer = await health.Check(health_pb2.HealthCheckRequest())
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            async for answer in health.Watch(health_pb2.HealthCheckRequest()):
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
                break
            refused = await _refused(lambda: reflected(link, ()))
            assert refused.code() is grpc.StatusCode.UNAUTHENTICATED
            names = await reflected(link, [("authorization", f"Bearer {token_of('shop')}")])
            assert "nocturne.query.v1.QueryService" in names

    asyncio.run(asyncio.wait_for(tried(), SECONDS_MAX))
    assert server.counted("calls_refused", "no_credentials") > 0
    assert server.said("call_refused")[0]["cause"] == "no_credentials"
    assert [one["event"] for one in server.said("tokens_in_plain_text")]


async def reflected(link: grpc.aio.Channel, metadata: Any) -> set[str]:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(link)  # type: ignore[arg-type]
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    async for answer in stub.ServerReflectionInfo(iter([request]), metadata=metadata):
        return {one.name for one in answer.list_services_response.service}
    raise AssertionError("no answer")


def test_what_is_wrong_with_credentials_is_said_to_the_caller(server: Server) -> None:
    access = [
        principal("shop", "submit", certificates=["shop.example.com"]),
        principal("desk", "read", certificates=["spiffe://example.com/desk"]),
    ]
    server.start(access=access, **server.tls(good(server), mutual=True))
    make = server.authority.make
    stranger = make("stranger", "stranger.example.com")
    both = make("both", "shop.example.com", "spiffe://example.com/desk")
    shop = make("shop", "shop.example.com")
    for made, token, sentence in (
        (stranger, None, r"the client certificate \('stranger.example.com'\) is not one that"),
        (both, None, "is of more than one principal: 'desk, shop'"),
        (shop, None, "shop lacks the role read or audit, which QueryService/GetSession takes"),
        # The token decides, though the certificate alone would do.
        (shop, token_of("nobody"), "the token is not one that the service knows"),
    ):
        with pytest.raises(AccessDenied, match=sentence):
            ask(server, server.credentials(made, token))
    assert ask(server, server.credentials(shop, token_of("desk"))) is not None


def test_a_stream_of_commands_without_the_role_is_refused_with_the_reason(server: Server) -> None:
    """Each time, though gRPC's client may say INTERNAL when it is refused while it writes."""
    server.start(access=[principal("desk", "read")])
    (server.folder / "token").write_text(token_of("desk"))
    own = Credentials(token_file=server.folder / "token")
    ledger = SyntheticLedger(partitions=1)
    commands = [ledger.command("orders/1", b"{}") for _ in range(3)]

    async def submitted() -> None:
        async with Client(server.address, genesis=GENESIS, credentials=own) as client:
            async for _ in client.submit_many(commands):
                raise AssertionError("nothing was submitted")

    for _ in range(5):
        with pytest.raises(AccessDenied, match="desk lacks the role submit, which Command"):
            asyncio.run(asyncio.wait_for(submitted(), SECONDS_MAX))


def test_a_token_is_not_sent_in_plain_text_to_another_machine(server: Server) -> None:
    server.start(access=[principal("shop", "read")])
    (server.folder / "token").write_text(token_of("shop"))
    own = Credentials(token_file=server.folder / "token")
    assert ask(server, own) is not None
    with pytest.raises(CredentialsFault, match=r"not sent to ledger.example.com:7400 in plain"):
        ask(server, own, "ledger.example.com:7400")


# Replaced while calls go on ---------------------------------------------------------------------


@dataclass
class Calls:
    """How many calls were answered, and the client that keeps its connection."""

    answered: int = 0
    lasting: Client | None = None

    def loaded(self) -> Loaded:
        """What that client shows and trusts now."""
        link = None if self.lasting is None else self.lasting._query
        assert link is not None
        return link._loaded


@asynccontextmanager
async def steady_calls(server: Server, own: Credentials, callers: int) -> AsyncIterator[Calls]:
    """Calls one after the other from several callers, each now and then over a new connection;
    any that fails ends the test.
    """
    calls = Calls()
    over = asyncio.Event()

    async def call(client: Client) -> None:
        assert await client.session("orders/1") is not None
        calls.answered += 1

    async def keep_calling() -> None:
        while not over.is_set():
            async with Client(None, server.address, genesis=GENESIS, credentials=own) as client:
                for _ in range(10):
                    await call(client)
                    await asyncio.sleep(0.005)

    async def keep_one() -> None:
        async with Client(None, server.address, genesis=GENESIS, credentials=own) as client:
            calls.lasting = client
            while not over.is_set():
                await call(client)
                await asyncio.sleep(0.005)

    working = [asyncio.ensure_future(keep_calling()) for _ in range(callers)]
    working.append(asyncio.ensure_future(keep_one()))
    try:
        yield calls
        over.set()
        await asyncio.gather(*working)
    finally:
        for one in working:
            one.cancel()


async def happens(condition: Callable[[], bool], what: str) -> None:
    # In a thread, so that calls go on meanwhile.
    await asyncio.to_thread(until, condition, SECONDS_MAX, what)


async def served_serial(server: Server) -> bytes:
    """The certificate that a new connection is given."""
    return (await asyncio.to_thread(ssl.get_server_certificate, _place(server))).encode()


def _place(server: Server) -> tuple[str, int]:
    host, _, port = server.address.rpartition(":")
    return host, int(port)


def test_a_server_certificate_is_replaced_under_calls_and_none_fails(server: Server) -> None:
    first, second = good(server), good(server)
    token = token_of("shop")
    server.start(access=[principal("shop", "read")], **server.tls(first))
    own = server.credentials(token=token)

    async def replaced() -> None:
        async with steady_calls(server, own, 2) as calls:
            await happens(lambda: calls.answered > 50, "calls before")
            # The certificate first and its key later: a pair that does not belong together.
            (server.folder / "server.crt").write_bytes(second.certificate)
            await happens(lambda: len(server.said("tls_refused")) == 1, "the mismatch is said")
            before = calls.answered
            await happens(lambda: calls.answered > before + 50, "calls go on with the old pair")
            assert first.certificate.strip() == (await served_serial(server)).strip()
            # Half of the certificate: the file is being written.
            half = second.certificate[: len(second.certificate) // 2]
            (server.folder / "server.crt").write_bytes(half)
            await happens(lambda: len(server.said("tls_refused")) == 2, "the half one is said")
            second.write(server.folder, "server")
            await happens(lambda: len(server.said("tls_taken")) == 1, "the whole pair is taken")
            before = calls.answered
            await happens(lambda: calls.answered > before + 50, "calls go on with the new pair")
            assert second.certificate.strip() == (await served_serial(server)).strip()

    asyncio.run(asyncio.wait_for(replaced(), 4 * SECONDS_MAX))
    assert server.counted("tls_reads", "refused") == 2
    assert server.counted("tls_reads", "taken") == 1


def test_authorities_and_client_certificates_are_replaced_under_calls_and_none_fails(
    server: Server,
) -> None:
    """The order that an operator keeps: trust the new one, change over, forget the old one."""
    next_authority = Authority("next")
    server.start(**server.tls(good(server), mutual=True))
    own = server.credentials(server.authority.make("shop", use=CLIENT))
    both = server.authority.certificate + next_authority.certificate

    async def replaced() -> None:
        async with steady_calls(server, own, 2) as calls:

            async def calls_go_on(what: str) -> None:
                before = calls.answered
                await happens(lambda: calls.answered > before + 50, what)

            await calls_go_on("before")
            server.ca_file.write_bytes(both)
            await happens(lambda: len(server.said("tls_taken")) == 1, "both are trusted")
            fresh = next_authority.make("shop", use=CLIENT)
            fresh.write(server.folder / "client", "client")
            next_authority.make("server", HOST, use=SERVER).write(server.folder, "server")
            await happens(lambda: len(server.said("tls_taken")) == 2, "the server changed over")
            await happens(
                lambda: calls.loaded().pair == Pair(fresh.certificate, fresh.key),
                "the client changed over",
            )
            server.ca_file.write_bytes(next_authority.certificate)
            await happens(lambda: len(server.said("tls_taken")) == 3, "the old one is forgotten")
            await calls_go_on("after")

    asyncio.run(asyncio.wait_for(replaced(), 4 * SECONDS_MAX))
    with pytest.raises(TlsRefused, match="of no authority that the server trusts"):
        ask(server, server.credentials(server.authority.make("shop", use=CLIENT)))


def test_the_access_file_is_replaced_under_calls_and_a_broken_one_changes_nothing(
    server: Server,
) -> None:
    shop = principal("shop", "read")
    server.start(access=[shop])
    (server.folder / "token").write_text(token_of("shop"))
    own = Credentials(token_file=server.folder / "token")

    async def replaced() -> None:
        async with steady_calls(server, own, 2) as calls:
            await happens(lambda: calls.answered > 50, "calls before")
            server.access_file.write_text('{"principals": [')
            await happens(lambda: len(server.said("access_refused")) == 1, "it is said")
            before = calls.answered
            await happens(lambda: calls.answered > before + 100, "calls go on with the old one")
            assert len(server.said("access_refused")) == 1, "and said once"
            server.grant([principal("desk", "read"), shop])
            await happens(lambda: len(server.said("access_taken")) == 1, "it is taken")
            # Another token for the same principal: first both count, then the new one alone.
            fresh = dict(shop, tokens=[digest_of(token_of("shop")), digest_of(token_of("next"))])
            server.grant([fresh])
            await happens(lambda: len(server.said("access_taken")) == 2, "both count")
            (server.folder / "token").write_text(token_of("next"))
            await happens(
                lambda: calls.loaded().token == token_of("next"), "the client changed over"
            )
            server.grant([dict(shop, tokens=[digest_of(token_of("next"))])])
            await happens(lambda: len(server.said("access_taken")) == 3, "the old one is gone")
            before = calls.answered
            await happens(lambda: calls.answered > before + 50, "calls go on with the new token")

    asyncio.run(asyncio.wait_for(replaced(), 4 * SECONDS_MAX))
    assert server.counted("access_reads", "refused") == 1
    assert server.counted("access_reads", "taken") == 3


def test_who_is_taken_out_of_the_access_file_loses_the_streams_that_are_open(
    server: Server,
) -> None:
    server.start(access=[principal("shop", "read")])
    metadata = [("authorization", f"Bearer {token_of('shop')}")]

    async def followed() -> None:
        async with channel(server.address) as link:
            stub: Any = query_pb2_grpc.QueryServiceStub(link)
            answers = stub.ListEvents(query_pb2.ListEventsRequest(follow=True), metadata=metadata)
            count = 0

            async def all_answers() -> None:
                nonlocal count
                async for _ in answers:
                    count += 1
                    if count == 3:
                        server.grant([principal("desk", "read")])

            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await all_answers()
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert count > 3

    asyncio.run(asyncio.wait_for(followed(), SECONDS_MAX))


def test_the_operators_client_says_the_same(server: Server) -> None:
    access = [principal("op", "operate"), principal("shop", "read")]
    server.start(access=access, **server.tls(good(server)))

    async def asked(own: Credentials) -> None:
        async with OperatorClient(server.address, ledger_id_of(GENESIS), own) as client:
            assert (await client.governance()).number == 3

    asyncio.run(asked(server.credentials(token=token_of("op"))))
    with pytest.raises(AccessDenied, match="shop lacks the role audit or operate, which Control"):
        asyncio.run(asked(server.credentials(token=token_of("shop"))))
    server.ca_file.write_bytes(Authority("stranger").certificate)
    with pytest.raises(TlsRefused, match="of no authority that is trusted here"):
        asyncio.run(asked(server.credentials(token=token_of("op"))))


# The command line -------------------------------------------------------------------------------


def nocturne(
    server: Server, own: Credentials, *words: str, **more: str
) -> subprocess.CompletedProcess[str]:
    """The command line, told of the server by its environment."""
    files = {
        "CA_FILE": own.ca_file,
        "CLIENT_CERT_FILE": own.cert_file,
        "CLIENT_KEY_FILE": own.key_file,
        "TOKEN_FILE": own.token_file,
    }
    given = {
        "HOME": str(server.folder / "own-home"),
        "COMMAND_ADDRESS": server.address,
        "QUERY_ADDRESS": server.address,
        "CONTROL_ADDRESS": server.address,
        "LEDGER": format_hash(ledger_id_of(GENESIS)),
        **{name: str(path) for name, path in files.items() if path is not None},
        **more,
    }
    return subprocess.run(
        [sys.executable, "-m", "nocturne.cli", *words],
        env={**os.environ, **{f"NOCTURNE_{name}": value for name, value in given.items()}},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )


def test_the_command_line_reads_from_a_deployment_that_the_environment_names(
    server: Server,
) -> None:
    access = [principal("desk", "read", "audit")]
    server.start(access=access, **server.tls(good(server), mutual=True))
    own = server.credentials(server.authority.make("desk", use=CLIENT), token_of("desk"))
    found = nocturne(server, own, "status", "--json")
    assert found.returncode == 0, found.stderr
    seen = json.loads(found.stdout)
    assert [(one["name"], one["health"]) for one in seen["services"]] == [
        ("command", "serving"),
        ("query", "serving"),
        ("consensus", "serving"),
    ]
    assert seen["ready"] is True
    assert seen["events"] == 7
    assert seen["ledgerId"] == format_hash(ledger_id_of(GENESIS))
    assert "serving" in nocturne(server, own, "status").stdout
    assert json.loads(nocturne(server, own, "policy", "show", "--json").stdout)["number"] == 3
    # By its id the genesis is fetched and checked; by its file it is not even asked for.
    for ledger in (format_hash(ledger_id_of(GENESIS)), str(server.genesis_file)):
        listed = nocturne(server, own, "sessions", LEDGER=ledger)
        assert listed.returncode == 0, listed.stderr
    other = nocturne(server, own, "sessions", LEDGER=f"sha256-{'0' * 64}")
    assert other.returncode == 1
    assert "not of the one that is trusted" in other.stderr


def test_the_command_line_says_in_one_sentence_why_it_is_refused(server: Server) -> None:
    access = [principal("desk", "read"), principal("op", "operate")]
    server.start(access=access, **server.tls(good(server), mutual=True))
    make = server.authority.make
    good_one = server.credentials(make("desk", use=CLIENT), token_of("desk"))
    stranger = Authority("stranger").write(server.folder / "stranger.crt")
    for own, words, code, sentence in (
        (good_one, ("policy", "show"), 1, "desk lacks the role audit or operate"),
        (good_one, ("export", "a", "x.export"), 1, "desk lacks the role audit, which"),
        (replace(good_one, token_file=None), ("sessions",), 1, "is not one that the service knows"),
        (replace(good_one, ca_file=stranger), ("sessions",), 3, "of no authority that is trusted"),
        (
            replace(good_one, cert_file=None, key_file=None),
            ("sessions",),
            3,
            "the server demands a client certificate, and none was given",
        ),
        (Credentials(), ("sessions",), 3, "the server speaks TLS: name the file"),
    ):
        found = nocturne(server, own, *words)
        assert found.returncode == code, found.stderr
        assert sentence in " ".join(found.stderr.split())
        assert "Traceback" not in found.stderr
    unreachable = nocturne(server, replace(good_one, ca_file=stranger), "status", "--json")
    assert unreachable.returncode == 3
    assert {one["health"] for one in json.loads(unreachable.stdout)["services"]} == {"unreachable"}


def test_the_command_line_names_what_is_missing_in_its_environment(server: Server) -> None:
    server.start()
    plain = Credentials()
    for more, words, sentence in (
        ({"LEDGER": ""}, ("sessions",), "set NOCTURNE_LEDGER to its id"),
        ({"LEDGER": "nowhere"}, ("sessions",), "NOCTURNE_LEDGER takes a ledger id"),
        ({"QUERY_ADDRESS": ""}, ("sessions",), "set NOCTURNE_QUERY_ADDRESS"),
        ({"QUERY_ADDRESS": "here"}, ("sessions",), "NOCTURNE_QUERY_ADDRESS is no address"),
        ({"CONTROL_ADDRESS": ""}, ("policy", "show"), "set NOCTURNE_CONTROL_ADDRESS"),
        ({"COMMAND_ADDRESS": ""}, ("submit", "a", "B", "{}"), "set NOCTURNE_COMMAND_ADDRESS"),
        ({"CLIENT_CERT_FILE": "x"}, ("sessions",), "a client certificate and its key go together"),
    ):
        found = nocturne(server, plain, *words, **more)
        assert found.returncode == 2, (more, found.stderr)
        assert sentence in " ".join(found.stderr.split())


# The command service ----------------------------------------------------------------------------


def test_no_command_is_lost_while_certificates_and_principals_are_replaced(
    kafka_broker: Broker, tmp_path: Path
) -> None:
    """A real command service, validator and authority; commands over one stream and one by one."""
    stand = CommandStand(tmp_path / "stand", kafka_broker.bootstrap)
    fresh_topics(kafka_broker.bootstrap, stand.partitions)
    doors = Server(tmp_path / "doors")
    shop = principal("shop", "submit")
    doors.grant([shop])
    settings = doors.tls(good(doors), mutual=True) | {"ACCESS_FILE": str(doors.access_file)}
    own = doors.credentials(doors.authority.make("shop", use=CLIENT), token_of("shop"))
    try:
        stand.start("consensus")
        stand.start("signing")
        running = stand.start_command(**{f"NOCTURNE_{n}": v for n, v in settings.items()})
        asyncio.run(asyncio.wait_for(_replaced_while_submitting(stand, running, doors, own), 60))
        lines = [json.loads(one) for one in running.said().splitlines()]
        assert sum(one["event"] == "tls_taken" for one in lines) == 2
        assert sum(one["event"] == "access_taken" for one in lines) == 2
        assert not [one for one in lines if one["event"] == "call_refused"]
        assert running.stop() == 0, running.said()
    finally:
        stand.stop_all()


async def _replaced_while_submitting(
    stand: CommandStand, running: Running, doors: Server, own: Credentials
) -> None:
    over = asyncio.Event()
    results: list[Result] = []
    numbers = itertools.count(1)

    def counted(event: str) -> int:
        return running.said().count(f'"{event}"')

    async def commands() -> AsyncIterator[SignedCommand]:
        while not over.is_set():
            number = next(numbers)
            yield stand.make(f"stream/{number}", number, opening=FACTS)
            await asyncio.sleep(0.01)

    async def over_one_stream(client: Client) -> None:
        async for _, result in client.submit_many(commands(), wait=Level.CERTIFIED):
            results.append(result)

    async def one_by_one() -> None:
        while not over.is_set():
            async with Client(
                running.address, genesis=stand.genesis_file.read_bytes(), credentials=own
            ) as client:
                for _ in range(5):
                    number = next(numbers)
                    signed = stand.make(f"single/{number}", number, opening=FACTS)
                    results.append(await client.submit(signed, wait=Level.CERTIFIED))

    async def go_on() -> None:
        before = len(results)
        await happens(lambda: len(results) > before + 30, "commands go on")

    await happens(lambda: counted("serving") > 0, "the command service serves")
    async with Client(
        running.address, genesis=stand.genesis_file.read_bytes(), credentials=own
    ) as client:
        working = [asyncio.ensure_future(over_one_stream(client))]
        working += [asyncio.ensure_future(one_by_one()) for _ in range(2)]
        await go_on()
        for number in (1, 2):
            good(doors).write(doors.folder, "server")
            doors.grant([principal(f"desk-{number}", "read"), principal("shop", "submit")])
            await happens(lambda number=number: counted("tls_taken") == number, "certificate")  # type: ignore[misc]
            await happens(lambda number=number: counted("access_taken") == number, "principals")  # type: ignore[misc]
            await go_on()
        over.set()
        await asyncio.gather(*working)
    assert len(results) == next(numbers) - 1
    assert all(isinstance(one, Committed) for one in results)
