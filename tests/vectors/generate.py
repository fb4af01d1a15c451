"""Write the golden vectors of every byte format, or check that they are what this program writes.

    python -m tests.vectors.generate            writes tests/vectors/*.json
    python -m tests.vectors.generate --check    exit 1 and names the file that differs

Bytes stand in hex. Keys, salts and ids are SHA-256 of labels (`synthetic.seed_of`), so that every
implementation can make them itself.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests import liars
from tests.vectors.attacks import bad_exports
from tests.vectors.bounds import bounds, claims
from tests.vectors.changes import bad_changes
from tests.vectors.edges import TAG, edges
from tests.vectors.synthetic import (
    MadeBlock,
    SyntheticLedger,
    changing_ledger,
    example_ledger,
    seed_of,
    signer_of,
)

from nocturne.audit.verify import Verdict, verify_disposition_proof, verify_export
from nocturne.core import (
    blocks,
    certificates,
    control,
    encoding,
    events,
    evidence,
    log_epochs,
    merkle,
    receipts,
    sealing,
)
from nocturne.core.blocks import Disposition
from nocturne.core.certificates import Ballot, CommitProof, Epoch, VoteKind
from nocturne.core.commands import encode_signed_command, payload_hash
from nocturne.core.events import Position
from nocturne.core.exports import EventsLine, block_line, disposition_proof, parse_line, print_line
from nocturne.core.genesis import ledger_id_of
from nocturne.core.identifiers import (
    Hash,
    LedgerId,
    SessionId,
    event_id,
    format_hash,
    format_id,
    session_key,
)
from nocturne.core.intake import command_hash_of_value, evidence_of, signed_command_of
from nocturne.core.json_forms import UNSIGNED
from nocturne.core.keys import (
    PublicKey,
    Signatures,
    format_key,
    key_bytes,
    key_id,
    prove_possession,
    signed_bytes,
)
from nocturne.core.log_epochs import LogOpening
from nocturne.core.receipts import Reason
from nocturne.core.sparse_tree import SparseTree
from nocturne.core.state_leaf import LogPosition, encode_positions, positions_key
from nocturne.core.strict_json import canonical_json
from nocturne.core.topics import FIXED_SCHEMA_IDS, TOPICS, frame, partition_of

FOLDER = Path(__file__).resolve().parent
SESSIONS = ("orders/1", "readings", "~ledger", "nobody", "never~opened")

Json = Any


def vectors() -> dict[str, Callable[[], Json]]:
    """What stands in which file."""
    return {
        "encoding.json": encoding_vectors,
        "json.json": json_vectors,
        "keys.json": key_vectors,
        "genesis.json": genesis_vectors,
        "commands.json": command_vectors,
        "bounds.json": bound_vectors,
        "events.json": event_vectors,
        "receipts.json": receipt_vectors,
        "blocks.json": block_vectors,
        "certificates.json": certificate_vectors,
        "evidence.json": evidence_vectors,
        "control.json": control_vectors,
        "merkle.json": merkle_vectors,
        "sparse_tree.json": sparse_tree_vectors,
        "topics.json": topic_vectors,
        "sealing.json": sealing_vectors,
        "exports.json": export_vectors,
    }


def main(arguments: list[str]) -> int:
    """See the module's text."""
    stale = []
    for name, make in vectors().items():
        text = json.dumps(make(), indent=1, ensure_ascii=True) + "\n"
        path = FOLDER / name
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
    for name in stale:
        print(f"tests/vectors/{name} is not what its generator writes", file=sys.stderr)
    return 1 if stale else 0


def signatures_json(signatures: Signatures) -> list[Json]:
    """A signature list."""
    return [
        {"suite": one.suite, "keyId": one.key_id.hex(), "bytes": one.data.hex()}
        for one in signatures
    ]


# Encodings ---------------------------------------------------------------------------------------


