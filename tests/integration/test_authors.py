"""What authors do with keys, members and sealed payloads, on a real ledger."""

from __future__ import annotations

import base64
import json
import random
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient
from psycopg import sql
from tests.integration.test_cli import Here

from nocturne.embedded import postgres
from nocturne.embedded import status as statuses
from nocturne.embedded.home import Home

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
GUIDES = ("members.md",)
KILLS = 6
SECONDS_MAX = 30.0


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    """A running ledger in a home of its own."""
    folder = tmp_path_factory.mktemp("authors")
    here = Here(folder, folder / "home")
    done = here.shell("nocturne up --detach")
    assert done.returncode == 0, done.stderr
    yield here
    here.shell("nocturne down")


@pytest.mark.parametrize("guide", GUIDES)
def test_every_line_of_the_guide_does_what_it_says(here: Here, guide: str) -> None:
    blocks = re.compile(r"^```sh(?: exit=(\d))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    found = blocks.findall((ROOT / "docs" / "guides" / guide).read_text())
    assert found
    for code, block in found:
        for line in block.splitlines():
            done = here.shell(line)
            assert done.returncode == int(code or 0), (line, done.stdout, done.stderr)
            assert "Traceback" not in done.stdout + done.stderr


# Members ---------------------------------------------------------------------------------------


def test_members_decide_who_may_write(here: Here) -> None:
    for name in ("ann", "ben"):
        here.json("keys", "new", name)
    here.json("submit", "team/1", "Said", "{}", "--as", "ann")
    (refused,) = here.json("submit", "team/1", "Said", "{}", "--as", "ben", code=1)
    assert refused["receipt"]["detail"] == "NOT_A_MEMBER"
    here.json("members", "team/1", "add", "ben", "--role", "reader", "--as", "ann")
    here.json("submit", "team/1", "Said", "{}", "--as", "ben", code=1)
    here.json("members", "team/1", "add", "ben", "--role", "writer", "--as", "ann")
    here.json("submit", "team/1", "Said", "{}", "--as", "ben")
    listed = here.json("members", "team/1")
    assert [(one["role"], one["name"]) for one in listed] == [("owner", "ann"), ("writer", "ben")]
    done = here.shell("nocturne members team/1 add ben --role owner --as ben")
    assert done.returncode == 1
    assert "Only an owner may do this" in done.stderr
    here.json("members", "team/1", "remove", "ben", "--as", "ann")
    here.json("submit", "team/1", "Said", "{}", "--as", "ben", code=1)
    (kept,) = here.json("members", "team/1", "remove", "ann", "--as", "ann", code=1)
    assert kept["receipt"]["context"]["violatedInvariant"] == "members.owner_remains"
    here.json("close", "team/1", "--as", "ann", "--yes")
    (closed,) = here.json("submit", "team/1", "Said", "{}", "--as", "ann", code=1)
    assert closed["receipt"]["detail"] == "SESSION_CLOSED"


# Author keys -----------------------------------------------------------------------------------


def test_a_rotated_key_writes_on_as_the_same_author_and_the_old_one_is_refused(here: Here) -> None:
    (made,) = here.json("keys", "new", "rose")
    here.json("submit", "roses/1", "Planted", "{}", "--as", "rose")
    keys = here.home / "keys" / "authors"
    shutil.copy(keys / "rose.json", keys / "old-rose.json")
    (rotated,) = here.json("keys", "rotate", "rose")
    assert rotated["author"] == made["author"]
    assert rotated["key"] != made["key"] == rotated["before"]
    (refused,) = here.json("submit", "roses/1", "Stolen", "{}", "--as", "old-rose", code=1)
    assert refused["receipt"]["detail"] == "UNKNOWN_AUTHOR"
    here.json("submit", "roses/1", "Watered", "{}", "--as", "rose")
    events = here.json("events", "roses/1")
    assert [one["eventType"] for one in events] == ["Planted", "Watered"]
    assert {one["author"] for one in events} == {made["author"]}
    assert [one["authorKeys"] for one in events] == [[made["key"]], [rotated["key"]]]
    # A public key that the author was rotated to means the author.
    here.json("members", "roses/1", "add", rotated["key"], "--role", "owner", "--as", "rose")
    assert [one["author"] for one in here.json("members", "roses/1")] == [made["author"]]
    # The receipt stands in the ledger's own session, whose export verifies.
    receipts = here.json("receipts", "--claimed")
    assert refused["receipt"] in receipts
    here.json("export", "~ledger", str(here.folder / "ledger.export"))
    (verdict,) = here.json("verify", str(here.folder / "ledger.export"))
    assert verdict["holds"] is True
    assert verdict["events"] >= 1


def test_a_rotation_killed_anywhere_is_finished_by_the_next(here: Here) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    (made,) = here.json("keys", "new", "kit")
    here.json("submit", "kit/1", "Said", "{}", "--as", "kit")
    for _ in range(KILLS):
        running = here.start("keys", "rotate", "kit")
        try:
            running.communicate(timeout=dice.uniform(0.4, 2.0))
        except subprocess.TimeoutExpired:
            running.kill()
            running.communicate()
        (rotated,) = here.json("keys", "rotate", "kit")
        here.json("submit", "kit/1", "Said", "{}", "--as", "kit")
        events = here.json("events", "kit/1")
        assert events[-1]["authorKeys"] == [rotated["key"]]
        assert {one["author"] for one in events} == {made["author"]}


def test_a_revoked_author_is_refused_for_good(here: Here) -> None:
    (made,) = here.json("keys", "new", "rex")
    here.json("submit", "rex/1", "Said", "{}", "--as", "rex")
    done = here.shell("nocturne keys revoke rex")
    assert done.returncode == 2
    assert "Say --yes" in done.stderr
    (revoked,) = here.json("keys", "revoke", "rex", "--yes")
    assert revoked["author"] == made["author"]
    (refused,) = here.json("submit", "rex/1", "Said", "{}", "--as", "rex", code=1)
    assert refused["receipt"]["detail"] == "UNKNOWN_AUTHOR"
    done = here.shell("nocturne keys rotate rex")
    assert done.returncode == 1
    assert "is revoked, for good" in done.stderr
    listed = {one["name"]: one["state"] for one in here.json("keys", "list")}
    assert listed["rex"] == "revoked"


# Sealed payloads -------------------------------------------------------------------------------


def forms_of(marker: str) -> list[bytes]:
    """The marker as it could stand in a file: text, hex, base64 at any offset, UTF-16."""
    plain = marker.encode()
    forms = [plain, plain.hex().encode(), plain.hex().upper().encode()]
    for shift in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            # The first and last characters depend on what stands around.
            forms.append(encode(bytes(shift) + plain + bytes(3))[4:-8])
    return [*forms, marker.encode("utf-16-le"), marker.encode("utf-16-be")]


class Places:
    """Everything that the stack wrote, searched for a marker."""

    def __init__(self, here: Here) -> None:
        self.home = Home(here.home)
        self.status = statuses.read(self.home.status)

    def holding(self, marker: str) -> set[str]:
        """Which kinds of places hold the marker in any form: files, tables, topics."""
        forms = forms_of(marker)
        found = set()
        for kind, pieces in (
            ("files", self._files()),
            ("tables", self._rows()),
            ("topics", self._records()),
        ):
            count = 0
            for piece in pieces:
                count += 1
                if any(form in piece for form in forms):
                    found.add(kind)
            assert count > 0, f"no {kind} were looked into"
        return found

    def _files(self) -> Iterator[bytes]:
        for file in self.home.root.rglob("*"):
            yield str(file).encode()
            if file.is_file():
                yield file.read_bytes()

    def _rows(self) -> Iterator[bytes]:
        port = self.status.service("postgres").port
        server = postgres.Server(self.home.postgres / "data", port, self.home.keys("postgres"))
        with psycopg.connect(server.dsn(postgres.OWNER)) as connection:
            tables = connection.execute(
                "SELECT schemaname, tablename FROM pg_tables"
                " WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
            ).fetchall()
            assert len(tables) > 3
            for schema, name in tables:
                query = sql.SQL("SELECT one::text FROM {}.{} one").format(
                    sql.Identifier(schema), sql.Identifier(name)
                )
                for (row,) in connection.execute(query):
                    yield row.encode()

    def _records(self) -> Iterator[bytes]:
        bootstrap = f"127.0.0.1:{self.status.service('kafka').port}"
        known = AdminClient({"bootstrap.servers": bootstrap}).list_topics(timeout=SECONDS_MAX)
        assert any(name.startswith("nocturne.blocks") for name in known.topics)
        consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": f"search-{secrets.token_hex(8)}",
                "enable.auto.commit": False,
                "isolation.level": "read_uncommitted",
                "enable.partition.eof": True,
            }
        )
        try:
            for name, topic in known.topics.items():
                for partition in topic.partitions:
                    yield from self._partition(consumer, TopicPartition(name, partition))
        finally:
            consumer.close()

    @staticmethod
    def _partition(consumer: Consumer, place: TopicPartition) -> Iterator[bytes]:
        low, high = consumer.get_watermark_offsets(place, timeout=SECONDS_MAX)
        if low == high:
            return
        consumer.assign([TopicPartition(place.topic, place.partition, OFFSET_BEGINNING)])
        while True:
            message = consumer.poll(SECONDS_MAX)
            assert message is not None, f"{place.topic}/{place.partition} does not end"
            error = message.error()
            if error is not None:
                assert error.code() == KafkaError._PARTITION_EOF, error
                return
            yield message.key() or b""
            yield message.value() or b""
            for _, value in message.headers() or []:
                yield value or b""


