"""Exports with one thing wrong each: what an attacker, a bug or a bad disk could make of one.

Each is a function from a ledger and its good export of `orders/1` (of `~ledger` where it says so)
to the lines of a bad one. The sentence that the verifier must say is pinned in `exports.json`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tests.vectors.synthetic import SyntheticLedger, example_ledger, signer_of

from nocturne.core.blocks import BlockKind, decode_block_header, encode_block_header, hash_block
from nocturne.core.certificates import CommitProof, VoteKind
from nocturne.core.commands import Payload, encode_command, hash_command
from nocturne.core.events import hash_event, sign_event
from nocturne.core.exports import (
    BlockLine,
    EventsLine,
    Line,
    ReceiptLine,
    ReceiptsLine,
    StateLine,
    parse_line,
    print_line,
)
from nocturne.core.identifiers import LEDGER_SESSION, Hash, LedgerId, session_key
from nocturne.core.json_forms import UNSIGNED, Attestation
from nocturne.core.keys import Ed25519Signer

Lines = list[bytes]
Attack = Callable[[SyntheticLedger, Lines], Lines]

SESSION = "orders/1"


@dataclass(frozen=True, slots=True)
class BadExport:
    """A bad export, by the name of what is wrong with it."""

    name: str
    session: str
    lines: Lines


def bad_exports() -> Iterator[BadExport]:
    """Every attack on the example ledger."""
    ledger = example_ledger()
    good = {session: ledger.export(session) for session in (SESSION, LEDGER_SESSION)}
    for attack in ATTACKS:
        yield BadExport(_name(attack), SESSION, attack(ledger, list(good[SESSION])))
    for attack in ATTACKS_ON_RECEIPTS:
        yield BadExport(_name(attack), LEDGER_SESSION, attack(ledger, list(good[LEDGER_SESSION])))


def _name(attack: Attack) -> str:
    return attack.__name__.replace("_", " ")


def index_of(lines: Lines, kind: type[Line], nth: int = 0) -> int:
    """The index of the nth line of a kind."""
    return [index for index, line in enumerate(lines) if isinstance(parse_line(line), kind)][nth]


def changed(lines: Lines, index: int, line: Line) -> Lines:
    """The export with one line printed anew: it is in its one encoding, whatever it says."""
    return [*lines[:index], print_line(line), *lines[index + 1 :]]


def _events(lines: Lines, nth: int) -> tuple[int, EventsLine]:
    index = index_of(lines, EventsLine, nth)
    line = parse_line(lines[index])
    assert isinstance(line, EventsLine)
    return index, line


def _receipt(lines: Lines, nth: int) -> tuple[int, ReceiptLine]:
    index = index_of(lines, ReceiptLine, nth)
    line = parse_line(lines[index])
    assert isinstance(line, ReceiptLine)
    return index, line


def _block(lines: Lines, nth: int) -> tuple[int, BlockLine]:
    index = index_of(lines, BlockLine, nth)
    line = parse_line(lines[index])
    assert isinstance(line, BlockLine)
    return index, line


def _state(lines: Lines) -> StateLine:
    line = parse_line(lines[-1])
    assert isinstance(line, StateLine)
    return line


def _resigned(line: EventsLine, signer: Ed25519Signer) -> EventsLine:
    """The line with the first event signed by another."""
    place = line.placement
    event_hash = hash_event(line.headers()[0])
    signatures = sign_event(signer, event_hash, place.timestamp, place.height)
    return replace(line, attestations=(Attestation(signer.key, signatures), *line.attestations[1:]))


# Whole lines ---------------------------------------------------------------------------------


def an_event_is_removed(ledger: SyntheticLedger, lines: Lines) -> Lines:
    del lines[index_of(lines, EventsLine, 1)]
    return lines


def the_last_event_is_removed(ledger: SyntheticLedger, lines: Lines) -> Lines:
    del lines[index_of(lines, EventsLine, 2)]
    return lines


def the_last_block_is_cut_off_and_the_height_lowered_without_its_state(
    ledger: SyntheticLedger, lines: Lines
) -> Lines:
    kept = lines[: index_of(lines, BlockLine, 2)] + lines[-2:]
    return [kept[0].replace(b'"height":3', b'"height":2'), *kept[1:]]


def two_events_are_swapped(ledger: SyntheticLedger, lines: Lines) -> Lines:
    first, second = index_of(lines, EventsLine, 0), index_of(lines, EventsLine, 1)
    lines[first], lines[second] = lines[second], lines[first]
    return lines


def an_event_stands_twice(ledger: SyntheticLedger, lines: Lines) -> Lines:
    first = index_of(lines, EventsLine, 0)
    return [*lines[: first + 1], *lines[first:]]


def an_event_is_added_at_the_end(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _events(lines, 2)
    place = replace(
        line.placement, position=replace(line.placement.position, offset=11), leaf_index=1
    )
    previous = Hash(hash_event(line.headers()[-1]))
    added = replace(line, placement=place, sequence=line.sequence + 1, previous_hash=previous)
    added = _resigned(added, ledger.authority)
    return [*lines[: index + 1], print_line(added), *lines[index + 1 :]]


def a_receipt_is_removed(ledger: SyntheticLedger, lines: Lines) -> Lines:
    del lines[index_of(lines, ReceiptLine, 1)]
    return lines


def a_receipt_is_removed_from_the_list_too(ledger: SyntheticLedger, lines: Lines) -> Lines:
    del lines[index_of(lines, ReceiptLine, 1)]
    index = index_of(lines, ReceiptsLine)
    line = parse_line(lines[index])
    assert isinstance(line, ReceiptsLine)
    return changed(lines, index, replace(line, hashes=(line.hashes[0], line.hashes[2])))


def all_receipts_are_removed(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [line for line in lines if not isinstance(parse_line(line), ReceiptLine | ReceiptsLine)]


def two_receipts_are_swapped(ledger: SyntheticLedger, lines: Lines) -> Lines:
    first, second = index_of(lines, ReceiptLine, 1), index_of(lines, ReceiptLine, 2)
    lines[first], lines[second] = lines[second], lines[first]
    return lines


def a_receipt_stands_twice(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index = index_of(lines, ReceiptLine, 0)
    return [*lines[: index + 1], *lines[index:]]


def the_list_of_receipts_is_removed(ledger: SyntheticLedger, lines: Lines) -> Lines:
    del lines[index_of(lines, ReceiptsLine)]
    return lines


def the_state_line_is_missing(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return lines[:-1]


def the_last_line_is_cut(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [*lines[:-1], lines[-1][:-20]]


def the_last_line_feed_is_missing(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [*lines[:-1], lines[-1][:-1]]


def something_follows_the_state(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [*lines, lines[-1]]


def the_first_line_is_missing(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return lines[1:]


def the_first_line_stands_twice(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [lines[0], *lines]


def there_is_nothing(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return []


def a_block_is_removed(ledger: SyntheticLedger, lines: Lines) -> Lines:
    del lines[index_of(lines, BlockLine, 1)]
    return lines


def two_blocks_are_swapped(ledger: SyntheticLedger, lines: Lines) -> Lines:
    second, third = index_of(lines, BlockLine, 1), index_of(lines, BlockLine, 2)
    lines[second], lines[third] = lines[third], lines[second]
    return lines


def a_block_of_nothing_is_added(ledger: SyntheticLedger, lines: Lines) -> Lines:
    nobody = ledger.export("nobody")
    return [nobody[0], lines[index_of(lines, BlockLine)], *nobody[1:]]


def the_list_of_receipts_goes_on_after_a_short_line(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index = index_of(lines, ReceiptsLine)
    line = parse_line(lines[index])
    assert isinstance(line, ReceiptsLine)
    parts = ReceiptsLine(1, line.hashes[:2]), ReceiptsLine(3, line.hashes[2:])
    return [*lines[:index], *map(print_line, parts), *lines[index + 1 :]]


def a_list_of_no_receipts_is_added(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [*lines[:-1], print_line(ReceiptsLine(4, ())), lines[-1]]


def the_list_of_receipts_has_a_hole(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index = index_of(lines, ReceiptsLine)
    line = parse_line(lines[index])
    assert isinstance(line, ReceiptsLine)
    return changed(lines, index, ReceiptsLine(2, line.hashes[1:]))


def the_list_of_receipts_stands_before_a_block(ledger: SyntheticLedger, lines: Lines) -> Lines:
    last = index_of(lines, BlockLine, 2)
    index = index_of(lines, ReceiptsLine)
    return [*lines[:last], lines[index], *lines[last:index], *lines[index + 1 :]]


def all_but_the_list_and_the_state_is_removed(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [lines[0], *lines[-2:]]


def the_state_is_of_another_height(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [*lines[:-1], print_line(replace(_state(lines), height=2))]


# What a line says --------------------------------------------------------------------------------


def a_payload_is_changed(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _events(lines, 0)
    payload = Payload(line.payloads[0].salt, b'{"item":"tea","price":1.6}')
    return changed(lines, index, replace(line, payloads=(payload,)))


def a_salt_is_changed(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _events(lines, 0)
    payload = Payload(bytes(32), line.payloads[0].data)
    return changed(lines, index, replace(line, payloads=(payload,)))


def an_event_type_is_changed_where_people_read_it(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, _ = _events(lines, 0)
    head, tail = lines[index].rsplit(b'"eventType":"Noted"', 1)
    return [*lines[:index], head + b'"eventType":"Noter"' + tail, *lines[index + 1 :]]


def an_event_type_is_changed_everywhere(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _events(lines, 0)
    draft = replace(line.command.events[0], event_type="Noter")
    return changed(
        lines, index, _rebuilt(replace(line, command=replace(line.command, events=(draft,))))
    )


def _rebuilt(line: EventsLine) -> EventsLine:
    """With the hash of the command as it is now."""
    return replace(line, command_hash=hash_command(encode_command(line.command)))


def the_author_signature_is_another(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _events(lines, 0)
    _, other = _events(lines, 1)
    return changed(lines, index, replace(line, author_signatures=other.author_signatures))


def an_event_is_signed_by_another_key(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _events(lines, 2)
    return changed(lines, index, _resigned(line, signer_of("a stranger")))


def an_event_has_the_signature_of_another(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _events(lines, 0)
    _, other = _events(lines, 2)
    return changed(lines, index, replace(line, attestations=other.attestations))


def an_event_is_not_signed(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _events(lines, 0)
    return changed(lines, index, replace(line, attestations=(UNSIGNED,)))


def an_event_has_another_time(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _events(lines, 0)
    place = replace(line.placement, timestamp=line.placement.timestamp + 1)
    return changed(lines, index, replace(line, placement=place))


def an_event_has_another_height(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _events(lines, 0)
    place = replace(line.placement, height=2)
    return changed(lines, index, replace(line, placement=place))


def an_event_has_another_position(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _events(lines, 0)
    position = replace(line.placement.position, offset=1)
    place = replace(line.placement, position=position, leaf_index=1)
    return changed(lines, index, replace(line, placement=place))


def an_event_has_a_position_of_no_block(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _events(lines, 0)
    position = replace(line.placement.position, offset=99)
    return changed(
        lines, index, replace(line, placement=replace(line.placement, position=position))
    )


def a_leaf_has_another_index(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _events(lines, 0)
    return changed(lines, index, replace(line, placement=replace(line.placement, leaf_index=3)))


def a_path_is_too_short(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _events(lines, 0)
    place = replace(line.placement, path=line.placement.path[:-1])
    return changed(lines, index, replace(line, placement=place))


def a_path_is_another(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _events(lines, 0)
    place = replace(line.placement, path=line.placement.path[::-1])
    return changed(lines, index, replace(line, placement=place))


def an_event_does_not_link(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _events(lines, 1)
    return changed(lines, index, replace(line, previous_hash=Hash(bytes(32))))


def a_receipt_has_another_reason(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _receipt(lines, 1)
    header = replace(line.header, violated_invariant="S1")
    return changed(lines, index, replace(line, header=header))


def a_receipt_refuses_a_command_with_another_signature(
    ledger: SyntheticLedger, lines: Lines
) -> Lines:
    index, line = _receipt(lines, 1)
    _, other = _receipt(lines, 2)
    return changed(lines, index, replace(line, author_signatures=other.author_signatures))


def a_receipt_is_not_signed(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _receipt(lines, 0)
    return changed(lines, index, replace(line, attestation=UNSIGNED))


def the_head_of_the_state_is_another(ledger: SyntheticLedger, lines: Lines) -> Lines:
    state = _state(lines)
    assert state.leaf is not None
    leaf = replace(state.leaf, head_hash=Hash(bytes(32)))
    return changed(lines, len(lines) - 1, replace(state, leaf=leaf))


def the_state_has_one_event_less_and_the_last_is_removed(
    ledger: SyntheticLedger, lines: Lines
) -> Lines:
    state = _state(lines)
    assert state.leaf is not None
    lines = changed(lines, len(lines) - 1, replace(state, leaf=replace(state.leaf, sequence=3)))
    del lines[index_of(lines, EventsLine, 2)]
    return lines


def the_state_is_of_another_session(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [*lines[:-1], ledger.export("readings")[-1]]


def the_state_says_the_session_is_absent(ledger: SyntheticLedger, lines: Lines) -> Lines:
    state = _state(lines)
    absent = replace(state, leaf=None)
    return [lines[0], lines[index_of(lines, BlockLine, 2)], print_line(absent)]


def the_export_is_said_to_be_higher(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [lines[0].replace(b'"height":3', b'"height":4'), *lines[1:]]


def the_export_is_said_to_be_lower(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [lines[0].replace(b'"height":3', b'"height":2'), *lines[1:]]


def an_event_of_another_session_stands_in_it(ledger: SyntheticLedger, lines: Lines) -> Lines:
    other = ledger.export("readings")
    index = index_of(lines, EventsLine, 0)
    lines[index] = other[index_of(other, EventsLine, 0)]
    return lines


def a_receipt_of_the_ledger_stands_in_it(ledger: SyntheticLedger, lines: Lines) -> Lines:
    other = ledger.export(LEDGER_SESSION)
    index = index_of(lines, ReceiptLine, 2)
    return [*lines[: index + 1], other[index_of(other, ReceiptLine, 0)], *lines[index + 1 :]]


def the_own_leaf_is_to_show_absence(ledger: SyntheticLedger, lines: Lines) -> Lines:
    state = _state(lines)
    assert state.leaf is not None
    key = session_key(ledger.state.ledger_id, state.session)
    absent = replace(state, leaf=None, other=(key, state.leaf.encode()))
    return [lines[0], lines[index_of(lines, BlockLine, 2)], print_line(absent)]


def a_command_of_another_ledger_and_session_stands_in_it(
    ledger: SyntheticLedger, lines: Lines
) -> Lines:
    other = example_ledger("forged").export("readings")
    index = index_of(lines, EventsLine, 0)
    lines[index] = other[index_of(other, EventsLine, 0)]
    return lines


def a_receipt_of_another_ledger_stands_in_it(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _receipt(lines, 0)
    header = replace(line.header, ledger_id=LedgerId(bytes(32)))
    return changed(lines, index, replace(line, header=header))


def a_header_of_height_0(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return _with_header(lines, 0, height=0)


def a_header_counts_a_record_more(ledger: SyntheticLedger, lines: Lines) -> Lines:
    _, line = _block(lines, 0)
    return _with_header(lines, 0, record_count=line.header.record_count + 1)


def a_header_has_its_ranges_in_another_order(ledger: SyntheticLedger, lines: Lines) -> Lines:
    _, line = _block(lines, 1)
    return _with_header(lines, 1, ranges=line.header.ranges[::-1])


def a_header_is_of_another_format(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return _with_header(lines, 0, format_version=2)


def a_tail_block_stands_for_a_ledger_block(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return _with_header(lines, 0, kind=BlockKind.TAIL)


def _with_header(lines: Lines, nth: int, **fields: object) -> Lines:
    """The export with a field of the nth block's header changed."""
    index, line = _block(lines, nth)
    header = replace(line.header, **fields)  # type: ignore[arg-type]
    data = encode_block_header(header)
    return changed(lines, index, BlockLine(header, data, hash_block(data), line.proof))


