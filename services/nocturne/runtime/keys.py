"""Private keys in files: JSON `{"suite":"ed25519","seed":"<64 hex digits>"}`, mode 0600.

The public part stands beside it in `<file>.pub`, readable, in its printed form.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Final

from nocturne.core.errors import Malformed, NocturneError
from nocturne.core.json_fields import Fields
from nocturne.core.keys import ED25519, SUITE_NAMES, Ed25519Signer, Signer, format_key
from nocturne.core.strict_json import parse_json
from nocturne.runtime.files import sync_folder

SEED_BYTES: Final = 32
KEY_FILE_BYTES_MAX: Final = 4096
KEY_FILE_DEPTH_MAX: Final = 1


class KeyFileFault(NocturneError):  # noqa: N818
    """A key file cannot be used; the message says what to do."""


def create_key_file(path: Path) -> Signer:
    """Make a new key and write it. A file that is there is never written over."""
    seed = os.urandom(SEED_BYTES)
    signer = Ed25519Signer(seed)
    _write_new(path, _print(seed), 0o600)
    _write_new(public_file(path), format_key(signer.key[0]) + "\n", 0o644)
    sync_folder(path.parent)
    return signer


def load_signer(path: Path) -> Signer:
    """The key in `path`. Refuses a file that anyone but its owner can read."""
    return Ed25519Signer(_read_seed(path))


def _read_seed(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            data = file.read(KEY_FILE_BYTES_MAX + 1)
    except OSError as fault:
        raise KeyFileFault(f"key file {path}: cannot be read ({fault.strerror})") from fault
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise KeyFileFault(
            f"key file {path}: expected mode 0600, got {stat.S_IMODE(status.st_mode):04o}: "
            "others could have read it"
        )
    return _parse(path, data)


def load_seed(path: Path) -> bytes:
    """The seed in `path`, for what a signer cannot do: open what was encrypted to its key."""
    return _read_seed(path)


def public_file(path: Path) -> Path:
    """Where the public part of the key in `path` stands."""
    return path.with_name(path.name + ".pub")


def _print(seed: bytes) -> str:
    return json.dumps({"suite": SUITE_NAMES[ED25519], "seed": seed.hex()}) + "\n"


def _parse(path: Path, data: bytes) -> bytes:
    try:
        record = Fields.of(parse_json(data, KEY_FILE_BYTES_MAX, KEY_FILE_DEPTH_MAX), "key file")
        seed = bytes.fromhex(record.text("seed"))
    except (Malformed, ValueError):
        # Without its cause, which may show a part of the seed.
        raise KeyFileFault(f"key file {path}: not a key file") from None
    if _print(seed).encode() != data or len(seed) != SEED_BYTES:
        raise KeyFileFault(f"key file {path}: not a key file of suite ed25519 with one seed")
    return seed


def _write_new(path: Path, text: str, mode: int) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            os.fchmod(file.fileno(), mode)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as fault:
        raise KeyFileFault(f"key file {path}: is there already, and is not written over") from fault
    except OSError as fault:
        raise KeyFileFault(f"key file {path}: cannot be written ({fault.strerror})") from fault
