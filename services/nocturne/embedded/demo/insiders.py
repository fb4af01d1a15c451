"""Attacks by people who belong: one overdraws, one left with the key, one reads what is sealed.

As in `attacks`: nothing here knows beforehand that an attack fails.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from typing import Final

import psycopg
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from nocturne.cli.words import refusal
from nocturne.client import Committed, Refused, Undecided
from nocturne.core.author_keys import AUTHOR_KEY_REVOKED, revoked_payload
from nocturne.core.commands import SEALED_CONTENT_TYPE, Opening, SignedCommand
from nocturne.core.errors import Unavailable
from nocturne.core.identifiers import LEDGER_SESSION, SessionId
from nocturne.core.keys import Ed25519Signer
from nocturne.core.receipts import Reason
from nocturne.core.sealing import Unsealed, seal, unseal
from nocturne.core.strict_json import canonical_json
from nocturne.core.topics import BLOCKS, COMMANDS, EVENTS, RECEIPTS, SEALS
from nocturne.embedded.demo.findings import Verdict
from nocturne.embedded.demo.people import author_of, command_of
from nocturne.embedded.demo.stage import DEADLINE_SECONDS, Stage
from nocturne.embedded.demo.steps import JSON, Fact, fact

COUNT: Final = 3
"""Verdicts of this file."""
SCAN_SECONDS_MAX: Final = 60.0
_BATCH: Final = 500
_LEDGER_OPENING: Final = Opening("accounts", 1)
_PETTY_CASH: Final = SessionId("accounts/petty-cash")
_PERSONNEL: Final = SessionId("personnel/4711")


async def overdraft(stage: Stage) -> Verdict:
    """The holder of an account pays out more than is in it."""
    cashier = Ed25519Signer(stage.dice.randbytes(32))
    founded = await _submit(
        stage,
        _PETTY_CASH,
        cashier,
        (
            fact("Opened", account="cash"),
            fact("Opened", account="pocket"),
            fact("Issued", account="cash", amount=500),
            _moved(100),
        ),
        opening=_LEDGER_OPENING,
    )
    result = await _submit(stage, _PETTY_CASH, cashier, (_moved(401),))
    receipt = result.receipt if isinstance(result, Refused) else None
    header = None if receipt is None else receipt.header
    await stage.readable(result.place.height)
    audited = stage.verify(await stage.export(_PETTY_CASH))
    return Verdict(
        "An overdraft",
        "The cashier moved 401 out of the 400 that were left in petty cash.",
        isinstance(founded, Committed)
        and header is not None
        and header.violated_invariant == "accounts.non_negative"
        and audited.holds
        and (audited.events, audited.receipts) == (4, 1),
        "the validators",
        "it was paid out" if header is None else f"signed receipt: {refusal(header)}",
    )


def _moved(amount: int) -> Fact:
    data = canonical_json({"from": "cash", "to": "pocket", "amount": amount})
    return Fact("Transferred", JSON, data)


async def revoked_key(stage: Stage) -> Verdict:
    """Somebody leaves, the key is revoked, and the key goes on signing."""
    leaver = Ed25519Signer(stage.dice.randbytes(32))
    session = SessionId("badges/4711")
    before = await _submit(
        stage, session, leaver, (fact("BadgeUsed", door="vault"),), opening=Opening("facts", 1)
    )
    act = Fact(AUTHOR_KEY_REVOKED, JSON, revoked_payload(author_of(leaver)))
    revoked = await _submit(stage, LEDGER_SESSION, leaver, (act,))
    after = await _submit(stage, session, leaver, (fact("BadgeUsed", door="vault"),))
    reason = after.receipt.header.reason if isinstance(after, Refused) and after.receipt else None
    said = refusal(after.receipt.header) if isinstance(after, Refused) and after.receipt else ""
    return Verdict(
        "A revoked key",
        "A key that was revoked in the ledger signed one more command, correctly.",
        isinstance(before, Committed)
        and isinstance(revoked, Committed)
        and reason is Reason.UNKNOWN_AUTHOR,
        "the validators",
        f"signed receipt: {said}" if said else "it still counts",
    )


async def curious_operator(stage: Stage) -> Verdict:
    """Everything in Kafka and Postgres is searched for what an author sealed."""
    doctor = Ed25519Signer(stage.dice.randbytes(32))
    secret, open_word = (b"%s-%s" % (one, stage.dice.randbytes(8).hex().encode()) for one in (
        b"diagnosis", b"corridor"
    ))  # fmt: skip
    key, key_id = stage.dice.randbytes(32), stage.dice.randbytes(16)
    sealed = seal(
        Unsealed(JSON, b'{"finding":"%s"}' % secret), key_id, key, stage.dice.randbytes(24)
    )
    written = await _submit(
        stage,
        _PERSONNEL,
        doctor,
        (Fact("Examined", SEALED_CONTENT_TYPE, sealed), fact("Seen", where=open_word.decode())),
        opening=Opening("facts", 1),
    )
    await stage.readable(written.place.height)
    opened = unseal(sealed, key).data
    audited = stage.verify(await stage.export(_PERSONNEL))
    found = {
        word: await asyncio.to_thread(_places_with, stage, word) for word in (secret, open_word)
    }
    return Verdict(
        "A curious operator",
        "All topics and tables were searched for a word that a doctor sealed before signing.",
        isinstance(written, Committed)
        and secret in opened
        and audited.holds
        and found[secret] == 0
        and found[open_word] > 0,
        "the author's seal",
        f"{found[secret]} places have the sealed word, {found[open_word]} the open one beside it; "
        f"with its key it reads as written; the export {'verifies' if audited.holds else 'fails'}",
    )


def _places_with(stage: Stage, word: bytes) -> int:
    """Records of all topics and rows of all tables that hold `word`."""
    records = sum(word in value for value in _values(stage.kafka))
    return records + _rows_with(stage.dsn, word)


def _values(kafka: Mapping[str, str]) -> Iterator[bytes]:
    consumer = Consumer(
        {
            **kafka,
            "group.id": "nocturne-demo-operator",
            "enable.auto.commit": False,
            "enable.partition.eof": False,
            "log_level": 0,
        }
    )
    try:
        metadata = consumer.list_topics(timeout=10).topics
        places = [
            TopicPartition(topic, partition, OFFSET_BEGINNING)
            for topic in (COMMANDS, BLOCKS, SEALS, EVENTS, RECEIPTS)
            for partition in metadata[topic].partitions
        ]
        # A transaction's end marker is the last offset of its partition and is never delivered.
        left = {}
        for place in places:
            _, high = consumer.get_watermark_offsets(place, timeout=10)
            if high:
                left[place.topic, place.partition] = high
        consumer.assign(places)
        deadline = time.monotonic() + SCAN_SECONDS_MAX
        while left:
            if time.monotonic() > deadline:
                raise Unavailable("the topics could not be read to their ends")
            for message in consumer.consume(_BATCH, timeout=0.2):
                if message.error() is None:
                    yield message.value() or b""
            for at in consumer.position([TopicPartition(*one) for one in left]):
                if at.offset >= left[at.topic, at.partition]:
                    del left[at.topic, at.partition]
    finally:
        consumer.close()


_TABLES: Final = (
    "SELECT table_schema, table_name FROM information_schema.tables "
    "WHERE table_type = 'BASE TABLE' AND table_schema NOT IN ('pg_catalog', 'information_schema')"
)


def _rows_with(dsn: str, word: bytes) -> int:
    """A row printed has bytes in hex, so both forms of the word are looked for."""
    count = 0
    with psycopg.connect(dsn, autocommit=True) as database:
        for schema, table in database.execute(_TABLES).fetchall():
            question = psycopg.sql.SQL(
                "SELECT count(*) FROM {table} AS one WHERE one::text LIKE ANY (%s)"
            ).format(table=psycopg.sql.Identifier(schema, table))
            found = database.execute(
                question, ([f"%{word.decode()}%", f"%{word.hex()}%"],)
            ).fetchone()
            count += 0 if found is None else found[0]
    return count


async def _submit(
    stage: Stage,
    session: SessionId,
    signer: Ed25519Signer,
    facts: tuple[Fact, ...],
    opening: Opening | None = None,
) -> Committed | Refused:
    signed: SignedCommand = command_of(
        stage.people.ledger_id,
        session,
        signer,
        facts,
        at=stage.now_ms(),
        dice=stage.dice.randbytes(32),
        opening=opening,
    )
    result = await stage.client.submit(signed, deadline_seconds=DEADLINE_SECONDS)
    if isinstance(result, Undecided):
        raise Unavailable(f"a command of {session} was not decided in time")
    return result
