"""members and close: who may write to a session, said by its owners."""

from __future__ import annotations

import pytest
from tests.unit.cli.memory_ledger import Shell


@pytest.fixture
def session(shell: Shell) -> str:
    """A session that alice opened."""
    for name in ("alice", "bob"):
        shell.run("keys", "new", name)
    assert shell.run("submit", "orders/1", "Ordered", "{}", "--as", "alice") == 0
    return "orders/1"


def listed(shell: Shell, session: str) -> dict[str, str]:
    return {one["name"]: one["role"] for one in shell.json_lines("members", session)}


def test_the_opener_is_the_owner(shell: Shell, session: str) -> None:
    assert listed(shell, session) == {"alice": "owner"}
    assert shell.run("members", session) == 0
    assert "owner  sha256-" in shell.out
    assert shell.out.rstrip().endswith("alice")


def test_a_member_is_added_gets_another_role_and_is_removed(shell: Shell, session: str) -> None:
    for role, code in (("reader", 1), ("writer", 0), ("owner", 0), ("reader", 1)):
        assert shell.run("members", session, "add", "bob", "--role", role, "--as", "alice") == 0
        assert listed(shell, session) == {"alice": "owner", "bob": role}
        assert shell.run("submit", session, "Said", "{}", "--as", "bob") == code
    assert shell.run("members", session, "remove", "bob", "--as", "alice") == 0
    assert listed(shell, session) == {"alice": "owner"}


def test_a_member_is_named_by_key_author_or_public_key(shell: Shell, session: str) -> None:
    bob = shell.json_lines("keys", "list")[1]
    for key in ("bob", bob["author"], bob["key"]):
        assert shell.run("members", session, "add", key, "--role", "writer", "--as", "alice") == 0
        assert listed(shell, session) == {"alice": "owner", "bob": "writer"}
        assert shell.run("members", session, "remove", key, "--as", "alice") == 0
    for _ in range(2):
        assert shell.run("keys", "rotate", "bob") == 0
    rotated = shell.json_lines("keys", "list")[1]
    # The ledger says whose key it is, also where the home does not have it.
    files = shell.home / "keys" / "authors"
    (files / "bob.json").rename(files / "elsewhere")
    assert rotated["key"] != bob["key"]
    shell.run("members", session, "add", rotated["key"], "--role", "writer", "--as", "alice")
    told = shell.json_lines("members", session)
    assert [one["author"] for one in told][1:] == [bob["author"]]


def test_only_an_owner_changes_members(shell: Shell, session: str) -> None:
    shell.run("members", session, "add", "bob", "--role", "writer", "--as", "alice")
    assert shell.run("members", session, "add", "bob", "--role", "owner", "--as", "bob") == 1
    assert "Only an owner may do this" in shell.err
    assert shell.run("close", session, "--as", "bob", "--yes") == 1


def test_the_last_owner_stays(shell: Shell, session: str) -> None:
    assert shell.run("members", session, "remove", "alice", "--as", "alice") == 1
    assert "a session keeps at least one owner: add another one first" in shell.out


def test_who_is_no_member_cannot_be_removed(shell: Shell, session: str) -> None:
    before = len(shell.ledger.commands)
    assert shell.run("members", session, "remove", "bob", "--as", "alice") == 1
    assert "is no member of orders/1" in shell.err
    assert len(shell.ledger.commands) == before


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (("add",), "Whom?"),
        (("remove",), "Whom?"),
        (("add", "bob"), "Say the role with --role"),
        (("remove", "bob", "--role", "writer"), "--role goes with add"),
        (("add", "bob", "--role", "king"), "king"),
        (("add", "nobody", "--role", "writer"), "There is no key nobody"),
        (("add", "sha256-00", "--role", "writer"), "KEY is no author id"),
        (("add", "ed25519-00", "--role", "writer"), "KEY is no public key"),
        (("hug", "bob"), "hug"),
    ],
)
def test_what_cannot_be_meant_is_bad_use(
    shell: Shell, session: str, arguments: tuple[str, ...], sentence: str
) -> None:
    assert shell.run("members", session, *arguments, "--as", "alice") == 2
    assert sentence in shell.err


def test_a_session_that_is_not_there_is_said(shell: Shell) -> None:
    assert shell.run("members", "nowhere") == 1
    assert "There is no session nowhere" in shell.err
    assert shell.run("close", "nowhere", "--yes") == 1
    assert shell.run("members", "~ledger") == 2
    assert "it has no members" in shell.err


def test_a_closed_session_takes_nothing_more(shell: Shell, session: str) -> None:
    assert shell.run("close", session, "--as", "alice") == 2
    assert "Say --yes" in shell.err
    assert shell.run("close", session, "--as", "alice", "--yes") == 0
    assert shell.run("submit", session, "Said", "{}", "--as", "alice") == 1
    assert "SESSION_CLOSED" in shell.out
    assert shell.run("close", session, "--as", "alice", "--yes") == 1
    assert shell.run("members", session) == 0
    assert "is closed" in shell.err
