"""Bugs to plant, at least one for each rule of the protocol: each replaces a text of the source.

`expected` is why nobody can notice one: that it survives is no failure then, that it is caught is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.simulation.edits import Edit
from tests.simulation.liars import Way
from tests.simulation.variant import HostBug


@dataclass(frozen=True, slots=True)
class Bug:
    """One bug. `n` is the size of the worlds that it is sought in, where that matters; `lie` is how
    liars bring it to light: it is sought where each of them lies so, among other ways.
    """

    name: str
    rule: str
    edits: tuple[Edit, ...] = ()
    host: HostBug | None = None
    n: int | None = None
    lie: Way | None = None
    expected: str | None = None
    operators: bool = False
    """It is sought in worlds whose log is lost, and that operators let go on."""
    scenario: str | None = None
    """It is sought in this scenario."""


MACHINE: Final = "consensus/quorum/machine.py"
TALLY: Final = "consensus/quorum/tally.py"
LEADERS: Final = "consensus/quorum/leaders.py"
CERTIFICATES: Final = "core/certificates.py"
LOG_EPOCHS: Final = "core/log_epochs.py"
CERTIFIED_SNAPSHOT: Final = "core/certified_snapshot.py"
BEHIND_A_LOG_CUT_SHORT: Final = (
    "who_is_behind_when_the_log_is_cut_short_votes_for_the_next_log_epoch"
)
JOINS_AMONG_LIARS: Final = "a_validator_joins_by_a_snapshot_though_liars_offer_others"


def _machine(
    name: str, rule: str, old: str, new: str, expected: str | None = None, lie: Way | None = None
) -> Bug:
    return Bug(name, rule, (Edit(MACHINE, old, new),), lie=lie, expected=expected)


def _ballot(name: str, old: str, new: str, expected: str | None = None) -> Bug:
    lie = None if expected else Way.RELABELLING
    return Bug(name, "ballot", (Edit(CERTIFICATES, old, new),), lie=lie, expected=expected)


BUGS: Final = (
    # K1
    Bug(
        "notarizes again when the leader offers another block",
        "K1",
        (
            Edit(
                MACHINE,
                "self._accuse_leader(leader, known, proposal)\n                return\n",
                "self._accuse_leader(leader, known, proposal)\n",
            ),
            Edit(
                MACHINE,
                "if view in voted[VoteKind.NOTARIZE] or view in voted[VoteKind.NULLIFY]:\n"
                "            return\n",
                "if view in voted[VoteKind.NULLIFY]:\n            return\n"
                "        if view in voted[VoteKind.NOTARIZE] and voted[VoteKind.NOTARIZE][view]"
                ".digest == proposal.digest:\n            return\n",
            ),
        ),
    ),
    _machine(
        "forgets votes of views that are not settled",
        "K1",
        "_forget(votes, settled)\n",
        "_forget(votes, settled + 1)\n",
    ),
    _machine(
        "votes are not restored after a restart",
        "K1",
        "self._votes[record.kind][record.view] = record\n                        self._count",
        "self._count",
    ),
    _machine(
        "the leader's own proposal is not restored after a restart",
        "K1",
        "        if self._leader(header.view) == self._index:\n"
        "            self._proposed[header.view] = proposal\n",
        "",
    ),
    # K2
    _machine(
        "the parent need not be notarized",
        "K2",
        "        if held is None or held.digest != header.parent_digest:\n"
        "            return None\n        return self._block(held.digest)",
        "        return self._block(header.parent_digest)",
    ),
    _machine(
        "views between need not be nullified",
        "K2",
        "if any(view not in self._nuls for view in range(header.parent_view + 1, header.view)):",
        "if False:",
    ),
    _machine(
        "the first view between need not be nullified",
        "K2",
        "self._nuls for view in range(header.parent_view + 1, header.view)",
        "self._nuls for view in range(header.parent_view + 2, header.view)",
    ),
    # K3
    _machine(
        "finalizes what it nullified",
        "K3",
        "if view in voted[VoteKind.FINALIZE] or view in voted[VoteKind.NULLIFY]:",
        "if view in voted[VoteKind.FINALIZE]:",
    ),
    _machine(
        "nullifies what it finalized",
        "K3",
        "if view not in self._votes[VoteKind.FINALIZE] and",
        "if",
        expected="redundant: who finalizes a view holds its Not and is in a later one",
    ),
    _machine(
        "finalizes what it notarizes, without Not",
        "K3",
        "        self._cast(VoteKind.NOTARIZE, view, proposal.digest)\n",
        "        self._cast(VoteKind.NOTARIZE, view, proposal.digest)\n"
        "        self._cast(VoteKind.FINALIZE, view, proposal.digest)\n",
    ),
    # Certificates
    Bug(
        "the tally's quorum is one short",
        "quorum",
        (Edit(TALLY, "== self._quorum", "== self._validators.quorum - 1"),),
    ),
    Bug(
        "everyone's quorum is one short",
        "quorum",
        (
            Edit(
                CERTIFICATES,
                "        return quorum(len(self.keys))\n",
                "        return max(1, quorum(len(self.keys)) - 1)\n",
            ),
        ),
    ),
    Bug(
        "a vote is counted as often as it comes",
        "quorum",
        (Edit(TALLY, "        if found is None:\n", "        if found is None or True:\n"),),
    ),
    Bug(
        "a notarization commits",
        "commit proof",
        (
            Edit(
                CERTIFICATES,
                "if certificate.kind is not VoteKind.FINALIZE:",
                "if certificate.kind is VoteKind.NULLIFY:",
            ),
        ),
    ),
    _machine(
        "certificates are not verified",
        "certificate",
        "        check_certificate(certificate, self._rules.ledger_id, self._set, "
        "self._scheme.vote_signed)\n",
        "",
    ),
    _machine(
        "commit proofs are not verified",
        "commit proof",
        "        check_commit_proof(\n            committed.proof,\n"
        "            link_to(header, proposal.digest),\n            self._rules.ledger_id,\n"
        "            self._set,\n            link_of,\n            self._scheme.vote_signed,\n"
        "        )\n",
        "",
    ),
    _machine(
        "a tail block is taken for a committed one",
        "commit proof",
        "if header.kind is not BlockKind.LEDGER:\n            # It has",
        "if header.kind is None:\n            # It has",
        lie=Way.STRETCHING,
    ),
    _machine(
        "who jumped over a view does not ask for what ended it",
        "re-sending",
        "            self._ask_for_jumped()\n",
        "",
        expected="it takes losses that leave each validator without another certificate; "
        "test_quorum_machine.py has them",
    ),
    _machine(
        "votes are not verified",
        "signature",
        "if not self._scheme.vote_signed(keys[vote.validator], ballot, vote.signatures):",
        "if False:",
        lie=Way.NAMES,
    ),
    _machine(
        "proposals are not verified",
        "signature",
        "if not self._scheme.proposal_signed(key, proposal.digest, proposal.signatures):",
        "if False:",
    ),
    # The ballot
    _ballot("a vote does not sign its kind", "        u8(ballot.kind)\n", "        b''\n"),
    _ballot(
        "a vote does not sign its epoch",
        "        + u64(ballot.epoch.number)\n        + ballot.validator_set_hash\n",
        "",
    ),
    _ballot("a vote does not sign its view", "        + u64(ballot.view)\n", ""),
    _ballot("a vote does not sign its block", "        + ballot.digest\n", ""),
    _ballot(
        "a vote does not sign its validator set",
        "        + ballot.validator_set_hash\n",
        "",
        expected="an epoch has one set, and the epoch is signed: only sets that differ between "
        "forks could tell",
    ),
    _ballot(
        "a vote does not sign its ledger",
        "        + ballot.ledger_id\n",
        "",
        expected="a world has one ledger",
    ),
    Bug(
        "a certificate may name another set",
        "old set",
        (
            Edit(
                CERTIFICATES,
                "    if certificate.validator_set_hash != validators.hash:\n"
                '        raise Malformed("certificate: of another validator set")\n',
                "",
            ),
        ),
        expected="redundant: votes sign the set, and no correct one signs another in this epoch",
    ),
    _machine(
        "the old set goes on in the next epoch",
        "old set",
        "        self._set = found\n",
        '        self._set = found = getattr(self, "_set", found)\n',
    ),
    # Blocks
    _machine(
        "Check is ignored",
        "validity",
        "        if header.kind is BlockKind.LEDGER and not self._is_checked(proposal):\n"
        "            return\n",
        "",
    ),
    _machine(
        "the header is not compared with the expected one",
        "shape",
        "return header == expected and header.time >= parent.time",
        "return header.time >= parent.time",
        lie=Way.CONTENTS,
    ),
    _machine(
        "the time rule is not applied",
        "time",
        "        if not max(parent.time, now - bound) <= header.time <= max(parent.time, now + "
        "bound):\n            return\n",
        "",
    ),
    _machine(
        "time need not come after the parent's",
        "time",
        "return header == expected and header.time >= parent.time",
        "return header == expected",
        expected="redundant: the time rule asks for the same before the vote",
    ),
    _machine(
        "empty blocks are valid on an idle chain",
        "idle",
        "        if Contents.of(header).empty and not self.busy:\n            return\n",
        "",
    ),
    Bug(
        "`from` need not be the parent's `to`",
        "range",
        host=HostBug.TAKES_ANY_RANGE_START,
        lie=Way.CONTENTS,
    ),
    Bug(
        "a block may have any number of records",
        "range",
        host=HostBug.TAKES_ANY_COUNT,
        lie=Way.CONTENTS,
    ),
    Bug("a block may have any roots", "validity", host=HostBug.TAKES_ANY_ROOT, lie=Way.CONTENTS),
    Bug("certified records may change", "intake", host=HostBug.TRUSTS_A_CHANGED_LOG),
    # Epochs
    _machine(
        "a tail block counts as a ledger block",
        "epoch",
        "            if block.header.kind is BlockKind.LEDGER\n",
        "",
    ),
    _machine(
        "a tail block may have records",
        "epoch",
        "        if self._ends_epoch(parent) and contents != _tail_contents(parent):\n"
        "            return False\n",
        "",
        lie=Way.CONTENTS,
    ),
    _machine(
        "the epoch ends one height late",
        "epoch",
        "ended = tip.height > 0 and tip.height % self._rules.epoch_length == 0",
        "ended = tip.height > 1 and tip.height % self._rules.epoch_length == 1",
    ),
    _machine(
        "the next epoch's first block waits for records",
        "epoch",
        "        if self._base.epoch != self._epoch and self._base.height > 0:\n"
        "            return True\n",
        "",
    ),
    # Progress
    _machine(
        "an old vote sent again is swallowed",
        "re-sending",
        "                    if again and sender is not None:\n"
        "                        self._answer(sender, vote.view)\n",
        "",
    ),
    _machine(
        "the newest Not is not sent again",
        "re-sending",
        "in (self._nots.get(max(self._nots, default=0)), self._nuls.get(view - 1)):",
        "in (self._nuls.get(view - 1),):",
        expected="the answer to a vote sent again and the grounds of the next offer bring it",
    ),
    _machine(
        "the last Nul is not sent again",
        "re-sending",
        "in (self._nots.get(max(self._nots, default=0)), self._nuls.get(view - 1)):",
        "in (self._nots.get(max(self._nots, default=0)),):",
        expected="the answer to a vote sent again brings it",
    ),
    Bug(
        "nothing held is sent again, and old votes are swallowed",
        "re-sending",
        (
            Edit(
                MACHINE,
                "                    if again and sender is not None:\n"
                "                        self._answer(sender, vote.view)\n",
                "",
            ),
            Edit(
                MACHINE,
                "in (self._nots.get(max(self._nots, default=0)), self._nuls.get(view - 1)):",
                "in (None,):",
            ),
        ),
    ),
    _machine(
        "votes are not sent again",
        "re-sending",
        "            if vote is not None:\n                self._send_vote",
        "            if False:\n                self._send_vote",
    ),
    _machine(
        "finalize is not sent again",
        "re-sending",
        "            self._votes[VoteKind.FINALIZE].get(finalized),\n",
        "",
        expected="what is notarized and not final keeps everyone busy: the next, empty block's "
        "finalization commits it",
    ),
    _machine(
        "no view is ever given up",
        "nullify",
        "if self._stage >= GIVE_UP_STAGE and self.busy:",
        "if self._stage >= 10**9 and self.busy:",
    ),
    _machine(
        "who is behind is not told where the chain is",
        "catching up",
        "        elif asks is not None and self._final is not None:\n"
        "            self._send((asks,), self._final)\n",
        "",
        expected="offers and votes of the later epoch let it ask by itself (CatchUp)",
    ),
    Bug(
        "above 16 votes never go to all",
        "routing",
        (Edit(LEADERS, "or resends > UNANSWERED_MAX", ""),),
        n=17,
        expected="every view has other leaders, and the certificates themselves are sent to all",
    ),
    # A lost log
    Bug(
        "a log epoch may be opened again, or one before its turn",
        "log epoch",
        (
            Edit(
                LOG_EPOCHS,
                "    if opening.log_epoch != position.log_epoch + 1:\n",
                "    if opening.log_epoch < 2:\n",
            ),
        ),
        operators=True,
    ),
    Bug(
        "records of the log epoch before are taken behind the opening",
        "log epoch",
        host=HostBug.MIXES_LOG_EPOCHS,
        operators=True,
    ),
    Bug(
        "who gathered other records than a committed block has halts",
        "log epoch",
        host=HostBug.HALTS_OVER_OTHER_RECORDS,
        scenario=BEHIND_A_LOG_CUT_SHORT,
    ),
    Bug(
        "notarizes records that its own consumer did not deliver",
        "intake",
        host=HostBug.NOTARIZES_WHAT_OTHERS_HAVE,
    ),
    # Joining by a snapshot
    Bug(
        "a snapshot's block is believed without its proof",
        "joining",
        (
            Edit(
                CERTIFIED_SNAPSHOT,
                "    sets.check_proof(claim.proof, header, digest, ledger_id)\n"
                "    keys = sets.of_block(header).keys\n",
                "    keys = sets.of_block(header).keys\n",
            ),
        ),
        scenario=JOINS_AMONG_LIARS,
    ),
    Bug(
        "a snapshot's state need not be the one after its block",
        "joining",
        (
            Edit(
                CERTIFIED_SNAPSHOT,
                "    if state.root_hash != header.state_root:\n",
                "    if False:\n",
            ),
        ),
        scenario=JOINS_AMONG_LIARS,
    ),
    # The host
    Bug("sends before it syncs", "durability", host=HostBug.SENDS_BEFORE_SYNC),
    Bug("commits before it syncs", "durability", host=HostBug.COMMITS_BEFORE_SYNC),
    Bug("restores no votes: signs again after a restart", "durability", host=HostBug.FORGETS_VOTES),
    Bug("goes on when the disk is full", "durability", host=HostBug.IGNORES_FULL_DISK),
)
