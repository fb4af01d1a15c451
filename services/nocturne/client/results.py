"""What a caller gets: frozen values. A refused command is one of them, not an error."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from nocturne.core.errors import NocturneError, Unavailable
from nocturne.core.events import EventHeader, Position
from nocturne.core.identifiers import Hash, SessionId
from nocturne.core.receipts import Reason, Receipt, ReceiptHeader
from nocturne.core.strict_json import JsonValue


class NotConfigured(NocturneError):  # noqa: N818
    """The ledger has not what was asked for, a finality level or a service."""


class CredentialsFault(NocturneError):  # noqa: N818
    """A client's own files, or how they are to be used, are no good; the message says why."""


class TlsRefused(Unavailable):
    """The server's certificate, or the client's, is refused: trying again as it is is no use."""


class AccessDenied(NocturneError):  # noqa: N818
    """The service does not know who calls, or that one may not; the message names what lacks."""


class LedgerDegraded(NocturneError):  # noqa: N818
    """The ledger is DEGRADED and takes no command until a person ends it; `cause` is the cause's
    name, as in docs/spec/modes.md §2. To try again is no use.
    """

    def __init__(self, message: str, cause: str) -> None:
        super().__init__(message)
        self.cause = cause


class Level(IntEnum):
    """Finality levels in their order; UNKNOWN before the log has the command."""

    UNKNOWN = 0
    ACCEPTED = 1
    CERTIFIED = 2
    SIGNED = 3
    LOGGED = 4
    WITNESSED = 5
    ANCHORED = 6


@dataclass(frozen=True, slots=True)
class Place:
    """Where the decision stands: position in the log, block, and the block's time (ms)."""

    position: Position
    height: int
    timestamp: int
    block_digest: Hash


@dataclass(frozen=True, slots=True)
class Committed:
    """The command became these events. `repeated`: it was in the log before, and this is what
    became of it then. `proof` is a disposition proof when one was asked for, and was checked.
    """

    command_hash: Hash
    level: Level
    place: Place
    events: tuple[EventHeader, ...]
    repeated: bool
    proof: bytes

    @property
    def sequence(self) -> int:
        """The session's sequence after the last of the events."""
        return self.events[-1].sequence


@dataclass(frozen=True, slots=True)
class Refused:
    """The command was refused; from level signed on with the authority's receipt."""

    command_hash: Hash
    level: Level
    place: Place
    header: ReceiptHeader
    receipt: Receipt | None
    repeated: bool
    proof: bytes

    @property
    def reason(self) -> Reason:
        """Why."""
        return self.header.reason


@dataclass(frozen=True, slots=True)
class Undecided:
    """The deadline came first. Submitting the same command again is safe, and asks again."""

    command_hash: Hash
    level: Level


Result = Committed | Refused | Undecided


@dataclass(frozen=True, slots=True)
class AppliedThrough:
    """The block that an answer of the read side was read at."""

    height: int
    block_digest: Hash
    timestamp: int


@dataclass(frozen=True, slots=True)
class Session:
    """A session as the read side has it. Times in ms since 1970 UTC."""

    session: SessionId
    kind: str
    kind_version: int
    sequence: int
    head_hash: Hash
    receipt_count: int
    closed: bool
    opened_at: int
    updated_at: int


@dataclass(frozen=True, slots=True)
class State:
    """A session's state, folded to `sequence`."""

    session: SessionId
    sequence: int
    head_hash: Hash
    value: JsonValue
    applied_through: AppliedThrough


@dataclass(frozen=True, slots=True)
class Status:
    """What the read side holds; `refused_records` counts what it skipped, by cause. `mode` is the
    ledger's as the read side has it, empty if it does not say; `mode_cause` why it is DEGRADED.
    """

    applied_through: AppliedThrough
    sessions: int
    events: int
    receipts: int
    records: int
    refused_records: tuple[tuple[str, int], ...]
    mode: str = ""
    mode_cause: str = ""
