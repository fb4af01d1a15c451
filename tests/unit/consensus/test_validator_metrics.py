"""The gauges of a validator say what its report says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.unit.consensus.test_validator_servicer import PEER, REPORT

from nocturne.consensus.validator_metrics import ValidatorMeasures, votes
from nocturne.consensus.validator_servicer import ReportedRole
from nocturne.runtime.telemetry import Metrics

WELL = replace(REPORT, peers=tuple(replace(PEER, index=at, rtt_ms=2.0 * at) for at in (0, 2, 3)))


def test_a_report_becomes_gauges_and_the_next_one_takes_its_place() -> None:
    metrics = Metrics("consensus")
    measures = ValidatorMeasures(metrics)

    def value(name: str) -> float | None:
        return metrics.registry.get_sample_value(f"nocturne_consensus_{name}")

    assert value("quorum") == 0.0
    measures.set(WELL)
    assert (value("validators"), value("quorum"), value("voting")) == (4.0, 3.0, 1.0)
    assert (value("epoch"), value("view"), value("skipped_views")) == (2.0, 70.0, 5.0)
    assert value("degraded") == 0.0
    measures.set(replace(REPORT, degraded_cause="no quorum", peers=WELL.peers[:1]))
    assert (value("voting"), value("degraded")) == (0.0, 1.0)


@pytest.mark.parametrize("role", ReportedRole)
def test_a_validator_votes_as_leader_or_follower_that_hears_a_quorum(role: ReportedRole) -> None:
    voting = role in (ReportedRole.LEADER, ReportedRole.FOLLOWER)
    assert votes(replace(WELL, role=role)) == voting
    assert votes(replace(WELL, role=role, peers=WELL.peers[:2])) == voting
    assert not votes(replace(WELL, role=role, peers=WELL.peers[:1]))
    assert not votes(replace(WELL, role=role, index=None))
    observers = tuple(replace(peer, index=None) for peer in WELL.peers)
    assert not votes(replace(WELL, role=role, peers=observers))
