"""A ledger that runs elsewhere: where its services are, which ledger it is, and who we are there.

Rules: docs/guides/security.md. It is named by the environment; without an address there, the ledger
is the one of a home. Author keys are in the home in either case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from nocturne.cli import trust
from nocturne.cli.failures import bad_use
from nocturne.client import Credentials, CredentialsFault
from nocturne.client.credentials import host_and_port
from nocturne.core.identifiers import LedgerId

PREFIX: Final = "NOCTURNE_"
COMMAND: Final = "COMMAND_ADDRESS"
QUERY: Final = "QUERY_ADDRESS"
CONTROL: Final = "CONTROL_ADDRESS"
VALIDATORS_MAX: Final = 128
"""Addresses of validators: more than a ledger is founded with."""
_FILES: Final = {
    "ca_file": "CA_FILE",
    "cert_file": "CLIENT_CERT_FILE",
    "key_file": "CLIENT_KEY_FILE",
    "token_file": "TOKEN_FILE",
}


@dataclass(frozen=True, slots=True)
class Deployment:
    """Addresses (`host:port`, None: not given; of validators any number), the trusted ledger (with
    its genesis when a file has it), and the credentials for all of them.
    """

    command: str | None
    query: str | None
    control: tuple[str, ...]
    ledger_id: LedgerId
    genesis: bytes | None
    credentials: Credentials | None

    @property
    def services(self) -> tuple[tuple[str, str], ...]:
        """The names and addresses of those that were given."""
        named = (("command", self.command), ("query", self.query))
        validators = (("consensus", address) for address in self.control)
        return (*((name, address) for name, address in named if address is not None), *validators)


def deployment_of(environment: Mapping[str, str]) -> Deployment | None:
    """The deployment that the environment names; None when it names no address. Bad use when an
    address is none, or nothing says which ledger is trusted there.
    """
    command, query = (_address(environment, one) for one in (COMMAND, QUERY))
    control = _addresses(environment, CONTROL)
    if command is None and query is None and not control:
        return None
    ledger = trust.ledger_of(environment)
    if ledger is None:
        raise bad_use(
            f"Which ledger is trusted is not said: set {PREFIX}{trust.LEDGER} to its id "
            "(sha256-…) or to its genesis file."
        )
    ledger_id, genesis = ledger
    return Deployment(command, query, control, ledger_id, genesis, _credentials(environment))


Address = TypeVar("Address", str, tuple[str, ...])


def needed(address: Address | None, name: str) -> Address:
    """An address, or some, without which the command cannot be run."""
    if not address:
        raise bad_use(f"This needs another service of the deployment: set {PREFIX}{name}.")
    return address


def _address(environment: Mapping[str, str], name: str) -> str | None:
    address = environment.get(PREFIX + name)
    return _checked(name, address) if address else None


def _addresses(environment: Mapping[str, str], name: str) -> tuple[str, ...]:
    """Some addresses with commas between them; the same one twice counts once."""
    text = environment.get(PREFIX + name)
    parts = [part.strip() for part in text.split(",", VALIDATORS_MAX)] if text else []
    if len(parts) > VALIDATORS_MAX:
        raise bad_use(f"{PREFIX}{name} names more than {VALIDATORS_MAX} addresses.")
    return tuple(dict.fromkeys(_checked(name, part) for part in parts))


def _checked(name: str, address: str) -> str:
    try:
        host_and_port(address)
    except CredentialsFault as fault:
        raise bad_use(f"{PREFIX}{name} is no address ({fault}).") from fault
    return address


def _credentials(environment: Mapping[str, str]) -> Credentials | None:
    given = {field: environment.get(PREFIX + name) for field, name in _FILES.items()}
    files = {field: Path(path).expanduser() for field, path in given.items() if path}
    if not files:
        return None
    try:
        return Credentials(**files)
    except CredentialsFault as fault:
        names = ", ".join(PREFIX + name for name in _FILES.values())
        raise bad_use(f"The files do not go together, {fault} ({names}).") from fault
