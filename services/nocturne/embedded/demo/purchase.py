"""One purchase from request to payment, and one supplier: the scripts of the business case. Pure.

Money is in cents, time in working minutes: the departments work nine hours, Monday to Friday.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nocturne.core.commands import Opening
from nocturne.core.decide import ACT_PREFIX
from nocturne.core.identifiers import AuthorId, SessionId, format_hash
from nocturne.core.receipts import Reason
from nocturne.core.strict_json import JsonValue
from nocturne.embedded.demo.steps import (
    Department,
    Fact,
    Script,
    fact,
    member_added,
    patch,
    session_closed,
)

ENGINEERING: Final = Department("engineering")
OPERATIONS: Final = Department("operations")
FACILITIES: Final = Department("facilities")
PROCUREMENT: Final = Department("procurement")
FINANCE: Final = Department("finance")
RECEIVING: Final = Department("receiving")
QUALITY: Final = Department("quality")
PAYABLES: Final = Department("payables")
TREASURY: Final = Department("treasury")
SALES: Final = Department("sales")
"""Of the company, but of no order: it may write in none."""
STRANGER: Final = Department("stranger")
"""Somebody with a key of his own and another's name."""

REQUESTERS: Final = (ENGINEERING, OPERATIONS, FACILITIES)
ORDER_MEMBERS: Final = (PROCUREMENT, FINANCE, RECEIVING, QUALITY, PAYABLES, TREASURY)
SUPPLIER_MEMBERS: Final = (RECEIVING, QUALITY)
DEPARTMENTS: Final = (*REQUESTERS, *ORDER_MEMBERS, SALES, STRANGER)

RELEASED: Final = "PaymentReleased"
"""The event that moves money."""
SECOND_APPROVAL_CENTS: Final = 1_000_000
"""From 10 000.00 on, the treasury approves as well."""
FIRST_DAY_MS: Final = 1_767_571_200_000
"""2026-01-05T00:00:00Z, a Monday."""

IS_OUTDATED_ONCE: Final = 1
STAYS_OPEN: Final = 2
"""Numbers of orders that are told about in every case, however short it is."""

_DOCUMENT: Final = Opening("document", 1)
_FACTS: Final = Opening("facts", 1)
_WORKDAY_MINUTES: Final = 540
_WORKDAY_BEGINS_MINUTES: Final = 480
_MINUTE_MS: Final = 60_000
_DAY_MS: Final = 86_400_000

_COST_CENTRES: Final = {ENGINEERING: "4100", OPERATIONS: "5200", FACILITIES: "6300"}
_ITEMS: Final = (
    ("Bearing 6204-2RS", 345),
    ("Servo motor 750 W", 41_900),
    ("Hydraulic hose 3/8", 2_780),
    ("Stainless sheet 2 mm", 8_850),
    ("PLC input module", 23_400),
    ("Safety relay", 11_250),
    ("Laboratory pipette set", 18_990),
    ("Pallet racking bay", 27_500),
    ("Laser distance sensor", 36_700),
    ("Label roll, thermal", 1_240),
    ("Nitrile gloves, box", 890),
    ("Workstation", 129_900),
)


@dataclass(frozen=True, slots=True)
class Supplier:
    """Who delivers; `key` is the end of its session's id."""

    key: str
    name: str
    city: str

    @property
    def session(self) -> SessionId:
        """Where the facts about it stand."""
        return SessionId(f"suppliers/{self.key}")


SUPPLIERS: Final = (
    Supplier("brandt-bearings", "Brandt Bearings", "Bremen"),
    Supplier("castellan-drives", "Castellan Drives", "Turin"),
    Supplier("delmar-hydraulics", "Delmar Hydraulics", "Valencia"),
    Supplier("eisenhof-metals", "Eisenhof Metals", "Linz"),
    Supplier("fjord-automation", "Fjord Automation", "Bergen"),
    Supplier("garrick-safety", "Garrick Safety", "Leeds"),
    Supplier("helix-laboratory", "Helix Laboratory", "Utrecht"),
    Supplier("isola-storage", "Isola Storage", "Parma"),
    Supplier("juniper-optics", "Juniper Optics", "Lausanne"),
    Supplier("kestrel-labels", "Kestrel Labels", "Cork"),
    Supplier("lindqvist-supply", "Lindqvist Supply", "Malmö"),
    Supplier("moreau-computing", "Moreau Computing", "Lyon"),
)


