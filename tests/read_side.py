"""Projection and query as processes on a real broker and a real database.

The chain is made in memory by `tests.ledger_factory`; what consensus and signing would publish is
produced here, and so is what a stranger would.
"""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc
import psycopg
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic
from tests.ledger_factory import Ledger, record_value
from tests.machines import free_ports, started, until
from tests.unit.projection.chains import Chain
from tests.unit.projection.published import Published

from nocturne.core import topics
from nocturne.core.blocks import Block
from nocturne.core.events import Event, decode_event
from nocturne.core.identifiers import session_key
from nocturne.core.state import SessionState
from nocturne.deploy.topics import plan
from nocturne.embedded import postgres
from nocturne.embedded.kafka import Broker
from nocturne.embedded.postgres import Server
from nocturne.embedded.processes import Process, grpc_serves
from nocturne.projection.collector import SignatureRecord
from nocturne.projection.migrate import migrate
from nocturne.wire.query.v1 import query_pb2 as pb
from nocturne.wire.query.v1 import query_pb2_grpc

SECONDS_MAX = 30.0
JSON_TYPE = "application/json"


@dataclass(slots=True)
class Stack:
    """Topics of a ledger, a database of its own, and how to run the two services on them."""

    folder: Path
    broker: Broker
    server: Server
    database: str
    chain: Chain
    producer: Producer
    query_port: int = 0

    def dsn(self, role: str) -> str:
        return self.server.dsn(role, self.database)

    def process(self, name: str, role: str) -> Process:
        ports = free_ports("grpc", "metrics")
        home = self.folder / name
        home.mkdir(exist_ok=True)
        genesis = self.folder / "genesis"
        genesis.write_bytes(self.chain.ledger.genesis_bytes)
        if name == "query":
            self.query_port = ports["grpc"]
        environment = {
            **os.environ,
            "NOCTURNE_HOME_DIR": str(home),
            "NOCTURNE_GENESIS_FILE": str(genesis),
            "NOCTURNE_LISTEN": f"127.0.0.1:{ports['grpc']}",
            "NOCTURNE_METRICS_LISTEN": f"127.0.0.1:{ports['metrics']}",
            "NOCTURNE_POSTGRES_DSN": self.dsn(role),
        }
        if name == "projection":
            environment["NOCTURNE_KAFKA_BOOTSTRAP"] = self.broker.bootstrap
        return Process(
            name=name,
            argv=[sys.executable, "-m", f"nocturne.{name}"],
            environment=environment,
            port=ports["grpc"],
            healthy=lambda: grpc_serves(f"127.0.0.1:{ports['grpc']}"),
        )

    def projection(self) -> started:
        return started(
            self.process("projection", postgres.PROJECTION), self.folder / "projection.log"
        )

    def query(self) -> started:
        return started(self.process("query", postgres.QUERY), self.folder / "query.log")

    @contextlib.contextmanager
    def stub(self) -> Iterator[query_pb2_grpc.QueryServiceStub]:
        with grpc.insecure_channel(f"127.0.0.1:{self.query_port}") as channel:
            yield query_pb2_grpc.QueryServiceStub(channel)

    # What is published -------------------------------------------------------------------------

    def produce(
        self,
        topic: str,
        value: bytes | None,
        partition: int = 0,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        self.producer.produce(topic, value, None, partition, headers=list(headers))

    def produce_signed(self, record: SignatureRecord) -> None:
        headers = [
            ("ce_id", record.record_id),
            ("nocturne-height", str(record.height).encode()),
        ]
        self.produce(record.topic, record.value, record.partition, headers)

    def publish(self, block: Block, published: Published) -> None:
        self.produce(topics.BLOCKS, record_value(block))
        for record in published.records:
            self.produce_signed(record)
        self.produce(topics.SEALS, published.seal_value)

    def publish_all(self, first: int = 0) -> None:
        for block, published in self.chain.published[first:]:
            self.publish(block, published)
        assert self.producer.flush(SECONDS_MAX) == 0

    # What is stored ----------------------------------------------------------------------------

    def rows(self, query: str, *values: object) -> list[tuple[object, ...]]:
        with psycopg.connect(self.dsn(postgres.OWNER), autocommit=True) as connection:
            return connection.execute(query.encode(), values).fetchall()

    def height(self) -> int:
        rows = self.rows("SELECT height FROM nocturne_v1.progress")
        height = rows[0][0] if rows else -1
        assert isinstance(height, int)
        return height

    def refused(self) -> dict[object, object]:
        return dict(self.rows("SELECT cause, count FROM nocturne_v1.refused_counts"))  # type: ignore[arg-type]

    def wait_applied(self) -> None:
        height = len(self.chain.published)
        until(lambda: self.height() == height, SECONDS_MAX, f"block {height} is applied")


def make_stack(folder: Path, broker: Broker, server: Server) -> Stack:
    """Empty topics, and a database of its own that is migrated."""
    chain = Chain()
    renew_topics(broker, chain.ledger.genesis.partitions)
    database = f"projection_{uuid.uuid4().hex}"
    owner = server.dsn(postgres.OWNER, "postgres")
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {database} OWNER {postgres.OWNER}".encode())
    with psycopg.connect(server.dsn(postgres.OWNER, database)) as connection:
        migrate(connection)
    producer = Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 1})
    return Stack(folder, broker, server, database, chain, producer)


