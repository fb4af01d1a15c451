"""A client's own files: what goes together, what they hold, and where a token is not sent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.certificates import Authority
from tests.vectors.synthetic import SyntheticLedger

from nocturne.client import Client, Credentials, CredentialsFault, NotConfigured
from nocturne.client.credentials import host_and_port, is_loopback, load
from nocturne.client.link import Link

AUTHORITY = Authority()


def test_a_certificate_and_its_key_go_together_and_want_tls() -> None:
    with pytest.raises(CredentialsFault, match="go together"):
        Credentials(Path("ca"), cert_file=Path("a"))
    with pytest.raises(CredentialsFault, match="shown over TLS only"):
        Credentials(cert_file=Path("a"), key_file=Path("b"))


def test_the_files_are_read(tmp_path: Path) -> None:
    certificate, key = AUTHORITY.make("me").write(tmp_path, "me")
    token = tmp_path / "token"
    token.write_text("a-token-of-somebody\n")
    found = load(Credentials(AUTHORITY.write(tmp_path / "ca"), certificate, key, token))
    assert found.is_tls
    assert found.authorities == AUTHORITY.certificate
    assert found.token == "a-token-of-somebody"
    assert "a-token" not in repr(found)
    assert "PRIVATE" not in repr(found)


@pytest.mark.parametrize("token", ["", "short", "two words of a token", "x" * 4_097, "é" * 20])
def test_what_is_no_token_is_refused_and_not_shown(tmp_path: Path, token: str) -> None:
    file = tmp_path / "token"
    file.write_text(token)
    with pytest.raises(CredentialsFault, match="expected 16 to 4096 visible") as caught:
        load(Credentials(token_file=file))
    assert not token or token not in str(caught.value)


def test_a_file_that_is_gone_is_named(tmp_path: Path) -> None:
    for own in (
        Credentials(ca_file=tmp_path / "gone"),
        Credentials(token_file=tmp_path / "gone"),
    ):
        with pytest.raises(CredentialsFault, match="gone: cannot be read"):
            load(own)


@pytest.mark.parametrize(
    "address,host,port",
    [("127.0.0.1:1", "127.0.0.1", 1), ("[::1]:7400", "::1", 7400), ("a.b:65535", "a.b", 65535)],
)
def test_an_address_has_its_parts(address: str, host: str, port: int) -> None:
    assert host_and_port(address) == (host, port)


@pytest.mark.parametrize("address", ["", "a", ":1", "a:", "a:b", "a:65536", "a:" + "1" * 5_000])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(CredentialsFault, match="expected host:port") as caught:
        host_and_port(address)
    assert len(str(caught.value)) < 200


def test_only_this_machine_is_loopback() -> None:
    for address in ("localhost:1", "127.0.0.1:1", "127.9.9.9:1", "[::1]:1"):
        assert is_loopback(address)
    for address in ("10.0.0.1:1", "localhost.example.com:1", "[::2]:1", "0.0.0.0:1", "command:1"):
        assert not is_loopback(address)


def test_a_token_goes_to_another_machine_over_tls_only(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-token-of-somebody")
    ca = AUTHORITY.write(tmp_path / "ca")
    for address, own in (
        ("command:7400", Credentials(ca_file=ca, token_file=token)),
        ("127.0.0.1:7400", Credentials(token_file=token)),
    ):
        link = Link("command", address, lambda channel: channel, own)
        assert link.metadata == (("authorization", "Bearer a-token-of-somebody"),)
    with pytest.raises(CredentialsFault, match="not sent to command:7400 in plain text"):
        Link("command", "command:7400", lambda channel: channel, Credentials(token_file=token))


def test_files_that_become_bad_change_nothing_until_they_are_good(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-token-of-somebody")

    async def renewed() -> None:
        link = Link("query", "127.0.0.1:1", lambda channel: channel, Credentials(token_file=token))
        assert not await link.renew()
        token.write_text("no token")
        assert not await link.renew()
        assert link.metadata == (("authorization", "Bearer a-token-of-somebody"),)
        token.write_text("the-next-token-of-it")
        assert await link.renew()
        assert link.metadata == (("authorization", "Bearer the-next-token-of-it"),)
        await link.close()

    asyncio.run(renewed())


def test_a_connection_is_kept_for_the_call_that_is_on_it(tmp_path: Path) -> None:
    ca = AUTHORITY.write(tmp_path / "ca")

    async def renewed() -> None:
        link = Link("query", "127.0.0.1:1", lambda channel: channel, Credentials(ca_file=ca))
        async with link.stub() as first:
            ca.write_bytes(Authority("next").certificate)
            assert await link.renew()
            async with link.stub() as second:
                assert second is not first
            # Not closed while a call is on it.
            assert first.get_state().name == "IDLE"
        await asyncio.sleep(0)
        assert first.get_state().name == "SHUTDOWN"
        async with link.stub() as again:
            assert again is second
        await link.close()

    asyncio.run(renewed())


def test_a_service_without_an_address_is_not_configured() -> None:
    ledger = SyntheticLedger(partitions=1)

    async def asked() -> None:
        async with Client(None, genesis=ledger.genesis_bytes) as client:
            with pytest.raises(NotConfigured, match="no address of a query service"):
                await client.status()
            with pytest.raises(NotConfigured, match="no address of a command service"):
                await anext(client.submit_many([]))

    asyncio.run(asked())