class Clock:
    """Working time of one session: it only goes forward, by at least a minute."""

    def __init__(self, minute: int, offset_ms: int) -> None:
        self._minute = minute
        self._offset_ms = offset_ms

    def after(self, minutes: int) -> int:
        """The time (ms) so many working minutes on."""
        self._minute += max(1, minutes)
        day, minute = divmod(self._minute, _WORKDAY_MINUTES)
        calendar_day = day // 5 * 7 + day % 5
        return (
            FIRST_DAY_MS
            + calendar_day * _DAY_MS
            + (_WORKDAY_BEGINS_MINUTES + minute) * _MINUTE_MS
            + self._offset_ms
        )


# A supplier ------------------------------------------------------------------------------------


def begin_supplier(supplier: Supplier, authors: Mapping[Department, AuthorId]) -> Script:
    """Procurement opens the supplier's session before the first working minute."""
    script = Script(supplier.session, _FACTS)
    signed = fact(
        "ContractSigned", supplier=supplier.name, city=supplier.city, terms="30 days net", year=2026
    )
    members = [member_added(authors[name]) for name in SUPPLIER_MEMBERS]
    script.does(FIRST_DAY_MS, PROCUREMENT, signed, *members)
    return script


def note_delivery(script: Script, number: int, at: int, dice: random.Random) -> None:
    """Something that the gate or the laboratory notes about a supplier."""
    if dice.random() < 0.2:
        score = dice.randint(82, 100)
        script.adds(at, QUALITY, fact("SupplierScored", score=score, sample=f"S-{number:05d}"))
        return
    scans = [
        fact(
            "PalletScanned",
            pallet=f"{number:06d}-{index + 1}",
            gate=dice.choice(("A", "B", "C")),
            weightKg=dice.randint(40, 900),
            sealIntact=dice.random() < 0.99,
        )
        for index in range(dice.choice((1, 1, 1, 2, 3)))
    ]
    script.adds(at, RECEIVING, *scans)


# A purchase order --------------------------------------------------------------------------------


def order_session(number: int) -> SessionId:
    """`orders/PO-2026-00042`."""
    return SessionId(f"orders/PO-2026-{number:05d}")


def purchase(
    number: int, minute: int, authors: Mapping[Department, AuthorId], dice: random.Random
) -> Script:
    """The script of order `number`, which begins at working minute `minute`."""
    return _Purchase(number, minute, authors, dice).script


