"""From `git log` to drafts: strict reading, stated cuts, and no history written over another."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nocturne.core.encoding import TIME_MAX
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import is_session_id
from nocturne.core.strict_json import canonical_json, parse_json
from nocturne.imports import git
from nocturne.imports.git import Commit, Files, HistoryRewritten, Person

HASH = "1c9eb727ce42ca4ae478e19e56f43a3d7a7ca892"
OTHER = "50aea178c68cf7bd87e27c97062b34e724c2a905"
ROOMY = 255 * 1024


def commit(**changed: object) -> Commit:
    """A plain commit with some fields changed."""
    fields: dict[str, object] = {
        "commit": HASH,
        "parents": (OTHER,),
        "author": Person("Ada", "ada@example.org"),
        "authored_seconds": 1_700_000_000,
        "authored_at": "2023-11-14T23:13:20+01:00",
        "committer": Person("Bob", "bob@example.org"),
        "committed_at": "2023-11-15T00:00:00+01:00",
        "subject": "Ship it",
        "body": "Because it is ready.",
        "files": Files(1, 2, 3),
    }
    return Commit(**{**fields, **changed})  # type: ignore[arg-type]


def printed(one: Commit, statuses: str = "") -> bytes:
    """As git log prints it; `statuses` is what --raw adds."""
    fields = [
        one.commit,
        " ".join(one.parents),
        one.author.name,
        one.author.email,
        str(one.authored_seconds),
        one.authored_at,
        one.committer.name,
        one.committer.email,
        one.committed_at,
        one.subject,
        one.body + "\n",
    ]
    raw = "".join(
        f":100644 100644 {HASH} {OTHER} {status}\0path {number}\n:M\0"
        for number, status in enumerate(statuses)
    )
    return ("\0".join(fields) + "\0" + ("\n" if raw else "") + raw).encode()


def test_a_log_is_read_with_its_files_counted() -> None:
    log = printed(commit(), "AMMDDDT") + printed(commit(commit=OTHER, parents=()))
    first, second = git.parse_log([log])
    assert first == commit(files=Files(1, 3, 3))
    assert second == commit(commit=OTHER, parents=(), files=Files(0, 0, 0))


@given(st.lists(st.integers(1, 40), max_size=60))
def test_the_borders_of_chunks_mean_nothing(sizes: list[int]) -> None:
    log = printed(commit(), "AM") + printed(commit(commit=OTHER), "D")
    chunks, at = [], 0
    for size in [*sizes, len(log)]:
        chunks.append(log[at : at + size])
        at += size
    assert list(git.parse_log(chunks)) == list(git.parse_log([log]))


@pytest.mark.parametrize(
    "log",
    [
        b"x",
        b"not a hash\0" * 11,
        printed(commit())[:-1],
        printed(commit())[:60] + b"\0",
        printed(commit(parents=("short",))),
        printed(commit()) + b":100644 bad status\0path\0",
        printed(commit()) + f":100644 100644 {HASH} {OTHER} M\0".encode(),
    ],
)
def test_what_is_no_log_is_refused(log: bytes) -> None:
    with pytest.raises(Malformed, match="git log"):
        list(git.parse_log([log]))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_log_or_malformed(noise: bytes) -> None:
    try:
        list(git.parse_log([noise]))
    except Malformed:
        return


def test_text_that_is_not_utf_8_keeps_the_commit() -> None:
    (read,) = git.parse_log([printed(commit()).replace(b"Ada", b"Ad\xe4")])
    assert read.author.name == "Ad\N{REPLACEMENT CHARACTER}"


def test_a_draft_is_canonical_json_named_and_timed_by_the_commit() -> None:
    draft = git.draft_of(commit(), 7, ROOMY)
    assert (draft.number, draft.source) == (7, bytes.fromhex(HASH))
    assert draft.occurred_at == 1_700_000_000_000
    assert json.loads(draft.payload) == {
        "author": {"email": "ada@example.org", "name": "Ada"},
        "authoredAt": "2023-11-14T23:13:20+01:00",
        "body": "Because it is ready.",
        "commit": HASH,
        "committedAt": "2023-11-15T00:00:00+01:00",
        "committer": {"email": "bob@example.org", "name": "Bob"},
        "files": {"added": 1, "changed": 2, "deleted": 3},
        "parents": [OTHER],
        "subject": "Ship it",
        "truncated": [],
    }
    assert canonical_json(parse_json(draft.payload, ROOMY, 8)) == draft.payload


@pytest.mark.parametrize(
    "seconds, expected",
    [(-5, 0), (0, 0), (1, 1000), (10**17, TIME_MAX), (TIME_MAX // 1000 + 1, TIME_MAX)],
)
def test_a_date_no_calendar_has_is_cut_to_the_range(seconds: int, expected: int) -> None:
    assert git.draft_of(commit(authored_seconds=seconds), 1, ROOMY).occurred_at == expected


@pytest.mark.parametrize("seconds", ["", "soon", "1e9", "٣", "9" * 40])
def test_a_date_that_is_no_number_is_1970(seconds: str) -> None:
    log = printed(commit()).replace(b"\x001700000000\x00", b"\0" + seconds.encode() + b"\0")
    (read,) = git.parse_log([log])
    assert read.authored_seconds == 0


HARD = st.text(
    st.characters(exclude_categories=["Cs"])
    | st.sampled_from(["\x00", "\x1f", '"', "\\", "\N{GRINNING FACE}", "\x7f"]),
    max_size=3000,
)


@given(HARD, HARD, HARD, st.integers(6500, 9000))
def test_a_payload_never_outgrows_its_bound_and_says_what_was_cut(
    name: str, subject: str, body: str, bytes_max: int
) -> None:
    whole = commit(author=Person(name, name), subject=subject, body=body)
    payload = git.payload_of(whole, bytes_max)
    assert len(payload) <= bytes_max
    told = json.loads(payload)
    kept = {
        "author.name": (told["author"]["name"], name),
        "author.email": (told["author"]["email"], name),
        "subject": (told["subject"], subject),
        "body": (told["body"], body),
    }
    assert all(full.startswith(short) for short, full in kept.values())
    assert told["truncated"] == sorted(key for key, (short, full) in kept.items() if short != full)


def test_a_body_is_cut_no_more_than_needed() -> None:
    long = commit(body='"' * 100_000)
    payload = git.payload_of(long, 10_000)
    assert 10_000 - 2 < len(payload) <= 10_000
    assert json.loads(payload)["truncated"] == ["body"]


def test_a_commit_whose_parents_alone_do_not_fit_is_refused() -> None:
    with pytest.raises(Malformed, match=f"commit {HASH}: with 300 parents"):
        git.payload_of(commit(parents=(OTHER,) * 300), 8000)


def test_only_what_lacks_becomes_a_draft_and_numbers_go_on() -> None:
    third = commit(commit="ab" * 20)
    history = [commit(), commit(commit=OTHER), third]
    drafts = list(git.drafts(history, {HASH, OTHER}, ROOMY))
    assert [(draft.number, draft.source.hex()) for draft in drafts] == [(3, third.commit)]


def test_an_event_names_its_commit_and_nothing_else_does() -> None:
    payload = git.payload_of(commit(), ROOMY)
    assert git.commit_in(git.EVENT_TYPE, payload) == HASH
    for event_type, data in [
        ("Paid", payload),
        (git.EVENT_TYPE, b"{}"),
        (git.EVENT_TYPE, b'{"commit":7}'),
        (git.EVENT_TYPE, b'{"commit":"head"}'),
        (git.EVENT_TYPE, b"\xff"),
    ]:
        with pytest.raises(Malformed):
            git.commit_in(event_type, data)


def test_the_first_commit_that_was_rewritten_is_named() -> None:
    imported = ["aa" * 20, "bb" * 20, "cc" * 20]
    git.check_extends(imported, set(imported), "git/x/main")
    with pytest.raises(HistoryRewritten, match=re.escape("event 2 of git/x/main is commit bbbbbb")):
        git.check_extends(imported, {"aa" * 20, "dd" * 20}, "git/x/main")


@given(st.text(max_size=200), st.text(max_size=200))
def test_every_branch_has_a_session_id(repository: str, branch: str) -> None:
    assert is_session_id(git.session_of(repository, branch))


def test_plain_names_stay_and_others_do_not_meet() -> None:
    assert git.session_of("project", "feature/x") == "git/project/feature/x"
    names = {git.session_of("project", branch) for branch in ("a b", "a?b", "a-b", "a~b", "ä")}
    assert len(names) == 5
