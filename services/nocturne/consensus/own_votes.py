"""Votes that others hold: what a validator asks for at its start, and what it answers.

Rules: docs/spec/quorum.md §9. A validator whose log was put back from an older copy would vote a
second time in views that it voted in. Before its first vote it asks the others for its own newest
votes, and votes once a quorum, itself counted, has answered and its log has every one. A vote in an
epoch whose set an older copy does not know yet shows itself once that set is decided here. A
rollback that none of those who answer can show is not detected. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from nocturne.consensus.quorum.messages import Vote
from nocturne.core.certificates import Ballot, Certificate, Epoch, ValidatorSet, vote_signed
from nocturne.core.errors import Halt, Malformed
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.keys import Key
from nocturne.core.validator_sets import ValidatorSets

KEYS_MAX: Final = 256
"""Keys whose votes are held; a set has fewer, and keys that left go first."""


def place_of(vote: Vote) -> tuple[Epoch, int]:
    """Votes in the order in which one validator casts them."""
    return vote.epoch, vote.view


class HeardVotes:
    """The newest vote of each kind that is held of each validator."""

    def __init__(self) -> None:
        self._votes: dict[Key, dict[int, Vote]] = {}

    def take(self, key: Key, vote: Vote) -> bool:
        """Hold a vote that came from its own validator, or stands in a certificate; whether it is
        the newest of its kind. A validator that lies about its own votes harms itself alone.
        """
        held = self._votes.pop(key, {})
        self._votes[key] = held
        if len(self._votes) > KEYS_MAX:
            del self._votes[next(iter(self._votes))]
        known = held.get(vote.kind)
        if known is not None and place_of(known) >= place_of(vote):
            return False
        held[vote.kind] = vote
        return True

    def take_of(self, sets: ValidatorSets, vote: Vote) -> bool:
        """As `take`, of a vote that is known to be its validator's; no set, no vote."""
        try:
            keys = sets.of(vote.epoch.number).keys
        except Malformed:
            return False
        return vote.validator < len(keys) and self.take(keys[vote.validator], vote)

    def take_certificate(self, sets: ValidatorSets, certificate: Certificate) -> list[Vote]:
        """As `take` for all whose votes a certificate has; those that are the newest."""
        found = []
        for index, signatures in certificate.votes:
            vote = Vote(
                index,
                certificate.kind,
                certificate.epoch,
                certificate.view,
                certificate.digest,
                signatures,
            )
            if self.take_of(sets, vote):
                found.append(vote)
        return found

    def of(self, key: Key) -> tuple[Vote, ...]:
        """The newest vote of each kind."""
        return tuple(self._votes.get(key, {}).values())


class VoteCheck:
    """Whether the own log has all the votes that others hold of this validator."""

    def __init__(
        self,
        ledger_id: LedgerId,
        validators: ValidatorSet,
        own_key: Key,
        settled: tuple[Epoch, int],
        own_votes: Iterable[Vote],
        later: Sequence[ValidatorSet] = (),
    ) -> None:
        """`settled`: the epoch and view up to which the log says that all is committed: nothing is
        voted on there again. `own_votes` are those that the log has above it; `later` the sets of
        the epochs to come, for votes that an older copy of the log knows nothing of.
        """
        self._ledger_id = ledger_id
        self._validators = validators
        self._hashes = {one.hash for one in (validators, *later)}
        self._own_key = own_key
        self._settled = settled
        self._own = {(vote.kind, place_of(vote), vote.digest) for vote in own_votes}
        self._answered: set[Key] = {own_key} & set(validators.keys)
        self._unread: dict[Key, list[Vote]] = {}
        """What each holds that no known set gives the ballot of."""

    @property
    def missing(self) -> tuple[Key, ...]:
        """The validators that have not answered."""
        return tuple(key for key in self._validators.keys if key not in self._answered)

    @property
    def is_done(self) -> bool:
        """Whether a quorum has answered."""
        return len(self._answered) >= self._validators.quorum

    def answered(self, sender: Key, votes: Sequence[Vote]) -> None:
        """What a validator holds. `Halt` when it holds a vote that the own log lacks."""
        if sender not in self._validators.keys:
            return
        news = [
            vote
            for vote in votes
            if place_of(vote) > self._settled
            and (vote.kind, place_of(vote), vote.digest) not in self._own
        ]
        for vote in news:
            for one in self._hashes:
                self._check(vote, one)
        self._unread[sender] = news
        self._answered.add(sender)

    def decided(self, validators: ValidatorSet) -> None:
        """The set of a later epoch, in which this validator has not voted since it asked. `Halt` as
        `answered`.
        """
        if validators.hash in self._hashes:
            return
        self._hashes.add(validators.hash)
        for votes in self._unread.values():
            for vote in votes:
                self._check(vote, validators.hash)

    def _check(self, vote: Vote, validator_set_hash: Hash) -> None:
        # What is not signed by this validator shows nothing.
        if vote_signed(self._own_key, self._ballot(vote, validator_set_hash), vote.signatures):
            raise Halt(
                f"this validator cast a vote to {vote.kind.name.lower()} in view {vote.view} "
                f"of epoch {vote.epoch.number} that its journal lacks: the journal is an older "
                "copy, and with it this key would vote a second time"
            )

    def _ballot(self, vote: Vote, validator_set_hash: Hash) -> Ballot:
        return Ballot(
            vote.kind, self._ledger_id, vote.epoch, validator_set_hash, vote.view, vote.digest
        )
