"""Records at their bounds and just beyond: what every reader takes, and what every reader refuses.

Each is a good record with one field changed, by the name of what is changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.vectors.synthetic import example_ledger

from nocturne.core.commands import Command, Opening, encode_command
from nocturne.core.encoding import TIME_MAX
from nocturne.core.identifiers import SessionId
from nocturne.core.intake import signed_command_of


@dataclass(frozen=True, slots=True)
class Bound:
    """A record of a schema, and whether it is well-formed."""

    schema: str
    name: str
    data: bytes
    is_well_formed: bool


def bounds() -> Iterator[Bound]:
    """All of them."""
    yield from _commands()


def _commands() -> Iterator[Bound]:
    signed = signed_command_of(example_ledger().blocks[0].records[0])
    assert signed is not None
    plain = replace(signed.command, opening=None)
    draft = plain.events[0]
    opening = Opening("facts", 1)

    def of(name: str, well_formed: bool, command: Command) -> Bound:
        return Bound("command", name, encode_command(command), well_formed)

    yield of("as it is", True, plain)
    for expected in (None, 0, 2**53 - 2, -1, 2**53 - 1, 2**53, 2**63 - 1):
        fits = expected is None or 0 <= expected < 2**53 - 1
        yield of(f"expectedSequence {expected}", fits, replace(plain, expected_sequence=expected))
    for time in (0, TIME_MAX, -1, TIME_MAX + 1):
        yield of(f"occurredAt {time}", 0 <= time <= TIME_MAX, replace(plain, occurred_at=time))
    for session in ("a", "a~b", "~ledger", "s" * 128, "", "s" * 129, "a b", "\u00e9", "a\n"):
        fits = session in ("a", "a~b", "~ledger", "s" * 128)
        command = replace(plain, session=SessionId(session))
        yield of(f"session {session[:8]!a} of {len(session)}", fits, command)
    for name in ("n" * 128, "", "n" * 129, "a b", "a~b", "a@b"):
        events = (replace(draft, event_type=name),)
        fits = name == "n" * 128
        yield of(f"eventType {name[:8]!a} of {len(name)}", fits, replace(plain, events=events))
    for name in ("c" * 128, "a b", "", "c" * 129, " a", "a ", "\u00e9"):
        events = (replace(draft, content_type=name),)
        fits = name in ("c" * 128, "a b")
        yield of(f"contentType {name[:8]!a} of {len(name)}", fits, replace(plain, events=events))
    yield of("no events", False, replace(plain, events=()))
    for version in (1, 2**31 - 1, 0, 2**31):
        of_version = replace(plain, expected_sequence=0, opening=Opening("facts", version))
        yield of(f"opening in version {version}", 1 <= version < 2**31, of_version)
    late = replace(plain, expected_sequence=1, opening=opening)
    yield of("an opening that expects nothing", True, replace(late, expected_sequence=None))
    yield of("an opening that expects sequence 1", False, late)
    unnamed = replace(plain, expected_sequence=0, opening=Opening("", 1))
    yield of("an opening of no kind", False, unnamed)
    yield of("a key of no suite", False, replace(plain, key=()))
    yield of("a key of one suite twice", False, replace(plain, key=plain.key * 2))
    for length in (31, 33):
        key = (replace(plain.key[0], data=bytes(length)),)
        yield of(f"a key of {length} bytes", False, replace(plain, key=key))
    weak = (replace(plain.key[0], data=bytes(32)),)
    yield of("a key that is no sound point: judged where a signature is verified", True,
             replace(plain, key=weak))  # fmt: skip
