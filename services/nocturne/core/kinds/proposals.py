"""The kind `proposals`, version 1: candidates are put in, one is chosen, whatever their order.

Rules: docs/spec/ledger.md, session kinds; S5, quorum.md §8. Validators read every payload, so a
sealed one is refused. Two events, told apart by their type; content type `CONTENT_TYPE`, to the
letter, and a payload that is JSON by `strict_json` of exactly this form:

    Proposed  {"candidate": "route 3 by the river", "utility": 40}
    Chosen    {"candidate": "sha256-…"}

The choice is the candidate with the largest utility; of equals the one whose text has the smallest
SHA-256 (`core.choice`). A candidate that is proposed again has the largest utility that was said of
it. So the choice is a maximum: what was proposed fixes it, not when or by whom. It stands in the
validators' items, which every block's state root binds, and not only in what readers make of it.
`Chosen` ends the proposing; it names the choice and nothing else, and only the session's chair says
it: the author of its event 1, if that is `Proposed`. The state of readers:

    {"candidates": {"sha256-…": {"candidate": "…", "utility": 40}, …}, "chair": "sha256-…",
     "choice": "sha256-…", "closed": false, "proposed": 1}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

from nocturne.core.choice import rank
from nocturne.core.encoding import domain, sha256, u8, u64
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import format_hash, is_hash, parse_hash
from nocturne.core.kinds.kind import FoldError, KindChanges, KindItems, Violation
from nocturne.core.strict_json import INTEGER_MAX, JsonValue, parse_json

CONTENT_TYPE: Final = "application/json"
CANDIDATE_BYTES_MAX: Final = 1024
"""In UTF-8. What is longer is proposed by its hash, and stands elsewhere."""
PAYLOAD_BYTES_MAX: Final = 8 * 1024
"""Of a candidate every byte may be escaped, in six."""
PAYLOAD_DEPTH_MAX: Final = 1
UTILITY_MAX: Final = INTEGER_MAX
"""±(2^53 - 1): every reader of JSON keeps it exact."""
PROPOSED_MAX: Final = 4096
"""Of a session: readers copy the list of candidates for each."""

FORM: Final = "proposals.form"
OPEN: Final = "proposals.open"
PROPOSED_BOUND: Final = "proposals.proposed_max"
CHAIR: Final = "proposals.chair"
CHOICE: Final = "proposals.choice"

_KEY: Final = sha256(domain("nocturne/proposals/choice/v1"))
_NOBODY: Final = bytes(32)
"""Stands for the chair of a session that has none; no author id is known to be it."""


@dataclass(frozen=True, slots=True)
class Proposed:
    """A candidate, and what it is worth."""

    candidate: str
    digest: bytes
    utility: int


@dataclass(frozen=True, slots=True)
class Chosen:
    """The chair says which it is."""

    digest: bytes


Entry: TypeAlias = Proposed | Chosen


@dataclass(frozen=True, slots=True)
class Proposals:
    """One choice among candidates."""

    name: str = "proposals"
    version: int = 1
    reads_payloads: bool = True
    invariants: tuple[str, ...] = (FORM, OPEN, PROPOSED_BOUND, CHAIR, CHOICE)

    def apply(
        self,
        items: KindItems,
        event_type: str,
        content_type: str,
        payload: bytes,
        author: bytes,
        sequence: int,
    ) -> KindChanges | Violation:
        """The choice after the event, or the first invariant it would break."""
        entry = read_entry(event_type, content_type, payload)
        standing = _standing_of(items.get(_KEY), author, sequence)
        if entry is None:
            return Violation(FORM)
        if standing.closed:
            return Violation(OPEN)
        match entry:
            case Proposed():
                if standing.proposed == PROPOSED_MAX:
                    return Violation(PROPOSED_BOUND)
                return {_KEY: standing.after(entry).encode()}
            case Chosen():
                if author != standing.chair:
                    return Violation(CHAIR)
                if standing.proposed == 0 or entry.digest != standing.digest:
                    return Violation(CHOICE)
                return {_KEY: standing.ended().encode()}

    def initial(self) -> JsonValue:
        """No candidate, no choice."""
        return {"candidates": {}, "chair": None, "choice": None, "closed": False, "proposed": 0}

    def fold(
        self,
        state: JsonValue,
        event_type: str,
        content_type: str,
        payload: bytes,
        author: bytes,
        sequence: int,
    ) -> JsonValue:
        """The candidates and the choice after an event that stands; an event of another form
        changes nothing.
        """
        match state:
            case {
                "candidates": dict(candidates),
                "chair": chair,
                "choice": choice,
                "closed": bool(closed),
                "proposed": int(proposed),
            }:
                pass
            case _:
                raise FoldError(
                    f"state of proposals at event {sequence}: expected candidates, chair, choice, "
                    "closed and proposed"
                )
        entry = read_entry(event_type, content_type, payload)
        match entry:
            case None:
                return state
            case Chosen():
                closed = True
            case Proposed():
                chair = format_hash(author) if sequence == 1 else chair
                name = format_hash(entry.digest)
                known = _utility(candidates, name, sequence)
                utility = entry.utility if known is None else max(entry.utility, known)
                shown: JsonValue = {"candidate": entry.candidate, "utility": utility}
                candidates = {**candidates, name: shown}
                choice = _chosen(candidates, choice, name, sequence)
                proposed += 1
        return {
            "candidates": candidates,
            "chair": chair,
            "choice": choice,
            "closed": closed,
            "proposed": proposed,
        }


def read_entry(event_type: str, content_type: str, payload: bytes) -> Entry | None:
    """What an event says, None if it is not of the form of its type."""
    if event_type not in ("Proposed", "Chosen") or content_type != CONTENT_TYPE:
        return None
    try:
        value = parse_json(payload, PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX)
        return _read_proposed(value) if event_type == "Proposed" else _read_chosen(value)
    except Malformed:
        return None


def _read_proposed(value: JsonValue) -> Entry | None:
    match value:
        case {"candidate": str(candidate), "utility": int(utility), **rest} if (
            # True is no number, though Python counts it among its integers.
            not rest and type(utility) is int and -UTILITY_MAX <= utility <= UTILITY_MAX
        ):
            data = _utf8(candidate)
            if data is not None and 1 <= len(data) <= CANDIDATE_BYTES_MAX:
                return Proposed(candidate, sha256(data), utility)
    return None


def _read_chosen(value: JsonValue) -> Entry | None:
    match value:
        case {"candidate": str(candidate), **rest} if not rest:
            return Chosen(parse_hash(candidate))
    return None


def _utf8(text: str) -> bytes | None:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return None


# Validators ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Standing:
    """The session's one item: 32 bytes chair, u64 proposed, u8 closed, u64 utility + 2^53, 32 bytes
    digest of the choice.
    """

    chair: bytes
    proposed: int
    closed: bool
    utility: int
    digest: bytes

    def encode(self) -> bytes:
        offset = u64(self.utility + UTILITY_MAX + 1)
        return self.chair + u64(self.proposed) + u8(self.closed) + offset + self.digest

    def after(self, entry: Proposed) -> _Standing:
        utility, digest = self.utility, self.digest
        new = rank(entry.utility, entry.digest)
        if self.proposed == 0 or new < rank(utility, digest):
            utility, digest = entry.utility, entry.digest
        return _Standing(self.chair, self.proposed + 1, False, utility, digest)

    def ended(self) -> _Standing:
        return _Standing(self.chair, self.proposed, True, self.utility, self.digest)


def _standing_of(item: bytes | None, author: bytes, sequence: int) -> _Standing:
    if item is None:
        return _Standing(author if sequence == 1 else _NOBODY, 0, False, 0, bytes(32))
    return _Standing(
        item[:32],
        int.from_bytes(item[32:40], "big"),
        item[40] == 1,
        int.from_bytes(item[41:49], "big") - UTILITY_MAX - 1,
        item[49:],
    )


# Readers ---------------------------------------------------------------------------------------


def _utility(candidates: dict[str, JsonValue], name: str, sequence: int) -> int | None:
    match candidates.get(name):
        case None:
            return None
        case {"utility": int(utility)}:
            return utility
    raise FoldError(f"state of proposals at event {sequence}: expected a utility of {name}")


def _chosen(
    candidates: dict[str, JsonValue], choice: JsonValue, name: str, sequence: int
) -> JsonValue:
    """The choice when the candidate of this name is new or worth more: that one, or as before."""
    if not isinstance(choice, str) or choice == name:
        return name
    before, now = (_utility(candidates, one, sequence) for one in (choice, name))
    if before is None or now is None or not is_hash(choice):
        raise FoldError(f"state of proposals at event {sequence}: expected {choice} proposed")
    return min((rank(before, parse_hash(choice)), choice), (rank(now, parse_hash(name)), name))[1]


PROPOSALS: Final = Proposals()
