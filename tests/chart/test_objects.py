"""What the chart gives Kubernetes: well formed, locked down, and no more than is needed."""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from tests import helm
from tests.chart.cases import (
    CASES,
    containers,
    environment,
    is_native,
    of_kind,
    pods,
    rendered,
    secrets_of,
)
from tests.helm import Object

from nocturne.command.service import CommandSettings
from nocturne.consensus.service import Settings as ConsensusSettings
from nocturne.core import topics as topic_names
from nocturne.deploy import database, kubernetes, topics
from nocturne.deploy.rights import Resource, list_of_rights
from nocturne.projection import rebuild
from nocturne.projection.service import Settings as ProjectionSettings
from nocturne.query.service import Settings as QuerySettings
from nocturne.runtime import lifecycle
from nocturne.runtime.settings import PREFIX, ProcessSettings
from nocturne.signing.service import Settings as SigningSettings

ROOT = Path(__file__).resolve().parents[2]
FILES = helm.CHART / "files"
NAME = "ledger-nocturne"

every_case = pytest.mark.parametrize("case", CASES)
OPEN = "without network policies"
SERVICES = ("command", "consensus", "projection", "query", "signing")
STATELESS = ("command", "query")


# -------------------------------------------------------------------------------- well formed


@every_case
def test_helm_has_nothing_to_say_against_the_chart(case: str) -> None:
    values = CASES[case]
    done = helm.lint(*values.files, settings=values.settings)
    assert done.code == 0, done.said
    assert "[WARNING]" not in done.said
    assert "[ERROR]" not in done.said


@every_case
@pytest.mark.parametrize("kubernetes", ["1.30.0", "1.37.0"])
def test_every_object_is_what_kubernetes_takes(case: str, kubernetes: str) -> None:
    objects = rendered(case, kubernetes)
    checked = 0
    for one in objects:
        # Custom resources: test_custom_resources.py.
        if is_native(one):
            kubernetes_validate.validate(one, kubernetes, strict=True)
            checked += 1
    assert checked > 30


@every_case
def test_no_two_objects_have_one_name_and_all_names_are_short(case: str) -> None:
    objects = rendered(case)
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(set(names)) == len(names)
    assert all(len(name) <= 63 for _, name in names)
    for one in objects:
        labels = one["metadata"]["labels"]
        assert labels["app.kubernetes.io/instance"] == "ledger", one["metadata"]["name"]
        assert labels["app.kubernetes.io/name"] == "nocturne"


def test_a_job_that_keeps_its_name_keeps_its_template(tmp_path: Path) -> None:
    """It cannot be changed: an upgrade to another version of the chart would fail."""
    newer = tmp_path / "nocturne"
    shutil.copytree(helm.CHART, newer)
    chart = newer / "Chart.yaml"
    chart.write_text(re.sub(r"(?m)^version: .*$", "version: 99.0.0", chart.read_text()))
    pinned = ["image.tag=pinned"]
    renderings = [
        helm.objects(helm.template(settings=pinned)),
        helm.objects(helm.template(settings=[*pinned, "commonLabels.team=x"])),
        helm.objects(helm.template(settings=pinned, chart=newer)),
    ]
    templates: dict[str, object] = {}
    for one in [one for objects in renderings for one in objects if one["kind"] == "Job"]:
        known = templates.setdefault(one["metadata"]["name"], one["spec"]["template"])
        assert known == one["spec"]["template"], one["metadata"]["name"]
    assert templates


