"""Settings that are lists: what stands between the commas, each checked, all of them bounded."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from nocturne.runtime.settings import PEERS_MAX, PeerSettings


def peers_of(monkeypatch: pytest.MonkeyPatch, text: str | None) -> tuple[str, ...]:
    values = {"HOME_DIR": "/tmp", "GENESIS_FILE": "/tmp/g", "LISTEN": "127.0.0.1:0", "PEERS": text}
    for name, value in values.items():
        if value is None:
            monkeypatch.delenv(f"NOCTURNE_{name}", raising=False)
        else:
            monkeypatch.setenv(f"NOCTURNE_{name}", value)
    return PeerSettings().peers


@pytest.mark.parametrize(
    "text, expected",
    [
        (None, ()),
        ("a:1", ("a:1",)),
        ("consensus-0:7400, consensus-1:7400", ("consensus-0:7400", "consensus-1:7400")),
    ],
)
def test_peers_are_addresses_with_commas_between_them(
    monkeypatch: pytest.MonkeyPatch, text: str | None, expected: tuple[str, ...]
) -> None:
    assert peers_of(monkeypatch, text) == expected


@pytest.mark.parametrize("text", ["a", "a:1,", "a:1,,b:2", "a:99999", '["a:1"]'])
def test_what_is_no_list_of_addresses_is_refused(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    with pytest.raises(ValidationError, match="expected host:port"):
        peers_of(monkeypatch, text)


def test_more_peers_than_a_ledger_has_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    many = [f"v{number}:1" for number in range(PEERS_MAX + 1)]
    assert len(peers_of(monkeypatch, ",".join(many[1:]))) == PEERS_MAX
    with pytest.raises(ValidationError, match="at most 1000 items"):
        peers_of(monkeypatch, ",".join(many))


def test_the_authorities_of_peers_are_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    peers_of(monkeypatch, "a:1")
    monkeypatch.setenv("NOCTURNE_PEERS_CA_FILE", "/run/secrets/tls/ca.crt")
    assert PeerSettings().peers_ca_file == Path("/run/secrets/tls/ca.crt")
