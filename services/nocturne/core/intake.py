"""Read one record of the log: what can be said of it without any state.

Rules: docs/spec/ledger.md §5, the first checks. Pure and free of state, so that records can be
prepared in parallel and before their turn.
"""

from __future__ import annotations

from dataclasses import dataclass

from nocturne.core.blocks import LogRecord, RecordDisposition, hash_record, headers_bytes
from nocturne.core.commands import (
    Evidence,
    SignedCommand,
    author_signed,
    check_payloads,
    decode_evidence,
    decode_signed_command,
    decode_signed_command_trusted,
    hash_command,
)
from nocturne.core.errors import Malformed
from nocturne.core.genesis import Genesis, Limits
from nocturne.core.identifiers import Hash, LedgerId
from nocturne.core.receipts import Reason
from nocturne.core.topics import PREFIX_BYTES, partition_of, unframe


@dataclass(frozen=True, slots=True)
class IntakeContext:
    """What preparing a record needs of the ledger: nothing that ever changes."""

    ledger_id: LedgerId
    partitions: int
    limits: Limits

    @staticmethod
    def of(ledger_id: LedgerId, genesis: Genesis) -> IntakeContext:
        """The context of a ledger."""
        return IntakeContext(ledger_id, genesis.partitions, genesis.limits)


@dataclass(frozen=True, slots=True)
class Prepared:
    """One record, read. `fault` is the first check that failed, in words in `detail`; `signed` is
    the command if the record is one. With `carried` false the record is too large for a block.
    """

    key: bytes | None
    value: bytes | None
    headers: bytes
    record_hash: Hash
    command_hash: Hash
    signed: SignedCommand | None
    fault: Reason | None
    detail: str
    carried: bool


def prepare(context: IntakeContext, partition: int, record: LogRecord) -> Prepared:
    """Size, form, payloads, partition, then the author's signature; the first fault is kept."""
    headers = headers_bytes(record.headers)
    record_hash = hash_record(record.key, record.value, headers)
    limits = context.limits
    value_bytes = len(record.value or b"")
    size = len(record.key or b"") + value_bytes + len(headers)
    if value_bytes > limits.command_bytes_max or size > limits.record_bytes_max:
        # Never carried, so that nobody can leave out the bytes of a record that a block could hold.
        return Prepared(
            None,
            None,
            b"",
            record_hash,
            record_hash,
            None,
            Reason.TOO_LARGE,
            f"record: expected at most {limits.command_bytes_max} bytes of value and "
            f"{limits.record_bytes_max} in all, got {value_bytes} and {size}",
            False,
        )
    signed: SignedCommand | None = None
    fault: Reason | None = None
    detail = ""
    try:
        signed = decode_signed_command(unframe(record.value))
        check_payloads(signed)
    except Malformed as malformed:
        fault, detail = Reason.MALFORMED, str(malformed)
    if signed is not None and fault is None:
        fault, detail = _fault_of(context, partition, record.key, signed)
    return Prepared(
        record.key,
        record.value,
        headers,
        record_hash,
        record_hash if signed is None else signed.command_hash,
        signed,
        fault,
        detail,
        True,
    )


def _fault_of(
    context: IntakeContext, partition: int, key: bytes | None, signed: SignedCommand
) -> tuple[Reason | None, str]:
    command = signed.command
    session = command.session.encode("ascii")
    if key != session:
        return Reason.MALFORMED, "record: its key is not the command's session"
    if len(command.events) > context.limits.command_events_max:
        return Reason.TOO_LARGE, f"events: expected at most {context.limits.command_events_max}"
    if partition_of(session, context.partitions) != partition:
        return Reason.WRONG_PARTITION, f"session {command.session} is not of partition {partition}"
    # A command for another ledger carries no signature for this one.
    if command.ledger_id != context.ledger_id:
        return Reason.SIGNATURE_INVALID, "the command is signed for another ledger"
    if not author_signed(signed, command.key):
        return Reason.SIGNATURE_INVALID, "the author's signature does not verify"
    return None, ""


def command_hash_of_value(record: RecordDisposition) -> Hash | None:
    """The command hash of a block's record: of the command it carries, or of the record itself when
    it is no command; None for a gap. `Malformed` when it states a command it does not carry.
    """
    length = record.command_length
    if length == 0:
        return record.record_hash
    if record.value is None or not 0 < length <= len(record.value) - PREFIX_BYTES:
        raise Malformed("block: a record states a command that it does not carry")
    return hash_command(record.value[PREFIX_BYTES : PREFIX_BYTES + length])


def is_carried(record: RecordDisposition) -> bool:
    """Whether the record's own bytes stand in the block; headers take at least their count."""
    return record.headers != b""


def evidence_of(record: RecordDisposition) -> Evidence:
    """What stands beside the events of a checked block's record."""
    assert record.value is not None
    return decode_evidence(record.value[PREFIX_BYTES:], record.command_length)


def signed_command_of(record: RecordDisposition) -> SignedCommand | None:
    """The command of a checked block's record, None if it is none."""
    if record.command_length == 0:
        return None
    assert record.value is not None
    return decode_signed_command_trusted(record.value[PREFIX_BYTES:])
