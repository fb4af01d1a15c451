"""What `validators` shows: each validator as it says itself, and whether there is a quorum. Pure.

Rules: docs/guides/cli.md. Nobody is believed more than that: a validator's answer is its own word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final, TypeAlias

from rich.console import RenderableType
from rich.text import Text

from nocturne.cli.screen import Cell, Column, plain, table
from nocturne.cli.words import count_text
from nocturne.client.validators import Certificate, Mode, Peer, Role, Validator
from nocturne.core.identifiers import LedgerId, format_hash
from nocturne.core.strict_json import JsonValue

CAUSE_CHARACTERS_MAX: Final = 80
"""Of a cause in the table; `--json` has all of it."""

_COLUMNS: Final = (
    Column("validator", "bold"),
    Column("state"),
    Column("view", justify="right"),
    Column("height", justify="right"),
    Column("behind", justify="right"),
    Column("peers", justify="right"),
    Column("round trip", justify="right"),
    Column("skipped", justify="right"),
    Column("evidence", justify="right"),
)
_WORDS: Final[Mapping[Role, str]] = {
    Role.STARTING: "starts",
    Role.LEADER: "leads",
    Role.FOLLOWER: "follows",
    Role.OBSERVER: "observes",
    Role.REFUSING: "refuses to vote",
    Role.HALTED: "halted",
}
_STYLES: Final[Mapping[Role, str]] = {
    Role.STARTING: "yellow",
    Role.OBSERVER: "dim",
    Role.REFUSING: "red",
    Role.HALTED: "red",
}
_VOTING: Final = frozenset({Role.LEADER, Role.FOLLOWER})


@dataclass(frozen=True, slots=True)
class Asked:
    """One validator that was asked: what it said, or why it did not answer: with `halted` because
    it has halted, for the cause that `problem` is.
    """

    name: str
    address: str
    said: Validator | None
    problem: str | None = None
    halted: bool = False


@dataclass(frozen=True, slots=True)
class Quorum:
    """Of `validators` in the set `needed` must vote. `voting` do, among those that were asked;
    `unasked` are in the set and were not. All are 0 when nobody said how many there are.
    """

    validators: int
    needed: int
    voting: int
    unasked: int

    @property
    def reached(self) -> bool | None:
        """Whether a quorum votes; None when it turns on those that were not asked."""
        if self.needed and self.voting >= self.needed:
            return True
        if self.needed and self.voting + self.unasked >= self.needed:
            return None
        return False

    @property
    def may_fail(self) -> int:
        """How many more may stop voting, of those seen voting."""
        return max(0, self.voting - self.needed) if self.needed else 0


@dataclass(frozen=True, slots=True)
class Seen:
    """What all said at once. `home` is None for a ledger that runs elsewhere."""

    home: Path | None
    ledger_id: LedgerId
    asked: tuple[Asked, ...]

    @property
    def highest(self) -> int:
        """The newest height that anyone of the ledger has."""
        return max((one.height for one in self._ours()), default=0)

    @property
    def quorum(self) -> Quorum:
        """By the set that most of them name, so that a liar's word is not the measure; a validator
        that has two addresses counts once.
        """
        ours = self._ours()
        if not ours:
            return Quorum(0, 0, 0, 0)
        named = Counter((one.validators, one.quorum) for one in ours)
        validators, needed = max(named, key=lambda sizes: (named[sizes], sizes))
        places = {one.key_id for one in ours if one.index is not None}
        voting = {one.key_id for one in ours if is_voting(one)}
        silent = sum(one.said is None for one in self.asked)
        # Whoever did not answer is one of those in the set that we have not heard.
        unasked = max(0, validators - len(places) - silent)
        return Quorum(validators, needed, len(voting), unasked)

    @property
    def degraded(self) -> str | None:
        """Why the ledger is degraded, by the first that says so."""
        for one in self._ours():
            if one.mode is Mode.DEGRADED:
                return one.mode_cause or "no cause was given"
        return None

    @property
    def passing(self) -> str | None:
        """Why nothing is certified now, as long as no quorum says that all is well; None if nobody
        says anything else, or so many do. One that is cut off, or lies, is not the ledger.
        """
        well = [one for one in self._ours() if one.mode is Mode.SYNC_WS and is_voting(one)]
        quorum = self.quorum
        if quorum.needed and len({one.key_id for one in well}) >= quorum.needed:
            return None
        return self.degraded

    def _ours(self) -> list[Validator]:
        said = (one.said for one in self.asked)
        return [one for one in said if one is not None and one.ledger_id == self.ledger_id]


def is_voting(said: Validator) -> bool:
    """Whether its votes can be part of a certificate: it votes, and it and those of the set that
    it is connected with are a quorum.
    """
    heard = 1 + sum(peer.connected and peer.index is not None for peer in said.peers)
    return said.role in _VOTING and said.index is not None and heard >= said.quorum


def quorum_text(quorum: Quorum) -> str:
    """The one line that answers whether the ledger goes on."""
    if not quorum.needed:
        return "No quorum: no validator of this ledger answers."
    of_all = f"{quorum.voting} of {count_text(quorum.validators, 'validator')}"
    votes = f"{of_all} {'votes' if quorum.voting == 1 else 'vote'}"
    match quorum.reached:
        case True:
            more = f"{quorum.may_fail} more may fail" if quorum.may_fail else "none may fail"
            return f"Quorum: {votes}, {quorum.needed} needed; {more}."
        case None:
            return (
                f"Unknown whether there is a quorum: {votes}, {quorum.needed} needed, and "
                f"{quorum.unasked} in the set were not asked."
            )
        case False:
            return (
                f"No quorum: {votes}, {quorum.needed} needed; {quorum.needed - quorum.voting} more "
                "must vote again. Nothing is certified until then; what is certified stays."
            )


# For people ------------------------------------------------------------------------------------


def validators_parts(seen: Seen) -> Iterator[RenderableType]:
    """What a person sees, part by part."""
    yield Text.assemble(("ledger ", "dim"), (format_hash(seen.ledger_id), "bold"))
    yield table(_COLUMNS, (_row(seen, one) for one in seen.asked))
    if seen.degraded is not None:
        yield Text(f"DEGRADED: {plain(seen.degraded)}", style="red")
    for line in _evidence(seen):
        yield Text(line, style="yellow")
    reached = seen.quorum.reached
    style = {True: "green", None: "yellow", False: "bold red"}[reached]
    yield Text(quorum_text(seen.quorum), style=style)


Row: TypeAlias = list[str | Cell]


def _row(seen: Seen, asked: Asked) -> Row:
    said = asked.said
    empty: Row = [""] * (len(_COLUMNS) - 2)
    if said is None:
        word = _WORDS[Role.HALTED] if asked.halted else "unreachable"
        return [asked.name, Cell(_clause(word, asked.problem or ""), "red"), *empty]
    if said.ledger_id != seen.ledger_id:
        return [asked.name, Cell("serves another ledger", "red"), *empty]
    behind = seen.highest - said.height
    others = [peer for peer in said.peers if peer.index is not None]
    connected = sum(peer.connected for peer in others)
    all_there = connected == len(others)
    return [
        asked.name,
        _state(said),
        str(said.view),
        str(said.height),
        Cell(str(behind), "yellow" if behind else "dim"),
        Cell(f"{connected}/{len(others)}", "dim" if all_there else "yellow"),
        _round_trip(said.peers),
        str(said.skipped_views),
        Cell(str(said.evidence_count), "yellow" if said.evidence_count else "dim"),
    ]


def _state(said: Validator) -> Cell:
    if said.role in _VOTING and not is_voting(said):
        return Cell("cut off from the quorum", "red")
    return Cell(_clause(_WORDS[said.role], said.role_cause), _STYLES.get(said.role, "green"))


def _clause(word: str, cause: str) -> str:
    if len(cause) > CAUSE_CHARACTERS_MAX:
        cause = cause[: CAUSE_CHARACTERS_MAX - 1] + "…"
    return f"{word}: {plain(cause)}" if cause else word


def _round_trip(peers: Sequence[Peer]) -> str:
    """The median over the peers that are connected."""
    times = [peer.rtt_ms for peer in peers if peer.connected and peer.rtt_ms is not None]
    return f"{median(times):.1f} ms" if times else ""


def _evidence(seen: Seen) -> Iterator[str]:
    """Each newest piece once, with who has it: validators tell each other what they find."""
    holders: dict[str, list[str]] = {}
    for one in seen.asked:
        if one.said is not None:
            for piece in dict.fromkeys(one.said.evidence):
                holders.setdefault(piece, []).append(one.name)
    for piece, names in holders.items():
        yield f"evidence: {plain(piece)} ({', '.join(names)})"


# For programs ----------------------------------------------------------------------------------


def validators_json(seen: Seen) -> JsonValue:
    """The one object of `validators --json`."""
    quorum = seen.quorum
    return {
        "home": None if seen.home is None else str(seen.home),
        "ledgerId": format_hash(seen.ledger_id),
        "quorum": {
            "reached": quorum.reached,
            "validators": quorum.validators,
            "needed": quorum.needed,
            "voting": quorum.voting,
            "unasked": quorum.unasked,
            "mayFail": quorum.may_fail,
        },
        "degraded": seen.degraded,
        "height": seen.highest,
        "validators": [_asked_json(seen, one) for one in seen.asked],
    }


def _asked_json(seen: Seen, asked: Asked) -> JsonValue:
    said = asked.said
    named: dict[str, JsonValue] = {
        "name": asked.name,
        "address": asked.address,
        "reachable": said is not None,
        "problem": asked.problem,
        "halted": asked.halted or (said is not None and said.role is Role.HALTED),
    }
    if said is None:
        return named
    return {
        **named,
        "ledgerId": _sha256(said.ledger_id),
        "index": said.index,
        "keyId": _sha256(said.key_id),
        "role": said.role.value,
        "roleCause": said.role_cause or None,
        "voting": is_voting(said),
        "mode": said.mode.value,
        "modeCause": said.mode_cause or None,
        "validators": said.validators,
        "quorum": said.quorum,
        "recovery": said.recovery,
        "epoch": said.epoch,
        "view": said.view,
        "leader": said.leader,
        "height": said.height,
        "behind": max(0, seen.highest - said.height),
        "publishedHeight": said.published_height,
        "newestCertificate": _certificate_json(said.newest_certificate),
        "skippedViews": said.skipped_views,
        "evidence": {"count": said.evidence_count, "newest": list(said.evidence)},
        "peers": [_peer_json(peer) for peer in said.peers],
        "journalBytes": said.journal_bytes,
    }


def _certificate_json(newest: Certificate | None) -> JsonValue:
    if newest is None:
        return None
    return {"kind": newest.kind.value, "view": newest.view, "digest": _sha256(newest.digest)}


def _peer_json(peer: Peer) -> JsonValue:
    return {
        "index": peer.index,
        "keyId": _sha256(peer.key_id),
        "address": peer.address or None,
        "connected": peer.connected,
        "rttMs": peer.rtt_ms,
        "sent": peer.sent,
        "received": peer.received,
        "dropped": peer.dropped,
        "lastError": peer.last_error or None,
    }


def _sha256(data: bytes | None) -> str | None:
    return None if data is None else f"sha256-{data.hex()}"
