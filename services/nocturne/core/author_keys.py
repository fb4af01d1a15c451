"""Author keys: rotation and revocation, as events of `~ledger`. Pure.

Rules: docs/spec/ledger.md §6, author keys. An author is the hash of its first key, for ever; which
key signs for it now is an item of `~ledger`. Without an item it is the first key. What an act
changes counts from the next block on: whoever asks, asks the state as of the parent block.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from nocturne.core.encoding import HASH_BYTES, domain, sha256
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import AuthorId, KeyId, format_hash
from nocturne.core.keys import (
    SUITE_NAMES,
    Key,
    Signature,
    Signatures,
    Signer,
    format_key,
    is_valid_key,
    key_id,
    parse_key,
    verify,
)
from nocturne.core.kinds import KindChanges, KindItems, Violation

AUTHOR_KEY_ROTATED: Final = "nocturne.AuthorKeyRotated"
AUTHOR_KEY_REVOKED: Final = "nocturne.AuthorKeyRevoked"
AUTHOR_ACTS: Final = frozenset({AUTHOR_KEY_ROTATED, AUTHOR_KEY_REVOKED})
"""What any author may write to `~ledger`."""
ACT_BYTES_MAX: Final = 16 * 1024
"""Holds a key of every suite with its proof of possession, in hex."""

_REVOKED: Final = b"\x00"
_CURRENT: Final = b"\x01"
_AUTHOR_KEY: Final = domain("nocturne/author-key/v1")
_ROTATION: Final = domain("nocturne/author-rotation/v1")
_REVOCATION: Final = domain("nocturne/author-revocation/v1")
_PRINTED: Final = rb'"[0-9a-z]{1,16}-[0-9a-f]{2,8192}"'
_LIST: Final = rb"\[(" + _PRINTED + rb"(?:," + _PRINTED + rb"){0,3})\]"
_ROTATED: Final = re.compile(
    rb'\{"author":"sha256-([0-9a-f]{64})","key":' + _LIST + rb',"possession":' + _LIST + rb"\}\Z"
)
_REVOKED_FORM: Final = re.compile(rb'\{"author":"sha256-([0-9a-f]{64})"\}\Z')


def current_key_id(items: KindItems, author: AuthorId) -> KeyId | None:
    """The id of the key that signs for `author`, None when it was revoked. `items` of `~ledger`."""
    item = items.get(_author_key(author))
    if item is None:
        return KeyId(author)
    return None if item == _REVOKED else KeyId(item[1:])


def rotated_payload(author: AuthorId, signer: Signer) -> bytes:
    """The payload that makes `signer`'s key the author's."""
    key = ",".join(f'"{format_key(part)}"' for part in signer.key)
    proof = ",".join(
        f'"{SUITE_NAMES[one.suite]}-{one.data.hex()}"'
        for one in signer.sign(_ROTATION, author + key_id(signer.key))
    )
    return (f'{{"author":"{format_hash(author)}","key":[{key}],"possession":[{proof}]}}').encode(
        "ascii"
    )


def revoked_payload(author: AuthorId) -> bytes:
    """The payload after which no key signs for the author."""
    return f'{{"author":"{format_hash(author)}"}}'.encode("ascii")


def apply_author_act(
    items: KindItems,
    operators: Collection[KeyId],
    operator_threshold: int,
    commander: AuthorId,
    event_type: str,
    payload: bytes,
) -> KindChanges | Violation:
    """What one act changes in the items of `~ledger`, or the invariant it would break."""
    if len(payload) > ACT_BYTES_MAX:
        return Violation("author_key.form")
    if event_type == AUTHOR_KEY_ROTATED:
        return _rotate(items, commander, payload)
    return _revoke(items, operators, operator_threshold, commander, payload)


def _rotate(items: KindItems, commander: AuthorId, payload: bytes) -> KindChanges | Violation:
    found = _ROTATED.match(payload)
    if found is None:
        return Violation("author_key.form")
    author = AuthorId(bytes.fromhex(found[1].decode("ascii")))
    if author != commander:
        return Violation("author_key.own")
    if current_key_id(items, author) is None:
        return Violation("author_key.revoked")
    try:
        key = tuple(parse_key(text) for text in _strings(found[2]))
        possession = _signatures(key, _strings(found[3]))
    except Malformed:
        return Violation("author_key.form")
    # The holder of the new key signs for this author: another's key cannot be taken unasked.
    if not is_valid_key(key) or not verify(key, _ROTATION, author + key_id(key), possession):
        return Violation("author_key.possession")
    return {_author_key(author): _CURRENT + key_id(key), _revocation_key(author): None}


def _revoke(
    items: KindItems,
    operators: Collection[KeyId],
    operator_threshold: int,
    commander: AuthorId,
    payload: bytes,
) -> KindChanges | Violation:
    found = _REVOKED_FORM.match(payload)
    if found is None:
        return Violation("author_key.form")
    author = AuthorId(bytes.fromhex(found[1].decode("ascii")))
    if author != commander and KeyId(commander) not in operators:
        return Violation("author_key.own")
    if current_key_id(items, author) is None:
        return Violation("author_key.revoked")
    if author == commander:
        return {_author_key(author): _REVOKED, _revocation_key(author): None}
    asked = _operators_who_asked(items, author) | {bytes(commander)}
    if len(asked) >= operator_threshold:
        return {_author_key(author): _REVOKED, _revocation_key(author): None}
    return {_revocation_key(author): b"".join(sorted(asked))}


def _operators_who_asked(items: KindItems, author: AuthorId) -> set[bytes]:
    """Those whose own key was not revoked since."""
    ids = items.get(_revocation_key(author)) or b""
    asked = {ids[at : at + HASH_BYTES] for at in range(0, len(ids), HASH_BYTES)}
    return {one for one in asked if current_key_id(items, AuthorId(one)) is not None}


def _author_key(author: AuthorId) -> bytes:
    """The item's key: derived, so that no author named in an act is another item's key."""
    return sha256(_AUTHOR_KEY + author)


def _revocation_key(author: AuthorId) -> bytes:
    return sha256(_REVOCATION + author)


def _strings(listed: bytes) -> list[str]:
    return [text.strip('"') for text in listed.decode("ascii").split(",")]


def _signatures(key: Key, printed: list[str]) -> Signatures:
    identity = key_id(key)
    suites = {name: suite for suite, name in SUITE_NAMES.items()}
    signatures = []
    for text in printed:
        name, _, digits = text.partition("-")
        if name not in suites or len(digits) % 2:
            raise Malformed("possession: expected a suite and bytes in hex")
        signatures.append(Signature(suites[name], identity, bytes.fromhex(digits)))
    return tuple(signatures)
