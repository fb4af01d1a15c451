"""The ledger's mode, SYNC_WS or DEGRADED, and every cause of the second. Pure.

Rules: docs/spec/modes.md. A ledger that is DEGRADED takes no command. What is kept has no automatic
exit: no further input and no restart takes it away, only a person does.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

from nocturne.core.conflicts import (
    CONFLICT_BYTES_MAX,
    Certified,
    Conflict,
    ConflictingBlocks,
    conflicting_blocks,
    decode_conflict,
    encode_conflict,
)
from nocturne.core.encoding import HASH_BYTES, domain, take_variable, u8, variable
from nocturne.core.errors import Halt, Malformed
from nocturne.core.identifiers import LedgerId

TEXT_CHARACTERS_MAX: Final = 1024
"""Of a cause in words: a sentence or two."""
DEGRADED_BYTES_MAX: Final = CONFLICT_BYTES_MAX + 4 * TEXT_CHARACTERS_MAX + 256
METADATA_MODE: Final = "nocturne-mode"
METADATA_CAUSE: Final = "nocturne-mode-cause"
"""In the trailing metadata of every answer; the cause only while the ledger is DEGRADED."""
REASON: Final = "LEDGER_DEGRADED"
CAUSE: Final = "cause"
"""Reason, and name of the cause in the metadata, of the ErrorInfo that a refused command gets."""

_TAG: Final = domain("nocturne/degraded/v1")


class Mode(Enum):
    """Of the ledger, as one process has it."""

    SYNC_WS = "SYNC_WS"
    DEGRADED = "DEGRADED"


class Cause(IntEnum):
    """Why a ledger is DEGRADED. The numbers stand in files."""

    CONFLICTING_COMMIT_PROOFS = 1
    SIGNING_CONFLICT = 2
    REWRITTEN_LOG = 3
    WANT_OF_A_QUORUM = 4


@dataclass(frozen=True, slots=True)
class CauseRule:
    """What proves a cause, who sees it, whether a process keeps it over a restart, and how
    operators leave it. Each is a clause of docs/spec/modes.md §2.
    """

    proved_by: str
    seen_by: str
    is_kept: bool
    left_by: str


RULES: Final = {
    Cause.CONFLICTING_COMMIT_PROOFS: CauseRule(
        proved_by="two commit proofs of blocks that no one chain has",
        seen_by="whoever reads the blocks topic, and a validator that another one sends them",
        is_kept=True,
        left_by="a person removes the file `degraded` once the operators have decided",
    ),
    Cause.SIGNING_CONFLICT: CauseRule(
        proved_by="two seals of the authority for two blocks of one height; to the authority "
        "itself, what it has recorded as signed",
        seen_by="the signing service, and whoever reads the seals topic",
        is_kept=True,
        left_by="a person removes the file `degraded` once the authority's key is in one place",
    ),
    Cause.REWRITTEN_LOG: CauseRule(
        proved_by="certified bytes that each of enough validators read otherwise",
        seen_by="each validator that reads them takes no more of it; the others hear it",
        is_kept=False,
        left_by="the operators open the next log epoch, or the log is put right and validators "
        "start again",
    ),
    Cause.WANT_OF_A_QUORUM: CauseRule(
        proved_by="nothing: too few validators are heard",
        seen_by="each validator; the command service by commands that no block covers",
        is_kept=False,
        left_by="by itself, when enough validators are back",
    ),
}
"""The closed list. A cause that is not kept lasts as long as what it is seen by."""


@dataclass(frozen=True, slots=True)
class Degraded:
    """Why the ledger is DEGRADED, in words, and the proof where it can be handed on."""

    cause: Cause
    text: str
    conflict: Conflict | None = None

    @staticmethod
    def by(conflict: Conflict) -> Degraded:
        """What a proof makes of the ledger."""
        is_of_blocks = isinstance(conflict, ConflictingBlocks)
        cause = Cause.CONFLICTING_COMMIT_PROOFS if is_of_blocks else Cause.SIGNING_CONFLICT
        return Degraded(cause, str(conflict), conflict)

    def __str__(self) -> str:
        return f"{self.cause.name}: {self.text}"

    @property
    def sentence(self) -> str:
        """For people."""
        return f"the ledger is DEGRADED: {self}"


class DegradedFound(Halt):
    """A process found the proof that the ledger is DEGRADED: it keeps that, and does no more of
    what would go on with the ledger. Where nothing is done about it, it is a halt.
    """

    def __init__(self, degraded: Degraded) -> None:
        super().__init__(degraded.text)
        self.degraded = degraded


def two_histories(
    ledger_id: LedgerId, one: Certified | None, other: Certified | None, without: str
) -> Halt:
    """What to raise on two certified blocks that no one chain has: with the proof, where both are
    at hand; else a halt for `without`.
    """
    if one is None or other is None:
        return Halt(without)
    return DegradedFound(Degraded.by(conflicting_blocks(ledger_id, one, other)))


class LogRewritten(Halt):
    """A validator reads, or has executed, other bytes than a quorum certified."""


class ModeState:
    """The mode as one process has it: what it keeps, and what only lasts while it lasts."""

    def __init__(self, kept: Degraded | None = None) -> None:
        """`kept` is what was kept before, None if nothing was."""
        self._kept = kept
        self._passing: Degraded | None = None

    @property
    def kept(self) -> Degraded | None:
        """What has no automatic exit: the first that was found."""
        return self._kept

    @property
    def degraded(self) -> Degraded | None:
        """Why the ledger is DEGRADED now; None: it is not. What is kept goes first."""
        return self._kept or self._passing

    @property
    def mode(self) -> Mode:
        """Now."""
        return Mode.SYNC_WS if self.degraded is None else Mode.DEGRADED

    def keep(self, degraded: Degraded) -> bool:
        """Found: a cause that is kept. Whether it is the first, which is to be written down; a
        later one changes nothing. ValueError for a cause that passes.
        """
        if not RULES[degraded.cause].is_kept:
            raise ValueError(f"{degraded.cause.name} is not kept")
        if self._kept is not None:
            return False
        self._kept = degraded
        return True

    def passing(self, degraded: Degraded | None) -> None:
        """What lasts only while it lasts; None: it is over. ValueError for a cause that is kept."""
        if degraded is not None and RULES[degraded.cause].is_kept:
            raise ValueError(f"{degraded.cause.name} does not pass")
        self._passing = degraded

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What an answer says of the mode."""
        return metadata_of(self.degraded)


