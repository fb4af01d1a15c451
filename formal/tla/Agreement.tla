----------------------------- MODULE Agreement -----------------------------
(***************************************************************************)
(* The rules K1, K2, K3 of correct validators, commit proofs, and epochs.  *)
(* Byzantine validators have signed everything from the start, which is    *)
(* the most that they can do. Every rule is a constant: with one dropped,  *)
(* Agreement must break. formal/check.py has the values.                   *)
(***************************************************************************)
EXTENDS Integers, FiniteSets, Sequences, TLC

CONSTANTS
    Correct,             \* the validators that obey the rules
    Byzantine,           \* how many others there are
    Contents,            \* what tells blocks of one view and parent apart
    Views,               \* views 1 .. Views in the first epoch
    Epochs,              \* how many epochs there are, one or two
    EpochLength,         \* heights of an epoch
    LaterViews,          \* views 1 .. LaterViews in the second epoch
    FinalizesLast,       \* TRUE: votes to finalize come after all others, see Finalizers

    K1,                  \* notarizes at most one block in a view
    K2Parent,            \* notarizes only holding Not(parent)
    K2Between,           \* notarizes only holding Nul of every view between
    K2Epoch,             \* and an epoch's first block only holding its parent's commit proof
    K3Excludes,          \* never both finalizes and nullifies a view
    K3Notarized,         \* finalizes only holding Not
    TailsOnly,           \* past an epoch's last height, notarizes only tail blocks
    OneVoteLess,         \* TRUE: q - 1 votes make a certificate
    NotarizationProves   \* TRUE: Not is taken for a commit proof

Validators == Cardinality(Correct) + Byzantine
Faulty(n) == (n - 1) \div 3
Quorum(n) == (n + Faulty(n)) \div 2 + 1

ASSUME Byzantine <= Faulty(Validators)
ASSUME FinalizesLast => Epochs = 1

VARIABLES notarized, nullified, finalized  \* the votes of each correct validator
votes == <<notarized, nullified, finalized>>

-----------------------------------------------------------------------------
(* A block is its chain from genesis: the headers, the last one its own.   *)

Genesis == << >>
Last(b) == b[Len(b)]
Parent(b) == SubSeq(b, 1, Len(b) - 1)
View(b) == IF b = Genesis THEN 0 ELSE Last(b).view
Epoch(b) == IF b = Genesis THEN -1 ELSE Last(b).epoch
IsLedger(b) == b # Genesis /\ Last(b).kind = "ledger"
IsFirst(b) == Epoch(Parent(b)) # Epoch(b)
OnChain(a, b) == Len(a) <= Len(b) /\ SubSeq(b, 1, Len(a)) = a

Height(b) == Cardinality({k \in 1 .. Len(b) : b[k].kind = "ledger"})
LastHeight(epoch) == (epoch + 1) * EpochLength
IsOver(b) == b = Genesis \/ Height(b) >= LastHeight(Epoch(b))
EndsEpoch(b) == b = Genesis \/ (IsLedger(b) /\ Height(b) = LastHeight(Epoch(b)))
ViewsOf(epoch) == 1 .. (IF epoch = 0 THEN Views ELSE LaterViews)

LedgerHeaders(epoch, view) ==
    {[kind |-> "ledger", epoch |-> epoch, view |-> view, content |-> x] : x \in Contents}
TailHeaders(epoch, view) == {[kind |-> "tail", epoch |-> epoch, view |-> view]}

(* The headers that fit a block. *)
Inside(b) ==
    IF b = Genesis THEN {}
    ELSE UNION {(IF IsOver(b) THEN TailHeaders(Epoch(b), v) ELSE {})
                \cup (IF IsOver(b) /\ TailsOnly THEN {} ELSE LedgerHeaders(Epoch(b), v))
                : v \in {v \in ViewsOf(Epoch(b)) : v > View(b)}}
First(b) ==
    IF EndsEpoch(b) /\ Epoch(b) + 1 < Epochs
    THEN UNION {LedgerHeaders(Epoch(b) + 1, v) : v \in ViewsOf(Epoch(b) + 1)}
    ELSE {}

RECURSIVE Chains(_)
Chains(length) ==
    IF length = 0 THEN {Genesis}
    ELSE LET shorter == Chains(length - 1) IN
         shorter \cup UNION {{Append(b, h) : h \in Inside(b) \cup First(b)} : b \in shorter}
