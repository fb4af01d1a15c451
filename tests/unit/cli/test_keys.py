"""keys: made once, closed to others, never written over."""

import stat
from pathlib import Path

import pytest
from tests.unit.cli.memory_ledger import Shell


def test_a_key_is_made_closed_and_listed(shell: Shell) -> None:
    assert shell.run("keys", "new", "alice") == 0
    assert "✓ alice  sha256-" in shell.out
    file = shell.home / "keys" / "authors" / "alice.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    (told,) = shell.json_lines("keys", "list")
    assert told["name"] == "alice"
    assert told["file"] == str(file)
    assert told["author"].startswith("sha256-")
    assert shell.run("keys", "list") == 0
    assert "alice" in shell.out


def test_a_key_is_never_written_over(shell: Shell) -> None:
    shell.run("keys", "new", "alice")
    before = (shell.home / "keys/authors/alice.json").read_bytes()
    assert shell.run("keys", "new", "alice") == 2
    assert "There is a key alice already" in shell.err
    assert (shell.home / "keys/authors/alice.json").read_bytes() == before


def test_no_private_key_is_ever_printed(shell: Shell) -> None:
    shell.run("keys", "new", "alice")
    seed = (shell.home / "keys/authors/alice.json").read_text().split('"seed": "')[1][:64]
    for command in (["keys", "list"], ["keys", "list", "--json"]):
        shell.run(*command)
        assert seed not in shell.out + shell.err


@pytest.mark.parametrize("name", ["", ".", "..", "../alice", "a/b", "-x" * 40, "é", ".hidden"])
def test_a_name_that_is_none_is_bad_use(shell: Shell, name: str) -> None:
    assert shell.run("keys", "new", "--", name) == 2
    assert not (shell.home / "keys").exists()


def test_a_key_that_others_can_read_is_shown_and_refused(shell: Shell) -> None:
    shell.run("keys", "new", "alice")
    (shell.home / "keys/authors/alice.json").chmod(0o644)
    (told,) = shell.json_lines("keys", "list")
    assert told["author"] is None
    assert "others could have read it" in told["problem"]
    assert shell.run("submit", "orders/1", "Ordered", "{}", "--as", "alice") == 1
    assert "others could have read it" in shell.err


def test_an_empty_home_has_no_keys_and_is_not_made_by_looking(shell: Shell) -> None:
    assert shell.run("keys", "list") == 0
    assert shell.out == ""
    assert not shell.home.exists()


def test_a_home_that_cannot_be_written_is_one_sentence(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert shell.run("keys", "new", "alice", "--home", str(tmp_path / "file" / "home")) == 2
    assert "choose another home with --home" in shell.err