def encoding_vectors() -> Json:
    """Fields of hash inputs, identifiers, Avro's numbers."""
    numbers = (0, -1, 1, 63, 64, -64, -65, 8191, 8192, 2**31 - 1, 2**53 - 1, 2**63 - 1, -(2**63))
    ledger = LedgerId(seed_of("any ledger"))
    return {
        "domain": {
            "tag": "nocturne/command/v1",
            "bytes": encoding.domain("nocturne/command/v1").hex(),
        },
        "variable": [
            {"field": field.hex(), "bytes": encoding.variable(field).hex()}
            for field in (b"", b"a", bytes(300))
        ],
        "optional": [
            {
                "field": None if field is None else field.hex(),
                "bytes": encoding.optional(field).hex(),
            }
            for field in (None, b"", b"a")
        ],
        "avroLong": [
            {"number": str(number), "bytes": encoding.long_to_avro(number).hex()}
            for number in numbers
        ],
        "sessionKey": [
            {
                "ledgerId": format_hash(ledger),
                "session": session,
                "key": format_hash(session_key(ledger, SessionId(session))),
            }
            for session in ("~ledger", "orders/1", "a" * 128)
        ],
        "eventId": [
            {
                "ledgerId": format_hash(ledger),
                "commandHash": format_hash(seed_of("any command")),
                "index": index,
                "eventId": format_id(event_id(ledger, Hash(seed_of("any command")), index)),
            }
            for index in (0, 1, 255)
        ],
    }


def json_vectors() -> Json:
    """RFC 8785: the number forms that implementations get wrong, names sorted by UTF-16."""
    values: list[Json] = [
        0, -1, 1.5, 1e-7, 1e-6, 1e21, 1e22, 123456789012345680000000.0, 5e-324,
        1.7976931348623157e308,
        9007199254740991, -9007199254740991, 0.1, 0.30000000000000004, 4.35, 1e-5,
        333333333.3333333,
        "\u0000\u001f\"\\/\b\t\n\f\r\x7f", "é𝄞\u2028", "\ufdd0\uffff\U0001fffe",
        [], {}, [None, True, False],
        {"\U0001d11e": 1, "\ufb33": 2, "z": 3, "": 4},
    ]  # fmt: skip
    return [{"value": value, "printed": canonical_json(value).hex()} for value in values]


def key_vectors() -> Json:
    """Keys from seeds, their ids, signatures, and proofs of possession."""
    signer = signer_of("author alice")
    tag = encoding.domain("nocturne/vote/v1")
    both = (*signer.key, PublicKey(2, bytes(1312)))
    return {
        "seedLabel": "author alice",
        "seed": seed_of("author alice").hex(),
        "publicKey": format_key(signer.key[0]),
        "keyBytes": key_bytes(signer.key).hex(),
        "keyId": format_hash(key_id(signer.key)),
        "twoSuites": {
            "comment": "Ed25519 as above and ML-DSA-44 of 1312 zero bytes",
            "keyId": format_hash(key_id(both)),
        },
        "signed": {
            "domain": "nocturne/vote/v1",
            "message": b"message".hex(),
            "signedBytes": signed_bytes(tag, b"\x01", b"message").hex(),
            "signatures": signatures_json(signer.sign(tag, b"message")),
        },
        "possession": signatures_json(prove_possession(signer)),
        "edge": {
            "domain": TAG,
            "signatures": [
                {
                    "name": one.name,
                    "publicKey": one.public_key.hex(),
                    "message": one.message.hex(),
                    "bytes": one.signature.hex(),
                    "verifies": one.verifies,
                }
                for one in edges()
            ],
        },
    }


def genesis_vectors() -> Json:
    """The founding record of the example ledger, and of one with four validators."""
    found = []
    for ledger in (example_ledger(), example_ledger("of four", validators=4)):
        data = ledger.genesis_bytes
        validators = ledger.genesis.validator_set
        found.append(
            {
                "genesis": data.hex(),
                "ledgerId": format_hash(ledger_id_of(data)),
                "authority": format_key(ledger.genesis.authority[0]),
                "validators": [format_key(key[0]) for key in validators.keys],
                "validatorSetHash": format_hash(validators.hash),
                "quorum": validators.quorum,
                "foundingStateRoot": _founding_root(ledger.name, ledger.validators),
            }
        )
    return found


def _founding_root(name: str, validators: int) -> str:
    return format_hash(SyntheticLedger(name, validators).state.root_hash)


# Ledger -----------------------------------------------------------------------------------------


