"""Reading real repositories with the real git, whatever is in them and around them."""

import os
import time
from pathlib import Path

import pytest
from tests.unit.imports.repositories import ENVIRONMENT, Made, Repository, line_of

from nocturne.imports import git_log
from nocturne.imports.git import Files
from nocturne.imports.git_log import GitError


def test_a_branch_is_read_parents_first_with_its_files(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "project.git")
    made = repository.make(
        [
            Made(b"First\n", files=((b"a", b"1"), (b"b", b"1"))),
            Made(b"Left\n\nWhy\n left.\n\n", parents=(1,), files=((b"a", b"2"),)),
            Made(
                b"Right\n", parents=(1,), files=((b'"c\\n:x"', b"1"), (b"b", None)), branch="side"
            ),
            Made(b"Merge\n", parents=(2, 3), files=((b'"c\\n:x"', b"1"), (b"b", None))),
            Made(b"", parents=(4,), files=()),
        ]
    )
    branch = git_log.open_branch(repository.folder, None, ENVIRONMENT)
    assert (branch.repository, branch.name, branch.commits) == ("project", "main", 5)
    read = list(git_log.commits(branch, ENVIRONMENT))
    at = {one.commit: place for place, one in enumerate(read)}
    assert set(at) == set(made) == git_log.commit_hashes(branch, ENVIRONMENT)
    assert all(at[parent] < at[one.commit] for one in read for parent in one.parents)
    by_hash = {one.commit: one for one in read}
    assert [by_hash[one].subject for one in made] == ["First", "Left", "Right", "Merge", ""]
    assert by_hash[made[1]].body == "Why\n left.\n"
    assert [by_hash[one].files for one in made] == [
        Files(2, 0, 0),
        Files(0, 1, 0),
        Files(1, 0, 1),
        Files(1, 0, 1),
        Files(0, 0, 0),
    ]
    assert by_hash[made[0]].authored_at == "2023-11-14T23:13:20+01:00"


def test_strange_commits_are_read(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "r")
    made = repository.make(
        [
            Made(b"\xff\xfe latin \xe4\n", author=b"\xc4da <a\xe9@b> 0 +0000"),
            Made(b"x" * 300_000, parents=(1,), author=b" <> 99999999999 -1200"),
            Made(b"\n\n  spaces  \n\n", parents=(2,)),
            Made("Émile \N{GRINNING FACE}\n".encode(), parents=(3,)),
        ]
    )
    # A NUL within a message is no commit that git makes, but one that git stores.
    text = (
        b"tree 4b825dc642cb6eb9a060e54bf8d69288fbee4904\nparent %s\n"
        b"author A <a> 1 +0000\ncommitter A <a> 1 +0000\n\nbefore\0:100644 after\n"
    ) % made[3].encode()
    repository.git("hash-object", "-w", "-t", "tree", "--stdin")
    nul = repository.git("hash-object", "-w", "-t", "commit", "--literally", "--stdin", input=text)
    repository.git("update-ref", "refs/heads/main", nul)
    branch = git_log.open_branch(repository.folder, "main", ENVIRONMENT)
    read = list(git_log.commits(branch, ENVIRONMENT))
    assert [one.commit for one in read] == [*made, nul]
    assert read[1].subject == "x" * 300_000
    assert read[3].subject == "Émile \N{GRINNING FACE}"
    assert read[4].subject == "before"


def test_nothing_that_the_repository_configures_is_run(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "r")
    repository.make([Made(files=((b"a", b"1"), (b".gitattributes", b"* diff=evil\n")))])
    trap = tmp_path / "ran"
    for name in (
        "core.pager",
        "core.fsmonitor",
        "gpg.program",
        "diff.external",
        "diff.evil.command",
        "diff.evil.textconv",
        "core.sshCommand",
    ):
        repository.git("config", name, f"touch {trap};")
    for name, value in (("log.showSignature", "true"), ("color.ui", "always")):
        repository.git("config", name, value)
    branch = git_log.open_branch(repository.folder, None, ENVIRONMENT)
    assert len(list(git_log.commits(branch, ENVIRONMENT))) == 1
    assert not trap.exists()


