"""The kind `orderbook`, against a matcher that looks at every order for every trade.

Run again with the same examples: they are derandomized.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nocturne.core.identifiers import format_hash
from nocturne.core.kinds import FoldError, Violation
from nocturne.core.kinds import orderbook as orderbook_module
from nocturne.core.kinds.orderbook import NUMBER_MAX, ORDERBOOK, PAYLOAD_BYTES_MAX, TRADES_SHOWN
from nocturne.core.strict_json import JsonValue, canonical_json

JSON = "application/json"
ANN, BEN, EVE = (bytes([number]) * 32 for number in (1, 2, 3))

reproducible = settings(derandomize=True, deadline=None, max_examples=300)
names = st.integers(0, 25).map("o-{}".format)
wishes = st.one_of(
    st.tuples(
        st.just("OrderPlaced"),
        st.fixed_dictionaries(
            {
                "order": names,
                "side": st.sampled_from(["buy", "sell"]),
                "price": st.integers(1, 6),
                "quantity": st.integers(1, 9),
            }
        ),
    ),
    st.tuples(st.just("OrderCancelled"), st.fixed_dictionaries({"order": names})),
)
stories = st.lists(st.tuples(wishes, st.sampled_from([ANN, BEN, EVE])), max_size=40)


@dataclass
class Story:
    """A session: the items of validators and the state of readers, event by event."""

    items: dict[bytes, bytes] = field(default_factory=dict)
    state: JsonValue = field(default_factory=ORDERBOOK.initial)
    sequence: int = 0

    def tell(self, event_type: str, value: Any, author: bytes = ANN) -> str | None:
        return self.tell_bytes(event_type, json.dumps(value).encode("ascii"), author)

    def tell_bytes(self, event_type: str, payload: bytes, author: bytes = ANN) -> str | None:
        """The invariant it would break; None if it stands."""
        event = (event_type, JSON, payload, author, self.sequence + 1)
        answer = ORDERBOOK.apply(self.items, *event)
        if isinstance(answer, Violation):
            assert answer.invariant in ORDERBOOK.invariants
            return answer.invariant
        for key, value in answer.items():
            assert value is not None
            self.items[key] = value
        before = copy.deepcopy(self.state)
        after = ORDERBOOK.fold(self.state, *event)
        assert self.state == before, "the state before stays as it was"
        self.state = after
        self.sequence += 1
        return None

    def place(
        self, order: str, side: str, price: int, quantity: int, author: bytes = ANN
    ) -> str | None:
        value = {"order": order, "side": side, "price": price, "quantity": quantity}
        return self.tell("OrderPlaced", value, author)

    def cancel(self, order: str, author: bytes = ANN) -> str | None:
        return self.tell("OrderCancelled", {"order": order}, author)

    def __getitem__(self, name: str) -> Any:
        assert isinstance(self.state, dict)
        return self.state[name]

    def book(self, side: str) -> list[tuple[str, int, int]]:
        return [(one["order"], one["price"], one["quantity"]) for one in self[side]]

    def trades(self) -> list[tuple[str, str, int, int]]:
        return [(t["buy"], t["sell"], t["price"], t["quantity"]) for t in self["trades"]]


@dataclass
class Offer:
    """An order of the naive matcher."""

    order: str
    side: str
    price: int
    left: int
    author: bytes
    arrived: int


class Naive:
    """The rules once more, without any order kept: each step looks at all offers."""

    def __init__(self) -> None:
        self.offers: list[Offer] = []
        self.trades: list[dict[str, Any]] = []
        self.placed: dict[str, bytes] = {}
        self.cancelled: set[str] = set()
        self.prevented = 0

    def stands(self, event_type: str, value: dict[str, Any], author: bytes) -> bool:
        order = value["order"]
        if event_type == "OrderPlaced":
            return order not in self.placed
        return self.placed.get(order) == author and order not in self.cancelled

    def tell(self, event_type: str, value: dict[str, Any], author: bytes, sequence: int) -> None:
        if event_type == "OrderCancelled":
            self.cancelled.add(value["order"])
            self.offers = [one for one in self.offers if one.order != value["order"]]
            return
        self.placed[value["order"]] = author
        taker = Offer(
            value["order"], value["side"], value["price"], value["quantity"], author, sequence
        )
        while taker.left and (maker := self._best_for(taker)) is not None:
            if maker.author == author:
                self.prevented += 1
                self.offers.remove(maker)
                continue
            quantity = min(taker.left, maker.left)
            buy, sell = (taker, maker) if taker.side == "buy" else (maker, taker)
            self.trades.append(
                {
                    "number": len(self.trades) + 1,
                    "sequence": sequence,
                    "buy": buy.order,
                    "sell": sell.order,
                    "price": maker.price,
                    "quantity": quantity,
                }
            )
            taker.left -= quantity
            maker.left -= quantity
            if not maker.left:
                self.offers.remove(maker)
        if taker.left:
            self.offers.append(taker)

    def _best_for(self, taker: Offer) -> Offer | None:
        if taker.side == "buy":
            meeting = [o for o in self.offers if o.side == "sell" and o.price <= taker.price]
            return min(meeting, key=lambda o: (o.price, o.arrived), default=None)
        meeting = [o for o in self.offers if o.side == "buy" and o.price >= taker.price]
        return min(meeting, key=lambda o: (-o.price, o.arrived), default=None)

    def state(self) -> dict[str, Any]:
        def side(name: str, sign: int) -> list[dict[str, Any]]:
            offers = [one for one in self.offers if one.side == name]
            offers.sort(key=lambda o: (sign * o.price, o.arrived))
            return [
                {
                    "order": o.order,
                    "price": o.price,
                    "quantity": o.left,
                    "author": format_hash(o.author),
                }
                for o in offers
            ]

        chained = bytes(32)
        for trade in self.trades:
            printed = json.dumps(trade, sort_keys=True, separators=(",", ":")).encode("ascii")
            tag = b"nocturne/orderbook/trade/v1"
            length = len(printed).to_bytes(4, "big")
            chained = sha256(bytes([len(tag)]) + tag + chained + length + printed).digest()
        return {
            "bids": side("buy", -1),
            "asks": side("sell", 1),
            "trades": self.trades[-TRADES_SHOWN:],
            "tradeCount": len(self.trades),
            "volume": str(sum(trade["quantity"] for trade in self.trades)),
            "turnover": str(sum(trade["price"] * trade["quantity"] for trade in self.trades)),
            "tradesHash": format_hash(chained),
            "placed": len(self.placed),
            "cancelled": len(self.cancelled),
            "selfTradesPrevented": self.prevented,
        }


@reproducible
@given(stories, st.sampled_from([1, 3, TRADES_SHOWN]))
def test_a_book_is_what_the_naive_matcher_gives(
    told: list[tuple[tuple[str, dict[str, Any]], bytes]], shown: int
) -> None:
    story, naive = Story(), Naive()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(orderbook_module, "TRADES_SHOWN", shown)
        for (event_type, value), author in told:
            stands = naive.stands(event_type, value, author)
            assert (story.tell(event_type, value, author) is None) == stands
            if stands:
                naive.tell(event_type, value, author, story.sequence)
                expected = naive.state()
                assert story.state == {**expected, "trades": naive.trades[-shown:]}
        canonical_json(story.state)
        assert_nothing_is_lost(story, naive)


def assert_nothing_is_lost(story: Story, naive: Naive) -> None:
    """Bids stay below asks of others, and what was traded is gone from both sides alike."""
    for bid in story["bids"]:
        for ask in story["asks"]:
            assert bid["price"] < ask["price"]
    bought: dict[str, int] = {}
    for trade in naive.trades:
        for order in (trade["buy"], trade["sell"]):
            bought[order] = bought.get(order, 0) + trade["quantity"]
    assert sum(bought.values()) == 2 * int(story["volume"])


def test_the_better_price_trades_first_and_at_the_price_that_rested() -> None:
    story = Story()
    for order, price in (("dear", 12), ("cheap", 10), ("middle", 11)):
        story.place(order, "sell", price, 5)
    assert story.place("b", "buy", 12, 12, BEN) is None
    assert story.trades() == [("b", "cheap", 10, 5), ("b", "middle", 11, 5), ("b", "dear", 12, 2)]
    assert story.book("asks") == [("dear", 12, 3)]
    assert (story["volume"], story["turnover"]) == ("12", "129")


def test_at_one_price_the_oldest_trades_first_and_keeps_its_place_when_partly_filled() -> None:
    story = Story()
    for order in ("first", "second"):
        story.place(order, "buy", 10, 5)
    story.place("s1", "sell", 10, 2, BEN)
    assert story.book("bids") == [("first", 10, 3), ("second", 10, 5)]
    story.place("s2", "sell", 9, 4, BEN)
    assert story.trades()[1:] == [("first", "s2", 10, 3), ("second", "s2", 10, 1)]
    assert story.book("bids") == [("second", 10, 4)]


def test_what_does_not_trade_rests() -> None:
    story = Story()
    story.place("s", "sell", 11, 5)
    story.place("b", "buy", 10, 5, BEN)
    assert story.trades() == []
    assert (story.book("bids"), story.book("asks")) == ([("b", 10, 5)], [("s", 11, 5)])
    story.place("more", "buy", 11, 8, BEN)
    assert story.book("bids") == [("more", 11, 3), ("b", 10, 5)]
    assert story.book("asks") == []


def test_nobody_trades_with_itself_the_resting_order_goes() -> None:
    story = Story()
    story.place("mine", "sell", 10, 5, ANN)
    story.place("other", "sell", 10, 5, BEN)
    story.place("too-dear", "sell", 12, 5, ANN)
    story.place("b", "buy", 11, 8, ANN)
    assert story.trades() == [("b", "other", 10, 5)]
    assert story.book("bids") == [("b", 11, 3)]
    assert story.book("asks") == [("too-dear", 12, 5)]
    assert story["selfTradesPrevented"] == 1


def test_an_order_is_cancelled_once_and_only_by_its_author() -> None:
    story = Story()
    story.place("b", "buy", 10, 5, ANN)
    assert story.cancel("b", BEN) == "orderbook.own_order"
    assert story.cancel("unknown", ANN) == "orderbook.placed_order"
    assert story.cancel("b", ANN) is None
    assert story.book("bids") == []
    assert story.cancel("b", ANN) == "orderbook.cancelled_once"
    assert story.cancel("b", BEN) == "orderbook.own_order"


def test_a_name_is_used_once_also_after_the_order_is_gone() -> None:
    story = Story()
    story.place("b", "buy", 10, 5)
    assert story.place("b", "sell", 20, 1, BEN) == "orderbook.new_order"
    story.cancel("b")
    assert story.place("b", "buy", 10, 5) == "orderbook.new_order"


def test_cancelling_what_was_filled_changes_nothing_but_the_count() -> None:
    story = Story()
    story.place("b", "buy", 10, 5, ANN)
    story.place("s", "sell", 10, 9, BEN)
    before = story.state
    assert isinstance(before, dict)
    assert story.cancel("b") is None
    assert story.state == {**before, "cancelled": 1}


def test_an_author_id_that_ends_like_a_mark_is_not_taken_for_one() -> None:
    story = Story()
    author = bytes(31) + b"\x01"
    story.place("b", "buy", 10, 5, author)
    assert story.cancel("b", author) is None
    assert story.cancel("b", author) == "orderbook.cancelled_once"


def test_the_number_of_orders_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orderbook_module, "ORDERS_MAX", 2)
    story = Story()
    story.place("a", "buy", 1, 1)
    story.place("b", "buy", 1, 1)
    assert story.place("c", "buy", 1, 1) == "orderbook.orders_max"
    assert story.cancel("a") is None
    assert story.place("c", "buy", 1, 1) == "orderbook.orders_max"


def test_sums_stay_exact_beyond_what_json_counts() -> None:
    story = Story()
    for number in range(3):
        story.place(f"s{number}", "sell", NUMBER_MAX, NUMBER_MAX, ANN)
        story.place(f"b{number}", "buy", NUMBER_MAX, NUMBER_MAX, BEN)
    assert story["turnover"] == str(3 * NUMBER_MAX**2)
    canonical_json(story.state)


def good(**changes: Any) -> bytes:
    value = {"order": "x", "side": "buy", "price": 1, "quantity": 1, **changes}
    return json.dumps({name: one for name, one in value.items() if one is not ...}).encode()


@pytest.mark.parametrize(
    "event_type,payload",
    [
        ("OrderPlaced", b""),
        ("OrderPlaced", b"[]"),
        ("orderPlaced", good()),
        ("Placed", good()),
        ("OrderPlaced", good(order="")),
        ("OrderPlaced", good(order="x" * 65)),
        ("OrderPlaced", good(order="a b")),
        ("OrderPlaced", good(order="x\n")),
        ("OrderPlaced", good(order=1)),
        ("OrderPlaced", good(side="Buy")),
        ("OrderPlaced", good(side=1)),
        ("OrderPlaced", good(price=0)),
        ("OrderPlaced", good(price=-1)),
        ("OrderPlaced", good(price=True)),
        ("OrderPlaced", good(price=1.5)),
        ("OrderPlaced", good(price="1")),
        ("OrderPlaced", good(price=NUMBER_MAX + 1)),
        ("OrderPlaced", good(quantity=0)),
        ("OrderPlaced", good(quantity=False)),
        ("OrderPlaced", good(quantity=NUMBER_MAX + 1)),
        ("OrderPlaced", good(quantity=...)),
        ("OrderPlaced", good(memo="x")),
        ("OrderPlaced", good() + b" " * PAYLOAD_BYTES_MAX),
        ("OrderPlaced", good(order=["x"])),
        ("OrderCancelled", b"{}"),
        ("OrderCancelled", b'{"order":"b","why":"x"}'),
        ("OrderCancelled", b'{"order":null}'),
    ],
)
def test_an_event_of_another_form_is_refused(event_type: str, payload: bytes) -> None:
    story = Story()
    story.place("b", "buy", 1, 1)
    before = story.state
    assert story.tell_bytes(event_type, payload) == "orderbook.form"
    # Readers never meet one; if they did, they would leave the state alone.
    assert ORDERBOOK.fold(before, event_type, JSON, payload, ANN, 2) == before
    assert story.tell_bytes("OrderPlaced", good()) is None


@pytest.mark.parametrize(
    "changes", [{"bids": [1]}, {"volume": "x"}, {"tradesHash": "x"}, {"placed": None}]
)
def test_a_damaged_book_is_foreign(changes: dict[str, Any]) -> None:
    state = ORDERBOOK.initial()
    assert isinstance(state, dict)
    with pytest.raises(FoldError, match="state of orderbook at event 3"):
        ORDERBOOK.fold({**state, **changes}, "OrderPlaced", JSON, good(), ANN, 3)
