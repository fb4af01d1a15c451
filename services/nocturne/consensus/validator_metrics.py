"""What Prometheus is told of one validator among the others: the same report that `GetValidator`
answers with.
"""

from __future__ import annotations

from nocturne.consensus.validator_servicer import PeerReport, ReportedRole, ValidatorReport
from nocturne.runtime.telemetry import Metrics

_VOTING = frozenset({ReportedRole.LEADER, ReportedRole.FOLLOWER})


class ValidatorMeasures:
    """Gauges of the newest report; all 0 before the first."""

    def __init__(self, metrics: Metrics) -> None:
        self._validators = metrics.gauge("validators", "Validators in the epoch's set")
        self._quorum = metrics.gauge("quorum", "Votes that make a certificate")
        self._voting = metrics.gauge(
            "voting", "1 while it votes and hears enough of the set for a quorum"
        )
        self._epoch = metrics.gauge("epoch", "Number of the epoch")
        self._view = metrics.gauge("view", "Current view of the epoch")
        self._skipped = metrics.gauge(
            "skipped_views", "Views that were given up since the process began"
        )
        self._degraded = metrics.gauge(
            "degraded", "1 while the ledger is DEGRADED, as this validator has it"
        )

    def set(self, report: ValidatorReport) -> None:
        """The newest report."""
        self._validators.set(report.validators)
        self._quorum.set(report.quorum)
        self._voting.set(votes(report))
        self._epoch.set(report.epoch)
        self._view.set(report.view)
        self._skipped.set(report.skipped_views)
        self._degraded.set(report.degraded_cause is not None)


def votes(report: ValidatorReport) -> bool:
    """Whether its votes can be part of a certificate: it votes, and it and those of the set that
    it is connected with are a quorum.
    """
    heard = 1 + sum(peer.connected for peer in _others(report))
    return report.role in _VOTING and report.index is not None and heard >= report.quorum


def _others(report: ValidatorReport) -> list[PeerReport]:
    return [peer for peer in report.peers if peer.index is not None]
