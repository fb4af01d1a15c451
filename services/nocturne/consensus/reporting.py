"""What a validator says of itself, put together. Pure.

Rules: docs/spec/services.md, consensus. The process brings what it knows; what it noticed on its
way is counted here since it began.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from nocturne.consensus.quorum.leaders import LeaderSchedule
from nocturne.consensus.quorum.machine import Machine
from nocturne.consensus.quorum.messages import Accuse, Committed, Vote
from nocturne.consensus.validator_servicer import (
    EVIDENCE_MAX,
    CertificateReport,
    PeerReport,
    ReportedKind,
    ReportedRole,
    ValidatorReport,
)
from nocturne.core.certificates import Certificate, Epoch, ValidatorSet, VoteKind
from nocturne.core.identifiers import LedgerId
from nocturne.core.keys import Key, key_id
from nocturne.core.modes import Degraded

_KINDS: Final = {
    VoteKind.NOTARIZE: ReportedKind.NOTARIZATION,
    VoteKind.NULLIFY: ReportedKind.NULLIFICATION,
    VoteKind.FINALIZE: ReportedKind.FINALIZATION,
}
_VERBS: Final = {
    VoteKind.NOTARIZE: "notarized",
    VoteKind.NULLIFY: "nullified",
    VoteKind.FINALIZE: "finalized",
}


class Noticed:
    """The newest certificate, views given up, and evidence, since the process began."""

    def __init__(self) -> None:
        self.newest: Certificate | None = None
        self.skipped_views = 0
        self.evidence_count = 0
        self.evidence: deque[str] = deque(maxlen=EVIDENCE_MAX)

    def kept(self, record: object) -> None:
        """Something is kept in the journal for the first time."""
        match record:
            case Certificate():
                self.skipped_views += record.kind is VoteKind.NULLIFY
                self._take(record)
            case Committed():
                self._take(record.proof.finalization)
            case _:
                pass

    def accused(self, accusation: Accuse) -> None:
        """A validator signed two things that no correct one signs both."""
        self.evidence_count += 1
        self.evidence.appendleft(evidence_text(accusation))

    def _take(self, certificate: Certificate) -> None:
        if self.newest is None or _place(certificate) >= _place(self.newest):
            self.newest = certificate


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a validator stands. `cause` is why it does not vote yet, None once it does; `lost` why
    its intake stands, None while it does not; heights are of blocks, bytes of the journal.
    """

    machine: Machine
    schedule: LeaderSchedule
    cause: str | None
    lost: str | None
    height: int
    published_height: int
    journal_bytes: int


def report_of(
    ledger_id: LedgerId,
    key: Key,
    validators: ValidatorSet,
    peers: Sequence[PeerReport],
    noticed: Noticed,
    standing: Standing | None,
    cause: str,
    saw_another_log: Callable[[tuple[Key, ...]], int] = lambda _: 0,
) -> ValidatorReport:
    """The report. Without `standing`, of one that recovers its journal (`validators` is genesis's
    set then), or will never vote: `cause` says which, and is empty if it only recovers.
    `saw_another_log` counts those of a set that have halted for it, as they said. An observer, whom
    nobody talks to, does not say that a quorum is missing.
    """
    own = _index(validators, key)
    machine = None if standing is None else standing.machine
    current = validators if machine is None else machine.validators
    index = own if machine is None else machine.index
    leader = None
    if machine is not None and standing is not None:
        leader = standing.schedule.leader(machine.epoch, machine.view, len(current.keys))
    role, why = _role(index, leader, standing, cause)
    return ValidatorReport(
        ledger_id=ledger_id,
        key_id=key_id(key),
        index=index,
        role=role,
        role_cause=why,
        validators=len(current.keys),
        quorum=current.quorum,
        recovery=0 if machine is None else machine.epoch.recovery,
        epoch=0 if machine is None else machine.epoch.number,
        view=0 if machine is None else machine.view,
        leader=leader,
        height=0 if standing is None else standing.height,
        published_height=0 if standing is None else standing.published_height,
        degraded_cause=(
            None
            if machine is None or index is None
            else _want_of_a_quorum(
                current,
                index,
                peers,
                saw_another_log(current.keys),
                standing is not None and standing.lost is not None,
            )
        ),
        newest_certificate=_certificate(noticed.newest),
        skipped_views=noticed.skipped_views,
        evidence_count=noticed.evidence_count,
        evidence=tuple(noticed.evidence),
        peers=tuple(sorted(peers, key=lambda one: (one.index is None, one.index or 0))),
        journal_bytes=0 if standing is None else standing.journal_bytes,
    )


