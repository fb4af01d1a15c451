"""What goes to the terminal, and how it looks there. Data goes to stdout, all else to stderr.

What comes from a ledger was written by strangers: it is never read as markup, and nothing in it
that would move a cursor, ring a bell or turn a line around reaches the terminal as it is.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from rich.console import Console
from rich.text import Text

from nocturne.core.strict_json import JsonValue

SHORT_HASH_DIGITS: Final = 12
PIPE_WIDTH: Final = 4096
"""Columns where there is no terminal: nothing is cut that another program reads."""

# C0 and C1 controls, zero-width and direction marks, line separators, lone surrogates.
_UNPRINTABLE: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)

Justify = Literal["left", "right"]


def terminal(stream: Literal["stdout", "stderr"]) -> Console:
    """The console of a standard stream: colour and width only if it is a terminal."""
    file = sys.stdout if stream == "stdout" else sys.stderr
    return Console(
        file=file,
        width=None if file.isatty() else PIPE_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=True,
    )


def plain(text: str) -> str:
    """`text` with what a terminal would act on written out: `\\x1b`, `\\u202e`."""
    return _UNPRINTABLE.sub(_written_out, text)


def _written_out(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def json_text(value: JsonValue) -> str:
    """`value` on one line, its text readable, its control characters escaped as JSON has it."""
    printed = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return _escaped(printed)


def _escaped(printed: str) -> str:
    return _UNPRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", printed)


def pretty_json(value: JsonValue) -> str:
    """`value` over many lines, names sorted."""
    printed = json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True)
    return "\n".join(map(_escaped, printed.split("\n")))


def short_hash(value: bytes) -> str:
    """The first digits of a hash; `--json` has all."""
    return value.hex()[:SHORT_HASH_DIGITS]


def bytes_text(count: int) -> str:
    """`1.4 MB`; decimal units."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its heading, and how its cells look."""

    heading: str
    style: str = ""
    justify: Justify = "left"
    width_min: int = 0


@dataclass(frozen=True, slots=True)
class Cell:
    """Text of ours or of a stranger, with a style of ours."""

    text: str
    style: str = ""


def table(columns: Sequence[Column], rows: Iterable[Sequence[str | Cell]]) -> Text:
    """A table of bounded length, its columns as wide as they need to be; a long or live list is
    printed with `heading` and `row`.
    """
    cells = [list(row) for row in rows]
    fitted = [
        replace(column, width_min=max(_width(column.heading), *(_width(row[at]) for row in cells)))
        for at, column in enumerate(columns)
    ]
    return Text("\n").join([heading(fitted), *(_line(fitted, row) for row in cells)])


def heading(columns: Sequence[Column]) -> Text:
    """The line above the rows of a list."""
    return _line(columns, [Cell(column.heading, "dim") for column in columns])


def row(columns: Sequence[Column], cells: Sequence[str | Cell], width: int | None) -> Text:
    """One line of a list that may never end: columns have their least width, the last takes what
    is left of `width`, or all it needs.
    """
    line = _line(columns, cells)
    if width is not None:
        line.truncate(width, overflow="ellipsis")
    return line


def _line(columns: Sequence[Column], cells: Sequence[str | Cell]) -> Text:
    line = Text(no_wrap=True)
    for number, (column, cell) in enumerate(zip(columns, cells, strict=True)):
        text = _text(cell)
        text.style = text.style or column.style
        lacking = column.width_min - text.cell_len
        last = number == len(columns) - 1
        if lacking > 0 and column.justify == "right":
            line.append(" " * lacking)
        line.append_text(text)
        if not last:
            line.append(" " * ((lacking if column.justify == "left" and lacking > 0 else 0) + 2))
    return line


def _width(cell: str | Cell) -> int:
    return _text(cell).cell_len


def _text(cell: str | Cell) -> Text:
    if isinstance(cell, Cell):
        return Text(plain(cell.text), style=cell.style)
    return Text(plain(cell))
