"""Git repositories for tests, written by `git fast-import`: thousands of commits in a moment."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_COUNT": "1",
    "GIT_CONFIG_KEY_0": "safe.directory",
    "GIT_CONFIG_VALUE_0": "*",
}


@dataclass(frozen=True)
class Made:
    """One commit to make. `parents` are marks, counted from 1 in the order of making."""

    message: bytes = b"A change.\n"
    author: bytes = b"Ada <ada@example.org> 1700000000 +0100"
    parents: Sequence[int] = ()
    branch: str = "main"
    files: Sequence[tuple[bytes, bytes | None]] = ((b"file", b"x"),)


class Repository:
    """A bare repository."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.git("init", "-q", "--bare", "-b", "main", ".")

    def git(self, *arguments: str, input: bytes = b"") -> str:  # noqa: A002
        """What git answers."""
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.folder,
            env=ENVIRONMENT,
            input=input,
            capture_output=True,
            check=True,
            timeout=60,
        )
        return done.stdout.decode().strip()

    def make(self, commits: Sequence[Made]) -> list[str]:
        """Write the commits; their hashes, in the order of making."""
        stream: list[bytes] = []
        for mark, made in enumerate(commits, start=1):
            stream.append(b"commit refs/heads/%s\nmark :%d\n" % (made.branch.encode(), mark))
            stream.append(b"author %s\ncommitter %s\n" % (made.author, made.author))
            stream.append(b"data %d\n%s\n" % (len(made.message), made.message))
            for number, parent in enumerate(made.parents):
                stream.append(b"%s :%d\n" % (b"merge" if number else b"from", parent))
            for path, content in made.files:
                if content is None:
                    stream.append(b"D %s\n" % path)
                else:
                    stream.append(b"M 644 inline %s\n" % path)
                    stream.append(b"data %d\n%s\n" % (len(content), content))
        marks = self.folder / "marks"
        self.git(
            "fast-import", "--quiet", "--force", f"--export-marks={marks}", input=b"".join(stream)
        )
        by_mark = dict(line.split(" ") for line in marks.read_text().splitlines())
        return [by_mark[f":{mark}"] for mark in range(1, len(commits) + 1)]


def line_of(count: int) -> list[Made]:
    """So many commits, each on the one before."""
    return [
        Made(
            b"Change %d\n\nBecause.\n" % number,
            b"Ada <ada@example.org> %d +0000" % (1_700_000_000 + number),
            (number - 1,) if number > 1 else (),
            files=((b"file", b"%d" % number),),
        )
        for number in range(1, count + 1)
    ]
