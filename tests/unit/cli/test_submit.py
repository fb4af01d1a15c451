"""submit: what it signs, what it prints, and which exit code it ends with."""

import json
from pathlib import Path

import pytest
from tests.ledger_factory import make_genesis
from tests.unit.cli.memory_ledger import MemoryLedger, Shell

from nocturne.client.results import Level
from nocturne.core.genesis import OpenRule
from nocturne.core.identifiers import format_hash


def test_a_first_submit_makes_a_key_opens_the_session_and_tells_both(shell: Shell) -> None:
    assert shell.run("submit", "orders/1", "Ordered", '{"item":"tea"}') == 0
    assert "✓ signed  event 1 of orders/1" in shell.out
    assert "Made the key default" in shell.err
    (signed,) = shell.ledger.commands
    assert signed.command.opening is not None
    assert signed.command.opening.kind == "facts"
    assert signed.payloads[0].data == b'{"item":"tea"}'


def test_a_second_submit_neither_opens_nor_makes_a_key(shell: Shell) -> None:
    shell.run("submit", "orders/1", "Ordered", "1")
    assert shell.run("submit", "orders/1", "Paid", "2") == 0
    assert shell.err == ""
    assert shell.ledger.commands[1].command.opening is None
    assert "event 2 of orders/1" in shell.out


def test_json_tells_the_event_the_position_and_the_block(shell: Shell) -> None:
    told = shell.json("submit", "orders/1", "Ordered", "{}")
    assert told["level"] == "signed"
    assert told["decided"] is True
    assert told["receipt"] is None
    assert told["height"] == 1
    assert [event["sequenceNumber"] for event in told["events"]] == [1]
    head = shell.ledger.events_of["orders/1"][-1]
    assert told["events"][0]["eventHash"] == format_hash(head.event_hash)
    assert set(told["position"]) == {"logEpoch", "partition", "offset"}


def test_the_kind_is_pinned_when_the_session_opens(shell: Shell) -> None:
    assert shell.run("submit", "notes", "Patched", '{"a":1}', "--kind", "document") == 0
    assert shell.run("submit", "notes", "Patched", "{}", "--kind", "facts") == 2
    assert "notes is open already, and of kind document" in shell.err


def test_an_unknown_kind_is_bad_use_and_names_the_known_ones(shell: Shell) -> None:
    assert shell.run("submit", "notes", "Patched", "{}", "--kind", "poem") == 2
    assert "balances, document, facts" in shell.err
    assert shell.ledger.commands == []


def test_a_wrong_expected_sequence_prints_the_receipt_in_words(shell: Shell) -> None:
    shell.run("submit", "orders/1", "Ordered", "{}")
    assert shell.run("submit", "orders/1", "Paid", "{}", "--expect", "7") == 1
    head = shell.ledger.events_of["orders/1"][-1].event_hash.hex()[:12]
    assert "✗ refused  DUPLICATE_SEQ" in shell.out
    assert f"event 8 was asked for, but the session stands at event 1 ({head})" in shell.out


def test_a_refusal_in_json_holds_the_signed_receipt_and_ends_with_1(shell: Shell) -> None:
    shell.run("submit", "orders/1", "Ordered", "{}")
    told = shell.json("submit", "orders/1", "Paid", "{}", "--expect", "0", code=1)
    assert told["events"] == []
    assert told["receipt"]["detail"] == "DUPLICATE_SEQ"
    assert told["receipt"]["head"]["sequenceNumber"] == 1
    assert told["receipt"]["signature"].startswith("ed25519-")


def test_expecting_an_event_of_a_session_that_is_not_open_is_the_ledgers_to_refuse(
    shell: Shell,
) -> None:
    assert shell.run("submit", "orders/1", "Paid", "{}", "--expect", "3") == 1
    assert "NOT_A_MEMBER" in shell.out
    assert shell.run("submit", "orders/1", "Ordered", "{}", "--expect", "0") == 0


def test_who_may_not_open_gets_a_receipt(tmp_path: Path) -> None:
    genesis = make_genesis(open_policy=(OpenRule(None, "", "public/"),))
    shell = Shell(tmp_path, MemoryLedger(genesis))
    assert shell.run("submit", "private/1", "Ordered", "{}") == 1
    assert "NOT_PERMITTED_TO_OPEN  the author may not open this session" in shell.out
    assert shell.run("submit", "public/1", "Ordered", "{}") == 0


def test_a_deadline_ends_with_3_and_repeating_by_id_is_the_same_command(shell: Shell) -> None:
    shell.ledger.level = Level.ACCEPTED
    assert shell.run("submit", "orders/1", "Ordered", '{"n":1}', "--deadline", "0.5") == 3
    assert "The deadline of 0.5 s came at level accepted, before signed" in shell.err
    identity = shell.err.split("--id ")[1].split(",")[0]
    shell.ledger.level = Level.SIGNED
    shell.run("submit", "orders/1", "Ordered", '{"n":1}', "--id", identity)
    first, again = shell.ledger.commands
    assert first == again


