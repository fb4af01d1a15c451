"""How much one principal may send, and how many sessions one author may open. Pure.

Rules: docs/spec/services.md, limits. Both are the command service's own: no validator knows them,
and no receipt is about them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Final

from nocturne.core.block_intake import CheckedBlock
from nocturne.core.encoding import domain, sha256, u32, u64, variable
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import LedgerId
from nocturne.core.receipts import Reason, decode_receipt_header

PRINCIPALS_MAX: Final = 10_000
"""Principals whose rate is remembered; the one longest silent is forgotten first: full again."""
SENT_MAX: Final = 131_072
"""Commands in the log whose disposition is awaited to charge for it, longer than their callers may
wait: twice those that may be pending. The oldest is forgotten first, and costs one token.
"""
REFUSAL_TOKENS: Final = 10
"""What a command costs that becomes a receipt. One was taken when it came."""
UNPUNISHED: Final = frozenset({Reason.REPEATED})
"""Repeating a command is how an honest caller makes sure of it, and is told to."""
AUTHORS_MAX: Final = 65_536
"""Authors whose sessions are counted: 8 MB. Past them the half with the fewest is forgotten, who
are farthest from any limit.
"""


def principal_of(peer: str) -> str:
    """Who is charged for what comes from this caller. Of a gRPC peer that is its host, without the
    port, so that a new connection is no new purse: all callers of one machine are one principal.
    An authenticated principal, whose name has no colon, is charged by that, wherever it calls from.

    >>> principal_of("ipv4:127.0.0.1:40312"), principal_of("shop")
    ('ipv4:127.0.0.1', 'shop')
    """
    host, separator, port = peer.rpartition(":")
    return host if separator and port.isdecimal() else peer


class RateLimits:
    """A token bucket a principal: `per_second` tokens on average, `burst` at once.

    With `per_second` 0 nobody is limited.
    """

    def __init__(self, per_second: float, burst: float) -> None:
        self._per_second = per_second
        self._burst = burst
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    @property
    def limited(self) -> bool:
        """Whether anybody is."""
        return self._per_second > 0

    def take(self, principal: str, commands: int, now: float) -> float:
        """0.0 when `principal` may send `commands` now (they are taken from its bucket); else the
        seconds after which it may. `now` in seconds, never falling.
        """
        if not self.limited:
            return 0.0
        tokens = self._filled(principal, now)
        # More than a bucket holds is let through when the bucket is full, and paid for after.
        needed = min(float(commands), self._burst)
        wait = max(0.0, (needed - tokens) / self._per_second)
        self._buckets[principal] = (tokens if wait > 0 else tokens - commands, now)
        return wait

    def charge(self, principal: str, tokens: int, now: float) -> None:
        """Take tokens for what was let through already; the bucket may go below zero."""
        if self.limited:
            self._buckets[principal] = (self._filled(principal, now) - tokens, now)

    def _filled(self, principal: str, now: float) -> float:
        """The tokens of now; the principal's bucket is out of the way of the oldest."""
        tokens, filled_at = self._buckets.pop(principal, (self._burst, now))
        if len(self._buckets) >= PRINCIPALS_MAX:
            self._buckets.popitem(last=False)
        return min(self._burst, tokens + (now - filled_at) * self._per_second)


class Sent:
    """Whose the commands in the log are that have no disposition yet, so that each refusal is
    charged even if its caller has gone.
    """

    def __init__(self) -> None:
        self._principals: OrderedDict[tuple[int, int], str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._principals)

    def note(self, partition: int, offset: int, principal: str) -> None:
        """The log has a command of `principal` at this offset."""
        self._principals[partition, offset] = principal
        if len(self._principals) > SENT_MAX:
            self._principals.popitem(last=False)

    def refused(self, checked: CheckedBlock) -> Mapping[str, int]:
        """How many commands of each principal this block refuses, those that count."""
        found: dict[str, int] = {}
        if not self._principals:
            return found
        take = self._principals.pop
        for record, disposition in zip(checked.block.records, checked.dispositions, strict=True):
            position = disposition.position
            principal = take((position.partition, position.offset), None)
            if principal is not None and is_punished(record.receipt):
                found[principal] = found.get(principal, 0) + 1
        return found

    def reopened(self, partition: int) -> None:
        """The partition goes on in another log epoch: its offsets are other commands' now."""
        for place in [one for one in self._principals if one[0] == partition]:
            del self._principals[place]


def is_punished(receipt: bytes | None) -> bool:
    """Whether a disposition costs its sender `REFUSAL_TOKENS`: a receipt, but for `UNPUNISHED`."""
    return receipt is not None and decode_receipt_header(receipt).reason not in UNPUNISHED


# Sessions of an author -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Counted:
    """Sessions opened, by author, in all blocks up to `height`; the blocks topic is read on from
    `offset`. `sets` and `changes` are the validators as of then (`ValidatorSets.encode`) and their
    lines for proofs (`Changes.encode`).
    """

    height: int
    offset: int
    opened: Mapping[bytes, int]
    sets: bytes = b""
    changes: bytes = b""


