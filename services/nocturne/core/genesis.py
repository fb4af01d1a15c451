"""Genesis: record 0 of a ledger. Its hash is the ledger's identity and what a verifier trusts.

Rules: docs/spec/ledger.md §1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nocturne.core.blocks import PARTITIONS_MAX
from nocturne.core.certificates import ValidatorSet
from nocturne.core.commands import KIND_VERSION_MAX
from nocturne.core.encoding import AvroRecord, Codec, domain, sha256, variable
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import Hash, LedgerId, is_type_name
from nocturne.core.keys import (
    Key,
    Signatures,
    is_valid_key,
    key_from_avro,
    key_to_avro,
    signatures_from_avro,
    signatures_to_avro,
    verify_possession,
)
from nocturne.core.validator_sets import ValidatorSets

GENESIS_BYTES_MAX: Final = 4 * 1024 * 1024
BODY_BYTES_MAX: Final = 7 * 1024 * 1024
"""Of a block's body: what the parser's bound on a block leaves beside header and commit proof."""

_GENESIS: Final = domain("nocturne/genesis/v1")
_CODEC: Final = Codec("genesis", GENESIS_BYTES_MAX)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that all validators share; bytes, counts, and ms for the clock."""

    command_bytes_max: int = 256 * 1024
    record_bytes_max: int = 1024 * 1024
    command_events_max: int = 256
    range_records_max: int = 2048
    block_bytes_max: int = 4 * 1024 * 1024
    id_window: int = 256
    clock_bound_ms: int = 5_000


@dataclass(frozen=True, slots=True)
class KindEntry:
    """A session kind that the ledger accepts, by the hash of its code."""

    name: str
    version: int
    code_hash: Hash


@dataclass(frozen=True, slots=True)
class OpenRule:
    """Who may open what: None is any author, an empty kind or prefix is any."""

    author: bytes | None
    kind: str
    prefix: str


@dataclass(frozen=True, slots=True)
class FinalityPolicy:
    """What the ledger counts as final; the embedded default asks for nothing."""

    checkpoint: bool = False
    witnesses: tuple[Key, ...] = ()
    witness_threshold: int = 0
    stores: tuple[str, ...] = ()
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Genesis:
    """The founding record; every key in it comes with a proof of its possession."""

    format_version: int
    rules_version: int
    nonce: bytes
    partitions: int
    epoch_length: int
    limits: Limits
    validators: tuple[tuple[Key, Signatures], ...]
    authority: Key
    authority_possession: Signatures
    anchors: tuple[Key, ...]
    operators: tuple[Key, ...]
    operator_threshold: int
    kinds: tuple[KindEntry, ...]
    open_policy: tuple[OpenRule, ...]
    finality: FinalityPolicy

    @property
    def validator_set(self) -> ValidatorSet:
        """The validators of epoch 0."""
        return ValidatorSet.of(tuple(key for key, _ in self.validators))

    @property
    def founding_sets(self) -> ValidatorSets:
        """The validators of all epochs, as long as nothing else is decided."""
        return ValidatorSets.founding(self.epoch_length, self.validator_set)


def one_record_bytes_max(limits: Limits, partitions: int) -> int:
    """The most that one record can make of a block's body (execution counts the same, record by
    record): itself, an event header for each event (under 512 bytes beside the names, which stand
    in the command), the leaves of two sessions, and the log positions.
    """
    return (
        limits.record_bytes_max
        + limits.command_bytes_max
        + limits.command_events_max * 512
        + partitions * 64
        + 4096
    )


def ledger_id_of(genesis_bytes: bytes) -> LedgerId:
    """SHA-256 of domain ‖ variable genesis record."""
    return LedgerId(sha256(_GENESIS + variable(genesis_bytes)))


def encode_genesis(genesis: Genesis) -> bytes:
    """The record's one encoding."""
    limits = genesis.limits
    finality = genesis.finality
    return _CODEC.encode(
        {
            "formatVersion": genesis.format_version,
            "rulesVersion": genesis.rules_version,
            "nonce": genesis.nonce,
            "partitions": genesis.partitions,
            "epochLength": genesis.epoch_length,
            "limits": {
                "commandBytesMax": limits.command_bytes_max,
                "recordBytesMax": limits.record_bytes_max,
                "commandEventsMax": limits.command_events_max,
                "rangeRecordsMax": limits.range_records_max,
                "blockBytesMax": limits.block_bytes_max,
                "idWindow": limits.id_window,
                "clockBoundMs": limits.clock_bound_ms,
            },
            "validators": [
                {"key": key_to_avro(key), "possession": signatures_to_avro(possession)}
                for key, possession in genesis.validators
            ],
            "authority": key_to_avro(genesis.authority),
            "authorityPossession": signatures_to_avro(genesis.authority_possession),
            "anchors": [key_to_avro(key) for key in genesis.anchors],
            "operators": {
                "keys": [key_to_avro(key) for key in genesis.operators],
                "threshold": genesis.operator_threshold,
            },
            "kinds": [
                {"kind": one.name, "version": one.version, "codeHash": one.code_hash}
                for one in genesis.kinds
            ],
            "openPolicy": [
                {"author": rule.author, "kind": rule.kind, "prefix": rule.prefix}
                for rule in genesis.open_policy
            ],
            "finality": {
                "checkpoint": finality.checkpoint,
                "witnesses": [key_to_avro(key) for key in finality.witnesses],
                "witnessThreshold": finality.witness_threshold,
                "stores": list(finality.stores),
                "strict": finality.strict,
            },
        }
    )


