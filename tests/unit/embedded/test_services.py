from pathlib import Path

import pytest

from nocturne.embedded import postgres, services
from nocturne.embedded.home import Home
from nocturne.embedded.kafka import Broker
from nocturne.embedded.postgres import Server
from nocturne.embedded.services import SERVICES, USUAL_PORTS, Machine, Service


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    home = Home(tmp_path)
    server = Server(tmp_path / "postgres", 15432, tmp_path / "passwords")
    server.passwords.mkdir()
    for role in postgres.ROLES:
        (server.passwords / role).write_text(f"secret-of-{role}\n")
    broker = Broker(tmp_path / "kafka", 19092, 19093, (), Path("java"))
    return Machine(home, broker, server, USUAL_PORTS, tmp_path / "genesis.avro")


def named(name: str) -> Service:
    return next(service for service in SERVICES if service.name == name)


def test_no_two_processes_want_one_port() -> None:
    assert len(set(USUAL_PORTS.values())) == len(USUAL_PORTS)


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
    names = ("TLS_CERT_FILE", "TLS_KEY_FILE", "TLS_CLIENT_CA_FILE", "ACCESS_FILE")
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
    assert given == {"consensus-0", "signing"}


def test_every_service_listens_on_loopback_and_knows_the_genesis(machine: Machine) -> None:
    for service in SERVICES:
        settings = services.environment(machine, service)
        assert settings["NOCTURNE_LISTEN"] == f"127.0.0.1:{USUAL_PORTS[service.name]}"
        assert settings["NOCTURNE_GENESIS_FILE"] == str(machine.genesis)
