"""Hypothesis strategies for the records of the core: any that its printers may be given."""

from __future__ import annotations

from hypothesis import strategies as st

from nocturne.core.blocks import (
    Block,
    BlockHeader,
    BlockKind,
    Disposition,
    ProofPointer,
    Range,
    RecordDisposition,
    Seal,
    StateChange,
    encode_block_header,
    hash_block,
)
from nocturne.core.certificates import Certificate, CommitProof, Epoch, VoteKind
from nocturne.core.commands import (
    Command,
    EventDraft,
    Opening,
    Payload,
    SignedCommand,
    encode_command,
    hash_command,
)
from nocturne.core.encoding import INTEGER_MAX, TIME_MAX
from nocturne.core.events import EventHeader, Position
from nocturne.core.identifiers import (
    AuthorId,
    CommandId,
    EventId,
    Hash,
    KeyId,
    LedgerId,
    SessionId,
)
from nocturne.core.keys import Key, PublicKey, Signature, Signatures
from nocturne.core.receipts import Head, Reason, ReceiptHeader
from nocturne.core.state_leaf import LogPosition, SessionLeaf

naturals = st.integers(0, INTEGER_MAX)
expectations = st.integers(0, INTEGER_MAX - 1)
small = st.integers(0, 2**31 - 1)
heights = st.integers(1, INTEGER_MAX)
times = st.integers(0, TIME_MAX)
hashes = st.binary(min_size=32, max_size=32).map(Hash)
ids = st.binary(min_size=16, max_size=16)
payload_bytes = st.binary(max_size=60)

_NAME = "abzAZ019._:/-"
names = st.text(_NAME, min_size=1, max_size=128)
sessions = st.text(_NAME + "@~", min_size=1, max_size=128).map(SessionId)
content_types = st.one_of(
    st.sampled_from(["application/json", "application/merge-patch+json", "text/plain", "x"]),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128),
)

keys: st.SearchStrategy[Key] = st.binary(min_size=32, max_size=32).map(
    lambda data: (PublicKey(1, data),)
)
signature = st.builds(Signature, st.just(1), hashes.map(KeyId), st.binary(min_size=64, max_size=64))
signatures: st.SearchStrategy[Signatures] = st.lists(signature, max_size=2).map(tuple)
positions = st.builds(Position, small, small, naturals)
openings = st.builds(Opening, names, st.integers(1, 2**31 - 1))
drafts = st.builds(EventDraft, names, content_types, hashes)


@st.composite
def commands(draw: st.DrawFn) -> Command:
    """Any well-formed command."""
    opening = draw(st.none() | openings)
    expected = st.sampled_from([None, 0]) if opening is not None else st.none() | expectations
    return Command(
        LedgerId(draw(hashes)),
        draw(sessions),
        AuthorId(draw(hashes)),
        draw(keys),
        CommandId(draw(ids)),
        draw(expected),
        opening,
        draw(times),
        tuple(draw(st.lists(drafts, min_size=1, max_size=3))),
    )


@st.composite
def signed_commands(draw: st.DrawFn) -> SignedCommand:
    """Any envelope of a well-formed command; nothing in it needs to be true."""
    command = draw(commands())
    data = encode_command(command)
    payload = st.builds(Payload, st.binary(min_size=32, max_size=32), payload_bytes)
    count = len(command.events)
    payloads = tuple(draw(st.lists(payload, min_size=count, max_size=count)))
    return SignedCommand(command, draw(signatures), payloads, data, hash_command(data))


event_headers = st.builds(
    EventHeader,
    hashes.map(LedgerId),
    sessions,
    naturals,
    hashes,
    ids.map(EventId),
    hashes,
    positions,
    small,
    hashes.map(AuthorId),
    keys,
    names,
    content_types,
    hashes,
    times,
    st.none() | openings,
)
receipt_headers = st.builds(
    ReceiptHeader,
    hashes.map(LedgerId),
    hashes,
    st.sampled_from(Reason),
    st.text(max_size=40),
    sessions | st.just(""),
    st.none() | naturals,
    st.booleans(),
    st.none() | st.builds(Head, naturals, hashes),
    positions,
    st.none() | positions,
)
epochs = st.builds(Epoch, small, naturals)
certificates = st.builds(
    Certificate,
    st.sampled_from(VoteKind),
    epochs,
    hashes,
    heights,
    hashes,
    st.lists(st.tuples(small, signatures), max_size=3).map(tuple),
)
commit_proofs = st.builds(CommitProof, certificates, st.lists(payload_bytes, max_size=2).map(tuple))


@st.composite
def block_headers(draw: st.DrawFn) -> BlockHeader:
    """Any header: its ranges one a partition, ascending, together its record count."""
    partitions = sorted(draw(st.sets(st.integers(0, 255), max_size=3)))
    ranges = []
    for partition in partitions:
        start = draw(st.integers(0, INTEGER_MAX - 100))
        end = start + draw(st.integers(1, 100))
        log_epoch = draw(st.integers(1, 2**31 - 1))
        ranges.append(Range(log_epoch, draw(ids), partition, start, end, draw(hashes)))
    return BlockHeader(
        draw(st.sampled_from(BlockKind)),
        draw(small),
        draw(small),
        LedgerId(draw(hashes)),
        draw(epochs),
        draw(hashes),
        draw(hashes),
        draw(heights),
        draw(heights),
        draw(hashes),
        draw(naturals),
        draw(times),
        tuple(ranges),
        draw(hashes),
        sum(one.end - one.start for one in ranges),
        draw(hashes),
        draw(hashes),
        draw(payload_bytes),
    )


record_dispositions = st.builds(
    RecordDisposition,
    st.none() | payload_bytes,
    st.none() | payload_bytes,
    payload_bytes,
    st.none() | hashes,
    st.lists(payload_bytes, max_size=2).map(tuple),
    st.none() | payload_bytes,
    small,
)
state_changes = st.builds(StateChange, hashes, st.none() | payload_bytes)


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    """Any block: its body need not be its header's."""
    header = draw(block_headers())
    data = encode_block_header(header)
    return Block(
        header,
        data,
        hash_block(data),
        draw(signatures),
        draw(commit_proofs | st.builds(ProofPointer, naturals, hashes)),
        tuple(draw(st.lists(payload_bytes, max_size=2))),
        tuple(draw(st.lists(record_dispositions, max_size=3))),
        tuple(draw(st.lists(state_changes, max_size=3))),
    )


seals = st.builds(Seal, hashes.map(LedgerId), heights, hashes, hashes, signatures)
dispositions = st.builds(
    Disposition,
    positions,
    st.none() | hashes,
    st.lists(hashes, max_size=3).map(tuple),
    st.none() | hashes,
)
session_leaves = st.builds(SessionLeaf, naturals, hashes, hashes, naturals, hashes, hashes)
log_positions = st.builds(LogPosition, small, small, ids, naturals, hashes)
