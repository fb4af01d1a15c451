"""log: what Kafka has of the certified log, and log epochs opened by a threshold of operators."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.ledger_factory import OPERATORS, OTHER_TOPIC_UUID, Ledger
from tests.unit.cli.memory_ledger import Shell
from tests.unit.cli.test_policy import key_file

from nocturne.cli.log_openings import lost, openings_for, parse_proposal, proposal_of
from nocturne.client.operating import LogPartition, LogStands
from nocturne.core.errors import Malformed
from nocturne.core.log_epochs import LogOpening

TOPIC, OTHER = b"t" * 16, b"o" * 16


def stands(*partitions: LogPartition) -> LogStands:
    return LogStands(9, "", TOPIC, partitions)


def partition(
    number: int, topic: bytes = TOPIC, at: int = 10, first: int = 0, end: int = 10
) -> LogPartition:
    return LogPartition(number, 3, topic, at, 2, first, end)


def lose(shell: Shell) -> None:
    """Records are certified, and Kafka has another topic of which nobody has read anything."""
    ledger = shell.operators.ledger
    for number in range(8):
        ledger.append(ledger.opening(f"s/{number}"))
    ledger.commit()
    for number in ledger.log:
        ledger.lose_log(number)
    shell.operators.cause = "the topic was made anew"


# What needs one --------------------------------------------------------------------------------


def test_a_partition_needs_a_log_epoch_where_kafka_lost_what_is_certified() -> None:
    found = stands(
        partition(0),
        partition(1, OTHER),
        partition(2, end=9),
        partition(3, first=11, end=20),
        partition(4, bytes(16), at=0),
    )
    causes = [lost(found, one) for one in found.partitions]
    assert causes == ["", "another topic", "ends too early", "begins too late", ""]
    assert openings_for(found, frozenset(), {3: 15}) == (
        LogOpening(1, 4, TOPIC, 0),
        LogOpening(2, 4, TOPIC, 0),
        LogOpening(3, 4, TOPIC, 15),
    )
    assert openings_for(found, {0}, {}) == (LogOpening(0, 4, TOPIC, 0),)


@pytest.mark.parametrize(
    "named, starts, words",
    [
        ({7}, {}, "no partition 7"),
        (set(), {7: 0}, "no partition 7"),
        (set(), {0: 0}, "needs no new log epoch"),
        (set(), {1: 11}, "11 is none of them"),
    ],
)
def test_what_cannot_be_opened_is_said(named: set[int], starts: dict[int, int], words: str) -> None:
    with pytest.raises(Malformed, match=words):
        openings_for(stands(partition(0), partition(1, OTHER)), named, starts)


# The file --------------------------------------------------------------------------------------


def records(count: int) -> list[bytes]:
    ledger = Ledger()
    return [ledger.opening_of_log(0, number=number) for number in range(1, count + 1)]


def test_a_proposal_is_read_as_it_was_written() -> None:
    own = records(3)
    assert [record for record, _ in parse_proposal(proposal_of(own))] == own


@given(st.data())
def test_a_proposal_that_was_cut_or_changed_is_none_or_another(data: st.DataObject) -> None:
    whole = proposal_of(records(2))
    cut = data.draw(st.integers(0, len(whole) - 1))
    first = len(proposal_of(records(1)))
    if cut == first:
        return
    with pytest.raises(Malformed):
        parse_proposal(whole[:cut])


@given(st.binary(max_size=400))
def test_any_bytes_are_no_proposal(data: bytes) -> None:
    with pytest.raises(Malformed):
        parse_proposal(data)


def test_a_proposal_is_bounded() -> None:
    (one,) = records(1)
    with pytest.raises(Malformed, match="at most 256 records"):
        parse_proposal(proposal_of([one] * 257))
    with pytest.raises(Malformed, match="at most 4194304 bytes"):
        parse_proposal(bytes(4 * 1024 * 1024 + 1))


# The command -----------------------------------------------------------------------------------


def test_the_log_is_shown_with_what_kafka_lost(shell: Shell) -> None:
    assert shell.run("log", "show") == 0
    assert "another topic" not in shell.out
    lose(shell)
    assert shell.run("log", "show") == 0
    assert "another topic" in shell.out
    assert "takes no records: the topic was made anew" in shell.err
    told = shell.json("log", "show")
    assert told["cause"] == "the topic was made anew"
    assert {one["lost"] for one in told["partitions"] if one["nextOffset"]} == {"another topic"}


def test_a_threshold_of_operators_opens_the_log_epochs(shell: Shell, tmp_path: Path) -> None:
    lose(shell)
    first, second = key_file(tmp_path, 0), key_file(tmp_path, 1)
    proposal = tmp_path / "proposal"
    assert shell.run("log", "open", "--key", str(first)) == 2
    assert "--out FILE" in shell.err
    assert shell.run("log", "open", "--key", str(first), "--out", str(proposal)) == 0
    assert "Kept: every certified record, up to block 1" in shell.err
    assert shell.run("log", "submit", str(proposal)) == 1
    assert "expected the signatures of 2 of 3 operators" in shell.err
    assert shell.run("log", "sign", str(proposal), "--key", str(second)) == 0
    assert "log epoch" in shell.out, "who signs sees what"
    ledger = shell.operators.ledger
    moved = [one.partition for one in ledger.state.positions if one.next_offset]
    assert shell.json("log", "submit", str(proposal))["height"] == 1 + len(moved)
    for one in ledger.state.positions:
        if one.partition in moved:
            assert (one.log_epoch, one.topic_uuid, one.next_offset) == (2, OTHER_TOPIC_UUID, 0)
    assert shell.run("log", "submit", str(proposal)) == 1
    assert "in the ledger already" in shell.err


def test_nothing_is_opened_while_kafka_has_the_certified_log(shell: Shell, tmp_path: Path) -> None:
    out = tmp_path / "proposal"
    key = key_file(tmp_path, 0)
    assert shell.run("log", "open", "--key", str(key), "--out", str(out)) == 1
    assert "nothing needs a new log epoch" in shell.err
    assert shell.run("log", "open", "--key", str(key_file(tmp_path, 40)), "--out", str(out)) == 2
    assert "no operator's" in shell.err
    assert shell.run("log", "open", "--key", str(key), "--from", "x=1", "--out", str(out)) == 2
    assert "PARTITION=OFFSET" in shell.err
    assert not out.exists()
    assert len(OPERATORS) == 3


def test_a_file_that_is_no_proposal_is_refused(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"none")
    for act in ("sign", "submit"):
        assert shell.run("log", act, str(file)) == 2
        assert "is no proposal" in shell.err
