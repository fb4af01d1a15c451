"""Sign a checked block: its events, its receipts, and the seal over all of these signatures.

Rules: docs/spec/signing.md. Pure: the same block gives the same records, byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nocturne.core import topics
from nocturne.core.block_intake import CheckedBlock
from nocturne.core.blocks import (
    Disposition,
    RecordDisposition,
    encode_seal,
    hash_signatures,
    sign_seal,
)
from nocturne.core.events import encode_event, sign_event
from nocturne.core.identifiers import LEDGER_SESSION, LedgerId, format_hash, format_id
from nocturne.core.intake import evidence_of
from nocturne.core.keys import Signatures, Signer
from nocturne.core.receipts import decode_receipt_header, encode_receipt, sign_receipt
from nocturne.core.record_headers import traceparent_of
from nocturne.signing.guard import event_id_of, session_of

HEIGHT_HEADER: Final = "nocturne-height"
SEALS_PARTITION: Final = 0


@dataclass(frozen=True, slots=True)
class SignedRecord:
    """One record of a topic, as it is to be published."""

    topic: str
    partition: int
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


class BlockSigner:
    """Signs blocks of one ledger with the authority's key."""

    def __init__(
        self, ledger_id: LedgerId, partitions: int, signer: Signer, schema_ids: Mapping[str, int]
    ) -> None:
        self._ledger_id = ledger_id
        self._partitions = partitions
        self._signer = signer
        self._schema_ids = schema_ids
        self._source = f"nocturne:{format_hash(ledger_id)}"

    def sign(self, checked: CheckedBlock) -> list[SignedRecord]:
        """The block's events and receipts in its order, and its seal behind them."""
        block = checked.block
        records: list[SignedRecord] = []
        signatures: list[Signatures] = []
        for record, disposition in zip(block.records, checked.dispositions, strict=True):
            if record.events:
                self._events(checked, record, disposition, records, signatures)
            elif record.receipt is not None:
                self._receipt(checked, record.receipt, record, disposition, records, signatures)
        records.append(self._seal(checked, signatures))
        return records

    def _events(
        self,
        checked: CheckedBlock,
        record: RecordDisposition,
        disposition: Disposition,
        records: list[SignedRecord],
        signatures: list[Signatures],
    ) -> None:
        header = checked.block.header
        evidence = evidence_of(record)
        trace = traceparent_of(record.headers)
        session = session_of(record.events[0])
        key = session.encode("ascii")
        for index, (header_bytes, event_hash) in enumerate(
            zip(record.events, disposition.events, strict=True)
        ):
            signed = sign_event(self._signer, event_hash, header.time, header.height)
            signatures.append(signed)
            value = encode_event(header_bytes, signed, header.height, header.time, evidence, index)
            # A command stands in its session's partition, or it would not have become events.
            records.append(
                self._record(
                    topics.EVENTS,
                    disposition.position.partition,
                    key,
                    value,
                    format_id(event_id_of(header_bytes)),
                    session,
                    header.height,
                    trace,
                )
            )

    def _receipt(
        self,
        checked: CheckedBlock,
        header_bytes: bytes,
        record: RecordDisposition,
        disposition: Disposition,
        records: list[SignedRecord],
        signatures: list[Signatures],
    ) -> None:
        header = checked.block.header
        position = disposition.position
        assert disposition.receipt is not None
        signed = sign_receipt(self._signer, disposition.receipt, header.time, header.height)
        signatures.append(signed)
        session = decode_receipt_header(header_bytes).session or LEDGER_SESSION
        key = session.encode("ascii")
        records.append(
            self._record(
                topics.RECEIPTS,
                topics.partition_of(key, self._partitions),
                key,
                encode_receipt(header_bytes, signed, header.height, header.time),
                f"{position.log_epoch}-{position.partition}-{position.offset}",
                session,
                header.height,
                traceparent_of(record.headers),
            )
        )

    def _seal(self, checked: CheckedBlock, signatures: list[Signatures]) -> SignedRecord:
        header = checked.block.header
        seal = sign_seal(
            self._signer,
            self._ledger_id,
            header.height,
            checked.block.digest,
            hash_signatures(signatures),
        )
        number = str(header.height)
        return self._record(
            topics.SEALS,
            SEALS_PARTITION,
            number.encode("ascii"),
            encode_seal(seal),
            number,
            number,
            header.height,
            None,
        )

    def _record(
        self,
        topic: str,
        partition: int,
        key: bytes,
        value: bytes,
        record_id: str,
        subject: str,
        height: int,
        trace: bytes | None,
    ) -> SignedRecord:
        headers = topics.cloud_event_headers(topic, record_id, self._source, subject, trace)
        headers.append((HEIGHT_HEADER, b"%d" % height))
        framed = topics.frame(self._schema_ids[topic], value)
        return SignedRecord(topic, partition, key, framed, headers)
