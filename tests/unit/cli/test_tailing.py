"""tail: what is printed of records, and what is said when there are none to read."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from tests.unit.cli.memory_ledger import Shell
from tests.unit.cli.test_tail_records import LEDGER, RECORDS, VALUES

from nocturne.cli import topic_records
from nocturne.cli.tail_records import Record
from nocturne.core import topics
from nocturne.core.identifiers import format_hash
from nocturne.runtime.cluster import Cluster

FORGED = Record(
    topics.EVENTS,
    0,
    8,
    None,
    b"\x1b[2Jkey",
    b"\x1b[31mnot a record",
    (("ce_id", b"\x9b1m\r\n"), ("\x1b]0;name", "‮".encode())),
)


@pytest.fixture
def genesis(tmp_path: Path) -> Path:
    """The genesis that the records were made under."""
    file = tmp_path / "genesis.avro"
    file.write_bytes(LEDGER.genesis_bytes)
    return file


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, bool]]:
    """A broker with one record of each topic, and a stranger's among the events."""
    asked: list[tuple[str, str, bool]] = []

    def read(cluster: Cluster, topic: str, from_beginning: bool) -> Generator[Record, None, None]:
        asked.append((cluster.bootstrap, topic, from_beginning))
        yield from (one for one in RECORDS if one.topic == topic)
        if topic == topics.EVENTS:
            yield FORGED

    monkeypatch.setattr(topic_records, "read", read)
    return asked


Asked = list[tuple[str, str, bool]]


@pytest.mark.parametrize("name", ["events", "nocturne.events.v1"])
def test_records_are_printed_with_their_check(
    shell: Shell, asked: Asked, genesis: Path, name: str
) -> None:
    assert shell.run("tail", name, "--bootstrap", "broker:1", "--genesis", str(genesis)) == 0
    assert asked == [("broker:1", topics.EVENTS, False)]
    assert "verified" in shell.out
    assert "orders/1 1 Paid" in shell.out
    assert "the authority's signature verifies" in shell.out
    assert "unreadable" in shell.out
    assert shell.err == ""


def test_a_strangers_controls_do_not_reach_the_terminal(
    shell: Shell, asked: Asked, genesis: Path
) -> None:
    arguments = ("tail", "events", "--bootstrap", "broker:1", "--genesis", str(genesis))
    for more in ((), ("--json",)):
        assert shell.run(*arguments, *more) == 0
        assert not set("\x1b\x9b\r\x07‮") & set(shell.out)


@pytest.mark.parametrize("topic", topics.TOPICS)
def test_json_is_one_object_a_record(shell: Shell, asked: Asked, genesis: Path, topic: str) -> None:
    arguments = ("tail", topic, "--bootstrap", "b:1", "--genesis", str(genesis), "--limit", "1")
    (told,) = shell.json_lines(*arguments)
    assert (told["topic"], told["check"], told["bytes"]) == (topic, "verified", len(VALUES[topic]))


def test_the_limit_ends_it_and_the_beginning_is_asked_for(shell: Shell, asked: Asked) -> None:
    told = shell.json_lines(
        "tail", "events", "--bootstrap", "broker:1", "--from-beginning", "--limit", "1"
    )
    assert [one["check"] for one in told] == ["unchecked"]
    assert "--genesis FILE" in shell.err
    assert asked == [("broker:1", topics.EVENTS, True)]


def test_a_deployment_is_named_by_the_environment_its_ledger_by_a_file(
    shell: Shell, asked: Asked, genesis: Path
) -> None:
    shell.environment |= {
        "NOCTURNE_KAFKA_BOOTSTRAP": "broker:1,broker:2",
        "NOCTURNE_LEDGER": str(genesis),
    }
    (told,) = shell.json_lines("tail", "events", "--limit", "1")
    assert told["check"] == "verified"
    shell.json_lines("tail", "events", "--bootstrap", "nearer:1", "--limit", "1")
    assert [address for address, *_ in asked] == ["broker:1,broker:2", "nearer:1"]


def test_by_an_id_alone_records_are_checked_only_against_a_genesis_of_that_id(
    shell: Shell, asked: Asked, genesis: Path
) -> None:
    shell.home.mkdir(exist_ok=True)
    (shell.home / "genesis.avro").write_bytes(genesis.read_bytes())
    shell.environment["NOCTURNE_KAFKA_BOOTSTRAP"] = "broker:1"
    for ledger, check in (
        (format_hash(LEDGER.ledger_id), "verified"),
        (f"sha256-{'0' * 64}", "unchecked"),
    ):
        shell.environment["NOCTURNE_LEDGER"] = ledger
        (told,) = shell.json_lines("tail", "events", "--limit", "1")
        assert told["check"] == check
    assert "--genesis FILE" in shell.err


def test_ctrl_c_ends_with_0(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> Generator[Record, None, None]:
        yield FORGED
        raise KeyboardInterrupt

    monkeypatch.setattr(topic_records, "read", read)
    assert shell.run("tail", "events", "--bootstrap", "broker:1", "--json") == 0
    assert shell.out.count("\n") == 1


@pytest.mark.parametrize(
    "arguments, code, sentence",
    [
        (["tail", "events"], 3, "'nocturne up --detach' starts it, or name a broker"),
        (["tail", "anchors"], 2, "TOPIC takes commands, blocks, seals, events, receipts"),
        (["tail", "events", "--limit", "0"], 2, "nocturne tail --help"),
        (["tail", "events", "--bootstrap", "b:1", "--genesis", "none"], 2, "name another file"),
        (["tail", "events", "--bootstrap", "b:1", "--genesis", __file__], 2, "is no genesis"),
    ],
)
def test_a_bad_day_is_one_sentence(
    shell: Shell, arguments: list[str], code: int, sentence: str
) -> None:
    assert shell.run(*arguments) == code
    assert sentence in shell.err