def command_vectors() -> Json:
    """Every command of the example ledger, with its envelope."""
    found = []
    for block in example_ledger().blocks:
        for record in block.records:
            signed = signed_command_of(record)
            if signed is None:
                continue
            found.append(
                {
                    "command": signed.command_bytes.hex(),
                    "commandHash": format_hash(signed.command_hash),
                    "signatures": signatures_json(signed.signatures),
                    "payloads": [
                        {
                            "salt": one.salt.hex(),
                            "bytes": one.data.hex(),
                            "payloadHash": format_hash(payload_hash(one)),
                        }
                        for one in signed.payloads
                    ],
                    "signedCommand": encode_signed_command(signed).hex(),
                }
            )
    return found


def bound_vectors() -> Json:
    """Records at their bounds and beyond: `wellFormed` says which a reader takes."""
    return [
        {
            "schema": one.schema,
            "name": one.name,
            "record": one.data.hex(),
            "wellFormed": one.is_well_formed,
        }
        for one in bounds()
    ]


def event_vectors() -> Json:
    """Every event of the example ledger: header, hash, signature, envelope."""
    ledger = example_ledger()
    found = []
    for block in ledger.blocks:
        for record in block.records:
            for index, header_bytes in enumerate(record.events):
                signatures = ledger.signatures_of(block, record)[index]
                time, height = block.header.time, block.header.height
                header = events.decode_event_header(header_bytes)
                found.append(
                    {
                        "session": header.session,
                        "sequence": header.sequence,
                        "header": header_bytes.hex(),
                        "eventHash": format_hash(events.hash_event(header_bytes)),
                        "height": height,
                        "time": time,
                        "signatures": signatures_json(signatures),
                        "event": events.encode_event(
                            header_bytes, signatures, height, time, evidence_of(record), index
                        ).hex(),
                    }
                )
    return found


def receipt_vectors() -> Json:
    """The closed list of reasons, and every receipt of the example ledger."""
    ledger = example_ledger()
    found = []
    for block in ledger.blocks:
        for record in block.records:
            if record.receipt is None:
                continue
            (signatures,) = ledger.signatures_of(block, record)
            time, height = block.header.time, block.header.height
            found.append(
                {
                    "header": record.receipt.hex(),
                    "receiptHash": format_hash(receipts.hash_receipt(record.receipt)),
                    "height": height,
                    "time": time,
                    "signatures": signatures_json(signatures),
                    "receipt": receipts.encode_receipt(
                        record.receipt, signatures, height, time
                    ).hex(),
                }
            )
    reasons = {
        reason.name: {"number": int(reason), "paper": receipts.PAPER_REASONS[reason]}
        for reason in Reason
    }
    return {"reasons": reasons, "receipts": found}


# Blocks -----------------------------------------------------------------------------------------


def block_vectors() -> Json:
    """The example ledger's blocks: records, log hashes, leaves, headers, seals, whole blocks."""
    ledger = example_ledger()
    return {
        "blocks": [_block_json(ledger, block) for block in ledger.blocks],
        "logContinued": {
            "last": format_hash(seed_of("last")),
            "topicUuid": seed_of("topic")[:16].hex(),
            "logEpoch": 2,
            "logHash": format_hash(
                blocks.log_continued(Hash(seed_of("last")), seed_of("topic")[:16], 2)
            ),
        },
        "positionsLeaf": _positions_json(ledger.state.positions, ledger.state.ledger_id),
    }


def _positions_json(positions: tuple[LogPosition, ...], ledger_id: LedgerId) -> Json:
    return {
        "key": format_hash(positions_key(ledger_id)),
        "positions": [
            {
                "partition": one.partition,
                "logEpoch": one.log_epoch,
                "topicUuid": one.topic_uuid.hex(),
                "nextOffset": one.next_offset,
                "logHash": format_hash(one.log_hash),
            }
            for one in positions
        ],
        "value": encode_positions(positions).hex(),
    }


