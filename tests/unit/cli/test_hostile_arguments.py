"""Arguments and answers that nobody means well with: a sentence, never a traceback."""

from __future__ import annotations

import pytest
from tests.unit.cli.memory_ledger import Shell

from nocturne.cli.lag import lag_in


@pytest.mark.parametrize("value", ["nan", "+Inf", "\x13.0", "1e999", "-1", "9" * 5000, ""])
def test_a_lag_that_is_no_number_is_none(value: str) -> None:
    assert lag_in(f"nocturne_signing_lag_records {value}\n") is None


def test_the_largest_lag_counts() -> None:
    metrics = 'nocturne_query_blocks_lag 1e+03\nnocturne_signing_lag_records{topic="a"} 3.0\n'
    assert lag_in(metrics) == 1000


def test_a_ledger_to_trust_that_no_file_can_be_is_bad_use(shell: Shell) -> None:
    assert shell.run("verify", "--trust", "a\0b", "export") == 2
    assert "neither" in shell.err
    assert shell.run("verify", "--trust", "x" * 4000, "export") == 2
    assert len(shell.err) < 1000


def test_a_deadline_that_is_no_number_is_bad_use(shell: Shell) -> None:
    for value in ("nan", "inf", "-inf"):
        assert shell.run("submit", "a/1", "T", "{}", "--deadline", value) == 2, value
