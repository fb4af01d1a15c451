"""docker-compose.yml and the chart run the same processes with the same settings and ports."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Final

import pytest
import yaml
from tests import helm
from tests.chart.cases import environment, pods
from tests.helm import Object

ROOT: Final = Path(__file__).resolve().parents[2]

SERVICES: Final = {
    "command": "command",
    **{f"consensus-{ordinal}": "consensus" for ordinal in range(4)},
    "projection": "projection",
    "query": "query",
    "signing": "signing",
}
JOBS: Final = ("database", "genesis", "rebuild", "schemas", "topics")
# What one of the two has by itself, and why.
INFRASTRUCTURE: Final = {
    *("kafka", "postgres", "registry", "store"),  # operators or existing clusters
    *("prometheus", "grafana"),  # the cluster's own
    "secrets",  # Kubernetes' Secrets
    "demo",  # shows attacks with the master passwords
}
HELM_ALONE: Final = {
    "KAFKA_CA_FILE": "Strimzi's listener speaks TLS",
    "DEADLINE_MS": "a value",
    "DEADLINE_MS_MAX": "a value",
    "RATE_PER_SECOND": "a value",
    "RATE_BURST": "a value",
    "SESSIONS_PER_AUTHOR_MAX": "a value",
}
COMPOSE_ALONE: Final = {
    "OTLP_ENDPOINT": "set by the caller's environment; in the chart by tracing.otlpEndpoint",
    "TRACE_RATIO": "the same",
}
HELM_ALONE_IN_JOBS: Final = {
    "database": {"WAIT_SECONDS"},
    "rebuild": {"KAFKA_CA_FILE"},
    # Strimzi's users have their passwords and rights from Strimzi.
    "topics": {"KAFKA_CA_FILE", "TOPIC_MIN_INSYNC_REPLICAS", "WAIT_SECONDS"},
    "schemas": set(),
}
COMPOSE_ALONE_IN_JOBS: Final = {
    "database": {"PASSWORDS_DIR"},  # CloudNativePG makes the roles
    "rebuild": set(),
    "topics": {"PASSWORDS_DIR"},
    "schemas": set(),
}


@cache
def _compose() -> dict[str, Object]:
    text = (ROOT / "docker-compose.yml").read_text()
    services: dict[str, Object] = yaml.safe_load(text)["services"]
    return services


@cache
def _chart() -> dict[str, Object]:
    done = helm.template(settings=["registry.existingSecret=registry"])
    return pods(tuple(helm.objects(done)))


def _names(variables: dict[str, object]) -> set[str]:
    return {name.removeprefix("NOCTURNE_") for name in variables}


def test_both_run_the_same_processes() -> None:
    assert _compose().keys() - INFRASTRUCTURE == {*SERVICES, *JOBS}
    assert _chart().keys() == {*SERVICES.values(), *JOBS, "test"}


def test_nothing_is_excused_that_is_the_same_in_both() -> None:
    ours, theirs = set(), set()
    for service, name in SERVICES.items():
        compose, spec = _compose()[service], _chart()[name]
        (container,) = spec["containers"]
        mine, yours = _names(environment(container)), _names(compose["environment"])
        ours |= mine - yours
        theirs |= yours - mine
    assert (ours, theirs) == (HELM_ALONE.keys(), COMPOSE_ALONE.keys())


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_one_command_with_one_set_of_settings(service: str) -> None:
    compose, spec = _compose()[service], _chart()[SERVICES[service]]
    (container,) = spec["containers"]
    assert compose["command"] == container["command"]
    ours, theirs = _names(environment(container)), _names(compose["environment"])
    assert ours - theirs <= HELM_ALONE.keys(), sorted(ours - theirs)
    assert theirs - ours <= COMPOSE_ALONE.keys(), sorted(theirs - ours)
    variables = environment(container)
    for name in ("NOCTURNE_LISTEN", "NOCTURNE_METRICS_LISTEN", "NOCTURNE_HOME_DIR"):
        assert compose["environment"][name] == variables[name]["value"], name


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_listens_on_the_same_ports_as_the_same_user(service: str) -> None:
    compose, spec = _compose()[service], _chart()[SERVICES[service]]
    (container,) = spec["containers"]
    ports = {str(one["containerPort"]) for one in container["ports"]}
    assert ports == {
        compose["environment"][name].rpartition(":")[2]
        for name in ("NOCTURNE_LISTEN", "NOCTURNE_METRICS_LISTEN")
    }
    for published in compose.get("ports", []):
        assert published.rpartition(":")[2] in ports
    user = spec["securityContext"]
    assert compose["user"] == f"{user['runAsUser']}:{user['runAsGroup']}"
    assert compose["read_only"] is True
    assert compose["cap_drop"] == container["securityContext"]["capabilities"]["drop"]


@pytest.mark.parametrize("job", sorted(HELM_ALONE_IN_JOBS))
def test_a_job_is_one_command_with_one_set_of_settings(job: str) -> None:
    compose, spec = _compose()[job], _chart()[job]
    (container,) = spec["containers"]
    assert compose["command"] == container["command"]
    ours, theirs = _names(environment(container)), _names(compose["environment"])
    assert ours - theirs == HELM_ALONE_IN_JOBS[job]
    assert theirs - ours == COMPOSE_ALONE_IN_JOBS[job]


def test_a_rebuild_is_the_same_principal_and_the_same_role_in_both() -> None:
    """The projection's to Kafka, the owner's to PostgreSQL; started by a person and tried once."""
    compose, spec = _compose()["rebuild"], _chart()["rebuild"]
    (container,) = spec["containers"]
    theirs, ours = compose["environment"], environment(container)
    assert theirs["NOCTURNE_KAFKA_USER"] == "projection"
    assert ours["NOCTURNE_KAFKA_USER"]["value"] == "ledger-nocturne-projection"
    assert theirs["NOCTURNE_GENESIS_FILE"] == ours["NOCTURNE_GENESIS_FILE"]["value"]
    for dsn in (theirs["NOCTURNE_POSTGRES_DSN"], ours["NOCTURNE_POSTGRES_DSN"]["value"]):
        assert dsn.startswith("postgresql://nocturne_owner@")
        assert dsn.partition("?")[0].endswith(":5432/nocturne")
    assert compose["profiles"] == ["rebuild"], "only when it is asked for"
    assert (compose["restart"], spec["restartPolicy"]) == ("no", "Never")
    user = spec["securityContext"]
    assert compose["user"] == f"{user['runAsUser']}:{user['runAsGroup']}"


def test_both_found_the_same_ledger() -> None:
    """In one job where one process reaches every volume; each member on its own where none does."""
    compose = _compose()["genesis"]["environment"]
    (container,) = _chart()["genesis"]["containers"]
    ours = {name: one.get("value") for name, one in environment(container).items()}
    for name in ("NOCTURNE_VALIDATORS", "NOCTURNE_PARTITIONS"):
        default = compose[name].partition(":-")[2].rstrip("}") or compose[name]
        assert default == ours[name], name
