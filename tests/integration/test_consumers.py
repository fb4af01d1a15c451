"""Who reads the topics from outside: with a registry whose ids are its own, and without any."""

from __future__ import annotations

import base64
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from fastavro import parse_schema
from tests.e2e.strangers import append
from tests.integration.test_registry import asked, registered

from nocturne.client import Client, Refused, SyncClient
from nocturne.core import evidence
from nocturne.core.certificates import Ballot, Epoch, VoteKind, sign_vote
from nocturne.core.commands import Evidence, Opening, encode_command
from nocturne.core.events import Event, decode_event, encode_event, sign_event
from nocturne.core.evidence import SignedVote
from nocturne.core.genesis import decode_genesis, ledger_id_of
from nocturne.core.identifiers import Hash, format_hash
from nocturne.core.json_fields import parse_time
from nocturne.core.json_forms import event_json
from nocturne.core.keys import Ed25519Signer
from nocturne.core.schemas import SCHEMAS
from nocturne.core.strict_json import canonical_json
from nocturne.core.topics import (
    EVENTS,
    EVIDENCE,
    FIXED_SCHEMA_IDS,
    RECEIPTS,
    SCHEMA_NAMES,
    TOPICS,
    frame,
    unframe,
)
from nocturne.embedded import ceremony, status
from nocturne.embedded.home import Home
from nocturne.runtime.keys import load_signer

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

NOCTURNE = Path(sys.executable).with_name("nocturne")
GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "consuming.md").read_text()
OUTSIDE = Path(__file__).with_name("outside_reader.py")
SESSIONS = ("orders/1", "orders/2", "notes:a")
EVENTS_EACH = 5
STRANGERS = 5
NOBODY = Ed25519Signer(bytes(32))


