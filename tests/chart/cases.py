"""The values that the chart is rendered with, by a name that says what they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from tests import helm
from tests.helm import Object

EXAMPLES: Final = helm.CHART / "examples"


@dataclass(frozen=True, slots=True)
class Case:
    """Values files and settings of one installation."""

    files: tuple[Path, ...] = ()
    settings: tuple[str, ...] = ()


CASES: Final = {
    "trial": Case(),
    "production": Case((EXAMPLES / "production.yaml",)),
    "existing clusters with TLS and ingress": Case((EXAMPLES / "existing.yaml",)),
    "existing clusters with certificates": Case(
        (EXAMPLES / "existing.yaml",),
        ("kafka.existing.securityProtocol=ssl", "postgres.existing.clientCertificates=true"),
    ),
    "existing clusters without any security": Case(
        (EXAMPLES / "existing.yaml",),
        (
            "kafka.existing.securityProtocol=plaintext",
            "kafka.existing.caSecret=",
            "postgres.existing.sslMode=disable",
            "postgres.existing.caSecret=",
        ),
    ),
    "autoscaling": Case((), ("command.autoscaling.enabled=true", "query.autoscaling.enabled=true")),
    "gateway without TLS": Case(
        (),
        (
            "routes.mode=gateway",
            "routes.command.host=a.example",
            "routes.gateway.parentRefs[0].name=gate",
        ),
    ),
    "monitoring and traces": Case(
        (), ("monitoring.enabled=true", "tracing.otlpEndpoint=http://collector:4317")
    ),
    "adaptive": Case((), ("adaptive=true",)),
    "one validator": Case((), ("consensus.validators=1",)),
    "without network policies": Case((), ("networkPolicy.enabled=false",)),
    "another name and more labels": Case(
        (), ("fullnameOverride=books", "commonLabels.team=audit", "image.tag=1.2.3")
    ),
}


@cache
def rendered(name: str, kubernetes: str = helm.KUBERNETES) -> tuple[Object, ...]:
    """The objects of a case, rendered once."""
    case = CASES[name]
    return tuple(
        helm.objects(helm.template(*case.files, settings=case.settings, kubernetes=kubernetes))
    )


def of_kind(objects: tuple[Object, ...], *kinds: str) -> list[Object]:
    """Those of these kinds."""
    return [one for one in objects if one["kind"] in kinds]


def is_native(one: Object) -> bool:
    """Whether Kubernetes itself knows its kind; a custom resource's definition is an operator's."""
    group, _, version = str(one["apiVersion"]).partition("/")
    own = not version or "." not in group or group.endswith(".k8s.io")
    return own and group != "gateway.networking.k8s.io"


def pods(objects: tuple[Object, ...]) -> dict[str, Object]:
    """Component → the spec of its pods."""
    found: dict[str, Object] = {}
    for one in objects:
        spec = one.get("spec", {}).get("jobTemplate", one).get("spec", {})
        template = one if one["kind"] == "Pod" else spec.get("template", {})
        if one["kind"] in ("Pod", "Deployment", "StatefulSet", "Job", "CronJob"):
            component = template["metadata"]["labels"]["app.kubernetes.io/component"]
            assert component not in found, component
            found[component] = template["spec"]
    return found


def containers(spec: Object) -> list[Object]:
    """All of a pod, those that run first before the others."""
    return [*spec.get("initContainers", []), *spec["containers"]]


def environment(container: Object) -> dict[str, Object]:
    """Its variables by name; each one once."""
    found = {one["name"]: one for one in container.get("env", [])}
    assert len(found) == len(container.get("env", [])), "a variable stands twice"
    return found


def secrets_of(spec: Object) -> set[str]:
    """Every Secret that a pod is given, as files or as variables."""
    mounted = {v["secret"]["secretName"] for v in spec.get("volumes", []) if "secret" in v}
    named = {
        one["valueFrom"]["secretKeyRef"]["name"]
        for container in containers(spec)
        for one in container.get("env", [])
        if "secretKeyRef" in one.get("valueFrom", {})
    }
    return mounted | named
