"""Which ledger the environment names, and what is missing there."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.vectors.synthetic import SyntheticLedger

from nocturne.cli import trust
from nocturne.cli.deployment import deployment_of
from nocturne.cli.deployment_view import (
    SERVING,
    UNREACHABLE,
    DeploymentSeen,
    ServiceSeen,
    deployment_json,
)
from nocturne.cli.failures import ExitCode, Failure
from nocturne.core.genesis import ledger_id_of
from nocturne.core.identifiers import format_hash
from nocturne.embedded.home import Home

GENESIS = SyntheticLedger(partitions=1).genesis_bytes
LEDGER_ID = ledger_id_of(GENESIS)
NAMED = {
    "NOCTURNE_QUERY_ADDRESS": "query.example.com:7400",
    "NOCTURNE_LEDGER": format_hash(LEDGER_ID),
}


def test_without_an_address_the_ledger_is_the_homes() -> None:
    assert deployment_of({}) is None
    assert deployment_of({"NOCTURNE_LEDGER": "nonsense", "NOCTURNE_CA_FILE": "x"}) is None
    assert deployment_of({"NOCTURNE_QUERY_ADDRESS": ""}) is None


def test_addresses_a_ledger_and_files_are_a_deployment(tmp_path: Path) -> None:
    found = deployment_of({**NAMED, "NOCTURNE_CA_FILE": "~/ca.crt", "NOCTURNE_TOKEN_FILE": "t"})
    assert found is not None
    assert found.services == (("query", "query.example.com:7400"),)
    assert found.ledger_id == LEDGER_ID
    assert found.genesis is None
    assert found.credentials is not None
    assert found.credentials.ca_file == Path.home() / "ca.crt"
    file = tmp_path / "genesis.avro"
    file.write_bytes(GENESIS)
    with_file = deployment_of({**NAMED, "NOCTURNE_LEDGER": str(file)})
    assert with_file is not None
    assert (with_file.ledger_id, with_file.genesis) == (LEDGER_ID, GENESIS)
    assert with_file.credentials is None


@pytest.mark.parametrize(
    "more,sentence",
    [
        ({"LEDGER": ""}, "set NOCTURNE_LEDGER to its id"),
        ({"LEDGER": "sha256-12"}, "NOCTURNE_LEDGER takes a ledger id or a genesis file"),
        ({"LEDGER": "/nowhere/at/all"}, "NOCTURNE_LEDGER takes a ledger id"),
        ({"QUERY_ADDRESS": "here"}, "NOCTURNE_QUERY_ADDRESS is no address"),
        ({"COMMAND_ADDRESS": "a:99999"}, "NOCTURNE_COMMAND_ADDRESS is no address"),
        ({"CLIENT_CERT_FILE": "a"}, "The files do not go together"),
        ({"CLIENT_CERT_FILE": "a", "CLIENT_KEY_FILE": "b"}, "name the file of the authorities"),
    ],
)
def test_what_is_missing_or_wrong_is_named(more: dict[str, str], sentence: str) -> None:
    environment = {**NAMED, **{f"NOCTURNE_{name}": value for name, value in more.items()}}
    with pytest.raises(Failure, match=sentence) as caught:
        deployment_of(environment)
    assert caught.value.code is ExitCode.BAD_USE


def test_the_environments_ledger_is_trusted_before_the_homes(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert trust.trusted(None, home) is None
    assert trust.trusted(None, home, NAMED) == LEDGER_ID
    other = f"sha256-{'0' * 64}"
    assert trust.trusted(other, home, NAMED) == bytes(32)


def test_a_deployment_is_ready_when_every_named_service_serves() -> None:
    well = ServiceSeen("query", "a:1", SERVING)
    away = ServiceSeen("command", "a:2", UNREACHABLE, "nobody is there")
    both = DeploymentSeen((well, away), LEDGER_ID, None, "command: nobody is there")
    assert (both.reached, both.ready) == (True, False)
    assert DeploymentSeen((well,), LEDGER_ID, None, None).ready
    found = deployment_json(both)
    assert isinstance(found, dict)
    assert found["home"] is None
    assert found["problem"] == "command: nobody is there"
    assert set(found["levels"].values()) == {"unknown", "not configured"}  # type: ignore[union-attr]
    nobody = DeploymentSeen((away,), LEDGER_ID, None, "x")
    assert not nobody.reached
