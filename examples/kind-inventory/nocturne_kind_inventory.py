"""The session kind `inventory`, version 1: how many of each item there are, never below zero.

Two events; content type `application/json`, and a payload of exactly this form:

    Received  {"item": "bolt-m8", "quantity": 100}
    Shipped   {"item": "bolt-m8", "quantity": 30}

Validators refuse what is of another form, and a shipment of more than there is. Readers see
`{"stock": {"bolt-m8": 70}}`.

A ledger names this kind by the hash of this file: everything that decides is in it, and once a
ledger has it, the file stays as it is. A change, of a comment too, is a new file and version 2.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256

from nocturne.core.errors import Malformed
from nocturne.core.kinds import FoldError, KindChanges, KindItems, Violation
from nocturne.core.strict_json import JsonValue, parse_json

PAYLOAD_BYTES_MAX = 1024
QUANTITY_MAX = 1_000_000_000
STOCK_MAX = 2**53 - 1
"""The largest integer that every reader of JSON keeps exact."""

FORM = "inventory.form"
IN_STOCK = "inventory.in_stock"
STOCK_BOUND = "inventory.stock_max"

_ITEM = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_SIGNS = {"Received": 1, "Shipped": -1}


@dataclass(frozen=True, slots=True)
class Inventory:
    """Stock by item."""

    name: str = "inventory"
    version: int = 1
    reads_payloads: bool = True
    invariants: tuple[str, ...] = (FORM, IN_STOCK, STOCK_BOUND)

    def apply(
        self,
        items: KindItems,
        event_type: str,
        content_type: str,
        payload: bytes,
        author: bytes,
        sequence: int,
    ) -> KindChanges | Violation:
        """Validators: what is left of the item, or why the event may not stand."""
        moved = read_movement(event_type, content_type, payload)
        if moved is None:
            return Violation(FORM)
        item, quantity = moved
        key = sha256(b"inventory/item/" + item.encode("ascii")).digest()
        left = int.from_bytes(items.get(key) or b"", "big") + quantity
        if left < 0:
            return Violation(IN_STOCK)
        if left > STOCK_MAX:
            return Violation(STOCK_BOUND)
        # An item that is gone takes no room.
        return {key: left.to_bytes(8, "big") if left else None}

    def initial(self) -> JsonValue:
        """Readers: nothing in stock."""
        return {"stock": {}}

    def fold(
        self,
        state: JsonValue,
        event_type: str,
        content_type: str,
        payload: bytes,
        author: bytes,
        sequence: int,
    ) -> JsonValue:
        """Readers: the stock after an event that stands. Acts of the ledger come here too."""
        match state:
            case {"stock": dict(stock)}:
                pass
            case _:
                raise FoldError(f"state of inventory at event {sequence}: expected stock")
        moved = read_movement(event_type, content_type, payload)
        if moved is None:
            return state
        item, quantity = moved
        before = stock.get(item, 0)
        if not isinstance(before, int):
            raise FoldError(f"state of inventory at event {sequence}: expected a number of {item}")
        # A new object: whoever holds the state before this event keeps it as it was.
        after = {**stock, item: before + quantity}
        return {"stock": {name: count for name, count in after.items() if count != 0}}


def read_movement(event_type: str, content_type: str, payload: bytes) -> tuple[str, int] | None:
    """The item and how many come (or go: negative), None if the event is of another form."""
    sign = _SIGNS.get(event_type)
    if sign is None or content_type != "application/json":
        return None
    try:
        value = parse_json(payload, PAYLOAD_BYTES_MAX, depth_max=1)
    except Malformed:
        return None
    match value:
        case {"item": str(item), "quantity": int(quantity), **rest} if (
            not rest
            and _ITEM.match(item)
            # True is an integer for Python, but none for us.
            and not isinstance(quantity, bool)
            and 1 <= quantity <= QUANTITY_MAX
        ):
            return item, sign * quantity
    return None


INVENTORY = Inventory()
