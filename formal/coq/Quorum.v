(* Two quorums of one validator set share a correct validator: proved from the formula.
   Validators are named by anything that can be compared; a set of them is a list. *)
From Coq Require Import Arith Lia List.
Import ListNotations.

(* How many of n validators may be Byzantine, and how many votes make a certificate. *)
Definition faulty (n : nat) : nat := (n - 1) / 3.
Definition quorum (n : nat) : nat := (n + faulty n) / 2 + 1.

(* The only fact about the formula that agreement rests on. *)
Lemma quorums_overlap n : n + faulty n < 2 * quorum n.
Proof.
  unfold quorum.
  pose proof (Nat.div_mod (n + faulty n) 2) as halves.
  pose proof (Nat.mod_upper_bound (n + faulty n) 2) as rest.
  lia.
Qed.

Lemma faulty_below_a_third n : 1 <= n -> 3 * faulty n < n.
Proof.
  intro some. unfold faulty.
  pose proof (Nat.mul_div_le (n - 1) 3).
  lia.
Qed.

(* The correct validators make a quorum without the others: no rule can be too strict to be met. *)
Theorem correct_validators_suffice n : 1 <= n -> quorum n <= n - faulty n.
Proof.
  intro some. unfold quorum.
  pose proof (faulty_below_a_third n some).
  pose proof (Nat.mul_div_le (n + faulty n) 2).
  lia.
Qed.

Section Sets.
Variable validator : Type.
Variable same : forall i j : validator, {i = j} + {i <> j}.
Variable byzantine : validator -> bool.

Definition at_most_faulty (members : list validator) : Prop :=
  length (filter byzantine members) <= faulty (length members).

(* q different members. *)
Definition is_quorum (members voters : list validator) : Prop :=
  NoDup voters /\ incl voters members /\ length voters = quorum (length members).

Definition among (voters : list validator) (i : validator) : bool :=
  if in_dec same i voters then true else false.

Lemma among_iff voters i : among voters i = true <-> In i voters.
Proof. unfold among. destruct (in_dec same i voters); split; intro; congruence. Qed.

Lemma filter_splits (test : validator -> bool) voters :
  length voters = length (filter test voters) + length (filter (fun i => negb (test i)) voters).
Proof.
  induction voters as [|i rest IH]; simpl; trivial.
  destruct (test i); simpl; lia.
Qed.

Lemma NoDup_app_both (A B : list validator) :
  NoDup A -> NoDup B -> (forall i, In i A -> ~ In i B) -> NoDup (A ++ B).
Proof.
  intros once_a once_b apart. induction once_a as [|i rest fresh once IH]; simpl; trivial.
  constructor.
  - intro found. apply in_app_or in found as [found|found]; [auto|].
    apply (apart i); simpl; auto.
  - apply IH. intros j found. apply apart. simpl; auto.
Qed.

(* |A| + |B| <= |A and B| + |members|. *)
Lemma overlap members A B :
  NoDup A -> NoDup B -> incl A members -> incl B members ->
  length A + length B <= length (filter (among A) B) + length members.
Proof.
  intros once_a once_b a_in b_in.
  rewrite (filter_splits (among A) B).
  enough (length (A ++ filter (fun i => negb (among A i)) B) <= length members) as enough.
  { rewrite app_length in enough. lia. }
  apply NoDup_incl_length.
  - apply NoDup_app_both; auto using NoDup_filter.
    intros i in_a in_b. apply filter_In in in_b as [_ outside].
    apply among_iff in in_a. rewrite in_a in outside. discriminate.
  - intros i found. apply in_app_or in found as [found|found]; auto.
    apply filter_In in found as [found _]. auto.
Qed.

(* A list without repetition that is longer than the Byzantine are many has a correct one. *)
Lemma one_is_correct members shared :
  at_most_faulty members -> NoDup shared -> incl shared members ->
  faulty (length members) < length shared ->
  exists i, In i shared /\ byzantine i = false.
Proof.
  intros few once inside many.
  destruct (filter (fun i => negb (byzantine i)) shared) as [|i rest] eqn:correct_ones.
  - exfalso.
    pose proof (filter_splits byzantine shared) as parts.
    rewrite correct_ones in parts. simpl in parts.
    assert (length (filter byzantine shared) <= length (filter byzantine members)).
    { apply NoDup_incl_length; auto using NoDup_filter.
      intros i found. apply filter_In in found as [found bad].
      apply filter_In; auto. }
    unfold at_most_faulty in few. lia.
  - assert (In i (i :: rest)) as found by (left; trivial).
    rewrite <- correct_ones in found. apply filter_In in found as [found good].
    exists i. split; trivial. now destruct (byzantine i).
Qed.

Theorem quorums_share_a_correct_validator members A B :
  at_most_faulty members -> is_quorum members A -> is_quorum members B ->
  exists i, byzantine i = false /\ In i A /\ In i B.
Proof.
  intros few [once_a [a_in a_size]] [once_b [b_in b_size]].
  pose proof (overlap members A B once_a once_b a_in b_in) as shared.
  pose proof (quorums_overlap (length members)).
  destruct (one_is_correct members (filter (among A) B)) as [i [found good]];
    auto using NoDup_filter.
  - intros i found. apply filter_In in found as [found _]. auto.
  - lia.
  - apply filter_In in found as [in_b in_a]. apply among_iff in in_a. eauto.
Qed.
End Sets.