def _block_json(ledger: SyntheticLedger, block: MadeBlock) -> Json:
    header = block.header
    lists = [one for record in block.records for one in ledger.signatures_of(block, record)]
    digest = blocks.hash_block(block.header_bytes)
    signatures_hash = blocks.hash_signatures(lists)
    seal = blocks.sign_seal(
        ledger.authority, header.ledger_id, header.height, digest, signatures_hash
    )
    return {
        "height": header.height,
        "ranges": [
            {
                "logEpoch": one.log_epoch,
                "topicUuid": one.topic_uuid.hex(),
                "partition": one.partition,
                "from": one.start,
                "to": one.end,
                "logHash": format_hash(one.log_hash),
                "logStart": format_hash(
                    blocks.log_start(header.ledger_id, one.topic_uuid, one.log_epoch)
                ),
            }
            for one in header.ranges
        ],
        "records": [
            _record_json(position, record, leaf)
            for position, record, leaf in zip(
                blocks.positions_of(header), block.records, block.leaves, strict=True
            )
        ],
        "dispositionsRoot": format_hash(header.dispositions_root),
        "stateRoot": format_hash(header.state_root),
        "header": block.header_bytes.hex(),
        "digest": format_hash(digest),
        "commitProof": certificates.encode_commit_proof(block.proof).hex(),
        "authoritySignatures": [signatures_json(one) for one in lists],
        "signaturesHash": format_hash(signatures_hash),
        "seal": blocks.encode_seal(seal).hex(),
    }


def _record_json(position: Position, record: blocks.RecordDisposition, leaf: bytes) -> Json:
    command_hash = command_hash_of_value(record)
    disposition = Disposition(
        position,
        command_hash,
        tuple(map(events.hash_event, record.events)),
        None if record.receipt is None else receipts.hash_receipt(record.receipt),
    )
    return {
        "position": [position.log_epoch, position.partition, position.offset],
        "key": None if record.key is None else record.key.hex(),
        "value": None if record.value is None else record.value.hex(),
        "headers": record.headers.hex(),
        "recordHash": None if record.record_hash is None else format_hash(record.record_hash),
        "commandHash": None if command_hash is None else format_hash(command_hash),
        "disposition": blocks.encode_disposition(disposition).hex(),
        "leafHash": format_hash(leaf),
    }


def certificate_vectors() -> Json:
    """Quorums, a vote, and commit proofs of a block of its own and by a descendant."""
    ledger = example_ledger("of four", validators=4)
    genesis = ledger.genesis
    digest = Hash(seed_of("block"))
    ballot = Ballot(
        VoteKind.FINALIZE,
        ledger.state.ledger_id,
        Epoch(0, 3),
        genesis.validator_set.hash,
        9,
        digest,
    )
    voter = signer_of("of four validator 2")
    first, second = ledger.blocks[0], ledger.blocks[1]
    later = CommitProof(second.proof.finalization, (second.header_bytes,))
    return {
        "quorums": {
            str(n): certificates.quorum(n) for n in (1, 2, 3, 4, 5, 6, 7, 10, 23, 100, 500)
        },
        "vote": {
            "kind": 3,
            "ledgerId": format_hash(ballot.ledger_id),
            "epoch": [0, 3],
            "validatorSetHash": format_hash(ballot.validator_set_hash),
            "view": 9,
            "digest": format_hash(digest),
            "signatures": signatures_json(certificates.sign_vote(voter, ballot)),
        },
        "genesis": ledger.genesis_bytes.hex(),
        "block": first.header_bytes.hex(),
        "commitProof": certificates.encode_commit_proof(first.proof).hex(),
        "commitProofByDescendant": certificates.encode_commit_proof(later).hex(),
        "claims": [
            {
                "name": one.name,
                "header": one.header.hex(),
                "proof": one.proof.hex(),
                "holds": one.holds,
            }
            for one in claims()
        ],
    }


def evidence_vectors() -> Json:
    """One piece of each offence, and what is none."""
    ledger = example_ledger("of four", validators=4)
    validators = ledger.genesis.validator_set
    place = liars.Place(ledger.state.ledger_id, validators, ledger.blocks[0].header)
    liar = signer_of("of four validator 2")
    lies = liars.lies_of(place, liar, validator=2)
    _, _, notarized, _, nullified, finalized, _ = liars.said_in(place, liar, 7)
    return {
        "genesis": ledger.genesis_bytes.hex(),
        "lies": [
            {
                "name": evidence.name_of(lie),
                "offence": evidence.check_evidence(lie, place.ledger_id, validators).name,
                "evidence": evidence.encode_evidence(lie).hex(),
            }
            for lie in lies
        ],
        "noLies": [
            evidence.encode_evidence(liars.evidence_about(place, 7, *pair, 2)).hex()
            for pair in ((notarized, nullified), (notarized, finalized))
        ],
        "notSigned": [evidence.encode_evidence(replace(lie, validator=1)).hex() for lie in lies],
    }