@pytest.mark.parametrize("release", ["ledger", "a" * 40])
def test_the_names_that_strimzi_makes_are_short_enough(release: str) -> None:
    """Of pods, `<cluster>-<pool>-<id>`, and of volume claims, `data-0-<pod>`."""
    done = helm.template(settings=["kafka.mode=strimzi"], release=release)
    objects = helm.objects(done)
    (cluster,) = [one for one in objects if one["kind"] == "Kafka"]
    (pool,) = [one for one in objects if one["kind"] == "KafkaNodePool"]
    pod = f"{cluster['metadata']['name']}-{pool['metadata']['name']}-99"
    assert len(pod) <= 63, pod
    assert pool["metadata"]["labels"]["strimzi.io/cluster"] == cluster["metadata"]["name"]
    for one in (cluster, pool):
        assert one["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


# The room that Kubernetes needs after a name: of a StatefulSet's revision, which is a label; of a
# CronJob's job; of a Service, which is a label of DNS.
NAME_MAX = {"StatefulSet": 52, "CronJob": 52, "Service": 63, "Job": 63, "Deployment": 63}


@pytest.mark.parametrize("release", ["a" * 53, "b" * 39 + "-" + "c" * 13, "nocturne-" + "d" * 44])
def test_a_long_release_name_leaves_room_for_what_kubernetes_appends(release: str) -> None:
    objects = helm.objects(helm.template(release=release, namespace="n" * 63))
    for one in objects:
        name = one["metadata"]["name"]
        assert len(name) <= NAME_MAX.get(one["kind"], 253), (one["kind"], name)
        labels = one["metadata"]["labels"].values()
        assert all(len(value) <= 63 for value in labels), name
    names = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(set(names)) == len(names)


def test_two_releases_in_one_namespace_share_no_object_and_no_pod() -> None:
    one, two = (tuple(helm.objects(helm.template(release=name))) for name in ("one", "two"))
    assert not {(o["kind"], o["metadata"]["name"]) for o in one} & {
        (o["kind"], o["metadata"]["name"]) for o in two
    }
    for objects, name in ((one, "one"), (two, "two")):
        for policy in of_kind(objects, "NetworkPolicy", "PodDisruptionBudget", "Service"):
            spec = policy["spec"]
            selector = spec.get("podSelector") or spec["selector"]
            chosen = selector.get("matchLabels", selector)
            assert f"{name}" in "".join(chosen.values()), policy["metadata"]["name"]


def test_other_operators_are_another_job_and_another_config_map(tmp_path: Path) -> None:
    def founding(operator: str) -> tuple[str, str]:
        values = tmp_path / "values.json"
        line = json.dumps(
            {"format": "nocturne-contribution-v1", "of": operator}, separators=(",", ":")
        )
        values.write_text(json.dumps({"genesis": {"operators": [line]}}))
        objects = tuple(helm.objects(helm.template(values)))
        (job,) = (o for o in of_kind(objects, "Job") if "-genesis-" in o["metadata"]["name"])
        (map_,) = (
            o for o in of_kind(objects, "ConfigMap") if "-operators-" in o["metadata"]["name"]
        )
        volumes = job["spec"]["template"]["spec"]["volumes"]
        mounted = [one["configMap"]["name"] for one in volumes if "configMap" in one]
        assert mounted == [map_["metadata"]["name"]]
        assert map_["immutable"] is True
        return job["metadata"]["name"], map_["metadata"]["name"]

    first, second = founding("one"), founding("two")
    assert first == founding("one")
    assert first[0] != second[0]
    assert first[1] != second[1]


def test_the_chart_is_of_the_packages_version() -> None:
    chart = yaml.safe_load((helm.CHART / "Chart.yaml").read_text())
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert chart["appVersion"] == package
    assert rendered("trial")[0]["metadata"]["labels"]["app.kubernetes.io/version"] == package


@pytest.mark.parametrize(
    "copy, source",
    [
        ("rights.json", "services/nocturne/deploy/rights.json"),
        ("alerts.yml", "grafana/prometheus/alerts.yml"),
    ],
)
def test_the_charts_files_are_the_projects_byte_for_byte(copy: str, source: str) -> None:
    assert (FILES / copy).read_bytes() == (ROOT / source).read_bytes()


def test_an_older_kubernetes_is_refused_with_a_sentence() -> None:
    done = helm.template(kubernetes="1.29.0")
    assert done.code != 0
    assert "chart requires kubeVersion: >=1.30.0-0" in done.said


# -------------------------------------------------------------------------------- locked down


@every_case
def test_every_container_is_non_root_with_a_read_only_root(case: str) -> None:
    for component, spec in pods(rendered(case)).items():
        pod = spec["securityContext"]
        assert pod["runAsNonRoot"] is True, component
        assert pod["runAsUser"] == pod["runAsGroup"] == pod["fsGroup"] == 10001
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace"} & spec.keys()
        assert all("hostPath" not in volume for volume in spec["volumes"])
        for container in containers(spec):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "privileged": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
            }, f"{component}/{container['name']}"
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]


