"""Two validators prove who they are; nobody else passes for one of them."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nocturne.consensus import handshake
from nocturne.consensus.handshake import Called, Calling, Opener, Role, Sealer
from nocturne.core.errors import PeerFault
from nocturne.core.identifiers import LedgerId
from nocturne.core.keys import Ed25519Signer
from nocturne.wire.consensus.v1.exchange_pb2 import Content, Envelope, Hello, Proof, Sealed

LEDGER = LedgerId(b"L" * 32)
OTHER_LEDGER = LedgerId(b"M" * 32)
A, B, MALLORY = (Ed25519Signer(bytes([number]) * 32) for number in (1, 2, 3))

_secrets = iter(range(1, 1_000_000))


def secret() -> bytes:
    """Another one each time."""
    return next(_secrets).to_bytes(32, "big")


def calling(signer: Ed25519Signer = A, ledger: LedgerId = LEDGER) -> Calling:
    return Calling(ledger, signer, secret())


def called(signer: Ed25519Signer = B, ledger: LedgerId = LEDGER) -> Called:
    return Called(ledger, signer, secret())


@dataclass(frozen=True)
class Met:
    """Both ends after a handshake, and what was said in it."""

    caller: tuple[Sealer, Opener]
    called: tuple[Sealer, Opener]
    hello: bytes
    answer: bytes
    proof: bytes


def meet(caller: Calling, other: Called) -> Met:
    hello = caller.hello()
    assert other.hear_hello(hello).key == A.key
    answer = other.hello()
    assert caller.hear_hello(answer) == B.key
    proof = caller.proof()
    other.hear_proof(proof)
    return Met(caller.seals(), other.seals(), hello, answer, proof)


def test_two_validators_know_each_other_and_what_either_says() -> None:
    met = meet(calling(), called())
    for (sealer, _), (_, opener) in ((met.caller, met.called), (met.called, met.caller)):
        for number in range(3):
            content = Content(values=[b"value", b"%d" % number], ping=number)
            assert opener.open(sealer.seal(content)) == content


def test_an_answer_of_another_stream_is_refused() -> None:
    earlier = meet(calling(), called())
    caller = calling()
    with pytest.raises(PeerFault, match="did not sign"):
        caller.hear_hello(earlier.answer)


def test_a_proof_of_another_stream_is_refused() -> None:
    earlier = meet(calling(), called())
    other = called()
    other.hear_hello(earlier.hello)
    other.hello()
    with pytest.raises(PeerFault, match="did not sign"):
        other.hear_proof(earlier.proof)


def test_ones_own_hello_reflected_is_refused() -> None:
    caller = calling()
    with pytest.raises(PeerFault, match="key of the one who calls"):
        caller.hear_hello(caller.hello())


def test_the_calleds_own_signature_is_no_proof_of_the_caller() -> None:
    """Mallory calls B with B's key, and sends B's signature back."""
    other = called()
    mallory = Calling(LEDGER, MALLORY, secret())
    hello = Envelope.FromString(mallory.hello())
    hello.hello.key = handshake.key_bytes(B.key)
    other.hear_hello(hello.SerializeToString())
    answer = Envelope.FromString(other.hello())
    proof = Envelope(proof=Proof(signatures=answer.hello.signatures))
    with pytest.raises(PeerFault, match="did not sign"):
        other.hear_proof(proof.SerializeToString())


def test_a_proof_in_the_other_role_is_refused() -> None:
    caller, other = calling(), called()
    other.hear_hello(caller.hello())
    caller.hear_hello(other.hello())
    as_called = handshake._proof(
        A.sign(handshake._HANDSHAKE, handshake._of(Role.CALLED, caller._statement))
    )
    with pytest.raises(PeerFault, match="did not sign"):
        other.hear_proof(as_called)


def test_another_ledger_is_refused_in_words_by_either_end() -> None:
    with pytest.raises(PeerFault, match="another ledger"):
        called().hear_hello(calling(ledger=OTHER_LEDGER).hello())
    elsewhere = called(ledger=OTHER_LEDGER)
    elsewhere.hear_hello(calling(ledger=OTHER_LEDGER).hello())
    with pytest.raises(PeerFault, match="another ledger"):
        calling().hear_hello(elsewhere.hello())


def test_a_signature_for_another_ledger_is_none_here() -> None:
    """The same shares and keys, signed on a ledger that has the same validators."""
    caller_secret, called_secret = secret(), secret()
    there = Called(OTHER_LEDGER, B, called_secret)
    there.hear_hello(Calling(OTHER_LEDGER, A, caller_secret).hello())
    answer = Envelope.FromString(there.hello())
    answer.hello.ledger_id = LEDGER
    with pytest.raises(PeerFault, match="did not sign"):
        Calling(LEDGER, A, caller_secret).hear_hello(answer.SerializeToString())


def test_who_has_not_the_key_that_it_says_is_refused() -> None:
    caller, other = calling(MALLORY), called()
    hello = Envelope.FromString(caller.hello())
    hello.hello.key = handshake.key_bytes(A.key)
    assert other.hear_hello(hello.SerializeToString()).key == A.key
    forged = handshake._proof(
        MALLORY.sign(handshake._HANDSHAKE, handshake._of(Role.CALLER, other._statement))
    )
    with pytest.raises(PeerFault, match="did not sign"):
        other.hear_proof(forged)


def test_swapped_keys_are_refused() -> None:
    """Mallory passes A's hello on as her own, to have B's words to her taken for words to A."""
    caller, other = calling(), called()
    hello = Envelope.FromString(caller.hello())
    hello.hello.key = handshake.key_bytes(MALLORY.key)
    other.hear_hello(hello.SerializeToString())
    with pytest.raises(PeerFault, match="did not sign"):
        caller.hear_hello(other.hello())


def test_another_share_than_the_signed_one_is_refused() -> None:
    """Who stands between puts in a share of its own, to know the keys of what follows."""
    caller, other = calling(), called()
    other.hear_hello(caller.hello())
    answer = Envelope.FromString(other.hello())
    answer.hello.share = calling(MALLORY).own.share
    with pytest.raises(PeerFault, match="did not sign"):
        caller.hear_hello(answer.SerializeToString())


def test_a_share_of_small_order_is_refused() -> None:
    """Its common secret would be no secret."""
    caller = calling()
    caller.own = handshake.End(A.key, bytes(32))
    other = called()
    other.hear_hello(caller.hello())
    with pytest.raises(PeerFault, match="share"):
        other.seals()


def test_a_caller_that_signs_before_it_is_asked_is_refused() -> None:
    met = meet(calling(), called())
    with pytest.raises(PeerFault, match="no signature"):
        called().hear_hello(met.answer)


@pytest.mark.parametrize("spoil", ["again", "skipped", "altered", "reflected", "mac", "unsealed"])
def test_an_envelope_that_the_peer_did_not_seal_next_is_refused(spoil: str) -> None:
    met = meet(calling(), called())
    sealer, _ = met.caller
    _, opener = met.called
    first, second = (sealer.seal(Content(values=[one])) for one in (b"1", b"2"))
    parted = Envelope.FromString(first)
    parted.sealed.content += b"\x0a\x01x"
    without = Envelope(sealed=Sealed(content=Content(values=[b"1"]).SerializeToString()))
    sent = {
        "again": first,
        "skipped": second,
        "altered": parted.SerializeToString(),
        "reflected": met.called[0].seal(Content(values=[b"1"])),
        "mac": without.SerializeToString(),
        "unsealed": met.hello,
    }[spoil]
    if spoil == "again":
        opener.open(first)
    with pytest.raises(PeerFault):
        opener.open(sent)


def test_more_values_than_an_envelope_may_have_are_refused() -> None:
    met = meet(calling(), called())
    full = Content(values=[b""] * handshake.VALUES_MAX)
    assert met.called[1].open(met.caller[0].seal(full)) == full
    with pytest.raises(PeerFault, match="at most"):
        met.called[1].open(met.caller[0].seal(Content(values=[b""] * (handshake.VALUES_MAX + 1))))


@pytest.mark.parametrize(
    "hello",
    [
        Hello(ledger_id=LEDGER, key=b"", share=b"s" * 32),
        Hello(ledger_id=LEDGER, key=handshake.key_bytes(A.key)[:-1], share=b"s" * 32),
        Hello(ledger_id=LEDGER, key=handshake.key_bytes(A.key) * 2, share=b"s" * 32),
        Hello(ledger_id=LEDGER, key=b"\x02" + handshake.key_bytes(A.key)[1:], share=b"s" * 32),
        Hello(ledger_id=LEDGER, key=handshake.key_bytes(A.key), share=b"s" * 31),
        Hello(ledger_id=LEDGER, key=handshake.key_bytes(A.key), share=b"s" * 32, signatures=b"x"),
        Hello(ledger_id=LEDGER, key=b"\x01\xff\xff\xff\xff", share=b"s" * 32),
        Hello(ledger_id=LEDGER, key=handshake.key_bytes(A.key), share=b"s" * 17_000),
    ],
)
def test_a_hello_that_is_not_well_formed_is_refused(hello: Hello) -> None:
    with pytest.raises(PeerFault):
        called().hear_hello(Envelope(hello=hello).SerializeToString())


@given(data=st.binary(max_size=400))
def test_any_bytes_are_refused_and_nothing_else_happens(data: bytes) -> None:
    met = meet(calling(), called())
    for hear in (called().hear_hello, calling().hear_hello, met.called[1].open):
        with pytest.raises(PeerFault):
            hear(data)
    other = called()
    other.hear_hello(calling().hello())
    with pytest.raises(PeerFault):
        other.hear_proof(data)


@given(at=st.integers(min_value=0), flip=st.integers(1, 255))
def test_a_changed_byte_anywhere_ends_it(at: int, flip: int) -> None:
    caller, other = calling(), called()

    def changed(data: bytes) -> bytes:
        place = at % len(data)
        return data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :]

    try:
        other.hear_hello(changed(caller.hello()))
    except PeerFault:
        return
    with pytest.raises(PeerFault):
        caller.hear_hello(other.hello())
