package wire

import (
	"bytes"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"slices"
)

// Ed25519 is the only suite that is accepted.
const Ed25519 = 1

// PublicKey is a public key of one suite.
type PublicKey struct {
	Suite int64
	Bytes []byte
}

// Key is one public key a suite, suites ascending.
type Key []PublicKey

// Signature is one suite's signature; KeyID is the id of the whole key.
type Signature struct {
	Suite int64
	KeyID Hash
	Bytes []byte
}

// Key reads or writes a key.
func (c *Codec) Key(k *Key) {
	Array(c, (*[]PublicKey)(k), func(p *PublicKey) {
		c.Long(&p.Suite)
		c.Bytes(&p.Bytes)
	})
}

// Signatures reads or writes a list of signatures.
func (c *Codec) Signatures(list *[]Signature) {
	Array(c, list, func(s *Signature) {
		c.Long(&s.Suite)
		c.Fixed(s.KeyID[:])
		c.Bytes(&s.Bytes)
	})
}

// Bytes is the form of a key that is hashed.
func (k Key) Bytes() []byte {
	var b []byte
	for _, p := range k {
		b = append(append(b, byte(p.Suite)), Variable(p.Bytes)...)
	}
	return b
}

// ID is the key's id.
func (k Key) ID() Hash { return Sum("nocturne/key/v1", k.Bytes()) }

// Equal says whether two keys are the same.
func (k Key) Equal(other Key) bool { return bytes.Equal(k.Bytes(), other.Bytes()) }

// Check says why a key is not accepted.
func (k Key) Check() error {
	if len(k) != 1 || k[0].Suite != Ed25519 || len(k[0].Bytes) != ed25519.PublicKeySize {
		return errors.New("expected a key of exactly one Ed25519 public key")
	}
	return nil
}

// Verify says whether the list is this key's signature of the message under the tag.
func (k Key) Verify(tag string, message []byte, list []Signature) bool {
	if k.Check() != nil || len(list) != len(k) {
		return false
	}
	signed := slices.Concat(domain(tag), Variable([]byte{Ed25519}), message)
	s := list[0]
	return s.Suite == Ed25519 && s.KeyID == k.ID() && verifyEd25519(k[0].Bytes, signed, s.Bytes)
}

// The prime 2^255−19, and the y of all points of small order, little-endian, without sign.
var (
	prime  = append(append([]byte{0xed}, bytes.Repeat([]byte{0xff}, 30)...), 0x7f)
	smallY = [][]byte{
		make([]byte, 32),
		append([]byte{1}, make([]byte, 31)...),
		append(append([]byte{0xec}, bytes.Repeat([]byte{0xff}, 30)...), 0x7f),
		fromHex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
		fromHex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
	}
)

func fromHex(s string) []byte {
	b, _ := hex.DecodeString(s)
	return b
}

// sound says whether a point's bytes are canonical and not of small order.
func sound(point []byte) bool {
	y := bytes.Clone(point)
	y[31] &= 0x7f
	for _, small := range smallY {
		if bytes.Equal(y, small) {
			return false
		}
	}
	for i := 31; i >= 0; i-- {
		if y[i] != prime[i] {
			return y[i] < prime[i]
		}
	}
	return false
}

// verifyEd25519 is the standard library's check (S below the order, no cofactor) and, beyond it,
// that neither point was made weak on purpose.
func verifyEd25519(public, message, signature []byte) bool {
	return len(public) == ed25519.PublicKeySize && len(signature) == ed25519.SignatureSize &&
		sound(public) && sound(signature[:32]) && ed25519.Verify(public, message, signature)
}
