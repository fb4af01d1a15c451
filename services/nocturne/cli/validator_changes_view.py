"""What a change of the validators would be, and was, for people and as JSON. Pure.

Rules: docs/guides/cli.md, docs/spec/consensus.md §1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from rich.console import RenderableType
from rich.text import Text

from nocturne.cli.screen import Cell, Column, table
from nocturne.cli.words import count_text
from nocturne.client.operating import DecidedSet, Governance
from nocturne.core.certificates import quorum
from nocturne.core.identifiers import format_hash
from nocturne.core.keys import Key, format_key, key_id
from nocturne.core.strict_json import JsonValue
from nocturne.core.validator_sets import Member, acts_from, epoch_at
from nocturne.deploy.contributions import weakness

_COLUMNS: Final = (
    Column("place", justify="right"),
    Column("key", "bold"),
    Column("key id"),
    Column("change"),
)
_STYLES: Final = {"new": "green", "gone": "red"}


@dataclass(frozen=True, slots=True)
class Change:
    """From the set that was decided last to the one that the operators ask for."""

    before: tuple[Member, ...]
    after: tuple[Member, ...]

    @property
    def rows(self) -> list[tuple[int | None, Key, str]]:
        """Each key's place in the new set, None for one that goes, and what changes for it."""
        old = [key for key, _ in self.before]
        new = [key for key, _ in self.after]
        gone = [(None, key, "gone") for key in old if key not in new]
        return [*((place, key, _word(place, key, old)) for place, key in enumerate(new)), *gone]


def _word(place: int, key: Key, old: Sequence[Key]) -> str:
    if key not in old:
        return "new"
    was = old.index(key)
    return "stays" if was == place else f"was {was}"


def set_table(change: Change) -> RenderableType:
    """The validators of the new set, in their order, then those that go."""
    return table(
        _COLUMNS,
        [
            [
                "" if place is None else str(place),
                key_text(key),
                format_hash(key_id(key)),
                Cell(word, _STYLES.get(word, "")),
            ]
            for place, key, word in change.rows
        ],
    )


def key_text(key: Key) -> str:
    """The public key of each suite."""
    return " ".join(map(format_key, key))


def sizes_text(count: int) -> str:
    """How many there are, how many may fail, how many certify."""
    may_fail = (count - 1) // 3
    return (
        f"{count_text(count, 'validator')}, of which {may_fail or 'none'} may lie; "
        f"{quorum(count)} certify a block"
    )


def change_lines(change: Change, now: Governance) -> Iterator[str]:
    """What the change means, in sentences."""
    yield f"{sizes_text(len(change.after))}. Before: {sizes_text(len(change.before))}."
    weak = weakness(len(change.after))
    if weak is not None and weakness(len(change.before)) != weak:
        yield weak
    yield when_text(now)
    staying = certifying_after(change, now)
    needed = quorum(len(change.after))
    if staying < needed:
        few = (
            "none certifies"
            if staying == 0
            else f"{staying} certify"
            if staying > 1
            else "one does"
        )
        yield (
            f"Of the new validators {few} now, and {needed} must: unless the others run and have "
            "caught up by then, nothing is certified from there on."
        )


def certifying_after(change: Change, now: Governance) -> int:
    """How many of the new set certify the next block too."""
    certifying = {key for key, _ in now.sets[0].members}
    return sum(key in certifying for key, _ in change.after)


def when_text(now: Governance) -> str:
    """From when a change acts that a block of this epoch has."""
    following = now.height + 1
    first, height = acts_from(now.epoch_length, following)
    end = (epoch_at(now.epoch_length, following) + 1) * now.epoch_length
    return (
        f"The ledger is at block {now.height}. If a block up to {end} has the change, it acts from "
        f"block {height} on, with which epoch {first} begins; otherwise an epoch later."
    )


def decided_parts(now: Governance) -> Iterator[RenderableType]:
    """The set that certifies, and those decided for later, for a person."""
    for number, one in enumerate(now.sets):
        heading = (
            f"certifies block {now.height + 1}"
            if number == 0
            else f"from block {first_height(now, one)} on, epoch {one.first_epoch}"
        )
        yield Text.assemble((heading, "bold"), f": {sizes_text(len(one.members))}")
        before = now.sets[max(number - 1, 0)].members
        yield set_table(Change(before, one.members))


def first_height(now: Governance, one: DecidedSet) -> int:
    """The height with which a set begins."""
    return one.first_epoch * now.epoch_length + 1


# JSON ------------------------------------------------------------------------------------------


def decided_json(now: Governance) -> JsonValue:
    """`sets` begins with the one that certifies the next block."""
    return {
        "number": now.number,
        "height": now.height,
        "epochLength": now.epoch_length,
        "operatorThreshold": now.operator_threshold,
        "sets": [
            {
                "firstEpoch": one.first_epoch,
                "firstHeight": first_height(now, one),
                **_set_json(one.members),
            }
            for one in now.sets
        ],
    }


def change_json(change: Change) -> dict[str, JsonValue]:
    """The new set, and what is new and gone."""
    return {
        **_set_json(change.after),
        "new": [_key_json(key) for _, key, word in change.rows if word == "new"],
        "gone": [_key_json(key) for _, key, word in change.rows if word == "gone"],
    }


def _set_json(members: Sequence[Member]) -> dict[str, JsonValue]:
    count = len(members)
    return {
        "validators": [_key_json(key) for key, _ in members],
        "mayFail": (count - 1) // 3,
        "quorum": quorum(count),
    }


def _key_json(key: Key) -> JsonValue:
    return {"keyId": format_hash(key_id(key)), "key": [format_key(part) for part in key]}
