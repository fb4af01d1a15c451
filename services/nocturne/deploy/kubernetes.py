"""Found a ledger on Kubernetes: `python -m nocturne.deploy.kubernetes [join|compose]`.

    join      each member, before its service starts: makes its key on its own volume, hands the
              public part over, waits for the genesis, takes it (ROLE, ORDINAL, KEY_FILE, HOME_DIR,
              GENESIS_FILE, all on that volume)
    compose   one job: waits for every member, writes the genesis once (VALIDATORS, …; operators
              from CONTRIBUTIONS_DIR, or one whose key it makes itself in KEY_FILE)

A validator whose ORDINAL is not below VALIDATORS is one more than the genesis names: `join` makes
its key and its journal once there is a genesis, and prints what operators admit it with.

Members and job meet in ConfigMaps that the chart makes, empty (RELEASE is their names' beginning):

    <release>-contribution-<role>-<ordinal>   contribution.json, written by that member alone, and
                                              taken back once its volume has the genesis
    <release>-genesis                         genesis.avro, written once, then immutable

No key leaves its volume. Rules and what this does not protect from: docs/adr/0008. Every step may
be repeated, whatever ended it. Exit codes: `jobs`.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Final, TypeVar

from pydantic import Field

from nocturne.core.errors import Malformed, Unavailable
from nocturne.core.genesis import Genesis, decode_genesis, ledger_id_of
from nocturne.core.identifiers import format_hash
from nocturne.core.keys import Key, format_key
from nocturne.deploy import ceremony, jobs
from nocturne.deploy.ceremony import Member
from nocturne.deploy.config_maps import ConfigMap, ConfigMaps, Conflict
from nocturne.deploy.contributions import (
    CONTRIBUTION_BYTES_MAX,
    Contribution,
    FoundingFault,
    Role,
    check_validators,
    compose,
    decode_contribution,
    encode_contribution,
    key_in,
)
from nocturne.deploy.genesis import (
    MemberSettings,
    Positive,
    TermsSettings,
    contributions_in,
    terms_of,
)
from nocturne.runtime.files import write_file
from nocturne.runtime.home import held_alone
from nocturne.runtime.keys import KeyFileFault, load_signer
from nocturne.runtime.settings import ProcessSettings, read_founding, read_settings

GENESIS_KEY: Final = "genesis.avro"
CONTRIBUTION_KEY: Final = "contribution.json"
GENESIS_BYTES_MAX: Final = 700 * 1024
"""Less than a ConfigMap holds: a genesis of a hundred validators and ten kinds has 20 kB."""
LOOK_SECONDS: Final = 1.0
"""Between two looks, and up to as much again by chance, so that members do not ask all at once."""
API_PORT_USUAL: Final = 443

Found = TypeVar("Found")


class CeremonySettings(ProcessSettings):
    """Where the ceremony takes place."""

    release: Annotated[str, Field(pattern=r"^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$")]
    """The beginning of every name that the chart makes."""
    kubernetes_dir: Path
    """`token`, `ca.crt` and `namespace` of the service account."""
    wait_seconds: Positive = 900
    """How long one waits for the others."""


class JoinSettings(CeremonySettings, MemberSettings):
    """`join`."""

    home_dir: Path
    genesis_file: Path
    validators: Positive | None = None
    """How many the genesis names: a validator with a higher ordinal is one more. None: all."""

    @property
    def is_additional(self) -> bool:
        """Whether the genesis does not name this member, which is a validator then."""
        count = self.validators
        return self.role is Role.VALIDATOR and count is not None and self.ordinal >= count


class ComposeSettings(CeremonySettings, TermsSettings):
    """`compose`: exactly one of the two."""

    contributions_dir: Path | None = None
    """The operators' contributions."""
    key_file: Path | None = None
    """Where the key of the one operator is made, when none has contributed."""


def join() -> str:
    """Become a member of the ledger, or see that this volume has one. Asks nobody in that case."""
    settings = read_settings(JoinSettings)
    # Two of them make one key between them, or none.
    with held_alone(settings.key_file.parent):
        if settings.is_additional:
            return _admitted(settings, settings.member)
        return _joined(settings, settings.member)


