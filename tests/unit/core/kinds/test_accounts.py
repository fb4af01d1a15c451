"""The kind `accounts`: nothing is made or lost, nobody is overdrawn, and both halves agree.

Run again with the same examples: they are derandomized.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.ledger_factory import ALICE, BOB, Draft, Ledger, author_id, make_genesis

from nocturne.core.genesis import Genesis, KindEntry
from nocturne.core.identifiers import Hash, format_hash
from nocturne.core.kinds import FoldError, Violation
from nocturne.core.kinds import accounts as accounts_module
from nocturne.core.kinds.accounts import ACCOUNTS, PAYLOAD_BYTES_MAX, TOTAL_MAX
from nocturne.core.receipts import Reason, ReceiptHeader
from nocturne.core.strict_json import JsonValue, canonical_json

JSON = "application/json"
SEALED = "application/vnd.nocturne.sealed.v1"
ANN, BEN, EVE = (bytes([number]) * 32 for number in (1, 2, 3))

reproducible = settings(derandomize=True, deadline=None, max_examples=300)
names = st.sampled_from(["ann", "ben", "shop", "a/1"])
amounts = st.one_of(st.integers(1, 60), st.sampled_from([TOTAL_MAX, TOTAL_MAX - 30]))
events = st.one_of(
    st.tuples(st.just("Opened"), st.fixed_dictionaries({"account": names})),
    st.tuples(st.just("Issued"), st.fixed_dictionaries({"account": names, "amount": amounts})),
    st.tuples(
        st.just("Transferred"),
        st.fixed_dictionaries({"from": names, "to": names, "amount": amounts}),
    ),
)
stories = st.lists(st.tuples(events, st.sampled_from([ANN, ANN, BEN])), max_size=40)


@dataclass
class Story:
    """A session: the items of validators and the state of readers, event by event."""

    items: dict[bytes, bytes] = field(default_factory=dict)
    state: JsonValue = field(default_factory=ACCOUNTS.initial)
    sequence: int = 0

    def tell(self, event_type: str, value: Any, author: bytes = ANN) -> str | None:
        return self.tell_bytes(event_type, json.dumps(value).encode("ascii"), author)

    def tell_bytes(
        self, event_type: str, payload: bytes, author: bytes = ANN, content_type: str = JSON
    ) -> str | None:
        """The invariant it would break; None if it stands."""
        event = (event_type, content_type, payload, author, self.sequence + 1)
        answer = ACCOUNTS.apply(self.items, *event)
        if isinstance(answer, Violation):
            assert answer.invariant in ACCOUNTS.invariants
            return answer.invariant
        for key, value in answer.items():
            assert len(key) == 32
            assert value is not None
            self.items[key] = value
        self.state = ACCOUNTS.fold(self.state, *event)
        self.sequence += 1
        return None

    def act(self) -> None:
        """An event of the ledger's own: validators do not ask the kind, readers fold it."""
        self.sequence += 1
        event = ("nocturne.MemberAdded", JSON, b"{}", ANN, self.sequence)
        assert ACCOUNTS.fold(self.state, *event) == self.state

    @property
    def balances(self) -> dict[str, int]:
        assert isinstance(self.state, dict)
        accounts: Any = self.state["accounts"]
        return {name: one["balance"] for name, one in accounts.items()}


def opened(*names: str) -> Story:
    story = Story()
    for name in names:
        assert story.tell("Opened", {"account": name}) is None
    return story


@reproducible
@given(stories)
def test_nothing_is_made_or_lost_and_nobody_is_overdrawn(
    told: list[tuple[tuple[str, dict[str, Any]], bytes]],
) -> None:
    story, total = Story(), 0
    model: dict[str, int] = {}
    holders: dict[str, bytes] = {}
    for (event_type, value), author in told:
        issuer = None if not holders else next(iter(holders.values()))
        name, amount = value.get("account", ""), value.get("amount", 0)
        source, target = value.get("from", ""), value.get("to", "")
        match event_type:
            case "Opened":
                stands = name not in model
            case "Issued":
                stands = name in model and author == issuer and total + amount <= TOTAL_MAX
            case _:
                stands = (
                    source != target
                    and {source, target} <= set(model)
                    and holders[source] == author
                    and model[source] >= amount
                )
        assert (story.tell(event_type, value, author) is None) == stands
        if stands and event_type == "Opened":
            model[name], holders[name] = 0, author
        elif stands and event_type == "Issued":
            model[name] += amount
            total += amount
        elif stands:
            model[source] -= amount
            model[target] += amount
        assert story.balances == model
        assert min(model.values(), default=0) >= 0
        assert sum(model.values()) == total <= TOTAL_MAX
    assert isinstance(story.state, dict)
    assert story.state["total"] == total
    canonical_json(story.state)
    assert_both_halves_agree(story)