def metadata_of(degraded: Degraded | None) -> tuple[tuple[str, str], ...]:
    """What an answer says of the mode; None: the ledger is not DEGRADED."""
    if degraded is None:
        return ((METADATA_MODE, Mode.SYNC_WS.value),)
    return ((METADATA_MODE, Mode.DEGRADED.value), (METADATA_CAUSE, degraded.cause.name))


# What is kept ---------------------------------------------------------------------------------


def encode_degraded(ledger_id: LedgerId, degraded: Degraded) -> bytes:
    """Domain ‖ ledger id ‖ u8(cause) ‖ variable(text) ‖ variable(conflict, or nothing)."""
    text = degraded.text[:TEXT_CHARACTERS_MAX].encode()
    conflict = b"" if degraded.conflict is None else encode_conflict(degraded.conflict)
    return _TAG + ledger_id + u8(degraded.cause) + variable(text) + variable(conflict)


def decode_degraded(data: bytes) -> tuple[LedgerId, Degraded]:
    """The reverse of `encode_degraded`; `Malformed` on anything else."""
    if len(data) > DEGRADED_BYTES_MAX:
        raise Malformed(f"degraded: expected at most {DEGRADED_BYTES_MAX} bytes, got {len(data)}")
    start = len(_TAG) + HASH_BYTES
    if not data.startswith(_TAG) or len(data) <= start:
        raise Malformed("degraded: not what is kept of a ledger that is")
    ledger_id = LedgerId(data[len(_TAG) : start])
    try:
        cause = Cause(data[start])
    except ValueError as fault:
        raise Malformed(f"degraded: cause {data[start]} is unknown") from fault
    if not RULES[cause].is_kept:
        raise Malformed(f"degraded: {cause.name} is not kept")
    text, at = take_variable(data, start + 1, "degraded")
    proof, at = take_variable(data, at, "degraded")
    if at != len(data):
        raise Malformed(f"degraded: expected {at} bytes, got {len(data)}")
    try:
        words = text.decode()
    except UnicodeDecodeError as fault:
        raise Malformed("degraded: its text is not UTF-8") from fault
    if len(words) > TEXT_CHARACTERS_MAX:
        raise Malformed(f"degraded: expected at most {TEXT_CHARACTERS_MAX} characters of text")
    conflict = decode_conflict(proof) if proof else None
    if conflict is not None and (
        conflict.ledger_id != ledger_id or Degraded.by(conflict).cause is not cause
    ):
        raise Malformed("degraded: its proof is of another ledger or another cause")
    return ledger_id, Degraded(cause, words, conflict)
