"""Coq accepts every proof in `coq/`, and no theorem that Assumptions.v lists rests on an axiom.

Coq also computes the quorum of each n to N_MAX and compares it with the product's own function.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from formal.results import Result, run

SOURCES: Final = Path(__file__).parent / "coq"
FILES: Final = ("Quorum", "Rules", "Agreement", "Runs", "Example", "Assumptions")
"""In the order in which they build on each other."""
SECONDS_MAX: Final = 180
"""Of one file; the longest takes three on a machine with nothing else to do."""
N_MAX: Final = 500
CLOSED: Final = "Closed under the global context"
NEEDED: Final = "needs Coq (Debian 12: apt-get install coq)"

_ASKED: Final = re.compile(r"^Print Assumptions (\w+)\.$", re.MULTILINE)


def check(folder: Path, quorum: Callable[[int], int]) -> Iterator[Result]:
    """Compile the sources in `folder`, in order; what builds on a failed file is not tried."""
    compiler = shutil.which("coqc")
    if compiler is None:
        yield Result("Coq", False, NEEDED)
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in FILES:
        shutil.copy(SOURCES / f"{name}.v", folder)
    (folder / "Table.v").write_text(table(quorum))
    for name in (*FILES, "Table"):
        done = run([compiler, "-q", "-Q", ".", "Nocturne", f"{name}.v"], folder, SECONDS_MAX)
        if done.code != 0:
            yield Result(f"Coq {name}.v", False, done.tail(), done.seconds)
            return
        if name == "Assumptions":
            yield from theorems((folder / "Assumptions.v").read_text(), done.output)
        elif name == "Table":
            yield Result("Coq quorum", True, f"the product's for n = 1…{N_MAX}", done.seconds)
        else:
            yield Result(f"Coq {name}.v", True, "compiles", done.seconds)


def theorems(source: str, output: str) -> tuple[Result, ...]:
    """One result a theorem that the source asks about; the output answers them in order."""
    names = _ASKED.findall(source)
    answers = re.findall(rf"^(?:{CLOSED}|Axioms:|Section Variables:)$", output, re.MULTILINE)
    if not names or len(answers) != len(names):
        detail = f"expected {len(names)} answers about axioms, got {len(answers)}:\n{output}"
        return (Result("Coq assumptions", False, detail),)
    return tuple(
        Result(
            f"Coq {name}",
            answer == CLOSED,
            "no axioms" if answer == CLOSED else f"expected {CLOSED!r}, got:\n{output}",
        )
        for name, answer in zip(names, answers, strict=True)
    )


def table(quorum: Callable[[int], int]) -> str:
    """A file that Coq accepts only if its quorum is `quorum` for every n to N_MAX."""
    values = "; ".join(str(quorum(n)) for n in range(1, N_MAX + 1))
    return (
        "From Coq Require Import List.\nFrom Nocturne Require Import Quorum.\n"
        "Import ListNotations.\n"
        f"Example as_in_the_product : map quorum (seq 1 {N_MAX}) = [{values}].\n"
        "Proof. vm_compute. reflexivity. Qed.\n"
    )