@dataclass(frozen=True)
class Stack:
    """A ledger that runs with a registry, and strangers' records in its events topic."""

    home: Path
    registry: str
    ids: dict[str, int]

    @property
    def bootstrap(self) -> str:
        return status.read(Home(self.home).status).address("kafka")

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "NOCTURNE_HOME": str(self.home),
            "NOCTURNE_REGISTRY_URL": self.registry,
            "PATH": f"{NOCTURNE.parent}{os.pathsep}{os.environ['PATH']}",
        }

    def run(self, *arguments: str, code: int = 0) -> str:
        """One command line of ours; what it prints."""
        done = subprocess.run(
            [NOCTURNE, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, (arguments, done.stdout[-500:], done.stderr)
        return done.stdout

    def json(self, *arguments: str, code: int = 0) -> list[Any]:
        """The objects that a command prints, one a line."""
        return [json.loads(line) for line in self.run(*arguments, "--json", code=code).splitlines()]

    def events(self) -> list[Any]:
        """Every event as the SDK reads it, verified."""
        authority = decode_genesis((self.home / "genesis.avro").read_bytes()).authority
        with self.client() as client:
            return [
                event_json(event, authority)
                for session in SESSIONS
                for event in client.events(session)
            ]

    def records(self, topic: str) -> list[Message]:
        """Everything in a topic, from the broker itself."""
        consumer = Consumer(
            {"bootstrap.servers": self.bootstrap, "group.id": "test", "enable.partition.eof": True}
        )
        found: list[Message] = []
        try:
            unfinished = set(consumer.list_topics(topic, timeout=20).topics[topic].partitions)
            consumer.assign([TopicPartition(topic, number, 0) for number in unfinished])
            while unfinished:
                message = consumer.poll(20)
                assert message is not None
                error = message.error()
                if error is None:
                    found.append(message)
                else:
                    assert error.code() == KafkaError._PARTITION_EOF
                    unfinished.discard(message.partition())
        finally:
            consumer.close()
        return found

    @contextmanager
    def client(self) -> Iterator[SyncClient]:
        """The SDK, signing as one author."""
        found = status.read(Home(self.home).status)
        genesis = (self.home / "genesis.avro").read_bytes()
        with SyncClient(
            Client(
                found.address("command"),
                found.address("query"),
                genesis=genesis,
                signer=Ed25519Signer(bytes([7]) * 32),
            )
        ) as client:
            yield client


@pytest.fixture(scope="module")
def stack(registry_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Events and receipts of three sessions; garbage and forgeries between them."""
    for number in range(7):
        body = {"schema": json.dumps({"type": "fixed", "name": "Other", "size": number + 1})}
        assert asked(registry_url, "POST", f"/subjects/other-{number}/versions", body)[0] == 200
    ids = {one["topic"]: one["id"] for one in registered(registry_url)}
    stack = Stack(tmp_path_factory.mktemp("consumers") / "home", registry_url, ids)
    stack.run("up", "--detach")
    try:
        with stack.client() as client:
            for number in range(EVENTS_EACH):
                for session in SESSIONS:
                    payload = {"n": number, "of": session, "text": "a\u001bé☾"}
                    opening = Opening("facts", 1) if number == 0 else None
                    client.append(session, [client.json("Counted", payload)], opening=opening)
                if number == 2:
                    write_as_strangers(stack)
            refused = client.append("orders/1", [client.json("Paid", {})], expected_sequence=77)
            assert isinstance(refused, Refused)
            assert refused.receipt is not None
            client.readable(refused.receipt.height)
        write_evidence(stack)
        yield stack
    finally:
        stack.run("down")


def write_as_strangers(stack: Stack) -> None:
    """Five records that are not the authority's: three are no events, two look like ones."""
    real = decode_event(unframe(one_event(stack).value()))
    junk = frame(stack.ids[EVENTS], b"\xff" * 40)
    forged = frame(stack.ids[EVENTS], forgery(real))
    payload = real.payload.data
    unbound = frame(stack.ids[EVENTS], unframe(one_event(stack).value())).replace(
        payload, payload.replace(b"0", b"9")
    )
    values = [b"\x1b[2Jgarbage", frame(999_999, b"junk"), junk, forged, unbound]
    assert len(values) == STRANGERS
    for value in values:
        append(stack.bootstrap, EVENTS, 0, b"x\x1b[2J", value, [("ce_id\x1b", b"\x9b31m")])


def write_evidence(stack: Stack) -> None:
    """Two votes that the first validator's key signs and no correct one does."""
    genesis = (stack.home / "genesis.avro").read_bytes()
    validators = decode_genesis(genesis).validator_set
    signer = load_signer(ceremony.validator_key(Home(stack.home)))
    votes = []
    for number in (1, 2):
        digest = Hash(bytes([number]) * 32)
        ballot = Ballot(
            VoteKind.NOTARIZE, ledger_id_of(genesis), Epoch(0, 0), validators.hash, 9, digest
        )
        votes.append(SignedVote(ballot.kind, digest, sign_vote(signer, ballot)))
    lie = evidence.Evidence(ledger_id_of(genesis), Epoch(0, 0), validators.hash, 9, 0, *votes)
    value = frame(stack.ids[EVIDENCE], evidence.encode_evidence(lie))
    name = evidence.name_of(lie).encode("ascii")
    append(stack.bootstrap, EVIDENCE, 0, name, value, [("ce_id", name)])


def one_event(stack: Stack) -> Message:
    return next(
        one for one in stack.records(EVENTS) if one.key() == SESSIONS[0].encode() and one.value()
    )


def forgery(real: Event) -> bytes:
    """The same event, signed by somebody else."""
    signed = sign_event(NOBODY, real.event_hash, real.timestamp, real.height)
    evidence = Evidence(encode_command(real.command), real.author_signatures, (real.payload,))
    return encode_event(real.header_bytes, signed, real.height, real.timestamp, evidence, 0)


def outside(stack: Stack, topic: str) -> tuple[list[Any], list[str]]:
    """What a process that cannot import Nocturne reads of a topic; what it could not read."""
    done = subprocess.run(
        # Without `site`: the packages are found, the editable Nocturne beside them is not.
        [sys.executable, "-S", "-P", OUTSIDE, stack.bootstrap, stack.registry, topic],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": sysconfig.get_paths()["purelib"]},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr.splitlines()


# With a registry --------------------------------------------------------------------------------


def test_every_record_has_the_registrys_id_and_none_the_fixed_one(stack: Stack) -> None:
    assert min(stack.ids.values()) > max(FIXED_SCHEMA_IDS.values())
    for topic in TOPICS:
        ours = [one.value() for one in stack.records(topic) if one.key() != b"x\x1b[2J"]
        assert ours
        assert {value[1:5] for value in ours} == {stack.ids[topic].to_bytes(4, "big")}


def test_everything_verifies_under_any_ids(stack: Stack, tmp_path: Path) -> None:
    for session in SESSIONS:
        file = tmp_path / f"{SESSIONS.index(session)}.export"
        stack.run("export", session, str(file))
        (verdict,) = stack.json("verify", str(file))
        assert (verdict["holds"], verdict["events"]) == (True, EVENTS_EACH)


def test_confluents_own_deserializer_reads_the_events_that_the_sdk_reads(stack: Stack) -> None:
    read, refused = outside(stack, EVENTS)
    # Garbage, an unknown id and junk Avro; the two forgeries are Avro like any other.
    assert len(refused) == 3
    first: dict[tuple[str, int], Any] = {}
    for event in read:
        first.setdefault((event["header"]["session"], event["header"]["sequence"]), event)
    assert len(read) == len(first) + 2
    expected = stack.events()
    assert len(first) == len(expected) == len(SESSIONS) * EVENTS_EACH
    for one in expected:
        check_event(first[one["sessionId"], one["sequenceNumber"]], one)


def check_event(read: Any, expected: Any) -> None:
    header = read["header"]
    assert str(UUID(header["eventId"])) == expected["eventId"]
    assert header["eventType"] == expected["eventType"]
    assert json.loads(bytes.fromhex(read["payload"]["bytes"])) == expected["payload"]
    assert bytes.fromhex(read["payload"]["salt"]) == base64.b64decode(expected["salt"])
    for name in ("payloadHash", "previousHash", "author", "commandHash"):
        assert f"sha256-{header[name]}" == expected[name]
    assert header["occurredAt"] == parse_time(expected["occurredAt"])
    assert (read["timestamp"], read["height"]) == (
        parse_time(expected["timestamp"]),
        expected["height"],
    )
    position = {name: header[name] for name in ("logEpoch", "partition", "offset")}
    assert (position, header["index"]) == (expected["position"], expected["index"])
    assert f"ed25519-{read['signatures'][0]['bytes']}" == expected["signature"]


def test_confluents_own_deserializer_reads_receipts(stack: Stack) -> None:
    ((read,), refused) = outside(stack, RECEIPTS)
    (expected,) = stack.json("receipts")
    assert refused == []
    assert read["receipt"]["reason"] == 13
    assert expected["detail"] == "DUPLICATE_SEQ"
    assert read["receipt"]["attemptedSequence"] == expected["context"]["attemptedSequence"]
    assert read["receipt"]["position"] == expected["position"]
    assert f"sha256-{read['receipt']['commandHash']}" == expected["eventHash"]
    assert f"ed25519-{read['signatures'][0]['bytes']}" == expected["signature"]


@pytest.mark.parametrize("topic", [topic for topic in TOPICS if topic not in (EVENTS, RECEIPTS)])
def test_confluents_own_deserializer_reads_the_other_topics_too(stack: Stack, topic: str) -> None:
    read, refused = outside(stack, topic)
    assert len(read) == len(stack.records(topic))
    assert refused == []


def test_every_line_of_the_guide_does_what_it_says(stack: Stack) -> None:
    lines = [
        line
        for block in re.findall(r"^```sh\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    assert len(lines) == 3
    for line in lines:
        done = subprocess.run(
            ["bash", "-c", line],
            env=stack.environment,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, (line, done.stderr)


# Without one ------------------------------------------------------------------------------------


def python_of_the_guide() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)


def test_the_guides_reader_takes_every_event_once(stack: Stack, tmp_path: Path) -> None:
    reader = python_of_the_guide()[0]
    assert len(reader.splitlines()) <= 20
    (tmp_path / "reader.py").write_text(reader)
    (tmp_path / "event.avsc").write_text(stack.run("schemas", "show", "events"))
    running = subprocess.Popen(
        [sys.executable, "-u", "reader.py", stack.bootstrap],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout is not None
    expected = {
        f"{one['sessionId']} {one['sequenceNumber']} {one['eventType']} "
        f"{canonical_json(one['payload'])!r}"
        for one in stack.events()
    }
    try:
        seen = [running.stdout.readline().rstrip("\n") for _ in expected]
    finally:
        running.kill()
        rest, _ = running.communicate()
    assert (len(seen), set(seen)) == (len(expected), expected)
    assert rest == ""


def test_the_guides_check_takes_the_authoritys_events_and_no_other(stack: Stack) -> None:
    names: dict[str, Any] = {}
    exec(compile(python_of_the_guide()[1], "consuming.md", "exec"), names)
    schema = parse_schema(json.loads(SCHEMAS[SCHEMA_NAMES[EVENTS]]))
    genesis = decode_genesis((stack.home / "genesis.avro").read_bytes())
    taken = []
    refused = 0
    for record in stack.records(EVENTS):
        try:
            taken.append(names["verified"](record.value(), schema, genesis.authority[0].data))
        except Exception:
            refused += 1
    assert refused == STRANGERS
    expected = stack.events()
    assert {one["header"]["eventId"] for one in taken} == {
        UUID(one["eventId"]).bytes for one in expected
    }
    assert {format_hash(one["header"]["payloadHash"]) for one in taken} == {
        one["payloadHash"] for one in expected
    }


# tail -------------------------------------------------------------------------------------------


def test_tail_says_of_each_record_what_can_be_checked(stack: Stack) -> None:
    count = len(SESSIONS) * EVENTS_EACH
    told = stack.json("tail", "events", "--from-beginning", "--limit", str(count + STRANGERS))
    checks = [one["check"] for one in told]
    assert checks.count("verified") == count
    assert checks.count("unreadable") == 3
    assert {one["says"] for one in told if one["check"] == "refused"} == {
        "the authority did not sign it: a stranger's record",
        "the payload is not the one that was signed",
    }
    verified = [one for one in told if one["check"] == "verified"]
    assert {one["schemaId"] for one in verified} == {stack.ids[EVENTS]}
    assert all(one["headers"]["ce_id"] == one["record"]["eventId"] for one in verified)
    expected = {one["eventId"]: one for one in stack.events()}
    assert {one["record"]["eventId"]: one["record"] for one in verified} == expected


@pytest.mark.parametrize("topic", [topic for topic in TOPICS if topic != EVENTS])
def test_tail_reads_every_topic(stack: Stack, topic: str) -> None:
    told = stack.json("tail", topic, "--from-beginning", "--limit", "1")
    assert [(one["check"], one["schemaId"]) for one in told] == [("verified", stack.ids[topic])]


def test_tail_shows_a_strangers_bytes_without_acting_on_them(stack: Stack) -> None:
    count = len(SESSIONS) * EVENTS_EACH + STRANGERS
    shown = stack.run("tail", "events", "--from-beginning", "--limit", str(count))
    assert "unreadable" in shown
    assert not set("\x1b\x9b\x07\r") & set(shown)


def test_tail_begins_now_and_ends_with_ctrl_c(stack: Stack) -> None:
    tailing = subprocess.Popen(
        [NOCTURNE, "tail", "events", "--json"],
        env=stack.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tailing.stdout is not None
    # What is written until it has begun is not shown: write until something is.
    with selectors.DefaultSelector() as selector, stack.client() as client:
        selector.register(tailing.stdout, selectors.EVENT_READ)
        for number in range(120):
            opening = Opening("facts", 1) if number == 0 else None
            client.append("tail/now", [client.json("Said", {"n": number})], opening=opening)
            if selector.select(0.5):
                break
    first = json.loads(tailing.stdout.readline())
    assert (first["record"]["sessionId"], first["check"]) == ("tail/now", "verified")
    tailing.send_signal(signal.SIGINT)
    _, said = tailing.communicate(timeout=20)
    assert (tailing.returncode, said) == (0, "")
