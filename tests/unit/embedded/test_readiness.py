"""A ledger is ready with every service and a quorum of its validators."""

from hypothesis import given
from hypothesis import strategies as st

from nocturne.embedded.readiness import Need, all_of, is_hopeless, waited_for

VALIDATORS = Need(("v0", "v1", "v2", "v3"), 3)
NEEDS = (VALIDATORS, all_of(["signing", "query"]))


def test_a_quorum_and_every_other_service_are_ready() -> None:
    assert waited_for(NEEDS, {"v0", "v2", "v3", "signing", "query"}) is None
    assert waited_for(NEEDS, {"v0", "v1", "v2", "v3", "signing", "query"}) is None


def test_the_first_that_is_missing_is_named() -> None:
    assert waited_for(NEEDS, {"v1", "v3", "signing", "query"}) == "v0"
    assert waited_for(NEEDS, {"v0", "v1", "v3", "signing"}) == "query"
    assert waited_for((), ()) is None


def test_one_validator_that_is_given_up_leaves_hope_and_two_do_not() -> None:
    assert not is_hopeless(NEEDS, {"v2"})
    assert is_hopeless(NEEDS, {"v1", "v2"})
    assert is_hopeless(NEEDS, {"query"})
    assert not is_hopeless(NEEDS, {"something else"})


@given(st.sets(st.sampled_from([*VALIDATORS.names, "signing", "query"])))
def test_when_all_but_the_given_up_are_healthy_hope_and_readiness_are_one(up: set[str]) -> None:
    given_up = {name for need in NEEDS for name in need.names} - up
    assert is_hopeless(NEEDS, given_up) == (waited_for(NEEDS, up) is not None)
