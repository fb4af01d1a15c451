"""Control records: what the operators decide, carried in a block's control[], bound by its header.

Rules: docs/spec/blocks.md, control records. A control record is no event; it names the ledger, its
own number (one more than the last) and the last height at which it is valid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nocturne.core.encoding import AvroRecord, Codec, codecs_of_parts, domain, sha256, variable
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import LedgerId
from nocturne.core.keys import (
    Key,
    Signatures,
    Signer,
    key_id,
    signatures_from_avro,
    signatures_to_avro,
    verify,
)

CONTROL_BYTES_MAX: Final = 1024 * 1024
ACTIONS: Final = (
    "LogEpochOpened",
    "Recovery",
    "ValidatorSetChanged",
    "AuthorityKeyChanged",
    "OpenPolicyChanged",
    "KindsChanged",
    "EpochEnded",
    "FinalityPolicyChanged",
)

_CONTROL: Final = domain("nocturne/control-signature/v1")
(_CONTROL_CODEC,) = codecs_of_parts("control", CONTROL_BYTES_MAX, slice(0, 1))
_CODEC: Final = Codec("control", CONTROL_BYTES_MAX)


@dataclass(frozen=True, slots=True)
class Control:
    """The signed part. `action` is the name and the Avro record of one of `ACTIONS`."""

    ledger_id: LedgerId
    number: int
    last_valid_height: int
    action: str
    fields: AvroRecord


def sign_control(control: Control, signers: tuple[Signer, ...]) -> bytes:
    """The signed record, signatures ascending by key id."""
    return _encode(control, _signatures_of(control, signers))


def cosign_control(data: bytes, signer: Signer) -> bytes:
    """The signed record with one more operator's signature; its own is replaced."""
    control, signatures = decode_control(data)
    others = tuple(one for one in signatures if one.key_id != key_id(signer.key))
    return _encode(control, others + _signatures_of(control, (signer,)))


def decode_control(data: bytes) -> tuple[Control, Signatures]:
    """The record of `data`; `Malformed` unless it is the one encoding of one."""
    record = _CODEC.decode(data)
    control = record["control"]
    action = _action_name(data)
    return (
        Control(
            control["ledgerId"],
            control["number"],
            control["lastValidHeight"],
            action,
            control["action"],
        ),
        signatures_from_avro(record["signatures"]),
    )


def operators_signed(
    control: Control, signatures: Signatures, operators: tuple[Key, ...], threshold: int
) -> bool:
    """At least `threshold` different operators signed, and nobody else did."""
    by_id = {key_id(key): key for key in operators}
    message = _message(control)
    order = [one.key_id for one in signatures]
    if order != sorted(order):
        return False
    for identity in sorted(set(order)):
        key = by_id.get(identity)
        own = tuple(one for one in signatures if one.key_id == identity)
        if key is None or not verify(key, _CONTROL, message, own):
            return False
    return len(set(order)) >= threshold


def _signatures_of(control: Control, signers: tuple[Signer, ...]) -> Signatures:
    message = _message(control)
    return tuple(one for signer in signers for one in signer.sign(_CONTROL, message))


def _encode(control: Control, signatures: Signatures) -> bytes:
    ascending = tuple(sorted(signatures, key=lambda one: one.key_id))
    return _CODEC.encode(
        {"control": _to_avro(control), "signatures": signatures_to_avro(ascending)}
    )


def _message(control: Control) -> bytes:
    return sha256(_CONTROL + variable(_CONTROL_CODEC.encode({"control": _to_avro(control)})))


def _to_avro(control: Control) -> AvroRecord:
    return {
        "ledgerId": control.ledger_id,
        "number": control.number,
        "lastValidHeight": control.last_valid_height,
        "action": (f"nocturne.v1.{control.action}", control.fields),
    }


def _action_name(data: bytes) -> str:
    """The branch of the action union: records of the same fields decode alike without it."""
    source = data[32:]
    skipped = 0
    for _ in range(2):
        while source[skipped] & 0x80:
            skipped += 1
        skipped += 1
    index = source[skipped] >> 1
    if index >= len(ACTIONS):
        raise Malformed(f"control: unknown action {index}")
    return ACTIONS[index]