def assert_both_halves_agree(story: Story) -> None:
    """What validators hold is exactly what readers show."""
    assert isinstance(story.state, dict)
    accounts: Any = story.state["accounts"]
    shown = {
        accounts_module._key(name): bytes.fromhex(one["holder"][7:])
        + one["balance"].to_bytes(8, "big")
        for name, one in accounts.items()
    }
    held = dict(story.items)
    books = held.pop(accounts_module._BOOKS_KEY, bytes(32) + bytes(16))
    assert held == shown
    total: Any = story.state["total"]
    assert books[32:] == total.to_bytes(8, "big") + len(accounts).to_bytes(8, "big")
    issuer = story.state["issuer"]
    assert issuer == (None if books[:32] == bytes(32) else format_hash(books[:32]))


def test_a_session_shows_holders_balances_issuer_and_total() -> None:
    story = opened("ann")
    assert story.tell("Opened", {"account": "shop"}, BEN) is None
    assert story.tell("Issued", {"account": "ann", "amount": 100}) is None
    assert story.tell("Transferred", {"from": "ann", "to": "shop", "amount": 30}) is None
    assert story.state == {
        "accounts": {
            "ann": {"holder": format_hash(ANN), "balance": 70},
            "shop": {"holder": format_hash(BEN), "balance": 30},
        },
        "issuer": format_hash(ANN),
        "total": 100,
    }


def test_an_overdraft_is_refused_by_name_down_to_the_last_unit() -> None:
    story = opened("ann", "ben")
    story.tell("Issued", {"account": "ann", "amount": 5})
    assert (
        story.tell("Transferred", {"from": "ann", "to": "ben", "amount": 6})
        == "accounts.non_negative"
    )
    assert story.tell("Transferred", {"from": "ann", "to": "ben", "amount": 5}) is None
    assert (
        story.tell("Transferred", {"from": "ann", "to": "ben", "amount": 1})
        == "accounts.non_negative"
    )


def test_only_the_holder_transfers_not_the_issuer_and_not_the_receiver() -> None:
    story = opened("ann")
    story.tell("Opened", {"account": "ben"}, BEN)
    story.tell("Issued", {"account": "ben", "amount": 5})
    move = {"from": "ben", "to": "ann", "amount": 1}
    assert story.tell("Transferred", move, ANN) == "accounts.holder"
    assert story.tell("Transferred", move, EVE) == "accounts.holder"
    assert story.tell("Transferred", move, BEN) is None


def test_only_the_author_of_event_1_issues() -> None:
    story = opened("ann")
    story.tell("Opened", {"account": "ben"}, BEN)
    assert story.tell("Issued", {"account": "ben", "amount": 1}, BEN) == "accounts.issuer"
    assert story.tell("Issued", {"account": "ben", "amount": 1}, ANN) is None


def test_a_session_that_begins_with_an_act_has_no_issuer_whoever_opens_first() -> None:
    story = Story()
    story.act()
    assert story.tell("Opened", {"account": "ben"}, BEN) is None
    assert story.tell("Opened", {"account": "ann"}, ANN) is None
    for author in (ANN, BEN, EVE):
        assert story.tell("Issued", {"account": "ben", "amount": 1}, author) == "accounts.issuer"
    assert_both_halves_agree(story)


def test_an_account_is_opened_once_and_before_it_is_used() -> None:
    story = opened("ann")
    assert story.tell("Opened", {"account": "ann"}, BEN) == "accounts.new_account"
    assert story.tell("Issued", {"account": "ben", "amount": 1}) == "accounts.open_account"
    story.tell("Issued", {"account": "ann", "amount": 9})
    for one, other in (("ann", "ben"), ("ben", "ann")):
        move = {"from": one, "to": other, "amount": 1}
        assert story.tell("Transferred", move) == "accounts.open_account"


def test_the_total_is_bounded_and_so_is_every_balance() -> None:
    story = opened("ann", "ben")
    assert story.tell("Issued", {"account": "ann", "amount": TOTAL_MAX}) is None
    assert story.tell("Issued", {"account": "ben", "amount": 1}) == "accounts.total_max"
    assert story.tell("Transferred", {"from": "ann", "to": "ben", "amount": TOTAL_MAX}) is None
    assert story.balances == {"ann": 0, "ben": TOTAL_MAX}
    canonical_json(story.state)


def test_the_number_of_accounts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts_module, "ACCOUNTS_MAX", 2)
    story = opened("ann", "ben")
    assert story.tell("Opened", {"account": "eve"}) == "accounts.accounts_max"


