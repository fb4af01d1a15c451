"""A git history as drafts: what `git log` printed, read strictly, one draft a commit. Pure.

Rules: docs/guides/cli.md, import git. Commits come parents first. A commit that the session holds
is skipped; a commit that the session holds and the branch no longer does is a rewritten history,
and refused. `nocturne.imports.git_log` runs git.

The payload of one commit (RFC 8785 JSON):
{"author":{"email":"ada@example.org","name":"Ada"},"authoredAt":"2026-11-21T08:59:00+01:00",
 "body":"Why.","commit":"1c9e…","committedAt":"2026-11-21T09:00:00+01:00",
 "committer":{"email":"ada@example.org","name":"Ada"},
 "files":{"added":1,"changed":2,"deleted":0},"parents":["50ae…"],"subject":"What.","truncated":[]}
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from nocturne.core.encoding import TIME_MAX, sha256
from nocturne.core.errors import Malformed, NocturneError
from nocturne.core.identifiers import SessionId, is_session_id
from nocturne.core.strict_json import JsonValue, canonical_json, parse_json
from nocturne.imports.drafts import Draft

EVENT_TYPE: Final = "CommitRecorded"
CONTENT_TYPE: Final = "application/json"
KIND: Final = "facts"

FIELDS: Final = ("H", "P", "an", "ae", "at", "aI", "cn", "ce", "cI", "s", "b")
"""The fields of one commit in git's pretty format; each is ended by a NUL."""
LOG_FORMAT: Final = "tformat:" + "%x00".join(f"%{field}" for field in FIELDS)

TOKEN_BYTES_MAX: Final = 64 * 1024 * 1024
"""One message or path. Git has no bound of its own; more is no history that people wrote."""
PAYLOAD_BYTES_MAX: Final = 64 * 1024
"""Longer messages are cut and say so: a history's use is in its facts, not in pasted logs."""
NAME_BYTES_MAX: Final = 512
SUBJECT_BYTES_MAX: Final = 1024
_DATE_BYTES_MAX: Final = 64
_READ_BACK_DEPTH_MAX: Final = 8

_COMMIT: Final = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?\Z")
_STATUS: Final = re.compile(rb":\d{6} \d{6} [0-9a-f]+ [0-9a-f]+ ([A-Z])\d*\Z")
_NOT_IN_A_SESSION_ID: Final = re.compile(r"[^A-Za-z0-9._:/@-]+")
_SESSION_ID_CHARACTERS_MAX: Final = 128
_COUNTED_AS: Final = {b"A": "added", b"D": "deleted"}


class HistoryRewritten(NocturneError):  # noqa: N818
    """The session holds commits that the branch no longer has: says which is the first."""


@dataclass(frozen=True, slots=True)
class Person:
    """As git has it: nothing proves that they are who they say."""

    name: str
    email: str


@dataclass(frozen=True, slots=True)
class Files:
    """How many files a commit added, changed and deleted, against its first parent."""

    added: int
    changed: int
    deleted: int


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit. Dates are git's strict ISO 8601; `authored_seconds` is since 1970 UTC."""

    commit: str
    parents: tuple[str, ...]
    author: Person
    authored_seconds: int
    authored_at: str
    committer: Person
    committed_at: str
    subject: str
    body: str
    files: Files


# Reading what git printed ---------------------------------------------------------------------


def parse_log(chunks: Iterable[bytes]) -> Iterator[Commit]:
    """The commits of `git log -z --raw --format=LOG_FORMAT`, whatever the chunks' borders.

    `Malformed` at the first thing that such a log does not hold. Text that is not UTF-8 is read
    with U+FFFD in the place of what is not: the commit's hash still names the exact bytes.
    """
    tokens = _tokens(chunks)
    first = next(tokens, None)
    while first is not None:
        fields = [first, *(_required(tokens, name) for name in FIELDS[1:])]
        files, first = _files(tokens)
        yield _commit(fields, files)


