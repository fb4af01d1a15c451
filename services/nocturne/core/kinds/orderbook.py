"""The kind `orderbook`, version 1: limit orders for one thing, matched by price, then time.

Rules: docs/spec/ledger.md, session kinds. Validators read every payload, so a sealed one is
refused. Two events, told apart by their type; content type `CONTENT_TYPE`, to the letter, and a
payload that is JSON by `strict_json` of exactly this form:

    OrderPlaced     {"order": "b-1", "side": "buy", "price": 1250, "quantity": 10}
    OrderCancelled  {"order": "b-1"}

Validators hold that an order's name is new in the session and that only its author cancels it,
once. They do not match: trades are no events but what every reader computes from the events, and
each computes the same.

An order that is placed trades at once with the best of the other side as long as prices meet, at
the price of the one that rests; among equal prices the oldest is first. What is left rests. Nobody
trades with itself: a resting order of the same author that would be next is taken out instead. A
cancellation takes out what is left; of an order that does not rest any more it changes nothing.

    {"bids": [{"order": "b-1", "price": 1250, "quantity": 7, "author": "sha256-…"}], "asks": [],
     "trades": [{"number": 1, "sequence": 2, "buy": "b-1", "sell": "s-1", "price": 1250,
                 "quantity": 3}],
     "tradeCount": 1, "volume": "3", "turnover": "3750", "tradesHash": "sha256-…",
     "placed": 2, "cancelled": 0, "selfTradesPrevented": 0}

`bids` and `asks` stand best first. `trades` are the newest `TRADES_SHOWN`; `volume` (of quantities)
and `turnover` (of price times quantity) are of all, as decimal text because they may pass 2^53.
`tradesHash` chains all of them from 32 zero bytes: SHA-256 of the domain, the hash before, and the
variable canonical JSON of the trade. Two readers with one hash have every trade in common.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, cast

from nocturne.core.encoding import ZERO_HASH, domain, sha256, u64, variable
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import format_hash, parse_hash
from nocturne.core.kinds.kind import FoldError, KindChanges, KindItems, Violation
from nocturne.core.strict_json import JsonValue, canonical_json, parse_json

CONTENT_TYPE: Final = "application/json"
PAYLOAD_BYTES_MAX: Final = 1024
"""Several times what a name and two numbers take, white space and all."""
PAYLOAD_DEPTH_MAX: Final = 1
NUMBER_MAX: Final = 2**31 - 1
"""Of a price and of a quantity, so that their product is exact in 64 bits too."""
ORDERS_MAX: Final = 65_536
"""Of a session: validators hold each order's name in memory, readers copy the list of those that
rest. A session is a trading period; the next one begins empty."""
TRADES_SHOWN: Final = 100

FORM: Final = "orderbook.form"
NEW_ORDER: Final = "orderbook.new_order"
ORDERS_BOUND: Final = "orderbook.orders_max"
PLACED_ORDER: Final = "orderbook.placed_order"
OWN_ORDER: Final = "orderbook.own_order"
CANCELLED_ONCE: Final = "orderbook.cancelled_once"

_NAME: Final = re.compile(r"[A-Za-z0-9._:/@-]{1,64}\Z")
_ORDER: Final = domain("nocturne/orderbook/order/v1")
_COUNT_KEY: Final = sha256(domain("nocturne/orderbook/count/v1"))
_TRADE: Final = domain("nocturne/orderbook/trade/v1")
_CANCELLED: Final = b"\x01"


@dataclass(frozen=True, slots=True)
class OrderPlaced:
    """The author offers to buy or sell, at this price or a better one."""

    order: str
    is_buy: bool
    price: int
    quantity: int


@dataclass(frozen=True, slots=True)
class OrderCancelled:
    """The author takes back what is left of its order."""

    order: str


Entry: TypeAlias = OrderPlaced | OrderCancelled


@dataclass(frozen=True, slots=True)
class Orderbook:
    """Orders that match by price, then time."""

    name: str = "orderbook"
    version: int = 1
    reads_payloads: bool = True
    invariants: tuple[str, ...] = (
        FORM,
        NEW_ORDER,
        ORDERS_BOUND,
        PLACED_ORDER,
        OWN_ORDER,
        CANCELLED_ONCE,
    )

    def apply(
        self,
        items: KindItems,
        event_type: str,
        content_type: str,
        payload: bytes,
        author: bytes,
        sequence: int,
    ) -> KindChanges | Violation:
        """The order that the event adds or marks, or the first invariant it would break."""
        match read_entry(event_type, content_type, payload):
            case None:
                return Violation(FORM)
            case OrderPlaced(order=order):
                return _place(items, order, author)
            case OrderCancelled(order=order):
                return _cancel(items, order, author)

    def initial(self) -> JsonValue:
        """An empty book."""
        return {
            "bids": [],
            "asks": [],
            "trades": [],
            "tradeCount": 0,
            "volume": "0",
            "turnover": "0",
            "tradesHash": format_hash(ZERO_HASH),
            "placed": 0,
            "cancelled": 0,
            "selfTradesPrevented": 0,
        }

    def fold(
        self,
        state: JsonValue,
        event_type: str,
        content_type: str,
        payload: bytes,
        author: bytes,
        sequence: int,
    ) -> JsonValue:
        """The book after an event that stands; an event of another form changes nothing."""
        book = _book_of(state, sequence)
        match read_entry(event_type, content_type, payload):
            case None:
                return state
            case OrderPlaced() as placed:
                book.place(placed, format_hash(author), sequence)
            case OrderCancelled(order=order):
                book.cancel(order)
        return book.state()


def read_entry(event_type: str, content_type: str, payload: bytes) -> Entry | None:
    """What an event says, None if it is not of the form of its type."""
    read = _READ.get(event_type)
    if read is None or content_type != CONTENT_TYPE:
        return None
    try:
        return read(parse_json(payload, PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX))
    except Malformed:
        return None


def _read_placed(value: JsonValue) -> Entry | None:
    match value:
        case {
            "order": str(order),
            "side": ("buy" | "sell") as side,
            "price": int(price),
            "quantity": int(quantity),
            **rest,
        } if not rest and _NAME.match(order) and _is_number(price) and _is_number(quantity):
            return OrderPlaced(order, side == "buy", price, quantity)
    return None


def _read_cancelled(value: JsonValue) -> Entry | None:
    match value:
        case {"order": str(order), **rest} if not rest and _NAME.match(order):
            return OrderCancelled(order)
    return None


_READ: Final[dict[str, Callable[[JsonValue], Entry | None]]] = {
    "OrderPlaced": _read_placed,
    "OrderCancelled": _read_cancelled,
}


def _is_number(number: int) -> bool:
    # True is no number, though Python counts it among its integers.
    return type(number) is int and 1 <= number <= NUMBER_MAX


# Validators: an order is 32 bytes author, and one byte more once it is cancelled -----------------


def _key(order: str) -> bytes:
    return sha256(_ORDER + order.encode("ascii"))


def _place(items: KindItems, order: str, author: bytes) -> KindChanges | Violation:
    if items.get(_key(order)) is not None:
        return Violation(NEW_ORDER)
    count = int.from_bytes(items.get(_COUNT_KEY) or b"", "big")
    if count == ORDERS_MAX:
        return Violation(ORDERS_BOUND)
    return {_key(order): author, _COUNT_KEY: u64(count + 1)}


def _cancel(items: KindItems, order: str, author: bytes) -> KindChanges | Violation:
    found = items.get(_key(order))
    if found is None:
        return Violation(PLACED_ORDER)
    if found[: len(author)] != author:
        return Violation(OWN_ORDER)
    if found.endswith(_CANCELLED) and len(found) > len(author):
        return Violation(CANCELLED_ONCE)
    return {_key(order): author + _CANCELLED}


# Readers ---------------------------------------------------------------------------------------

_Resting: TypeAlias = dict[str, Any]
"""One entry of `bids` or `asks`, as it stands in the state; never changed in place."""


@dataclass(slots=True)
class _Book:
    """A book while one event is folded; its lists are its own, their entries the state's."""

    bids: list[_Resting]
    asks: list[_Resting]
    trades: list[dict[str, JsonValue]]
    trade_count: int
    volume: int
    turnover: int
    trades_hash: bytes
    placed: int
    cancelled: int
    self_trades_prevented: int
    _made: list[dict[str, JsonValue]] = field(default_factory=list)

    def place(self, order: OrderPlaced, author: str, sequence: int) -> None:
        """Match, then let the rest of it rest."""
        self.placed += 1
        others = self.asks if order.is_buy else self.bids
        left = order.quantity
        passed = 0
        while left and passed < len(others) and _meets(order, others[passed]["price"]):
            resting = others[passed]
            if resting["author"] == author:
                self.self_trades_prevented += 1
                passed += 1
                continue
            quantity = min(left, resting["quantity"])
            self._trade(order, resting, quantity, sequence)
            left -= quantity
            if quantity < resting["quantity"]:
                others[passed] = {**resting, "quantity": resting["quantity"] - quantity}
            else:
                passed += 1
        del others[:passed]
        if left:
            self._rest(order, left, author)

    def cancel(self, order: str) -> None:
        """Take out what is left of an order."""
        self.cancelled += 1
        for side in (self.bids, self.asks):
            for index, resting in enumerate(side):
                if resting["order"] == order:
                    del side[index]
                    return

    def state(self) -> JsonValue:
        """The book as a state, which takes the lists over."""
        return {
            "bids": cast("list[JsonValue]", self.bids),
            "asks": cast("list[JsonValue]", self.asks),
            "trades": [*(self.trades + self._made)[-TRADES_SHOWN:]],
            "tradeCount": self.trade_count,
            "volume": str(self.volume),
            "turnover": str(self.turnover),
            "tradesHash": format_hash(self.trades_hash),
            "placed": self.placed,
            "cancelled": self.cancelled,
            "selfTradesPrevented": self.self_trades_prevented,
        }

    def _trade(self, order: OrderPlaced, resting: _Resting, quantity: int, sequence: int) -> None:
        self.trade_count += 1
        self.volume += quantity
        self.turnover += quantity * resting["price"]
        trade: dict[str, JsonValue] = {
            "number": self.trade_count,
            "sequence": sequence,
            "buy": order.order if order.is_buy else resting["order"],
            "sell": resting["order"] if order.is_buy else order.order,
            "price": resting["price"],
            "quantity": quantity,
        }
        self._made.append(trade)
        self.trades_hash = sha256(_TRADE + self.trades_hash + variable(canonical_json(trade)))

    def _rest(self, order: OrderPlaced, left: int, author: str) -> None:
        own = self.bids if order.is_buy else self.asks
        sign = -1 if order.is_buy else 1
        # Behind all of its own price: they are older.
        at = bisect_right(own, sign * order.price, key=lambda resting: sign * resting["price"])
        own.insert(
            at, {"order": order.order, "price": order.price, "quantity": left, "author": author}
        )


