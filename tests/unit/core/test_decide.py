"""Every way a record is refused, by real records through `prepare` and `execute`, and the rules of
openings, members, command ids and atomic commands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.ledger_factory import (
    ALICE,
    BOB,
    CAROL,
    OPERATORS,
    Draft,
    Ledger,
    author_id,
    log_record,
    make_genesis,
    signer,
)

from nocturne.core.author_keys import (
    AUTHOR_KEY_REVOKED,
    AUTHOR_KEY_ROTATED,
    revoked_payload,
    rotated_payload,
)
from nocturne.core.blocks import LogRecord
from nocturne.core.commands import (
    SEALED_CONTENT_TYPE,
    Opening,
    SignedCommand,
    encode_signed_command,
    sign_command,
)
from nocturne.core.decide import MEMBER_ADDED, MEMBER_REMOVED, SESSION_CLOSED
from nocturne.core.encoding import domain, sha256
from nocturne.core.events import EventHeader, Position
from nocturne.core.execution import execute
from nocturne.core.genesis import Limits, OpenRule
from nocturne.core.governing import control_number
from nocturne.core.identifiers import LEDGER_SESSION, AuthorId, SessionId, session_key
from nocturne.core.keys import Ed25519Signer, Signature
from nocturne.core.merkle import Frontier, leaf_hash
from nocturne.core.receipts import Head, Reason, ReceiptHeader, encode_receipt_header, hash_receipt
from nocturne.core.state import IdWindow, Role
from nocturne.core.topics import frame

SMALL = Limits(
    command_bytes_max=4096,
    record_bytes_max=8192,
    command_events_max=4,
    range_records_max=64,
    block_bytes_max=64 * 1024,
    id_window=3,
)
CLOSE = Draft(SESSION_CLOSED, b"{}")


def added(member: Ed25519Signer, role: str) -> Draft:
    text = f'{{"author":"sha256-{author_id(member).hex()}","role":"{role}"}}'
    return Draft(MEMBER_ADDED, text.encode())


def removed(member: Ed25519Signer) -> Draft:
    return Draft(MEMBER_REMOVED, f'{{"author":"sha256-{author_id(member).hex()}"}}'.encode())


@pytest.fixture
def ledger() -> Ledger:
    """A ledger with small limits and the session `s` that Alice opened with command 1."""
    made = Ledger(make_genesis(limits=SMALL))
    accepted(made.answer(made.opening("s", number=1)))
    return made


def accepted(answer: object) -> tuple[EventHeader, ...]:
    assert isinstance(answer, tuple), answer
    return answer


def refused(answer: object) -> ReceiptHeader:
    assert isinstance(answer, ReceiptHeader), answer
    return answer


def reason(answer: object) -> Reason:
    return refused(answer).reason


def broken_signature(signed: SignedCommand) -> SignedCommand:
    """Signed by nobody: the last byte of the signature is another one."""
    (one,) = signed.signatures
    data = one.data[:-1] + bytes((one.data[-1] ^ 1,))
    return replace(signed, signatures=(Signature(one.suite, one.key_id, data),))


# Every reason, each by a real record ------------------------------------------------------------


def malformed(ledger: Ledger) -> ReceiptHeader:
    return refused(ledger.answer(LogRecord(b"s", b"\x00\x00\x00\x00\x01no command", ()), 0))


def too_large(ledger: Ledger) -> ReceiptHeader:
    return refused(ledger.answer(ledger.command("s", Draft(data=b"x" * 4096), number=2)))


def wrong_partition(ledger: Ledger) -> ReceiptHeader:
    other = (ledger.partition_of("s") + 1) % 4
    return refused(ledger.answer(ledger.command("s", number=2), other))


def signature_invalid(ledger: Ledger) -> ReceiptHeader:
    return refused(ledger.answer(broken_signature(ledger.command("s", number=2))))


def unknown_author(ledger: Ledger) -> ReceiptHeader:
    """Bob signs, well, with his own key, in the name of Alice."""
    signed = ledger.command("s", author=BOB, identity=author_id(ALICE), number=2)
    return refused(ledger.answer(signed))


def session_closed(ledger: Ledger) -> ReceiptHeader:
    accepted(ledger.answer(ledger.command("s", CLOSE, number=2)))
    return refused(ledger.answer(ledger.command("s", number=3)))


def unknown_kind(ledger: Ledger) -> ReceiptHeader:
    return refused(ledger.answer(ledger.opening("new", kind="chess")))


def not_permitted_to_open(ledger: Ledger) -> ReceiptHeader:
    return refused(ledger.answer(ledger.opening("~other")))


def not_a_member(ledger: Ledger) -> ReceiptHeader:
    return refused(ledger.answer(ledger.command("s", author=BOB)))


def repeated(ledger: Ledger) -> ReceiptHeader:
    return refused(ledger.answer(ledger.opening("s", number=1)))


def id_reused(ledger: Ledger) -> ReceiptHeader:
    return refused(ledger.answer(ledger.command("s", Draft("Other"), number=1)))


def stale_id(ledger: Ledger) -> ReceiptHeader:
    for number in (2, 3, 4):
        accepted(ledger.answer(ledger.command("s", number=number)))
    return refused(ledger.answer(ledger.opening("s", number=1)))


def duplicate_seq(ledger: Ledger) -> ReceiptHeader:
    return refused(ledger.answer(ledger.command("s", number=2, expected=7)))


def invariant_violation(ledger: Ledger) -> ReceiptHeader:
    return refused(ledger.answer(ledger.command("s", Draft("nocturne.Unknown"), number=2)))


PRODUCERS: dict[Reason, Callable[[Ledger], ReceiptHeader]] = {
    Reason.MALFORMED: malformed,
    Reason.TOO_LARGE: too_large,
    Reason.WRONG_PARTITION: wrong_partition,
    Reason.SIGNATURE_INVALID: signature_invalid,
    Reason.UNKNOWN_AUTHOR: unknown_author,
    Reason.SESSION_CLOSED: session_closed,
    Reason.UNKNOWN_KIND: unknown_kind,
    Reason.NOT_PERMITTED_TO_OPEN: not_permitted_to_open,
    Reason.NOT_A_MEMBER: not_a_member,
    Reason.REPEATED: repeated,
    Reason.ID_REUSED: id_reused,
    Reason.STALE_ID: stale_id,
    Reason.DUPLICATE_SEQ: duplicate_seq,
    Reason.INVARIANT_VIOLATION: invariant_violation,
}

UNAUTHENTICATED = {
    Reason.MALFORMED,
    Reason.TOO_LARGE,
    Reason.WRONG_PARTITION,
    Reason.SIGNATURE_INVALID,
    Reason.UNKNOWN_AUTHOR,
}


def test_no_reason_is_without_a_record_that_produces_it() -> None:
    assert set(PRODUCERS) == set(Reason)


@pytest.mark.parametrize("expected", list(Reason), ids=lambda one: one.name)
def test_each_reason_is_produced_by_a_real_record(ledger: Ledger, expected: Reason) -> None:
    receipt = PRODUCERS[expected](ledger)
    assert receipt.reason is expected
    assert receipt.claimed == (expected in UNAUTHENTICATED)


@pytest.mark.parametrize("expected", list(Reason), ids=lambda one: one.name)
def test_a_receipt_enters_its_session_only_if_that_exists_and_its_author_is_authenticated(
    ledger: Ledger, expected: Reason
) -> None:
    before = {name: _receipts(ledger, name) for name in ("s", LEDGER_SESSION)}
    receipt = PRODUCERS[expected](ledger)
    belongs = expected not in UNAUTHENTICATED and receipt.session == "s"
    home, other = ("s", LEDGER_SESSION) if belongs else (LEDGER_SESSION, "s")
    leaf = leaf_hash(hash_receipt(encode_receipt_header(receipt)))
    assert _receipts(ledger, home) == before[home].append(leaf)
    assert _receipts(ledger, other) == before[other]
    assert (receipt.head is not None) == belongs


def _receipts(ledger: Ledger, session: str) -> Frontier:
    return ledger.session(session).receipts


# The order of checks ----------------------------------------------------------------------------

# A command that is wrong in several ways is built by adding faults, the last check's first.
FAULTS = (
    Reason.MALFORMED,
    Reason.WRONG_PARTITION,
    Reason.SIGNATURE_INVALID,
    Reason.UNKNOWN_AUTHOR,
    Reason.SESSION_CLOSED,
    Reason.NOT_A_MEMBER,
    Reason.REPEATED,
    Reason.DUPLICATE_SEQ,
    Reason.INVARIANT_VIOLATION,
)


def _with_faults(ledger: Ledger, faults: set[Reason]) -> ReceiptHeader:
    """What the ledger answers to a command for an open session that has exactly these faults."""
    if Reason.REPEATED in faults:
        # What is repeated is the whole command, so its first copy is refused for the other faults
        # that come after the id check, and keeps its id.
        late = faults & {Reason.DUPLICATE_SEQ, Reason.INVARIANT_VIOLATION}
        ledger.answer(_command(ledger, late))
    if Reason.SESSION_CLOSED in faults:
        accepted(ledger.answer(ledger.command("s", CLOSE, number=50)))
    signed = _command(ledger, faults)
    if Reason.UNKNOWN_AUTHOR in faults and Reason.NOT_A_MEMBER not in faults:
        command = replace(signed.command, author=author_id(ALICE), key=BOB.key)
        signed = sign_command(command, signed.payloads, BOB)
    if Reason.SIGNATURE_INVALID in faults:
        signed = broken_signature(signed)
    record = log_record(signed)
    if Reason.MALFORMED in faults:
        record = replace(record, key=b"another")
    partition = ledger.partition_of("s") + (1 if Reason.WRONG_PARTITION in faults else 0)
    return refused(ledger.answer(record, partition % 4))


def _command(ledger: Ledger, faults: set[Reason]) -> SignedCommand:
    stranger = Reason.NOT_A_MEMBER in faults
    author = BOB if stranger else ALICE
    return ledger.command(
        "s",
        Draft("nocturne.Unknown" if Reason.INVARIANT_VIOLATION in faults else "Paid"),
        author=author,
        number=20,
        expected=9 if Reason.DUPLICATE_SEQ in faults else None,
        identity=author_id(CAROL) if stranger and Reason.UNKNOWN_AUTHOR in faults else None,
    )


@pytest.mark.parametrize("second", FAULTS, ids=lambda one: one.name)
@pytest.mark.parametrize("first", FAULTS, ids=lambda one: one.name)
def test_of_two_faults_the_earlier_check_names_the_receipt(
    ledger: Ledger, first: Reason, second: Reason
) -> None:
    expected = min(first, second, key=FAULTS.index)
    assert _with_faults(ledger, {first, second}).reason is expected


def test_too_large_comes_before_everything_even_before_being_read(ledger: Ledger) -> None:
    record = LogRecord(b"another", b"\x01" * 4097, ())
    assert reason(ledger.answer(record, 0)) is Reason.TOO_LARGE


def test_too_many_events_come_after_form_and_before_the_partition(ledger: Ledger) -> None:
    signed = ledger.command("s", *[Draft()] * 5, number=2)
    other = (ledger.partition_of("s") + 1) % 4
    assert reason(ledger.answer(signed, other)) is Reason.TOO_LARGE
    record = replace(log_record(signed), key=b"another")
    assert reason(ledger.answer(record, other)) is Reason.MALFORMED


def test_the_kind_is_checked_before_the_policy_and_the_reserved_name_before_both() -> None:
    rules = (OpenRule(author_id(BOB), "", ""),)
    ledger = Ledger(make_genesis(limits=SMALL, open_policy=rules))
    assert reason(ledger.answer(ledger.opening("a", kind="chess"))) is Reason.UNKNOWN_KIND
    assert reason(ledger.answer(ledger.opening("a"))) is Reason.NOT_PERMITTED_TO_OPEN
    signed = ledger.opening("~a", kind="chess", author=BOB)
    assert reason(ledger.answer(signed)) is Reason.NOT_PERMITTED_TO_OPEN


def test_a_stranger_learns_nothing_of_ids_or_sequence(ledger: Ledger) -> None:
    signed = ledger.command("s", author=BOB, number=1, expected=9)
    assert reason(ledger.answer(signed)) is Reason.NOT_A_MEMBER
    assert reason(ledger.answer(signed)) is Reason.NOT_A_MEMBER


# Author and ledger ------------------------------------------------------------------------------


def test_a_command_for_another_ledger_has_no_signature_for_this_one(ledger: Ledger) -> None:
    other = Ledger(make_genesis(limits=SMALL, nonce=1))
    assert other.ledger_id != ledger.ledger_id
    signed = ledger.command("s", number=2, ledger_id=other.ledger_id)
    assert reason(ledger.answer(signed)) is Reason.SIGNATURE_INVALID


def rotated(author: Ed25519Signer, new: Ed25519Signer) -> Draft:
    return Draft(AUTHOR_KEY_ROTATED, rotated_payload(author_id(author), new))


def revoked(author: Ed25519Signer) -> Draft:
    return Draft(AUTHOR_KEY_REVOKED, revoked_payload(author_id(author)))


def test_an_author_whose_key_was_rotated_signs_with_the_new_one_only(ledger: Ledger) -> None:
    accepted(ledger.answer(ledger.command(LEDGER_SESSION, rotated(ALICE, CAROL), number=2)))
    assert reason(ledger.answer(ledger.command("s", number=2))) is Reason.UNKNOWN_AUTHOR
    signed = ledger.command("s", author=CAROL, identity=author_id(ALICE), number=2)
    (event,) = accepted(ledger.answer(signed))
    assert (event.author, event.key) == (author_id(ALICE), CAROL.key)
    # Carol herself is another author, with the same key.
    assert reason(ledger.answer(ledger.command("s", author=CAROL))) is Reason.NOT_A_MEMBER


def test_an_author_can_rotate_again_and_back(ledger: Ledger) -> None:
    first, second = signer(60), signer(61)
    holder = ALICE
    for number, new in enumerate((first, second, ALICE), 2):
        act = ledger.command(
            LEDGER_SESSION, rotated(ALICE, new), author=holder, identity=author_id(ALICE),
            number=number,
        )  # fmt: skip
        accepted(ledger.answer(act))
        holder = new
    accepted(ledger.answer(ledger.command("s", number=2)))


def test_nobody_signs_for_a_revoked_author_ever_again(ledger: Ledger) -> None:
    accepted(ledger.answer(ledger.command(LEDGER_SESSION, revoked(ALICE), number=2)))
    assert reason(ledger.answer(ledger.command("s", number=2))) is Reason.UNKNOWN_AUTHOR
    again = ledger.command(LEDGER_SESSION, rotated(ALICE, CAROL), number=3)
    assert reason(ledger.answer(again)) is Reason.UNKNOWN_AUTHOR


def test_in_the_block_of_its_revocation_a_key_still_counts_but_changes_no_key(
    ledger: Ledger,
) -> None:
    revoke = ledger.append(ledger.command(LEDGER_SESSION, revoked(ALICE), number=2))
    rotate = ledger.append(ledger.command(LEDGER_SESSION, rotated(ALICE, CAROL), number=3))
    append = ledger.append(ledger.command("s", number=2))
    ledger.commit()
    answers = [ledger.answers[at.partition, at.offset] for at in (revoke, rotate, append)]
    accepted(answers[0])
    violation = refused(answers[1])
    assert (violation.reason, violation.violated_invariant) == (
        Reason.INVARIANT_VIOLATION,
        "author_key.revoked",
    )
    accepted(answers[2])
    assert reason(ledger.answer(ledger.command("s", number=4))) is Reason.UNKNOWN_AUTHOR


def _wrong_possession() -> bytes:
    good = rotated_payload(author_id(ALICE), CAROL)
    return good.replace(CAROL.key[0].data.hex().encode(), BOB.key[0].data.hex().encode())


@pytest.mark.parametrize(
    "event_type, payload, invariant",
    [
        (AUTHOR_KEY_ROTATED, rotated_payload(author_id(BOB), CAROL), "author_key.own"),
        (AUTHOR_KEY_ROTATED, _wrong_possession(), "author_key.possession"),
        (AUTHOR_KEY_ROTATED, rotated_payload(author_id(ALICE), CAROL) + b" ", "author_key.form"),
        (AUTHOR_KEY_ROTATED, b"", "author_key.form"),
        (AUTHOR_KEY_ROTATED, b"[" * 20_000, "author_key.form"),
        (
            AUTHOR_KEY_ROTATED,
            rotated_payload(author_id(ALICE), CAROL).replace(b'"ed25519-', b'"mldsa44-'),
            "author_key.form",
        ),
        (AUTHOR_KEY_REVOKED, revoked_payload(author_id(BOB)), "author_key.own"),
        (AUTHOR_KEY_REVOKED, b"{}", "author_key.form"),
    ],
)
def test_an_act_on_keys_says_exactly_what_it_means(
    event_type: str, payload: bytes, invariant: str
) -> None:
    made = Ledger()
    signed = made.command(LEDGER_SESSION, Draft(event_type, payload))
    receipt = refused(made.answer(signed))
    assert (receipt.reason, receipt.violated_invariant) == (Reason.INVARIANT_VIOLATION, invariant)


def test_a_sealed_act_is_none() -> None:
    made = Ledger()
    act = Draft(AUTHOR_KEY_REVOKED, revoked_payload(author_id(ALICE)), SEALED_CONTENT_TYPE)
    assert refused(made.answer(made.command(LEDGER_SESSION, act))).violated_invariant == (
        "payload.plain"
    )


@pytest.mark.parametrize("event_type", [AUTHOR_KEY_ROTATED, AUTHOR_KEY_REVOKED])
def test_acts_on_keys_stand_in_the_ledgers_session_only(ledger: Ledger, event_type: str) -> None:
    act = Draft(event_type, revoked_payload(author_id(ALICE)))
    receipt = refused(ledger.answer(ledger.command("s", act, number=2)))
    assert receipt.violated_invariant == "event_type.reserved"


def test_the_ledgers_session_takes_no_opening_and_no_other_event() -> None:
    made = Ledger()
    act = revoked(ALICE)
    assert reason(made.answer(made.opening(LEDGER_SESSION, act))) is Reason.NOT_A_MEMBER
    for number, drafts in enumerate(((act, Draft()), (Draft(),), (act, CLOSE)), 2):
        signed = made.command(LEDGER_SESSION, *drafts, number=number)
        assert reason(made.answer(signed)) is Reason.NOT_A_MEMBER
    accepted(made.answer(made.command(LEDGER_SESSION, act)))


def test_no_author_that_an_act_names_is_the_key_of_another_item() -> None:
    """Not the policy's, not the control number's, not that of a list of operators."""
    made = Ledger()
    before = made.state.view.open_policy
    targets = [
        sha256(domain("nocturne/control-number/v1")),
        sha256(domain("nocturne/open-policy/v1")),
        sha256(domain("nocturne/author-revocation/v1") + author_id(ALICE)),
        sha256(domain("nocturne/author-key/v1") + author_id(ALICE)),
    ]
    accepted(made.answer(made.opening("s")))
    for number, target in enumerate(targets, 1):
        for operator in OPERATORS[:2]:
            act = Draft(AUTHOR_KEY_REVOKED, revoked_payload(AuthorId(target)))
            signed = made.command(LEDGER_SESSION, act, author=operator, number=number)
            accepted(made.answer(signed))
    assert made.state.view.open_policy == before
    assert control_number(made.state.view.items) == 0
    accepted(made.answer(made.command("s", number=2)))
    last = made.command(LEDGER_SESSION, revoked(ALICE), author=OPERATORS[2])
    accepted(made.answer(last))
    accepted(made.answer(made.command("s", number=3)))


def test_a_vote_lapses_with_the_operators_own_key_and_with_a_rotation() -> None:
    made = Ledger()
    accepted(made.answer(made.opening("s")))
    one, two, three = OPERATORS
    for operator, named in ((one, ALICE), (one, one), (two, ALICE)):
        signed = made.command(
            LEDGER_SESSION, revoked(named), author=operator, number=len(made.blocks)
        )
        accepted(made.answer(signed))
    accepted(made.answer(made.command("s", number=2)))
    accepted(made.answer(made.command(LEDGER_SESSION, rotated(ALICE, CAROL), number=9)))
    signed = made.command(LEDGER_SESSION, revoked(ALICE), author=three)
    accepted(made.answer(signed))
    signed = made.command("s", author=CAROL, identity=author_id(ALICE), number=3)
    accepted(made.answer(signed))


def test_a_proof_of_a_rotation_serves_no_other_author() -> None:
    made = Ledger()
    stolen = rotated_payload(author_id(BOB), CAROL).replace(
        author_id(BOB).hex().encode(), author_id(ALICE).hex().encode()
    )
    receipt = refused(made.answer(made.command(LEDGER_SESSION, Draft(AUTHOR_KEY_ROTATED, stolen))))
    assert receipt.violated_invariant == "author_key.possession"


def test_in_the_ledgers_session_refusals_leave_nothing_and_few_ids_are_kept() -> None:
    made = Ledger()
    for number in range(1, 20):
        wrong = made.command(LEDGER_SESSION, revoked(BOB), number=number)
        assert refused(made.answer(wrong)).violated_invariant == "author_key.own"
        late = made.command(LEDGER_SESSION, revoked(ALICE), number=number, expected=77)
        assert reason(made.answer(late)) is Reason.DUPLICATE_SEQ
    assert made.session(LEDGER_SESSION).ids.size == 0
    for number in range(1, 20):
        act = made.command(LEDGER_SESSION, rotated(ALICE, ALICE), number=number)
        accepted(made.answer(act))
    window = made.session(LEDGER_SESSION).id_window(author_id(ALICE))
    assert window is not None
    assert len(window.entries) == 4


def test_owners_are_counted_through_every_change_of_roles(ledger: Ledger) -> None:
    """Among many members nobody is searched for; the count is the number of owners."""
    steps: list[tuple[Draft, str | None]] = [
        (added(BOB, "owner"), None),
        (added(BOB, "owner"), None),
        (removed(BOB), None),
        (removed(BOB), None),
        (removed(ALICE), "members.owner_remains"),
        (added(ALICE, "writer"), "members.owner_remains"),
        (added(CAROL, "reader"), None),
        (added(CAROL, "owner"), None),
        (added(CAROL, "writer"), None),
    ]
    for number, (draft, violated) in enumerate(steps, 2):
        answer = ledger.answer(ledger.command("s", draft, number=number))
        if violated is None:
            accepted(answer)
        else:
            assert refused(answer).violated_invariant == violated
        session = ledger.session("s")
        owners = [one for _, one in session.members.items() if one is Role.OWNER]
        assert session.owners == len(owners) == 1 + (number in (2, 3, 9))


def test_a_threshold_of_operators_revokes_whom_they_name() -> None:
    """Two of three; one who asks twice is one, and each asks as the author of its own key."""
    made = Ledger()
    accepted(made.answer(made.opening("s")))
    one, two, _ = OPERATORS
    for number in (1, 2):
        act = made.command(LEDGER_SESSION, revoked(ALICE), author=one, number=number)
        accepted(made.answer(act))
        accepted(made.answer(made.command("s", number=number + 1)))
    accepted(made.answer(made.command(LEDGER_SESSION, revoked(ALICE), author=two)))
    assert reason(made.answer(made.command("s", number=9))) is Reason.UNKNOWN_AUTHOR
    late = made.command(LEDGER_SESSION, revoked(ALICE), author=two, number=2)
    assert refused(made.answer(late)).violated_invariant == "author_key.revoked"


def test_a_claimed_receipt_says_only_what_the_record_says(ledger: Ledger) -> None:
    signed = broken_signature(ledger.command("s", number=2, expected=4))
    receipt = refused(ledger.answer(signed))
    assert (receipt.session, receipt.attempted_sequence) == ("s", 5)
    assert receipt.claimed
    assert receipt.head is None
    assert receipt.command_hash == signed.command_hash


def test_a_record_that_is_no_command_is_named_by_its_record_hash(ledger: Ledger) -> None:
    record = LogRecord(None, None, (("a", None), ("a", b"")))
    receipt = refused(ledger.answer(record, 2))
    assert receipt.command_hash == ledger.prepare(2, record).record_hash
    assert (receipt.session, receipt.attempted_sequence, receipt.head) == ("", None, None)


# Command ids ------------------------------------------------------------------------------------


def test_a_repeated_command_names_the_first_position_however_often(ledger: Ledger) -> None:
    first = Position(1, ledger.partition_of("s"), 0)
    for _ in range(3):
        receipt = refused(ledger.answer(ledger.opening("s", number=1)))
        assert (receipt.reason, receipt.first_position) == (Reason.REPEATED, first)
    receipt = refused(ledger.answer(ledger.command("s", number=1)))
    assert (receipt.reason, receipt.first_position) == (Reason.ID_REUSED, first)


def test_other_salts_are_another_command(ledger: Ledger) -> None:
    accepted(ledger.answer(ledger.command("s", number=2)))
    assert reason(ledger.answer(ledger.command("s", number=2, salts=1))) is Reason.ID_REUSED


def test_other_signatures_of_the_same_command_repeat_it(ledger: Ledger) -> None:
    """The id belongs to the signed record, not to the bytes that carried it."""
    accepted(ledger.answer(ledger.command("s", number=2)))
    record = log_record(ledger.command("s", number=2))
    assert record.value is not None
    other_prefix = replace(record, value=b"\x00\xff\xff\xff\xff" + record.value[5:], headers=())
    assert reason(ledger.answer(other_prefix, ledger.partition_of("s"))) is Reason.REPEATED


@pytest.mark.parametrize(
    "late",
    [Reason.DUPLICATE_SEQ, Reason.INVARIANT_VIOLATION],
    ids=lambda one: one.name,
)
def test_a_command_refused_after_the_id_check_keeps_its_id(ledger: Ledger, late: Reason) -> None:
    signed = _command(ledger, {late})
    receipt = refused(ledger.answer(signed))
    assert receipt.reason is late
    again = refused(ledger.answer(signed))
    assert (again.reason, again.first_position) == (Reason.REPEATED, receipt.position)
    assert reason(ledger.answer(ledger.command("s", number=20))) is Reason.ID_REUSED


@pytest.mark.parametrize(
    "early",
    [Reason.WRONG_PARTITION, Reason.SIGNATURE_INVALID, Reason.UNKNOWN_AUTHOR, Reason.MALFORMED],
    ids=lambda one: one.name,
)
def test_a_command_refused_before_the_id_check_uses_no_id(ledger: Ledger, early: Reason) -> None:
    assert _with_faults(ledger, {early}).reason is early
    accepted(ledger.answer(ledger.command("s", number=20)))


def test_a_command_of_a_reader_uses_no_id(ledger: Ledger) -> None:
    accepted(ledger.answer(ledger.command("s", added(BOB, "reader"), number=2)))
    signed = ledger.command("s", author=BOB, number=1)
    assert reason(ledger.answer(signed)) is Reason.NOT_A_MEMBER
    accepted(ledger.answer(ledger.command("s", added(BOB, "writer"), number=3)))
    accepted(ledger.answer(signed))


def test_ids_count_for_one_author_and_one_session(ledger: Ledger) -> None:
    accepted(ledger.answer(ledger.command("s", added(BOB, "writer"), number=2)))
    accepted(ledger.answer(ledger.command("s", author=BOB, number=2)))
    accepted(ledger.answer(ledger.opening("t", number=2)))


def test_the_largest_ids_are_kept_and_all_below_them_are_stale(ledger: Ledger) -> None:
    """W is 3: ids 1, 5, 7 are kept, then 6 pushes 1 out, then 9 pushes 5 out."""
    for number in (7, 5, 6, 9):
        accepted(ledger.answer(ledger.command("s", number=number)))
    answers = {number: ledger.answer(ledger.command("s", number=number)) for number in range(1, 10)}
    assert [reason(answers[number]) for number in (1, 2, 3, 4, 5)] == [Reason.STALE_ID] * 5
    assert [reason(answers[number]) for number in (6, 7, 9)] == [Reason.REPEATED] * 3
    accepted(answers[8])
    assert reason(ledger.answer(ledger.command("s", number=6))) is Reason.STALE_ID
    window = _window(ledger)
    assert len(window.entries) == 3
    assert window.floor == (6).to_bytes(16, "big")


def test_an_id_below_a_full_window_is_executed_once_and_stale_at_once(ledger: Ledger) -> None:
    for number in (5, 6, 7):
        accepted(ledger.answer(ledger.command("s", number=number)))
    accepted(ledger.answer(ledger.command("s", number=2)))
    assert reason(ledger.answer(ledger.command("s", number=2))) is Reason.STALE_ID


def test_a_stale_command_leaves_the_window_as_it_was(ledger: Ledger) -> None:
    for number in (2, 3, 4, 5):
        accepted(ledger.answer(ledger.command("s", number=number)))
    before = _window(ledger)
    assert reason(ledger.answer(ledger.command("s", number=2, expected=99))) is Reason.STALE_ID
    assert _window(ledger) == before


def _window(ledger: Ledger) -> IdWindow:
    window = ledger.session("s").id_window(author_id(ALICE))
    assert window is not None
    return window


# Expected sequence ------------------------------------------------------------------------------


def test_a_wrong_expected_sequence_is_answered_with_the_true_head(ledger: Ledger) -> None:
    (event,) = accepted(ledger.answer(ledger.command("s", number=2, expected=1)))
    assert event.sequence == 2
    receipt = refused(ledger.answer(ledger.command("s", number=3, expected=1)))
    state = ledger.session("s")
    assert (receipt.reason, receipt.violated_invariant) == (Reason.DUPLICATE_SEQ, "S1")
    assert receipt.attempted_sequence == 2
    assert receipt.head == Head(2, state.head_hash)


def test_of_racing_commands_in_one_block_one_wins_and_the_rest_learn_its_head(
    ledger: Ledger,
) -> None:
    racers = [ledger.append(ledger.command("s", number=2 + n, expected=1)) for n in range(8)]
    ledger.commit()
    answers = [ledger.answers[one.partition, one.offset] for one in racers]
    (event,) = accepted(answers[0])
    state = ledger.session("s")
    for answer in answers[1:]:
        receipt = refused(answer)
        assert receipt.reason is Reason.DUPLICATE_SEQ
        assert receipt.head == Head(event.sequence, state.head_hash)


# Openings ---------------------------------------------------------------------------------------


def test_the_opening_rides_in_event_one_only(ledger: Ledger) -> None:
    first, second = accepted(ledger.answer(ledger.opening("t", Draft(), Draft())))
    assert (first.opening, second.opening) == (Opening("facts", 1), None)
    assert first.previous_hash == session_key(ledger.ledger_id, first.session)


def test_of_two_openings_in_one_block_the_second_gets_the_head_of_the_first(
    ledger: Ledger,
) -> None:
    one = ledger.append(ledger.opening("t", number=1))
    other = ledger.append(ledger.opening("t", number=2, kind="document"))
    ledger.commit()
    accepted(ledger.answers[one.partition, one.offset])
    receipt = refused(ledger.answers[other.partition, other.offset])
    state = ledger.session("t")
    assert (state.kind, receipt.reason) == ("facts", Reason.DUPLICATE_SEQ)
    assert receipt.head == Head(1, state.head_hash)


def test_another_author_that_loses_the_race_is_no_member_and_sees_the_head(ledger: Ledger) -> None:
    receipt = refused(ledger.answer(ledger.opening("s", author=BOB)))
    assert receipt.reason is Reason.NOT_A_MEMBER
    assert receipt.head is not None
    assert receipt.head.sequence == 1


def test_an_opening_of_an_open_session_appends_nothing_ever(ledger: Ledger) -> None:
    """Its id is kept, so that not even the same command later appends."""
    signed = ledger.opening("s", number=2)
    assert reason(ledger.answer(signed)) is Reason.DUPLICATE_SEQ
    assert reason(ledger.answer(signed)) is Reason.REPEATED


def test_a_refused_opening_costs_no_memory(ledger: Ledger) -> None:
    size = ledger.state.tree.size
    assert reason(ledger.answer(ledger.opening("t", Draft("nocturne.No")))) is (
        Reason.INVARIANT_VIOLATION
    )
    assert reason(ledger.answer(ledger.opening("u", kind="chess"))) is Reason.UNKNOWN_KIND
    assert reason(ledger.answer(ledger.command("v"))) is Reason.NOT_A_MEMBER
    assert ledger.state.tree.size == size


def test_an_opening_may_do_more_than_open(ledger: Ledger) -> None:
    drafts = (Draft(), added(BOB, "writer"), Draft())
    assert [event.sequence for event in accepted(ledger.answer(ledger.opening("t", *drafts)))] == [
        1,
        2,
        3,
    ]
    accepted(ledger.answer(ledger.command("t", author=BOB, expected=3)))


@pytest.mark.parametrize(
    "name",
    ["~ledger", "~", "a~b", "~x/y"],
)
def test_nothing_opens_under_the_reserved_sign(ledger: Ledger, name: str) -> None:
    expected = Reason.NOT_A_MEMBER if name == "~ledger" else Reason.NOT_PERMITTED_TO_OPEN
    assert reason(ledger.answer(ledger.opening(name))) is expected


@pytest.mark.parametrize("kind", ["facts", "ledger"])
def test_nobody_is_a_member_of_the_ledgers_session(ledger: Ledger, kind: str) -> None:
    signed = ledger.opening(LEDGER_SESSION, added(ALICE, "owner"), kind=kind)
    assert reason(ledger.answer(signed)) is Reason.NOT_A_MEMBER
    signed = ledger.command(LEDGER_SESSION, added(ALICE, "owner"), number=2)
    assert reason(ledger.answer(signed)) is Reason.NOT_A_MEMBER


def test_the_ledgers_own_kind_opens_no_session(ledger: Ledger) -> None:
    assert reason(ledger.answer(ledger.opening("new", kind="ledger"))) is Reason.UNKNOWN_KIND


def test_a_known_kind_in_an_unknown_version_is_unknown(ledger: Ledger) -> None:
    assert reason(ledger.answer(ledger.opening("t", version=2))) is Reason.UNKNOWN_KIND


def test_the_open_policy_names_author_kind_and_prefix() -> None:
    rules = (
        OpenRule(author_id(ALICE), "", "alice/"),
        OpenRule(None, "document", "wiki/"),
    )
    ledger = Ledger(make_genesis(limits=SMALL, open_policy=rules))
    accepted(ledger.answer(ledger.opening("alice/1")))
    accepted(ledger.answer(ledger.opening("wiki/1", kind="document", author=BOB)))
    for author, name, kind in (
        (BOB, "alice/2", "facts"),
        (BOB, "wiki/2", "facts"),
        (ALICE, "other", "facts"),
        (BOB, "xwiki/3", "document"),
    ):
        signed = ledger.opening(name, kind=kind, author=author)
        assert reason(ledger.answer(signed)) is Reason.NOT_PERMITTED_TO_OPEN


# Members ----------------------------------------------------------------------------------------


def test_the_opener_owns_writers_append_and_readers_do_neither(ledger: Ledger) -> None:
    accepted(
        ledger.answer(ledger.command("s", added(BOB, "writer"), added(CAROL, "reader"), number=2))
    )
    accepted(ledger.answer(ledger.command("s", author=BOB)))
    assert reason(ledger.answer(ledger.command("s", author=CAROL))) is Reason.NOT_A_MEMBER
    acting = ledger.command("s", added(CAROL, "owner"), author=BOB, number=2)
    assert reason(ledger.answer(acting)) is Reason.NOT_A_MEMBER
    mixed = ledger.command("s", Draft(), CLOSE, author=BOB, number=2)
    assert reason(ledger.answer(mixed)) is Reason.NOT_A_MEMBER


def test_a_role_changes_by_adding_again_and_ends_by_removal(ledger: Ledger) -> None:
    accepted(ledger.answer(ledger.command("s", added(BOB, "owner"), number=2)))
    accepted(ledger.answer(ledger.command("s", added(ALICE, "reader"), author=BOB)))
    assert reason(ledger.answer(ledger.command("s", number=3))) is Reason.NOT_A_MEMBER
    accepted(ledger.answer(ledger.command("s", removed(ALICE), author=BOB, number=2)))
    state = ledger.session("s")
    assert dict(state.members.items()) == {author_id(BOB): Role.OWNER}


@pytest.mark.parametrize("leaving", [removed(ALICE), added(ALICE, "writer")], ids=["out", "down"])
def test_the_last_owner_stays(ledger: Ledger, leaving: Draft) -> None:
    accepted(ledger.answer(ledger.command("s", added(BOB, "writer"), number=2)))
    receipt = refused(ledger.answer(ledger.command("s", leaving, number=3)))
    assert (receipt.reason, receipt.violated_invariant) == (
        Reason.INVARIANT_VIOLATION,
        "members.owner_remains",
    )
    accepted(ledger.answer(ledger.command("s", added(BOB, "owner"), leaving, number=4)))


def test_every_event_leaves_an_owner_not_only_the_last(ledger: Ledger) -> None:
    signed = ledger.command("s", removed(ALICE), added(BOB, "owner"), number=2)
    assert refused(ledger.answer(signed)).violated_invariant == "members.owner_remains"


def test_an_opener_cannot_open_and_leave_in_one_command(ledger: Ledger) -> None:
    signed = ledger.opening("t", Draft(), removed(ALICE))
    assert refused(ledger.answer(signed)).violated_invariant == "members.owner_remains"
    accepted(ledger.answer(ledger.opening("t", added(BOB, "owner"), removed(ALICE))))
    accepted(ledger.answer(ledger.command("t", author=BOB)))


def test_one_removed_author_may_be_removed_again(ledger: Ledger) -> None:
    accepted(ledger.answer(ledger.command("s", removed(BOB), number=2)))
    accepted(ledger.answer(ledger.command("s", removed(BOB), number=3)))


_BOB = author_id(BOB).hex()


@pytest.mark.parametrize(
    "event_type, data",
    [
        (MEMBER_ADDED, b"{}"),
        (MEMBER_ADDED, f'{{"author":"sha256-{_BOB}","role":"king"}}'.encode()),
        (MEMBER_ADDED, f'{{"author":"sha256-{_BOB}", "role":"writer"}}'.encode()),
        (MEMBER_ADDED, f'{{"author":"sha256-{_BOB}","role":"writer"}}\n'.encode()),
        (MEMBER_ADDED, f'{{"author":"sha256-{_BOB.upper()}","role":"writer"}}'.encode()),
        (MEMBER_ADDED, f'{{"role":"writer","author":"sha256-{_BOB}"}}'.encode()),
        (MEMBER_REMOVED, f'{{"author":"sha256-{_BOB[:-2]}"}}'.encode()),
        (MEMBER_REMOVED, b""),
    ],
)
def test_an_act_has_one_form(ledger: Ledger, event_type: str, data: bytes) -> None:
    receipt = refused(ledger.answer(ledger.command("s", Draft(event_type, data), number=2)))
    assert (receipt.reason, receipt.violated_invariant) == (
        Reason.INVARIANT_VIOLATION,
        "members.form",
    )


@pytest.mark.parametrize("data", [b"", b"{ }", b"{}\n", b'{"a":1}', b"null"])
def test_closing_has_one_form(ledger: Ledger, data: bytes) -> None:
    receipt = refused(ledger.answer(ledger.command("s", Draft(SESSION_CLOSED, data), number=2)))
    assert receipt.violated_invariant == "session.closed_form"
    accepted(ledger.answer(ledger.command("s", number=3)))


def test_closing_is_the_last_event_of_its_command_and_of_its_session(ledger: Ledger) -> None:
    for drafts in ((CLOSE, Draft()), (CLOSE, CLOSE), (CLOSE, added(BOB, "writer"))):
        signed = ledger.command("s", *drafts, number=2 + len(ledger.blocks))
        assert refused(ledger.answer(signed)).violated_invariant == "session.closed_is_last"
    closing = ledger.command("s", Draft(), CLOSE, number=30)
    assert len(accepted(ledger.answer(closing))) == 2
    for signed in (ledger.command("s", number=31), closing, ledger.opening("s", number=32)):
        receipt = refused(ledger.answer(signed))
        assert receipt.reason is Reason.SESSION_CLOSED
        assert receipt.head is not None
        assert receipt.head.sequence == 3


def test_a_session_may_be_opened_and_closed_by_one_command(ledger: Ledger) -> None:
    accepted(ledger.answer(ledger.opening("t", Draft(), CLOSE)))
    assert reason(ledger.answer(ledger.command("t", number=2))) is Reason.SESSION_CLOSED


@pytest.mark.parametrize("event_type", ["nocturne.X", "nocturne.", "nocturne.memberAdded"])
def test_the_ledgers_event_types_are_reserved(ledger: Ledger, event_type: str) -> None:
    receipt = refused(ledger.answer(ledger.command("s", Draft(event_type), number=2)))
    assert receipt.violated_invariant == "event_type.reserved"
    accepted(ledger.answer(ledger.command("s", Draft("nocturne"), number=3)))


@pytest.mark.parametrize("act", [added(BOB, "writer"), removed(BOB), CLOSE])
def test_an_act_is_never_sealed(ledger: Ledger, act: Draft) -> None:
    draft = replace(act, content_type=SEALED_CONTENT_TYPE)
    receipt = refused(ledger.answer(ledger.command("s", draft, number=2)))
    assert (receipt.reason, receipt.violated_invariant) == (
        Reason.INVARIANT_VIOLATION,
        "payload.plain",
    )


# Kinds with invariants, and atomic commands -----------------------------------------------------


def moves(*payloads: bytes) -> tuple[Draft, ...]:
    return tuple(Draft("Moved", data, "text/plain") for data in payloads)


def balance(ledger: Ledger, account: bytes) -> int:
    return int.from_bytes(ledger.session("b").item(sha256(account)) or b"", "big")


@pytest.fixture
def bank(ledger: Ledger) -> Ledger:
    accepted(ledger.answer(ledger.opening("b", *moves(b"a:+10"), kind="balances")))
    return ledger


def test_all_events_of_a_command_stand_or_none_does(bank: Ledger) -> None:
    before = bank.session("b")
    signed = bank.command("b", *moves(b"c:+5", b"a:-11", b"a:+100"), number=2)
    receipt = refused(bank.answer(signed))
    after = bank.session("b")
    assert receipt.violated_invariant == "balances.non_negative"
    assert (receipt.head, after.sequence) == (Head(1, before.head_hash), 1)
    assert after.items.root_hash == before.items.root_hash
    assert (balance(bank, b"a"), balance(bank, b"c")) == (10, 0)


def test_a_later_event_of_a_command_sees_what_the_earlier_ones_changed(bank: Ledger) -> None:
    signed = bank.command("b", *moves(b"a:-10", b"c:+3", b"c:-3", b"c:+7"), number=2)
    assert len(accepted(bank.answer(signed))) == 4
    assert (balance(bank, b"a"), balance(bank, b"c")) == (0, 7)


def test_a_later_command_of_a_block_sees_what_the_earlier_ones_changed(bank: Ledger) -> None:
    first = bank.append(bank.command("b", *moves(b"a:-10"), number=2))
    second = bank.append(bank.command("b", *moves(b"a:-1"), number=3))
    third = bank.append(bank.command("b", *moves(b"a:+1"), number=4))
    bank.commit()
    answers = [bank.answers[one.partition, one.offset] for one in (first, second, third)]
    accepted(answers[0])
    assert refused(answers[1]).violated_invariant == "balances.non_negative"
    accepted(answers[2])
    assert balance(bank, b"a") == 1


def test_an_item_that_is_gone_leaves_no_trace_in_the_root(bank: Ledger) -> None:
    before = bank.session("b")
    accepted(bank.answer(bank.command("b", *moves(b"c:+3"), number=2)))
    accepted(bank.answer(bank.command("b", *moves(b"c:-3"), number=3)))
    after = bank.session("b")
    assert after.items.root_hash == before.items.root_hash


def test_a_refused_opening_of_a_kind_with_invariants_opens_nothing(bank: Ledger) -> None:
    signed = bank.opening("b2", *moves(b"a:+1", b"a:-2"), kind="balances")
    receipt = refused(bank.answer(signed))
    assert receipt.violated_invariant == "balances.non_negative"
    assert bank.state.session(SessionId("b2")) is None
    accepted(bank.answer(bank.opening("b2", *moves(b"a:+1"), kind="balances")))


def test_a_sealed_payload_is_refused_where_an_invariant_reads_it_and_welcome_elsewhere(
    bank: Ledger,
) -> None:
    sealed = Draft("Moved", b"anything", SEALED_CONTENT_TYPE)
    receipt = refused(bank.answer(bank.command("b", sealed, number=2)))
    assert (receipt.reason, receipt.violated_invariant) == (
        Reason.INVARIANT_VIOLATION,
        "payload.plain",
    )
    accepted(bank.answer(bank.command("s", sealed, number=2)))


def test_the_ledgers_acts_do_not_reach_the_kind(bank: Ledger) -> None:
    accepted(bank.answer(bank.command("b", added(BOB, "writer"), number=2)))
    accepted(bank.answer(bank.command("b", *moves(b"a:-1"), author=BOB)))
    assert balance(bank, b"a") == 9


# Form -------------------------------------------------------------------------------------------


def test_an_envelope_whose_payload_is_not_the_signed_one_is_malformed_but_named(
    ledger: Ledger,
) -> None:
    signed = ledger.command("s", number=2)
    for payload in (
        replace(signed.payloads[0], data=b"{}"),
        replace(signed.payloads[0], salt=bytes(32)),
    ):
        receipt = refused(ledger.answer(replace(signed, payloads=(payload,))))
        assert receipt.reason is Reason.MALFORMED
        assert receipt.command_hash == signed.command_hash
        assert (receipt.session, receipt.claimed) == ("s", True)
    accepted(ledger.answer(signed))


@pytest.mark.parametrize("payloads", [0, 2])
def test_an_envelope_has_one_payload_for_each_event(ledger: Ledger, payloads: int) -> None:
    signed = ledger.command("s", number=2)
    wrong = replace(signed, payloads=signed.payloads * payloads)
    assert reason(ledger.answer(wrong)) is Reason.MALFORMED


def test_the_key_is_the_session(ledger: Ledger) -> None:
    record = log_record(ledger.command("s", number=2))
    partition = ledger.partition_of("s")
    for key in (None, b"", b"S", b"s "):
        assert reason(ledger.answer(replace(record, key=key), partition)) is Reason.MALFORMED


def test_without_its_prefix_a_command_is_none(ledger: Ledger) -> None:
    data = encode_signed_command(ledger.command("s", number=2))
    partition = ledger.partition_of("s")
    for value in (
        data,
        b"\x01" + frame(1, data)[1:],
        frame(1, data) + b"\x00",
        frame(1, data)[:-1],
    ):
        assert reason(ledger.answer(LogRecord(b"s", value, ()), partition)) is Reason.MALFORMED


def test_an_author_id_is_the_hash_of_a_key_and_nothing_else(ledger: Ledger) -> None:
    signed = ledger.opening("t", author=BOB)
    forged = replace(signed.command, author=AuthorId(bytes(32)))
    assert reason(ledger.answer(sign_command(forged, signed.payloads, BOB))) is (
        Reason.UNKNOWN_AUTHOR
    )


def test_executing_leaves_the_old_state_as_it_was(ledger: Ledger) -> None:
    state = ledger.state
    root = state.root_hash
    ledger.append(ledger.command("s", number=2))
    first = execute(state, ledger.waiting())
    second = execute(state, ledger.waiting())
    assert replace(first, state=state) == replace(second, state=state)
    assert first.state.root_hash == second.state.root_hash == first.state_root != root
    assert state.root_hash == root
    assert ledger.session("s").sequence == 1


def test_a_command_signed_by_a_key_no_library_accepts_is_refused_not_an_error(
    ledger: Ledger,
) -> None:
    """All-zero and low-order public keys: libsodium refuses them on every path."""
    for data in (bytes(32), b"\x01" + bytes(31), b"\xff" * 32):
        signed = ledger.command("s", author=signer(99), number=2)
        key = (replace(signed.command.key[0], data=data),)
        forged = sign_command(replace(signed.command, key=key), signed.payloads, signer(99))
        assert reason(ledger.answer(forged)) is Reason.SIGNATURE_INVALID
