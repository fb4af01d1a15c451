"""Who may call what: the access file, and the decision on one call. Pure.

Rules: docs/guides/security.md, docs/adr/0007. A principal is a name with roles; it shows itself by
a token or by a client certificate. The file holds no secret, only the tokens' SHA-256:

    {"principals": [{"name": "shop", "roles": ["submit", "read"],
                     "tokens": ["sha256-<hex>"], "certificates": ["shop.example.com"]}]}

What is not listed is refused: an unknown method as well as an unknown principal.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hmac import compare_digest
from string import ascii_lowercase, ascii_uppercase
from typing import Final, TypeVar

from nocturne.core.encoding import sha256
from nocturne.core.errors import Malformed
from nocturne.core.identifiers import Hash, is_hash, parse_hash
from nocturne.core.json_fields import Fields, shown
from nocturne.core.strict_json import parse_json

ACCESS_BYTES_MAX: Final = 1024 * 1024
"""Of the file: a thousand principals with some tokens and certificates each are a quarter of it."""
PRINCIPALS_MAX: Final = 1_000
TOKENS_MAX: Final = 16
"""Of one principal: two while one is replaced by the next, and room for one a machine."""
CERTIFICATES_MAX: Final = 16
TOKENS_IN_ALL_MAX: Final = 2_000
"""Every one is compared with for each call that brings a token: at 0.05 µs, 0.1 ms at most."""
CERTIFICATE_CHARACTERS_MAX: Final = 2_048
"""A URI of a certificate: SPIFFE allows as many."""
TOKEN_BYTES_MIN: Final = 16
"""A shorter one could be guessed."""
TOKEN_BYTES_MAX: Final = 4_096
DEPTH_MAX: Final = 4

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}\Z", re.ASCII)
_CERTIFICATE: Final = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?\Z", re.ASCII)
_TOKEN: Final = re.compile(rb"[\x21-\x7e]+\Z")
_BEARER: Final = "bearer"

Way = TypeVar("Way")


class Role(StrEnum):
    """What a principal may do. None includes another, but `audit` includes `read`."""

    SUBMIT = "submit"
    READ = "read"
    AUDIT = "audit"
    OPERATE = "operate"


_ANY: Final = frozenset(Role)
_SUBMIT: Final = frozenset({Role.SUBMIT})
_READ: Final = frozenset({Role.READ, Role.AUDIT})
_AUDIT: Final = frozenset({Role.AUDIT})
_OPERATE: Final = frozenset({Role.OPERATE})

_COMMAND: Final = "/nocturne.command.v1.CommandService/"
_QUERY: Final = "/nocturne.query.v1.QueryService/"
_CONTROL: Final = "/nocturne.consensus.v1.ControlService/"
_VALIDATOR: Final = "/nocturne.consensus.v1.ValidatorService/"
_REFLECTION: Final = "ServerReflection/ServerReflectionInfo"

EXCHANGE: Final = "/nocturne.consensus.v1.PeerService/Exchange"
OPEN: Final = frozenset({"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch", EXCHANGE})
"""Answered without a principal. Health to anybody: who keeps a service running has no token, and
learns nothing else. `Exchange` to validators, which prove their keys in it (docs/spec/peers.md).
"""

METHODS: Final[Mapping[str, frozenset[Role]]] = {
    f"{_COMMAND}Submit": _SUBMIT,
    f"{_COMMAND}SubmitStream": _SUBMIT,
    f"{_QUERY}GetSession": _READ,
    f"{_QUERY}ListSessions": _READ,
    f"{_QUERY}ListEvents": _READ,
    f"{_QUERY}ListReceipts": _READ,
    f"{_QUERY}GetState": _READ,
    f"{_QUERY}GetDisposition": _READ,
    f"{_QUERY}GetBlock": _READ,
    f"{_QUERY}GetStatus": _READ,
    f"{_QUERY}ExportSession": _AUDIT,
    # What a client must know of the ledger that it trusts, whatever it does there.
    f"{_QUERY}GetGenesis": _ANY,
    # An auditor checks what the operators decided, and decides nothing.
    f"{_CONTROL}GetControl": _OPERATE | _AUDIT,
    f"{_CONTROL}SubmitControl": _OPERATE,
    f"{_CONTROL}GetLog": _OPERATE | _AUDIT,
    # How the validators are: who reads the ledger may ask whether it goes on.
    f"{_VALIDATOR}GetValidator": _READ | _OPERATE,
    f"/grpc.reflection.v1alpha.{_REFLECTION}": _ANY,
    f"/grpc.reflection.v1.{_REFLECTION}": _ANY,
}
"""For each method the roles of which one suffices."""


@dataclass(frozen=True, slots=True)
class Principal:
    """One who may call. `certificates` are URIs (with a colon) or names, in lower case."""

    name: str
    roles: frozenset[Role]
    tokens: tuple[Hash, ...]
    certificates: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Access:
    """Everyone who may call."""

    principals: tuple[Principal, ...]
    tokens: tuple[tuple[Hash, Principal], ...]
    certificates: Mapping[str, Principal]

    @staticmethod
    def of(principals: Sequence[Principal]) -> Access:
        """`Malformed` when two have one name, one token or one certificate."""
        names: set[str] = set()
        tokens: dict[Hash, Principal] = {}
        certificates: dict[str, Principal] = {}
        for one in principals:
            if one.name in names:
                raise Malformed(f"access: two principals are named {one.name}")
            names.add(one.name)
            _take(tokens, one.tokens, one, "a token")
            _take(certificates, one.certificates, one, "a certificate")
        if len(tokens) > TOKENS_IN_ALL_MAX:
            raise Malformed(
                f"access: expected at most {TOKENS_IN_ALL_MAX} tokens in all, got {len(tokens)}"
            )
        return Access(tuple(principals), tuple(tokens.items()), certificates)


def _take(
    taken: dict[Way, Principal], given: Sequence[Way], principal: Principal, what: str
) -> None:
    for one in given:
        if one in taken:
            other = taken[one].name
            raise Malformed(f"access: {principal.name} and {other} have {what} in common")
        taken[one] = principal


# The file --------------------------------------------------------------------------------------


def parse_access(data: bytes) -> Access:
    """The access file; `Malformed` says what is wrong with it, and shows nothing secret."""
    file = Fields.of(parse_json(data, ACCESS_BYTES_MAX, DEPTH_MAX), "access")
    _expect_only(file, {"principals"})
    return Access.of([_principal(one) for one in file.objects("principals", PRINCIPALS_MAX)])


def _expect_only(fields: Fields, known: set[str]) -> None:
    unknown = sorted(fields.names - known)
    if unknown:
        # What is not read could be meant to narrow what is granted.
        raise Malformed(f"access: expected no member {shown(unknown[0])}")


def _principal(fields: Fields) -> Principal:
    _expect_only(fields, {"name", "roles", "tokens", "certificates"})
    name = fields.text("name")
    if not _NAME.match(name):
        raise Malformed(
            "access: a name is 1 to 64 of letters, digits and . _ @ -, beginning with a letter or "
            f"digit, got {shown(name)}"
        )
    roles = frozenset(_role(name, one) for one in fields.texts("roles", len(Role)))
    if not roles:
        raise Malformed(f"access: {name} has no role")
    tokens = _tokens(name, fields) if fields.has("tokens") else ()
    certificates = (
        fields.texts("certificates", CERTIFICATES_MAX) if fields.has("certificates") else ()
    )
    return Principal(name, roles, tokens, tuple(_certificate(name, one) for one in certificates))


def _role(name: str, text: str) -> Role:
    if text not in [*Role]:
        raise Malformed(f"access: {name} has the role {shown(text)}, of {', '.join(Role)}")
    return Role(text)


def _tokens(name: str, fields: Fields) -> tuple[Hash, ...]:
    """Tokens by their hashes. What else stands there is never shown: it may be a token."""
    given = fields.value("tokens")
    if isinstance(given, list) and all(isinstance(one, str) for one in given):
        texts = fields.texts("tokens", TOKENS_MAX)
        if all(map(is_hash, texts)):
            return tuple(map(parse_hash, texts))
    raise Malformed(
        f"access: {name} has tokens that are not a list of sha256- and 64 lower-case hex digits "
        "each (not shown, for a token may stand there)"
    )


def _certificate(name: str, text: str) -> str:
    if (
        len(text) > CERTIFICATE_CHARACTERS_MAX
        or not _CERTIFICATE.match(text)
        or ("*" in text and ":" not in text)
    ):
        raise Malformed(
            f"access: {name} has the certificate {shown(text)}: expected a whole DNS name, URI or "
            "common name"
        )
    return _as_compared(text)


def _as_compared(text: str) -> str:
    """URIs as they are, names in lower case."""
    return text if ":" in text else _lower(text)


_LOWER: Final = str.maketrans(ascii_uppercase, ascii_lowercase)


def _lower(name: str) -> str:
    """A to Z alone (RFC 4343 §3): of all characters, that of kelvins too would become a k, and who
    has a certificate for one name would pass for another.
    """
    return name.translate(_LOWER)


# Who calls -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Certificate:
    """The names in a client certificate that its authority vouches for."""

    dns_names: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    common_name: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """What the file is looked up for: its DNS names and URIs; the common name of one without
        either. A name with a colon is no DNS name and no common name here, for it would pass for a
        URI.
        """
        named = tuple(_lower(one) for one in self.dns_names if ":" not in one)
        found = named + tuple(one for one in self.uris if ":" in one)
        if not self.dns_names and not self.uris and self.common_name is not None:
            found = tuple(_lower(one) for one in (self.common_name,) if ":" not in one)
        return found


@dataclass(frozen=True, slots=True)
class Shown:
    """What a caller shows of itself: its `authorization` values, and its certificate's names."""

    authorization: tuple[str | bytes, ...] = ()
    certificate: Certificate | None = None


