"""validators: each as it says itself, whether there is a quorum, and how many more may fail."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.cli.memory_ledger import Shell

from nocturne.cli.asking_validators import look
from nocturne.cli.validators_view import Asked, Quorum, Seen, quorum_text
from nocturne.client.validators import Certificate, CertificateKind, Mode, Peer, Role, Validator
from nocturne.consensus.validator_servicer import (
    ReportedRole,
    ValidatorReport,
    ValidatorServicer,
)
from nocturne.core.errors import NocturneError, Unavailable
from nocturne.core.identifiers import KeyId, LedgerId, format_hash
from nocturne.embedded.home import Home

LEDGER = LedgerId(b"\x07" * 32)


def peer(index: int | None, *, connected: bool = True, rtt_ms: float | None = 0.5) -> Peer:
    return Peer(index, None, f"10.0.0.{index}:7400", connected, rtt_ms, 10, 9, 0, "")


def validator(index: int, ledger: LedgerId = LEDGER, n: int = 4, **changed: Any) -> Validator:
    """One of `n` validators of a ledger that runs well."""
    said = Validator(
        ledger_id=ledger,
        index=index,
        key_id=bytes([index]) * 32,
        role=Role.LEADER if index == 2 else Role.FOLLOWER,
        role_cause="",
        validators=n,
        quorum=(n + (n - 1) // 3) // 2 + 1,
        recovery=0,
        epoch=0,
        view=19,
        leader=2,
        height=18,
        published_height=18,
        mode=Mode.SYNC_WS,
        mode_cause="",
        newest_certificate=Certificate(CertificateKind.FINALIZATION, 18, b"\x0a" * 32),
        skipped_views=1,
        evidence_count=0,
        evidence=(),
        peers=tuple(peer(other) for other in range(n) if other != index),
        journal_bytes=4096,
    )
    return replace(said, **changed)


def asked(said: Iterable[Validator | str]) -> tuple[Asked, ...]:
    """Answers, and causes of silence, by ordinal."""
    return tuple(
        Asked(f"consensus-{at}", f"127.0.0.1:{17440 + at}", None, one)
        if isinstance(one, str)
        else Asked(f"consensus-{at}", f"127.0.0.1:{17440 + at}", one)
        for at, one in enumerate(said)
    )


def quorum(said: Iterable[Validator | str]) -> Quorum:
    return Seen(None, LEDGER, asked(said)).quorum


@pytest.fixture
def four(shell: Shell) -> list[Validator | str]:
    return [validator(index, shell.ledger.ledger_id) for index in range(4)]


def test_four_that_are_well_are_one_line_each_and_one_more_may_fail(
    shell: Shell, four: list[Validator | str]
) -> None:
    shell.asked_validators = asked(four)
    assert shell.run("validators") == 0
    lines = shell.out.splitlines()
    assert lines[0] == f"ledger {format_hash(shell.ledger.ledger_id)}"
    assert lines[1].split() == [
        *("validator", "state", "view", "height", "behind", "peers"),
        *("round", "trip", "skipped", "evidence"),
    ]
    assert lines[4].split() == [
        *("consensus-2", "leads", "19", "18", "0", "3/3", "0.5", "ms", "1", "0"),
    ]
    assert "consensus-3  follows" in lines[5]
    assert lines[6] == "Quorum: 4 of 4 validators vote, 3 needed; 1 more may fail."
    assert shell.err == ""


def test_one_that_is_away_leaves_a_quorum_that_bears_no_more(
    shell: Shell, four: list[Validator | str]
) -> None:
    four[1] = "consensus: connection refused"
    shell.asked_validators = asked(four)
    assert shell.run("validators") == 0
    assert "consensus-1  unreachable: consensus: connection refused" in shell.out
    assert "Quorum: 3 of 4 validators vote, 3 needed; none may fail." in shell.out


def test_one_that_has_halted_says_why_though_its_process_is_gone(
    shell: Shell, four: list[Validator | str]
) -> None:
    cause = "partition 2 of nocturne.commands.v1 ends at offset 5, certified up to 9"
    first, *others = asked(four)
    shell.asked_validators = (replace(first, said=None, problem=cause, halted=True), *others)
    assert shell.run("validators") == 0
    assert f"consensus-0  halted: {cause}" in shell.out
    told = shell.json("validators")["validators"]
    assert [one["halted"] for one in told] == [True, False, False, False]
    assert (told[0]["reachable"], told[0]["problem"]) == (False, cause)


def test_without_a_quorum_it_ends_with_3_and_says_how_many_are_missing(
    shell: Shell, four: list[Validator | str]
) -> None:
    four[0] = four[3] = "no answer within 2 s"
    shell.asked_validators = asked(four)
    assert shell.run("validators") == 3
    said = "No quorum: 2 of 4 validators vote, 3 needed; 1 more must vote again."
    assert said in shell.out
    assert said in shell.err
    told = shell.json("validators", code=3)
    assert told["quorum"] == {
        "reached": False,
        "validators": 4,
        "needed": 3,
        "voting": 2,
        "unasked": 0,
        "mayFail": 0,
    }


def test_nobody_that_answers_is_no_quorum(shell: Shell) -> None:
    shell.asked_validators = asked(["away"] * 4)
    assert shell.run("validators") == 3
    assert "No quorum: no validator of this ledger answers." in shell.err


@pytest.mark.parametrize(
    "changed, said",
    [
        ({"role": Role.HALTED, "role_cause": "another root"}, "halted: another root"),
        ({"role": Role.REFUSING, "role_cause": "rolled back"}, "refuses to vote: rolled back"),
        ({"role": Role.STARTING, "role_cause": "asks 3 peers"}, "starts: asks 3 peers"),
        ({"role": Role.OBSERVER, "index": None}, "observes"),
        ({"peers": tuple(peer(at, connected=at == 1) for at in range(3))}, "cut off from the"),
        ({"ledger_id": LedgerId(b"\x09" * 32)}, "serves another ledger"),
    ],
)
def test_one_that_does_not_vote_says_why_and_is_not_counted(
    shell: Shell, four: list[Validator | str], changed: dict[str, Any], said: str
) -> None:
    assert isinstance(four[3], Validator)
    four[3] = replace(four[3], **changed)
    shell.asked_validators = asked(four)
    assert shell.run("validators") == 0
    assert f"consensus-3  {said}" in shell.out
    assert "3 of 4 validators vote, 3 needed; none may fail." in shell.out


def test_who_is_behind_and_what_was_found_against_whom_is_shown_once(
    shell: Shell, four: list[Validator | str]
) -> None:
    piece = "validator 3 voted for two blocks in view 7"
    for at in (0, 1):
        said = four[at]
        assert isinstance(said, Validator)
        four[at] = replace(said, height=18 - 5 * at, evidence_count=1, evidence=(piece,))
    shell.asked_validators = asked(four)
    assert shell.run("validators") == 0
    assert shell.out.count(piece) == 1
    assert f"evidence: {piece} (consensus-0, consensus-1)" in shell.out
    told = shell.json("validators")
    assert [one["behind"] for one in told["validators"]] == [0, 5, 0, 0]
    assert told["height"] == 18


def test_a_degraded_ledger_says_why(shell: Shell, four: list[Validator | str]) -> None:
    assert isinstance(four[2], Validator)
    four[2] = replace(four[2], mode=Mode.DEGRADED, mode_cause="two commit proofs at block 7")
    shell.asked_validators = asked(four)
    assert shell.run("validators") == 0
    assert "DEGRADED: two commit proofs at block 7" in shell.out
    assert shell.json("validators")["degraded"] == "two commit proofs at block 7"


def test_json_has_everything_by_stable_names(shell: Shell, four: list[Validator | str]) -> None:
    four[3] = "away"
    shell.asked_validators = asked(four)
    told = shell.json("validators")
    assert set(told) == {"home", "ledgerId", "quorum", "degraded", "height", "validators"}
    assert told["validators"][3] == {
        "name": "consensus-3",
        "address": "127.0.0.1:17443",
        "reachable": False,
        "problem": "away",
        "halted": False,
    }
    one = told["validators"][0]
    assert set(one) == {
        *("name", "address", "reachable", "problem", "halted", "ledgerId", "index"),
        *("keyId", "role"),
        *("roleCause", "voting", "mode", "modeCause", "validators", "quorum", "recovery"),
        *("epoch", "view", "leader", "height", "behind", "publishedHeight"),
        *("newestCertificate", "skippedViews", "evidence", "peers", "journalBytes"),
    }
    assert one["newestCertificate"] == {
        "kind": "finalization",
        "view": 18,
        "digest": "sha256-" + "0a" * 32,
    }
    assert one["peers"][0] == {
        "index": 1,
        "keyId": None,
        "address": "10.0.0.1:7400",
        "connected": True,
        "rttMs": 0.5,
        "sent": 10,
        "received": 9,
        "dropped": 0,
        "lastError": None,
    }


def test_what_a_validator_says_moves_no_cursor(shell: Shell, four: list[Validator | str]) -> None:
    assert isinstance(four[0], Validator)
    evil = "\x1b[2J\u202eall is well" + "x" * 200
    four[0] = replace(four[0], role=Role.HALTED, role_cause=evil, evidence=(evil,), mode_cause=evil)
    shell.asked_validators = asked(four)
    assert shell.run("validators") == 0
    assert "\x1b" not in shell.out
    assert "\u202e" not in shell.out


def test_one_of_four_addresses_does_not_say_whether_there_is_a_quorum(shell: Shell) -> None:
    shell.asked_validators = asked([validator(1, shell.ledger.ledger_id)])
    assert shell.run("validators") == 3
    assert "Unknown whether there is a quorum: 1 of 4 validators votes, 3 needed" in shell.err
    assert shell.json("validators", code=3)["quorum"]["reached"] is None


def test_a_validator_that_has_two_addresses_counts_once() -> None:
    assert quorum([validator(0), validator(0), validator(1), "away", "away"]).voting == 2


def test_a_liar_does_not_say_how_many_make_a_quorum() -> None:
    liar = replace(validator(3), validators=1, quorum=1, index=0, epoch=10**9)
    found = quorum([validator(0), liar, "away", "away"])
    assert (found.validators, found.needed) == (4, 3)
    found = quorum([validator(0), validator(1), liar, "away"])
    assert (found.validators, found.needed) == (4, 3)


@given(st.integers(1, 31), st.data())
def test_the_quorum_is_reached_exactly_when_enough_vote(n: int, data: st.DataObject) -> None:
    away = data.draw(st.sets(st.integers(0, n - 1)))
    said = [
        "away"
        if at in away
        else validator(
            at,
            n=n,
            peers=tuple(peer(o, connected=o not in away) for o in range(n) if o != at),
        )
        for at in range(n)
    ]
    found = quorum(said)
    f = (n - 1) // 3
    needed = (n + f) // 2 + 1
    assert found.reached is (n - len(away) >= needed)
    if len(away) <= f:
        assert found.reached
    if found.reached:
        assert found.may_fail == n - len(away) - needed
    assert quorum_text(found).startswith("Quorum" if found.reached else "No quorum")


def served(reports: list[ValidatorReport]) -> Any:
    """Servers of these reports, and one address where nobody is."""

    async def serving(stack: AsyncExitStack) -> list[str]:
        addresses = []
        for report in reports:
            server = grpc.aio.server()
            ValidatorServicer(lambda report=report: report).rpc_service().add(server)  # type: ignore[misc]
            addresses.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
            await server.start()
            stack.push_async_callback(server.stop, None)
        return [*addresses, "127.0.0.1:1"]

    return serving


def report(index: int) -> ValidatorReport:
    return ValidatorReport(
        *(LEDGER, KeyId(bytes([index]) * 32), index, ReportedRole.FOLLOWER, "", 3, 2, 0, 0),
        *(5, 0, 4, 4, None, None, 0, 0, (), (), 100),
    )


def test_those_of_a_deployment_are_asked_at_once_and_one_that_is_away_holds_nobody_up(
    tmp_path: Path,
) -> None:
    async def scenario() -> Seen:
        async with AsyncExitStack() as stack:
            addresses = await served([report(0), report(1)])(stack)
            environment = {
                "NOCTURNE_CONTROL_ADDRESS": " , ".join(addresses),
                "NOCTURNE_LEDGER": format_hash(LEDGER),
            }
            return await asyncio.to_thread(look, Home(tmp_path), environment, 10.0)

    seen = asyncio.run(asyncio.wait_for(scenario(), 60))
    said = [one.said for one in seen.asked]
    assert [None if one is None else one.index for one in said] == [0, 1, None]
    assert seen.asked[2].problem
    assert seen.quorum.validators == 3


@pytest.mark.parametrize("addresses", ["a:1,,b:2", "nonsense", "a:1,b", ",".join(["a:1"] * 200)])
def test_addresses_that_are_none_are_bad_use(tmp_path: Path, addresses: str) -> None:
    environment = {
        "NOCTURNE_CONTROL_ADDRESS": addresses,
        "NOCTURNE_LEDGER": format_hash(LEDGER),
    }
    with pytest.raises(NocturneError, match="NOCTURNE_CONTROL_ADDRESS"):
        look(Home(tmp_path), environment, 1.0)


def test_a_home_where_nothing_runs_says_so(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="nocturne up --detach"):
        look(Home(tmp_path), {}, 1.0)


def test_json_of_a_validator_prints_in_one_line(shell: Shell) -> None:
    shell.asked_validators = asked([validator(0, shell.ledger.ledger_id, n=1, peers=())])
    assert shell.run("validators", "--json") == 0
    assert json.loads(shell.out)["quorum"]["reached"] is True
    assert shell.out.count("\n") == 1
