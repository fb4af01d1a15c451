"""Every parser of the project: what it reads, what it may raise, and how what it read is printed.

`tests/architecture/test_fuzzed_parsers.py` holds this list to the code: a new `decode…` or `parse…`
without a line here fails. What reads under another name stands here too, by hand.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

from hypothesis import strategies as st
from pydantic import ValidationError
from tests.hostile import samples
from tests.hostile.samples import EXAMPLE, FACTORY, framed, text
from tests.ledger_factory import AUTHORITY
from tests.unit.core import shapes
from tests.unit.core.test_modes import CHAIN, CONFLICTS, KEPT
from tests.unit.imports.test_git import commit, printed
from tests.unit.imports.test_xes import LOG as EVENT_LOG
from tests.vectors.synthetic import make_genesis

from nocturne.audit.verify import verify_disposition_proof, verify_export
from nocturne.cli import (
    author_state,
    authors,
    command_ids,
    lag,
    log_openings,
    options,
    payloads,
    policy,
    trust,
)
from nocturne.cli.failures import Failure
from nocturne.client import checking, sharing, subject_store
from nocturne.client.credentials import Credentials, host_and_port, load
from nocturne.client.results import CredentialsFault
from nocturne.client.sealing import make_subject_key
from nocturne.command.admission import admit
from nocturne.command.limits import COUNTS_BYTES_MAX, Counted, decode_counts, encode_counts
from nocturne.command.replies import Refused, deadline_of, level_of
from nocturne.command.service import CommandSettings
from nocturne.consensus import codec
from nocturne.consensus.handshake import Opener
from nocturne.consensus.service import Settings as ConsensusSettings
from nocturne.core import (
    access,
    blocks,
    certificates,
    commands,
    conflicts,
    events,
    evidence,
    exports,
    genesis,
    identifiers,
    json_fields,
    keys,
    modes,
    receipts,
    record_headers,
    sealing,
    snapshot,
    strict_json,
    topics,
)
from nocturne.core.block_intake import BlockIntake
from nocturne.core.blocks import LogRecord
from nocturne.core.control import CONTROL_BYTES_MAX, decode_control
from nocturne.core.encoding import Codec, u32
from nocturne.core.errors import Halt, Malformed, NocturneError, PeerFault
from nocturne.core.kinds import KindRegistry, Violation, builtin_kinds
from nocturne.core.state_leaf import SessionLeaf, decode_positions, encode_positions
from nocturne.deploy import config_maps, contributions, rights
from nocturne.deploy import secrets as deployed_secrets
from nocturne.deploy.contributions import Contribution, Role
from nocturne.embedded import downloads, ports, status
from nocturne.embedded.errors import EmbeddedError
from nocturne.embedded.home import Home
from nocturne.imports import git, names, tables, times, xes
from nocturne.imports.records import SourceFault
from nocturne.imports.tables import Columns
from nocturne.imports.text import parse_writing
from nocturne.projection.collector import SignatureRecord, decode_signatures
from nocturne.projection.service import Settings as ProjectionSettings
from nocturne.query import questions
from nocturne.query.refusals import Refused as QuestionRefused
from nocturne.query.service import Settings as QuerySettings
from nocturne.runtime import addresses, journal
from nocturne.runtime.certificates import (
    PEM_BYTES_MAX,
    CertificateFault,
    read_authorities,
    read_pair,
)
from nocturne.runtime.handshakes import cause_of
from nocturne.runtime.keys import load_signer
from nocturne.runtime.secrets import SecretFault, read_secret
from nocturne.runtime.settings import ProcessSettings, read_founding, read_settings
from nocturne.runtime.tracing import parse_traceparent
from nocturne.signing.service import Settings as SigningSettings
from nocturne.wire.command.v1 import command_pb2

SAMPLES: Final = 30
"""Valid inputs of each parser, the same in every run, that damage is done to."""
SENTENCE_CHARACTERS_MAX: Final = 2_000
"""Of a refusal: it shows what it got, cut."""

Parse = Callable[[bytes], Any]


@dataclass(frozen=True)
class Parser:
    """One parser. `valid` makes bytes that it reads; it refuses with `faults` and nothing else;
    `print`, where there is one, writes what it read: the same bytes. Past `bytes_max` it reads
    nothing.
    """

    name: str
    parse: Parse
    valid: st.SearchStrategy[bytes]
    faults: tuple[type[Exception], ...] = (Malformed,)
    print: Callable[[Any], bytes] | None = None
    bytes_max: int | None = None

    def check(self, data: bytes) -> bool:
        """Whether it read `data`. AssertionError, or whatever it raised, when it broke its word."""
        try:
            value = self.parse(data)
        except self.faults as fault:
            said = str(fault)
            assert said, f"{self.name}: refused without a word"
            assert len(said) <= SENTENCE_CHARACTERS_MAX, f"{self.name}: {len(said)} characters"
            return False
        if self.print is not None:
            assert self.print(value) == data, f"{self.name}: read what it would not print"
        return True

    @cache  # noqa: B019  one instance a parser, for as long as the process lives
    def samples(self) -> list[bytes]:
        """Valid inputs, the same in every run."""
        return samples.drawn(self.valid, SAMPLES)


# Adapters --------------------------------------------------------------------------------------


def of_text(parse: Callable[[str], Any]) -> Parse:
    """A parser of text, given bytes as a shell gives them: what is no UTF-8 is a lone surrogate."""
    return lambda data: parse(data.decode("utf-8", "surrogateescape"))


def printed_text(show: Callable[[Any], str]) -> Callable[[Any], bytes]:
    """The printer of a parser of text."""
    return lambda value: show(value).encode("utf-8", "surrogateescape")


@contextmanager
def _folder() -> Iterator[Path]:
    # Files of fuzzers need no disk, where the system has memory for files.
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def of_file(read: Callable[[Path], Any], name: str = "given") -> Parse:
    """A parser of a file."""

    def parse(data: bytes) -> Any:
        with _folder() as folder:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(0o600)
            return read(path)

    return parse


_GOOD_SETTINGS: Final = {
    "HOME_DIR": "/nowhere",
    "GENESIS_FILE": "/nowhere/genesis.avro",
    "LISTEN": "127.0.0.1:0",
    "KAFKA_BOOTSTRAP": "127.0.0.1:1",
    "KEY_FILE": "/nowhere/key.json",
    "POSTGRES_DSN": "host=/nowhere",
}


def of_environment(kind: type[ProcessSettings]) -> Parse:
    """Settings of a service: `data` is NAME=value lines laid over good ones."""

    def parse(data: bytes) -> Any:
        values = dict(_GOOD_SETTINGS)
        for line in data.replace(b"\0", b"").splitlines():
            name, equals, value = line.decode("utf-8", "surrogateescape").partition("=")
            if equals and name.isascii() and name.isidentifier():
                values[name.upper()] = value
        before = dict(os.environ)
        os.environ.update({f"NOCTURNE_{name}": value for name, value in values.items()})
        try:
            return read_settings(kind)
        finally:
            os.environ.clear()
            os.environ.update(before)

    return parse


_setting_lines = text(
    "LISTEN=127.0.0.1:65535\nLOG_LEVEL=debug",
    "METRICS_LISTEN=[::1]:9\nREGISTRY_URL=http://127.0.0.1:1",
    "KAFKA_SECURITY_PROTOCOL=sasl_ssl\nKAFKA_USER=x\nKAFKA_PASSWORD_FILE=/p\nKAFKA_CA_FILE=/c",
    "POSTGRES_DSN=postgresql://x@h/d?sslmode=verify-full\nPOSTGRES_PASSWORD_FILE=/p",
    "TLS_CERT_FILE=/a\nTLS_KEY_FILE=/b\nTLS_CLIENT_CA_FILE=/c\nACCESS_FILE=/d",
    "RATE_PER_SECOND=1.5\nRATE_BURST=3\nDEADLINE_MS=5\nDURABILITY=replicated",
)


# What more is done with bytes ------------------------------------------------------------------


def _contribution(seed: bytes, role: Role) -> bytes:
    signer = keys.Ed25519Signer(seed)
    return contributions.encode_contribution(
        Contribution(role, 0, signer.key, keys.prove_possession(signer))
    )


def _journal(segment: Path) -> list[journal.Entry]:
    """A journal of one segment."""
    opened = journal.open_journal(segment.parent, samples.JOURNAL_LABEL)
    try:
        return list(opened.read_all())
    finally:
        opened.close()


_FRONT: Final = blocks.decode_block_front(blocks.encode_block(FACTORY.block_of(FACTORY.execute())))


def _read_body(data: bytes) -> Any:
    """A block's body behind any header: whether it is that header's, `check_body` says."""
    return blocks.decode_block_body(replace(_FRONT, body=data))


def _offered(data: bytes) -> Any:
    """A blocks record, to a reader who knows the ledger and nothing of its past."""
    return BlockIntake(FACTORY.ledger_id, FACTORY.genesis.founding_sets, None).offer(data)


def _verified(data: bytes) -> Any:
    """An export: whatever it is, there is a verdict."""
    return verify_export(io.BytesIO(data), EXAMPLE.state.ledger_id)


def _proved(data: bytes) -> Any:
    return verify_disposition_proof(data, EXAMPLE.genesis_bytes, EXAMPLE.state.ledger_id)


def _translated(data: bytes) -> Any:
    """A command service's answer, as the client takes it off the wire."""
    try:
        outcome = command_pb2.Outcome.FromString(data)
    except Exception as fault:
        # What protobuf itself refuses never reaches the client: gRPC answers INTERNAL.
        raise Malformed("outcome: not protobuf") from fault
    return checking.result_of(samples.TRUSTED, samples.ASKED, outcome)


