"""Whatever is typed: one of four exit codes, at most a sentence, never a traceback."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.cli.memory_ledger import Shell
from tests.unit.imports.repositories import ENVIRONMENT

WORDS = [
    *("up", "down", "status", "keys", "new", "list", "submit", "import", "git", "sessions"),
    *("events", "receipts", "state", "export", "verify", "--json", "--home", "--detach", "--help"),
    *("--validators", "--as", "--kind", "--expect", "--wait", "--deadline", "--id", "--limit"),
    *("members", "close", "subjects", "share", "add", "remove", "rotate", "revoke", "--yes"),
    *("--role", "writer", "--seal", "ada", "--with", "--name", "ed25519-" + "0" * 64, "destroy"),
    *("--from", "--at", "--trust", "--branch", "--session", "--version", "-h", "--", "-", "@"),
    *("orders/1", "Ordered", "{}", "[1,", "@payload", "0", "1", "-1", "9" * 30, "1e3", "nan"),
    *("signed", "accepted", "logged", "facts", "document", "default", "file", ".", "sha256-00"),
    *("sha256-" + "0" * 64, "00000000-0000-7000-8000-000000000000", "--expect=0", "--limit=-2"),
]
COMMANDS = [
    ["submit", "orders/1", "Ordered"],
    ["submit", "orders/1", "Ordered", "{}"],
    ["events", "orders/1"],
    ["state", "orders/1"],
    ["receipts"],
    ["sessions"],
    ["verify"],
    ["export", "orders/1"],
    ["keys", "new"],
    ["keys", "rotate"],
    ["keys", "revoke", "--yes"],
    ["members", "orders/1"],
    ["members", "orders/1", "add", "default"],
    ["close", "orders/1", "--yes"],
    ["subjects"],
    ["subjects", "share"],
    ["subjects", "import"],
    ["import", "git"],
    ["up"],
    [],
]
# Without slashes, so that nothing is written outside the test's folder.
TEXTS = st.text(
    st.characters(exclude_characters="/~", exclude_categories=["Cs"]), max_size=40
) | st.binary(max_size=20).map(lambda data: os.fsdecode(data.replace(b"/", b"").replace(b"~", b"")))


@settings(
    # `make hostile` runs ten thousand.
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.sampled_from(COMMANDS),
    st.lists(st.sampled_from(WORDS) | TEXTS, max_size=6),
    st.binary(max_size=100),
)
def test_any_command_line_ends_with_a_code_and_a_sentence(
    shell: Shell,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: list[str],
    rest: list[str],
    stdin: bytes,
) -> None:
    monkeypatch.chdir(tmp_path)
    shell.environment = ENVIRONMENT
    shell.stdin = stdin
    code = shell.run(*command, *rest)
    assert code in (0, 1, 2, 3)
    assert "This is a bug in nocturne" not in shell.err
    assert "Traceback" not in shell.out + shell.err
    assert "\x1b" not in shell.out + shell.err


def test_a_bug_is_called_one_and_ends_with_1(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_limit: int) -> None:
        raise KeyError("height")

    monkeypatch.setattr(shell.ledger, "sessions", broken)
    assert shell.run("sessions") == 1
    assert "This is a bug in nocturne (KeyError: 'height')" in shell.err
    assert "Traceback" not in shell.err


def test_ctrl_c_ends_with_130(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_limit: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shell.ledger, "sessions", interrupted)
    assert shell.run("sessions") == 130


def test_a_reader_who_has_had_enough_is_no_failure(tmp_path: Path) -> None:
    keys = tmp_path / "keys" / "authors"
    keys.mkdir(parents=True)
    for number in range(800):
        (keys / f"key{number}.json").write_text("not a key")
    environment = {**os.environ, "NOCTURNE_HOME": str(tmp_path)}
    command = f"{sys.executable} -m nocturne.cli keys list --json"
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -1; echo ${{PIPESTATUS[0]}}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    first, code = done.stdout.splitlines()
    assert '"name":"key0"' in first
    assert (code, done.stderr) == ("0", "")


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["bogus"], "No such command 'bogus'. See 'nocturne --help'."),
        (["submit"], "Missing argument 'SESSION'. See 'nocturne submit --help'."),
        (["sessions", "--limit", "x"], "See 'nocturne sessions --help'."),
        (["keys", "new", "a", "b"], "See 'nocturne keys new --help'."),
    ],
)
def test_a_command_line_that_cannot_be_read_names_where_help_is(
    shell: Shell, arguments: list[str], sentence: str
) -> None:
    assert shell.run(*arguments) == 2
    assert shell.err.startswith("✗ ")
    assert shell.err.endswith(f"{sentence}\n")


@pytest.mark.parametrize("arguments", [["--help"], ["submit", "-h"], ["import", "git", "--help"]])
def test_help_is_no_failure(
    shell: Shell, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert shell.run(*arguments) == 0
    assert "Usage: nocturne" in capsys.readouterr().out


def test_the_version_is_the_packages(shell: Shell, capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.run("--version") == 0
    assert capsys.readouterr().out.startswith("nocturne ")