@pytest.mark.parametrize(
    "event_type,payload",
    [
        ("Opened", b""),
        ("Opened", b"{}"),
        ("Opened", b'"new"'),
        ("Opened", b'{"account":""}'),
        ("Opened", b'{"account":"new\\n"}'),
        ("Opened", b'{"account":"a b"}'),
        ("Opened", b'{"account":"\xc3\xa9"}'),
        ("Opened", b'{"account":"' + b"x" * 65 + b'"}'),
        ("Opened", b'{"account":1}'),
        ("Opened", b'{"account":"new","more":1}'),
        ("Opened", b'{"account":"new","account":"new"}'),
        ("Opened", b'{"account":"new"}' + b" " * PAYLOAD_BYTES_MAX),
        ("Opened", b'{"account":["new"]}'),
        ("opened", b'{"account":"new"}'),
        ("Closed", b'{"account":"new"}'),
        ("Issued", b'{"account":"ann","amount":0}'),
        ("Issued", b'{"account":"ann","amount":-1}'),
        ("Issued", b'{"account":"ann","amount":true}'),
        ("Issued", b'{"account":"ann","amount":1.5}'),
        ("Issued", b'{"account":"ann","amount":"1"}'),
        ("Issued", b'{"account":"ann","amount":9007199254740992}'),
        ("Issued", b'{"account":"ann","amount":1e300}'),
        ("Issued", b'{"account":"ann"}'),
        ("Transferred", b'{"from":"ann","to":"ann","amount":1}'),
        ("Transferred", b'{"from":"ann","to":"ben"}'),
        ("Transferred", b'{"from":"ann","to":"ben","amount":1,"memo":"x"}'),
        ("Transferred", b'{"from":"ann","to":null,"amount":1}'),
    ],
)
def test_an_event_of_another_form_is_refused(event_type: str, payload: bytes) -> None:
    story = opened("ann", "ben")
    story.tell("Issued", {"account": "ann", "amount": 9})
    before = story.state
    assert story.tell_bytes(event_type, payload) == "accounts.form"
    # Readers never meet one; if they did, they would leave the state alone.
    assert ACCOUNTS.fold(before, event_type, JSON, payload, ANN, 4) == before


@pytest.mark.parametrize("content_type", ["text/plain", "application/json; charset=utf-8", SEALED])
def test_another_content_type_is_another_form(content_type: str) -> None:
    story = Story()
    payload = b'{"account":"ann"}'
    assert story.tell_bytes("Opened", payload, content_type=content_type) == "accounts.form"


def test_a_state_without_the_account_that_moves_is_foreign() -> None:
    with pytest.raises(FoldError, match="state of accounts at event 9: expected ann to be open"):
        ACCOUNTS.fold(ACCOUNTS.initial(), "Issued", JSON, b'{"account":"ann","amount":1}', ANN, 9)


# In a ledger ------------------------------------------------------------------------------------


def test_in_a_ledger_an_overdraft_becomes_a_receipt_and_a_sealed_payload_too() -> None:
    ledger = Ledger(with_accounts())
    bank = "bank/1"
    first = ledger.answer(
        ledger.opening(
            bank,
            Draft("Opened", b'{"account":"alice"}'),
            Draft("Opened", b'{"account":"savings"}'),
            Draft("Issued", b'{"account":"alice","amount":10}'),
            kind="accounts",
        )
    )
    assert isinstance(first, tuple)
    assert len(first) == 3
    move = b'{"from":"alice","to":"savings","amount":%d}'
    refused = [
        # The second event of a command sees what the first left: 6 + 6 are more than 10.
        ledger.command(
            bank, Draft("Transferred", move % 6), Draft("Transferred", move % 6), number=2
        ),
        ledger.command(bank, Draft("Transferred", b"\x00" * 64, SEALED), number=3),
        ledger.command(bank, Draft("Opened", b'{"account":"bob"}'), author=BOB, number=4),
    ]
    receipts = [ledger.answer(one) for one in refused]
    assert [
        (one.reason, one.violated_invariant) for one in receipts if isinstance(one, ReceiptHeader)
    ] == [
        (Reason.INVARIANT_VIOLATION, "accounts.non_negative"),
        (Reason.INVARIANT_VIOLATION, "payload.plain"),
        (Reason.NOT_A_MEMBER, ""),
    ]
    last = ledger.answer(ledger.command(bank, Draft("Transferred", move % 10), number=5))
    assert isinstance(last, tuple)
    assert last[0].sequence == 4
    key = accounts_module._key("savings")
    assert ledger.session(bank).item(key) == author_id(ALICE) + (10).to_bytes(8, "big")


def with_accounts() -> Genesis:
    genesis = make_genesis()
    return replace(genesis, kinds=(*genesis.kinds, KindEntry("accounts", 1, Hash(bytes(32)))))