def renew_topics(broker: Broker, partitions: int) -> None:
    """Empty topics: deleted and created again."""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})

    def present() -> dict[str, int]:
        found = admin.list_topics(timeout=10).topics
        return {name: len(found[name].partitions) for name in topics.TOPICS if name in found}

    found = present()
    if found:
        for deleted in admin.delete_topics(list(found)).values():
            deleted.result(SECONDS_MAX)
        until(lambda: not present(), SECONDS_MAX, "the topics are gone")
    wanted = plan(partitions)
    fresh = [NewTopic(one.name, one.partitions, 1, config=dict(one.settings)) for one in wanted]
    for created in admin.create_topics(fresh).values():
        created.result(SECONDS_MAX)
    counts = {one.name: one.partitions for one in wanted}
    until(lambda: present() == counts, SECONDS_MAX, "the topics are there")


# Comparisons -----------------------------------------------------------------------------------


def assert_read_model_equals_the_fold(stack: Stack) -> None:
    """Every table says what a fresh execution of the log says."""
    ledger = stack.chain.ledger
    blocks = [block for block, _ in stack.chain.published]
    records = [record for block in blocks for record in block.records]
    events = sum(len(record.events) for record in records)
    receipts = sum(record.receipt is not None for record in records)
    assert stack.rows(
        "SELECT height, block_digest, blocks, records, events, receipts FROM nocturne_v1.progress"
    ) == [(len(blocks), blocks[-1].digest, len(blocks), len(records), events, receipts)]
    for table, count in (("records", len(records)), ("events", events), ("receipts", receipts)):
        assert stack.rows(f"SELECT count(*) FROM nocturne_v1.{table}") == [(count,)]
    stored = {
        row[0]: row[1:]
        for row in stack.rows(
            "SELECT session, key, kind, kind_version, sequence, head_hash, receipt_count, closed,"
            " leaf FROM nocturne_v1.sessions"
        )
    }
    expected = {
        state.session: session_fields(ledger, state)
        for _, state in ledger.state.tree.items()
        if state is not None
    }
    assert stored == expected
    heads = stack.rows(
        "SELECT DISTINCT ON (session) session, sequence, event_hash FROM nocturne_v1.events"
        " ORDER BY session, sequence DESC"
    )
    assert {row[0]: row[1:] for row in heads} == {
        name: (fields[3], fields[4]) for name, fields in expected.items() if fields[3]
    }


def session_fields(ledger: Ledger, state: SessionState) -> tuple[object, ...]:
    leaf = state.leaf()
    return (
        session_key(ledger.ledger_id, state.session),
        state.kind,
        state.kind_version,
        leaf.sequence,
        leaf.head_hash,
        leaf.receipt_count,
        state.closed,
        leaf.encode(),
    )


def all_events(stub: query_pb2_grpc.QueryServiceStub, session: str) -> list[Event]:
    responses = stub.ListEvents(pb.ListEventsRequest(session_id=session))
    return [decode_event(data) for response in responses for data in response.events]


def exported(stub: query_pb2_grpc.QueryServiceStub, session: str) -> list[bytes]:
    chunks = stub.ExportSession(pb.ExportSessionRequest(session_id=session))
    return b"".join(chunk.lines for chunk in chunks).splitlines(keepends=True)
