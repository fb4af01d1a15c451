"""Valid inputs of every parser: what hostile ones are made from."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests import ledger_factory
from tests.liars import Place, lies_of
from tests.unit.client.fakes import FakeLedger
from tests.unit.consensus.test_codec import SAID
from tests.unit.core import shapes
from tests.unit.core.test_control import FIELDS as CONTROL_FIELDS
from tests.unit.core.test_control import OPERATORS, control
from tests.vectors.synthetic import changing_ledger, example_ledger

from nocturne.cli.log_openings import proposal_of
from nocturne.client import checking
from nocturne.consensus import codec
from nocturne.consensus.handshake import Called, Calling, Sealer
from nocturne.core import access, exports, sealing, snapshot, strict_json
from nocturne.core.blocks import encode_disposition, headers_bytes
from nocturne.core.commands import encode_signed_command
from nocturne.core.control import sign_control
from nocturne.core.encoding import sha256
from nocturne.core.events import Position, encode_event, encode_event_header, header_of
from nocturne.core.evidence import Evidence
from nocturne.core.identifiers import Hash
from nocturne.core.keys import Ed25519Signer
from nocturne.core.receipts import (
    Reason,
    ReceiptHeader,
    encode_receipt,
    encode_receipt_header,
)
from nocturne.core.state_leaf import encode_positions
from nocturne.core.topics import frame
from nocturne.runtime import journal
from nocturne.wire.consensus.v1.exchange_pb2 import Content

SCHEMA_ID: Final = 1
JOURNAL_LABEL: Final = b"label"
AUTHORITY_HEADER: Final = encode_receipt_header(
    ReceiptHeader(
        example_ledger().state.ledger_id,
        Hash(bytes(32)),
        Reason.MALFORMED,
        "",
        "",
        None,
        True,
        None,
        Position(1, 0, 7),
        None,
    )
)
"""Of a receipt whose signatures are read beside it."""


def _lies() -> tuple[Evidence, ...]:
    made = ledger_factory.Ledger()
    made.answer(made.opening("s"))
    return lies_of(Place.of(made), ledger_factory.VALIDATORS[0])


LIES: Final = _lies()


def drawn(strategy: st.SearchStrategy[bytes], count: int) -> list[bytes]:
    """The first examples of a strategy, always the same."""
    found: list[bytes] = []

    @given(strategy)
    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def collect(value: bytes) -> None:
        found.append(value)

    collect()
    return found


def text(*values: str) -> st.SearchStrategy[bytes]:
    """One of some texts."""
    return st.sampled_from([one.encode() for one in values])


def framed(data: bytes) -> bytes:
    """As it stands in a topic."""
    return frame(SCHEMA_ID, data)


# Access ----------------------------------------------------------------------------------------

METHOD: Final = "/nocturne.command.v1.CommandService/Submit"
ACCESS: Final = access.Access.of(
    [
        access.Principal(
            "shop",
            frozenset({access.Role.SUBMIT}),
            (Hash(sha256(b"a-token-of-somebody")),),
            ("shop.example.com",),
        )
    ]
)


def _pair() -> str:
    """A certificate and its key in PEM, the same in every run."""
    key = ec.derive_private_key(1, ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "shop")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2126, 1, 1, tzinfo=UTC))
        .sign(key, hashes.SHA256(), ecdsa_deterministic=True)
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return (certificate.public_bytes(serialization.Encoding.PEM) + private).decode("ascii")


PAIR: Final = _pair()


# Records ---------------------------------------------------------------------------------------


@st.composite
def signed_events(draw: st.DrawFn) -> bytes:
    """An envelope around the first event of any command."""
    signed = draw(shapes.signed_commands())
    header = header_of(
        signed.command, signed.command_hash, Position(1, 0, 7), 0, 1, Hash(bytes(32))
    )
    return encode_event(encode_event_header(header), draw(shapes.signatures), 3, 4, signed, 0)


@st.composite
def signed_receipts(draw: st.DrawFn, header: bytes | None = None) -> bytes:
    """An envelope around any receipt, or around one."""
    header_bytes = header or encode_receipt_header(draw(shapes.receipt_headers))
    return encode_receipt(
        header_bytes, draw(shapes.signatures), draw(shapes.heights), draw(shapes.times)
    )


signed_commands = shapes.signed_commands().map(encode_signed_command)
event_headers = shapes.event_headers.map(encode_event_header)
dispositions = shapes.dispositions.map(encode_disposition)
log_positions = st.lists(shapes.log_positions, max_size=3).map(tuple).map(encode_positions)
record_headers = (
    st.lists(st.tuples(st.text(), st.none() | shapes.payload_bytes), max_size=3)
    .map(tuple)
    .map(headers_bytes)
)
controls = st.sampled_from([*CONTROL_FIELDS]).map(
    lambda action: sign_control(control(action), OPERATORS[:2])
)
log_proposals = st.integers(1, 3).map(
    lambda count: proposal_of([ledger_factory.Ledger().opening_of_log(0)] * count)
)
json_texts = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
).map(strict_json.canonical_json)
sealed = st.just(
    sealing.seal(sealing.Unsealed("application/json", b"{}"), bytes(16), bytes(32), bytes(24))
)

# A ledger and its exports ----------------------------------------------------------------------

EXAMPLE: Final = example_ledger()
_EXPORTED: Final = [
    *[EXAMPLE.export(name) for name in ("orders/1", "readings", "~ledger")],
    changing_ledger().export("log"),
]
lines = st.sampled_from([line for one in _EXPORTED for line in one])
whole_exports = st.sampled_from([b"".join(one) for one in _EXPORTED])
proofs = st.sampled_from(
    [
        exports.disposition_proof(
            exports.block_line(block.header_bytes, block.proof), EXAMPLE.disposition(block, index)
        )
        for block in EXAMPLE.blocks
        for index, record in enumerate(block.records)
        if record.events or record.receipt is not None
    ]
)

# A ledger with a chain, and its snapshot -------------------------------------------------------

FACTORY: Final = ledger_factory.Ledger()
FACTORY.append(FACTORY.opening("a", number=1))
FACTORY.append(FACTORY.command("a", number=2))
FACTORY.append(FACTORY.opening("b", number=3))
_BLOCK = FACTORY.commit()
CHUNKS: Final = list(snapshot.encode(FACTORY.state))
block_records = st.just(ledger_factory.record_value(_BLOCK))
command_records = st.sampled_from(
    [
        ledger_factory.log_record(one).value or b""
        for one in (FACTORY.command("a", number=4), FACTORY.opening("c", number=5))
    ]
)
ENVELOPE_KEY: Final = b"k" * 32


class Handshake:
    """Two ends before the last word, the same each time, and what they have said."""

    def __init__(self) -> None:
        one, other = (Ed25519Signer(bytes([number]) * 32) for number in (1, 2))
        self.calling = Calling(FACTORY.ledger_id, one, b"s" * 32)
        self.called = Called(FACTORY.ledger_id, other, b"t" * 32)
        self.hello = self.calling.hello()
        self.called.hear_hello(self.hello)
        self.answer = self.called.hello()
        self.calling.hear_hello(self.answer)
        self.proof = self.calling.proof()


envelopes = st.builds(
    lambda values, ping, pong: Sealer(ENVELOPE_KEY).seal(
        Content(values=values, ping=ping, pong=pong)
    ),
    st.lists(st.binary(max_size=50), max_size=4),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
)
peer_values = st.sampled_from([codec.encode(one) for one in SAID])
snapshot_heads = st.just(CHUNKS[0])
snapshot_sessions = st.sampled_from(CHUNKS[1:])

# A client and the answers it gets --------------------------------------------------------------

_FAKE: Final = FakeLedger()
ASKED: Final = _FAKE.ledger.command("a/1", b"{}", kind="facts")
outcomes = st.sampled_from([_FAKE.take(ASKED).SerializeToString() for _ in range(2)])
TRUSTED: Final = checking.Ledger.of(_FAKE.ledger.genesis_bytes)


# A journal -------------------------------------------------------------------------------------


@cache
def segments() -> Sequence[bytes]:
    """The one segment of a journal with nothing, one record, and several in two frames."""
    made = []
    groups: Sequence[Sequence[Sequence[bytes]]] = ([], [[b"one"]], [[b"one", b"two"], [b"three"]])
    for group in groups:
        with tempfile.TemporaryDirectory() as folder:
            directory = Path(folder) / "journal"
            journal.create(directory, JOURNAL_LABEL)
            opened = journal.open_journal(directory, JOURNAL_LABEL)
            for records in group:
                opened.append(records)
                opened.sync()
            opened.close()
            made.append(next(directory.glob("*.seg")).read_bytes())
    return made