def control_vectors() -> Json:
    """A signed control record, the hash of a block that carries it, and what changes of the
    validators leave in `~ledger`.
    """
    one = control.Control(LedgerId(seed_of("any ledger")), 1, 100, "EpochEnded", {})
    data = control.sign_control(one, (signer_of("ledger operator"),))
    return {
        "operator": format_key(signer_of("ledger operator").key[0]),
        "signedControl": data.hex(),
        "controlHash": format_hash(blocks.hash_control([data])),
        "controlHashOfNone": format_hash(blocks.hash_control([])),
        "validatorSets": _sets_json(),
        "logEpochs": _log_epochs_json(),
    }


def _log_epochs_json() -> Json:
    """What LogEpochOpened makes of the position of its partition, in the bytes of the positions
    leaf: of one that had records, of the same again, and of one that had none.
    """
    ledger_id = LedgerId(seed_of("any ledger"))
    topic, anew = seed_of("a topic")[:16], seed_of("a topic made anew")[:16]
    start = blocks.log_start(ledger_id, topic, 1)
    positions = {
        0: LogPosition(0, 1, topic, 42, blocks.log_next(start, 41, Hash(seed_of("a record")))),
        1: LogPosition(1, 1, bytes(16), 0, Hash(bytes(32))),
    }
    found = []
    for number, (partition, uuid, offset) in enumerate(((0, anew, 0), (0, anew, 7), (1, topic, 3))):
        before = positions[partition]
        opening = LogOpening(partition, before.log_epoch + 1, uuid, offset)
        decided = control.Control(
            ledger_id, number + 1, 100, log_epochs.ACTION, log_epochs.opening_fields(opening)
        )
        data = control.sign_control(decided, (signer_of("ledger operator"),))
        positions = log_epochs.positions_after(positions, [data])
        found.append(
            {
                "positionBefore": encode_positions((before,)).hex(),
                "signedControl": data.hex(),
                "positionAfter": encode_positions((positions[partition],)).hex(),
            }
        )
    return found


def _sets_json() -> Json:
    """After each block of the ledger of four epochs: its control records, the roots, the item of
    `~ledger` (null as long as there is none), and the sets of its epoch and the next.
    """
    ledger = changing_ledger()
    founding = ledger.genesis.founding_sets
    sets = founding
    found = []
    for block in ledger.blocks:
        header = block.header
        sets = sets.after(header.height, block.control)
        assert sets == block.state.view.validator_sets
        found.append(
            {
                "height": header.height,
                "epoch": header.epoch.number,
                "control": [record.hex() for record in block.control],
                "controlHash": format_hash(header.control_hash),
                "stateRoot": format_hash(header.state_root),
                "item": sets.encode().hex() or None,
                "validatorSetHash": format_hash(header.validator_set_hash),
                "nextValidatorSetHash": format_hash(header.next_validator_set_hash),
            }
        )
    return {
        "genesis": ledger.genesis_bytes.hex(),
        "itemKey": encoding.sha256(encoding.domain("nocturne/validator-sets/v1")).hex(),
        "sets": [
            {
                "firstEpoch": one.first_epoch,
                "hash": format_hash(one.validators.hash),
                "validators": [format_key(key[0]) for key in one.validators.keys],
            }
            for one in sets.decided
        ],
        "blocks": found,
    }


# Trees ------------------------------------------------------------------------------------------


