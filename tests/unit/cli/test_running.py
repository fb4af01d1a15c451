"""up, down and status: what they say while a ledger starts, runs, and does not."""

from dataclasses import replace

import pytest
from tests.unit.cli.memory_ledger import Shell, running_status
from tests.unit.cli.test_validators import asked, validator

from nocturne.cli.lag import lag_in
from nocturne.client.validators import Mode
from nocturne.core.identifiers import format_hash
from nocturne.core.modes import Cause, Degraded
from nocturne.embedded.errors import EmbeddedError
from nocturne.embedded.home import Home
from nocturne.embedded.status import Health
from nocturne.runtime.degraded import keep


def test_up_detached_tells_what_became_healthy_and_what_to_do_next(shell: Shell) -> None:
    assert shell.run("up", "--detach") == 0
    assert shell.machine.asked == ["up --detach"]
    assert "✓ consensus-0  17410" in shell.err
    assert "ready after" in shell.err
    assert "nocturne submit hello" in shell.err
    assert "Downloading 54.0 MB, once" in shell.err
    assert shell.out == ""


def test_up_in_the_foreground_says_that_it_was_stopped(shell: Shell) -> None:
    assert shell.run("up") == 0
    assert "Stopped; 'nocturne up' goes on with the ledger" in shell.err


def test_what_hinders_the_start_is_one_sentence_and_the_logs_last_lines(shell: Shell) -> None:
    shell.machine.failure = EmbeddedError("Port 19092 is taken.", ["bind: in use"])
    assert shell.run("up", "--detach") == 3
    assert "✗ Port 19092 is taken.\n  bind: in use\n" in shell.err


@pytest.mark.parametrize("count", ["0", "32", "-1", "many"])
def test_no_validator_or_more_than_a_ledger_has_are_bad_use(shell: Shell, count: str) -> None:
    assert shell.run("up", "--validators", count) == 2
    assert shell.machine.asked == []


def test_a_home_is_founded_with_the_validators_that_were_asked_for(shell: Shell) -> None:
    assert shell.run("up", "--detach", "--validators", "7") == 0
    assert shell.machine.validators == 7
    assert "tolerates no liar" not in shell.err


def test_what_few_validators_do_not_withstand_is_said_when_they_are_founded(shell: Shell) -> None:
    assert shell.run("up", "--detach", "--validators", "3") == 0
    assert "With 3 validators the ledger tolerates no liar, and one" in shell.err


def test_a_founded_home_keeps_its_number_of_validators_and_says_so(shell: Shell) -> None:
    shell.home.mkdir()
    (shell.home / "genesis.avro").write_bytes(shell.ledger.inner.genesis_bytes)
    assert shell.run("up", "--detach") == 0
    assert "validators" not in shell.err
    assert shell.run("up", "--detach", "--validators", "4") == 0
    assert "founded with 1 validator and keeps its number: --validators 4 changes" in shell.err


def test_up_and_down_speak_json(shell: Shell) -> None:
    told = shell.json("up", "--detach")
    assert told["ready"] is True
    assert [service["name"] for service in told["services"]] == ["consensus-0", "signing"]
    assert shell.json("down")["stopped"] is True
    assert shell.json("down")["stopped"] is False


def test_down_stops_and_says_when_nothing_ran(shell: Shell) -> None:
    shell.run("up", "--detach")
    assert shell.run("down") == 0
    assert "stopped; its data stays" in shell.out
    assert shell.run("down") == 0
    assert "Nothing runs" in shell.err


def test_status_lists_services_lag_levels_and_what_was_refused(shell: Shell) -> None:
    shell.machine.now = running_status()
    shell.lag = {"signing": 12}
    shell.run("submit", "orders/1", "Ordered", "{}")
    shell.ledger.refused_records = {"forged block": 3}
    told = shell.json("status")
    assert told["services"] == [
        {
            "name": "consensus-0",
            "pid": 4712,
            "port": 17410,
            "health": "healthy",
            "lag": None,
            "restarts": 0,
        },
        {
            "name": "signing",
            "pid": 4713,
            "port": 17420,
            "health": "healthy",
            "lag": 12,
            "restarts": 2,
        },
    ]
    assert told["levels"] == {
        "accepted": "reached",
        "certified": "reached",
        "signed": "reached",
        "logged": "not configured",
        "witnessed": "not configured",
        "anchored": "not configured",
    }
    assert told["refusedRecords"] == {"forged block": 3}
    assert (told["events"], told["receipts"], told["sessions"]) == (1, 0, 1)
    assert shell.run("status") == 0
    assert "accepted, certified, signed reached · logged" in shell.out
    assert "3 records refused: forged block" in shell.out
    assert "1 event and 0 receipts in 1 session, of 1 record" in shell.out


