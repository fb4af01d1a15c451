"""The attacks, each a real attempt on the running ledger and a verdict drawn from what it answers.

Nothing here knows beforehand that an attack fails: `caught` is what was observed.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

import psycopg

from nocturne.cli.words import refusal
from nocturne.client import Committed, Level, Refused, Status, Undecided
from nocturne.core.blocks import decode_block
from nocturne.core.commands import Opening, SignedCommand
from nocturne.core.errors import Malformed, Unavailable
from nocturne.core.events import encode_event_header, hash_event
from nocturne.core.exports import BlockLine, EventsLine, parse_line
from nocturne.core.genesis import Genesis, decode_genesis, encode_genesis, ledger_id_of
from nocturne.core.identifiers import SessionId, format_hash
from nocturne.core.keys import Ed25519Signer
from nocturne.core.receipts import Head, Reason, Receipt, decode_receipt, receipt_signed
from nocturne.core.topics import BLOCKS, EVENTS, RECEIPTS, SEALS, unframe
from nocturne.embedded.demo import forgery, insiders, tampering, validators
from nocturne.embedded.demo.findings import Verdict
from nocturne.embedded.demo.forgery import ForgedRecord, Forger, Target
from nocturne.embedded.demo.people import author_of, command_of, in_the_name_of
from nocturne.embedded.demo.purchase import RELEASED, TREASURY
from nocturne.embedded.demo.stage import (
    DEADLINE_SECONDS,
    LOOK_SECONDS,
    SETTLED_SECONDS_MAX,
    Stage,
    new_causes,
)
from nocturne.embedded.demo.steps import Fact, fact, member_added, patch
from nocturne.embedded.demo.validators import Quorum

COUNT: Final = 11 + insiders.COUNT
"""Verdicts that `run` gives, beside those of `validators` with a quorum of this machine."""
WRITERS: Final = 64
FLIPS: Final = 48

_OFFLINE: Final = "offline verification"
_RACE: Final = SessionId("pallets/the-last-one")


async def run(stage: Stage, quorum: Quorum | None) -> AsyncGenerator[Verdict, None]:
    """All attacks, one after the other; those on validators where there is a quorum to attack."""
    paid = _paid_order(stage)
    yield await changed_row(stage, paid)
    for verdict in await forged_records(stage, _open_order(stage)):
        yield verdict
    yield await withheld_receipt(stage)
    yield await flipped_bits(stage, paid)
    yield await wrong_key(stage, _open_order(stage))
    yield await self_made_ledger(stage, paid)
    yield await race(stage)
    yield await insiders.overdraft(stage)
    yield await insiders.revoked_key(stage)
    yield await insiders.curious_operator(stage)
    if quorum is not None:
        yield await validators.killed_validator(stage, quorum)
        yield await validators.lying_validator(stage, quorum)


# A changed row -----------------------------------------------------------------------------------


async def changed_row(stage: Stage, session: SessionId) -> Verdict:
    """The superuser changes the account that a payment went to, in the command kept in Postgres."""
    export = await stage.export(session)
    sound = stage.verify(export).holds
    event = _events_line(export, RELEASED)
    place = (event.placement.height, event.placement.leaf_index)
    with psycopg.connect(stage.dsn, autocommit=True) as database:
        found = database.execute(_SELECT_VALUE, place).fetchone()
        if found is None:
            raise Unavailable(f"{session}: its payment is not in Postgres")
        value: bytes = found[0]
        changed = _other_account(value)
        try:
            rows = database.execute(_UPDATE_VALUE, (changed, *place)).rowcount
            read = await _fault_of_reading(stage, session)
            fault = stage.verify(await stage.export(session)).fault
        finally:
            database.execute(_UPDATE_VALUE, (value, *place))
    healed = stage.verify(await stage.export(session)).holds
    return Verdict(
        "A changed row",
        f"The database's superuser gave the payment of {session} another account.",
        sound and rows == 1 and changed != value and None not in (read, fault) and healed,
        f"the SDK, and {_OFFLINE}",
        f"{fault or 'the export verified'}; with the row put back it "
        f"{'verifies again' if healed else 'still does not verify'}",
    )


async def _fault_of_reading(stage: Stage, session: SessionId) -> str | None:
    """What the SDK says of the session's events, None when it takes them all."""
    try:
        async with aclosing(stage.client.events(session)) as events:
            async for _ in events:
                pass
    except Malformed as fault:
        return str(fault)
    return None


_SELECT_VALUE: Final = "SELECT value FROM nocturne_v1.records WHERE height = %s AND leaf_index = %s"
_UPDATE_VALUE: Final = (
    "UPDATE nocturne_v1.records SET value = %b WHERE height = %s AND leaf_index = %s"
)


