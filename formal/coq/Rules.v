(* The rules of a correct validator, of certificates and of commit proofs.
   Everything here is a definition; what is assumed of validators stands as a premise of a theorem.

   The model says what was ever signed, not when: a certificate that a validator held when it voted
   is one of votes that were signed, so each rule follows from the rule in time (Runs.v). *)
From Coq Require Import List.
From Nocturne Require Import Quorum.

Section Rules.

(* Who votes (a key), and what else a header binds: ranges, roots, time. *)
Variable validator : Type.
Variable content : Type.

Inductive block_kind := Ledger | Tail.

Record header := Header {
  h_kind : block_kind;
  h_epoch : nat;
  h_validators : list validator;
  h_view : nat;
  h_height : nat;
  h_content : content;
}.

(* A header names its parent by digest; digests do not collide, so a block is its whole chain. *)
Inductive block := Genesis | Child (h : header) (parent : block).

Definition is_ledger (b : block) : Prop :=
  match b with Genesis => False | Child h _ => h_kind h = Ledger end.
Definition epoch_of (b : block) : nat := match b with Genesis => 0 | Child h _ => h_epoch h end.
Definition set_of (b : block) : list validator :=
  match b with Genesis => nil | Child h _ => h_validators h end.
Definition view_of (b : block) : nat := match b with Genesis => 0 | Child h _ => h_view h end.
Definition height_of (b : block) : nat := match b with Genesis => 0 | Child h _ => h_height h end.

(* b is a, or a descendant of a. *)
Inductive on_chain (a : block) : block -> Prop :=
| itself : on_chain a a
| further h p : on_chain a p -> on_chain a (Child h p).

(* What the chain up to a block decides: whether it is its epoch's last ledger block (its height, or
   an epoch-end control record), and the validators of the epoch after it. Any functions. *)
Variable last_of_epoch : block -> bool.
Variable set_after : block -> list validator.

(* A vote signs epoch, validator set and view, two of them by the digest. *)
Inductive vote :=
| Notarize (b : block)
| Nullify (epoch : nat) (members : list validator) (view : nat)
| Finalize (b : block).

Definition slot : Type := nat * list validator * nat.
Definition slot_of (b : block) : slot := (epoch_of b, set_of b, view_of b).

(* Every vote that was ever signed, by anyone. *)
Variable signed : validator -> vote -> Prop.

Definition certificate (members : list validator) (v : vote) : Prop :=
  exists voters, is_quorum validator members voters /\ forall i, In i voters -> signed i v.

(* Not(b), Fin(b), and Nul of every view between. *)
Definition notarized (b : block) : Prop := certificate (set_of b) (Notarize b).
Definition finalized (b : block) : Prop := certificate (set_of b) (Finalize b).
Definition nullified_between (h : header) (from : nat) : Prop :=
  forall u, from < u -> u < h_view h ->
  certificate (h_validators h) (Nullify (h_epoch h) (h_validators h) u).

(* B is what epoch e continues: genesis, or the last ledger block of the epoch before, with a commit
   proof by that epoch's validators. *)
Fixpoint base (e : nat) (B : block) : Prop :=
  match e with
  | 0 => B = Genesis
  | S before =>
      is_ledger B /\ last_of_epoch B = true /\ epoch_of B = before /\
      exists B' d, base before B' /\
        on_chain B d /\ epoch_of d = before /\ set_of d = set_after B' /\ finalized d
  end.

(* What a reader accepts: Fin of the block or of a descendant, in any later epoch, by the validators
   that the chain names for that epoch. Nothing is asked of the headers between. *)
Definition committed (b : block) : Prop :=
  exists d B, on_chain b d /\
    base (epoch_of d) B /\ set_of d = set_after B /\ finalized d.

(* ------------------------------------------------------ a correct validator *)

(* The header fits its parent, within an epoch: no ledger block stands on a tail block or on the
   epoch's last ledger block. (That tail blocks stand nowhere else is a rule too, not needed.) *)
Definition fits_inside (h : header) (p : block) : Prop :=
  h_epoch h = epoch_of p /\ h_validators h = set_of p /\ view_of p < h_view h /\
  match h_kind h with
  | Ledger => is_ledger p /\ last_of_epoch p = false /\ h_height h = S (height_of p)
  | Tail => h_height h = height_of p
  end.

(* And for an epoch's first block: views start again at 1, the validators are the chain's. *)
Definition fits_first (h : header) (p : block) : Prop :=
  h_validators h = set_after p /\ 0 < h_view h /\
  h_kind h = Ledger /\ h_height h = S (height_of p).

Definition may_notarize (h : header) (p : block) : Prop :=
  (fits_inside h p /\ notarized p /\ nullified_between h (view_of p)) \/
  (fits_first h p /\ base (h_epoch h) p /\ nullified_between h 0).

Definition K1 (i : validator) : Prop := forall a b,
  signed i (Notarize a) -> signed i (Notarize b) -> slot_of a = slot_of b -> a = b.

Definition K2 (i : validator) : Prop := forall h p,
  signed i (Notarize (Child h p)) -> may_notarize h p.

Definition K3 (i : validator) : Prop := forall b,
  signed i (Finalize b) ->
  notarized b /\ ~ signed i (Nullify (epoch_of b) (set_of b) (view_of b)).

Variable byzantine : validator -> bool.

Definition correct_obey : Prop := forall i, byzantine i = false -> K1 i /\ K2 i /\ K3 i.

(* At most f of the n validators of each epoch that the chain came to. *)
Definition few_byzantine : Prop := forall e B,
  base e B -> at_most_faulty validator byzantine (set_after B).

End Rules.

Arguments Header {validator content}.
Arguments h_kind {validator content}.
Arguments h_epoch {validator content}.
Arguments h_validators {validator content}.
Arguments h_view {validator content}.
Arguments h_height {validator content}.
Arguments Genesis {validator content}.
Arguments Child {validator content}.
Arguments Notarize {validator content}.
Arguments Nullify {validator content}.
Arguments Finalize {validator content}.
Arguments is_ledger {validator content}.
Arguments epoch_of {validator content}.
Arguments set_of {validator content}.
Arguments view_of {validator content}.
Arguments height_of {validator content}.
Arguments on_chain {validator content}.
Arguments itself {validator content}.
Arguments further {validator content}.
Arguments slot_of {validator content}.
Arguments certificate {validator content}.
Arguments notarized {validator content}.
Arguments finalized {validator content}.
Arguments base {validator content}.
Arguments committed {validator content}.
Arguments may_notarize {validator content}.
Arguments correct_obey {validator content}.
Arguments few_byzantine {validator content}.
