(* What is proved, in full, and what it rests on. The check of the proofs reads this file's output:
   each theorem below must have this very statement and rest on no axiom. *)
From Coq Require Import Arith List.
From Nocturne Require Import Quorum Rules Agreement Runs Example.

Check (correct_validators_suffice :
  forall n, 1 <= n -> (n + (n - 1) / 3) / 2 + 1 <= n - (n - 1) / 3).

Check (quorums_share_a_correct_validator :
  forall (validator : Type) (same : forall i j : validator, {i = j} + {i <> j})
    (byzantine : validator -> bool) (members A B : list validator),
  length (filter byzantine members) <= (length members - 1) / 3 ->
  is_quorum validator members A -> is_quorum validator members B ->
  exists i, byzantine i = false /\ In i A /\ In i B).

Check (agreement :
  forall (validator content : Type) (same : forall i j : validator, {i = j} + {i <> j})
    (byzantine : validator -> bool)
    (last_of_epoch : block validator content -> bool)
    (set_after : block validator content -> list validator)
    (signed : validator -> vote validator content -> Prop),
  premises byzantine last_of_epoch set_after signed ->
  forall a b, is_ledger a -> is_ledger b ->
  committed last_of_epoch set_after signed a -> committed last_of_epoch set_after signed b ->
  on_chain a b \/ on_chain b a).

Check (one_block_at_a_height :
  forall (validator content : Type) (same : forall i j : validator, {i = j} + {i <> j})
    (byzantine : validator -> bool)
    (last_of_epoch : block validator content -> bool)
    (set_after : block validator content -> list validator)
    (signed : validator -> vote validator content -> Prop),
  premises byzantine last_of_epoch set_after signed ->
  forall a b, is_ledger a -> is_ledger b ->
  committed last_of_epoch set_after signed a -> committed last_of_epoch set_after signed b ->
  height_of a = height_of b -> a = b).

Check (agreement_in_every_run :
  forall (validator content : Type) (same : forall i j : validator, {i = j} + {i <> j})
    (byzantine : validator -> bool)
    (last_of_epoch : block validator content -> bool)
    (set_after : block validator content -> list validator)
    (s : state validator content),
  run validator content byzantine last_of_epoch set_after s ->
  few_byzantine last_of_epoch set_after s byzantine ->
  forall a b, is_ledger a -> is_ledger b ->
  committed last_of_epoch set_after s a -> committed last_of_epoch set_after s b ->
  (on_chain a b \/ on_chain b a) /\ (height_of a = height_of b -> a = b)).

Print Assumptions correct_validators_suffice.
Print Assumptions quorums_share_a_correct_validator.
Print Assumptions agreement.
Print Assumptions agreement_within_an_epoch.
Print Assumptions one_block_at_a_height.
Print Assumptions one_validator_set_in_an_epoch.
Print Assumptions a_committed_last_block_is_a_base.
Print Assumptions agreement_in_every_run.
Print Assumptions two_epochs_are_possible.