class Cause(StrEnum):
    """Why a call is refused, as metrics name it."""

    NO_CREDENTIALS = "no_credentials"
    BAD_AUTHORIZATION = "bad_authorization"
    UNKNOWN_TOKEN = "unknown_token"
    UNKNOWN_CERTIFICATE = "unknown_certificate"
    AMBIGUOUS_CERTIFICATE = "ambiguous_certificate"
    LACKS_ROLE = "lacks_role"


@dataclass(frozen=True, slots=True)
class Refused:
    """The call is not taken; `principal` is None when nobody knows who calls."""

    cause: Cause
    message: str
    principal: str | None = None

    @property
    def authenticated(self) -> bool:
        """Whether the caller is known, and only may not."""
        return self.principal is not None


def decide(access: Access, method: str, given: Shown) -> Principal | Refused:
    """Whether who shows `given` may call `method` (`/package.Service/Method`).

    A token decides alone when there is one: a wrong one is refused whatever the certificate says.
    """
    found = authenticate(access, given)
    if isinstance(found, Refused):
        return found
    allowed = METHODS.get(method, frozenset())
    if found.roles & allowed:
        return found
    what = method.rpartition(".")[2]
    if allowed:
        needed = " or ".join(role for role in Role if role in allowed)
        message = f"{found.name} lacks the role {needed}, which {what} takes"
    else:
        message = f"{found.name} may not call {what}: no role gives it"
    return Refused(Cause.LACKS_ROLE, message, found.name)


