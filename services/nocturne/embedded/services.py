"""The table of what runs on one machine, and the settings each process is given."""

import os
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nocturne.embedded import kafka, postgres
from nocturne.embedded.home import Home
from nocturne.embedded.kafka import Broker
from nocturne.embedded.postgres import Server
from nocturne.embedded.processes import Process, grpc_serves
from nocturne.runtime.lifecycle import EXIT_HALTED, EXIT_SETTINGS

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Service:
    """One Nocturne service: its process `name`, its `module`, and what it is trusted with."""

    name: str
    module: str
    usual_port: int
    kafka: bool = False
    postgres_role: str | None = None
    key: str | None = None


# Nothing more than it needs: query holds no way to write, only two services hold a key.
SERVICES = (
    Service("consensus-0", "nocturne.consensus", 17410, kafka=True, key="validator.key"),
    Service("signing", "nocturne.signing", 17420, kafka=True, key="authority.key"),
    Service(
        "projection", "nocturne.projection", 17430, kafka=True, postgres_role=postgres.PROJECTION
    ),
    Service("query", "nocturne.query", 17402, postgres_role=postgres.QUERY),
    Service("command", "nocturne.command", 17401, kafka=True),
)
METRICS_PORT_DISTANCE = 100
# What a service has only if it is given it here; TLS and roles are for ledgers that others reach.
NOT_INHERITED = ("KAFKA_", "POSTGRES_", "KEY_FILE", "TLS_", "ACCESS_FILE")
# As the services' lifecycle defines them (nocturne.runtime.lifecycle).
FINAL_EXITS = {
    EXIT_SETTINGS: "its settings are wrong",
    EXIT_HALTED: "it halted, because its own data contradicts itself",
}

USUAL_PORTS = {
    "kafka": 19092,
    "kafka-controller": 19093,
    "postgres": 15432,
    **{service.name: service.usual_port for service in SERVICES},
    **{f"{s.name}-metrics": s.usual_port + METRICS_PORT_DISTANCE for s in SERVICES},
}


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything the table needs to know of this run."""

    home: Home
    broker: Broker
    server: Server
    ports: Mapping[str, int]
    genesis: Path


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
    if service.key is not None:
        settings["NOCTURNE_KEY_FILE"] = str(machine.home.keys(service.name) / service.key)
    return settings


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
