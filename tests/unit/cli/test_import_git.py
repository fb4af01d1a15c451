"""import git: one event a commit, each once, in whatever pieces it is run."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.ledger_factory import make_genesis
from tests.unit.cli.memory_ledger import MemoryLedger, Shell
from tests.unit.imports.repositories import ENVIRONMENT, Made, Repository, line_of

from nocturne.client.results import Level
from nocturne.core.genesis import Limits
from nocturne.core.receipts import Reason


@pytest.fixture
def shell(shell: Shell) -> Shell:
    """A shell in whose environment git runs."""
    shell.environment = ENVIRONMENT
    return shell


def imported(shell: Shell, session: str = "git/project/main") -> list[str]:
    """The commits of the session's events."""
    events = shell.ledger.events_of.get(session, [])
    return [json.loads(event.payload.data)["commit"] for event in events]


def project(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "project.git")


def test_every_commit_becomes_one_event_and_twice_adds_nothing(
    shell: Shell, tmp_path: Path
) -> None:
    repository = project(tmp_path)
    made = repository.make(line_of(300))
    told = shell.json("import", "git", str(repository.folder))
    assert (told["imported"], told["skipped"], told["sessions"]) == (300, 0, 1)
    assert told["sessionIds"] == ["git/project/main"]
    assert told["commit"] == made[-1]
    assert told["seconds"] > 0
    assert imported(shell) == made
    told = shell.json("import", "git", str(repository.folder))
    assert (told["imported"], told["skipped"]) == (0, 300)
    assert imported(shell) == made
    assert shell.ledger.all_receipts == []


def test_the_summary_for_people_is_one_line(shell: Shell, tmp_path: Path) -> None:
    repository = project(tmp_path)
    repository.make(line_of(3))
    assert shell.run("import", "git", str(repository.folder)) == 0
    assert "✓ git/project/main  3 commits imported, 0 commits there already" in shell.out
    assert shell.run("import", "git", str(repository.folder), terminal=True) == 0


def test_new_commits_are_added_after_those_there(shell: Shell, tmp_path: Path) -> None:
    repository = project(tmp_path)
    repository.make(line_of(10))
    shell.run("import", "git", str(repository.folder))
    made = repository.make(line_of(25))
    told = shell.json("import", "git", str(repository.folder))
    assert (told["imported"], told["skipped"]) == (15, 10)
    assert imported(shell) == made


def test_a_merge_adds_the_commits_it_brings_once(shell: Shell, tmp_path: Path) -> None:
    repository = project(tmp_path)
    trunk = [Made(), Made(b"2\n", parents=(1,)), Made(b"3\n", parents=(2,))]
    repository.make(trunk)
    shell.run("import", "git", str(repository.folder))
    side = [Made(b"s\n", parents=(1,), branch="side"), Made(b"m\n", parents=(3, 4))]
    made = repository.make(trunk + side)
    assert shell.json("import", "git", str(repository.folder))["imported"] == 2
    assert imported(shell) == made


def test_a_rewritten_history_is_refused_naming_the_first_commit(
    shell: Shell, tmp_path: Path
) -> None:
    repository = project(tmp_path)
    made = repository.make(line_of(10))
    shell.run("import", "git", str(repository.folder))
    rewritten = line_of(10)
    rewritten[6] = Made(b"Changed my mind\n", parents=(6,))
    repository.make(rewritten)
    assert shell.run("import", "git", str(repository.folder)) == 1
    assert f"event 7 of git/project/main is commit {made[6][:12]}" in shell.err
    assert "--session" in shell.err
    assert imported(shell) == made
    assert shell.run("import", "git", str(repository.folder), "--session", "git/new") == 0
    assert len(imported(shell, "git/new")) == 10


def test_branches_have_sessions_of_their_own(shell: Shell, tmp_path: Path) -> None:
    repository = project(tmp_path)
    repository.make([Made(), Made(b"x\n", parents=(1,), branch="feature/x")])
    told = shell.json("import", "git", str(repository.folder), "--branch", "feature/x")
    assert told["sessionIds"] == ["git/project/feature/x"]
    assert told["imported"] == 2
    assert imported(shell) == []


def test_a_session_of_something_else_is_left_alone(shell: Shell, tmp_path: Path) -> None:
    repository = project(tmp_path)
    repository.make(line_of(2))
    shell.run("submit", "orders/1", "Ordered", "{}")
    assert shell.run("import", "git", str(repository.folder), "--session", "orders/1") == 1
    assert "Event 1 of orders/1 is no imported commit" in shell.err
    assert len(shell.ledger.events_of["orders/1"]) == 1


def test_another_author_is_refused_in_words(shell: Shell, tmp_path: Path) -> None:
    repository = project(tmp_path)
    repository.make(line_of(2))
    shell.run("import", "git", str(repository.folder))
    repository.make(line_of(3))
    shell.run("keys", "new", "bob")
    assert shell.run("import", "git", str(repository.folder), "--as", "bob") == 1
    assert "The ledger refused event 3 of git/project/main: the session was never" in shell.err


def test_an_unreachable_ledger_ends_with_3(shell: Shell, tmp_path: Path) -> None:
    repository = project(tmp_path)
    repository.make(line_of(2))
    shell.ledger.unavailable = "Nothing runs."
    assert shell.run("import", "git", str(repository.folder), "--deadline", "0") == 3


@pytest.mark.parametrize("path", ["/no/such/folder", "/", "/dev/null"])
def test_what_is_no_repository_is_a_failed_check(shell: Shell, path: str) -> None:
    assert shell.run("import", "git", path) == 1
    assert shell.err.count("\n") == 1


@pytest.mark.slow
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(st.integers(1, 30), max_size=4), st.lists(st.integers(0, 60), max_size=3))
def test_broken_anywhere_and_run_again_gives_exactly_one_event_a_commit(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], losses: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("import")
    repository = project(folder)
    made = repository.make(line_of(40))
    limits = Limits(id_window=16)
    shell = Shell(folder / "home", MemoryLedger(make_genesis(limits=limits)))
    shell.environment = ENVIRONMENT
    for cut in cuts:
        shell.ledger.cut_after = cut
        assert shell.run("import", "git", str(repository.folder), "--deadline", "0") in (0, 3)
    shell.ledger.cut_after = None
    for loss in losses:
        shell.ledger.lose_before = len(shell.ledger.commands) + loss
        assert shell.run("import", "git", str(repository.folder)) == 0, shell.err
    assert shell.run("import", "git", str(repository.folder)) == 0, shell.err
    assert imported(shell) == made


def test_a_lost_command_costs_receipts_and_no_event(shell: Shell, tmp_path: Path) -> None:
    repository = project(tmp_path)
    made = repository.make(line_of(30))
    shell.ledger.lose_before = 10
    told = shell.json("import", "git", str(repository.folder))
    assert told["imported"] == 30
    assert imported(shell) == made
    reasons = {receipt.header.reason for receipt in shell.ledger.all_receipts}
    assert Reason.DUPLICATE_SEQ in reasons


def test_what_is_not_certified_in_time_says_to_run_again(shell: Shell, tmp_path: Path) -> None:
    repository = project(tmp_path)
    made = repository.make(line_of(20))
    shell.ledger.level = Level.ACCEPTED
    assert shell.run("import", "git", str(repository.folder), "--deadline", "0") == 3
    assert "did not certify event 1 of git/project/main in time: run the import again" in shell.err
    shell.ledger.level = Level.SIGNED
    assert shell.run("import", "git", str(repository.folder)) == 0
    assert imported(shell) == made