def _other_account(value: bytes) -> bytes:
    """The command with one digit more in the account's last place, or none for nine."""
    name = b'"account":"'
    end = value.index(b'"', value.index(name) + len(name))
    digit = (value[end - 1] - ord("0") + 1) % 10 + ord("0")
    return value[: end - 1] + bytes((digit,)) + value[end:]


# Forged records on the topics --------------------------------------------------------------------


async def forged_records(stage: Stage, session: SessionId) -> list[Verdict]:
    """One record for each topic: a payment that the treasury never released, certified and signed
    by keys of the forger's own.
    """
    forger = stage.forger()
    signed = await _payment(stage, session, forger)
    target = await _target(stage, session)
    records = forgery.forged_records(target, forger, signed)
    before = await stage.client.status()
    await stage.produce([*records, forgery.forged_command(target, signed)])
    receipt = await _receipt_of(stage, signed)
    after = await stage.refused_more([_counter(one) for one in records], before)
    stored = await asyncio.to_thread(_stored, stage.dsn, records, target)
    return [
        _verdict_of_command(stage, receipt),
        *[_verdict_of_record(one, before, after, stored[one.topic]) for one in records],
    ]


async def _payment(stage: Stage, session: SessionId, forger: Forger) -> SignedCommand:
    """A payment in the treasury's name, signed by the forger, at the session's true head."""
    paid = patch(RELEASED, status="paid", payment={"account": "XX00FORGED"})
    drafted = command_of(
        stage.people.ledger_id,
        session,
        forger.author,
        (paid,),
        at=stage.now_ms(),
        dice=stage.dice.randbytes(32),
        expected=(await stage.head(session)).sequence,
    )
    return in_the_name_of(drafted, stage.people.signers[TREASURY], forger.author)


async def _target(stage: Stage, session: SessionId) -> Target:
    """What everybody can know: the last block and the session's head."""
    blocks = [
        line
        for line in map(parse_line, tampering.lines_of(await stage.export(session)))
        if isinstance(line, BlockLine)
    ]
    return Target(
        decode_genesis(stage.genesis_bytes),
        stage.people.ledger_id,
        blocks[-1].header,
        blocks[-1].digest,
        session,
        await stage.head(session),
    )


async def _receipt_of(stage: Stage, signed: SignedCommand) -> Receipt | None:
    """The receipt of a command as the read side shows it, None when it shows none in time."""
    deadline = time.monotonic() + SETTLED_SECONDS_MAX
    while time.monotonic() < deadline:
        async for receipt in stage.client.receipts(signed.command.session):
            if receipt.header.command_hash == signed.command_hash:
                return receipt
        await asyncio.sleep(LOOK_SECONDS)
    return None


def _verdict_of_command(stage: Stage, receipt: Receipt | None) -> Verdict:
    caught = receipt is not None and _is_refusal(stage, receipt, Reason.SIGNATURE_INVALID)
    return Verdict(
        "A forged command",
        "A payment in the treasury's name, written to Kafka past the command service.",
        caught,
        "the validators",
        "no receipt was found" if receipt is None else f"signed receipt: {refusal(receipt.header)}",
    )


def _is_refusal(stage: Stage, receipt: Receipt, reason: Reason) -> bool:
    """A receipt for that reason, which the ledger's authority signed."""
    authority = decode_genesis(stage.genesis_bytes).authority
    signed = receipt_signed(
        authority, receipt.receipt_hash, receipt.timestamp, receipt.height, receipt.signatures
    )
    return signed and receipt.header.reason is reason


_DONE: Final = {
    BLOCKS: "A block that continues the chain and certifies the payment, with a vote of his own.",
    SEALS: "The authority's seal for that block, signed with another key.",
    EVENTS: "The event itself at the session's next sequence, signed with another key.",
    RECEIPTS: "A receipt for a refusal that never was, signed with another key.",
}


def _verdict_of_record(record: ForgedRecord, before: Status, after: Status, stored: int) -> Verdict:
    counter = _counter(record)
    causes = new_causes(counter, before, after)
    return Verdict(
        f"A forged {counter.removesuffix('s')}",
        _DONE[record.topic],
        bool(causes) and stored == 0,
        "the projection",
        f"counted as {', '.join(causes) or 'nothing'}, {stored} rows in Postgres",
    )


def _counter(record: ForgedRecord) -> str:
    """`blocks` for nocturne.blocks.v1: the first word of the projection's causes."""
    return record.topic.split(".")[1]


