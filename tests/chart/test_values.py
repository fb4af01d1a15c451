"""Every value is documented, and one that cannot work is refused with a sentence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests import helm

ROOT = Path(__file__).resolve().parents[2]
GUIDE = ROOT / "docs" / "guides" / "helm.md"
VALUES = helm.CHART / "values.yaml"
SCHEMA = helm.CHART / "values.schema.json"
EXAMPLES = helm.CHART / "examples"


def _described() -> dict[str, tuple[str, Any]]:
    """Path → description and default, from the comments `# -- …` of values.yaml (helm-docs)."""
    values = yaml.safe_load(VALUES.read_text())
    found: dict[str, tuple[str, Any]] = {}
    path: list[tuple[int, str]] = []
    description: str | None = None
    for line in VALUES.read_text().splitlines():
        if (comment := re.match(r" *# -- (.+)", line)) is not None:
            description = comment[1]
        elif (key := re.match(r"( *)([A-Za-z]\w*):", line)) is not None:
            while path and path[-1][0] >= len(key[1]):
                path.pop()
            path.append((len(key[1]), key[2]))
            if description is not None:
                names = [name for _, name in path]
                value = values
                for name in names:
                    value = value[name]
                found[".".join(names)] = (description, value)
            description = None
    return found


def _leaves(value: Any, path: str = "") -> Iterator[str]:
    """Every value that is no group of values."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else name)
    else:
        yield path


def test_every_value_has_a_description() -> None:
    described = _described()
    for path in _leaves(yaml.safe_load(VALUES.read_text())):
        covered = [one for one in described if path == one or path.startswith(f"{one}.")]
        assert covered, f"{path} has no '# -- …' in values.yaml"


def test_the_guides_table_is_that_of_the_values() -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| `(.*?)` \| (.+) \|$", GUIDE.read_text(), re.MULTILINE)
    expected = [
        (path, json.dumps(default), description.replace("|", "\\|"))
        for path, (description, default) in _described().items()
    ]
    assert rows == expected, "\n".join(f"| `{p}` | `{d}` | {t} |" for p, d, t in expected)