def _admitted(settings: JoinSettings, member: Member) -> str:
    """A validator more: it waits for a genesis without being in it, and says what operators need to
    admit it, at each start.
    """
    if settings.genesis_file.exists():
        data = read_founding(settings.genesis_file).data
    else:
        api, patience = _api(settings), Patience(settings.wait_seconds)
        name = genesis_name(settings.release)
        data = patience.until(lambda: _genesis_in(api.get(name)), f"{name}: {GENESIS_KEY}")
        write_file(settings.genesis_file, data)
    made = ceremony.admit(member, ledger_id_of(data))
    print(encode_contribution(made).decode("ascii"), end="", flush=True)
    return f"{member} is one more of {format_hash(ledger_id_of(data))}, once operators admit it"


def _joined(settings: JoinSettings, member: Member) -> str:
    if settings.genesis_file.exists():
        # The member has taken this one: whatever the ConfigMap has by now, it takes no other.
        data = read_founding(settings.genesis_file).data
    else:
        data = _genesis_for(settings, member)
        _refuse_another_key(member, data)
        # Before the mark goes: whoever has founded has its genesis beside its key.
        write_file(settings.genesis_file, data)
    if not ceremony.has_founded(member):
        # Before the mark goes: of a contribution that stayed, a ConfigMap of the genesis that was
        # lost and made anew, empty, would be given a second genesis with the keys of the first.
        api, patience = _api(settings), Patience(settings.wait_seconds)
        patience.until(lambda: _take_back(api, settings.release, member), f"{member}")
    ceremony.complete(member, data)
    return f"{member} is a member of {format_hash(ledger_id_of(data))}"


def _genesis_for(settings: JoinSettings, member: Member) -> bytes:
    """The genesis that is there; else the one that is made of this member's contribution."""
    api, patience = _api(settings), Patience(settings.wait_seconds)
    name = genesis_name(settings.release)
    data = patience.until(lambda: _genesis_in(api.get(name), absent=b""), name)
    if data:
        return data
    if ceremony.has_founded(member):
        raise FoundingFault(
            f"{member} belongs to a ledger whose genesis is neither in {settings.genesis_file} nor "
            f"in the ConfigMap {name}: put {GENESIS_KEY} back in one of them from a backup"
        )
    contribution = ceremony.contribute(member)
    patience.until(lambda: _hand_over(api, settings.release, contribution), f"{member}")
    _say(f"{member} has the key {format_key(contribution.key[0])} and waits for the genesis")
    return patience.until(lambda: _genesis_in(api.get(name)), f"{name}: {GENESIS_KEY}")


def _refuse_another_key(member: Member, data: bytes) -> None:
    """A member whose key is not the ledger's: its volume is another one than the founding's."""
    expected = key_in(_decoded(data), member.role, member.ordinal)
    if expected is None or _key_of(member) == expected:
        return
    found = "has another key" if member.key_file.exists() else "is empty"
    raise FoundingFault(
        f"the ledger {format_hash(ledger_id_of(data))} knows {member} by the key "
        f"{format_key(expected[0])}, and this volume {found}: the volume that was lost took its "
        "key with it, and a new key is never taken in its place; put that volume back as it last "
        "was, or found another ledger under another release"
    )


def _key_of(member: Member) -> Key | None:
    """The key on the volume; None when there is none, or a crash left only a part of it."""
    try:
        return load_signer(member.key_file).key
    except KeyFileFault:
        return None


def compose_genesis() -> str:
    """Write the genesis of all contributions, once; one that is there is held against the terms."""
    settings = read_settings(ComposeSettings)
    check_validators(settings.validators)
    if settings.key_file is None:
        return _composed(settings)
    # Two jobs at once, as an upgrade may start them: one could remove the other's half-written key.
    with held_alone(settings.key_file.parent):
        return _composed(settings)


def _composed(settings: ComposeSettings) -> str:
    api, patience = _api(settings), Patience(settings.wait_seconds)
    name = genesis_name(settings.release)
    known = patience.until(lambda: api.get(name), name)
    data = _genesis_in(known, absent=b"")
    if not data and (found := _members(api, patience, settings)) is not None:
        members = [*found, *_operators(settings)]
        _check_keys(members)
        data = _publish(api, patience, known, compose(members, terms_of(settings)))
        _check_members(_decoded(data), members)
    data = data or patience.until(lambda: _genesis_in(api.get(name)), name)
    genesis = _decoded(data)
    _check_terms(genesis, settings)
    if settings.key_file is not None and settings.key_file.exists():
        ceremony.complete(Member(Role.OPERATOR, 0, settings.key_file), data)
    return _described(genesis, data)


