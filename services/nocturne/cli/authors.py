"""The author keys of a home: `<home>/keys/authors/NAME.json`, each written once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nocturne.cli.failures import bad_use
from nocturne.core.errors import NocturneError
from nocturne.core.identifiers import AuthorId
from nocturne.core.keys import Signer, key_id
from nocturne.embedded.home import Home
from nocturne.runtime.keys import create_key_file, load_signer

DEFAULT: Final = "default"
"""The key that signs when none is named; made on first use."""

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}\Z")
_SUFFIX: Final = ".json"


@dataclass(frozen=True, slots=True)
class AuthorKey:
    """A name and its key; `author` is None and `problem` says why when the file is not usable."""

    name: str
    file: Path
    author: AuthorId | None
    problem: str = ""


def author_of(signer: Signer) -> AuthorId:
    """The author whose first key this is."""
    return AuthorId(key_id(signer.key))


def create(home: Home, name: str) -> AuthorKey:
    """A new key under `name`; refuses a name that is taken."""
    file = _file(home, name)
    if file.exists():
        raise bad_use(
            f"There is a key {name} already, and keys are never written over: choose another name, "
            "or 'nocturne keys list' to see them."
        )
    _make_folder(home)
    return AuthorKey(name, file, author_of(create_key_file(file)))


def load(home: Home, name: str) -> Signer:
    """The key under `name`."""
    file = _file(home, name)
    if not file.exists():
        raise bad_use(
            f"There is no key {name} in {file.parent}: make it with 'nocturne keys new {name}', or "
            "choose one of 'nocturne keys list'."
        )
    return load_signer(file)


def load_default(home: Home) -> tuple[Signer, AuthorKey | None]:
    """The key `default`, and what was made if it was made just now."""
    if _file(home, DEFAULT).exists():
        return load(home, DEFAULT), None
    made = create(home, DEFAULT)
    return load(home, DEFAULT), made


def every(home: Home) -> list[AuthorKey]:
    """All keys of the home, by name."""
    folder = _folder(home)
    if not folder.is_dir():
        return []
    return [_described(file) for file in sorted(folder.glob(f"*{_SUFFIX}"))]


def _described(file: Path) -> AuthorKey:
    name = file.name.removesuffix(_SUFFIX)
    try:
        return AuthorKey(name, file, author_of(load_signer(file)))
    except NocturneError as fault:
        return AuthorKey(name, file, None, str(fault))


def _folder(home: Home) -> Path:
    return home.keys("authors")


def _file(home: Home, name: str) -> Path:
    if _NAME.match(name) is None:
        raise bad_use(
            f"{name[:140]!r} is no name for a key: use 1 to 64 letters, digits, dots, hyphens and "
            "underscores, and begin with a letter or digit."
        )
    return _folder(home) / f"{name}{_SUFFIX}"


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
