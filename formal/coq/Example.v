(* The premises can be met, and something is then committed: two epochs of four validators, one
   Byzantine, with a skipped view, a tail block, and a validator that the second epoch replaced. *)
From Coq Require Import Arith Lia List.
From Nocturne Require Import Quorum Rules Agreement.
Import ListNotations.

Local Notation block := (block nat nat).
Definition byzantine (i : nat) : bool := i =? 3.
Definition first_set : list nat := [0; 1; 2; 3].
Definition second_set : list nat := [0; 1; 3; 4].

(* An epoch has one height. *)
Definition last_of_epoch (b : block) : bool :=
  match b with
  | Genesis => false
  | Child h _ => match h_kind h with Ledger => true | Tail => false end
  end.
Definition set_after (b : block) : list nat :=
  match b with Genesis => first_set | _ => second_set end.

Definition make kind epoch members view height content (parent : block) : block :=
  Child (Header kind epoch members view height content) parent.

Definition one : block := make Ledger 0 first_set 1 1 7 Genesis.
Definition other : block := make Ledger 0 first_set 1 1 8 Genesis.
Definition tail : block := make Tail 0 first_set 3 1 0 one.
Definition two : block := make Ledger 1 second_set 1 2 9 one.

Definition votes : list (nat * vote nat nat) :=
  (* Validator 3 proposed two blocks in view 1, and signs whatever there is. *)
  [(0, Notarize one); (1, Notarize one); (3, Notarize one);
   (2, Notarize other); (3, Notarize other);
   (3, Finalize other); (3, Nullify 0 first_set 1); (3, Nullify 0 first_set 3);
   (2, Nullify 0 first_set 1);
   (0, Nullify 0 first_set 2); (1, Nullify 0 first_set 2); (2, Nullify 0 first_set 2);
   (0, Notarize tail); (1, Notarize tail); (2, Notarize tail);
   (0, Finalize tail); (1, Finalize tail); (2, Finalize tail);
   (0, Notarize two); (1, Notarize two); (4, Notarize two);
   (0, Finalize two); (1, Finalize two); (3, Finalize two)].

Definition signed (i : nat) (v : vote nat nat) : Prop := In (i, v) votes.

Ltac by_votes voters :=
  exists voters; split;
  [ split; [repeat constructor; simpl; intuition discriminate
           | split; [intros i found; simpl in *; intuition | reflexivity]]
  | intros i found; simpl in found;
    repeat (destruct found as [<-|found]; [unfold signed, votes; simpl; tauto|]); contradiction ].

Lemma one_is_notarized : notarized signed one.
Proof. by_votes [0; 1; 3]. Qed.
Lemma tail_is_notarized : notarized signed tail.
Proof. by_votes [0; 1; 2]. Qed.
Lemma two_is_notarized : notarized signed two.
Proof. by_votes [0; 1; 4]. Qed.
Lemma tail_is_finalized : finalized signed tail.
Proof. by_votes [0; 1; 2]. Qed.
Lemma two_is_finalized : finalized signed two.
Proof. by_votes [0; 1; 3]. Qed.
Lemma view_2_is_nullified : certificate signed first_set (Nullify 0 first_set 2).
Proof. by_votes [0; 1; 2]. Qed.

Lemma second_epoch_continues_one : base last_of_epoch set_after signed 1 one.
Proof.
  repeat split; trivial. exists Genesis, tail. repeat split; trivial.
  - repeat constructor.
  - exact tail_is_finalized.
Qed.

(* Every vote of the list, one after another. *)
Ltac each_vote found :=
  unfold signed, votes in found; simpl in found;
  repeat (destruct found as [found|found]; [try discriminate; injection found; intros; subst|]);
  try contradiction.

Lemma correct_ones_obey : correct_obey last_of_epoch set_after signed byzantine.
Proof.
  intros i good. split; [|split].
  - intros a b va vb slots. each_vote va; try discriminate good;
      each_vote vb; try discriminate; reflexivity.
  - intros h p voted.
    assert (In (Child h p) [one; other; tail; two]) as which.
    { each_vote voted; simpl; tauto. }
    assert (forall u, 0 < u -> u < 1 -> False) as no_view by lia.
    simpl in which. destruct which as [this|[this|[this|[this|[]]]]]; injection this as <- <-.
    + right. repeat split; trivial; simpl; try lia. intros u low high. simpl in high. lia.
    + right. repeat split; trivial; simpl; try lia. intros u low high. simpl in high. lia.
    + left. repeat split; trivial; simpl; try lia.
      * exact one_is_notarized.
      * intros u low high. simpl in low, high. replace u with 2 by lia. exact view_2_is_nullified.
    + right. repeat split; trivial; simpl; try lia.
      * exists Genesis, tail. repeat split; trivial; [repeat constructor|exact tail_is_finalized].
      * intros u low high. simpl in high. lia.
  - intros b voted. each_vote voted; try discriminate good; split;
      try exact tail_is_notarized; try exact two_is_notarized;
      intro nul; each_vote nul; try discriminate.
Qed.

Lemma few_are_byzantine : few_byzantine last_of_epoch set_after signed byzantine.
Proof. intros e B _. destruct B; unfold at_most_faulty; simpl; apply le_n. Qed.

Theorem two_epochs_are_possible :
  premises byzantine last_of_epoch set_after signed /\
  committed last_of_epoch set_after signed one /\
  committed last_of_epoch set_after signed two /\
  set_of one <> set_of two.
Proof.
  split; [split; [exact correct_ones_obey|exact few_are_byzantine]|].
  split; [|split].
  - exists tail, Genesis. repeat split; trivial; [repeat constructor|exact tail_is_finalized].
  - exists two, one. split; [constructor|]. split; [exact second_epoch_continues_one|].
    split; [reflexivity|exact two_is_finalized].
  - discriminate.
Qed.