def test_the_ledger_is_named_by_the_homes_genesis_even_when_nothing_runs(shell: Shell) -> None:
    shell.home.mkdir()
    (shell.home / "genesis.avro").write_bytes(shell.ledger.inner.genesis_bytes)
    told = shell.json("status", code=3)
    assert told["ledgerId"] == format_hash(shell.ledger.ledger_id)
    assert told["running"] is False
    assert told["levels"]["signed"] == "not running"
    assert "nocturne up --detach" in shell.err


def test_a_service_that_was_given_up_shows_and_ends_with_3(shell: Shell) -> None:
    shell.machine.now = running_status(Health.GIVEN_UP)
    assert shell.run("status") == 3
    assert "given up" in shell.out
    assert "✗ signing was given up: see its log.\n  last line of the log\n" in shell.err


def test_a_validator_that_is_away_is_said_of_a_ledger_that_is_ready(shell: Shell) -> None:
    now = running_status()
    away = replace(now.services[0], name="consensus-2", health=Health.GIVEN_UP)
    shell.machine.now = replace(now, services=(*now.services, away))
    told = shell.json("status")
    assert told["problem"] is None
    assert told["warning"] == "Without consensus-2: a quorum of the validators goes on."
    assert shell.run("status") == 0
    assert "Without consensus-2" in shell.out


def test_a_query_service_that_is_silent_shows_and_ends_with_3(shell: Shell) -> None:
    shell.machine.now = running_status()
    shell.ledger.unavailable = "The query service does not answer."
    told = shell.json("status", code=3)
    assert told["levels"]["certified"] == "unknown"
    assert told["problem"] == "The query service does not answer."


@pytest.mark.parametrize(
    "metrics, expected",
    [
        ("", None),
        ("nocturne_signing_lag_records 12.0\n", 12),
        (
            'nocturne_lag_records{partition="0"} 1.0\nnocturne_x_lag_records{a="1"} 3.0\n',
            3,
        ),
        ("nocturne_signing_lag_records_created 1.7e9\n", None),
    ],
)
def test_lag_is_read_from_the_services_own_metrics(metrics: str, expected: int | None) -> None:
    assert lag_in(metrics) == expected


def test_a_degraded_ledger_is_said_with_its_cause_by_each_that_keeps_it(shell: Shell) -> None:
    shell.machine.now = running_status()
    shell.home.mkdir()
    (shell.home / "genesis.avro").write_bytes(shell.ledger.inner.genesis_bytes)
    assert shell.json("status")["modeCause"] is None
    why = Degraded(Cause.SIGNING_CONFLICT, "block 7: this authority signed another")
    keep(Home(shell.home).data("signing"), shell.ledger.ledger_id, why)
    told = shell.json("status")
    assert told["mode"] == "DEGRADED"
    assert told["modeCause"] == f"signing: {why}"
    shell.run("status")
    said = " ".join(shell.out.split())
    assert f"DEGRADED: signing: {why}: see the runbook degraded.md" in said
    shell.machine.now = replace(running_status(), supervisor=None, ready=False)
    assert shell.json("status", code=3)["mode"] == "DEGRADED"


def test_a_cause_that_passes_is_said_as_long_as_no_quorum_of_the_validators_is_well(
    shell: Shell,
) -> None:
    shell.machine.now = running_status()
    shell.home.mkdir()
    (shell.home / "genesis.avro").write_bytes(shell.ledger.inner.genesis_bytes)
    well = [validator(index, shell.ledger.ledger_id) for index in range(4)]
    cause = "want of a quorum: 2 of 4 validators are here, 3 are needed"
    ill = [replace(one, mode=Mode.DEGRADED, mode_cause=cause) for one in well]
    shell.asked_validators = asked([*well[:3], ill[3]])
    assert shell.json("status")["mode"] != "DEGRADED"
    shell.asked_validators = asked([*ill[:2], "away", "away"])
    told = shell.json("status")
    assert (told["mode"], told["modeCause"]) == ("DEGRADED", f"validators: {cause}")
    shell.run("status")
    assert f"DEGRADED: validators: {cause}" in " ".join(shell.out.split())