@pytest.mark.long
def test_what_is_sealed_stands_in_clear_nowhere_in_the_stack(here: Here) -> None:
    plain, sealed = (f"marker-{secrets.token_hex(40)}" for _ in range(2))
    for marker, options in ((plain, []), (sealed, ["--seal", "ada"])):
        file = here.folder / f"{len(options)}.json"
        file.write_text(json.dumps({"text": marker, "list": [marker] * 3}))
        for kind in ("document", "facts"):
            session = f"seal/{kind}/{len(options)}"
            here.json("submit", session, "Told", f"@{file}", "--kind", kind, *options)
            (event,) = here.json("events", session)
            shown = event["unsealed"] if options else event
            assert shown["payload"]["text"] == marker
            here.json("state", session)
    (state,) = here.json("state", "seal/document/2")
    assert state["state"]["document"]["text"] == sealed
    assert state["foldedHere"] is True
    places = Places(here)
    assert places.holding(plain) == {"files", "tables", "topics"}
    assert places.holding(sealed) == set()


def test_a_reader_is_let_in_and_an_erased_payload_still_verifies(here: Here) -> None:
    marker = f"marker-{secrets.token_hex(40)}"
    here.json("keys", "new", "giver")
    (reader,) = here.json("keys", "new", "reader")
    here.json(
        *("submit", "case/1", "Told", json.dumps({"text": marker}), "--kind", "document"),
        *("--as", "giver", "--seal", "case-1"),
    )
    shared = here.folder / "case.key"
    here.json("subjects", "share", "case-1", str(shared), "--with", reader["key"])
    # The reader's home: the same ledger, no subject key of its own.
    kept = here.home / "keys" / "subjects"
    kept.rename(here.folder / "giver-subjects")
    (event,) = here.json("events", "case/1")
    assert (event["sealed"], event["unsealed"]) == (True, None)
    here.json("subjects", "import", str(shared), "--name", "case-1")
    (event,) = here.json("events", "case/1")
    assert event["unsealed"]["payload"] == {"text": marker}
    here.json("subjects", "destroy", "case-1", "--yes")
    (event,) = here.json("events", "case/1")
    assert (event["sealed"], event["erased"], event["unsealed"]) == (True, True, None)
    (state,) = here.json("state", "case/1")
    assert state["state"] == {"document": {}, "skipped": 1}
    export = here.folder / "case.export"
    here.json("export", "case/1", str(export))
    assert marker not in export.read_text()
    (verdict,) = here.json("verify", str(export))
    assert (verdict["events"], verdict["holds"]) == (1, True)
