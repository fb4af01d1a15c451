"""A validator's report: what it does, why not, and what it noticed."""

from __future__ import annotations

import pytest

from nocturne.consensus.quorum.leaders import RoundRobin
from nocturne.consensus.quorum.machine import Machine
from nocturne.consensus.quorum.messages import Accuse, Rules, Suites, Vote
from nocturne.consensus.quorum.pacing import Doubling
from nocturne.consensus.reporting import Noticed, Standing, degraded_report, place_of, report_of
from nocturne.consensus.validator_servicer import (
    CertificateReport,
    PeerReport,
    ReportedKind,
    ReportedRole,
    ValidatorReport,
)
from nocturne.core.certificates import Certificate, Epoch, ValidatorSet, VoteKind
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.keys import Ed25519Signer, key_id
from nocturne.core.modes import Cause, Degraded

LEDGER = LedgerId(b"\x01" * 32)
EPOCH = Epoch(0, 0)
SIGNERS = [Ed25519Signer(bytes([number]) * 32) for number in range(1, 5)]
SET = ValidatorSet.of([one.key for one in SIGNERS])
STRANGER = Ed25519Signer(b"\x63" * 32)
DIGEST = Hash(b"\x0a" * 32)


def machine_of(signer: Ed25519Signer) -> Machine:
    return Machine(
        Rules(LEDGER, 100, 1000),
        [(EPOCH, SET), (Epoch(0, 1), SET)],
        Suites(signer),
        RoundRobin(),
        Doubling(500),
        signer.key,
        None,
    )


def report(
    signer: Ed25519Signer,
    *,
    stands: bool = True,
    waits: str | None = None,
    lost: str | None = None,
    cause: str = "",
    noticed: Noticed | None = None,
    peers: tuple[PeerReport, ...] = (),
    saw_another_log: int = 0,
) -> ValidatorReport:
    standing = (
        Standing(machine_of(signer), RoundRobin(), waits, lost, 7, 6, 100) if stands else None
    )
    return report_of(
        LEDGER,
        signer.key,
        SET,
        peers,
        noticed or Noticed(),
        standing,
        cause,
        lambda _: saw_another_log,
    )


def test_the_first_view_is_led_by_the_first_validator_and_followed_by_the_others() -> None:
    roles = [report(one).role for one in SIGNERS]
    assert roles == [ReportedRole.LEADER, *[ReportedRole.FOLLOWER] * 3]
    found = report(SIGNERS[2])
    assert (found.index, found.leader, found.view, found.epoch) == (2, 0, 1, 0)
    assert (found.validators, found.quorum) == (4, 3)
    assert (found.height, found.published_height, found.journal_bytes) == (7, 6, 100)
    assert found.key_id == key_id(SIGNERS[2].key)


def test_a_key_that_is_not_in_the_set_observes() -> None:
    found = report(STRANGER)
    assert (found.index, found.role) == (None, ReportedRole.OBSERVER)
    assert found.role_cause == "its key is not in the set"


def test_before_it_votes_it_says_what_it_waits_for() -> None:
    found = report(SIGNERS[0], waits="asks the others")
    assert (found.role, found.role_cause) == (ReportedRole.STARTING, "asks the others")
    found = report(SIGNERS[0], stands=False)
    assert (found.role, found.role_cause) == (ReportedRole.STARTING, "recovers its journal")
    assert (found.index, found.validators, found.view) == (0, 4, 0)


def test_a_key_of_the_set_without_its_journal_refuses_to_vote() -> None:
    found = report(SIGNERS[1], stands=False, cause="its journal is gone")
    assert (found.role, found.role_cause) == (ReportedRole.REFUSING, "its journal is gone")
    assert report(STRANGER, stands=False, cause="gone").role is ReportedRole.OBSERVER


def test_a_validator_whose_intake_stands_votes_and_says_why_it_takes_no_records() -> None:
    found = report(SIGNERS[0], lost="the topic was made anew")
    assert found.role is ReportedRole.LEADER
    assert found.role_cause == "its intake stands: the topic was made anew"


def test_where_too_many_take_no_records_the_ledger_is_degraded_for_a_rewritten_log() -> None:
    others = connected(1, 2, 3)
    one = report(SIGNERS[0], peers=others, lost="made anew")
    assert one.degraded_cause is None
    two = report(SIGNERS[0], peers=others, lost="made anew", saw_another_log=1)
    assert two.degraded_cause == (
        "rewritten log at 2 of 4 validators, which take no records of it, as they say: 3 are needed"
    )
    assert report(SIGNERS[0], peers=others, saw_another_log=2).degraded_cause is not None
    assert report(SIGNERS[0], peers=others, saw_another_log=1).degraded_cause is None


def test_peers_stand_by_their_places_and_observers_last() -> None:
    peers = tuple(PeerReport(at, None, "", True, None, 0, 0, 0) for at in (3, None, 0, 2))
    assert [one.index for one in report(SIGNERS[1], peers=peers).peers] == [0, 2, 3, None]
    assert place_of(SET, SIGNERS[3].key) == 3
    assert place_of(SET, STRANGER.key) is None
    assert place_of(SET, None) is None


