"""The subject keys of a home: `<home>/keys/subjects`, made on first use, in no service's hands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nocturne.cli.failures import bad_use
from nocturne.cli.surroundings import Surroundings
from nocturne.client.sealing import SUBJECT_RANDOM_BYTES, SubjectKey, make_subject_key
from nocturne.client.subject_store import SubjectKeyFault, SubjectStore
from nocturne.embedded.home import Home


def store_of(home: Home) -> SubjectStore:
    """Where a home keeps them."""
    return SubjectStore(home.keys("subjects"))


def looked_into(around: Surroundings, home: Home) -> SubjectStore:
    """The store, for reading with: files that cannot be used are named, and passed over."""
    store = store_of(home)
    store.every()
    for problem in store.problems:
        around.say(f"{problem}.")
    return store


def keep(home: Home, subject: str, key: SubjectKey) -> SubjectKey:
    """Add a key to the home's, in `keys/`, which is closed to others as a whole."""
    store = store_of(home)
    store.file(subject)
    keys = home.keys("subjects").parent
    try:
        keys.mkdir(parents=True, exist_ok=True, mode=0o700)
        keys.chmod(0o700)
    except OSError as fault:
        raise SubjectKeyFault(
            f"Subject keys cannot be kept in {keys} ({fault.strerror}): choose another home with "
            "--home"
        ) from fault
    return store.add(subject, key)


def key_for(around: Surroundings, home: Path | None, subject: str) -> SubjectKey:
    """The key of a subject, made and kept on first use."""
    store = store_of(around.home(home))
    with as_bad_use():
        found = store.named(subject)
        if found is None:
            made = make_subject_key(around.random(SUBJECT_RANDOM_BYTES))
            found = keep(around.home(home), subject, made)
            around.say(
                f"Made the key of {subject} in {store.file(subject)}: who has it can read what it "
                "seals, and without it nobody can."
            )
    return found


@contextmanager
def as_bad_use() -> Iterator[None]:
    """What cannot be kept is for the person to change."""
    try:
        yield
    except SubjectKeyFault as fault:
        raise bad_use(f"{fault}.") from fault