Blocks == Chains(Views + LaterViews) \ {Genesis}
AtOrAbove == [b \in Blocks |-> {d \in Blocks : OnChain(b, d)}]

-----------------------------------------------------------------------------
(* Certificates are votes of correct validators and all Byzantine ones.    *)

IsQuorum(voters) ==
    Cardinality(voters) + Byzantine >= Quorum(Validators) - (IF OneVoteLess THEN 1 ELSE 0)
Not(b) == b = Genesis \/ IsQuorum({i \in Correct : b \in notarized[i]})
Nul(epoch, view) == IsQuorum({i \in Correct : <<epoch, view>> \in nullified[i]})

(* A vote to finalize permits nothing else within an epoch, so a run in    *)
(* which it comes last shows as much: then whoever still may has cast it.  *)
Finalizers(b) ==
    IF FinalizesLast
    THEN {i \in Correct : /\ K3Notarized => Not(b)
                          /\ K3Excludes => <<Epoch(b), View(b)>> \notin nullified[i]}
    ELSE {i \in Correct : b \in finalized[i]}
Fin(b) == IsQuorum(Finalizers(b))

(* Fin of the block or of a descendant. *)
CommitProof(b) ==
    \E d \in AtOrAbove[b] : (Fin(d) \/ (NotarizationProves /\ Not(d)))

-----------------------------------------------------------------------------
Init ==
    /\ notarized = [i \in Correct |-> {}]
    /\ nullified = [i \in Correct |-> {}]
    /\ finalized = [i \in Correct |-> {}]

MayFollow(b) ==
    LET from == IF IsFirst(b) THEN 0 ELSE View(Parent(b)) IN
    /\ K2Between => \A u \in (from + 1) .. (View(b) - 1) : Nul(Epoch(b), u)
    /\ IF IsFirst(b) /\ K2Epoch
       THEN Parent(b) # Genesis => CommitProof(Parent(b))
       ELSE K2Parent => Not(Parent(b))

Notarize(i, b) ==
    /\ b \notin notarized[i]
    /\ K1 => \A a \in notarized[i] : <<Epoch(a), View(a)>> # <<Epoch(b), View(b)>>
    /\ MayFollow(b)
    /\ notarized' = [notarized EXCEPT ![i] = @ \cup {b}]
    /\ UNCHANGED <<nullified, finalized>>

Nullify(i, epoch, view) ==
    /\ <<epoch, view>> \notin nullified[i]
    /\ K3Excludes => \A b \in finalized[i] : <<Epoch(b), View(b)>> # <<epoch, view>>
    /\ nullified' = [nullified EXCEPT ![i] = @ \cup {<<epoch, view>>}]
    /\ UNCHANGED <<notarized, finalized>>

Finalize(i, b) ==
    /\ ~FinalizesLast
    /\ b \notin finalized[i]
    /\ K3Notarized => Not(b)
    /\ K3Excludes => <<Epoch(b), View(b)>> \notin nullified[i]
    /\ finalized' = [finalized EXCEPT ![i] = @ \cup {b}]
    /\ UNCHANGED <<notarized, nullified>>

Next == \E i \in Correct :
    \/ \E b \in Blocks : Notarize(i, b) \/ Finalize(i, b)
    \/ \E epoch \in 0 .. (Epochs - 1) : \E view \in ViewsOf(epoch) : Nullify(i, epoch, view)

Spec == Init /\ [][Next]_votes

-----------------------------------------------------------------------------
(* Two blocks conflict if they are on no one chain: any two of one epoch,  *)
(* and ledger blocks of different epochs.                                  *)
Conflicts == {<<a, b>> \in Blocks \X Blocks :
    /\ ~OnChain(a, b) /\ ~OnChain(b, a)
    /\ Epoch(a) = Epoch(b) \/ (IsLedger(a) /\ IsLedger(b))}

Agreement ==
    LET committed == {b \in Blocks : CommitProof(b)} IN
    \A a, b \in committed : <<a, b>> \notin Conflicts

(* Must break: else the models above would show nothing. *)
NothingCommitted == \A b \in Blocks : ~CommitProof(b)
OneEpochCommitted == \A b \in Blocks : CommitProof(b) => Epoch(b) = 0

(* Nothing tells one correct validator, or one content, from another. *)
Alike == Permutations(Correct) \cup Permutations(Contents)
=============================================================================
