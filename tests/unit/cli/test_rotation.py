"""keys rotate and revoke: safe to end anywhere, and finished by running them again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.cli.memory_ledger import MemoryLedger, Shell

from nocturne.cli import author_state, authors
from nocturne.client.results import Level, Result
from nocturne.core.commands import SignedCommand
from nocturne.embedded.home import Home
from nocturne.runtime.home import held_alone


class Crash(BaseException):
    """The process ends here."""


@pytest.fixture
def alice(shell: Shell) -> Any:
    made = shell.json("keys", "new", "alice")
    assert shell.run("submit", "orders/1", "Ordered", "{}", "--as", "alice") == 0
    return made


def writes(shell: Shell) -> int:
    return shell.run("submit", "orders/1", "Said", "{}", "--as", "alice")


def test_a_rotated_key_signs_for_the_same_author(shell: Shell, alice: Any) -> None:
    for number in (2, 3):
        told = shell.json("keys", "rotate", "alice")
        assert told["author"] == alice["author"]
        assert told["key"] != alice["key"]
        assert writes(shell) == 0
        (listed,) = shell.json_lines("keys", "list")
        assert listed["key"] == told["key"]
        assert listed["state"] == "current"
        assert len(listed["retired"]) == number - 1
        assert listed["author"] == alice["author"]
    events = shell.json_lines("events", "orders/1")
    assert {one["author"] for one in events} == {alice["author"]}
    assert len({one["authorKeys"][0] for one in events}) == 3


def test_the_old_key_is_refused(shell: Shell, alice: Any) -> None:
    keys = shell.home / "keys" / "authors"
    (keys / "old.json").write_bytes((keys / "alice.json").read_bytes())
    (keys / "old.json").chmod(0o600)
    shell.run("keys", "rotate", "alice")
    assert shell.run("submit", "orders/1", "Said", "{}", "--as", "old") == 1
    assert "UNKNOWN_AUTHOR" in shell.out
    # Nor can it rotate, and the message says why.
    assert shell.run("keys", "rotate", "old") == 1
    assert "rotated from another home" in shell.err


def crash_before_submit(monkeypatch: pytest.MonkeyPatch) -> None:
    async def submit(*_: object) -> Result:
        raise Crash

    monkeypatch.setattr(MemoryLedger, "submit", submit)


def crash_after_submit(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = MemoryLedger.submit

    async def submit(
        ledger: MemoryLedger, signed: SignedCommand, wait: Level, deadline: float
    ) -> Result:
        await whole(ledger, signed, wait, deadline)
        raise Crash

    monkeypatch.setattr(MemoryLedger, "submit", submit)


def crash_while_making_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def sync(_: object) -> None:
        raise Crash

    monkeypatch.setattr(authors, "public_file", sync)


def crash_with_half_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def create(path: Any) -> None:
        path.write_bytes(b'{"suite"')
        raise Crash

    monkeypatch.setattr(authors, "create_key_file", create)


def crash_before_the_state_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object) -> None:
        raise Crash

    monkeypatch.setattr(authors, "write_state", write)


def crash_with_half_a_state(monkeypatch: pytest.MonkeyPatch) -> None:
    def sync(_: object) -> None:
        raise Crash

    monkeypatch.setattr(author_state, "sync_folder", sync)


@pytest.mark.parametrize(
    "crash",
    [
        crash_while_making_the_key,
        crash_with_half_a_key,
        crash_before_the_state_is_kept,
        crash_with_half_a_state,
        crash_before_submit,
        crash_after_submit,
    ],
)
@pytest.mark.parametrize("rotations", [0, 1])
def test_a_rotation_ended_anywhere_is_finished_by_the_next(
    shell: Shell,
    alice: Any,
    monkeypatch: pytest.MonkeyPatch,
    crash: Callable[[pytest.MonkeyPatch], None],
    rotations: int,
) -> None:
    for _ in range(rotations):
        assert shell.run("keys", "rotate", "alice") == 0
    with monkeypatch.context() as patched:
        crash(patched)
        with pytest.raises(Crash):
            shell.run("keys", "rotate", "alice")
    told = shell.json("keys", "rotate", "alice")
    assert told["author"] == alice["author"]
    assert writes(shell) == 0
    assert shell.json_lines("events", "orders/1")[-1]["authorKeys"] == [told["key"]]
    assert len(shell.ledger.events_of["~ledger"]) == rotations + 1
    (listed,) = shell.json_lines("keys", "list")
    assert len(listed["retired"]) == rotations + 1


def test_a_rotation_that_was_not_decided_in_time_is_finished_by_the_next(
    shell: Shell, alice: Any
) -> None:
    shell.ledger.level = Level.ACCEPTED
    assert shell.run("keys", "rotate", "alice", "--deadline", "0.5") == 3
    assert "run 'nocturne keys rotate alice' again" in shell.err
    (listed,) = shell.json_lines("keys", "list")
    assert (listed["state"], listed["key"]) == ("rotating", alice["key"])
    shell.ledger.level = Level.SIGNED
    told = shell.json("keys", "rotate", "alice")
    assert told["key"] != alice["key"]
    assert writes(shell) == 0


def test_a_revoked_author_stays_so(shell: Shell, alice: Any) -> None:
    assert shell.run("keys", "revoke", "alice") == 2
    assert "Say --yes" in shell.err
    shell.says = "no"
    assert shell.run("keys", "revoke", "alice") == 1
    assert writes(shell) == 0
    shell.says = "yes"
    assert shell.run("keys", "revoke", "alice") == 0
    assert "No key will ever sign for alice" in shell.questions[-1]
    assert writes(shell) == 1
    assert "UNKNOWN_AUTHOR" in shell.out
    (listed,) = shell.json_lines("keys", "list")
    assert listed["state"] == "revoked"
    for again in (["rotate", "alice"], ["revoke", "alice", "--yes"]):
        assert shell.run("keys", *again) == 1
        assert "is revoked, for good" in shell.err


def test_a_revocation_whose_answer_was_lost_is_seen(
    shell: Shell, alice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        crash_after_submit(patched)
        with pytest.raises(Crash):
            shell.run("keys", "revoke", "alice", "--yes")
    assert shell.json_lines("keys", "list")[0]["state"] == "current"
    assert shell.run("keys", "revoke", "alice", "--yes") == 1
    assert "is revoked, for good" in shell.err
    assert shell.json_lines("keys", "list")[0]["state"] == "revoked"


def test_two_rotations_at_once_are_one_after_the_other(shell: Shell, alice: Any) -> None:
    with held_alone(authors.rotation_folder(Home(shell.home), "alice")):
        assert shell.run("keys", "rotate", "alice") == 1
        assert "in use by another process" in shell.err
    assert shell.run("keys", "rotate", "alice") == 0


def test_an_unknown_key_is_bad_use(shell: Shell) -> None:
    for act in (["rotate", "nobody"], ["revoke", "nobody", "--yes"]):
        assert shell.run("keys", *act) == 2
        assert "There is no key nobody" in shell.err
