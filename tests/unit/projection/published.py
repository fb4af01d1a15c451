"""What the signing service publishes for a block of `tests.ledger_factory`, as records."""

from __future__ import annotations

from dataclasses import dataclass

from tests.ledger_factory import AUTHORITY

from nocturne.core import topics
from nocturne.core.blocks import Block, Seal, encode_seal, hash_signatures, positions_of, sign_seal
from nocturne.core.events import decode_event_header, encode_event, hash_event, sign_event
from nocturne.core.identifiers import format_id
from nocturne.core.intake import evidence_of
from nocturne.core.keys import Ed25519Signer, Signatures
from nocturne.core.receipts import encode_receipt, hash_receipt, sign_receipt
from nocturne.projection.collector import SignatureRecord


@dataclass(frozen=True, slots=True)
class Published:
    """Signature records of a block, in block order (offsets 0, 0, …), and its seal."""

    records: tuple[SignatureRecord, ...]
    signatures: tuple[Signatures, ...]
    seal: Seal

    @property
    def seal_value(self) -> bytes:
        """The value of the seals topic."""
        return topics.frame(topics.FIXED_SCHEMA_IDS[topics.SEALS], encode_seal(self.seal))


def publish(block: Block, signer: Ed25519Signer = AUTHORITY) -> Published:
    """Sign everything in the block."""
    header = block.header
    records: list[SignatureRecord] = []
    signatures: list[Signatures] = []
    for position, record in zip(positions_of(header), block.records, strict=True):
        for index, data in enumerate(record.events):
            signed = sign_event(signer, hash_event(data), header.time, header.height)
            value = encode_event(
                data, signed, header.height, header.time, evidence_of(record), index
            )
            name = format_id(decode_event_header(data).event_id)
            records.append(_record(topics.EVENTS, position.partition, name, header.height, value))
            signatures.append(signed)
        if record.receipt is not None:
            signed = sign_receipt(signer, hash_receipt(record.receipt), header.time, header.height)
            value = encode_receipt(record.receipt, signed, header.height, header.time)
            name = f"{position.log_epoch}-{position.partition}-{position.offset}"
            records.append(_record(topics.RECEIPTS, position.partition, name, header.height, value))
            signatures.append(signed)
    seal = sign_seal(
        signer, header.ledger_id, header.height, block.digest, hash_signatures(signatures)
    )
    return Published(tuple(records), tuple(signatures), seal)


def _record(topic: str, partition: int, name: str, height: int, value: bytes) -> SignatureRecord:
    framed = topics.frame(topics.FIXED_SCHEMA_IDS[topic], value)
    return SignatureRecord(topic, partition, 0, name.encode("ascii"), height, framed)


def at(record: SignatureRecord, offset: int) -> SignatureRecord:
    """The record at another offset."""
    return record._replace(offset=offset)
