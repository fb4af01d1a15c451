"""The demonstration's command line is read in one way, wherever the ledger runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nocturne.embedded.demo.options import COMMANDS, SEED, Options, read_options
from nocturne.embedded.demo.scenario import COMMANDS_MIN

USUAL = Path("report.html")


def read(
    monkeypatch: pytest.MonkeyPatch, *given: str, report: Path | None = USUAL, keep: bool = False
) -> Options:
    monkeypatch.setattr(sys, "argv", ["demo", *given])
    return read_options("demo", "Show.", report=report, keep=keep)


def test_what_is_not_said_is_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch) == Options(COMMANDS, SEED, USUAL, keep=False)
    assert read(monkeypatch, keep=True).keep


def test_what_is_said_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    said = ("--commands", str(COMMANDS_MIN), "--seed", "7", "--report", "a")
    assert read(monkeypatch, *said) == Options(COMMANDS_MIN, 7, Path("a"), keep=False)


@pytest.mark.parametrize(
    "given, report, message",
    [
        ((), None, "--report"),
        (("--commands", str(COMMANDS_MIN - 1)), USUAL, f"expected at least {COMMANDS_MIN}, got"),
        (("--commands", "many"), USUAL, "invalid int value"),
    ],
)
def test_a_command_line_that_is_wrong_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    given: tuple[str, ...],
    report: Path | None,
    message: str,
) -> None:
    with pytest.raises(SystemExit) as ended:
        read(monkeypatch, *given, report=report)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
