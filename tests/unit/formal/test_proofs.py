"""The proofs speak of the product's quorum, and their check refuses what proves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from formal import coq_proofs, tla_models
from formal.results import Finished
from formal.tla_models import EVERY_RULE, MODELS, Model

from nocturne.core.certificates import quorum

FORMAL = Path(coq_proofs.__file__).parent


# ---------------------------------------------------------------- the quorum


COQ = (
    "Definition faulty (n : nat) : nat := (n - 1) / 3.",
    "Definition quorum (n : nat) : nat := (n + faulty n) / 2 + 1.",
)
TLA = (r"Faulty(n) == (n - 1) \div 3", r"Quorum(n) == (n + Faulty(n)) \div 2 + 1")


@pytest.mark.parametrize("file, formula", [("coq/Quorum.v", COQ), ("tla/Agreement.tla", TLA)])
def test_each_formal_text_defines_the_quorum_once(file: str, formula: tuple[str, ...]) -> None:
    lines = (FORMAL / file).read_text().splitlines()
    begins = tuple(line.split("=")[0].rstrip(": ") for line in formula)
    assert tuple(line for line in lines if line.startswith(begins)) == formula


def test_the_products_quorum_is_the_formula_of_the_proofs() -> None:
    for n in range(1, 501):
        faulty = (n - 1) // 3
        assert quorum(n) == (n + faulty) // 2 + 1
        assert 2 * quorum(n) - n > faulty  # two quorums share a correct validator
        assert quorum(n) <= n - faulty  # the correct ones make a quorum


def test_coq_is_asked_for_the_products_quorum_of_every_n() -> None:
    line = coq_proofs.table(quorum).splitlines()[3]
    assert "as_in_the_product : map quorum (seq 1 500) = [1; 2; 2; 3; 4; 4; 5; " in line
    assert len(line.split(";")) == 500


# ---------------------------------------------------------------- Coq


SOURCE = "Print Assumptions one.\nPrint Assumptions two.\n"
CLOSED = "Closed under the global context\n"


def test_theorems_without_axioms_hold() -> None:
    results = coq_proofs.theorems(SOURCE, f"statement\n{CLOSED}{CLOSED}")
    assert [(result.name, result.holds) for result in results] == [
        ("Coq one", True),
        ("Coq two", True),
    ]


def test_a_theorem_that_rests_on_an_axiom_is_refused() -> None:
    results = coq_proofs.theorems(SOURCE, f"{CLOSED}Axioms:\nguess : forall n, n = 0\n")
    assert [result.holds for result in results] == [True, False]


@pytest.mark.parametrize(
    "source, output", [(SOURCE, CLOSED), (SOURCE, ""), ("", ""), (SOURCE, CLOSED * 3)]
)
def test_answers_that_are_not_one_a_theorem_are_refused(source: str, output: str) -> None:
    assert [result.holds for result in coq_proofs.theorems(source, output)] == [False]


def test_every_source_is_compiled_and_no_proof_is_left_open() -> None:
    sources = sorted(coq_proofs.SOURCES.glob("*.v"))
    assert {path.stem for path in sources} == set(coq_proofs.FILES)
    for path in sources:
        words = set(path.read_text().replace(".", " ").split())
        assert words.isdisjoint({"Admitted", "admit", "Axiom", "Axioms", "Parameter", "Conjecture"})


def test_the_theorems_asked_about_are_the_ones_that_count() -> None:
    asked = {
        result.name.removeprefix("Coq ")
        for result in coq_proofs.theorems(
            (coq_proofs.SOURCES / "Assumptions.v").read_text(), CLOSED * 9
        )
    }
    assert {
        "agreement",
        "one_block_at_a_height",
        "agreement_in_every_run",
        "quorums_share_a_correct_validator",
        "two_epochs_are_possible",
    } <= asked


# ---------------------------------------------------------------- TLC


def _said(states: int, more: str = "", code: int | None = 0) -> Finished:
    output = f"9 states generated, {states} distinct states found, 0 states left on queue.\n"
    return Finished(code, more + output, 1.0)


BROKEN = "Error: Invariant Agreement is violated.\nState 1: <Initial>\nState 2: <Notarize>\n"
HOLDING = Model("every rule", {}, states=7)
BREAKING = Model("without one", {})


def test_a_model_holds_only_in_as_many_states_as_it_has() -> None:
    assert tla_models.verdict(HOLDING, _said(7)).holds
    assert not tla_models.verdict(HOLDING, _said(6)).holds
    assert not tla_models.verdict(HOLDING, _said(7, BROKEN, 12)).holds
    assert not tla_models.verdict(HOLDING, _said(7, code=None)).holds
    assert not tla_models.verdict(HOLDING, Finished(0, "", 1.0)).holds


def test_a_model_without_a_rule_must_break_and_show_how() -> None:
    assert tla_models.verdict(BREAKING, _said(7, BROKEN, 12)).holds
    assert not tla_models.verdict(BREAKING, _said(7)).holds
    assert not tla_models.verdict(BREAKING, _said(7, BROKEN, 0)).holds
    assert not tla_models.verdict(BREAKING, _said(7, "Error: Deadlock reached.\n", 11)).holds
    assert not tla_models.verdict(BREAKING, _said(7, BROKEN.replace("Agreement", "X"), 12)).holds


@pytest.mark.parametrize("rule", EVERY_RULE)
def test_every_rule_is_dropped_alone_in_a_model_that_must_break(rule: str) -> None:
    dropped = [
        model
        for model in MODELS
        if {name for name, value in EVERY_RULE.items() if model.constants[name] != value} == {rule}
    ]
    assert [(model.states, model.invariant) for model in dropped] == [(None, "Agreement")]


def test_the_models_are_of_four_validators_one_of_them_byzantine() -> None:
    assert {(model.constants["Correct"], model.constants["Byzantine"]) for model in MODELS} == {
        ("{v1, v2, v3}", "1")
    }
