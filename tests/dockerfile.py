"""Read a Dockerfile: its stages and their instructions, with continued lines joined.

Only what ours uses; anything else fails. Not a build: `tests/unit/deploy/test_dockerfile.py` looks
at what the recipe says, `tests/compose_images.py` takes environment and user from it.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
KNOWN: Final = {
    *("ARG", "CMD", "COPY", "ENV", "EXPOSE", "FROM", "HEALTHCHECK", "LABEL"),
    *("RUN", "STOPSIGNAL", "USER", "WORKDIR"),
}


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction: its name and all that follows it, in one line."""

    name: str
    rest: str

    @property
    def flags(self) -> dict[str, str]:
        """`--chown=0:0` and such, before anything else."""
        found = re.findall(r"--([a-z-]+)=(\S+)", self.rest)
        return dict(found)

    @property
    def words(self) -> list[str]:
        """What follows the flags, as a shell splits it."""
        return [word for word in shlex.split(self.rest) if not word.startswith("--")]


@dataclass(frozen=True, slots=True)
class Stage:
    """One `FROM` and what follows it."""

    base: str
    name: str | None
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[Instruction]:
        """The instructions of a name, in their order."""
        return [one for one in self.instructions if one.name == name]

    def one(self, name: str) -> Instruction:
        """The only instruction of a name."""
        (found,) = self.all(name)
        return found

    @property
    def environment(self) -> dict[str, str]:
        """What ENV sets."""
        pairs = [word.partition("=") for one in self.all("ENV") for word in one.words]
        return {name: value for name, _, value in pairs}

    def command_of(self, name: str) -> list[str]:
        """The JSON list of CMD or of HEALTHCHECK."""
        command: list[str] = json.loads(self.one(name).rest[self.one(name).rest.index("[") :])
        return command


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """The recipe: arguments before the first stage, and the stages."""

    arguments: dict[str, str]
    stages: list[Stage]

    @property
    def final(self) -> Stage:
        """What the image is."""
        return self.stages[-1]


def read(path: Path = ROOT / "Dockerfile") -> Dockerfile:
    """The recipe in a file."""
    found = Dockerfile({}, [])
    for one in _instructions(path.read_text()):
        if one.name == "FROM":
            base, _, name = one.rest.partition(" AS ")
            found.stages.append(Stage(base, name or None))
        elif not found.stages:
            assert one.name == "ARG", f"{one.name} before FROM"
            name, _, value = one.rest.partition("=")
            found.arguments[name] = value
        else:
            found.stages[-1].instructions.append(one)
    return found


def _instructions(text: str) -> Iterator[Instruction]:
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if not line.strip():
            continue
        name, _, rest = line.strip().partition(" ")
        assert name in KNOWN, f"no rule for {name}"
        yield Instruction(name, re.sub(r"\s+", " ", rest.strip()))