def _tokens(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """What stands between NULs; the last NUL ends the log."""
    pending: list[bytes] = []
    size = 0
    for chunk in chunks:
        head, *rest = chunk.split(b"\0")
        pending.append(head)
        size += len(head)
        if size > TOKEN_BYTES_MAX:
            raise Malformed(f"git log: expected fields of at most {TOKEN_BYTES_MAX} bytes")
        if rest:
            yield b"".join(pending)
            yield from rest[:-1]
            pending = [rest[-1]]
            size = len(rest[-1])
    if size:
        raise Malformed("git log: expected a NUL at the end, got a cut field")


def _required(tokens: Iterator[bytes], name: str) -> bytes:
    token = next(tokens, None)
    if token is None:
        raise Malformed(f"git log: expected the field %{name}, got the end")
    return token


def _files(tokens: Iterator[bytes]) -> tuple[Files, bytes | None]:
    """The counts of a commit's files, and the token after them: the next commit's first, or None.

    A status begins with a colon, which no commit hash does; a path may hold anything but NUL.
    """
    counts = {"added": 0, "changed": 0, "deleted": 0}
    for token in tokens:
        status = token.removeprefix(b"\n")
        if not status.startswith(b":"):
            return Files(**counts), token
        found = _STATUS.match(status)
        if found is None:
            raise Malformed(f"git log: expected a file's status, got {status[:80]!r}")
        _required(tokens, "path")
        counts[_COUNTED_AS.get(found[1], "changed")] += 1
    return Files(**counts), None


def _commit(fields: Sequence[bytes], files: Files) -> Commit:
    texts = [field.decode("utf-8", "replace") for field in fields]
    commit, parents, name, email, seconds, authored, c_name, c_email, committed, subject, body = (
        texts
    )
    for one in (commit, *parents.split()):
        if _COMMIT.match(one) is None:
            raise Malformed(f"git log: expected a commit's hash, got {one[:80]!r}")
    return Commit(
        commit,
        tuple(parents.split()),
        Person(name, email),
        int(seconds) if re.fullmatch(r"-?\d{1,18}", seconds, re.ASCII) else 0,
        authored,
        Person(c_name, c_email),
        committed,
        subject,
        body.removesuffix("\n"),
        files,
    )


# From commits to drafts -----------------------------------------------------------------------


def drafts(history: Iterable[Commit], imported: Collection[str], bytes_max: int) -> Iterator[Draft]:
    """A draft for each commit of `history` (parents first) that `imported` does not hold.

    `bytes_max` is the ledger's bound of a payload, in bytes. `Malformed` for a commit whose
    parents alone do not fit.
    """
    number = len(imported)
    for commit in history:
        if commit.commit not in imported:
            number += 1
            yield draft_of(commit, number, bytes_max)


def draft_of(commit: Commit, number: int, bytes_max: int) -> Draft:
    """The draft of one commit at `number`; occurredAt is the author's date, cut to its range."""
    return Draft(
        number,
        bytes.fromhex(commit.commit),
        EVENT_TYPE,
        CONTENT_TYPE,
        payload_of(commit, min(bytes_max, PAYLOAD_BYTES_MAX)),
        min(max(commit.authored_seconds * 1000, 0), TIME_MAX),
    )


def payload_of(commit: Commit, bytes_max: int) -> bytes:
    """The commit as canonical JSON within `bytes_max`; `truncated` names the fields cut, sorted."""
    fields = {
        "author.email": (commit.author.email, NAME_BYTES_MAX),
        "author.name": (commit.author.name, NAME_BYTES_MAX),
        "committer.email": (commit.committer.email, NAME_BYTES_MAX),
        "committer.name": (commit.committer.name, NAME_BYTES_MAX),
        "subject": (commit.subject, SUBJECT_BYTES_MAX),
    }
    cut = {name: _cut(text, room) for name, (text, room) in fields.items()}
    truncated = sorted(name for name, (text, _) in fields.items() if cut[name] != text)
    whole = _payload(commit, cut, commit.body, truncated)
    if len(whole) <= bytes_max:
        return whole
    truncated = sorted([*truncated, "body"])
    room = bytes_max - len(_payload(commit, cut, "", truncated))
    if room < 0:
        raise Malformed(
            f"commit {commit.commit}: with {len(commit.parents)} parents it does not fit into "
            f"{bytes_max} bytes, the most this ledger takes"
        )
    return _payload(commit, cut, _cut(commit.body, room), truncated)


def _payload(commit: Commit, cut: dict[str, str], body: str, truncated: list[str]) -> bytes:
    return canonical_json(
        {
            "author": {"email": cut["author.email"], "name": cut["author.name"]},
            "authoredAt": commit.authored_at[:_DATE_BYTES_MAX],
            "body": body,
            "commit": commit.commit,
            "committedAt": commit.committed_at[:_DATE_BYTES_MAX],
            "committer": {"email": cut["committer.email"], "name": cut["committer.name"]},
            "files": {
                "added": commit.files.added,
                "changed": commit.files.changed,
                "deleted": commit.files.deleted,
            },
            "parents": list(commit.parents),
            "subject": cut["subject"],
            "truncated": list[JsonValue](truncated),
        }
    )


def _cut(text: str, room: int) -> str:
    """The longest beginning of `text` whose JSON, without quotes, takes at most `room` bytes."""
    if 6 * len(text) <= room:
        return text
    used = 0
    for count, character in enumerate(text):
        used += len(json.dumps(character, ensure_ascii=False).encode("utf-8")) - 2
        if used > room:
            return text[:count]
    return text


# What a session already holds -----------------------------------------------------------------


def commit_in(event_type: str, payload: bytes) -> str:
    """The commit that an imported event is about; `Malformed` if it is about none."""
    if event_type != EVENT_TYPE:
        raise Malformed(f"event type: expected {EVENT_TYPE}, got {event_type}")
    match parse_json(payload, PAYLOAD_BYTES_MAX, _READ_BACK_DEPTH_MAX):
        case {"commit": str(commit)} if _COMMIT.match(commit):
            return commit
    raise Malformed("payload: expected the hash of a commit")


def check_extends(imported: Sequence[str], branch: Collection[str], session: str) -> None:
    """Every commit of the session is in the branch; else `HistoryRewritten` names the first."""
    for sequence, commit in enumerate(imported, start=1):
        if commit not in branch:
            raise HistoryRewritten(
                f"The history was rewritten: event {sequence} of {session} is commit "
                f"{commit[:12]}, which the branch no longer has. Nothing was imported; give the "
                "new history a session of its own with --session."
            )


def session_of(repository: str, branch: str) -> SessionId:
    """`git/<repository>/<branch>`, with what a session id may not hold made plain.

    Two names that become one by that are told apart by eight digits of their hash.
    """
    plain = f"git/{repository}/{branch}"
    named = _NOT_IN_A_SESSION_ID.sub("-", plain)
    if named != plain or len(named) > _SESSION_ID_CHARACTERS_MAX:
        digits = sha256(plain.encode("utf-8", "surrogateescape")).hex()[:8]
        named = f"{named[: _SESSION_ID_CHARACTERS_MAX - 9]}-{digits}"
    assert is_session_id(named), named
    return SessionId(named)