def certificate(kind: VoteKind, view: int) -> Certificate:
    return Certificate(kind, EPOCH, SET.hash, view, DIGEST, ())


def test_the_newest_certificate_and_views_given_up_are_noticed() -> None:
    noticed = Noticed()
    assert report(SIGNERS[0], noticed=noticed).newest_certificate is None
    noticed.kept(certificate(VoteKind.FINALIZE, 5))
    noticed.kept(certificate(VoteKind.NULLIFY, 6))
    noticed.kept(certificate(VoteKind.NOTARIZE, 4))
    noticed.kept("something else that is kept")
    found = report(SIGNERS[0], noticed=noticed)
    assert found.newest_certificate == CertificateReport(ReportedKind.NULLIFICATION, 6, None)
    assert found.skipped_views == 1
    noticed.kept(certificate(VoteKind.NOTARIZE, 7))
    noticed.kept(certificate(VoteKind.FINALIZE, 7))
    noticed.kept(certificate(VoteKind.NOTARIZE, 7))
    found = report(SIGNERS[0], noticed=noticed)
    assert found.newest_certificate == CertificateReport(ReportedKind.FINALIZATION, 7, DIGEST)


def vote(kind: VoteKind, view: int = 9) -> Vote:
    return Vote(3, kind, EPOCH, view, DIGEST, ())


@pytest.mark.parametrize(
    "first, second, said",
    [
        (VoteKind.NOTARIZE, VoteKind.NOTARIZE, "validator 3 notarized two blocks in view 9"),
        (VoteKind.FINALIZE, VoteKind.NULLIFY, "validator 3 finalized and nullified view 9"),
    ],
)
def test_evidence_is_told_in_words(first: VoteKind, second: VoteKind, said: str) -> None:
    noticed = Noticed()
    noticed.accused(Accuse(3, vote(first), vote(second)))
    found = report(SIGNERS[0], noticed=noticed)
    assert (found.evidence_count, found.evidence) == (1, (said,))


def test_of_evidence_the_newest_pieces_are_told_first_and_all_are_counted() -> None:
    noticed = Noticed()
    for view in range(1, 41):
        same = vote(VoteKind.NOTARIZE, view)
        noticed.accused(Accuse(3, same, same))
    found = report(SIGNERS[0], noticed=noticed)
    assert found.evidence_count == 40
    assert len(found.evidence) == 16
    assert found.evidence[0] == "validator 3 notarized two blocks in view 40"


def connected(*indexes: int | None) -> tuple[PeerReport, ...]:
    return tuple(
        PeerReport(index, None, "127.0.0.1:1", True, 1.0, 0, 0, 0, "") for index in indexes
    )


def test_while_too_few_are_here_the_ledger_is_degraded_for_want_of_a_quorum() -> None:
    alone = report(SIGNERS[0], peers=connected(1, None, None))
    assert alone.degraded_cause == ("want of a quorum: 2 of 4 validators are here, 3 are needed")
    assert report(SIGNERS[0], peers=connected(1, 2)).degraded_cause is None
    assert report(SIGNERS[0], peers=connected(1, 1, 0)).degraded_cause is not None
    watching = report(STRANGER, peers=connected(0, 1, 3))
    assert watching.degraded_cause is None
    # Nobody talks to an observer: that it misses them all says nothing of the ledger.
    assert report(STRANGER).degraded_cause is None
    assert report(SIGNERS[0], stands=False).degraded_cause is None


def test_a_quorum_that_is_lost_to_validators_that_halted_over_the_log_has_that_cause() -> None:
    lost = report(SIGNERS[0], peers=connected(1), saw_another_log=2)
    assert lost.degraded_cause == (
        "rewritten log at 2 of 4 validators, which halted, as they said: 2 are here, 3 are needed"
    )
    enough = report(SIGNERS[0], peers=connected(1, 2), saw_another_log=1)
    assert enough.degraded_cause is None
    otherwise = report(SIGNERS[0], peers=connected(), saw_another_log=1)
    assert (otherwise.degraded_cause or "").startswith("want of a quorum")


def test_what_is_kept_is_reported_whatever_else_is_and_nobody_votes_on_it() -> None:
    kept = Degraded(Cause.CONFLICTING_COMMIT_PROOFS, "two certified blocks at height 7")
    for one in (report(SIGNERS[0]), report(SIGNERS[0], peers=connected(1)), report(STRANGER)):
        found = degraded_report(one, kept)
        assert found.degraded_cause == f"CONFLICTING_COMMIT_PROOFS: {kept.text}"
        assert (found.role_cause, found.leader) == ("the ledger is DEGRADED", None)
        assert degraded_report(one, None) == one
    assert degraded_report(report(SIGNERS[0]), kept).role is ReportedRole.REFUSING
    assert degraded_report(report(STRANGER), kept).role is ReportedRole.OBSERVER
