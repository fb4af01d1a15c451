"""Make a deployment's passwords and hand each to who needs it: `python -m nocturne.deploy.secrets`.

    kafka-command:10001=command,topics   the secret kafka-command: one random line, the same in each
                                         of these folders of HOME_DIR, readable by user 10001 alone
    own:10001=genesis,keys/signing       these folders become user 10001's

For engines that hand secrets over as volumes: each process mounts the one folder that has its own.
What was made is kept in SECRETS_DIR, which nothing else mounts; a secret that is there is never
changed, one that is missing in a folder is put there again. To change one, remove it from
SECRETS_DIR and run this again: a folder whose copy differs gets the new one.

Needs to give files away only where it runs as root (CAP_CHOWN and nothing else); run by anybody
else, everything belongs to that user. Exit codes: 0 done, 1 it could not be done, 2 settings.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nocturne.core.errors import NocturneError
from nocturne.deploy import jobs
from nocturne.runtime.files import sync_folder
from nocturne.runtime.home import held_alone
from nocturne.runtime.settings import ProcessSettings, read_settings

SECRET_BYTES: Final = 32
"""Random bytes of a secret: 43 characters of base64."""
SECRET_FILE_BYTES_MAX: Final = 4096
REQUEST_BYTES_MAX: Final = 4096
OWN: Final = "own"

_NAME: Final = r"[a-z0-9][a-z0-9_-]{0,63}"
_REQUEST: Final = re.compile(rf"({_NAME}):([0-9]{{1,5}})=({_NAME}(?:[/,]{_NAME})*)\Z")


class SecretsFault(NocturneError):  # noqa: N818
    """A secret cannot be made or handed over; the message says which, and never what it is."""


@dataclass(frozen=True, slots=True)
class Request:
    """One argument: the secret `name` for user `uid`, in each of these folders. `name` is `own`
    for the folders themselves.
    """

    name: str
    uid: int
    places: tuple[str, ...]


class Settings(ProcessSettings):
    """What the job reads from the environment."""

    home_dir: Path
    """The folder that has the places."""
    secrets_dir: Path
    """Where what was made is kept."""


def parse_request(text: str) -> Request:
    """An argument as the head of this file shows it; `SecretsFault` for anything else."""
    if len(os.fsencode(text)) > REQUEST_BYTES_MAX:
        raise SecretsFault(f"request: expected at most {REQUEST_BYTES_MAX} bytes")
    found = _REQUEST.match(text)
    if found is None or int(found[2]) > 65535:
        raise SecretsFault(f"expected <secret>:<uid>=<folder>,… or own:…, got {text[:80]!r}")
    return Request(found[1], int(found[2]), tuple(found[3].split(",")))


def hand_over(requests: Sequence[Request], home: Path, kept: Path) -> None:
    """Do all that was asked for. `SecretsFault` when a folder is not there: a folder made here
    would be nobody's mount, and gone with the container.
    """
    for request in requests:
        for place in request.places:
            folder = home / place
            if not folder.is_dir():
                raise SecretsFault(f"{request.name}: there is no folder {folder}")
            if request.name == OWN:
                _give(folder, request.uid)
            else:
                _put(folder / request.name, _secret(kept / request.name), request.uid)


def _secret(path: Path) -> bytes:
    """The secret as it is kept, made now if there is none."""
    if not path.exists():
        _write(path, secrets.token_urlsafe(SECRET_BYTES).encode(), None)
    with path.open("rb") as file:
        data = file.read(SECRET_FILE_BYTES_MAX + 1)
    if not data or len(data) > SECRET_FILE_BYTES_MAX:
        raise SecretsFault(f"{path}: expected 1 to {SECRET_FILE_BYTES_MAX} bytes")
    return data


def _put(path: Path, data: bytes, uid: int) -> None:
    """Without end of line: some programs take a file's bytes as they are."""
    try:
        if path.read_bytes() == data:
            return
    except FileNotFoundError:
        pass
    except PermissionError:
        # Root without any capability but to give away cannot read what it gave away. It holds
        # what it keeps and writes that again: the same bytes, unless they were changed there.
        pass
    _write(path, data, uid)


def _write(path: Path, data: bytes, uid: int | None) -> None:
    """A whole file or none, readable by its owner alone."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    if uid is not None:
        _give(fresh, uid)
    fresh.replace(path)
    # On the disk before the next one has it: whoever was initialized with it asks for it for ever.
    sync_folder(path.parent)


def _give(path: Path, uid: int) -> None:
    if os.geteuid() == 0 and (path.stat().st_uid, path.stat().st_gid) != (uid, uid):
        os.chown(path, uid, uid)


def _run(arguments: Sequence[str]) -> str:
    settings = read_settings(Settings)
    requests = [parse_request(one) for one in arguments]
    # Two at once would hand over two secrets of one name, of which one is kept.
    with held_alone(settings.secrets_dir):
        hand_over(requests, settings.home_dir, settings.secrets_dir)
    names = {request.name for request in requests} - {OWN}
    return f"{len(names)} secrets are where they are needed"


def main() -> int:
    """Run the job with the settings of the environment; its exit code."""
    arguments = sys.argv[1:]
    return jobs.run("secrets", {"": lambda: _run(arguments)}, ())


if __name__ == "__main__":
    sys.exit(main())