def _stored(dsn: str, records: Sequence[ForgedRecord], target: Target) -> dict[str, int]:
    """How many rows of Postgres hold what was forged, by topic."""
    avro = {one.topic: unframe(one.value) for one in records}
    questions: dict[str, tuple[str, tuple[object, ...]]] = {
        BLOCKS: ("blocks WHERE digest = %b", (decode_block(avro[BLOCKS]).digest,)),
        SEALS: ("blocks WHERE seal = %b", (avro[SEALS],)),
        EVENTS: (
            "events WHERE session = %s AND sequence > %s",
            (target.session, target.head.sequence),
        ),
        RECEIPTS: (
            "receipts WHERE receipt_hash = %b",
            (decode_receipt(avro[RECEIPTS]).receipt_hash,),
        ),
    }
    counts: dict[str, int] = {}
    with psycopg.connect(dsn, autocommit=True) as database:
        for topic, (rows, arguments) in questions.items():
            # The table's name and condition are the literals above.
            question = f"SELECT count(*) FROM nocturne_v1.{rows}".encode()
            found = database.execute(question, arguments).fetchone()
            counts[topic] = -1 if found is None else found[0]
    return counts


# Exports that were tampered with -----------------------------------------------------------------


async def withheld_receipt(stage: Stage) -> Verdict:
    """An export from which a refusal was taken out."""
    session = _outdated_order(stage)
    export = await stage.export(session)
    sound = stage.verify(export).holds
    tampered, withheld = tampering.without_receipt(export)
    fault = stage.verify(tampered).fault
    return Verdict(
        "A withheld receipt",
        f"The receipt of a refused change was taken out of the export of {session}.",
        sound and fault is not None and format_hash(withheld) in fault,
        _OFFLINE,
        fault or "the export verified",
    )


async def flipped_bits(stage: Stage, session: SessionId) -> Verdict:
    """Exports of which one bit of one byte was flipped, each elsewhere."""
    export = await stage.export(session)
    sound = stage.verify(export).holds
    faults = [
        stage.verify(tampering.with_flipped_bit(export, stage.dice)).fault for _ in range(FLIPS)
    ]
    found = [fault for fault in faults if fault is not None]
    shown = f"{len(found)} of {FLIPS} refused"
    return Verdict(
        "A flipped byte",
        f"One bit of the export of {session} ({len(export):,} bytes), at {FLIPS} places in turn.",
        sound and len(found) == FLIPS,
        _OFFLINE,
        f"{shown}, the last with: {found[-1]}" if found else shown,
    )


async def wrong_key(stage: Stage, session: SessionId) -> Verdict:
    """A payment signed with a key that is not the treasury's, handed to the command service; and
    an export signed by another authority.
    """
    forger = stage.forger()
    result = await _submitted(stage, await _payment(stage, session, forger))
    receipt = result.receipt if isinstance(result, Refused) else None
    refused = receipt is not None and _is_refusal(stage, receipt, Reason.SIGNATURE_INVALID)
    said = "accepted" if receipt is None else refusal(receipt.header)
    export = await stage.export(session)
    fault = stage.verify(tampering.with_authority(export, forger.authority)).fault
    return Verdict(
        "A wrong key",
        "A payment in the treasury's name signed with another key, and an export signed by "
        "another authority.",
        refused and stage.verify(export).holds and fault is not None,
        f"the validators, and {_OFFLINE}",
        f"signed receipt: {said}; export: {fault or 'verified'}",
    )


async def self_made_ledger(stage: Stage, session: SessionId) -> Verdict:
    """A whole ledger of the forger's own, with the same order and another account in it; then the
    same under the trusted ledger's own genesis, with his votes for its validators'.
    """
    forger = stage.forger()
    export = await stage.export(session)
    trusted = decode_genesis(stage.genesis_bytes)
    founded = forgery.found(trusted, forger, stage.dice.randbytes(32))
    own, pasted = (
        forgery.self_made_export(
            genesis, forger, _retold(stage, export, forger, genesis), stage.now_ms()
        )
        for genesis in (founded, trusted)
    )
    alone = stage.verify(own, trusting=False)
    complete = alone.fault is None and alone.events == stage.verify(export).events
    refused_as = stage.verify(own).fault
    refused_pasted = stage.verify(pasted).fault
    return Verdict(
        "A self-made ledger",
        f"A complete and consistent ledger of his own: all {alone.events} events of {session}, "
        "with another account in the payment; and the same under the trusted ledger's genesis.",
        complete and refused_as is not None and refused_pasted is not None,
        _OFFLINE,
        f"{refused_as or 'verified'}; under the trusted genesis: {refused_pasted or 'verified'}"
        if complete
        else f"the forgery is not even consistent: {alone.fault}",
    )


