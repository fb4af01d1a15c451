"""What members bring to a founding, and which sets of members found a ledger."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.vectors.synthetic import signer_of

from nocturne.core.errors import Malformed
from nocturne.core.genesis import decode_genesis, encode_genesis
from nocturne.core.keys import prove_possession
from nocturne.core.strict_json import canonical_json, parse_json
from nocturne.deploy.contributions import (
    VALIDATORS_MAX,
    Contribution,
    FoundingFault,
    Role,
    Terms,
    check_validators,
    compose,
    decode_contribution,
    encode_contribution,
    key_in,
    weakness,
)
from nocturne.runtime.kinds import builtin_entries

TERMS = Terms(bytes(32), builtin_entries())


def contribution(role: Role, ordinal: int = 0) -> Contribution:
    signer = signer_of(f"{role} {ordinal}")
    return Contribution(role, ordinal, signer.key, prove_possession(signer))


def members() -> list[Contribution]:
    return [contribution(role) for role in Role]


def test_what_is_printed_is_read_back_and_is_one_line() -> None:
    for one in members():
        printed = encode_contribution(one)
        assert decode_contribution(printed) == one
        assert printed.count(b"\n") == 1


@pytest.mark.parametrize(
    "name, value, said",
    [
        ("role", "king", "role"),
        ("ordinal", 10_000, "at most"),
        ("ordinal", -1, "integer"),
        ("key", [], "one key a suite"),
        ("possession", [], "expected 1, got 0"),
        ("possession", ["ed25519-zz"], "hex"),
        ("format", "nocturne-contribution-v2", "as it is printed"),
        ("more", 1, "as it is printed"),
    ],
)
def test_another_form_is_refused(name: str, value: int | str | list[str], said: str) -> None:
    record = parse_json(encode_contribution(contribution(Role.OPERATOR)), 10_000, 3)
    assert isinstance(record, dict)
    changed = canonical_json({**record, name: [*value] if isinstance(value, list) else value})
    with pytest.raises(Malformed, match=said):
        decode_contribution(changed + b"\n")


def test_a_key_whose_holder_did_not_sign_it_is_refused() -> None:
    stranger = prove_possession(signer_of("somebody else"))
    stolen = replace(contribution(Role.VALIDATOR), possession=stranger)
    with pytest.raises(Malformed, match="holder did not sign"):
        decode_contribution(encode_contribution(stolen))


def test_a_genesis_names_every_member_whatever_their_order() -> None:
    data = compose(members(), TERMS)
    genesis = decode_genesis(data)
    assert encode_genesis(genesis) == data
    assert compose(reversed(members()), TERMS) == data
    for one in members():
        assert key_in(genesis, one.role, one.ordinal) == one.key
        assert key_in(genesis, one.role, 1 if one.role is not Role.AUTHORITY else 7) is None


def test_several_operators_found_a_ledger_with_their_threshold() -> None:
    operators = [contribution(Role.OPERATOR, ordinal) for ordinal in (2, 1)]
    genesis = decode_genesis(
        compose([*members(), *operators], replace(TERMS, operator_threshold=2))
    )
    assert genesis.operators == tuple(signer_of(f"operator {n}").key for n in range(3))
    assert genesis.operator_threshold == 2


@pytest.mark.parametrize("missing", list(Role))
def test_a_ledger_without_one_of_its_roles_is_refused(missing: Role) -> None:
    left = [one for one in members() if one.role is not missing]
    with pytest.raises(FoundingFault, match=f"one contribution of {missing.value} 0, got 0"):
        compose(left, TERMS)


def test_two_for_one_place_and_a_gap_are_refused() -> None:
    with pytest.raises(FoundingFault, match="operator 0, got 2"):
        compose([*members(), contribution(Role.OPERATOR)], TERMS)
    with pytest.raises(FoundingFault, match="operator 1, got 0"):
        compose([*members(), contribution(Role.OPERATOR, 2)], TERMS)


def test_one_key_in_two_places_of_a_role_is_refused() -> None:
    doubled = replace(contribution(Role.OPERATOR), ordinal=1)
    with pytest.raises(FoundingFault, match="a key stands twice"):
        compose([*members(), doubled], TERMS)


def test_a_second_authority_is_refused() -> None:
    with pytest.raises(FoundingFault, match="one authority, got 2"):
        compose([*members(), contribution(Role.AUTHORITY, 1)], TERMS)


def test_terms_that_no_ledger_can_have_are_refused() -> None:
    with pytest.raises(FoundingFault, match="threshold"):
        compose(members(), replace(TERMS, operator_threshold=2))


@pytest.mark.parametrize("count", [-1, 0, 32, 10**9])
def test_no_validator_and_more_than_a_certificate_lists_are_refused(count: int) -> None:
    with pytest.raises(FoundingFault, match=f"with 1 to 31 validators, got {count}"):
        check_validators(count)


def test_a_genesis_of_more_validators_than_a_certificate_lists_is_not_composed() -> None:
    more = [contribution(Role.VALIDATOR, ordinal) for ordinal in range(1, VALIDATORS_MAX + 1)]
    with pytest.raises(FoundingFault, match="with 1 to 31 validators, got 32"):
        compose([*members(), *more], TERMS)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 31])
def test_a_genesis_names_as_many_validators_as_contributed(count: int) -> None:
    more = [contribution(Role.VALIDATOR, ordinal) for ordinal in range(1, count)]
    genesis = decode_genesis(compose([*members(), *more], TERMS))
    check_validators(count)
    assert len(genesis.validators) == count


@pytest.mark.parametrize(
    "count, said",
    [
        (1, "With 1 validator the ledger tolerates no liar, and none of them may be away; "),
        (2, "With 2 validators the ledger tolerates no liar, and none of them may be away; "),
        (3, "With 3 validators the ledger tolerates no liar, and one of them may be away; "),
    ],
)
def test_fewer_validators_than_four_are_told_what_they_do_not_withstand(
    count: int, said: str
) -> None:
    assert weakness(count) == said + "four tolerate one."


@pytest.mark.parametrize("count", range(4, 32))
def test_four_and_more_validators_withstand_a_liar(count: int) -> None:
    assert weakness(count) is None
