"""The table of what runs on one machine, and the settings each process is given."""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nocturne.deploy.ceremony import validator_name
from nocturne.deploy.ceremony import validators_of as validators_in_genesis
from nocturne.embedded import kafka, postgres
from nocturne.embedded.home import Home
from nocturne.embedded.kafka import Broker
from nocturne.embedded.postgres import Server
from nocturne.embedded.processes import Process, grpc_serves
from nocturne.runtime.files import write_file
from nocturne.runtime.lifecycle import EXIT_HALTED, EXIT_SETTINGS

HOST = "127.0.0.1"
VALIDATORS_DEFAULT = 4
"""Of a ledger that is founded here, when nobody says how many."""


@dataclass(frozen=True, slots=True)
class Service:
    """One Nocturne service: its process `name`, its `module`, and what it is trusted with."""

    name: str
    module: str
    usual_port: int
    kafka: bool = False
    postgres_role: str | None = None
    key: str | None = None
    peers: bool = False
    """Whether it speaks with the validators: it is one."""

    @property
    def component(self) -> str:
        """What it is one of, as metrics and principals have it: `consensus`."""
        return self.module.rpartition(".")[2]


# Nothing more than it needs: query holds no way to write, only signing and validators hold a key.
SERVICES = (
    Service("signing", "nocturne.signing", 17420, kafka=True, key="authority.key"),
    Service(
        "projection", "nocturne.projection", 17430, kafka=True, postgres_role=postgres.PROJECTION
    ),
    Service("query", "nocturne.query", 17402, postgres_role=postgres.QUERY),
    Service("command", "nocturne.command", 17401, kafka=True),
)
"""Those that there is one of; the validators stand before them (`services_of`)."""
VALIDATORS_PORT = 17440
"""Of the first validator; the others count from it, at most to 17470, and nothing else is there."""
METRICS_PORT_DISTANCE = 100
# What a service has only if it is given it here; TLS and roles are for ledgers that others reach.
NOT_INHERITED = ("KAFKA_", "POSTGRES_", "KEY_FILE", "TLS_", "ACCESS_FILE", "PEERS")
# As the services' lifecycle defines them (nocturne.runtime.lifecycle).
FINAL_EXITS = {
    EXIT_SETTINGS: "its settings are wrong",
    EXIT_HALTED: "it halted, because its own data contradicts itself",
}


def validators_of(count: int) -> tuple[Service, ...]:
    """The validators, by their ordinals, which are their places in the genesis's set."""
    return tuple(
        Service(
            validator_name(ordinal),
            "nocturne.consensus",
            VALIDATORS_PORT + ordinal,
            kafka=True,
            key="validator.key",
            peers=True,
        )
        for ordinal in range(count)
    )


def services_of(validators: int) -> tuple[Service, ...]:
    """Every service of a ledger with so many validators."""
    return (*validators_of(validators), *SERVICES)


def usual_ports(validators: int) -> dict[str, int]:
    """The port that each process has if nothing else has it."""
    services = services_of(validators)
    return {
        "kafka": 19092,
        "kafka-controller": 19093,
        "postgres": 15432,
        **{service.name: service.usual_port for service in services},
        **{f"{s.name}-metrics": s.usual_port + METRICS_PORT_DISTANCE for s in services},
    }


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything the table needs to know of this run."""

    home: Home
    broker: Broker
    server: Server
    ports: Mapping[str, int]
    genesis: Path
    validators: int

    @property
    def services(self) -> tuple[Service, ...]:
        """Every service that runs here."""
        return services_of(self.validators)


def environment(machine: Machine, service: Service) -> dict[str, str]:
    """The settings of one service, on top of the caller's own environment."""
    ports = machine.ports
    settings = {
        **_inherited(),
        "NOCTURNE_GENESIS_FILE": str(machine.genesis),
        "NOCTURNE_HOME_DIR": str(machine.home.data(service.name)),
        "NOCTURNE_LISTEN": f"{HOST}:{ports[service.name]}",
        "NOCTURNE_METRICS_LISTEN": f"{HOST}:{ports[f'{service.name}-metrics']}",
    }
    if service.kafka:
        settings["NOCTURNE_KAFKA_BOOTSTRAP"] = machine.broker.bootstrap
    if service.postgres_role is not None:
        settings["NOCTURNE_POSTGRES_DSN"] = machine.server.dsn(service.postgres_role)
    if service.peers:
        addresses = (f"{HOST}:{ports[one.name]}" for one in validators_of(machine.validators))
        settings["NOCTURNE_PEERS"] = ",".join(addresses)
        settings["NOCTURNE_PEERS_FILE"] = str(machine.home.peers)
    if service.key is not None:
        settings["NOCTURNE_KEY_FILE"] = str(machine.home.keys(service.name) / service.key)
    return settings


def write_peers(machine: Machine) -> None:
    """Where the validators listen whom the genesis does not name: those that run already hear of
    them by this file.
    """
    founded = validators_in_genesis(machine.genesis)
    later = validators_of(machine.validators)[founded:]
    lines = [f"{HOST}:{machine.ports[one.name]}\n" for one in later]
    write_file(machine.home.peers, "".join(lines).encode("ascii"))


def process(machine: Machine, service: Service) -> Process:
    port = machine.ports[service.name]
    return Process(
        name=service.name,
        argv=[sys.executable, "-m", service.module],
        environment=environment(machine, service),
        port=port,
        healthy=_grpc(f"{HOST}:{port}"),
        final_exits=FINAL_EXITS,
    )


def migrations_environment(server: Server) -> dict[str, str]:
    return {**_inherited(), "NOCTURNE_POSTGRES_DSN": server.dsn(postgres.OWNER)}


def _inherited() -> dict[str, str]:
    """The caller's environment without what is for other ledgers, or for one service alone."""
    others = tuple(f"NOCTURNE_{name}" for name in NOT_INHERITED)
    return {name: value for name, value in os.environ.items() if not name.startswith(others)}


def _grpc(address: str) -> Callable[[], bool]:
    return lambda: grpc_serves(address)


def kafka_process(broker: Broker) -> Process:
    return Process(
        name="kafka",
        argv=broker.server_argv(),
        environment=broker.environment,
        port=broker.port,
        healthy=lambda: kafka.answers(broker.bootstrap, seconds=1.0),
        stop_signal=signal.SIGTERM,
        stop_seconds_max=15.0,
    )


def postgres_process(server: Server) -> Process:
    return Process(
        name="postgres",
        argv=server.server_argv(),
        environment=postgres.environment(),
        port=server.port,
        healthy=lambda: postgres.answers(server, seconds=2.0),
        stop_signal=signal.SIGINT,
        # Immediate shutdown: the server's own children end with it, and its log is replayed.
        orphan_signal=signal.SIGQUIT,
        user=postgres.user(),
    )