def degraded_report(report: ValidatorReport, kept: Degraded | None) -> ValidatorReport:
    """The same, of a validator that keeps why the ledger is DEGRADED, if it does: it votes no more,
    and whatever passes is not shown.
    """
    if kept is None:
        return report
    is_member = report.index is not None
    return replace(
        report,
        role=ReportedRole.REFUSING if is_member else ReportedRole.OBSERVER,
        role_cause="the ledger is DEGRADED",
        leader=None,
        degraded_cause=str(kept),
    )


def place_of(validators: ValidatorSet, key: Key | None) -> int | None:
    """A key's place in the set; None if it has none, or is not known."""
    return None if key is None else _index(validators, key)


def evidence_text(accusation: Accuse) -> str:
    """Who signed which two things, as one clause."""
    first, second = accusation.first, accusation.second
    who = f"validator {accusation.validator}"
    if isinstance(first, Vote) and isinstance(second, Vote):
        if first.kind is second.kind:
            return f"{who} {_VERBS[first.kind]} two blocks in view {first.view}"
        return f"{who} {_VERBS[first.kind]} and {_VERBS[second.kind]} view {first.view}"
    view = first.view if isinstance(first, Vote) else first.header.view
    return f"{who} proposed two blocks in view {view}"


def _want_of_a_quorum(
    validators: ValidatorSet,
    index: int,
    peers: Sequence[PeerReport],
    saw_another_log: int,
    stands: bool,
) -> str | None:
    """Why nothing is certified as this one sees it; it lasts only while it lasts. None if enough
    of the set are here, this one counted, and take records. Where those that halted would make the
    quorum, it is by what they read that it is lost; likewise where the intake of too many `stands`.
    """
    here = {one.index for one in peers if one.connected and one.index is not None} | {index}
    lost, n = saw_another_log + stands, len(validators.keys)
    if len(here) >= validators.quorum:
        if n - lost >= validators.quorum:
            return None
        return (
            f"rewritten log at {lost} of {n} validators, which take no records of it, as they say: "
            f"{validators.quorum} are needed"
        )
    if len(here) + saw_another_log >= validators.quorum:
        return (
            f"rewritten log at {saw_another_log} of {len(validators.keys)} validators, which "
            f"halted, as they said: {len(here)} are here, {validators.quorum} are needed"
        )
    return (
        f"want of a quorum: {len(here)} of {len(validators.keys)} validators are here, "
        f"{validators.quorum} are needed"
    )


def _role(
    index: int | None, leader: int | None, standing: Standing | None, cause: str
) -> tuple[ReportedRole, str]:
    if cause:
        return (ReportedRole.OBSERVER if index is None else ReportedRole.REFUSING), cause
    if standing is None:
        return ReportedRole.STARTING, "recovers its journal"
    if standing.cause is not None:
        return ReportedRole.STARTING, standing.cause
    if index is None:
        return ReportedRole.OBSERVER, "its key is not in the set"
    role = ReportedRole.LEADER if index == leader else ReportedRole.FOLLOWER
    return role, "" if standing.lost is None else f"its intake stands: {standing.lost}"


def _certificate(newest: Certificate | None) -> CertificateReport | None:
    if newest is None:
        return None
    digest = None if newest.kind is VoteKind.NULLIFY else newest.digest
    return CertificateReport(_KINDS[newest.kind], newest.view, digest)


def _place(certificate: Certificate) -> tuple[Epoch, int, VoteKind]:
    return certificate.epoch, certificate.view, certificate.kind


def _index(validators: ValidatorSet, key: Key) -> int | None:
    return validators.keys.index(key) if key in validators.keys else None