def _asked(data: bytes) -> Any:
    """What a caller of the command service says of waiting."""
    number = int.from_bytes(data[:8], "big", signed=True)
    for answer in (level_of(number), deadline_of(number, 20_000, 120_000)):
        if isinstance(answer, Refused):
            assert answer.status().details
            raise Malformed(answer.message)
    return number


def _signatures(topic: str, header: bytes) -> Parse:
    return lambda data: decode_signatures(SignatureRecord(topic, 0, 0, b"x", 1, data), header)


_KEY: Final = '{"suite": "ed25519", "seed": "%s"}\n' % ("07" * 32)


def _after_prefix(parse: Callable[[bytes, bytes], Any]) -> Parse:
    """What reads on behind a prefix that it was told: four bytes say how long that is."""
    return lambda data: parse(data[4 : 4 + int.from_bytes(data[:4], "big")], data[4:])


def _history(data: bytes) -> Any:
    return list(git.parse_log([data]))


def _log(data: bytes) -> Any:
    return list(xes.records([data], "p/"))


def _table(data: bytes) -> Any:
    lines = io.StringIO(data.decode("utf-8", "replace"), newline="")
    return list(tables.csv_records(lines, Columns("order", "what", time="when")))


def _json_lines(data: bytes) -> Any:
    lines = enumerate(data.split(b"\n"), 1)
    return list(tables.jsonl_records(lines, Columns("order", "what"), 1_000_000))