def _objects(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every part of the schema that describes an object by its members."""
    if isinstance(schema, dict):
        if "properties" in schema and schema.get("type") == "object":
            yield path, schema
        for name, inner in schema.items():
            # What stands under a condition only adds to what is said outside of it.
            if name not in ("allOf", "if", "then", "else"):
                yield from _objects(inner, f"{path}/{name}")


def test_the_schema_refuses_every_name_that_it_does_not_know() -> None:
    schema = json.loads(SCHEMA.read_text())
    objects = dict(_objects(schema))
    assert len(objects) > 30
    assert [path for path, one in objects.items() if one["additionalProperties"] is not False] == []


def test_the_schema_knows_every_value_and_none_that_is_not_there() -> None:
    schema = json.loads(SCHEMA.read_text())
    values = yaml.safe_load(VALUES.read_text())
    assert schema["properties"].keys() - {"global"} == values.keys()
    for name, group in values.items():
        properties = schema["properties"][name].get("properties")
        if isinstance(group, dict) and properties is not None:
            assert properties.keys() == group.keys(), name


BY_SCHEMA = {
    "a name that is misspelt": ("comand:\n  replicas: 2\n", "additional properties 'comand' not"),
    "a name that is misspelt within": (
        "kafka:\n  strimzi:\n    brokers: 3\n",
        "additional properties 'brokers' not allowed",
    ),
    "more validators than a certificate lists": (
        "consensus:\n  validators: 32\n",
        "at '/consensus/validators': maximum: got 32, want 31",
    ),
    "no validator": (
        "consensus:\n  validators: 0\n",
        "at '/consensus/validators': minimum: got 0, want 1",
    ),
    "a number as text": ("command:\n  replicas: many\n", "got string, want integer"),
    "no pod at all": ("query:\n  replicas: 0\n", "at '/query/replicas': minimum: got 0, want 1"),
    "a mode that is none": (
        "kafka:\n  mode: redpanda\n",
        "at '/kafka/mode': value must be one of 'strimzi', 'existing'",
    ),
    "an existing Kafka without an address and users": (
        "kafka:\n  mode: existing\n",
        "at '/kafka/existing/users': missing properties 'admin', 'command', 'consensus'",
    ),
    "an existing PostgreSQL without passwords": (
        "postgres:\n  mode: existing\n  existing:\n    host: db\n",
        "at '/postgres/passwordSecrets': missing properties 'owner', 'projection', 'query'",
    ),
    "existing certificates that are not named": (
        "tls:\n  mode: existing\n",
        "at '/tls/existing': missing properties 'command', 'consensus', 'projection', 'query'",
    ),
    "client certificates whose test has none": (
        """tls:
  mode: existing
  clientCertificates: true
  existing: {command: a, consensus: b, projection: c, query: d, signing: e}
""",
        "at '/tls/existing': missing property 'test'",
    ),
    "roles without TLS": (
        "access:\n  existingSecret: roles\n",
        "at '/access/existingSecret': value must be ''",
    ),
    "a certificate manager without an issuer": (
        "tls:\n  mode: certManager\n",
        "at '/tls/certManager/issuer/name': '' does not match",
    ),
    "a gateway that is not named": (
        "routes:\n  mode: gateway\n  command:\n    host: a.example\n",
        "at '/routes/gateway/parentRefs': minItems: got 0, want 1",
    ),
    "an operator's contribution that is none": (
        "genesis:\n  operators: [ed25519-00]\n",
        "at '/genesis/operators/0': 'ed25519-00' does not match",
    ),
    "a digest that is none": (
        "image:\n  digest: latest\n",
        "at '/image/digest': 'latest' does not match",
    ),
    "no ports for the brokers": (
        "kafka:\n  existing:\n    ports: []\n",
        "at '/kafka/existing/ports': minItems: got 0, want 1",
    ),
}


@pytest.mark.parametrize("case", BY_SCHEMA)
def test_values_that_break_the_schema_are_refused_with_a_sentence(
    case: str, tmp_path: Path
) -> None:
    text, sentence = BY_SCHEMA[case]
    values = tmp_path / "values.yaml"
    values.write_text(text)
    for done in (helm.lint(values), helm.template(values)):
        assert done.code != 0
        assert sentence in done.said


TOGETHER = {
    "kafka.topics.minInsyncReplicas=2": "no topic has more replicas in sync than it has replicas.",
    "kafka.topics.replicas=3": "each replica needs a broker of its own.",
    "command.autoscaling.minReplicas=9": "minReplicas is 9, more than maxReplicas, which is 8.",
    "genesis.operatorThreshold=2": "the job makes one operator's key then.",
    "routes.mode=ingress": "there is nothing to route.",
    "commonLabels.app\\.kubernetes\\.io/instance=x": "by which the chart or an operator selects",
    "monitoring.enabled=true,monitoring.labels.a=b,commonLabels.a=c": "has a label once.",
    "query.autoscaling.enabled=true,query.resources.requests.cpu=null": "in parts of it.",
    "genesis.waitSeconds=3600": "the job would be ended before it has waited.",
    "jobs.activeDeadlineSeconds=300": "the job would be ended before it has waited.",
    "postgres.mode=existing,postgres.existing.host=db,postgres.passwordSecrets.owner=a,"
    "postgres.passwordSecrets.projection=b,postgres.passwordSecrets.query=c,"
    "postgres.existing.sslMode=disable,postgres.existing.clientCertificates=true": (
        "without TLS no certificate is shown."
    ),
    "command.deadlineMsMax=1000": "the usual deadline would be longer than the longest.",
}


@pytest.mark.parametrize("setting", TOGETHER)
def test_values_that_do_not_fit_each_other_are_refused_with_a_sentence(setting: str) -> None:
    done = helm.template(settings=[setting])
    assert done.code != 0
    assert TOGETHER[setting] in done.said


@pytest.mark.parametrize("release", ["1ledger", "ledger.audit"])
def test_a_release_whose_services_could_not_be_named_is_refused_with_a_sentence(
    release: str,
) -> None:
    done = helm.template(release=release)
    assert done.code != 0
    assert "Name the release so, or set fullnameOverride." in done.said
    assert helm.template(release=release, settings=["fullnameOverride=ledger"]).code == 0


def test_a_gateway_to_services_with_tls_is_told_whom_to_trust() -> None:
    done = helm.template(EXAMPLES / "production.yaml", settings=["routes.gateway.caConfigMap="])
    assert done.code != 0
    assert "the gateway needs the ConfigMap whose ca.crt signed" in done.said
