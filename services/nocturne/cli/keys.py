"""keys: make and list the author keys of a home."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from rich.text import Text

from nocturne.cli import authors, surroundings
from nocturne.cli.authors import AuthorKey
from nocturne.cli.options import HomeOption, JsonOption
from nocturne.cli.screen import Cell, Column, table
from nocturne.core.identifiers import format_hash
from nocturne.core.strict_json import JsonValue

keys = typer.Typer(help="Make and list author keys.", no_args_is_help=True)

_KEYS: Final = (Column("name", "bold"), Column("author"), Column("file", "dim"))


@keys.command("new")
def keys_new(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Make a key under NAME; one that is there is never written over."""
    around = surroundings.of(context)
    made = authors.create(around.home(home), name)
    if as_json:
        around.emit(_key_json(made))
    else:
        assert made.author is not None
        around.out.print(
            Text.assemble(("✓ ", "green"), (made.name, "bold"), f"  {format_hash(made.author)}")
        )
        around.say(f"Kept in {made.file}, for nobody else to read: back it up.")


@keys.command("list")
def keys_list(context: typer.Context, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """List the keys of the home."""
    around = surroundings.of(context)
    found = authors.every(around.home(home))
    if as_json:
        for key in found:
            around.emit(_key_json(key))
    elif found:
        around.out.print(table(_KEYS, map(_key_row, found)))
    else:
        around.say("No key yet: 'nocturne keys new NAME' makes one, and so does the first submit.")


def _key_json(key: AuthorKey) -> JsonValue:
    return {
        "name": key.name,
        "author": None if key.author is None else format_hash(key.author),
        "file": str(key.file),
        "problem": key.problem or None,
    }


def _key_row(key: AuthorKey) -> list[str | Cell]:
    author = Cell(key.problem, "red") if key.author is None else Cell(format_hash(key.author))
    return [key.name, author, str(key.file)]
