"""What operators decide, whatever it is: signed by one, by others, and brought into a block.

Rules: docs/spec/blocks.md §8. A record has a number, one more than the last: of two that were made
at once one counts. Where several operators must sign, a file goes from one to the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeVar

import typer

from nocturne.cli.failures import ExitCode, Failure, bad_use
from nocturne.cli.ledger import Operators
from nocturne.cli.surroundings import Surroundings
from nocturne.client.operating import Governance, Governed
from nocturne.core.control import (
    CONTROL_BYTES_MAX,
    Control,
    cosign_control,
    decode_control,
    sign_control,
)
from nocturne.core.encoding import AvroRecord
from nocturne.core.errors import Malformed
from nocturne.core.keys import Signer, key_id
from nocturne.embedded.ceremony import operator_key
from nocturne.runtime.keys import load_signer

Answer = TypeVar("Answer")

VALID_BLOCKS: Final = 1_000_000
"""How many blocks operators have to sign a proposal: at ten blocks a second a day."""

KeyOption = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="FILE",
        help="An operator's key file: the home's own when not given.",
        show_default=False,
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE",
        help="Write the signed proposal there for the other operators; change nothing.",
        show_default=False,
    ),
]
ProposalArgument = Annotated[Path, typer.Argument(metavar="FILE", show_default=False)]


@dataclass(frozen=True, slots=True)
class Decision:
    """A kind of control record, and the word of the command line that makes it: `policy`, with
    `policy set` to write a proposal and `policy show` to see where the ledger stands.
    """

    action: str
    word: str
    writes: str
    shows: str
    stands: str = "ledger"
    """What `shows` says the place of."""

    def propose(self, now: Governance, fields: AvroRecord, signer: Signer, after: int = 0) -> bytes:
        """The next record, or the one after so many others, signed by one operator."""
        number = now.number + 1 + after
        control = Control(now.ledger_id, number, now.height + VALID_BLOCKS, self.action, fields)
        return sign_control(control, (signer,))

    def hand_over(self, around: Surroundings, now: Governance, proposal: bytes, out: Path) -> None:
        """Write the proposal for the other operators; never over another file."""
        with out.open("xb") as file:
            file.write(proposal)
        around.say(
            f"Signed by 1 of {now.operator_threshold}: the others run "
            f"'nocturne {self.word} sign {out}', then anyone 'nocturne {self.word} submit {out}'."
        )

    def check_alone(self, now: Governance) -> None:
        """Bad use unless one operator's signature is enough."""
        if now.operator_threshold > 1:
            raise bad_use(
                f"{now.operator_threshold} operators must sign: write the proposal with --out "
                f"FILE, have the others run 'nocturne {self.word} sign FILE', then 'nocturne "
                f"{self.word} submit FILE'."
            )

    def read(self, file: Path) -> bytes:
        """The proposal in a file; bad use when it is none of this kind."""
        with file.open("rb") as opened:
            data = opened.read(CONTROL_BYTES_MAX + 1)
        try:
            control, _ = decode_control(data)
        except Malformed as fault:
            raise bad_use(
                f"{file} is no proposal ({fault}): '{self.writes} … --out' writes one."
            ) from fault
        if control.action != self.action:
            raise bad_use(f"{file} is a {control.action}, and this takes a {self.action}.")
        return data

    def sign(self, around: Surroundings, file: Path, record: bytes, signer: Signer) -> None:
        """Add a signature to the proposal that a file has."""
        signed = cosign_control(record, signer)
        self.replace(around, file, signed, signed)

    def replace(self, around: Surroundings, file: Path, proposal: bytes, record: bytes) -> None:
        """Write the proposal of which this record is one, with one more signature."""
        _replace_file(file, proposal)
        signers = {one.key_id for one in decode_control(record)[1]}
        around.say(f"Signed by {len(signers)}: 'nocturne {self.word} submit {file}' brings it in.")

    def submit(self, around: Surroundings, home: Path | None, record: bytes) -> Governed:
        """Bring a proposal into a block; a failed check when none may carry it."""
        return self.bring(around, home, lambda operators: operators.submit(record))

    def bring(
        self,
        around: Surroundings,
        home: Path | None,
        bring: Callable[[Operators], Awaitable[Answer]],
    ) -> Answer:
        """What `bring` gives; a failed check when no block may carry the proposal."""
        try:
            return operating(around, home, bring)
        except Malformed as fault:
            raise Failure(
                ExitCode.FAILED,
                f"The proposal is not valid ({fault}): 'nocturne {self.shows}' says where the "
                f"{self.stands} stands.",
            ) from fault


def operating(
    around: Surroundings, home: Path | None, ask: Callable[[Operators], Awaitable[Answer]]
) -> Answer:
    """What `ask` of the operators' client gives."""

    async def asked() -> Answer:
        async with around.operate(around.home(home)) as operators:
            return await ask(operators)

    return asyncio.run(asked())


def signer_of(around: Surroundings, home: Path | None, key: Path | None) -> Signer:
    """The operator's key that was named, else the home's own."""
    file = operator_key(around.home(home)) if key is None else key
    if not file.exists():
        raise bad_use(f"There is no operator's key in {file}: name one with --key FILE.")
    return load_signer(file)


def check_operator(now: Governance, signer: Signer) -> None:
    """Bad use when the key is no operator's of this ledger."""
    if key_id(signer.key) not in now.operators:
        raise bad_use("The key is no operator's of this ledger: name another with --key.")


def _replace_file(file: Path, record: bytes) -> None:
    """Written beside it first: a signature that could not be written loses none that was."""
    fresh = file.with_name(f"{file.name}.signed")
    with fresh.open("xb") as opened:
        opened.write(record)
    fresh.replace(file)