def merkle_vectors() -> Json:
    """RFC 6962: roots, inclusion and consistency over leaves 0x00, 0x01, …"""
    leaves = [merkle.leaf_hash(bytes((number,))) for number in range(9)]
    return {
        "leafData": [bytes((number,)).hex() for number in range(len(leaves))],
        "comment": "roots[n] is of the first n leaves; inclusion and consistency of the first"
        " `size` or `new`; hashes of inclusion from the leaf up",
        "roots": [format_hash(merkle.root(leaves[:size])) for size in range(len(leaves) + 1)],
        "inclusion": [
            {
                "size": size,
                "index": index,
                "path": [format_hash(one) for one in merkle.inclusion_path(leaves[:size], index)],
            }
            for size in (1, 2, 3, 7, 8, 9)
            for index in range(size)
        ],
        "consistency": [
            {
                "old": old,
                "new": new,
                "path": [format_hash(one) for one in merkle.consistency_path(leaves[:new], old)],
            }
            for old, new in ((1, 2), (3, 7), (4, 7), (6, 8), (8, 9))
        ],
    }


def sparse_tree_vectors() -> Json:
    """Roots of growing maps, and proofs of presence and absence in the last."""
    keys = [seed_of(f"key {number}") for number in range(6)]
    # Two keys that part at the last bit only.
    keys.append(keys[0][:31] + bytes((keys[0][31] ^ 1,)))
    tree: SparseTree[None] = SparseTree()
    roots = [format_hash(tree.root_hash)]
    for number, key in enumerate(keys):
        tree = tree.update({key: (b"value %d" % number, None)})
        roots.append(format_hash(tree.root_hash))
    asked = [*keys, seed_of("absent 1"), seed_of("absent 2"), bytes(32), b"\xff" * 32]
    proofs = []
    for key in asked:
        proof = tree.prove(key)
        leaf = proof.leaf
        proofs.append(
            {
                "key": key.hex(),
                "siblings": [one.hex() for one in proof.siblings],
                "leaf": None if leaf is None else {"key": leaf[0].hex(), "value": leaf[1].hex()},
                "present": leaf is not None and leaf[0] == key,
            }
        )
    return {
        "comment": "roots[n] is of the first n pairs; proofs are against the last root, siblings"
        " from the root down; leaf is what stands at the end, null for nothing",
        "pairs": [
            {"key": key.hex(), "value": (b"value %d" % number).hex()}
            for number, key in enumerate(keys)
        ],
        "roots": roots,
        "proofs": proofs,
    }


# Wire -------------------------------------------------------------------------------------------


def topic_vectors() -> Json:
    """Kafka's partitioner and the Confluent prefix."""
    keys = ["", "a", "ab", "abc", "abcd", "orders/1", "readings", "~ledger", "a" * 128]
    return {
        "partitions": [
            {
                "key": key,
                "of12": partition_of(key.encode(), 12),
                "of256": partition_of(key.encode(), 256),
            }
            for key in keys
        ],
        "framed": {
            topic: {
                "schemaId": FIXED_SCHEMA_IDS[topic],
                "record": frame(FIXED_SCHEMA_IDS[topic], b"avro").hex(),
            }
            for topic in TOPICS
        },
    }


def sealing_vectors() -> Json:
    """A payload sealed under a subject's key."""
    unsealed = sealing.Unsealed("application/json", b'{"name":"Ada"}')
    key, nonce, identity = seed_of("subject key"), seed_of("nonce")[:24], seed_of("subject")[:16]
    return {
        "contentType": unsealed.content_type,
        "payload": unsealed.data.hex(),
        "subjectKeyId": format_id(identity),
        "key": key.hex(),
        "nonce": nonce.hex(),
        "sealed": sealing.seal(unsealed, identity, key, nonce).hex(),
    }


# Exports ----------------------------------------------------------------------------------------


def export_vectors() -> Json:
    """Good exports, bad ones with the sentence to say, and disposition proofs.

    A line of a bad export is a number, the line of that index of the good export of `session`, or
    its own text. The verifier is told `trusted`.
    """
    ledger = example_ledger()
    trusted = ledger.state.ledger_id
    good = {session: ledger.export(session) for session in SESSIONS}
    of_four = example_ledger("of four", validators=4)
    return {
        "trusted": format_hash(trusted),
        "good": [
            {
                "session": session,
                "lines": [line.decode() for line in lines],
                "verdict": _verdict_json(verify_export(lines, trusted)),
            }
            for session, lines in good.items()
        ],
        "goodOfFourValidators": {
            "trusted": format_hash(of_four.state.ledger_id),
            "lines": [line.decode() for line in of_four.export("orders/1")],
            "verdict": _verdict_json(
                verify_export(of_four.export("orders/1"), of_four.state.ledger_id)
            ),
        },
        "bad": [
            {
                "name": bad.name,
                "session": bad.session,
                "lines": [_line_json(line, good[bad.session]) for line in bad.lines],
                "fault": verify_export(bad.lines, trusted).fault,
            }
            for bad in bad_exports()
        ],
        "changedValidators": _changed_json(),
        "withoutTrust": verify_export(good["orders/1"], None).sentence,
        "dispositionProofs": _proofs_json(),
    }