def a_certificate_is_of_another_view(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _block(lines, 0)
    certificate = replace(line.proof.finalization, view=7)
    return changed(lines, index, replace(line, proof=CommitProof(certificate, ())))


# Proofs of others ------------------------------------------------------------------------------


def the_ledger_is_self_made(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return example_ledger("forged").export(SESSION)


def the_rest_is_of_a_self_made_ledger(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [lines[0], *example_ledger("forged").export(SESSION)[1:]]


def a_block_is_of_another_ledger(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index = index_of(lines, BlockLine, 1)
    lines[index] = example_ledger("forged").export(SESSION)[index]
    return lines


def a_commit_proof_is_of_another_block(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _block(lines, 0)
    _, other = _block(lines, 1)
    return changed(lines, index, replace(line, proof=other.proof))


def a_block_is_certified_by_strangers(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _block(lines, 0)
    forger = SyntheticLedger("forged")
    certificate = forger.finalize(line.header_bytes)
    forged = replace(certificate, validator_set_hash=ledger.genesis.validator_set.hash)
    return changed(lines, index, replace(line, proof=CommitProof(forged, ())))


def a_block_is_only_notarized(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _block(lines, 0)
    notarized = replace(line.proof.finalization, kind=VoteKind.NOTARIZE)
    return changed(lines, index, replace(line, proof=CommitProof(notarized, ())))


def a_certificate_has_no_votes(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _block(lines, 0)
    empty = replace(line.proof.finalization, votes=())
    return changed(lines, index, replace(line, proof=CommitProof(empty, ())))


def a_commit_proof_has_headers_that_do_not_link(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _block(lines, 0)
    _, later = _block(lines, 2)
    proof = CommitProof(later.proof.finalization, (later.header_bytes,))
    return changed(lines, index, replace(line, proof=proof))


def a_header_is_changed(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _block(lines, 0)
    header = replace(decode_block_header(line.header_bytes), time=line.header.time - 1)
    data = encode_block_header(header)
    return changed(lines, index, BlockLine(header, data, hash_block(data), line.proof))


# How it is written -------------------------------------------------------------------------------


def a_space_is_added(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [lines[0].replace(b'"version":1', b'"version": 1'), *lines[1:]]


def members_are_in_another_order(ledger: SyntheticLedger, lines: Lines) -> Lines:
    cut = lines[0].index(b',"height"')
    parts = lines[0][1:cut], lines[0][cut + 1 : -2]
    return [b"{" + parts[1] + b"," + parts[0] + b"}\n", *lines[1:]]


def a_member_stands_twice(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [lines[0].replace(b'"version":1', b'"version":1,"version":1'), *lines[1:]]


def a_member_is_added(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [lines[0].replace(b'"version":1', b'"version":1,"x":1'), *lines[1:]]


def a_number_is_written_otherwise(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [lines[0].replace(b'"version":1', b'"version":1.0'), *lines[1:]]


def a_json_payload_stands_as_base64(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index = index_of(lines, EventsLine, 1)
    data = b'"payloadBase64":"eyJjb3VudCI6Mn0="'
    lines[index] = lines[index].replace(b'"payload":{"count":2}', data)
    return lines


def base64_has_stray_bits(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index = index_of(lines, EventsLine, 1)
    lines[index] = lines[index].replace(b'g="', b'h="').replace(b'A="', b'B="')
    return lines


def lines_end_as_on_windows(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [line[:-1] + b"\r\n" for line in lines]


def a_line_is_no_json(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [lines[0], b"%PDF\n", *lines[1:]]


def a_line_is_empty(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [lines[0], b"\n", *lines[1:]]


def a_line_is_of_no_known_type(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [lines[0], b'{"type":"comment"}\n', *lines[1:]]


def a_number_is_hostile(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [lines[0].replace(b'"height":3', b'"height":1e400'), *lines[1:]]


def the_version_is_another(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [lines[0].replace(b'"version":1', b'"version":2'), *lines[1:]]


# The ledger's own session, where the receipts of nobody's commands are ----------------------------


def a_claimed_command_gets_a_signature(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _receipt(lines, 0)
    _, other = _receipt(ledger.export(SESSION), 2)
    return changed(lines, index, replace(line, author_signatures=other.author_signatures))


def a_refused_command_is_withheld(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _receipt(lines, 0)
    return changed(lines, index, replace(line, refused=None))


def a_refused_record_is_withheld(ledger: SyntheticLedger, lines: Lines) -> Lines:
    index, line = _receipt(lines, 2)
    return changed(lines, index, replace(line, refused=None))


def a_receipt_of_a_session_stands_in_the_ledgers(ledger: SyntheticLedger, lines: Lines) -> Lines:
    other = ledger.export(SESSION)
    index = index_of(lines, ReceiptLine, 0)
    return [*lines[:index], other[index_of(other, ReceiptLine, 1)], *lines[index:]]


def the_only_receipt_of_a_kind_is_removed(ledger: SyntheticLedger, lines: Lines) -> Lines:
    return [lines[0], *lines[index_of(lines, BlockLine, 1) :]]


ATTACKS: tuple[Attack, ...] = (
    an_event_is_removed,
    the_last_event_is_removed,
    the_last_block_is_cut_off_and_the_height_lowered_without_its_state,
    two_events_are_swapped,
    an_event_stands_twice,
    an_event_is_added_at_the_end,
    a_receipt_is_removed,
    a_receipt_is_removed_from_the_list_too,
    all_receipts_are_removed,
    two_receipts_are_swapped,
    a_receipt_stands_twice,
    the_list_of_receipts_is_removed,
    the_state_line_is_missing,
    the_last_line_is_cut,
    the_last_line_feed_is_missing,
    something_follows_the_state,
    the_first_line_is_missing,
    the_first_line_stands_twice,
    there_is_nothing,
    a_block_is_removed,
    two_blocks_are_swapped,
    a_block_of_nothing_is_added,
    the_list_of_receipts_goes_on_after_a_short_line,
    a_list_of_no_receipts_is_added,
    the_list_of_receipts_has_a_hole,
    the_list_of_receipts_stands_before_a_block,
    all_but_the_list_and_the_state_is_removed,
    the_state_is_of_another_height,
    the_own_leaf_is_to_show_absence,
    a_command_of_another_ledger_and_session_stands_in_it,
    a_receipt_of_another_ledger_stands_in_it,
    a_header_of_height_0,
    a_header_counts_a_record_more,
    a_header_has_its_ranges_in_another_order,
    a_header_is_of_another_format,
    a_tail_block_stands_for_a_ledger_block,
    a_certificate_is_of_another_view,
    a_payload_is_changed,
    a_salt_is_changed,
    an_event_type_is_changed_where_people_read_it,
    an_event_type_is_changed_everywhere,
    the_author_signature_is_another,
    an_event_is_signed_by_another_key,
    an_event_has_the_signature_of_another,
    an_event_is_not_signed,
    an_event_has_another_time,
    an_event_has_another_height,
    an_event_has_another_position,
    an_event_has_a_position_of_no_block,
    a_leaf_has_another_index,
    a_path_is_too_short,
    a_path_is_another,
    an_event_does_not_link,
    a_receipt_has_another_reason,
    a_receipt_refuses_a_command_with_another_signature,
    a_receipt_is_not_signed,
    the_head_of_the_state_is_another,
    the_state_has_one_event_less_and_the_last_is_removed,
    the_state_is_of_another_session,
    the_state_says_the_session_is_absent,
    the_export_is_said_to_be_higher,
    the_export_is_said_to_be_lower,
    an_event_of_another_session_stands_in_it,
    a_receipt_of_the_ledger_stands_in_it,
    the_ledger_is_self_made,
    the_rest_is_of_a_self_made_ledger,
    a_block_is_of_another_ledger,
    a_commit_proof_is_of_another_block,
    a_block_is_certified_by_strangers,
    a_block_is_only_notarized,
    a_certificate_has_no_votes,
    a_commit_proof_has_headers_that_do_not_link,
    a_header_is_changed,
    a_space_is_added,
    members_are_in_another_order,
    a_member_stands_twice,
    a_member_is_added,
    a_number_is_written_otherwise,
    a_json_payload_stands_as_base64,
    base64_has_stray_bits,
    lines_end_as_on_windows,
    a_line_is_no_json,
    a_line_is_empty,
    a_line_is_of_no_known_type,
    a_number_is_hostile,
    the_version_is_another,
)
ATTACKS_ON_RECEIPTS: tuple[Attack, ...] = (
    a_claimed_command_gets_a_signature,
    a_refused_command_is_withheld,
    a_refused_record_is_withheld,
    a_receipt_of_a_session_stands_in_the_ledgers,
    the_only_receipt_of_a_kind_is_removed,
)
