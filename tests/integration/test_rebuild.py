"""A rebuild of the read model, beside a live one that goes on: equal, swapped, and unnoticed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest
from tests.ledger_factory import signer
from tests.machines import make_server, started, until
from tests.read_side import (
    SECONDS_MAX,
    Stack,
    all_events,
    assert_read_model_equals_the_fold,
    exported,
    make_stack,
)
from tests.unit.projection.published import publish

from nocturne.audit.verify import verify_export
from nocturne.core import topics
from nocturne.core.events import decode_event
from nocturne.embedded import postgres
from nocturne.embedded.kafka import Broker
from nocturne.embedded.postgres import Server
from nocturne.embedded.services import postgres_process
from nocturne.projection.comparing import COMPARED, NOT_COMPARED
from nocturne.projection.migrate import migrations
from nocturne.wire.query.v1 import query_pb2 as pb
from nocturne.wire.query.v1 import query_pb2_grpc

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

REBUILD_SECONDS_MAX = 90.0


@pytest.fixture
def stack(tmp_path: Path, kafka_broker: Broker, postgres_server: Server) -> Stack:
    return make_stack(tmp_path, kafka_broker, postgres_server)


# Running one -----------------------------------------------------------------------------------


@dataclass
class Run:
    """A rebuild as a process, and what it has said."""

    process: subprocess.Popen[str]
    log: Path
    said: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._listening = threading.Thread(target=self._listen, daemon=True)
        self._listening.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(json.loads(line))

    def stages(self) -> list[str]:
        return [one["progress"]["stage"] for one in self.said if "progress" in one]

    def height(self) -> int:
        return max((one["progress"]["height"] for one in self.said if "progress" in one), default=0)

    def ended(self) -> int:
        code = self.process.wait(REBUILD_SECONDS_MAX)
        self._listening.join(SECONDS_MAX)
        return code

    def report(self, code: int = 0) -> dict[str, Any]:
        assert self.ended() == code, (self.said, self.log.read_text())
        report: dict[str, Any] = self.said[-1]["report"]
        return report

    def failure(self, code: int) -> str:
        assert self.ended() == code, (self.said, self.log.read_text())
        return str(self.said[-1]["failure"])


def start(stack: Stack, *arguments: str, records: int | None = None) -> Run:
    """`records`: of one transaction, so that there are many."""
    genesis = stack.folder / "genesis"
    genesis.write_bytes(stack.chain.ledger.genesis_bytes)
    log = stack.folder / "rebuild.log"
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, *_argv(records), *arguments],
            env={
                **os.environ,
                "NOCTURNE_GENESIS_FILE": str(genesis),
                "NOCTURNE_KAFKA_BOOTSTRAP": stack.broker.bootstrap,
                "NOCTURNE_POSTGRES_DSN": stack.dsn(postgres.OWNER),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    return Run(process, log)


def _argv(records: int | None) -> list[str]:
    if records is None:
        return ["-m", "nocturne.projection.rebuild"]
    small = f"import nocturne.projection.rebuilding as r; r.TRANSACTION_RECORDS_MAX = {records}"
    run = "import sys; from nocturne.projection.rebuild import main; sys.exit(main())"
    return ["-c", f"{small}\n{run}"]


@contextmanager
def reading(stack: Stack) -> Iterator[None]:
    """Somebody reads, and does not end: no swap while the block lasts."""
    with psycopg.connect(stack.dsn(postgres.QUERY)) as connection:
        connection.execute("SELECT height FROM nocturne_v1.progress")
        yield


def model(stack: Stack) -> object:
    """Which read model is live."""
    return stack.rows("SELECT 'nocturne_v1.progress'::regclass::oid::int8")[0][0]


def schemas(stack: Stack) -> set[object]:
    return {
        name
        for (name,) in stack.rows(
            "SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'nocturne%%'"
        )
    }


def test_the_rebuilt_read_model_is_equal_and_takes_the_place_of_the_live_one(stack: Stack) -> None:
    stack.chain.grow(80, seed=11)
    stack.publish_all()
    with stack.projection(), stack.query(), stack.stub() as stub:
        stack.wait_applied()
        before = model(stack)
        events = all_events(stub, "grown/1")
        report = start(stack).report()
        assert report["outcome"] == "swapped"
        assert report["equal"] is True
        assert report["wentOnFrom"] is None
        assert (report["height"], report["blocks"]) == (80, 80)
        assert model(stack) != before
        assert schemas(stack) == {"nocturne_v1"}
        assert_read_model_equals_the_fold(stack)
        assert all_events(stub, "grown/1") == events
        # Both services go on, with what they hold in memory.
        stack.chain.grow(20, seed=12)
        stack.publish_all(80)
        stack.wait_applied()
        assert_read_model_equals_the_fold(stack)
        verdict = verify_export(exported(stub, "grown/1"), stack.chain.ledger.ledger_id)
        assert verdict.holds, verdict.sentence


# While everything goes on -----------------------------------------------------------------------


class Asking(threading.Thread):
    """One reader that asks again and again; what failed, and the heights it was answered at."""

    def __init__(self, stack: Stack, ask: Any) -> None:
        super().__init__(daemon=True)
        self._stack = stack
        self._ask: Callable[[query_pb2_grpc.QueryServiceStub], list[int]] = ask
        self.over = threading.Event()
        self.failures: list[str] = []
        self.heights: list[int] = []

    def run(self) -> None:
        with self._stack.stub() as stub:
            while not self.over.is_set():
                try:
                    self.heights += self._ask(stub)
                except grpc.RpcError as fault:
                    self.failures.append(f"{fault.code()}: {fault.details()}")


def ask_state(stub: query_pb2_grpc.QueryServiceStub) -> list[int]:
    return [stub.GetState(pb.GetStateRequest(session_id="grown/1")).applied_through.height]


def ask_session(stub: query_pb2_grpc.QueryServiceStub) -> list[int]:
    return [stub.GetSession(pb.GetSessionRequest(session_id="grown/2")).applied_through.height]


def ask_events(stub: query_pb2_grpc.QueryServiceStub) -> list[int]:
    answers = list(stub.ListEvents(pb.ListEventsRequest(session_id="grown/3")))
    sequences = [decode_event(data).header.sequence for one in answers for data in one.events]
    assert sequences == list(range(1, len(sequences) + 1))
    return [one.applied_through.height for one in answers]


def ask_status(stub: query_pb2_grpc.QueryServiceStub) -> list[int]:
    return [stub.GetStatus(pb.GetStatusRequest()).applied_through.height]


def test_under_load_no_answer_fails_and_none_goes_back(stack: Stack) -> None:
    chain = stack.chain
    chain.grow(120, seed=13)
    with stack.projection(), stack.query(), stack.stub() as stub:
        stack.publish_all()
        stack.wait_applied()
        over = threading.Event()

        def load() -> None:
            while not over.wait(0.02):
                chain.grow(1, seed=1000 + len(chain.published))
                stack.publish(*chain.published[-1])
                stack.producer.poll(0)

        followed: list[int] = []
        ended: list[grpc.StatusCode] = []
        stream = stub.ListEvents(pb.ListEventsRequest(session_id="grown/4", follow=True))

        def follow() -> None:
            try:
                for answer in stream:
                    followed.extend(decode_event(data).header.sequence for data in answer.events)
            except grpc.RpcError as fault:
                ended.append(fault.code())  # type: ignore[attr-defined]

        asking = [Asking(stack, ask) for ask in (ask_state, ask_session, ask_events, ask_status)]
        others = [threading.Thread(target=one, daemon=True) for one in (load, follow)]
        for thread in (*asking, *others):
            thread.start()
        models = {model(stack)}
        for _ in range(3):
            report = start(stack).report()
            assert others[0].is_alive()
            assert (report["outcome"], report["equal"]) == ("swapped", True)
            print({name: report[name] for name in ("height", "commitsHeldMs", "readersHeldMs")})
            models.add(model(stack))
        assert len(models) == 4
        over.set()
        others[0].join()
        assert stack.producer.flush(SECONDS_MAX) == 0
        stack.wait_applied()
        last = stack.rows("SELECT sequence FROM nocturne_v1.sessions WHERE session = 'grown/4'")
        until(lambda: followed[-1:] == [last[0][0]], SECONDS_MAX, "the follower has all")
        stream.cancel()
        others[1].join(SECONDS_MAX)
        assert ended == [grpc.StatusCode.CANCELLED]
        for one in asking:
            one.over.set()
            one.join(SECONDS_MAX)
            assert one.failures == []
            assert len(one.heights) > 10
            assert one.heights == sorted(one.heights)
        assert followed == list(range(1, len(followed) + 1))
        assert_read_model_equals_the_fold(stack)


@pytest.mark.long
def test_the_live_projection_may_be_killed_while_it_is_rebuilt(stack: Stack) -> None:
    chain = stack.chain
    chain.grow(60, seed=14)
    stack.publish_all()
    with stack.projection() as live, stack.query(), stack.stub() as stub:
        stack.wait_applied()
        with reading(stack):
            run = start(stack)
            until(lambda: "swapping" in run.stages(), SECONDS_MAX, "it is about to swap")
            live.kill()
            live.wait()
        assert run.report()["equal"] is True
        assert ask_status(stub) == [60]
    chain.grow(5, seed=15)
    with stack.projection():
        stack.publish_all(60)
        stack.wait_applied()
        assert_read_model_equals_the_fold(stack)


# What is wrong ----------------------------------------------------------------------------------


def damage(stack: Stack) -> None:
    """Rows of several tables, altered, taken away and put in."""
    for statement in (
        (
            "UPDATE nocturne_v1.events SET header = header || '\\x00'::bytea"
            " WHERE (session, sequence) = ('grown/1', 2)"
        ),
        "UPDATE nocturne_v1.sessions SET kind = 'facts' WHERE session = 'grown/3'",
        (
            "DELETE FROM nocturne_v1.receipts AS one"
            " WHERE one.ctid = (SELECT min(ctid) FROM nocturne_v1.receipts)"
        ),
        "INSERT INTO nocturne_v1.ranges VALUES (9, 0, 5, 6, 7, 8)",
        "UPDATE nocturne_v1.blocks SET time = time + 1 WHERE height >= 30",
    ):
        stack.rows(f"WITH done AS ({statement} RETURNING 1) SELECT count(*) FROM done")


def test_altered_rows_are_named_and_replaced_if_asked_for(stack: Stack) -> None:
    stack.chain.grow(40, seed=16)
    stack.publish_all()
    with stack.projection(), stack.query(), stack.stub() as stub:
        stack.wait_applied()
        events = all_events(stub, "grown/1")
        damage(stack)
        before = model(stack)
        report = start(stack).report(1)
        assert (report["outcome"], report["equal"]) == ("differs", False)
        assert model(stack) == before
        found = {one["table"]: one for one in report["differences"]}
        assert found.keys() == {"events", "sessions", "receipts", "ranges", "blocks"}
        assert found["events"]["first"] == [
            {"key": "session=grown/1, sequence=2", "what": "altered", "columns": ["header"]}
        ]
        assert found["sessions"]["first"] == [
            {"key": "session=grown/3", "what": "altered", "columns": ["kind"]}
        ]
        assert found["receipts"]["missing"] == 1
        assert found["ranges"]["first"] == [
            {
                "key": "log_epoch=9, partition=0, first_offset=5",
                "what": "extra",
                "columns": ["end_offset", "height", "first_leaf"],
            }
        ]
        assert found["blocks"]["altered"] == 11
        assert len(found["blocks"]["first"]) == 5
        # The live one moves on by more than what an attempt to swap takes.
        stack.chain.grow(20, seed=17)
        stack.publish_all(40)
        stack.wait_applied()
        stack.rows("UPDATE nocturne_v1.blocks SET view = 99 WHERE height = 60 RETURNING 1")
        replaced = start(stack, "--replace").report()
        assert (replaced["outcome"], replaced["equal"]) == ("replaced", False)
        assert replaced["wentOnFrom"] == 40
        assert {one["table"] for one in replaced["differences"]} == found.keys()
        assert_read_model_equals_the_fold(stack)
        assert all_events(stub, "grown/1")[: len(events)] == events
        assert start(stack).report()["equal"] is True


def test_a_read_model_that_the_projection_refuses_is_replaced(stack: Stack) -> None:
    stack.chain.grow(10, seed=18)
    stack.publish_all()
    with stack.projection():
        stack.wait_applied()
    stack.rows(
        "UPDATE nocturne_v1.sessions SET leaf = overlay(leaf placing '\\xff' from 8)"
        " WHERE session = 'grown/1' RETURNING 1"
    )
    process = stack.process("projection", postgres.PROJECTION)
    with pytest.raises(AssertionError), started(process, stack.folder / "altered.log"):
        pass
    assert "nocturne rebuild --replace" in (stack.folder / "projection" / "halted").read_text()
    assert start(stack).report(1)["differences"][0]["table"] == "sessions"
    assert start(stack, "--replace").report()["outcome"] == "replaced"
    (stack.folder / "projection" / "halted").unlink()
    stack.chain.grow(5, seed=19)
    with stack.projection():
        stack.publish_all(10)
        stack.wait_applied()
        assert_read_model_equals_the_fold(stack)


@pytest.mark.long
@pytest.mark.parametrize(
    "statement, table",
    [
        ("DROP TABLE nocturne_v1.progress", "progress"),
        ("DROP TABLE nocturne_v1.events", "events"),
        ("ALTER TABLE nocturne_v1.blocks DROP COLUMN seal", "blocks"),
        ("DROP INDEX nocturne_v1.records_command_hash", "records"),
        ("UPDATE nocturne_v1.progress SET height = 1000", "progress"),
        ("DELETE FROM nocturne_v1.progress", "progress"),
        ("DROP TABLE nocturne_v1.migrations", "migrations"),
        ("UPDATE nocturne_v1.migrations SET checksum = '\\x00'", "migrations"),
    ],
)
def test_what_is_not_even_a_read_model_any_more_is_replaced(
    stack: Stack, statement: str, table: str
) -> None:
    stack.chain.grow(10, seed=20)
    stack.publish_all()
    with stack.projection():
        stack.wait_applied()
    with psycopg.connect(stack.dsn(postgres.OWNER), autocommit=True) as owner:
        owner.execute(statement.encode())
    report = start(stack).report(1)
    assert table in {one["table"] for one in report["differences"]}, report
    assert start(stack, "--replace").report()["outcome"] == "replaced"
    with stack.projection():
        stack.wait_applied()
        assert_read_model_equals_the_fold(stack)
        assert start(stack).report()["equal"] is True


def test_without_a_live_read_model_the_rebuilt_one_is_the_first(stack: Stack) -> None:
    stack.chain.grow(10, seed=21)
    stack.publish_all()
    with psycopg.connect(stack.dsn(postgres.OWNER), autocommit=True) as owner:
        owner.execute("DROP SCHEMA nocturne_v1 CASCADE")
    assert start(stack).report()["outcome"] == "swapped"
    with stack.projection(), stack.query(), stack.stub() as stub:
        assert ask_status(stub) == [10]
        assert_read_model_equals_the_fold(stack)


def test_a_database_of_a_newer_version_is_refused(stack: Stack) -> None:
    stack.chain.grow(2, seed=22)
    stack.publish_all()
    stack.rows("INSERT INTO nocturne_v1.migrations VALUES (99, 'later', '\\x00') RETURNING 1")
    assert "run a version that is not older" in start(stack).failure(1)
    process = stack.process("projection", postgres.PROJECTION)
    with pytest.raises(AssertionError), started(process, stack.folder / "newer.log"):
        pass
    assert "run a version that is not older" in (stack.folder / "newer.log").read_text()


@pytest.mark.long
def test_a_live_read_model_of_an_older_version_is_brought_to_this_one(stack: Stack) -> None:
    files = migrations()
    assert len(files) > 1
    stack.chain.grow(20, seed=31)
    stack.publish_all()
    with stack.projection(), stack.query(), stack.stub() as stub:
        stack.wait_applied()
        # As if the newest file had not been applied, and the projection were of that version.
        stack.rows("DELETE FROM nocturne_v1.migrations WHERE number = %s RETURNING 1", len(files))
        with psycopg.connect(stack.dsn(postgres.OWNER), autocommit=True) as owner:
            owner.execute("DROP INDEX nocturne_v1.receipts_authenticated")
            owner.execute("ALTER TABLE nocturne_v1.blocks ADD COLUMN of_old text")
        report = start(stack).report()
        assert (report["outcome"], report["equal"]) == ("swapped", True)
        assert report["notCompared"] == ["blocks.of_old"]
        applied = stack.rows("SELECT number, checksum FROM nocturne_v1.migrations ORDER BY number")
        assert applied == [(one.number, one.checksum) for one in files]
        stack.chain.grow(5, seed=32)
        stack.publish_all(20)
        stack.wait_applied()
        assert_read_model_equals_the_fold(stack)
        assert ask_status(stub) == [25]
        again = start(stack).report()
        assert (again["equal"], again["notCompared"]) == (True, [])


def test_every_table_is_compared_or_said_not_to_be(stack: Stack) -> None:
    tables = {
        name
        for (name,) in stack.rows(
            "SELECT tablename::text FROM pg_tables WHERE schemaname = 'nocturne_v1'"
        )
    }
    compared = {one.table for one in COMPARED}
    assert compared | set(NOT_COMPARED) == tables
    assert not compared & set(NOT_COMPARED)


# Snapshots that are older than a swap -----------------------------------------------------------


def test_a_snapshot_that_is_older_than_the_swap_sees_no_progress_in_the_new_one(
    stack: Stack,
) -> None:
    stack.chain.grow(10, seed=33)
    stack.publish_all()
    with stack.projection():
        stack.wait_applied()
        with psycopg.connect(stack.dsn(postgres.QUERY)) as older:
            older.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            older.execute("SELECT 1")
            assert start(stack).report()["equal"] is True
            assert older.execute("SELECT height FROM nocturne_v1.progress").fetchall() == []
            older.rollback()
            assert older.execute("SELECT height FROM nocturne_v1.progress").fetchall() == [(10,)]


def test_a_question_that_waited_at_the_gate_is_answered_from_a_new_snapshot(stack: Stack) -> None:
    stack.chain.grow(10, seed=34)
    stack.publish_all()
    with stack.projection():
        stack.wait_applied()
    with stack.query(), stack.stub() as stub:
        for _ in range(8):
            # So often that the statement is a prepared one on each connection.
            assert ask_status(stub) == [10]
        with psycopg.connect(stack.dsn(postgres.OWNER)) as owner:
            owner.execute("LOCK TABLE nocturne_v1.progress IN ACCESS EXCLUSIVE MODE")
            waiting = stub.GetStatus.future(pb.GetStatusRequest())
            until(
                lambda: bool(
                    stack.rows(
                        "SELECT 1 FROM pg_locks WHERE NOT granted"
                        " AND relation = 'nocturne_v1.progress'::regclass"
                    )
                ),
                SECONDS_MAX,
                "the question waits",
            )
            row = owner.execute("SELECT * FROM nocturne_v1.progress").fetchone()
            assert row is not None
            owner.execute("TRUNCATE nocturne_v1.progress")
            places = ", ".join(["%s"] * len(row))
            owner.execute(f"INSERT INTO nocturne_v1.progress VALUES ({places})".encode(), row)
        assert waiting.result(SECONDS_MAX).applied_through.height == 10


# Interrupted ------------------------------------------------------------------------------------


def test_killed_in_the_middle_it_goes_on_where_it_was(stack: Stack) -> None:
    stack.chain.grow(150, seed=23)
    stack.publish_all()
    with stack.projection():
        stack.wait_applied()
        reached = 0
        for _ in range(3):
            run = start(stack, records=8)
            wanted = min(reached + 20, 100)
            until(lambda run=run, wanted=wanted: run.height() >= wanted, SECONDS_MAX, "some are")  # type: ignore[misc]
            run.process.kill()
            run.process.wait()
            reached = run.height()
        report = start(stack).report()
        assert report["equal"] is True
        assert report["wentOnFrom"] >= 20
        assert report["blocks"] == 150 - report["wentOnFrom"]
        assert_read_model_equals_the_fold(stack)


@pytest.mark.long
def test_begun_afresh_if_asked_for(stack: Stack) -> None:
    stack.chain.grow(10, seed=24)
    stack.publish_all()
    with stack.projection():
        stack.wait_applied()
        with reading(stack):
            run = start(stack)
            until(lambda: "swapping" in run.stages(), SECONDS_MAX, "it is about to swap")
            run.process.send_signal(signal.SIGINT)
            assert "goes on where it was" in run.failure(130)
        stack.rows("UPDATE nocturne_v1_rebuild.blocks SET view = 7 WHERE height = 5 RETURNING 1")
        report = start(stack, "--fresh").report()
        assert (report["wentOnFrom"], report["equal"]) == (None, True)


def test_a_second_one_at_the_same_time_is_refused(stack: Stack) -> None:
    stack.chain.grow(10, seed=25)
    stack.publish_all()
    with stack.projection():
        stack.wait_applied()
        with reading(stack):
            first = start(stack)
            until(lambda: "swapping" in first.stages(), SECONDS_MAX, "the first waits for readers")
            assert "another rebuild of this database runs" in start(stack).failure(1)
        report = first.report()
        assert report["equal"] is True
        assert report["attempts"] > 1


@pytest.mark.long
def test_the_database_may_be_killed_while_it_is_rebuilt(
    tmp_path: Path, kafka_broker: Broker
) -> None:
    server = make_server(tmp_path)
    postgres.prepare(server)
    with started(postgres_process(server), tmp_path / "postgres.log") as first:
        postgres.ensure_roles(server)
        stack = make_stack(tmp_path, kafka_broker, server)
        stack.chain.grow(150, seed=26)
        stack.publish_all()
        projection = stack.projection()
        projection.__enter__()
        stack.wait_applied()
        run = start(stack, records=8)
        until(lambda: run.height() >= 20, SECONDS_MAX, "some blocks are rebuilt")
        first.kill()
        first.wait()
    with server_again(server, tmp_path / "postgres.log"):
        try:
            report = run.report()
            assert (report["equal"], report["height"]) == (True, 150)
            assert_read_model_equals_the_fold(stack)
        finally:
            projection.__exit__(None, None, None)


@contextmanager
def server_again(server: Server, log: Path) -> Iterator[None]:
    """The server of a folder whose last one was killed; its children may live a moment longer."""
    attempts = 20
    for attempt in range(attempts):
        process = started(postgres_process(server), log)
        try:
            process.__enter__()
        except AssertionError:
            assert attempt < attempts - 1
            continue
        break
    try:
        yield
    finally:
        process.__exit__(None, None, None)


# What is kept -----------------------------------------------------------------------------------


@pytest.mark.long
def test_what_was_live_is_kept_if_asked_for_and_nobody_has_a_right_in_it(stack: Stack) -> None:
    stack.chain.grow(5, seed=27)
    stack.publish_all()
    with stack.projection():
        stack.wait_applied()
        kept = start(stack, "--keep-old").report()["kept"]
        assert schemas(stack) == {"nocturne_v1", kept}
        assert stack.rows(f"SELECT height FROM {kept}.progress") == [(5,)]
        for role in (postgres.QUERY, postgres.PROJECTION):
            with (
                psycopg.connect(stack.dsn(role), autocommit=True) as connection,
                pytest.raises(psycopg.errors.InsufficientPrivilege),
            ):
                connection.execute(f"SELECT height FROM {kept}.progress".encode())


def test_the_rights_of_the_roles_are_those_of_before(stack: Stack) -> None:
    query = (
        "SELECT table_name::text, grantee::text, privilege_type::text"
        " FROM information_schema.role_table_grants WHERE table_schema = 'nocturne_v1'"
    )
    stack.chain.grow(2, seed=28)
    stack.publish_all()
    with stack.projection():
        stack.wait_applied()
        before = set(stack.rows(query))
        assert start(stack).report()["equal"] is True
        assert set(stack.rows(query)) == before


@pytest.mark.long
def test_strangers_records_are_counted_once_whoever_read_them(stack: Stack) -> None:
    chain = stack.chain
    chain.grow(12, seed=29)
    false = publish(chain.published[2][0], signer(99))
    for record in false.records:
        stack.produce_signed(record)
    stack.produce(topics.BLOCKS, b"junk")
    stack.publish_all()
    with stack.projection():
        stack.wait_applied()
        count = len(false.records) + 1
        until(lambda: sum(map(int, stack.refused().values())) == count, SECONDS_MAX, "all counted")  # type: ignore[arg-type]
        assert start(stack).report()["equal"] is True
        # Read by the live projection before the swap, or by nobody yet.
        stack.produce(topics.SEALS, b"junk")
        chain.grow(3, seed=30)
        stack.publish_all(12)
        stack.wait_applied()
        count += 1
        until(lambda: sum(map(int, stack.refused().values())) == count, SECONDS_MAX, "once")  # type: ignore[arg-type]
        assert start(stack).report()["equal"] is True
        assert sum(map(int, stack.refused().values())) == count  # type: ignore[arg-type]
