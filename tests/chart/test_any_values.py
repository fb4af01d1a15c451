"""Values drawn at random: those that fit make what can work, one that does not fit is refused."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml
from tests import helm
from tests.chart.cases import containers, is_native, of_kind, pods
from tests.chart.test_objects import takes_its_settings
from tests.helm import Object

EXISTING: Final = yaml.safe_load((helm.CHART / "examples" / "existing.yaml").read_text())
SETS: Final = 12
CERTIFICATES: Final = EXISTING["tls"]["existing"]
OPERATOR: Final = '{"format":"nocturne-contribution-v1","key":["ed25519-00"]}'

Values = dict[str, Any]
THREE: Final = {"replicas": 3, "minInsyncReplicas": 2}
BY_MANAGER: Final = {"mode": "certManager", "certManager": {"issuer": {"name": "internal"}}}

# What a part of the values may be, each beside each of the others.
FITTING: Final[dict[str, tuple[Values | str, ...]]] = {
    "kafka": (
        {},
        {"topics": THREE, "strimzi": {"nodes": 3}},
        {"strimzi": {"optionalUsers": ["consumer"]}},
        EXISTING["kafka"],
        EXISTING["kafka"] | {"existing": EXISTING["kafka"]["existing"] | {"caSecret": ""}},
    ),
    "postgres": (
        {},
        {"cloudnativepg": {"instances": 3}},
        {"passwordSecrets": {"owner": "mine"}},
        EXISTING["postgres"],
    ),
    "registry": ({}, {"existingSecret": "registry", "port": 443}),
    "tls": (
        {},
        {"mode": "existing", "existing": CERTIFICATES},
        {"mode": "existing", "existing": CERTIFICATES, "clientCertificates": True},
        BY_MANAGER,
        BY_MANAGER | {"clientCertificates": True},
    ),
    "routes": (
        {},
        {"mode": "ingress", "command": {"host": "a.example"}},
        {
            "mode": "gateway",
            "query": {"host": "a.example"},
            "gateway": {"parentRefs": [{"name": "g"}], "caConfigMap": "ca"},
        },
    ),
    "genesis": ({}, {"operators": [OPERATOR]}),
    "monitoring": ({}, {"enabled": True, "labels": {"release": "p"}}),
    "tracing": ({}, {"otlpEndpoint": "https://collector:4317", "ratio": 1}),
    "networkPolicy": ({}, {"enabled": False}, {"clients": [], "operators": [], "monitoring": []}),
    "command": (
        {},
        {"autoscaling": {"enabled": True}},
        {"ratePerSecond": 0, "sessionsPerAuthorMax": 0, "replicas": 1},
    ),
    "jobs": ({}, {"waitSeconds": 3600, "activeDeadlineSeconds": 7200}),
    "commonLabels": ({}, {"team": "audit"}),
    "fullnameOverride": ("", "books", "x" * 40),
}
# What fits nothing, or what is beside it in its place.
UNFIT: Final[dict[str, Values]] = {
    "three replicas on one broker": {"kafka": {"mode": "strimzi", "topics": THREE}},
    "a database that is not named": {
        "postgres": {"mode": "existing", "existing": {"host": ""}, "passwordSecrets": {}}
    },
    "client certificates without TLS": {"tls": {"clientCertificates": True}, "access": {}},
    "roles without TLS": {"tls": {}, "access": {"existingSecret": "roles"}},
    "a certificate that is renewed before it begins": {
        "tls": {
            "mode": "certManager",
            "certManager": {"issuer": {"name": "internal"}, "duration": "1h", "renewBefore": "2h"},
        }
    },
    "more who must sign than there are": {
        "genesis": {"operators": [OPERATOR], "operatorThreshold": 2}
    },
    "a job that ends before it has waited": {"jobs": {"activeDeadlineSeconds": 60}},
    "a label by which Kubernetes selects": {"commonLabels": {"app.kubernetes.io/name": "mine"}},
    "a usual deadline over the longest": {"command": {"deadlineMs": 600_000}},
    "names that are resolved anywhere": {"networkPolicy": {"dns": []}},
    "nobody who reads metrics": {
        "monitoring": {"enabled": True},
        "networkPolicy": {"monitoring": []},
    },
}


class Once(yaml.SafeLoader):
    """Refuses a name that stands twice in an object, as Kubernetes does."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [self.construct_object(key) for key, _ in node.value]
        assert len(set(names)) == len(names), sorted(names)
        return super().construct_mapping(node, deep)


def _drawn(seed: int) -> Values:
    dice = random.Random(seed)
    values: Values = {name: dice.choice(choices) for name, choices in FITTING.items()}
    if values["tls"]:
        values["access"] = dice.choice(({}, {"existingSecret": "roles", "testTokenSecret": "t"}))
    if values["monitoring"]:
        values["networkPolicy"] = {}
    return values


def _rendered(values: Values, folder: Path) -> helm.Done:
    file = folder / "values.json"
    file.write_text(json.dumps(values))
    print(file.read_text())
    return helm.template(file)


@pytest.mark.parametrize("seed", range(SETS))
def test_values_that_fit_make_what_can_work(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = _rendered(_drawn(seed), tmp_path)
    assert done.code == 0, done.said
    documents = yaml.load_all(done.output, Once)
    objects: tuple[Object, ...] = tuple(one for one in documents if one)
    for one in objects:
        if is_native(one):
            kubernetes_validate.validate(one, helm.KUBERNETES, strict=True)
    _check_pods(objects, monkeypatch)
    _check_selectors(objects)


@pytest.mark.parametrize("case", UNFIT)
def test_one_that_does_not_fit_is_refused_with_a_sentence_whatever_is_beside_it(
    case: str, tmp_path: Path
) -> None:
    done = _rendered(_drawn(len(case)) | UNFIT[case], tmp_path)
    assert done.code != 0
    by_schema = "don't meet the specifications of the schema" in done.said
    assert by_schema or "nocturne/templates/validation.yaml" in done.said, done.said


def _check_pods(objects: tuple[Object, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings are accepted; a mounted Secret or ConfigMap of ours is one that is made."""
    names = {(o["kind"], o["metadata"]["name"]) for o in objects}
    for component, spec in pods(objects).items():
        for volume in spec["volumes"]:
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in names, component
        assert ("ServiceAccount", spec["serviceAccountName"]) in names
        for container in containers(spec):
            takes_its_settings(container, monkeypatch)


def _check_selectors(objects: tuple[Object, ...]) -> None:
    """Whatever selects pods of ours finds some, and a workload finds its own."""
    labels = []
    for one in objects:
        spec = one.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template", {})
        if one["kind"] in ("Deployment", "StatefulSet"):
            wanted = spec["selector"]["matchLabels"].items()
            assert wanted <= template["metadata"]["labels"].items(), one["metadata"]["name"]
        if one["kind"] in ("Deployment", "StatefulSet", "Job", "CronJob"):
            labels.append(template["metadata"]["labels"])
        if one["kind"] == "Pod":
            labels.append(one["metadata"]["labels"])
    for one in of_kind(objects, "Service"):
        assert any(one["spec"]["selector"].items() <= found.items() for found in labels)
    for one in of_kind(objects, "NetworkPolicy"):
        wanted = one["spec"]["podSelector"]["matchLabels"]
        if (
            "app.kubernetes.io/component" in wanted
            and wanted["app.kubernetes.io/component"] != "schemas"
        ):
            assert any(wanted.items() <= found.items() for found in labels), wanted
