"""keys: make, list, rotate and revoke the author keys of a home."""

from __future__ import annotations

from typing import Annotated, Final

import typer
from rich.text import Text

from nocturne.cli import authors, rotation, surroundings
from nocturne.cli.asking import ask
from nocturne.cli.authors import AuthorKey
from nocturne.cli.consent import confirm
from nocturne.cli.ledger import Ledger
from nocturne.cli.options import DEADLINE_SECONDS, DeadlineOption, HomeOption, JsonOption
from nocturne.cli.rotation import Rotated
from nocturne.cli.screen import Cell, Column, table
from nocturne.core.identifiers import format_hash
from nocturne.core.keys import format_key
from nocturne.core.strict_json import JsonValue

keys = typer.Typer(help="Make, list, rotate and revoke author keys.", no_args_is_help=True)

_KEYS: Final = (
    Column("name", "bold"),
    Column("author"),
    Column("key"),
    Column("state"),
    Column("file", "dim"),
)


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


@keys.command("rotate")
def keys_rotate(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
    deadline: DeadlineOption = DEADLINE_SECONDS,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Give the author NAME a new key: the old one signs for it no more. Run again, it finishes."""
    around = surroundings.of(context)
    place = around.home(home)

    async def question(ledger: Ledger) -> Rotated:
        return await rotation.rotate(around, ledger, place, name, deadline)

    done = ask(around, home, question, deadline)
    key = format_key(done.author.signer.key[0])
    if as_json:
        around.emit(
            {
                "name": name,
                "author": format_hash(done.author.id),
                "key": key,
                "before": format_key(done.before[0]),
                "height": done.height,
            }
        )
        return
    around.out.print(Text.assemble(("✓ ", "green"), (name, "bold"), f"  signs with {key}"))
    around.say(
        f"As of block {done.height} the old key signs for nobody. It stays here, for what was "
        "encrypted to it: back up both."
    )


@keys.command("revoke")
def keys_revoke(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
    is_sure: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    deadline: DeadlineOption = DEADLINE_SECONDS,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """End the author NAME: no key signs for it any more. It cannot be undone."""
    around = surroundings.of(context)
    place = around.home(home)
    author = authors.load(place, name)
    confirm(
        around,
        f"No key will ever sign for {name} ({format_hash(author.id)}) again, nor write to its "
        "sessions; what it wrote stays. For a key that only has to change there is 'nocturne keys "
        "rotate'.",
        is_sure,
    )

    async def question(ledger: Ledger) -> int:
        return await rotation.revoke(around, ledger, place, name, deadline)

    height = ask(around, home, question, deadline)
    if as_json:
        around.emit({"name": name, "author": format_hash(author.id), "height": height})
        return
    around.out.print(Text.assemble(("✓ revoked ", "green"), (name, "bold"), f"  block {height}"))


def _key_json(key: AuthorKey) -> JsonValue:
    return {
        "name": key.name,
        "author": None if key.author is None else format_hash(key.author),
        "key": format_key(key.keys[-1][0]) if key.keys else None,
        "state": None if key.author is None else _state_text(key),
        "retired": [format_key(one[0]) for one in key.keys[:-1]],
        "file": str(key.file),
        "problem": key.problem or None,
    }


def _key_row(key: AuthorKey) -> list[str | Cell]:
    if key.author is None:
        return [key.name, Cell(key.problem, "red"), "", "", str(key.file)]
    return [
        key.name,
        format_hash(key.author),
        format_key(key.keys[-1][0]),
        _state_text(key),
        str(key.file),
    ]


def _state_text(key: AuthorKey) -> str:
    """As this home knows it."""
    if key.state.revoked:
        return "revoked"
    return "current" if key.state.pending is None else "rotating"