def decode_genesis(data: bytes) -> Genesis:
    """The genesis of `data`; `Malformed` unless it is one that could found a ledger."""
    record = _CODEC.decode(data)
    genesis = _from_avro(record)
    _check(genesis)
    return genesis


def _from_avro(record: AvroRecord) -> Genesis:
    limits = record["limits"]
    finality = record["finality"]
    return Genesis(
        record["formatVersion"],
        record["rulesVersion"],
        record["nonce"],
        record["partitions"],
        record["epochLength"],
        Limits(
            limits["commandBytesMax"],
            limits["recordBytesMax"],
            limits["commandEventsMax"],
            limits["rangeRecordsMax"],
            limits["blockBytesMax"],
            limits["idWindow"],
            limits["clockBoundMs"],
        ),
        tuple(
            (key_from_avro(one["key"]), signatures_from_avro(one["possession"]))
            for one in record["validators"]
        ),
        key_from_avro(record["authority"]),
        signatures_from_avro(record["authorityPossession"]),
        tuple(key_from_avro(key) for key in record["anchors"]),
        tuple(key_from_avro(key) for key in record["operators"]["keys"]),
        record["operators"]["threshold"],
        tuple(KindEntry(one["kind"], one["version"], one["codeHash"]) for one in record["kinds"]),
        tuple(OpenRule(one["author"], one["kind"], one["prefix"]) for one in record["openPolicy"]),
        FinalityPolicy(
            finality["checkpoint"],
            tuple(key_from_avro(key) for key in finality["witnesses"]),
            finality["witnessThreshold"],
            tuple(finality["stores"]),
            finality["strict"],
        ),
    )


def _check(genesis: Genesis) -> None:
    limits = genesis.limits
    if (genesis.format_version, genesis.rules_version) != (1, 1):
        raise Malformed(
            f"genesis: expected format and rules 1 and 1, got "
            f"{genesis.format_version} and {genesis.rules_version}"
        )
    if not 1 <= genesis.partitions <= PARTITIONS_MAX:
        raise Malformed(f"genesis: partitions: expected 1 to {PARTITIONS_MAX}")
    if not genesis.validators:
        raise Malformed("genesis: expected at least one validator")
    for key, possession in genesis.validators:
        if not verify_possession(key, possession):
            raise Malformed("genesis: a validator's key has no proof of possession")
    if not verify_possession(genesis.authority, genesis.authority_possession):
        raise Malformed("genesis: the authority's key has no proof of possession")
    _check_keys(genesis)
    if not 1 <= genesis.operator_threshold <= len(genesis.operators):
        raise Malformed("genesis: the operator threshold is not among its operators")
    if not 1 <= limits.command_bytes_max <= limits.record_bytes_max <= limits.block_bytes_max // 2:
        raise Malformed("genesis: limits: a record must fit half a block")
    if not one_record_bytes_max(limits, genesis.partitions) <= limits.block_bytes_max:
        raise Malformed("genesis: limits: the largest record's dispositions must fit a block")
    if limits.block_bytes_max > BODY_BYTES_MAX:
        raise Malformed(f"genesis: limits: expected block bytes of at most {BODY_BYTES_MAX}")
    if min(limits.command_events_max, limits.range_records_max, limits.id_window) < 1:
        raise Malformed("genesis: limits: expected at least 1 of everything")
    if genesis.epoch_length < 1:
        raise Malformed("genesis: epoch length: expected at least 1")
    if limits.clock_bound_ms < 0:
        raise Malformed("genesis: limits: expected a clock bound of at least 0 ms")
    _check_kinds(genesis)


def _check_keys(genesis: Genesis) -> None:
    groups = {
        "validators": genesis.validator_set.keys,
        "operators": genesis.operators,
        "anchors": genesis.anchors,
        "witnesses": genesis.finality.witnesses,
    }
    for name, keys in groups.items():
        if not all(map(is_valid_key, keys)):
            raise Malformed(f"genesis: {name}: a key is not one")
        if len(set(keys)) != len(keys):
            raise Malformed(f"genesis: {name}: a key stands twice")
    if not 0 <= genesis.finality.witness_threshold <= len(genesis.finality.witnesses):
        raise Malformed("genesis: the witness threshold is not among its witnesses")


def _check_kinds(genesis: Genesis) -> None:
    for one in genesis.kinds:
        if not is_type_name(one.name) or not 1 <= one.version <= KIND_VERSION_MAX:
            raise Malformed(f"genesis: kind {one.name[:140]!r} in version {one.version}")
    if len({(one.name, one.version) for one in genesis.kinds}) != len(genesis.kinds):
        raise Malformed("genesis: a kind stands twice in one version")
    for rule in genesis.open_policy:
        if rule.kind and not is_type_name(rule.kind):
            raise Malformed(f"genesis: open policy: not a kind: {rule.kind[:140]!r}")