def authenticate(access: Access, given: Shown) -> Principal | Refused:
    """Who shows `given`."""
    if given.authorization:
        return _by_token(access, given.authorization)
    if given.certificate is None:
        return Refused(
            Cause.NO_CREDENTIALS,
            "no credentials: send a token as 'authorization: Bearer …', or call over TLS with a "
            "client certificate",
        )
    return _by_certificate(access, given.certificate)


def _by_token(access: Access, authorization: tuple[str | bytes, ...]) -> Principal | Refused:
    token = _bearer_of(authorization)
    if token is None:
        return Refused(
            Cause.BAD_AUTHORIZATION, "authorization: expected 'Bearer' and a token, once"
        )
    digest = sha256(token)
    found: Principal | None = None
    # Every one is compared with, in constant time: how long it takes tells nothing of any.
    for known, principal in access.tokens:
        if compare_digest(known, digest):
            found = principal
    return found or Refused(Cause.UNKNOWN_TOKEN, "the token is not one that the service knows")


def _bearer_of(authorization: tuple[str | bytes, ...]) -> bytes | None:
    if len(authorization) != 1:
        return None
    value = authorization[0]
    text = value if isinstance(value, bytes) else value.encode("utf-8", "surrogateescape")
    scheme, space, token = text.partition(b" ")
    if not space or scheme.decode("ascii", "replace").lower() != _BEARER:
        return None
    return token if is_token(token) else None


def is_token(token: bytes) -> bool:
    """Whether it could be one: 16 to 4 096 visible ASCII characters."""
    return TOKEN_BYTES_MIN <= len(token) <= TOKEN_BYTES_MAX and bool(_TOKEN.match(token))


def _by_certificate(access: Access, certificate: Certificate) -> Principal | Refused:
    names = certificate.names
    found = {
        principal.name: principal
        for name in names
        if (principal := access.certificates.get(name)) is not None
    }
    if len(found) == 1:
        return next(iter(found.values()))
    said = shown(", ".join(names))
    if found:
        return Refused(
            Cause.AMBIGUOUS_CERTIFICATE,
            f"the client certificate ({said}) is of more than one principal: "
            f"{shown(', '.join(sorted(found)))}",
        )
    return Refused(
        Cause.UNKNOWN_CERTIFICATE,
        f"the client certificate ({said}) is not one that the service knows",
    )
