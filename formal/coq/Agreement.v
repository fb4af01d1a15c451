(* Two blocks with commit proofs are on one chain: within an epoch, and the ledger blocks of all. *)
From Coq Require Import Arith Lia List.
From Nocturne Require Import Quorum Rules.

Section Agreement.
Variable validator : Type.
Variable content : Type.
Variable same : forall i j : validator, {i = j} + {i <> j}.
Variable byzantine : validator -> bool.
Notation block := (block validator content).
Variable last_of_epoch : block -> bool.
Variable set_after : block -> list validator.
Variable signed : validator -> vote validator content -> Prop.

Notation certificate := (certificate signed).
Notation notarized := (notarized signed).
Notation finalized := (finalized signed).
Notation base := (base last_of_epoch set_after signed).
Notation committed := (committed last_of_epoch set_after signed).
Notation may_notarize := (may_notarize last_of_epoch set_after signed).

Definition premises : Prop :=
  correct_obey last_of_epoch set_after signed byzantine /\
  few_byzantine last_of_epoch set_after signed byzantine.

Section Proof.
Variable rules : premises.

(* ------------------------------------------------------ chains *)

Lemma chain_joins (a b c : block) : on_chain a b -> on_chain b c -> on_chain a c.
Proof. intros ab bc. induction bc; auto. constructor; auto. Qed.

Lemma ancestors_on_one_chain (a b d : block) :
  on_chain a d -> on_chain b d -> on_chain a b \/ on_chain b a.
Proof.
  intro ad. revert b. induction ad as [|h p ap IH]; intros b bd; auto.
  inversion bd as [|h' p' bp]; subst.
  - left. constructor; trivial.
  - auto.
Qed.

