"""Leaves of the state tree: what a block's state root says of one session, and of the log.

Rules: docs/spec/blocks.md, state tree.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from nocturne.core.encoding import domain, sha256
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import Hash, LedgerId

SESSION_LEAF_BYTES: Final = 144

_SESSION_LEAF: Final = struct.Struct(">Q32s32sQ32s32s")
_POSITION: Final = struct.Struct(">II16sQ32s")
_POSITIONS_KEY: Final = domain("nocturne/positions/v1")


@dataclass(frozen=True, slots=True)
class SessionLeaf:
    """A session's leaf. `rest_hash` binds members, ids, kind and state of the kind."""

    sequence: int
    head_hash: Hash
    events_root: Hash
    receipt_count: int
    receipts_root: Hash
    rest_hash: Hash

    def encode(self) -> bytes:
        """144 bytes: u64, hash, hash, u64, hash, hash."""
        return _SESSION_LEAF.pack(
            self.sequence,
            self.head_hash,
            self.events_root,
            self.receipt_count,
            self.receipts_root,
            self.rest_hash,
        )

    @staticmethod
    def decode(data: bytes) -> SessionLeaf:
        """The reverse of `encode`; `Malformed` on another length."""
        if len(data) != SESSION_LEAF_BYTES:
            raise Malformed(f"session leaf: expected {SESSION_LEAF_BYTES} bytes, got {len(data)}")
        return SessionLeaf(*_SESSION_LEAF.unpack(data))


@dataclass(frozen=True, slots=True)
class LogPosition:
    """How far one partition of the log is consumed. Before its first range the topic uuid is 16
    zero bytes and the log hash 32.
    """

    partition: int
    log_epoch: int
    topic_uuid: bytes
    next_offset: int
    log_hash: Hash


def positions_key(ledger_id: LedgerId) -> Hash:
    """Key of the leaf of the log positions."""
    return Hash(sha256(_POSITIONS_KEY + ledger_id))


def encode_positions(positions: tuple[LogPosition, ...]) -> bytes:
    """For each partition ascending: u32, u32 log epoch, 16-byte uuid, u64 next offset, log hash."""
    return b"".join(
        _POSITION.pack(one.partition, one.log_epoch, one.topic_uuid, one.next_offset, one.log_hash)
        for one in positions
    )


def decode_positions(data: bytes) -> tuple[LogPosition, ...]:
    """The reverse of `encode_positions`; `Malformed` on a broken length."""
    if len(data) % _POSITION.size:
        raise Malformed(f"positions: expected a multiple of {_POSITION.size} bytes")
    return tuple(LogPosition(*fields) for fields in _POSITION.iter_unpack(data))
