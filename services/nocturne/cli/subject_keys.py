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


def key_for(around: Surroundings, home: Path | None, subject: str) -> SubjectKey:
    """The key of a subject, made and kept on first use."""
    store = store_of(around.home(home))
    with as_bad_use():
        found = store.named(subject)
        if found is None:
            found = store.add(subject, make_subject_key(around.random(SUBJECT_RANDOM_BYTES)))
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