class _Purchase:
    """Tells one order's story; every department does its part, and some do what they may not."""

    def __init__(
        self,
        number: int,
        minute: int,
        authors: Mapping[Department, AuthorId],
        dice: random.Random,
    ) -> None:
        self.number = number
        self.authors = authors
        self.dice = dice
        self.clock = Clock(minute, number * 7 % _MINUTE_MS)
        self.script = Script(order_session(number), _DOCUMENT)
        self.requester = dice.choice(REQUESTERS)
        self.supplier = dice.choice(SUPPLIERS)
        self.lines: list[JsonValue] = [self._line() for _ in range(dice.randint(1, 3))]
        self.total_cents = sum(_line_cents(line) for line in self.lines)
        self._tell()

    def _tell(self) -> None:
        self._request()
        self._choose_supplier()
        self._approve()
        self._place()
        self._receive()
        if self.number != IS_OUTDATED_ONCE and self._happens(0.12, on_order=STAYS_OPEN):
            return  # Still on its way when the case ends.
        self._check_invoice()
        self._pay()
        self._complete()

    def _request(self) -> None:
        if self._happens(0.03):
            sheet = patch("OrderRequested", order=f"PO-2026-{self.number:05d}")
            self.script.opens_wrongly(
                self._later(1), self.requester, Opening("spreadsheet", 1), sheet
            )
        request = patch(
            "OrderRequested",
            order=f"PO-2026-{self.number:05d}",
            status="requested",
            requestedBy=self.requester,
            costCentre=_COST_CENTRES[self.requester],
            currency="EUR",
            lines=self.lines,
            totalCents=self.total_cents,
        )
        members = [member_added(self.authors[name]) for name in ORDER_MEMBERS]
        self.script.does(self._later(1), self.requester, request, *members)

    def _choose_supplier(self) -> None:
        for index in range(self.dice.randint(2, 3)):
            cents = self.total_cents + self.dice.randint(-self.total_cents // 10, 0) * index
            quote = patch(
                "QuoteReceived", quotes={f"Q{index + 1}": {"totalCents": cents, "validDays": 30}}
            )
            self.script.does(self._later(240), PROCUREMENT, quote)
        if self._happens(0.05):
            cheap = patch("QuoteReceived", quotes={"Q9": {"totalCents": 1}})
            self.script.is_refused(self._later(10), SALES, Reason.NOT_A_MEMBER, cheap)
        chosen = patch("SupplierChosen", supplier=self.supplier.name, city=self.supplier.city)
        self.script.does(self._later(120), PROCUREMENT, chosen)

    def _approve(self) -> None:
        checked = patch(
            "BudgetChecked", budget={"costCentre": _COST_CENTRES[self.requester], "covered": True}
        )
        self.script.does(self._later(180), FINANCE, checked)
        approved = patch("OrderApproved", status="approved", approvals={"finance": True})
        if self._happens(0.10, on_order=IS_OUTDATED_ONCE):
            # Approved on a screen that did not show the budget check yet.
            self.script.is_refused(
                self._later(5), FINANCE, Reason.DUPLICATE_SEQ, approved, behind=1
            )
        if self._happens(0.03):
            self.script.is_forged(self._later(5), FINANCE, STRANGER, approved)
        self.script.does(self._later(30), FINANCE, approved)
        if self.total_cents >= SECOND_APPROVAL_CENTS:
            second = patch("OrderApproved", approvals={"treasury": True})
            self.script.does(self._later(200), TREASURY, second)

    def _place(self) -> None:
        placed = patch("OrderPlaced", status="placed", placedWith=self.supplier.name)
        self.script.does(self._later(60), PROCUREMENT, placed)
        days = self.dice.randint(3, 15)
        self.script.does(
            self._later(300), PROCUREMENT, patch("OrderConfirmed", confirmed={"leadDays": days})
        )

    def _receive(self) -> None:
        parts = self.dice.choice((1, 1, 2, 3))
        for part in range(1, parts + 1):
            note = f"D{part}"
            self.script.does(
                self._later(900),
                RECEIVING,
                patch("GoodsReceived", status="received", deliveries={note: {"of": parts}}),
            )
            passed = patch("GoodsInspected", deliveries={note: {"inspected": True, "defects": 0}})
            self.script.does(self._later(90), QUALITY, passed)

    def _check_invoice(self) -> None:
        invoice = f"R-{self.number:05d}"
        self.script.does(
            self._later(400),
            PAYABLES,
            patch("InvoiceReceived", invoice={"number": invoice, "totalCents": self.total_cents}),
        )
        matched = patch("InvoiceMatched", status="matched", invoice={"threeWayMatch": True})
        self.script.does(self._later(60), PAYABLES, matched)

    def _pay(self) -> None:
        scheduled = patch("PaymentScheduled", payment={"totalCents": self.total_cents})
        self.script.does(self._later(30), PAYABLES, scheduled)
        self.script.does(
            self._later(100), FINANCE, patch("PaymentApproved", payment={"approvedBy": "finance"})
        )
        released = self.script.does(self._later(50), TREASURY, self._release(self._account()))
        if self._happens(0.06):
            self.script.comes_again(self._later(2), released)
        if self._happens(0.03):
            self.script.comes_changed(self._later(2), released, self._release(self._account()))

    def _complete(self) -> None:
        if self._happens(0.03):
            # An order without an owner could never be closed.
            alone = fact(
                f"{ACT_PREFIX}MemberRemoved", author=format_hash(self.authors[self.requester])
            )
            self.script.is_refused(
                self._later(60), self.requester, Reason.INVARIANT_VIOLATION, alone
            )
        completed = patch("OrderCompleted", status="completed")
        self.script.does(self._later(300), self.requester, completed, session_closed())
        if self._happens(0.05):
            late = patch("InvoiceReceived", invoice={"number": f"R-{self.number:05d}-B"})
            self.script.is_refused(self._later(600), PAYABLES, Reason.SESSION_CLOSED, late)

    def _release(self, account: str) -> Fact:
        return patch(
            RELEASED,
            status="paid",
            payment={"account": account, "totalCents": self.total_cents},
        )

    def _account(self) -> str:
        return f"DE{self.dice.randint(10, 99)}{self.dice.randint(10**17, 10**18 - 1)}"

    def _line(self) -> JsonValue:
        item, price_cents = self.dice.choice(_ITEMS)
        return {"item": item, "quantity": self.dice.randint(1, 40), "unitPriceCents": price_cents}

    def _later(self, minutes: int) -> int:
        return self.clock.after(self.dice.randint(minutes // 2, minutes + minutes // 2))

    def _happens(self, chance: float, on_order: int = 0) -> bool:
        """By chance; on the order of that number always."""
        return self.dice.random() < chance or self.number == on_order


def _line_cents(line: JsonValue) -> int:
    match line:
        case {"quantity": int(quantity), "unitPriceCents": int(price)}:
            return quantity * price
    raise AssertionError("a line has a quantity and a price")
