from pathlib import Path

import pytest

from nocturne.deploy.contributions import VALIDATORS_MAX
from nocturne.embedded import postgres, services
from nocturne.embedded.home import Home
from nocturne.embedded.kafka import Broker
from nocturne.embedded.postgres import Server
from nocturne.embedded.services import Machine, Service, services_of, usual_ports

SERVICES = services_of(4)
USUAL_PORTS = usual_ports(4)
VALIDATORS = {f"consensus-{ordinal}" for ordinal in range(4)}


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    home = Home(tmp_path)
    server = Server(tmp_path / "postgres", 15432, tmp_path / "passwords")
    server.passwords.mkdir()
    for role in postgres.ROLES:
        (server.passwords / role).write_text(f"secret-of-{role}\n")
    broker = Broker(tmp_path / "kafka", 19092, 19093, (), Path("java"))
    return Machine(home, broker, server, USUAL_PORTS, tmp_path / "genesis.avro", 4)


def named(name: str) -> Service:
    return next(service for service in SERVICES if service.name == name)


@pytest.mark.parametrize("validators", range(1, VALIDATORS_MAX + 1))
def test_no_two_processes_want_one_port(validators: int) -> None:
    wanted = usual_ports(validators)
    assert len(set(wanted.values())) == len(wanted)
    assert len(wanted) == 3 + 2 * (validators + 4)


def test_each_validator_knows_the_addresses_of_all_and_nobody_else_does(machine: Machine) -> None:
    peers = "127.0.0.1:17440,127.0.0.1:17441,127.0.0.1:17442,127.0.0.1:17443"
    given = {
        s.name: services.environment(machine, s).get("NOCTURNE_PEERS") for s in machine.services
    }
    assert {name for name, value in given.items() if value is not None} == VALIDATORS
    assert {given[name] for name in VALIDATORS} == {peers}


def test_each_validator_has_a_home_and_a_key_of_its_own(machine: Machine) -> None:
    settings = [services.environment(machine, s) for s in services.validators_of(4)]
    for name in ("HOME_DIR", "KEY_FILE", "LISTEN", "METRICS_LISTEN"):
        assert len({one[f"NOCTURNE_{name}"] for one in settings}) == 4, name
    assert settings[3]["NOCTURNE_KEY_FILE"] == str(
        machine.home.keys("consensus-3") / "validator.key"
    )


def test_query_is_given_no_way_to_write(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOCTURNE_KAFKA_BOOTSTRAP", "127.0.0.1:9092")
    settings = services.environment(machine, named("query"))
    assert "NOCTURNE_KAFKA_BOOTSTRAP" not in settings
    assert "NOCTURNE_KEY_FILE" not in settings
    assert settings["NOCTURNE_POSTGRES_DSN"].startswith("postgresql://nocturne_query:")


def test_no_embedded_service_takes_tls_or_an_access_file_from_the_environment(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would never become healthy, and nobody else reaches them."""
    names = ("TLS_CERT_FILE", "TLS_KEY_FILE", "TLS_CLIENT_CA_FILE", "ACCESS_FILE", "PEERS_CA_FILE")
    for name in names:
        monkeypatch.setenv(f"NOCTURNE_{name}", "/somewhere")
    for service in SERVICES:
        settings = services.environment(machine, service)
        assert not {f"NOCTURNE_{name}" for name in names} & settings.keys()


def test_how_another_broker_or_database_is_met_is_no_setting_of_this_machines(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("KAFKA_SECURITY_PROTOCOL", "KAFKA_PASSWORD_FILE", "POSTGRES_PASSWORD_FILE"):
        monkeypatch.setenv(f"NOCTURNE_{name}", "elsewhere")
    given = [services.environment(machine, service) for service in SERVICES]
    for settings in (*given, services.migrations_environment(machine.server)):
        assert "elsewhere" not in settings.values()


def test_only_the_projection_and_query_are_given_a_password(machine: Machine) -> None:
    given = {
        s.name for s in SERVICES if "NOCTURNE_POSTGRES_DSN" in services.environment(machine, s)
    }
    assert given == {"projection", "query"}


def test_only_validators_and_signing_are_given_a_key(machine: Machine) -> None:
    given = {s.name for s in SERVICES if "NOCTURNE_KEY_FILE" in services.environment(machine, s)}
    assert given == {*VALIDATORS, "signing"}


def test_every_service_listens_on_loopback_and_knows_the_genesis(machine: Machine) -> None:
    for service in SERVICES:
        settings = services.environment(machine, service)
        assert settings["NOCTURNE_LISTEN"] == f"127.0.0.1:{USUAL_PORTS[service.name]}"
        assert settings["NOCTURNE_GENESIS_FILE"] == str(machine.genesis)
