"""What the members of a ledger bring to its founding, and the genesis that is made of it. Pure.

Rules: docs/spec/ledger.md §1. Each member makes its own key where it will be used and hands over
the public part with a proof that it holds the private one. A contribution is one line of JSON,
printed as RFC 8785 prints it, with nothing secret in it:

    {"format":"nocturne-contribution-v1","key":["ed25519-3b6a…"],"ordinal":0,
     "possession":["ed25519-9c1f…"],"role":"validator"}

(in one line). `key` has one public key a suite, `possession` the signature of each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from nocturne.core.certificates import quorum
from nocturne.core.errors import Malformed, NocturneError
from nocturne.core.genesis import (
    FinalityPolicy,
    Genesis,
    KindEntry,
    Limits,
    OpenRule,
    decode_genesis,
    encode_genesis,
)
from nocturne.core.json_fields import Fields
from nocturne.core.json_forms import format_signature
from nocturne.core.keys import (
    Key,
    PublicKey,
    Signature,
    Signatures,
    format_key,
    is_valid_key,
    key_id,
    parse_key,
    verify_possession,
)
from nocturne.core.strict_json import canonical_json, parse_json

FORMAT: Final = "nocturne-contribution-v1"
CONTRIBUTION_BYTES_MAX: Final = 16 * 1024
"""Twice what a key of every suite needs in hex."""
ORDINAL_MAX: Final = 9_999
SUITES_MAX: Final = 4
PARTITIONS: Final = 4
"""More than one machine's cores ask for; a ledger cannot change it later."""
EPOCH_LENGTH: Final = 65_536
"""Heights; with one validator an epoch's end changes nothing but numbers."""
VALIDATORS: Final = 4
"""The fewest of which one may lie."""
VALIDATORS_MAX: Final = 31
"""As many as a certificate may list signatures of; the format has no such bound."""

_DEPTH: Final = 2


class FoundingFault(NocturneError):  # noqa: N818
    """The ledger cannot be founded, or what was founded is not whole; the message says why."""


class Role(StrEnum):
    """What a key is in the genesis for."""

    VALIDATOR = "validator"
    AUTHORITY = "authority"
    OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Contribution:
    """The public part of one member's key. `ordinal` counts the members of a role from 0."""

    role: Role
    ordinal: int
    key: Key
    possession: Signatures


@dataclass(frozen=True, slots=True)
class Terms:
    """What a genesis says beside its members. Any author may open any session, and nothing is
    asked beyond `signed`; both are policies that the operators change in the ledger.
    """

    nonce: bytes
    kinds: tuple[KindEntry, ...]
    partitions: int = PARTITIONS
    epoch_length: int = EPOCH_LENGTH
    operator_threshold: int = 1


def encode_contribution(one: Contribution) -> bytes:
    """The one line, with its end."""
    return (
        canonical_json(
            {
                "format": FORMAT,
                "role": one.role.value,
                "ordinal": one.ordinal,
                "key": [format_key(part) for part in one.key],
                "possession": [format_signature(part) for part in one.possession],
            }
        )
        + b"\n"
    )


def decode_contribution(data: bytes) -> Contribution:
    """The reverse of `encode_contribution`; `Malformed` on anything it would not write, and on a
    key whose holder has not proved that it is one.
    """
    fields = Fields.of(parse_json(data, CONTRIBUTION_BYTES_MAX, _DEPTH), "contribution")
    key = tuple(map(parse_key, fields.texts("key", SUITES_MAX)))
    if not is_valid_key(key):
        raise Malformed("contribution.key: expected one key a suite, suites ascending")
    possession = _possession(key, fields.texts("possession", SUITES_MAX))
    if not verify_possession(key, possession):
        raise Malformed("contribution.possession: the key's holder did not sign it")
    ordinal = fields.natural("ordinal")
    if ordinal > ORDINAL_MAX:
        raise Malformed(f"contribution.ordinal: expected at most {ORDINAL_MAX}, got {ordinal}")
    one = Contribution(_role(fields.text("role")), ordinal, key, possession)
    if encode_contribution(one) != data:
        raise Malformed(f"contribution: expected one line of {FORMAT} as it is printed")
    return one