@every_case
def test_every_mount_has_its_volume_and_every_volume_a_reader(case: str) -> None:
    objects = rendered(case)
    claims = {
        claim["metadata"]["name"]
        for one in of_kind(objects, "StatefulSet")
        for claim in one["spec"]["volumeClaimTemplates"]
    }
    for component, spec in pods(objects).items():
        mounts = {m["name"] for c in containers(spec) for m in c["volumeMounts"]}
        volumes = {volume["name"] for volume in spec["volumes"]}
        if component in ("consensus", "signing"):
            volumes |= claims
        assert mounts == volumes, component
        for container in containers(spec):
            paths = [mount["mountPath"] for mount in container["volumeMounts"]]
            assert len(set(paths)) == len(paths)


@every_case
def test_a_file_that_a_setting_names_is_on_a_volume_of_that_container(case: str) -> None:
    for component, spec in pods(rendered(case)).items():
        for container in containers(spec):
            places = [mount["mountPath"] + "/" for mount in container["volumeMounts"]]
            for name, variable in environment(container).items():
                value = variable.get("value", "")
                files = [value] if value.startswith("/") else []
                files += [part.partition("=")[2] for part in value.split("&") if "=/" in part]
                for file in files:
                    inside = [place for place in places if f"{file}/".startswith(place)]
                    assert inside, f"{component}/{container['name']}: {name}={file}"


@every_case
def test_every_secret_is_given_to_one_component_alone(case: str) -> None:
    """But for what is no secret (authorities) or the same for all of its readers."""
    shared = {f"{NAME}-kafka-cluster-ca-cert", f"{NAME}-postgres-ca", "books-kafka-cluster-ca-cert"}
    shared |= {"books-postgres-ca", "kafka-ca", "pg-ca", "ledger-access", "schema-registry"}
    owners: dict[str, str] = {}
    specs = pods(rendered(case))
    # Started by a person alone: it reads as the projection and writes as the owner.
    rebuild = secrets_of(specs.pop("rebuild")) - shared
    for component, spec in specs.items():
        for secret in secrets_of(spec) - shared:
            assert owners.setdefault(secret, component) == component, secret
    assert {owners[secret] for secret in rebuild} <= {"projection", "database"}
    assert len(owners) >= 3


