"""sessions, events, receipts, state, export: rows for people, V-API names for programs."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.cli.memory_ledger import Shell


@pytest.fixture
def filled(shell: Shell) -> Shell:
    """Two sessions, three events, one receipt."""
    shell.run("submit", "orders/1", "Ordered", '{"item":"tea"}')
    shell.run("submit", "orders/1", "Paid", '{"amount":3}')
    shell.run("submit", "notes", "Patched", '{"title":"Night","draft":true}', "--kind", "document")
    shell.run("submit", "orders/1", "Paid", "{}", "--expect", "0")
    return shell


def test_sessions_are_a_table_and_one_object_a_line(filled: Shell) -> None:
    assert filled.run("sessions") == 0
    heading, *rows = filled.out.splitlines()
    assert heading.split() == ["session", "kind", "events", "receipts", "head", "last", "event"]
    assert [row.split()[:4] for row in rows] == [
        ["notes", "document", "1", "0"],
        ["orders/1", "facts", "2", "1"],
    ]
    first, second = filled.json_lines("sessions")
    assert (first["sessionId"], second["sessionId"]) == ("notes", "orders/1")
    assert second["sequenceNumber"] == 2
    assert second["receiptCount"] == 1
    assert second["headHash"].startswith("sha256-")


def test_a_limit_bounds_the_list_and_says_so(filled: Shell) -> None:
    assert filled.run("sessions", "--limit", "1") == 0
    assert "orders/1" not in filled.out
    assert "--limit shows more" in filled.err
    assert len(filled.json_lines("sessions", "--limit", "1")) == 1
    assert filled.run("sessions", "--limit", "0") == 2


def test_an_empty_ledger_says_what_to_do_and_prints_no_data(shell: Shell) -> None:
    assert shell.run("sessions") == 0
    assert shell.out == ""
    assert "nocturne submit" in shell.err
    assert shell.run("receipts") == 0
    assert shell.out == ""


def test_events_are_rows_with_short_hashes_and_json_has_them_whole(filled: Shell) -> None:
    assert filled.run("events", "orders/1") == 0
    heading, first, second = filled.out.splitlines()
    assert heading.split() == ["seq", "time", "type", "author", "hash", "payload"]
    assert '{"item":"tea"}' in first
    event = filled.ledger.events_of["orders/1"][1]
    assert event.event_hash.hex()[:12] in second
    assert event.event_hash.hex()[:13] not in second
    told = filled.json_lines("events", "orders/1")
    assert [one["sequenceNumber"] for one in told] == [1, 2]
    assert told[1]["eventHash"] == f"sha256-{event.event_hash.hex()}"
    assert told[1]["previousHash"] == told[0]["eventHash"]
    assert told[0]["payload"] == {"item": "tea"}


def test_events_begin_at_a_sequence(filled: Shell) -> None:
    assert [one["eventType"] for one in filled.json_lines("events", "orders/1", "--from", "2")] == [
        "Paid"
    ]
    assert filled.run("events", "orders/1", "--from", "9") == 0
    assert filled.out == ""
    assert "No event of orders/1 from sequence 9 on." in filled.err


def test_following_ends_with_ctrl_c_and_0(filled: Shell) -> None:
    assert filled.run("events", "orders/1", "--follow") == 0
    assert len(filled.out.splitlines()) == 3
    assert filled.err == ""


def test_rows_are_cut_to_a_terminal_and_whole_in_a_pipe(shell: Shell) -> None:
    shell.run("submit", "orders/1", "Ordered", json.dumps({"text": "x" * 300}))
    shell.run("events", "orders/1", width=100, terminal=True)
    assert "…" in shell.out
    shell.run("events", "orders/1", width=4096)
    assert "x" * 300 in shell.out


def test_colour_is_for_terminals_only(filled: Shell) -> None:
    for command in (["sessions"], ["events", "orders/1"], ["receipts"], ["state", "notes"]):
        filled.run(*command)
        assert "\x1b" not in filled.out
        filled.run(*command, terminal=True)
        assert "\x1b[" in filled.out


def test_what_strangers_wrote_cannot_steer_the_terminal(shell: Shell) -> None:
    hostile = json.dumps({"a": "\x1b[2J\x9b31m\u202egnp\u2066", "b": "[red]x[/red] :smile:"})
    assert shell.run("submit", "orders/1", "Ordered", hostile) == 0
    for command in (["events", "orders/1"], ["events", "orders/1", "--json"]):
        shell.run(*command)
        assert not set("\x1b\x9b\u202e\u2066") & set(shell.out)
        assert "[red]x[/red] :smile:" in shell.out
    (told,) = shell.json_lines("events", "orders/1")
    assert told["payload"]["a"] == "\x1b[2J\x9b31m\u202egnp\u2066"


def test_receipts_say_in_words_why(filled: Shell) -> None:
    assert filled.run("receipts") == 0
    _, row = filled.out.splitlines()
    assert "DUPLICATE_SEQ" in row
    assert "event 1 was asked for, but the session stands at event 2" in row
    (told,) = filled.json_lines("receipts", "orders/1")
    assert told["reason"] == "DUPLICATE_SEQ"
    assert told["context"] == {
        "sessionId": "orders/1",
        "attemptedSequence": 1,
        "violatedInvariant": "S1",
    }
    assert filled.json_lines("receipts", "notes") == []


def test_receipts_of_unproved_authors_are_listed_apart(filled: Shell) -> None:
    inner = filled.ledger.inner
    forged = replace(inner.command("orders/1"), signatures=inner.command("x").signatures)
    filled.ledger._decide(forged)
    assert [one["reason"] for one in filled.json_lines("receipts")] == ["DUPLICATE_SEQ"]
    (claimed,) = filled.json_lines("receipts", "orders/1", "--claimed")
    assert (claimed["reason"], claimed["claimed"]) == ("SIGNATURE_INVALID", True)
    assert filled.run("receipts", "--claimed") == 0
    assert "as claimed" in filled.out
    assert filled.run("receipts", "notes") == 0
    assert "--claimed" in filled.err


def test_state_is_the_fold_now_and_as_of_any_event(filled: Shell) -> None:
    filled.run("submit", "notes", "Patched", '{"draft":null}')
    told = filled.json("state", "notes")
    assert told["state"] == {"document": {"title": "Night"}, "skipped": 0}
    assert told["sequenceNumber"] == 2
    before = filled.json("state", "notes", "--at", "1")
    assert before["state"]["document"]["draft"] is True
    assert filled.run("state", "notes") == 0
    assert filled.out.startswith("notes  as of event 2 ")
    assert '"title": "Night"' in filled.out


def test_a_state_beyond_the_head_is_a_failed_check(filled: Shell) -> None:
    assert filled.run("state", "notes", "--at", "2") == 1
    assert "notes stands at event 1: there is no event 2 yet." in filled.err
    assert filled.run("state", "notes", "--at", "0") == 2


@pytest.mark.parametrize("command", ["events", "state", "export"])
def test_a_session_that_is_not_there_is_a_failed_check(
    shell: Shell, command: str, tmp_path: Path
) -> None:
    arguments = [str(tmp_path / "file")] if command == "export" else []
    assert shell.run(command, "nobody", *arguments) == 1
    assert "There is no session nobody in this ledger" in shell.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "command", [["sessions"], ["events", "a"], ["receipts"], ["state", "a"], ["export", "a", "f"]]
)
def test_an_unreachable_ledger_ends_with_3(shell: Shell, command: list[str]) -> None:
    shell.ledger.unavailable = "Nothing runs."
    assert shell.run(*command) == 3
    assert shell.err == "✗ Nothing runs.\n"


def test_an_export_says_what_is_in_it(filled: Shell, tmp_path: Path) -> None:
    file = tmp_path / "orders.export"
    told = filled.json("export", "orders/1", str(file))
    assert told["bytes"] == file.stat().st_size
    assert (told["events"], told["receipts"], told["height"]) == (2, 1, 4)
    assert filled.run("export", "orders/1", str(file)) == 0
    assert "✓ orders/1  2 events and 1 receipt as of block 4" in filled.out


def test_an_export_into_a_folder_is_bad_use(filled: Shell, tmp_path: Path) -> None:
    assert filled.run("export", "orders/1", str(tmp_path)) == 2
    assert filled.run("export", "orders/1", str(tmp_path / "no" / "file")) == 2


def test_a_file_name_that_would_act_on_the_terminal_is_written_out(
    shell: Shell, tmp_path: Path
) -> None:
    shell.run("submit", "orders/1", "Ordered", "{}")
    assert shell.run("export", "orders/1", f"{tmp_path}/\x1b[31m") == 0
    assert "\x1b" not in shell.err
    assert "\\x1b[31m" in shell.err
