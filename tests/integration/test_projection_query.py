"""Projection and query as processes, with a real broker and a real database."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path

import grpc
import psycopg
import pytest
from google.rpc import status_pb2
from tests.ledger_factory import ALICE, record_value, signer
from tests.machines import started, until
from tests.read_side import (
    SECONDS_MAX,
    Stack,
    all_events,
    assert_read_model_equals_the_fold,
    exported,
    make_stack,
)
from tests.unit.projection.chains import Chain, changed_validators, every_outcome
from tests.unit.projection.published import publish

from nocturne.audit.verify import verify_disposition_proof, verify_export
from nocturne.core import topics
from nocturne.core.blocks import StateChange
from nocturne.core.commands import Opening
from nocturne.core.events import decode_event, event_signed
from nocturne.core.identifiers import LEDGER_SESSION
from nocturne.core.receipts import Reason, decode_receipt
from nocturne.core.waiting_blocks import HELD_BLOCKS_MAX
from nocturne.embedded import postgres
from nocturne.embedded.kafka import Broker
from nocturne.embedded.postgres import Server
from nocturne.wire.query.v1 import query_pb2 as pb

pytestmark = pytest.mark.integration


@pytest.fixture
def stack(tmp_path: Path, kafka_broker: Broker, postgres_server: Server) -> Stack:
    return make_stack(tmp_path, kafka_broker, postgres_server)


# Tests -----------------------------------------------------------------------------------------


def test_what_is_certified_and_signed_is_read_whole_and_proves_itself(stack: Stack) -> None:
    stack.chain = every_outcome()
    ledger = stack.chain.ledger
    stack.publish_all()
    with stack.projection(), stack.query(), stack.stub() as stub:
        stack.wait_applied()
        assert_read_model_equals_the_fold(stack)
        assert stack.refused() == {}

        events = all_events(stub, "orders/1")
        assert [event.header.sequence for event in events] == [1, 2, 3, 4, 5]
        authority = ledger.genesis.authority
        for event in events:
            assert event_signed(
                authority, event.event_hash, event.timestamp, event.height, event.signatures
            )

        state = stub.GetState(pb.GetStateRequest(session_id="orders/1"))
        assert json.loads(state.state_json)["document"] == {
            "amount": 1,
            "b": [1],
            "c": {"d": True},
            "z": 0,
        }
        earlier = stub.GetState(pb.GetStateRequest(session_id="orders/1", at_sequence=2))
        assert json.loads(earlier.state_json)["document"] == {"a": 1, "amount": 1}
        assert earlier.head_hash == events[1].event_hash

        for session, count in (("orders/1", 5), ("readings", 2), (LEDGER_SESSION, 0)):
            verdict = verify_export(exported(stub, session), ledger.ledger_id)
            assert verdict.holds, verdict.sentence
            assert verdict.events == count

        assert stub.GetGenesis(pb.GetGenesisRequest()).genesis == ledger.genesis_bytes
        status = stub.GetStatus(pb.GetStatusRequest())
        assert status.ledger_id == ledger.ledger_id
        assert (status.sessions, status.events) == (2, 7)
        assert status.receipts + 6 + 1 == status.records
        assert status.applied_through.height == 4


def test_every_disposition_is_found_and_proved(stack: Stack) -> None:
    stack.chain = every_outcome()
    ledger = stack.chain.ledger
    stack.publish_all()
    with stack.projection(), stack.query(), stack.stub() as stub:
        stack.wait_applied()
        gaps = 0
        for (partition, offset), answer in ledger.answers.items():
            place = pb.Position(log_epoch=1, partition=partition, offset=offset)
            request = pb.GetDispositionRequest(position=place)
            if answer is None:
                gaps += 1
                with pytest.raises(grpc.RpcError) as refused:
                    stub.GetDisposition(request)
                assert refused.value.code() is grpc.StatusCode.NOT_FOUND
                continue
            found = stub.GetDisposition(request)
            verdict = verify_disposition_proof(
                found.validators_lines + found.block_line + found.disposition_line,
                found.genesis,
                ledger.ledger_id,
            )
            assert verdict.holds, verdict.sentence
            assert verdict.signed
            if isinstance(answer, tuple):
                for header in answer:
                    by_event = stub.GetDisposition(
                        pb.GetDispositionRequest(event_id=header.event_id)
                    )
                    by_hash = stub.GetDisposition(
                        pb.GetDispositionRequest(command_hash=header.command_hash)
                    )
                    # The same command again became a receipt; its outcome is the first one.
                    assert by_event.disposition_line == by_hash.disposition_line
                    assert by_event.disposition_line == found.disposition_line
        assert gaps == 1
        past = pb.Position(log_epoch=1, partition=0, offset=10_000)
        with pytest.raises(grpc.RpcError) as refused:
            stub.GetDisposition(pb.GetDispositionRequest(position=past))
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


def test_changed_validators_are_followed_over_restarts_and_shown_in_every_proof(
    stack: Stack,
) -> None:
    made = stack.chain = changed_validators()
    ledger = made.ledger
    # The projection stops between each decision, its epoch's end and the epoch that it is for.
    for height in range(1, 9):
        stack.chain = Chain(ledger, made.published[:height])
        stack.publish(*made.published[height - 1])
        assert stack.producer.flush(SECONDS_MAX) == 0
        if height % 2 == 0 or height == 5:
            with stack.projection():
                stack.wait_applied()
    assert stack.refused() == {}
    with stack.query(), stack.stub() as stub:
        verdict = verify_export(exported(stub, "orders/1"), ledger.ledger_id)
        assert verdict.holds, verdict.sentence
        assert verdict.events == 8
        for event in all_events(stub, "orders/1"):
            found = stub.GetDisposition(pb.GetDispositionRequest(event_id=event.header.event_id))
            proof = found.validators_lines + found.block_line + found.disposition_line
            assert verify_disposition_proof(proof, found.genesis, ledger.ledger_id).holds
            changes = len(found.validators_lines.splitlines())
            assert changes == (event.height > 4) + (event.height > 6)


def test_receipts_and_sessions_come_in_pages(stack: Stack) -> None:
    stack.chain = every_outcome()
    stack.publish_all()
    with stack.projection(), stack.query(), stack.stub() as stub:
        stack.wait_applied()
        whole = stub.ListReceipts(pb.ListReceiptsRequest())
        assert whole.next_page_token == ""
        paged: list[bytes] = []
        token = ""
        while True:
            page = stub.ListReceipts(pb.ListReceiptsRequest(page_size=2, page_token=token))
            paged += page.receipts
            token = page.next_page_token
            if not token:
                break
        assert paged == list(whole.receipts)
        receipts = [decode_receipt(data) for data in paged]
        positions = [receipt.header.position for receipt in receipts]
        assert positions == sorted(positions)
        assert {receipt.header.reason for receipt in receipts} == {
            Reason.REPEATED,
            Reason.DUPLICATE_SEQ,
            Reason.NOT_A_MEMBER,
            Reason.SIGNATURE_INVALID,
            Reason.MALFORMED,
            Reason.TOO_LARGE,
            Reason.SESSION_CLOSED,
        }
        named = stub.ListReceipts(pb.ListReceiptsRequest(session_id="readings"))
        assert [decode_receipt(data).header.reason for data in named.receipts] == [
            Reason.SIGNATURE_INVALID,
            Reason.SESSION_CLOSED,
        ]
        for session in ("", "readings", LEDGER_SESSION):
            both, true, claimed = (
                [
                    decode_receipt(data).header
                    for data in stub.ListReceipts(
                        pb.ListReceiptsRequest(session_id=session, claimed=wanted)
                    ).receipts
                ]
                for wanted in (None, False, True)
            )
            assert claimed
            assert [one for one in both if not one.claimed] == true
            assert [one for one in both if one.claimed] == claimed
        kept = stub.ListReceipts(pb.ListReceiptsRequest(session_id=LEDGER_SESSION))
        assert {decode_receipt(data).header.reason for data in kept.receipts} >= {
            Reason.MALFORMED,
            Reason.TOO_LARGE,
        }

        first = stub.ListSessions(pb.ListSessionsRequest(page_size=1))
        assert [one.session_id for one in first.sessions] == ["orders/1"]
        second = stub.ListSessions(
            pb.ListSessionsRequest(page_size=1, page_token=first.next_page_token)
        )
        assert [one.session_id for one in second.sessions] == ["readings"]
        assert second.next_page_token == ""
        assert second.sessions[0].closed
        prefixed = stub.ListSessions(pb.ListSessionsRequest(prefix="re"))
        assert [one.session_id for one in prefixed.sessions] == ["readings"]


def test_a_flood_of_claimed_receipts_does_not_slow_the_true_ones_of_a_session(
    stack: Stack,
) -> None:
    """The read model is filled by hand: 20 000 receipts that anybody may cause, three true ones."""
    row = (
        "INSERT INTO nocturne_v1.receipts SELECT 1, 0, n, 1, n, %s, n, 'a', %s, 4, '', '', ''"
        " FROM generate_series(%s::int, %s::int) AS n"
    )
    with psycopg.connect(stack.server.dsn(postgres.OWNER, stack.database)) as connection:
        connection.execute(row, ("~ledger", True, 1, 20_000))
        connection.execute(row, ("a", False, 20_001, 20_003))
        connection.execute("ANALYZE nocturne_v1.receipts")
        for column, named in (("session", "a"), ("home", "~ledger"), ("", "")):
            bound = f"p.{column} = '{named}' AND" if column else ""
            plan = connection.execute(
                "EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM nocturne_v1.receipts AS p"
                " WHERE (p.log_epoch, p.partition, p.record_offset) > (-1, -1, -1)"
                f" AND {bound} NOT p.claimed"
                " ORDER BY p.log_epoch, p.partition, p.record_offset LIMIT 101".encode()
            ).fetchone()
            assert plan is not None
            text = json.dumps(plan[0])
            assert "receipts_authenticated" in text, text
            passed = re.findall(r'"Rows Removed by Filter": (\d+)', text)
            assert sum(map(int, passed)) <= 3, text


def test_wrong_questions_are_refused_with_details(stack: Stack) -> None:
    stack.chain.grow(1, seed=1)
    stack.publish_all()
    with stack.projection(), stack.query(), stack.stub() as stub:
        stack.wait_applied()
        calls = (
            (
                lambda: stub.GetSession(pb.GetSessionRequest(session_id="none")),
                "NOT_FOUND",
                "ResourceInfo",
            ),
            (
                lambda: stub.GetSession(pb.GetSessionRequest(session_id="a b")),
                "INVALID_ARGUMENT",
                "BadRequest",
            ),
            (
                lambda: stub.ListSessions(pb.ListSessionsRequest(page_token="x")),
                "INVALID_ARGUMENT",
                "BadRequest",
            ),
            (
                lambda: stub.ListSessions(pb.ListSessionsRequest(page_size=1001)),
                "INVALID_ARGUMENT",
                "BadRequest",
            ),
            (lambda: stub.GetBlock(pb.GetBlockRequest(height=99)), "NOT_FOUND", "ResourceInfo"),
            (
                lambda: stub.GetState(pb.GetStateRequest(session_id=LEDGER_SESSION)),
                "FAILED_PRECONDITION",
                "ErrorInfo",
            ),
            (
                lambda: stub.GetDisposition(pb.GetDispositionRequest()),
                "INVALID_ARGUMENT",
                "BadRequest",
            ),
            (
                lambda: list(stub.ListEvents(pb.ListEventsRequest(session_id="none", follow=True))),
                "NOT_FOUND",
                "ResourceInfo",
            ),
            (
                lambda: list(stub.ExportSession(pb.ExportSessionRequest(session_id="none"))),
                "NOT_FOUND",
                "ResourceInfo",
            ),
        )
        for call, code, detail in calls:
            with pytest.raises(grpc.RpcError) as refused:
                call()
            assert refused.value.code().name == code
            trailers = dict(refused.value.trailing_metadata())
            status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
            assert status.details[0].type_url.endswith(detail)


def test_a_follower_gets_the_past_then_what_comes_without_gap_or_double(stack: Stack) -> None:
    chain = stack.chain
    chain.ledger.append(chain.ledger.opening("live", number=chain.number()))
    chain.commit()
    for _ in range(5):
        chain.ledger.append(chain.ledger.command("live", number=chain.number()))
        chain.commit()
    stack.publish_all()
    with stack.projection(), stack.query(), stack.stub() as stub:
        stack.wait_applied()
        stream = stub.ListEvents(
            pb.ListEventsRequest(session_id="live", from_sequence=2, follow=True, limit=65)
        )
        sequences: list[int] = []
        responses = iter(stream)
        while len(sequences) < 5:
            sequences += [decode_event(data).header.sequence for data in next(responses).events]
        published = len(chain.published)
        for _ in range(60):
            chain.ledger.append(chain.ledger.command("live", number=chain.number()))
            chain.commit()
            stack.publish_all(published)
            published = len(chain.published)
        for response in responses:
            sequences += [decode_event(data).header.sequence for data in response.events]
        assert sequences == list(range(2, 67))


def test_a_strangers_records_are_counted_and_change_nothing(stack: Stack) -> None:
    chain = stack.chain
    chain.grow(6, seed=2)
    stranger = signer(99)
    blocks = [block for block, _ in chain.published]
    altered = replace(
        blocks[2], state_changes=(StateChange(blocks[2].state_changes[0].key, bytes(144)),)
    )
    with stack.projection(), stack.query(), stack.stub() as stub:
        # Before their block: everything, signed by the wrong key.
        false = publish(blocks[0], stranger)
        for record in false.records:
            stack.produce_signed(record)
        stack.produce(topics.SEALS, false.seal_value)
        stack.produce(topics.BLOCKS, b"\x00\x00\x00\x00\x02junk")
        stack.produce(topics.BLOCKS, record_value(replace(blocks[0], state_changes=())))
        # Of a height that never comes, and of none.
        far = false.records[0]._replace(height=10**12)
        stack.produce_signed(far)
        stack.produce(topics.EVENTS, false.records[0].value)
        stack.producer.flush(SECONDS_MAX)
        for number, (block, published) in enumerate(chain.published):
            if number == 2:
                stack.produce(topics.BLOCKS, record_value(altered))
            stack.publish(block, published)
        stack.producer.flush(SECONDS_MAX)
        stack.wait_applied()
        # After their block: a copy whose payload was changed.
        genuine = next(
            one
            for _, all_of in chain.published
            for one in all_of.records
            if one.topic == topics.EVENTS
        )
        stack.produce_signed(genuine._replace(value=genuine.value[:-1] + b"!"))
        # The same again is no stranger's.
        stack.publish(*chain.published[3])
        stack.producer.flush(SECONDS_MAX)

        events = sum(record.topic == topics.EVENTS for record in false.records)
        receipts = len(false.records) - events
        expected: dict[object, object] = {
            "blocks.invalid": 3,
            "seals.invalid": 1,
            # Those of block 1, the one far away, the changed copy.
            "events.signature": events + 2,
            "events.invalid": 1,
        }
        if receipts:
            expected["receipts.signature"] = receipts
        until(lambda: stack.refused() == expected, SECONDS_MAX, f"{expected} are counted")
        assert_read_model_equals_the_fold(stack)
        assert dict(stub.GetStatus(pb.GetStatusRequest()).refused_records) == expected


def test_blocks_of_several_publishers_are_applied_whatever_their_order(stack: Stack) -> None:
    """The first one comes after more than may wait, and each comes twice."""
    chain = stack.chain
    chain.grow(HELD_BLOCKS_MAX + 20, seed=5)
    for _, published in chain.published:
        for record in published.records:
            stack.produce_signed(record)
        stack.produce(topics.SEALS, published.seal_value)
    values = [record_value(block) for block, _ in chain.published]
    for value in (*values[1:], *values[:0:-1], values[0], values[0]):
        stack.produce(topics.BLOCKS, value)
    assert stack.producer.flush(SECONDS_MAX) == 0
    with stack.projection():
        stack.wait_applied()
        assert_read_model_equals_the_fold(stack)
        assert stack.refused() == {}
    with stack.projection():
        chain.grow(2, seed=6)
        stack.publish_all(HELD_BLOCKS_MAX + 20)
        stack.wait_applied()
    assert "records_read_again" in (stack.folder / "projection.log").read_text()


def test_killed_at_any_moment_it_goes_on_where_it_was(stack: Stack) -> None:
    chain = stack.chain
    chain.grow(120, seed=3)
    dice = random.Random(7)
    sent = 0
    stranger = publish(chain.published[5][0], signer(98))
    for record in stranger.records:
        stack.produce_signed(record)
    for _ in range(6):
        process = stack.projection()
        with process as running:
            until_sent = min(len(chain.published), sent + dice.randint(5, 30))
            for block, published in chain.published[sent:until_sent]:
                stack.publish(block, published)
            stack.producer.flush(SECONDS_MAX)
            sent = until_sent
            reach = dice.randint(0, sent)
            until(lambda reach=reach: stack.height() >= reach, SECONDS_MAX, "some are applied")  # type: ignore[misc]
            running.kill()
            running.wait()
    with stack.projection():
        stack.publish_all(sent)
        stack.wait_applied()
        assert_read_model_equals_the_fold(stack)
        events = sum(record.topic == topics.EVENTS for record in stranger.records)
        assert stack.refused().get("events.signature", 0) == events


def test_roles_can_do_what_they_need_and_no_more(stack: Stack) -> None:
    stack.chain.grow(2, seed=4)
    stack.publish_all()
    with stack.projection():
        stack.wait_applied()
    forbidden = psycopg.errors.InsufficientPrivilege
    with psycopg.connect(stack.dsn(postgres.QUERY), autocommit=True) as query:
        query.execute("SET default_transaction_read_only = off")
        for statement in (
            "UPDATE nocturne_v1.progress SET height = 0",
            "DELETE FROM nocturne_v1.events",
            "INSERT INTO nocturne_v1.refused_counts VALUES ('x', 1)",
            "CREATE TABLE nocturne_v1.own (x int)",
            "TRUNCATE nocturne_v1.events",
        ):
            with pytest.raises(forbidden):
                query.execute(statement.encode())
    with psycopg.connect(stack.dsn(postgres.PROJECTION), autocommit=True) as projection:
        for statement in (
            "DROP TABLE nocturne_v1.events",
            "CREATE TABLE nocturne_v1.own (x int)",
            "DELETE FROM nocturne_v1.migrations",
            "TRUNCATE nocturne_v1.events",
        ):
            with pytest.raises(forbidden):
                projection.execute(statement.encode())


def test_an_altered_row_is_noticed_by_query_and_by_a_restart(stack: Stack) -> None:
    stack.chain.grow(5, seed=5)
    stack.publish_all()
    with stack.projection():
        stack.wait_applied()
    stack.rows(
        "UPDATE nocturne_v1.sessions SET leaf = overlay(leaf placing '\\xff' from 8)"
        " WHERE session = 'grown/1' RETURNING 1"
    )
    with stack.query(), stack.stub() as stub:
        with pytest.raises(grpc.RpcError) as refused:
            exported(stub, "grown/1")
        assert refused.value.code() is grpc.StatusCode.DATA_LOSS
    process = stack.process("projection", postgres.PROJECTION)
    with pytest.raises(AssertionError), started(process, stack.folder / "altered.log"):
        pass
    assert "rows were altered" in (stack.folder / "altered.log").read_text()
    assert "rows were altered" in (stack.folder / "projection" / "halted").read_text()


def test_the_database_may_go_away_and_come_back(stack: Stack) -> None:
    stack.chain.grow(20, seed=6)
    with stack.projection(), stack.query(), stack.stub() as stub:
        stack.publish_all()
        for _ in range(5):
            # Every connection of both services is cut, as a restart of the server would.
            stack.rows(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        stack.wait_applied()
        assert_read_model_equals_the_fold(stack)
        assert stub.GetStatus(pb.GetStatusRequest()).applied_through.height == 20


def test_opening_kinds_are_kept(stack: Stack) -> None:
    ledger = stack.chain.ledger
    ledger.append(ledger.command("named", author=ALICE, number=1, opening=Opening("document", 1)))
    stack.chain.commit()
    stack.publish_all()
    with stack.projection(), stack.query(), stack.stub() as stub:
        stack.wait_applied()
        found = stub.GetSession(pb.GetSessionRequest(session_id="named"))
        assert (found.session.kind, found.session.kind_version) == ("document", 1)
        assert found.session.opened_at_ms == found.applied_through.timestamp_ms
