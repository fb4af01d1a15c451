"""The access file, and the decision on one call."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from nocturne.core import access
from nocturne.core.access import (
    EXCHANGE,
    METHODS,
    OPEN,
    Access,
    Cause,
    Certificate,
    Principal,
    Refused,
    Role,
    Shown,
    decide,
    parse_access,
)
from nocturne.core.errors import Malformed
from nocturne.wire.command.v1 import command_pb2
from nocturne.wire.consensus.v1 import consensus_pb2, exchange_pb2, validator_pb2
from nocturne.wire.query.v1 import query_pb2

TOKEN = "a-token-of-the-shop"
SUBMIT = "/nocturne.command.v1.CommandService/Submit"
GET_SESSION = "/nocturne.query.v1.QueryService/GetSession"


def digest_of(token: str) -> str:
    return f"sha256-{hashlib.sha256(token.encode()).hexdigest()}"


def one(**fields: Any) -> dict[str, Any]:
    return {"name": "shop", "roles": ["submit"], "tokens": [digest_of(TOKEN)], **fields}


def parsed(*principals: Any, **more: Any) -> Access:
    return parse_access(json.dumps({"principals": list(principals), **more}).encode())


def bearer(token: str) -> Shown:
    return Shown((f"Bearer {token}",))


SHOP = one(certificates=["shop.example.com", "spiffe://example.com/shop"])
DESK = one(name="desk", roles=["read"], tokens=[], certificates=["Desk of Example"])


def refused(found: Principal | Refused) -> Refused:
    assert isinstance(found, Refused)
    return found


def admitted(found: Principal | Refused) -> str:
    assert isinstance(found, Principal), found
    return found.name


# The file ---------------------------------------------------------------------------------------


def test_a_file_names_principals_with_roles_tokens_and_certificates() -> None:
    found = parsed(SHOP, DESK)
    assert [principal.name for principal in found.principals] == ["shop", "desk"]
    assert found.principals[0].roles == {Role.SUBMIT}
    assert [digest.hex() for digest, _ in found.tokens] == [digest_of(TOKEN)[7:]]
    assert set(found.certificates) == {
        "shop.example.com",
        "spiffe://example.com/shop",
        "desk of example",
    }


def test_a_principal_may_have_no_way_to_show_itself() -> None:
    """So it is kept by name while nobody may be it."""
    assert parsed({"name": "shop", "roles": ["submit"]}).tokens == ()


@pytest.mark.parametrize(
    "principals, sentence",
    [
        ([one(roles=[])], "shop has no role"),
        ([one(roles=["admin"])], "shop has the role 'admin', of submit, read, audit, operate"),
        ([one(name="")], "a name is 1 to 64"),
        ([one(name="ipv4:127.0.0.1")], "a name is 1 to 64"),
        ([one(name="a" * 65)], "a name is 1 to 64"),
        ([one(tokens=[TOKEN])], "shop has tokens that are not a list of sha256- and 64 lower-case"),
        ([one(tokens=[digest_of(TOKEN)] * 2)], "shop and shop have a token in common"),
        ([one(), one()], "two principals are named shop"),
        ([one(), one(name="b")], "b and shop have a token in common"),
        (
            [one(certificates=["A.example"]), one(name="b", tokens=[], certificates=["a.example"])],
            "b and shop have a certificate in common",
        ),
        ([one(certificates=["*.example.com"])], "expected a whole DNS name, URI or common name"),
        ([one(certificates=[""])], "expected a whole DNS name, URI or common name"),
        ([one(certificates=["a\nb"])], "expected a whole DNS name, URI or common name"),
        ([one(certificates=["é.example"])], "expected a whole DNS name, URI or common name"),
        ([one(tokens=[digest_of(str(n)) for n in range(17)])], "expected at most 16, got 17"),
        ([one(role="read")], "expected no member 'role'"),
        ([{"roles": ["read"]}], "expected a member name"),
        (["shop"], "expected an object"),
    ],
)
def test_a_file_that_says_something_else_is_refused(principals: list[Any], sentence: str) -> None:
    with pytest.raises(Malformed) as caught:
        parsed(*principals)
    assert sentence in str(caught.value)


def test_what_a_file_says_beside_the_principals_is_refused() -> None:
    with pytest.raises(Malformed, match="expected no member 'default'"):
        parsed(one(), default="allow")


def test_a_file_beyond_the_bound_is_not_read() -> None:
    data = json.dumps({"principals": []}).encode()
    assert parse_access(data.ljust(access.ACCESS_BYTES_MAX)).principals == ()
    with pytest.raises(Malformed, match="expected at most"):
        parse_access(data.ljust(access.ACCESS_BYTES_MAX + 1))


def test_tokens_in_all_are_bounded() -> None:
    many = [
        one(name=f"p{n}", tokens=[digest_of(f"{n}/{m}") for m in range(16)]) for n in range(126)
    ]
    with pytest.raises(Malformed, match="expected at most 2000 tokens in all, got 2016"):
        parsed(*many)


@pytest.mark.parametrize("tokens", [[TOKEN], TOKEN, [digest_of(TOKEN), TOKEN], {TOKEN: 1}])
def test_a_token_in_the_place_of_its_hash_is_never_shown(tokens: Any) -> None:
    """Of a usual one of 43 characters the beginning that a message has would be all of it."""
    with pytest.raises(Malformed, match="shop has tokens that are not a list of") as caught:
        parsed(one(tokens=tokens))
    fault: BaseException | None = caught.value
    while fault is not None:
        assert TOKEN not in str(fault)
        fault = fault.__context__


# The decision -----------------------------------------------------------------------------------


def test_a_token_makes_its_principal() -> None:
    assert admitted(decide(parsed(SHOP), SUBMIT, bearer(TOKEN))) == "shop"
    assert admitted(decide(parsed(SHOP), SUBMIT, Shown((f"bearer {TOKEN}",)))) == "shop"
    assert admitted(decide(parsed(SHOP), SUBMIT, Shown((f"Bearer {TOKEN}".encode(),)))) == "shop"


@pytest.mark.parametrize(
    "authorization",
    [
        (TOKEN,),
        (f"Basic {TOKEN}",),
        ("Bearer ",),
        ("Bearer short",),
        (f"Bearer  {TOKEN}",),
        (f"Bearer {TOKEN} ",),
        (f"Bearer {TOKEN}\udcff",),
        (b"Bearer " + TOKEN.encode() + b"\xff",),
        ("Bearer " + "x" * 5_000,),
        (f"Bearer {TOKEN}", f"Bearer {TOKEN}"),
    ],
)
def test_an_authorization_that_is_no_token_is_refused(authorization: tuple[str, ...]) -> None:
    found = refused(decide(parsed(SHOP), SUBMIT, Shown(authorization)))
    assert found.cause is Cause.BAD_AUTHORIZATION
    assert not found.authenticated


def test_an_unknown_token_is_refused_whatever_the_certificate_says() -> None:
    given = Shown(("Bearer some-other-token-1",), Certificate(("shop.example.com",)))
    found = refused(decide(parsed(SHOP), SUBMIT, given))
    assert found.cause is Cause.UNKNOWN_TOKEN
    assert "some-other" not in found.message


@pytest.mark.parametrize(
    "certificate, name",
    [
        (Certificate(("shop.example.com",)), "shop"),
        (Certificate(("SHOP.example.com", "unknown.example.com")), "shop"),
        (Certificate((), ("spiffe://example.com/shop",)), "shop"),
        (Certificate(("shop.example.com",), ("spiffe://example.com/shop",)), "shop"),
        (Certificate((), (), "desk of example"), "desk"),
    ],
)
def test_a_certificate_makes_its_principal(certificate: Certificate, name: str) -> None:
    found = access.authenticate(parsed(SHOP, DESK), Shown((), certificate))
    assert admitted(found) == name


@pytest.mark.parametrize(
    "certificate",
    [
        Certificate(),
        Certificate(("other.example.com",)),
        # A name stands for a name: nothing is a suffix, a pattern, or a URI in disguise.
        Certificate(("a.shop.example.com",)),
        Certificate(("spiffe://example.com/shop",)),
        Certificate((), ("shop.example.com",)),
        Certificate((), (), "spiffe://example.com/shop"),
        Certificate((), ("spiffe://example.com/shop/more",)),
        # The common name counts only where there is no other.
        Certificate(("other.example.com",), (), "desk of example"),
        Certificate((), ("urn:other",), "desk of example"),
        # U+212A, the sign of kelvins, is no K, though Python's lower case of it is a k.
        Certificate((), (), "des\u212a of example"),
    ],
)
def test_a_certificate_that_the_file_does_not_name_is_refused(certificate: Certificate) -> None:
    found = refused(decide(parsed(SHOP, DESK), SUBMIT, Shown((), certificate)))
    assert found.cause is Cause.UNKNOWN_CERTIFICATE
    assert not found.authenticated


def test_a_certificate_of_two_principals_is_nobodys() -> None:
    other = one(name="other", tokens=[], certificates=["other.example.com"])
    given = Shown((), Certificate(("shop.example.com", "other.example.com")))
    found = refused(decide(parsed(SHOP, other), SUBMIT, given))
    assert found.cause is Cause.AMBIGUOUS_CERTIFICATE


def test_nothing_is_no_credentials() -> None:
    found = refused(decide(parsed(SHOP), SUBMIT, Shown()))
    assert found.cause is Cause.NO_CREDENTIALS
    assert not found.authenticated


def test_who_lacks_a_role_is_told_which() -> None:
    found = refused(decide(parsed(SHOP), GET_SESSION, bearer(TOKEN)))
    assert found.cause is Cause.LACKS_ROLE
    assert found.authenticated
    assert found.message == (
        "shop lacks the role read or audit, which QueryService/GetSession takes"
    )


@pytest.mark.parametrize("role", [*Role])
def test_a_method_that_is_not_listed_is_nobodys(role: Role) -> None:
    found = refused(decide(parsed(one(roles=[role])), "/other.v1.Other/Get", bearer(TOKEN)))
    assert found.message == "shop may not call Other/Get: no role gives it"


def test_every_method_of_every_service_is_listed_and_no_other_of_ours() -> None:
    served = {
        f"/{service.full_name}/{method.name}"
        for module in (command_pb2, query_pb2, consensus_pb2, exchange_pb2, validator_pb2)
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert {path for path in METHODS.keys() | OPEN if path.startswith("/nocturne.")} == served
    assert {path for path in OPEN if path.startswith("/nocturne.")} == {EXCHANGE}
    assert not OPEN & METHODS.keys()


def test_only_audit_includes_another_role() -> None:
    by_role = {role: {path for path, roles in METHODS.items() if role in roles} for role in Role}
    assert by_role[Role.READ] < by_role[Role.AUDIT]
    for role in Role:
        for other in set(Role) - {role}:
            if (role, other) != (Role.AUDIT, Role.READ):
                assert not by_role[other] <= by_role[role], (role, other)
