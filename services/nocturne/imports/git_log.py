"""Run git: the only place that does. What it prints is read in `nocturne.imports.git`.

The repository is a stranger's: no hook, pager, signature program, textconv or lazy fetch of its
configuration is started, and nothing of the caller's GIT_ environment points elsewhere.
"""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nocturne.core.errors import NocturneError
from nocturne.imports.git import LOG_FORMAT, Commit, parse_log

CHUNK_BYTES: Final = 1 << 18
ANSWER_SECONDS_MAX: Final = 30.0
"""For questions that git answers from a ref or two; `git log` itself streams without a bound."""
MESSAGE_CHARACTERS_MAX: Final = 300

_KEPT_FROM_GIT_ENVIRONMENT: Final = re.compile(
    r"GIT_(EXEC_PATH|CONFIG_(COUNT|KEY_\d+|VALUE_\d+))\Z"
)
_SETTINGS: Final = {
    "GIT_GRAFT_FILE": os.devnull,
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C.UTF-8",
}
_LOG_OPTIONS: Final = (
    "-z",
    "--reverse",
    "--topo-order",
    "--raw",
    "--root",
    "--no-abbrev",
    "--no-renames",
    "--no-relative",
    "--no-color",
    "--no-ext-diff",
    "--no-textconv",
    "--no-show-signature",
    "--ignore-submodules=none",
    "--diff-merges=first-parent",
    "--encoding=UTF-8",
    f"--format={LOG_FORMAT}",
)


class GitError(NocturneError):
    """There is no such repository or branch, or git itself failed: one sentence."""


@dataclass(frozen=True, slots=True)
class Branch:
    """A branch as it stood when it was asked for: what is read later is read from `tip`."""

    folder: Path
    repository: str
    name: str
    tip: str
    commits: int
    shallow: bool


def open_branch(folder: Path, name: str | None, environment: Mapping[str, str]) -> Branch:
    """The branch `name`, or the one checked out (`HEAD` when none is). `GitError` if it is none."""
    if not folder.is_dir():
        raise GitError(f"There is no folder {folder}: name the folder of a git repository.")
    root = _answer(folder, environment, "rev-parse", "--path-format=absolute", "--git-common-dir")
    if name is None:
        name = _answer_or_none(folder, environment, "symbolic-ref", "--short", "-q", "HEAD")
    name = name or "HEAD"
    reference = "HEAD" if name == "HEAD" else f"refs/heads/{name}"
    tip = _answer_or_none(
        folder, environment, "rev-parse", "--verify", "-q", f"{reference}^{{commit}}"
    )
    if tip is None:
        raise GitError(
            f"The repository {folder} has no commit on a branch {name}: 'git branch' lists its "
            "branches, and --branch names one."
        )
    return Branch(
        folder,
        _repository_name(Path(root)),
        name,
        tip,
        int(_answer(folder, environment, "rev-list", "--count", tip)),
        _answer(folder, environment, "rev-parse", "--is-shallow-repository") == "true",
    )


def commit_hashes(branch: Branch, environment: Mapping[str, str]) -> frozenset[str]:
    """Every commit of the branch."""
    return frozenset(_answer(branch.folder, environment, "rev-list", branch.tip).split())


def commits(branch: Branch, environment: Mapping[str, str]) -> Generator[Commit, None, None]:
    """Every commit of the branch, parents before children, as git prints them.

    `GitError` when git ends with a failure, so a cut history never looks like a whole one.
    """
    with tempfile.TemporaryFile() as complaints:
        running = subprocess.Popen(
            [*_git(branch.folder), "log", *_LOG_OPTIONS, branch.tip, "--"],
            env=_surroundings(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
        )
        assert running.stdout is not None
        try:
            with running.stdout as output:
                yield from parse_log(iter(lambda: output.read(CHUNK_BYTES), b""))
            if running.wait() != 0:
                complaints.seek(0)
                raise _failure(branch.folder, complaints.read())
        finally:
            # The reader may stop early (a refusal, Ctrl-C): git must not outlive it.
            if running.poll() is None:
                running.kill()
                running.wait()


def _repository_name(git_folder: Path) -> str:
    """`project` for /src/project/.git and for /src/project.git."""
    named = git_folder.parent if git_folder.name == ".git" else git_folder
    return named.name.removesuffix(".git") or "repository"


def _answer_or_none(folder: Path, environment: Mapping[str, str], *question: str) -> str | None:
    """As `_answer`; None where git says no by its exit code 1 and is silent about it."""
    done = _ask(folder, environment, question)
    if done.returncode == 1 and not done.stderr.strip():
        return None
    return _checked(folder, done)


def _answer(folder: Path, environment: Mapping[str, str], *question: str) -> str:
    return _checked(folder, _ask(folder, environment, question))


def _checked(folder: Path, done: subprocess.CompletedProcess[bytes]) -> str:
    if done.returncode != 0:
        raise _failure(folder, done.stderr)
    return os.fsdecode(done.stdout).strip()


def _ask(
    folder: Path, environment: Mapping[str, str], question: tuple[str, ...]
) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            [*_git(folder), *question],
            env=_surroundings(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=ANSWER_SECONDS_MAX,
            check=False,
        )
    except FileNotFoundError as fault:
        raise GitError("git is not installed: install it, or put it on the PATH.") from fault
    except subprocess.TimeoutExpired as fault:
        raise GitError(
            f"git did not answer within {ANSWER_SECONDS_MAX:.0f} s: is {folder} on a slow disk?"
        ) from fault


def _git(folder: Path) -> list[str]:
    return ["git", "--no-pager", "-C", os.fspath(folder), "-c", "core.fsmonitor=false"]


def _surroundings(environment: Mapping[str, str]) -> dict[str, str]:
    kept = {
        name: value
        for name, value in environment.items()
        if not name.startswith("GIT_") or _KEPT_FROM_GIT_ENVIRONMENT.match(name)
    }
    return {**kept, **_SETTINGS}


def _failure(folder: Path, complaint: bytes) -> GitError:
    lines = complaint.decode("utf-8", "replace").strip().splitlines()
    said = lines[0].removeprefix("fatal: ")[:MESSAGE_CHARACTERS_MAX] if lines else "no reason given"
    if "not a git repository" in said:
        return GitError(f"{folder} is no git repository: name the folder of one.")
    if "dubious ownership" in said:
        return GitError(
            f"git does not trust {folder}, which belongs to another user: run "
            f"'git config --global --add safe.directory {folder}' and try again."
        )
    return GitError(f"git could not read {folder}: {said}")