def _meets(order: OrderPlaced, price: int) -> bool:
    return order.price >= price if order.is_buy else order.price <= price


def _book_of(state: JsonValue, sequence: int) -> _Book:
    match state:
        case {
            "bids": list(bids),
            "asks": list(asks),
            "trades": list(trades),
            "tradeCount": int(trade_count),
            "volume": str(volume),
            "turnover": str(turnover),
            "tradesHash": str(trades_hash),
            "placed": int(placed),
            "cancelled": int(cancelled),
            "selfTradesPrevented": int(self_trades_prevented),
        }:
            try:
                return _Book(
                    _objects(bids, sequence),
                    _objects(asks, sequence),
                    _objects(trades, sequence),
                    trade_count,
                    int(volume),
                    int(turnover),
                    parse_hash(trades_hash),
                    placed,
                    cancelled,
                    self_trades_prevented,
                )
            except (ValueError, Malformed) as fault:
                raise _foreign(sequence) from fault
    raise _foreign(sequence)


def _objects(entries: list[JsonValue], sequence: int) -> list[dict[str, Any]]:
    objects = [entry for entry in entries if isinstance(entry, dict)]
    if len(objects) != len(entries):
        raise _foreign(sequence)
    return objects


def _foreign(sequence: int) -> FoldError:
    return FoldError(f"state of orderbook at event {sequence}: expected a book")


ORDERBOOK: Final = Orderbook()