def _members(
    api: ConfigMaps, patience: Patience, settings: ComposeSettings
) -> list[Contribution] | None:
    """Each in the place that is its own: whoever writes into another's is found out by its role.
    None when another job has founded the ledger meanwhile, and members took back what they gave.
    """
    places = [(Role.VALIDATOR, ordinal) for ordinal in range(settings.validators)]
    found = []
    for role, ordinal in [*places, (Role.AUTHORITY, 0)]:
        name = contribution_name(settings.release, role, ordinal)

        def look(name: str = name) -> Contribution | None:
            there = api.get(name)
            if CONTRIBUTION_KEY not in there.data and _has_genesis(api, settings.release):
                return None
            return _contribution_in(there)

        one = patience.until(look, f"{name}: {CONTRIBUTION_KEY}")
        if one is None:
            return None
        if (one.role, one.ordinal) != (role, ordinal):
            raise FoundingFault(
                f"the ConfigMap {name} has the contribution of {one.role.value} {one.ordinal}"
            )
        found.append(one)
    return found


def _operators(settings: ComposeSettings) -> list[Contribution]:
    if (settings.contributions_dir is None) == (settings.key_file is None):
        raise FoundingFault("expected either CONTRIBUTIONS_DIR with the operators, or KEY_FILE")
    if settings.key_file is not None:
        return [ceremony.contribute(Member(Role.OPERATOR, 0, settings.key_file))]
    assert settings.contributions_dir is not None
    operators = contributions_in(settings.contributions_dir)
    if others := [one for one in operators if one.role is not Role.OPERATOR]:
        raise FoundingFault(f"{settings.contributions_dir} has one of a {others[0].role.value}")
    return operators


def _publish(api: ConfigMaps, patience: Patience, known: ConfigMap, data: bytes) -> bytes:
    """Write the genesis, unless another job was faster: then its genesis is the ledger's."""
    if len(data) > GENESIS_BYTES_MAX:
        raise FoundingFault(f"genesis: expected at most {GENESIS_BYTES_MAX} bytes, got {len(data)}")
    latest = known

    def write() -> bytes:
        nonlocal latest
        try:
            return _genesis_in(api.add(latest, binary={GENESIS_KEY: data}, immutable=True))
        except (Conflict, Unavailable):
            # Also after an answer that was lost: what is there now is what counts.
            latest = api.get(known.name)
            if there := _genesis_in(latest, absent=b""):
                return there
            raise

    return patience.until(write, known.name)


def _hand_over(api: ConfigMaps, release: str, contribution: Contribution) -> None:
    text = encode_contribution(contribution).decode("ascii")
    known = api.get(contribution_name(release, contribution.role, contribution.ordinal))
    if known.data.get(CONTRIBUTION_KEY) != text:
        api.add(known, texts={CONTRIBUTION_KEY: text})


def _take_back(api: ConfigMaps, release: str, member: Member) -> None:
    known = api.get(contribution_name(release, member.role, member.ordinal))
    if CONTRIBUTION_KEY in known.data:
        api.remove(known, CONTRIBUTION_KEY)


def _has_genesis(api: ConfigMaps, release: str) -> bool:
    return GENESIS_KEY in api.get(genesis_name(release)).binary


def genesis_name(release: str) -> str:
    """The ConfigMap that the ledger's genesis is written into, once."""
    return f"{release}-genesis"


def contribution_name(release: str, role: Role, ordinal: int) -> str:
    """The ConfigMap that a member hands its contribution over in."""
    return f"{release}-contribution-{role.value}-{ordinal}"


def _contribution_in(found: ConfigMap) -> Contribution:
    text = found.data.get(CONTRIBUTION_KEY)
    if text is None:
        raise Unavailable(f"{found.name} has no contribution yet")
    if len(text) > CONTRIBUTION_BYTES_MAX:
        raise FoundingFault(f"the ConfigMap {found.name}: more than a contribution")
    try:
        return decode_contribution(text.encode())
    except Malformed as fault:
        raise FoundingFault(f"the ConfigMap {found.name}: {fault}") from fault


def _genesis_in(found: ConfigMap, absent: bytes | None = None) -> bytes:
    """The genesis; `absent` when there is none, or `Unavailable` when that is None."""
    data = found.binary.get(GENESIS_KEY, absent)
    if data is None:
        raise Unavailable(f"{found.name} has no genesis yet")
    return data