def _changed_json() -> Json:
    """A ledger of four epochs whose validators changed twice: its export, bad ones whose lines are
    texts or indexes of the good one's, and proofs of a block of each epoch.
    """
    ledger = changing_ledger()
    trusted = ledger.state.ledger_id
    good = ledger.export("log")
    proofs = [_changed_proof(ledger, height) for height in (3, 5, 8)]
    bad_proofs = {
        "a change is missing": b"".join(proofs[2].splitlines(keepends=True)[1:]),
        "a change is not below the block": b"".join(good[1:3]) + proofs[1],
        "a change stands after the block": proofs[0] + good[1],
        "a block stands in the place of a change": good[3] + proofs[0],
    }
    return {
        "trusted": format_hash(trusted),
        "genesis": ledger.genesis_bytes.hex(),
        "session": "log",
        "lines": [line.decode() for line in good],
        "verdict": _verdict_json(verify_export(good, trusted)),
        "bad": [
            {
                "name": bad.name,
                "lines": [_line_json(line, good) for line in bad.lines],
                "fault": verify_export(bad.lines, trusted).fault,
            }
            for bad in bad_changes()
        ],
        "proofs": [one.decode() for one in proofs],
        "badProofs": [
            {
                "name": name,
                "proof": proof.decode(),
                "fault": verify_disposition_proof(proof, ledger.genesis_bytes, trusted).fault,
            }
            for name, proof in bad_proofs.items()
        ],
    }


def _changed_proof(ledger: SyntheticLedger, height: int) -> bytes:
    block = ledger.blocks[height - 1]
    proof = disposition_proof(
        block_line(block.header_bytes, block.proof),
        ledger.disposition(block, 0),
        b"".join(ledger.validators_lines(height)),
    )
    verdict = verify_disposition_proof(proof, ledger.genesis_bytes, ledger.state.ledger_id)
    assert verdict.holds, verdict.fault
    return proof


def _line_json(line: bytes, good: list[bytes]) -> int | str:
    return good.index(line) if line in good else line.decode()


def _verdict_json(verdict: Verdict) -> Json:
    assert verdict.holds
    assert verdict.head_hash is not None
    return {
        "height": verdict.height,
        "events": verdict.events,
        "receipts": verdict.receipts,
        "headHash": format_hash(verdict.head_hash),
        "sentence": verdict.sentence,
    }


def _proofs_json() -> Json:
    ledger = example_ledger()
    trusted = ledger.state.ledger_id
    block = ledger.blocks[0]
    found = []
    for index, signed in ((0, True), (0, False), (1, True), (2, True), (2, False)):
        line = ledger.disposition(block, index, signed=signed)
        proof = disposition_proof(block_line(block.header_bytes, block.proof), line)
        verdict = verify_disposition_proof(proof, ledger.genesis_bytes, trusted)
        assert verdict.holds
        found.append({"proof": proof.decode(), "signed": verdict.signed})
    return {
        "genesis": ledger.genesis_bytes.hex(),
        "proofs": found,
        "bad": [
            {
                "name": "some events of a command are signed and others are not",
                "proof": _half_signed(ledger).decode(),
                "fault": verify_disposition_proof(
                    _half_signed(ledger), ledger.genesis_bytes, trusted
                ).fault,
            }
        ],
    }


def _half_signed(ledger: SyntheticLedger) -> bytes:
    block = ledger.blocks[0]
    both = parse_line(ledger.disposition(block, 1))
    assert isinstance(both, EventsLine)
    half = replace(both, attestations=(both.attestations[0], UNSIGNED))
    return disposition_proof(block_line(block.header_bytes, block.proof), print_line(half))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
