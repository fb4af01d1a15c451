"""The kind `accounts`, version 1: whole amounts in accounts that are never overdrawn.

Rules: docs/spec/ledger.md, session kinds. Validators read every payload, so a sealed one is
refused. Three events, told apart by their type; content type `CONTENT_TYPE`, to the letter, and a
payload that is JSON by `strict_json` of exactly this form:

    Opened       {"account": "ann"}
    Issued       {"account": "ann", "amount": 100}
    Transferred  {"from": "ann", "to": "shop", "amount": 30}

Whoever opens an account holds it; only the holder transfers from it. Only the session's issuer
issues: the author of its event 1, if that is `Opened`. A session that begins with an act has no
issuer, so that no member can make itself one. Amounts are whole and at least 1. What was issued in
all is at most `TOTAL_MAX`; no balance can be more. The state of readers:

    {"accounts": {"ann": {"holder": "sha256-…", "balance": 70}, …}, "issuer": "sha256-…",
     "total": 100}
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from nocturne.core.encoding import domain, sha256, u64
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import format_hash
from nocturne.core.kinds.kind import FoldError, KindChanges, KindItems, Violation
from nocturne.core.strict_json import INTEGER_MAX, JsonValue, parse_json

CONTENT_TYPE: Final = "application/json"
PAYLOAD_BYTES_MAX: Final = 1024
"""Several times what two names and an amount take, white space and all."""
PAYLOAD_DEPTH_MAX: Final = 1
TOTAL_MAX: Final = INTEGER_MAX
"""2^53 - 1: every reader of JSON keeps it exact."""
ACCOUNTS_MAX: Final = 65_536
"""Of a session: validators hold each account in memory, readers copy the list of them."""

FORM: Final = "accounts.form"
NEW_ACCOUNT: Final = "accounts.new_account"
OPEN_ACCOUNT: Final = "accounts.open_account"
ACCOUNTS_BOUND: Final = "accounts.accounts_max"
ISSUER: Final = "accounts.issuer"
TOTAL_BOUND: Final = "accounts.total_max"
HOLDER: Final = "accounts.holder"
NON_NEGATIVE: Final = "accounts.non_negative"

_NAME: Final = re.compile(r"[A-Za-z0-9._:/@-]{1,64}\Z")
_ACCOUNT: Final = domain("nocturne/accounts/account/v1")
_BOOKS_KEY: Final = sha256(domain("nocturne/accounts/books/v1"))
_BALANCE_BYTES: Final = 8
_NOBODY: Final = bytes(32)
"""Stands for the issuer of a session that has none; no author id is known to be it."""


@dataclass(frozen=True, slots=True)
class Opened:
    """The author holds a new account."""

    account: str


@dataclass(frozen=True, slots=True)
class Issued:
    """The issuer adds to an account."""

    account: str
    amount: int


@dataclass(frozen=True, slots=True)
class Transferred:
    """The holder of one account pays into another."""

    source: str
    target: str
    amount: int


Entry: TypeAlias = Opened | Issued | Transferred


@dataclass(frozen=True, slots=True)
class Accounts:
    """Balances that stay at or above zero."""

    name: str = "accounts"
    version: int = 1
    reads_payloads: bool = True
    invariants: tuple[str, ...] = (
        FORM,
        NEW_ACCOUNT,
        OPEN_ACCOUNT,
        ACCOUNTS_BOUND,
        ISSUER,
        TOTAL_BOUND,
        HOLDER,
        NON_NEGATIVE,
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
        """The accounts that the event changes, or the first invariant it would break."""
        entry = read_entry(event_type, content_type, payload)
        books = _books_of(items.get(_BOOKS_KEY), author, sequence)
        match entry:
            case None:
                return Violation(FORM)
            case Opened():
                return _open(items, books, entry, author)
            case Issued():
                return _issue(items, books, entry, author)
            case Transferred():
                return _transfer(items, books, entry, author)

    def initial(self) -> JsonValue:
        """No account, no issuer, nothing issued."""
        return {"accounts": {}, "issuer": None, "total": 0}

    def fold(
        self,
        state: JsonValue,
        event_type: str,
        content_type: str,
        payload: bytes,
        author: bytes,
        sequence: int,
    ) -> JsonValue:
        """The accounts after an event that stands; an event of another form changes nothing."""
        match state:
            case {"accounts": dict(accounts), "issuer": issuer, "total": int(total)}:
                pass
            case _:
                raise FoldError(
                    f"state of accounts at event {sequence}: expected accounts, issuer and total"
                )
        entry = read_entry(event_type, content_type, payload)
        if entry is None:
            return state
        if sequence == 1:
            issuer = format_hash(author)
        changed: dict[str, JsonValue] = {}
        match entry:
            case Opened():
                changed[entry.account] = {"holder": format_hash(author), "balance": 0}
            case Issued():
                changed[entry.account] = _moved(accounts, entry.account, entry.amount, sequence)
                total += entry.amount
            case Transferred():
                changed[entry.source] = _moved(accounts, entry.source, -entry.amount, sequence)
                changed[entry.target] = _moved(accounts, entry.target, entry.amount, sequence)
        return {"accounts": {**accounts, **changed}, "issuer": issuer, "total": total}


def read_entry(event_type: str, content_type: str, payload: bytes) -> Entry | None:
    """What an event says, None if it is not of the form of its type."""
    read = _READ.get(event_type)
    if read is None or content_type != CONTENT_TYPE:
        return None
    try:
        return read(parse_json(payload, PAYLOAD_BYTES_MAX, PAYLOAD_DEPTH_MAX))
    except Malformed:
        return None


def _read_opened(value: JsonValue) -> Entry | None:
    match value:
        case {"account": str(account), **rest} if not rest and _NAME.match(account):
            return Opened(account)
    return None


def _read_issued(value: JsonValue) -> Entry | None:
    match value:
        case {"account": str(account), "amount": int(amount), **rest} if (
            not rest and _NAME.match(account) and _is_amount(amount)
        ):
            return Issued(account, amount)
    return None


def _read_transferred(value: JsonValue) -> Entry | None:
    match value:
        case {"from": str(source), "to": str(target), "amount": int(amount), **rest} if (
            not rest
            and _NAME.match(source)
            and _NAME.match(target)
            and source != target
            and _is_amount(amount)
        ):
            return Transferred(source, target, amount)
    return None


_READ: Final[dict[str, Callable[[JsonValue], Entry | None]]] = {
    "Opened": _read_opened,
    "Issued": _read_issued,
    "Transferred": _read_transferred,
}


def _is_amount(number: int) -> bool:
    # True is no number, though Python counts it among its integers.
    return type(number) is int and 1 <= number <= INTEGER_MAX


# Validators ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Books:
    """What a session keeps beside its accounts: 32 bytes issuer, u64 total, u64 accounts."""

    issuer: bytes
    total: int
    accounts: int

    def encode(self) -> bytes:
        return self.issuer + u64(self.total) + u64(self.accounts)


@dataclass(frozen=True, slots=True)
class _Account:
    """32 bytes holder, u64 balance."""

    holder: bytes
    balance: int

    def after(self, moved: int) -> bytes:
        return self.holder + u64(self.balance + moved)


def _books_of(item: bytes | None, author: bytes, sequence: int) -> _Books:
    if item is None:
        return _Books(author if sequence == 1 else _NOBODY, 0, 0)
    total, accounts = item[32 : 32 + _BALANCE_BYTES], item[32 + _BALANCE_BYTES :]
    return _Books(item[:32], int.from_bytes(total, "big"), int.from_bytes(accounts, "big"))


def _key(account: str) -> bytes:
    return sha256(_ACCOUNT + account.encode("ascii"))


def _account(items: KindItems, account: str) -> _Account | None:
    item = items.get(_key(account))
    return None if item is None else _Account(item[:32], int.from_bytes(item[32:], "big"))


def _open(items: KindItems, books: _Books, entry: Opened, author: bytes) -> KindChanges | Violation:
    if _account(items, entry.account) is not None:
        return Violation(NEW_ACCOUNT)
    if books.accounts == ACCOUNTS_MAX:
        return Violation(ACCOUNTS_BOUND)
    return {
        _key(entry.account): _Account(author, 0).after(0),
        _BOOKS_KEY: _Books(books.issuer, books.total, books.accounts + 1).encode(),
    }


def _issue(
    items: KindItems, books: _Books, entry: Issued, author: bytes
) -> KindChanges | Violation:
    account = _account(items, entry.account)
    if account is None:
        return Violation(OPEN_ACCOUNT)
    if author != books.issuer:
        return Violation(ISSUER)
    if books.total + entry.amount > TOTAL_MAX:
        return Violation(TOTAL_BOUND)
    return {
        _key(entry.account): account.after(entry.amount),
        _BOOKS_KEY: _Books(books.issuer, books.total + entry.amount, books.accounts).encode(),
    }


def _transfer(
    items: KindItems, books: _Books, entry: Transferred, author: bytes
) -> KindChanges | Violation:
    source, target = _account(items, entry.source), _account(items, entry.target)
    if source is None or target is None:
        return Violation(OPEN_ACCOUNT)
    if author != source.holder:
        return Violation(HOLDER)
    if entry.amount > source.balance:
        return Violation(NON_NEGATIVE)
    return {
        _key(entry.source): source.after(-entry.amount),
        _key(entry.target): target.after(entry.amount),
    }


# Readers ---------------------------------------------------------------------------------------


def _moved(
    accounts: dict[str, JsonValue], account: str, amount: int, sequence: int
) -> dict[str, JsonValue]:
    match accounts.get(account):
        case {"holder": str(holder), "balance": int(balance)}:
            return {"holder": holder, "balance": balance + amount}
    raise FoldError(f"state of accounts at event {sequence}: expected {account} to be open")


ACCOUNTS: Final = Accounts()
