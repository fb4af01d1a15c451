"""Which of an author's keys signs: a file of its own, once there is more than the first key.

`{"current":2,"next":null,"revoked":false}`: the second key signs. While a rotation is on its way,
`next` is the command that asks for it, `{"commandId":"…"}`: run again, the same command is asked
again. Replaced as a whole, so that a crash leaves the old one or the new one.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nocturne.core.errors import Malformed
from nocturne.core.identifiers import CommandId, format_id, parse_id
from nocturne.core.strict_json import JsonValue, canonical_json, parse_json
from nocturne.runtime.files import sync_folder
from nocturne.runtime.keys import KeyFileFault

STATE_BYTES_MAX: Final = 1024
ROTATIONS_MAX: Final = 10_000
"""A key a day for 27 years: a number above it is a broken file."""


@dataclass(frozen=True, slots=True)
class AuthorState:
    """`current` counts keys from 1; `pending` is the command that asks for the one after it."""

    current: int = 1
    pending: CommandId | None = None
    revoked: bool = False


ONE_KEY: Final = AuthorState()
"""Of an author that never rotated its key."""


def print_state(state: AuthorState) -> bytes:
    """The file's bytes."""
    pending: JsonValue = None
    if state.pending is not None:
        pending = {"commandId": format_id(state.pending)}
    return canonical_json({"current": state.current, "next": pending, "revoked": state.revoked})


def parse_state(data: bytes) -> AuthorState:
    """The reverse of `print_state`; `Malformed` on anything it would not write."""
    match parse_json(data, STATE_BYTES_MAX, 2):
        case {"current": int(current), "next": following, "revoked": bool(revoked)}:
            pending = None
            if isinstance(following, dict):
                pending = CommandId(parse_id(str(following.get("commandId"))))
            state = AuthorState(current, pending, revoked)
        case _:
            raise Malformed("author state: expected current, next and revoked")
    counted = type(state.current) is int and 1 <= state.current <= ROTATIONS_MAX
    if not counted or print_state(state) != data:
        raise Malformed("author state: it is not as it was written")
    return state


def read_state(file: Path) -> AuthorState:
    """The state in `file`; that of an author with one key when there is none."""
    try:
        with file.open("rb") as opened:
            data = opened.read(STATE_BYTES_MAX + 1)
    except FileNotFoundError:
        return ONE_KEY
    try:
        return parse_state(data)
    except Malformed as fault:
        raise KeyFileFault(
            f"{file}: {fault}: restore it from a backup; it says which key signs"
        ) from fault


def write_state(file: Path, state: AuthorState) -> None:
    """Replace the file as a whole; on the disk when this returns."""
    fresh = file.with_name(f"{file.name}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(print_state(state))
        opened.flush()
        os.fsync(opened.fileno())
    fresh.replace(file)
    sync_folder(file.parent)