def _retold(stage: Stage, export: bytes, forger: Forger, genesis: Genesis) -> list[SignedCommand]:
    """The session's accepted commands, all in the forger's name, for the ledger of `genesis`."""
    ledger_id = ledger_id_of(encode_genesis(genesis))
    commands = []
    for line in map(parse_line, tampering.lines_of(export)):
        if not isinstance(line, EventsLine):
            continue
        facts = tuple(
            Fact(draft.event_type, draft.content_type, _retouched(payload.data))
            for draft, payload in zip(line.command.events, line.payloads, strict=True)
        )
        commands.append(
            command_of(
                ledger_id,
                line.command.session,
                forger.author,
                facts,
                at=line.command.occurred_at,
                dice=stage.dice.randbytes(32),
                expected=line.sequence - 1,
                opening=line.command.opening,
            )
        )
    return commands


def _retouched(payload: bytes) -> bytes:
    return _other_account(payload) if b'"account":"' in payload else payload


# A race ------------------------------------------------------------------------------------------


async def race(stage: Stage) -> Verdict:
    """As many writers as there are, each at once, for the one next sequence of a session."""
    writers = [Ed25519Signer(stage.dice.randbytes(32)) for _ in range(WRITERS)]
    opening = command_of(
        stage.people.ledger_id,
        _RACE,
        writers[0],
        (
            fact("PalletOffered", pallet="000001-1"),
            *[member_added(author_of(one)) for one in writers[1:]],
        ),
        at=stage.now_ms(),
        dice=stage.dice.randbytes(32),
        expected=0,
        opening=Opening("facts", 1),
    )
    opened = await _submitted(stage, opening)
    before = opened.sequence if isinstance(opened, Committed) else 0
    claims = [
        command_of(
            stage.people.ledger_id,
            _RACE,
            writer,
            (fact("PalletClaimed", by=format_hash(author_of(writer))),),
            at=stage.now_ms(),
            dice=stage.dice.randbytes(32),
            expected=before,
        )
        for writer in writers
    ]
    results = await asyncio.gather(*[_submitted(stage, claim) for claim in claims])
    return await _verdict_of_race(stage, before, results)


async def _verdict_of_race(
    stage: Stage, before: int, results: Sequence[Committed | Refused]
) -> Verdict:
    won = [one.events[0] for one in results if isinstance(one, Committed)]
    lost = [one.receipt for one in results if isinstance(one, Refused)]
    receipts = [receipt for receipt in lost if receipt is not None]
    heads = {receipt.header.head for receipt in receipts}
    true_heads = {Head(one.sequence, hash_event(encode_event_header(one))) for one in won}
    genuine = all(_is_refusal(stage, one, Reason.DUPLICATE_SEQ) for one in receipts)
    await stage.readable(max(one.place.height for one in results))
    audited = stage.verify(await stage.export(_RACE))
    return Verdict(
        f"{WRITERS} racing writers",
        f"{WRITERS} authors asked for sequence {before + 1} of one session at the same moment.",
        len(won) == 1
        and len(receipts) == WRITERS - 1
        and heads == true_heads
        and genuine
        and audited.holds
        and (audited.events, audited.receipts) == (before + 1, WRITERS - 1),
        "the order of the log",
        f"{len(won)} event and {len(receipts)} receipts, "
        f"{'each with the true head' if heads == true_heads else 'not all with the true head'}",
    )


async def _submitted(stage: Stage, signed: SignedCommand) -> Committed | Refused:
    """What became of a command, signed by the authority."""
    result = await stage.client.submit(signed, deadline_seconds=DEADLINE_SECONDS)
    if isinstance(result, Undecided) or result.level < Level.SIGNED:
        raise Unavailable(f"a command of {signed.command.session} was not decided in time")
    return result


# Where to attack ---------------------------------------------------------------------------------


def _paid_order(stage: Stage) -> SessionId:
    """An order whose payment was released."""
    return next(
        step.session
        for step in stage.plan.steps
        if step.refusal is None and step.facts[0].event_type == RELEASED
    )


def _open_order(stage: Stage) -> SessionId:
    """An order that was approved and not paid yet."""
    paid = {step.session for step in stage.plan.steps if step.facts[0].event_type == RELEASED}
    return next(
        step.session
        for step in stage.plan.steps
        if step.refusal is None
        and step.facts[0].event_type == "OrderApproved"
        and step.session not in paid
    )


def _outdated_order(stage: Stage) -> SessionId:
    """An order with a receipt: somebody wrote on the basis of an outdated state."""
    return next(step.session for step in stage.plan.steps if step.refusal is Reason.DUPLICATE_SEQ)


def _events_line(export: bytes, event_type: str) -> EventsLine:
    """The line of the first command whose first event is of a type."""
    for line in map(parse_line, tampering.lines_of(export)):
        if isinstance(line, EventsLine) and line.command.events[0].event_type == event_type:
            return line
    raise ValueError(f"the export has no {event_type}")
