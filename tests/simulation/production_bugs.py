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
ASKING_VOTES: Final = "consensus/asking_votes.py"
PUBLISHED: Final = "consensus/published.py"
REPLICA: Final = "consensus/replica.py"
GATHERING: Final = "consensus/gathering.py"
STORE: Final = "consensus/store.py"
SERVICE: Final = "consensus/service.py"
VALIDATOR: Final = "consensus/validator.py"
ENDING: Final = "consensus/ending.py"
REPORTING: Final = "consensus/reporting.py"
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
        "signing: fsync",
        "signatures are made beside the sync of their record",
        SIGNING_SERVICE,
        "            await self._on_disk(partial(self._record, blocks))\n",
        "            asyncio.ensure_future(self._on_disk(partial(self._record, blocks)))\n",
        "signing/test_service.py::test_nothing_is_signed_before_its_record_is_synced",
    ),
    _bug(
        "signing: again",
        "a start goes on behind what was recorded, not behind what was published",
        SIGNING_SERVICE,
        "        height = resume.published_height\n        parent =",
        "        height = self._store.last_height()\n        parent =",
        "signing/test_service.py::"
        "test_what_was_recorded_and_not_published_is_signed_again_in_full_with_the_same_bytes",
    ),
    _bug(
        "signing: again",
        "a batch counts as published before the broker has it",
        SIGNING_SERVICE,
        "            batch = await self._batches.get()\n",
        "            batch = await self._batches.get()\n"
        "            self._published = batch.resume\n",
        "signing/test_service.py::test_what_the_broker_did_not_take_does_not_count_as_published",
    ),
    _bug(
        "signing: guard",
        "the service signs another block of a height that it has recorded",
        SIGNING_SERVICE,
        "            if guard.is_signed(height, digest, known):\n",
        "            if known is not None:\n",
        "signing/test_service.py::test_another_certified_block_at_a_signed_height_is_not_signed",
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
        "                self._check(vote, one)\n",
        "                assert one\n",
        "consensus/test_own_votes.py::test_a_vote_that_the_log_lacks_is_a_halt",
    ),
    _bug(
        "own votes",
        "a vote in a view that the log has another one of is no reason to refuse",
        OWN_VOTES,
        "            and (vote.kind, place_of(vote), vote.digest) not in self._own\n",
        "            and (vote.kind, place_of(vote)) not in {one[:2] for one in self._own}\n",
        "consensus/test_own_votes.py::test_a_vote_that_the_log_lacks_is_a_halt",
    ),
    _bug(
        "nobody's word",
        "a vote that this key did not sign keeps it from voting",
        OWN_VOTES,
        "        if vote_signed(",
        "        if True or vote_signed(",
        "consensus/test_own_votes.py::test_a_vote_that_this_key_did_not_sign_shows_nothing",
    ),
    _bug(
        "own votes",
        "a start votes without asking",
        VALIDATOR,
        "        if self._signer.key in self._members:\n"
        "            await self._asking.ask(self._replica, own_votes)\n",
        "",
        "consensus/test_validator.py"
        "::test_it_asks_all_for_its_newest_votes_and_takes_part_once_a_quorum_has_answered",
    ),
    _bug(
        "own votes",
        "who asks for its votes hears and votes already",
        VALIDATOR,
        "        if not self._asking.is_cleared:\n",
        "        if False:\n",
        "consensus/test_validator.py"
        "::test_it_asks_all_for_its_newest_votes_and_takes_part_once_a_quorum_has_answered",
    ),
    _bug(
        "own votes",
        "a vote in an epoch whose set is not known yet is forgotten",
        OWN_VOTES,
        "        self._unread[sender] = news\n",
        "",
        "consensus/test_own_votes.py"
        "::test_a_vote_of_a_set_that_is_decided_after_the_answer_shows_an_older_copy_then",
    ),
    _bug(
        "own votes",
        "who enters a set while it runs votes without asking",
        ASKING_VOTES,
        "            self._clearing.clear()\n            self._admitted.set()\n",
        "            pass\n",
        "consensus/test_asking_votes.py::test_an_observer_asks_once_a_set_has_its_key_and_goes_on_"
        "when_a_quorum_has_answered",
    ),
    _bug(
        "own votes",
        "a start goes on though others hold a vote that its journal lacks",
        VALIDATOR,
        "        except Halt as halt:\n            self._fail(halt)\n",
        '        except Halt as halt:\n            log.warning("older_copy", cause=str(halt))\n',
        "consensus/test_validator.py"
        "::test_a_vote_of_its_own_that_its_journal_lacks_makes_it_refuse",
    ),
    _bug(
        "own votes",
        "a key without its journal answers that it holds no votes",
        SERVICE,
        "            if validator is None:\n",
        "            if validator is None and not isinstance(value, codec.AskVotes):\n",
        "consensus/test_service.py::"
        "test_a_key_without_its_journal_never_votes_begins_none_and_answers_nobody",
    ),
    _bug(
        "journal",
        "a key without its journal begins a new one",
        SERVICE,
        "    except JournalMissing:\n        return None\n",
        "    except JournalMissing:\n"
        "        label = journal.owner_label(ledger_id, signer.key)\n"
        "        journal.create(home / journal.FOLDER, label)\n"
        "        return Store(home, label)\n",
        "consensus/test_service.py::"
        "test_a_key_without_its_journal_never_votes_begins_none_and_answers_nobody",
    ),
    # Durability
    _bug(
        "durability",
        "a message leaves before what was to be kept is durable",
        VALIDATOR,
        "                case Say() | Report():\n                    self._outbox.append(action)\n",
        "                case Say() | Report():\n                    self._let_go(action)\n",
        "consensus/test_validator.py::test_no_message_leaves_before_what_was_to_be_kept_is_durable",
    ),
    _bug(
        "durability",
        "a block goes to the topic before its commit is durable",
        VALIDATOR,
        "self._outbox.append(self._taken(action))",
        "self._publisher.take(self._taken(action))",
        "consensus/test_validator.py::test_no_block_goes_to_the_topic_before_its_commit_is_durable",
    ),
    _bug(
        "durability",
        "what waited for the sync leaves beside it",
        VALIDATOR,
        "                await self._on_disk(partial(self._store.keep, "
        "[*kept, *self._heard_by(kept)]))\n",
        "                asyncio.ensure_future(\n"
        "                    self._on_disk(partial(self._store.keep, "
        "[*kept, *self._heard_by(kept)]))\n                )\n",
        "consensus/test_validator.py::test_no_message_leaves_before_what_was_to_be_kept_is_durable",
    ),
    _bug(
        "durability",
        "the replica says a vote and then has it kept",
        REPLICA,
        "                self._actions.append(Say(keys, message))\n",
        "                self._actions.insert(0, Say(keys, message))\n",
        "consensus/test_replica.py::test_what_is_said_or_published_was_kept_before",
    ),
    _bug(
        "durability",
        "a commit is published and not journalled",
        REPLICA,
        "                    self._actions.append(Keep(one))\n                    self._note(one)\n"
        "                self._unfinished",
        "                    self._note(one)\n                self._unfinished",
        "consensus/test_replica.py::test_what_is_said_or_published_was_kept_before",
    ),
    _bug(
        "durability",
        "the journal is written and not synced",
        STORE,
        "        segment = self._journal.sync()\n",
        "        segment = self._journal.segment\n",
        "consensus/test_store.py::test_kept_blocks_are_recovered",
    ),
    _bug(
        "durability",
        "votes above the committed block are forgotten with the old segments",
        STORE,
        "        if live:\n            self.keep(live)\n",
        "",
        "consensus/test_store.py::test_a_vote_that_no_block_has_settled_outlives_its_segment",
    ),
    _bug(
        "durability",
        "a failed sync is tried again",
        JOURNAL,
        "        if self._failure is not None:\n            raise SystemExit(self._failure)\n",
        "",
        "runtime/test_journal.py::test_a_failed_fsync_ends_the_process_and_is_not_tried_again",
    ),
    _bug(
        "durability",
        "a damaged journal is cut short and goes on",
        JOURNAL,
        "            if scan.end < scan.size and (not is_last or scan.good_frame_behind):\n",
        "            if scan.end < scan.size and not is_last:\n",
        "runtime/test_journal.py::test_every_flipped_bit_is_torn_tail_or_halt_and_never_read",
    ),
    # The log
    _bug(
        "intake",
        "a certified record may change in the log",
        GATHERING,
        "        if expected != record_hash:\n",
        "        if expected is None:\n",
        "consensus/test_gathering.py::test_a_changed_byte_is_a_halt",
    ),
    _bug(
        "intake",
        "what others gave alone is voted for",
        REPLICA,
        "return self._chain.executed(digest) is not None and self.is_own(digest)",
        "return self._chain.executed(digest) is not None",
        "consensus/test_bodies.py"
        "::test_what_was_executed_from_others_bytes_is_checked_again_before_it_is_voted_for",
    ),
    # An epoch's begin
    _bug(
        "K2: epoch",
        "the next epoch begins on a last block that is notarized and not final",
        MACHINE,
        "            if certificate.kind is VoteKind.FINALIZE:\n                # What is final",
        "            block = self._blocks.get(certificate.digest)\n"
        "            ends = block is not None and self._ends_epoch(_Tip.of(block))\n"
        "            if ends or certificate.kind is VoteKind.FINALIZE:\n"
        "                # What is final",
        "consensus/test_quorum_machine.py"
        "::test_past_an_epochs_last_block_only_tail_blocks_commit_it",
    ),
    _bug(
        "K2: epoch",
        "views go on in the next epoch",
        MACHINE,
        "self._base_view = self._base.view if self._base.epoch == epoch else 0",
        "self._base_view = self._base.view",
        "consensus/test_quorum_machine.py::"
        "test_after_an_epochs_last_block_views_begin_again_and_an_empty_block_proves_the_new_set",
    ),
    _bug(
        "K2: epoch",
        "a finalization of the next epoch commits blocks of the one before",
        CERTIFICATES,
        "if (block.epoch, block.validator_set_hash) != (last.epoch, last.validator_set_hash):",
        "if False:",
        "core/test_validator_sets.py"
        "::test_a_finalization_of_the_next_epoch_commits_no_block_of_the_one_before",
    ),
    _bug(
        "K2: epoch",
        "a block may be certified by the set that it names, whatever its epoch's is",
        VALIDATOR_SETS,
        "        if header.validator_set_hash != found.hash:\n",
        "        named = [one.validators for one in self.decided]\n"
        "        found = next(\n"
        "            (one for one in named if one.hash == header.validator_set_hash), found\n"
        "        )\n"
        "        if header.validator_set_hash != found.hash:\n",
        "core/test_validator_sets.py::test_the_old_set_certifies_nothing_after_its_last_epoch "
        "test_a_new_set_certifies_nothing_before_its_first_epoch",
    ),
    # Whom a validator believes
    _bug(
        "nobody's word",
        "a validator halts because another one says that it halts",
        VALIDATOR,
        "                self._said_halts.said(sender, value)\n",
        '                self._fail(Halt("another validator halts"))\n',
        "consensus/test_validator.py"
        "::test_it_goes_on_whoever_says_that_he_halts_or_that_the_chain_is_two",
    ),
    _bug(
        "nobody's word",
        "a conflict that is not proved degrades a validator",
        VALIDATOR,
        "check_conflict(conflict, founding.ledger_id, sets, founding.genesis.authority)",
        "assert sets and founding",
        "consensus/test_validator.py"
        "::test_it_goes_on_whoever_says_that_he_halts_or_that_the_chain_is_two",
    ),
    _bug(
        "nobody's word",
        "anybody's header in the topic halts a validator",
        PUBLISHED,
        "                found = committed_block(value, self._ledger_id, self._sets)\n",
        "                found = decode_block(data)\n",
        "consensus/test_published.py::test_a_header_of_a_forger_at_an_own_height_is_ignored",
    ),
    # Evidence
    _bug(
        "evidence",
        "a second, different vote is no evidence",
        TALLY,
        "        return Counted(conflict=_accused(view, found, vote))\n",
        "        return Counted()\n",
        "consensus/test_accusations.py::test_the_tally_accuses_of_exactly_what_is_evidence",
    ),
    _bug(
        "evidence",
        "finalize after nullify is no evidence",
        TALLY,
        "            return Counted(certificate, conflict)\n",
        "            return Counted(certificate)\n",
        "consensus/test_accusations.py::test_the_tally_accuses_of_exactly_what_is_evidence",
    ),
    _bug(
        "evidence",
        "evidence is not published",
        VALIDATOR,
        "                self._publisher.show(evidence)\n",
        "",
        "consensus/test_validator.py"
        "::test_who_signs_two_votes_of_a_view_is_shown_to_all_once_the_own_votes_are_durable",
    ),
    _bug(
        "evidence",
        "evidence convinces without the accused one's signatures",
        EVIDENCE,
        "        if not _is_signed(evidence, statement, validators):\n",
        "        if False:\n",
        "core/test_evidence.py::test_nobody_else_is_accused_with_it",
    ),
    _bug(
        "evidence",
        "what a correct validator signs is evidence against it",
        EVIDENCE,
        "    if {first.kind, second.kind} == {VoteKind.NULLIFY, VoteKind.FINALIZE}:\n",
        "    if VoteKind.NULLIFY in {first.kind, second.kind}:\n",
        "core/test_evidence.py::test_of_all_that_can_be_said_in_a_view_four_pairs_are_lies",
    ),
    # DEGRADED
    _bug(
        "DEGRADED",
        "two histories that are proved do not degrade a validator",
        VALIDATOR,
        "        self._fail(DegradedFound(Degraded.by(conflict)))\n",
        "",
        "consensus/test_validator.py::test_a_proof_of_two_histories_degrades_it_whoever_brings_it",
    ),
    _bug(
        "DEGRADED",
        "a conflict without quorums is proof",
        CONFLICTS,
        "                sets.check_proof(one.proof, one.header, one.digest, ledger_id)\n",
        "                sets.of_block(one.header)\n",
        "core/test_modes.py::test_two_blocks_without_a_quorum_for_each_are_no_proof",
    ),
    _bug(
        "DEGRADED",
        "what is kept is over with what passes",
        MODES,
        "        return self._kept or self._passing\n",
        "        return self._passing or self._kept\n",
        "core/test_modes.py::test_what_is_kept_goes_away_by_no_further_input_and_no_restart",
    ),
    _bug(
        "DEGRADED",
        "a quorum that is not here is not missed",
        REPORTING,
        "    if len(here) >= validators.quorum:\n",
        "    if here:\n",
        "consensus/test_reporting.py"
        "::test_while_too_few_are_here_the_ledger_is_degraded_for_want_of_a_quorum",
    ),
    _bug(
        "DEGRADED",
        "a log that too many read otherwise degrades nothing",
        REPORTING,
        "        if n - lost >= validators.quorum:\n",
        "        if n >= validators.quorum:\n",
        "consensus/test_reporting.py"
        "::test_where_too_many_take_no_records_the_ledger_is_degraded_for_a_rewritten_log",
    ),
    _bug(
        "DEGRADED",
        "it is not written down",
        DEGRADED,
        "            keep(self._home, self._ledger_id, degraded)\n",
        "",
        "runtime/test_degraded.py::test_what_is_kept_is_there_after_a_restart",
    ),
    _bug(
        "DEGRADED",
        "want of a quorum has no automatic exit",
        MODES,
        '        is_kept=False,\n        left_by="by itself',
        '        is_kept=True,\n        left_by="by itself',
        "core/test_modes.py::test_what_passes_is_over_when_it_is_over_and_after_a_restart",
    ),
    _bug(
        "DEGRADED",
        "the authority signs on after a restart",
        SIGNING_SERVICE,
        "    if mode.kept is not None:\n        return\n    try:\n",
        "    try:\n",
        "signing/test_degraded.py::test_a_conflict_is_kept_and_after_a_restart_nothing_is_signed",
    ),
    _bug(
        "DEGRADED",
        "who finds it tells the others and does not keep it",
        ENDING,
        "                self._keep(ends.degraded)\n",
        "                pass\n",
        "consensus/test_ending.py::test_a_contradiction_in_the_topic_and_the_journals_own_block_"
        "are_proof_and_are_kept_and_sent",
    ),
)
