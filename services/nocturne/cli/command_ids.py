"""Command ids of `submit`: UUIDv7, so that they rise, and so that one id makes one command."""

from __future__ import annotations

from typing import Final

from nocturne.cli.failures import bad_use
from nocturne.client.sealing import SubjectKey
from nocturne.core.encoding import domain, sha256, variable
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import CommandId, parse_id
from nocturne.core.keys import Signer, signatures_bytes
from nocturne.core.sealing import NONCE_BYTES

RANDOM_BYTES: Final = 10
_SALT: Final = domain("nocturne/submit-salt/v1")
_SEALED_SALT: Final = domain("nocturne/submit-sealed-salt/v1")
_SEALED_NONCE: Final = domain("nocturne/submit-sealed-nonce/v1")
_VERSION: Final = 7


def mint(now_ms: int, random: bytes) -> CommandId:
    """A UUIDv7 (RFC 9562 §5.7) of this time and these 10 random bytes."""
    uuid = bytearray(now_ms.to_bytes(6, "big") + random)
    uuid[6] = (uuid[6] & 0x0F) | (_VERSION << 4)
    uuid[8] = (uuid[8] & 0x3F) | 0x80
    return CommandId(bytes(uuid))


def parse(text: str) -> CommandId:
    """The id that an earlier run printed; anything else is bad use."""
    try:
        identity = parse_id(text)
    except Malformed as fault:
        raise bad_use(f"--id takes the id that an earlier submit printed ({fault}).") from fault
    if identity[6] >> 4 != _VERSION:
        raise bad_use("--id takes the id that an earlier submit printed: this is no UUIDv7.")
    return CommandId(identity)


def minted_at(identity: CommandId) -> int:
    """The ms since 1970 in a UUIDv7: the command's occurredAt, the same when repeated."""
    return int.from_bytes(identity[:6], "big")


def salt(identity: CommandId, session: str, payload: bytes, signer: Signer) -> bytes:
    """32 bytes that only the author can make, and makes again for the same id: see `drafts`. For
    payloads that stay plain: who has the author's key can try guesses of the payload with it.
    """
    place = identity + variable(session.encode("ascii")) + sha256(payload)
    return sha256(_SALT + signatures_bytes(signer.sign(_SALT, place)))


def sealed_salt(identity: CommandId, session: str, payload: bytes, key: SubjectKey) -> bytes:
    """`salt` of a sealed payload: it hangs on the subject key and on no other secret, so that a
    guess of an erased payload cannot be tried by anybody, its author included.
    """
    return sha256(_SEALED_SALT + _sealed_place(identity, session, payload, key))


def sealed_nonce(identity: CommandId, session: str, payload: bytes, key: SubjectKey) -> bytes:
    """24 bytes for sealing, as `sealed_salt`: the same only for the same payload under the same id
    and subject key, so a repetition is the same command and no nonce serves two payloads.
    """
    return sha256(_SEALED_NONCE + _sealed_place(identity, session, payload, key))[:NONCE_BYTES]


def _sealed_place(identity: CommandId, session: str, payload: bytes, key: SubjectKey) -> bytes:
    place = identity + variable(session.encode("ascii")) + key.id + sha256(payload)
    return variable(key.key) + place