(* ------------------------------------------------------ an epoch's validators *)

(* b is of epoch e, by the validators that the chain named after B. *)
Definition of_epoch (e : nat) (B b : block) : Prop :=
  base e B /\ epoch_of b = e /\ set_of b = set_after B.

Lemma quorums_meet e B v w :
  base e B -> certificate (set_after B) v -> certificate (set_after B) w ->
  exists i, byzantine i = false /\ signed i v /\ signed i w.
Proof.
  intros known [A [qa va]] [C [qc vc]].
  destruct rules as [_ few].
  destruct (quorums_share_a_correct_validator validator same byzantine (set_after B) A C)
    as [i [good [ia ic]]]; auto.
  - apply (few e); trivial.
  - exists i. auto.
Qed.

Lemma a_correct_one_signed e B v :
  base e B -> certificate (set_after B) v -> exists i, byzantine i = false /\ signed i v.
Proof.
  intros known cert. destruct (quorums_meet e B v v) as [i [good [sv _]]]; eauto.
Qed.

Lemma notarized_by_the_rules e B h p :
  of_epoch e B (Child h p) -> notarized (Child h p) -> may_notarize h p.
Proof.
  intros [known [_ members]] cert. unfold Rules.notarized in cert. rewrite members in cert.
  destruct (a_correct_one_signed _ _ _ known cert) as [i [good voted]].
  destruct rules as [obey _]. destruct (obey i good) as [_ [k2 _]]. auto.
Qed.

Lemma genesis_has_no_certificate v : ~ certificate nil v.
Proof.
  intros [voters [[_ [inside size]] _]].
  destruct voters as [|i rest]; [discriminate|]. apply (inside i). now left.
Qed.

Lemma one_notarization_in_a_view e B a b :
  of_epoch e B a -> of_epoch e B b -> notarized a -> notarized b -> view_of a = view_of b -> a = b.
Proof.
  intros [known [ea sa]] [_ [eb sb]] na nb views.
  unfold Rules.notarized in na, nb. rewrite sa in na. rewrite sb in nb.
  destruct (quorums_meet _ _ _ _ known na nb) as [i [good [va vb]]].
  destruct rules as [obey _]. destruct (obey i good) as [k1 _].
  apply k1; trivial. unfold slot_of. congruence.
Qed.

Lemma finalized_is_notarized e B b : of_epoch e B b -> finalized b -> notarized b.
Proof.
  intros [known [_ members]] fin. unfold Rules.finalized in fin. rewrite members in fin.
  destruct (a_correct_one_signed _ _ _ known fin) as [i [good voted]].
  destruct rules as [obey _]. destruct (obey i good) as [_ [_ k3]]. apply (k3 b voted).
Qed.

Lemma finalized_view_is_not_nullified e B b :
  of_epoch e B b -> finalized b ->
  ~ certificate (set_after B) (Nullify e (set_after B) (view_of b)).
Proof.
  intros [known [eb members]] fin nul. unfold Rules.finalized in fin. rewrite members in fin.
  destruct (quorums_meet _ _ _ _ known fin nul) as [i [good [vf vn]]].
  destruct rules as [obey _]. destruct (obey i good) as [_ [_ k3]].
  destruct (k3 b vf) as [_ excluded]. apply excluded. congruence.
Qed.

Lemma views_start_at_one e B b : of_epoch e B b -> notarized b -> 0 < view_of b.
Proof.
  intros member cert. destruct b as [|h p].
  - exfalso. exact (genesis_has_no_certificate _ cert).
  - destruct (notarized_by_the_rules _ _ _ _ member cert)
      as [[[_ [_ [later _]]] _]|[[_ [positive _]] _]]; simpl; lia.
Qed.

(* ------------------------------------------------------ within one epoch *)

Lemma later_notarized_descends e B a :
  of_epoch e B a -> finalized a ->
  forall b, of_epoch e B b -> notarized b -> view_of a <= view_of b -> on_chain a b.
Proof.
  intros of_a fin b. induction b as [|h p IH]; intros of_b cert order.
  - exfalso. exact (genesis_has_no_certificate _ cert).
  - pose proof (finalized_is_notarized _ _ _ of_a fin) as cert_a.
    destruct (Nat.eq_dec (view_of a) (view_of (Child h p))) as [equal|differ].
    + rewrite (one_notarization_in_a_view e B a (Child h p)); trivial. constructor.
    + pose proof of_b as [known [eb members]]. simpl in eb, members, order, differ.
      pose proof (finalized_view_is_not_nullified _ _ _ of_a fin) as kept.
      destruct (notarized_by_the_rules _ _ _ _ of_b cert)
        as [[[same_epoch [same_set [_ _]]] [cert_p skipped]]|[[_ _] [_ skipped]]].
      * constructor. apply IH; trivial.
        -- repeat split; trivial; congruence.
        -- destruct (le_lt_dec (view_of a) (view_of p)) as [fine|over]; trivial.
           exfalso. apply kept. rewrite <- eb, <- members. apply skipped; lia.
      * exfalso. apply kept. rewrite <- eb, <- members. apply skipped; [|lia].
        apply (views_start_at_one e B); trivial.
Qed.

Lemma finalized_on_one_chain e B a b :
  of_epoch e B a -> of_epoch e B b -> finalized a -> finalized b ->
  on_chain a b \/ on_chain b a.
Proof.
  intros of_a of_b fa fb. destruct (le_lt_dec (view_of a) (view_of b)) as [order|order].
  - left. apply (later_notarized_descends e B); trivial.
    apply (finalized_is_notarized e B); trivial.
  - right. apply (later_notarized_descends e B); trivial.
    + apply (finalized_is_notarized e B); trivial.
    + lia.
Qed.

(* ------------------------------------------------------ what a certified block stands on *)

(* Certified by the validators that the chain names. *)
Definition sound (e : nat) (B b : block) : Prop := of_epoch e B b /\ notarized b.

Lemma finalized_is_sound e B b : of_epoch e B b -> finalized b -> sound e B b.
Proof. intros member fin. split; trivial. apply (finalized_is_notarized e B); trivial. Qed.

(* Going back from a sound block: sound blocks of its epoch, then a base of it. *)
Lemma back_to_base e B d : sound e B d -> exists B', base e B' /\ on_chain B' d.
Proof.
  induction d as [|h p IH]; intros [member cert].
  - exfalso. exact (genesis_has_no_certificate _ cert).
  - pose proof member as [known [ed members]]. simpl in ed, members.
    destruct (notarized_by_the_rules _ _ _ _ member cert)
      as [[[same_epoch [same_set _]] [cert_p _]]|[_ [known_p _]]].
    + destruct IH as [B' [known' below]].
      { repeat split; trivial; congruence. }
      exists B'. split; trivial. constructor; trivial.
    + exists p. rewrite <- ed. split; trivial. repeat constructor.
