"""Hostile command lines in one process: an exit code, a sentence, no traceback, little memory."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from typing import Final

import psutil
import pytest
from tests.hostile.inputs import hostile_bytes, hostile_json, hostile_text
from tests.hostile.samples import EXAMPLE
from tests.hostile.test_parsers import GROWTH_BYTES_MAX, INPUTS, SEED
from tests.unit.cli.memory_ledger import Shell

LINES: Final = INPUTS // 5
"""A command line takes milliseconds."""
HOSTILE_FILE: Final = "hostile"
COMMANDS: Final = (
    ("submit", "a/1", "T", "{payload}"),
    ("submit", "{text}", "{text}", "{payload}"),
    ("submit", "a/1", "T", "@hostile"),
    ("submit", "a/1", "T", "-"),
    ("submit", "a/1", "T", "{}", "--expect", "{text}"),
    ("submit", "a/1", "T", "{}", "--deadline", "{text}"),
    ("submit", "a/1", "T", "{}", "--id", "{text}"),
    ("submit", "a/1", "T", "{}", "--as", "{text}"),
    ("submit", "a/1", "T", "{}", "--kind", "{text}"),
    ("submit", "a/1", "T", "{}", "--wait", "{text}"),
    ("events", "{text}"),
    ("events", "a/1", "--from", "{text}"),
    ("state", "a/1", "--at", "{text}"),
    ("receipts", "{text}"),
    ("sessions", "--limit", "{text}"),
    ("export", "{text}", "out"),
    ("verify", "hostile"),
    ("verify", "good", "--trust", "{text}"),
    ("verify", "good", "--trust", "hostile"),
    ("keys", "new", "{text}"),
    ("{text}", "{text}"),
)


@pytest.mark.timeout(300)
def test_any_hostile_command_line_ends_with_a_code_and_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A name with a slash would be written to: every path but absolute ones stays below this folder.
    folder = tmp_path / "1/2/3/4/5/6/7/8"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    export = b"".join(EXAMPLE.export("orders/1"))
    Path("good").write_bytes(export)
    shell = Shell(tmp_path / "home")
    before = 0
    for number in range(LINES):
        if number == LINES // 10:
            before = psutil.Process().memory_info().rss
        dice = Random(f"{SEED}/line/{number}")
        # The ledger in memory keeps what is submitted: a new one, so that growth is the parsers'.
        if number % 100 == 0:
            shell = Shell(tmp_path / f"home{number}")
        typed = [_filled(dice, one) for one in dice.choice(COMMANDS)]
        Path(HOSTILE_FILE).write_bytes(hostile_bytes(dice, [export, EXAMPLE.genesis_bytes]))
        shell.stdin = hostile_bytes(dice)
        code = shell.run(*typed)
        shown = f"seed {SEED}, line {number}: {typed!r}"
        assert code in (0, 1, 2, 3), shown
        said = shell.out + shell.err
        assert "This is a bug in nocturne" not in said, f"{shown}: {shell.err}"
        assert "Traceback" not in said, shown
        assert "\x1b" not in said, shown
        assert code == 0 or shell.err or shell.out, shown
    grown = psutil.Process().memory_info().rss - before
    assert grown < GROWTH_BYTES_MAX, f"seed {SEED}: grew by {grown}"


def _filled(dice: Random, argument: str) -> str:
    match argument:
        case "{text}":
            return _typed(hostile_text(dice, ["a/1", "default", "1", "T", "signed", "facts"]))
        case "{payload}":
            return _typed(hostile_json(dice).decode("utf-8", "surrogateescape"))
        case _:
            return argument


def _typed(text: str) -> str:
    """What a shell can pass: no NUL, bytes that are not UTF-8 as surrogates, no absolute path."""
    data = text.replace("\0", "").encode("utf-8", "surrogatepass")
    return os.fsdecode(data).lstrip("/~")[:4096]
