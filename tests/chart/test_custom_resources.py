"""Custom resources are what their operators' own definitions take, as an API server would judge.

Definitions of Strimzi were found in no package: what the chart gives it is held
against short schemas of our own, with the fields that are used and no others.
"""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from tests.chart.cases import CASES, is_native, rendered
from tests.go_tools import DEFINITIONS, KUBECTL_VALIDATE
from tests.helm import Object

STRIMZI = json.loads((Path(__file__).parent / "strimzi_schemas.json").read_text())
RUN_SECONDS_MAX = 60

Judge = Callable[[Iterable[Object]], dict[str, str]]


@pytest.fixture(params=DEFINITIONS)
def judged(request: pytest.FixtureRequest, tmp_path: Path) -> Judge:
    """Objects → what is wrong, by `kind/name`; empty when nothing is."""
    folders = [one.taken() for one in DEFINITIONS[request.param]]
    program = KUBECTL_VALIDATE.program()

    def judge(objects: Iterable[Object]) -> dict[str, str]:
        names = {}
        for number, one in enumerate(objects):
            path = tmp_path / f"{number}.yaml"
            path.write_text(yaml.safe_dump(one))
            names[str(path)] = f"{one['kind']}/{one['metadata']['name']}"
        line = [str(program), "-o", "json", *(f"--local-crds={one}" for one in folders), *names]
        done = subprocess.run(
            line, capture_output=True, text=True, timeout=RUN_SECONDS_MAX, check=False
        )
        said = json.loads(done.stdout)
        assert said.keys() == names.keys(), done.stderr
        return {
            names[path]: status.get("message", status["status"])
            for path, (status,) in said.items()
            if status["status"] != "Success"
        }

    return judge


def customs(objects: Iterable[Object]) -> list[Object]:
    """Those of the definitions that can be had."""
    known = {
        (definition["spec"]["group"], definition["spec"]["names"]["kind"])
        for one in DEFINITIONS["the oldest"]
        for path in one.taken().iterdir()
        for definition in yaml.safe_load_all(path.read_text())
        if definition
    }
    return [one for one in objects if (one["apiVersion"].partition("/")[0], one["kind"]) in known]


@pytest.mark.parametrize("case", CASES)
def test_every_custom_resource_is_what_its_definition_takes(case: str, judged: Judge) -> None:
    found = customs(rendered(case))
    if found:
        assert judged(found) == {}


def test_no_custom_resource_goes_unchecked() -> None:
    shown = set()
    for case in CASES:
        objects = [one for one in rendered(case) if not is_native(one)]
        checked = {_kind(one) for one in customs(objects)} | STRIMZI.keys()
        assert {_kind(one) for one in objects} <= checked
        shown |= {one["kind"] for one in objects}
    assert shown == {
        *("Kafka", "KafkaNodePool", "KafkaUser", "Cluster", "Database", "Certificate"),
        *("ServiceMonitor", "PrometheusRule", "GRPCRoute", "BackendTLSPolicy"),
    }


def _kind(one: Object) -> str:
    return f"{one['apiVersion']}/{one['kind']}"


@pytest.mark.parametrize("case", CASES)
def test_what_strimzi_is_given_has_the_fields_that_are_meant_and_no_others(case: str) -> None:
    for one in rendered(case):
        if (schema := STRIMZI.get(_kind(one))) is not None:
            jsonschema.Draft202012Validator(schema).validate(one)


@pytest.mark.parametrize(
    "kind, place, value, said",
    [
        ("Cluster", ("spec", "instancez"), 1, "unknown field"),
        ("Cluster", ("spec", "instances"), "three", "must be of type integer"),
        ("Cluster", ("spec", "managed", "roles", 0, "ensure"), "maybe", "Unsupported value"),
        ("Database", ("spec", "name"), "postgres", "reserved"),
        ("Certificate", ("spec", "privateKey", "algorithm"), "DSA", "Unsupported value"),
        ("GRPCRoute", ("spec", "rules", 0, "matches", 0, "method"), {}, "must be specified"),
        ("BackendTLSPolicy", ("spec", "validation", "hostname"), "*", "should match"),
    ],
)
def test_what_a_definition_does_not_take_is_found(
    kind: str, place: tuple[str | int, ...], value: object, said: str, judged: Judge
) -> None:
    one = next(one for one in rendered("production") if one["kind"] == kind)
    wrong: Any = copy.deepcopy(one)
    *way, last = place
    inner = wrong
    for step in way:
        inner = inner[step]
    inner[last] = value
    assert judged([one]) == {}
    (message,) = judged([wrong]).values()
    assert said in message
