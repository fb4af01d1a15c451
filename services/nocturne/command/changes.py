"""The changes of the validators that were seen in blocks, as lines for disposition proofs. Pure.

Rules: docs/spec/exports.md, `validators` lines: a proof of a block begins with those before it.
"""

from __future__ import annotations

from nocturne.core.block_intake import CheckedBlock
from nocturne.core.errors import Malformed
from nocturne.core.exports import ValidatorsLine, parse_line, validators_line
from nocturne.core.validator_sets import ValidatorSets


class Changes:
    """A line for each epoch with other validators than the one before, by the height of the block
    that shows it. It grows by what operators decide alone.
    """

    def __init__(self) -> None:
        self._lines: dict[int, bytes] = {}

    @staticmethod
    def decoded(data: bytes) -> Changes:
        """The reverse of `encode`; `Malformed` on anything else."""
        changes = Changes()
        for line in data.splitlines(keepends=True):
            parsed = parse_line(line)
            if not isinstance(parsed, ValidatorsLine):
                raise Malformed("changes of the validators: a line of another kind")
            changes._lines[parsed.block.header.height] = line
        if changes.encode() != data:
            raise Malformed("changes of the validators: not in their one order")
        return changes

    def encode(self) -> bytes:
        """The lines, heights rising."""
        return b"".join([self._lines[height] for height in sorted(self._lines)])

    def take(self, checked: CheckedBlock, sets: ValidatorSets) -> None:
        """A block of the chain; `sets` are those after it, or after a later one. The same block
        again changes nothing.
        """
        header = checked.block.header
        height = header.height
        if header.next_validator_set_hash == header.validator_set_hash:
            return
        if sets.is_end(height) and height not in self._lines:
            keys = sets.of(sets.epoch_at(height) + 1).keys
            self._lines[height] = validators_line(checked.block.header_bytes, checked.proof, keys)

    def before(self, height: int) -> bytes:
        """The lines that a proof of the block of `height` begins with."""
        return b"".join([self._lines[one] for one in sorted(self._lines) if one < height])