def test_the_callers_git_environment_points_nowhere_else(tmp_path: Path) -> None:
    repository, other = Repository(tmp_path / "r"), Repository(tmp_path / "other")
    (made,) = repository.make([Made()])
    other.make([Made(b"Other\n")])
    environment = {**ENVIRONMENT, "GIT_DIR": str(other.folder), "GIT_TRACE": "1"}
    assert git_log.open_branch(repository.folder, None, environment).tip == made


def test_a_worktree_and_a_folder_in_it_belong_to_the_repository(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "project.git")
    (made,) = repository.make([Made(files=((b"sub/file", b"x"),))])
    clone = tmp_path / "my project"
    repository.git("clone", "-q", str(repository.folder), str(clone))
    branch = git_log.open_branch(clone / "sub", None, ENVIRONMENT)
    assert (branch.repository, branch.tip) == ("my project", made)
    assert not branch.shallow


def test_a_shallow_clone_says_so(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "r")
    repository.make(line_of(3))
    clone = tmp_path / "clone"
    repository.git("clone", "-q", "--depth", "1", f"file://{repository.folder}", str(clone))
    branch = git_log.open_branch(clone, None, ENVIRONMENT)
    assert (branch.commits, branch.shallow) == (1, True)
    assert len(list(git_log.commits(branch, ENVIRONMENT))) == 1


@pytest.mark.parametrize(
    "branch, message",
    [("nowhere", "no commit on a branch nowhere"), ("--all", "no commit on a branch --all")],
)
def test_a_branch_that_is_not_there_is_one_sentence(
    tmp_path: Path, branch: str, message: str
) -> None:
    repository = Repository(tmp_path / "r")
    repository.make([Made()])
    with pytest.raises(GitError, match=message):
        git_log.open_branch(repository.folder, branch, ENVIRONMENT)


def test_an_empty_repository_a_plain_folder_and_no_folder_are_one_sentence(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "r")
    with pytest.raises(GitError, match="no commit on a branch main"):
        git_log.open_branch(repository.folder, None, ENVIRONMENT)
    with pytest.raises(GitError, match="is no git repository"):
        git_log.open_branch(tmp_path, None, {**ENVIRONMENT, "GIT_CEILING_DIRECTORIES": "/"})
    with pytest.raises(GitError, match="There is no folder"):
        git_log.open_branch(tmp_path / "no", None, ENVIRONMENT)
    with pytest.raises(GitError, match="git is not installed"):
        git_log.open_branch(tmp_path, None, {"PATH": "/nonexistent"})


def test_a_damaged_repository_never_looks_like_a_short_one(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "r")
    made = repository.make(line_of(50))
    repository.git("repack", "-a", "-d", "-q")
    repository.git("unpack-objects", "-q", input=_pack(repository))
    branch = git_log.open_branch(repository.folder, None, ENVIRONMENT)
    loose = repository.folder / "objects" / made[20][:2] / made[20][2:]
    for pack in (repository.folder / "objects" / "pack").iterdir():
        pack.unlink()
    loose.unlink(missing_ok=True)
    with pytest.raises(GitError, match="git could not read"):
        list(git_log.commits(branch, ENVIRONMENT))


def _pack(repository: Repository) -> bytes:
    (pack,) = (repository.folder / "objects" / "pack").glob("*.pack")
    return pack.read_bytes()


def test_a_reader_who_stops_early_leaves_no_git_behind(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "r")
    repository.make(line_of(2000))
    branch = git_log.open_branch(repository.folder, None, ENVIRONMENT)
    # Other tests of this process may have left helpers of the interpreter, which stay to its end.
    before = _children()
    reading = git_log.commits(branch, ENVIRONMENT)
    next(reading)
    begun = _children() - before
    reading.close()
    assert len(begun) == 1
    assert not begun & _children()


def _children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


@pytest.mark.slow
def test_five_thousand_commits_are_read_in_seconds(tmp_path: Path) -> None:
    repository = Repository(tmp_path / "r")
    made = repository.make(line_of(5000))
    began = time.monotonic()
    branch = git_log.open_branch(repository.folder, None, ENVIRONMENT)
    assert [one.commit for one in git_log.commits(branch, ENVIRONMENT)] == made
    assert time.monotonic() - began < 10
