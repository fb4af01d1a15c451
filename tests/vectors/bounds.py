"""Records at their bounds and just beyond: what every reader takes, and what every reader refuses.

Each is a good record with one field changed, by the name of what is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.vectors.synthetic import example_ledger, seed_of, signer_of

from nocturne.core.blocks import (
    BlockHeader,
    BlockKind,
    Range,
    encode_block_header,
    hash_block,
)
from nocturne.core.certificates import (
    Ballot,
    Certificate,
    CommitProof,
    Epoch,
    VoteKind,
    encode_commit_proof,
    sign_vote,
)
from nocturne.core.commands import Command, Opening, encode_command
from nocturne.core.encoding import TIME_MAX
from nocturne.core.genesis import Genesis, Limits, encode_genesis
from nocturne.core.identifiers import Hash, LedgerId, SessionId
from nocturne.core.intake import signed_command_of


@dataclass(frozen=True, slots=True)
class Bound:
    """A record of a schema, and whether it is well-formed."""

    schema: str
    name: str
    data: bytes
    is_well_formed: bool


def bounds() -> Iterator[Bound]:
    """All of them."""
    yield from _commands()
    yield from _headers()
    yield from _commit_proofs()
    yield from _geneses()


def _commands() -> Iterator[Bound]:
    signed = signed_command_of(example_ledger().blocks[0].records[0])
    assert signed is not None
    plain = replace(signed.command, opening=None)
    draft = plain.events[0]
    opening = Opening("facts", 1)

    def of(name: str, well_formed: bool, command: Command) -> Bound:
        return Bound("command", name, encode_command(command), well_formed)

    yield of("as it is", True, plain)
    for expected in (None, 0, 2**53 - 2, -1, 2**53 - 1, 2**53, 2**63 - 1):
        fits = expected is None or 0 <= expected < 2**53 - 1
        yield of(f"expectedSequence {expected}", fits, replace(plain, expected_sequence=expected))
    for time in (0, TIME_MAX, -1, TIME_MAX + 1):
        yield of(f"occurredAt {time}", 0 <= time <= TIME_MAX, replace(plain, occurred_at=time))
    for session in ("a", "a~b", "~ledger", "s" * 128, "", "s" * 129, "a b", "\u00e9", "a\n"):
        fits = session in ("a", "a~b", "~ledger", "s" * 128)
        command = replace(plain, session=SessionId(session))
        yield of(f"session {session[:8]!a} of {len(session)}", fits, command)
    for name in ("n" * 128, "", "n" * 129, "a b", "a~b", "a@b"):
        events = (replace(draft, event_type=name),)
        fits = name == "n" * 128
        yield of(f"eventType {name[:8]!a} of {len(name)}", fits, replace(plain, events=events))
    for name in ("c" * 128, "a b", "", "c" * 129, " a", "a ", "\u00e9"):
        events = (replace(draft, content_type=name),)
        fits = name in ("c" * 128, "a b")
        yield of(f"contentType {name[:8]!a} of {len(name)}", fits, replace(plain, events=events))
    yield of("no events", False, replace(plain, events=()))
    for version in (1, 2**31 - 1, 0, 2**31):
        of_version = replace(plain, expected_sequence=0, opening=Opening("facts", version))
        yield of(f"opening in version {version}", 1 <= version < 2**31, of_version)
    late = replace(plain, expected_sequence=1, opening=opening)
    yield of("an opening that expects nothing", True, replace(late, expected_sequence=None))
    yield of("an opening that expects sequence 1", False, late)
    unnamed = replace(plain, expected_sequence=0, opening=Opening("", 1))
    yield of("an opening of no kind", False, unnamed)
    yield of("a key of no suite", False, replace(plain, key=()))
    yield of("a key of one suite twice", False, replace(plain, key=plain.key * 2))
    for length in (31, 33):
        key = (replace(plain.key[0], data=bytes(length)),)
        yield of(f"a key of {length} bytes", False, replace(plain, key=key))
    weak = (replace(plain.key[0], data=bytes(32)),)
    yield of("a key that is no sound point: judged where a signature is verified", True,
             replace(plain, key=weak))  # fmt: skip


def _headers() -> Iterator[Bound]:
    good = example_ledger().blocks[0].header
    first, second = (
        Range(1, seed_of("topic")[:16], partition, 0, 5, Hash(seed_of("log")))
        for partition in (0, 1)
    )

    def of(name: str, well_formed: bool, header: BlockHeader) -> Bound:
        return Bound("block_header", name, encode_block_header(header), well_formed)

    def of_ranges(name: str, well_formed: bool, *ranges: Range) -> Bound:
        count = sum(one.end - one.start for one in ranges)
        return of(name, well_formed, replace(good, ranges=ranges, record_count=count))

    yield of("as it is", True, good)
    for height in (1, 2**53 - 1, 0, -1, 2**53):
        yield of(f"height {height}", 1 <= height < 2**53, replace(good, height=height))
    for view in (1, 0, -1):
        yield of(f"view {view}", view == 1, replace(good, view=view))
    yield of("parent view -1", False, replace(good, parent_view=-1))
    for time in (0, TIME_MAX, -1, TIME_MAX + 1):
        yield of(f"time {time}", 0 <= time <= TIME_MAX, replace(good, time=time))
    for epoch in (Epoch(-1, 0), Epoch(0, -1)):
        yield of(f"epoch {epoch.recovery}, {epoch.number}", False, replace(good, epoch=epoch))
    yield of_ranges("no ranges", True)
    yield of_ranges("two ranges", True, first, second)
    yield of_ranges("ranges descend", False, second, first)
    yield of_ranges("two ranges of a partition", False, first, replace(first, start=5, end=6))
    yield of_ranges("a range of nothing", False, replace(first, start=5), second)
    yield of_ranges("a range that ends before it begins", False, replace(first, start=6), second)
    yield of_ranges("a range from -1", False, replace(first, start=-1))
    yield of_ranges("a range to 2^53-1", True, replace(first, start=2**53 - 9, end=2**53 - 1))
    yield of_ranges("a range to 2^53", False, replace(first, start=2**53 - 9, end=2**53))
    for partition in (255, -1, 256):
        fits = partition == 255
        yield of_ranges(f"partition {partition}", fits, replace(first, partition=partition))
    for log_epoch in (2**31 - 1, 0, -1, 2**31):
        fits = log_epoch == 2**31 - 1
        yield of_ranges(f"log epoch {log_epoch}", fits, replace(first, log_epoch=log_epoch))
    for count in (9, 11):
        header = replace(good, ranges=(first, second), record_count=count)
        yield of(f"{count} records in ranges of 10", False, header)


def _commit_proofs() -> Iterator[Bound]:
    good = example_ledger().blocks[0].proof
    certificate = good.finalization

    def of(name: str, well_formed: bool, changed: Certificate) -> Bound:
        data = encode_commit_proof(replace(good, finalization=changed))
        return Bound("commit_proof", name, data, well_formed)

    yield of("as it is", True, certificate)
    for view in (2**63 - 1, 0, -1):
        yield of(f"view {view}", view > 0, replace(certificate, view=view))
    for epoch in (Epoch(-1, 0), Epoch(0, -1)):
        changed = replace(certificate, epoch=epoch)
        yield of(f"epoch {epoch.recovery}, {epoch.number}", False, changed)


def _geneses() -> Iterator[Bound]:
    good = example_ledger().genesis
    limits, finality, operator = good.limits, good.finality, good.operators[0]
    other = signer_of("other operator").key
    facts = good.kinds[1]

    def of(name: str, well_formed: bool, genesis: Genesis) -> Bound:
        return Bound("genesis", name, encode_genesis(genesis), well_formed)

    yield of("as it is", True, good)
    yield of("other versions", False, replace(good, format_version=2))
    yield of("no validators", False, replace(good, validators=()))
    yield of("a validator twice", False, replace(good, validators=good.validators * 2))
    yield of("two operators", True, replace(good, operators=(operator, other)))
    yield of("an operator twice", False, replace(good, operators=(operator, other, operator)))
    yield of("an anchor", True, replace(good, anchors=(operator,)))
    yield of("an anchor twice", False, replace(good, anchors=(operator, operator)))
    yield of("an anchor that is no key", False, replace(good, anchors=((),)))
    for threshold in (0, 2):
        yield of(f"threshold {threshold} of 1", False, replace(good, operator_threshold=threshold))
    for count, threshold in ((0, 0), (2, 0), (2, 2), (0, 1), (2, 3), (2, -1)):
        witnesses = (operator, other)[:count]
        changed = replace(finality, witnesses=witnesses, witness_threshold=threshold)
        fits = 0 <= threshold <= count
        yield of(f"{threshold} of {count} witnesses", fits, replace(good, finality=changed))
    twice = replace(finality, witnesses=(operator, operator))
    yield of("a witness twice", False, replace(good, finality=twice))
    yield of("a witness that is no key", False,
             replace(good, finality=replace(finality, witnesses=((),))))  # fmt: skip
    yield of("no kinds", True, replace(good, kinds=()))
    yield of("a kind in two versions", True,
             replace(good, kinds=(facts, replace(facts, version=2))))  # fmt: skip
    yield of("a kind twice", False,
             replace(good, kinds=(facts, replace(facts, code_hash=Hash(bytes(32))))))  # fmt: skip
    for version in (0, 2**31):
        kinds = (replace(facts, version=version),)
        yield of(f"a kind in version {version}", False, replace(good, kinds=kinds))
    for name in ("", "a b", "k" * 129):
        kinds = (replace(facts, name=name),)
        yield of(f"kind {name[:8]!a} of {len(name)}", False, replace(good, kinds=kinds))
    rule = good.open_policy[0]
    for name in ("", "facts", "a b"):
        policy = (replace(rule, kind=name),)
        yield of(f"a rule for kind {name!a}", name != "a b", replace(good, open_policy=policy))
    for bound in (0, -1):
        changed_limits = replace(limits, clock_bound_ms=bound)
        yield of(f"clockBoundMs {bound}", bound == 0, replace(good, limits=changed_limits))
    for field in ("command_events_max", "range_records_max", "id_window", "command_bytes_max"):
        zero = Limits(**{**_fields(limits), field: 0})
        yield of(f"{field} 0", False, replace(good, limits=zero))
    for partitions in (256, 0, 257):
        yield of(
            f"{partitions} partitions", partitions == 256, replace(good, partitions=partitions)
        )
    yield of("epochs of length 0", False, replace(good, epoch_length=0))


def _fields(limits: Limits) -> dict[str, int]:
    return {name: getattr(limits, name) for name in limits.__slots__}


@dataclass(frozen=True, slots=True)
class Claim:
    """A commit proof of the block with these header bytes, and whether it holds."""

    name: str
    header: bytes
    proof: bytes
    holds: bool


def claims() -> Iterator[Claim]:
    """Of the first block of the example ledger of four validators."""
    ledger = example_ledger("of four", validators=4)
    first, second = (block.header for block in ledger.blocks[:2])
    header_bytes = encode_block_header(first)

    def by(name: str, holds: bool, *headers: BlockHeader, **certified: object) -> Claim:
        """Headers that lead from the block on; the last one is certified, as it says itself."""
        encoded: list[bytes] = []
        digest, last = hash_block(header_bytes), first
        for header in headers:
            last = replace(header, parent_digest=digest)
            encoded.append(encode_block_header(last))
            digest = hash_block(encoded[-1])
        certificate = _finalized(last, digest, ledger.state.ledger_id, certified)
        data = encode_commit_proof(CommitProof(certificate, tuple(encoded)))
        return Claim(name, header_bytes, data, holds)

    tail = replace(first, kind=BlockKind.TAIL, ranges=(), record_count=0, view=first.view + 1)
    third = replace(second, height=3, view=second.view + 1)
    yield by("the block itself", True)
    yield by("its child", True, second)
    yield by("its grandchild", True, second, third)
    yield by("a tail block", True, tail)
    yield by("a tail block of a tail block", True, tail, replace(tail, view=tail.view + 1))
    yield by("a tail block of its child", True, second, replace(tail, height=2, view=3))
    yield by("certified in another view", False, view=first.view + 1)
    yield by("certified in another epoch", False, epoch=Epoch(0, 1))
    yield by("certified in another recovery", False, epoch=Epoch(1, 0))
    yield by("a header of another validator set", False,
             replace(second, validator_set_hash=Hash(seed_of("set"))),
             validator_set_hash=first.validator_set_hash)  # fmt: skip
    yield by("a child of the next epoch, of the same validators", False,
             replace(second, epoch=Epoch(0, 1), view=1))  # fmt: skip
    yield by("a child of the next recovery", False, replace(second, epoch=Epoch(1, 0)))
    yield by("a child certified in another view", False, second, view=first.view)
    yield by("a child of the same height", False, replace(second, height=1))
    yield by("a child two above", False, replace(second, height=3))
    yield by("a tail block one above", False, replace(tail, height=2))
    yield by("a ledger block after a tail block", False, tail, second)
    yield by("a child of another ledger", False,
             replace(second, ledger_id=LedgerId(seed_of("any ledger"))))  # fmt: skip
    yield by("a child of another format", False, replace(second, format_version=2))
    yield by("a child of other rules", False, replace(second, rules_version=2))
    yield by("a child of height 0", False, replace(second, height=0))


def _finalized(
    header: BlockHeader, digest: Hash, ledger_id: LedgerId, certified: dict[str, object]
) -> Certificate:
    """A quorum's finalization of a header, as it says itself or as `certified` says otherwise."""
    ballot = Ballot(
        VoteKind.FINALIZE,
        ledger_id,
        header.epoch,
        header.validator_set_hash,
        header.view,
        digest,
    )
    ballot = ballot._replace(**certified)
    votes = tuple((index, sign_vote(signer_of(f"of four validator {index}"), ballot))
                  for index in range(3))  # fmt: skip
    return Certificate(
        ballot.kind, ballot.epoch, ballot.validator_set_hash, ballot.view, digest, votes
    )