def _decoded(data: bytes) -> Genesis:
    try:
        return decode_genesis(data)
    except Malformed as fault:
        raise FoundingFault(f"the genesis in its ConfigMap is damaged: {fault}") from fault


def _check_keys(members: Iterable[Contribution]) -> None:
    """A proof of possession says nothing of whose the key is: it could be handed over twice."""
    owners: dict[Key, Contribution] = {}
    for one in members:
        other = owners.setdefault(one.key, one)
        if other is not one:
            raise FoundingFault(
                f"{one.role.value} {one.ordinal} and {other.role.value} {other.ordinal} have the "
                "same key: each member has one of its own"
            )


def _check_members(genesis: Genesis, members: Iterable[Contribution]) -> None:
    """A genesis that another job has written meanwhile has the same members, or is not ours."""
    for one in members:
        if key_in(genesis, one.role, one.ordinal) != one.key:
            raise FoundingFault(
                f"a genesis is there and has not the key of {one.role.value} {one.ordinal}: it was "
                "made of other contributions, and is never changed"
            )


def _check_terms(genesis: Genesis, settings: ComposeSettings) -> None:
    """What the values say of a ledger that is founded is true of it."""
    wanted = {
        "validators": (len(genesis.validators), settings.validators),
        "partitions": (genesis.partitions, settings.partitions),
        "epochLength": (genesis.epoch_length, settings.epoch_length),
        "operatorThreshold": (genesis.operator_threshold, settings.operator_threshold),
    }
    for what, (got, expected) in wanted.items():
        if got != expected:
            raise FoundingFault(
                f"the ledger has {what} {got}, the values say {expected}: a genesis is never "
                "changed"
            )
    # Without any in the values the job has made one, whose key is on its claim.
    named = [] if settings.contributions_dir is None else _operators(settings)
    for one in named:
        if key_in(genesis, Role.OPERATOR, one.ordinal) != one.key:
            raise FoundingFault(
                f"the ledger was founded with another key of operator {one.ordinal} than the "
                "values say: operators are changed by control records, never in the genesis"
            )
    operators = 1 if settings.contributions_dir is None else len(named)
    if len(genesis.operators) != operators:
        raise FoundingFault(
            f"the ledger was founded with {len(genesis.operators)} operators, the values say "
            f"{operators}: operators are changed by control records, never in the genesis"
        )


def _described(genesis: Genesis, data: bytes) -> str:
    """The ledger and every key in it, for people to compare with what each member has said."""
    members = {
        Role.VALIDATOR: genesis.validator_set.keys,
        Role.AUTHORITY: (genesis.authority,),
        Role.OPERATOR: genesis.operators,
    }
    keys = [
        f"{role.value} {ordinal} {format_key(key[0])}"
        for role, held in members.items()
        for ordinal, key in enumerate(held)
    ]
    return f"the ledger is {format_hash(ledger_id_of(data))}: {', '.join(keys)}"


class Patience:
    """Tries again what is not there yet, until so many seconds are over, all waits together."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._dice = random.SystemRandom()

    def until(self, look: Callable[[], Found], what: str) -> Found:
        """What `look` returns, once it raises neither `Unavailable` nor `Conflict`."""
        said = ""
        while True:
            try:
                return look()
            except (Unavailable, Conflict) as fault:
                if time.monotonic() >= self._deadline:
                    raise Unavailable(
                        f"waited {self._seconds:.0f} s in vain for {what}: {fault}"
                    ) from fault
                if str(fault) != said:
                    said = str(fault)
                    _say(f"waiting: {said}")
            time.sleep(LOOK_SECONDS * (1 + self._dice.random()))


def _api(settings: CeremonySettings) -> ConfigMaps:
    """The API server, whose address every container is given by Kubernetes itself."""
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", str(API_PORT_USUAL))
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise FoundingFault(
            "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT: expected the API server's "
            "address, as every container in a cluster has it"
        )
    return ConfigMaps(host, int(port), settings.kubernetes_dir)


def _say(sentence: str) -> None:
    print(f"founding: {sentence}", file=sys.stderr, flush=True)


STEPS: Final[dict[str, Callable[[], str]]] = {"join": join, "compose": compose_genesis}


def main() -> int:
    """Exit codes: see `jobs`."""
    return jobs.run("founding", STEPS, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
