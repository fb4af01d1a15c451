"""The specification names every tag, reason, field and member that the code has, and no other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.vectors import generate

from nocturne.core.receipts import PAPER_REASONS, Reason
from nocturne.core.schemas import SCHEMAS

ROOT = Path(__file__).resolve().parents[3]
SPEC = ROOT / "docs" / "spec"
CORE = ROOT / "services" / "nocturne" / "core"
CONSENSUS = ROOT / "services" / "nocturne" / "consensus"
HASHED_OR_SIGNED = {
    "command": "ledger.md",
    "signed_command": "ledger.md",
    "event_header": "ledger.md",
    "event": "ledger.md",
    "receipt_header": "ledger.md",
    "receipt": "ledger.md",
    "genesis": "ledger.md",
    "sealed_payload": "ledger.md",
    "disposition": "blocks.md",
    "block_header": "blocks.md",
    "seal": "blocks.md",
    "commit_proof": "consensus.md",
}


def text_of(name: str) -> str:
    return (SPEC / name).read_text(encoding="utf-8")


def test_every_domain_is_in_the_table_and_no_other() -> None:
    paths = [*CORE.rglob("*.py"), *CONSENSUS.rglob("*.py")]
    code = "".join(path.read_text(encoding="utf-8") for path in paths)
    tags = set(re.findall(r'domain\("(nocturne/[a-z-]+/v1)"\)', code))
    table = text_of("encoding.md").split("All tags:")[1].split("## 2.")[0]
    assert set(re.findall(r"`(nocturne/[a-z-]+/v1)`", table)) == tags


def test_no_file_names_a_domain_that_is_not_there() -> None:
    table = text_of("encoding.md")
    for path in SPEC.glob("*.md"):
        for tag in re.findall(r'["`](nocturne/[a-z-]+/v1)["`]', path.read_text(encoding="utf-8")):
            assert tag in table, f"{path.name}: {tag}"


def test_every_reason_is_in_the_table_as_it_is() -> None:
    rows = re.findall(
        r"^\| (\d+) \| `([A-Z_]+)` \| `([A-Z_]+)` \|", text_of("ledger.md"), flags=re.MULTILINE
    )
    assert {(int(number), name, paper) for number, name, paper in rows} == {
        (int(reason), reason.name, PAPER_REASONS[reason]) for reason in Reason
    }


def _fields(schema: object) -> Iterator[str]:
    match schema:
        case {"type": "record", "fields": list(fields)}:
            for field in fields:
                yield field["name"]
                yield from _fields(field["type"])
        case {"type": "array", "items": items}:
            yield from _fields(items)
        case list():
            for branch in schema:
                yield from _fields(branch)


@pytest.mark.parametrize("name", HASHED_OR_SIGNED)
def test_every_field_of_a_schema_is_described(name: str) -> None:
    text = text_of(HASHED_OR_SIGNED[name]) + text_of("encoding.md")
    for field in _fields(json.loads(SCHEMAS[name])):
        assert re.search(rf"\b{field}\b", text), f"{name}.{field}"


def _members(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for name, member in value.items():
            yield name
            # A payload is the author's, not ours.
            if name != "payload":
                yield from _members(member)
    elif isinstance(value, list):
        for one in value:
            yield from _members(one)


def test_every_member_of_an_export_is_described() -> None:
    text = text_of("exports.md")
    exports = json.loads((generate.FOLDER / "exports.json").read_text(encoding="utf-8"))
    for good in exports["good"]:
        for line in good["lines"]:
            for name in _members(json.loads(line)):
                assert re.search(rf'[`"]{name}[`"]', text), name


def test_the_files_that_code_cites_are_there() -> None:
    for path in (ROOT / "services").rglob("*.py"):
        for name in re.findall(r"docs/spec/([a-z]+\.md)", path.read_text(encoding="utf-8")):
            assert (SPEC / name).exists(), f"{path}: {name}"


def test_links_in_the_specification_lead_somewhere() -> None:
    for path in SPEC.glob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (SPEC / target).resolve().exists(), f"{path.name}: {target}"