class SessionCounts:
    """How many sessions each author has opened, counted from committed blocks."""

    def __init__(self, per_author_max: int, counted: Counted | None = None) -> None:
        self.per_author_max = per_author_max
        """0: any number."""
        self.height = 0 if counted is None else counted.height
        """Of the last block counted."""
        self._before = self.height
        self._first: int | None = None
        self._opened = {} if counted is None else dict(counted.opened)

    def is_full(self, author: bytes) -> bool:
        """The author has opened as many as it may."""
        return 0 < self.per_author_max <= self._opened.get(author, 0)

    def take(self, checked: CheckedBlock) -> None:
        """Count a block's openings, once. Blocks come in height order; those right before the first
        one may come late, the nearest first.
        """
        height = checked.block.header.height
        is_late = self._first is not None and self._before < height == self._first - 1
        if height > self.height or is_late:
            self._count(checked, height)

    def _count(self, checked: CheckedBlock, height: int) -> None:
        self.height = max(self.height, height)
        self._first = height if self._first is None else min(self._first, height)
        self._add(
            author
            for record in checked.block.records
            if record.events and (author := opener_of(record.events[0])) is not None
        )

    def counted(self, offset: int) -> Counted:
        """As of now, to be kept."""
        return Counted(self.height, offset, dict(self._opened))

    def _add(self, authors: Iterable[bytes]) -> None:
        opened = self._opened
        for author in authors:
            opened[author] = opened.get(author, 0) + 1
        if len(opened) > AUTHORS_MAX:
            most = sorted(opened.items(), key=itemgetter(1), reverse=True)
            self._opened = dict(most[: AUTHORS_MAX // 2])


def opener_of(header: bytes) -> bytes | None:
    """The author of the event header of a session's first event; None of any other event.

    Of a checked block's headers only: fields are found without decoding, a thirtieth of the cost.
    """
    at = 33 + (header[32] >> 1)
    if header[32] >= 0x80:
        at = 34 + ((header[32] & 0x7F | header[33] << 7) >> 1)
    if header[at] != _FIRST:
        return None
    at += _TO_POSITION
    for _ in range(_POSITION_LONGS):
        while header[at] >= 0x80:
            at += 1
        at += 1
    return header[at : at + _AUTHOR_BYTES]


_FIRST: Final = 2
"""Sequence 1 in Avro."""
_TO_POSITION: Final = 1 + 32 + 16 + 32
"""Sequence, previous hash, event id and command hash."""
_POSITION_LONGS: Final = 4
"""Log epoch, partition, offset, index."""

# What is kept of it ----------------------------------------------------------------------------
#
# domain ‖ ledger id ‖ u64 height ‖ u64 offset ‖ variable sets ‖ variable changes ‖ for each author:
# 32 bytes, u32 ‖ SHA-256 of these.

_AUTHOR_BYTES: Final = 32
_ENTRY_BYTES: Final = _AUTHOR_BYTES + 4
_COUNTS: Final = domain("nocturne/opened-sessions/v2")
_HEAD_BYTES: Final = len(_COUNTS) + 32 + 8 + 8
_DIGEST_BYTES: Final = 32
VALIDATORS_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of `sets` and `changes`: thousands of changes of the largest sets."""
COUNTS_BYTES_MAX: Final = (
    _HEAD_BYTES + 8 + VALIDATORS_BYTES_MAX + AUTHORS_MAX * _ENTRY_BYTES + _DIGEST_BYTES
)


def encode_counts(ledger_id: LedgerId, counted: Counted) -> bytes:
    """The counts as they are kept, authors ascending."""
    body = b"".join(
        (
            _COUNTS,
            ledger_id,
            u64(counted.height),
            u64(counted.offset),
            variable(counted.sets),
            variable(counted.changes),
            *(author + u32(count) for author, count in sorted(counted.opened.items())),
        )
    )
    return body + sha256(body)


def decode_counts(data: bytes, ledger_id: LedgerId) -> Counted:
    """The reverse of `encode_counts`; `Malformed` on anything it would not write."""
    if len(data) > COUNTS_BYTES_MAX:
        raise Malformed(f"counts: expected at most {COUNTS_BYTES_MAX} bytes, got {len(data)}")
    body, digest = data[:-_DIGEST_BYTES], data[-_DIGEST_BYTES:]
    if sha256(body) != digest or body[: len(_COUNTS) + 32] != _COUNTS + ledger_id:
        raise Malformed("counts: altered, or of another ledger")
    height, offset = (
        int.from_bytes(body[at : at + 8], "big") for at in (_HEAD_BYTES - 16, _HEAD_BYTES - 8)
    )
    sets, at = _variable_at(body, _HEAD_BYTES)
    changes, first = _variable_at(body, at)
    if (len(body) - first) % _ENTRY_BYTES:
        raise Malformed("counts: cut short")
    entries = [body[at : at + _ENTRY_BYTES] for at in range(first, len(body), _ENTRY_BYTES)]
    return Counted(height, offset, _opened_of(entries), sets, changes)


def _variable_at(body: bytes, at: int) -> tuple[bytes, int]:
    """The variable field at `at`, and where it ends."""
    end = at + 4 + int.from_bytes(body[at : at + 4], "big")
    if end > len(body):
        raise Malformed("counts: cut short")
    return body[at + 4 : end], end


def _opened_of(entries: Sequence[bytes]) -> Mapping[bytes, int]:
    authors = [one[:_AUTHOR_BYTES] for one in entries]
    if any(one >= following for one, following in pairwise(authors)):
        raise Malformed("counts: expected authors ascending, each once")
    return {one[:_AUTHOR_BYTES]: int.from_bytes(one[_AUTHOR_BYTES:], "big") for one in entries}
