"""keys rotate and revoke: safe to end anywhere, and finished by running them again."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest
from tests.unit.cli.memory_ledger import MemoryLedger, Shell

from nocturne.cli import author_state, authors, writing
from nocturne.client.results import Level, Result
from nocturne.core.commands import SignedCommand
from nocturne.core.events import Event
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


def lose_the_answer(shell: Shell, monkeypatch: pytest.MonkeyPatch, *act: str) -> None:
    with monkeypatch.context() as patched:
        crash_after_submit(patched)
        with pytest.raises(Crash):
            shell.run("keys", *act)


def trail(monkeypatch: pytest.MonkeyPatch, shell: Shell) -> None:
    """The read side stands where it does now; an old key that asks again is refused, as on a ledger
    that checks the key before the id.
    """
    applied = shell.ledger._applied()
    seen = {name: list(events) for name, events in shell.ledger.events_of.items()}
    seen.pop("~ledger", None)

    async def outcome(*_: object) -> Result | None:
        return None

    async def events(_: MemoryLedger, session: str, *__: object) -> AsyncGenerator[Event, None]:
        for event in seen.get(session, []):
            yield event

    monkeypatch.setattr(MemoryLedger, "outcome", outcome)
    monkeypatch.setattr(MemoryLedger, "events", events)
    monkeypatch.setattr(MemoryLedger, "_applied", lambda _: applied)
    monkeypatch.setattr(writing, "READABLE_LOOKS_MAX", 2)


def refuse_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy is answered by its own refusal, and its first outcome is not found."""

    def decide(ledger: MemoryLedger, signed: SignedCommand) -> Result:
        return ledger._result(signed)

    async def outcome(*_: object) -> Result | None:
        return None

    monkeypatch.setattr(MemoryLedger, "_decide", decide)
    monkeypatch.setattr(MemoryLedger, "outcome", outcome)


def test_a_lost_answer_and_a_trailing_read_side_lose_no_key(
    shell: Shell, alice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_copies(monkeypatch)
    lose_the_answer(shell, monkeypatch, "rotate", "alice")
    with monkeypatch.context() as patched:
        trail(patched, shell)
        assert shell.run("keys", "rotate", "alice") == 3
        assert "cannot be read yet" in shell.err
    assert shell.json_lines("keys", "list")[0]["state"] == "rotating"
    told = shell.json("keys", "rotate", "alice")
    assert (told["author"], told["before"]) == (alice["author"], alice["key"])
    assert writes(shell) == 0
    assert len(shell.ledger.events_of["~ledger"]) == 1


def test_a_copy_sent_by_a_retry_loses_no_key(
    shell: Shell, alice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse_copies(monkeypatch)
    whole = MemoryLedger.submit

    async def twice(
        ledger: MemoryLedger, signed: SignedCommand, wait: Level, deadline: float
    ) -> Result:
        await whole(ledger, signed, wait, deadline)
        return await whole(ledger, signed, wait, deadline)

    with monkeypatch.context() as patched:
        patched.setattr(MemoryLedger, "submit", twice)
        told = shell.json("keys", "rotate", "alice")
    assert told["key"] != alice["key"]
    assert writes(shell) == 0


def test_a_home_that_forgot_what_it_had_asked_for_is_healed(
    shell: Shell, alice: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_the_answer(shell, monkeypatch, "rotate", "alice")
    authors.keep_state(Home(shell.home), "alice", author_state.ONE_KEY)
    assert writes(shell) == 1
    assert shell.json("keys", "rotate", "alice")["author"] == alice["author"]
    assert writes(shell) == 0
    assert len(shell.ledger.events_of["~ledger"]) == 1


@pytest.mark.parametrize("trails", [False, True])
def test_a_revocation_finishes_a_rotation_first(
    shell: Shell, alice: Any, monkeypatch: pytest.MonkeyPatch, trails: bool
) -> None:
    lose_the_answer(shell, monkeypatch, "rotate", "alice")
    if trails:
        with monkeypatch.context() as patched:
            trail(patched, shell)
            assert shell.run("keys", "revoke", "alice", "--yes") == 3
    assert shell.run("keys", "revoke", "alice", "--yes") == 0
    (listed,) = shell.json_lines("keys", "list")
    assert (listed["state"], len(listed["retired"])) == ("revoked", 1)
    assert len(shell.ledger.events_of["~ledger"]) == 2


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