def check_validators(count: int) -> None:
    """`FoundingFault` unless a ledger may be founded with so many validators."""
    if not 1 <= count <= VALIDATORS_MAX:
        raise FoundingFault(
            f"a ledger is founded with 1 to {VALIDATORS_MAX} validators, got {count}"
        )


def weakness(count: int) -> str | None:
    """What a ledger of so few validators does not withstand, in a sentence; None when it withstands
    one of them that lies. Rules: docs/spec/quorum.md §1.
    """
    if count > 3:
        return None
    away = count - quorum(count)
    runs = "one of them may be away" if away else "none of them may be away"
    many = "validator" if count == 1 else "validators"
    return f"With {count} {many} the ledger tolerates no liar, and {runs}; four tolerate one."


def compose(contributions: Iterable[Contribution], terms: Terms) -> bytes:
    """The genesis record. `FoundingFault` unless there are validators and operators, counted from
    0 without a gap, and one authority.
    """
    found = sorted(contributions, key=lambda one: (one.role, one.ordinal))
    validators, authorities, operators = (
        _dense([one for one in found if one.role is role], role) for role in Role
    )
    if len(authorities) != 1:
        raise FoundingFault(f"a ledger has one authority, got {len(authorities)}")
    check_validators(len(validators))
    genesis = Genesis(
        format_version=1,
        rules_version=1,
        nonce=terms.nonce,
        partitions=terms.partitions,
        epoch_length=terms.epoch_length,
        limits=Limits(),
        validators=tuple((one.key, one.possession) for one in validators),
        authority=authorities[0].key,
        authority_possession=authorities[0].possession,
        anchors=(),
        operators=tuple(one.key for one in operators),
        operator_threshold=terms.operator_threshold,
        kinds=terms.kinds,
        open_policy=(OpenRule(None, "", ""),),
        finality=FinalityPolicy(),
    )
    data = encode_genesis(genesis)
    try:
        decode_genesis(data)
    except Malformed as fault:
        raise FoundingFault(f"these terms and members found no ledger: {fault}") from fault
    return data


def key_in(genesis: Genesis, role: Role, ordinal: int) -> Key | None:
    """The key that the genesis has for a member; None when it has no such member."""
    keys: Sequence[Key]
    match role:
        case Role.VALIDATOR:
            keys = genesis.validator_set.keys
        case Role.AUTHORITY:
            keys = (genesis.authority,)
        case Role.OPERATOR:
            keys = genesis.operators
    return keys[ordinal] if ordinal < len(keys) else None


def _dense(members: list[Contribution], role: Role) -> list[Contribution]:
    counted = Counter(one.ordinal for one in members)
    for ordinal in range(max(len(members), 1)):
        if counted[ordinal] != 1:
            raise FoundingFault(
                f"expected one contribution of {role.value} {ordinal}, got {counted[ordinal]}"
            )
    return members


def _possession(key: Key, texts: list[str]) -> Signatures:
    if len(texts) != len(key):
        raise Malformed(f"contribution.possession: expected {len(key)}, got {len(texts)}")
    return tuple(_signature(part, key, text) for part, text in zip(key, texts, strict=True))


def _signature(part: PublicKey, key: Key, text: str) -> Signature:
    """Of any length: whether it is a signature of `part` is for its verification to say."""
    try:
        return Signature(part.suite, key_id(key), bytes.fromhex(text.partition("-")[2]))
    except ValueError as fault:
        raise Malformed("contribution.possession: expected hex digits") from fault


def _role(text: str) -> Role:
    try:
        return Role(text)
    except ValueError as fault:
        raise Malformed(f"contribution.role: expected a role, got {text[:80]!r}") from fault
