"""What a demonstration measured and found, as the report and the terminal show it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Samples:
    """Latencies (ms) to one finality level, ascending."""

    level: str
    ms: tuple[float, ...]

    @staticmethod
    def of(level: str, ms: Sequence[float]) -> Samples:
        """The samples in their order."""
        return Samples(level, tuple(sorted(ms)))

    def percentile(self, percent: float) -> float:
        """The nearest-rank percentile, 0 < percent <= 100; needs a sample."""
        rank = -(-len(self.ms) * percent // 100)
        return self.ms[max(int(rank), 1) - 1]


@dataclass(frozen=True, slots=True)
class Burst:
    """Commands sent as fast as the ledger took them, until all were decided at `level`."""

    commands: int
    seconds: float
    level: str

    @property
    def per_second(self) -> float:
        """Commands a second."""
        return self.commands / self.seconds


@dataclass(frozen=True, slots=True)
class Light:
    """Commands sent at a steady rate; latency counts from the moment each was due."""

    commands_per_second: float
    samples: tuple[Samples, ...]


@dataclass(frozen=True, slots=True)
class RefusedFor:
    """How many commands of the business case were refused for one reason."""

    reason: str
    meaning: str
    count: int


@dataclass(frozen=True, slots=True)
class Counts:
    """What the ledger held after the business case; `refused` is by reason."""

    commands: int
    events: int
    receipts: int
    sessions: int
    blocks: int
    refused: tuple[RefusedFor, ...]


@dataclass(frozen=True, slots=True)
class History:
    """A git history that became a session of the ledger."""

    session: str
    commits: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Field:
    """One line of a link: hashes and signatures stand in full, the report shortens them."""

    name: str
    value: str
    is_hash: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """One link of the chain from the author's signature to the authority's. `binds` says how it
    holds on to the next one; empty at the end.
    """

    title: str
    sentence: str
    fields: tuple[Field, ...]
    binds: str


@dataclass(frozen=True, slots=True)
class Proof:
    """The chain of one event; `path` are the hashes beside the way from its leaf to the root."""

    session: str
    sequence: int
    event_type: str
    payload: str
    links: tuple[Link, ...]
    leaf: str
    path: tuple[str, ...]
    root: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one attack ended. `caught_by` names what noticed it, `evidence` says what it saw."""

    attack: str
    done: str
    caught: bool
    caught_by: str
    evidence: str


@dataclass(frozen=True, slots=True)
class Audit:
    """Exports that were verified offline; `failures` names each that did not verify, and why."""

    exports: int
    verified: int
    events: int
    receipts: int
    bytes: int
    seconds: float
    failures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the demonstration and how long it took."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything."""

    ledger_id: str
    made_at: str
    machine: str
    seed: int
    phases: tuple[Phase, ...]
    counts: Counts
    burst: Burst
    light: Light
    history: History | None
    proof: Proof
    verdicts: tuple[Verdict, ...]
    audit: Audit

    @property
    def caught(self) -> int:
        """How many attacks were caught."""
        return sum(verdict.caught for verdict in self.verdicts)

    @property
    def holds(self) -> bool:
        """Every attack was caught and every export verified."""
        complete = self.audit.verified == self.audit.exports and not self.audit.failures
        return bool(self.verdicts) and self.caught == len(self.verdicts) and complete

    @property
    def seconds(self) -> float:
        """The whole time."""
        return sum(phase.seconds for phase in self.phases)
