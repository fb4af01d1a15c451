(* The rules in time: what a correct validator asks of the votes signed so far, before it signs one.
   It need not have received them: who waits for that asks more. Whatever is signed later, the rules
   of Rules.v hold, so agreement holds in every state of every run. *)
From Coq Require Import List.
From Nocturne Require Import Quorum Rules Agreement.

Section Runs.
Variable validator : Type.
Variable content : Type.
Variable same : forall i j : validator, {i = j} + {i <> j}.
Variable byzantine : validator -> bool.
Notation block := (block validator content).
Notation vote := (vote validator content).
Variable last_of_epoch : block -> bool.
Variable set_after : block -> list validator.

(* The votes signed so far. *)
Definition state : Type := validator -> vote -> Prop.

Definition nothing_signed : state := fun _ _ => False.
Definition add (s : state) (i : validator) (v : vote) : state :=
  fun j w => s j w \/ (j = i /\ w = v).

Notation base := (base last_of_epoch set_after).
Notation may_notarize := (may_notarize last_of_epoch set_after).

(* The certificates asked for are made of votes that are already signed. *)
Definition may_sign (s : state) (i : validator) (v : vote) : Prop :=
  match v with
  | Notarize b =>
      (forall a, s i (Notarize a) -> slot_of a = slot_of b -> a = b) /\
      exists h p, b = Child h p /\ may_notarize s h p
  | Nullify epoch members view =>
      forall b, s i (Finalize b) -> slot_of b <> (epoch, members, view)
  | Finalize b =>
      notarized s b /\
      ~ s i (Nullify (epoch_of b) (set_of b) (view_of b))
  end.

Inductive run : state -> Prop :=
| begins : run nothing_signed
| a_correct_one_signs s i v : run s -> byzantine i = false -> may_sign s i v -> run (add s i v)
| a_byzantine_one_signs s i v : run s -> byzantine i = true -> run (add s i v).

(* ------------------------------------------------------ what is certified stays certified *)

Definition grows (s t : state) : Prop := forall i v, s i v -> t i v.

Lemma certificate_stays s t members v :
  grows s t -> certificate s members v -> certificate t members v.
Proof. intros more [voters [size all]]. exists voters. split; auto. Qed.

Lemma base_stays s t : grows s t -> forall e B, base s e B -> base t e B.
Proof.
  intro more. induction e as [|before IH]; intros B known; trivial. simpl in *.
  destruct known as [ledger [last [eB [B' [d [known' [Bd [ed [sd fd]]]]]]]]].
  repeat split; trivial. exists B', d. repeat split; auto.
  apply (certificate_stays s); trivial.
Qed.

Lemma may_notarize_stays s t h p : grows s t -> may_notarize s h p -> may_notarize t h p.
Proof.
  intros more [[fits [cert skipped]]|[fits [known skipped]]]; [left|right];
    repeat split; try apply fits;
    try (intros u low high; apply (certificate_stays s); auto).
  - apply (certificate_stays s); trivial.
  - apply (base_stays s); trivial.
Qed.

Lemma a_run_obeys s : run s -> correct_obey last_of_epoch set_after s byzantine.
Proof.
  intro reached.
  induction reached as [|s i v reached IH good asked|s i v reached IH bad]; intros j good_j.
  - split; [|split]; red; contradiction.
  - assert (grows s (add s i v)) as more by (red; unfold add; auto).
    destruct (IH j good_j) as [k1 [k2 k3]]. split; [|split].
    + intros a b [va|[ja a_new]] [vb|[jb b_new]] slots; subst; simpl in *.
      * auto.
      * destruct asked as [once _]. auto.
      * destruct asked as [once _]. symmetry. apply once; auto.
      * congruence.
    + intros h p [old|[_ new]].
      * apply (may_notarize_stays s); auto.
      * subst. destruct asked as [_ [h' [p' [this may]]]]. injection this as -> ->.
        apply (may_notarize_stays s); auto.
    + intros b fin. split.
      * apply (certificate_stays s); trivial.
        destruct fin as [old|[_ new]]; [now apply k3|subst; apply asked].
      * intros [old_n|[jn new_n]]; destruct fin as [old|[jf new]]; subst; simpl in *.
        -- now destruct (k3 b old).
        -- now apply asked.
        -- now apply (asked b old).
        -- discriminate.
  - assert (grows s (add s i v)) as more by (red; unfold add; auto).
    assert (forall w, add s i v j w -> s j w) as mine.
    { intros w [old|[is_i _]]; trivial. congruence. }
    destruct (IH j good_j) as [k1 [k2 k3]]. split; [|split].
    + intros a b va vb. apply k1; auto.
    + intros h p voted. apply (may_notarize_stays s); auto.
    + intros b fin. destruct (k3 b (mine _ fin)) as [cert excluded]. split; auto.
      apply (certificate_stays s); trivial.
Qed.

Theorem agreement_in_every_run s :
  run s ->
  few_byzantine last_of_epoch set_after s byzantine ->
  forall a b,
  is_ledger a -> is_ledger b ->
  committed last_of_epoch set_after s a ->
  committed last_of_epoch set_after s b ->
  (on_chain a b \/ on_chain b a) /\ (height_of a = height_of b -> a = b).
Proof.
  intros reached few a b ledger_a ledger_b proof_a proof_b.
  assert (premises byzantine last_of_epoch set_after s) as rules
    by (split; [apply a_run_obeys|]; trivial).
  split.
  - apply (agreement validator content same byzantine last_of_epoch set_after s rules); trivial.
  - apply (one_block_at_a_height validator content same byzantine last_of_epoch
      set_after s rules); trivial.
Qed.

End Runs.
