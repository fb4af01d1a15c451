"""From what the machine accuses a validator of to evidence that convinces anyone. Pure.

Rules: docs/spec/evidence.md.
"""

from __future__ import annotations

from nocturne.consensus.quorum.messages import Accuse, Proposal, Vote
from nocturne.core.certificates import ValidatorSet
from nocturne.core.evidence import Evidence, SignedProposal, SignedVote, in_order
from nocturne.core.identifiers import LedgerId


def evidence_of(accuse: Accuse, ledger_id: LedgerId, validators: ValidatorSet) -> Evidence:
    """The record of the evidence topic; `validators` is the set in which the step began."""
    one = accuse.first
    place = one.header if isinstance(one, Proposal) else one
    first, second = in_order(_statement(accuse.first), _statement(accuse.second))
    return Evidence(
        ledger_id, place.epoch, validators.hash, place.view, accuse.validator, first, second
    )


def _statement(said: Vote | Proposal) -> SignedVote | SignedProposal:
    if isinstance(said, Proposal):
        return SignedProposal(said.header_bytes, said.signatures)
    return SignedVote(said.kind, said.digest, said.signatures)
