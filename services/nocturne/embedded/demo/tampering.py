"""Exports with something changed, as one who holds the file could. Pure.

Every change but a flipped bit is made with care: lines stand in their one encoding and hashes are
made new, so that only what cannot be made new gives the change away.
"""

from __future__ import annotations

import random
from dataclasses import replace

from nocturne.core.events import event_signed, hash_event, sign_event
from nocturne.core.exports import EventsLine, ReceiptLine, parse_line, print_line
from nocturne.core.identifiers import Hash
from nocturne.core.json_forms import Attestation
from nocturne.core.keys import Signer
from nocturne.core.receipts import encode_receipt_header, hash_receipt


def lines_of(export: bytes) -> list[bytes]:
    """Its lines, line feeds included."""
    return export.splitlines(keepends=True)


def without_receipt(export: bytes) -> tuple[bytes, Hash]:
    """The export without its first receipt, and that receipt's hash."""
    lines = lines_of(export)
    for index, data in enumerate(lines):
        line = parse_line(data)
        if isinstance(line, ReceiptLine):
            withheld = hash_receipt(encode_receipt_header(line.header))
            return b"".join(lines[:index] + lines[index + 1 :]), withheld
    raise ValueError("the export has no receipt")


def with_flipped_bit(export: bytes, dice: random.Random) -> bytes:
    """The export with one bit of one byte turned over."""
    at = dice.randrange(len(export))
    flipped = export[at] ^ (1 << dice.randrange(8))
    return export[:at] + bytes((flipped,)) + export[at + 1 :]


def with_authority(export: bytes, forger: Signer) -> bytes:
    """The export with every signature of the authority on its events made by another key."""
    return b"".join(_resigned(data, forger) for data in lines_of(export))


def _resigned(data: bytes, forger: Signer) -> bytes:
    line = parse_line(data)
    if not isinstance(line, EventsLine):
        return data
    height, time = line.placement.height, line.placement.timestamp
    hashes = map(hash_event, line.headers())
    attestations = []
    for event_hash in hashes:
        signatures = sign_event(forger, event_hash, time, height)
        assert event_signed(forger.key, event_hash, time, height, signatures)
        attestations.append(Attestation(forger.key, signatures))
    return print_line(replace(line, attestations=tuple(attestations)))
