"""The command lines in a Markdown file: fenced blocks marked `console`, lines that begin with `$ `.

A block marked `console exit=1` ends with that exit code, each of its lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_FENCE = re.compile(r"^```(.*)$")
_EXIT = re.compile(r"exit=(\d+)\Z")
PROMPT = "$ "


@dataclass(frozen=True, slots=True)
class CommandLine:
    """One line as a person types it, where it stands, and the exit code it must have."""

    text: str
    number: int
    exit_code: int


def command_lines(markdown: str) -> list[CommandLine]:
    """Every command line, in order. `ValueError` for a block that hides one from this reader."""
    found: list[CommandLine] = []
    block: str | None = None
    for number, line in enumerate(markdown.splitlines(), 1):
        fence = _FENCE.match(line)
        if fence is not None:
            block = fence[1].strip() if block is None else None
        elif block is not None and line.startswith(PROMPT):
            found.append(CommandLine(line.removeprefix(PROMPT), number, _exit_code(block, number)))
        elif block is not None and block.split(" ")[0] in ("sh", "bash", "shell", ""):
            raise ValueError(f"line {number}: commands stand in blocks marked console, after '$ '")
    if block is not None:
        raise ValueError("a fenced block does not end")
    return found


def _exit_code(block: str, number: int) -> int:
    name, _, rest = block.partition(" ")
    if name != "console":
        raise ValueError(f"line {number}: a prompt in a block marked {block!r}")
    found = _EXIT.match(rest)
    if rest and found is None:
        raise ValueError(f"line {number}: console blocks take exit=NUMBER, got {rest!r}")
    return 0 if found is None else int(found[1])
