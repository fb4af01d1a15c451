"""The bill of materials says what the lock says, with the licence that each package names."""

from __future__ import annotations

import json
import re
from email.message import Message
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.spdx import is_expression
from cyclonedx.validation.json import JsonStrictValidator
from tools import sbom

ROOT = Path(__file__).resolve().parents[3]


LOCK = (ROOT / "requirements/runtime.lock").read_text()


@pytest.fixture(scope="module")
def bill() -> dict[str, Any]:
    made: dict[str, Any] = sbom.bill(LOCK, "0.1.0")
    return made


def test_every_package_of_the_lock_is_in_it_with_its_version_and_hashes(
    bill: dict[str, Any],
) -> None:
    locked = dict(re.findall(r"^([a-z0-9-]+)==([^ \\]+)", LOCK, re.MULTILINE))
    assert {one["name"]: one["version"] for one in bill["components"]} == locked
    hashes = [one["content"] for part in bill["components"] for one in part["hashes"]]
    assert sorted(hashes) == sorted(re.findall(r"sha256:([0-9a-f]{64})", LOCK))


def test_every_package_names_a_licence_and_is_named_once(bill: dict[str, Any]) -> None:
    assert all(one["licenses"] for one in bill["components"])
    names = [one["bom-ref"] for one in bill["components"]]
    assert len(set(names)) == len(names)
    assert bill["dependencies"][0]["dependsOn"] == names


def test_it_is_what_cyclonedx_own_schema_takes(bill: dict[str, Any]) -> None:
    schema = JsonStrictValidator(SchemaVersion.V1_6)
    assert schema.validate_str(json.dumps(bill)) is None
    first = bill["components"][0]
    for wrong in ({"colour": "red"}, {"type": "package"}, {"licenses": [{"license": {"id": "X"}}]}):
        other = bill | {"components": [first | wrong]}
        assert schema.validate_str(json.dumps(other)) is not None, wrong
    said = [one for part in bill["components"] for one in part["licenses"]]
    expressions = {one["expression"] for one in said if "expression" in one}
    assert expressions
    assert {one for one in expressions if not is_expression(one)} == set()


def test_the_same_lock_gives_the_same_document(bill: dict[str, Any]) -> None:
    assert json.dumps(sbom.bill(LOCK, "0.1.0")) == json.dumps(bill)
    assert re.fullmatch(r"urn:uuid:[0-9a-f-]{36}", bill["serialNumber"])


def test_a_package_without_a_hash_or_in_another_version_is_refused() -> None:
    with pytest.raises(ValueError, match="no hash"):
        list(sbom.pins("attrs==26.1.0\n"))
    with pytest.raises(LookupError, match=r"expected 0\.0\.1 here"):
        sbom.component(sbom.Pin("attrs", "0.0.1", ("00",)))
    with pytest.raises(metadata.PackageNotFoundError):
        sbom.component(sbom.Pin("no-such-package-here", "1", ("00",)))


@pytest.mark.parametrize(
    "lines, expected",
    [
        ({"License-Expression": "MIT OR Apache-2.0"}, [{"expression": "MIT OR Apache-2.0"}]),
        ({"License": "BSD-3-Clause"}, [{"license": {"id": "BSD-3-Clause"}}]),
        ({"License": "Copyright, and\nso on"}, [{"license": {"name": "Copyright, and"}}]),
        (
            {"License": "any", "Classifier": "License :: OSI Approved :: BSD License"},
            [{"license": {"name": "BSD License"}}],
        ),
        ({"Classifier": "License :: OSI Approved :: MIT License"}, [{"license": {"id": "MIT"}}]),
        ({}, []),
    ],
)
def test_a_licence_is_said_as_the_package_says_it(
    lines: dict[str, str], expected: list[dict[str, Any]]
) -> None:
    about = Message()
    for name, value in lines.items():
        about[name] = value
    assert sbom.licences_of(about) == expected
