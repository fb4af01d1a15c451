"""The author keys of a home: `<home>/keys/authors/NAME.json`, each file written once.

An author id is the hash of its first key, which is `NAME.json`. Keys it was rotated to stand in
`NAME.rotated/`: `2.json`, `3.json`, …, beside `state.json`, which says which one signs. An old key
is kept: it opens what was encrypted to it, and proves nothing any more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nocturne.cli.author_state import ONE_KEY, AuthorState, read_state, write_state
from nocturne.cli.failures import bad_use
from nocturne.client.building import Author
from nocturne.core.errors import NocturneError
from nocturne.core.identifiers import AuthorId
from nocturne.core.keys import Key, Signer, key_id
from nocturne.embedded.home import Home
from nocturne.runtime.files import sync_folder
from nocturne.runtime.keys import create_key_file, load_signer, public_file

DEFAULT: Final = "default"
"""The key that signs when none is named; made on first use."""

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}\Z")
_SUFFIX: Final = ".json"
_ROTATED: Final = ".rotated"
_STATE: Final = "state.json"
_UNFINISHED: Final = "unfinished"


@dataclass(frozen=True, slots=True)
class AuthorKey:
    """A name, its keys from the first to the one that signs, and their files; `author` is None and
    `problem` says why when they are not usable.
    """

    name: str
    file: Path
    author: AuthorId | None
    keys: tuple[Key, ...] = ()
    files: tuple[Path, ...] = ()
    state: AuthorState = ONE_KEY
    problem: str = ""


def create(home: Home, name: str) -> AuthorKey:
    """A new key under `name`; refuses a name that is taken."""
    file = _file(home, name)
    if file.exists():
        raise bad_use(
            f"There is a key {name} already, and keys are never written over: choose another name, "
            "or 'nocturne keys list' to see them."
        )
    _make_folder(home)
    signer = create_key_file(file)
    return AuthorKey(name, file, Author.of(signer).id, (signer.key,), (file,))


def load(home: Home, name: str) -> Author:
    """The author under `name`, with the key that signs now."""
    file = _existing(home, name)
    first = load_signer(file)
    current = read_state(_state_file(home, name)).current
    signer = first if current == 1 else load_signer(_numbered(home, name, current))
    return Author(AuthorId(key_id(first.key)), signer)


def load_default(home: Home) -> tuple[Author, AuthorKey | None]:
    """The author `default`, and what was made if it was made just now."""
    if _file(home, DEFAULT).exists():
        return load(home, DEFAULT), None
    made = create(home, DEFAULT)
    return load(home, DEFAULT), made


def every(home: Home) -> list[AuthorKey]:
    """All authors of the home, by name."""
    folder = _folder(home)
    if not folder.is_dir():
        return []
    names = [file.name.removesuffix(_SUFFIX) for file in sorted(folder.glob(f"*{_SUFFIX}"))]
    return [_described(home, name) for name in names if _NAME.match(name) is not None]


# Rotation --------------------------------------------------------------------------------------


def state_of(home: Home, name: str) -> AuthorState:
    """Which key of `name` signs, and what is on its way."""
    _existing(home, name)
    return read_state(_state_file(home, name))


def keep_state(home: Home, name: str, state: AuthorState) -> None:
    """On the disk when this returns."""
    rotation_folder(home, name)
    write_state(_state_file(home, name), state)


def rotation_folder(home: Home, name: str) -> Path:
    """The folder of the later keys, made if it is not there."""
    folder = _rotated(home, name)
    folder.mkdir(mode=0o700, exist_ok=True)
    sync_folder(folder.parent)
    return folder


def next_key(home: Home, name: str, state: AuthorState) -> Signer:
    """The key after the current one: on the disk, whole, before anybody is told of it. One that an
    earlier run left there is taken again.
    """
    file = _numbered(home, name, state.current + 1)
    if not file.exists():
        rotation_folder(home, name)
        unfinished = file.with_name(_UNFINISHED)
        # Of a run that ended while it wrote: nobody was told of that key.
        unfinished.unlink(missing_ok=True)
        public_file(unfinished).unlink(missing_ok=True)
        create_key_file(unfinished)
        public_file(unfinished).replace(public_file(file))
        unfinished.replace(file)
        sync_folder(file.parent)
    return load_signer(file)


def waiting_key(home: Home, name: str, state: AuthorState) -> Signer | None:
    """The key after the current one, None if no run has made it."""
    file = _numbered(home, name, state.current + 1)
    return load_signer(file) if file.exists() else None


# -----------------------------------------------------------------------------------------------


def _described(home: Home, name: str) -> AuthorKey:
    file = _file(home, name)
    try:
        state = read_state(_state_file(home, name))
        files = (file, *(_numbered(home, name, at) for at in range(2, state.current + 1)))
        keys = tuple(load_signer(one).key for one in files)
    except NocturneError as fault:
        return AuthorKey(name, file, None, problem=str(fault))
    return AuthorKey(name, files[-1], AuthorId(key_id(keys[0])), keys, files, state)


def _existing(home: Home, name: str) -> Path:
    file = _file(home, name)
    if not file.exists():
        raise bad_use(
            f"There is no key {name} in {file.parent}: make it with 'nocturne keys new {name}', or "
            "choose one of 'nocturne keys list'."
        )
    return file


def _folder(home: Home) -> Path:
    return home.keys("authors")


def _file(home: Home, name: str) -> Path:
    if _NAME.match(name) is None:
        raise bad_use(
            f"{name[:140]!r} is no name for a key: use 1 to 64 letters, digits, dots, hyphens and "
            "underscores, and begin with a letter or digit."
        )
    return _folder(home) / f"{name}{_SUFFIX}"


def _rotated(home: Home, name: str) -> Path:
    return _folder(home) / f"{name}{_ROTATED}"


def _numbered(home: Home, name: str, number: int) -> Path:
    return _rotated(home, name) / f"{number}{_SUFFIX}"


def _state_file(home: Home, name: str) -> Path:
    return _rotated(home, name) / _STATE


def _make_folder(home: Home) -> None:
    folder = _folder(home)
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for closed in (folder.parent, folder):
            closed.chmod(0o700)
    except OSError as fault:
        raise bad_use(
            f"Keys cannot be kept in {folder} ({fault.strerror}): choose another home with --home."
        ) from fault