def test_repeating_a_command_that_is_in_the_ledger_tells_its_first_outcome(shell: Shell) -> None:
    told = shell.json("submit", "orders/1", "Ordered", "{}")
    shell.run("submit", "orders/1", "Paid", "{}")
    again = shell.json("submit", "orders/1", "Ordered", "{}", "--id", told["commandId"])
    assert again["repeated"] is True
    assert again["events"] == told["events"]
    assert len(shell.ledger.events_of["orders/1"]) == 2


def test_an_id_serves_for_one_content_only(shell: Shell) -> None:
    told = shell.json("submit", "orders/1", "Ordered", "{}")
    assert shell.run("submit", "orders/1", "Ordered", "[]", "--id", told["commandId"]) == 1
    assert "ID_REUSED" in shell.out


def test_a_session_opened_meanwhile_is_asked_again_without_opening(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell.run("submit", "orders/1", "Ordered", "{}")

    async def not_shown_yet(_session: str) -> None:
        return None

    monkeypatch.setattr(shell.ledger, "session", not_shown_yet)
    assert shell.run("submit", "orders/1", "Paid", "{}") == 0
    assert "opened the session meanwhile" in shell.err
    assert [event.header.event_type for event in shell.ledger.events_of["orders/1"]] == [
        "Ordered",
        "Paid",
    ]


def test_an_unreachable_ledger_ends_with_3(shell: Shell) -> None:
    shell.ledger.unavailable = "Nothing runs: 'nocturne up --detach' starts it."
    assert shell.run("submit", "orders/1", "Ordered", "{}") == 3
    assert shell.err.endswith("✗ Nothing runs: 'nocturne up --detach' starts it.\n")


@pytest.mark.parametrize("level", ["logged", "witnessed", "anchored"])
def test_a_level_that_is_not_configured_is_bad_use(shell: Shell, level: str) -> None:
    assert shell.run("submit", "orders/1", "Ordered", "{}", "--wait", level) == 2
    assert f"no level {level} configured: --wait takes accepted, certified, signed" in shell.err


def test_a_payload_comes_from_a_file_or_from_stdin(shell: Shell, tmp_path: Path) -> None:
    file = tmp_path / "payload.json"
    file.write_text('{ "b": 2.0,\n "a": [1, 10e-1] }\n')
    assert shell.run("submit", "orders/1", "Ordered", f"@{file}") == 0
    shell.stdin = json.dumps({"text": "déjà vu"}).encode()
    assert shell.run("submit", "orders/1", "Ordered", "-") == 0
    carried = [signed.payloads[0].data for signed in shell.ledger.commands]
    assert carried == [b'{"a":[1,1],"b":2}', '{"text":"déjà vu"}'.encode()]


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "{",
        "tea",
        "NaN",
        '{"a":1,"a":2}',
        '"\\ud800"',
        "9007199254740993",
        "[" * 100 + "]" * 100,
        "@",
        "@/no/such/file",
        "@/",
    ],
)
def test_a_payload_that_is_no_json_is_bad_use(shell: Shell, payload: str) -> None:
    assert shell.run("submit", "orders/1", "Ordered", payload) == 2
    assert shell.err.count("\n") == 1
    assert shell.ledger.commands == []


@pytest.mark.parametrize("session", ["", "a b", "é", "x" * 129, "a\nb", "\x1b[31m"])
def test_a_session_id_that_cannot_be_one_is_bad_use(shell: Shell, session: str) -> None:
    assert shell.run("submit", session, "Ordered", "{}") == 2
    assert "\x1b" not in shell.err


@pytest.mark.parametrize("event_type", ["", "a b", "é", "x" * 129, "a~b"])
def test_an_event_type_that_cannot_be_one_is_bad_use(shell: Shell, event_type: str) -> None:
    assert shell.run("submit", "orders/1", event_type, "{}") == 2


def test_the_reserved_session_is_the_ledgers_to_refuse(shell: Shell) -> None:
    assert shell.run("submit", "~mine", "Ordered", "{}") == 1
    assert "NOT_PERMITTED_TO_OPEN" in shell.out


def test_an_unknown_key_is_bad_use_and_says_how_to_make_it(shell: Shell) -> None:
    assert shell.run("submit", "orders/1", "Ordered", "{}", "--as", "alice") == 2
    assert "nocturne keys new alice" in shell.err


def test_a_named_key_signs(shell: Shell) -> None:
    told = shell.json("keys", "new", "alice")
    assert shell.run("submit", "orders/1", "Ordered", "{}", "--as", "alice") == 0
    (signed,) = shell.ledger.commands
    assert format_hash(signed.command.author) == told["author"]
    assert shell.run("submit", "orders/1", "Paid", "{}") == 1
    assert "NOT_A_MEMBER" in shell.out