Qed.

Lemma ancestor_of_sound e B d x :
  sound e B d -> on_chain x d -> sound e B x \/ exists B', base e B' /\ on_chain x B'.
Proof.
  intros fine below. induction below as [|h p below IH]; auto.
  destruct fine as [member cert]. pose proof member as [known [ed members]]. simpl in ed, members.
  destruct (notarized_by_the_rules _ _ _ _ member cert)
    as [[[same_epoch [same_set _]] [cert_p _]]|[_ [known_p _]]].
  - apply IH. repeat split; trivial; congruence.
  - right. exists p. rewrite <- ed. auto.
Qed.

Lemma below_a_base e : forall B x, base e B -> on_chain x B -> x = Genesis \/ epoch_of x < e.
Proof.
  induction e as [|before IH]; intros B x known below.
  - left. simpl in known. subst. inversion below. trivial.
  - simpl in known. destruct known as [_ [_ [_ [B' [d [known' [Bd [ed [members fin]]]]]]]]].
    assert (sound before B' d) as fine by (apply finalized_is_sound; repeat split; trivial).
    destruct (ancestor_of_sound _ _ _ x fine) as [[[_ [ex _]] _]|[B'' [known'' xB]]].
    + apply (chain_joins x B d); trivial.
    + right. lia.
    + destruct (IH B'' x known'' xB) as [genesis|lower]; auto.
Qed.

(* So a ledger block of epoch e under a sound block of e is sound. *)
Lemma ledger_ancestor_of_sound e B d x :
  sound e B d -> on_chain x d -> is_ledger x -> epoch_of x = e -> sound e B x.
Proof.
  intros fine below ledger ex.
  destruct (ancestor_of_sound _ _ _ x fine below) as [found|[B' [known xB]]]; trivial.
  exfalso. destruct (below_a_base _ _ _ known xB) as [genesis|lower].
  - now subst.
  - lia.
Qed.

Lemma nothing_after_the_last e B x y :
  sound e B y -> on_chain x y -> is_ledger x -> epoch_of x = e -> last_of_epoch x = true ->
  is_ledger y -> x = y.
Proof.
  intros fine below ledger_x ex last. induction below as [|h p below IH]; trivial.
  intro ledger_y. exfalso. destruct fine as [member cert].
  pose proof member as [known [ed members]]. simpl in ed, members, ledger_y.
  destruct (notarized_by_the_rules _ _ _ _ member cert)
    as [[[same_epoch [same_set [_ shape]]] [cert_p _]]|[_ [known_p _]]].
  - rewrite ledger_y in shape. destruct shape as [ledger_p [not_last _]].
    assert (x = p).
    { apply IH; trivial. repeat split; trivial; congruence. }
    congruence.
  - rewrite ed in known_p. destruct (below_a_base _ _ _ known_p below) as [genesis|lower].
    + now subst.
    + lia.
Qed.

(* ------------------------------------------------------ from epoch to epoch *)

Lemma one_base e : forall B C, base e B -> base e C -> B = C.
Proof.
  induction e as [|before IH]; intros B C known_B known_C.
  - simpl in *. congruence.
  - simpl in known_B, known_C.
    destruct known_B as [ledger_B [last_B [eB [B' [d [known_B' [Bd [ed [sd fd]]]]]]]]].
    destruct known_C as [ledger_C [last_C [eC [C' [c [known_C' [Cc [ec [sc fc]]]]]]]]].
    assert (B' = C') by auto. subst C'.
    assert (sound before B' d) as fine_d by (apply finalized_is_sound; repeat split; trivial).
    assert (sound before B' c) as fine_c by (apply finalized_is_sound; repeat split; trivial).
    assert (exists top, sound before B' top /\ on_chain B top /\ on_chain C top)
      as [top [fine [Bt Ct]]].
    { destruct (finalized_on_one_chain before B' d c) as [dc|cd]; trivial.
      - apply fine_d.
      - apply fine_c.
      - exists c. eauto using chain_joins.
      - exists d. eauto using chain_joins. }
    destruct (ancestors_on_one_chain _ _ _ Bt Ct) as [BC|CB].
    + apply (nothing_after_the_last before B'); trivial.
      apply (ledger_ancestor_of_sound before B' top); trivial.
    + symmetry. apply (nothing_after_the_last before B'); trivial.
      apply (ledger_ancestor_of_sound before B' top); trivial.
Qed.

(* A committed block of epoch e is on the chain of what epoch e + 1 continues. *)
Lemma base_covers e B a d next :
  is_ledger a -> on_chain a d -> of_epoch e B d -> finalized d -> base (S e) next ->
  on_chain a next.
Proof.
  intros ledger ad of_d fd known.
  simpl in known. destruct known as [ledger_n [last_n [en [C [c [known_C [nc [ec [sc fc]]]]]]]]].
  assert (C = B) by (apply (one_base e); trivial; apply of_d). subst C.
  assert (of_epoch e B c) as of_c by (repeat split; trivial).
  assert (exists top, sound e B top /\ on_chain a top /\ on_chain next top)
    as [top [fine [at_top next_top]]].
  { destruct (finalized_on_one_chain e B d c) as [dc|cd]; trivial.
    - exists c. eauto using chain_joins, finalized_is_sound.
    - exists d. eauto using chain_joins, finalized_is_sound. }
  destruct (ancestors_on_one_chain _ _ _ at_top next_top) as [fine_order|over]; trivial.
  destruct (ancestor_of_sound _ _ _ a fine at_top) as [fine_a|[B' [known' aB]]].
  - rewrite (nothing_after_the_last e B next a); trivial. constructor.
  - exfalso. destruct (below_a_base _ _ next known') as [genesis|lower].
    + apply (chain_joins next a B'); trivial.
    + now subst.
    + lia.
Qed.

Lemma bases_on_one_chain e : forall later B, e < later -> base later B ->
  exists next, base (S e) next /\ on_chain next B.
Proof.
  induction later as [|before IH]; intros B order known; [lia|].
  destruct (Nat.eq_dec e before) as [here|earlier].
  - subst. exists B. split; trivial. constructor.
  - pose proof known as [ledger [_ [eB [B' [d [known' [Bd [ed [sd fd]]]]]]]]].
    assert (sound before B' d) as fine by (apply finalized_is_sound; repeat split; trivial).
    assert (sound before B' B) as fine_B by (apply (ledger_ancestor_of_sound before B' d); trivial).
    destruct (back_to_base _ _ _ fine_B) as [C [known_C CB]].
    destruct (IH C) as [next [known_n nC]]; trivial; [lia|].
    exists next. split; trivial. apply (chain_joins next C B); trivial.
Qed.

Lemma agreement_when_earlier a b d c e later B C :
  e < later -> is_ledger a ->
  on_chain a d -> of_epoch e B d -> finalized d ->
  on_chain b c -> of_epoch later C c -> finalized c ->
  on_chain a b \/ on_chain b a.
Proof.
  intros order ledger ad of_d fd bc of_c fc.
  assert (sound later C c) as fine by (apply finalized_is_sound; trivial).
  destruct (back_to_base _ _ _ fine) as [C' [known' below]].
  destruct (bases_on_one_chain e later C' order known') as [next [known_n nC]].
  assert (on_chain a next) by (apply (base_covers e B a d); trivial).
  apply (ancestors_on_one_chain a b c); trivial.
  eauto using chain_joins.
Qed.

Lemma agreement_of_epochs a b d c e e' B C :
  (e <> e' -> is_ledger a /\ is_ledger b) ->
  on_chain a d -> of_epoch e B d -> finalized d ->
  on_chain b c -> of_epoch e' C c -> finalized c ->
  on_chain a b \/ on_chain b a.
Proof.
  intros ledgers ad of_d fd bc of_c fc.
  destruct (lt_eq_lt_dec e e') as [[earlier|equal]|later].
  - destruct ledgers; [lia|]. eapply agreement_when_earlier; eauto.
  - subst e'. assert (C = B) by (apply (one_base e); [apply of_c|apply of_d]). subst C.
    destruct (finalized_on_one_chain e B d c) as [dc|cd]; trivial.
    + apply (ancestors_on_one_chain a b c); eauto using chain_joins.
    + apply (ancestors_on_one_chain a b d); eauto using chain_joins.
  - destruct ledgers; [lia|].
    enough (on_chain b a \/ on_chain a b) by tauto.
    eapply agreement_when_earlier; eauto.
Qed.

(* ------------------------------------------------------ heights *)

Lemma base_is_sound e B : base e B -> B = Genesis \/ exists e' B', sound e' B' B.
Proof.
  destruct e as [|before]; intro known; [now left|right].
  pose proof known as [ledger [_ [eB [B' [d [known' [Bd [ed [sd fd]]]]]]]]].
  exists before, B'. apply (ledger_ancestor_of_sound before B' d); trivial.
  apply finalized_is_sound; trivial. repeat split; trivial.
Qed.

(* An ancestor of a sound block is sound, or genesis; heights do not fall, ledger blocks rise. *)
Lemma heights_rise x : forall d e B, sound e B d -> on_chain x d ->
  (x = Genesis \/ exists e' B', sound e' B' x) /\
  height_of x <= height_of d /\
  (is_ledger d -> x = d \/ height_of x < height_of d).
Proof.
  induction d as [|h p IH]; intros e B fine below.
  - inversion below. subst. repeat split; eauto.
  - inversion below as [same_block|h' p' below']; subst.
    + repeat split; eauto.
    + destruct fine as [member cert]. pose proof member as [known [ed members]].
      simpl in ed, members.
      destruct (notarized_by_the_rules _ _ _ _ member cert)
        as [[[same_epoch [same_set [_ shape]]] [cert_p _]]|[[_ [_ [ledger height]]] [known_p _]]].
      * assert (sound e B p) as fine_p by (repeat split; trivial; congruence).
        destruct (IH e B fine_p below') as [stands [order _]].
        split; trivial. simpl. destruct (h_kind h); split; intros; try discriminate; lia.
      * destruct (base_is_sound _ _ known_p) as [genesis|[e' [B' fine_p]]].
        -- subst p. inversion below'. subst. simpl in *. split; [now left|lia].
        -- destruct (IH e' B' fine_p below') as [stands [order _]]. simpl. split; trivial. lia.
Qed.

(* ------------------------------------------------------ the theorems *)

Lemma committed_by b : committed b -> exists e B d,
  on_chain b d /\ of_epoch e B d /\ finalized d.
Proof.
  intros [d [B [below [known [members fin]]]]].
  exists (epoch_of d), B, d. repeat split; trivial.
Qed.

End Proof.

(* Any two ledger blocks with commit proofs, of the same or of different epochs. *)
Theorem agreement : premises -> forall a b,
  is_ledger a -> is_ledger b -> committed a -> committed b ->
  on_chain a b \/ on_chain b a.
Proof.
  intros rules a b ledger_a ledger_b proof_a proof_b.
  destruct (committed_by a proof_a) as [e [B [d [ad [of_d fd]]]]].
  destruct (committed_by b proof_b) as [e' [C [c [bc [of_c fc]]]]].
  apply (agreement_of_epochs rules a b d c e e' B C); auto.
Qed.

(* Blocks finalized in one epoch, tail blocks included. *)
Theorem agreement_within_an_epoch : premises -> forall a b B C,
  epoch_of a = epoch_of b -> base (epoch_of a) B -> base (epoch_of b) C ->
  set_of a = set_after B -> set_of b = set_after C -> finalized a -> finalized b ->
  on_chain a b \/ on_chain b a.
Proof.
  intros rules a b B C epochs known_B known_C sa sb fa fb.
  apply (agreement_of_epochs rules a b a b (epoch_of a) (epoch_of b) B C); trivial;
    try constructor; trivial; try (split; trivial); contradiction.
Qed.

(* No reader ever sees two ledger blocks at one height. *)
Corollary one_block_at_a_height : premises -> forall a b,
  is_ledger a -> is_ledger b -> committed a -> committed b -> height_of a = height_of b -> a = b.
Proof.
  intros rules a b ledger_a ledger_b proof_a proof_b heights.
  assert (forall x, is_ledger x -> committed x -> exists e B, sound e B x) as stands.
  { intros x ledger proof. destruct (committed_by x proof) as [e [B [d [xd [of_d fd]]]]].
    destruct (heights_rise rules x d e B) as [[genesis|found] _]; trivial.
    - apply (finalized_is_sound rules); trivial.
    - now subst. }
  destruct (stands a ledger_a proof_a) as [e [B fine_a]].
  destruct (stands b ledger_b proof_b) as [e' [C fine_b]].
  destruct (agreement rules a b ledger_a ledger_b proof_a proof_b) as [ab|ba].
  - destruct (heights_rise rules a b e' C fine_b ab) as [_ [_ rise]].
    destruct (rise ledger_b); [trivial|lia].
  - destruct (heights_rise rules b a e B fine_a ba) as [_ [_ rise]].
    destruct (rise ledger_a); [auto|lia].
Qed.

(* Each epoch has one validator set, because it continues one block. *)
Corollary one_validator_set_in_an_epoch : premises -> forall e B C,
  base e B -> base e C -> set_after B = set_after C.
Proof. intros rules e B C known_B known_C. f_equal. apply (one_base rules e); trivial. Qed.

(* A reader may take the last ledger block of an epoch from a commit proof of any later epoch. *)
Corollary a_committed_last_block_is_a_base : premises -> forall b,
  is_ledger b -> last_of_epoch b = true -> committed b -> base (S (epoch_of b)) b.
Proof.
  intros rules b ledger last proof.
  destruct (committed_by b proof) as [e [B [d [bd [of_d fd]]]]].
  assert (sound e B d) as fine by (apply (finalized_is_sound rules); trivial).
  destruct (ancestor_of_sound rules _ _ _ b fine bd) as [fine_b|[B' [known' below]]].
  - pose proof of_d as [known [ed sd]]. destruct fine_b as [[_ [eb _]] _]. simpl.
    repeat split; trivial. exists B, d. rewrite eb. repeat split; trivial.
  - destruct (below_a_base rules _ _ _ known' below) as [genesis|earlier]; [now subst|].
    destruct (bases_on_one_chain rules (epoch_of b) e B' earlier known') as [next [known_n nB']].
    enough (next = b) by now subst.
    pose proof known_n as [ledger_n [last_n [en [C [c [known_C [nc [ec [sc fc]]]]]]]]].
    assert (sound (epoch_of b) C c) as fine_c
      by (apply (finalized_is_sound rules); repeat split; trivial).
    assert (sound (epoch_of b) C next) as fine_n
      by (apply (ledger_ancestor_of_sound rules (epoch_of b) C c); trivial).
    destruct (ancestors_on_one_chain _ _ _ nB' below) as [nb|bn].
    + destruct (heights_rise rules b d e B fine bd) as [[genesis|[e' [C' fine_b]]] _]; [now subst|].
      apply (nothing_after_the_last rules (epoch_of b) C'); trivial.
      destruct fine_b as [[known_b [eb sb]] cert]. subst e'. repeat split; trivial.
    + symmetry. apply (nothing_after_the_last rules (epoch_of b) C); trivial.
Qed.

End Agreement.

Arguments premises {validator content}.