@every_case
def test_only_the_ceremony_is_given_a_token_of_the_api(case: str) -> None:
    objects = rendered(case)
    for account in of_kind(objects, "ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    for component, spec in pods(objects).items():
        assert spec["automountServiceAccountToken"] is False
        assert spec["serviceAccountName"].endswith(f"-{component}")
        for container in containers(spec):
            has_token = any(mount["name"] == "api" for mount in container["volumeMounts"])
            assert has_token == (container["name"] in ("founding", "genesis")), component


def test_a_key_is_on_its_members_claim_and_in_no_secret(trial: tuple[Object, ...]) -> None:
    for component in ("consensus", "signing"):
        spec = pods(trial)[component]
        key = {environment(one)["NOCTURNE_KEY_FILE"]["value"] for one in containers(spec)}
        assert len(key) == 1
        assert key.pop().startswith("/var/lib/nocturne/keys/")
        assert "home" not in {volume["name"] for volume in spec["volumes"]}
    (consensus,) = (
        o for o in of_kind(trial, "StatefulSet") if "consensus" in o["metadata"]["name"]
    )
    (claim,) = consensus["spec"]["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "home", "a claim for each ordinal"
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    kept = consensus["spec"]["persistentVolumeClaimRetentionPolicy"]
    assert set(kept.values()) == {"Retain"}


@every_case
def test_no_password_stands_in_a_variable_or_an_address(case: str) -> None:
    for spec in pods(rendered(case)).values():
        for container in containers(spec):
            for name, variable in environment(container).items():
                assert not name.endswith(("PASSWORD", "TOKEN")), name
                if name == "NOCTURNE_POSTGRES_DSN":
                    assert ":" not in variable["value"].split("//")[1].split("@")[0]


# ------------------------------------------------------------------------- settings and commands

SETTINGS: dict[tuple[str, ...], type[ProcessSettings]] = {
    ("python", "-m", "nocturne.command"): CommandSettings,
    ("python", "-m", "nocturne.consensus"): ConsensusSettings,
    ("python", "-m", "nocturne.projection"): ProjectionSettings,
    ("python", "-m", "nocturne.projection.rebuild"): rebuild.Settings,
    ("python", "-m", "nocturne.query"): QuerySettings,
    ("python", "-m", "nocturne.signing"): SigningSettings,
    ("python", "-m", "nocturne.deploy.topics"): topics.Settings,
    ("python", "-m", "nocturne.deploy.database"): database.Settings,
    ("python", "-m", "nocturne.deploy.kubernetes", "join"): kubernetes.JoinSettings,
    ("python", "-m", "nocturne.deploy.kubernetes", "compose"): kubernetes.ComposeSettings,
}
# What the command line reads (docs/guides/settings.md).
COMMAND_LINE = {
    ("nocturne", "schemas", "register"): {"REGISTRY_URL"},
    ("nocturne", "status"): {
        *("COMMAND_ADDRESS", "QUERY_ADDRESS", "LEDGER"),
        *("CA_FILE", "CLIENT_CERT_FILE", "CLIENT_KEY_FILE", "TOKEN_FILE"),
    },
}


@every_case
def test_every_variable_is_a_setting_that_its_process_knows(case: str) -> None:
    for component, spec in pods(rendered(case)).items():
        for container in containers(spec):
            command = tuple(container["command"])
            if command in COMMAND_LINE:
                known = COMMAND_LINE[command]
            else:
                known = {field.upper() for field in SETTINGS[command].model_fields}
            given = {name.removeprefix(PREFIX) for name in environment(container)}
            assert given <= known, f"{component}: {sorted(given - known)}"


def takes_its_settings(container: Object, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Read the settings of the container's process from its variables, which fails unless it would
    start with them. False: it is none of ours.
    """
    kind = SETTINGS.get(tuple(container["command"]))
    if kind is None:
        return False
    with monkeypatch.context() as patch:
        for name, variable in environment(container).items():
            # What Kubernetes fills in: an ordinal, an address.
            filled = "0" if name.endswith("ORDINAL") else "http://registry:8080/apis"
            patch.setenv(name, variable.get("value", filled))
        kind()
    return True


@every_case
def test_every_process_would_accept_the_settings_it_is_given(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = 0
    for spec in pods(rendered(case)).values():
        for container in containers(spec):
            checked += takes_its_settings(container, monkeypatch)
    assert checked == 11


def test_adaptive_is_accepted_and_changes_nothing_yet() -> None:
    def without_chance(objects: tuple[Object, ...]) -> list[Object]:
        return [one for one in objects if one["kind"] != "Secret"]

    assert without_chance(rendered("adaptive")) == without_chance(rendered("trial"))


# ---------------------------------------------------------------------------------- who and where


def _edges(objects: tuple[Object, ...], destination: str) -> set[str]:
    """The components whose policy lets them reach pods with this label's value."""
    found = set()
    for policy in of_kind(objects, "NetworkPolicy"):
        component = policy["spec"]["podSelector"]["matchLabels"].get("app.kubernetes.io/component")
        for rule in policy["spec"].get("egress") or []:
            for peer in rule.get("to", []):
                if destination in peer.get("podSelector", {}).get("matchLabels", {}).values():
                    found.add(component)
    return found


def test_who_reaches_kafka_and_postgres_is_who_has_rights_there(trial: tuple[Object, ...]) -> None:
    listed = list_of_rights()
    services = {one.name for one in listed.principals if not one.superuser and not one.optional}
    assert _edges(trial, f"{NAME}-kafka") == services | {"topics", "rebuild"}
    roles = {role.service for role in listed.database.roles}
    assert _edges(trial, f"{NAME}-postgres") == roles | {"database", "rebuild"}
    (kafka,) = of_kind(trial, "Kafka")
    (listener,) = kafka["spec"]["kafka"]["listeners"]
    let_in = {
        peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
        for peer in listener["networkPolicyPeers"]
    }
    assert let_in == _edges(trial, f"{NAME}-kafka"), "the broker lets in whoever may go there"
    users = {one["metadata"]["name"] for one in of_kind(trial, "KafkaUser")}
    assert users == {f"{NAME}-{name}" for name in (*services, "admin")}


def test_nothing_is_reached_but_by_an_edge(trial: tuple[Object, ...]) -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind(trial, "NetworkPolicy")}
    everything = policies[f"{NAME}-default-deny"]
    assert everything["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in everything
    assert "egress" not in everything
    for component, spec in pods(trial).items():
        labels = everything["podSelector"]["matchLabels"]
        assert f"{NAME}-{component}" in policies
        assert labels == {
            "app.kubernetes.io/name": "nocturne",
            "app.kubernetes.io/instance": "ledger",
        }
        assert spec
    reached = {name for name, spec in policies.items() if spec.get("ingress")}
    assert reached == {f"{NAME}-{one}" for one in ("command", "query", "consensus", "postgres")}
    for name in ("projection", "signing", "topics", "database", "genesis", "rebuild"):
        assert not policies[f"{NAME}-{name}"]["ingress"]


def test_prometheus_reaches_the_metrics_of_services_when_it_is_asked_to(
    production: tuple[Object, ...],
) -> None:
    policies = {
        one["metadata"]["name"]: one["spec"] for one in of_kind(production, "NetworkPolicy")
    }
    for name in SERVICES:
        ports = [p["port"] for rule in policies[f"{NAME}-{name}"]["ingress"] for p in rule["ports"]]
        assert 7500 in ports, name
    for name in ("topics", "database", "genesis", "test"):
        assert not policies[f"{NAME}-{name}"]["ingress"]


def test_only_the_ceremony_reaches_the_api_server(trial: tuple[Object, ...]) -> None:
    found = set()
    for policy in of_kind(trial, "NetworkPolicy"):
        for rule in policy["spec"].get("egress") or []:
            if 6443 in [one["port"] for one in rule["ports"]]:
                found.add(
                    policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
                )
    assert found == {"consensus", "genesis", "signing"}


def test_kafkas_users_have_the_rights_of_the_list_and_no_others(
    production: tuple[Object, ...],
) -> None:
    users = {one["metadata"]["name"]: one["spec"] for one in of_kind(production, "KafkaUser")}
    listed = list_of_rights()
    assert users.keys() == {f"{NAME}-{one.name}" for one in listed.principals}
    kinds = {
        Resource.TOPIC: "topic",
        Resource.GROUP: "group",
        Resource.TRANSACTIONAL_ID: "transactionalId",
    }
    for one in listed.principals:
        spec = users[f"{NAME}-{one.name}"]
        assert spec["authentication"] == {"type": "scram-sha-512"}
        if one.superuser:
            assert "authorization" not in spec
            continue
        granted = {
            (
                acl["resource"]["type"],
                acl["resource"]["name"],
                acl["resource"]["patternType"],
                tuple(acl["operations"]),
            )
            for acl in spec["authorization"]["acls"]
        }
        assert granted == {
            (
                kinds[grant.resource],
                grant.name,
                "prefix" if grant.prefixed else "literal",
                tuple(op.value.title().replace("_", "") for op in grant.operations),
            )
            for grant in one.grants
        }
    (kafka,) = of_kind(production, "Kafka")
    assert kafka["spec"]["kafka"]["authorization"] == {
        "type": "simple",
        "superUsers": [f"{NAME}-{listed.superuser.name}"],
    }
    (listener,) = kafka["spec"]["kafka"]["listeners"]
    assert listener["tls"] is True
    assert listener["authentication"] == {"type": "scram-sha-512"}


def test_postgres_has_the_roles_of_the_list_and_no_superuser(trial: tuple[Object, ...]) -> None:
    (cluster,) = of_kind(trial, "Cluster")
    listed = list_of_rights().database
    spec = cluster["spec"]
    assert spec["enableSuperuserAccess"] is False
    assert spec["bootstrap"]["initdb"]["database"] == listed.name
    assert spec["bootstrap"]["initdb"]["owner"] == listed.owner
    assert [role["name"] for role in spec["managed"]["roles"]] == [r.name for r in listed.roles]
    for role in spec["managed"]["roles"]:
        assert not role["superuser"]
        assert not role["createrole"]
        assert not role["createdb"]
    read_only = [role.name for role in listed.roles if role.read_only]
    changed = [line for line in spec["bootstrap"]["initdb"]["postInitSQL"] if "read_only" in line]
    assert changed == [
        f"ALTER ROLE {name} SET default_transaction_read_only = on" for name in read_only
    ]


# ------------------------------------------------------------------------------- life of a pod


@every_case
def test_every_service_is_probed_over_http_and_has_time_to_drain(case: str) -> None:
    for component, spec in pods(rendered(case)).items():
        if component not in SERVICES:
            continue
        (container,) = spec["containers"]
        assert container["startupProbe"]["httpGet"] == {"path": "/livez", "port": "metrics"}
        assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
        assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
        ports = {one["name"]: one["containerPort"] for one in container["ports"]}
        assert ports == {"grpc": 7400, "metrics": 7500}
        variables = environment(container)
        assert variables["NOCTURNE_LISTEN"]["value"].endswith(":7400")
        assert variables["NOCTURNE_METRICS_LISTEN"]["value"].endswith(":7500")
        assert variables["NOCTURNE_ON_HALT"]["value"] == "stay"
        waits = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        assert spec["terminationGracePeriodSeconds"] > waits + lifecycle.STOP_SECONDS_MAX + 1
        # Whoever has callers is out of the load balancers before it stops to answer.
        assert (waits > 0) == (component in STATELESS)
        assert {one["topologyKey"] for one in spec["topologySpreadConstraints"]} == {
            "kubernetes.io/hostname",
            "topology.kubernetes.io/zone",
        }


@every_case
def test_a_single_writer_is_never_two(case: str) -> None:
    objects = rendered(case)
    deployments = {
        one["metadata"]["name"].rpartition("-")[2]: one["spec"]
        for one in of_kind(objects, "Deployment")
    }
    assert deployments["projection"]["replicas"] == 1
    assert deployments["projection"]["strategy"] == {"type": "Recreate"}
    stateful = {
        one["metadata"]["name"].rpartition("-")[2]: one["spec"]
        for one in of_kind(objects, "StatefulSet")
    }
    assert stateful.keys() == {"consensus", "signing"}
    assert stateful["signing"]["replicas"] == 1
    assert stateful["consensus"]["replicas"] == (1 if case == "one validator" else 4)
    scaled = {
        one["spec"]["scaleTargetRef"]["name"].rpartition("-")[2]
        for one in of_kind(objects, "HorizontalPodAutoscaler")
    }
    assert scaled in (set(), set(STATELESS))
    for name in STATELESS:
        assert ("replicas" in deployments[name]) == (not scaled), "two would fight over it"
        assert deployments[name]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


@every_case
def test_a_node_can_be_drained_and_takes_one_pod_of_a_service_at_a_time(case: str) -> None:
    budgets = of_kind(rendered(case), "PodDisruptionBudget")
    assert len(budgets) == len(SERVICES)
    for one in budgets:
        assert one["spec"]["maxUnavailable"] == 1
        assert one["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


@pytest.mark.parametrize("validators", [1, 2, 3, 4, 5, 6, 7, 10, 31])
def test_no_more_validators_are_taken_away_at_once_than_may_lie(validators: int) -> None:
    done = helm.template(settings=[f"consensus.validators={validators}"])
    budgets = {
        one["metadata"]["name"]: one["spec"]
        for one in of_kind(tuple(helm.objects(done)), "PodDisruptionBudget")
    }
    # With fewer than four none may; but no node could ever be drained then.
    assert budgets[f"{NAME}-consensus"]["maxUnavailable"] == max(1, (validators - 1) // 3)


@pytest.mark.parametrize("validators, additional", [(1, 0), (4, 0), (31, 0), (4, 2)])
def test_each_validator_is_called_by_the_name_of_its_own_pod(
    validators: int, additional: int
) -> None:
    done = helm.template(
        settings=[f"consensus.validators={validators}", f"consensus.additional={additional}"]
    )
    objects = tuple(helm.objects(done))
    (consensus,) = (
        one for one in of_kind(objects, "StatefulSet") if "consensus" in one["metadata"]["name"]
    )
    (service,) = (
        one for one in of_kind(objects, "Service") if one["metadata"]["name"] == f"{NAME}-consensus"
    )
    assert consensus["spec"]["replicas"] == validators + additional
    (founding,) = pods(objects)["consensus"]["initContainers"]
    assert environment(founding)["NOCTURNE_VALIDATORS"]["value"] == str(validators)
    assert consensus["spec"]["serviceName"] == service["metadata"]["name"]
    assert service["spec"]["clusterIP"] == "None", "a name for each pod"
    assert service["spec"]["publishNotReadyAddresses"] is True, "none would ever be ready"
    (container,) = pods(objects)["consensus"]["containers"]
    namespace = "audit"
    assert environment(container)["NOCTURNE_PEERS"]["value"].split(",") == [
        f"{NAME}-consensus-{ordinal}.{NAME}-consensus.{namespace}.svc.cluster.local:7400"
        for ordinal in range(validators + additional)
    ]


@pytest.mark.parametrize("case", [one for one in CASES if one != OPEN])
def test_validators_reach_each_other_and_nobody_else_reaches_them_so(case: str) -> None:
    objects = rendered(case)
    policies = {p["metadata"]["name"]: p["spec"] for p in of_kind(objects, "NetworkPolicy")}
    (own,) = (spec for name, spec in policies.items() if name.endswith("-consensus"))
    among = {"podSelector": own["podSelector"]}
    ports = [{"protocol": "TCP", "port": 7400}]
    assert {"from": [among], "ports": ports} in own["ingress"]
    assert {"to": [among], "ports": ports} in own["egress"]
    for name, spec in policies.items():
        to = [peer for rule in spec.get("egress") or [] for peer in rule.get("to", [])]
        assert (among in to) == name.endswith("-consensus"), name


def test_network_policies_can_be_left_out() -> None:
    assert of_kind(rendered(OPEN), "NetworkPolicy") == []


def test_the_validators_certificate_has_the_names_that_they_call_each_other_by(
    production: tuple[Object, ...],
) -> None:
    (certificate,) = (
        one["spec"]
        for one in of_kind(production, "Certificate")
        if one["metadata"]["name"] == f"{NAME}-consensus"
    )
    assert {"server auth", "client auth"} <= set(certificate["usages"])
    (container,) = pods(production)["consensus"]["containers"]
    variables = environment(container)
    assert variables["NOCTURNE_PEERS_CA_FILE"]["value"] == "/run/secrets/tls/ca.crt"
    for address in variables["NOCTURNE_PEERS"]["value"].split(","):
        host = address.removesuffix(":7400")
        assert f"*.{host.partition('.')[2]}" in certificate["dnsNames"]


def test_a_job_that_does_something_else_is_another_job() -> None:
    def jobs(name: str) -> dict[str, str]:
        found = [one["metadata"]["name"] for one in of_kind(rendered(name), "Job")]
        return {one.rpartition("-")[0].rpartition("-")[2]: one for one in found}

    assert jobs("trial") == jobs("adaptive")
    assert jobs("trial").keys() == {"database", "genesis", "topics"}
    changed = jobs("production")
    assert all(changed[name] != jobs("trial")[name] for name in changed)


@every_case
def test_a_rebuild_waits_for_a_person_and_runs_once(case: str) -> None:
    (template,) = of_kind(rendered(case), "CronJob")
    spec = template["spec"]
    assert spec["suspend"] is True
    # Should somebody let it go: the 31st of February.
    assert spec["schedule"] == "0 0 31 2 *"
    job = spec["jobTemplate"]["spec"]
    assert job["backoffLimit"] == 0
    assert "activeDeadlineSeconds" not in job, "a log is as long as it is"
    assert "ttlSecondsAfterFinished" not in job, "what it said is evidence"
    # Kubernetes appends eleven characters to the name of a job that a CronJob makes.
    assert len(template["metadata"]["name"]) <= 52


@pytest.mark.parametrize("runbook", ["rebuild.md", "rows-altered.md"])
def test_the_runbooks_start_the_rebuild_that_the_chart_has(runbook: str) -> None:
    text = (ROOT / "docs" / "runbooks" / runbook).read_text()
    (template,) = of_kind(rendered("trial"), "CronJob")
    assert f"--from=cronjob/{template['metadata']['name']}" in text


@pytest.mark.parametrize("case, durability", [("trial", "flushed"), ("production", "replicated")])
def test_what_accepted_promises_is_what_the_topics_keep(case: str, durability: str) -> None:
    specs = pods(rendered(case))
    command = environment(specs["command"]["containers"][0])
    assert command["NOCTURNE_DURABILITY"]["value"] == durability
    job = environment(specs["topics"]["containers"][0])
    replicas = int(job["NOCTURNE_TOPIC_REPLICAS"]["value"])
    in_sync = int(job["NOCTURNE_TOPIC_MIN_INSYNC_REPLICAS"]["value"])
    planned = topics.plan(4, replicas, in_sync)
    commands = next(one for one in planned if one.name == topic_names.COMMANDS)
    assert (commands.settings.get("flush.messages") == "1") == (durability == "flushed")


# ------------------------------------------------------------------------------- from outside


def test_each_route_leads_to_one_service_and_to_nothing_else_of_it(
    production: tuple[Object, ...],
) -> None:
    routes = {one["metadata"]["name"]: one["spec"] for one in of_kind(production, "GRPCRoute")}
    for name, service in (
        ("command", "nocturne.command.v1.CommandService"),
        ("query", "nocturne.query.v1.QueryService"),
    ):
        (rule,) = routes[f"{NAME}-{name}"]["rules"]
        assert rule["backendRefs"] == [{"name": f"{NAME}-{name}", "port": 7400}]
        assert {match["method"]["service"] for match in rule["matches"]} == {
            service,
            "grpc.health.v1.Health",
        }
    policies = {one["metadata"]["name"] for one in of_kind(production, "BackendTLSPolicy")}
    assert policies == routes.keys()


@pytest.mark.parametrize(
    "case, namespace",
    [("production", "gateways"), ("existing clusters with TLS and ingress", "ingress-nginx")],
)
def test_whoever_routes_from_outside_is_let_in(case: str, namespace: str) -> None:
    """A gateway's and an ingress controller's pods are in a namespace of their own."""
    policies = {p["metadata"]["name"]: p["spec"] for p in of_kind(rendered(case), "NetworkPolicy")}
    for name in STATELESS:
        peers = [
            peer.get("namespaceSelector", {}).get("matchLabels", {})
            for rule in policies[f"{NAME}-{name}"]["ingress"]
            for peer in rule["from"]
            if rule["ports"][0]["port"] == 7400
        ]
        assert {"kubernetes.io/metadata.name": namespace} in peers
    if any(of_kind(rendered(case), "Ingress")):
        # ingress-nginx shows a gRPC service no certificate of its own.
        asked = [
            environment(one) for pod in pods(rendered(case)).values() for one in containers(pod)
        ]
        assert not any("NOCTURNE_TLS_CLIENT_CA_FILE" in one for one in asked)


def test_certificates_have_the_names_that_callers_use(production: tuple[Object, ...]) -> None:
    certificates = {
        one["metadata"]["name"]: one["spec"] for one in of_kind(production, "Certificate")
    }
    assert certificates.keys() == {f"{NAME}-{name}" for name in (*SERVICES, "test")}
    names = certificates[f"{NAME}-command"]["dnsNames"]
    assert f"{NAME}-command" in names
    assert f"{NAME}-command.audit.svc.cluster.local" in names
    assert "ledger.example.com" in names
    probe = environment(pods(production)["test"]["containers"][0])
    assert probe["NOCTURNE_COMMAND_ADDRESS"]["value"] == f"{NAME}-command:7400"
    (policy,) = (
        o for o in of_kind(production, "BackendTLSPolicy") if "command" in o["metadata"]["name"]
    )
    assert policy["spec"]["validation"]["hostname"] in names


def test_prometheus_is_given_the_alerts_of_the_project(production: tuple[Object, ...]) -> None:
    (rule,) = of_kind(production, "PrometheusRule")
    assert rule["spec"] == yaml.safe_load((FILES / "alerts.yml").read_text())
    (monitor,) = of_kind(production, "ServiceMonitor")
    selected = monitor["spec"]["selector"]["matchLabels"].items()
    services = of_kind(production, "Service")
    assert len(services) == len(SERVICES)
    for one in services:
        assert selected <= one["metadata"]["labels"].items()
        assert "metrics" in {port["name"] for port in one["spec"]["ports"]}


def test_the_notes_name_the_next_three_commands() -> None:
    text = (helm.CHART / "templates" / "NOTES.txt").read_text()
    commands = [line for line in text.splitlines() if line.lstrip().startswith(("kubectl", "helm"))]
    assert len(commands) == 3


def test_each_role_of_the_database_shows_its_own_certificate_where_it_has_one() -> None:
    found = pods(rendered("existing clusters with certificates"))
    for component, secret in {
        "projection": "pg-projection",
        "query": "pg-query",
        "database": "pg-owner",
        "rebuild": "pg-owner",
    }.items():
        spec = found[component]
        (volume,) = (v for v in spec["volumes"] if v["name"] == "postgres")
        assert volume["secret"]["secretName"] == secret
        assert {one["key"] for one in volume["secret"]["items"]} == {
            "password", "tls.crt", "tls.key",
        }  # fmt: skip
        (dsn,) = (
            environment(one)["NOCTURNE_POSTGRES_DSN"]["value"]
            for one in containers(spec)
            if "NOCTURNE_POSTGRES_DSN" in environment(one)
        )
        assert dsn.endswith(
            "&sslcert=/run/secrets/postgres/tls.crt&sslkey=/run/secrets/postgres/tls.key"
        )
    without = pods(rendered("existing clusters with TLS and ingress"))["query"]
    assert "sslcert" not in str(without)
