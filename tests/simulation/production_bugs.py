"""Bugs of production's modules that no world has: each replaces a text of the source, and names the
unit tests that hunt it. At least one for each rule of publishing, of signing, and of a validator's
shell.

`expected` is why nobody can notice one, as in `bugs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tests.simulation.edits import Edit


@dataclass(frozen=True, slots=True)
class HuntedBug:
    """One bug. `tests` are what pytest takes: files under `tests/unit`, or tests of them."""

    name: str
    rule: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]
    expected: str | None = None

    @property
    def file(self) -> str:
        """Where it is, for people."""
        return self.edits[0].file


BLOCK_INTAKE: Final = "core/block_intake.py"
WAITING_BLOCKS: Final = "core/waiting_blocks.py"
CONFLICTS: Final = "core/conflicts.py"
MODES: Final = "core/modes.py"
EVIDENCE: Final = "core/evidence.py"
CERTIFICATES: Final = "core/certificates.py"
VALIDATOR_SETS: Final = "core/validator_sets.py"
MACHINE: Final = "consensus/quorum/machine.py"
TALLY: Final = "consensus/quorum/tally.py"
OWN_VOTES: Final = "consensus/own_votes.py"
PUBLISHED: Final = "consensus/published.py"
REPLICA: Final = "consensus/replica.py"
GATHERING: Final = "consensus/gathering.py"
STORE: Final = "consensus/store.py"
SERVICE: Final = "consensus/service.py"
VALIDATOR: Final = "consensus/validator.py"
ENDING: Final = "consensus/ending.py"
JOURNAL: Final = "runtime/journal.py"
DEGRADED: Final = "runtime/degraded.py"
SIGNING_GUARD: Final = "signing/guard.py"
SIGNING_SERVICE: Final = "signing/service.py"
SIGNING_STORE: Final = "signing/store.py"
SIGNATURES: Final = "signing/signatures.py"
COLLECTOR: Final = "projection/collector.py"


def _bug(
    rule: str,
    name: str,
    file: str,
    old: str,
    new: str,
    tests: str,
    expected: str | None = None,
) -> HuntedBug:
    """`tests`: a file under `tests/unit`, and after :: the tests of it, separated by spaces."""
    path, _, names = tests.partition("::")
    chosen = [f"tests/unit/{path}::{one}" for one in names.split()] or [f"tests/unit/{path}"]
    return HuntedBug(name, rule, (Edit(file, old, new),), tuple(chosen), expected)


HUNTED_BUGS: Final = (
    # Publishing
    _bug(
        "publishing: order",
        "a block is published before the one below it",
        PUBLISHED,
        "            if one.due is None or one.due > now:\n                break\n",
        "            if one.due is None or one.due > now:\n                continue\n",
        "consensus/test_published.py::test_a_leader_waits_for_the_block_before_its_own",
    ),
    _bug(
        "publishing: order",
        "a block counts as published though one below it is missing",
        PUBLISHED,
        "            height, one = next(iter(self._unpublished.items()))\n",
        "            rest = self._unpublished.items()\n"
        "            found = [pair for pair in rest if pair[1].offset is not None]\n"
        "            height, one = (found or list(rest))[0]\n",
        "consensus/test_published.py::test_the_leader_publishes_at_once_and_in_order",
    ),
    _bug(
        "publishing: turn",
        "every validator publishes every block at once",
        PUBLISHED,
        "OTHERS_MS + NEXT_MS * (rank - 1) if rank else 0",
        "0",
        "consensus/test_published.py"
        "::test_the_others_publish_only_what_is_not_seen_in_time_one_after_the_other",
    ),
    _bug(
        "publishing: turn",
        "nobody publishes what the leader does not",
        PUBLISHED,
        "wait = None if rank is None else",
        "wait = None if rank != 0 else",
        "consensus/test_published.py"
        "::test_the_others_publish_only_what_is_not_seen_in_time_one_after_the_other",
    ),
    _bug(
        "publishing: proof",
        "a stranger's record with an own block's header counts as published",
        PUBLISHED,
        "        self._sets.check_proof(proof, made.block.header, made.block.digest, "
        "self._ledger_id)\n        one.offset = offset\n",
        "        one.offset = offset\n",
        "consensus/test_published.py"
        "::test_another_proof_is_as_good_and_a_wrong_one_or_another_body_is_not_the_block",
    ),
    _bug(
        "publishing: body",
        "a record with an own block's header and another body counts as published",
        PUBLISHED,
        "        if start > end or not data.startswith(made.before) or not "
        "data.endswith(made.after):\n",
        "        if start > end or not data.startswith(made.before):\n",
        "consensus/test_published.py::test_a_body_with_another_byte_is_not_the_block",
    ),
    _bug(
        "publishing: proof",
        "a consumer drops what it has by its height before it checks the proof",
        BLOCK_INTAKE,
        "        if isinstance(front.proof, CommitProof):\n"
        "            self._check_proof(front.proof, front)\n"
        "        elif self._next_height is None:\n",
        "        if self._next_height is not None and front.header.height < self._next_height:\n"
        "            return []\n"
        "        if isinstance(front.proof, CommitProof):\n"
        "            self._check_proof(front.proof, front)\n"
        "        elif self._next_height is None:\n",
        "core/test_block_intake.py::test_a_second_certified_block_of_a_height_halts "
        "test_a_repeated_block_with_another_proof_is_skipped_and_with_none_that_holds_counted",
    ),
    _bug(
        "publishing: proof",
        "a consumer believes a block whose proof it did not check",
        BLOCK_INTAKE,
        "            self._check_proof(front.proof, front)\n        elif",
        "            pass\n        elif",
        "core/test_block_intake.py::test_a_block_of_strangers_or_of_another_ledger_is_refused "
        "test_only_a_finalization_commits",
    ),
    _bug(
        "publishing: body",
        "a consumer takes any records under a certified header",
        BLOCK_INTAKE,
        "            elif _log_after(log_hash, one, records) != one.log_hash:\n",
        "            elif _log_after(log_hash, one, records) == bytes(32):\n",
        "core/test_block_intake.py"
        "::test_no_byte_of_a_record_can_be_altered_under_a_genuine_header "
        "test_a_log_hash_that_is_not_the_consumers_refuses_the_block",
    ),
    _bug(
        "publishing: body",
        "a repeated block is de-duplicated before its body is checked",
        BLOCK_INTAKE,
        "        block = _waiting(front, 0, 0).block\n        for record in block.records:\n",
        "        return\n        for record in block.records:\n",
        "core/test_block_intake.py"
        "::test_a_repeated_block_is_skipped_and_an_altered_repetition_is_counted",
    ),
    _bug(
        "publishing: order",
        "a consumer passes a height by",
        BLOCK_INTAKE,
        "        while (held := self._waiting.proved(self._next_height)) is not None:\n",
        "        if offered.proof is not None:\n"
        "            if self._waiting.proved(self._next_height) is None:\n"
        "                self._next_height = offered.height\n"
        "        while (held := self._waiting.proved(self._next_height)) is not None:\n",
        "core/test_block_intake.py::test_any_order_and_any_repetition_gives_the_chain_in_order",
    ),
    _bug(
        "publishing: pointer",
        "a block is given out before the proof that it points to is here",
        WAITING_BLOCKS,
        "        return next((one for one in self._held.get(height, ()) "
        "if one.proof is not None), None)\n",
        "        return next(iter(self._held.get(height, ())), None)\n",
        "core/test_block_intake.py::test_a_batch_waits_for_its_proof_and_comes_out_whole",
    ),
    _bug(
        "publishing: pointer",
        "what waits for its proof has no bound",
        WAITING_BLOCKS,
        "        while self._records > HELD_RECORDS_MAX or self._bytes > HELD_BYTES_MAX:\n",
        "        while False:\n",
        "core/test_block_intake.py"
        "::test_what_waits_is_bounded_in_number_and_the_farthest_goes_first",
    ),
    _bug(
        "publishing: conflict",
        "a second certified block of a height is counted and skipped",
        BLOCK_INTAKE,
        "            if isinstance(front.proof, ProofPointer):\n"
        '                raise Malformed(f"block {height}: not the committed one")\n',
        "            if True:\n"
        '                raise Malformed(f"block {height}: not the committed one")\n',
        "core/test_block_intake.py::test_a_second_certified_block_of_a_height_halts",
    ),
    _bug(
        "publishing: conflict",
        "of two certified blocks that wait the first is taken",
        WAITING_BLOCKS,
        "        if known is not None and known.digest != found.digest:\n",
        "        if False:\n",
        "core/test_block_intake.py::test_two_certified_blocks_that_wait_together_halt",
    ),
    _bug(
        "publishing: conflict",
        "a validator goes on beside another certified block in the topic",
        PUBLISHED,
        "                raise _contradicts(found, own)\n            self._see",
        "                return None\n            self._see",
        "consensus/test_published.py::test_a_contradiction_to_the_own_chain_in_the_topic_is_a_halt",
    ),
    _bug(
        "publishing: conflict",
        "a start ignores another certified block than the journal's",
        PUBLISHED,
        "        if own is not None and own != block.digest:\n",
        "        if False:\n",
        "consensus/test_published.py::test_another_committed_block_at_an_own_height_is_a_halt",
    ),
    # Signing
    _bug(
        "signing: guard",
        "the authority signs past a height that it has not signed",
        SIGNING_GUARD,
        "    if height != last_height + 1:\n",
        "    if height <= last_height:\n",
        "signing/test_guard.py::test_heights_are_signed_without_a_hole",
    ),
    _bug(
        "signing: guard",
        "the authority signs a second block of a height",
        SIGNING_GUARD,
        "    if recorded != digest:\n        raise _conflict(\n",
        "    if recorded == bytes(32):\n        raise _conflict(\n",
        "signing/test_guard.py::test_a_height_is_signed_for_one_block_only",
    ),
    _bug(
        "signing: guard",
        "the authority signs an event that does not link to the head",
        SIGNING_GUARD,
        "link = long_to_avro(head.sequence + 1) + head.hash",
        "link = long_to_avro(head.sequence + 1)",
        "signing/test_guard.py::test_an_event_that_does_not_link_to_the_head_is_a_halt",
    ),
    _bug(
        "signing: guard",
        "the authority signs an event at any sequence",
        SIGNING_GUARD,
        "            if not header_bytes.startswith(link, end):\n",
        "            if head.hash not in header_bytes:\n",
        "signing/test_guard.py::test_an_event_that_links_to_the_head_and_has_another_sequence_is_a_halt",
    ),
    _bug(
        "signing: guard",
        "two events of one block each follow the head from before it",
        SIGNING_GUARD,
        "            head = after.get(session) or heads.get(session)\n",
        "            head = heads.get(session)\n",
        "signing/test_guard.py::test_heads_follow_the_events_of_a_chain "
        "test_a_command_of_several_events_moves_the_head_by_as_many",
    ),
    _bug(
        "signing: guard",
        "the authority's memory lets a height be recorded anew",
        SIGNING_STORE,
        '            "INSERT INTO blocks VALUES (?, ?)"',
        '            "INSERT OR REPLACE INTO blocks VALUES (?, ?)"',
        "signing/test_store.py::test_a_height_is_never_recorded_twice",
    ),
    _bug(
        "signing: guard",
        "a session's head is forgotten by a restart",
        SIGNING_STORE,
        "            [(session, head.sequence, head.hash) for session, head in heads.items()],\n",
        "            [],\n",
        "signing/test_store.py::test_what_is_recorded_is_there_after_a_start",
    ),
    _bug(
        "signing: fsync",
        "the record of what was signed is not synced",
        SIGNING_STORE,
        'run("PRAGMA synchronous = FULL")',
        'run("PRAGMA synchronous = NORMAL")',
        "signing/test_store.py::test_every_transaction_is_synced",
    ),
    _bug(
        "signing: fsync",
        "signing goes on after a record that failed",
        SIGNING_STORE,
        '            raise SystemExit(f"signing store: commit failed ({fault}): the process ends")'
        " from fault\n",
        "            return\n",
        "signing/test_store.py::test_a_height_is_never_recorded_twice",
    ),
    _bug(
        "signing: receipts",
        "a receipt's id leaves out its log epoch",
        SIGNATURES,
        'f"{position.log_epoch}-{position.partition}-{position.offset}",',
        'f"{position.partition}-{position.offset}",',
        "signing/test_signatures.py"
        "::test_records_go_to_their_sessions_partition_under_their_own_ids",
    ),
    _bug(
        "signing: receipts",
        "a receipt is not signed",
        SIGNATURES,
        "            elif record.receipt is not None:\n",
        "            elif False:\n",
        "signing/test_signatures.py"
        "::test_every_event_and_receipt_is_signed_in_block_order_and_then_the_seal",
    ),
    _bug(
        "signing: seal",
        "a seal leaves out the receipts' signatures",
        SIGNATURES,
        "        signed = sign_receipt(self._signer, disposition.receipt, header.time, "
        "header.height)\n        signatures.append(signed)\n",
        "        signed = sign_receipt(self._signer, disposition.receipt, header.time, "
        "header.height)\n",
        "signing/test_signatures.py"
        "::test_every_event_and_receipt_is_signed_in_block_order_and_then_the_seal",
    ),
    _bug(
        "signing: seal",
        "a seal is published before the signatures that it covers",
        SIGNATURES,
        "        records.append(self._seal(checked, signatures))\n",
        "        records.insert(0, self._seal(checked, signatures))\n",
        "signing/test_signatures.py"
        "::test_every_event_and_receipt_is_signed_in_block_order_and_then_the_seal",
    ),
    _bug(
        "signing: seal",
        "a consumer takes two seals of one height",
        COLLECTOR,
        "        if known and known[0].block_digest != seal.block_digest:\n",
        "        if False:\n",
        "projection/test_collector.py::test_two_seals_of_a_height_whose_block_is_not_here_are_a_proof",
    ),
    _bug(
        "signing: seal",
        "a consumer does not wait for a block's seal",
        COLLECTOR,
        "            or not seal_signed(self._authority, seal)\n",
        "",
        "projection/test_collector.py::test_strangers_records_are_refused_and_only_they",
    ),
    # A validator's own votes
    _bug(
        "own votes",
        "fewer than a quorum of answers are enough",
        OWN_VOTES,
        "        return len(self._answered) >= self._validators.quorum\n",
        "        return len(self._answered) >= self._validators.quorum - 1\n",
        "consensus/test_own_votes.py::test_a_quorum_of_answers_is_enough",
    ),
    _bug(
        "own votes",
        "strangers' answers count",
        OWN_VOTES,
        "        if sender not in self._validators.keys:\n            return\n",
        "",
        "consensus/test_own_votes.py::test_answers_of_strangers_do_not_count",
    ),
    _bug(
        "own votes",
        "a vote that the log lacks is no reason to refuse",
        OWN_VOTES,
        "            if place_of(vote) <= self._settled:\n                continue\n",
        "            continue\n",
        "consensus/test_own_votes.py::test_a_vote_that_the_log_lacks_is_a_halt",
    ),
    _bug(
        "own votes",
        "a vote in a view that the log has another one of is no reason to refuse",
        OWN_VOTES,
        "            if (vote.kind, place_of(vote), vote.digest) in self._own:\n",
        "            if (vote.kind, place_of(vote)) in {one[:2] for one in self._own}:\n",
        "consensus/test_own_votes.py::test_a_vote_that_the_log_lacks_is_a_halt",
    ),
    _bug(
        "nobody's word",
        "a vote that this key did not sign keeps it from voting",
        OWN_VOTES,
        "            if any(\n                vote_signed(",
        "            if True or any(\n                vote_signed(",
        "consensus/test_own_votes.py::test_a_vote_that_this_key_did_not_sign_shows_nothing",
    ),
)