def _author(path: Path) -> Any:
    return authors.load(Home(path.parents[2]), path.stem)


def _named_author(name: str) -> Any:
    """A key by its name, in a home that has the key `default`."""
    with _folder() as folder:
        key = folder / "keys" / "authors" / "default.json"
        key.parent.mkdir(parents=True)
        key.write_text(_KEY)
        key.chmod(0o600)
        return authors.load(Home(folder), name)


# The list --------------------------------------------------------------------------------------

_avro = (
    Parser(
        "core.commands.decode_command",
        commands.decode_command,
        shapes.commands().map(commands.encode_command),
        print=commands.encode_command,
        bytes_max=commands.ENVELOPE_BYTES_MAX,
    ),
    Parser(
        "core.commands.decode_signed_command",
        commands.decode_signed_command,
        samples.signed_commands,
        print=commands.encode_signed_command,
        bytes_max=commands.ENVELOPE_BYTES_MAX,
    ),
    Parser(
        "core.commands.decode_signed_command_trusted",
        commands.decode_signed_command_trusted,
        samples.signed_commands,
    ),
    Parser(
        "core.commands.decode_evidence",
        _after_prefix(lambda prefix, data: commands.decode_evidence(data, len(prefix))),
        shapes.signed_commands().map(
            lambda one: u32(len(one.command_bytes)) + commands.encode_signed_command(one)
        ),
    ),
    Parser("command.admission.admit", lambda data: admit(data, 100_000), samples.signed_commands),
    Parser(
        "core.intake.prepare",
        lambda data: FACTORY.prepare(0, LogRecord(b"a", data, ())),
        samples.command_records,
        faults=(),
    ),
    Parser(
        "core.events.decode_event_header",
        events.decode_event_header,
        samples.event_headers,
        print=events.encode_event_header,
    ),
    Parser("core.events.decode_event", events.decode_event, samples.signed_events()),
    Parser(
        "core.events.decode_event_signatures",
        _after_prefix(lambda prefix, data: events.decode_event_signatures(data, prefix)),
        samples.signed_events().map(
            lambda one: u32(len(events.decode_event(one).header_bytes)) + one
        ),
    ),
    Parser(
        "core.receipts.decode_receipt_header",
        receipts.decode_receipt_header,
        shapes.receipt_headers.map(receipts.encode_receipt_header),
        print=receipts.encode_receipt_header,
        bytes_max=receipts.RECEIPT_BYTES_MAX,
    ),
    Parser("core.receipts.decode_receipt", receipts.decode_receipt, samples.signed_receipts()),
    Parser(
        "core.receipts.decode_receipt_signatures",
        lambda data: receipts.decode_receipt_signatures(data, samples.AUTHORITY_HEADER),
        samples.signed_receipts(samples.AUTHORITY_HEADER),
    ),
    Parser(
        "projection.collector.decode_signatures",
        _signatures(topics.RECEIPTS, samples.AUTHORITY_HEADER),
        samples.signed_receipts(samples.AUTHORITY_HEADER).map(framed),
    ),
    Parser(
        "core.blocks.decode_block_header",
        blocks.decode_block_header,
        shapes.block_headers().map(blocks.encode_block_header),
        print=blocks.encode_block_header,
        bytes_max=blocks.HEADER_BYTES_MAX,
    ),
    Parser(
        "core.blocks.decode_block_header_prefix",
        blocks.decode_block_header_prefix,
        shapes.blocks().map(blocks.encode_block),
    ),
    Parser(
        "core.blocks.decode_proof",
        blocks.decode_proof,
        shapes.commit_proofs.map(blocks.encode_proof),
        print=blocks.encode_proof,
    ),
    Parser(
        "consensus.codec.decode",
        codec.decode,
        samples.peer_values,
        print=codec.encode,
        bytes_max=codec.VALUE_BYTES_MAX,
    ),
    Parser(
        "consensus.handshake.Called.hear_hello",
        lambda data: samples.Handshake().called.hear_hello(data),
        st.just(samples.Handshake().hello),
        (PeerFault,),
    ),
    Parser(
        "consensus.handshake.Calling.hear_hello",
        lambda data: samples.Handshake().calling.hear_hello(data),
        st.just(samples.Handshake().answer),
        (PeerFault,),
    ),
    Parser(
        "consensus.handshake.Called.hear_proof",
        lambda data: samples.Handshake().called.hear_proof(data),
        st.just(samples.Handshake().proof),
        (PeerFault,),
    ),
    Parser(
        "consensus.handshake.Opener.open",
        lambda data: Opener(samples.ENVELOPE_KEY).open(data),
        samples.envelopes,
        (PeerFault,),
    ),
    Parser(
        "core.blocks.decode_block",
        blocks.decode_block,
        shapes.blocks().map(blocks.encode_block),
        print=blocks.encode_block,
        bytes_max=blocks.BLOCK_BYTES_MAX,
    ),
    Parser(
        "core.blocks.decode_block_front",
        blocks.decode_block_front,
        shapes.blocks().map(blocks.encode_block),
        bytes_max=blocks.BLOCK_BYTES_MAX,
    ),
    Parser(
        "core.blocks.decode_block_body",
        _read_body,
        shapes.blocks().map(lambda block: blocks.encode_around_proof(block)[1]),
        print=lambda block: blocks.encode_around_proof(block)[1],
        bytes_max=blocks.BLOCK_BYTES_MAX,
    ),
    Parser("core.block_intake.BlockIntake.offer", _offered, samples.block_records),
    Parser(
        "core.blocks.decode_seal",
        blocks.decode_seal,
        shapes.seals.map(blocks.encode_seal),
        print=blocks.encode_seal,
    ),
    Parser(
        "core.certificates.decode_commit_proof",
        certificates.decode_commit_proof,
        shapes.commit_proofs.map(certificates.encode_commit_proof),
        print=certificates.encode_commit_proof,
        bytes_max=certificates.COMMIT_PROOF_BYTES_MAX,
    ),
    Parser(
        "core.evidence.decode_evidence",
        evidence.decode_evidence,
        st.sampled_from(samples.LIES).map(evidence.encode_evidence),
        print=evidence.encode_evidence,
        bytes_max=evidence.EVIDENCE_BYTES_MAX,
    ),
    Parser(
        "core.conflicts.decode_conflict",
        conflicts.decode_conflict,
        st.sampled_from(CONFLICTS).map(conflicts.encode_conflict),
        print=conflicts.encode_conflict,
        bytes_max=conflicts.CONFLICT_BYTES_MAX,
    ),
    Parser(
        "core.modes.decode_degraded",
        modes.decode_degraded,
        st.sampled_from(KEPT).map(lambda one: modes.encode_degraded(CHAIN.ledger_id, one)),
        print=lambda read: modes.encode_degraded(*read),
        bytes_max=modes.DEGRADED_BYTES_MAX,
    ),
    Parser(
        "core.control.decode_control",
        decode_control,
        samples.controls,
        bytes_max=CONTROL_BYTES_MAX,
    ),
    Parser(
        "cli.log_openings.parse_proposal",
        log_openings.parse_proposal,
        samples.log_proposals,
        bytes_max=log_openings.PROPOSAL_BYTES_MAX,
    ),
    Parser(
        "deploy.contributions.decode_contribution",
        contributions.decode_contribution,
        st.builds(_contribution, st.binary(min_size=32, max_size=32), st.sampled_from(Role)),
        print=contributions.encode_contribution,
        bytes_max=contributions.CONTRIBUTION_BYTES_MAX,
    ),
    Parser(
        "core.genesis.decode_genesis",
        genesis.decode_genesis,
        st.just(genesis.encode_genesis(make_genesis("any", validators=2))),
        print=genesis.encode_genesis,
        bytes_max=genesis.GENESIS_BYTES_MAX,
    ),
    *(
        Parser(f"core.encoding.Codec.{name}", read, samples.dispositions)
        for codec in [Codec("disposition", 1 << 20)]
        for name, read in (
            ("decode", codec.decode),
            ("decode_prefix", codec.decode_prefix),
            ("read", codec.read),
        )
    ),
    Parser("core.topics.unframe", topics.unframe, samples.dispositions.map(framed)),
)
_bytes = (
    Parser(
        "core.record_headers.parse_headers",
        record_headers.parse_headers,
        samples.record_headers,
        print=blocks.headers_bytes,
    ),
    Parser(
        "core.keys.signatures_from_bytes",
        keys.signatures_from_bytes,
        shapes.signatures.map(keys.signatures_bytes),
        print=keys.signatures_bytes,
    ),
    Parser(
        "core.state_leaf.SessionLeaf.decode",
        SessionLeaf.decode,
        shapes.session_leaves.map(SessionLeaf.encode),
        print=SessionLeaf.encode,
    ),
    Parser(
        "core.state_leaf.decode_positions",
        decode_positions,
        samples.log_positions,
        print=encode_positions,
    ),
    Parser(
        "core.snapshot.decode",
        lambda data: snapshot.decode(
            FACTORY.genesis_bytes, [samples.CHUNKS[0], data], FACTORY.registry
        ),
        samples.snapshot_sessions,
    ),
    Parser(
        "core.snapshot.decode, its head",
        lambda data: snapshot.decode(
            FACTORY.genesis_bytes, [data, *samples.CHUNKS[1:]], FACTORY.registry
        ),
        samples.snapshot_heads,
    ),
    Parser("core.sealing.subject_key_id_of", sealing.subject_key_id_of, samples.sealed),
    Parser("core.sealing.unseal", lambda data: sealing.unseal(data, bytes(32)), samples.sealed),
    Parser(
        "command.limits.decode_counts",
        lambda data: decode_counts(data, FACTORY.ledger_id),
        st.dictionaries(shapes.hashes, shapes.small, max_size=3).map(
            lambda opened: encode_counts(FACTORY.ledger_id, Counted(1, 2, opened))
        ),
        print=lambda counted: encode_counts(FACTORY.ledger_id, counted),
        bytes_max=COUNTS_BYTES_MAX,
    ),
    Parser(
        "runtime.journal.open_journal",
        of_file(_journal, "000000000001.seg"),
        st.deferred(lambda: st.sampled_from(samples.segments())),
        (Halt,),
    ),
)
_json = (
    Parser(
        "core.strict_json.parse_json",
        lambda data: strict_json.parse_json(data, 4096, 8),
        samples.json_texts,
        bytes_max=4096,
    ),
    Parser("core.exports.parse_line", exports.parse_line, samples.lines, print=exports.print_line),
    Parser("core.exports.proof_lines", exports.proof_lines, samples.proofs, print=b"".join),
    Parser(
        "core.exports.split_proof",
        lambda data: (*exports.proof_lines(data)[:-2], *exports.split_proof(data)),
        samples.proofs,
        print=b"".join,
    ),
    Parser("audit.verify.verify_export", _verified, samples.whole_exports, ()),
    Parser("audit.verify.verify_disposition_proof", _proved, samples.proofs, ()),
    Parser("client.checking.result_of", _translated, samples.outcomes),
)
_texts = (
    Parser(
        "core.identifiers.parse_hash",
        of_text(identifiers.parse_hash),
        shapes.hashes.map(lambda one: identifiers.format_hash(one).encode()),
        print=printed_text(identifiers.format_hash),
    ),
    Parser(
        "core.identifiers.parse_id",
        of_text(identifiers.parse_id),
        shapes.ids.map(lambda one: identifiers.format_id(one).encode()),
        print=printed_text(identifiers.format_id),
    ),
    Parser(
        "core.json_fields.parse_time",
        of_text(json_fields.parse_time),
        shapes.times.map(lambda one: json_fields.format_time(one).encode()),
        print=printed_text(json_fields.format_time),
    ),
    Parser(
        "core.keys.parse_key",
        of_text(keys.parse_key),
        shapes.keys.map(lambda one: keys.format_key(one[0]).encode()),
        print=printed_text(keys.format_key),
    ),
    Parser(
        "runtime.tracing.parse_traceparent",
        parse_traceparent,
        text("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        (),
    ),
    Parser(
        "core.access.parse_access",
        access.parse_access,
        text(
            '{"principals": []}',
            '{"principals": [{"name": "shop", "roles": ["submit", "read"], '
            f'"tokens": ["sha256-{"0f" * 32}"], "certificates": ["a.b", "spiffe://a/b"]}}]}}',
        ),
        bytes_max=access.ACCESS_BYTES_MAX,
    ),
    Parser(
        "core.access.decide",
        lambda data: access.decide(
            samples.ACCESS, samples.METHOD, access.Shown((data, *data.splitlines()[1:]))
        ),
        text("Bearer a-token-of-somebody", "Bearer a-token\nBearer b-token"),
        (),
    ),
    Parser(
        "runtime.certificates.read_pair",
        of_file(lambda path: read_pair(path, path)),
        text(samples.PAIR),
        (CertificateFault,),
        bytes_max=PEM_BYTES_MAX,
    ),
    Parser(
        "runtime.certificates.read_authorities",
        of_file(read_authorities),
        text(samples.PAIR),
        (CertificateFault,),
        bytes_max=PEM_BYTES_MAX,
    ),
    Parser(
        "runtime.handshakes.cause_of",
        cause_of,
        text(
            "I1126 20:57:56.158965 29794 ssl_transport_security.cc:2563] Handshake failed with "
            "error SSL_ERROR_SSL: error:1000007d:SSL routines:OPENSSL_internal:"
            "CERTIFICATE_VERIFY_FAILED: certificate has expired\n"
        ),
        (),
    ),
    Parser(
        "client.credentials.load",
        of_file(lambda path: load(Credentials(token_file=path))),
        text("a-token-of-somebody\n"),
        (CredentialsFault,),
    ),
    Parser(
        "client.credentials.host_and_port",
        of_text(host_and_port),
        text("127.0.0.1:7400", "[::1]:7400", "command:7400"),
        (CredentialsFault,),
    ),
    Parser(
        "embedded.downloads.parse_lock",
        of_text(downloads.parse_lock),
        text(f"# jars\norg.apache.kafka:kafka-clients:4.3.0 {'0f' * 32} 123\n"),
        (EmbeddedError,),
    ),
    Parser(
        "imports.git.parse_log",
        _history,
        st.sampled_from([printed(commit()), printed(commit(subject="é"), "AMD")]),
    ),
    Parser(
        "imports.times.parse_time",
        of_text(times.parse_time),
        st.sampled_from([b"2026-11-21T09:00:00.123+01:00", b"2026-11-21", b"1795251600000"]),
    ),
    Parser(
        "imports.names.unescaped",
        of_text(names.unescaped),
        st.text(max_size=40).map(lambda name: names.escaped(name, is_part=False).encode()),
    ),
    Parser(
        "imports.text.parse_writing",
        parse_writing,
        text(
            '{"startContent":"a","endContent":"ab","txns":[{"time":"1970-01-01T00:00:00Z",'
            '"patches":[[1,0,"b"]]}]}'
        ),
        (SourceFault,),
    ),
    Parser("imports.xes.records", _log, text(EVENT_LOG), (SourceFault,)),
    Parser(
        "imports.tables.csv_records",
        _table,
        text('order,what,when,item\n17,Ordered,0,"tea,\ngreen"\n18,Paid,2026-11-21T09:00:00Z,\n'),
        (SourceFault,),
    ),
    Parser(
        "imports.tables.jsonl_records",
        _json_lines,
        text('{"order":"17","what":"Ordered","when":0,"item":"tea"}\n{"order":18,"what":"Paid"}\n'),
        (SourceFault,),
    ),
)


def _share(random: bytes) -> bytes:
    reader, giver = (keys.Ed25519Signer(random[at : at + 32]) for at in (0, 16))
    return sharing.print_share(sharing.make_share(make_subject_key(random), reader.key[0], giver))


_files = (
    Parser(
        "runtime.keys.load_signer",
        of_file(load_signer),
        text(_KEY),
        (NocturneError,),
    ),
    Parser(
        "cli.authors.load",
        of_file(_author, "keys/authors/default.json"),
        text(_KEY),
        (NocturneError,),
    ),
    Parser(
        "runtime.settings.read_founding",
        of_file(read_founding),
        st.just(EXAMPLE.genesis_bytes),
        (NocturneError,),
    ),
    Parser(
        "deploy.rights.parse_rights",
        rights.parse_rights,
        text(resources.files("nocturne.deploy").joinpath(rights.FILE).read_text()),
        bytes_max=rights.FILE_BYTES_MAX,
    ),
    Parser(
        "deploy.secrets.parse_request",
        of_text(deployed_secrets.parse_request),
        text("kafka-command:10001=command,topics", "own:0=genesis,keys/signing"),
        (deployed_secrets.SecretsFault,),
        bytes_max=deployed_secrets.REQUEST_BYTES_MAX,
    ),
    Parser(
        "runtime.secrets.read_secret",
        of_file(read_secret),
        text("word\n", "ein Wort"),
        (SecretFault,),
    ),
    Parser(
        "deploy.config_maps.decode_config_map",
        config_maps.decode_config_map,
        text(
            '{"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "n-genesis", '
            '"namespace": "ledger", "resourceVersion": "12", "managedFields": [{"fieldsV1": {}}]}, '
            '"data": {"contribution.json": "{}"}, "binaryData": {"genesis.avro": "AAEC"}, '
            '"immutable": true}'
        ),
        bytes_max=config_maps.BODY_BYTES_MAX,
    ),
    Parser("embedded.ports.load", of_file(ports.load), text('{"kafka": 19092}'), ()),
    Parser(
        "embedded.status.read",
        of_file(status.read),
        text(
            '{"supervisor": 4711, "ready": true, "error": null, "details": [], "services": '
            '[{"name": "kafka", "pid": 1, "birth": 8, "port": 9, "health": "healthy", '
            '"restarts": 0}]}'
        ),
        (NocturneError,),
    ),
    *(
        Parser(
            f"{kind.__module__.removeprefix('nocturne.')}.{kind.__name__}",
            of_environment(kind),
            _setting_lines,
            (ValidationError,),
        )
        for kind in (
            CommandSettings,
            ConsensusSettings,
            SigningSettings,
            ProjectionSettings,
            QuerySettings,
        )
    ),
)
_command_line = (
    Parser(
        "cli.command_ids.parse",
        of_text(command_ids.parse),
        text("0193e1f4-0000-7000-8000-000000000001"),
        (Failure,),
        print=printed_text(identifiers.format_id),
    ),
    Parser(
        "client.subject_store.parse_subject_key",
        subject_store.parse_subject_key,
        st.binary(min_size=48, max_size=48).map(
            lambda random: subject_store.print_subject_key(make_subject_key(random))
        ),
        print=subject_store.print_subject_key,
        bytes_max=subject_store.FILE_BYTES_MAX,
    ),
    Parser(
        "client.sharing.parse_share",
        sharing.parse_share,
        st.binary(min_size=48, max_size=48).map(_share),
        print=sharing.print_share,
        bytes_max=sharing.SHARE_BYTES_MAX,
    ),
    Parser(
        "cli.author_state.parse_state",
        author_state.parse_state,
        text(
            '{"current":2,"next":null,"revoked":false}',
            '{"current":1,"next":{"commandId":"0193e1f4-0000-7000-8000-000000000001"},'
            '"revoked":true}',
        ),
        print=author_state.print_state,
        bytes_max=author_state.STATE_BYTES_MAX,
    ),
    Parser(
        "cli.options.session_id",
        of_text(options.session_id),
        text("orders/1", "~ledger"),
        (Failure,),
        print=printed_text(str),
    ),
    Parser("cli.payloads.canonical", payloads.canonical, samples.json_texts, (Failure,)),
    Parser(
        "cli.trust.trusted",
        of_text(lambda named: trust.trusted(named, Home(Path("/nowhere")))),
        shapes.hashes.map(lambda one: identifiers.format_hash(one).encode()),
        (Failure,),
    ),
    Parser(
        "runtime.addresses.parse_addresses",
        addresses.parse_addresses,
        text("a:1\n# b\n[::1]:7400"),
        bytes_max=addresses.FILE_BYTES_MAX,
    ),
    Parser(
        "core.keys.key_from_bytes",
        keys.key_from_bytes,
        st.just(keys.key_bytes(AUTHORITY.key)),
        print=keys.key_bytes,
    ),
    Parser(
        "cli.policy.parse_rules",
        policy.parse_rules,
        text('[{"author":null,"kind":"facts","prefix":"a/"}]'),
        (Malformed,),
        bytes_max=policy.RULES_BYTES_MAX,
    ),
    Parser(
        "cli.authors.load, its name", of_text(_named_author), text("default", "a b"), (Failure,)
    ),
    Parser(
        "cli.lag.lag_in",
        lambda data: lag.lag_in(data.decode("utf-8", "replace")),
        text('nocturne_signing_lag_records{topic="a"} 3.0\nnocturne_query_blocks_lag 1e3\n'),
        (),
    ),
)
_calls = (
    Parser("command.replies.level_of", _asked, st.just(bytes(8))),
    Parser(
        "query.questions.session_after",
        of_text(lambda token: questions.session_after(token, "")),
        text(questions.session_token(identifiers.SessionId("a/1"))),
        (QuestionRefused,),
    ),
    Parser(
        "query.questions.receipt_after",
        of_text(questions.receipt_after),
        text(questions.receipt_token(events.Position(1, 2, 3))),
        (QuestionRefused,),
    ),
)


def _asked(name: str, *event_types: str) -> Parse:
    """A payload in a session of a built-in kind: each half gives an answer, whatever it is."""
    kind = KindRegistry(builtin_kinds().values()).get(name, 1)
    assert kind is not None

    def parse(data: bytes) -> None:
        for event_type in event_types:
            event = (event_type, "application/json", data, bytes(32), 1)
            if not isinstance(kind.apply({}, *event), Violation):
                strict_json.canonical_json(kind.fold(kind.initial(), *event))

    return parse


_kinds = (
    Parser("core.kinds.facts", _asked("facts", "Seen"), samples.json_texts, ()),
    Parser("core.kinds.document", _asked("document", "Patched"), samples.json_texts, ()),
    Parser(
        "core.kinds.text",
        _asked("text", "Edited"),
        st.just(b'{"patches":[[0,0,"a\xc3\xa9"],[1,1,""]]}'),
        (),
    ),
    Parser(
        "core.kinds.accounts",
        _asked("accounts", "Opened", "Issued", "Transferred"),
        st.sampled_from(
            [b'{"account":"a"}', b'{"account":"a","amount":1}', b'{"from":"a","to":"b","amount":1}']
        ),
        (),
    ),
    Parser(
        "core.kinds.orderbook",
        _asked("orderbook", "OrderPlaced", "OrderCancelled"),
        st.sampled_from([b'{"order":"o","side":"buy","price":2,"quantity":3}', b'{"order":"o"}']),
        (),
    ),
    Parser(
        "core.kinds.proposals",
        _asked("proposals", "Proposed", "Chosen"),
        st.sampled_from(
            [
                b'{"candidate":"by the r\xc3\xadver","utility":-4}',
                b'{"candidate":"sha256-%s"}' % (b"0a" * 32),
            ]
        ),
        (),
    ),
)

PARSERS: Final[tuple[Parser, ...]] = (
    *_avro,
    *_kinds,
    *_bytes,
    *_json,
    *_texts,
    *_files,
    *_command_line,
    *_calls,
)
