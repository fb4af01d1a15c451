"""A kind as the ledger calls it: what a plug-in must be and may answer, checked.

Rules: docs/spec/ledger.md, session kinds. A plug-in is code of somebody else inside the rules of a
ledger. What it answers becomes state and receipts, which are hashed: so an answer that is none is
never taken for an acceptance or a refusal, but stops the process with the plug-in's name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn, TypeVar

from nocturne.core.commands import KIND_VERSION_MAX
from nocturne.core.errors import Halt
from nocturne.core.identifiers import is_type_name
from nocturne.core.kinds.kind import FoldError, Kind, KindChanges, KindItems, Violation
from nocturne.core.sparse_tree import KEY_BYTES
from nocturne.core.strict_json import JsonValue

CHANGES_MAX: Final = 1024
"""Items that one event may change: a kind keeps what its invariants read, not what it lists."""
ITEM_BYTES_MAX: Final = 64 * 1024
"""Of an item's value: validators hold every item in memory."""
INVARIANTS_MAX: Final = 1024
_SHOWN_CHARACTERS_MAX: Final = 200

Answer = TypeVar("Answer")


class KindFault(Halt):
    """A kind broke its contract: its validators must not guess what it meant."""


@dataclass(frozen=True, slots=True)
class GuardedKind:
    """A kind whose every answer is checked. Make it with `guarded`."""

    kind: Kind
    name: str
    version: int
    reads_payloads: bool
    invariants: tuple[str, ...]

    def apply(
        self,
        items: KindItems,
        event_type: str,
        content_type: str,
        payload: bytes,
        author: bytes,
        sequence: int,
    ) -> KindChanges | Violation:
        """As the kind's own; `KindFault` when it raises, or answers what is no answer."""
        answer = self._asked(
            "apply",
            sequence,
            lambda: _copied(
                self.kind.apply(items, event_type, content_type, payload, author, sequence)
            ),
        )
        if isinstance(answer, dict):
            self._check_changes(answer, sequence)
        elif type(answer) is not Violation:
            self._fail("apply", sequence, _shown(answer))
        elif answer.invariant not in self.invariants:
            self._fail("apply", sequence, f"the invariant {_shown(answer.invariant)}")
        return answer

    def initial(self) -> JsonValue:
        """As the kind's own; `KindFault` when it raises."""
        return self._asked("initial", 0, self.kind.initial)

    def fold(
        self,
        state: JsonValue,
        event_type: str,
        content_type: str,
        payload: bytes,
        author: bytes,
        sequence: int,
    ) -> JsonValue:
        """As the kind's own; `KindFault` when it raises anything but `FoldError`. That the state is
        JSON shows when it is printed.
        """
        return self._asked(
            "fold",
            sequence,
            lambda: self.kind.fold(state, event_type, content_type, payload, author, sequence),
        )

    def _asked(self, method: str, sequence: int, call: Callable[[], Answer]) -> Answer:
        try:
            return call()
        except (FoldError, MemoryError):
            # A foreign state is the caller's; want of memory is the machine's, and may pass.
            raise
        except (Exception, SystemExit) as fault:
            said = f"{type(fault).__name__}: {fault}"[:_SHOWN_CHARACTERS_MAX]
            raise KindFault(self._place(method, sequence) + f", got {said}") from fault

    def _check_changes(self, changes: Mapping[object, object], sequence: int) -> None:
        if len(changes) > CHANGES_MAX:
            self._fail("apply", sequence, f"{len(changes)} changes, more than {CHANGES_MAX}")
        for key, value in changes.items():
            if type(key) is not bytes or len(key) != KEY_BYTES:
                self._fail("apply", sequence, f"the key {_shown(key)}")
            if value is not None and type(value) is not bytes:
                self._fail("apply", sequence, f"the value {_shown(value)}")
            if value is not None and len(value) > ITEM_BYTES_MAX:
                self._fail("apply", sequence, f"a value of {len(value)} bytes")

    def _fail(self, method: str, sequence: int, got: str) -> NoReturn:
        raise KindFault(self._place(method, sequence) + f", got {got}")

    def _place(self, method: str, sequence: int) -> str:
        return (
            f"session kind {self.name} version {self.version}: {method} at event {sequence}: "
            "expected an answer by its contract"
        )


def guarded(kind: Kind) -> GuardedKind:
    """`kind`, guarded. `ValueError` unless it says of itself what a kind must say."""
    if isinstance(kind, type):
        raise ValueError(f"session kind {kind.__name__}: expected an object, got its class")
    try:
        claims = (kind.name, kind.version, kind.reads_payloads, kind.invariants)
    except AttributeError as fault:
        raise ValueError(f"session kind {_shown(kind)}: {fault}") from fault
    name, version, reads_payloads, invariants = claims
    if type(name) is not str or not is_type_name(name):
        raise ValueError(f"session kind: expected a type name, got {_shown(name)}")
    if type(version) is not int or not 1 <= version <= KIND_VERSION_MAX:
        raise ValueError(f"session kind {name}: expected a version from 1, got {_shown(version)}")
    if type(reads_payloads) is not bool:
        raise ValueError(f"session kind {name}: reads_payloads: expected True or False")
    for method in ("apply", "initial", "fold"):
        if not callable(getattr(kind, method, None)):
            raise ValueError(f"session kind {name}: expected a method {method}, got none")
    _check_invariants(name, reads_payloads, invariants)
    return GuardedKind(kind, name, version, reads_payloads, invariants)


def _check_invariants(name: str, reads_payloads: bool, invariants: tuple[str, ...]) -> None:
    if type(invariants) is not tuple or len(invariants) > INVARIANTS_MAX:
        raise ValueError(
            f"session kind {name}: invariants: expected a tuple of at most {INVARIANTS_MAX} names"
        )
    for one in invariants:
        if type(one) is not str or not is_type_name(one) or not one.startswith(f"{name}."):
            raise ValueError(
                f"session kind {name}: expected an invariant named {name}.… of at most 128 "
                f"characters, got {_shown(one)}"
            )
    if invariants and not reads_payloads:
        raise ValueError(f"session kind {name}: it has invariants, so it must read payloads")


def _copied(answer: KindChanges | Violation) -> KindChanges | Violation:
    """What is checked is what is used, whatever the kind does with its own later."""
    return dict(answer) if isinstance(answer, Mapping) else answer


def _shown(value: object) -> str:
    try:
        return repr(value)[:_SHOWN_CHARACTERS_MAX]
    except Exception:
        return f"a {type(value).__name__}"
